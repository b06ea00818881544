"""Chapter 10: another schedule."""

import math
import random

import torch
from torch import Tensor

from classroom.summative.task import Task

RISES = {
    "rises in a line: step s gets the share `(s + 1) / warmup` of `lr`": (
        "(step + 1) / warmup"
    ),
    "rises in a curve: step s gets the share `((s + 1) / warmup)**2` of `lr`": (
        "((step + 1) / warmup) ** 2"
    ),
    "rises in half a cosine: step s gets the share `(1 - cos(π (s + 1) / warmup)) / 2` "
    "of `lr`": "(1 - math.cos(math.pi * (step + 1) / warmup)) / 2",
}
# What is left of lr when the share x of the steps after the warm-up is done.
FALLS = {
    "in half a cosine, `(1 + cos(π x)) / 2`": "(1 + math.cos(math.pi * x)) / 2",
    "in a line": "1 - x",
    "as `1 - x**2`": "1 - x**2",
}
FLOORS = (0.02, 0.05, 0.1, 0.2)


def task(dice: random.Random) -> Task:
    """Choose the rise, the fall, the floor, and how often it starts anew."""
    rise, fall = dice.randrange(len(RISES)), dice.randrange(len(FALLS))
    floor, hold = dice.choice(FLOORS), dice.choice((0, 0.25, 0.5))
    cycles = dice.choice((1, 2, 3))
    up, risen = list(RISES.items())[rise]
    down, fallen = list(FALLS.items())[fall]

    def oracle(num_steps: int, lr: float, warmup: int) -> Tensor:
        steps = range(num_steps)
        return torch.tensor([rate(step, num_steps, lr, warmup) for step in steps])

    def rate(step: int, num_steps: int, lr: float, warmup: int) -> float:
        if step < warmup:
            done = (step + 1) / warmup
            return lr * (done, done**2, math.sin(math.pi * done / 2) ** 2)[rise]
        length = (num_steps - warmup) // cycles
        held = int(hold * length)
        at = (step - warmup) % length
        if at < held:
            return lr
        x = (at - held) / (length - held)
        left = (math.cos(math.pi * x / 2) ** 2, 1 - x, (1 - x) * (1 + x))[fall]
        return lr * (left + floor - left * floor)

    def case(warmup: int, quarters: int):
        return warmup + 4 * cycles * quarters, dice.choice((0.01, 0.02, 0.5)), warmup

    parts = {
        1: "the steps after the warm-up are one part",
        2: "the steps after the warm-up are cut into two equal parts, each alike",
        3: "the steps after the warm-up are cut into three equal parts, each alike",
    }
    held = {
        0: "There",
        0.25: "For the first quarter of its steps the rate is `lr`. Then",
        0.5: "For the first half of its steps the rate is `lr`. Then",
    }
    return Task(
        title="Another schedule",
        teaches="to count steps, ends and shares",
        minutes=20,
        goal=(
            "Write `other_rates(num_steps, lr, warmup)`: the learning rate of every "
            "step, in a tensor `(num_steps)`, float32. Steps are counted from 0.\n\n"
            f"- In the first `warmup` steps the rate {up}.\n"
            f"- Then {parts[cycles]}. A part's number of steps is a multiple of 4.\n"
            f"- {held[hold]} a number falls from 1 to 0 {down}. x is the share of "
            "these steps that are done: 0 at the first of them, and 1 only at the step "
            "behind the last.\n"
            f"- The rate is `lr` times ({floor:g} + {1 - floor:g} times this number)."
        ),
        head=(
            "def other_rates(num_steps, lr, warmup):\n"
            '    """Sizes -> the rates of all steps, (num_steps)."""'
        ),
        solution=(
            f"length = (num_steps - warmup) // {cycles}\n"
            f"held = length * {int(4 * hold)} // 4\n\n"
            "def rate(step):\n"
            "    if step < warmup:\n"
            f"        return lr * {risen}\n"
            "    place = (step - warmup) % length\n"
            "    x = max(place - held, 0) / (length - held)\n"
            f"    left = {fallen}\n"
            f"    return lr * ({floor} + (1 - {floor}) * left)\n\n"
            "return torch.tensor([rate(step) for step in range(num_steps)])"
        ),
        oracle=oracle,
        example=(4 + 8 * cycles, 0.1, 4),
        cases=(case(5, 3), case(8, 5), case(11, 4), case(3, 7), case(14, 9)),
    )
