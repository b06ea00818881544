"""A file is whole or not there, whatever stops its writer."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitlib.files import clear_partials, replace_whole

ROOT = Path(__file__).resolve().parent.parent


def test_a_new_file_and_its_replacement(tmp_path):
    path = tmp_path / "weights"
    for text in ("one", "another"):
        with replace_whole(path) as partial:
            partial.write_text(text)
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "weights"
    path.write_text("old")
    with replace_whole(path) as partial:
        partial.write_text("half of the n")
        assert path.read_text() == "old"
        partial.write_text("half of the new one, and the other half")
    assert path.read_text().endswith("other half")


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "weights"
    path.write_text("old")
    with pytest.raises(error), replace_whole(path) as partial:
        partial.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def lose_a_writer(path):
    """Kill a process in the middle of writing, and return what it leaves."""
    code = """
        import os, signal, sys
        from vitlib.files import replace_whole
        with replace_whole(sys.argv[1]) as partial:
            partial.write_text("half of the n")
            print(partial, flush=True)
            sys.stdin.read()
    """
    writer = subprocess.Popen(
        [sys.executable, "-c", code.replace("\n        ", "\n"), str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with writer:
        left = Path(writer.stdout.readline().strip())
        writer.kill()
    assert left.read_text() == "half of the n"
    return left


def test_what_a_lost_process_left_is_cleared_an_hour_later(tmp_path):
    path = tmp_path / "we[i]ghts*"
    left, fresh, other = lose_a_writer(path), lose_a_writer(path), tmp_path / ".x.part"
    another = lose_a_writer(tmp_path / "weights")
    other.write_text("not ours")
    for file in (left, other, another):
        os.utime(file, (time.time() - 3601,) * 2)
    with replace_whole(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert {*tmp_path.iterdir()} == {path, fresh, other, another}
    clear_partials(tmp_path)
    assert {*tmp_path.iterdir()} == {path, other}


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "weights"
    with replace_whole(path) as one, replace_whole(path) as other:
        one.write_text("one" * 1000)
        other.write_text("other")
    assert path.read_text() == "one" * 1000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [True, False])
def test_a_disk_that_refuses(tmp_path, old):
    path = tmp_path / "weights"
    if old:
        path.write_text("old")
    kept = "the one before is intact" if old else "there is none"
    message = (
        f"[Errno 28] could not be written (No space left on device; {kept}): make "
        f"room or choose another folder, then run the same command again: '{path}'"
    )
    with (
        pytest.raises(OSError, match=f"^{re.escape(message)}$") as caught,
        replace_whole(path) as partial,
    ):
        partial.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == ([path] if old else [])


def test_a_writers_own_error_keeps_its_words(tmp_path):
    with (
        pytest.raises(OSError, match=r"^the connection broke$"),
        replace_whole(tmp_path / "weights") as partial,
    ):
        partial.write_text("half of the n")
        raise OSError("the connection broke")
    assert not list(tmp_path.iterdir())


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replace_whole(tmp_path / "weights"):
        pass
    assert not list(tmp_path.iterdir())
