"""Chapter 03: another table of sines and cosines."""

import math
import random

import torch
from torch import Tensor

from classroom.summative.task import Task

BASES = (50, 100, 300, 1000, 3000)
COUNTING = {
    "Rows and columns are counted from 1": (
        "ys = torch.arange(1, rows + 1, dtype=torch.float64)\n"
        "xs = torch.arange(1, cols + 1, dtype=torch.float64)"
    ),
    "Rows and columns are counted from the middle of the grid, so that they sum to 0, "
    "in steps of 1": (
        "ys = torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2\n"
        "xs = torch.arange(cols, dtype=torch.float64) - (cols - 1) / 2"
    ),
    "The place of a row is the share of the height at which its middle lies, times "
    "2π, so `2π (i + 1/2) / rows`; that of a column in the same way": (
        "ys = torch.arange(rows, dtype=torch.float64) + 0.5\n"
        "ys = 2 * math.pi * ys / rows\n"
        "xs = torch.arange(cols, dtype=torch.float64) + 0.5\n"
        "xs = 2 * math.pi * xs / cols"
    ),
}
TURNS = {
    "all sines, then all cosines": "return torch.cat([angle.sin(), angle.cos()], 1)",
    "all cosines, then all sines": "return torch.cat([angle.cos(), angle.sin()], 1)",
    "sine and cosine of the first angle, then of the second, and so on": (
        "both = torch.stack([angle.sin(), angle.cos()], 2)\n    return both.flatten(1)"
    ),
}
FIRST = {"k": "torch.arange(q)", "k + 1": "torch.arange(1, q + 1)"}


def task(dice: random.Random) -> Task:
    """Choose base, counting, the order of halves, and the order inside a half."""
    base = dice.choice(BASES)
    counting = dice.randrange(len(COUNTING))
    turns = dice.randrange(len(TURNS))
    first = dice.randrange(len(FIRST))
    rows_first = dice.random() < 0.5
    by_rows = dice.random() < 0.5
    counted, places = list(COUNTING.items())[counting]
    order, joined = list(TURNS.items())[turns]
    power, powers = list(FIRST.items())[first]
    halves = ("row", "column") if rows_first else ("column", "row")
    named = "y, x" if rows_first else "x, y"

    def place(i: int, count: int) -> float:
        if counting == 0:
            return i + 1
        if counting == 1:
            return i - (count - 1) / 2
        return 2 * math.pi * (i + 0.5) / count

    def half(value: float, embed_dim: int) -> list[float]:
        q = embed_dim // 4
        angles = [value * base ** (-(k + first) / q) for k in range(q)]
        sines, cosines = map(math.sin, angles), map(math.cos, angles)
        if turns == 2:
            return [x for pair in zip(sines, cosines, strict=True) for x in pair]
        return [*cosines, *sines] if turns else [*sines, *cosines]

    def oracle(rows: int, cols: int, embed_dim: int) -> Tensor:
        if by_rows:
            grid = [(row, col) for row in range(rows) for col in range(cols)]
        else:
            grid = [(row, col) for col in range(cols) for row in range(rows)]
        table = []
        for row, col in grid:
            two = half(place(row, rows), embed_dim), half(place(col, cols), embed_dim)
            table.append(two[0] + two[1] if rows_first else two[1] + two[0])
        return torch.tensor(table)

    said = "row by row" if by_rows else "column by column, each from the top"
    return Task(
        title="Another table",
        teaches="what a table of positions leaves free, and what not",
        minutes=25,
        goal=(
            "Write `other_table(rows, cols, embed_dim)`. It returns `(n, e)`, float32, "
            "one row for each patch of a grid, and e is a multiple of 4.\n\n"
            f"- {counted}.\n"
            f"- The first half of the features tells the {halves[0]}, the second half "
            f"the {halves[1]}.\n"
            "- In each half there are q = e/4 angles, the place times "
            f"`{base} ** (-({power}) / q)` for k = 0, 1, ..., q - 1. The half holds "
            f"{order}.\n"
            f"- Patches are numbered {said}."
        ),
        head=(
            "def other_table(rows, cols, embed_dim):\n"
            '    """Numbers of rows, columns, features -> table (n, e)."""'
        ),
        solution=(
            "q = embed_dim // 4\n"
            f"powers = {base} ** (-{powers}.double() / q)\n{places}\n\n"
            "def half(values):\n"
            "    angle = torch.outer(values, powers)  # (side, q)\n"
            f"    {joined}\n\n"
            "y = half(ys)[:, None].expand(-1, cols, -1)  # (rows, cols, e/2)\n"
            "x = half(xs)[None].expand(rows, -1, -1)\n"
            f"table = torch.cat([{named}], dim=2)  # (rows, cols, e)\n"
            + ("" if by_rows else "table = table.transpose(0, 1)\n")
            + "return table.flatten(0, 1).float()  # (n, e)"
        ),
        oracle=oracle,
        example=(2, 3, 8),
        cases=((3, 2, 8), (2, 5, 12), (4, 3, 16), (5, 7, 20), (6, 4, 24)),
    )
