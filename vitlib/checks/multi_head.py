"""Checks of what chapter 05 builds: several heads side by side."""

import torch
from einops import rearrange
from torch import Tensor, nn

import vitlib.checks.attention as attention
import vitlib.multi_head as library
from vitlib.attention import attend
from vitlib.checks.building import Build, ClassJudge, counted, drawn, drawn_weights
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import (
    any_order_of_tokens,
    each_image_alone,
    only_moved,
    order_of_axes,
)
from vitlib.checks.wording import Finding

# Cutting tokens into heads


def _torn(tokens: Tensor, h: int) -> Tensor:
    return tokens.reshape(len(tokens), h, tokens.shape[1], -1)


def _whose_numbers(probe: Probe) -> Finding | None:
    """Ask whether a row of a head holds numbers of one token alone."""
    tokens, _ = probe.given
    if probe.got.shape != probe.expected.shape:
        return None
    for image, heads in zip(tokens, probe.got, strict=True):
        for head in heads:
            for token, row in zip(image, head, strict=True):
                if not torch.isin(row, token).all():
                    return Finding(
                        "tokens torn apart",
                        "a row of a head holds numbers of another token: row n of each "
                        "head must be a piece of token n",
                    )
    return Finding(
        "other pieces",
        "each row holds numbers of its own token, but not those of its head: head 0 "
        "has the first d numbers, head 1 the next d",
    )


split_heads = Judge(
    task="split_heads",
    arguments=("tokens", "num_heads"),
    axes="b h n d",
    oracle=library.split_heads,
    cases=(
        Case("one token and two heads", (counted(1, 1, 4), 2)),
        Case("three tokens and two heads", (counted(1, 3, 4), 2)),
        Case("as many tokens as heads", (counted(1, 3, 6), 3)),
        Case("two images", (counted(2, 5, 12), 3)),
    ),
    mistakes=(
        Mistake(
            "reshape alone",
            "a head holds pieces of other tokens: a reshape straight to (b, h, n, d) "
            "cuts the numbers in the order in which they lie in memory, token by "
            "token. Which axes have to change places?",
            _torn,
        ),
        Mistake(
            "heads woven",
            "each head takes every h-th number of a token: its numbers should lie side "
            "by side",
            lambda x, h: rearrange(x, "b n (d h) -> b h n d", h=h),
        ),
        Mistake(
            "not transposed",
            "the result is (b, n, h, d): heads and tokens have to change places, so "
            "that every head has its row of tokens",
            lambda x, h: rearrange(x, "b n (h d) -> b n h d", h=h),
        ),
        Mistake(
            "size for number",
            "num_heads was taken for the length of a head",
            lambda x, h: rearrange(x, "b n (h d) -> b h n d", d=h),
        ),
        Mistake(
            "heads first",
            "the axis of the heads stands before the batch",
            lambda x, h: rearrange(x, "b n (h d) -> h b n d", h=h),
        ),
        Mistake(
            "heads joined to the batch",
            "heads and images were joined into one axis: keep four",
            lambda x, h: rearrange(x, "b n (h d) -> (b h) n d", h=h),
        ),
        Mistake(
            "tokens last",
            "the result is (b, h, d, n): the last two axes are swapped",
            lambda x, h: rearrange(x, "b n (h d) -> b h d n", h=h),
        ),
        Mistake(
            "tokens cut",
            "the tokens were shared out over the heads: every head gets all tokens, "
            "and a piece of each",
            lambda x, h: torch.stack(x.chunk(h, dim=1), dim=1),
        ),
    ),
    questions=(
        only_moved(0),
        order_of_axes(
            "b n h d", lambda x, h: (x, (len(x), x.shape[1], h, x.shape[2] // h))
        ),
        _whose_numbers,
    ),
)


merge_heads = Judge(
    task="merge_heads",
    arguments=("heads",),
    axes="b n h*d",
    oracle=library.merge_heads,
    cases=(
        Case("one token and two heads", (counted(1, 2, 1, 2),)),
        Case("three tokens and two heads", (counted(1, 2, 3, 2),)),
        Case("as many tokens as heads", (counted(1, 3, 3, 2),)),
        Case("two images", (counted(2, 3, 5, 4),)),
    ),
    mistakes=(
        Mistake(
            "reshape alone",
            "a token holds pieces of other tokens: a reshape straight from (b, h, n, "
            "d) to (b, n, h*d) joins what lies side by side in memory, and that is one "
            "head's tokens. Which axes have to change places first?",
            lambda x: x.reshape(len(x), x.shape[2], -1),
        ),
        Mistake(
            "heads woven",
            "the numbers of the heads take turns: they should lie end to end",
            lambda x: rearrange(x, "b h n d -> b n (d h)"),
        ),
        Mistake(
            "heads added",
            "the heads were added up: they are laid end to end",
            lambda x: x.sum(dim=1),
        ),
        Mistake(
            "mean of heads",
            "the mean of the heads was taken: they are laid end to end",
            lambda x: x.mean(dim=1),
        ),
        Mistake(
            "not joined",
            "heads and tokens have changed places, but the heads are not joined yet",
            lambda x: x.transpose(1, 2),
        ),
        Mistake(
            "heads as tokens",
            "the heads stand one after the other in the row of tokens: they belong end "
            "to end inside each token",
            lambda x: x.flatten(1, 2),
        ),
        Mistake(
            "tokens joined",
            "each head's tokens were laid end to end: it should be each token's heads",
            lambda x: x.flatten(2),
        ),
    ),
    questions=(
        only_moved(0),
        order_of_axes("b h n d", lambda x: (x, tuple(x.shape))),
    ),
)


# The layer


class _MultiHead(nn.Module):
    """What the chapter builds; mistakes overwrite one of its steps."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens, mask=None):
        q, k, v = self.cut(self.qkv(tokens))
        q, k, v = (self.split(x) for x in (q, k, v))
        return self.proj(self.merge(self.attend(q, k, v, mask)))

    def cut(self, qkv):
        return qkv.chunk(3, dim=-1)

    def split(self, x):
        return library.split_heads(x, self.num_heads)

    def attend(self, q, k, v, mask):
        return attend(q, k, v, mask)

    def merge(self, heads):
        return library.merge_heads(heads)


def _with(**steps):
    """Return the layer with other steps, each a function of the layer and the rest."""
    return type("MultiHeadAttention", (_MultiHead,), steps)


def _attends(function):
    return _with(attend=lambda self, *given: function(*given))


class _OneHead(_MultiHead):
    """Take the number of heads for granted."""

    def split(self, x):
        return library.split_heads(x, 1)


class _Torn(_MultiHead):
    def split(self, x):
        return _torn(x, self.num_heads)


class _TornMerge(_MultiHead):
    def merge(self, heads):
        return heads.reshape(len(heads), heads.shape[2], -1)


class _TornBothWays(_Torn, _TornMerge):
    pass


class _Unprojected(_MultiHead):
    def forward(self, tokens, mask=None):
        q, k, v = (self.split(x) for x in self.cut(self.qkv(tokens)))
        return self.merge(self.attend(q, k, v, mask))


class _Residual(_MultiHead):
    def forward(self, tokens, mask=None):
        return tokens + super().forward(tokens, mask)


class _HeadByHead(_MultiHead):
    """Read the rows of qkv as (h three d): q, k and v of head 0, then of head 1."""

    def cut(self, qkv):
        parts = rearrange(qkv, "b n (h three d) -> three b n (h d)", three=3, h=self.h)
        return parts.unbind()

    @property
    def h(self):
        return self.num_heads


class _Woven(_MultiHead):
    def cut(self, qkv):
        return qkv.unflatten(-1, (-1, 3)).unbind(-1)


class _WovenHeads(_MultiHead):
    def split(self, x):
        return rearrange(x, "b n (d h) -> b h n d", h=self.num_heads)


class _WovenMerge(_MultiHead):
    def merge(self, heads):
        return rearrange(heads, "b h n d -> b n (d h)")


class _OverTokensOfHeads(_MultiHead):
    """Attend among the heads of a token, not among the tokens of a head."""

    def attend(self, q, k, v, mask):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return attend(q, k, v).transpose(1, 2)


def _scaled_by_embed_dim(self, q, k, v, mask):
    scores = torch.einsum("bhid,bhjd->bhij", q, k)
    scores = scores / (q.shape[1] * q.shape[3]) ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


def _late_by_embed_dim(self, q, k, v, mask):
    scores = torch.einsum("bhid,bhjd->bhij", q, k)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v / (q.shape[1] * q.shape[3]) ** 0.5


def _order(*places):
    def cut(self, qkv):
        parts = qkv.chunk(3, dim=-1)
        return tuple(parts[place] for place in places)

    return _with(cut=cut)


def _layer(b: int, n: int, e: int, h: int, mask: Tensor | None) -> tuple:
    weights = drawn_weights(lambda: _MultiHead(e, h), seed=e)
    sizes = {"embed_dim": e, "num_heads": h}
    return Build(sizes, weights), drawn(b, n, e, seed=n), mask


_ORDER = (
    "the three parts of qkv are taken in another order: the rows of its weight are all "
    "queries, then all keys, then all values"
)
_KNOWN = {
    "not divided",
    "divided by d",
    "multiplied",
    "divided by another root",
    "values mixed wrongly",
    "plain mean",
    "keys for values",
}

MultiHeadAttention = ClassJudge(
    task="MultiHeadAttention",
    arguments=("model", "tokens", "mask"),
    axes="b n e",
    oracle=library.MultiHeadAttention,
    cases=(
        Case("one head", _layer(1, 3, 4, 1, None)),
        Case("two heads", _layer(1, 3, 4, 2, None)),
        Case("as many tokens as heads", _layer(2, 3, 6, 3, None)),
        Case("two images and four heads", _layer(2, 5, 12, 4, None)),
        Case(
            "a mask",
            _layer(2, 5, 8, 4, attention.open_mask(2, 1, 5, 5, seed=3)),
        ),
    ),
    mistakes=(
        Mistake(
            "one head only",
            "right with one head, wrong with more: num_heads changes nothing",
            _OneHead,
        ),
        Mistake(
            "divided by √e",
            "right with one head, wrong with more: the scores are divided by the root "
            "of the whole token's length. How long are the vectors that meet?",
            _with(attend=_scaled_by_embed_dim),
        ),
        Mistake(
            "divided late",
            "rows of weights sum to 1/√e instead of 1: you divided after the softmax, "
            "and by the root of the whole token's length",
            _with(attend=_late_by_embed_dim),
        ),
        *(
            Mistake(m.name, m.tell, _attends(m.twin))
            for m in attention.attend.mistakes
            if m.name in _KNOWN or "softmax" in m.name or "mask" in m.name
        ),
        *(Mistake(m.name, m.tell, _attends(m.twin)) for m in attention.LATE),
        Mistake(
            "heads torn",
            "right with one head, wrong with more: the heads hold pieces of other "
            "tokens. Check your cut with checks.multi_head.split_heads",
            _Torn,
        ),
        Mistake(
            "heads torn",
            "right with one head, wrong with more: the tokens are put together from "
            "pieces of others. Check your way back with checks.multi_head.merge_heads",
            _TornMerge,
        ),
        Mistake(
            "heads torn",
            "right with one head, wrong with more: the heads hold pieces of other "
            "tokens, on the way there and back. A round trip does not show it",
            _TornBothWays,
        ),
        Mistake(
            "heads woven",
            "right with one head, wrong with more: each head takes every h-th number "
            "of a token. Its numbers should lie side by side",
            _WovenHeads,
        ),
        Mistake(
            "heads woven",
            "right with one head, wrong with more: on the way back the numbers of the "
            "heads take turns. They should lie end to end",
            _WovenMerge,
        ),
        Mistake(
            "heads attend to heads",
            "the heads of one token attend to each other: it should be the tokens of "
            "one head. Look at the order of axes when the scores are made",
            _OverTokensOfHeads,
        ),
        *(
            Mistake("q, k and v swapped", _ORDER, _order(*places))
            for places in ((1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1))
        ),
        Mistake(
            "qkv head by head",
            "right with one head, wrong with more: the rows of qkv are read as q, k "
            "and v of head 0, then of head 1. The fused weight holds all queries, then "
            "all keys, then all values",
            _HeadByHead,
        ),
        Mistake(
            "q, k and v woven",
            "queries, keys and values take turns in what qkv returns, if one believes "
            "your cut: they stand one after the other",
            _Woven,
        ),
        Mistake(
            "no projection",
            "the last linear map, proj, is not used",
            _Unprojected,
        ),
        Mistake(
            "residual inside",
            "the tokens are added to the result: that is the block's part, the layer "
            "returns what attention gathers",
            _Residual,
        ),
    ),
    questions=(
        each_image_alone(1, 2),
        any_order_of_tokens(1),
    ),
    narrowing=(attention.SCORES_OR_VALUES,),
    hints={
        "qkv.weight": "One linear map for all three and for all heads: (3e, e)",
        "proj.weight": "It takes all heads end to end: (e, e)",
    },
)
