"""A class with nbgrader: release, collect, grade, feedback, marks.

    python -m classroom release --seed 2026
    python -m classroom grade
    python -m classroom marks

`book/classroom.md` is the page for teachers.
"""

from pathlib import Path

# The book's folder.
ROOT = Path(__file__).resolve().parents[1]
