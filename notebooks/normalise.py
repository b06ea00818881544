"""Run notebooks and store them in one fixed form, so that two runs give the same bytes.

python notebooks/normalise.py                             every chapter and exercise
python notebooks/normalise.py notebooks/01_patches.ipynb            one of them
"""

import os
import sys
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
CHAPTERS = sorted(FOLDER.glob("[0-9]*.ipynb"))
EXERCISES = sorted(FOLDER.glob("exercises/*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
COLAB = """\
# On Colab only: fetch the book and its library. Colab keeps its own torch.
import os
import sys

if "google.colab" in sys.modules and not os.path.exists("experiments"):
    !git clone -q --depth 1 {url} book
    %pip install -q --no-deps ./book
    %pip install -q --no-deps {einops}
    %pip install -q --no-deps {safetensors}
    %pip install -q --no-deps {torchsummary}
    %pip install -q --no-deps {torchinfo}
    os.chdir("book/notebooks")"""

# Sums depend on the number of threads in their last digits, and from there
# everything else does. The kernels inherit these.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "SOURCE_DATE_EPOCH": "0",
}


def repository_url() -> str:
    """Read the one setting for the repository's address; "" while it is unset."""
    config = yaml.safe_load((FOLDER.parent / "_config.yml").read_text("utf-8"))
    return config["repository"]["url"]


def set_colab_cell(notebook, url: str) -> None:
    """Write the first cell that fetches the library on Colab; none without a url."""
    notebook.cells = [cell for cell in notebook.cells if cell.get("id") != "colab"]
    if url:
        requirements = (FOLDER.parent / "requirements.txt").read_text("utf-8")
        pins = {line.partition("==")[0]: line for line in requirements.splitlines()}
        cell = nbformat.v4.new_code_cell(
            COLAB.format(url=url, **pins),
            id="colab",
            metadata={"tags": ["colab", "remove-cell"]},
        )
        notebook.cells.insert(0, cell)


def execute(notebook, folder: Path) -> None:
    """Run every cell in a fresh kernel started in folder, and keep what it shows."""
    NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    ).execute()


def normalise(notebook) -> None:
    """Drop what differs from one machine or editor to the next."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for key in cell.metadata.keys() - {"tags", "mystnb", "points"}:
            del cell.metadata[key]
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                # The lines above name files of this machine.
                output.traceback = output.traceback[-1:]


def main(paths: list[Path]) -> None:
    """Run, normalise and write each notebook."""
    for path in paths:
        print(path)
        notebook = nbformat.read(path, as_version=4)
        set_colab_cell(notebook, repository_url())
        execute(notebook, path.parent)
        normalise(notebook)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or CHAPTERS + EXERCISES)
