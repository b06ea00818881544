"""Chapter 08: count another model's parameters."""

import math
import random

from classroom.summative.task import Task

HEAD = "count(image_size, patch_size, channels, e, depth, h, m, classes)"
# Each part in several forms: what is said, and the formula.
EMBEDDING = {
    "The patch embedding is a `Conv2d` with bias.": "c * p * p * e + e",
    "The patch embedding is a `Conv2d` without bias.": "c * p * p * e",
    "The patch embedding is a `Conv2d` with bias, then a LayerNorm of the tokens.": (
        "c * p * p * e + e + 2 * e"
    ),
}
TABLE = {
    "Every patch has a position of its own; nothing in front of the patches has one.": (
        "rows * cols * e"
    ),
    "A patch's position is a row of one table plus a row of another: the first has a "
    "row for each row of the grid, the second one for each column. Nothing in front "
    "of the patches has a position.": "(rows + cols) * e",
    "Every token has a position of its own, whatever it is.": (
        "(rows * cols + 1 + {r}) * e"
    ),
}
QKV = {
    "The map to q, k and v has no bias; the map behind the heads has one.": (
        "3 * e * e + e * e + e"
    ),
    "The maps to q and v have biases, the map to k has none; the map behind the "
    "heads has one.": "3 * e * e + 2 * e + e * e + e",
    "All heads share one key head and one value head, each of e / h numbers; there "
    "are no biases in the attention.": "e * e + 2 * e * (e // h) + e * e",
    "The maps to q, k and v and the map behind the heads have biases. Each head has "
    "one more number, a temperature.": "4 * e * e + 4 * e + h",
}
MLP = {
    "The MLP has `m` hidden numbers, and both its maps have biases.": (
        "2 * e * m + m + e"
    ),
    "The MLP has a gate: its first map goes from e to 2m, the second from m to e, and "
    "neither has a bias.": "3 * e * m",
    "The MLP has a gate: its first map goes from e to 2m, the second from m to e, and "
    "both have biases.": "3 * e * m + 2 * m + e",
}
NORMS = {
    "Each block has two norms, and one stands behind the last block. All have a "
    "weight and a bias.": (2, 2),
    "Each block has two norms, and one stands behind the last block. All have a "
    "weight and no bias.": (2, 1),
    "Each block has three norms, and one stands behind the last block. All have a "
    "weight and a bias.": (3, 2),
}
SCALES = {
    "Nothing else is learned in a block.": 0,
    "What each of a block's two branches returns is multiplied by a learned vector "
    "of e numbers.": 2,
}
CLASSIFIER = {
    "The head is one linear map with bias.": "e * classes + classes",
    "The head is one linear map without bias.": "e * classes",
    "The head has two linear maps with biases, from e to e and from e to the "
    "classes.": ("e * e + e + e * classes + classes"),
}


def task(dice: random.Random) -> Task:
    """Choose the form of each part."""
    parts = (EMBEDDING, TABLE, QKV, MLP, NORMS, SCALES, CLASSIFIER)
    chosen = [dice.randrange(len(part)) for part in parts]
    r = dice.randrange(2, 7)
    said = [list(part)[k] for part, k in zip(parts, chosen, strict=True)]
    patch, table, qkv, mlp, norm, scale, head = (
        list(part.values())[k] for part, k in zip(parts, chosen, strict=True)
    )
    norms, width = norm

    def oracle(image_size, patch_size, channels, e, depth, h, m, classes) -> int:
        return sum(
            math.prod(shape)
            for shape in _shapes(
                chosen, r, image_size, patch_size, channels, e, depth, h, m, classes
            )
        )

    def case(rows, cols, heads):
        p, e = dice.randrange(3, 17), heads * dice.randrange(11, 40)
        sizes = dice.randrange(2, 6), e, dice.randrange(2, 7), heads
        hidden = e + dice.randrange(7, 90)
        return (rows * p, cols * p), p, *sizes, hidden, dice.randrange(7, 40)

    told = "\n".join(f"- {line}" for line in said)
    return Task(
        title="Another model, counted",
        teaches="which part of a model owns which numbers",
        minutes=25,
        goal=(
            f"Write `{HEAD}`: how many numbers does this ViT learn? `image_size` is "
            "(H, W), both multiples of `patch_size`; `e` is the length of a token, `m` "
            "of the MLP's hidden vector, `h` the number of heads. A class token and "
            f"{r} registers stand in front of the patches, all learned.\n\n{told}"
        ),
        head=f'def {HEAD}:\n    """Sizes -> number of parameters."""',
        solution=(
            "c, p = channels, patch_size\n"
            "rows, cols = (side // p for side in image_size)\n"
            f"patches = {patch}\n"
            f"table = {table.format(r=r)}\n"
            f"tokens = (1 + {r}) * e\n"
            f"attention = {qkv}\n"
            f"mlp = {mlp}\n"
            f"norms = {norms * width} * e\n"
            f"scales = {scale} * e\n"
            "blocks = depth * (attention + mlp + norms + scales)\n"
            f"last = {width} * e\n"
            f"head = {head}\n"
            "return patches + table + tokens + blocks + last + head"
        ),
        oracle=oracle,
        example=((12, 18), 6, 3, 8, 2, 2, 11, 5),
        cases=(
            case(5, 7, 2),
            case(9, 4, 3),
            case(6, 11, 4),
            case(13, 3, 5),
            case(8, 9, 6),
        ),
    )


def _shapes(chosen, r, image_size, p, c, e, depth, h, m, classes):
    """Yield the shape of every parameter."""
    embedding, table, qkv, mlp, norms, scales, head = chosen
    rows, cols = image_size[0] // p, image_size[1] // p
    yield e, c, p, p
    if embedding != 1:
        yield (e,)
    if embedding == 2:
        yield from [(e,), (e,)]
    yield from ([(1, rows * cols, e)], [(rows, e), (cols, e)])[table == 1]
    if table == 2:
        yield 1, 1 + r, e
    yield from [(1, 1, e), (1, r, e)]
    norm = [(e,)] if norms == 1 else [(e,), (e,)]
    for _ in range(depth):
        yield e, e
        narrow = e // h if qkv == 2 else e
        yield from [(narrow, e), (narrow, e), (e, e)]
        biases = {0: 1, 1: 3, 2: 0, 3: 4}[qkv]
        yield from biases * [(e,)]
        if qkv == 3:
            yield h, 1, 1
        wide = m if mlp == 0 else 2 * m
        yield from [(wide, e), (e, m)]
        if mlp != 1:
            yield from [(wide,), (e,)]
        yield from (3 if norms == 2 else 2) * norm
        yield from 2 * scales * [(e,)]
    yield from norm
    if head == 2:
        yield from [(e, e), (e,)]
    yield classes, e
    if head != 1:
        yield (classes,)
