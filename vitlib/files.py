"""Files that are there as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write beside `path` and move the file there once it is complete.

    Whatever stops the writer, an error, a full disk or a lost process, `path` holds
    its old bytes or all of the new ones.

    Args:
        path: The file to make or to replace.
    Returns:
        A context; it gives the path to write to.
    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        # On the disk first, then under its name: the order survives a power cut.
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
