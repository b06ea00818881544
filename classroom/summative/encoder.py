"""Chapter 07: a block that is wired in another way."""

import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

# What x becomes, with the first branch f and the second branch g.
WIRINGS = {
    "Each branch reads the stream as it is, its result is added, and the *sum* is "
    "normalised: it is the new stream": (
        "x = norm({s1}x + {r1}{f}(x))\nreturn norm({s2}x + {r2}{g}(x))"
    ),
    "Each branch reads the normalised stream. What it returns is normalised again and "
    "then added to the stream": (
        "x = {s1}x + {r1}norm({f}(norm(x)))\nreturn {s2}x + {r2}norm({g}(norm(x)))"
    ),
    "Each branch reads the stream as it is. What it returns is normalised and then "
    "added to the stream": (
        "x = {s1}x + {r1}norm({f}(x))\nreturn {s2}x + {r2}norm({g}(x))"
    ),
    "Both branches read the *same* normalised stream, and both results are added to "
    "the stream at once": ("y = norm(x)\nreturn {s1}{s2}x + {r1}{f}(y) + {r2}{g}(y)"),
    "Each branch reads the normalised stream, and its result is added to the stream. "
    "At the end the stream is normalised once more": (
        "x = {s1}x + {r1}{f}(norm(x))\nreturn norm({s2}x + {r2}{g}(norm(x)))"
    ),
}
NORMS = {
    "subtracts a token's mean and divides by the root of (variance + {eps})": (
        "gap = x - x.mean(dim=-1, keepdim=True)\n"
        "    variance = gap.square().mean(dim=-1, keepdim=True)\n"
        "    return gap / (variance + {eps}).sqrt()"
    ),
    "divides a token by the root of (its mean square + {eps})": (
        "square = x.square().mean(dim=-1, keepdim=True)\n"
        "    return x / (square + {eps}).sqrt()"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose the wiring, the norm, its eps, which branch is first, what is scaled."""
    wiring, norm = dice.randrange(len(WIRINGS)), dice.randrange(len(NORMS))
    eps = dice.choice((0.01, 0.1, 1.0))
    mix_first = dice.random() < 0.5
    on_branch = dice.random() < 0.5
    said, wired = list(WIRINGS.items())[wiring]
    rule, normed = (x.format(eps=eps) for x in list(NORMS.items())[norm])
    f, g = ("mixed", "bent") if mix_first else ("bent", "mixed")
    words = dict.fromkeys(("s1", "s2", "r1", "r2"), "")
    words |= {"r1": "g1 * ", "r2": "g2 * "} if on_branch else {}
    words |= {} if on_branch else {"s1": "g1 * ", "s2": "g2 * "}

    def oracle(tokens, mix, w1, w2, g1, g2) -> Tensor:
        def n(x):
            middle = x.mean(dim=2, keepdim=True) if norm == 0 else 0
            size = ((x - middle) ** 2).mean(dim=2, keepdim=True)
            return (x - middle) * (size + eps) ** -0.5

        def over_tokens(x):
            return torch.einsum("ij,bje->bie", mix, x)

        def over_features(x):
            hidden = torch.einsum("bne,me->bnm", x, w1).clamp(min=0)
            return torch.einsum("bnm,em->bne", hidden, w2)

        def added(x, y, factor):
            return x + factor * y if on_branch else factor * x + y

        branches = [over_tokens, over_features]
        if not mix_first:
            branches.reverse()
        if wiring == 3:
            one, two = (branch(n(tokens)) for branch in branches)
            if on_branch:
                return tokens + g1 * one + g2 * two
            return g1 * g2 * tokens + one + two
        x = tokens
        for branch, factor in zip(branches, (g1, g2), strict=True):
            y = branch(n(x) if wiring in (1, 4) else x)
            x = added(x, n(y) if wiring in (1, 2) else y, factor)
            x = n(x) if wiring == 0 else x
        return n(x) if wiring == 4 else x

    def case(b, t, e, m, dtype=torch.float32):
        sizes = (b, t, e), (t, t), (m, e), (e, m), (e,), (e,)
        return tuple(numbers(dice, *size, dtype=dtype) for size in sizes)

    names = {"mixed": "mixing", "bent": "bending"}
    if on_branch:
        scaled = "What the first branch adds to the stream is multiplied by `g1`, `(e)`"
        scaled += ", what the second adds by `g2`"
    elif wiring == 3:
        scaled = "Before they are added, the stream is multiplied by `g1`, `(e)`, and "
        scaled += "by `g2`"
    else:
        scaled = "Before the first branch is added, the stream is multiplied by `g1`, "
        scaled += "`(e)`, before the second is added, by `g2`"
    return Task(
        title="Another block",
        teaches="what stands on the stream and what on a branch",
        minutes=25,
        goal=(
            "Write `other_block(tokens, mix, w1, w2, g1, g2)`: tokens `(b, t, e)` to "
            "tokens `(b, t, e)`. There are two branches. *Mixing* makes new tokens as "
            "`mix @ tokens`, with `mix` `(t, t)`. *Bending* applies `w1`, `(m, e)`, "
            "then cuts negative numbers to 0, then applies `w2`, `(e, m)`; each acts "
            "as in `nn.Linear`, without bias.\n\n"
            f"- The first branch is {names[f]}, the second is {names[g]}.\n"
            f"- {said}.\n"
            f"- The norm {rule}. It has no weights.\n"
            f"- {scaled}."
        ),
        head=(
            "def other_block(tokens, mix, w1, w2, g1, g2):\n"
            '    """Tokens (b, t, e), weights -> tokens (b, t, e)."""'
        ),
        solution=(
            f"def norm(x):\n    {normed}\n\n"
            "def mixed(x):\n    return mix @ x\n\n"
            "def bent(x):\n    return (x @ w1.T).clamp(min=0) @ w2.T\n\n"
            f"x = tokens\n{wired.format(f=f, g=g, **words)}"
        ),
        oracle=oracle,
        example=case(1, 2, 3, 2),
        cases=(
            case(1, 3, 4, 5),
            case(2, 4, 3, 6),
            case(3, 2, 5, 4),
            case(2, 6, 7, 3),
            case(2, 3, 6, 4, torch.float64),
        ),
    )
