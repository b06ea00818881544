"""Chapter 11: another way to tell classes by their features."""

import math
import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

# What is done to all vectors first: said, and as code.
SCALES = {
    "from each feature its mean is subtracted, and the result is divided by its std. "
    "Mean and std are those of `known` alone, and the std divides by N, not N - 1": (
        "mean = known.mean(dim=0)\n"
        "std = known.std(dim=0, correction=0)\n"
        "known, asked = (known - mean) / std, (asked - mean) / std"
    ),
    "each is divided by its length": (
        "known = F.normalize(known, dim=1)\nasked = F.normalize(asked, dim=1)"
    ),
    "from each feature its mean is subtracted, that of `known` alone, and each vector "
    "is then divided by its length": (
        "mean = known.mean(dim=0)\n"
        "known = F.normalize(known - mean, dim=1)\n"
        "asked = F.normalize(asked - mean, dim=1)"
    ),
}
DISTANCES = {
    "the sum of the squared differences": "gaps = gaps.square().sum(dim=2)",
    "the sum of the absolute differences": "gaps = gaps.abs().sum(dim=2)",
    "the square root of the sum of the squared differences": "gaps = gaps.norm(dim=2)",
}
# What a class scores; T is the temperature.
SCORES = {
    "minus the distance to the mean of its known vectors, divided by {T}": (
        "means = torch.stack([known[labels == c].mean(dim=0) for c in there])\n"
        "gaps = asked[:, None] - means  # (M, there, e)\n"
        "{distance}\n"
        "scores = -gaps / {T}"
    ),
    "minus the distance to the nearest of its known vectors, divided by {T}": (
        "gaps = asked[:, None] - known  # (M, N, e)\n"
        "{distance}\n"
        "scores = torch.stack([-gaps[:, labels == c].amin(dim=1) / {T}\n"
        "                      for c in there], dim=1)"
    ),
    "minus the mean of the distances to its known vectors, divided by {T}": (
        "gaps = asked[:, None] - known  # (M, N, e)\n"
        "{distance}\n"
        "scores = torch.stack([-gaps[:, labels == c].mean(dim=1) / {T}\n"
        "                      for c in there], dim=1)"
    ),
    "the logarithm of the sum of its votes, where each of its known vectors votes "
    "`exp(-distance / {T})`": (
        "gaps = asked[:, None] - known  # (M, N, e)\n"
        "{distance}\n"
        "votes = (-gaps / {T}).exp()\n"
        "scores = torch.stack([votes[:, labels == c].sum(dim=1).log()\n"
        "                      for c in there], dim=1)"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose the scale of features, the distance, the score, the temperature."""
    scale, distance = dice.randrange(len(SCALES)), dice.randrange(len(DISTANCES))
    score, temperature = dice.randrange(len(SCORES)), dice.choice((0.5, 2, 3))
    scaled, prepared = list(SCALES.items())[scale]
    far, measured = list(DISTANCES.items())[distance]
    told, scored = (
        text.replace("{T}", f"{temperature:g}").replace("{distance}", measured)
        for text in list(SCORES.items())[score]
    )

    def ready(vectors: list, known: list) -> list:
        columns = list(zip(*known, strict=True))
        means = [0 if scale == 1 else sum(col) / len(col) for col in columns]
        moved = [[x - m for x, m in zip(v, means, strict=True)] for v in vectors]
        if scale:
            return [[x / sum(y * y for y in v) ** 0.5 for x in v] for v in moved]
        stds = [
            (sum((x - m) ** 2 for x in col) / len(col)) ** 0.5
            for col, m in zip(columns, means, strict=True)
        ]
        return [[x / s for x, s in zip(v, stds, strict=True)] for v in moved]

    def gap(one: list, other: list) -> float:
        pairs = list(zip(one, other, strict=True))
        if distance == 1:
            return sum(abs(x - y) for x, y in pairs)
        square = sum((x - y) ** 2 for x, y in pairs)
        return square if distance == 0 else square**0.5

    def weight(vector: list, members: list) -> float:
        """Return the exponential of a class's score."""
        if score == 0:
            mean = [sum(col) / len(col) for col in zip(*members, strict=True)]
            return math.exp(-gap(vector, mean) / temperature)
        gaps = [gap(vector, member) for member in members]
        votes = [math.exp(-g / temperature) for g in gaps]
        if score == 1:
            return max(votes)
        if score == 3:
            return sum(votes)
        return math.prod(vote ** (1 / len(votes)) for vote in votes)

    def oracle(known: Tensor, labels: Tensor, asked: Tensor, num_classes: int):
        vectors = ready(known.tolist(), known.tolist())
        shares = []
        for vector in ready(asked.tolist(), known.tolist()):
            weights = []
            for c in range(num_classes):
                members = [v for v, at in zip(vectors, labels, strict=True) if at == c]
                weights.append(weight(vector, members) if members else 0.0)
            shares.append([w / sum(weights) for w in weights])
        return torch.tensor(shares, dtype=known.dtype)

    def case(counts, m, e, dtype=torch.float32):
        labels = [c for c, count in enumerate(counts) for _ in range(count)]
        dice.shuffle(labels)
        known = numbers(dice, len(labels), e, dtype=dtype)
        asked = numbers(dice, m, e, dtype=dtype)
        return known, torch.tensor(labels), asked, len(counts)

    return Task(
        title="Classes from features",
        teaches="to classify without training a head",
        minutes=20,
        goal=(
            "Write `class_shares(known, labels, asked, num_classes)`. `known` is "
            "`(N, e)`, features of images whose classes stand in `labels`, `(N)`, "
            "whole numbers from 0 on. `asked` is `(M, e)`, features of other images. "
            "Return `(M, num_classes)`.\n\n"
            "- Before anything else the vectors are scaled, those of `asked` as those "
            f"of `known`: {scaled}.\n"
            f"- The distance between two vectors is {far}.\n"
            f"- The score of a class is {told}.\n"
            "- A row of the result is the softmax of the scores.\n"
            "- A class of which no image is known gets exactly 0; the softmax runs "
            "over the other classes alone."
        ),
        head=(
            "def class_shares(known, labels, asked, num_classes):\n"
            '    """(N, e), (N), (M, e), a number -> (M, num_classes)."""'
        ),
        solution=(
            f"{prepared}\n"
            "there = labels.unique()  # a class that is not there has no score\n"
            f"{scored}\n"
            "shares = scores.new_zeros(len(asked), num_classes)\n"
            "shares[:, there] = scores.softmax(dim=1)\n"
            "return shares"
        ),
        oracle=oracle,
        example=case((2, 0, 3), 2, 3),
        cases=(
            case((3, 2, 4), 3, 3),
            case((4, 0, 2, 3), 2, 5),
            case((1, 5, 2, 3, 2), 4, 4),
            case((0, 4, 3, 0, 2, 3), 5, 6),
            case((3, 6, 0, 2), 3, 4, torch.float64),
        ),
    )
