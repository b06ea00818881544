"""The conventions of the book, checked by code."""

import ast
import csv
import fnmatch
import hashlib
import inspect
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path for path in (ROOT / "vitlib").rglob("*.py") if path.stem != "__init__"
)
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PAGES = sorted((ROOT / "book").rglob("*.md"))
EXPERIMENTS = sorted((ROOT / "notebooks" / "experiments").glob("*.py"))

# What every check is made of.
ENGINE = {
    "checks.building",
    "checks.comparing",
    "checks.deciding",
    "checks.judging",
    "checks.questions",
    "checks.reading",
    "checks.wording",
}

# What each module may import of vitlib; a name here is also a rank: later ones
# build on earlier ones, never the other way.
MAY_IMPORT = {
    "arguments": set(),
    "files": set(),
    "data": set(),
    "plots": set(),
    "patches": {"arguments"},
    "cls_token": {"arguments"},
    "positions": {"arguments"},
    "attention": {"arguments"},
    "mlp": {"arguments"},
    "multi_head": {"arguments", "attention"},
    "encoder": {"arguments", "mlp", "multi_head"},
    "vit": {"arguments", "patches", "cls_token", "mlp", "multi_head", "encoder"},
    "dialects": set(),
    "convert": {
        "arguments",
        "cls_token",
        "dialects",
        "encoder",
        "multi_head",
        "vit",
    },
    "model_folder": set(),
    "checkpoints": {"arguments", "convert", "files", "model_folder", "vit"},
    "augment": {"arguments"},
    "runs": {"arguments", "files"},
    "downloads": {"data", "files", "runs"},
    "train": {
        "arguments",
        "augment",
        "checkpoints",
        "data",
        "files",
        "plots",
        "runs",
        "vit",
    },
    "predict": {"arguments", "checkpoints", "data"},
    "interpret": {"arguments", "attention", "patches", "vit"},
    "checks.comparing": set(),
    "checks.guessing": set(),
    "checks.running": set(),
    "checks.wording": {"checks.comparing", "checks.running", "vit"},
    "checks.judging": {"checks.comparing", "checks.running", "checks.wording"},
    "checks.building": {"checks.judging", "checks.wording"},
    "checks.deciding": {"checks.judging", "checks.wording"},
    "checks.questions": {"checks.comparing", "checks.judging", "checks.wording"},
    "checks.reading": {"checks.judging", "checks.wording"},
    # Each checks what its chapter builds, and shares what was built before.
    "checks.patches": ENGINE | {"patches"},
    "checks.cls_token": ENGINE | {"cls_token"},
    "checks.positions": ENGINE | {"cls_token", "patches", "positions", "vit"},
    "checks.attention": ENGINE | {"attention"},
    "checks.mlp": ENGINE | {"mlp"},
    "checks.multi_head": ENGINE | {"attention", "checks.attention", "multi_head"},
    "checks.encoder": ENGINE | {"checks.attention", "encoder", "mlp", "multi_head"},
    "checks.vit": ENGINE | {"checks.positions", "cls_token", "patches", "vit"},
    "checks.checkpoints": ENGINE,
    "checks.train": ENGINE | {"vit"},
    "checks.transfer": ENGINE | {"cls_token", "vit"},
    "checks.vit_vs_cnn": ENGINE | {"vit"},
    "checks.interpret": ENGINE | {"interpret"},
    "checks.resolution": ENGINE | {"positions"},
    "checks.capstone": ENGINE
    | {"checks.patches", "checks.vit", "data", "encoder", "patches"},
}

SIGNATURES = {
    "patches.split_patches": ["images", "patch_size"],
    "patches.merge_patches": ["patches", "patch_size", "image_size"],
    "cls_token.prepend_cls_token": ["tokens", "cls_token"],
    "positions.sincos_2d": ["grid_size", "embed_dim"],
    "positions.resample_pos_embed": ["pos_embed", "old_grid", "new_grid", "mode"],
    "attention.attention_weights": ["q", "k", "mask", "scale"],
    "attention.attend": ["q", "k", "v", "mask"],
    "multi_head.split_heads": ["tokens", "num_heads"],
    "multi_head.merge_heads": ["heads"],
    "vit.count_parameters": ["config"],
    "vit.count_flops": ["config"],
    "convert.convert_state_dict": ["state_dict", "source", "config"],
    "checkpoints.save_checkpoint": ["model", "path"],
    "checkpoints.load_checkpoint": ["path"],
    "checkpoints.to_timm": ["model"],
    "checkpoints.load_pretrained": ["name_or_path"],
    "predict.classify": ["model", "image", "labels", "top_k"],
    "interpret.record_attention": ["model", "images"],
    "interpret.attention_rollout": ["attention"],
    "interpret.cls_map": ["attention", "grid_size"],
    "interpret.position_similarity": ["pos_embed", "grid_size"],
    "interpret.mean_attention_distance": ["attention", "grid_size", "patch_size"],
    "interpret.delete_patches": ["images", "order", "count", "patch_size", "fill"],
}


def parse(path):
    """Return a module's syntax tree."""
    return ast.parse(path.read_text("utf-8"))


def imports(path):
    """Yield the full name of everything that a module imports."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield node.module


def cells(path, kind):
    """Return a notebook's cells of one kind as (source, metadata, outputs)."""
    notebook = json.loads(path.read_text("utf-8"))
    return [
        ("".join(cell["source"]), cell["metadata"], cell.get("outputs", []))
        for cell in notebook["cells"]
        if cell["cell_type"] == kind
    ]


def tagged(path, tag):
    """Return the sources of a notebook's code cells that carry a tag."""
    return [
        source
        for source, metadata, _ in cells(path, "code")
        if tag in metadata.get("tags", [])
    ]


def name_of(path):
    """Return a module's name behind "vitlib."."""
    return ".".join(path.relative_to(ROOT / "vitlib").with_suffix("").parts)


def public(path):
    """Yield a module's public functions and classes."""
    module = import_module(f"vitlib.{name_of(path)}")
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield f"{name_of(path)}.{name}", thing


def by_stem(path):
    """Name a test after its file."""
    return path.stem


# The library


def test_every_module_has_a_rank():
    assert {name_of(path) for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path):
    ours = {
        name.removeprefix("vitlib.")
        for name in imports(path)
        if name.startswith("vitlib.")
    }
    assert "vitlib" not in imports(path)
    assert ours <= MAY_IMPORT[name_of(path)]


def test_only_plots_imports_matplotlib():
    users = {p.stem for p in MODULES if any("matplotlib" in n for n in imports(p))}
    assert users == {"plots"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_assert_in_the_library(path):
    assert not [n.lineno for n in ast.walk(parse(path)) if isinstance(n, ast.Assert)]


def test_names_are_the_fields():
    for path in MODULES:
        for name, thing in public(path):
            parameters = inspect.signature(thing).parameters
            assert not parameters.keys() & {"dim", "width", "kwargs", "args"}, name


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    module, function = name.split(".")
    thing = getattr(import_module(f"vitlib.{module}"), function)
    positional = [
        parameter.name
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == SIGNATURES[name]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_name_every_argument(path):
    for name, thing in public(path):
        sections = {}
        title = "Summary"
        for line in inspect.getdoc(thing).splitlines():
            if re.fullmatch(r"(Args|Shape|Returns|Raises|Reference):", line):
                title = line[:-1]
            sections.setdefault(title, []).append(line)
        said = [
            match.group(1)
            for line in sections.get("Args", [])
            if (match := re.match(r"    (\w+): ", line))
        ]
        assert said == list(inspect.signature(thing).parameters), name
        if said:
            assert sections.keys() & {"Reference", "Raises"}, name


def test_fit_is_short():
    from vitlib.train import fit

    source = inspect.getsource(fit)
    body = source[source.rindex('"""') + 3 :].strip().splitlines()
    assert len(body) <= 25


# One name, in its places


# From chapter 11 on, chapters use what the others built.
BUILDING = [path for path in CHAPTERS[1:] if path.stem < "11"]


@pytest.mark.parametrize("path", BUILDING, ids=by_stem)
def test_one_name_in_its_places(path):
    name = path.stem[3:]
    assert (ROOT / "vitlib" / f"{name}.py").exists()
    assert (ROOT / "tests" / f"test_{name}.py").exists()
    assert (ROOT / "book" / "api" / f"{name}.md").exists()


def test_every_module_has_its_test_and_page():
    # A subpackage has one of each.
    for name in {name_of(path).split(".")[0] for path in MODULES}:
        assert (ROOT / "tests" / f"test_{name}.py").exists(), name
        if name != "arguments":
            assert (ROOT / "book" / "api" / f"{name}.md").exists(), name


def test_every_page_is_in_the_table_of_contents():
    toc = (ROOT / "_toc.yml").read_text("utf-8")
    entries = re.findall(r"(?:file|root|glob): (\S+)", toc)
    paths = [path.relative_to(ROOT).with_suffix("") for path in [*PAGES, *CHAPTERS]]
    pages = {path.as_posix() for path in paths}
    found = {entry: fnmatch.filter(pages, entry) for entry in entries}
    assert all(found.values()), found
    assert sorted(page for some in found.values() for page in some) == sorted(pages)


# The chapters


@pytest.mark.parametrize("path", CHAPTERS, ids=by_stem)
def test_cells_are_small(path):
    for source, metadata, _ in cells(path, "code"):
        lines = source.splitlines()
        tags = metadata.get("tags", [])
        limit = 60 if "model" in tags else 15
        assert len(lines) <= limit, lines[0]
        assert max(map(len, lines)) <= 75, max(lines, key=len)
    assert len(tagged(path, "model")) <= 1


@pytest.mark.parametrize("path", CHAPTERS, ids=by_stem)
def test_a_chapter_has_its_form(path):
    text = "\n".join(source for source, _, _ in cells(path, "markdown"))
    number = path.stem[:2]
    assert text.startswith(f"# {number} ")
    for part in (
        "**Question.**",
        "**After this chapter you can**",
        "**You need**",
        "\n## Summary\n",
        "\n## Exercises\n",
        "**Next.**",
    ):
        assert text.count(part) == 1, part
    assert "isconception" in text
    assert text.count("**Predict.**") >= 3
    assert text.count("**Seen.**") >= 3


@pytest.mark.parametrize("path", CHAPTERS[1:], ids=by_stem)
def test_the_chapter_agrees_with_the_library(path):
    agreement = "\n".join(tagged(path, "agreement"))
    everything = "\n".join(source for source, _, _ in cells(path, "code"))
    assert "strict=True" in agreement
    assert "same(" in agreement
    assert re.search(r"autograd\.grad|\.backward\(", everything)
    assert "grad" in agreement
    assert "same = torch.testing.assert_close" in everything


@pytest.mark.parametrize("path", CHAPTERS, ids=by_stem)
def test_figures_are_described(path):
    for source, metadata, outputs in cells(path, "code"):
        images = [out for out in outputs if "image/png" in out.get("data", {})]
        described = metadata.get("mystnb", {})
        assert bool(images) == ("figure" in described), source.splitlines()[0]
        if images:
            assert len(images) == 1
            assert source.rstrip().endswith("plt.show()")
            assert len(described["image"]["alt"].split()) >= 8
            assert len(described["figure"]["caption"].split()) >= 6
            assert described["figure"]["name"].startswith("fig-")


def test_figure_names_are_unique():
    names = [
        metadata["mystnb"]["figure"]["name"]
        for path in CHAPTERS
        for _, metadata, _ in cells(path, "code")
        if "figure" in metadata.get("mystnb", {})
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", CHAPTERS, ids=by_stem)
def test_a_guess_is_written_before_its_answer_opens(path):
    waiting, scored = False, 0
    for source, metadata, _ in cells(path, "code"):
        if source.startswith("my_guess = ...  # "):
            assert not waiting, source
            waiting = True
        elif "checks.score(" in source:
            assert waiting, source
            assert "hide-output" in metadata["tags"]
            assert metadata["mystnb"]["code_prompt_show"] == "Open the answer"
            waiting, scored = False, scored + 1
    assert scored and not waiting


@pytest.mark.parametrize("path", CHAPTERS, ids=by_stem)
def test_chapters_stay_offline_and_clean(path):
    for source, metadata, _ in cells(path, "code"):
        if "colab" in metadata.get("tags", []):
            continue
        assert not re.search(r"https?://|sys\.path|urllib|requests", source)
        assert not source.rstrip().endswith(";")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=by_stem)
def test_experiments_show_their_seeds_and_machine(path):
    with path.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"seed", "machine"} <= rows[0].keys()

    def variant_of(row):
        names = list(row)
        return tuple(row[name] for name in names[: names.index("seed")])

    for variant in {variant_of(row) for row in rows}:
        seeds = {row["seed"] for row in rows if variant_of(row) == variant}
        assert len(seeds) >= 3, variant


# The words


@pytest.mark.parametrize("path", [*CHAPTERS, *PAGES], ids=by_stem)
def test_words_that_explain_nothing(path):
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join(source for source, _, _ in cells(path, "markdown"))
    found = re.findall(r"\b(?:simply|just|obviously|of course)\b", text, re.I)
    assert not found


def test_every_asset_has_a_card():
    cards = (ROOT / "book" / "weights_and_data.md").read_text("utf-8")
    for path in (ROOT / "vitlib" / "assets").rglob("*"):
        if path.is_file() and path.suffix != ".mplstyle":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.name in cards, path.name
            assert digest in cards, f"{path.name}: its sha256 is {digest}"
