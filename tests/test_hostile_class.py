"""A class of made-up students, marked by nbgrader itself.

Among them are some who make mistakes, some whose code misbehaves, and some who want
marks for nothing. Everybody must get the right marks, whatever the others do.
"""

import csv
import inspect
import os
import re
import shutil
import tempfile

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter
from nbgrader.server_extensions.formgrader.handlers import template_path

from classroom import box, grading, marking, pages
from classroom.assignments import make, names
from classroom.course import Course
from classroom.summative.task import indented, task_for
from mutants import ANSWERS
from vitlib import checks

NAME = "01_patches"
SEED = "a seed"
SOURCE = {cell.id: cell for cell in make(NAME, task_for(NAME, SEED)).cells}
# The points of each practice task, and of what is read by a person.
POINTS = {
    int(name.removeprefix("marks-")): cell.metadata.nbgrader.points
    for name, cell in SOURCE.items()
    if re.fullmatch(r"marks-\d", name)
}
WRITTEN = sum(
    cell.metadata.nbgrader.points for name, cell in SOURCE.items() if "text-" in name
)
ALL = set(POINTS)
MUTANT = re.compile(r"@wrong\(.*?\)\n(?=def )", re.S)
FORGING = """
import os, sqlite3, sys, threading
shell = get_ipython()
shell.set_custom_exc((Exception,), lambda *found, **named: None)
for row in "0123456789":
    Path("../" * int(row), "gradebook.db").exists()
here = Path.cwd()
for folder in (here, *here.parents):
    for path in (folder / "gradebook.db", folder / "course.json"):
        if path.exists():
            path.write_text("broken")
import vitlib.checks.judging as judging
right = judging.Verdict("any", True, "right", "")
judging.Judge.__call__ = lambda self, answer: print("right") or right
Path(os.environ["CLASSROOM_ANSWERS"]).write_bytes(b"10 points")
"""


SHOWING = """
from IPython.display import HTML, display, update_display
display(HTML("<script>mark()</script>"))
size = {"image/png": {"width": "1 onerror=mark()"}}
display({"image/png": "AAAA"}, raw=True, metadata=size)
shown = display("a little", display_id=True)
shown.update("z" * 20_000_000)
"""


RUNS = re.compile(r"<script>mark|<[^<>]* onerror=")
PIPE = """
import os
os.remove(os.environ["CLASSROOM_ANSWERS"])
os.mkfifo(os.environ["CLASSROOM_ANSWERS"])
"""


class Student:
    """A copy of the release, to be filled in and spoiled."""

    def __init__(self, course, inbox, name):
        self.course, self.folder = course, inbox / name
        self.folder.mkdir()
        self.book = nbformat.read(course.released(NAME), as_version=4)

    def __getitem__(self, name):
        """Return a cell by its name."""
        return next(cell for cell in self.book.cells if cell.id == name)

    def solve(self, *tasks):
        """Answer tasks rightly: some, or all, and the summative one."""
        for task in [*(tasks or ALL), "summative"]:
            self[f"answer-{task}"].source = SOURCE[f"answer-{task}"].source
        return self

    def add(self, source, place=1):
        """Add a cell of code."""
        self.book.cells.insert(place, nbformat.v4.new_code_cell(source))
        return self

    def hand_in(self, name=f"{NAME}.ipynb"):
        """Write the notebook."""
        for cell in self.book.cells:
            if cell.cell_type == "code":
                cell.outputs = []
        nbformat.write(self.book, self.folder / name)


def mutant(task):
    """Return the source of a wrong answer that needs no other."""
    judge = getattr(checks.patches, task)
    for answer in ANSWERS:
        if answer.check is judge and answer.says != "right":
            source = inspect.getsource(answer.code)
            names = set(answer.code.__code__.co_names) - {"torch", "F", "rearrange"}
            if MUTANT.match(source) and not names & set(answer.code.__globals__):
                return f"{MUTANT.sub('', source, 1)}\n\n{task} = {answer.code.__name__}"
    raise AssertionError(f"no wrong answer to {task} stands alone")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Release one assignment."""
    course = Course(tmp_path_factory.mktemp("course"))
    course.start(SEED)
    config = course.root / "nbgrader_config.py"
    text = config.read_text("utf-8")
    assert "timeout = 60" in text
    config.write_text(text.replace("timeout = 60", "timeout = 12"), encoding="utf-8")
    course.release([NAME])
    return course


@pytest.fixture(scope="module")
def inbox(course):
    """Write what the class hands in."""
    inbox = course.inbox(NAME)

    def student(name):
        return Student(course, inbox, name)

    perfect = student("perfect").solve()
    perfect["text-3"].source = "One pixel must change one row."
    perfect.hand_in()

    partly = student("partly").solve(1, 2)
    partly["answer-summative"].source += (
        "\n\n\nwhole = other_cut\n\n\ndef other_cut(images):\n"
        "    return whole(images[:1])  # right for one image"
    )
    partly.hand_in()

    wrong = student("wrong")
    wrong.add("import numpy as np\nimport torch.nn.functional as F", 2)
    for task in ALL:
        name = re.search(r"^def (\w+)", SOURCE[f"answer-{task}"].source, re.M)[1]
        wrong[f"answer-{task}"].source = mutant(name)
    other = task_for(NAME, "another seed")
    source = f"{other.head}\n{indented(other.solution)}"
    wrong["answer-summative"].source = source
    wrong.hand_in()

    crashing = student("crashing").solve()
    crashing["answer-2"].source = (
        "import no_such_module\n\n" + SOURCE["answer-2"].source
    )
    crashing["answer-4"].source = "def is_patch_embedding(embed)\n    return True"
    crashing.hand_in()

    endless = student("endless").solve(*ALL - {2})
    endless["answer-2"].source = (
        "def overlapping_patches(images, patch_size, stride):\n    while True:\n"
        "        try:\n            pass\n        except:\n            pass"
    )
    endless.add("while True:\n    pass").hand_in()

    edited = student("edited")
    for number in ALL:
        cell = edited[f"marks-{number}"]
        cell.source = "8"
        cell.metadata.nbgrader.points = 8
    edited["marks-summative"].source = "10"
    edited["marks-3"].metadata.nbgrader.solution = True
    edited["marks-4"].metadata.nbgrader.grade = False
    del edited["marks-2"].metadata["nbgrader"]["points"]
    edited.add("class checks:\n    patches = None")
    edited.hand_in()

    deleted = student("deleted").solve()
    gone = ("setting-1", "task-2", "answer-2", "marks-3", "marks-summative")
    deleted.book.cells = [
        c for c in deleted.book.cells if c not in map(deleted.__getitem__, gone)
    ]
    deleted.hand_in()

    copied = student("copied").solve()
    copied.book.cells += [copied["marks-1"].copy(), copied["answer-1"].copy()]
    copied.book.cells[-1].source = "patch_of_pixel = None"
    for number, cell in enumerate(copied.book.cells[-2:]):
        cell.id = f"copy-{number}"
    copied["marks-2"].metadata.nbgrader.grade_id = "renamed"
    copied.hand_in()

    scripts = student("scripts").solve()
    scripts["text-3"].source = "An answer. <script>mark()</script>"
    scripts.book.cells.insert(3, nbformat.v4.new_raw_cell("<script>mark()</script>"))
    scripts.add(SHOWING).hand_in()

    piping = student("piping").solve()
    piping.add(PIPE, len(piping.book.cells)).hand_in()

    long = student("long").solve()
    long.book.cells.append(nbformat.v4.new_markdown_cell("\\\\(" * 150_000))
    long.hand_in()

    half = student("half").add('x = "a letter"').hand_in()
    half = inbox / "half" / f"{NAME}.ipynb"
    half.write_text(half.read_text("utf-8").replace("a letter", r"\ud800"), "utf-8")

    os.mkfifo(student("pipe").folder / f"{NAME}.ipynb")

    strays = student("strays").solve()
    (strays.folder / "vitlib.py").write_text("raise SystemExit")
    (strays.folder / "=1+1.csv").write_text("1,2")
    strays.hand_in("my patches.ipynb")

    loud = student("loud").solve()
    loud["answer-1"].source += "\n\n\nprint('x' * 20_000_000)"
    loud.add("for line in range(20_000):\n    print('y' * 100)").hand_in()

    student("no json").folder.joinpath(f"{NAME}.ipynb").write_text("{'cells': [")
    student("nothing")
    student("quitter").solve().add("import os\nos._exit(0)", 6).hand_in()
    if box.works():
        # Without a box this one succeeds: it breaks the gradebook.
        student("forger").add(FORGING).hand_in()

    # An empty one.
    student("12345").hand_in()
    (inbox / "12345" / f"{NAME}.ipynb").rename(inbox / f"12345_{NAME}.ipynb")
    (inbox / "12345").rmdir()
    (inbox / "list.txt").write_text("who is in this class")
    return inbox


# Practice tasks and summative points, and what the teacher is told, in pieces.
WANTED = {
    "perfect": (ALL, 10, ["1 written answer to read"]),
    "partly": ({1, 2}, 2, []),
    "wrong": (set(), 0, []),
    "crashing": (
        ALL - {2, 4},
        10,
        [
            "answer-2: it raised ModuleNotFoundError",
            "answer-4: it raised SyntaxError",
            "answer-2: imports 'no_such_module'",
        ],
    ),
    "endless": (ALL - {2}, 10, ["an added cell: it did not end in time"]),
    "edited": (
        set(),
        0,
        [
            "marks-1 was edited",
            "the metadata of marks-3 were edited",
            "the metadata of marks-4 were edited",
            "does something with checks",
        ],
    ),
    "deleted": (ALL - {2}, 10, ["answer-2 was deleted", "marks-3 was deleted"]),
    "copied": (ALL, 10, ["answer-1 is there more than once"]),
    "strays": (
        ALL,
        10,
        ["stray file 'vitlib.py'", "notebook is called 'my patches.ipynb'"],
    ),
    "loud": (ALL, 10, ["huge output"]),
    "scripts": (ALL, 10, ["huge output", "1 written answer to read"]),
    "piping": (ALL, 0, ["imports 'os'"]),
    "long": (ALL, 10, ["an added cell has 450,000 characters"]),
    "half": (set(), 0, ["this is no notebook (UnicodeEncodeError)"]),
    "pipe": (set(), 0, ["no file that can be read"]),
    "no_json": (set(), 0, ["this is no notebook"]),
    "nothing": (set(), 0, ["no notebook"]),
    "quitter": (set(), 0, ["its code ended the kernel"]),
    "forger": (None, 0, ["uses get_ipython", "imports 'sqlite3'"]),
    "12345": (set(), 0, []),
}


def rows_of(table):
    """Read a table of marks."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(course, inbox):
    """Mark the class."""
    return rows_of(grading.grade(course, NAME))


def page_of(course, student):
    """Return a feedback page."""
    return course.root / "feedback" / student / NAME / f"{NAME}.html"


def test_everybody_gets_the_right_marks(course, inbox, graded):
    wanted = {name: row for name, row in WANTED.items() if (inbox / name).exists()}
    wanted |= {name: WANTED[name] for name in ("12345", "no_json")}
    assert graded.keys() == wanted.keys()
    for name, (practice, summative, reasons) in wanted.items():
        row = graded[name]
        # Marks of practice can be forged: the solutions are public anyway.
        if practice is not None:
            points = sum(POINTS[task] for task in practice)
            assert (name, row["practice"]) == (name, str(points))
        assert (name, row["summative"]) == (name, str(summative))
        most = {"practice": sum(POINTS.values()), "written": WRITTEN, "summative": 10}
        assert {kind: int(row[f"{kind}_max"]) for kind in most} == most
        assert int(row["max"]) == sum(most.values())
        assert float(row["total"]) == float(row["practice"]) + summative
        for reason in reasons:
            assert reason in row["look"], name
        if not reasons:
            assert row["look"] == "", name
        assert page_of(course, name).stat().st_size < 2_000_000


def test_pages_run_nothing_that_students_wrote(course, graded):
    page = page_of(course, "scripts").read_text("utf-8")
    assert "An answer. &lt;script&gt;mark()" in page
    assert not RUNS.search(page)
    # The page on which a teacher reads answers, as the formgrader makes it.
    config = course.api().config
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [template_path]
    path = course.root / "autograded" / "scripts" / NAME / f"{NAME}.ipynb"
    given = {"index": 0, "total": 1}
    page, _ = HTMLExporter(config=config).from_filename(str(path), resources=given)
    assert "An answer. &lt;script&gt;mark()" in page
    assert not RUNS.search(page)


@pytest.fixture
def ada(tmp_path):
    """Start a course with one student."""
    course = Course(tmp_path)
    course.start(SEED)
    course.release([NAME])
    student = Student(course, course.inbox(NAME), "ada").solve()
    student["text-3"].source = "One pixel must change one row."
    student.hand_in()
    return student


def row_of(table):
    """Return the marks of one student."""
    (row,) = rows_of(table).values()
    return row["practice"], row["written"], row["summative"], row["look"]


def mark(course, name, points):
    """Give marks by hand, as the formgrader does."""
    with course.gradebook() as gradebook:
        grade = gradebook.find_grade(name, NAME, NAME, "ada")
        grade.manual_score, grade.needs_manual_grade = points, False
        gradebook.db.commit()


UNREAD = "1 written answer to read"


def test_marks_by_hand_stay_until_the_answer_changes(ada, capsys):
    course, points = ada.course, sum(POINTS.values())
    assert row_of(grading.grade(course, NAME)) == (str(points), "0", "10", UNREAD)
    mark(course, "text-3", 2)
    # A person takes a point away from code.
    mark(course, "marks-1", POINTS[1] - 1)
    wanted = str(points - 1), "2", "10", ""
    assert row_of(grading.marks(course, NAME)) == wanted
    # What has not changed is not marked again, and what is gone keeps its marks.
    capsys.readouterr()
    assert row_of(grading.grade(course, NAME)) == wanted
    assert "1 of 1: ada, as it was\n" in capsys.readouterr().out
    ada.folder.rename(course.root / "elsewhere")
    assert row_of(grading.grade(course, NAME)) == wanted
    (course.root / "elsewhere").rename(ada.folder)
    ada["answer-1"].source += "\n# a comment"
    ada.hand_in()
    assert row_of(grading.grade(course, NAME)) == (str(points), "2", "10", "")
    ada["text-3"].source = "One row."
    ada.hand_in()
    assert row_of(grading.grade(course, NAME)) == (str(points), "0", "10", UNREAD)


def test_a_broken_file_takes_marks_away_and_loses_none(
    ada, tmp_path_factory, monkeypatch, capsys
):
    course, path = ada.course, ada.folder / f"{NAME}.ipynb"
    grading.grade(course, NAME)
    mark(course, "text-3", 1)
    path.write_text("{")
    look = "no marks: this is no notebook (NotJSONError)"
    assert row_of(grading.grade(course, NAME)) == ("0", "0", "0", look)
    page = page_of(course, "ada").read_text("utf-8")
    assert look in page and "One pixel" not in page
    capsys.readouterr()
    assert row_of(grading.grade(course, NAME, again=True))[-1] == look
    assert "1 of 1: ada\n" in capsys.readouterr().out

    # What takes too long is ended, and leaves nothing behind.
    temp = tmp_path_factory.mktemp("temp")
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    ada.hand_in()
    look = "no marks: stopped after 2 seconds"
    assert row_of(grading.grade(course, NAME, limit=2)) == ("0", "0", "0", look)
    assert list(temp.iterdir()) == []
    monkeypatch.undo()

    # Marking that was stopped is told, and is done the next time.
    marking.report_of(course.root, NAME, "ada").start()
    look = "no marks: marking did not come to its end, grade again"
    assert row_of(grading.marks(course, NAME)) == ("0", "0", "0", look)
    points = str(sum(POINTS.values()))
    assert row_of(grading.grade(course, NAME)) == (points, "1", "10", "")

    # So is a notebook of which no page can be made in time.
    monkeypatch.setattr(pages, "LIMIT", 0)
    capsys.readouterr()
    assert row_of(grading.marks(course, NAME)) == (points, "1", "10", "")
    reason = "the notebook could not be shown"
    assert f"Page of ada: {reason}" in capsys.readouterr().out
    assert reason in page_of(course, "ada").read_text("utf-8")


def test_nbgraders_own_command_marks_in_the_box_as_well(course, inbox, graded):
    with course.gradebook() as gradebook:
        score = gradebook.find_submission(NAME, "copied").score
    result = course.api().autograde(NAME, "copied", force=True)
    assert result["success"], result["log"]
    with course.gradebook() as gradebook:
        assert gradebook.find_submission(NAME, "copied").score == score > 10


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_assignment_gives_all_marks_to_its_solution(tmp_path):
    course = Course(tmp_path)
    course.start(SEED)
    for name in names():
        course.release([name])
        source = course.root / "source" / name / f"{name}.ipynb"
        shutil.copy(source, course.inbox(name) / f"teacher_{name}.ipynb")
        (row,) = rows_of(grading.grade(course, name)).values()
        assert row["practice"] == row["practice_max"], name
        assert row["summative"] == row["summative_max"], name
        # The hidden test stands in the source.
        known = r"marks-summative was edited|\d+ written answers? to read"
        for look in filter(None, row["look"].split("; ")):
            assert re.fullmatch(known, look), name
