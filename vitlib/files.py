"""Files that are there as a whole or not at all."""

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Seconds after which a partial file that nobody writes to has lost its writer.
LOST_AFTER = 3600


@contextmanager
def replace_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write beside `path` and move the file there once it is complete.

    Whatever stops the writer, an error, a full disk or a lost process, `path` holds
    its old bytes or all of the new ones. Of several writers at once the last one to
    finish wins. What a lost process left is removed by the first writer who comes an
    hour later.

    Args:
        path: The file to make or to replace.
    Returns:
        A context; it gives the path to write to.
    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    clear_partials(path.parent, path.name, older_than=LOST_AFTER)
    # Its own name for every writer: two at once must not mix their bytes.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield partial
        # On the disk first, then under its name: the order survives a power cut.
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        # An error without a number is the writer's own, in the writer's own words.
        if not isinstance(error, OSError) or error.errno is None:
            raise
        kept = "the one before is intact" if path.exists() else "there is none"
        raise OSError(
            error.errno,
            f"could not be written ({error.strerror}; {kept}): make room or choose "
            "another folder, then run the same command again",
            str(path),
        ) from error


def clear_partials(
    folder: str | os.PathLike, name: str | None = None, *, older_than: float = 0
) -> None:
    """Remove what lost writers left behind.

    Args:
        folder: Where they wrote.
        name: The file that they meant to write; None for any.
        older_than: Seconds since a living writer can have written last.
    Reference:
        `replace_whole` says when there are any.
    """
    what = "*" if name is None else glob.escape(name)
    for partial in Path(folder).glob(f".{what}.{'[0-9a-f]' * 8}.part"):
        # Another may have removed it already; one that must stay does no harm.
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime >= older_than:
                partial.unlink()
