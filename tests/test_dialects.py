"""The tables are whole, and the page shows them."""

import re
from pathlib import Path

import pytest
import torch
from foreign import FORMS, config_of, draw_state, source_of, write

from vitlib import ViT, dialects
from vitlib.convert import infer_config
from vitlib.dialects import DIALECTS, OURS, SOURCES, Dialect, Row, axes_of

PAGE = Path(__file__).resolve().parent.parent / "book" / "api" / "dialects.md"
# A heading of the page -> the table in code, and the table it is a change of.
TABLES = {
    "timm": ("TIMM", None),
    "timm, pooled": ("TIMM_POOLED", "timm"),
    "torchvision": ("TORCHVISION", None),
    "torchvision, files": ("TORCHVISION_FILES", "torchvision"),
    "transformers": ("TRANSFORMERS", None),
    "transformers, files": ("TRANSFORMERS_FILES", "transformers"),
    "vit-pytorch": ("VIT_PYTORCH", None),
    "vit-pytorch, old": ("VIT_PYTORCH_OLD", "vit-pytorch"),
    "jax": ("JAX", None),
    "zuppichini": ("ZUPPICHINI", None),
}
FORM_NAMES = list(FORMS)


def dialect_of(form):
    return getattr(dialects, TABLES[form][0])


def test_every_dialect_belongs_to_one_source():
    listed = [dialect for several in DIALECTS.values() for dialect in several]
    assert tuple(DIALECTS) == SOURCES
    assert SOURCES == (
        "timm", "torchvision", "transformers", "vit-pytorch", "jax", "zuppichini",
    )  # fmt: skip
    assert list(FORMS) == list(TABLES)
    assert sorted(map(id, listed)) == sorted(id(dialect_of(form)) for form in FORMS)
    for form in FORMS:
        assert dialect_of(form) in DIALECTS[source_of(form)]


@pytest.mark.parametrize("form", FORM_NAMES)
def test_a_sign_is_in_no_other_form(form):
    """But for pooled timm models: they have timm's sign too and are asked first."""
    sign = dialect_of(form).sign
    having = set()
    for other in FORMS:
        config = config_of(other)
        if sign in write(other, draw_state(config), config):
            having.add(other)
    assert having == ({"timm", "timm, pooled"} if form == "timm" else {form})


def test_our_table_names_every_parameter_and_its_axes():
    config = config_of("vit-pytorch", qkv_bias=True, head_dim=5, in_channels=2)
    sizes = {
        "1": 1, "three": 3, "e": 12, "h": 4, "d": 5, "m": 20, "c": 2, "p1": 2,
        "p2": 2, "t": 10, "k": 7,
    }  # fmt: skip
    spelled = {}
    for name, axes in OURS.items():
        for p in ("weight", "bias"):
            for i in ("0", "1"):
                full = name.replace("{p}", p).replace("{i}", i)
                shape = []
                for axis in axes_of(axes):
                    length = 1
                    for letter in axis:
                        length *= sizes[letter]
                    shape.append(length)
                spelled[full] = tuple(shape)
    with torch.device("meta"):
        built = {k: tuple(v.shape) for k, v in ViT(config).state_dict().items()}
    assert spelled == built


@pytest.mark.parametrize("form", FORM_NAMES)
def test_rows_name_the_keys_that_are_written(form):
    config = config_of(form)
    theirs = write(form, draw_state(config), config)
    dialect, named = dialect_of(form), set()
    for name, row in dialect.rows().items():
        assert ("{i}" in name) == all("{i}" in key for key in row.keys)
        for i in range(config.depth):
            named |= {key.replace("{i}", str(i)) for key in row.keys}
        ours = name.replace("{i}", "0")
        letters = {letter for axis in axes_of(row.our_axes) for letter in axis}
        stacked = {"three"} if len(row.keys) == 3 else set()
        theirs_letters = {x for axis in axes_of(row.their_axes) for x in axis}
        assert letters - {"1"} == (theirs_letters | stacked) - {"1"}, name
        assert len(row.keys) in (1, 3)
        if row.keys[0].replace("{i}", "0") in theirs:
            first = theirs[row.keys[0].replace("{i}", "0")]
            assert first.ndim == len(axes_of(row.their_axes)), ours
    unnamed = {key for key in theirs if key not in named}
    assert all(key.startswith(dialect.ignored) for key in unnamed)
    assert bool(unnamed) == form.startswith("transformers")
    unwritten = named - set(theirs)
    # What this config has not, the table may have.
    assert all("patch_embed.norm" in key for key in unwritten), unwritten


@pytest.mark.parametrize("form", FORM_NAMES)
@pytest.mark.parametrize("depth", [1, 3, 11])
def test_blocks_are_numbered_by_the_keys(form, depth):
    config = config_of(form, depth=depth, embed_dim=4, num_heads=1)
    theirs = write(form, draw_state(config), config)
    assert dialect_of(form).blocks_of(theirs) == set(range(depth))


def test_a_blocks_number_stands_behind_the_whole_prefix():
    """A dot is a dot, and nothing stands in front."""
    one = Dialect("", "a.{i}.", {}, {}, {})
    keys = ["a.2.b", "a.2.c", "ax7.b", "b.a.9.b", "a.x.b", "a.10.b", "a.1"]
    assert one.blocks_of(keys) == {2, 10}
    assert one.blocks_of([]) == set()


def test_axes():
    assert axes_of("(three h d) e") == [["three", "h", "d"], ["e"]]
    assert axes_of("1 1 e") == [["1"], ["1"], ["e"]]
    assert axes_of("(c p1 p2)") == [["c", "p1", "p2"]]
    assert axes_of("e h d") == [["e"], ["h"], ["d"]]


def test_rows_are_spelled_out():
    dialect = Dialect(
        sign="",
        block="in.{i}.",
        outside={"norm.{p}": "n.{p}", "head.weight": ("h", "e k")},
        inside={
            "norm1.{p}": ("{a,b,c}/x_{p}", "e"),
            "attn.qkv.bias": ("{q,k,v}", "h d"),
        },
        fixed={},
    )
    assert dialect.rows() == {
        "norm.weight": Row(("n.weight",), "e", "e"),
        "norm.bias": Row(("n.bias",), "e", "e"),
        "head.weight": Row(("h",), "e k", "k e"),
        "blocks.{i}.norm1.weight": Row(
            ("in.{i}.a/x_weight", "in.{i}.b/x_weight", "in.{i}.c/x_weight"), "e", "e"
        ),
        "blocks.{i}.norm1.bias": Row(
            ("in.{i}.a/x_bias", "in.{i}.b/x_bias", "in.{i}.c/x_bias"), "e", "e"
        ),
        "blocks.{i}.attn.qkv.bias": Row(
            ("in.{i}.q", "in.{i}.k", "in.{i}.v"), "h d", "(three h d)"
        ),
    }


# ---- the page ---------------------------------------------------------------------


def tables_below(heading):
    """Return the tables of a section: for each, its body rows, cell by cell."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n", 1)[1]
    section = section.split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n?)+", section, re.MULTILINE)
    return [
        [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in table.splitlines()[2:]
        ]
        for table in tables
    ]


def code(cell):
    """Return what stands between the backticks of a cell."""
    return re.findall(r"`([^`]*)`", cell)


def shown(form):
    """Return a dialect's rows as its section shows them."""
    dialect, rows = dialect_of(form), {}
    for table, ours, theirs in (
        (dialect.outside, "", ""),
        (dialect.inside, "blocks.{i}.", "…"),
    ):
        for name, row in table.items():
            key, axes = row if isinstance(row, tuple) else (row, "")
            rows[ours + name] = [theirs + key, axes]
    return rows


def test_the_page_shows_our_parameters():
    (table,) = tables_below("Ours")
    assert [[code(cell)[0] for cell in row] for row in table] == [
        [name, axes] for name, axes in OURS.items()
    ]


def test_the_page_has_every_dialect():
    headings = re.findall(r"^## (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert headings == ["A seventh source", "Ours", *TABLES, "In code"]


@pytest.mark.parametrize("form", FORM_NAMES)
def test_the_page_shows_the_rows(form):
    found = {}
    for ours, theirs, axes in tables_below(form)[1]:
        found[code(ours)[0]] = [code(theirs)[0], *(code(axes) or [""])]
    expected, base = shown(form), TABLES[form][1]
    text = PAGE.read_text("utf-8").split(f"\n## {form}\n")[1].split("\n## ")[0]
    if base is not None:
        whole = shown(base)
        gone = [name for name in whole if name not in expected]
        said = re.search(r"The rows of (.*?) that differ(.*):", text)
        assert said[1] == base
        assert code(said[2]) == gone
        expected = {k: row for k, row in expected.items() if row != whole.get(k)}
    assert found == expected


@pytest.mark.parametrize("form", FORM_NAMES)
def test_the_page_shows_the_facts(form):
    dialect = dialect_of(form)
    facts = {name.strip("`"): value for name, value in tables_below(form)[0]}
    expected = {
        "told by": [dialect.sign],
        "… is": [dialect.block],
        **{name: [repr(v) for v in values] for name, values in dialect.fixed.items()},
        "scores are divided by": [dialect.score_root],
    }
    if dialect.ignored:
        expected["ignored"] = list(dialect.ignored)
    you_give = code(facts.pop("you give"))
    assert {name: code(value) for name, value in facts.items()} == expected

    config = config_of(form)
    theirs = write(form, draw_state(config), config)
    if not you_give:
        infer_config(theirs, source_of(form))
        return
    message = f"does not say {', '.join(you_give)}: look"
    with pytest.raises(ValueError, match=re.escape(message)):
        infer_config(theirs, source_of(form))
