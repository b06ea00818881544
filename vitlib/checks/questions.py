"""Questions that can be asked of any wrong result."""

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from vitlib.checks.comparing import close
from vitlib.checks.judging import Probe
from vitlib.checks.wording import Finding


def each_image_alone(*places: int) -> Callable:
    """Ask whether an image gets another result when it is alone.

    Args:
        places: Where the arguments stand whose first axis is the batch.
    Returns:
        The question.
    Reference:
        The book's page on the checkers.
    """

    def question(probe: Probe) -> Finding | None:
        if len(probe.got) < 2:
            return None
        given = [
            value[:1] if place in places and isinstance(value, Tensor) else value
            for place, value in enumerate(probe.given)
        ]
        alone = probe.run(*given)
        if alone is None or close(alone, probe.got[:1]):
            return None
        return Finding(
            "batch mixed",
            "the first of the batch gets another result when it comes alone: images "
            "must not know of their neighbours. Which line works on the wrong axis?",
        )

    return question


def each_token_alone(place: int) -> Callable:
    """Ask whether a token gets another result when it is alone.

    Args:
        place: Where the argument (b, n, e) stands.
    Returns:
        The question.
    Reference:
        The book's page on the checkers.
    """

    def question(probe: Probe) -> Finding | None:
        given = list(probe.given)
        given[place] = given[place][:, :1]
        alone = probe.run(*given)
        if alone is None or close(alone, probe.got[:, :1]):
            return None
        return Finding(
            "tokens mixed",
            "token 0 gets another result when the other tokens are not there: each "
            "token must be worked on alone. Which line works on the wrong axis?",
        )

    return question


def any_order_of_tokens(place: int) -> Callable:
    """Ask whether shuffled tokens give another result than shuffled results.

    Args:
        place: Where the argument (b, n, e) stands.
    Returns:
        The question.
    Reference:
        The book's page on the checkers.
    """

    def question(probe: Probe) -> Finding | None:
        if any(isinstance(v, Tensor) and v.dtype == torch.bool for v in probe.given):
            return None
        given = list(probe.given)
        given[place] = given[place].flip(1)
        flipped = probe.run(*given)
        if flipped is None or close(flipped, probe.got.flip(1)):
            return None
        return Finding(
            "place matters",
            "with the tokens in reverse order the results are not the old ones in "
            "reverse: what a token gets must not depend on its place in the row",
        )

    return question


def narrowed(edit: Callable, *, right: Finding | None, wrong: Finding | None):
    """Ask whether a module is right with other weights, which silence a part of it.

    Args:
        edit: Takes the weights, returns those that are other.
        right: What to say if the module is right with them.
        wrong: What to say if it is not.
    Returns:
        The question.
    Reference:
        The book's page on the checkers.
    """

    def question(probe: Probe) -> Finding | None:
        build, *inputs = probe.given
        weights = build.weights | edit(build.weights)
        build = dataclasses.replace(build, weights=weights)
        got, expected = probe.run(build, *inputs), probe.right(build, *inputs)
        if got is None:
            return None
        return right if close(got, expected) else wrong

    return question


def silent(*endings: str) -> Callable:
    """Return an edit that sets weights to zero.

    Args:
        endings: How their names end.
    Returns:
        The edit.
    Reference:
        The book's page on the checkers.
    """

    def edit(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.zeros_like(value)
            for name, value in weights.items()
            if name.endswith(endings)
        }

    return edit


def only_moved(place: int) -> Callable:
    """Ask whether every number of the result is one that arrived.

    Args:
        place: Where the argument stands whose numbers are moved.
    Returns:
        The question.
    Reference:
        The book's page on the checkers.
    """

    def question(probe: Probe) -> Finding | None:
        # Numbers whose sums, means and multiples are not among them.
        value = torch.rand_like(probe.given[place]) + 1
        given = (*probe.given[:place], value, *probe.given[place + 1 :])
        got = probe.run(*given)
        if got is None or torch.isin(got, value).all():
            return None
        other = got[~torch.isin(got, value)]
        if not other.any():
            return Finding(
                "places not filled",
                f"{other.numel()} numbers of the result are 0 and were never filled: "
                "how far do your loops run?",
            )
        return Finding(
            "numbers changed",
            f"{other.numel()} numbers of the result did not arrive, such as "
            f"{other[0]:.4g}: here numbers are moved, and none is computed",
        )

    return question


def order_of_axes(axes: str, sizes: Callable) -> Callable:
    """Ask whether the numbers are those that arrived, run through in another order.

    Args:
        axes: How the numbers lie in what arrived, one word an axis.
        sizes: Takes the arguments; returns the tensor, and the size of each axis.
    Returns:
        The question.
    Reference:
        The book's page on the checkers.
    """
    names = axes.split()

    def question(probe: Probe) -> Finding | None:
        value, lengths = sizes(*probe.given)
        value = value.reshape(lengths)
        # An axis of length 1 can stand anywhere.
        real = [place for place, length in enumerate(lengths) if length > 1]
        rest = [place for place, length in enumerate(lengths) if length == 1]
        for order in itertools.permutations(real):
            moved = value.permute(*rest, *order)
            if torch.equal(moved.flatten(), probe.got.flatten()):
                said = ", ".join(names[place] for place in order)
                return Finding(
                    "order of axes",
                    "all numbers are there, but your result runs through them in the "
                    f"order {said} (the last changes fastest): which of these axes "
                    "stands in the wrong place?",
                )
        return None

    return question
