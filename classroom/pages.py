"""Feedback pages. What a student has written must not run in them."""

import html
import re
import shutil
from pathlib import Path

import bleach
from nbconvert.filters import markdown2html_mistune

from classroom import apart
from classroom.course import Course

# Seconds for one page.
LIMIT = 60
TAGS = {
    *bleach.ALLOWED_TAGS,
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "pre", "div", "span", "del"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
}
ATTRIBUTES = {"a": ["href", "title"], "div": ["class"], "span": ["class"]}


def markdown(source: str) -> str:
    """Make HTML of Markdown, in place of nbconvert's filter `markdown2html`.

    Args:
        source: The text of a cell.
    Returns:
        HTML without anything that runs or loads.
    """
    # TeX can make links as well.
    source = re.sub(r"\\href\b", "", source)
    return bleach.clean(markdown2html_mistune(source), TAGS, ATTRIBUTES)


def write(course: Course, name: str, rows: list[dict]) -> None:
    """Write a page for each student, also for those who have no notebook.

    Args:
        course: The course folder.
        name: The assignment.
        rows: The table of marks.
    """
    for row in rows:
        student, reasons = row["student"], row["look"]
        folder = course.root / "feedback" / student / name
        shutil.rmtree(folder, ignore_errors=True)
        if (course.root / "autograded" / student / name).exists():
            log = course.root / "reports" / name / f"{student}.log"
            given = course.root, name, student
            apart.run(_page, given, folder=course.root, log=log, limit=LIMIT)
            reasons = f"the notebook could not be shown, see {log.name}"
        page = folder / f"{name}.html"
        if not page.exists():
            print(f"Page of {student}: {reasons}")
            folder.mkdir(parents=True, exist_ok=True)
            said = "".join(f"<li>{html.escape(x)}</li>" for x in reasons.split("; "))
            marks = f"{row['total']} of {row['max']}"
            text = f"<!doctype html><meta charset='utf-8'><title>{name}</title>"
            text += f"<h1>{name}: {marks}</h1><ul>{said}</ul>"
            page.write_text(text, encoding="utf-8")


def _page(root: Path, name: str, student: str) -> None:
    result = Course(root).api().generate_feedback(name, student, force=True)
    print(result.get("log", ""), result.get("error", ""), sep="\n", flush=True)
