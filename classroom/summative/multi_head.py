"""Chapter 05: heads that are packed in another way."""

import itertools
import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

PACKINGS = tuple(
    " ".join(words)
    for words in itertools.permutations(("three", "h", "d"))
    if words != ("three", "h", "d")
)
ORDERS = tuple(map("".join, itertools.permutations("qkv")))


def task(dice: random.Random) -> Task:
    """Choose how q, k and v lie in the weight, and how heads are joined."""
    packing, order = dice.choice(PACKINGS), dice.choice(ORDERS)
    joined = dice.choice(("h d", "d h"))
    turned = dice.random() < 0.5
    shape = "(e, 3*e)" if turned else "(3*e, e)"
    line = "column" if turned else "row"
    product = "tokens @ weight" if turned else "tokens @ weight.T"
    names = ", ".join(order)

    def oracle(tokens: Tensor, weight: Tensor, out: Tensor, num_heads: int) -> Tensor:
        e = tokens.shape[2]
        d = e // num_heads
        lines = weight.T if turned else weight  # (3*e, e)
        sizes = {"three": 3, "h": num_heads, "d": d}
        parts = {}
        words = packing.split()
        places = itertools.product(*(range(sizes[word]) for word in words))
        for row, place in enumerate(places):
            at = dict(zip(words, place, strict=True))
            parts[order[at["three"]], at["h"], at["d"]] = lines[row]
        result = torch.zeros_like(tokens)
        for image in range(len(tokens)):
            mixed = torch.zeros_like(tokens[0])
            for head in range(num_heads):
                q, k, v = (
                    tokens[image] @ torch.stack([parts[x, head, i] for i in range(d)]).T
                    for x in "qkv"
                )
                heads = torch.softmax(q @ k.T / d**0.5, dim=1) @ v
                for i in range(d):
                    at = head * d + i if joined == "h d" else i * num_heads + head
                    mixed[:, at] = heads[:, i]
            result[image] = mixed @ out.T
        return result

    def case(b, n, h, d, dtype=torch.float32):
        e = h * d
        tokens = numbers(dice, b, n, e, dtype=dtype)
        weight = numbers(dice, *((e, 3 * e) if turned else (3 * e, e)), dtype=dtype)
        return tokens, weight, numbers(dice, e, e, dtype=dtype), h

    return Task(
        title="Heads, packed differently",
        teaches="to read a layout and to write it as a pattern",
        minutes=25,
        goal=(
            "Another library keeps the weights of its attention in another order. "
            "Write `other_heads(tokens, weight, out, num_heads)`: tokens `(b, n, e)` "
            "to tokens `(b, n, e)`, without mask and without bias.\n\n"
            f"- `weight` is `{shape}`. Its {line}s lie in the order `({packing})`, the "
            f"last changes fastest. `three` stands for {order[0]}, {order[1]}, "
            f"{order[2]}, in this order.\n"
            "- Scores are divided by the root of d, the length of a head's vector.\n"
            f"- The results of the heads are joined in the order `({joined})`. Then "
            "`out`, `(e, e)`, is applied as `nn.Linear` applies its weight."
        ),
        head=(
            "def other_heads(tokens, weight, out, num_heads):\n"
            '    """Tokens (b, n, e), the weights -> (b, n, e)."""'
        ),
        solution=(
            f"packed = {product}  # (b, n, 3*e)\n"
            f'pattern = "b n ({packing}) -> three b h n d"\n'
            "parts = rearrange(packed, pattern, three=3, h=num_heads)\n"
            f"{names} = parts\n"
            "scores = q @ k.mT / q.shape[-1] ** 0.5  # (b, h, i, j)\n"
            "mixed = scores.softmax(dim=-1) @ v  # (b, h, i, d)\n"
            f'return rearrange(mixed, "b h n d -> b n ({joined})") @ out.T'
        ),
        oracle=oracle,
        example=case(1, 2, 2, 2),
        cases=(
            case(1, 3, 2, 4),
            case(2, 4, 4, 2),
            case(3, 5, 2, 5),
            case(2, 7, 4, 3),
            case(2, 6, 5, 2, torch.float64),
        ),
    )
