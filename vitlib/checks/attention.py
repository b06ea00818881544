"""Checks of what chapter 04 and its exercises build: one head of attention."""

import math

import torch
from torch import Tensor, nn

import vitlib.attention as library
from vitlib.checks.building import Build, ClassJudge, altered, drawn, drawn_weights
from vitlib.checks.comparing import close
from vitlib.checks.deciding import Subject, decides
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import any_order_of_tokens, each_image_alone, narrowed
from vitlib.checks.wording import Finding

NEVER = float("-inf")


def open_mask(*shape: int, seed: int = 0) -> Tensor:
    """Draw a mask in which no row and no column is empty, and none is full.

    Args:
        shape: The shape; the last two axes are queries and keys.
        seed: Another one gives another mask.
    Shape:
        -> (*shape), boolean
    Reference:
        The book's page on the checkers.
    """
    mask = drawn(*shape, seed=seed) > 0
    i, j = shape[-2:]
    lines = torch.arange(max(i, j))
    mask[..., lines % i, (lines + 1) % j] = False
    mask[..., lines % i, lines % j] = True
    return mask


# Mistakes that any form of attention can have: each makes weights from scores


def _scores(q: Tensor, k: Tensor, divisor: float | None = None) -> Tensor:
    return torch.einsum("...id,...jd->...ij", q, k) / (divisor or q.shape[-1] ** 0.5)


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores if mask is None else scores.masked_fill(~mask, NEVER)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    return _masked(scores, mask).softmax(dim=-1)


def _divided_late(q, k, mask):
    return _softmax(_scores(q, k, 1), mask) / q.shape[-1] ** 0.5


def _divided_twice(q, k, mask):
    return _softmax(_scores(q, k), mask) / q.shape[-1] ** 0.5


def _over_queries(q, k, mask):
    return _masked(_scores(q, k), mask).softmax(dim=-2)


def _over_everything(q, k, mask):
    weights = _masked(_scores(q, k), mask).flatten(-2).softmax(dim=-1)
    return weights.reshape(_scores(q, k).shape)


def _over_heads(q, k, mask):
    return _masked(_scores(q, k), mask).softmax(dim=1)


def _keys_first(q, k, mask):
    """Let the keys ask the queries."""
    weights = _scores(k, q).softmax(dim=-1).mT
    return weights if mask is None else weights * mask


def _masked_late(q, k, mask):
    weights = _scores(q, k).softmax(dim=-1)
    return weights if mask is None else weights * mask


def _mask_inverted(q, k, mask):
    return _softmax(_scores(q, k), None if mask is None else ~mask)


def _mask_inverted_softly(q, k, mask):
    scores = _scores(q, k)
    if mask is not None:
        scores = scores.masked_fill(mask, -1e9)
    return scores.softmax(dim=-1)


def _filled_with_zero(q, k, mask):
    scores = _scores(q, k)
    if mask is not None:
        scores = scores.masked_fill(~mask, 0.0)
    return scores.softmax(dim=-1)


def _mask_added(q, k, mask):
    scores = _scores(q, k)
    return (scores if mask is None else scores + mask).softmax(dim=-1)


_SCALE = "the scores are divided by the wrong number: "
_WEIGHTS = (
    Mistake(
        "not divided",
        _SCALE + "by nothing at all. Long vectors then give large scores, and the "
        "softmax picks one key",
        lambda q, k, mask: _softmax(_scores(q, k, 1), mask),
    ),
    Mistake(
        "divided by d",
        _SCALE + "by the length of the vectors. A sum of d products grows more slowly",
        lambda q, k, mask: _softmax(_scores(q, k, q.shape[-1]), mask),
    ),
    Mistake(
        "multiplied",
        "the scores are multiplied where they should be divided",
        lambda q, k, mask: _softmax(_scores(q, k, q.shape[-1] ** -0.5), mask),
    ),
    Mistake(
        "divided by another root",
        _SCALE + "by the root of the number of keys. It is the length of the vectors "
        "that makes the products grow",
        lambda q, k, mask: _softmax(_scores(q, k, k.shape[-2] ** 0.5), mask),
    ),
    Mistake(
        "softmax over the queries",
        "columns of weights sum to 1, rows do not: the softmax runs over the queries. "
        "Each query shares out its attention over the keys",
        _over_queries,
    ),
    Mistake(
        "softmax over everything",
        "all weights of a head together sum to 1: each row should",
        _over_everything,
    ),
    Mistake(
        "softmax over the heads",
        "the weights of one pair sum to 1 over axis 1: the softmax runs over the wrong "
        "axis. Count from the end",
        _over_heads,
    ),
    Mistake(
        "no softmax",
        "these are scores: negative ones too, and rows do not sum to 1",
        lambda q, k, mask: _masked(_scores(q, k), mask),
    ),
    Mistake(
        "queries and keys swapped",
        "queries and keys are swapped: the row of a query holds what the keys give it",
        _keys_first,
    ),
    Mistake(
        "mask ignored",
        "right without a mask; with one, keys that are shut out still have weight: the "
        "mask changes nothing. masked_fill returns a new tensor",
        lambda q, k, mask: _softmax(_scores(q, k), None),
    ),
    Mistake(
        "masked late",
        "with a mask the rows sum to less than 1: the weights were set to 0 after the "
        "softmax, so what they held is lost",
        _masked_late,
    ),
    Mistake(
        "mask inverted",
        "weights are 0 where the mask is True: here True means may attend",
        _mask_inverted,
    ),
    Mistake(
        "mask inverted",
        "weights are 0 where the mask is True: here True means may attend",
        _mask_inverted_softly,
    ),
    Mistake(
        "score 0 where masked",
        "keys that are shut out still have weight: their score was set to 0, and e to "
        "the 0 is 1. Which score gives weight 0?",
        _filled_with_zero,
    ),
    Mistake(
        "mask added",
        "keys that are shut out still have weight: True and False were added to the "
        "scores as 1 and 0",
        _mask_added,
    ),
)


def about_weights(got: Tensor, expected: Tensor, mask: Tensor | None) -> Finding | None:
    """Ask what must hold of any attention weights.

    Args:
        got: What was returned.
        expected: What should have been.
        mask: True = may attend, or None.
    Shape:
        got (..., i, j), expected (..., i, j)
    Reference:
        The book's page on the checkers.
    """
    if got.shape[-1] < 3:  # two weights can look like anything
        return None
    ones = torch.ones(())
    if got.min() < -1e-4:
        return Finding(
            "negative weights",
            f"a weight is {got.min():.4g}: after a softmax none is below 0",
        )
    rows, columns = got.sum(dim=-1), got.sum(dim=-2)
    if not torch.allclose(rows, ones.expand_as(rows), atol=1e-3):
        if torch.allclose(columns, ones.expand_as(columns), atol=1e-3):
            return Finding(
                "softmax over the queries",
                "columns of weights sum to 1, rows do not: the softmax runs over the "
                "wrong axis",
            )
        low, high = rows.min().item(), rows.max().item()
        scaled = _ratio_of_scores(got, expected)
        if high - low < 1e-3 and mask is None and scaled is not None:
            verb = "divided" if high < 1 else "multiplied"
            return Finding(
                "divided late",
                f"rows of weights sum to {high:.3f} instead of 1: you {verb} after the "
                "softmax",
            )
        said = f"to {low:.3g}" if high - low < 1e-3 else f"to {low:.3g} ... {high:.3g}"
        return Finding(
            "rows do not sum to 1",
            f"rows of weights sum {said} instead of 1: what happens after the softmax, "
            "or over which axis does it run?",
        )
    if mask is not None and (got * ~mask).max() > 1e-4:
        return Finding(
            "masked keys have weight",
            "keys that are shut out have weight, up to "
            f"{(got * ~mask).max():.3g}: it must be exactly 0",
        )
    if mask is not None and (got[mask.expand_as(got)] < 1e-9).any():
        return Finding(
            "open keys have no weight",
            "some keys that are not shut out have weight 0: more is masked than should",
        )
    scaled = _ratio_of_scores(got, expected) if mask is None else None
    if scaled is not None and abs(scaled - 1) > 1e-2:
        return Finding(
            "wrong scale",
            f"the scores are {scaled:.4g} times what they should be: by what do you "
            "divide?",
        )
    return None


def _ratio_of_scores(got: Tensor, expected: Tensor) -> float | None:
    """Return by how much the scores behind weights are too large; None if uneven."""
    if not (got > 0).all():
        return None
    # Differences of log-weights are differences of scores.
    ours, theirs = got.log().diff(dim=-1), expected.log().diff(dim=-1)
    part = theirs.abs() > 1e-2
    ratio = ours[part] / theirs[part]
    if ratio.numel() < 2 or (ratio - ratio.mean()).abs().max() > 1e-2:
        return None
    return ratio.mean().item()


def _ask_weights(probe: Probe) -> Finding | None:
    return about_weights(probe.got, probe.expected, probe.given[2])


def _lengths_count(probe: Probe) -> Finding | None:
    """Ask whether longer queries look more sharply."""
    if probe.given[1].shape[-2] < 3:  # too few keys to tell
        return None
    longer = probe.run(2 * probe.given[0], *probe.given[1:])
    if longer is None or not close(longer, probe.got):
        return None
    return Finding(
        "lengths do not count",
        "queries twice as long change nothing: their lengths are divided out. A dot "
        "product is a cosine only for vectors of length 1",
    )


_CASES = (
    Case("two tokens", (drawn(1, 1, 2, 2), drawn(1, 1, 2, 2, seed=1), None)),
    Case(
        "as many queries as keys",
        (drawn(1, 2, 5, 3, seed=2), drawn(1, 2, 5, 3, seed=3), None),
    ),
    Case(
        "more keys than queries",
        (drawn(2, 3, 4, 5, seed=4), drawn(2, 3, 6, 5, seed=5), None),
    ),
    Case(
        "a mask",
        (drawn(2, 3, 4, 5, seed=6), drawn(2, 3, 6, 5, seed=7), open_mask(2, 1, 4, 6)),
    ),
)

attention_weights = Judge(
    task="attention_weights",
    arguments=("q", "k", "mask"),
    axes="b h i j",
    oracle=library.attention_weights,
    cases=_CASES,
    mistakes=_WEIGHTS,
    questions=(_ask_weights, each_image_alone(0, 1, 2)),
    narrowing=(_lengths_count,),
)


# The softmax with a mask alone


def _of_scores(mistake):
    """Let a mistake work on scores that are there already."""

    def twin(scores: Tensor, mask: Tensor) -> Tensor:
        # With a unit matrix for keys, divided by √d, the scores are the queries.
        size = scores.shape[-1]
        return mistake(scores * size**0.5, torch.eye(size, dtype=scores.dtype), mask)

    return twin


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return _softmax(scores, mask)


masked_softmax = Judge(
    task="masked_softmax",
    arguments=("scores", "mask"),
    axes="b h i j",
    oracle=_masked_softmax,
    cases=(
        Case("three tokens", (drawn(1, 1, 3, 3), open_mask(1, 1, 3, 3))),
        Case("everything open", (drawn(1, 1, 2, 3), torch.ones(1, 1, 2, 3).bool())),
        Case(
            "more keys than queries", (drawn(2, 3, 4, 6), open_mask(2, 3, 4, 6, seed=1))
        ),
        Case(
            "one mask for all heads", (drawn(2, 3, 5, 4), open_mask(2, 1, 5, 4, seed=2))
        ),
        Case("large scores", (100 * drawn(1, 2, 4, 5), open_mask(1, 2, 4, 5, seed=3))),
    ),
    mistakes=(
        *(
            Mistake(mistake.name, mistake.tell, _of_scores(mistake.twin))
            for mistake in _WEIGHTS
            if mistake.name.startswith(("softmax", "no softmax", "mask", "score"))
        ),
        Mistake(
            "overflows",
            "right for small scores; for large ones e to the score is beyond all "
            "numbers. What may be subtracted from a whole row without changing its "
            "softmax?",
            lambda scores, mask: (
                (scores.exp() * mask) / (scores.exp() * mask).sum(-1, keepdim=True)
            ),
        ),
    ),
    questions=(lambda probe: about_weights(probe.got, probe.expected, probe.given[1]),),
)


# The whole of one head


def _mixed(weights):
    """Return an answer that mixes values by such weights."""
    return lambda q, k, v, mask: torch.einsum(
        "...ij,...jd->...id", weights(q, k, mask), v
    )


# Where weights can be read, their sums tell it, with the number.
LATE = (
    Mistake(
        "divided late",
        "rows of weights sum to 1/√d instead of 1: you divided after the softmax",
        _mixed(_divided_late),
    ),
    Mistake(
        "divided late",
        "rows of weights sum to 1/√d instead of 1: the scores were divided before the "
        "softmax, and the weights once more after it",
        _mixed(_divided_twice),
    ),
)


def _ask_mixture(probe: Probe) -> Finding | None:
    """Read the weights off values that are 1 for one key each."""
    q, k, v, mask = probe.given
    keys = v.shape[-2]
    one_hot = torch.eye(keys, dtype=v.dtype).expand(*v.shape[:-2], keys, keys)
    read = probe.run(q, k, one_hot.contiguous(), mask)
    if read is None:
        return None
    expected = library.attention_weights(q, k, mask)
    if read.shape != expected.shape:
        return None
    if close(read, expected):
        return Finding(
            "values mixed wrongly",
            "the weights are right, their mixture of values is not: which index is "
            "summed over?",
        )
    return about_weights(read, expected, mask)


def _with_values(case: Case, seed: int) -> Case:
    q, k, mask = case.given
    value = drawn(*k.shape[:-1], k.shape[-1] + seed % 3, seed=seed)
    return Case(case.what, (q, k, value, mask))


attend = Judge(
    task="attend",
    arguments=("q", "k", "v", "mask"),
    axes="b h i d",
    oracle=library.attend,
    cases=tuple(_with_values(case, 21 + place) for place, case in enumerate(_CASES)),
    mistakes=(
        *(Mistake(m.name, m.tell, _mixed(m.twin)) for m in _WEIGHTS),
        Mistake(
            "values mixed wrongly",
            "the weights meet the values along the wrong axis: the sum runs over the "
            "queries and not over the keys",
            lambda q, k, v, mask: library.attention_weights(q, k, mask).mT @ v,
        ),
        Mistake(
            "plain mean",
            "every query gets the plain mean of the values: the weights have no part",
            lambda q, k, v, mask: v.mean(-2, keepdim=True).expand(
                *q.shape[:-1], v.shape[-1]
            ),
        ),
        Mistake(
            "best value only",
            "every query gets the value of one key: attention takes a mean of all, "
            "and a choice has no gradient",
            lambda q, k, v, mask: torch.take_along_dim(
                v, _masked(_scores(q, k), mask).argmax(-1)[..., None], dim=-2
            ),
        ),
        Mistake(
            "keys for values",
            "the keys are mixed where the values should be",
            lambda q, k, v, mask: library.attend(q, k, k, mask),
        ),
        Mistake(
            "weights only",
            "these are the weights: the values are not mixed yet",
            lambda q, k, v, mask: library.attention_weights(q, k, mask),
        ),
    ),
    questions=(_ask_mixture, each_image_alone(0, 1, 2, 3)),
    narrowing=(_lengths_count,),
)


# The layer


def no_preference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Silence queries and keys, so that every key gets the same weight.

    Args:
        weights: Those of a layer with a fused qkv.
    Returns:
        Those of qkv, with zeros for queries and keys.
    Reference:
        The book's page on the checkers.
    """
    edited = {}
    for name in ("qkv.weight", "qkv.bias"):
        edited[name] = weights[name].clone()
        edited[name][: 2 * len(edited[name]) // 3] = 0
    return edited


SCORES_OR_VALUES = narrowed(
    no_preference,
    right=Finding(
        "scores",
        "right when all scores are equal, so values and what comes after them are "
        "right: look at how scores are made from queries and keys, at their scale, at "
        "the softmax and the mask",
    ),
    wrong=Finding(
        "values",
        "wrong even when all scores are equal: look at how the three parts are cut "
        "apart, how values are mixed, and what happens to the result",
    ),
)


class _SelfAttention(nn.Module):
    """What the chapter builds; mistakes overwrite one of its steps."""

    def __init__(self, embed_dim):
        super().__init__()
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens, mask=None):
        q, k, v = self.cut(self.qkv(tokens))
        return self.project(self.attend(q, k, v, mask))

    def cut(self, qkv):
        return qkv.chunk(3, dim=-1)

    def project(self, x):
        return self.proj(x)

    def attend(self, q, k, v, mask):
        return library.attend(q, k, v, mask)


def _attends(function):
    return altered(_SelfAttention, attend=lambda self, *given: function(*given))


def around_attention(layer: type[nn.Module]) -> tuple[Mistake, ...]:
    """Return what may go wrong before and after a layer's attention.

    Args:
        layer: Has the steps `cut` (of what qkv returns) and `project`.
    Returns:
        The mistakes, each a subclass of the layer.
    Reference:
        The book's page on the checkers.
    """

    def swapped(places):
        def cut(self, qkv):
            parts = layer.cut(self, qkv)
            return tuple(parts[place] for place in places)

        return altered(layer, cut=cut)

    def woven(self, qkv):
        return qkv.unflatten(-1, (-1, 3)).unbind(-1)

    def residual(self, tokens, mask=None):
        return tokens + layer.forward(self, tokens, mask)

    return (
        *(
            Mistake(
                "q, k and v swapped",
                "the three parts of qkv are taken in another order: the rows of its "
                "weight are all queries, then all keys, then all values",
                swapped(places),
            )
            for places in ((1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1))
        ),
        Mistake(
            "q, k and v woven",
            "queries, keys and values take turns in what qkv returns, if one believes "
            "your cut: they stand one after the other",
            altered(layer, cut=woven),
        ),
        Mistake(
            "no projection",
            "the last linear map, proj, is not used",
            altered(layer, project=lambda self, x: x),
        ),
        Mistake(
            "residual inside",
            "the tokens are added to the result: that is the block's part, the layer "
            "returns what attention gathers",
            altered(layer, forward=residual),
        ),
    )


def _layer(b: int, n: int, e: int, mask: Tensor | None) -> tuple:
    weights = drawn_weights(lambda: _SelfAttention(e), seed=e)
    return Build({"embed_dim": e}, weights), drawn(b, n, e, seed=n), mask


SelfAttention = ClassJudge(
    task="SelfAttention",
    arguments=("model", "tokens", "mask"),
    axes="b n e",
    oracle=_SelfAttention,
    cases=(
        Case("two tokens", _layer(1, 2, 3, None)),
        Case("as many tokens as features", _layer(2, 5, 5, None)),
        Case("two images", _layer(2, 7, 4, None)),
        Case("a mask", _layer(2, 6, 5, open_mask(2, 6, 6, seed=8))),
    ),
    mistakes=(
        *(
            Mistake(m.name, m.tell, _attends(m.twin))
            for m in attend.mistakes
            if m.name != "softmax over the heads"
        ),
        *(Mistake(m.name, m.tell, _attends(m.twin)) for m in LATE),
        *around_attention(_SelfAttention),
    ),
    questions=(each_image_alone(1, 2), any_order_of_tokens(1)),
    narrowing=(SCORES_OR_VALUES,),
    hints={
        "qkv": "One linear map for all three: (3e, e), rows of q, then k, then v",
    },
)


# The exercises: how many keys are heard, padding, keys in two parts, and time


def _heard(weights: Tensor) -> Tensor:
    return torch.special.entr(weights).sum(dim=-1).exp()


def _shares(*shape: int, loud: float = 1.0) -> Tensor:
    return (loud * drawn(*shape, seed=sum(shape))).softmax(dim=-1)


def _about_heard(probe: Probe) -> Finding | None:
    """Ask for the number where it is known: n equal weights."""
    (weights,) = probe.given
    keys = weights.shape[-1]
    even = probe.run(torch.full_like(weights, 1 / keys))
    if even is not None and not close(even, torch.full_like(even, keys)):
        return Finding(
            "equal weights",
            f"with {keys} equal weights {keys} keys are heard, but it returns "
            f"{even.flatten()[0]:.4g}",
        )
    return Finding(
        "other count",
        f"right for {keys} equal weights, wrong for uneven ones: e to the entropy is "
        "asked for, and there are other ways to count",
    )


keys_heard = Judge(
    task="keys_heard",
    arguments=("weights",),
    axes="b h i",
    oracle=_heard,
    cases=(
        Case("one query, two equal weights", (torch.full((1, 1, 1, 2), 0.5),)),
        Case("three keys", (_shares(1, 1, 2, 3),)),
        Case(
            "weights of 0 and 1",
            (torch.eye(3).expand(1, 2, 3, 3).clone(),),
        ),
        Case(
            "two of four keys shut out", (torch.tensor([[[[0.25, 0.0, 0.75, 0.0]]]]),)
        ),
        Case("a batch of two", (_shares(2, 3, 4, 6, loud=2.0),)),
    ),
    mistakes=(
        Mistake(
            "entropy",
            "this is the entropy: for one key it is 0, and there one key is heard. "
            "Which function makes 1 of 0?",
            lambda weights: torch.special.entr(weights).sum(dim=-1),
        ),
        Mistake(
            "over the queries",
            "the sum runs over the queries: asked is how many keys a query hears",
            lambda weights: torch.special.entr(weights).sum(dim=-2).exp(),
        ),
        Mistake(
            "sign lost",
            "less than one key is heard, if one believes this: look at the sign of the "
            "entropy",
            lambda weights: (-torch.special.entr(weights).sum(dim=-1)).exp(),
        ),
        Mistake(
            "two bases",
            "the logarithm has one base and the power another: they must be the same",
            lambda weights: (
                torch.special.entr(weights).sum(dim=-1) / math.log(2)
            ).exp(),
        ),
        Mistake(
            "NaN at 0",
            "NaN where a weight is 0: 0 times the logarithm of 0. A key without weight "
            "adds nothing to an entropy",
            lambda weights: (-weights * weights.log()).sum(dim=-1).exp(),
        ),
        Mistake(
            "one over the squares",
            "this is 1 over the sum of squares, another way to count: here it is e to "
            "the entropy",
            lambda weights: 1 / weights.square().sum(dim=-1),
        ),
        Mistake(
            "share of all keys",
            "this is a share of all keys: how many are heard is asked for",
            lambda weights: _heard(weights) / weights.shape[-1],
        ),
        Mistake(
            "keys that are open",
            "every key with any weight is counted as one: a key with little weight is "
            "hardly heard",
            lambda weights: (weights > 0).sum(dim=-1).to(weights.dtype),
        ),
        Mistake(
            "one number for all",
            "there is one number for all queries: each hears its own number of keys",
            lambda weights: _heard(weights).mean(),
        ),
    ),
    questions=(_about_heard,),
)


# Padding: True hides a key


def _with_hidden(weights):
    """Let a form of attention weights take keys that are hidden."""
    return lambda q, k, hidden: weights(q, k, ~hidden[:, None, None])


def _hidden_rows(q, k, hidden):
    """Close the queries' rows."""
    return _scores(q, k).masked_fill(hidden[:, None, :, None], -1e9).softmax(dim=-1)


def _first_hidden(q, k, hidden):
    """Hide in all images what is hidden in the first."""
    return _softmax(_scores(q, k), ~hidden[:1, None, None])


def _padding(b: int, h: int, i: int, j: int, d: int, seed: int) -> tuple:
    hidden = torch.arange(j) >= torch.arange(j - b, j)[:, None]
    return drawn(b, h, i, d, seed=seed), drawn(b, h, j, d, seed=seed + 1), hidden


def _ask_padded(probe: Probe) -> Finding | None:
    return about_weights(probe.got, probe.expected, ~probe.given[2][:, None, None])


padded_weights = Judge(
    task="padded_weights",
    arguments=("q", "k", "hidden"),
    axes="b h i j",
    oracle=_with_hidden(library.attention_weights),
    cases=(
        Case("three keys, the last hidden", _padding(1, 1, 2, 3, 2, 31)),
        Case("as many images as heads", _padding(2, 2, 4, 4, 3, 33)),
        Case(
            "nothing hidden", (*_padding(2, 1, 3, 4, 2, 35)[:2], torch.zeros(2, 4) > 0)
        ),
        Case("three images, five heads", _padding(3, 5, 4, 6, 2, 37)),
    ),
    mistakes=(
        *(
            Mistake(mistake.name, mistake.tell, _with_hidden(mistake.twin))
            for mistake in _WEIGHTS
            if not mistake.name.startswith("mask i")
        ),
        Mistake(
            "divided late",
            "rows of weights sum to 1/√d instead of 1: you divided after the softmax",
            _with_hidden(_divided_late),
        ),
        Mistake(
            "mask ignored",
            "right where nothing is hidden; hidden keys still have weight: hidden "
            "changes nothing. masked_fill returns a new tensor",
            lambda q, k, hidden: _softmax(_scores(q, k), None),
        ),
        Mistake(
            "inverted",
            "hidden keys alone have weight: here True means hidden",
            lambda q, k, hidden: (
                _scores(q, k).masked_fill(~hidden[:, None, None], -1e9).softmax(dim=-1)
            ),
        ),
        Mistake(
            "first image for all",
            "in every image those keys are hidden that are hidden in the first",
            _first_hidden,
        ),
        Mistake(
            "heads for images",
            "hidden is read as (h, j): broadcasting fits axes from the right, and the "
            "axis left of j is i, then h. The batch needs its own place",
            lambda q, k, hidden: _softmax(_scores(q, k), ~hidden[:, None]),
        ),
        Mistake(
            "queries for images",
            "hidden is read as (i, j): broadcasting fits axes from the right",
            lambda q, k, hidden: _softmax(_scores(q, k), ~hidden),
        ),
        Mistake(
            "rows, not columns",
            "the rows of hidden tokens are closed: they may ask, but nobody may hear "
            "them. Which of i and j is the key?",
            _hidden_rows,
        ),
    ),
    questions=(_ask_padded, each_image_alone(0, 1, 2)),
)


# Keys in two parts


def _join(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    share = (lse_a - lse_b).sigmoid()[..., None]
    return share * out_a + (1 - share) * out_b


def _by_shares(share):
    """Return an answer that mixes with another share of the first part."""

    def answer(out_a, lse_a, out_b, lse_b):
        part = share(lse_a, lse_b)[..., None]
        return part * out_a + (1 - part) * out_b

    return answer


def _about_halves(probe: Probe) -> Finding | None:
    """Ask what must hold whatever the shares are."""
    out_a, lse_a, out_b, lse_b = probe.given
    same = probe.run(out_a, lse_a, out_a, lse_b)
    if same is not None and not close(same, out_a):
        return Finding(
            "no mean",
            "where both parts found the same, the whole must find it too: your two "
            "shares do not sum to 1",
        )
    silent = probe.run(out_a, lse_a, out_b, lse_b - 100)
    if silent is not None and not close(silent, out_a):
        return Finding(
            "silent part",
            "where all scores of b are lower by 100, only a is heard: yours still "
            "hears b",
        )
    moved = probe.run(out_a, lse_a + 1, out_b, lse_b + 1)
    if moved is not None and not close(moved, probe.got):
        return Finding(
            "constant counts",
            "adding 1 to all scores changes the result: a softmax ignores that",
        )
    return Finding("other shares", "the shares sum to 1, but they are other ones")


def _two_parts(b: int, h: int, i: int, d: int, seed: int, level: float = 0.0):
    return (
        drawn(b, h, i, d, seed=seed),
        drawn(b, h, i, seed=seed + 1) + level,
        drawn(b, h, i, d, seed=seed + 2),
        drawn(b, h, i, seed=seed + 3) + level,
    )


join_halves = Judge(
    task="join_halves",
    arguments=("out_a", "lse_a", "out_b", "lse_b"),
    axes="b h i d",
    oracle=_join,
    cases=(
        Case("one query", _two_parts(1, 1, 1, 2, 41, level=3.0)),
        Case("as many queries as features", _two_parts(1, 2, 3, 3, 45, level=3.0)),
        Case("a batch of two", _two_parts(2, 3, 4, 5, 49, level=3.0)),
        Case("large scores", _two_parts(2, 1, 3, 4, 53, level=200.0)),
        Case("very low scores", _two_parts(2, 3, 5, 4, 57, level=-200.0)),
    ),
    mistakes=(
        Mistake(
            "plain mean",
            "both parts count one half: but one of them may hold nearly all the weight",
            _by_shares(lambda a, b: torch.full_like(a, 0.5)),
        ),
        Mistake(
            "logarithms for sums",
            "the shares are taken from the logarithms: what adds up over keys is the "
            "sums of e to the score",
            _by_shares(lambda a, b: a / (a + b)),
        ),
        Mistake(
            "parts swapped",
            "each part has the other's share",
            _by_shares(lambda a, b: (b - a).sigmoid()),
        ),
        Mistake(
            "the louder part only",
            "only the louder part is heard: the other has a share, too",
            _by_shares(lambda a, b: (a > b).to(a.dtype)),
        ),
        Mistake(
            "sum of both",
            "the two results are added: together their shares sum to 2",
            lambda out_a, lse_a, out_b, lse_b: out_a + out_b,
        ),
        Mistake(
            "not divided",
            "the two results are multiplied with their sums and added, and never "
            "divided by the sum of both",
            lambda out_a, lse_a, out_b, lse_b: (
                lse_a.exp()[..., None] * out_a + lse_b.exp()[..., None] * out_b
            ),
        ),
        Mistake(
            "overflows",
            "right for small scores; e to a large one is beyond all numbers, e to a "
            "very low one is 0. What may be subtracted from both logarithms without "
            "changing the shares?",
            _by_shares(lambda a, b: a.exp() / (a.exp() + b.exp())),
        ),
        Mistake(
            "shares over the wrong axis",
            "the softmax runs over the queries: it should run over the two parts",
            lambda out_a, lse_a, out_b, lse_b: (
                lse_a.softmax(-1)[..., None] * out_a
                + lse_b.softmax(-1)[..., None] * out_b
            ),
        ),
    ),
    questions=(each_image_alone(0, 1, 2, 3), _about_halves),
)


# Layers that may not see what comes later


def _looks(mask=None, late: bool = False, shut: float = NEVER):
    """Return attention of tokens with themselves under a mask of (i, j)."""

    def layer(tokens: Tensor) -> Tensor:
        scores = tokens @ tokens.mT / tokens.shape[-1] ** 0.5
        n = tokens.shape[1]
        open_to = torch.ones(n, n).bool() if mask is None else mask(n)
        if late:
            return (scores.softmax(dim=-1) * open_to) @ tokens
        return scores.masked_fill(~open_to, shut).softmax(dim=-1) @ tokens

    return layer


def _lower(n: int) -> Tensor:
    return torch.ones(n, n).tril().bool()


def _ahead(n: int) -> Tensor:
    mask = torch.ones(n, n).tril(1).bool()
    mask[0, 1:] = False
    return mask


def _second_seen(n: int) -> Tensor:
    mask = _lower(n)
    mask[0, 1:2] = True
    return mask


def _scaled_by_all(tokens: Tensor) -> Tensor:
    return tokens / tokens.abs().amax(dim=1, keepdim=True)


is_causal = decides(
    "is_causal",
    ("layer",),
    (
        Subject("a map of each token alone", lambda x: x.tanh() * 2, True),
        Subject("attention under a lower triangle", _looks(_lower), True),
        Subject("sums over the tokens so far", lambda x: x.cumsum(dim=1), True),
        Subject(
            "each token plus the one before it",
            lambda x: x + torch.cat([x[:, :1] * 0, x[:, :-1]], dim=1),
            True,
        ),
        Subject(
            "a layer that shows the first token only",
            lambda x: x[:, :1].expand_as(x),
            True,
        ),
        Subject("attention without a mask", _looks(), False),
        Subject(
            "attention under an upper triangle", _looks(lambda n: _lower(n).T), False
        ),
        Subject(
            "attention that sees one token ahead",
            _looks(lambda n: torch.ones(n, n).tril(1).bool()),
            False,
        ),
        Subject(
            "attention in which all but the first token see one token ahead",
            _looks(_ahead),
            False,
        ),
        Subject(
            "attention whose weights are set to 0 after the softmax",
            _looks(_lower, late=True),
            False,
        ),
        Subject(
            "attention in which only the first token may see all",
            _looks(lambda n: _lower(n) | (torch.arange(n) == 0)[:, None]),
            False,
        ),
        Subject(
            "attention in which the first token sees the second, and no other leaks",
            _looks(_second_seen),
            False,
        ),
        Subject(
            "attention in which all see the last token",
            _looks(lambda n: _lower(n) | (torch.arange(n) == n - 1)),
            False,
        ),
        Subject(
            "attention with scores of -5 where it should be shut",
            _looks(_lower, shut=-5.0),
            False,
        ),
        Subject(
            "tokens less their mean", lambda x: x - x.mean(dim=1, keepdim=True), False
        ),
        Subject("tokens divided by the largest of all", _scaled_by_all, False),
    ),
)


# What would be without a key


def _effects_by(weigh):
    """Return an answer that shuts keys in attention with other weights."""

    def answer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = weigh(q, k, None)
        result = weights @ v
        gaps = (result[..., None, :] - v[:, :, None]).norm(dim=-1)
        return weights / (1 - weights) * gaps

    return answer


def _without(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return each query's result without each key, (b, h, i, j, d)."""
    open_to = ~torch.eye(k.shape[2], dtype=torch.bool)
    return torch.stack([library.attend(q, k, v, mask=row) for row in open_to], dim=3)


def _moved(measure):
    """Return an answer that measures by another rule how far a result moves.

    It gets the weights, the result, the values, and the result without each key.
    """

    def answer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = library.attention_weights(q, k)
        result = (weights @ v)[..., None, :]  # (b, h, i, 1, d)
        return measure(weights[..., None], result, v[:, :, None], _without(q, k, v))

    return answer


_key_effects = _moved(lambda w, result, v, without: (without - result).norm(dim=-1))


def _score_of_zero(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores, effects = _scores(q, k), []
    for j in range(k.shape[2]):
        others = scores.clone()
        others[..., j] = 0
        moved = (others.softmax(dim=-1) - scores.softmax(dim=-1)) @ v
        effects.append(moved.norm(dim=-1))
    return torch.stack(effects, dim=-1)


def _about_effects(probe: Probe) -> Finding | None:
    """Ask for values of which the effect is known."""
    q, k, v = probe.given
    equal = probe.run(q, k, torch.ones_like(v))
    if equal is not None and equal.abs().max() > 1e-3:
        return Finding(
            "equal values",
            "where all values are equal, no key is missed: the others hold the same. "
            f"Yours finds an effect of {equal.abs().max():.3g}",
        )
    twice = probe.run(q, k, 2 * v)
    if twice is not None and not close(twice, 2 * probe.got):
        return Finding(
            "not a length",
            "values twice as large move every result twice as far, and yours does "
            "something else: what is squared, rooted or divided?",
        )
    pair = tuple(drawn(1, 1, n, 3, seed=n) for n in (1, 2, 2))
    got, wanted = probe.run(*pair), probe.right(*pair)
    if got is not None and got.shape == wanted.shape and not close(got, wanted):
        return Finding(
            "two keys",
            "with two keys, shutting one leaves the value of the other: the result "
            f"moves by {wanted.flatten()[0]:.3g} and {wanted.flatten()[1]:.3g}, and it "
            f"says {got.flatten()[0]:.3g} and {got.flatten()[1]:.3g}",
        )
    return None


def _asked(b: int, h: int, i: int, j: int, d: int, loud: float = 1.0) -> tuple:
    return (
        loud * drawn(b, h, i, d, seed=i),
        drawn(b, h, j, d, seed=j + 1),
        drawn(b, h, j, d + 1, seed=j + 2),
    )


key_effects = Judge(
    task="key_effects",
    arguments=("q", "k", "v"),
    axes="b h i j",
    oracle=_key_effects,
    cases=(
        Case("one query, two keys", _asked(1, 1, 1, 2, 2)),
        Case("as many queries as keys", _asked(1, 2, 3, 3, 4)),
        Case("equal values", (*_asked(1, 1, 2, 4, 3)[:2], torch.ones(1, 1, 4, 2))),
        Case("sharp weights", _asked(1, 2, 4, 3, 5, loud=1.5)),
        Case("a batch of two", _asked(2, 3, 4, 6, 5)),
    ),
    mistakes=(
        Mistake(
            "weights",
            "these are the weights: a key with a large one may be missed by nobody",
            lambda q, k, v: library.attention_weights(q, k),
        ),
        Mistake(
            "weight not shared out",
            "the weight was set to 0 behind the softmax, or the value to 0: then the "
            "other weights sum to less than 1. Without the key they would share out "
            "what it had",
            _moved(lambda w, result, v, without: (w * v).norm(dim=-1)),
        ),
        Mistake(
            "weight not shared out",
            "the distance of value and result is multiplied by the weight: without the "
            "key, the other weights grow until they sum to 1 again. By which factor?",
            _moved(lambda w, result, v, without: (w * (result - v)).norm(dim=-1)),
        ),
        Mistake(
            "score of 0",
            "the key was replaced by zeros, or its score by 0: e to the 0 is 1, so it "
            "still has weight",
            _score_of_zero,
        ),
        Mistake(
            "distance alone",
            "this is how far each value lies from the result, as if only that key were "
            "open. True means may attend; and a key that nobody hears can lie far away",
            _moved(lambda w, result, v, without: (result - v).norm(dim=-1)),
        ),
        Mistake(
            "squared",
            "the root is missing: this is the squared length",
            _moved(lambda w, result, v, without: (without - result).square().sum(-1)),
        ),
        Mistake(
            "absolute values",
            "the sizes of the single numbers are added up: the length of a vector is "
            "asked for",
            _moved(lambda w, result, v, without: (without - result).abs().sum(-1)),
        ),
        Mistake(
            "averaged numbers",
            "the sizes of the single numbers are averaged: the length of a vector is "
            "asked for",
            _moved(lambda w, result, v, without: (without - result).abs().mean(-1)),
        ),
        Mistake(
            "signs cancel",
            "the numbers of the difference are added up with their signs: the length "
            "of the vector is asked for",
            _moved(lambda w, result, v, without: (without - result).sum(dim=-1)),
        ),
        Mistake(
            "what is left",
            "this is the length of the result without the key: how far it moves is "
            "asked for",
            _moved(lambda w, result, v, without: without.norm(dim=-1)),
        ),
        Mistake(
            "lengths compared",
            "the lengths of both results are subtracted: a result that turns has moved "
            "and is as long as it was. Subtract, then take the length",
            _moved(
                lambda w, result, v, without: (
                    without.norm(dim=-1) - result.norm(dim=-1)
                ).abs()
            ),
        ),
        Mistake(
            "queries and keys swapped",
            "the result is (b, h, j, i): the last axis is the key that is shut",
            lambda q, k, v: _key_effects(q, k, v).mT,
        ),
        *(
            Mistake(mistake.name, mistake.tell, _effects_by(mistake.twin))
            for mistake in _WEIGHTS
            if mistake.name.startswith(("not divided", "divided by", "softmax over"))
        ),
    ),
    questions=(_about_effects, each_image_alone(0, 1, 2)),
    dtypes=(torch.float64,),
    gradients=False,
)
