"""nbgrader's preprocessors of this class: run with limits, and give marks.

nbgrader reads a cell's marks from what the cell shows, and gives all of them to a cell
that shows nothing. Here a cell without a number gets none, and the marks of the
summative task are not read from the notebook at all: they are computed in this process,
where none of the student's code runs.
"""

import json
import os
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from safetensors import safe_open
from torch import Tensor

from classroom.asking import ANSWERS
from classroom.assignments import SUMMATIVE_MARKS
from classroom.summative.task import Task, task_for
from vitlib.checks.comparing import close
from vitlib.checks.wording import YOUR_TURN, difference, wrong_form

# What is kept of all that a cell shows, in characters; the rest is thrown away as it
# arrives.
MOST_SHOWN = 50_000
# The largest file of answers that is opened, in bytes.
MOST_ANSWERED = 50_000_000


class Report:
    """Reasons to look at a submission, kept in a file as they are found."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def reasons(self) -> list[str]:
        """Return what was found so far."""
        if not self.path.exists():
            return []
        return json.loads(self.path.read_text("utf-8"))

    def add(self, *reasons: str) -> None:
        """Add reasons that are not there yet."""
        known = self.reasons()
        known += [reason for reason in dict.fromkeys(reasons) if reason not in known]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(known, indent=1), encoding="utf-8")


def report_of(root: Path, name: str, student: str) -> Report:
    """Return what is known about a submission.

    Args:
        root: The course folder.
        name: The assignment.
        student: Who it is from.
    Returns:
        The report; it may be empty.
    """
    return Report(root / "reports" / name / f"{student}.json")


class RunWithLimits(Execute):
    """nbgrader's execution, with an end to what is kept of the output."""

    def preprocess(self, nb: NotebookNode, resources: dict, km=None):
        """Run all cells."""
        self.shown, self.report = {}, _report(resources)
        return super().preprocess(nb, resources, km)

    def output(self, outs, msg, display_id, cell_index):
        """Keep an output unless its cell has shown too much already."""
        size = self.shown.get(cell_index, 0) + len(str(msg["content"]))
        self.shown[cell_index] = size
        if size > MOST_SHOWN and msg["msg_type"] != "error":
            self.report.add("huge output, most of it not kept")
            return None
        return super().output(outs, msg, display_id, cell_index)


class GiveMarks(NbGraderPreprocessor):
    """Put one number under every cell that gives marks."""

    def preprocess_cell(self, cell: NotebookNode, resources: dict, cell_index: int):
        """Look at one cell."""
        if cell.cell_type != "code":
            return cell, resources
        report, nbgrader = _report(resources), cell.metadata.get("nbgrader", {})
        name = nbgrader.get("grade_id", "an added cell")
        if not nbgrader.get("grade"):
            report.add(*(f"{name}: {trouble}" for trouble in _troubles(cell)))
        elif name == SUMMATIVE_MARKS:
            # nbgrader works in the course folder.
            course = json.loads(Path("course.json").read_text("utf-8"))
            task = task_for(resources["nbgrader"]["assignment"], course["seed"])
            cell.outputs = _outputs(*summative_marks(task, nbgrader["points"]))
        else:
            points, text = practice_marks(cell)
            if points is None:
                report.add(f"{name}: {text.splitlines()[-1]}")
            cell.outputs = _outputs(points or 0, text)
        return cell, resources


def practice_marks(cell: NotebookNode) -> tuple[int | None, str]:
    """Read the marks of a check from what its cell shows.

    Args:
        cell: The cell, as it was run.
    Returns:
        The marks, None if the cell does not show one number as it should; and what else
        it shows.
    """
    results = [out for out in cell.outputs if out.output_type == "execute_result"]
    errors = [out for out in cell.outputs if out.output_type == "error"]
    text = "".join(out.text for out in cell.outputs if out.output_type == "stream")
    if errors:
        return None, f"{text}no marks: {_said(errors[0])}"
    said = [result.data.get("text/plain", "") for result in results]
    possible = ["0", str(int(cell.metadata.nbgrader["points"]))]
    if len(said) != 1 or said[0] not in possible:
        return None, f"{text}no marks: the check did not come to an end as it should"
    return int(said[0]), text


def summative_marks(task: Task, points: float) -> tuple[float, str]:
    """Compare what the student's function has returned with what is right.

    Args:
        task: What was asked.
        points: What a right answer to every case gives.
    Returns:
        The marks, and a text for the student.
    """
    path = Path(os.environ[ANSWERS])
    if not path.exists():
        return 0, f"{task.name}: not yet\n  it was never called: look at errors above"
    if path.stat().st_size > MOST_ANSWERED:
        return 0, f"{task.name}: not yet\n  what it returns is far too large"
    try:
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["said"])
            got = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # the student's process can write anything there
        return 0, f"{task.name}: not yet\n  its answers cannot be read: {error}"
    lines, right = [], 0
    for number, given in enumerate(task.cases):
        value, trouble = got.get(str(number)), said.get(str(number))
        found = _compared(value, trouble, task.expected(given))
        right += not found
        if found and not lines:
            sizes = ", ".join(map(_size, given))
            lines = [f"  first wrong with {sizes}", *(f"  {line}" for line in found)]
    head = "right" if right == len(task.cases) else "not yet"
    head = f"{task.name}: {head}, {right} of {len(task.cases)} calls came out right"
    return points * right / len(task.cases), "\n".join([head, *lines])


def _compared(got: Tensor | None, trouble: str | None, expected: Tensor) -> list[str]:
    """Say what is wrong with an answer; nothing if it is right."""
    if got is None:
        return [str(trouble or "it was not called")[:500]]
    # A whole number may come as a float.
    if expected.ndim == 0 and got.ndim == 0 and not got.is_complex():
        return [] if got.item() == expected.item() else ["the number is another one"]
    for kind in ("shape", "dtype"):
        if getattr(got, kind) != getattr(expected, kind):
            return [wrong_form(kind, got, expected, "").text]
    return [] if close(got, expected) else [*difference(got, expected)]


def _size(value: object) -> str:
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a {kind} tensor {tuple(value.shape)}"
    return repr(value)


def _outputs(points: float, text: str) -> list:
    """Make what nbgrader reads: a text, and one number."""
    number = f"{points:g}"
    shown = [new_output("stream", name="stdout", text=text)] if text else []
    result = new_output("execute_result", {"text/plain": number}, execution_count=1)
    return [*shown, result]


def _troubles(cell: NotebookNode):
    """Say what happened in a cell that gives no marks."""
    for out in cell.outputs:
        if out.output_type == "error" and YOUR_TURN not in out.evalue:
            yield _said(out)


def _said(error: NotebookNode) -> str:
    if error.ename == "CellTimeoutError":
        return "it did not end in time"
    name = "".join(c for c in error.ename if c.isalnum() or c in "_.")
    return f"it raised {name[:40]}"


def _report(resources: dict) -> Report:
    names = resources["nbgrader"]
    return report_of(Path(), names["assignment"], names["student"])
