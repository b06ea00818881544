"""Chapter 12: a window that slides in another way."""

import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

# What lies outside the image: said, and the mode of F.pad.
OUTSIDE = {
    "is 0": "constant",
    "is the nearest pixel inside": "replicate",
    "comes from the other side, as if copies of the image stood all around": (
        "circular"
    ),
    "is the image mirrored at its border pixels, which are not repeated: "
    "`..., 2, 1, 0, 1, 2, ...`": "reflect",
}
STEPS = ((1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2))
# What is made of a window, the same for each of the e outputs.
RESULTS = {
    "the sum of all weights times their pixels": (
        'return torch.einsum("b c y x i j, e c i j -> b e y x", windows, weight)'
    ),
    "the sum of all weights times the difference of their pixel and the middle pixel "
    "of the same channel": (
        "windows = windows - windows[..., k // 2, k // 2][..., None, None]\n"
        'return torch.einsum("b c y x i j, e c i j -> b e y x", windows, weight)'
    ),
    "the largest of all products of a weight and its pixel": (
        "products = windows[:, None] * weight[:, :, None, None]\n"
        "return products.amax(dim=(2, 5, 6))"
    ),
    "the sum of all weights times their pixels, divided by 1 plus the sum of the "
    "pixels' sizes (without signs)": (
        'sums = torch.einsum("b c y x i j, e c i j -> b e y x", windows, weight)\n'
        "return sums / (1 + windows.abs().sum(dim=(1, 4, 5)))[:, None]"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose the border, the steps, the holes, and what is made of a window."""
    outside, result = dice.randrange(len(OUTSIDE)), dice.randrange(len(RESULTS))
    down, right = dice.choice(STEPS)
    apart = dice.choice((1, 2, 3))
    border, mode = list(OUTSIDE.items())[outside]
    made, returned = list(RESULTS.items())[result]

    def pixel(plane: list, row: int, col: int) -> float:
        """Return a pixel of one channel, which may lie outside."""
        sides = len(plane), len(plane[0])
        at = []
        for place, side in zip((row, col), sides, strict=True):
            if outside == 0 and not 0 <= place < side:
                return 0.0
            if outside == 3:
                there = [*range(side), *range(side - 2, 0, -1)]
                at.append(there[place % len(there)])
            else:
                at.append((min(max(place, 0), side - 1), place % side)[outside == 2])
        return plane[at[0]][at[1]]

    def oracle(images: Tensor, weight: Tensor) -> Tensor:
        k = weight.shape[2]
        high, wide = images.shape[2:]
        steps = [apart * (n - k // 2) for n in range(k)]
        results = [
            [
                [
                    [
                        _made(result, image, filter_, row, col, steps, pixel)
                        for col in range(0, wide, right)
                    ]
                    for row in range(0, high, down)
                ]
                for filter_ in weight.tolist()
            ]
            for image in images.tolist()
        ]
        return torch.tensor(results, dtype=images.dtype)

    def case(b, c, high, wide, e, k, dtype=torch.float32):
        images = numbers(dice, b, c, high, wide, dtype=dtype)
        return images, numbers(dice, e, c, k, k, dtype=dtype)

    near = {
        1: "The pixels of a window are neighbours.",
        2: "The pixels of a window have holes between them: from one to the next it is "
        "2 rows or columns.",
        3: "The pixels of a window have holes between them: from one to the next it is "
        "3 rows or columns.",
    }
    every = {1: "every {}", 2: "every second {}", 3: "every third {}"}
    return Task(
        title="Another window",
        teaches="what a convolution is made of",
        minutes=30,
        goal=(
            "Write `other_convolution(images, weight)`. `images` is `(b, c, H, W)`, "
            "`weight` is `(e, c, k, k)`, k odd. A window of k by k pixels slides over "
            "the image, and it is not turned round: `weight[:, :, 0, 0]` meets its top "
            "left pixel.\n\n"
            f"- {near[apart]}\n"
            f"- Its middle stands on {every[down].format('row')} and on "
            f"{every[right].format('column')}, the first one included.\n"
            f"- What lies outside the image {border}.\n"
            f"- A number of the result, `(b, e, H', W')`, is {made}."
        ),
        head=(
            "def other_convolution(images, weight):\n"
            '    """(b, c, H, W), (e, c, k, k) -> (b, e, H\', W\')."""'
        ),
        solution=(
            "k = weight.shape[2]\n"
            f"reach = {apart} * (k - 1)\n"
            f'padded = F.pad(images, [reach // 2] * 4, mode="{mode}")\n'
            f"windows = padded.unfold(2, reach + 1, {down})\n"
            f"windows = windows.unfold(3, reach + 1, {right})\n"
            f"windows = windows[..., ::{apart}, ::{apart}]  # (b, c, H', W', k, k)\n"
            f"{returned}"
        ),
        oracle=oracle,
        example=case(1, 1, 4, 5, 1, 3),
        cases=(
            case(1, 2, 7, 8, 3, 3),
            case(2, 1, 8, 7, 4, 5),
            case(2, 3, 9, 10, 2, 3),
            case(3, 2, 11, 8, 1, 5),
            case(1, 2, 10, 11, 2, 3, torch.float64),
        ),
    )


def _made(result, image, filter_, row, col, steps, pixel) -> float:
    """Return what one window gives for one filter."""
    pairs = [
        (weight, pixel(plane, row + y, col + x), pixel(plane, row, col))
        for plane, weights in zip(image, filter_, strict=True)
        for y, line in zip(steps, weights, strict=True)
        for x, weight in zip(steps, line, strict=True)
    ]
    if result == 1:
        return sum(w * (p - middle) for w, p, middle in pairs)
    if result == 2:
        return max(w * p for w, p, _ in pairs)
    total = sum(w * p for w, p, _ in pairs)
    if result == 3:
        return total / (1 + sum(abs(p) for _, p, _ in pairs))
    return total
