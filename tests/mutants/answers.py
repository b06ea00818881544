"""How an answer is entered: what it answers, and what the check should say of it."""

import dataclasses
from collections.abc import Callable

from vitlib.checks.judging import Judge

ANSWERS = []


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer to one task.

    Args:
        check: What should judge it.
        code: The function or class.
        says: The diagnosis that it should get; "right" if it is.
        source: A thread about such a mistake, "owner/name issue 1" or "owner/name PR
            1", or a key of references.bib.
    """

    check: Judge
    code: Callable
    says: str
    source: str = ""

    @property
    def name(self):
        """The code's name as words."""
        return self.code.__name__.strip("_").replace("_", " ")


def right(check):
    """Enter a right answer."""
    return wrong(check, "right")


def wrong(check, says, source=""):
    """Enter a wrong answer, with its diagnosis."""

    def enter(code):
        ANSWERS.append(Answer(check, code, says, source))
        return code

    return enter
