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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# For the data of a process, and for each file that it writes, in bytes.
MEMORY, LARGEST_FILE = 4 * 2**30, 200 * 2**20
MISSING = (
    "No box: submissions run with your rights and can read, change and send whatever "
    "you can. Install bubblewrap (apt install bubblewrap), or run this as a user who "
    "has nothing to lose, on a machine without a network. See book/classroom.md."
)


@functools.cache
def works() -> bool:
    """Say whether bubblewrap is here and allowed."""
    if not shutil.which("bwrap"):
        return False
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def command(course: Path, desk: Path, room: Path, variables: dict) -> list[str]:
    """Return the words to put in front of a kernel's command.

    Args:
        course: The course folder, which must not be seen.
        desk: The folder in which the kernel starts, to read.
        room: Where questions, answers and sockets lie, to read and write.
        variables: All that it finds in its environment, beside the usual ones.
    Returns:
        The words; none where there is no box.
    """
    words = []
    if shutil.which("prlimit"):
        words += ["prlimit", f"--data={MEMORY}", f"--fsize={LARGEST_FILE}", "--core=0"]
    if not works():
        return words
    words += ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for folder in ("/tmp", "/home", "/root", "/run", "/mnt", "/media", "/srv"):
        words += ["--tmpfs", folder] if Path(folder).is_dir() else []
    for folder in dict.fromkeys((sys.base_prefix, sys.prefix, str(ROOT))):
        words += ["--ro-bind", folder, folder]
    words += ["--tmpfs", str(course)]
    words += ["--ro-bind", str(desk), str(desk), "--bind", str(room), str(room)]
    words += ["--unshare-all", "--die-with-parent", "--clearenv"]
    usual = {"HOME": str(room), "PATH": os.defpath, "LANG": "C.UTF-8"}
    for name, value in (usual | variables).items():
        words += ["--setenv", name, value]
    return [*words, "--"]


def write_kernel(room: Path, words: list[str]) -> None:
    """Write the kernel that nbgrader is to start, under the usual name.

    Args:
        room: A folder to write into.
        words: What stands in front of its command.
    """
    folder = room / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {
        "argv": [*words, *start],
        "display_name": "Python 3",
        "language": "python",
        # Processes outside cannot send signals into the box.
        "interrupt_mode": "message",
    }
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
