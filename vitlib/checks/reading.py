"""Checks of functions that take or return more than tensors: models, names, pairs."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitlib.checks.judging import Judge
from vitlib.checks.wording import Finding, Unfit, called


@dataclasses.dataclass(frozen=True, repr=False)
class Given:
    """An argument that is made anew for every call.

    Args:
        what: What the reader is shown in its place.
        make: Builds it.
        dtype: That of its floating-point numbers.
        casts: Whether it is tried in other dtypes, too.
    Reference:
        The book's page on the checkers.
    """

    what: str
    make: Callable[[], object]
    dtype: torch.dtype = torch.float32
    casts: bool = True

    def __repr__(self) -> str:
        """Say what it is."""
        return self.what

    def converted(self, dtype: torch.dtype) -> "Given":
        """Return the same with numbers of another dtype."""
        return dataclasses.replace(self, dtype=dtype) if self.casts else self

    def made(self) -> object:
        """Build it."""
        return _cast(self.make(), self.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class ReadJudge(Judge):
    """How to check a function by what it returns or leaves behind.

    Args:
        task: The function's name.
        arguments: Their names, in order.
        axes: Those of what is read, one word each.
        oracle: The right function.
        cases: From small to large; the first that fails is shown.
        mistakes: Known ones, the most telling first.
        questions: Asked of a wrong result that is no known mistake.
        narrowing: Asked where nothing else was found.
        seconds: The time limit of a call.
        dtypes: Tried besides float32.
        gradients: Whether they are compared, too.
        read: Takes what was returned and the arguments as they are afterwards; returns
            the tensor to compare, or raises Unfit.
    Reference:
        The book's page on the checkers.
    """

    gradients: bool = False
    read: Callable = lambda value, *given: value

    def call(self, answer: Callable, *given: object) -> Tensor:
        """Make the arguments, call the answer, and read what came of it."""
        made = [value.made() if isinstance(value, Given) else value for value in given]
        value = answer(*made)
        for name, old, new in zip(self.arguments, given, made, strict=True):
            if isinstance(new, dict) and new.keys() != old.made().keys():
                raise Unfit(
                    Finding(
                        "in place",
                        f"{name} has other keys afterwards: whoever calls your "
                        "function still needs it as it was. Fill a new dictionary",
                    )
                )
        return self.read(value, *made)


def numbered(value: object, place: object = None) -> Tensor:
    """Read a number.

    Args:
        value: What was returned.
        place: A tensor whose dtype it gets; that of new tensors if None.
    Shape:
        -> ()
    Raises:
        Unfit: it is none.
    Reference:
        The book's page on the checkers.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(Finding("type", f"it returned {called(value)}: return one number"))
    return torch.tensor(float(value), dtype=None if place is None else place.dtype)


def paired(value: object, words: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Read two tensors.

    Args:
        value: What was returned.
        words: What they are.
    Returns:
        Both.
    Raises:
        Unfit: they are not two tensors.
    Reference:
        The book's page on the checkers.
    """
    fits = isinstance(value, tuple | list) and len(value) == 2
    if not fits or not all(isinstance(part, Tensor) for part in value):
        raise Unfit(
            Finding(
                "type",
                f"it returned {called(value)}: return two tensors, "
                f"{words[0]} and {words[1]}",
            )
        )
    return tuple(value)


def _cast(value: object, dtype: torch.dtype) -> object:
    if isinstance(value, nn.Module):
        return value.to(dtype)
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, tuple | list):
        return type(value)(_cast(part, dtype) for part in value)
    return value
