"""Checks of what chapter 02 and its exercises build: class token, pooling, masks."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import vitlib.cls_token as library
from vitlib.checks.building import drawn
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import each_image_alone
from vitlib.checks.wording import Finding


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1)


def _only_one_image(tokens: Tensor, cls_token: Tensor) -> Tensor:
    """Fit one image only; more of them raise."""
    return _cat(cls_token, tokens)


def _first_replaced(tokens: Tensor, cls_token: Tensor) -> Tensor:
    return _cat(cls_token.expand(len(tokens), -1, -1), tokens[:, 1:])


def _where_is_it(probe: Probe) -> Finding | None:
    """Ask whether tokens and class token are all there, and where."""
    _, cls_token = probe.given
    at = (probe.got == cls_token).all(dim=2)  # (b, T)
    if not at.any():
        return Finding(
            "no class token",
            "no row of the result is the vector that was given: is it changed, or is "
            "another one used?",
        )
    places = at[0].nonzero().flatten().tolist()
    if not (at == at[0]).all() or not places:
        return Finding(
            "not every image",
            "some images have the class token and others have not: the same vector "
            "must stand in front of each",
        )
    if places != [0]:
        return Finding(
            "wrong place", f"the class token stands in row {places} of every image"
        )
    return Finding(
        "tokens changed", "the class token is right, but the rows behind it are not"
    )


prepend_cls_token = Judge(
    task="prepend_cls_token",
    arguments=("tokens", "cls_token"),
    axes="b n+1 e",
    oracle=library.prepend_cls_token,
    cases=(
        Case("one image", (drawn(1, 2, 3), drawn(1, 1, 3, seed=1))),
        Case("two images", (drawn(2, 3, 4, seed=2), drawn(1, 1, 4, seed=3))),
        Case("five images", (drawn(5, 3, 2, seed=4), drawn(1, 1, 2, seed=5))),
    ),
    mistakes=(
        Mistake(
            "one image only",
            "right for one image, no longer for two: cls_token is (1, 1, e), and "
            "torch.cat does not broadcast. Every image needs its copy",
            _only_one_image,
        ),
        Mistake(
            "at the end",
            "the class token stands behind the patches: here it is token 0, and the "
            "head and the position table count on it",
            lambda tokens, cls: _cat(tokens, cls.expand(len(tokens), -1, -1)),
        ),
        Mistake(
            "added",
            "the class token was added to every patch: it is a token of its own, one "
            "row more",
            lambda tokens, cls: tokens + cls,
        ),
        Mistake(
            "first patch replaced",
            "the class token stands where the first patch was: no patch may be lost",
            _first_replaced,
        ),
        Mistake(
            "zeros",
            "in front of the patches stands a row of zeros, whatever cls_token holds: "
            "nothing could be learned there",
            lambda tokens, cls: _cat(torch.zeros_like(tokens[:, :1]), tokens),
        ),
        Mistake(
            "joined as features",
            "the class token was joined along the last axis: every token got longer. "
            "It is one more token, not more features",
            lambda tokens, cls: torch.cat([cls.expand_as(tokens), tokens], dim=2),
        ),
        Mistake(
            "joined as an image",
            "the class token was joined along the batch axis: it is one more token in "
            "every image, not one more image",
            lambda tokens, cls: torch.cat([cls.expand_as(tokens[:1]), tokens]),
        ),
    ),
    questions=(_where_is_it, each_image_alone(0)),
)


def _always_mean(tokens: Tensor, pool: str) -> Tensor:
    return tokens[:, 1:].mean(dim=1)


def _pooled(cls=None, mean=None, mean_all=None):
    """Return an answer that differs from the library's in one of the three."""
    own = {"cls": cls, "mean": mean, "mean_all": mean_all}

    def answer(tokens: Tensor, pool: str) -> Tensor:
        return (own[pool] or (lambda tokens: library.pool_tokens(tokens, pool)))(tokens)

    return answer


def _what_is_read(probe: Probe) -> Finding | None:
    """Ask which tokens the result depends on, and how much."""
    tokens, pool = probe.given
    share = []
    for place in range(tokens.shape[1]):
        moved = tokens.clone()
        moved[:, place] += 1
        result = probe.run(moved, pool)
        if result is None or result.shape != probe.got.shape:
            return None
        share.append((result - probe.got).mean().item())
    read = [place for place, part in enumerate(share) if abs(part) > 1e-4]
    wanted = {"cls": "token 0", "mean": "patch tokens", "mean_all": "every token"}
    first = {"cls": [0], "mean": list(range(1, len(share)))}
    if read == first.get(pool, list(range(len(share)))):
        return Finding(
            "no mean",
            f'with pool "{pool}" it reads the right tokens, but their shares are '
            f"{[round(share[place], 3) for place in read]}: a mean has equal ones",
        )
    tell = (
        f'with pool "{pool}" your result depends on the tokens {read} of '
        f"{tokens.shape[1]}, by {[round(share[place], 3) for place in read]}: it "
        f"should read {wanted[pool]}"
    )
    return Finding("other tokens", tell)


pool_tokens = Judge(
    task="pool_tokens",
    arguments=("tokens", "pool"),
    axes="b e",
    oracle=library.pool_tokens,
    cases=(
        *(
            Case(f'pool "{pool}"', (drawn(1, 4, 3, seed=1), pool))
            for pool in library.POOLS
        ),
        *(
            Case(f'pool "{pool}" of a batch', (drawn(2, 6, 5, seed=2), pool))
            for pool in library.POOLS
        ),
    ),
    mistakes=(
        Mistake(
            "mean includes the class token",
            'with pool "mean" the class token is averaged too: "mean" reads the patch '
            "tokens. It runs, and no weight fits any more that was trained otherwise",
            _pooled(mean=lambda tokens: tokens.mean(dim=1)),
        ),
        Mistake(
            "means swapped",
            '"mean" and "mean_all" are swapped: look which one reads token 0',
            _pooled(
                mean=lambda tokens: tokens.mean(dim=1),
                mean_all=lambda tokens: tokens[:, 1:].mean(dim=1),
            ),
        ),
        Mistake(
            "reads token 1",
            'with pool "cls" it reads token 1, the first patch: where does the class '
            "token stand, counted from 0?",
            _pooled(cls=lambda tokens: tokens[:, 1]),
        ),
        Mistake(
            "reads the last token",
            'with pool "cls" it reads the last token: the class token stands in front',
            _pooled(cls=lambda tokens: tokens[:, -1]),
        ),
        Mistake(
            "reads image 0",
            'with pool "cls" it takes the first image, not the first token of every '
            "image: which axis comes first?",
            _pooled(cls=lambda tokens: tokens[0]),
        ),
        Mistake(
            "sum, not mean",
            "tokens are added, and not divided by how many they are",
            _pooled(
                mean=lambda tokens: tokens[:, 1:].sum(dim=1),
                mean_all=lambda tokens: tokens.sum(dim=1),
            ),
        ),
        Mistake(
            "divided by one too many",
            'with pool "mean" the patch tokens are added, but divided by the number of '
            "all tokens",
            _pooled(
                mean=lambda tokens: tokens[:, 1:].sum(dim=1) / tokens.shape[1],
            ),
        ),
        Mistake(
            "mean over features",
            "the mean runs over the features of each token: it should run over the "
            "tokens, feature by feature",
            _pooled(
                mean=lambda tokens: tokens[:, 1:].mean(dim=2),
                mean_all=lambda tokens: tokens.mean(dim=2),
            ),
        ),
        Mistake(
            "pool ignored",
            "the same is returned whatever pool says",
            lambda tokens, pool: tokens[:, 0],
        ),
        Mistake("pool ignored", "the same mean whatever pool says", _always_mean),
        Mistake(
            "axis kept",
            "the axis of the tokens is still there, with length 1: one vector for each "
            "image is (b, e)",
            lambda tokens, pool: library.pool_tokens(tokens, pool)[:, None],
        ),
    ),
    questions=(each_image_alone(0), _what_is_read),
)


# The exercises: more rows in front, and what that does to pooling and masks


def _with_registers(tokens: Tensor, cls_token: Tensor, registers: Tensor) -> Tensor:
    b = len(tokens)
    return _cat(cls_token.expand(b, -1, -1), registers.expand(b, -1, -1), tokens)


def _joined(*order: int):
    """Return an answer that joins (tokens, class token, registers) in an order."""

    def answer(*parts: Tensor) -> Tensor:
        expanded = [part.expand(len(parts[0]), -1, -1) for part in parts]
        return _cat(*(expanded[place] for place in order))

    return answer


def _whose_rows(probe: Probe) -> Finding | None:
    """Ask in which row each of the parts starts."""
    wrong = (probe.got != probe.expected).any(dim=2)  # (b, T)
    if not wrong[0].any():
        return Finding(
            "not every image",
            "right in the first image, wrong in others: every image gets the same rows "
            "in front",
        )
    rows = wrong[0].nonzero().flatten().tolist()
    return Finding(
        "wrong rows",
        f"of the rows of an image these are wrong: {rows}. Needed is the class token, "
        f"then {probe.given[2].shape[1]} registers, then the patches",
    )


prepend_registers = Judge(
    task="prepend_registers",
    arguments=("tokens", "cls_token", "registers"),
    axes="b 1+r+n e",
    oracle=_with_registers,
    cases=(
        Case(
            "one image and one register",
            (drawn(1, 2, 3), drawn(1, 1, 3, seed=1), drawn(1, 1, 3, seed=2)),
        ),
        Case(
            "one image and two registers",
            (drawn(1, 3, 4, seed=3), drawn(1, 1, 4, seed=4), drawn(1, 2, 4, seed=5)),
        ),
        Case(
            "two images and four registers",
            (drawn(2, 6, 5, seed=6), drawn(1, 1, 5, seed=7), drawn(1, 4, 5, seed=8)),
        ),
    ),
    mistakes=(
        Mistake(
            "one image only",
            "right for one image, no longer for two: torch.cat does not broadcast. "
            "Every image needs its copy of the class token and of the registers",
            lambda tokens, cls, registers: _cat(cls, registers, tokens),
        ),
        Mistake(
            "one image only",
            "right for one image, no longer for two: the class token has a copy for "
            "every image, the registers have not",
            lambda tokens, cls, registers: _cat(
                cls.expand(len(tokens), -1, -1), registers, tokens
            ),
        ),
        Mistake(
            "registers first",
            "the registers stand in front of the class token: the head reads row 0, "
            "and row 0 must stay the class token",
            _joined(2, 1, 0),
        ),
        Mistake(
            "registers last",
            "the registers stand behind the patches: rows without pixels come first",
            _joined(1, 0, 2),
        ),
        Mistake(
            "patches first",
            "the patches come first: all rows without pixels stand in front of them",
            _joined(0, 1, 2),
        ),
        Mistake("no class token", "the class token is missing", _joined(2, 0)),
        Mistake("no registers", "the registers are missing", _joined(1, 0)),
        Mistake(
            "patches replaced",
            "the registers stand where the first patches were: no patch may be lost",
            lambda tokens, cls, registers: _joined(1, 2, 0)(
                tokens[:, registers.shape[1] :], cls, registers
            ),
        ),
        Mistake(
            "added",
            "the registers are added to the class token: each is a row of its own",
            lambda tokens, cls, registers: _joined(1, 0)(
                tokens, cls + registers.sum(dim=1, keepdim=True)
            ),
        ),
    ),
    questions=(each_image_alone(0), _whose_rows),
)


def _mean_patches(tokens: Tensor, num_prefix: int) -> Tensor:
    return tokens[:, num_prefix:].mean(dim=1)


def _which_are_averaged(probe: Probe) -> Finding | None:
    """Ask by how much the result depends on each token."""
    tokens, num_prefix = probe.given
    share = []
    for place in range(tokens.shape[1]):
        moved = tokens.clone()
        moved[:, place] += 1
        result = probe.run(moved, num_prefix)
        if result is None or result.shape != probe.got.shape:
            return None
        share.append(round((result - probe.got).mean().item(), 3))
    return Finding(
        "other shares",
        f"with num_prefix = {num_prefix} the {len(share)} tokens have the shares "
        f"{share}: which of them are patches?",
    )


mean_patches = Judge(
    task="mean_patches",
    arguments=("tokens", "num_prefix"),
    axes="b e",
    oracle=_mean_patches,
    cases=(
        Case("a class token", (drawn(1, 4, 3, seed=1), 1)),
        Case("no row in front", (drawn(2, 5, 3, seed=2), 0)),
        Case("a class token and two registers", (drawn(1, 7, 4, seed=3), 3)),
        Case("two images, four registers", (drawn(2, 9, 6, seed=4), 5)),
    ),
    mistakes=(
        Mistake(
            "mean of all",
            "the rows in front are averaged too: they are no patches",
            lambda tokens, num_prefix: tokens.mean(dim=1),
        ),
        Mistake(
            "class token dropped only",
            "right with a class token, wrong with registers or without any: one row is "
            "left out, whatever num_prefix says",
            lambda tokens, num_prefix: tokens[:, 1:].mean(dim=1),
        ),
        Mistake(
            "cut from the end",
            "as many rows as asked are left out, but behind: the rows without pixels "
            "stand in front",
            lambda tokens, num_prefix: tokens[:, : tokens.shape[1] - num_prefix].mean(
                1
            ),
        ),
        Mistake(
            "cut from the end",
            "rows are left out behind: those without pixels stand in front. And "
            "[:-0] is empty",
            lambda tokens, num_prefix: tokens[:, :-num_prefix].mean(1),
        ),
        Mistake(
            "divided by all",
            "the patches are added, and divided by the number of all tokens",
            lambda tokens, num_prefix: (
                tokens[:, num_prefix:].sum(dim=1) / tokens.shape[1]
            ),
        ),
        Mistake(
            "sum, not mean",
            "the patches are added, and not divided by how many they are",
            lambda tokens, num_prefix: tokens[:, num_prefix:].sum(dim=1),
        ),
        Mistake(
            "mean over features",
            "the mean runs over the features of each token: it should run over the "
            "tokens, feature by feature",
            lambda tokens, num_prefix: tokens[:, num_prefix:].mean(dim=2),
        ),
        Mistake(
            "off by one",
            "one row too many is left out, the first patch: how many rows does "
            "num_prefix count, and where does a slice start that skips them?",
            lambda tokens, num_prefix: tokens[:, num_prefix + 1 :].mean(dim=1),
        ),
    ),
    questions=(each_image_alone(0), _which_are_averaged),
)


def _visible_mask(visible: Tensor) -> Tensor:
    always = torch.ones_like(visible[:, :1])
    return _cat(always, visible)[:, None, None]


def _with_first(value: bool, *, last: bool = False, inverted: bool = False):
    """Return an answer with another column for the class token."""

    def answer(visible: Tensor) -> Tensor:
        column = torch.full_like(visible[:, :1], value)
        visible = ~visible if inverted else visible
        parts = (visible, column) if last else (column, visible)
        return _cat(*parts)[:, None, None]

    return answer


def _which_columns(probe: Probe) -> Finding | None:
    wrong = (probe.got != probe.expected)[:, 0, 0]  # (b, T)
    image = int(wrong.any(dim=1).nonzero()[0])
    return Finding(
        "wrong columns",
        f"in image {image} of {len(wrong)} the tokens "
        f"{wrong[image].nonzero().flatten().tolist()} are open where they should be "
        "shut, or shut where they should be open; token 0 is the class token",
    )


def _seen(*rows: str) -> Tensor:
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


visible_mask = Judge(
    task="visible_mask",
    arguments=("visible",),
    axes="b 1 1 T",
    oracle=_visible_mask,
    cases=(
        Case("three patches, the last hidden", (_seen("xx."),)),
        Case("every patch visible", (_seen("xxxx"),)),
        Case("no patch visible", (_seen("..."),)),
        Case("two images", (_seen(".xx.x", "x..xx"),)),
        Case("three images", (_seen("x.xx", "xx..", "...x"),)),
    ),
    mistakes=(
        Mistake(
            "class token shut",
            "nobody may look at the class token: it is no patch, and never hidden",
            _with_first(False),
        ),
        Mistake(
            "inverted",
            "True and False are swapped: in the mask True means may attend, and "
            "visible is True where a patch is there",
            _with_first(True, inverted=True),
        ),
        Mistake(
            "class token last",
            "the column of the class token stands behind the patches: it is token 0",
            _with_first(True, last=True),
        ),
        Mistake(
            "class token forgotten",
            "there is one column for each patch, and none for the class token",
            lambda visible: visible[:, None, None],
        ),
        Mistake(
            "rows, not columns",
            "the last axis is the token that is looked at, the one before it the token "
            "that looks: you let hidden patches look at nothing, and all others see "
            "them as before",
            lambda visible: _visible_mask(visible).mT,
        ),
        Mistake(
            "axes in front",
            "a mask is (b, h, i, j): the batch comes first, and the tokens that are "
            "looked at come last",
            lambda visible: _visible_mask(visible)[:, 0, 0],
        ),
        Mistake(
            "numbers for a mask",
            "these are numbers to be added to scores: here a mask is boolean, True "
            "where a token may be looked at",
            lambda visible: torch.zeros_like(
                _visible_mask(visible), dtype=torch.float32
            ).masked_fill(~_visible_mask(visible), float("-inf")),
        ),
        Mistake(
            "one mask for all",
            "the same columns are shut in every image: each image has its own",
            lambda visible: _visible_mask(
                visible.any(0, keepdim=True).expand_as(visible)
            ),
        ),
        Mistake(
            "one mask for all",
            "the same columns are shut in every image: each image has its own",
            lambda visible: _visible_mask(visible[:1].expand_as(visible)),
        ),
    ),
    questions=(each_image_alone(0), _which_columns),
)


# How much of a result comes from which token


@dataclasses.dataclass(frozen=True)
class Readout:
    """A linear way to read scores off tokens, (b, T, e) -> (b, 2).

    Args:
        what: How it reads.
        parts: Takes the number of tokens; returns the factor of each.
    Reference:
        The book's page on the checkers.
    """

    what: str
    parts: Callable

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read scores."""
        factors = self.parts(tokens.shape[1]).to(tokens.dtype)
        pooled = torch.einsum("bte,t->be", tokens, factors)
        head = drawn(tokens.shape[2], 2, seed=3).to(tokens.dtype) + 0.05
        return pooled @ head

    def __repr__(self) -> str:
        """Say how it reads."""
        return self.what


def _token_shares(readout: Readout, num_tokens: int, embed_dim: int) -> Tensor:
    parts = readout.parts(num_tokens).abs()
    return parts / parts.sum()


def _effects(readout, num_tokens, embed_dim) -> Tensor:
    """Return the gradient of the sum of all scores, (T, e)."""
    tokens = drawn(1, num_tokens, embed_dim, seed=9).requires_grad_()
    readout(tokens).sum().backward()
    return tokens.grad[0]


def _about_shares(probe: Probe) -> Finding | None:
    got = probe.got
    if got.min() < -1e-6:
        return Finding(
            "negative share",
            f"a share is {got.min():.3g}: a token that lowers a score has an effect, "
            "too. What do you do with the sign?",
        )
    if abs(got.sum() - 1) > 1e-3:
        return Finding("no shares", f"the shares sum to {got.sum():.3g} instead of 1")
    return Finding(
        "other shares",
        f"for {probe.given[0].what} it returns {[round(x, 3) for x in got.tolist()]}: "
        "with how much does each token enter?",
    )


def _unit(places: list[int], num_tokens: int) -> Tensor:
    return F.one_hot(torch.tensor(places), num_tokens).sum(0).float()


token_shares = Judge(
    task="token_shares",
    arguments=("readout", "num_tokens", "embed_dim"),
    axes="T",
    oracle=_token_shares,
    cases=(
        Case(
            "a readout of token 0",
            (Readout("the class token", lambda n: _unit([0], n)), 4, 3),
        ),
        Case(
            "a mean of all tokens",
            (Readout("the mean of all tokens", lambda n: torch.ones(n) / n), 5, 2),
        ),
        Case(
            "a mean of the patches",
            (Readout("the mean of the patches", lambda n: 1 - _unit([0], n)), 6, 4),
        ),
        Case(
            "a readout that counts upwards",
            (Readout("parts 0, 1, 2, ...", lambda n: torch.arange(n).float()), 5, 6),
        ),
        Case(
            "a token that counts against the others",
            (
                Readout(
                    "token 0, less half of token 2",
                    lambda n: _unit([0], n) - _unit([2], n) / 2,
                ),
                7,
                5,
            ),
        ),
    ),
    mistakes=(
        Mistake(
            "not shares",
            "these are sizes of gradients: shares sum to 1. By what do you divide?",
            lambda *given: _effects(*given).abs().sum(dim=1),
        ),
        Mistake(
            "signs kept",
            "the gradients were summed with their signs: opposite ones cancel, and a "
            "token that lowers a score gets less than nothing",
            lambda *given: _effects(*given).sum(1) / _effects(*given).sum(),
        ),
        Mistake(
            "shares of features",
            "these are shares of the features: the sum should run over the features, "
            "token by token",
            lambda *given: _effects(*given).abs().sum(0) / _effects(*given).abs().sum(),
        ),
        Mistake(
            "squared",
            "large effects count too much: sizes were squared on the way",
            lambda *given: (
                _effects(*given).square().sum(1) / _effects(*given).square().sum()
            ),
        ),
        Mistake(
            "softmax",
            "the sizes went through a softmax: a token without any effect gets a share",
            lambda *given: _effects(*given).abs().sum(dim=1).softmax(dim=0),
        ),
        Mistake(
            "equal shares",
            "every token has the same share, whatever readout does",
            lambda readout, num_tokens, embed_dim: torch.ones(num_tokens) / num_tokens,
        ),
        Mistake(
            "one token too few",
            "there is no share for token 0: the class token is one of the tokens",
            lambda *given: _token_shares(*given)[1:],
        ),
    ),
    questions=(_about_shares,),
)
