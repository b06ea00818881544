"""Collect, run and mark submissions, one process each, and write what came of it."""

import contextlib
import csv
import html
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import nbformat
import psutil
from nbgrader.api import Gradebook, MissingEntry

from classroom import box
from classroom.asking import ANSWERS, QUESTIONS, write_questions
from classroom.assignments import SUMMATIVE_MARKS
from classroom.collecting import Submission, find, mend, read
from classroom.course import Course, setting
from classroom.marking import Report, report_of
from classroom.summative.task import task_for

# Seconds for a whole submission.
LIMIT = 900
# Where it is possible, processes start from one that has imported everything.
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
STARTER = multiprocessing.get_context("forkserver" if FORKS else "spawn")
COLUMNS = (
    "student",
    "practice",
    "practice_max",
    "written",
    "written_max",
    "summative",
    "summative_max",
    "total",
    "max",
    "look",
)


def grade(course: Course, name: str, *, limit: float = LIMIT) -> Path:
    """Mark every submission in the inbox.

    Args:
        course: The course folder.
        name: The assignment.
        limit: Seconds for each submission.
    Returns:
        The table of marks.
    Raises:
        ValueError: it was not released, or two submissions are from one student.
    """
    released = course.released(name)
    submissions, strays = find(course.inbox(name), name)
    print("\n".join(strays or []), end="\n" if strays else "")
    print("Submissions run in a box." if box.works() else box.MISSING)
    if FORKS:
        STARTER.set_forkserver_preload(["classroom.grading", "classroom.marking"])
    # The processes that start from here import classroom.
    with setting(PYTHONPATH=str(box.ROOT)):
        for place, submission in enumerate(submissions, start=1):
            student = submission.student
            print(f"{place} of {len(submissions)}: {student}", flush=True)
            report = report_of(course.root, name, student)
            report.path.unlink(missing_ok=True)
            report.add(*submission.reasons)
            failure = collect(course, name, submission, released, report)
            failure = failure or run(course, name, student, limit)
            if failure:
                report.add(failure)
                no_marks(course, name, student)
    return marks(course, name)


def collect(
    course: Course, name: str, submission: Submission, released: Path, report: Report
) -> str:
    """Put a mended copy where nbgrader looks for it; return why there is none."""
    target = course.root / "submitted" / submission.student / name
    shutil.rmtree(target, ignore_errors=True)
    if submission.path is None:
        return "no marks: nothing to mark"
    release = nbformat.read(released, as_version=4)
    try:
        made, reasons = mend(read(submission.path), release)
    except ValueError as error:
        return f"no marks: {error}"
    except Exception as error:  # whatever a stranger's file does, the others go on
        return f"no marks: it cannot be read ({type(error).__name__})"
    report.add(*reasons)
    target.mkdir(parents=True)
    nbformat.write(made, target / f"{name}.ipynb")
    return ""


def run(course: Course, name: str, student: str, limit: float) -> str:
    """Let nbgrader mark one submission; return why it could not."""
    task = task_for(name, course.seed)
    with tempfile.TemporaryDirectory(
        prefix="room-", ignore_cleanup_errors=True
    ) as folder:
        room = Path(folder)
        write_questions(room / "questions", task.cases if task else ())
        desk = course.root / "autograded" / student / name
        variables = {
            QUESTIONS: str(room / "questions"),
            ANSWERS: str(room / "answers"),
            # The kernel imports classroom.asking from elsewhere.
            "PYTHONPATH": str(box.ROOT),
            "OMP_NUM_THREADS": "1",
        }
        boxed = box.works()
        words = box.command(course.root, desk, room, variables) if boxed else []
        box.write_kernel(room, [*box.limits(), *words])
        log = report_of(course.root, name, student).path.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        variables |= {"JUPYTER_PATH": str(room / "jupyter")}
        # A box has no ports to the outside, but a folder in common.
        sockets = {"transport": "ipc", "connection_file": str(room / "kernel.json")}
        kernel = sockets if boxed else {}
        given = course.root, name, student, log, variables, kernel
        process = STARTER.Process(target=autograde, args=given)
        process.start()
        process.join(limit)
        code = process.exitcode
        _kill(process)
    if code is None:
        return f"no marks: stopped after {limit:g} seconds"
    if code and b"DeadKernelError" in _end_of(log):
        return "no marks: its code ended the kernel"
    return f"no marks: see {log.relative_to(course.root)}" if code else ""


def autograde(
    root: Path, name: str, student: str, log: Path, variables: dict, kernel: dict
) -> None:
    """Mark one submission, in a process of its own."""
    os.environ.update(variables)
    os.chdir(root)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        api = Course(root).api(**kernel)
        result = api.autograde(name, student, force=True, create=True)
        print(result.get("log", ""), result.get("error", ""), sep="\n", flush=True)
    sys.exit(not result["success"])


def _end_of(path: Path) -> bytes:
    """Read the last part of a file, however long it is."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 50_000, 0))
        return file.read()


def _kill(process: multiprocessing.Process) -> None:
    """End a process and everything that it has started."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.join()


def no_marks(course: Course, name: str, student: str) -> None:
    """Take away what an earlier run may have given."""
    # SQLAlchemy dislikes how nbgrader adds a submission.
    with warnings.catch_warnings(action="ignore"), course.gradebook() as gradebook:
        gradebook.update_or_create_student(student)
        submission = gradebook.update_or_create_submission(name, student)
        for grade in (grade for book in submission.notebooks for grade in book.grades):
            grade.auto_score, grade.needs_manual_grade = 0, False
        gradebook.db.commit()


def marks(course: Course, name: str) -> Path:
    """Write feedback pages and the table of marks from nbgrader's gradebook.

    Args:
        course: The course folder.
        name: The assignment.
    Returns:
        The table.
    """
    course.released(name)
    with course.gradebook() as gradebook:
        rows = [
            _row(gradebook, name, student.id, report_of(course.root, name, student.id))
            for student in gradebook.students
            if _has(gradebook, name, student.id)
        ]
    feedback(course, name, rows)
    path = course.root / "marks" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        print(f"{row['student']}: {row['total']} of {row['max']}")
        for reason in filter(None, row["look"].split("; ")):
            print(f"  look: {reason}")
    print(f"Marks: {path}\nFeedback: {course.root / 'feedback'}")
    return path


def _has(gradebook: Gradebook, name: str, student: str) -> bool:
    try:
        gradebook.find_submission(name, student)
    except MissingEntry:
        return False
    return True


def _row(gradebook: Gradebook, name: str, student: str, report: Report) -> dict:
    """Add up one student's marks."""
    row = dict.fromkeys(COLUMNS, 0) | {"student": student}
    looks = report.reasons()
    unread = 0
    for book in gradebook.find_submission(name, student).notebooks:
        for grade in book.grades:
            kind = "practice"
            if grade.cell.cell_type == "markdown":
                kind = "written"
            elif grade.name == SUMMATIVE_MARKS:
                kind = "summative"
            unread += bool(grade.needs_manual_grade)
            row[kind] += grade.score or 0
            row[f"{kind}_max"] += grade.max_score
    if unread:
        looks.append(f"{unread} written answer{'s' * (unread > 1)} to read")
    kinds = ("practice", "written", "summative")
    row["total"] = sum(row[kind] for kind in kinds)
    row["max"] = sum(row[f"{kind}_max"] for kind in kinds)
    row |= {k: f"{v:g}" for k, v in row.items() if k not in ("student", "look")}
    return row | {"look": "; ".join(looks)}


def feedback(course: Course, name: str, rows: list[dict]) -> None:
    """Write a page for each student, also for those who have no notebook."""
    api = course.api()
    for row in rows:
        student = row["student"]
        folder = course.root / "feedback" / student / name
        shutil.rmtree(folder, ignore_errors=True)
        if (course.root / "autograded" / student / name).exists():
            api.generate_feedback(name, student, force=True)
        if not (folder / f"{name}.html").exists():
            folder.mkdir(parents=True, exist_ok=True)
            said = html.escape(row["look"])
            page = f"<!doctype html><title>{name}</title><h1>{name}</h1><p>{said}</p>"
            (folder / f"{name}.html").write_text(page, encoding="utf-8")
