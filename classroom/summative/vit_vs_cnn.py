"""Chapter 12: a window that slides in another way."""

import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

# What lies outside the image: said, and the mode of F.pad.
OUTSIDE = {
    "is 0": "constant",
    "is the nearest pixel inside": "replicate",
    "is the image again, as if copies of it stood all around": "circular",
    "is the image mirrored at its border pixels, which are not repeated: its rows are "
    "`..., 2, 1, 0, 1, 2, ...`, and it is the same at all four sides": "reflect",
}
STEPS = ((1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2))
# What is made of a window, the same for each of the e outputs.
RESULTS = {
    "the sum of all weights times their pixels, over all channels": (
        'return torch.einsum("b c y x i j, e c i j -> b e y x", windows, weight)'
    ),
    "the sum, over all channels, of all weights times the difference of their pixel "
    "and the middle pixel of the same channel": (
        "windows = windows - windows[..., k // 2, k // 2][..., None, None]\n"
        'return torch.einsum("b c y x i j, e c i j -> b e y x", windows, weight)'
    ),
    "the largest of all products of a weight and its pixel, over all channels": (
        "products = windows[:, None] * weight[:, :, None, None]\n"
        "return products.amax(dim=(2, 5, 6))"
    ),
    "the sum of all weights times their pixels, divided by (1 plus the sum of the "
    "absolute values of the same pixels), both sums over all channels": (
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
        1: "The pixels of a window are direct neighbours.",
        2: "The pixels of a window lie 2 rows or columns apart: one is left out in "
        "between.",
        3: "The pixels of a window lie 3 rows or columns apart: two are left out in "
        "between.",
    }
    every = {1: "every {}", 2: "every second {}", 3: "every third {}"}
    return Task(
        title="Another window",
        teaches="what a convolution is made of",
        minutes=30,
        goal=(
            "Write `other_convolution(images, weight)`. `images` is `(b, c, H, W)`, "
            "`weight` is `(e, c, k, k)`, k odd. A window of k by k pixels slides over "
            "the image; `weight[:, :, 0, 0]` meets its top left pixel. Beyond the "
            "border it never reaches further than the image is wide or high.\n\n"
            f"- {near[apart]}\n"
            f"- Its middle stands on {every[down].format('row')} and on "
            f"{every[right].format('column')}, from the first one on, also where the "
            "window reaches beyond the border.\n"
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
        example=case(1, 2, 4, 5, 1, 3),
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
