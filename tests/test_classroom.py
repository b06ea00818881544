"""The parts of the class kit: tasks from a seed, releases, collecting, marking."""

import base64
import copy
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys

import nbformat
import pytest
import torch
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
    new_raw_cell,
)
from safetensors.torch import save_file

from classroom import asking, assignments, box, collecting, marking, pages
from classroom.__main__ import main
from classroom.course import Course
from classroom.summative import task as tasks
from vitlib.checks.comparing import close

SEEDS = [str(seed) for seed in range(8)]
NAMES = assignments.names()


def made(name):
    """Make a summative task from every seed."""
    return [tasks.task_for(name, seed) for seed in SEEDS]


def called(function, given):
    """Return what a function makes of arguments, as a tensor; None if it fails."""
    try:
        value = function(*copy.deepcopy(given))
    except Exception:
        return None
    return value if isinstance(value, torch.Tensor) else torch.tensor(value)


# Summative tasks


def test_the_guide_names_every_summative_task():
    page = (assignments.ROOT / "book/classroom.md").read_text("utf-8")
    assert re.findall(r"^\| (\d\d) \| .+ \|$", page, re.M) == [
        name[:2] for name in NAMES
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_makes_a_task_and_another_makes_another(name):
    one, again = tasks.task_for(name, "7"), tasks.task_for(name, "7")
    assert (one.goal, one.solution) == (again.goal, again.solution)
    for given, other in zip(one.cases, again.cases, strict=True):
        for value, same in zip(given, other, strict=True):
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(same))
    # Of eight seeds two may meet, not more.
    assert len({task.goal for task in made(name)}) >= len(SEEDS) - 1
    assert len({task.solution for task in made(name)}) >= len(SEEDS) - 1


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_right_and_no_other_seeds_is(name):
    all_tasks = made(name)
    solutions = [tasks.solved(task) for task in all_tasks]
    for task, own in zip(all_tasks, solutions, strict=True):
        wanted = [task.expected(given) for given in task.cases]
        assert all(value.isfinite().all() for value in wanted)
        assert task.expected(task.example).isfinite().all()
        for given, expected in zip(task.cases, wanted, strict=True):
            got = called(own, given)
            assert got.dtype == expected.dtype and close(got, expected), task.goal
        assert close(called(own, task.example), task.expected(task.example))
        for other, theirs in zip(all_tasks, solutions, strict=True):
            if other.goal == task.goal:
                continue
            right = 0
            for given, expected in zip(task.cases, wanted, strict=True):
                got = called(theirs, given)
                right += got is not None and close(got, expected)
            # Two ways of counting can meet at one number.
            assert right <= (name == "08_vit"), f"{task.goal}\n\n{other.goal}"


@pytest.mark.parametrize("name", NAMES)
def test_cases_tell_sizes_and_dtypes_apart(name):
    task = tasks.task_for(name, "3")
    assert len(task.cases) == 5
    shapes = [tuple(task.expected(given).shape) for given in task.cases]
    values = {str(task.expected(given).tolist()) for given in task.cases}
    assert len(values) == 5
    if shapes[0] and isinstance(task.cases[0][0], torch.Tensor):
        assert len(set(shapes)) == 5
        assert {task.expected(given).dtype for given in task.cases} == {
            torch.float32,
            torch.float64,
        }
    shown = [str(value) for value in task.example]
    assert all([str(value) for value in given] != shown for given in task.cases)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_says_what_it_asks_and_shows_no_solution(name):
    for task in made(name):
        assert task.goal.startswith(("Write", "A ", "Another"))
        assert f"`{task.name}(" in task.goal
        assert "{" not in task.goal and "{" not in task.solution
        assert not re.search(r"\b(simply|just|obviously|of course)\b", task.goal)
        lines = f"{task.head}\n{tasks.indented(task.solution)}".splitlines()
        assert max(map(len, lines)) <= 75, max(lines, key=len)


def test_no_summative_task_stands_in_the_book():
    pages = [*(assignments.ROOT / "book").rglob("*.md")]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    for name in NAMES:
        assert f"{tasks.task_for(name, '0').name}(" not in text


def test_no_drawn_number_is_zero():
    drawn = tasks.numbers(random.Random(0), 10_000)
    assert drawn.abs().min() == torch.tensor(0.1)
    assert (drawn.mul(10) - drawn.mul(10).round()).abs().max() < 1e-5


# Questions and answers


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Lie where questions and answers lie."""
    monkeypatch.setenv(asking.QUESTIONS, str(tmp_path / "questions"))
    monkeypatch.setenv(asking.ANSWERS, str(tmp_path / "answers"))
    return tmp_path


def answered(desk, task, function):
    """Let a function answer, and return its marks and what is said."""
    asking.write_questions(desk / "questions", task.cases)
    asking.answer(function)
    return marking.summative_marks(task, 10, desk / "answers")


@pytest.mark.parametrize("name", NAMES)
def test_questions_arrive_as_they_were(desk, name):
    cases = tasks.task_for(name, "1").cases
    asking.write_questions(desk / "questions", cases)
    for given, asked in zip(
        cases, asking.read_questions(desk / "questions"), strict=True
    ):
        for value, got in zip(given, asked, strict=True):
            assert type(value) is type(got)
            if isinstance(value, torch.Tensor):
                assert value.dtype == got.dtype and torch.equal(value, got)
            else:
                assert value == got


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_gets_all_marks(desk, name):
    task = tasks.task_for(name, "2")
    points, text = answered(desk, task, tasks.solved(task))
    assert points == 10
    assert text == f"{task.name}: right, 5 of 5 calls came out right"


def test_what_is_wrong_is_said(desk):
    task = tasks.task_for("04_attention", "2")
    right = tasks.solved(task)

    def zeros(q, k, v):
        v.zero_()
        return v

    for answer, points, said in (
        (lambda q, k, v: right(q, k, v).float(), 8, "torch.float64 arrived"),
        (lambda q, k, v: right(q, k, v)[:1], 2, "its shape is (1,"),
        (lambda q, k, v: right(q, k, v) + (len(q) > 1), 2, "first row that differs"),
        (lambda q, k, v: 1 / 0, 0, "ZeroDivisionError"),
        (lambda q, k, v: None, 0, "returned None"),
        (zeros, 0, "it changes a tensor that it is given"),
        (lambda q, k, v: 7.0, 0, "its shape is ()"),
    ):
        got, text = answered(desk, task, answer)
        assert got == points, text
        assert said in text
        assert "first wrong with a float" in text


def test_answers_that_are_no_answers_get_nothing(desk):
    task = tasks.task_for("04_attention", "2")
    path = desk / "answers"

    def marks():
        return marking.summative_marks(task, 10, path)

    assert marks()[0] == 0
    for content in (b"", b"10 points", b"\xff" * 8 + b"{}"):
        path.write_bytes(content)
        points, text = marks()
        assert points == 0 and "cannot be read" in text
    for said in ("{}", "[]", "3", "null"):
        save_file({"7": torch.ones(1)}, path, metadata={"said": said})
        assert marks()[0] == 0
    right = {str(k): task.expected(given) for k, given in enumerate(task.cases)}
    save_file(right, path, metadata={"said": "{}"})
    assert marks()[0] == 10
    path.rename(desk / "elsewhere")
    path.symlink_to(desk / "elsewhere")
    assert marks()[0] == 0
    path.unlink()
    os.mkfifo(path)  # opening it would wait for ever
    assert marks()[0] == 0
    path.unlink()
    with path.open("wb") as file:
        file.truncate(marking.MOST_ANSWERED + 1)
    assert "too large" in marks()[1]


def graded(*outputs):
    """Return a practice cell of 3 points that shows something."""
    grader = {"grade": True, "points": 3, "grade_id": "marks-1"}
    return new_code_cell("", outputs=[*outputs], metadata={"nbgrader": grader})


def result(text):
    """Return what a cell shows for its last line."""
    return new_output("execute_result", {"text/plain": text}, execution_count=1)


def test_practice_marks_are_one_number_or_none():
    words = new_output("stream", text="not yet\n")
    crash = new_output("error", ename="NameError", evalue="", traceback=[])
    assert marking.practice_marks(graded(words, result("3"))) == (3, "not yet\n")
    assert marking.practice_marks(graded(words, result("0"))) == (0, "not yet\n")
    for outputs in (
        [],  # nbgrader would give all points to these
        [words],
        [result("'3'")],
        [result("2")],
        [result("30")],
        [result("3"), result("3")],
        [result("3"), crash],
        [crash],
    ):
        points, text = marking.practice_marks(graded(*outputs))
        assert points is None and "no marks: " in text


# Releases


@pytest.fixture(scope="module")
def sources():
    """Make every instructor's notebook."""
    return {
        name: assignments.make(name, tasks.task_for(name, "5"))
        for name in assignments.names()
    }


@pytest.mark.parametrize("name", assignments.names())
def test_an_assignment_has_what_its_exercises_have(name, sources):
    book = sources[name]
    nbformat.validate(book)
    exercise = nbformat.read(
        assignments.generate.FOLDER / f"{name}.ipynb", as_version=4
    )
    _, parts = assignments.generate.parts_of(exercise)
    of_kind = assignments.generate.of_kind
    graders = [cell.metadata.nbgrader for cell in book.cells]
    names = [grader.grade_id for grader in graders]
    assert len(set(names)) == len(names)
    for number, cells in enumerate(parts, start=1):
        checked = [n for n in names if re.fullmatch(rf"marks-{number}(-\d)?", n)]
        assert len(checked) == len(of_kind(cells, "check"))
        (goal,) = (c.source for c in book.cells if c.id == f"task-{number}")
        said = re.search(
            r"\*Marks: (\d+) for the code(?:, (\d+) for the text)?\.\*", goal
        )
        given = [
            sum(
                g.get("points", 0)
                for g in graders
                if re.match(rf"{kind}-{number}\b", g.grade_id)
            )
            for kind in ("marks", "text")
        ]
        assert [int(points or 0) for points in said.groups()] == given
        level = int(assignments.generate.HEAD.match(cells[0].source)["difficulty"])
        for grader in graders:
            if grader.grade_id in checked:
                assert grader.points == level
    text = "\n".join(cell.source for cell in book.cells)
    for why in (c.source for cells in parts for c in of_kind(cells, "why")):
        assert why not in text
    # What students get lies anywhere: a link into the book's folder leads nowhere.
    assert not re.search(r"\]\((?!https?://)", text)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Start a course."""
    course = Course(tmp_path_factory.mktemp("here") / "course")
    with pytest.raises(ValueError, match="needs a seed"):
        course.start("")
    course.start("a word")
    return course


def test_a_course_keeps_its_seed_and_its_settings(course):
    config = course.root / "nbgrader_config.py"
    text = config.read_text("utf-8")
    assert "timeout = 60" in text
    config.write_text(text.replace("timeout = 60", "timeout = 70"), "utf-8")
    course.start("")
    course.start("a word")
    assert course.seed == "a word"
    assert "timeout = 70" in config.read_text("utf-8")
    with pytest.raises(ValueError, match="another seed"):
        course.start("two")


def test_a_release_gives_nothing_away(course):
    assert course.unreleased() == assignments.names()
    course.release(["03_positions"])
    assert course.unreleased() == [n for n in assignments.names() if n[:2] != "03"]
    book = nbformat.read(course.released("03_positions"), as_version=4)
    text = "\n".join(cell.source for cell in book.cells)
    task = tasks.task_for("03_positions", "a word")
    assert task.goal in text and task.head in text
    for line in task.solution.splitlines():
        assert line.strip() not in text or line.strip() in task.goal
    for word in ("SOLUTION", "HIDDEN", "classroom", "a word", "rearrange(table"):
        assert word not in text
    answers = [c for c in book.cells if c.metadata.nbgrader.grade_id[:6] == "answer"]
    assert len(answers) >= 5
    for cell in answers:
        assert 'raise NotImplementedError("your turn")' in cell.source
    with pytest.raises(ValueError, match="was not released"):
        course.released("04_attention")
    assert course.handed_in() == ([], [])
    (course.inbox("03_positions") / "ada_03_positions.ipynb").touch()
    (course.root / "inbox" / "3_positions").mkdir()
    (course.root / "inbox" / "bob_03_positions.ipynb").touch()
    others = ["3_positions", "bob_03_positions.ipynb"]
    assert course.handed_in() == (["03_positions"], others)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command and return whether it was done, and what it said."""

    def run(course, *words):
        argv = ["classroom", "--course", str(course.root), *words]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return not end.value.code, f"{said.out}{said.err}{end.value.code}"

    return run


def test_commands_say_what_is_wrong(tmp_path, command):
    course = Course(tmp_path / "my course ü")
    done, said = command(course, "grade")
    assert not done and "is no course folder" in said
    for words in (("release", "--seed", "1", "04_atention"), ("grade", "04_atention")):
        done, said = command(course, *words)
        assert not done
        assert "there is no assignment '04_atention': choose from 01_patches" in said
    assert not course.root.exists()
    assert command(course, "release", "--seed", "1", "02_cls_token")[0]
    done, said = command(course, "grade")
    assert done and "Nothing was handed in yet" in said

    # What cannot be done does not keep the others from being marked.
    course.inbox("01_patches").mkdir()
    for name in ("01_patches", "02_cls_token"):
        (course.inbox(name) / "ada").mkdir()
    (course.inbox("02_cls_token") / "list.txt").touch()
    (course.root / "inbox" / "02").mkdir()
    (course.root / "marks" / "02_cls_token.csv").mkdir(parents=True)
    done, said = command(course, "grade")
    assert not done
    assert "inbox/'02' is not named as an assignment" in said
    assert "01_patches was not released" in said
    assert "close the file where it is open" in said
    assert not [p for p in (course.root / "marks").iterdir() if p.is_file()]
    (course.root / "marks" / "02_cls_token.csv").rmdir()
    done, said = command(course, "grade", "02_cls_token")
    assert done and "1 of 1: ada, as it was\nada: 0 of 30" in said
    assert said.endswith("'list.txt': belongs to no student, ignored\nFalse")
    done, said = command(course, "marks", "02_cls_token")
    assert done and "ada: 0 of 30" in said
    table = (course.root / "marks" / "02_cls_token.csv").read_bytes()
    assert table.startswith(b"\xef\xbb\xbfstudent,")


def test_a_command_can_be_stopped(tmp_path, command, monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(Course, "start", stop)
    done, said = command(Course(tmp_path), "release", "--seed", "1")
    assert not done and "the same command goes on from here" in said


def test_reasons_are_kept_whole(tmp_path):
    report = marking.Report(tmp_path / "04_attention" / "ada.json")
    assert (report.reasons(), report.marked(), report.failed()) == ([], "", False)
    report.start("one")
    report.add("two", "one")
    report.finish("abc")
    report.add("no marks: three")
    again = marking.Report(report.path)
    assert again.reasons() == ["one", "two", "no marks: three"]
    assert (again.marked(), again.failed()) == ("abc", True)
    assert [path.name for path in report.path.parent.iterdir()] == ["ada.json"]
    report.start()
    assert (report.reasons(), report.marked()) == ([], "")


# Collecting


def test_submissions_are_found_in_folders_and_files(tmp_path):
    book = nbformat.writes(new_notebook())
    for path in (
        "ada/04_attention.ipynb",
        "ada/.ipynb_checkpoints/04_attention-checkpoint.ipynb",
        "Ada Love_123_assignsubmission_file/answers.ipynb",
        "Ada Love_123_assignsubmission_onlinetext/onlinetext.html",
        "Max Meier_55_assignsubmission_file_04_attention.ipynb",
        "Zoë_04_attention.ipynb",
        "हिन्दी_04_attention.ipynb",
        "=cmd/04_attention.ipynb",
        "bob/notes.txt",
        "04_attention.ipynb",
        "evil\n\x1b[2J.txt",
        "x" * 240 + "/04_attention.ipynb",
        ".DS_Store",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(book)
    (tmp_path / "mallory").symlink_to(tmp_path / "ada")
    found, left_out = collecting.find(tmp_path, "04_attention")
    by_name = {submission.student: submission for submission in found}
    names = {"ada", "Ada_Love", "Max_Meier", "Zoë", "हिन्दी", "cmd", "bob", "x" * 100}
    assert by_name.keys() == names
    assert by_name["ada"].reasons == by_name["Max_Meier"].reasons == ()
    assert by_name["Ada_Love"].reasons == ("notebook is called 'answers.ipynb'",)
    assert by_name["bob"].path is None
    assert by_name["bob"].reasons == ("no notebook", "stray file 'notes.txt', ignored")
    assert left_out == [
        "'04_attention.ipynb': belongs to no student, ignored",
        "'Ada Love_123_assignsubmission_onlinetext': belongs to no student, ignored",
        "'evil[2J.txt': belongs to no student, ignored",
        "'mallory': is a link, ignored",
    ]
    with pytest.raises(ValueError, match="is no folder"):
        collecting.find(tmp_path / "inbox", "04_attention")


def test_two_of_one_name_are_told_and_the_others_are_marked(tmp_path):
    for name in ("Kim_1_assignsubmission_file", "Kim_2_assignsubmission_file", "ada"):
        (tmp_path / name).mkdir()
    for letters in ("Zo\u00eb", "Zoe\u0308"):  # one name, written in two ways
        (tmp_path / f"{letters}_04_attention.ipynb").touch()
    found, left_out = collecting.find(tmp_path, "04_attention")
    assert [submission.student for submission in found] == ["ada"]
    assert [line.partition(": ")[2] for line in left_out] == [
        "all from 'Kim', rename them; none was marked",
        "all from 'Zoë', rename them; none was marked",
    ]


def test_what_is_no_notebook_is_refused(tmp_path):
    path = tmp_path / "a.ipynb"
    half = nbformat.writes(new_notebook(cells=[new_code_cell("x")]))
    half = half.replace('"x"', r'"\ud800"').encode()
    for content in (
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"cells": 3}',
        b"[" * 100_000,
        half,
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no notebook"):
            collecting.read(path)
    with path.open("wb") as file:
        file.truncate(collecting.LARGEST + 1)
    with pytest.raises(ValueError, match="bytes"):
        collecting.read(path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="no file that can be read"):
        collecting.read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="no file that can be read"):
        collecting.read(path)


def test_a_notebook_from_an_editor_that_marks_utf8_is_read(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(nbformat.writes(new_notebook()), encoding="utf-8-sig")
    assert collecting.read(path).cells == []


@pytest.fixture
def release(sources):
    """Return a notebook with nbgrader's metadata."""
    return copy.deepcopy(sources["04_attention"])


def test_a_mended_notebook_is_the_release_with_answers(release):
    submitted = copy.deepcopy(release)
    assert collecting.mend(submitted, release) == (release, [])
    dice = random.Random(0)
    for _ in range(20):
        spoiled = copy.deepcopy(release)
        dice.shuffle(spoiled.cells)
        del spoiled.cells[dice.randrange(len(spoiled.cells)) :]
        for cell in spoiled.cells:
            act = dice.randrange(5)
            if act == 0:
                cell.source = "spoiled"
            if act == 1:
                cell.metadata = {"nbgrader": {"grade_id": dice.choice(("x", 3, None))}}
            if act == 2:
                cell.metadata.nbgrader.points = 1000
        made, reasons = collecting.mend(spoiled, release)
        nbformat.validate(made)
        kept = [c for c in made.cells if "nbgrader" in c.metadata]
        assert reasons and len(kept) == len(release.cells)
        for cell, right in zip(kept, release.cells, strict=True):
            assert cell.metadata == right.metadata
            if not right.metadata.nbgrader.solution:
                assert cell.source == right.source


def test_what_was_spoiled_is_told(release):
    submitted = copy.deepcopy(release)
    cells = {cell.id: cell for cell in submitted.cells}
    cells["marks-1"].source += " + 1"
    cells["answer-1"].source += "\n# mine"
    cells["marks-2"].metadata.nbgrader.points = 99
    submitted.cells.append(copy.deepcopy(cells["answer-3"]))
    submitted.cells.remove(cells["task-2"])
    made, reasons = collecting.mend(submitted, release)
    assert sorted(reasons) == [
        "answer-3 is there more than once",
        "marks-1 was edited",
        "task-2 was deleted",
        "the metadata of marks-2 were edited",
    ]
    given = {cell.source for cell in release.cells}
    assert [cell.source for cell in made.cells if cell.source not in given] == [
        cells["answer-1"].source
    ]


def test_added_cells_stay_where_they_were(release):
    submitted = copy.deepcopy(release)
    names = [cell.metadata.nbgrader.grade_id for cell in submitted.cells]
    place = names.index("answer-2")
    submitted.cells.insert(place, new_code_cell("before"))
    submitted.cells.insert(place + 2, new_code_cell("after"))
    made, reasons = collecting.mend(submitted, release)
    assert [c.source for c in made.cells] == [c.source for c in submitted.cells]
    assert reasons == []


def test_a_text_below_its_place_goes_into_it(release):
    submitted = copy.deepcopy(release)
    names = [cell.metadata.nbgrader.grade_id for cell in submitted.cells]
    texts = [name for name in names if name.startswith("text-")]
    first, second = (names.index(name) for name in texts[:2])
    submitted.cells[second].source += "\nin its place"
    submitted.cells.insert(second + 1, new_markdown_cell("a note"))
    submitted.cells.insert(first + 1, new_markdown_cell("below"))
    submitted.cells.insert(first + 2, new_raw_cell("<b>and raw</b>"))
    made, reasons = collecting.mend(submitted, release)
    by_name = {c.metadata.nbgrader.grade_id: c for c in made.cells if c.metadata}
    assert by_name[texts[0]].source == "below\n\n<b>and raw</b>"
    assert by_name[texts[1]].source.endswith("in its place")
    added = [cell.source for cell in made.cells if not cell.metadata]
    assert (added, reasons) == (["a note"], [])


def test_another_notebook_is_not_marked(release):
    with pytest.raises(ValueError, match="none of its cells is from the released"):
        collecting.mend(new_notebook(cells=[new_code_cell("1")]), release)


def test_long_cells_are_told(release):
    submitted = copy.deepcopy(release)
    long = "x" * (collecting.LONGEST + 1)
    submitted.cells.append(new_markdown_cell(long))
    submitted.cells.append(new_code_cell(long + "()"))
    made, reasons = collecting.mend(submitted, release)
    assert [len(cell.source) - len(long) for cell in made.cells[-2:]] == [-1, 2]
    assert reasons == [
        "an added cell has 20,001 characters",
        "an added cell has 20,003 characters",
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os", "imports 'os'"),
        ("import os.path as path", "imports 'os.path'"),
        ("from vitlib import checks as c", "does something with checks"),
        ("import vitlib.checks.patches", "does something with checks"),
        ("from vitlib.checks import patches", "does something with checks"),
        ("checks.patches = 3", "does something with checks"),
        ("checks = 3", "does something with checks"),
        ("def checks(): pass", "does something with checks"),
        ("type(checks.patches.split).__call__ = 3", "does something with checks"),
        ("vitlib.checks.x = 3", "does something with checks"),
        ("torch.equal = max", "writes into torch"),
        ("get_ipython()", "uses get_ipython"),
        ("x.__globals__", "uses __globals__"),
        ("__import__('os')", "uses __import__"),
        ("open('a')", "uses open"),
        ("!ls", "runs a command of IPython or the shell"),
        ("%time 1", "runs a command of IPython or the shell"),
    ],
)
def test_code_that_reaches_out_is_told(source, said):
    assert said in collecting.reaches(source)


def test_usual_code_is_not_told(sources):
    for name, book in sources.items():
        for cell in book.cells:
            if cell.cell_type == "code" and cell.metadata.nbgrader.solution:
                assert list(collecting.reaches(cell.source)) == [], name
    for source in (
        "def f(:",
        "from vitlib import checks\nchecks.patches.split_patches(mine)",
        "class A(B):\n    def __init__(self):\n        super().__init__()\n"
        "        self.x = 3",
        "x[0] = torch.ones(3)",
        "x" + 500 * ".y" + " = 1",
        10_000 * "-" + "1",
    ):
        assert list(collecting.reaches(source)) == []


# Feedback pages


def test_pages_show_text_and_run_nothing():
    shown = pages.markdown(
        "## Head\n\n**bold** `a < b` $x_1 < y$\n\n| a |\n| --- |\n| 1 |\n\n"
        "<details><summary>Hint 1</summary>\n\nthere\n\n</details>"
    )
    for part in ("<h2>Head", "<strong>bold", "a &lt; b", "$x_1 &lt; y$", "<td>1</td>"):
        assert part in shown
    assert "<details><summary>Hint 1</summary>" in shown
    for attack in (
        "<script>x()</script>",
        "<img src=x onerror=x()>",
        "![a](https://example.org/seen.png)",
        "[a](javascript:x\\(\\))",
        "<a href='data:text/html,x'>a</a>",
        "<p style='position:fixed' onclick='x()' id='top'>a</p>",
        "$$<script>x()</script>$$",
        "$\\href{javascript:x()}{a}$",
        "<svg><style><img src=x onerror=x()></style></svg>",
        "```html\n<script>x()</script>\n```",
    ):
        shown = pages.markdown(attack)
        tags = re.findall(r"<(\w+)((?: [^<>]*)?)>", shown)
        assert {name for name, _ in tags} <= {"p", "a", "div", "pre", "span"}, shown
        for name, rest in tags:
            assert not rest or (name != "a" and re.fullmatch(' class="\\w+"', rest)), (
                rest
            )
        assert r"\href" not in shown


PIXEL = base64.b64encode(b"pixel").decode()


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"text/plain": "3", "text/html": "<script>"}, ["text/plain"]),
        ({"image/png": PIXEL + "\n"}, ["image/png"]),
        ({"image/png": '"><script>'}, []),
        ({"image/png": ["AAAA"]}, []),
        ({"image/jpeg": PIXEL, "image/svg+xml": "<svg>"}, ["image/jpeg"]),
        ({"application/javascript": "x()", "text/markdown": "<script>"}, []),
        ({"text/latex": "$x$", "application/vnd.jupyter.widget-view+json": {}}, []),
    ],
)
def test_outputs_that_a_page_could_run_are_taken_away(data, kept):
    shown = new_output("display_data", data, metadata={"image/png": {"width": "1 x="}})
    assert marking.RunInBox().keeps(shown)
    assert ([*shown.data], shown.metadata) == (kept, {})


def test_a_huge_output_is_left_out_and_an_error_stays_one(tmp_path):
    runner, huge = marking.RunInBox(), "x" * 3 * marking.MOST_SHOWN
    runner.report = marking.Report(tmp_path / "ada.json")
    assert not runner.keeps(new_output("stream", text=huge))
    assert not runner.keeps(new_output("display_data", {"text/plain": huge}))
    error = new_output("error", ename="ValueError", evalue=huge, traceback=[huge])
    assert runner.keeps(error) and error.ename == "ValueError"
    assert len(json.dumps(error)) < 100
    assert runner.report.reasons() == [marking.HUGE]


# The box


ALLOWED = shutil.which("bwrap") and not subprocess.call(
    ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
)


@pytest.mark.skipif(not ALLOWED, reason="bubblewrap is not here, or not allowed")
def test_a_box_shows_no_course_and_no_network(tmp_path, monkeypatch):
    # The book's folder, with another class in it.
    monkeypatch.setattr(box, "ROOT", tmp_path)
    (tmp_path / "vitlib").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "course.json").write_text("seed")
    course, room = tmp_path / "course", tmp_path / "room"
    desk = course / "autograded" / "ada"
    for folder in (desk, room):
        folder.mkdir(parents=True)
    (course / "gradebook.db").write_text("marks")
    code = """
import json, os, socket, sys
port = int(sys.argv.pop())
course, desk, room = sys.argv[1:]
book = os.path.dirname(course)
found = {"course": os.listdir(course), "tmp": os.listdir("/tmp")}
found["book"] = sorted(os.listdir(book))
for name in ("desk", "room", "etc", "usr", "new"):
    folder = {"desk": desk, "room": room}.get(name, "/" + name)
    try:
        open(os.path.join(folder, "file"), "w").close()
        found[name] = True
    except OSError:
        found[name] = False
try:
    socket.create_connection(("127.0.0.1", port), 1)
    found["network"] = True
except OSError:
    found["network"] = False
try:
    bytearray(5 * 2**30)
    found["memory"] = True
except MemoryError:
    found["memory"] = False
try:
    for name in "ab":
        with open("/dev/shm/" + name, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2**27)
    found["shared"] = True
except OSError:
    found["shared"] = False
found["token"] = "TOKEN" in os.environ
secrets = "/etc/passwd", "/etc/shadow", os.path.expanduser("~root/.bashrc")
found["secrets"] = [path for path in secrets if os.path.exists(path)]
found["processes"] = sum(name.isdigit() for name in os.listdir("/proc"))
print(json.dumps(found))
"""
    assert box.works()
    words = [*box.limits(), *box.command(course, desk, room, {})]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        seen = subprocess.run(
            [*words, sys.executable, "-c", code, *map(str, (course, desk, room)), port],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "/usr/bin:/bin", "TOKEN": "secret"},
        )
    found = json.loads(seen.stdout)
    assert found["course"] == ["autograded"]
    assert found["book"] == ["course", "room", "vitlib"]
    assert [name for name in found if found[name] is True] == ["room"]
    assert found["secrets"] == []
    assert found["processes"] <= 3
    assert (course / "gradebook.db").read_text() == "marks"


def test_no_image_holds_the_seed_and_the_marks():
    left_out = (assignments.ROOT / ".dockerignore").read_text("utf-8").split()
    assert "course/" in left_out
