"""Chapter 14: positions for a larger grid, by another rule."""

import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

# Which old place fills a new one that lies outside: said, and as code.
OUTSIDE = {
    "starts anew: behind the last row comes the first, before the first the last": (
        "place % side"
    ),
    "repeats its border: what lies outside gets the nearest row that is there": (
        "place.clamp(0, side - 1)"
    ),
    "is mirrored at its border, and the border itself is repeated: ..., 1, 0, 0, 1, "
    "...": (
        "torch.where(place % (2 * side) < side,\n"
        "                       place % (2 * side),\n"
        "                       2 * side - 1 - place % (2 * side))"
    ),
    "is mirrored at its border, and the border is not repeated: ..., 2, 1, 0, 1, 2, "
    "...": ("(side - 1) - ((place % (2 * side - 2)) - (side - 1)).abs()"),
}
CORNERS = {
    "at the top left": ("0", "0"),
    "at the bottom right": ("new - side", "new - side"),
    "at the top right": ("0", "new - side"),
    "in the middle (if it cannot be exact, one place nearer to the top and to the "
    "left)": ("(new - side) // 2", "(new - side) // 2"),
}
FRONT = {
    "are kept, in front": "return torch.cat([front, grid], dim=1)",
    "are kept, and come to the end": "return torch.cat([grid, front], dim=1)",
    "are left out": "return grid",
}


def task(dice: random.Random) -> Task:
    """Choose how the table goes on, where the old one lies, what is in front."""
    outside, corner = dice.randrange(len(OUTSIDE)), dice.randrange(len(CORNERS))
    front = dice.randrange(len(FRONT))
    count = dice.randrange(1, 4)
    rule, places = list(OUTSIDE.items())[outside]
    where, (top, left) = list(CORNERS.items())[corner]
    prefix, joined = list(FRONT.items())[front]

    def old(place: int, side: int) -> int:
        if outside == 0:
            return list(range(side))[place % side]
        if outside == 1:
            return min(max(place, 0), side - 1)
        once = list(range(side))
        back = once[::-1] if outside == 2 else once[-2:0:-1]
        there = once + back
        return there[place % len(there)]

    def oracle(pos_embed: Tensor, old_grid: tuple, new_grid: tuple) -> Tensor:
        gaps = [new - side for side, new in zip(old_grid, new_grid, strict=True)]
        starts = (
            (0, 0),
            tuple(gaps),
            (0, gaps[1]),
            (gaps[0] // 2, gaps[1] // 2),
        )[corner]
        rows = []
        for row in range(new_grid[0]):
            for col in range(new_grid[1]):
                y = old(row - starts[0], old_grid[0])
                x = old(col - starts[1], old_grid[1])
                rows.append(pos_embed[0, count + y * old_grid[1] + x])
        first = [pos_embed[0, place] for place in range(count)]
        order = (first + rows, rows + first, rows)[front]
        return torch.stack(order)[None]

    def case(rows, cols, more_rows, more_cols, e, dtype=torch.float32):
        table = numbers(dice, 1, count + rows * cols, e, dtype=dtype)
        return table, (rows, cols), (rows + more_rows, cols + more_cols)

    rows = "row has" if count == 1 else "rows have"
    return Task(
        title="A table that goes on",
        teaches="to work out which place a place comes from",
        minutes=25,
        goal=(
            "A table of positions has to serve a larger grid, and is not stretched: "
            "it goes on. Write `larger_table(pos_embed, old_grid, new_grid)`. "
            f"`pos_embed` is `(1, T, e)`: the first {count} {rows} no place, then come "
            "the places of `old_grid`, (rows, columns), row by row. `new_grid` has at "
            "least as many rows and columns. The result is a table for it.\n\n"
            f"- The old grid lies {where} of the new one.\n"
            f"- Up and down the old table {rule}. To the sides it is the same with "
            "columns.\n"
            f"- Rows without a place {prefix}."
        ),
        head=(
            "def larger_table(pos_embed, old_grid, new_grid):\n"
            '    """(1, T, e), (rows, cols), (rows, cols) -> (1, T\', e)."""'
        ),
        solution=(
            "def old_places(side, new, start):\n"
            "    place = torch.arange(new) - start\n"
            f"    return {places}\n\n"
            "(rows, cols), (high, wide) = old_grid, new_grid\n"
            f"side, new = rows, high\nys = old_places(side, new, {top})\n"
            f"side, new = cols, wide\nxs = old_places(side, new, {left})\n"
            f"front = pos_embed[:, :{count}]\n"
            f"grid = pos_embed[:, {count}:].unflatten(1, (rows, cols))\n"
            "grid = grid[:, ys][:, :, xs].flatten(1, 2)  # (1, n, e)\n"
            f"{joined}"
        ),
        oracle=oracle,
        example=case(3, 4, 2, 1, 2),
        cases=(
            case(3, 4, 5, 7, 2),
            case(4, 3, 5, 7, 5),
            case(3, 5, 7, 9, 3),
            case(5, 4, 3, 7, 4),
            case(4, 6, 5, 3, 2, torch.float64),
        ),
    )
