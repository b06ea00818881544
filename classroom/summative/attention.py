"""Chapter 04: another score, another mask, another softmax."""

import math
import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

SCORES = {
    "the dot product divided by d": "scores = q @ k.mT / q.shape[-1]",
    "the cosine of the angle between query and key, times {t}": (
        "q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))\n"
        "scores = {t} * q @ k.mT"
    ),
    "minus the squared distance of query and key, divided by the root of d": (
        "gaps = q[..., :, None, :] - k[..., None, :, :]  # (b, h, i, j, d)\n"
        "scores = -gaps.square().sum(dim=-1) / q.shape[-1] ** 0.5"
    ),
    "the dot product, divided by the root of d, and {t} more where i = j": (
        "scores = q @ k.mT / q.shape[-1] ** 0.5\n"
        "scores = scores + {t} * torch.eye(n, dtype=q.dtype)"
    ),
}
MASKS = {
    "whose distance is at most {w}": "seen = (i - j).abs() <= {w}",
    "that is itself or one of the {w} before it": (
        "seen = (i - j >= 0) & (i - j <= {w})"
    ),
    "whose distance is a multiple of {w}, itself included": "seen = (i - j) % {w} == 0",
    "that comes before it, itself, and the first {w} wherever they stand": (
        "seen = (j <= i) | (j < {w})"
    ),
    "but the {w} that follow it": "seen = (j <= i) | (j > i + {w})",
}
SHARES = {
    "The weights are the softmax over the keys that are seen": (
        "return scores.softmax(dim=-1) @ v  # (b, h, i, d)"
    ),
    "The softmax has one more place, with score 0, that holds no value: so a query "
    "can look at nothing, and the weights of the keys sum to less than 1": (
        "nothing = torch.zeros_like(scores[..., :1])\n"
        "weights = torch.cat([scores, nothing], dim=-1).softmax(dim=-1)\n"
        "return weights[..., :-1] @ v  # (b, h, i, d)"
    ),
    "The weights are the softmax over the keys that are seen, and each row is "
    "multiplied by the number of keys that its query sees": (
        "counts = seen.sum(dim=-1, keepdim=True)  # (i, 1)\n"
        "return counts * scores.softmax(dim=-1) @ v  # (b, h, i, d)"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose the score, the mask and the softmax."""
    score, mask = dice.randrange(len(SCORES)), dice.randrange(len(MASKS))
    share = dice.randrange(len(SHARES))
    t, w = dice.choice((2, 3, 4)), dice.choice((2, 3))
    said, compared = (x.format(t=t) for x in list(SCORES.items())[score])
    keys, opened = (x.format(w=w) for x in list(MASKS.items())[mask])
    rule, weighed = list(SHARES.items())[share]

    def sees(i: int, j: int) -> bool:
        return (
            abs(i - j) <= w,
            0 <= i - j <= w,
            (i - j) % w == 0,
            j <= i or j < w,
            not i < j <= i + w,
        )[mask]

    def scored(query: Tensor, key: Tensor, same: bool) -> Tensor:
        dot, d = (query * key).sum(), len(query)
        if score == 0:
            return dot / d
        if score == 1:
            return t * dot / (query.square().sum() * key.square().sum()).sqrt()
        if score == 2:
            return -(query - key).square().sum() / math.sqrt(d)
        return dot / math.sqrt(d) + (t if same else 0)

    def oracle(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result = torch.zeros_like(v)
        b, h, n, _ = q.shape
        for image in range(b):
            for head in range(h):
                for i in range(n):
                    parts = {
                        j: scored(q[image, head, i], k[image, head, j], i == j).exp()
                        for j in range(n)
                        if sees(i, j)
                    }
                    total = sum(parts.values()) + (1 if share == 1 else 0)
                    mixed = sum(p * v[image, head, j] for j, p in parts.items()) / total
                    times = len(parts) if share == 2 else 1
                    result[image, head, i] = times * mixed
        return result

    def case(b, h, n, d, dtype=torch.float32):
        return tuple(numbers(dice, b, h, n, d, dtype=dtype) for _ in "qkv")

    return Task(
        title="Other attention",
        teaches="where score, mask and softmax act",
        minutes=25,
        goal=(
            "Write `other_attend(q, k, v)`. All three are `(b, h, n, d)`, and so is "
            "the result.\n\n"
            f"- The score of query i and key j is {said}.\n"
            f"- A token sees each token {keys}. It sees no other.\n"
            f"- {rule}. The result is the sum of the values, weighted."
        ),
        head=(
            "def other_attend(q, k, v):\n"
            '    """q, k, v, each (b, h, n, d) -> (b, h, n, d)."""'
        ),
        solution=(
            f"n = q.shape[2]\n{compared}\n"
            "i, j = torch.arange(n)[:, None], torch.arange(n)[None]\n"
            f"{opened}  # (i, j)\n"
            f'scores = scores.masked_fill(~seen, float("-inf"))\n{weighed}'
        ),
        oracle=oracle,
        example=case(1, 1, 5, 2),
        cases=(
            case(1, 1, 8, 3),
            case(2, 3, 7, 4),
            case(3, 2, 9, 5),
            case(2, 4, 10, 2),
            case(2, 2, 8, 6, torch.float64),
        ),
    )
