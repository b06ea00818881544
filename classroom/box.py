"""A box around the student's code: no network, no files but its own, an end to memory.

The kernel runs in it, nbgrader does not. It needs bubblewrap (`bwrap`), which every
Linux distribution has; without it the code runs with the teacher's rights.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from classroom import ROOT
from classroom.asking import ANSWERS, QUESTIONS

# What of the book's folder students' code needs.
PACKAGES = ("vitlib", "classroom")
# For the data of a process, and for each file that it writes, in bytes.
MEMORY, LARGEST_FILE = 4 * 2**30, 200 * 2**20
# What programs need of a system, and nobody has secrets in.
SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/localtime",
)
MISSING = (
    "No box: submissions run with your rights and can read, change and send whatever "
    "you can. Install bubblewrap (apt install bubblewrap), or run this as a user who "
    "has nothing to lose, on a machine without a network. See book/classroom.md."
)


@functools.cache
def works() -> bool:
    """Say whether bubblewrap is here and allowed to do its work."""
    if not shutil.which("bwrap"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        words = command(Path(folder) / "course", Path(folder), Path(folder), {})
        probe = subprocess.run([*words, sys.executable, "-c", ""], capture_output=True)
    return probe.returncode == 0


def command(course: Path, desk: Path, room: Path, variables: dict) -> list[str]:
    """Return the words that put what follows them into a box.

    Args:
        course: The course folder, which must not be seen.
        desk: The folder in which the kernel starts, to read.
        room: Where questions, answers and sockets lie, to read and write.
        variables: All that it finds in its environment, beside the usual ones.
    Returns:
        The words.
    """
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--clearenv"]
    words += ["--dev", "/dev", "--proc", "/proc"]
    for folder in ("/dev/shm", "/tmp"):
        words += ["--size", str(LARGEST_FILE), "--tmpfs", folder]
    # A course may lie in the book's folder.
    own = (sys.base_prefix, sys.prefix, *(str(ROOT / part) for part in PACKAGES))
    for folder in dict.fromkeys((*SYSTEM, *own)):
        words += ["--ro-bind-try", folder, folder]
    words += ["--tmpfs", str(course), "--ro-bind", str(desk), str(desk)]
    words += ["--bind", str(room), str(room), "--remount-ro", "/"]
    usual = {"HOME": str(room), "PATH": os.defpath, "LANG": "C.UTF-8"}
    for name, value in (usual | variables).items():
        words += ["--setenv", name, value]
    return [*words, "--"]


def limits() -> list[str]:
    """Return the words that limit what follows them; none where there is no prlimit."""
    if not shutil.which("prlimit"):
        return []
    return ["prlimit", f"--data={MEMORY}", f"--fsize={LARGEST_FILE}", "--core=0"]


def write_kernel(course: Path, desk: Path, room: Path) -> None:
    """Write the kernel that nbgrader is to start, under the usual name.

    Args:
        course: The course folder.
        desk: The folder in which the kernel starts.
        room: A folder to write into.
    """
    folder = room / "kernels" / "python3"
    folder.mkdir(parents=True)
    variables = {
        QUESTIONS: str(room / "questions"),
        ANSWERS: str(room / "answers"),
        # The kernel imports classroom.asking from elsewhere.
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    words = command(course, desk, room, variables) if works() else []
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {
        "argv": [*limits(), *words, *start],
        "env": variables,
        "display_name": "Python 3",
        "language": "python",
        # Processes outside cannot send signals into the box.
        "interrupt_mode": "message",
    }
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
