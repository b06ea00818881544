"""Every number of the poster, measured on the model it draws."""

import re
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vitlib

POSTER = Path(__file__).resolve().parent.parent / "book" / "figures" / "poster.svg"
SIZES = {
    "c": 3, "H": 224, "W": 224, "p1": 16, "p2": 16, "n": 196, "T": 197, "e": 768,
    "h": 12, "d": 64, "i": 197, "j": 197, "classes": 1000,
}  # fmt: skip
# Steps without a module of their own; drop path is one module, used twice.
FUNCTIONS = {
    "photo", "patches", "split", "scores", "softmax", "mix", "merge", "pool",
    "drop_path1", "drop_path2",
}  # fmt: skip
WITHOUT_BATCH = re.compile(r"^(3×)?\((b, )?")


def texts(prefix=""):
    """Return what stands in each named text of the poster, by name."""
    found = {}
    for element in ElementTree.parse(POSTER).iter():
        name = element.get("id", "")
        if element.tag.endswith(("text", "tspan")) and name.startswith(prefix):
            found[name.removeprefix(prefix)] = "".join(element.itertext())
    return found


def counts(prefix):
    """Return the numbers of one kind, by the step they stand under."""
    return {name: int(text.replace(",", "")) for name, text in texts(prefix).items()}


def shape_in(text):
    """Return the numbers of a drawn shape, without the batch and the three of qkv."""
    return tuple(map(int, re.findall(r"\d+", WITHOUT_BATCH.sub("(", text))))


def step_of(name):
    """Return a module's name on the poster: that in block 0, without the block."""
    short = {"mlp.act": "gelu", "drop_path": "drop_path2"}
    name = name.removeprefix("blocks.0.")
    return short.get(name, name)


@pytest.fixture(scope="module")
def measured():
    """Parameters, FLOPs and output shape of every step, from a run of ViT-B/16."""
    with torch.device("meta"):
        model = vitlib.ViT()
        images = torch.empty(1, 3, 224, 224)
    shapes = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    counter = FlopCounterMode(depth=9, display=False)
    with counter, torch.no_grad():
        model(images)
    flops = {
        name.removeprefix("ViT").removeprefix("."): sum(per_op.values())
        for name, per_op in counter.get_flop_counts().items()
    }
    parameters = {
        name: sum(part.numel() for part in module.parameters())
        for name, module in model.named_modules()
    }
    parameters |= {name: part.numel() for name, part in model.named_parameters()}
    return model, parameters, flops, shapes


def test_every_step_is_drawn_whole():
    steps = set(texts("letters-"))
    assert steps == set(texts("numbers-"))
    assert steps == set(counts("parameters-")) - {"block"}
    assert steps == set(counts("flops-")) - {"block"}
    assert steps >= FUNCTIONS
    assert set(texts("key-")) == steps - FUNCTIONS - {"gelu"}


def test_parameters_are_those_of_the_modules(measured):
    _, parameters, _, _ = measured
    known = {step_of(name): count for name, count in parameters.items()}
    known |= dict.fromkeys(FUNCTIONS, 0) | {"block": parameters["blocks.0"]}
    for step, count in counts("parameters-").items():
        assert count == (12 * known["block"] if step == "blocks" else known[step]), step


def test_flops_are_those_of_a_run(measured):
    _, _, flops, _ = measured
    known = {step_of(name): count for name, count in flops.items()}
    products = known["attn"] - known["attn.qkv"] - known["attn.proj"]
    known |= {"scores": products // 2, "mix": products // 2, "block": flops["blocks.0"]}
    for step, count in counts("flops-").items():
        wanted = 12 * known["block"] if step == "blocks" else known.get(step, 0)
        assert count == wanted, step


@pytest.mark.parametrize("kind", ["parameters", "flops"])
def test_the_sums_are_the_totals(kind):
    config = vitlib.VIT_B_16
    total = {
        "parameters": vitlib.count_parameters(config),
        "flops": vitlib.count_flops(config),
    }[kind]
    drawn, ledger = counts(f"{kind}-"), counts(f"total-{kind}-")
    outside = {
        "photo", "patches", "patch_embed.proj", "cls_token", "pos_embed", "blocks",
        "pool", "norm", "head",
    }  # fmt: skip
    inside = set(drawn) - outside - {"block"}
    assert sum(drawn[step] for step in inside) == drawn["block"]
    assert sum(drawn[step] for step in outside) == total
    assert sum(ledger.values()) == total
    assert counts("total-")[kind] == total
    assert ledger == {
        "patches": drawn["patch_embed.proj"],
        "cls": drawn["cls_token"],
        "pos": drawn["pos_embed"],
        "norms": 12 * (drawn["norm1"] + drawn["norm2"]),
        "projections": 12 * (drawn["attn.qkv"] + drawn["attn.proj"]),
        "attention": 12 * (drawn["scores"] + drawn["softmax"] + drawn["mix"]),
        "mlp": 12 * (drawn["mlp.fc1"] + drawn["mlp.fc2"]),
        "norm": drawn["norm"],
        "head": drawn["head"],
    }


def test_no_large_number_stands_unchecked():
    everything = "".join(ElementTree.parse(POSTER).getroot().itertext())
    named = {
        text
        for kind in ("parameters-", "flops-", "total-")
        for text in texts(kind).values()
    }
    assert set(re.findall(r"\d{1,3}(?:,\d{3})+", everything)) <= named


@pytest.mark.parametrize("kind", ["", "weight-"])
def test_letters_and_numbers_agree(kind):
    """Each axis but the batch is a product of letters."""
    numbers = texts(f"{kind}numbers-")
    assert numbers
    for step, letters in texts(f"{kind}letters-").items():
        axes = re.findall(r"[\w·]+", WITHOUT_BATCH.sub("(", letters))
        sizes = [prod(int(SIZES.get(x, x)) for x in axis.split("·")) for axis in axes]
        assert shape_in(numbers[step]) == tuple(sizes), step


def test_shapes_are_those_of_a_run(measured):
    model, _, _, shapes = measured
    drawn = {step: shape_in(text) for step, text in texts("numbers-").items()}
    for name, shape in shapes.items():
        if (step := step_of(name)) in drawn and name != "patch_embed.proj":
            assert drawn.pop(step) == shape[1:], step
    q = torch.empty(1, *drawn["split"], device="meta")
    weights = vitlib.attention_weights(q, q)
    mixed = vitlib.attend(q, q, q)
    images = torch.empty(1, *drawn["photo"], device="meta")
    patches = vitlib.split_patches(images, 16)
    tokens = vitlib.prepend_cls_token(model.patch_embed(images), model.cls_token)
    made = {
        "photo": images,
        "patches": patches,
        "patch_embed.proj": model.patch_embed(images),
        "cls_token": tokens,
        "pos_embed": tokens + model.pos_embed,
        "blocks": model.blocks[11](tokens),
        "pool": vitlib.pool_tokens(tokens, "cls"),
        "split": vitlib.split_heads(tokens, 12),
        "scores": weights,
        "softmax": weights,
        "mix": mixed,
        "merge": vitlib.merge_heads(mixed),
        "drop_path1": model.blocks[0].drop_path(tokens),
    }
    assert drawn == {step: tuple(value.shape[1:]) for step, value in made.items()}


def test_keys_are_those_of_the_state_dict(measured):
    model, *_ = measured
    state = {
        key.removeprefix("blocks.0.").removesuffix(".weight"): tuple(value.shape)
        for key, value in model.state_dict().items()
        if not re.match(r"blocks\.[1-9]|.*bias", key)
    }
    weights = texts("weight-numbers-")
    assert set(weights) == set(state)
    for step, text in weights.items():
        assert texts("key-")[step] == step
        assert shape_in(text) == state[step], step


def test_the_letters_stand_for_the_models_sizes(measured):
    _, _, _, shapes = measured
    config = vitlib.VIT_B_16
    assert (SIZES["n"], SIZES["T"]) == (config.num_patches, config.num_tokens)
    assert (SIZES["e"], SIZES["h"]) == (config.embed_dim, config.num_heads)
    assert SIZES["h"] * SIZES["d"] * 3 == shapes["blocks.0.attn.qkv"][-1]
    legend = texts("letter-")
    assert legend == {
        "b": "any", "c": "3", "H-W": "224", "rows-cols": "14", "p1-p2": "16",
        "n": "196", "T": "197", "e": "768", "h-d": "12, 64", "i-j": "197",
    }  # fmt: skip


def test_the_page_draws_the_right_shares():
    page = (POSTER.parents[1] / "poster.md").read_text("utf-8")
    parameters, flops = counts("total-parameters-"), counts("total-flops-")
    assert re.findall(r"\d{1,3}(?:,\d{3})+", page) == [texts("total-")["parameters"]]
    assert "two thirds of the parameters" in page
    assert parameters["mlp"] / sum(parameters.values()) == pytest.approx(
        2 / 3, abs=0.02
    )
    share = flops["attention"] / sum(flops.values())
    assert f"cost {share:.0%} of the operations".replace("%", " %") in page
