"""Chapter 01: cut images in another way."""

import itertools
import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

SIZES = ((2, 3), (3, 2), (2, 4), (4, 2), (3, 4), (4, 3))
INSIDE = ("c p2 p1", "p1 p2 c", "p2 p1 c", "p1 c p2", "p2 c p1")
NUMBERING = {
    "down the first column of patches, then down the next": (
        "return grid.transpose(1, 2).flatten(1, 2)  # (b, n, c*p1*p2)"
    ),
    "row by row, and every second row, beginning with the second, from right to left": (
        "grid = grid.clone()\n"
        "grid[:, 1::2] = grid[:, 1::2].flip(2)\n"
        "return grid.flatten(1, 2)  # (b, n, c*p1*p2)"
    ),
    "backwards: the patch at the bottom right is number 0, and the one left of it is "
    "number 1": "return grid.flatten(1, 2).flip(1)  # (b, n, c*p1*p2)",
    "row by row from the bottom row to the top row, each from left to right": (
        "return grid.flip(1).flatten(1, 2)  # (b, n, c*p1*p2)"
    ),
}
BORDER = {
    "is left out at the right and at the bottom": (
        "images = images[:, :, : H // {p1} * {p1}, : W // {p2} * {p2}]"
    ),
    "is left out at the left and at the top": (
        "images = images[:, :, H % {p1} :, W % {p2} :]"
    ),
    "is kept: zeros are added at the right and at the bottom until patches fit": (
        "images = F.pad(images, (0, -W % {p2}, 0, -H % {p1}))"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose sizes, border, the order of the patches and the order inside."""
    p1, p2 = dice.choice(SIZES)
    inside = dice.choice(INSIDE)
    order = dice.randrange(len(NUMBERING))
    border = dice.randrange(len(BORDER))
    numbering, count = list(NUMBERING.items())[order]
    left_over, trim = list(BORDER.items())[border]

    def oracle(images: Tensor) -> Tensor:
        b, channels, height, width = images.shape
        top = left = 0
        rows, cols = height // p1, width // p2
        if border == 1:
            top, left = height - rows * p1, width - cols * p2
        if border == 2:
            rows, cols = -(-height // p1), -(-width // p2)
        sides = {"c": range(channels), "p1": range(p1), "p2": range(p2)}
        patches = []
        for row, col in _places(rows, cols, order):
            numbers = []
            for place in itertools.product(*(sides[word] for word in inside.split())):
                at = dict(zip(inside.split(), place, strict=True))
                y, x = top + row * p1 + at["p1"], left + col * p2 + at["p2"]
                inner = y < height and x < width
                zero = images.new_zeros(b)
                numbers.append(images[:, at["c"], y, x] if inner else zero)
            patches.append(torch.stack(numbers, dim=1))
        return torch.stack(patches, dim=1)

    def case(b, c, rows, cols, dtype=torch.float32):
        height = rows * p1 + dice.randrange(1, p1)
        width = cols * p2 + dice.randrange(1, p2)
        return (numbers(dice, b, c, height, width, dtype=dtype),)

    return Task(
        title="Another cut",
        teaches="to say where each pixel goes, and to check it",
        minutes=20,
        goal=(
            "Write `other_cut(images)`. It cuts images `(b, c, H, W)` into patches of "
            f"{p1} rows and {p2} columns of pixels and returns `(b, n, c*p1*p2)`.\n\n"
            f"- What is too small for a patch {left_over}.\n"
            f"- Patches are numbered {numbering}.\n"
            f"- Inside a patch the order is `({inside})`: the last changes fastest."
        ),
        head=(
            "def other_cut(images):\n"
            '    """Images (b, c, H, W) -> patches (b, n, c*p1*p2)."""'
        ),
        solution=(
            "H, W = images.shape[2:]\n"
            f"{trim.format(p1=p1, p2=p2)}\n"
            f'pattern = "b c (rows p1) (cols p2) -> b rows cols ({inside})"\n'
            f"grid = rearrange(images, pattern, p1={p1}, p2={p2})\n{count}"
        ),
        oracle=oracle,
        example=case(1, 2, 2, 2),
        cases=(
            case(1, 2, 2, 3),
            case(2, 3, 3, 2),
            case(3, 2, 4, 3),
            case(2, 5, 3, 4),
            case(2, 3, 2, 5, torch.float64),
        ),
    )


def _places(rows: int, cols: int, order: int) -> list[tuple[int, int]]:
    """List the patches as they are numbered."""
    if order == 0:
        return [(row, col) for col in range(cols) for row in range(rows)]
    if order == 3:
        return [(row, col) for row in reversed(range(rows)) for col in range(cols)]
    places = []
    for row in range(rows):
        line = [(row, col) for col in range(cols)]
        places += line[::-1] if order == 1 and row % 2 else line
    return places[::-1] if order == 2 else places
