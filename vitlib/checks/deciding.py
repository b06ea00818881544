"""Checks of functions that decide: about other functions, models, or results."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.wording import Finding, Unfit


@dataclasses.dataclass(frozen=True)
class Subject:
    """A function to decide about, of which the truth is known.

    Args:
        what: What it is, to be read after "it says True of".
        code: The function; calling the subject calls it.
        truth: The right decision.
        fools: Whom it fools, in a few words, for the table of wrong answers.
        tell: What to say to those whom it fools; if empty, what it is.
    Reference:
        The book's page on the checkers.
    """

    what: str
    code: Callable
    truth: object
    fools: str = ""
    tell: str = ""

    def __call__(self, *given: object) -> object:
        """Call the function."""
        return self.code(*given)

    def __repr__(self) -> str:
        """Say what it is, without its code."""
        return self.what


@dataclasses.dataclass(frozen=True, repr=False)
class Decision(Judge):
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
        gradients: Whether they are compared, too.
        answers: What it may answer.
    Reference:
        The book's page on the checkers.
    """

    dtypes: tuple[torch.dtype, ...] = ()
    gradients: bool = False
    answers: tuple = (False, True)

    def call(self, answer: Callable, *given: object) -> Tensor:
        """Return the place of the decision among the possible ones."""
        try:
            value = answer(*given)
        except AssertionError as error:
            said = "an assertion failed in it: return False where that happens"
            raise Unfit(Finding("crash", said)) from error
        # A comparison of tensors, or of NumPy's numbers, is a decision as well.
        if hasattr(value, "item") and math.prod(value.shape) == 1:
            value = value.item()
        if not isinstance(value, bool | str) or value not in self.answers:
            words = " or ".join(map(repr, self.answers))
            said = f"it returned {repr(value)[:60]}: it should return {words}"
            raise Unfit(Finding("type", said))
        return torch.tensor(self.answers.index(value))

    def difference(self, got: Tensor, expected: Tensor) -> Iterator[str]:
        """Show what was decided in words."""
        yield f"  expected {self.answers[int(expected)]!r}"
        yield f"  got      {self.answers[int(got)]!r}"


def always(answers: tuple) -> tuple[Mistake, ...]:
    """Return the mistakes of those who decide before they look.

    Args:
        answers: The possible decisions.
    Returns:
        One mistake for each.
    Reference:
        The book's page on the checkers.
    """
    return tuple(
        Mistake(
            f"always {answer}",
            f"it says {answer!r} of everything, where that is wrong, too",
            lambda *given, answer=answer: answer,
        )
        for answer in answers
    )


def decides(
    task: str,
    arguments: tuple[str, ...],
    subjects: tuple,
    *others: object,
    answers: tuple = (False, True),
    mistakes: tuple[Mistake, ...] = (),
) -> Decision:
    """Return the check of a function that decides about subjects.

    Args:
        task: The function's name.
        arguments: Their names, in order; the first is the subject's.
        subjects: The plainest first; each has what a `Subject` has.
        others: The other arguments.
        answers: What it may answer.
        mistakes: Known ones, besides always giving the same answer.
    Returns:
        The check.
    Reference:
        The book's page on the checkers.
    """
    return Decision(
        task=task,
        arguments=arguments,
        axes="",
        oracle=lambda subject, *others: subject.truth,
        cases=tuple(Case(one.what, (one, *others)) for one in subjects),
        mistakes=(*mistakes, *always(answers)),
        questions=(_fooled,),
        answers=answers,
    )


def _fooled(probe: Probe) -> Finding:
    """Say by what a wrong decision was fooled."""
    subject = probe.given[0]
    if subject.tell:
        return Finding(subject.fools, subject.tell)
    if probe.got:
        return Finding(
            "too trusting",
            f"it says True of {subject.what}. Which input makes this visible?",
        )
    return Finding(
        "too strict",
        f"it says False of {subject.what}: the task allows that. What do you demand "
        "that nobody asked for?",
    )
