"""The exercises: their form, what is made of them, and what a student meets first."""

import ast
import contextlib
import io
import re

import nbformat
import pytest
from exercises import generate
from exercises.generate import HEAD, ROOT, kind_of, of_kind, parts_of

SOURCES = {path.stem: path for path in generate.sources()}
MADE = generate.made()
GIVEN = ("task", "given")
LINK = re.compile(r"\]\((?!https?://)([^)#]+)[^)]*\)")


@pytest.fixture(params=SOURCES)
def name(request):
    """Name one notebook of exercises."""
    return request.param


@pytest.fixture
def source(name):
    """Read it."""
    return nbformat.read(SOURCES[name], as_version=4)


@pytest.fixture
def tasks(source):
    """Return its tasks, a list of cells each."""
    return parts_of(source)[1]


@pytest.fixture
def student(name):
    """Read the copy that a student gets."""
    path = generate.FOLDER / "student" / f"{name}.ipynb"
    return nbformat.read(path, as_version=4)


@pytest.fixture
def page(name):
    """Read the site's page."""
    return (ROOT / "book/exercises" / f"{name}.md").read_text("utf-8")


def giveaways(tasks):
    """Return the lines of all solutions that no task gives itself."""
    text = "\n".join(
        found[0]
        for cells in tasks
        for cell in of_kind(cells, "answer")
        for found in generate.SOLUTION.finditer(cell.source)
    )
    given = "\n".join(c.source for cells in tasks for c in of_kind(cells, *GIVEN))
    lines = {line.strip() for line in text.splitlines() if "SOLUTION" not in line}
    # Short lines, such as `return x`, may stand anywhere.
    return {line for line in lines if len(line) > 15 and line not in given}


# What is made


@pytest.mark.parametrize("path", MADE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_made_is_current(path):
    assert path.exists(), "run `make exercises`"
    assert path.read_text("utf-8") == MADE[path], (
        "change the source in notebooks/exercises, then run `make exercises`"
    )


@pytest.mark.parametrize(
    "folder", ["notebooks/exercises/student", "book/exercises", "book/solutions"]
)
def test_nothing_is_left_of_an_exercise_that_is_gone(folder):
    kept = {ROOT / "book/solutions/index.md"}
    assert set((ROOT / folder).iterdir()) - MADE.keys() <= kept


def test_links_lead_somewhere():
    for path, text in MADE.items():
        if path.suffix == ".ipynb":
            cells = nbformat.reads(text, as_version=4).cells
            text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        for link in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.S)):
            target = (path.parent / link).resolve()
            assert target.exists(), f"{path.name}: {link}"
            # Its solutions would stand open.
            assert target not in SOURCES.values(), f"{path.name}: {link}"


# The form of a source


def test_title_and_setting(name, source):
    setting = parts_of(source)[0]
    title, chapter = f"# Exercises {name[:2]}: ", name
    if name == "capstone":
        title, chapter = "# Capstone: ", "10_train"
    assert setting[0].source.startswith(title)
    needed = f"You need [chapter {chapter[:2]}](../{chapter}.ipynb)"
    assert needed in " ".join(setting[0].source.split())
    assert all(kind_of(cell) == "given" for cell in setting)


def test_a_task_has_its_form(name, tasks):
    assert 3 <= len(tasks) <= (7 if name == "capstone" else 6)
    for place, cells in enumerate(tasks, start=1):
        head = HEAD.match(cells[0].source)
        assert head, cells[0].source[:200]
        assert int(head["number"]) == place
        kinds = [kind_of(cell) for cell in cells]
        assert kinds.count("task") == 1 and kinds.count("hint") == 2, head["title"]
        assert kinds.count("why") == 1 and kinds[-1] == "why", head["title"]
        answers = of_kind(cells, "answer")
        code = [cell for cell in answers if cell.cell_type == "code"]
        assert answers and kinds.count("check") == len(code), head["title"]
        order = [kind for kind in kinds if kind in ("hint", "answer")]
        assert order == sorted(order, reverse=True), "hints stand before answers"


def test_tasks_get_harder(name, tasks):
    levels = [int(HEAD.match(cells[0].source)["difficulty"]) for cells in tasks]
    # A capstone is built from its foundations; the hardest is still the last.
    assert levels == sorted(levels) or name == "capstone"
    assert levels[-1] == max(levels) == 3


def test_there_is_a_bug_to_find_and_an_experiment_to_design(name, tasks):
    if name == "capstone":
        return
    titles = {HEAD.match(task.source)["title"]: task.source for task, *_ in tasks}
    bugs = [text for title, text in titles.items() if title.startswith("Find the bug")]
    assert any("https://" in text for text in bugs), "cite where it was found"
    assert list(titles)[-1].startswith("Design an experiment: ")


def test_a_solution_stands_inside_a_function(tasks):
    for cell in (c for cells in tasks for c in of_kind(cells, "answer")):
        if cell.cell_type != "code":
            continue
        lines = cell.source.splitlines()
        marks = [
            place
            for place, line in enumerate(lines, start=1)
            if line.strip() in (generate.BEGIN, generate.END)
        ]
        assert marks and len(marks) % 2 == 0
        bodies = [
            range(node.lineno + 1, node.end_lineno + 2)
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.FunctionDef)
        ]
        for begin, end in zip(marks[::2], marks[1::2], strict=True):
            assert lines[begin - 1].strip() == generate.BEGIN
            assert lines[end - 1].strip() == generate.END
            assert any(begin in body and end in body for body in bodies), lines[begin]
        assert '"""' in generate.without_solution(cell.source), "say the shapes"


def test_a_check_is_one_line_that_shows_nothing_more(tasks):
    for cell in (c for cells in tasks for c in of_kind(cells, "check")):
        assert re.fullmatch(r"checks\.\w+\.\w+\(\w+\);", cell.source), cell.source
        assert " right\n" in cell.outputs[0].text


def test_cells_are_small(source):
    for cell in source.cells:
        if cell.cell_type != "code":
            continue
        lines = cell.source.splitlines()
        assert len(lines) <= (40 if kind_of(cell) == "answer" else 15), lines[0]
        assert max(map(len, lines)) <= 75, max(lines, key=len)


def test_the_page_can_show_every_output(source):
    for cell in source.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type == "stream", cell.source


def test_what_comes_before_links_to_the_exercises(name):
    if name == "capstone":
        index = (ROOT / "book/exercises/index.md").read_text("utf-8")
        assert "[the capstone](capstone.md)" in index
        return
    chapter = (ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8")
    link = f"[exercises {name[:2]}](../book/exercises/{name}.md)"
    assert f"In code, with checks: {link}." in chapter


# What a student gets


def test_a_students_copy_gives_nothing_away(tasks, source, student):
    text = "\n".join(cell.source for cell in student.cells)
    for line in giveaways(tasks):
        assert line not in text
    for cell in source.cells:
        if kind_of(cell) == "why" or (
            kind_of(cell) == "answer" and cell.cell_type == "markdown"
        ):
            assert cell.source not in text
    assert not any(cell.get("outputs") for cell in student.cells)


def test_a_page_gives_nothing_away_before_it_is_opened(tasks, page):
    parts = re.split(r"</?details>", page)
    # Folds lie in each other: hint 1, hint 2 and the solution, then three ends.
    for place in range(0, len(parts) - 1, 6):
        for line in giveaways(tasks):
            assert line not in "".join(parts[place : place + 3])
    assert page.count("<details>") == page.count("</details>") == 3 * len(tasks)
    for kind in ("hint", "why"):
        for cells in tasks:
            for cell in of_kind(cells, kind):
                assert generate.relinked(cell.source, ROOT / "book/exercises") in page


def test_a_students_copy_runs_and_every_check_waits(tasks, student):
    names, said = {}, io.StringIO()
    with contextlib.redirect_stdout(said):
        for cell in student.cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
    said = said.getvalue()
    assert said.count("not yet\n  your turn: ") == sum(
        len(of_kind(cells, "check")) for cells in tasks
    )
    assert " right\n" not in said
