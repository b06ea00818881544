"""The buttons and the first cell that hang on the repository's address."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import normalise
import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
URL = "https://github.com/owner/name"
CHAPTER = "notebooks/00_shapes"
BUTTONS = {
    f"{URL}",
    f"https://colab.research.google.com/github/owner/name/blob/main/{CHAPTER}.ipynb",
    f"https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/{CHAPTER}.ipynb",
}


@pytest.fixture(scope="module")
def chapter():
    """Read one chapter."""
    return nbformat.read(ROOT / f"{CHAPTER}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def build(chapter, tmp_path_factory):
    """Return a function that builds a book of one chapter under an address."""

    def build(url):
        folder = tmp_path_factory.mktemp("book")
        for name in ("assets", "extension", "figures"):
            shutil.copytree(ROOT / "book" / name, folder / "book" / name)
        for name in ("references.bib", "timings.csv"):
            shutil.copy(ROOT / "book" / name, folder / "book")
        config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
        config["repository"]["url"] = url
        toc = {"format": "jb-book", "root": "book/index"}
        toc["chapters"] = [{"file": CHAPTER}]
        (folder / "_config.yml").write_text(yaml.safe_dump(config), "utf-8")
        (folder / "_toc.yml").write_text(yaml.safe_dump(toc), "utf-8")
        (folder / "book/index.md").write_text("# One chapter\n", "utf-8")
        notebook = copy.deepcopy(chapter)
        normalise.set_colab_cell(notebook, url)
        (folder / "notebooks").mkdir()
        nbformat.write(notebook, folder / f"{CHAPTER}.ipynb")
        jupyter_book = Path(sys.executable).with_name("jupyter-book")
        subprocess.run([jupyter_book, "build", folder], check=True, capture_output=True)
        page = (folder / f"_build/html/{CHAPTER}.html").read_text("utf-8")
        return BeautifulSoup(page, "html.parser")

    return build


def header_links(page):
    """Return where the buttons above a page lead, outside of the site."""
    links = page.select(".bd-header-article a[href]")
    return {link["href"] for link in links if "://" in link["href"]}


def test_with_an_address_the_buttons_lead_to_the_notebook(build):
    page = build(URL)
    assert header_links(page) == BUTTONS
    assert "google.colab" not in page.article.text


def test_without_an_address_there_are_no_buttons(build):
    page = build("")
    assert header_links(page) == set()


def test_first_cell_fetches_the_library_and_leaves_torch_alone(chapter):
    notebook = copy.deepcopy(chapter)
    normalise.set_colab_cell(notebook, URL)
    first = notebook.cells[0]
    assert first.metadata.tags == ["colab", "remove-cell"]
    assert 'if "google.colab" in sys.modules and' in first.source
    installs = [line for line in first.source.splitlines() if "pip" in line]
    assert all(line.startswith("    %pip install -q --no-deps ") for line in installs)
    packages = [line.split()[-1].partition("==")[0] for line in installs]
    assert packages == ["./book", "einops", "safetensors", "torchsummary", "torchinfo"]
    assert f"    !git clone -q --depth 1 {URL} book" in first.source.splitlines()
    assert first.source.endswith('os.chdir("book/notebooks")')


def test_first_cell_follows_the_setting(chapter):
    notebook = copy.deepcopy(chapter)
    for url in (URL, "https://github.com/other/name", "", URL):
        normalise.set_colab_cell(notebook, url)
        cells = [cell for cell in notebook.cells if cell.id == "colab"]
        assert len(cells) == bool(url)
        assert all(url in cell.source for cell in cells)
    normalise.set_colab_cell(notebook, "")
    assert [cell.source for cell in notebook.cells] == [
        cell.source for cell in chapter.cells if cell.id != "colab"
    ]
