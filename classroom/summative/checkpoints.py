"""Chapter 09: a stranger's patch embedding as ours."""

import itertools
import random

import torch
from torch import Tensor

from classroom.summative.task import Task, numbers

AXES = {"c": "channel", "p1": "row", "p2": "column"}
# Ours is left out.
ORDERS = tuple(itertools.permutations(AXES))[1:]
# Which axis of the kernel holds the pixels: said, and as code.
KERNELS = {
    "multiplies this vector with `kernel`, `(c*p1*p2, e)`": "rows = kernel.T",
    "multiplies `kernel`, `(e, c*p1*p2)`, with this vector": "rows = kernel",
}
CHANNELS = {
    "Its channels stand in the same order as ours.": "",
    "Its channels stand the other way round: its first is our last.": (
        "rows = rows.flip(1)\n"
    ),
}
# What the stranger makes of our x: said, a factor, a shift.
PIXELS = {
    "from 0 to 255, `255 * x`": ("255", ""),
    "from -1 to 1, `2 * x - 1`": ("2", "- 1"),
    "inverted, `1 - x`": ("-1", "+ 1"),
    "normalised, `(x - 0.4) / 0.2`": ("5", "- 2"),
}
SCALES = {
    "and adds `bias`": "",
    "multiplies the result by the square root of e, and then adds `bias`": (
        "rows = rows * len(bias) ** 0.5\n"
    ),
    "adds `bias`, and then multiplies the sum by the square root of e": (
        "rows = rows * len(bias) ** 0.5\nbias = bias * len(bias) ** 0.5\n"
    ),
}


def task(dice: random.Random) -> Task:
    """Choose the order, the kernel's axes, the channels, the pixels and the scale."""
    order = dice.choice(ORDERS)
    kernels, reverse = dice.randrange(len(KERNELS)), dice.randrange(len(CHANNELS))
    pixels, scale = dice.randrange(len(PIXELS)), dice.randrange(len(SCALES))
    product, turned = list(KERNELS.items())[kernels]
    channels, flipped = list(CHANNELS.items())[reverse]
    seen, (factor, shift) = list(PIXELS.items())[pixels]
    shifted = f"bias = bias {shift} * rows.sum(dim=(1, 2, 3))\n" if shift else ""
    scaled, multiplied = list(SCALES.items())[scale]

    def token(patch: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Return what the stranger makes of our patch, (c, p1, p2) -> (e)."""
        sizes = dict(zip(AXES, patch.shape, strict=True))
        total = torch.zeros_like(bias)
        places = itertools.product(*(range(sizes[axis]) for axis in order))
        for number, place in enumerate(places):
            at = dict(zip(order, place, strict=True))
            channel = sizes["c"] - 1 - at["c"] if reverse else at["c"]
            x = patch[channel, at["p1"], at["p2"]]
            x = (255 * x, 2 * x - 1, 1 - x, (x - 0.4) / 0.2)[pixels]
            total = total + x * (kernel[:, number] if kernels else kernel[number])
        root = len(bias) ** 0.5
        return (total + bias, root * total + bias, root * (total + bias))[scale]

    def oracle(kernel: Tensor, bias: Tensor, patch_size: tuple) -> Tensor:
        count = kernel.shape[1 if kernels else 0]
        form = (-1, *patch_size)
        given = kernel.double(), bias.double()
        black = token(torch.zeros(count).double().view(form), *given)
        lights = torch.eye(count).double()
        columns = [token(light.view(form), *given) - black for light in lights]
        return torch.stack([*columns, black], dim=1).to(kernel.dtype)

    def case(e, c, p1, p2, dtype=torch.float32):
        sizes = (e, c * p1 * p2) if kernels else (c * p1 * p2, e)
        kernel, bias = numbers(dice, *sizes, dtype=dtype), numbers(dice, e, dtype=dtype)
        return kernel, bias, (p1, p2)

    names = ", ".join(AXES[axis] for axis in order)
    return Task(
        title="A stranger's patch embedding",
        teaches="which choices a kernel hides",
        minutes=25,
        goal=(
            "A stranger's model makes a token of each patch; ours does it with a "
            "`Conv2d`. Write `our_embedding(kernel, bias, patch_size)`, which returns "
            "the weight and the bias with which our `Conv2d` gives the stranger's "
            "tokens. `patch_size` is `(p1, p2)`, rows and columns of a patch; `bias` "
            "is `(e)`.\n\n"
            "The stranger lays the numbers of a patch one behind the other, "
            f"{product}, {scaled}.\n\n"
            f"- The numbers lie in the order {names}: the last one changes fastest.\n"
            f"- {channels}\n"
            f"- Our model takes pixels x from 0 to 1, the stranger's takes them {seen}."
            "\n\nReturn `(e, c*p1*p2 + 1)`: the weight of our `Conv2d` as "
            "`weight.flatten(1)` lays it, and behind it, as the last column, our bias."
        ),
        head=(
            "def our_embedding(kernel, bias, patch_size):\n"
            '    """Kernel, bias, (p1, p2) -> weight and bias, (e, c*p1*p2 + 1)."""'
        ),
        solution=(
            "p1, p2 = patch_size\n"
            f"{turned}\n"
            "rows = rearrange(\n"
            f'    rows, "e ({" ".join(order)}) -> e c p1 p2", p1=p1, p2=p2)\n'
            f"{flipped}{multiplied}{shifted}"
            f"weight = {factor} * rows.flatten(1)\n"
            "return torch.cat([weight, bias[:, None]], dim=1)"
        ),
        oracle=oracle,
        example=case(2, 2, 2, 2),
        cases=(
            case(3, 2, 2, 3),
            case(4, 3, 3, 2),
            case(5, 4, 2, 5),
            case(2, 3, 4, 3),
            case(3, 2, 3, 4, torch.float64),
        ),
    )
