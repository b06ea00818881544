"""From a folder of submissions to notebooks that nbgrader can rely on.

Students edit, delete, copy and rename what they should not. So every submission is put
together anew: all cells that are not the student's to write come from the release, and
from the submission come the answers and the cells that the student has added.
"""

import ast
import copy
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

# A notebook with text and code alone is far smaller, in bytes.
LARGEST = 20_000_000
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
    `ada_04_attention.ipynb`. A Moodle folder `Ada Love_123_assignsubmission_file` is
    Ada Love's.

    Args:
        folder: Where they lie.
        assignment: Its name.
    Returns:
        One for each student; and files that belong to nobody, with a reason.
    Raises:
        ValueError: there is no such folder, or two entries name the same student.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder: give the folder that holds the submissions, one "
            f"folder or one file ending in {assignment}.ipynb for each student"
        )
    found, strays, origins = [], [], {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            name = path.name.partition("_assignsubmission_")[0]
            name = re.sub(r"_\d+$", "", name) if name != path.name else name
            entry = _in_folder(path, assignment)
        elif path.name.endswith(f"_{assignment}.ipynb"):
            name = path.name.removesuffix(f"_{assignment}.ipynb")
            entry = path, ()
        else:
            strays.append(f"{path.name}: belongs to no student, ignored")
            continue
        student = re.sub(r"[^\w.@-]+", "_", name).strip("._-@") or "_"
        if student in origins:
            raise ValueError(
                f"{origins[student]} and {path.name} are both from {student!r}: keep "
                "one of them, or rename one"
            )
        origins[student] = path.name
        found.append(Submission(student, *entry))
    return found, strays


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
    if not named:
        reasons.append(f"notebook is called {_quoted(notebooks[0].name)}")
    return notebooks[0], tuple(reasons)


def read(path: Path) -> NotebookNode:
    """Read a submitted notebook.

    Args:
        path: The file.
    Returns:
        The notebook.
    Raises:
        ValueError: it is none.
    """
    if path.is_symlink():
        raise ValueError("the notebook is a link to another file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"the notebook has {path.stat().st_size:,} bytes")
    try:
        notebook = nbformat.reads(path.read_text("utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # a parser of strangers' files
        raise ValueError(f"this is no notebook ({type(error).__name__})") from error
    return notebook


def mend(submitted: NotebookNode, release: NotebookNode):
    """Put the student's answers and added cells into a fresh copy of the release.

    Args:
        submitted: What the student has handed in.
        release: What the student was given.
    Returns:
        The notebook to mark, and reasons to look at it.
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
    made = nbformat.v4.new_notebook(metadata=copy.deepcopy(release.metadata))
    made.cells += added[None]
    for name, cell in known.items():
        given, own = copy.deepcopy(cell), first.get(name)
        solution = cell.metadata.nbgrader.solution
        if own is None:
            reasons.append(f"{name} was deleted")
        elif solution:
            given.source = own.source
        elif own.source.strip() != cell.source.strip():
            reasons.append(f"{name} was edited")
        if own is not None and _changed(own, cell):
            reasons.append(f"the metadata of {name} were edited")
        made.cells += [given, *added.get(name, [])]
    for cell in made.cells:
        grader = cell.metadata.get("nbgrader", {"solution": True})
        if cell.cell_type == "code" and grader["solution"]:
            name = grader.get("grade_id", "an added cell")
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
            yield f"uses {name + attribute}"
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
    return getattr(nbformat.v4, f"new_{cell.cell_type}_cell")(cell.source)


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
