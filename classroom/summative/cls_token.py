"""Chapter 02: read tokens that lie in another order."""

import itertools
import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

WORDS = {"cls": "the class token", "registers": "{r} registers", "patches": "patches"}
LAYOUTS = tuple(itertools.permutations(WORDS))
READINGS = {
    "the class token and, behind it, the mean of the patches, `(b, 2*e)`": (
        "count = seen.sum(dim=1)\n"
        "mean = (patches * seen).sum(dim=1) / count  # (b, e)\n"
        "return torch.cat([cls[:, 0], mean], dim=1)  # (b, 2*e)"
    ),
    "the mean of the patches less the class token, `(b, e)`": (
        "count = seen.sum(dim=1)\n"
        "return (patches * seen).sum(dim=1) / count - cls[:, 0]  # (b, e)"
    ),
    "for each feature the largest number of all patches, plus the class token, "
    "`(b, e)`": (
        "none = torch.finfo(tokens.dtype).min\n"
        "largest = torch.where(seen, patches, none).amax(dim=1)\n"
        "return largest + cls[:, 0]  # (b, e)"
    ),
    "a mean of the patches, `(b, e)`, in which each has a weight: the softmax, over "
    "patches, of its dot product with the class token, divided by the root of e": (
        "scores = patches @ cls.mT / tokens.shape[2] ** 0.5  # (b, n, 1)\n"
        'scores = scores.masked_fill(~seen, float("-inf"))\n'
        "return (scores.softmax(dim=1) * patches).sum(dim=1)  # (b, e)"
    ),
    "for each feature the root of the mean square of the patches, times the class "
    "token, `(b, e)`": (
        "count = seen.sum(dim=1)\n"
        "square = (patches.square() * seen).sum(dim=1) / count\n"
        "return square.sqrt() * cls[:, 0]  # (b, e)"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose the layout, the number of registers, and what is read."""
    layout = dice.choice(LAYOUTS)
    r = dice.randrange(2, 6)
    kind = dice.randrange(len(READINGS))
    reading, code = list(READINGS.items())[kind]
    order = ", then ".join(WORDS[part].format(r=r) for part in layout)
    sizes = {"cls": "1", "registers": str(r), "patches": f"T - {r + 1}"}

    def oracle(tokens: Tensor, visible: Tensor) -> Tensor:
        lengths = {"cls": 1, "registers": r, "patches": tokens.shape[1] - r - 1}
        starts, place = {}, 0
        for part in layout:
            starts[part], place = place, place + lengths[part]
        rows = []
        for image, real in zip(tokens, visible, strict=True):
            cls = image[starts["cls"]]
            there = [image[starts["patches"] + n] for n in real.nonzero().flatten()]
            rows.append(_read(kind, cls, there))
        return torch.stack(rows)

    def case(b, n, e, dtype=torch.float32):
        visible = numbers(dice, b, n) > 0
        # In no image are all patches there, and in none is there none.
        visible[:, 0], visible[:, n - 1] = True, False
        return numbers(dice, b, n + r + 1, e, dtype=dtype), visible

    return Task(
        title="Other tokens",
        teaches="to find the tokens that matter, and only those",
        minutes=20,
        goal=(
            f"A model lays its tokens in this order: {order}. Write `read(tokens, "
            "visible)`. `tokens` is `(b, T, e)`. `visible` is `(b, n)`, True where a "
            "patch is real; a patch that is not must have no influence. At least one "
            f"is real. Return {reading}."
        ),
        head=(
            "def read(tokens, visible):\n"
            '    """Tokens (b, T, e), visible (b, n) -> what is read."""'
        ),
        solution=(
            "T = tokens.shape[1]\n"
            f"parts = tokens.split([{', '.join(sizes[part] for part in layout)}], 1)\n"
            f"cls = parts[{layout.index('cls')}]  # (b, 1, e)\n"
            f"patches = parts[{layout.index('patches')}]  # (b, n, e)\n"
            f"seen = visible[:, :, None]  # (b, n, 1)\n{code}"
        ),
        oracle=oracle,
        example=case(1, 3, 2),
        cases=(
            case(1, 5, 4),
            case(2, 6, 3),
            case(3, 4, 7),
            case(4, 9, 5),
            case(2, 7, 6, torch.float64),
        ),
    )


def _read(kind: int, cls: Tensor, patches: list[Tensor]) -> Tensor:
    mean = sum(patches) / len(patches)
    if kind == 0:
        return torch.cat([cls, mean])
    if kind == 1:
        return mean - cls
    if kind == 2:
        return torch.stack(patches).max(dim=0).values + cls
    if kind == 3:
        shares = [torch.exp(patch @ cls / len(cls) ** 0.5) for patch in patches]
        return sum(s * p for s, p in zip(shares, patches, strict=True)) / sum(shares)
    return (sum(patch**2 for patch in patches) / len(patches)) ** 0.5 * cls
