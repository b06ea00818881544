"""Fetch what is too large to ship: opt-in, checked, whole or not at all.

    python -m vitlib.downloads fashion_mnist my_data/fashion
    python -m vitlib.downloads cifar10 my_data/cifar10

Nothing else in vitlib opens a connection to fetch data.
"""

import argparse
import hashlib
import os
import sys
import tarfile
from http.client import HTTPException
from pathlib import Path
from typing import TextIO
from urllib.error import HTTPError
from urllib.request import urlopen

from vitlib.data import CIFAR10_FILES, FASHION_FILES
from vitlib.files import replace_whole
from vitlib.runs import Progress

FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_ARCHIVE = (
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def fetch_fashion_mnist(
    folder: str | os.PathLike, *, log: TextIO | None = None
) -> None:
    """Fetch the four official files, 31 MB, for `vitlib.data.fashion_mnist`.

    Files that are there already are left alone if they are right and replaced if not.

    Args:
        folder: Where to put them; made if need be.
        log: Where to tell the progress; None for nowhere.
    Raises:
        OSError: a file cannot be fetched or written.
        ValueError: what arrived is not the official file.
    Reference:
        Xiao et al. 2017.
    """
    for name, (size, digest) in FASHION_FILES.items():
        path = Path(folder) / name
        if not _is_there(path, size, digest):
            download(f"{FASHION_URL}/{name}", path, size=size, sha256=digest, log=log)


def fetch_cifar10(folder: str | os.PathLike, *, log: TextIO | None = None) -> None:
    """Fetch the official binary version, 170 MB, for `vitlib.data.cifar10`.

    The archive is removed once its six files, 184 MB, are unpacked.

    Args:
        folder: Where to put them; made if need be.
        log: Where to tell the progress; None for nowhere.
    Raises:
        OSError: the archive cannot be fetched, or a file not written.
        ValueError: what arrived is not the official archive.
    Reference:
        Krizhevsky 2009.
    """
    folder = Path(folder)
    if all(_is_there(folder / name, *entry) for name, entry in CIFAR10_FILES.items()):
        return
    size, digest = CIFAR10_ARCHIVE
    archive = folder / CIFAR10_URL.rsplit("/", 1)[1]
    if not _is_there(archive, size, digest):
        download(CIFAR10_URL, archive, size=size, sha256=digest, log=log)
    with tarfile.open(archive) as members:
        for name in CIFAR10_FILES:
            raw = members.extractfile(f"cifar-10-batches-bin/{name}").read()
            with replace_whole(folder / name) as partial:
                partial.write_bytes(raw)
    archive.unlink()


def download(
    url: str,
    path: str | os.PathLike,
    *,
    size: int,
    sha256: str,
    log: TextIO | None = None,
) -> None:
    """Fetch one file; under its name it is complete and right, or not there at all.

    A download that breaks off leaves nothing behind and starts anew next time.

    Args:
        url: Where the file is.
        path: Where to put it; its folder is made if need be.
        size: How many bytes it must have.
        sha256: Their hash, in hexadecimal digits.
        log: Where to tell the progress; None for nowhere.
    Raises:
        OSError: the address does not answer, the connection breaks, or the disk is
            full.
        ValueError: the bytes are not the expected ones.
    Reference:
        The book's page on weights and data.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    arrived = 0
    with replace_whole(path) as partial:
        with partial.open("wb") as file:
            progress = Progress(log, size, unit="bytes")
            for block in _blocks(url):
                file.write(block)
                hashed.update(block)
                arrived += len(block)
                progress.update(arrived, path.name)
                if arrived > size:
                    break
        if arrived < size:
            raise OSError(
                f"{url} broke off after {arrived:,} of {size:,} bytes: check the "
                "connection and try again; nothing was kept"
            )
        if hashed.hexdigest() != sha256:
            raise ValueError(
                f"what {url} sent has the SHA-256 {hashed.hexdigest()[:12]}... instead "
                f"of {sha256[:12]}...: it is not the expected file, so nothing was "
                "kept; try again, or look for the file elsewhere"
            )
    progress.line(f"{path}: {size:,} bytes, SHA-256 as expected")


def _blocks(url: str):
    """Yield a file piece by piece; whatever the connection does, fail one way."""
    try:
        with urlopen(url, timeout=30) as answer:
            while block := answer.read(2**18):
                yield block
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise OSError(
            f"{url} cannot be fetched ({error}): check the connection and try again; "
            "nothing was kept"
        ) from error


def _is_there(path: Path, size: int, digest: str) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == size
        and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Its words; those of the shell when not given.
    Returns:
        0, or 1 after an error, which is printed.
    Raises:
        SystemExit: the words make no sense.
    """
    fetchers = {"fashion_mnist": fetch_fashion_mnist, "cifar10": fetch_cifar10}
    parser = argparse.ArgumentParser(
        prog="python -m vitlib.downloads",
        description="Fetch a data set into a folder and check every byte of it.",
    )
    parser.add_argument("name", choices=fetchers, help="31 MB and 170 MB")
    parser.add_argument("folder", type=Path, help="where to put it; made if need be")
    options = parser.parse_args(arguments)
    try:
        fetchers[options.name](options.folder, log=sys.stdout)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.name} is in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
