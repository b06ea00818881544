"""Make the students' copies and the site's pages out of the exercise notebooks.

    python notebooks/exercises/generate.py

The notebooks in this folder hold everything: tasks, hints, solutions, explanations.
What is made of them is never edited:

    notebooks/exercises/student/<name>.ipynb   to work in, without solutions
    book/exercises/<name>.md                   to read, hints and solutions folded
    book/solutions/<name>.md                   every solution, with what it printed
    book/exercises/index.md                    its table

A name is that of a chapter, such as 04_attention, or capstone.

The tags of a cell say what it is: task, hint, answer, check, why; a cell without one of
them is given, to all tasks or to the task before it. In an answer, what stands between
BEGIN SOLUTION and END SOLUTION is the student's to write. An answer in words has
`points`, those of the marking guide, in its metadata.
"""

import copy
import os
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from vitlib.checks.wording import YOUR_TURN

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks/exercises"
KINDS = ("task", "hint", "answer", "check", "why")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SOLUTION = re.compile(rf"^( *){BEGIN}\n.*?^ *{END}$", re.M | re.S)
# "## 1 · Rows" and "*Difficulty 2 of 3 · 15 minutes · teaches why rows sum to 1*"
HEAD = re.compile(
    r"## (?P<number>\d) · (?P<title>.+)\n\n"
    r"\*Difficulty (?P<difficulty>[123]) of 3 · (?P<minutes>\d+) minutes · "
    r"teaches (?P<teaches>.+)\*\n\n(?P<goal>[^#]+)"
)
TABLE = """\
<!-- table: written by notebooks/exercises/generate.py -->

| No. | Task | Difficulty | Minutes | Teaches |
| --- | --- | --- | --- | --- |
"""


def sources() -> list[Path]:
    """Return the notebooks that everything is made of."""
    return sorted(FOLDER.glob("*.ipynb"))


def kind_of(cell: NotebookNode) -> str:
    """Return which part of an exercise a cell is, or "given"."""
    kinds = [tag for tag in cell.metadata.get("tags", []) if tag in KINDS]
    return kinds[0] if kinds else "given"


def parts_of(notebook: NotebookNode) -> tuple[list, list[list]]:
    """Part a notebook's cells: those before the first task, and a list for each."""
    setting, tasks = [], []
    for cell in notebook.cells:
        if "remove-cell" in cell.metadata.get("tags", []):
            continue
        if kind_of(cell) == "task":
            tasks.append([])
        (tasks[-1] if tasks else setting).append(cell)
    return setting, tasks


def of_kind(cells: list, *kinds: str) -> list:
    """Return the cells of some kinds, in their order."""
    return [cell for cell in cells if kind_of(cell) in kinds]


# The words of a cell


def without_solution(source: str) -> str:
    """Leave the student something that runs and says what is missing."""
    return SOLUTION.sub(rf'\1raise NotImplementedError("{YOUR_TURN}")', source)


def with_solution(source: str) -> str:
    """Drop the marks around the solution."""
    return re.sub(rf"^ *(?:{BEGIN}|{END})\n?", "", source, flags=re.M)


def fenced(code: str, language: str = "python") -> str:
    """Return a block of code."""
    return f"```{language}\n{code.rstrip()}\n```"


def folded(title: str, text: str) -> str:
    """Fold a text in a way that JupyterLab and the site both understand."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def as_given(cell: NotebookNode) -> str:
    """Return what a page shows of a cell before anything is opened."""
    if cell.cell_type == "code":
        return fenced(without_solution(cell.source))
    return "" if kind_of(cell) == "answer" else cell.source


def in_words(text: str) -> str:
    """Set a written answer apart from what is said about it."""
    return "In words:\n\n" + "\n".join(
        f"> {line}".rstrip() for line in text.split("\n")
    )


def as_solved(cell: NotebookNode) -> str:
    """Return a cell with its solution and with what it printed."""
    if cell.cell_type == "markdown":
        return in_words(cell.source) if kind_of(cell) == "answer" else cell.source
    printed = "".join(output.text for output in cell.outputs)
    text = fenced(with_solution(cell.source))
    return f"{text}\n\n{fenced(printed, 'text')}" if printed else text


def relinked(text: str, folder: Path) -> str:
    """Let links that lead somewhere from the sources' folder do so from another."""

    def moved(link):
        target = os.path.relpath(FOLDER / link[1], folder)
        return f"]({target.replace(os.sep, '/')}"

    return re.sub(r"\]\((\.\.?/[^)#]*)", moved, text)


# What is made


def student_copy(notebook: NotebookNode, name: str) -> NotebookNode:
    """Return the notebook without outputs and solutions, hints folded."""
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if kind_of(cell) != "why"]
    parts_of(made)[0][0].source += (
        "\n\nSave this notebook under a name of your own first. Hints open with a "
        "click. Solutions are folded on "
        f"[the book's page](../../book/exercises/{name}.md)."
    )
    for cells in parts_of(made)[1]:
        for number, hint in enumerate(of_kind(cells, "hint"), start=1):
            hint.source = folded(f"Hint {number}", hint.source)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.source = without_solution(cell.source)
            cell.outputs, cell.execution_count = [], None
        elif kind_of(cell) == "answer":
            cell.source = "*Your answer.*"
        cell.source = relinked(cell.source, FOLDER / "student")
    return made


def page(notebook: NotebookNode, name: str) -> str:
    """Return the site's page: hints and solution open one after the other."""
    (title, *setting), tasks = parts_of(notebook)
    student = f"notebooks/exercises/student/{name}.ipynb"
    texts = [
        title.source,
        f"Work in the notebook, {{download}}`{student} <../../{student}>`, or read "
        "here, think, and open what you need. [How to work](index.md) says more.",
        *map(as_given, setting),
    ]
    for cells in tasks:
        texts += map(as_given, of_kind(cells, "task", "given", "answer", "check"))
        # Innermost first: what opens last lies within what opens before it.
        inner = folded("Solution", solution(cells))
        for number, hint in reversed([*enumerate(of_kind(cells, "hint"), start=1)]):
            inner = folded(f"Hint {number}", f"{hint.source}\n\n{inner}")
        texts.append(inner)
    return relinked("\n\n".join(filter(None, texts)), ROOT / "book/exercises") + "\n"


def solution_page(notebook: NotebookNode, name: str) -> str:
    """Return a page with every solution and what its check printed."""
    setting, tasks = parts_of(notebook)
    title = setting[0].source.splitlines()[0].replace("# Exercises", "# Solutions")
    title = title.replace("# Capstone", "# Solutions of the capstone")
    texts = [title, f"The tasks are [here](../exercises/{name}.md)."]
    for cells in tasks:
        texts += [cells[0].source.splitlines()[0], solution(cells)]
    links = relinked("\n\n".join(texts[2:]), ROOT / "book/solutions")
    return "\n\n".join([*texts[:2], links]) + "\n"


def solution(cells: list) -> str:
    """Write out a task's answer, what its check printed, and why."""
    return "\n\n".join(map(as_solved, of_kind(cells, "answer", "check", "why")))


def rows(notebook: NotebookNode, name: str) -> str:
    """Return the lines of the table, one for each task."""
    lines, chapter = "", name[:2] if name[:2].isdigit() else "C"
    for cells in parts_of(notebook)[1]:
        head = HEAD.match(cells[0].source)
        lines += (
            f"| {chapter}.{head['number']} | [{head['title']}]({name}.md) "
            f"| {head['difficulty']} | {head['minutes']} | {head['teaches']} |\n"
        )
    return lines


def made() -> dict[Path, str]:
    """Return every file that is made of the exercise notebooks, and its contents."""
    files, table = {}, TABLE
    for path in sources():
        notebook, name = nbformat.read(path, as_version=4), path.stem
        student = nbformat.writes(student_copy(notebook, name)) + "\n"
        files[FOLDER / "student" / path.name] = student
        files[ROOT / "book/exercises" / f"{name}.md"] = page(notebook, name)
        files[ROOT / "book/solutions" / f"{name}.md"] = solution_page(notebook, name)
        table += rows(notebook, name)
    index = ROOT / "book/exercises/index.md"
    words, _, _ = index.read_text("utf-8").partition("<!-- table")
    return files | {index: words + table}


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
