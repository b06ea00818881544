"""Chapter 06: another gate."""

import math
import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

BENDS = {
    "`x * sigmoid(1.702 * x)`": "gate * torch.sigmoid(1.702 * gate)",
    "the square of `x` where `x` is positive, and 0 elsewhere": (
        "gate.clamp(min=0).square()"
    ),
    "`log(1 + exp(x))`": "F.softplus(gate)",
    "`x * tanh(log(1 + exp(x)))`": "gate * F.softplus(gate).tanh()",
    "`x` cut off below 0 and above 1": "gate.clamp(0, 1)",
    "`x / (1 + |x|)`": "gate / (1 + gate.abs())",
}
HALVES = {
    "the first half of the hidden numbers": "gate, value = hidden.chunk(2, dim=-1)",
    "the second half of the hidden numbers": "value, gate = hidden.chunk(2, dim=-1)",
    "hidden numbers 0, 2, 4, ...": (
        "gate, value = hidden[..., ::2], hidden[..., 1::2]"
    ),
    "hidden numbers 1, 3, 5, ...": (
        "gate, value = hidden[..., 1::2], hidden[..., ::2]"
    ),
}
ENDS = {
    "The result is what `w2` returns": "return made @ w2.T",
    "The tokens are added to what `w2` returns": "return tokens + made @ w2.T",
    "Before `w2`, the products of a token are divided by the root of (their mean "
    "square + 0.1)": (
        "square = made.square().mean(dim=-1, keepdim=True)\n"
        "return made / (square + 0.1).sqrt() @ w2.T"
    ),
    "Before `w2`, the mean of a token's products is subtracted from each of them": (
        "return (made - made.mean(dim=-1, keepdim=True)) @ w2.T"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose the bend, the half that is the gate, and what comes after."""
    bend, half = dice.randrange(len(BENDS)), dice.randrange(len(HALVES))
    end = dice.randrange(len(ENDS))
    curve, bent = list(BENDS.items())[bend]
    which, parted = list(HALVES.items())[half]
    rule, last = list(ENDS.items())[end]

    def opened(x: float) -> float:
        return (
            lambda: x / (1 + math.exp(-1.702 * x)),
            lambda: x * x if x > 0 else 0.0,
            lambda: math.log1p(math.exp(x)),
            lambda: x * math.tanh(math.log1p(math.exp(x))),
            lambda: min(max(x, 0.0), 1.0),
            lambda: x / (1 + abs(x)),
        )[bend]()

    def oracle(tokens: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
        m = w2.shape[1]
        gates = (range(m), range(m, 2 * m), range(0, 2 * m, 2), range(1, 2 * m, 2))
        gates = list(gates[half])
        values = [k for k in range(2 * m) if k not in gates]
        result = torch.zeros_like(tokens)
        for image in range(tokens.shape[0]):
            for n in range(tokens.shape[1]):
                token = tokens[image, n]
                hidden = [float(w1[k] @ token + b1[k]) for k in range(2 * m)]
                pairs = zip(gates, values, strict=True)
                made = [opened(hidden[g]) * hidden[v] for g, v in pairs]
                if end == 2:
                    size = (sum(x * x for x in made) / m + 0.1) ** 0.5
                    made = [x / size for x in made]
                if end == 3:
                    made = [x - sum(made) / m for x in made]
                out = w2 @ torch.tensor(made, dtype=tokens.dtype)
                result[image, n] = out + token if end == 1 else out
        return result

    def case(b, n, e, m, dtype=torch.float32):
        sizes = (b, n, e), (2 * m, e), (2 * m,), (e, m)
        return tuple(numbers(dice, *size, dtype=dtype) for size in sizes)

    return Task(
        title="Another gate",
        teaches="which numbers bend and which do not",
        minutes=20,
        goal=(
            "Write `other_mlp(tokens, w1, b1, w2)`: tokens `(b, n, e)` to tokens `(b, "
            "n, e)`. `w1` is `(2*m, e)`, `b1` is `(2*m)`, `w2` is `(e, m)`, and each "
            "acts as in `nn.Linear`.\n\n"
            "- `w1` and `b1` turn a token into 2m hidden numbers. The gate is "
            f"{which}, the value is the others, both in their order.\n"
            f"- The gate is bent: x becomes {curve}. Then it multiplies the value, "
            "number by number, and there are m products.\n"
            f"- {rule}."
        ),
        head=(
            "def other_mlp(tokens, w1, b1, w2):\n"
            '    """Tokens (b, n, e), (2*m, e), (2*m), (e, m) -> (b, n, e)."""'
        ),
        solution=(
            "hidden = tokens @ w1.T + b1  # (b, n, 2*m)\n"
            f"{parted}\nmade = {bent} * value  # (b, n, m)\n{last}"
        ),
        oracle=oracle,
        example=case(1, 2, 2, 3),
        cases=(
            case(1, 2, 3, 4),
            case(2, 3, 4, 5),
            case(3, 5, 2, 7),
            case(2, 4, 6, 3),
            case(2, 3, 5, 4, torch.float64),
        ),
    )
