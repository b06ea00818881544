"""Measure what the pages say about time, and hold it against its budget.

Chapters count CPU time, summed over threads; the site counts the time you wait.
The results go to book/timings.csv. Not collected by default: it wants a quiet
machine.
"""

import csv
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
import normalise
import pytest

ROOT = Path(__file__).parents[2]
TIMINGS = ROOT / "book/timings.csv"
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PYTHON = Path(sys.executable)
PAIRS = 15


@pytest.fixture(scope="module")
def record():
    """Collect (value, unit) by name; write them all at the end."""
    with TIMINGS.open(encoding="utf-8", newline="") as file:
        rows = {
            row["what"]: (row["value"], row["unit"]) for row in csv.DictReader(file)
        }
    rows["machine"] = (
        f"{os.cpu_count()} cores ({platform.machine()}); {platform.system()}; "
        f"Python {platform.python_version()}; PyTorch {version('torch')}",
        "",
    )
    yield rows
    with TIMINGS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "value", "unit"])
        writer.writerows([what, *rows[what]] for what in sorted(rows))


def run(*command):
    """Run a command in the project and return the seconds until it is done."""
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_takes_at_most_a_minute_of_cpu(path, record):
    notebook = nbformat.read(path, as_version=4)
    clock = "import time\nprint(time.process_time())"
    notebook.cells.append(nbformat.v4.new_code_cell(clock))
    normalise.execute(notebook, path.parent)
    seconds = float(notebook.cells[-1].outputs[0].text)
    record[path.stem] = (f"{seconds:.1f}", "s of CPU")
    assert seconds <= 60


def test_site_builds_in_fifteen_seconds(record):
    seconds = run(PYTHON.with_name("jupyter-book"), "build", ".", "--all", "-q")
    record["site build"] = (f"{seconds:.1f}", "s")
    assert seconds <= 15


def test_import_costs_little_more_than_torch(record):
    ratio = statistics.median(
        run(PYTHON, "-c", "import vitlib") / run(PYTHON, "-c", "import torch")
        for _ in range(PAIRS)
    )
    record["import vitlib / import torch"] = (f"{ratio:.3f}", "ratio")
    assert ratio <= 1.05
