"""Position embeddings: a fixed table, and moving a table to another grid."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vitlib.arguments import (
    as_pair,
    require_choice,
    require_float,
    require_tensor,
    require_whole,
)


def sincos_2d(grid_size: int | tuple[int, int], embed_dim: int) -> Tensor:
    """Write down where each patch sits, in sines and cosines.

    The first half of a row encodes the column, the second half the row of the
    patch, each as sines and then cosines at e/4 frequencies from 1 down to
    nearly 1/10000.

    Args:
        grid_size: (rows, cols) of the patch grid, or one number for a square.
        embed_dim: Length of a token, e; a multiple of 4.
    Shape:
        -> (rows*cols, e), row-major like the patches
    Raises:
        ValueError: embed_dim is not a multiple of 4.
    Reference:
        Vaswani et al. 2017, sec. 3.5, made two-dimensional as in Chen et al.
        2021 (MoCo v3). Chapter 03.
    """
    rows, cols = as_pair("grid_size", grid_size)
    require_whole("embed_dim", embed_dim)
    if embed_dim % 4:
        raise ValueError(
            f"embed_dim {embed_dim} is not a multiple of 4: a sine and a cosine for "
            f"each of two axes need one; give {embed_dim // 4 * 4 + 4}"
        )
    # Angles in double precision: far cells turn a small error into a large one.
    steps = torch.arange(embed_dim // 4, dtype=torch.float64)
    frequencies = 10000.0 ** (-steps / (embed_dim // 4))  # (e/4)
    row, col = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(cols, dtype=torch.float64),
        indexing="ij",
    )
    row_angles = torch.outer(row.flatten(), frequencies)  # (n, e/4)
    col_angles = torch.outer(col.flatten(), frequencies)  # (n, e/4)
    parts = [col_angles.sin(), col_angles.cos(), row_angles.sin(), row_angles.cos()]
    return torch.cat(parts, dim=1).float()  # (n, e)


def resample_pos_embed(
    pos_embed: Tensor,
    old_grid: int | tuple[int, int],
    new_grid: int | tuple[int, int],
    mode: str = "bicubic",
) -> Tensor:
    """Stretch a learned position table to another grid of patches.

    The patches' rows are read as an image of e channels and resized with
    antialiasing; rows in front of them (the class token's) are kept as they are.

    Args:
        pos_embed: The table, as the model stores it.
        old_grid: (rows, cols) it was learned for, or one number for a square.
        new_grid: (rows, cols) to stretch it to, or one number for a square.
        mode: "bicubic" or "bilinear".
    Shape:
        pos_embed (1, T, e) -> (1, T', e), where T is rows*cols or rows*cols + 1
    Raises:
        ValueError: T fits old_grid neither with nor without a class token;
            unknown mode.
    Reference:
        Dosovitskiy et al. 2021, sec. 3.2. Chapters 03 and 14.
    """
    require_tensor("pos_embed", pos_embed, "1 T e")
    if pos_embed.shape[0] != 1 or pos_embed.shape[2] == 0:
        raise ValueError(
            f"pos_embed has shape {tuple(pos_embed.shape)}: give one table, (1, T, e)"
        )
    require_float("pos_embed", pos_embed)
    require_choice("mode", mode, ("bicubic", "bilinear"))
    rows, cols = as_pair("old_grid", old_grid)
    new_rows, new_cols = as_pair("new_grid", new_grid)
    prefix = pos_embed.shape[1] - rows * cols
    if prefix not in (0, 1):
        raise ValueError(
            f"pos_embed has {pos_embed.shape[1]} rows, but a grid of {rows}x{cols} "
            f"needs {rows * cols}, or {rows * cols + 1} with a class token: "
            "correct old_grid"
        )
    if (new_rows, new_cols) == (rows, cols):
        return pos_embed
    table = rearrange(
        pos_embed[:, prefix:], "1 (rows cols) e -> 1 e rows cols", rows=rows
    )
    # Half precision has no bicubic kernel on every device.
    precise = torch.promote_types(pos_embed.dtype, torch.float32)
    table = F.interpolate(
        table.to(precise), size=(new_rows, new_cols), mode=mode, antialias=True
    ).to(pos_embed.dtype)
    table = rearrange(table, "1 e rows cols -> 1 (rows cols) e")
    return torch.cat([pos_embed[:, :prefix], table], dim=1)
