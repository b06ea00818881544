"""From a folder of submissions to notebooks that nbgrader can rely on.

Students edit, delete, copy and rename what they should not. So every submission is put
together anew: all cells that are not the student's to write come from the release, and
from the submission come the answers and the cells that the student has added.
"""

import ast
import copy
import dataclasses
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

# A notebook with text and code alone is far smaller, in bytes.
LARGEST = 20_000_000
# What of one cell is read, in characters: the time can grow with the square.
LONGEST = 20_000
# What Moodle puts behind a name and a number.
MOODLE = "_assignsubmission_"
# What an answer may import without a second look.
USUAL = {
    "collections",
    "copy",
    "dataclasses",
    "einops",
    "functools",
    "itertools",
    "math",
    "matplotlib",
    "numpy",
    "random",
    "torch",
    "typing",
    "vitlib",
}
# Names by which code reaches for what marks it, or for the machine.
DUNDER = re.compile(r"__(?!(init|name)__)\w+__")
REACHING = {
    "compile",
    "delattr",
    "eval",
    "exec",
    "get_ipython",
    "getattr",
    "globals",
    "locals",
    "open",
    "setattr",
    "vars",
}


@dataclasses.dataclass(frozen=True)
class Submission:
    """What was found for one student.

    Args:
        student: Who it is from, as nbgrader knows them.
        path: The notebook; None if there is none.
        reasons: Why somebody should look at it.
    """

    student: str
    path: Path | None
    reasons: tuple[str, ...] = ()


def find(folder: Path, assignment: str) -> tuple[list[Submission], list[str]]:
    """List the submissions in a folder.

    There is a folder for each student, `ada/04_attention.ipynb`, or a file,
    `ada_04_attention.ipynb`. Moodle's `Ada Love_123_assignsubmission_file` is Ada
    Love's.

    Args:
        folder: Where they lie.
        assignment: Its name.
    Returns:
        One for each student; and what was left out, with a reason.
    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder: give the folder that holds the submissions, one "
            f"folder or one file ending in {assignment}.ipynb for each student"
        )
    found, left_out = {}, []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        name, moodle, kind = path.name.partition(MOODLE)
        name = re.sub(r"_\d+$", "", name) if moodle else name
        if path.is_symlink():
            left_out.append(f"{_quoted(path.name)}: is a link, ignored")
            continue
        if path.is_dir() and kind.strip("_") in ("", "file"):
            entry = _in_folder(path, assignment)
        elif kind.startswith("file_") and path.suffix == ".ipynb":
            entry = path, _called(kind.removeprefix("file_"), assignment)
        elif path.name.endswith(f"_{assignment}.ipynb"):
            name = path.name.removesuffix(f"_{assignment}.ipynb")
            entry = path, ()
        else:
            left_out.append(f"{_quoted(path.name)}: belongs to no student, ignored")
            continue
        found.setdefault(_student(name), []).append((path.name, entry))
    for student, entries in list(found.items()):
        if len(entries) > 1:
            names = " and ".join(_quoted(name) for name, _ in entries)
            left_out.append(
                f"{names}: all from {student!r}, rename them; none was marked"
            )
            del found[student]
    return [Submission(name, *entry) for name, ((_, entry),) in found.items()], left_out


def _student(name: str) -> str:
    """Return a name that is safe as that of a folder, the same for the same letters."""
    letters = [
        c if c.isalnum() or c in ".@-" or unicodedata.category(c)[0] == "M" else "_"
        for c in unicodedata.normalize("NFC", name)
    ]
    safe = re.sub("_+", "_", "".join(letters)).encode()[:100].decode(errors="ignore")
    return safe.strip("._-@") or "_"


def _in_folder(folder: Path, assignment: str) -> tuple[Path | None, tuple[str, ...]]:
    """Choose the notebook in a student's folder."""
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    files = [path for path in files if ".ipynb_checkpoints" not in path.parts]
    named = [path for path in files if path.name == f"{assignment}.ipynb"]
    notebooks = named or [path for path in files if path.suffix == ".ipynb"]
    others = [path.name for path in files if path not in notebooks[:1]]
    reasons = [f"stray file {_quoted(name)}, ignored" for name in others[:5]]
    if len(others) > 5:
        reasons.append(f"{len(others) - 5} more stray files, ignored")
    if not notebooks:
        return None, ("no notebook", *reasons)
    return notebooks[0], (*reasons, *_called(notebooks[0].name, assignment))


def _called(name: str, assignment: str) -> tuple[str, ...]:
    """Say that a notebook has another name, if it has."""
    right = f"{assignment}.ipynb"
    return () if name == right else (f"notebook is called {_quoted(name)}",)


def read(path: Path) -> NotebookNode:
    """Read a submitted notebook.

    Args:
        path: The file.
    Returns:
        The notebook.
    Raises:
        ValueError: it is none.
    """
    if not is_file(path):
        raise ValueError("the notebook is a link, or no file that can be read")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"the notebook has {path.stat().st_size:,} bytes")
    try:
        notebook = nbformat.reads(path.read_text("utf-8-sig"), as_version=4)
        nbformat.validate(notebook)
        # JSON can hold half a letter, a file cannot.
        nbformat.writes(notebook).encode()
    except Exception as error:  # a parser of strangers' files
        raise ValueError(f"this is no notebook ({type(error).__name__})") from error
    return notebook


def is_file(path: Path) -> bool:
    """Say whether this is a file that can be read, and neither a link nor a pipe.

    Args:
        path: Where it lies.
    Returns:
        True if it is one.
    """
    return os.access(path, os.R_OK) and stat.S_ISREG(path.lstat().st_mode)


def mend(submitted: NotebookNode, release: NotebookNode):
    """Put the student's answers and added cells into a fresh copy of the release.

    A text that stands in a cell below the place for it goes into its place.

    Args:
        submitted: What the student has handed in.
        release: What the student was given.
    Returns:
        The notebook to mark, and reasons to look at it.
    Raises:
        ValueError: no cell of it is one of the release.
    """
    known = {cell.metadata.nbgrader.grade_id: cell for cell in release.cells}
    first, added, reasons, place = {}, {None: []}, [], None
    for cell in submitted.cells:
        name = _name_of(cell, known)
        if name is None or name in first:
            if name:
                reasons.append(f"{name} is there more than once")
            added.setdefault(place, []).append(_bare(cell))
        else:
            first[name], place = cell, name
    if not first:
        raise ValueError(
            "none of its cells is from the released notebook (was another handed in?)"
        )
    made = nbformat.v4.new_notebook(metadata=copy.deepcopy(release.metadata))
    made.cells += added[None]
    for name, cell in known.items():
        given, own = copy.deepcopy(cell), first.get(name)
        solution = cell.metadata.nbgrader.solution
        if own is None:
            reasons.append(f"{name} was deleted")
        elif solution:
            given.source = own.source
            texts = [c for c in added.get(name, []) if c.cell_type == "markdown"]
            empty = own.source.strip() in ("", cell.source.strip())
            if cell.cell_type == "markdown" and empty and texts:
                given.source = "\n\n".join(text.source for text in texts)
                added[name] = [c for c in added[name] if c not in texts]
        elif own.source.strip() != cell.source.strip():
            reasons.append(f"{name} was edited")
        if own is not None and _changed(own, cell):
            reasons.append(f"the metadata of {name} were edited")
        made.cells += [given, *added.get(name, [])]
    for cell in made.cells:
        grader = cell.metadata.get("nbgrader", {"solution": True})
        if not grader["solution"]:
            continue
        name, long = grader.get("grade_id", "an added cell"), len(cell.source) > LONGEST
        if long:
            reasons.append(f"{name} has {len(cell.source):,} characters")
        if cell.cell_type == "markdown":
            cell.source = cell.source[:LONGEST]
        elif not long:
            reasons += [f"{name}: {what}" for what in reaches(cell.source)]
    return made, list(dict.fromkeys(reasons))


def reaches(source: str) -> Iterator[str]:
    """Say what in a student's code asks for a second look."""
    # IPython's own lines are no Python.
    lines = [line for line in source.splitlines() if line.lstrip()[:1] in ("%", "!")]
    if lines:
        yield "runs a command of IPython or the shell"
    try:
        tree = ast.parse("\n".join(x for x in source.splitlines() if x not in lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    usual = {id(node.func.value.value) for node in ast.walk(tree) if _is_check(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        defined = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name
        name, attribute = getattr(node, "id", ""), getattr(node, "attr", "")
        if "checks" in (name, attribute, defined) and id(node) not in usual:
            yield "does something with checks"
        if name in REACHING or DUNDER.fullmatch(name + attribute):
            yield f"uses {(name + attribute)[:40]}"
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            target = node
            while isinstance(target, ast.Attribute):
                target = target.value
            if getattr(target, "id", "") in USUAL | {"np", "F", "nn"}:
                yield f"writes into {target.id}"


def _is_check(node: ast.AST) -> bool:
    """Say whether this is `checks.patches.split_patches(...)`, and no more."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Attribute)
        and isinstance(node.func.value.value, ast.Name)
    )


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Say what is unusual in an import."""
    origin = getattr(node, "module", None)
    for alias in node.names:
        module = f"{origin}.{alias.name}" if origin else alias.name
        if module.partition(".")[0] not in USUAL:
            yield f"imports {_quoted(module)}"
        elif module.startswith("vitlib.checks") and (
            module != "vitlib.checks" or alias.asname
        ):
            yield "does something with checks"


def _name_of(cell: NotebookNode, known: dict) -> str | None:
    """Return which cell of the release a submitted cell is, by metadata or id."""
    grader = cell.metadata.get("nbgrader")
    name = grader.get("grade_id") if isinstance(grader, dict) else None
    if isinstance(name, str) and name in known:
        return name
    return cell.get("id") if cell.get("id") in known else None


def _bare(cell: NotebookNode) -> NotebookNode:
    """Return a cell that nbgrader has nothing to do with."""
    if cell.cell_type == "code":
        return nbformat.v4.new_code_cell(cell.source)
    # A raw cell would be shown as the HTML that it holds.
    return nbformat.v4.new_markdown_cell(cell.source)


def _changed(own: NotebookNode, cell: NotebookNode) -> bool:
    """Say whether a cell lost its type or what nbgrader knows it by."""
    grader, right = own.metadata.get("nbgrader", {}), cell.metadata.nbgrader
    keys = ("grade_id", "grade", "solution", "locked", "points")
    if not isinstance(grader, dict) or own.cell_type != cell.cell_type:
        return True
    return any(grader.get(key) != right.get(key) for key in keys)


def _quoted(name: str) -> str:
    """Write a stranger's name so that it can do no harm in a table."""
    return repr("".join(c for c in name if c.isprintable())[:60])
