"""Checks of functions that say whether other functions are right."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from vitlib.checks.judging import Case, Judge, Probe
from vitlib.checks.wording import Finding, Unfit


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A function to be judged by the student's.

    Args:
        what: What it does, to be read after "it says True of".
        code: The function.
        right: What should be said of it.
    Reference:
        The book's page on the checkers.
    """

    what: str
    code: Callable
    right: bool

    def __call__(self, *given: object) -> object:
        """Call the function."""
        return self.code(*given)

    def __repr__(self) -> str:
        """Say what it does, without its code."""
        return self.what


@dataclasses.dataclass(frozen=True, repr=False)
class TellJudge(Judge):
    """How to check a function that takes a function and returns True or False.

    Args:
        task: The function's name.
        arguments: Their names, in order; the first is the candidate.
        axes: None of them: "".
        oracle: Reads what a candidate is.
        cases: Candidates, right and wrong ones.
        mistakes: Known ones.
        questions: Asked of a wrong answer that is no known mistake.
        narrowing: Asked where nothing else was found.
        seconds: The time limit of a call.
        dtypes: Tried besides float32.
    Reference:
        The book's page on the checkers.
    """

    def call(self, answer: Callable, *given: object) -> Tensor:
        """Return what an answer says of a candidate, as a tensor."""
        said = answer(*given)
        if isinstance(said, Tensor) and said.dtype == torch.bool and said.ndim == 0:
            return said
        if not isinstance(said, bool | np.bool_):
            kind = "None" if said is None else f"a {type(said).__name__}"
            raise Unfit(
                Finding("no verdict", f"it returned {kind}: return True or False")
            )
        return torch.tensor(bool(said))

    def _example(self, failed: list) -> Iterator[str]:
        for trial in failed[:1]:
            yield f"smallest example that fails: {trial.case.what}"
            if trial.trouble == "values":
                yield f"  expected {bool(trial.expected)}, got {bool(trial.got)}"


def _which_way(probe: Probe) -> Finding:
    what = probe.given[0].what
    if probe.got:
        return Finding(
            "too trusting",
            f"it says True of {what}. Which input makes this visible?",
        )
    return Finding(
        "too strict",
        f"it says False of {what}: the task allows that. What do you demand that "
        "nobody asked for?",
    )


def telling(task: str, argument: str, candidates: tuple[Candidate, ...]) -> TellJudge:
    """Return the check of a function that judges candidates.

    Args:
        task: The function's name.
        argument: What its argument is called.
        candidates: The ones to judge, the plainest first.
    Returns:
        The check.
    Reference:
        The book's page on the checkers.
    """
    return TellJudge(
        task=task,
        arguments=(argument,),
        axes="",
        oracle=lambda candidate: candidate.right,
        cases=tuple(Case(one.what, (one,)) for one in candidates),
        questions=(_which_way,),
    )
