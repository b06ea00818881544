"""Checks of what chapter 02 builds: the class token and pooling."""

import torch
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
    if probe.got.shape != probe.expected.shape:
        return None
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
