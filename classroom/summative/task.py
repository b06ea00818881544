"""What a summative task is made of."""

import dataclasses
import math
import random
from collections.abc import Callable
from importlib import import_module

import einops
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Task:
    """A task whose twist a seed has chosen.

    Args:
        title: A few words.
        teaches: What it asks for, to be read after "teaches".
        minutes: How long it takes.
        goal: The text, in Markdown.
        head: The function's first line and docstring.
        solution: The lines of its body, not indented.
        oracle: The same function written another way, by its definition.
        example: Arguments that the student sees.
        cases: Arguments that decide, which the student does not see.
    """

    title: str
    teaches: str
    minutes: int
    goal: str
    head: str
    solution: str
    oracle: Callable
    example: tuple
    cases: tuple[tuple, ...]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.head.removeprefix("def ").partition("(")[0]

    @property
    def arguments(self) -> list[str]:
        """The names of its arguments."""
        return self.head.partition("(")[2].partition(")")[0].split(", ")

    def expected(self, given: tuple) -> Tensor:
        """Return what a right function makes of a case."""
        value = self.oracle(*given)
        return value if isinstance(value, Tensor) else torch.tensor(value)


def task_for(name: str, seed: str) -> Task:
    """Make the summative task of an assignment.

    Args:
        name: The assignment's, such as "04_attention".
        seed: The teacher's.
    Returns:
        The same task for the same seed.
    """
    module = import_module(f"classroom.summative.{name[3:]}")
    return module.task(random.Random(f"{seed} {name}"))


def solved(task: Task) -> Callable:
    """Return the function that the solution's text defines."""
    names = {"torch": torch, "F": F, "math": math, "rearrange": einops.rearrange}
    exec(f"{task.head}\n{indented(task.solution)}", names)
    return names[task.name]


def indented(code: str) -> str:
    """Set the lines of a function's body in."""
    return "\n".join(f"    {line}" if line else line for line in code.splitlines())


def numbers(dice: random.Random, *sizes: int, dtype: torch.dtype = torch.float32):
    """Draw a tensor of numbers that are short to print, and none of them 0.

    A vector of zeros has no direction.
    """
    generator = torch.Generator().manual_seed(dice.randrange(2**31))
    tenths = (
        torch.randn(sizes, generator=generator, dtype=torch.float64).mul(10).round()
    )
    return torch.where(tenths == 0, 1, tenths).div(10).to(dtype)
