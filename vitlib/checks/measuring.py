"""Checks of functions that measure something, or decide about something."""

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vitlib.checks.judging import Judge, Probe
from vitlib.checks.wording import Finding, Unfit, shown


@dataclasses.dataclass(frozen=True)
class Subject:
    """A function to decide about, of which the truth is known.

    Args:
        what: What it is, to be read after "smallest example that fails:".
        code: The function; calling the subject calls it.
        truth: The right decision.
        fools: Whom it fools, in a few words, for the table of wrong answers.
        tell: What to say to those whom it fools.
    Reference:
        The book's page on the checkers.
    """

    what: str
    code: Callable
    truth: object
    fools: str
    tell: str

    def __call__(self, *given: object) -> object:
        """Call the function."""
        return self.code(*given)

    def __repr__(self) -> str:
        """Name it, without its code."""
        return f"<{self.what}>"


@dataclasses.dataclass(frozen=True, repr=False)
class Measure(Judge):
    """How to check a function that measures.

    Its gradients are nobody's business, and half precision is too coarse for it.

    Args:
        task: The function's name.
        arguments: Their names, in order.
        axes: Those of the result, one word each.
        oracle: The library's function.
        cases: From small to large; the first that fails is shown.
        mistakes: Known ones, the most telling first.
        questions: Asked of a wrong result that is no known mistake.
        narrowing: Asked where nothing else was found.
        seconds: The time limit of a call.
        dtypes: Tried besides float32.
    Reference:
        The book's page on the checkers.
    """

    def call(self, answer: Callable, *given: object) -> object:
        """Return what was measured, a plain number as a tensor."""
        value = answer(*given)
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return torch.tensor(float(value)) if plain else value

    def leaves(self, answer: Callable, given: tuple) -> tuple[Callable, dict]:
        """Return a call without arguments, and no tensors that it starts from."""
        return lambda: answer(*given), {}

    def _dtypes(self, answer: Callable, trials: list) -> Finding | None:
        return None


@dataclasses.dataclass(frozen=True, repr=False)
class Decision(Measure):
    """How to check a function that answers with a word, or with True or False.

    Args:
        task: The function's name.
        arguments: Their names, in order.
        axes: None, so "".
        oracle: The right decision.
        cases: From small to large; the first that fails is shown.
        mistakes: Known ones, the most telling first.
        questions: Asked of a wrong result that is no known mistake.
        narrowing: Asked where nothing else was found.
        seconds: The time limit of a call.
        dtypes: Tried besides float32.
        answers: What it may answer.
    Reference:
        The book's page on the checkers.
    """

    answers: tuple = (False, True)

    def call(self, answer: Callable, *given: object) -> Tensor:
        """Return the place of the decision among the possible ones."""
        value = answer(*given)
        # A comparison of tensors, or of NumPy's numbers, is a decision as well.
        if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
            value = value.item()
        if not isinstance(value, bool | str) or value not in self.answers:
            words = " or ".join(repr(word) for word in self.answers)
            said = f"it returned {repr(value)[:60]}: it should return {words}"
            raise Unfit(Finding("type", said))
        return torch.tensor(self.answers.index(value))

    def _example(self, failed: list) -> Iterator[str]:
        first = failed[0]
        yield f"smallest example that fails: {first.case.what}"
        for name, value in zip(self.arguments, first.case.given, strict=True):
            yield from shown(name, value)
        if first.trouble == "values":
            yield f"  expected {self.answers[int(first.expected)]!r}"
            yield f"  got      {self.answers[int(first.got)]!r}"


def truth(subject: object, *others: object) -> object:
    """Return the right decision.

    Args:
        subject: What to decide about.
        others: What else is given; no matter.
    Returns:
        What the subject says of itself.
    Reference:
        The book's page on the checkers.
    """
    return subject.truth


def fooled(probe: Probe) -> Finding:
    """Say by what a wrong decision was fooled.

    Args:
        probe: The decision.
    Returns:
        What the subject has to say.
    Reference:
        The book's page on the checkers.
    """
    return Finding(probe.given[0].fools, probe.given[0].tell)
