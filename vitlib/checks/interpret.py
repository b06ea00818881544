"""Checks of the exercises of chapter 13: numbers drawn from attention maps."""

import math

import torch
from torch import Tensor

import vitlib.interpret as library
from vitlib.checks.building import drawn
from vitlib.checks.comparing import close
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import each_image_alone
from vitlib.checks.wording import Finding


def drawn_attention(*sizes: int, seed: int) -> Tensor:
    """Draw weights as a softmax makes them.

    Args:
        sizes: (depth, b, h, T).
        seed: Another one gives other numbers.
    Shape:
        -> (depth, b, h, T, T); every row over the last axis sums to 1
    Reference:
        The book's page on the checkers.
    """
    return (2 * drawn(*sizes, sizes[-1], seed=seed)).softmax(dim=-1)


# Entropy


def _bits(attention: Tensor) -> Tensor:
    return torch.special.entr(attention).sum(dim=-1) / math.log(2)


def _attention_entropy(attention):
    return _bits(attention).mean(dim=(1, 3))


def _sharp(depth, b, h, tokens):
    """Return weights in which each query looks at one key or evenly at two."""
    key = torch.arange(tokens)
    one = torch.eye(tokens)[(key + 1) % tokens]
    two = (one + torch.eye(tokens)[(key + 2) % tokens]) / 2
    heads = torch.stack([one if head % 2 else two for head in range(h)])
    return heads.expand(depth, b, h, tokens, tokens).clone()


def _about_entropy(probe: Probe) -> Finding | None:
    """Ask two heads whose entropy is known."""
    for tokens, what, bits in ((4, "evenly at 4 keys", 2.0), (8, "evenly at 8", 3.0)):
        even = torch.full((2, 2, 2, tokens, tokens), 1 / tokens)
        got = probe.run(even)
        if got is None or got.shape != (2, 2):
            return None
        if (got - bits).abs().max() > 0.01:
            return Finding(
                "even attention",
                f"a head that looks {what} gets {got[0, 0]:.4g}, needed is {bits:g} "
                "bits: as many as it takes to name one of them",
            )
    return None


attention_entropy = Judge(
    task="attention_entropy",
    arguments=("attention",),
    axes="depth h",
    oracle=_attention_entropy,
    cases=(
        Case("one head, two tokens", (torch.tensor([[[[[0.5, 0.5], [0.25, 0.75]]]]]),)),
        Case("drawn weights", (drawn_attention(2, 3, 4, 5, seed=1),)),
        Case("sharp heads with weights of 0", (_sharp(1, 2, 3, 4),)),
        Case("another draw", (drawn_attention(3, 2, 1, 6, seed=2),)),
    ),
    mistakes=(
        Mistake(
            "natural logarithm",
            "this is in nats, from the natural logarithm: bits are asked for. How many "
            "bits has an even choice of two?",
            lambda a: _attention_entropy(a) * math.log(2),
        ),
        Mistake(
            "log of 0",
            "right, but where a weight is 0 the result is NaN: 0 times the logarithm "
            "of 0 counts as 0, and a computer does not know that",
            lambda a: -(a * a.log2()).sum(dim=-1).mean(dim=(1, 3)),
        ),
        Mistake(
            "summed, not averaged",
            "the queries' entropies are added: with twice the tokens or images a head "
            "would seem twice as wide",
            lambda a: _bits(a).sum(dim=(1, 3)),
        ),
        Mistake(
            "sign",
            "every number has the wrong sign: a logarithm of a share is negative, an "
            "entropy is not",
            lambda a: -_attention_entropy(a),
        ),
        Mistake(
            "entropy of the mean",
            "the weights are averaged first: heads that look sharply, but each query "
            "elsewhere, seem wide then. What is to be averaged?",
            lambda a: _bits(a.mean(dim=(1, 3), keepdim=True)).mean(dim=(1, 3)),
        ),
        Mistake(
            "share of the most",
            "this is the share of the largest possible entropy: bits are asked for",
            lambda a: _attention_entropy(a) / math.log2(a.shape[-1]),
        ),
        Mistake(
            "all heads averaged",
            "one number for each head of each block is needed: here heads or blocks "
            "are averaged as well",
            lambda a: _bits(a).mean(dim=(1, 2, 3)),
        ),
    ),
    questions=(_about_entropy,),
    gradients=False,
)


# Rollout with weighted heads


def _head_shares(head_weights):
    return head_weights / head_weights.sum(dim=1, keepdim=True)


def _rolled(attention, head_weights):
    return _product(attention, _head_shares(head_weights))


def _product(attention, shares, *, order=1, identity=0.5, mixed=None):
    """Multiply the blocks' tables; mistakes mix or order them otherwise."""
    eye = torch.eye(attention.shape[-1], dtype=attention.dtype)
    result = eye.expand(attention.shape[1], -1, -1)
    blocks = list(zip(attention, shares, strict=True))[::order]
    for weights, share in blocks:
        table = torch.einsum("bhij,h->bij", weights, share)
        step = mixed(table, eye) if mixed else (1 - identity) * table + identity * eye
        result = step @ result
    return result


def _about_rollout(probe: Probe) -> Finding | None:
    """Ask what must hold of any rollout."""
    attention, head_weights = probe.given
    sums = probe.got.sum(dim=-1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return Finding(
            "rows do not sum to 1",
            f"row 0 of the rollout sums to {sums.flatten()[0]:.4g}: the shares of all "
            "input tokens in one output token make 1. Where do they stop doing so?",
        )
    still = torch.eye(attention.shape[-1]).expand_as(attention).clone()
    got = probe.run(still, head_weights)
    if got is not None and not close(got, still[0, :, 0]):
        return Finding(
            "nobody looks elsewhere",
            "with heads of which each token looks at itself alone, the rollout must be "
            "the identity, and it is not",
        )
    away = still.roll(1, dims=-1)[:1].contiguous()
    got = probe.run(away, head_weights[:1].contiguous())
    kept = None if got is None else got.diagonal(dim1=1, dim2=2)
    if kept is not None and (kept - 0.5).abs().max() > 1e-3:
        return Finding(
            "what a token keeps",
            "one block in which every token looks at its neighbour alone: half of a "
            f"token is what it held before, and yours keeps {kept[0, 0]:.4g}",
        )
    table = attention[:1]
    one = probe.run(table, head_weights[:1])
    then = torch.cat([table, still[:1]])
    two = probe.run(then, head_weights[:1].expand(2, -1).contiguous())
    if one is not None and two is not None and not close(one, two):
        return Finding(
            "a block that does nothing",
            "behind a first block stands one in which each token looks at itself "
            "alone: it moves nothing, and yours changes the rollout. What is half of "
            "what, in one block and in the next?",
        )
    same = probe.run(attention, torch.ones_like(head_weights))
    even = library.attention_rollout(attention)
    if same is not None and close(same, even):
        return Finding(
            "weights of the heads",
            "right when all heads count equally: look at how their weights enter",
        )
    return None


def _heads(depth, h, seed):
    return drawn(depth, h, seed=seed).abs() + 0.2


weighted_rollout = Judge(
    task="weighted_rollout",
    arguments=("attention", "head_weights"),
    axes="image i j",
    oracle=_rolled,
    cases=(
        Case(
            "one block, one head",
            (drawn_attention(1, 1, 1, 3, seed=1), torch.tensor([[2.0]])),
        ),
        Case(
            "one block, three heads",
            (drawn_attention(1, 2, 3, 4, seed=2), _heads(1, 3, 1)),
        ),
        Case(
            "two blocks, one head",
            (drawn_attention(2, 3, 1, 3, seed=3), torch.tensor([[1.0], [3.0]])),
        ),
        Case(
            "three blocks, two heads",
            (drawn_attention(3, 2, 2, 5, seed=4), _heads(3, 2, 2)),
        ),
    ),
    mistakes=(
        Mistake(
            "no residual",
            "the residual stream is left out: half of each token is what it held "
            "before. Give it heads that take everything from elsewhere, and see what "
            "it says of the token itself",
            lambda a, w: _product(a, _head_shares(w), identity=0.0),
        ),
        Mistake(
            "blocks in the wrong order",
            "right with one block: with two, the first block's table must stand next "
            "to the input. On which side of a product is that?",
            lambda a, w: _product(a, _head_shares(w), order=-1),
        ),
        Mistake(
            "no residual, wrong order",
            "two things are wrong: half of each token is what it held before, and the "
            "first block's table must stand next to the input",
            lambda a, w: _product(a, _head_shares(w), order=-1, identity=0.0),
        ),
        Mistake(
            "heads count equally",
            "right with one head: head_weights has no effect",
            lambda a, w: library.attention_rollout(a),
        ),
        Mistake(
            "weights not scaled",
            "the weights of a block's heads do not sum to 1 as they come, so neither "
            "do the rows of your table",
            lambda a, w: _product(a, w),
        ),
        Mistake(
            "weights not scaled",
            "the weights of a block's heads do not sum to 1 as they come: dividing "
            "the mixture afterwards hides that, and changes how much is residual",
            lambda a, w: _product(
                a,
                w,
                mixed=lambda table, eye: (
                    (table + eye) / (table + eye).sum(dim=-1, keepdim=True)
                ),
            ),
        ),
        Mistake(
            "scaled over the blocks",
            "the weights are scaled over the blocks: the heads of one block share "
            "among themselves",
            lambda a, w: _product(a, w / w.sum(dim=0)),
        ),
        Mistake(
            "scaled over everything",
            "the weights are scaled over all blocks at once: each block's heads share "
            "among themselves",
            lambda a, w: _product(a, w / w.sum()),
        ),
        Mistake(
            "residual added whole",
            "the identity is added whole and nothing divided: rows sum to 2 after one "
            "block, to 4 after two",
            lambda a, w: _product(
                a, _head_shares(w), mixed=lambda table, eye: table + eye
            ),
        ),
        Mistake(
            "softmax of the weights",
            "the weights of the heads went through a softmax: a head of twice the "
            "weight is to count twice",
            lambda a, w: _product(a, w.softmax(dim=1)),
        ),
        Mistake(
            "turned",
            "rows and columns of the tables are swapped: row i says what token i "
            "gathers",
            lambda a, w: _product(a.mT, _head_shares(w)),
        ),
    ),
    questions=(_about_rollout,),
    # Rows that sum to 1 can be scaled in many ways, each with another gradient.
    gradients=False,
)


# Do two maps agree on the order of the patches?


def _ranks(values: Tensor) -> Tensor:
    return values.argsort(dim=-1).argsort(dim=-1).to(values.dtype)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x.double() - x.double().mean(dim=-1, keepdim=True) for x in (a, b))
    products = (a * b).sum(dim=-1)
    return products / (a.square().sum(dim=-1) * b.square().sum(dim=-1)).sqrt()


def _rank_agreement(a, b):
    ranks = _ranks(a.flatten(1)), _ranks(b.flatten(1))
    return _correlation(*ranks).to(a.dtype)


def _over_the_batch(a, b):
    one = _correlation(_ranks(a.flatten()), _ranks(b.flatten()))
    return one.to(a.dtype).expand(len(a))


def _each_row(a, b):
    return _correlation(_ranks(a), _ranks(b)).mean(dim=1).to(a.dtype)


def _about_agreement(probe: Probe) -> Finding | None:
    """Ask maps whose agreement is known."""
    a, b = probe.given
    for other, what, wanted in ((a, "itself", 1), (-a, "its negative", -1)):
        got = probe.run(a, other)
        if got is not None and (got - wanted).abs().max() > 1e-3:
            return Finding(
                "known agreement",
                f"a map and {what} agree to {got.flatten()[0]:.4g}, needed is {wanted}",
            )
    bent = probe.run(a, b.exp())
    if bent is not None and not close(bent, probe.got):
        return Finding(
            "not ranks",
            "bend one map so that no two patches change their order, and the agreement "
            "changes: it looks at more than the order",
        )
    return None


def _map(b, rows, cols, seed):
    """Return maps in which no two numbers are equal, in any dtype."""
    dice = torch.Generator().manual_seed(seed)
    order = [torch.randperm(rows * cols, generator=dice) for _ in range(b)]
    # Squared: far from evenly spaced.
    return torch.stack(order).float().square().view(b, rows, cols) / 16


rank_agreement = Judge(
    task="rank_agreement",
    arguments=("a", "b"),
    axes="b",
    oracle=_rank_agreement,
    cases=(
        Case("a map of four patches", (_map(1, 2, 2, 2), _map(1, 2, 2, 5))),
        Case("two maps", (_map(2, 3, 3, 3), _map(2, 3, 3, 4))),
        Case("wide maps", (_map(3, 2, 5, 6), _map(3, 2, 5, 7))),
        Case("high maps", (_map(4, 5, 3, 8), _map(4, 5, 3, 9))),
    ),
    mistakes=(
        Mistake(
            "numbers, not ranks",
            "this correlates the numbers: one bright patch decides it. The order of "
            "the patches is asked for",
            lambda a, b: _correlation(a.flatten(1), b.flatten(1)).to(a.dtype),
        ),
        Mistake(
            "argsort is no rank",
            "argsort lists which patch comes first, second, ...: it does not say "
            "which place each patch has. Write both down for [30, 10, 20]",
            lambda a, b: _correlation(
                a.flatten(1).argsort(dim=1), b.flatten(1).argsort(dim=1)
            ).to(a.dtype),
        ),
        Mistake(
            "both sorted",
            "both maps were sorted, so it no longer matters which patch is where",
            lambda a, b: _correlation(
                a.flatten(1).sort(dim=1).values, b.flatten(1).sort(dim=1).values
            ).to(a.dtype),
        ),
        Mistake(
            "images ranked together",
            "right for one image: the patches of all images were ranked in one list",
            _over_the_batch,
        ),
        Mistake(
            "row by row",
            "each row of a map was ranked by itself: the patches of an image are one "
            "list",
            _each_row,
        ),
        Mistake(
            "sign lost",
            "maps of opposite order disagree: the result must be negative there",
            lambda a, b: _rank_agreement(a, b).abs(),
        ),
        Mistake(
            "means not subtracted",
            "this is the cosine of the ranks: ranks are all positive, so it is never "
            "near 0 or below. What is missing before the product?",
            lambda a, b: torch.cosine_similarity(
                _ranks(a.flatten(1)), _ranks(b.flatten(1)), dim=1
            ),
        ),
        Mistake(
            "one number for all",
            "every image needs a number of its own: here they are averaged",
            lambda a, b: _rank_agreement(a, b).mean(),
        ),
    ),
    questions=(_about_agreement, each_image_alone(0, 1)),
    dtypes=(torch.float64,),
    gradients=False,
)


# What is left of the answer


def _deletion_area(shares, curves):
    return torch.trapezoid(curves / curves[:, :1], shares, dim=1)


def _steps(shares, curves, place):
    widths = shares.diff()
    heights = curves / curves[:, :1]
    return (heights[:, place : place + len(widths)] * widths).sum(dim=1)


def _about_area(probe: Probe) -> Finding | None:
    """Ask curves whose area is known."""
    shares, curves = probe.given
    flat = probe.run(shares, torch.full_like(curves, 0.5))
    if flat is not None and (flat - 1).abs().max() > 1e-3:
        return Finding(
            "a flat curve",
            f"an image of which no patch matters gets {flat.flatten()[0]:.4g}, needed "
            "is 1: its whole start is left at every step",
        )
    straight = probe.run(shares, (1 - shares).expand_as(curves).contiguous())
    if straight is not None and (straight - 0.5).abs().max() > 1e-3:
        return Finding(
            "a straight curve",
            "a curve that falls straight from 1 to 0 has an area of 0.5, and gets "
            f"{straight.flatten()[0]:.4g}: mind that the steps are not equally wide",
        )
    return None


def _curves(b, steps, seed):
    return (drawn(b, steps, seed=seed).abs() + 0.1).sort(1, descending=True).values


deletion_area = Judge(
    task="deletion_area",
    arguments=("shares", "curves"),
    axes="b",
    oracle=_deletion_area,
    cases=(
        Case(
            "one image, even steps",
            (torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[0.5, 0.25, 0.125]])),
        ),
        Case(
            "as many images as steps",
            (torch.tensor([0.0, 0.125, 0.5, 1.0]), _curves(4, 4, 1)),
        ),
        Case(
            "uneven steps",
            (torch.tensor([0.0, 0.0625, 0.125, 0.25, 1.0]), _curves(3, 5, 2)),
        ),
    ),
    mistakes=(
        Mistake(
            "start not divided out",
            "an image of which the model was never sure gets a small area for that "
            "alone: what is a curve to be compared with?",
            lambda s, c: torch.trapezoid(c, s, dim=1),
        ),
        Mistake(
            "equal steps",
            "right where steps are equally wide: many narrow steps at the start count "
            "for too much here",
            lambda s, c: torch.trapezoid(c / c[:, :1], dx=1 / (len(s) - 1), dim=1),
        ),
        Mistake(
            "mean of the points",
            "this is the mean of the points: an area counts each step by its width",
            lambda s, c: (c / c[:, :1]).mean(dim=1),
        ),
        Mistake(
            "left ends",
            "each step counts with what was left at its beginning, which is too much: "
            "a curve falls between two points",
            lambda s, c: _steps(s, c, 0),
        ),
        Mistake(
            "right ends",
            "each step counts with what was left at its end, which is too little: a "
            "curve falls between two points",
            lambda s, c: _steps(s, c, 1),
        ),
        Mistake(
            "one start for all",
            "all curves are divided by the mean of their starts: each image has a "
            "start of its own",
            lambda s, c: torch.trapezoid(c / c[:, 0].mean(), s, dim=1),
        ),
        Mistake(
            "start subtracted",
            "the start is subtracted: how much of it is left is a share",
            lambda s, c: torch.trapezoid(1 + c - c[:, :1], s, dim=1),
        ),
        Mistake(
            "widths of one",
            "the widths of the steps are not used: they have to sum to 1",
            lambda s, c: torch.trapezoid(c / c[:, :1], dim=1),
        ),
    ),
    questions=(_about_area, each_image_alone(1)),
)
