"""An assignment: the exercise source with nbgrader's metadata and a summative task.

`make` builds what goes into nbgrader's `source` folder. Cells are named by what they
are: `task-2`, `answer-2`, `marks-2`, and `summative` in the place of a number.
"""

import copy
import importlib.util
import pprint
import re

import nbformat
from nbformat import NotebookNode
from torch import Tensor

from classroom import ROOT
from classroom.summative.task import Task, indented

# Points of the summative task, shared among its cases.
SUMMATIVE_POINTS = 10
SUMMATIVE_MARKS = "marks-summative"
# How an assignment is marked, for its first cell.
RULES = (
    "**Marks.** The number below a check is the marks that you get for it. Write where "
    "it says `your turn`; you may add cells of your own. Changes to any other cell are "
    "undone before marking. A written answer is read by a person. The last task has no "
    f"solution in the book. It gives {SUMMATIVE_POINTS} points: your function is "
    "called with other sizes and numbers than those of the example, and each call that "
    "comes out right gives a part of them."
)
LINK = re.compile(r"\[([^\]]*)\]\((?!https?://)[^)]*\)")
CHECK = re.compile(r"(checks\.\w+\.\w+\(\w+\));")


def _exercises():
    """Load the script that makes the students' copies; notebooks are no package."""
    path = ROOT / "notebooks" / "exercises" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _exercises()


def names() -> list[str]:
    """Return the assignments' names, in the order of the chapters."""
    return [path.stem for path in generate.sources() if path.stem[0].isdigit()]


def check_names(given: list[str]) -> None:
    """Say which assignments there are, if one of these is none.

    Args:
        given: Names.
    Raises:
        ValueError: there is no such assignment.
    """
    for name in given:
        if name not in names():
            raise ValueError(
                f"there is no assignment {name!r}: choose from {', '.join(names())}"
            )


def make(name: str, summative: Task) -> NotebookNode:
    """Build an instructor's notebook, with solutions and hidden tests.

    Args:
        name: The assignment's, such as "04_attention".
        summative: The task for its end.
    Returns:
        The notebook, with nbgrader's metadata.
    """
    source = nbformat.read(generate.FOLDER / f"{name}.ipynb", as_version=4)
    made = nbformat.v4.new_notebook(metadata=copy.deepcopy(source.metadata))
    setting, tasks = generate.parts_of(source)
    for number, cell in enumerate(setting, start=1):
        _add(made, cell.cell_type, cell.source, f"setting-{number}")
    made.cells[0].source += "\n\n" + RULES
    for number, cells in enumerate(tasks, start=1):
        _add_task(made, number, cells)
    _add_summative(made, len(tasks) + 1, summative)
    return made


def _add(
    made: NotebookNode,
    kind: str,
    source: str,
    name: str,
    *,
    points: int = 0,
    solution: bool = False,
) -> None:
    """Append a cell. With points it is graded; what is no solution is locked."""
    grader = {
        "grade_id": name,
        "grade": points > 0,
        "solution": solution,
        "locked": not solution,
        "schema_version": 3,
        "task": False,
    }
    if points:
        grader["points"] = points
    cell = getattr(nbformat.v4, f"new_{kind}_cell")(
        LINK.sub(r"\1", source) if kind == "markdown" else source,
        id=name,
        metadata={"nbgrader": grader},
    )
    made.cells.append(cell)


def _add_task(made: NotebookNode, number: int, cells: list) -> None:
    """Append a practice task: its check gives as many points as it is difficult.

    What a written answer gives stands in its cell's metadata.
    """
    head = generate.HEAD.match(cells[0].source)
    difficulty = int(head["difficulty"])
    code = difficulty * len(generate.of_kind(cells, "check"))
    texts = [c for c in generate.of_kind(cells, "answer") if c.cell_type == "markdown"]
    marks = [
        f"{code} for the code",
        *(f"{c.metadata.points} for the text" for c in texts),
    ]
    cells[0].source += f"\n\n*Marks: {', '.join(marks)}.*"
    counts = {}
    for cell in cells:
        kind = generate.kind_of(cell)
        if kind == "why":
            continue
        word = {"check": "marks", "given": "given"}.get(kind, kind)
        if kind == "answer" and cell.cell_type == "markdown":
            word = "text"
        counts[word] = counts.get(word, 0) + 1
        name = f"{word}-{number}" + (f"-{counts[word]}" if counts[word] > 1 else "")
        if kind == "check":
            # No name in it is the student's to change, but that of the function.
            call = CHECK.fullmatch(cell.source)[1]
            source = f"from vitlib import checks\n\n{difficulty} * {call}.passed"
            _add(made, "code", source, name, points=difficulty)
        elif kind == "answer":
            points = cell.metadata.get("points", 0)
            _add(made, cell.cell_type, cell.source, name, points=points, solution=True)
        elif kind == "hint":
            hint = generate.folded(f"Hint {counts['hint']}", cell.source)
            _add(made, "markdown", hint, name)
        else:
            _add(made, cell.cell_type, cell.source, name)


def _add_summative(made: NotebookNode, number: int, task: Task) -> None:
    """Append the task that the seed made, an example, and the cell of its marks."""
    goal = (
        f"## {number} · {task.title}\n\n*{task.minutes} minutes · teaches "
        f"{task.teaches} · {SUMMATIVE_POINTS} points*\n\n{task.goal}"
    )
    _add(made, "markdown", goal, "task-summative")
    imports = "import math\n\nimport torch\nimport torch.nn.functional as F"
    _add(made, "code", f"{imports}\nfrom einops import rearrange", "given-summative")
    solution = f"{generate.BEGIN}\n{task.solution}\n{generate.END}"
    source = f"{task.head}\n{indented(solution)}"
    _add(made, "code", source, "answer-summative", solution=True)
    _add(made, "code", _example(task), "example-summative")
    marks = (
        f"# The marks: {task.name} is called with other sizes and numbers.\n"
        "### BEGIN HIDDEN TESTS\n"
        "from classroom.asking import answer\n\n"
        f"answer({task.name})\n"
        "### END HIDDEN TESTS"
    )
    _add(made, "code", marks, SUMMATIVE_MARKS, points=SUMMATIVE_POINTS)


def _example(task: Task) -> str:
    """Write out a call and what it should return."""
    lines = []
    for name, value in zip(task.arguments, task.example, strict=True):
        lines.append(f"{name} = {_literal(value)}")
    expected = task.expected(task.example)
    call = f"{task.name}({', '.join(task.arguments)})"
    return "\n".join(
        [
            "# One example. If both agree up to rounding, the function may be right.",
            *lines,
            f"expected = {_literal(expected)}",
            f"print({call}, expected, sep='\\n\\n')",
        ]
    )


def _literal(value: object) -> str:
    """Write a value as code, tensors with as many digits as needed to compare."""
    if not isinstance(value, Tensor):
        return repr(value)
    if value.ndim == 0:
        return repr(value.item())
    if value.dtype.is_floating_point:
        value = value.double().mul(1e4).round().div(1e4)
    numbers = pprint.pformat(value.tolist(), width=70, compact=True)
    return f"torch.tensor(\n{indented(numbers)})"
