"""The stored outputs are complete, clean and in the one fixed form.

nbval compares a cell with what is stored; it skips a cell that stores nothing.
"""

import copy
import re
from pathlib import Path

import nbformat
import normalise
import pytest

ROOT = Path(__file__).parents[1]

# What differs from one machine or run to the next.
UNSTABLE = re.compile(
    r"(?<![\w.)])/\w+/\w|\b[A-Z]:\\|site-packages"
    r"|0x[0-9a-f]{6,}"
    r"|\d+%\||it/s|█"
    r"|\b\d+(\.\d+)? ?(ns|µs|us|ms|sec|seconds|minutes)\b|\bCPU times\b|\bWall time\b"
)


def name_of(path):
    """Name a test after its notebook."""
    return str(path.relative_to(ROOT / "notebooks").with_suffix(""))


@pytest.fixture(params=normalise.CHAPTERS + normalise.EXERCISES, ids=name_of)
def path(request):
    """Name one notebook."""
    return request.param


@pytest.fixture
def notebook(path):
    """Read one notebook."""
    return nbformat.read(path, as_version=4)


@pytest.fixture
def code(notebook):
    """Return a notebook's code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output):
    """Yield all that an output says, and none of what it draws."""
    yield output.get("text", "")
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            yield data


def test_every_cell_ran_once_in_order(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_every_cell_is_compared(code):
    for cell in code:
        assert not {"nbval-skip", "nbval-ignore-output"} & set(
            cell.metadata.get("tags", [])
        )
        assert not cell.source.lstrip().startswith("# NBVAL")


def test_errors_are_the_expected_ones(code):
    for cell in code:
        kinds = {output.output_type for output in cell.outputs}
        expected = "raises-exception" in cell.metadata.get("tags", [])
        assert ("error" in kinds) is expected, cell.source


def test_nothing_on_stderr(code):
    for cell in code:
        names = {output.get("name") for output in cell.outputs}
        assert "stderr" not in names, cell.source


def test_outputs_are_the_same_on_every_machine(code):
    for cell in code:
        for output in cell.outputs:
            for text in texts(output):
                assert not UNSTABLE.search(text), text


def test_notebook_is_normalised(path, notebook):
    normalise.normalise(notebook)
    assert path.read_text("utf-8") == nbformat.writes(notebook) + "\n"


def test_first_cell_follows_the_repository_setting(notebook):
    wanted = copy.deepcopy(notebook)
    normalise.set_colab_cell(wanted, normalise.repository_url())
    sources = [cell.source for cell in notebook.cells]
    assert sources == [cell.source for cell in wanted.cells]


@pytest.mark.parametrize("path", normalise.CHAPTERS, ids=name_of)
def test_chapter_has_its_measured_time(path):
    timings = (ROOT / "book/timings.csv").read_text("utf-8")
    assert f"\n{path.stem}," in timings, "run `make bench`"
