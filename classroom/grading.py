"""Collect, run and mark submissions, one process each, and write what came of it."""

import csv
import hashlib
import shutil
import sys
import warnings
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry

from classroom import apart, box, pages
from classroom.assignments import SUMMATIVE_MARKS
from classroom.collecting import LARGEST, Submission, find, is_file, mend, read
from classroom.course import Course
from classroom.marking import Report, report_of

# Seconds for a whole submission.
LIMIT = 900
# What of the reasons stands in the table.
MOST_REASONS = 12
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


def grade(
    course: Course, name: str, *, again: bool = False, limit: float = LIMIT
) -> Path:
    """Mark every submission in the inbox that was not marked as it is.

    Args:
        course: The course folder.
        name: The assignment.
        again: Whether to mark also what has not changed.
        limit: Seconds for each submission.
    Returns:
        The table of marks.
    Raises:
        ValueError: it was not released.
        RuntimeError: the table cannot be written.
    """
    released = course.released(name)
    submissions, left_out = find(course.inbox(name), name)
    print("Submissions run in a box." if box.works() else box.MISSING)
    for place, submission in enumerate(submissions, start=1):
        student = submission.student
        print(f"{place} of {len(submissions)}: {student}", end="", flush=True)
        report = report_of(course.root, name, student)
        handed_in = _digest(course, submission, released)
        if handed_in == report.marked() and not again:
            print(", as it was")
            continue
        print(flush=True)
        report.start(*submission.reasons)
        _mark(course, name, submission, report, limit)
        if report.failed():
            no_marks(course, name, student)
        report.finish(handed_in)
    table = marks(course, name)
    for line in left_out:
        print(line)
    return table


def _digest(course: Course, submission: Submission, released: Path) -> str:
    """Return a number for what decides about the marks of a submission."""
    digest = hashlib.sha256(repr(submission.reasons).encode(errors="replace"))
    for path in (submission.path, released, course.config):
        if path and is_file(path) and path.stat().st_size <= LARGEST:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _mark(
    course: Course, name: str, submission: Submission, report: Report, limit: float
) -> None:
    """Mark one submission; if that fails the report says why."""
    if submission.path is None:
        report.add("no marks: nothing to mark")
        return
    student = submission.student
    log = report.path.with_suffix(".log")
    log.unlink(missing_ok=True)
    given = course.root, name, student, submission.path
    code = apart.run(autograde, given, folder=course.root, log=log, limit=limit)
    if code is None:
        report.add(f"no marks: stopped after {limit:g} seconds")
    elif code and b"DeadKernelError" in _end_of(log):
        report.add("no marks: its code ended the kernel")
    elif code and not report.failed():
        report.add(f"no marks: see {log.relative_to(course.root)}")


def autograde(root: Path, name: str, student: str, path: Path) -> None:
    """Mend a submission and let nbgrader mark it; end the process if it cannot.

    Args:
        root: The course folder.
        name: The assignment.
        student: Who the submission is from.
        path: The notebook.
    """
    course, report = Course(root), report_of(root, name, student)
    try:
        release = nbformat.read(course.released(name), as_version=4)
        made, reasons = mend(read(path), release)
    except ValueError as error:
        report.add(f"no marks: {error}")
        sys.exit(1)
    except Exception as error:  # a stranger's file can hold anything
        report.add(f"no marks: it cannot be read ({type(error).__name__})")
        raise
    report.add(*reasons)
    target = root / "submitted" / student / name / f"{name}.ipynb"
    if target.exists():
        reopen(course, name, student, nbformat.read(target, as_version=4), made)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, target)
    result = course.api().autograde(name, student, force=True, create=True)
    print(result.get("log", ""), result.get("error", ""), sep="\n", flush=True)
    sys.exit(not result["success"])


def reopen(
    course: Course, name: str, student: str, old: NotebookNode, new: NotebookNode
) -> None:
    """Take back what a person has marked if it is not there any more.

    Args:
        course: The course folder.
        name: The assignment.
        student: Who it is from.
        old: The notebook as it was marked.
        new: As it will be marked.
    """
    texts, code = zip(*map(_parts, (old, new)), strict=True)
    with course.gradebook() as gradebook:
        if not _has(gradebook, name, student):
            return
        for book in gradebook.find_submission(name, student).notebooks:
            for grade in book.grades:
                written = grade.cell.cell_type == "markdown"
                kept = texts[0].get(grade.name) == texts[1].get(grade.name)
                if not (kept if written else code[0] == code[1]):
                    grade.manual_score = None
        gradebook.db.commit()


def _parts(book: NotebookNode) -> tuple[dict, list]:
    """Return a notebook's texts by name, and all of its code."""
    texts = {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in book.cells
        if cell.cell_type == "markdown" and "nbgrader" in cell.metadata
    }
    return texts, [cell.source for cell in book.cells if cell.cell_type == "code"]


def _end_of(path: Path) -> bytes:
    """Read the last part of a file, however long it is."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 50_000, 0))
        return file.read()


def no_marks(course: Course, name: str, student: str) -> None:
    """Take away what an earlier run may have given; what a person gave stays stored."""
    shutil.rmtree(course.root / "autograded" / student / name, ignore_errors=True)
    # SQLAlchemy dislikes how nbgrader adds a submission.
    with warnings.catch_warnings(action="ignore"), course.gradebook() as gradebook:
        gradebook.update_or_create_student(student)
        submission = gradebook.update_or_create_submission(name, student)
        for grade in (grade for book in submission.notebooks for grade in book.grades):
            grade.auto_score, grade.needs_manual_grade = 0, False
        gradebook.db.commit()


def marks(course: Course, name: str) -> Path:
    """Write the table of marks and feedback pages from nbgrader's gradebook.

    Args:
        course: The course folder.
        name: The assignment.
    Returns:
        The table.
    Raises:
        ValueError: it was not released.
        RuntimeError: the table cannot be written.
    """
    course.released(name)
    with course.gradebook() as gradebook:
        rows = [
            _row(gradebook, name, student.id, report_of(course.root, name, student.id))
            for student in gradebook.students
            if _has(gradebook, name, student.id)
        ]
    path = course.root / "marks" / f"{name}.csv"
    _write(path, rows, name)
    for row in rows:
        print(f"{row['student']}: {row['total']} of {row['max']}")
        for reason in filter(None, row["look"].split("; ")):
            print(f"  look: {reason}")
    pages.write(course, name, rows)
    print(f"Marks: {path}\nFeedback: {course.root / 'feedback'}")
    return path


def _write(path: Path, rows: list[dict], name: str) -> None:
    """Write a table, whole or not at all, with the mark by which Excel knows UTF-8."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    try:
        draft.replace(path)
    except OSError as error:
        draft.unlink()
        raise RuntimeError(
            f"{path} cannot be written ({error.strerror}). All marks are stored: close "
            f"the file where it is open, and run python -m classroom marks {name}"
        ) from error


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
    if not report.marked():
        looks.insert(0, "no marks: marking did not come to its end, grade again")
    none = report.failed() or not report.marked()
    unread = 0
    for book in gradebook.find_submission(name, student).notebooks:
        for grade in book.grades:
            kind = "practice"
            if grade.cell.cell_type == "markdown":
                kind = "written"
            elif grade.name == SUMMATIVE_MARKS:
                kind = "summative"
            unread += bool(grade.needs_manual_grade)
            row[kind] += 0 if none else grade.score or 0
            row[f"{kind}_max"] += grade.max_score
    if len(looks) > MOST_REASONS:
        more = f"{len(looks) - MOST_REASONS} more in {report.path.name}"
        looks[MOST_REASONS:] = [more]
    if unread:
        looks.append(f"{unread} written answer{'s' * (unread > 1)} to read")
    kinds = ("practice", "written", "summative")
    row["total"] = sum(row[kind] for kind in kinds)
    row["max"] = sum(row[f"{kind}_max"] for kind in kinds)
    row |= {k: f"{v:g}" for k, v in row.items() if k not in ("student", "look")}
    return row | {"look": "; ".join(looks)}
