"""One head of attention, written out with einsum."""

import torch
from torch import Tensor

from vitlib.arguments import require_number, require_tensor


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Say how much each query listens to each key.

    The softmax runs over the keys, so every row sums to 1.

    Args:
        q: Queries.
        k: Keys.
        mask: Boolean, True = may attend; broadcasts to the weights.
        scale: Factor on the dot products; 1/sqrt(d) when not given.
    Shape:
        q (b, h, i, d), k (b, h, j, d), mask broadcasting to (b, h, i, j)
        -> (b, h, i, j); any leading axes will do, as long as q and k share them
    Raises:
        ValueError: the shapes do not fit, the mask is not boolean, or a query has
            no key left to attend to.
    Reference:
        Vaswani et al. 2017, Eq. 1; Dosovitskiy et al. 2021, Eq. 6. Chapter 04.
    """
    require_matching("q", q, "k", k, axis=-1)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    else:
        require_number("scale", scale)
    scores = torch.einsum("...id,...jd->...ij", q * scale, k)  # (b, h, i, j)
    if mask is not None:
        require_mask(mask, tuple(scores.shape))
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Give each query the mean of the values, weighted by attention.

    Args:
        q: Queries.
        k: Keys.
        v: Values, one for each key.
        mask: Boolean, True = may attend; broadcasts to the weights.
    Shape:
        q (b, h, i, d), k (b, h, j, d), v (b, h, j, d') -> (b, h, i, d'); any
        leading axes will do, as long as all three share them
    Raises:
        ValueError: the shapes do not fit, the mask is not boolean, or a query has
            no key left to attend to.
    Reference:
        Vaswani et al. 2017, Eq. 1; Dosovitskiy et al. 2021, Eq. 7. Chapter 04.
    """
    require_matching("k", k, "v", v, axis=-2)
    weights = attention_weights(q, k, mask)  # (b, h, i, j)
    return torch.einsum("...ij,...jd->...id", weights, v)


def require_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a mask that is not boolean, does not fit, or closes a whole row.

    Args:
        mask: True = may attend.
        shape: The weights' shape, (b, h, i, j).
    Raises:
        TypeError: it is not a tensor.
        ValueError: as said.
    """
    require_tensor("mask", mask, "...")
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask is {mask.dtype}: give torch.bool, where True may attend"
        )
    try:
        fits = torch.broadcast_shapes(mask.shape, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}: give one that broadcasts to the "
            f"weights' {shape}, queries before keys"
        )
    if mask.is_meta or torch.compiler.is_compiling():
        return
    # A row may still be open through broadcasting, so look at the last axis alone.
    closed = ~mask.any(dim=-1)
    if closed.any():
        raise ValueError(
            f"mask leaves {int(closed.sum())} of {closed.numel()} rows with no key to "
            "attend to, and a softmax over nothing is NaN: let every query attend to "
            "at least itself"
        )


def require_matching(name_a: str, a: Tensor, name_b: str, b: Tensor, axis: int) -> None:
    """Refuse two tensors that do not share their leading axes and `axis`.

    Args:
        name_a: What the caller knows `a` as.
        a: A tensor (..., tokens, length).
        name_b: What the caller knows `b` as.
        b: Another one.
        axis: -1 if the lengths must agree, -2 if the numbers of tokens must.
    Raises:
        TypeError: one is not a tensor.
        ValueError: they do not fit, are empty, have fewer than two axes, or are
            not floats of one dtype.
    """
    for name, value in ((name_a, a), (name_b, b)):
        require_tensor(name, value, "... tokens length")
        if 0 in value.shape[-2:]:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}: give at least one token of "
                "at least one number"
            )
    if a.dtype != b.dtype or not a.is_floating_point():
        raise ValueError(
            f"{name_a} is {a.dtype}, {name_b} {b.dtype}: give floats of one dtype"
        )
    what = {-1: "length of a vector", -2: "number of tokens"}[axis]
    if a.shape[:-2] != b.shape[:-2] or a.shape[axis] != b.shape[axis]:
        raise ValueError(
            f"{name_a} has shape {tuple(a.shape)}, {name_b} {tuple(b.shape)}: give "
            f"the same leading axes and the same {what}"
        )
