"""Chapter 13: another rollout."""

import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

HEADS = {
    "the mean of its heads": "table = block.mean(dim=1)  # (b, i, j)",
    "for every pair of tokens the largest weight of any head": (
        "table = block.amax(dim=1)  # (b, i, j)"
    ),
    "for every pair of tokens the smallest weight of any head": (
        "table = block.amin(dim=1)  # (b, i, j)"
    ),
    "the root of the mean of its heads' squares": (
        "table = block.square().mean(dim=1).sqrt()  # (b, i, j)"
    ),
}
READINGS = {
    "the row of token 0 without its own column, divided by its sum, `(b, n)`": (
        "row = result[:, 0, 1:]\nreturn row / row.sum(dim=1, keepdim=True)"
    ),
    "for each token the mean of its column, `(b, T)`": "return result.mean(dim=1)",
    "for each token the weight that it has for itself, `(b, T)`": (
        "return result.diagonal(dim1=1, dim2=2)"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose how heads are joined, the share of the skip, the blocks, what is read."""
    heads, reading = dice.randrange(len(HEADS)), dice.randrange(len(READINGS))
    keep = dice.choice((0.2, 0.3, 0.6, 0.7))
    first = dice.choice((0, 1, 2))
    joined, code = list(HEADS.items())[heads]
    read, returned = list(READINGS.items())[reading]
    which = ("All blocks count", "Block 0 is left out", "Blocks 0 and 1 are left out")

    def oracle(attention: Tensor) -> Tensor:
        depth, b, h, t, _ = attention.shape
        results = []
        for image in range(b):
            result = [[float(i == j) for j in range(t)] for i in range(t)]
            for block in range(first, depth):
                step = []
                for i in range(t):
                    row = [
                        _one([attention[block, image, head, i, j] for head in range(h)])
                        for j in range(t)
                    ]
                    total = sum(row)
                    step.append([(1 - keep) * x / total for x in row])
                    step[i][i] = step[i][i] + keep
                result = [
                    [sum(step[i][k] * result[k][j] for k in range(t)) for j in range(t)]
                    for i in range(t)
                ]
            if reading == 0:
                total = sum(result[0][1:])
                results.append([x / total for x in result[0][1:]])
            elif reading == 1:
                columns = zip(*result, strict=True)
                results.append([sum(column) / t for column in columns])
            else:
                results.append([result[i][i] for i in range(t)])
        return torch.tensor(results, dtype=attention.dtype)

    def _one(weights: list) -> float:
        values = [weight.item() for weight in weights]
        if heads == 3:
            return (sum(x * x for x in values) / len(values)) ** 0.5
        return (sum(values) / len(values), max(values), min(values))[heads]

    def case(depth, b, h, t, dtype=torch.float32):
        weights = numbers(dice, depth, b, h, t, t, dtype=dtype).softmax(dim=-1)
        return (weights.mul(100).round().add(1).div(100 + t),)

    return Task(
        title="Another rollout",
        teaches="what a rollout multiplies, and in which order",
        minutes=25,
        goal=(
            "Write `other_rollout(attention)`. Attention is `(depth, b, h, i, j)`, "
            "block 0 first, all weights above 0.\n\n"
            f"- {which[first]}.\n"
            f"- The table of a block is {joined}. Each row of it is then divided by "
            "its sum.\n"
            f"- A block passes on {keep:g} of each token as it is, and {1 - keep:g} "
            "of what its table mixes.\n"
            "- The blocks act one after the other, so that row i says of which tokens "
            "of the input token i is made.\n"
            f"- Return {read}."
        ),
        head=(
            "def other_rollout(attention):\n"
            '    """Attention (depth, b, h, i, j) -> what the last line asks."""'
        ),
        solution=(
            "T = attention.shape[-1]\n"
            "identity = torch.eye(T, dtype=attention.dtype)\n"
            "result = identity\n"
            f"for block in attention[{first}:]:\n"
            f"    {code}\n"
            "    table = table / table.sum(dim=-1, keepdim=True)\n"
            f"    step = {keep} * identity + (1 - {keep}) * table\n"
            f"    result = step @ result\n{returned}"
        ),
        oracle=oracle,
        example=case(3, 1, 2, 3),
        cases=(
            case(4, 1, 2, 4),
            case(4, 2, 3, 5),
            case(5, 3, 2, 3),
            case(5, 2, 4, 6),
            case(4, 2, 2, 4, torch.float64),
        ),
    )
