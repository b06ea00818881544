"""Checks of what chapter 05 builds: several heads side by side."""

import functools

import torch
from einops import rearrange
from torch import Tensor, nn

import vitlib.checks.attention as attention
import vitlib.multi_head as library
from vitlib.attention import attend
from vitlib.checks.building import (
    Build,
    ClassJudge,
    altered,
    counted,
    drawn,
    drawn_weights,
)
from vitlib.checks.comparing import close
from vitlib.checks.deciding import Subject, decides
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
        return self.project(self.merge(self.attend(q, k, v, mask)))

    def cut(self, qkv):
        return qkv.chunk(3, dim=-1)

    def split(self, x):
        return library.split_heads(x, self.num_heads)

    def attend(self, q, k, v, mask):
        return attend(q, k, v, mask)

    def merge(self, heads):
        return library.merge_heads(heads)

    def project(self, x):
        return self.proj(x)


_with = functools.partial(altered, _MultiHead)


def _attends(function):
    return _with(attend=lambda self, *given: function(*given))


def _split_torn(self, x):
    return _torn(x, self.num_heads)


def _merge_torn(self, heads):
    return heads.reshape(len(heads), heads.shape[2], -1)


def _cut_by_heads(self, qkv):
    """Read the rows of qkv as (h three d): q, k and v of head 0, then of head 1."""
    pattern = "b n (h three d) -> three b n (h d)"
    return rearrange(qkv, pattern, three=3, h=self.num_heads).unbind()


def _split_woven(self, x):
    return rearrange(x, "b n (d h) -> b h n d", h=self.num_heads)


def _merge_woven(self, heads):
    return rearrange(heads, "b h n d -> b n (d h)")


def _attend_to_heads(self, q, k, v, mask):
    """Attend among the heads of a token, not among the tokens of a head."""
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


def _layer(b: int, n: int, e: int, h: int, mask: Tensor | None) -> tuple:
    weights = drawn_weights(lambda: _MultiHead(e, h), seed=e)
    sizes = {"embed_dim": e, "num_heads": h}
    return Build(sizes, weights), drawn(b, n, e, seed=n), mask


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
            _with(split=lambda self, x: library.split_heads(x, 1)),
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
            _with(split=_split_torn),
        ),
        Mistake(
            "heads torn",
            "right with one head, wrong with more: the tokens are put together from "
            "pieces of others. Check your way back with checks.multi_head.merge_heads",
            _with(merge=_merge_torn),
        ),
        Mistake(
            "heads torn",
            "right with one head, wrong with more: the heads hold pieces of other "
            "tokens, on the way there and back. A round trip does not show it",
            _with(split=_split_torn, merge=_merge_torn),
        ),
        Mistake(
            "heads woven",
            "right with one head, wrong with more: each head takes every h-th number "
            "of a token. Its numbers should lie side by side",
            _with(split=_split_woven),
        ),
        Mistake(
            "heads woven",
            "right with one head, wrong with more: on the way back the numbers of the "
            "heads take turns. They should lie end to end",
            _with(merge=_merge_woven),
        ),
        Mistake(
            "heads attend to heads",
            "the heads of one token attend to each other: it should be the tokens of "
            "one head. Look at the order of axes when the scores are made",
            _with(attend=_attend_to_heads),
        ),
        Mistake(
            "qkv head by head",
            "right with one head, wrong with more: the rows of qkv are read as q, k "
            "and v of head 0, then of head 1. The fused weight holds all queries, then "
            "all keys, then all values",
            _with(cut=_cut_by_heads),
        ),
        *attention.around_attention(_MultiHead),
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


# Fewer keys than queries


def _with_keys_of(spread):
    """Return attention in which every query head gets keys and values by a rule."""

    def twin(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r = q.shape[1] // k.shape[1]
        return attend(q, spread(k, r), spread(v, r))

    return twin


def _grouped(weigh):
    """Return attention with grouped keys and other weights."""

    def twin(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(r, dim=1), v.repeat_interleave(r, dim=1)
        return weigh(q @ k.mT, q) @ v

    return twin


def _whose_values(probe: Probe) -> Finding | None:
    """Ask which query heads read the values of a key head."""
    q, k, v = probe.given
    h, g = q.shape[1], k.shape[1]
    groups = probe.got.unflatten(1, (g, -1))
    if h > g and close(groups, groups[:, :, :1].expand_as(groups)):
        return Finding(
            "one result for a group",
            "all query heads of a group get the same result, though their queries "
            "differ: they share keys and values, not weights. Which letter is summed "
            "away?",
        )
    if g == 1:
        return None
    for group in range(g):
        other = v.clone()
        other[:, group] += 1
        moved = probe.run(q, k, other)
        if moved is None:
            return None
        change = (moved - probe.got).abs().amax(dim=(0, 2, 3))
        readers = [head for head in range(h) if change[head] > 1e-4]
        wanted = list(range(group * h // g, (group + 1) * h // g))
        if readers != wanted:
            return Finding(
                "other groups",
                f"the values of key head {group} are read by the query heads "
                f"{readers}: with {h} query heads and {g} key heads it should be "
                f"{wanted}, neighbours share",
            )
    return Finding(
        "weights",
        "each query head reads the right values, with other weights than it should: "
        "look at the scores, their divisor and the softmax",
    )


def _queries(b: int, h: int, g: int, i: int, j: int, d: int) -> tuple:
    return (
        drawn(b, h, i, d, seed=i),
        drawn(b, g, j, d, seed=j + 10),
        drawn(b, g, j, d, seed=j + 20),
    )


attend_shared = Judge(
    task="attend_shared",
    arguments=("q", "k", "v"),
    axes="b h i d",
    oracle=_with_keys_of(lambda x, r: x.repeat_interleave(r, dim=1)),
    cases=(
        Case("two query heads and one key head", _queries(1, 2, 1, 2, 2, 2)),
        Case("as many key heads as query heads", _queries(1, 3, 3, 4, 4, 2)),
        Case("four query heads and two key heads", _queries(1, 4, 2, 3, 3, 2)),
        Case("two images, six query heads and three", _queries(2, 6, 3, 5, 4, 7)),
    ),
    mistakes=(
        Mistake(
            "groups woven",
            "right with one key head, wrong with more: query head 0 has key head 0, "
            "query head 1 has key head 1. Neighbours among the queries share, so the "
            "first h/g of them have key head 0",
            _with_keys_of(lambda x, r: x.repeat(1, r, 1, 1)),
        ),
        Mistake(
            "first key head only",
            "right with one key head, wrong with more: all queries have key head 0",
            _with_keys_of(lambda x, r: x[:, :1].expand(-1, r * x.shape[1], -1, -1)),
        ),
        Mistake(
            "mean of the key heads",
            "right with one key head, wrong with more: the key heads are averaged, "
            "each has its own queries",
            _with_keys_of(
                lambda x, r: x.mean(1, keepdim=True).expand(-1, r * x.shape[1], -1, -1)
            ),
        ),
        Mistake(
            "not divided",
            "the scores are not divided by the root of d",
            _grouped(lambda scores, q: scores.softmax(dim=-1)),
        ),
        Mistake(
            "divided by √(h·d)",
            "the scores are divided by the root of all heads' length together: how "
            "long are the vectors that meet?",
            _grouped(
                lambda scores, q: (scores / (q.shape[1] * q.shape[3]) ** 0.5).softmax(
                    dim=-1
                )
            ),
        ),
        Mistake(
            "softmax over the queries",
            "the softmax runs over the queries: each query shares its attention out "
            "over the keys",
            _grouped(lambda scores, q: (scores / q.shape[3] ** 0.5).softmax(dim=-2)),
        ),
        Mistake(
            "keys for values",
            "keys are mixed where values should be",
            lambda q, k, v: _with_keys_of(lambda x, r: x.repeat_interleave(r, dim=1))(
                q, k, k
            ),
        ),
    ),
    questions=(each_image_alone(0, 1, 2), _whose_values),
)


# What each head adds


def _columns(cut):
    """Return what each head adds, if the weight is cut in another way."""

    def twin(heads: Tensor, weight: Tensor) -> Tensor:
        pieces = cut(weight, heads.shape[1])  # (e, h, d)
        return torch.einsum("bhnd,ehd->bhne", heads, pieces)

    return twin


_right_contributions = _columns(lambda weight, h: weight.unflatten(1, (h, -1)))


def _about_contributions(probe: Probe) -> Finding | None:
    """Ask whether the pieces are right together, and which head each is of."""
    heads, _ = probe.given
    got, expected = probe.got, probe.expected
    if heads.shape[1] == 1:
        return None
    if torch.allclose(got.sum(dim=1), expected.sum(dim=1), atol=1e-4):
        return Finding(
            "right sum, other pieces",
            "added over the heads it is right, the single pieces are not: what belongs "
            "to which head?",
        )
    for head in range(heads.shape[1]):
        other = heads.clone()
        other[:, head] += 1
        moved = probe.run(other, *probe.given[1:])
        if moved is None or moved.shape != got.shape:
            return None
        change = (moved - got).abs().amax(dim=(0, 2, 3))
        touched = [k for k in range(heads.shape[1]) if change[k] > 1e-4]
        if touched != [head]:
            return Finding(
                "heads mixed",
                f"another head {head} changes the pieces of the heads {touched}: a "
                "piece must depend on its own head alone",
            )
    return None


def _heads_and_weight(b: int, h: int, n: int, d: int, e: int) -> tuple:
    return drawn(b, h, n, d, seed=n), drawn(e, h * d, seed=e)


head_contributions = Judge(
    task="head_contributions",
    arguments=("heads", "weight"),
    axes="b h n e",
    oracle=_right_contributions,
    cases=(
        Case("one head", _heads_and_weight(1, 1, 1, 2, 2)),
        Case("two heads, e = h·d", _heads_and_weight(1, 2, 1, 2, 4)),
        Case("as many heads as numbers in each", _heads_and_weight(1, 3, 2, 3, 9)),
        Case("two images, and e is not h·d", _heads_and_weight(2, 3, 5, 4, 7)),
    ),
    mistakes=(
        Mistake(
            "weight reshaped",
            "right with one head at most: a reshape to (h, d, e) cuts the weight in "
            "the order in which it lies in memory. Its columns belong to the heads, "
            "and its rows to the result",
            lambda heads, weight: torch.einsum(
                "bhnd,hde->bhne",
                heads,
                weight.reshape(heads.shape[1], heads.shape[3], -1),
            ),
        ),
        Mistake(
            "weight turned",
            "the weight of an nn.Linear is (out, in): its rows are cut here, and the "
            "heads enter by the columns",
            lambda heads, weight: _right_contributions(heads, weight.T),
        ),
        Mistake(
            "heads woven",
            "every h-th column is taken for a head: merge_heads lays the heads end to "
            "end, so the first d columns meet head 0",
            _columns(lambda weight, h: weight.unflatten(1, (-1, h)).transpose(1, 2)),
        ),
        Mistake(
            "same columns for all",
            "right with one head, wrong with more: all heads meet the first d columns",
            _columns(
                lambda weight, h: weight.unflatten(1, (h, -1))[:, :1].expand(-1, h, -1)
            ),
        ),
        Mistake(
            "heads backwards",
            "the last columns meet head 0: the first d belong to it",
            _columns(lambda weight, h: weight.unflatten(1, (h, -1)).flip(1)),
        ),
        Mistake(
            "summed",
            "this is what all heads add together, (b, n, e): give each its own",
            lambda heads, weight: _right_contributions(heads, weight).sum(dim=1),
        ),
        Mistake(
            "divided by the heads",
            "every piece is divided by the number of heads: they are added, not "
            "averaged",
            lambda heads, weight: _right_contributions(heads, weight) / heads.shape[1],
        ),
        Mistake(
            "not split",
            "every head has the whole result: what does head 0 alone contribute?",
            lambda heads, weight: (library.merge_heads(heads) @ weight.T)[
                :, None
            ].expand(-1, heads.shape[1], -1, -1),
        ),
    ),
    questions=(each_image_alone(0), _about_contributions),
)


# A mask for every head


def _which_image(probe: Probe) -> Finding | None:
    """Ask which image's mask stands in which place."""
    mask, h = probe.given
    if len(mask) < 2:
        return None
    for name, given in (("", ~mask), (", not turned round", mask)):
        order = [
            next((k for k, one in enumerate(given) if torch.equal(one, got)), None)
            for got in probe.got
        ]
        if None not in order:
            said = " ".join(map(str, order))
            return Finding(
                "order of masks",
                f"along the first axis stand the masks of the images {said}{name}: "
                f"PyTorch reads {h} heads of image 0 first, then those of image 1",
            )
    return None


_masks = (
    Case("one image and one head", (attention.open_mask(1, 2, 2, seed=1), 1)),
    Case("one image and two heads", (attention.open_mask(1, 3, 3, seed=2), 2)),
    Case("two images and two heads", (attention.open_mask(2, 3, 3, seed=3), 2)),
    Case("two images and three heads", (attention.open_mask(2, 4, 4, seed=5), 3)),
    Case("more keys than queries", (attention.open_mask(3, 4, 5, seed=4), 2)),
)

mask_for_pytorch = Judge(
    task="mask_for_pytorch",
    arguments=("mask", "num_heads"),
    axes="b*h i j",
    oracle=lambda mask, h: (~mask).repeat_interleave(h, dim=0),
    cases=_masks,
    mistakes=(
        Mistake(
            "masks take turns",
            "right for one image, wrong for more: the masks stand in the order 0, 1, "
            "0, 1. PyTorch looks for all heads of image 0 first, so a head of image 0 "
            "gets the mask of image 1",
            lambda mask, h: (~mask).repeat(h, 1, 1),
        ),
        Mistake(
            "not turned round",
            "the order is right, the meaning is not: for PyTorch True is forbidden",
            lambda mask, h: mask.repeat_interleave(h, dim=0),
        ),
        Mistake(
            "both",
            "two things: for PyTorch True is forbidden, and the masks take turns where "
            "all heads of image 0 should come first",
            lambda mask, h: mask.repeat(h, 1, 1),
        ),
        Mistake(
            "axis of heads kept",
            "the heads have an axis of their own: PyTorch wants three axes, images and "
            "heads in one",
            lambda mask, h: (~mask)[:, None].expand(-1, h, -1, -1),
        ),
        Mistake(
            "heads before images",
            "the heads have an axis of their own, in front of the images: PyTorch "
            "wants three axes, images and heads in one",
            lambda mask, h: (~mask).expand(h, -1, -1, -1),
        ),
        Mistake(
            "first image for all",
            "right for one image, wrong for more: all heads get the mask of image 0",
            lambda mask, h: (~mask)[:1].expand(h * len(mask), -1, -1),
        ),
        Mistake(
            "queries and keys swapped",
            "each mask is transposed: rows are queries, columns are keys, in both "
            "conventions",
            lambda mask, h: (~mask).mT.repeat_interleave(h, dim=0),
        ),
        Mistake(
            "queries repeated",
            "the queries were repeated and not the images: which axis is which?",
            lambda mask, h: (~mask).repeat_interleave(h, dim=1),
        ),
        Mistake(
            "numbers for a mask",
            "this is a mask to be added, with -inf: the task asks for True and False",
            lambda mask, h: (
                torch.zeros(mask.shape)
                .masked_fill(~mask, attention.NEVER)
                .repeat_interleave(h, dim=0)
            ),
        ),
    ),
    questions=(_which_image,),
)


# Do heads stay apart?


def _one_for_all(q, k, v):
    """Let the heads share one table of weights."""
    scores = torch.einsum("bhid,bhjd->bij", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bij,bhjd->bhid", scores.softmax(dim=-1), v)


def _over_heads(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(dim=1) @ v


def _to_heads(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return attend(q, k, v).transpose(1, 2)


def _one_way(q, k, v):
    """Let each head read the values of those before it."""
    return attend(q, k, v.cumsum(dim=1))


def _other_way(q, k, v):
    """Let each head read the values of those behind it."""
    return attend(q, k, v.flip(1).cumsum(dim=1).flip(1))


def _scaled_by_all(q, k, v):
    """Divide by the largest score of any head."""
    scores = q @ k.mT
    scores = scores / scores.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    return scores.softmax(dim=-1) @ v


_SUBJECTS = (
    Subject(
        "attention",
        attend,
        True,
        "right attention refused",
        "heads of attention stay apart, and your test says no: what else did you "
        "change besides one head? Is the head that you changed among those compared?",
    ),
    Subject(
        "softmax over the heads",
        _over_heads,
        False,
        "softmax over the heads",
        "fooled by a softmax over the heads: what one head gives to a key is taken "
        "from the others, by way of queries and keys. Does your test change these, or "
        "the values alone? By enough to be seen?",
    ),
    Subject(
        "the plain mean of the values",
        lambda q, k, v: v.mean(dim=2, keepdim=True).expand(q.shape),
        True,
        "another rule refused",
        "this takes the mean of each head's values, without weights: no attention, but "
        "the heads stay apart. The question is not whether the numbers are those of "
        "attention",
    ),
    Subject(
        "attention, then the mean of all heads",
        lambda q, k, v: attend(q, k, v).mean(dim=1, keepdim=True).expand(q.shape),
        False,
        "mean of the heads",
        "fooled by a mean over the heads: change one head's values and look at the "
        "others",
    ),
    Subject(
        "one table of weights for all heads",
        _one_for_all,
        False,
        "shared weights",
        "fooled where all heads share one table of weights: values stay apart there, "
        "but the weights of a head depend on the queries and keys of the others. What "
        "does your test change?",
    ),
    Subject(
        "tokens cut by a reshape",
        lambda q, k, v: library.split_heads(_unshuffled(attend(q, k, v)), q.shape[1]),
        False,
        "torn",
        "fooled by a reshape that puts one head's numbers into another: shapes do not "
        "show it",
    ),
    Subject(
        "heads that attend to heads",
        _to_heads,
        False,
        "heads attend to heads",
        "fooled where the heads of one token attend to each other: with one head, or "
        "with equal heads, it does not show",
    ),
    Subject(
        "values that leak to later heads only",
        _one_way,
        False,
        "leaks one way",
        "fooled by a leak in one direction: each head reads the values of the heads "
        "before it. Does your test change one head only, the last perhaps?",
    ),
    Subject(
        "values that leak to earlier heads only",
        _other_way,
        False,
        "leaks one way",
        "fooled by a leak in one direction: each head reads the values of the heads "
        "behind it. Does your test change one head only, the first perhaps?",
    ),
    Subject(
        "scores divided by the largest of any head",
        _scaled_by_all,
        False,
        "leaks by the scale",
        "fooled where the scores are divided by the largest score of any head: values "
        "stay apart, scores do not. What does your test change, and by how much?",
    ),
)


def _unshuffled(heads: Tensor) -> Tensor:
    b, h, n, d = heads.shape
    return heads.reshape(b, n, h * d)


heads_stay_apart = decides(
    "heads_stay_apart",
    ("gather",),
    _SUBJECTS,
    mistakes=(
        Mistake(
            "always False",
            "it says False of everything, of right functions too: is the head that you "
            "changed among those that you compare?",
            lambda gather: False,
        ),
    ),
)


# How much two heads look at the same places


def _pairs(weights: Tensor) -> tuple[Tensor, Tensor]:
    return weights[:, :, None], weights[:, None]  # (b, h, 1, i, j), (b, 1, h, i, j)


def _overlap(weights: Tensor) -> Tensor:
    one, other = _pairs(weights)
    return torch.minimum(one, other).sum(dim=-1).mean(dim=(0, -1))


def _products(weights: Tensor) -> Tensor:
    one, other = _pairs(weights)
    return (one * other).sum(dim=-1).mean(dim=(0, -1))


def _cosines(weights: Tensor) -> Tensor:
    return _products(weights / weights.norm(dim=-1, keepdim=True))


def _about_overlap(probe: Probe) -> Finding | None:
    """Ask what must hold of heads that are equal, and of heads that share nothing."""
    got = probe.got
    own = got.diagonal()
    if (own - 1).abs().max() > 1e-3:
        return Finding(
            "not 1 with itself",
            f"a head has an overlap of {own[(own - 1).abs().argmax()]:.3g} with "
            "itself: its rows are equal to its own, so it must be 1",
        )
    if (got - got.T).abs().max() > 1e-3:
        return Finding(
            "not symmetric",
            "head 0 shares with head 1 what head 1 shares with head 0: your table is "
            "not symmetric",
        )
    apart = torch.eye(4).repeat(1, 1, 1, 1)
    apart = torch.cat([apart, apart.flip(-1)], dim=1)
    value = probe.run(apart)
    if value is not None and value.shape == (2, 2) and value[0, 1].abs() > 1e-3:
        return Finding(
            "not 0 apart",
            "two heads that never look at the same place have an overlap of "
            f"{value[0, 1]:.3g}: it must be 0. Along which axis do you compare before "
            "you average?",
        )
    return Finding(
        "between 0 and 1",
        "right for equal heads and for heads that share nothing, wrong in between: the "
        "overlap of two rows is the weight that both give to the same keys, added up",
    )


def _weights(b: int, h: int, i: int, j: int, *, double: bool = False) -> tuple:
    scores = 2 * drawn(b, h, i, j, seed=b + j)
    return ((scores.double() if double else scores).softmax(dim=-1),)


head_overlap = Judge(
    task="head_overlap",
    arguments=("weights",),
    axes="h h",
    oracle=_overlap,
    cases=(
        Case(
            "two heads, one query",
            (torch.tensor([[[[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]]]]),),
        ),
        Case("one image", _weights(1, 2, 3, 3)),
        Case("as many heads as queries", _weights(2, 4, 4, 4)),
        Case("three images", _weights(3, 4, 2, 5)),
        Case("double precision", _weights(2, 3, 4, 5, double=True)),
    ),
    mistakes=(
        Mistake(
            "products",
            "the weights are multiplied: then a head shares less than 1 with itself as "
            "soon as it looks at two places",
            _products,
        ),
        Mistake(
            "cosines",
            "this is the cosine of the rows: 0 and 1 are right, in between it is not "
            "the weight that both give to the same keys",
            _cosines,
        ),
        Mistake(
            "difference for overlap",
            "this says how much the heads differ: equal heads get 0 and should get 1",
            lambda weights: 1 - _overlap(weights),
        ),
        Mistake(
            "mean over the keys",
            "the shared weight is averaged over the keys: it is added up, so that a "
            "head shares 1 with itself",
            lambda weights: _overlap(weights) / weights.shape[-1],
        ),
        Mistake(
            "summed",
            "over the queries and the images it is summed: average over both",
            lambda weights: _overlap(weights) * weights.shape[0] * weights.shape[2],
        ),
        Mistake(
            "averaged first",
            "the maps are averaged over the queries before they are compared: two "
            "heads that look at other places for each query can have equal means",
            lambda weights: _overlap(weights.mean(dim=2, keepdim=True)),
        ),
        Mistake(
            "averaged first",
            "the maps are averaged over the images before they are compared: two heads "
            "that differ in each image can have equal means",
            lambda weights: _overlap(weights.mean(dim=0, keepdim=True)),
        ),
        Mistake(
            "images kept apart",
            "there is a table for each image: average over the images as well",
            lambda weights: torch.stack([_overlap(one[None]) for one in weights]),
        ),
        Mistake(
            "the larger one",
            "this adds up the larger of the two weights: the overlap is what both give",
            lambda weights: 2 - _overlap(weights),
        ),
    ),
    questions=(_about_overlap,),
    dtypes=(),
    gradients=False,
)
