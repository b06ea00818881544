"""Score a guess that was written down before a cell ran."""

import math
from collections.abc import Sequence
from numbers import Real

from torch import Tensor


def score(guess: object, answer: object, *, within: float = 0.0) -> bool:
    """Say how far a guess is from the answer.

    Args:
        guess: What the reader wrote; `...` stands for nothing yet.
        answer: A number, a word, True or False, or several of them in a list.
        within: How far a number may be off and still count as right, as a share
            of the answer.
    Shape:
        answer, if a tensor: no axis or one.
    Returns:
        Whether the guess is right. What is printed says how far off it is.
    Raises:
        ValueError: the answer is empty, or `within` is negative or not finite.
    Reference:
        The cells under "Predict" in the chapters.
    """
    answers, guesses = _listed(answer), _listed(guess)
    if not answers:
        raise ValueError("the answer is empty: give at least one number or word")
    if not 0 <= within < math.inf:
        raise ValueError(f"within is {within}: give a share of the answer, 0 or more")
    told = ", ".join(map(_told, answers))
    if ... in guesses or None in guesses:
        print(f"The answer: {told}. (Your guess goes in place of the dots.)")
        return False
    if len(guesses) != len(answers):
        print(f"{len(answers)} asked for, {len(guesses)} guessed. The answer: {told}.")
        return False
    misses = [_miss(*pair, within) for pair in zip(guesses, answers, strict=True)]
    if not any(misses):
        print(f"Right: {told}.")
    for number, miss in enumerate(misses, start=1):
        if miss:
            print(f"{number}. {miss}" if len(misses) > 1 else miss)
    return not any(misses)


def _listed(value: object) -> list:
    if isinstance(value, Tensor):
        value = value.tolist()
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return list(value) if several else [value]


def _told(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if _is_number(value) else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _miss(guess: object, answer: object, within: float) -> str:
    """Say what is off about one guess; nothing if it is right."""
    miss = f"Not quite: you said {_told(guess)}, it is {_told(answer)}"
    if not _is_number(answer):
        right = str(guess).strip().casefold() == str(answer).strip().casefold()
        return "" if right else f"{miss}."
    if not _is_number(guess):
        return f"{miss}: a number."
    if math.isclose(guess, answer, rel_tol=1e-9, abs_tol=within * abs(answer)):
        return ""
    if guess * answer > 0 and math.isfinite(guess):
        times = max(guess / answer, answer / guess)
        more = abs(answer) > abs(guess)
        if times >= 1.5:
            return f"{miss}, {times:.3g} times as {'much' if more else 'little'}."
        return f"{miss}, {100 * abs(guess / answer - 1):.2g} % off."
    return f"{miss}."
