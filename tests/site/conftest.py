"""The built site on a local port, and one Chromium that opens each page of it."""

import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import sync_playwright

SITE = Path(__file__).parents[2] / "_build/html"
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if "_static" not in path.parts and path != SITE / "index.html"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
SKIP = CHROMIUM is None and os.environ.get("CI") != "true"
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS = [(390, "light"), (1280, "dark")]


def pytest_collection_modifyitems(config, items):
    """Without Chromium leave out the tests that need it; on CI let them fail."""
    left_out = [item for item in items if SKIP and "browser" in item.fixturenames]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter):
    """Say so in one line."""
    if SKIP:
        terminalreporter.write_line("SKIPPED the browser tests: no Chromium here")


class Quiet(SimpleHTTPRequestHandler):
    """Serve files without a log."""

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="session")
def site():
    """Name the folder of the built site."""
    return SITE


@pytest.fixture(scope="session", params=PAGES)
def page_path(request):
    """Name one page of the site."""
    return request.param


@pytest.fixture(scope="session")
def address():
    """Serve the site; the address ends in a slash."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    """Start the system's Chromium."""
    assert CHROMIUM, "the browser tests need Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def windows(browser):
    """Open a phone's window, light, and a desk's, dark.

    They stay open: a new window costs more than what is done in it.
    """
    return {
        scheme: browser.new_page(
            viewport={"width": width, "height": 844}, color_scheme=scheme
        )
        for width, scheme in SETTINGS
    }


@pytest.fixture(scope="session", params=SETTINGS, ids=lambda s: f"{s[1]}-{s[0]}")
def window(windows, address, request):
    """Name one of the windows; `reports` gets all that a page in it should not do."""
    _, scheme = request.param
    page, reports = windows[scheme], []
    listeners = {
        "console": lambda message: (
            message.type not in ("error", "warning")
            or reports.append(f"{message.text} {message.location['url']}")
        ),
        "pageerror": lambda error: reports.append(str(error)),
        "requestfailed": lambda asked: reports.append(f"failed: {asked.url}"),
        "request": lambda asked: (
            asked.url.startswith((address, "data:", "blob:"))
            or reports.append(f"outside: {asked.url}")
        ),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    yield SimpleNamespace(page=page, reports=reports, scheme=scheme)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


@pytest.fixture(scope="session")
def visit(window, address, page_path):
    """Open one page."""
    window.page.goto("about:blank")
    window.reports.clear()
    window.page.goto(address + page_path)
    window.page.evaluate("window.MathJax?.startup.promise")
    return window
