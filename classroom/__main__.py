"""The commands, see `book/classroom.md`."""

import argparse
import sys
from pathlib import Path

from classroom.box import ROOT


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m classroom", description=__doc__)
    parser.add_argument(
        "--course", type=Path, default=ROOT / "course", help="default: %(default)s"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    release = commands.add_parser("release", help="make the students' notebooks")
    release.add_argument("--seed", default="", help="of the summative tasks")
    words = "such as 04_attention; default: all that are not released yet"
    release.add_argument("names", nargs="*", help=words)
    grade = commands.add_parser("grade", help="mark what lies in the inbox")
    marks = commands.add_parser("marks", help="write marks and feedback once more")
    for command in (grade, marks):
        words = "such as 04_attention; default: all of which there are submissions"
        command.add_argument("names", nargs="*", help=words)
    given = parser.parse_args()
    try:
        run(given)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"classroom: {error}")


def run(given: argparse.Namespace) -> None:
    """Do one command."""
    try:
        # nbgrader comes with an extra.
        from classroom import grading
        from classroom.course import Course
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is missing: pip install -c constraints.txt -e '.[teach]'"
        ) from error
    course = Course(given.course.resolve())
    if given.command == "release":
        course.start(given.seed)
        course.release(given.names or course.unreleased())
        print(f"For the students: {course.root / 'release'}")
        print(f"What they hand in goes into {course.root / 'inbox'}")
    names = given.names or course.handed_in()
    if given.command == "grade" and not names:
        print("Nothing was handed in yet.")
    if given.command == "grade":
        for name in names:
            grading.grade(course, name)
    if given.command == "marks":
        for name in names:
            grading.marks(course, name)


if __name__ == "__main__":
    main()
