"""The commands, see `book/classroom.md`."""

import argparse
import sys
from pathlib import Path

from classroom import ROOT


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
    words = "mark also what has not changed since it was marked"
    grade.add_argument("--again", action="store_true", help=words)
    marks = commands.add_parser("marks", help="write marks and feedback once more")
    for command in (grade, marks):
        words = "such as 04_attention; default: all of which there are submissions"
        command.add_argument("names", nargs="*", help=words)
    given = parser.parse_args()
    try:
        done = run(given)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"classroom: {error}")
    except KeyboardInterrupt:
        sys.exit("\nclassroom: stopped; the same command goes on from here")
    sys.exit(not done)


def run(given: argparse.Namespace) -> bool:
    """Do one command; return whether all of it was done."""
    try:
        # nbgrader comes with an extra.
        from classroom import assignments, grading
        from classroom.course import Course
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is missing: pip install -c constraints.txt -e '.[teach]'"
        ) from error
    assignments.check_names(given.names)
    course = Course(given.course.resolve())
    if given.command == "release":
        course.start(given.seed)
        course.release(given.names or course.unreleased())
        print(f"For the students: {course.root / 'release'}")
        print(f"What they hand in goes into {course.root / 'inbox'}")
        return True
    if not course.seed:
        raise ValueError(f"{course.root} is no course folder: release something first")
    names, others = given.names, []
    if not names:
        names, others = course.handed_in()
        if not names:
            print(f"Nothing was handed in yet in {course.root / 'inbox'}")
    for other in others:
        print(f"inbox/{other!r} is not named as an assignment, ignored")
    done = True
    for name in names:
        try:
            if given.command == "grade":
                grading.grade(course, name, again=given.again)
            else:
                grading.marks(course, name)
        except (ValueError, RuntimeError) as error:  # the others go on
            print(f"classroom: {error}", file=sys.stderr)
            done = False
    return done


if __name__ == "__main__":
    main()
