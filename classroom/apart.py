"""Work in processes of their own, with an end to their time and memory."""

import contextlib
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from classroom import ROOT, box
from classroom.course import setting

# Where it is possible, processes start from one that has imported everything.
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
STARTER = multiprocessing.get_context("forkserver" if FORKS else "spawn")


def run(work: Callable, given: tuple, *, folder: Path, log: Path, limit: float):
    """Call a function in a process of its own, and end all that it has started.

    Args:
        work: The function.
        given: Its arguments.
        folder: Where it works.
        log: What it prints goes to the end of this file.
        limit: Seconds that it may take.
    Returns:
        The exit code: 0 if it came to its end, None if its time was over.
    """
    if FORKS:
        STARTER.set_forkserver_preload(["classroom.grading"])
    # A process that is ended does not tidy up.
    drawer = tempfile.mkdtemp(prefix="class-")
    # The processes that start from here import classroom.
    with setting(PYTHONPATH=str(ROOT)):
        words = work, given, folder, log, drawer
        process = STARTER.Process(target=_inside, args=words)
        process.start()
    try:
        process.join(limit)
        return process.exitcode
    finally:
        _kill(process)
        shutil.rmtree(drawer, ignore_errors=True)


def _inside(work: Callable, given: tuple, folder: Path, log: Path, drawer: str) -> None:
    tempfile.tempdir = drawer
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        os.chdir(folder)
        if hasattr(psutil, "RLIMIT_DATA"):  # Linux
            own = psutil.Process()
            least = [n for n in own.rlimit(psutil.RLIMIT_DATA) if n >= 0]
            limit = min([box.MEMORY, *least])
            own.rlimit(psutil.RLIMIT_DATA, (limit, limit))
        work(*given)


def _kill(process: multiprocessing.Process) -> None:
    """End a process and everything that it has started."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.join()
