"""Looking inside a ViT: its attention, its positions, and what it needs to see."""

import math
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from vitlib.arguments import (
    as_pair,
    require_float,
    require_number,
    require_tensor,
    require_whole,
)
from vitlib.attention import attention_weights
from vitlib.patches import grid_of
from vitlib.vit import ViT

# How far a row may be from 1: bfloat16 rounds each weight by up to 0.4 %.
ROW_TOLERANCE = 0.01


@torch.no_grad()
def record_attention(model: ViT, images: Tensor) -> Tensor:
    """Write down how much every token attends to every token, in every block.

    The fused kernel returns no weights. So hooks catch the queries and keys that
    leave each block's `qkv` layer, on both attention paths alike, and
    `attention_weights` is computed from them: in float32 even if the model runs in
    half precision or under autocast. The model's own arithmetic is not touched, and
    the hooks are gone afterwards, also after an error.

    In training, dropout would change the tokens and cut holes into the weights, and
    DropPath would ignore whole branches. The model must therefore be in eval mode.

    The table grows with the square of the tokens: ViT-B/16 at 224 pixels needs
    22 MB an image, and as much again while it is put together. Give a few images at
    a time.

    Args:
        model: The model, in eval mode.
        images: Images as the model takes them.
    Shape:
        images (b, c, H, W) -> (depth, b, h, i, j); every row over j sums to 1
    Raises:
        TypeError: the model is no `vitlib.ViT`.
        ValueError: a part of it is in training mode, or it refuses the images.
    Reference:
        Dosovitskiy et al. 2021, Eq. 5 and 6. Chapter 13.
    """
    if not isinstance(model, ViT):
        raise TypeError(
            f"model is a {type(model).__name__}: give a vitlib.ViT, such as "
            "vitlib.checkpoints.load_pretrained returns"
        )
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode: call model.eval() first")
    recorded = []

    def record(layer: nn.Linear, inputs: tuple[Tensor], qkv: Tensor) -> None:
        q, k, _ = rearrange(
            _precise(qkv),
            "b n (three h d) -> three b h n d",
            three=3,
            h=model.config.num_heads,
        )  # 3 x (b, h, n, d)
        with torch.autocast(qkv.device.type, enabled=False):
            recorded.append(attention_weights(q, k))  # (b, h, i, j)

    with ExitStack() as hooks:
        for block in model.blocks:
            hooks.enter_context(block.attn.qkv.register_forward_hook(record))
        model(images)
    return torch.stack(recorded)


def attention_rollout(attention: Tensor) -> Tensor:
    """Follow attention through the blocks: from how far did each token gather?

    In each block, half of a token counts as its own (the residual stream), half as
    gathered; the heads are averaged. The product of these tables, the first block's
    rightmost, says how much of each input token reaches each output token. It
    knows nothing of the values, the MLPs and the class that was predicted.

    `attention_rollout(attention[:3])` stops after the third block.

    Args:
        attention: Weights of every block, the first block first.
    Shape:
        attention (depth, b, h, i, j) -> (b, i, j); every row over j sums to 1
    Raises:
        ValueError: not as many queries as keys, or a row does not sum to 1.
    Reference:
        Abnar & Zuidema 2020, sec. 3. Chapter 13.
    """
    attention = _require_attention(attention)
    identity = torch.eye(
        attention.shape[-1], dtype=attention.dtype, device=attention.device
    )
    rollout = identity  # (i, j)
    for weights in attention.mean(dim=2):  # (b, i, j)
        mixed = weights + identity
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)
        rollout = mixed @ rollout  # (b, i, j)
    return rollout


def cls_map(attention: Tensor, grid_size: int | tuple[int, int]) -> Tensor:
    """Lay out what the class token attends to as a picture of the patches.

    What it keeps for itself is left out, so a map sums to less than 1. A model that
    pools by mean may have a class token that its head never reads: there the mean
    over the patches' own rows is what counts, `attention[..., 1:, 1:].mean(dim=-2)`.

    Args:
        attention: Attention of blocks or heads, a mean of it, or a rollout.
        grid_size: (rows, cols) of the patches, or one number for a square.
    Shape:
        attention (..., i, j) -> (..., rows, cols)
    Raises:
        ValueError: not as many queries as keys, no class token, or tokens that do
            not fit the grid.
    Reference:
        Dosovitskiy et al. 2021, Fig. 6 and appendix D.8. Chapter 13.
    """
    _require_square(attention, "... i j")
    rows, cols = as_pair("grid_size", grid_size)
    if not _count_cls_tokens("attention", attention.shape[-1], rows, cols):
        raise ValueError(
            f"attention has {rows * cols} tokens, the {rows}x{cols} patches and no "
            "class token: such a model reads the mean of its tokens, so give "
            f"attention.mean(dim=-2).unflatten(-1, ({rows}, {cols})) to see what all "
            "queries attend to"
        )
    return rearrange(
        attention[..., 0, 1:], "... (rows cols) -> ... rows cols", rows=rows
    )


@torch.no_grad()
def position_similarity(pos_embed: Tensor, grid_size: int | tuple[int, int]) -> Tensor:
    """Compare the position of every patch with that of every other.

    The measure is the cosine, from -1 to 1. A row of zeros has no direction: its
    cosine is 0, also with itself. The class token's row is left out.

    Args:
        pos_embed: The table, as the model stores it.
        grid_size: (rows, cols) of the patches, or one number for a square.
    Shape:
        pos_embed (1, T, e) -> (rows, cols, rows, cols), where T is rows*cols or
        rows*cols + 1; [r, c] is the map of the patch in row r and column c
    Raises:
        ValueError: T fits the grid neither with nor without a class token.
    Reference:
        Dosovitskiy et al. 2021, Fig. 7 (centre). Chapter 13.
    """
    require_tensor("pos_embed", pos_embed, "1 T e")
    if pos_embed.shape[0] != 1 or pos_embed.shape[2] == 0:
        raise ValueError(
            f"pos_embed has shape {tuple(pos_embed.shape)}: give one table, (1, T, e)"
        )
    require_float("pos_embed", pos_embed)
    rows, cols = as_pair("grid_size", grid_size)
    first = _count_cls_tokens("pos_embed", pos_embed.shape[1], rows, cols)
    table = F.normalize(_precise(pos_embed[0, first:]), dim=-1)  # (n, e)
    return rearrange(
        table @ table.T,
        "(rows cols) (rows2 cols2) -> rows cols rows2 cols2",
        rows=rows,
        rows2=rows,
    )


def mean_attention_distance(
    attention: Tensor,
    grid_size: int | tuple[int, int],
    patch_size: int | tuple[int, int],
) -> Tensor:
    """Measure how far each head looks, in pixels.

    The distance is between the centres of the query's and the key's patch,
    weighted by attention (a patch is 0 from itself), then averaged over the patch
    queries and the images. A class token has no place: its row and column are left
    out, and the other rows are scaled to sum to 1 again. A query that attends to
    nothing but the class token is left out too; a head that has only such queries
    gets NaN.

    Args:
        attention: Weights of every block.
        grid_size: (rows, cols) of the patches, or one number for a square.
        patch_size: Side of a square patch, or (p1, p2), in pixels.
    Shape:
        attention (depth, b, h, i, j) -> (depth, h)
    Raises:
        ValueError: not as many queries as keys, a row that does not sum to 1, or
            tokens that do not fit the grid.
    Reference:
        Dosovitskiy et al. 2021, Fig. 7 (right) and appendix D.7; Raghu et al. 2021,
        sec. 4. Chapter 13.
    """
    attention = _require_attention(attention)
    rows, cols = as_pair("grid_size", grid_size)
    p1, p2 = as_pair("patch_size", patch_size)
    first = _count_cls_tokens("attention", attention.shape[-1], rows, cols)
    weights = attention[..., first:, first:]  # (depth, b, h, i, j)
    places = torch.cartesian_prod(torch.arange(rows) * p1, torch.arange(cols) * p2)
    places = places.to(weights)  # (n, 2)
    distances = (places[:, None] - places).norm(dim=-1)  # (i, j)
    weighted = torch.einsum("...ij,ij->...i", weights, distances)
    per_query = weighted / weights.sum(dim=-1)  # (depth, b, h, i)
    return per_query.nanmean(dim=(1, 3))


def delete_patches(
    images: Tensor,
    order: Tensor,
    count: int,
    patch_size: int | tuple[int, int],
    fill: float | str = "mean",
) -> Tensor:
    """Cover the first patches of each image's order, for a deletion curve.

    No fill says "nothing is here": every one makes an image unlike those the model
    was trained on, and part of what a curve shows is that. So compare with a random
    order under the same fill.

    Args:
        images: Pixels, as the model takes them.
        order: Every patch number once for each image, first to delete first:
            `maps.flatten(1).argsort(dim=1, descending=True)`.
        count: How many patches to delete, from 0 to all.
        patch_size: Side of a square patch, or (p1, p2), in pixels.
        fill: "mean" for each image's own mean colour; or a number on the images'
            scale (after normalising, 0 is the data's mean colour, not black).
    Shape:
        images (b, c, H, W), order (b, n) -> (b, c, H, W)
    Raises:
        ValueError: order is no permutation of the patches, count is above n, an
            unknown fill, or H or W is not divisible by patch_size.
    Reference:
        Samek et al. 2017; Petsiuk et al. 2018. Chapter 13.
    """
    require_tensor("images", images, "b c H W")
    require_float("images", images)
    p1, p2 = as_pair("patch_size", patch_size)
    rows, cols = grid_of(tuple(images.shape[2:]), (p1, p2))
    _require_order(order, len(images), rows * cols)
    require_whole("count", count, at_least=0)
    if count > rows * cols:
        raise ValueError(
            f"count is {count}: an image has {rows}*{cols} = {rows * cols} patches"
        )
    if fill == "mean":
        colour = images.mean(dim=(2, 3), keepdim=True)  # (b, c, 1, 1)
    elif isinstance(fill, str):
        raise ValueError(f"fill is {fill!r}: give 'mean' or a number")
    else:
        number = float(require_number("fill", fill, above=-math.inf))
        colour = images.new_tensor(number)
        if not colour.isfinite():
            raise ValueError(
                f"fill is {number}: give a number that {images.dtype} can hold"
            )
    deleted = torch.zeros_like(order, dtype=torch.bool)  # (b, n)
    deleted.scatter_(1, order[:, :count].long(), True)
    covered = repeat(
        deleted, "b (rows cols) -> b 1 (rows p1) (cols p2)", rows=rows, p1=p1, p2=p2
    )
    return torch.where(covered, colour, images)


def _precise(tensor: Tensor) -> Tensor:
    """Keep float64, and lift what is shorter than float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _require_square(attention: Tensor, axes: str) -> None:
    require_tensor("attention", attention, axes)
    require_float("attention", attention)
    if 0 in attention.shape or attention.shape[-2] != attention.shape[-1]:
        raise ValueError(
            f"attention has shape {tuple(attention.shape)}: give as many queries as "
            f"keys and no empty axis, ({', '.join(axes.split())})"
        )


def _require_attention(attention: Tensor) -> Tensor:
    """Return attention in at least float32, or refuse what no softmax made."""
    _require_square(attention, "depth b h i j")
    attention = _precise(attention)
    sums = attention.sum(dim=-1)  # (depth, b, h, i)
    # Written so that NaN counts as wrong.
    wrong = ~((sums - 1).abs() <= ROW_TOLERANCE)
    if wrong.any():
        raise ValueError(
            f"attention: {int(wrong.sum())} of {wrong.numel()} rows do not sum to 1, "
            f"the first of them to {sums[wrong][0]:.3g}: give weights after the "
            "softmax over the keys and before dropout, as record_attention returns them"
        )
    return attention


def _count_cls_tokens(name: str, num_tokens: int, rows: int, cols: int) -> int:
    """Return how many tokens, 0 or 1, stand before the patches."""
    count = num_tokens - rows * cols
    if count not in (0, 1):
        raise ValueError(
            f"{name} has {num_tokens} tokens, but a grid of {rows}x{cols} needs "
            f"{rows * cols}, or {rows * cols + 1} with a class token: correct "
            "grid_size"
        )
    return count


def _require_order(order: Tensor, num_images: int, num_patches: int) -> None:
    require_tensor("order", order, "b n")
    if order.is_floating_point() or order.is_complex() or order.dtype == torch.bool:
        raise ValueError(
            f"order is {order.dtype}: give whole numbers, as argsort returns them"
        )
    if tuple(order.shape) != (num_images, num_patches):
        raise ValueError(
            f"order has shape {tuple(order.shape)}: give ({num_images}, "
            f"{num_patches}), every patch of every image"
        )
    numbers = torch.arange(num_patches, device=order.device)
    wrong = (order.sort(dim=1).values != numbers).any(dim=1)  # (b)
    if wrong.any():
        raise ValueError(
            f"order: {int(wrong.sum())} of {num_images} rows are no permutation: give "
            f"every number from 0 to {num_patches - 1} once, as argsort does"
        )
