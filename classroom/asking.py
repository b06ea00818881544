"""What runs beside the student's code: call the function, write down what it returns.

Nothing here knows a right answer, so nothing here has to be kept from the student. The
marks are given in another process, by `classroom.marking`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitlib.checks.running import attempt
from vitlib.checks.wording import crashed, wrong_type

# Where the questions lie, and where the answers go.
QUESTIONS, ANSWERS = "CLASSROOM_QUESTIONS", "CLASSROOM_ANSWERS"
# The time limit of a call, in seconds.
SECONDS = 10.0


def write_questions(path: Path, cases: tuple[tuple, ...]) -> None:
    """Store the arguments of all cases: tensors as they are, the rest as JSON."""
    tensors, plain = {}, []
    for number, given in enumerate(cases):
        row = []
        for place, value in enumerate(given):
            if isinstance(value, Tensor):
                tensors[f"{number} {place}"] = value.contiguous()
            row.append(None if isinstance(value, Tensor) else value)
        plain.append(row)
    # A file without tensors cannot be written.
    tensors = tensors or {"none": torch.zeros(1)}
    save_file(tensors, path, metadata={"plain": json.dumps(plain)})


def read_questions(path: str | Path) -> list[tuple]:
    """Read what `write_questions` has stored."""
    with safe_open(path, "pt") as file:
        plain = json.loads(file.metadata()["plain"])
        return [
            tuple(
                file.get_tensor(f"{number} {place}") if value is None else _pair(value)
                for place, value in enumerate(row)
            )
            for number, row in enumerate(plain)
        ]


def answer(function: Callable) -> None:
    """Call a function on every question and store what it returns or raises.

    Args:
        function: The student's.
    Raises:
        KeyError: this is not the machine that marks.
    """
    tensors, said = {"none": torch.zeros(1)}, {}
    for number, given in enumerate(read_questions(os.environ[QUESTIONS])):
        outcome = attempt(function, given, seconds=SECONDS)
        value = outcome.value
        if isinstance(value, bool | int | float):
            value = torch.tensor(value)
        if outcome.late:
            said[str(number)] = f"it had not finished after {SECONDS:g} seconds"
            break
        if outcome.error is not None:
            said[str(number)] = crashed(outcome.error).text
        elif outcome.changed:
            said[str(number)] = "it changes a tensor that it is given"
        elif isinstance(value, Tensor) and value.layout == torch.strided:
            tensors[str(number)] = value.detach().clone().contiguous()
        else:
            said[str(number)] = wrong_type(value, None).text
    save_file(tensors, os.environ[ANSWERS], metadata={"said": json.dumps(said)})


def _pair(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
