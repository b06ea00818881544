"""Checks of arguments: one wording for each kind of mistake.

Every message says what arrived, what is needed and what to do. A wrong type is
a `TypeError`, a wrong value a `ValueError`; nothing else leaves the library.
"""

import sys
from numbers import Integral, Real

import torch
from torch import Tensor

LARGEST = 2**31 - 1


def require_whole(name: str, value: int, *, at_least: int = 1) -> int:
    """Return `value`, a whole number that fits into 31 bits.

    Args:
        name: What the caller knows the value as.
        value: A whole number.
        at_least: The smallest allowed.
    Raises:
        TypeError: it is not a whole number.
        ValueError: it is too small, or larger than any size PyTorch can hold.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: give a whole number")
    if value < at_least:
        raise ValueError(
            f"{name} is {value}: give a whole number of at least {at_least}"
        )
    if value > LARGEST:
        raise ValueError(f"{name} is {value}: give a whole number of at most {LARGEST}")
    return int(value)


def as_pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (height, width).

    Args:
        name: What the caller knows the value as.
        value: One number for a square, or the pair itself.
    Raises:
        TypeError: it is neither a whole number nor a pair of them.
        ValueError: a side is below 1, or there are not two of them.
    """
    if not isinstance(value, (tuple, list)):
        side = require_whole(name, value)
        return side, side
    if len(value) != 2:
        raise ValueError(
            f"{name} is {value!r}: give one number or a pair (height, width)"
        )
    return require_whole(name, value[0]), require_whole(name, value[1])


def require_number(name: str, value: float, *, above: float = 0.0) -> float:
    """Return `value`, a finite number greater than `above`.

    Args:
        name: What the caller knows the value as.
        value: A number.
        above: The bound it must exceed.
    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite or not greater than `above`.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: give a number")
    if not above < value <= sys.float_info.max:
        raise ValueError(
            f"{name} is {value}: give a finite number greater than {above:g}"
        )
    return value


def require_rate(name: str, value: float) -> float:
    """Return `value`, the share of something to drop.

    Args:
        name: What the caller knows the value as.
        value: A number in [0, 1).
    Raises:
        TypeError: it is not a number.
        ValueError: it lies outside [0, 1).
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: give a number")
    if not 0 <= value < 1:
        raise ValueError(
            f"{name} is {value}: give a rate in [0, 1), where 0 drops nothing"
        )
    return value


def require_choice(name: str, value: object, choices: tuple) -> None:
    """Refuse a `value` that is not one of `choices`.

    Args:
        name: What the caller knows the value as.
        value: What arrived.
        choices: All that is allowed.
    Raises:
        ValueError: it is none of them.
    """
    # True == 1, so membership alone would let the number 1 pass for a flag.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}: give one of {allowed}")


def require_tensor(name: str, value: Tensor, axes: str) -> None:
    """Refuse a `value` that is not a tensor with the named axes.

    Args:
        name: What the caller knows the value as.
        value: What arrived.
        axes: One word an axis, as in `"b n e"`; "..." stands for any number.
    Raises:
        TypeError: it is not a tensor.
        ValueError: it has another number of axes.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}: give a torch.Tensor")
    words = axes.split()
    more = "..." in words
    named = len(words) - more
    if value.ndim < named or (value.ndim > named and not more):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: give "
            f"{'at least ' if more else ''}{named} axes, ({', '.join(words)})"
        )


def require_tokens(tokens: Tensor, weight: Tensor) -> None:
    """Refuse tokens that a layer cannot take.

    Args:
        tokens: What arrived.
        weight: The layer's weight; its last axis is as long as a token.
    Raises:
        TypeError: they are not a tensor.
        ValueError: the axes are not (b, n, e), there is no token, or their length
            or dtype is not the weight's.
    """
    require_tensor("tokens", tokens, "b n e")
    if tokens.shape[1] == 0:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}: give at least one")
    if tokens.shape[2] != weight.shape[-1]:
        raise ValueError(
            f"tokens have length {tokens.shape[2]}, the layer takes embed_dim "
            f"{weight.shape[-1]}: build the layer with embed_dim={tokens.shape[2]}"
        )
    require_dtype("tokens", tokens, weight)


def require_float(name: str, value: Tensor) -> None:
    """Refuse a tensor of anything but floats.

    Args:
        name: What the caller knows the value as.
        value: A tensor.
    Raises:
        ValueError: its dtype is not a floating one.
    """
    if not value.is_floating_point():
        raise ValueError(
            f"{name} is {value.dtype}: give floats, for pixels {name}.float() / 255"
        )


def require_dtype(name: str, value: Tensor, weight: Tensor) -> None:
    """Refuse a tensor whose device or dtype is not that of the weight it meets.

    Under autocast PyTorch converts floats itself, so they pass.

    Args:
        name: What the caller knows the value as.
        value: A tensor.
        weight: The weight.
    Raises:
        ValueError: the devices or dtypes differ.
    """
    if value.device != weight.device:
        raise ValueError(
            f"{name} is on {value.device}, the weights are on {weight.device}: "
            f"give {name}.to({str(weight.device)!r})"
        )
    if value.dtype == weight.dtype:
        return
    device = value.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        require_float(name, value)
        return
    raise ValueError(
        f"{name} is {value.dtype}, the weights are {weight.dtype}: "
        f"give {name}.to({weight.dtype})"
    )


def require_finite(name: str, value: Tensor) -> None:
    """Refuse a tensor that holds NaN or an infinity.

    Tensors without values (the meta device, a compiler's trace) pass.

    Args:
        name: What the caller knows the value as.
        value: A tensor.
    Raises:
        ValueError: a value is not finite.
    """
    if value.is_meta or torch.compiler.is_compiling():
        return
    finite = value.isfinite()
    if not finite.all():
        count = int((~finite).sum())
        raise ValueError(
            f"{name}: {count} of {value.numel()} values are NaN or infinite: "
            "mend or drop them before the model spreads them to every token"
        )
