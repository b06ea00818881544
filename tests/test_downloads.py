"""What is fetched is right to the last byte, or not there. The server is local."""

import hashlib
import io
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vitlib import downloads
from vitlib.downloads import download, fetch_cifar10, fetch_fashion_mnist, main

FILE = bytes(range(256)) * 3000
DIGEST = hashlib.sha256(FILE).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path, and counts what it is asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked = {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        body, promised = self.server.files.get(self.path, (None, 0))
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def offer(server, path, body, promised=None):
    server.files[path] = (body, len(body) if promised is None else promised)
    return server.url + path


def test_a_file_arrives_whole(server, tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    log = io.StringIO()
    download(offer(server, "/file", FILE), path, size=len(FILE), sha256=DIGEST, log=log)
    assert path.read_bytes() == FILE
    assert list(path.parent.iterdir()) == [path]
    assert log.getvalue() == f"{path}: 768,000 bytes, SHA-256 as expected\n"


@pytest.mark.parametrize(
    ("body", "promised", "error", "message"),
    [
        (
            FILE[:-9],
            len(FILE),
            OSError,
            r"http://.*/file broke off after 767,991 of 768,000 bytes: check the "
            r"connection and try again; nothing was kept",
        ),
        (
            FILE[:-9],
            len(FILE) - 9,
            OSError,
            r"http://.*/file broke off after 767,991 of 768,000 bytes: .*",
        ),
        (
            FILE[::-1],
            len(FILE),
            ValueError,
            rf"what http://.*/file sent has the SHA-256 \w{{12}}... instead of "
            rf"{DIGEST[:12]}...: it is not the expected file, so nothing was kept; .*",
        ),
        (FILE + b"1", len(FILE) + 1, ValueError, r"what http://.*/file sent has .*"),
        (
            None,
            0,
            OSError,
            r"http://.*/file cannot be fetched \(HTTP Error 404: Not Found\): check .*",
        ),
    ],
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_what_is_wrong_is_not_kept(
    server, tmp_path, body, promised, error, message, old
):
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)
    if body is not None:
        offer(server, "/file", body, promised)
    with pytest.raises(error) as caught:
        download(server.url + "/file", path, size=len(FILE), sha256=DIGEST)
    assert re.fullmatch(message, str(caught.value))
    left = [(file.name, file.read_bytes()) for file in tmp_path.iterdir()]
    assert left == ([("file", b"old")] if old else [])
    offer(server, "/file", FILE)
    download(server.url + "/file", path, size=len(FILE), sha256=DIGEST)
    assert path.read_bytes() == FILE


def test_no_server(tmp_path):
    with pytest.raises(OSError, match=r"http://127.0.0.1:9/x cannot be fetched \("):
        download("http://127.0.0.1:9/x", tmp_path / "x", size=1, sha256="")
    assert not list(tmp_path.iterdir())


def test_too_much_is_not_swallowed(server, tmp_path):
    url = offer(server, "/file", FILE)
    with pytest.raises(ValueError, match="it is not the expected file"):
        download(url, tmp_path / "file", size=10, sha256=DIGEST)
    assert not list(tmp_path.iterdir())


def entry(raw):
    return len(raw), hashlib.sha256(raw).hexdigest()


@pytest.fixture
def fashion(server, monkeypatch):
    files = {name: name.encode() * 50 for name in downloads.FASHION_FILES}
    for name, raw in files.items():
        offer(server, f"/fashion/{name}", raw)
    table = {name: entry(raw) for name, raw in files.items()}
    monkeypatch.setattr(downloads, "FASHION_FILES", table)
    monkeypatch.setattr(downloads, "FASHION_URL", server.url + "/fashion")
    return files


def test_only_what_is_missing_or_wrong_is_fetched(server, tmp_path, fashion):
    names = list(fashion)
    (tmp_path / names[0]).write_bytes(fashion[names[0]])
    (tmp_path / names[1]).write_bytes(fashion[names[1]][::-1])
    (tmp_path / names[2]).write_bytes(b"short")
    fetch_fashion_mnist(tmp_path)
    assert server.asked == [f"/fashion/{name}" for name in names[1:]]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == fashion


@pytest.fixture
def cifar(server, monkeypatch):
    files = {name: name.encode() * 70 for name in downloads.CIFAR10_FILES}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, raw in {**files, "../evil": b"outside"}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    table = {name: entry(raw) for name, raw in files.items()}
    url = offer(server, "/cifar-10-binary.tar.gz", packed.getvalue())
    monkeypatch.setattr(downloads, "CIFAR10_FILES", table)
    monkeypatch.setattr(downloads, "CIFAR10_URL", url)
    monkeypatch.setattr(downloads, "CIFAR10_ARCHIVE", entry(packed.getvalue()))
    return files


def test_an_archive_is_unpacked_and_removed(server, tmp_path, cifar):
    fetch_cifar10(tmp_path / "cifar")
    found = {p.name: p.read_bytes() for p in (tmp_path / "cifar").iterdir()}
    assert found == cifar
    assert [p.name for p in tmp_path.iterdir()] == ["cifar"]
    fetch_cifar10(tmp_path / "cifar")
    assert len(server.asked) == 1
    (tmp_path / "cifar" / "test_batch.bin").write_bytes(b"broken")
    fetch_cifar10(tmp_path / "cifar")
    assert len(server.asked) == 2
    found = {p.name: p.read_bytes() for p in (tmp_path / "cifar").iterdir()}
    assert found == cifar


def test_an_archive_that_is_there_is_not_fetched_again(server, tmp_path, cifar):
    body, _ = server.files["/cifar-10-binary.tar.gz"]
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(body)
    fetch_cifar10(tmp_path)
    assert server.asked == []
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == cifar


def test_the_command_line(server, tmp_path, fashion, capsys):
    assert main(["fashion_mnist", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"fashion_mnist is in {tmp_path}\n") and not said.err
    assert said.out.count("SHA-256 as expected") == 4
    server.files.clear()
    (tmp_path / next(iter(fashion))).unlink()
    assert main(["fashion_mnist", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(r"error: http.* cannot be fetched .*\n", said.err)
    with pytest.raises(SystemExit, match="2"):
        main(["imagenet", str(tmp_path)])
    assert "invalid choice: 'imagenet'" in capsys.readouterr().err


def test_addresses_are_the_publishers():
    assert downloads.FASHION_URL.startswith("https://github.com/zalandoresearch/")
    assert downloads.CIFAR10_URL.startswith("https://www.cs.toronto.edu/~kriz/")
