"""What the pages say, computed again."""

import ast
import re
from pathlib import Path

import pytest
import torch

import vitlib

BOOK = Path(__file__).resolve().parent.parent / "book"


def page(name):
    """Return a page's text."""
    return (BOOK / f"{name}.md").read_text("utf-8")


def rows(name, heading):
    """Return the body rows of the first table below a heading, cell by cell."""
    section = page(name).split(f"## {heading}\n", 1)[1]
    lines = [line for line in section.split("\n## ")[0].splitlines() if line[:1] == "|"]
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_the_sizes_are_those_of_the_presets():
    table = {row[0]: row[1:] for row in rows("notation", "Sizes")}
    assert set(table) == {name for name in vitlib.__all__ if name.startswith("VIT_")}
    for name, numbers in table.items():
        config = getattr(vitlib, name)
        with torch.device("meta"):
            block = vitlib.ViT(config).blocks[0]
        assert numbers == [
            str(config.patch_size),
            str(config.num_tokens),
            str(config.embed_dim),
            str(config.depth),
            str(config.num_heads),
            str(block.attn.head_dim),
            str(block.mlp.fc1.out_features),
            f"{vitlib.count_parameters(config):,}",
        ]


def test_the_operations_of_base_16():
    flops = vitlib.count_flops(vitlib.VIT_B_16) / 1e9
    assert f"their {flops / 2:.1f} G for ViT-B/16 is {flops:.1f} G here" in " ".join(
        page("notation").split()
    )


@pytest.mark.parametrize("name", ["glossary", "debugging"])
def test_large_numbers_on_pages(name):
    config = vitlib.VIT_B_16
    positions_and_cls = (config.num_tokens + 1) * config.embed_dim
    known = {f"{vitlib.count_parameters(config):,}", f"{positions_and_cls:,}"}
    found = set(re.findall(r"\d{1,3}(?:,\d{3})+", page(name)))
    assert found
    assert found <= known


def test_the_state_dict_table():
    with torch.device("meta"):
        state = vitlib.ViT().state_dict()
    said = {}
    for keys, shape, _ in rows("architecture", "Names in the state dict"):
        if keys == "…":
            continue
        first, *others = (key.strip("` ") for key in keys.split(","))
        for key in (first, *others):
            full = first.rsplit(".", 1)[0] + key if key.startswith(".") else key
            said[full] = ast.literal_eval(shape)
    assert said == {
        key: tuple(value.shape)
        for key, value in state.items()
        if not re.match(r"blocks\.[1-9]", key)
    }


def test_every_check_of_the_debugging_chart_is_true():
    checked, names = 0, {}
    for block in re.findall(r"```python\n(.*?)```", page("debugging"), re.DOTALL):
        lines = block.splitlines()
        for node in ast.parse(block).body:
            code = ast.get_source_segment(block, node)
            if lines[node.end_lineno - 1].endswith("# True"):
                assert eval(code, names), code
                checked += 1
            else:
                exec(code, names)
    assert checked == page("debugging").count("# True")
    assert checked > 20
