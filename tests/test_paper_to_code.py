"""The map from the paper to the code leads to lines and tests that exist."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

import vitlib

TESTS = Path(__file__).resolve().parent
BOOK = TESTS.parent / "book"
PAGE = (BOOK / "paper_to_code.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?):.*?\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
ENTRY = re.compile(
    r"\| (?P<symbols>.+?) "
    r"\| `(?P<line>.+?)`<br>in \{py:\w+\}`~?(?P<name>[\w.]+)`"
    r", proved in `(?P<file>\w+\.py)` by<br>`(?P<test>\w+)` "
    r"\| \[(?P<number>\d\d)\]\((?P<chapter>\S+)\) \|"
)
ROWS = [line for line in PAGE.splitlines() if "](../notebooks/" in line]
MODELS = {"Base": "VIT_B_16", "Large": "VIT_L_16", "Huge": "VIT_H_14"}


def table(heading):
    """Return the body rows of the first table below a heading, cell by cell."""
    lines = iter(PAGE.split(f"{heading}\n", 1)[1].splitlines())
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip(" `") for cell in line.split("|")[1:-1]])
        elif rows:
            break
    return rows[2:]


def source(name):
    """Return the stripped source lines of a module, class or function."""
    try:
        thing = import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        thing = getattr(import_module(module), attribute)
    return {line.strip() for line in inspect.getsource(thing).splitlines()}


def millions(count):
    return f"{count / 1e6:.2f}"


def test_there_is_a_section_for_each_equation_and_the_table():
    assert list(SECTIONS) == [
        "Eq. 1", "Eq. 2 and 3", "Eq. 4", "Eq. 5", "Eq. 6", "Eq. 7", "Eq. 8", "Table 1",
    ]  # fmt: skip
    assert len(ROWS) >= 40


@pytest.mark.parametrize("row", ROWS)
def test_the_line_the_test_and_the_chapter_exist(row):
    entry = ENTRY.fullmatch(row)
    assert entry, "a row has the form: symbols, line, object, test, chapter"
    assert entry["line"] in source(entry["name"])
    tree = ast.parse((TESTS / entry["file"]).read_text("utf-8"))
    assert entry["test"] in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    }
    assert (BOOK / entry["chapter"]).exists()
    assert Path(entry["chapter"]).name.startswith(f"{entry['number']}_")


@pytest.mark.parametrize("name", [name for name in SECTIONS if name.startswith("Eq")])
def test_every_symbol_of_an_equation_has_its_row(name):
    _, rest, below = SECTIONS[name].split("$$\n")
    entries = [ENTRY.fullmatch(line) for line in below.splitlines() if line in ROWS]
    symbols = [
        symbol
        for entry in entries
        for symbol in re.findall(r"\$(.+?)\$", entry["symbols"])
    ]
    for symbol in sorted(symbols, key=len, reverse=True):
        assert symbol in SECTIONS[name].split("$$\n")[1]
        rest = rest.replace(symbol, " ")
    layout = r"\\(?:begin|end)\{aligned\}|\\mathbb\{R\}|\\[a-zA-Z]+"
    assert not re.search("[a-zA-Z]", re.sub(layout, " ", rest)), rest


def test_table_1_is_that_of_the_presets():
    rows = table("## Table 1: the sizes")
    assert [row[0] for row in rows] == list(MODELS)
    for name, *sizes, _ in rows:
        config = getattr(vitlib, MODELS[name])
        with torch.device("meta"):
            hidden_dim = vitlib.ViT(config).blocks[0].mlp.fc1.out_features
        wanted = [config.depth, config.embed_dim, hidden_dim, config.num_heads]
        assert sizes == list(map(str, wanted))


def test_every_row_and_column_of_table_1_is_mapped():
    mapped = {
        ENTRY.fullmatch(row)["symbols"] for row in ROWS if row in SECTIONS["Table 1"]
    }
    assert mapped == {*MODELS, "Layers", "Hidden size", "MLP size", "Heads", "Params"}


def test_the_parameters_are_counted_right():
    params = {
        name: int(row[-1].rstrip("M")) for name, *row in table("## Table 1: the sizes")
    }
    counted = table("### Which models have these parameters?")
    assert len(counted) == 5
    for preset, *numbers in counted:
        config = getattr(vitlib, preset)
        count = vitlib.count_parameters(config)
        head = (config.embed_dim + 1) * config.num_classes
        paper = next(
            params[name] for name, other in MODELS.items() if other[:5] == preset[:5]
        )
        wanted = [f"{count:,}", millions(count), millions(count - head), str(paper)]
        assert numbers == wanted


def test_which_counts_round_to_the_papers():
    counted = table("### Which models have these parameters?")
    fits = {
        (preset, how)
        for preset, _, *numbers, paper in counted
        for how, number in zip(("with", "without"), numbers, strict=True)
        if round(float(number)) == int(paper)
    }
    assert fits == {("VIT_H_14", "with"), ("VIT_L_32", "with"), ("VIT_B_16", "without")}
    assert int(float(counted[0][2])) == 86 and round(float(counted[0][2])) == 87
