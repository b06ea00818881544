"""The teacher's pages: plans that add up, words that stand in the chapters, links."""

import re

import nbformat
import pytest
import yaml
from concept_inventory import BOOK, SOURCE, read
from exercises.generate import FOLDER, HEAD, kind_of, parts_of

ROOT = BOOK.parent
PAGES = ("for_teachers", "marking", "concept_inventory", "concept_answers", "errata")
LEFT_OUT = "\N{EN DASH}"
NUMBERS = [f"{n:02}" for n in range(16)]
IN_WORDS = "one (line|sentence)|, in a line,|in text|(few|eight) sentences"
LINK = re.compile(r"\]\((?!https?://)([^)]*)\)|`[^`]*<([^>`]+)>`")


def page(name):
    """Return a page's text."""
    return (BOOK / f"{name}.md").read_text("utf-8")


GUIDE = page("for_teachers")
PLANS = {
    text[3:5]: text for text in re.split(r"\(plan-\d\d\)=\n", GUIDE)[1:]
}  # "## 03 Positions ..."
MINUTES = {
    f"{path.stem[:2]}.{head['number']}": int(head["minutes"])
    for path in sorted(FOLDER.glob("[0-9]*.ipynb"))
    for cells in parts_of(nbformat.read(path, as_version=4))[1]
    if (head := HEAD.match(cells[0].source))
}


def flat(text):
    """Return a text on one line."""
    return " ".join(text.split())


def chapter_of(number):
    """Read the chapter of a number."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return nbformat.read(path, as_version=4)


def lesson(number):
    """Return a plan's rows: minutes of 50, minutes of 90, the screen, what comes."""
    body = PLANS[number].split("| ---: | ---: | --- | --- |\n")[1]
    lines = re.findall(r"^\| (\S+) \| (\d+) \| (.+) \| (.+) \|$", body, re.M)
    assert len(lines) == len(re.findall(r"^\|", body, re.M))
    return [
        (0 if short == LEFT_OUT else int(short), int(long), screen, comes)
        for short, long, screen, comes in lines
    ]


def homework(number):
    """Return a plan's tasks, and the minutes it says they take, by lesson."""
    (text,) = re.findall(r"\*\*Homework\.\*\* (.+?)\n\n", PLANS[number], re.S)
    pattern = r"(50|90|More): (none|(?:\d\d\.\d(?:, )?)+)(?: \((\d+)\s+minutes\))?"
    return {
        lesson: (re.findall(r"\d\d\.\d", tasks), int(minutes or 0))
        for lesson, tasks, minutes in re.findall(pattern, flat(text))
    }


# The plans


def test_every_chapter_has_a_plan():
    assert list(PLANS) == NUMBERS
    chapters = {path.stem[:2] for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert chapters - {"16"} <= set(PLANS)


@pytest.mark.parametrize("number", NUMBERS)
def test_both_lessons_fill_their_time(number):
    short, long, *_ = zip(*lesson(number), strict=True)
    assert (sum(short), sum(long)) == (50, 90)
    assert all(b >= a and b > 0 for a, b in zip(short, long, strict=True))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_plan_has_its_parts(number):
    for part in ("Aim", "Before", "Misconceptions", "Live", "Homework", "Exit"):
        assert PLANS[number].count(f"**{part}.**") == 1, part
    assert "](../notebooks/" + number in PLANS[number]
    (wrong,) = re.findall(r"\*\*Misconceptions\.\*\*\n(.+?)\n\n", PLANS[number], re.S)
    assert len(re.findall(r'^- \*"', wrong, re.M)) >= 2


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_plan_quotes_stands_in_the_chapter(number):
    notebook = chapter_of(number)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert PLANS[number].startswith(f"## {text.splitlines()[0].removeprefix('# ')}\n")
    text = flat(text)
    # A question goes on until its cell.
    asked = flat(
        " ".join(
            part
            for cell in notebook.cells
            if cell.cell_type == "markdown"
            for part in cell.source.split("**Predict.**")[1:]
        )
    )
    votes = 0
    for *_, screen, _ in lesson(number):
        for vote, quoted in re.findall(r'(\*\*Vote:\*\* )?"([^"]+)"', screen):
            assert quoted.strip() in (asked if vote else text), quoted
            votes += bool(vote)
    assert votes >= 4 or number in ("00", "15")


@pytest.mark.parametrize("number", NUMBERS)
def test_homework_takes_what_the_tasks_say(number):
    given = homework(number)
    for tasks, minutes in given.values():
        assert minutes == sum(MINUTES[task] for task in tasks)
    if number not in ("00", "15"):
        assert set(given["50"][0]) <= set(given["90"][0])
        everything = sorted(given["90"][0] + given["More"][0])
        assert everything == sorted(t for t in MINUTES if t.startswith(number))


@pytest.mark.parametrize("number", NUMBERS)
def test_the_exit_is_the_chapter_s_questions(number):
    own = [q.number for q in read(SOURCE.read_text("utf-8")) if q.chapter[:2] == number]
    if own:
        assert f"**Exit.** Questions {own[0]} and {own[1]}." in PLANS[number]
        last = lesson(number)[-1][2]
        assert re.search(rf"[Qq]uestions {own[0]} and {own[1]} of the inventory", last)


# The courses


@pytest.mark.parametrize(
    ("heading", "length", "chapters"),
    [
        ("Three weeks, three lessons of 50 minutes", "50", 9),
        ("Eight weeks, two lessons of 90 minutes", "90", 16),
    ],
)
def test_a_course_adds_up(heading, length, chapters):
    section = GUIDE.split(f"### {heading}\n")[1].split("\n#")[0].split("\n(plan")[0]
    rows = re.findall(r"^\| (\d) \| (.+) \| (.+) \| (\d+) \|$", section, re.M)
    given = [re.findall(r"#plan-(\d\d)", lessons) for _, lessons, *_ in rows]
    flattened = [number for numbers in given for number in numbers]
    assert len(flattened) == chapters and flattened == sorted(flattened)
    for numbers, (*_, minutes) in zip(given, rows, strict=True):
        assert int(minutes) == sum(homework(n)[length][1] for n in numbers)
    capstone = nbformat.read(FOLDER / "capstone.ipynb", as_version=4)
    minutes = sum(
        int(HEAD.match(cells[0].source)["minutes"]) for cells in parts_of(capstone)[1]
    )
    assert f"about {minutes} minutes" in flat(section)


# Marks


def test_every_written_answer_can_be_marked():
    given = {}
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        for cells in parts_of(nbformat.read(path, as_version=4))[1]:
            head = HEAD.match(cells[0].source)
            written = [
                cell.metadata.points
                for cell in cells
                if (cell.cell_type, kind_of(cell)) == ("markdown", "answer")
            ]
            # Who is asked for words has a cell to write them in.
            asked = bool(re.search(IN_WORDS, flat(cells[0].source)))
            assert asked <= bool(written), head["title"]
            if written:
                given[f"{path.stem[:2]}.{head['number']}"] = sum(written)
    line, plan = re.findall(
        r"^## A \w+: (\d+) points$(.*?)(?=^## )", page("marking"), re.M | re.S
    )
    guide = {
        task: int(points)
        for points, text in (line, plan)
        for task in re.findall(r"^\| (\d\d\.\d) \|", text, re.M)
    }
    # Two are marked in sentences.
    assert "Three answers to task 02.4" in plan[1]
    assert "Task 11.4 asks for three short answers, 2 points each" in line[1]
    assert given == guide | {"02.4": int(plan[0]), "11.4": 3 * 2}


def test_marks_add_up():
    for total, text in re.findall(
        r"\*\*(\d+) points\.\*\*(.+?)(?=\n\n)", page("marking"), re.S
    ):
        marks = re.findall(r"[A-E] (\d)", text)
        assert len(marks) == 5 and sum(map(int, marks)) == int(total), text


# What tools and other pages rely on


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link, download in LINK.findall(page(name)):
        path, _, anchor = (link or download).partition("#")
        target = BOOK / path if path else BOOK / f"{name}.md"
        assert target.exists(), link or download
        assert not anchor or f"({anchor})=" in target.read_text("utf-8"), link


def test_the_book_is_cited_as_what_it_is():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    version = re.search(r'^version = "(.+)"$', project, re.M)[1]
    errata = page("errata")
    book = cff["preferred-citation"]
    assert cff["version"] == book["version"] == version
    assert f"Version {version}." in errata and f"this is {version})" in errata
    assert cff["title"] == book["title"] == config["title"]
    assert f"title  = {{{config['title']}}}" in errata
    assert str(book["year"]) == config["copyright"]
    assert f"year   = {{{book['year']}}}" in errata
    assert cff["license"] == "MIT" and book["license"] == "CC-BY-4.0"
    assert book["authors"] == cff["authors"]
    assert f"Copyright (c) {book['year']} The vitlib authors" in (
        ROOT / "LICENSE"
    ).read_text("utf-8")


def test_the_guide_says_that_solutions_are_public():
    assert "**Everything in this repository is public**" in GUIDE
    assert "(classroom.md)" in GUIDE
