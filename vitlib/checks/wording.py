"""The sentences of the checkers: what is wrong, where, and the smallest example."""

import dataclasses
import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vitlib.checks.comparing import differing
from vitlib.checks.running import Outcome
from vitlib.vit import ViTConfig

# What a student's copy raises where nothing is written yet.
YOUR_TURN = "your turn"

# Code that is not the student's.
_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in (
        Path(__file__).parents[1],
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
    )
)


class Finding(NamedTuple):
    """What is wrong.

    Args:
        name: A few words, for the table of wrong answers.
        text: What is wrong and where to look.
    Reference:
        The book's page on the checkers.
    """

    name: str
    text: str


class Unfit(Exception):
    """Raised where a check sees at once what is wrong.

    Args:
        finding: What is wrong.
    Reference:
        The book's page on the checkers.
    """

    def __init__(self, finding: Finding):
        super().__init__(finding.text)
        self.finding = finding


def listed(words: list[str]) -> str:
    """Join words as in a sentence.

    Args:
        words: At least one.
    Returns:
        "a", "a and b", or "a, b and c".
    Reference:
        The book's page on the checkers.
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def called(value: object) -> str:
    """Say what something is.

    Args:
        value: Anything.
    Returns:
        "None", "a list of 3" or "a numpy.ndarray".
    Reference:
        The book's page on the checkers.
    """
    kind = type(value)
    if value is None:
        return "None"
    if isinstance(value, tuple | list | dict):
        return f"a {kind.__name__} of {len(value)}"
    return f"a {kind.__module__}.{kind.__name__}".replace(" builtins.", " ")


def endless(outcome: Outcome, seconds: float) -> Finding:
    """Say that a call did not end.

    Args:
        outcome: What came of it.
        seconds: The time limit.
    Returns:
        The finding.
    Reference:
        The book's page on the checkers.
    """
    text = f"it had not finished after {seconds:g} seconds: look for a loop without end"
    if outcome.stuck:
        text += ". It could not be interrupted and still runs: restart the kernel"
    return Finding("endless", text)


def crashed(error: BaseException) -> Finding:
    """Say what was raised, and in which of the student's lines.

    Args:
        error: The exception.
    Returns:
        The finding.
    Reference:
        The book's page on the checkers.
    """
    if isinstance(error, Unfit):
        return error.finding
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    place = f" at `{own[-1].line}`" if own and own[-1].line else ""
    text = (str(error).strip().splitlines() or [""])[0]
    text = "" if text == "None" else text
    said = f"it raised {type(error).__name__}{place}{f': {text}' if text else ''}"
    if isinstance(error, NotImplementedError) and text == YOUR_TURN:
        return Finding(
            "not written",
            f"your turn: write your code in {_place(error)}, in the place of the line "
            "that says so, and run its cell",
        )
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return Finding("crash", f"{said}: a function returns, it does not end Python")
    if isinstance(error, RecursionError):
        return Finding("crash", f"{said}. Which call of itself is the last?")
    if "CUDA" in text:
        return Finding(
            "device", f"{said}. Leave tensors on the device on which they arrive"
        )
    return Finding("crash", said)


def wrong_type(got: object, expected: Tensor | None) -> Finding:
    """Say that something else than a tensor, or a number, was returned.

    Args:
        got: What was returned.
        expected: What should have been, if there is one right result.
    Returns:
        The finding.
    Reference:
        The book's page on the checkers.
    """
    if got is None:
        return Finding("type", "it returned None: is there a return at the end?")
    number = expected is not None and expected.ndim == 0
    if isinstance(got, tuple | list):
        tensors = any(isinstance(part, Tensor) for part in got)
        how = (
            "torch.stack and torch.cat join several" if tensors else "torch.tensor(...)"
        )
        needed = "one number" if number else f"one tensor ({how})"
        return Finding("type", f"it returned {called(got)}: return {needed}")
    if isinstance(got, Tensor):
        return Finding(
            "type",
            f"it returned a {got.dtype} tensor that is {got.layout}: return a dense "
            "one of real numbers",
        )
    needed = "number" if number else "tensor"
    return Finding("type", f"it returned {called(got)}: return a {needed}")


def wrong_form(trouble: str, got: Tensor, expected: Tensor, axes: str) -> Finding:
    """Say what is wrong with a tensor's shape, dtype or device, or that it has NaN.

    Args:
        trouble: "shape", "dtype", "device" or "nan".
        got: What was returned.
        expected: What should have been.
        axes: One word an axis.
    Returns:
        The finding.
    Reference:
        The book's page on the checkers.
    """
    if trouble == "shape":
        return Finding("shape", _wrong_shape(got, expected, axes.split()))
    if trouble == "dtype" and not expected.is_floating_point():
        return Finding("dtype", _wrong_kind(got, expected))
    text = {
        "dtype": f"it returned {got.dtype} where {expected.dtype} arrived: make new "
        "tensors in the dtype of what arrives",
        "device": f"it returned a tensor on {got.device}: leave it on "
        f"{expected.device}, where it was",
        "nan": "some numbers are NaN: look for 0/0, inf - inf, the root or the "
        "logarithm of a negative number, or a softmax over nothing",
    }
    return Finding(trouble, text[trouble])


def telling_numbers(got: Tensor, expected: Tensor, axes: str) -> Finding | None:
    """Say what wrong numbers have in common, whatever the task is.

    Args:
        got: What was returned.
        expected: What should have been.
        axes: One word an axis.
    Returns:
        The finding; None if they have nothing in common.
    Reference:
        The book's page on the checkers.
    """
    got, expected = got.double(), expected.double()
    gap, size = (got - expected).abs().max(), expected.abs().max()
    if gap < 2e-3 * size:
        return Finding(
            "nearly",
            f"nearly right, off by {gap:.1g} at most: look for numbers of lower "
            "precision, another eps, or an approximation",
        )
    if torch.equal(got.flatten().sort()[0], expected.flatten().sort()[0]):
        return Finding("order", "all numbers are there, but in other places")
    if got.numel() > 1 and not got.any():
        return Finding("zeros", "every number is 0: is the result ever filled?")
    if got.min() == 0 and not differing(got, expected.clamp(min=0)).any():
        return Finding(
            "negative numbers cut",
            "right where numbers are positive, 0 where they should be negative: what "
            "bends or clamps the result?",
        )
    part = expected.abs() > 1e-3 * size
    ratio = got[part] / expected[part]
    if ratio.numel() > 1 and (ratio - ratio.mean()).abs().max() < 1e-3:
        times = ratio.mean().item()
        return Finding("factor", f"every number is {times:.4g} times what it should be")
    gaps = got - expected
    if gaps.numel() > 1 and (gaps - gaps.mean()).abs().max() < 1e-4:
        return Finding(
            "offset", f"every number is {gaps.mean():+.4g} away from what it should be"
        )
    if got.ndim > 1 and gaps.shape[-1] > 1:
        rows = gaps.reshape(-1, gaps.shape[-1])
        if len(rows) > 1 and (rows - rows[0]).abs().max() < 1e-4:
            return Finding(
                "same gap",
                f"every vector along {axes.split()[-1]} is off by the same vector: is "
                "one missing that should be added, such as a bias, or added twice?",
            )
    return None


def where(got: Tensor, expected: Tensor, axes: str) -> Iterator[str]:
    """Say at which places of which axis all wrong numbers are, if not everywhere.

    Args:
        got: What was returned.
        expected: What should have been.
        axes: One word an axis.
    Returns:
        Lines; none if wrong numbers are everywhere.
    Reference:
        The book's page on the checkers.
    """
    wrong = differing(got, expected)
    for axis, name in enumerate(axes.split()):
        others = tuple(other for other in range(wrong.ndim) if other != axis)
        at = (wrong.any(dim=others) if others else wrong).nonzero().flatten().tolist()
        if 0 < len(at) < wrong.shape[axis]:
            places = f"{at[0]} to {at[-1]}" if len(at) > 3 else listed([*map(str, at)])
            if len(at) > 3 and len(at) != at[-1] - at[0] + 1:
                places = ", ".join(map(str, at[:6]))
            yield f"all wrong numbers are at {name} = {places}, of {wrong.shape[axis]}"


def shown(name: str, value: object) -> Iterator[str]:
    """Show an argument, with its numbers if they are few.

    Args:
        name: Its name.
        value: What it is.
    Returns:
        Lines.
    Reference:
        The book's page on the checkers.
    """
    if isinstance(value, ViTConfig):
        value = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        }
        sizes = ", ".join(f"{key}={size!r}" for key, size in value.items())
        yield f"  {name} = ViTConfig({sizes})"
    elif not isinstance(value, Tensor):
        yield f"  {name} = {value!r}"
    elif value.numel() > 32:
        yield f"  {name}: a tensor {tuple(value.shape)}"
    else:
        yield f"  {name}, a tensor {tuple(value.shape)}:"
        yield from (f"    {line}" for line in _numbers(value))


def difference(got: Tensor, expected: Tensor) -> Iterator[str]:
    """Show the first row that is wrong, expected against got.

    Args:
        got: What was returned.
        expected: What should have been.
    Returns:
        Lines.
    Reference:
        The book's page on the checkers.
    """
    wrong = differing(got, expected)
    if not wrong.any():
        return
    if wrong.ndim == 0:
        yield f"  expected {expected.item():.10g}"
        yield f"  got      {got.item():.10g}"
        return
    rows = wrong.reshape(-1, wrong.shape[-1])
    row = int(rows.any(dim=1).nonzero()[0, 0])
    index = torch.unravel_index(torch.tensor(row), wrong.shape[:-1])
    # A window that holds the first wrong number.
    start = max(int(rows[row].nonzero()[0, 0]) - 5, 0)
    end = min(start + 10, rows.shape[1])
    place = "".join(f"{int(i)}, " for i in index)
    span = ":" if (start, end) == (0, rows.shape[1]) else f"{start}:{end}"
    yield f"first row that differs: [{place}{span}]"
    for word, value in (("expected", expected), ("got", got)):
        values = value.detach().reshape(rows.shape)[row, start:end]
        yield f"  {word:8} {' '.join(_numbers(values))}"


def _place(error: BaseException) -> str:
    """Name the function in which something was raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_qualname.rpartition("<locals>.")[2]


def _wrong_kind(got: Tensor, expected: Tensor) -> str:
    if got.ndim == 0:
        return f"it returned {got.item():.4g}: a whole number is asked for"
    return f"it returned {got.dtype}: needed is {expected.dtype}"


def _wrong_shape(got: Tensor, expected: Tensor, axes: list[str]) -> str:
    named = f"({', '.join(axes)}) = " if len(axes) == expected.ndim > 0 else ""
    text = f"its shape is {tuple(got.shape)}, needed is {named}{tuple(expected.shape)}"
    if got.ndim != expected.ndim:
        count = f"{got.ndim} {'axis' if got.ndim == 1 else 'axes'}"
        return f"{text}: {count} instead of {expected.ndim}"
    places = [
        axes[place] if named and not axes[place].isdigit() else f"axis {place}"
        for place, (a, b) in enumerate(zip(got.shape, expected.shape, strict=True))
        if a != b
    ]
    if len(places) > 1 and sorted(got.shape) == sorted(expected.shape):
        return f"{text}: {listed(places)} are in another order"
    return f"{text}: look at {listed(places)}"


def _numbers(value: Tensor) -> list[str]:
    array = value.detach().double().cpu().numpy().round(4) + 0.0
    return [line for line in str(array).splitlines() if line.strip()]
