"""nbgrader's preprocessors of this class: run with limits, and give marks.

nbgrader reads a cell's marks from what the cell shows, and gives all of them to a cell
that shows nothing. Here a cell without a number gets none, and the marks of the
summative task are not read from the notebook at all: they are computed in this process,
where none of the student's code runs.
"""

import base64
import binascii
import json
import shutil
import tempfile
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute, NbGraderPreprocessor, SaveAutoGrades
from safetensors import safe_open
from torch import Tensor

from classroom import box
from classroom.asking import write_questions
from classroom.assignments import SUMMATIVE_MARKS, SUMMATIVE_POINTS
from classroom.collecting import is_file
from classroom.course import Course
from classroom.summative.task import Task, task_for
from vitlib.checks.comparing import close
from vitlib.checks.wording import YOUR_TURN, difference, wrong_form

# What is kept of all that a cell shows, in characters; the rest is thrown away as it
# arrives.
MOST_SHOWN = 50_000
# The largest file of answers that is opened, in bytes.
MOST_ANSWERED = 50_000_000
HUGE = "huge output, most of it not kept"


class Report:
    """What was found out about a submission, kept in a file as it is found."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def reasons(self) -> list[str]:
        """Return why somebody should look at it."""
        return self._read()["reasons"]

    def marked(self) -> str:
        """Return what `finish` was given, "" if marking did not come to its end."""
        return self._read()["marked"]

    def failed(self) -> bool:
        """Say whether it could not be marked at all."""
        return any(reason.startswith("no marks:") for reason in self.reasons())

    def start(self, *reasons: str) -> None:
        """Forget all but these reasons."""
        self._write([*reasons], "")

    def add(self, *reasons: str) -> None:
        """Add reasons."""
        known = self.reasons()
        if set(reasons) - set(known):
            self._write(list(dict.fromkeys([*known, *reasons])), self.marked())

    def finish(self, handed_in: str) -> None:
        """Store that marking came to its end, and for what."""
        self._write(self.reasons(), handed_in)

    def _read(self) -> dict:
        if not self.path.exists():
            return {"reasons": [], "marked": ""}
        return json.loads(self.path.read_text("utf-8"))

    def _write(self, reasons: list[str], marked: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        words = json.dumps({"reasons": reasons, "marked": marked}, indent=1)
        draft.write_text(words, encoding="utf-8")
        draft.replace(self.path)


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


class RunInBox(Execute):
    """nbgrader's execution: in a box, with an end to outputs, and with questions."""

    def preprocess(self, nb: NotebookNode, resources: dict, km=None):
        """Run all cells, and compare what the summative function has answered."""
        course, names = _course(resources), resources["nbgrader"]
        self.shown, self.report = {}, _report(resources)
        self.room = Path(tempfile.mkdtemp(prefix="room-"))
        task = task_for(names["assignment"], course.seed)
        try:
            write_questions(self.room / "questions", task.cases)
            box.write_kernel(course.root, _desk(resources), self.room)
            nb, resources = super().preprocess(nb, resources, km)
            answers = self.room / "answers"
            names["summative"] = summative_marks(task, SUMMATIVE_POINTS, answers)
        finally:
            shutil.rmtree(self.room, ignore_errors=True)
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = [out for out in cell.outputs if self.keeps(out)]
        return nb, resources

    def create_kernel_manager(self):
        """Start the kernel that lies in the room."""
        manager = super().create_kernel_manager()
        folders = [str(self.room / "kernels")]
        manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=folders)
        if box.works():
            # A box has no ports to the outside, but a folder in common.
            manager.transport = "ipc"
            manager.connection_file = str(self.room / "kernel.json")
        return manager

    def output(self, outs, msg, display_id, cell_index):
        """Keep an output unless its cell has shown too much already."""
        size = self.shown.get(cell_index, 0) + len(str(msg["content"]))
        self.shown[cell_index] = size
        if size > MOST_SHOWN and msg["msg_type"] != "error":
            self.report.add(HUGE)
            return None
        return super().output(outs, msg, display_id, cell_index)

    def keeps(self, out: NotebookNode) -> bool:
        """Take away what could run in a page, and say whether something is left."""
        if len(json.dumps(out)) > 2 * MOST_SHOWN:
            self.report.add(HUGE)
            if out.output_type != "error":
                return False
            out.evalue, out.traceback = "", []
        if "data" in out:
            data = out.data
            out.data = {kind: data[kind] for kind in data if _is_harmless(kind, data)}
            out.metadata = {}
        return True


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
            cell.outputs = _outputs(*resources["nbgrader"]["summative"])
        else:
            points, text = practice_marks(cell)
            if points is None:
                report.add(f"{name}: {text.splitlines()[-1]}")
            cell.outputs = _outputs(points or 0, text)
        return cell, resources


class SaveMarks(SaveAutoGrades):
    """nbgrader's, but what a person has marked is not to be read once more."""

    def _add_score(self, cell: NotebookNode, resources: dict) -> None:
        names = self.notebook_id, self.assignment_id, self.student_id
        grade = self.gradebook.find_grade(cell.metadata.nbgrader.grade_id, *names)
        done = grade.manual_score is not None and not grade.needs_manual_grade
        super()._add_score(cell, resources)
        if done:
            grade.needs_manual_grade = False
            self.gradebook.db.commit()


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


def summative_marks(task: Task, points: float, path: Path) -> tuple[float, str]:
    """Compare what the student's function has returned with what is right.

    Args:
        task: What was asked.
        points: What a right answer to every case gives.
        path: The file of answers. The student's process can write anything there.
    Returns:
        The marks, and a text for the student.
    """
    if not is_file(path):
        return 0, f"{task.name}: not yet\n  it was never called: look at errors above"
    if path.stat().st_size > MOST_ANSWERED:
        return 0, f"{task.name}: not yet\n  what it returns is far too large"
    try:
        with safe_open(path, "pt") as file:
            said = dict(json.loads(file.metadata()["said"]))
            got = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
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


def _is_harmless(kind: str, data: dict) -> bool:
    """Say whether an output can be shown as it is; a page would run some others."""
    if kind == "text/plain":
        return True
    if kind not in ("image/png", "image/jpeg"):
        return False
    try:
        return bool(base64.b64decode(data[kind].replace("\n", ""), validate=True))
    except (AttributeError, ValueError, binascii.Error):
        return False


def _desk(resources: dict) -> Path:
    """Return the folder in which the kernel starts."""
    return Path(resources["metadata"]["path"]).resolve()


def _course(resources: dict) -> Course:
    """Return the course: its folder holds autograded/STUDENT/ASSIGNMENT."""
    return Course(_desk(resources).parents[2])


def _report(resources: dict) -> Report:
    names = resources["nbgrader"]
    return report_of(_course(resources).root, names["assignment"], names["student"])
