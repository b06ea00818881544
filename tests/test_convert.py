"""Other libraries' numbers arrive where they belong, and nothing else is let in."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from foreign import (
    FORMS,
    config_of,
    draw_state,
    fill,
    source_of,
    told_of,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlib import ViT, ViTConfig, attention_weights, resample_pos_embed
from vitlib.convert import convert_state_dict, detect_source, infer_config
from vitlib.dialects import SOURCES

FORM_NAMES = list(FORMS)
CONFIG = config_of("timm")
TOLD = told_of("timm")
# Forms whose patches are flat, and the key of their patch embedding.
FLAT = {
    "vit-pytorch": "to_patch_embedding.2.weight",
    "vit-pytorch, old": "to_patch_embedding.1.weight",
}


def both(form, **changes):
    """Return a random state dict of ours, the same as this form has it, the config."""
    config = config_of(form, **changes)
    ours = draw_state(config)
    return ours, write(form, ours, config), config


def assert_same(found, expected, exact=True):
    assert list(found) == list(expected)
    tolerance = {"atol": 0, "rtol": 0} if exact else {"atol": 1e-7, "rtol": 1e-6}
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **tolerance, msg=name)


def exact_match(message):
    return f"^{re.escape(message)}$"


# ---- every number has its place ---------------------------------------------------


@pytest.mark.parametrize("form", FORM_NAMES)
def test_what_was_written_is_read(form):
    ours, theirs, config = both(form)
    kept = {name: torch.as_tensor(value).clone() for name, value in theirs.items()}
    found = convert_state_dict(theirs, source_of(form), config)
    # Four heads: q was doubled and is halved, which floats do exactly.
    assert_same(found, ours)
    for value in found.values():
        assert type(value) is torch.Tensor and value.is_contiguous()
    # What came in is as it was.
    for name, value in kept.items():
        assert torch.equal(torch.as_tensor(theirs[name]), value)
    images = torch.randn(2, 3, 6, 6)
    expected = fill(ours, config)(images)
    torch.testing.assert_close(fill(found, config)(images), expected)
    assert (expected[0] - expected[1]).abs().max() > 0.1


CHANGES = {
    "another head_dim": {"head_dim": 7},
    "one head": {"num_heads": 1, "head_dim": 12},
    "eleven blocks": {"depth": 11},
    "patches not square": {"patch_size": (3, 2), "image_size": (9, 6)},
    "images not square": {"image_size": (4, 10), "depth": 1},
    "one channel": {"in_channels": 1, "depth": 1},
}


@pytest.mark.parametrize("form", FORM_NAMES)
@pytest.mark.parametrize("change", CHANGES)
def test_other_sizes_are_read_and_inferred(form, change):
    changes = CHANGES[change]
    if form == "zuppichini" and change == "another head_dim":
        changes = {"head_dim": 3}  # it has no other than e / h
    ours, theirs, config = both(form, **changes)
    source = source_of(form)
    if form != "zuppichini" or change == "one head":
        assert_same(convert_state_dict(theirs, source, config), ours)
    told = told_of(form, **changes)
    if config.image_size == (4, 10):
        told["image_size"] = (4, 10)
    if form in FLAT and config.patch_size == (3, 2):
        told["patch_size"] = (3, 2)
    if config.head_dim in (3, 12):  # as long as without saying so
        config = dataclasses.replace(config, head_dim=None)
    assert infer_config(theirs, source, **told) == config


@pytest.mark.parametrize("form", ["timm", "torchvision", "transformers"])
def test_sources_may_lack_biases_or_norms(form):
    changes = {"qkv_bias": form == "torchvision"}
    if form == "timm":
        changes["patch_norm"] = "after"
    ours, theirs, config = both(form, **changes)
    assert_same(convert_state_dict(theirs, form, config), ours)
    assert infer_config(theirs, form, **told_of(form)) == config


def test_a_transformers_model_without_qkv_bias_keeps_its_three_matrices():
    for form in ("transformers", "transformers, files"):
        ours, theirs, config = both(form, qkv_bias=False)
        assert not any(".attn.qkv.bias" in name for name in ours)
        assert_same(convert_state_dict(theirs, "transformers", config), ours)


@pytest.mark.parametrize("form", FORM_NAMES)
def test_the_index_of_every_number(form):
    """Where each value of ours stands in theirs, written down index by index."""

    @settings(max_examples=4)
    @given(
        st.permutations([1, 2, 3, 4, 5]),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(0, 2**31),
    )
    def run(sizes, p1, p2, seed):
        torch.manual_seed(seed)
        h, d, c, m, k = sizes
        e = h * d
        changes = {
            "num_heads": h, "embed_dim": e, "in_channels": c, "num_classes": k,
            "mlp_ratio": m, "patch_size": (p1, p2), "image_size": (2 * p1, 3 * p2),
            "head_dim": None, "depth": 1,
        }  # fmt: skip
        config = config_of(form, **changes)
        theirs = write(form, draw_state(config), config)
        found = convert_state_dict(theirs, source_of(form), config)

        def kernel(i, j, y, x):
            if form == "jax":
                return theirs["embedding/kernel"][y, x, j, i]
            if form in FLAT:
                return theirs[FLAT[form]][i, (y * p2 + x) * c + j]
            name = {
                "timm": "patch_embed.proj.weight",
                "torchvision": "conv_proj.weight",
                "transformers": "vit.embeddings.patch_embeddings.projection.weight",
                "zuppichini": "0.projection.0.weight",
            }[source_of(form)]
            return theirs[name][i, j, y, x]

        def qkv(s, head, j, i):
            row = head * d + j
            if form == "jax":
                name = ("query", "key", "value")[s]
                name = f"Transformer/encoderblock_0/{ATTENTION}/{name}/kernel"
                return theirs[name][i, head, j]
            if form == "transformers":
                name = f"vit.layers.0.attention.{'qkv'[s]}_proj.weight"
                return theirs[name][row, i]
            if form == "transformers, files":
                name = ("query", "key", "value")[s]
                name = f"vit.encoder.layer.0.attention.attention.{name}.weight"
                return theirs[name][row, i]
            if form == "zuppichini":
                value = theirs["1.0.0.fn.1.qkv.weight"][row * 3 + s, i]
                return value / math.sqrt(h) if s == 0 else value
            name = {
                "timm": "blocks.0.attn.qkv.weight",
                "timm, pooled": "blocks.0.attn.qkv.weight",
                "vit-pytorch": "transformer.layers.0.0.to_qkv.weight",
                "vit-pytorch, old": "transformer.layers.0.0.fn.to_qkv.weight",
            }.get(form, f"{TORCHVISION_BLOCK}.self_attention.in_proj_weight")
            return theirs[name][s * h * d + row, i]

        weight = found["patch_embed.proj.weight"]
        assert weight.shape == (e, c, p1, p2)
        for i, j, y, x in np.ndindex(*weight.shape):
            assert weight[i, j, y, x] == kernel(i, j, y, x)
        weight = found["blocks.0.attn.qkv.weight"]
        assert weight.shape == (3 * h * d, e)
        for s, head, j, i in np.ndindex(3, h, d, e):
            value = weight[(s * h + head) * d + j, i].item()
            assert value == pytest.approx(float(qkv(s, head, j, i)), rel=1e-6)
        if form == "jax":
            block = "Transformer/encoderblock_0"
            bias = found["blocks.0.attn.qkv.bias"]
            proj = found["blocks.0.attn.proj.weight"]
            for s, head, j in np.ndindex(3, h, d):
                name = ("query", "key", "value")[s]
                value = theirs[f"{block}/{ATTENTION}/{name}/bias"][head, j]
                assert bias[(s * h + head) * d + j] == value
            for i, head, j in np.ndindex(e, h, d):
                value = theirs[f"{block}/{ATTENTION}/out/kernel"][head, j, i]
                assert proj[i, head * d + j] == value
            for dense, name in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
                weight = found[f"blocks.0.mlp.{name}.weight"]
                for i, j in np.ndindex(*weight.shape):
                    kernel = theirs[f"{block}/MlpBlock_3/{dense}/kernel"]
                    assert weight[i, j] == kernel[j, i]
        if form == "vit-pytorch":
            for p in ("weight", "bias"):
                flat = found[f"patch_embed.pixel_norm.{p}"]
                for j, y, x in np.ndindex(c, p1, p2):
                    value = theirs[f"to_patch_embedding.1.{p}"][(y * p2 + x) * c + j]
                    assert flat[(j * p1 + y) * p2 + x] == value

    run()


ATTENTION = "MultiHeadDotProductAttention_1"
TORCHVISION_BLOCK = "encoder.layers.encoder_layer_0"


def test_zuppichinis_scores_come_out_of_our_attention():
    """Rows alternate q, k, v, and the root of embed_dim divides the scores."""
    e, h, d = 12, 3, 4
    _, theirs, config = both("zuppichini", num_heads=h)
    found = convert_state_dict(theirs, "zuppichini", config)
    tokens = torch.randn(5, e).double()
    weight = theirs["1.1.0.fn.1.qkv.weight"].double()
    bias = theirs["1.1.0.fn.1.qkv.bias"].double()
    rows = tokens @ weight.T + bias  # (n, (h d three))
    ours = tokens @ found["blocks.1.attn.qkv.weight"].double().T
    ours = ours + found["blocks.1.attn.qkv.bias"].double()  # (n, (three h d))
    for head in range(h):
        q, k, v = (
            torch.stack([rows[:, (head * d + j) * 3 + s] for j in range(d)], dim=1)
            for s in range(3)
        )
        expected = torch.softmax(q @ k.T / math.sqrt(e), dim=-1)
        first = [(s * h + head) * d for s in range(3)]
        q, k, our_v = (ours[:, at : at + d] for at in first)
        found_weights = attention_weights(q, k)
        torch.testing.assert_close(found_weights, expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(our_v, v)


def test_one_head_of_zuppichini_is_left_as_it_is():
    ours, theirs, config = both("zuppichini", num_heads=1)
    assert_same(convert_state_dict(theirs, "zuppichini", config), ours)


@pytest.mark.parametrize("form", ["vit-pytorch", "vit-pytorch, old"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_head_of_vit_pytorch_has_no_projection(form, dtype):
    ours, theirs, config = both(form, num_heads=1, head_dim=12)
    ours = {name: value.to(dtype) for name, value in ours.items()}
    theirs = write(form, ours, config)
    theirs = {name: v for name, v in theirs.items() if "to_out" not in name}
    for i in range(2):
        ours[f"blocks.{i}.attn.proj.weight"] = torch.eye(12, dtype=dtype)
        ours[f"blocks.{i}.attn.proj.bias"] = torch.zeros(12, dtype=dtype)
    for head_dim in (None, 12):
        config = dataclasses.replace(config, head_dim=head_dim)
        assert_same(convert_state_dict(theirs, "vit-pytorch", config), ours)
    assert infer_config(theirs, "vit-pytorch", **told_of(form) | {"num_heads": 1}) == (
        dataclasses.replace(config, head_dim=None)
    )


@pytest.mark.parametrize(
    ("form", "changes"),
    [
        ("vit-pytorch", {"num_heads": 1, "head_dim": 5}),
        ("vit-pytorch", {"num_heads": 4, "head_dim": 3}),
        ("timm", {"num_heads": 1}),
    ],
)
def test_otherwise_a_projection_is_needed(form, changes):
    _, theirs, config = both(form, **changes)
    gone = next(name for name in theirs if re.search(r"to_out|attn\.proj", name))
    del theirs[gone]
    with pytest.raises(ValueError, match=f"^{re.escape(repr(gone))} is missing: the"):
        convert_state_dict(theirs, source_of(form), config)


def test_numbers_keep_their_dtype():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        for form in ("timm", "transformers", "vit-pytorch", "zuppichini"):
            ours, _, config = both(form)
            ours = {name: value.to(dtype) for name, value in ours.items()}
            theirs = write(form, ours, config)
            found = convert_state_dict(theirs, source_of(form), config)
            assert_same(found, ours)
            assert {value.dtype for value in found.values()} == {dtype}


def test_arrays_are_read_like_tensors():
    ours, theirs, config = both("jax")
    for dtype in (np.float16, np.float32, np.float64):
        arrays = {name: value.astype(dtype) for name, value in theirs.items()}
        found = convert_state_dict(arrays, "jax", config)
        expected = {
            name: torch.from_numpy(value.numpy().astype(dtype))
            for name, value in ours.items()
        }
        assert_same(found, expected)
    tensors = {name: torch.from_numpy(value) for name, value in theirs.items()}
    assert_same(convert_state_dict(tensors, "jax", config), ours)


def test_an_array_that_must_not_be_written_is_read():
    """As np.load with mmap_mode="r" returns it; torch warns of such arrays."""
    ours, theirs, config = both("jax")
    for value in theirs.values():
        value.flags.writeable = False
    assert_same(convert_state_dict(theirs, "jax", config), ours)


# ---- who wrote it -----------------------------------------------------------------


@pytest.mark.parametrize("form", FORM_NAMES)
def test_the_source_is_told_by_the_keys(form):
    _, theirs, _ = both(form)
    assert detect_source(theirs) == source_of(form)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
@pytest.mark.parametrize("form", FORM_NAMES)
def test_wrappers_prefixes_are_taken_off(prefix, form):
    ours, theirs, config = both(form)
    wrapped = {prefix + name: value for name, value in theirs.items()}
    assert detect_source(wrapped) == source_of(form)
    assert_same(convert_state_dict(wrapped, source_of(form), config), ours)
    assert infer_config(wrapped, source_of(form), **told_of(form)) == config


def test_wrapped_twice():
    ours, theirs, config = both("timm")
    for prefix in ("module._orig_mod.", "module.model.", "_orig_mod.model."):
        wrapped = {prefix + name: value for name, value in theirs.items()}
        assert_same(convert_state_dict(wrapped, "timm", config), ours)


def test_a_training_states_prefix():
    ours, theirs, config = both("jax")
    wrapped = {f"opt/target/{name}": value for name, value in theirs.items()}
    assert detect_source(wrapped) == "jax"
    assert_same(convert_state_dict(wrapped, "jax", config), ours)


def test_a_whole_training_state():
    """Beside the weights it holds the optimizer's and a step."""
    ours, theirs, config = both("jax")
    whole = {f"opt/target/{name}": value for name, value in theirs.items()}
    whole |= {f"opt/state/{name}": value for name, value in theirs.items()}
    whole |= {"opt/state/step": np.array(3), "extra/rng": np.array([1, 2])}
    assert detect_source(whole) == "jax"
    assert_same(convert_state_dict(whole, "jax", config), ours)
    assert infer_config(whole, "jax") == config


@pytest.mark.parametrize("form", ["transformers", "transformers, files"])
def test_a_transformers_model_without_its_classifier(form):
    _, theirs, _ = both(form)
    body = {k.removeprefix("vit."): v for k, v in theirs.items() if k[:4] == "vit."}
    message = (
        "this is a transformers model without its classifier: save the whole "
        "ViTForImageClassification"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        detect_source(body)
    with pytest.raises(ValueError, match=exact_match(message)):
        infer_config(body, "transformers")


HEADS = {
    "timm": "head.weight",
    "timm, pooled": "head.weight",
    "torchvision": "heads.head.weight",
    "torchvision, files": "heads.head.weight",
    "transformers": "classifier.weight",
    "transformers, files": "classifier.weight",
    "vit-pytorch": "mlp_head.weight",
    "vit-pytorch, old": "mlp_head.1.weight",
    "jax": "head/kernel",
}


@pytest.mark.parametrize("form", HEADS)
def test_a_model_without_a_head(form):
    _, theirs, config = both(form)
    del theirs[HEADS[form]]
    message = rf"^'{HEADS[form]}' is missing: .*; without its head a model cannot "
    for call in (
        lambda: convert_state_dict(theirs, source_of(form), config),
        lambda: infer_config(theirs, source_of(form), **told_of(form)),
    ):
        with pytest.raises(ValueError, match=message + r"score classes$"):
            call()


def test_a_prefix_that_not_all_keys_have_is_a_name():
    _, theirs, config = both("timm")
    theirs["module.cls_token"] = theirs.pop("cls_token")
    with pytest.raises(
        ValueError,
        match=exact_match(
            "'cls_token' is missing: the nearest key that is there is "
            "'module.cls_token'"
        ),
    ):
        convert_state_dict(theirs, "timm", config)


def test_data_parallel_itself():
    model = torch.nn.DataParallel(ViT(CONFIG))
    found = convert_state_dict(model.state_dict(), "timm", CONFIG)
    assert_same(found, ViT.state_dict(model.module))


def test_an_unknown_source():
    with pytest.raises(
        ValueError,
        match=exact_match(
            "no known source has keys like 'a', 'b', 'c': the known ones are timm, "
            "torchvision, transformers, vit-pytorch, jax, zuppichini; a new one needs "
            "a table as in vitlib/dialects.py"
        ),
    ):
        detect_source(dict.fromkeys("abcd", torch.ones(1)))


@pytest.mark.parametrize("form", FORM_NAMES)
@pytest.mark.parametrize("call", ["convert", "infer"])
def test_another_source_than_was_said(form, call):
    _, theirs, config = both(form)
    signs = {
        "timm": "'fc_norm.weight' or 'blocks.0.attn.qkv.weight'",
        "torchvision": "'encoder.layers.encoder_layer_0.mlp.0.weight' or "
        "'encoder.layers.encoder_layer_0.mlp.linear_1.weight'",
        "transformers": "'vit.layers.0.attention.q_proj.weight' or "
        "'vit.encoder.layer.0.attention.attention.query.weight'",
        "vit-pytorch": "'transformer.layers.0.0.to_qkv.weight' or "
        "'transformer.layers.0.0.fn.to_qkv.weight'",
        "jax": "'Transformer/encoderblock_0/LayerNorm_0/scale'",
        "zuppichini": "'0.projection.0.weight'",
    }
    for wrong in set(SOURCES) - {source_of(form)}:
        three = ", ".join(repr(key) for key in list(theirs)[:3])
        message = (
            f"this is no {wrong} state dict: {signs[wrong]} is missing, there are "
            f"{three}; it looks like {source_of(form)!r}"
        )
        with pytest.raises(ValueError, match=exact_match(message)):
            if call == "convert":
                convert_state_dict(theirs, wrong, config)
            else:
                infer_config(theirs, wrong)


# ---- sizes from shapes ------------------------------------------------------------


@pytest.mark.parametrize("form", FORM_NAMES)
def test_the_config_is_read_from_the_shapes(form):
    _, theirs, config = both(form)
    assert infer_config(theirs, source_of(form), **told_of(form)) == config
    everything = {
        name: getattr(config, name) for name in ("norm_eps", "gelu", "pool")
    } | {"num_heads": 4, "image_size": 6, "patch_size": 2}
    assert infer_config(theirs, source_of(form), **everything) == config


def test_what_shapes_do_not_show_is_taken_as_given():
    _, theirs, _ = both("timm")
    config = infer_config(
        theirs, "timm", num_heads=6, norm_eps=1e-3, gelu="tanh", pool="cls"
    )
    assert (config.num_heads, config.norm_eps, config.gelu) == (6, 1e-3, "tanh")
    assert config.head_dim is None
    for pool in ("mean", "mean_all"):
        _, theirs, _ = both("timm, pooled", pool=pool)
        told = TOLD | {"pool": pool}
        assert infer_config(theirs, "timm", **told).pool == pool


def of_width(embed_dim, hidden_dim):
    """Return a timm state dict with these sizes in the tensors that are measured."""
    return {
        "cls_token": torch.empty(1, 1, embed_dim),
        "pos_embed": torch.empty(1, 10, embed_dim),
        "patch_embed.proj.weight": torch.empty(embed_dim, 3, 2, 2),
        "blocks.0.attn.qkv.weight": torch.empty(3 * embed_dim, embed_dim),
        "blocks.0.mlp.fc1.weight": torch.empty(hidden_dim, embed_dim),
        "head.weight": torch.empty(7, embed_dim),
    }


@given(st.integers(1, 3000), st.integers(1, 9000))
def test_any_mlp_is_as_wide_as_it_was(embed_dim, hidden_dim):
    with torch.device("meta"):
        theirs = of_width(embed_dim, hidden_dim)
    config = infer_config(theirs, "timm", **TOLD | {"num_heads": 1})
    assert int(embed_dim * config.mlp_ratio) == hidden_dim
    assert config.mlp_ratio == pytest.approx(hidden_dim / embed_dim, rel=1e-15)


def test_ratios_whose_product_rounds_down():
    """49 * (8 / 49) is a little less than 8."""
    lengths = [m for m in range(1, 441) if int(49 * (m / 49)) != m]
    assert len(lengths) > 20
    for hidden_dim in lengths:
        config = infer_config(
            of_width(49, hidden_dim), "timm", **TOLD | {"num_heads": 1}
        )
        assert int(49 * config.mlp_ratio) == hidden_dim
        assert config.mlp_ratio == pytest.approx(hidden_dim / 49, rel=1e-15)
    config = infer_config(of_width(12, 20), "timm", **TOLD)
    assert config.mlp_ratio == 20 / 12  # not touched where it need not be


@pytest.mark.parametrize("form", FLAT)
@pytest.mark.parametrize(
    ("channels", "patch_size", "image_size"), [(3, 2, 6), (1, 3, 9), (3, 1, 2)]
)
def test_flat_patches_in_colour_or_grey(form, channels, patch_size, image_size):
    changes = {
        "in_channels": channels,
        "patch_size": patch_size,
        "image_size": image_size,
    }
    _, theirs, config = both(form, **changes)
    assert infer_config(theirs, "vit-pytorch", **told_of(form)) == config


@pytest.mark.parametrize("form", FLAT)
def test_flat_patches_of_another_form_must_be_given(form):
    changes = {"patch_size": (2, 3), "in_channels": 4, "image_size": (6, 9)}
    _, theirs, config = both(form, **changes)
    message = (
        "a flat patch has 24 values, no square in colour or grey: give "
        "patch_size=(p1, p2)"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        infer_config(theirs, "vit-pytorch", **told_of(form))
    told = told_of(form) | {"patch_size": (2, 3)}
    assert infer_config(theirs, "vit-pytorch", **told) == config


def test_twelve_values_are_a_colour_patch_and_nine_a_grey_one():
    """What both could be, a 6x6 patch in grey or 2x... is taken for colour first."""
    _, theirs, _ = both("vit-pytorch", patch_size=2, in_channels=3)
    assert theirs["to_patch_embedding.2.weight"].shape[1] == 12
    told = told_of("vit-pytorch") | {"patch_size": (4, 3), "image_size": (12, 9)}
    config = infer_config(theirs, "vit-pytorch", **told)
    assert (config.in_channels, config.patch_size) == (1, (4, 3))


def test_images_that_are_not_square_must_be_given():
    _, theirs, config = both("timm", image_size=(4, 10))
    message = (
        "10 patches are no square grid: give image_size=(H, W), the size it was "
        "trained for"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        infer_config(theirs, "timm", **TOLD)
    assert infer_config(theirs, "timm", image_size=(4, 10), **TOLD) == config


def test_without_class_token_every_row_is_a_patch():
    changes = {"class_token": False, "pool": "mean"}
    ours, theirs, config = both("timm, pooled", **changes)
    assert infer_config(theirs, "timm", **TOLD | {"pool": "mean"}) == config
    assert_same(convert_state_dict(theirs, "timm", config), ours)
    theirs["pos_embed"] = torch.randn(1, 10, 12)
    with pytest.raises(ValueError, match=r"^10 patches are no square grid: give"):
        infer_config(theirs, "timm", **TOLD | {"pool": "mean"})


ASKED = {
    "num_heads": "num_heads (embed_dim / 64 in most published models)",
    "norm_eps": "norm_eps (1e-6, 1e-5 and 1e-12 are all in use)",
    "gelu": "gelu ('erf' or 'tanh')",
    "pool": "pool ('cls', 'mean' or 'mean_all')",
}


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        ("timm", ["num_heads"]),
        ("timm", ["norm_eps"]),
        ("timm", ["gelu"]),
        ("timm", ["pool"]),
        ("timm", ["num_heads", "norm_eps", "gelu", "pool"]),
        ("timm, pooled", ["norm_eps", "pool"]),
        ("torchvision", ["num_heads", "norm_eps"]),
        ("torchvision, files", ["norm_eps"]),
        ("transformers", ["num_heads", "norm_eps", "gelu"]),
        ("transformers, files", ["gelu"]),
        ("vit-pytorch", ["num_heads"]),
        ("vit-pytorch, old", ["num_heads", "pool"]),
        ("zuppichini", ["num_heads"]),
    ],
)
def test_all_that_is_missing_is_named(form, missing):
    # Its first versions have two pools.
    asked = ASKED | ({"pool": "pool ('cls' or 'mean_all')"} if "old" in form else {})
    _, theirs, _ = both(form)
    told = {k: v for k, v in told_of(form).items() if k not in missing}
    message = (
        f"a {source_of(form)} state dict does not say {', '.join(missing)}: look them "
        "up in the code that trained it, and give "
        + ", ".join(asked[name] for name in missing)
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        infer_config(theirs, source_of(form), **told)


@pytest.mark.parametrize(
    ("form", "given", "key", "axis", "length", "does"),
    [
        ("timm", {"num_heads": 5}, "blocks.0.attn.proj.weight", "h d", 12,
         "num_heads 5"),
        ("timm", {"num_heads": 500}, "blocks.0.attn.proj.weight", "h d", 12,
         "num_heads 500"),
        ("torchvision", {"num_heads": 24},
         "encoder.layers.encoder_layer_0.self_attention.out_proj.weight", "h d", 12,
         "num_heads 24"),
        ("transformers", {"num_heads": 7}, "vit.layers.0.attention.q_proj.weight",
         "h d", 12, "num_heads 7"),
        ("jax", {"num_heads": 3},
         "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel", "h",
         4, "num_heads 3"),
        ("zuppichini", {"num_heads": 8}, "1.0.0.fn.1.projection.weight", "h d", 12,
         "num_heads 8"),
        ("vit-pytorch", {"patch_size": (2, 4)}, "to_patch_embedding.1.weight",
         "p1 p2 c", 12, "patch_size 2 and patch_size 4"),
        ("vit-pytorch, old", {"patch_size": 5}, "to_patch_embedding.1.weight",
         "p1 p2 c", 12, "patch_size 5 and patch_size 5"),
    ],
)  # fmt: skip
def test_what_was_given_must_fit_the_shapes(form, given, key, axis, length, does):
    _, theirs, _ = both(form)
    message = (
        f"{key!r} has an axis ({axis}) of {length}; that does not fit {does}: correct "
        "what was given"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        infer_config(theirs, source_of(form), **told_of(form) | given)


# ---- what contradicts the source --------------------------------------------------


@pytest.mark.parametrize(
    ("form", "changes", "always"),
    [
        ("timm", {"patch_norm": True}, "patch_norm=True| False or 'after'"),
        ("torchvision", {"gelu": "tanh"}, "gelu='tanh'| 'erf'"),
        ("torchvision", {"pool": "mean"}, "pool='mean'| 'cls'"),
        ("torchvision", {"qkv_bias": False}, "qkv_bias=False| True"),
        ("torchvision, files", {"patch_norm": True}, "patch_norm=True| False"),
        ("transformers", {"pool": "mean_all"}, "pool='mean_all'| 'cls'"),
        ("transformers", {"patch_norm": "after"}, "patch_norm='after'| False"),
        ("vit-pytorch", {"norm_eps": 1e-6}, "norm_eps=1e-06| 1e-05"),
        ("vit-pytorch", {"gelu": "tanh"}, "gelu='tanh'| 'erf'"),
        ("vit-pytorch", {"qkv_bias": True}, "qkv_bias=True| False"),
        ("vit-pytorch", {"patch_norm": False}, "patch_norm=False| True"),
        ("vit-pytorch, old", {"norm_eps": 1e-6}, "norm_eps=1e-06| 1e-05"),
        ("vit-pytorch, old", {"gelu": "tanh"}, "gelu='tanh'| 'erf'"),
        ("vit-pytorch, old", {"qkv_bias": True}, "qkv_bias=True| False"),
        ("vit-pytorch, old", {"pool": "mean"}, "pool='mean'| 'cls' or 'mean_all'"),
        ("vit-pytorch, old", {"patch_norm": True}, "patch_norm=True| False"),
        ("vit-pytorch, old", {"class_token": False}, "class_token=False| True"),
        ("jax", {"norm_eps": 1e-5}, "norm_eps=1e-05| 1e-06"),
        ("jax", {"gelu": "erf"}, "gelu='erf'| 'tanh'"),
        ("jax", {"qkv_bias": False}, "qkv_bias=False| True"),
        ("jax", {"patch_norm": True}, "patch_norm=True| False"),
        ("zuppichini", {"norm_eps": 1e-6}, "norm_eps=1e-06| 1e-05"),
        ("zuppichini", {"gelu": "tanh"}, "gelu='tanh'| 'erf'"),
        ("zuppichini", {"pool": "cls"}, "pool='cls'| 'mean_all'"),
        ("zuppichini", {"qkv_bias": False}, "qkv_bias=False| True"),
        ("zuppichini", {"class_token": False}, "class_token=False| True"),
        ("zuppichini", {"patch_norm": True}, "patch_norm=True| False"),
    ],
)
def test_what_the_sources_code_fixes(form, changes, always):
    _, theirs, config = both(form)
    wrong, right = always.split("|")
    source = source_of(form)
    message = (
        f"config has {wrong}, a {source} model of this kind always has{right}: "
        "give that"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        convert_state_dict(theirs, source, dataclasses.replace(config, **changes))
    if changes.keys() <= {"norm_eps", "gelu", "pool"}:
        with pytest.raises(ValueError, match=exact_match(message)):
            infer_config(theirs, source, **told_of(form) | changes)


@pytest.mark.parametrize("call", ["convert", "infer"])
@pytest.mark.parametrize(
    ("form", "pool", "drop"),
    [
        ("timm", "mean", None),
        ("timm", "mean_all", None),
        ("vit-pytorch", "mean", None),
        ("vit-pytorch", "mean_all", None),
        ("vit-pytorch", "cls", "cls_token"),
        ("jax", "mean", None),
        ("jax", "cls", "cls"),
    ],
)
def test_norm_before_mean_pooling_is_refused(form, pool, drop, call):
    _, theirs, config = both(form)
    if drop:
        del theirs[drop]
    source = source_of(form)
    message = (
        f"norm before mean pooling: such a {source} model normalises every token and "
        "averages then; ViT pools first, which gives other logits"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        if call == "convert":
            config = dataclasses.replace(config, pool=pool)
            convert_state_dict(theirs, source, config)
        else:
            infer_config(theirs, source, **told_of(form) | {"pool": pool})


def test_an_empty_class_token_is_none():
    """vit-pytorch 1.26 with mean pooling keeps a class token of no rows."""
    _, theirs, config = both("vit-pytorch")
    theirs["cls_token"] = torch.empty(0, 12)
    for call in (
        lambda: convert_state_dict(theirs, "vit-pytorch", config),
        lambda: infer_config(theirs, "vit-pytorch", num_heads=4),
    ):
        with pytest.raises(ValueError, match=r"^norm before mean pooling: such a vit"):
            call()


def test_a_pooled_class_token_is_read():
    """With one token pooled, the order of norm and pool makes no difference."""
    ours, theirs, config = both("timm, pooled", pool="cls")
    assert_same(convert_state_dict(theirs, "timm", config), ours)


# ---- what cannot be expressed -----------------------------------------------------

LAYER_SCALE = (
    "LayerScale, which ViT cannot express: multiply the rows of each block's "
    "attn.proj and mlp.fc2, weight and bias, by their gamma, and drop the gammas"
)
FEATURES = {
    "a distillation token (DeiT distilled), which ViT cannot express": [
        "dist_token", "head_dist.weight", "vit.embeddings.distillation_token",
        "distillation_classifier.bias",
    ],
    "register tokens, which ViT cannot express": [
        "reg_token", "register_tokens", "embeddings.register_tokens",
    ],
    "qk-norm, which ViT cannot express": [
        "blocks.0.attn.q_norm.weight", "blocks.1.attn.k_norm.bias",
        "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query_ln/scale",
        "a/key_ln/scale", "a.query_norm.weight", "a_key_norm.weight",
    ],
    LAYER_SCALE: [
        "blocks.0.ls1.gamma", "blocks.0.ls2.gamma", "blocks.0.gamma_1",
        "blocks.0.gamma_2", "layer.0.layer_scale1.lambda1", "a.layerscale",
    ],
    "pre_logits, a hidden layer with tanh before the head, which ViT cannot express": [
        "pre_logits.fc.weight", "pre_logits/kernel", "heads.pre_logits.bias",
    ],
    "a norm before the first block, which ViT cannot express": [
        "norm_pre.weight", "vision.pre_layrnorm.bias",
        "visual.ln_pre.weight",
    ],
    "another position scheme (relative), which ViT cannot express": [
        "blocks.0.attn.rel_pos.relative_position_bias_table", "rel_pos_h",
        "blocks.0.attn.relative_position_index", "rope.periods", "a.rotary_emb.freqs",
    ],
    "a convolutional stem (hybrid), which ViT cannot express": [
        "patch_embed.backbone.stem.conv.weight", "conv_root/kernel",
        "conv_proj.conv_bn_relu_0.0.weight",
        "block1/unit1/conv1/kernel",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "message"),
    [(key, message) for message, keys in FEATURES.items() for key in keys],
)
def test_features_that_we_lack_are_refused_by_name(key, message):
    _, theirs, config = both("timm")
    theirs[key] = torch.ones(1)
    message = exact_match(f"{key!r}: the model has {message}")
    for call in (
        lambda: detect_source(theirs),
        lambda: infer_config(theirs, "timm", **TOLD),
        lambda: convert_state_dict(theirs, "timm", config),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_no_forms_keys_look_like_a_feature():
    """Names that hold one by accident are let through to be called left over."""
    _, theirs, config = both("timm")
    for key in ("blocks.0.lsx", "xls1", "blocks.0.ls12", "propeller", "q_norms"):
        with pytest.raises(ValueError, match=f"^'{key}' is left over"):
            convert_state_dict(theirs | {key: torch.ones(1)}, "timm", config)


def test_the_way_out_of_layer_scale_leads_to_equal_logits():
    """What the message says, done: gammas on the branches' ends."""
    ours, theirs, config = both("timm")
    gammas = {(i, j): torch.randn(12) for i in range(2) for j in (1, 2)}
    model = fill({k: v.clone() for k, v in ours.items()}, config)
    for (i, j), gamma in gammas.items():
        branch = model.blocks[i].attn if j == 1 else model.blocks[i].mlp
        branch.register_forward_hook(lambda _, __, out, gamma=gamma: out * gamma)
        layer = f"blocks.{i}." + ("attn.proj" if j == 1 else "mlp.fc2")
        theirs[f"{layer}.weight"] = theirs[f"{layer}.weight"] * gamma[:, None]
        theirs[f"{layer}.bias"] = theirs[f"{layer}.bias"] * gamma
    images = torch.randn(2, 3, 6, 6)
    found = fill(convert_state_dict(theirs, "timm", config), config)(images)
    torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORM_NAMES)
@pytest.mark.parametrize("call", ["convert", "infer"])
def test_another_position_scheme(form, call):
    _, theirs, config = both(form)
    key = next(key for key in theirs if re.search(r"pos_|positions$|position_", key))
    axes = "(t, e)" if form in ("vit-pytorch", "zuppichini") else "(1, t, e)"

    def read():
        if call == "convert":
            convert_state_dict(theirs, source_of(form), config)
        else:
            infer_config(theirs, source_of(form), **told_of(form))

    theirs[key] = torch.ones(2, 3, 4, 12)
    message = (
        f"{key!r} has shape (2, 3, 4, 12): another position scheme; one table is "
        f"needed, {axes}"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read()
    del theirs[key]
    message = (
        f"{key!r} is missing: another position scheme; if its table is fixed, put "
        "the table there"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read()


def test_positions_without_a_class_token():
    ours, theirs, config = both("timm")
    theirs["pos_embed"] = ours["pos_embed"][:, 1:]
    message = (
        "'pos_embed' has 9 rows, none for the class token: another position scheme; "
        "put a row of zeros in front of the others"
    )
    inferred = infer_config(theirs, "timm", **TOLD)
    assert inferred == config
    with pytest.raises(ValueError, match=exact_match(message)):
        convert_state_dict(theirs, "timm", inferred)
    zeros = torch.zeros(1, 1, 12)
    theirs["pos_embed"] = torch.cat([zeros, theirs["pos_embed"]], dim=1)
    ours["pos_embed"] = theirs["pos_embed"]
    assert_same(convert_state_dict(theirs, "timm", config), ours)


@pytest.mark.parametrize(
    ("form", "new_size"),
    [("timm", 10), ("vit-pytorch", 10), ("jax", (4, 8)), ("timm, pooled", (8, 6))],
)
def test_the_resampling_message_leads_to_a_working_model(form, new_size):
    """Each of its steps, taken from its own words."""
    changes = {}
    if form == "timm, pooled":
        changes = {"class_token": False}
    _, theirs, config = both(form, **changes)
    source = source_of(form)
    wanted = dataclasses.replace(config, image_size=new_size)
    rows, cols = wanted.grid_size
    count = 9 + config.class_token
    with pytest.raises(
        ValueError,
        match=re.escape(
            f" has {count} rows, learned for a grid of 3x3; config has {rows}x{cols}: "
            "convert with the file's own image_size, then stretch the converted "
            f"pos_embed with resample_pos_embed(pos_embed, 3, ({rows}, {cols}))"
        ),
    ) as caught:
        convert_state_dict(theirs, source, wanted)
    with pytest.raises(ValueError, match=f"config has {rows}x{cols}: convert with"):
        told = infer_config(
            theirs, source, **told_of(form, **changes), image_size=new_size
        )
        convert_state_dict(theirs, source, told)

    own = infer_config(theirs, source, **told_of(form, **changes))
    state = convert_state_dict(theirs, source, own)
    (call,) = re.findall(r"resample_pos_embed\(.*\)\)", str(caught.value))
    said = {"resample_pos_embed": resample_pos_embed, "pos_embed": state["pos_embed"]}
    state["pos_embed"] = eval(call, said)
    old = convert_state_dict(theirs, source, own)["pos_embed"]
    if config.class_token:
        assert torch.equal(state["pos_embed"][:, :1], old[:, :1])
    grid = old[:, -9:].reshape(1, 3, 3, 12).permute(0, 3, 1, 2)
    stretched = torch.nn.functional.interpolate(
        grid, size=(rows, cols), mode="bicubic", antialias=True
    )
    expected = stretched.permute(0, 2, 3, 1).reshape(1, rows * cols, 12)
    found = state["pos_embed"][:, -rows * cols :]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    logits = fill(state, wanted)(torch.randn(2, 3, 2 * rows, 2 * cols))
    assert logits.shape == (2, 7) and logits.isfinite().all()


SIGNS = {
    "timm": "blocks.0.attn.qkv.weight",
    "timm, pooled": "fc_norm.weight",
    "torchvision": "encoder.layers.encoder_layer_0.mlp.0.weight",
    "torchvision, files": "encoder.layers.encoder_layer_0.mlp.linear_1.weight",
    "transformers": "vit.layers.0.attention.q_proj.weight",
    "transformers, files": "vit.encoder.layer.0.attention.attention.query.weight",
    "vit-pytorch": "transformer.layers.0.0.to_qkv.weight",
    "vit-pytorch, old": "transformer.layers.0.0.fn.to_qkv.weight",
    "jax": "Transformer/encoderblock_0/LayerNorm_0/scale",
    "zuppichini": "0.projection.0.weight",
}


# ---- keys that are missing, left over or of another shape -------------------------


@pytest.mark.parametrize("form", FORM_NAMES)
def test_any_missing_key_is_named(form):
    _, theirs, config = both(form, depth=1)
    source = source_of(form)
    for key in theirs:
        fewer = {name: value for name, value in theirs.items() if name != key}
        if key.startswith(("vit.pooler", "vit.embeddings.mask")):
            convert_state_dict(fewer, source, config)
            continue
        if key == SIGNS[form]:
            continue
        with pytest.raises(ValueError) as caught:
            convert_state_dict(fewer, source, config)
        message = str(caught.value)
        if key in ("cls_token", "cls") and form in ("vit-pytorch", "jax"):
            assert message.startswith("norm before mean pooling")
        else:
            assert repr(key) in message and " is missing" in message, message


def test_the_nearest_key_is_named():
    _, theirs, config = both("torchvision")
    old = "encoder.layers.encoder_layer_1.ln_1.weight"
    new = "encoder.layers.encoder_layer_1.ln1.weight"
    theirs[new] = theirs.pop(old)
    message = f"{old!r} is missing: the nearest key that is there is {new!r}"
    with pytest.raises(ValueError, match=exact_match(message)):
        convert_state_dict(theirs, "torchvision", config)


def test_keys_that_nothing_was_read_from_are_nearer():
    """A renamed key is offered before one that stands where it belongs."""
    _, theirs, config = both("timm")
    theirs["norm_layer.weight"] = theirs.pop("norm.weight")
    message = "'norm.weight' is missing: the nearest key that is there is "
    with pytest.raises(ValueError, match=f"^{message}'norm_layer.weight'$"):
        convert_state_dict(theirs, "timm", config)
    del theirs["norm_layer.weight"]
    with pytest.raises(ValueError, match=f"^{message}'blocks.[01].norm[12].weight'$"):
        convert_state_dict(theirs, "timm", config)


def test_several_missing_keys_are_counted():
    _, theirs, config = both("timm")
    for i in range(2):
        del theirs[f"blocks.{i}.norm2.bias"]
    message = (
        "'blocks.0.norm2.bias' is missing, and 1 more: the nearest key that is there "
        "is "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        convert_state_dict(theirs, "timm", config)
    _, theirs, config = both("transformers")
    for letter in "qkv":
        del theirs[f"vit.layers.1.attention.{letter}_proj.bias"]
    message = "'vit.layers.1.attention.q_proj.bias' is missing, and 2 more: the "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        convert_state_dict(theirs, "transformers", config)


def test_keys_that_are_left_over():
    _, theirs, config = both("timm")
    theirs["norm3.weight"] = torch.ones(12)
    message = (
        "'norm3.weight' is left over: the nearest key that is expected is "
        "'norm.weight'; the model has a part that ViT or the config lacks"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        convert_state_dict(theirs, "timm", config)
    theirs["norm3.bias"] = torch.ones(12)
    message = message.replace("left over:", "left over, and 1 more:")
    with pytest.raises(ValueError, match=exact_match(message)):
        convert_state_dict(theirs, "timm", config)


def test_only_transformers_may_have_a_pooler():
    _, theirs, config = both("torchvision")
    theirs["vit.pooler.dense.weight"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"^'vit.pooler.dense.weight' is left over"):
        convert_state_dict(theirs, "torchvision", config)


def test_a_bias_that_the_config_lacks_is_left_over():
    _, theirs, config = both("timm")
    config = dataclasses.replace(config, qkv_bias=False)
    with pytest.raises(
        ValueError,
        match=r"^'blocks.0.attn.qkv.bias' is left over, and 1 more: the nearest key "
        r"that is expected is 'blocks.0.attn.proj.bias'; the model has a part",
    ):
        convert_state_dict(theirs, "timm", config)


def test_another_number_of_blocks():
    _, theirs, config = both("timm", depth=3)
    for depth in (2, 4):
        config = dataclasses.replace(config, depth=depth)
        message = f"the state dict has 3 blocks, config.depth is {depth}: give depth=3"
        with pytest.raises(ValueError, match=exact_match(message)):
            convert_state_dict(theirs, "timm", config)


SHAPES = {
    "timm": ("blocks.1.attn.proj.weight", (12, 12), "(e, h*d)"),
    "timm, pooled": ("fc_norm.bias", (12,), "(e)"),
    "torchvision": (
        "encoder.layers.encoder_layer_1.self_attention.in_proj_weight",
        (36, 12),
        "(three*h*d, e)",
    ),
    "torchvision, files": (
        "encoder.layers.encoder_layer_0.mlp.linear_2.weight",
        (12, 20),
        "(e, m)",
    ),
    "transformers": ("vit.layers.0.attention.k_proj.weight", (12, 12), "(h*d, e)"),
    "transformers, files": ("classifier.weight", (7, 12), "(k, e)"),
    "vit-pytorch": ("to_patch_embedding.2.weight", (12, 12), "(e, p1*p2*c)"),
    "vit-pytorch, old": ("cls_token", (1, 1, 12), "(1, 1, e)"),
    "jax": (
        "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/out/kernel",
        (4, 3, 12),
        "(h, d, e)",
    ),
    "zuppichini": ("1.1.0.fn.1.qkv.weight", (36, 12), "(h*d*three, e)"),
}


@pytest.mark.parametrize("form", FORM_NAMES)
def test_a_shape_that_does_not_fit(form):
    key, shape, axes = SHAPES[form]
    _, theirs, config = both(form)
    assert tuple(theirs[key].shape) == shape
    longer = (*shape[:-1], shape[-1] + 1)
    theirs[key] = torch.ones(longer)
    message = (
        f"{key!r} has shape {longer}, the config needs {shape}, that is {axes}: "
        "correct the config"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        convert_state_dict(theirs, source_of(form), config)


@pytest.mark.parametrize("form", FORM_NAMES)
def test_any_shape_that_does_not_fit_is_named(form):
    _, theirs, config = both(form, depth=1)
    for key, value in theirs.items():
        if key.startswith(("vit.pooler", "vit.embeddings.mask")):
            continue
        wrong = theirs | {key: torch.ones(*value.shape, 2)}
        with pytest.raises(ValueError, match=re.escape(f"{key!r} has shape ")):
            convert_state_dict(wrong, source_of(form), config)


def test_positions_whose_length_is_no_grid():
    _, theirs, config = both("timm")
    theirs["pos_embed"] = torch.ones(1, 12, 12)
    message = (
        "'pos_embed' has shape (1, 12, 12), the config needs (1, 10, 12), that is "
        "(1, t, e): correct the config"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        convert_state_dict(theirs, "timm", config)


@pytest.mark.parametrize(
    "key", ["patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "head.weight"]
)
def test_the_sizes_need_these_keys(key):
    _, theirs, _ = both("timm")
    value = theirs.pop(key)
    with pytest.raises(
        ValueError, match=f"^'{re.escape(key)}' is missing: the nearest key that is"
    ):
        infer_config(theirs, "timm", **TOLD)
    theirs[key] = value[0]
    axes = {"p": "e c p1 p2", "b": "m e", "h": "k e"}[key[0]]
    message = f"{key!r} has shape {tuple(value[0].shape)}, its axes are {axes}"
    with pytest.raises(ValueError, match=exact_match(message)):
        infer_config(theirs, "timm", **TOLD)


def test_the_sizes_need_the_first_blocks_qkv():
    _, theirs, _ = both("timm, pooled")
    value = theirs.pop("blocks.0.attn.qkv.weight")
    with pytest.raises(
        ValueError,
        match=exact_match(
            "'blocks.0.attn.qkv.weight' is missing: the nearest key that is there is "
            "'blocks.1.attn.qkv.weight'"
        ),
    ):
        infer_config(theirs, "timm", **TOLD | {"pool": "mean"})
    theirs["blocks.0.attn.qkv.weight"] = value[0]
    with pytest.raises(ValueError, match=r"its axes are \(three h d\) e$"):
        infer_config(theirs, "timm", **TOLD | {"pool": "mean"})


# ---- rubbish ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (3, "int"),
        ("a", "str"),
        (None, "NoneType"),
        ({"a": torch.ones(1)}, "dict"),
        (torch.ones(2, dtype=torch.int64), "torch.int64"),
        (torch.ones(2, dtype=torch.bool), "torch.bool"),
        (torch.ones(2, dtype=torch.complex64), "torch.complex64"),
        (np.ones(2, dtype=np.int32), "int32"),
        (np.array([object()], dtype=object), "object"),
        (np.array(["a"]), "<U1"),
    ],
)
def test_values_that_are_no_floats(value, holds):
    _, theirs, config = both("timm")
    message = exact_match(
        f"'epoch' holds {holds}, no floats: give the state dict alone; checkpoints "
        "often keep it under 'model' or 'state_dict'"
    )
    for call in (
        lambda: detect_source(theirs | {"epoch": value}),
        lambda: infer_config(theirs | {"epoch": value}, "timm", **TOLD),
        lambda: convert_state_dict(theirs | {"epoch": value}, "timm", config),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("rubbish", "message"),
    [
        (None, "state_dict is a NoneType: give a non-empty mapping from parameter"),
        ([], "state_dict is a list: give a non-empty mapping from parameter"),
        ("a", "state_dict is a str: give a non-empty mapping from parameter"),
        ({}, "state_dict is a dict: give a non-empty mapping from parameter"),
        (torch.ones(2), "state_dict is a Tensor: give a non-empty mapping"),
        (ViT(CONFIG), "a module arrived: give its state_dict()"),
        (torch.nn.ParameterDict({"a": torch.ones(2)}), "a module arrived: give its"),
    ],
)
def test_what_is_no_state_dict(rubbish, message):
    for call in (
        lambda: detect_source(rubbish),
        lambda: infer_config(rubbish, "timm"),
        lambda: convert_state_dict(rubbish, "timm", CONFIG),
    ):
        with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
            call()


def test_other_rubbish():
    _, theirs, _ = both("timm")
    for source in (None, 3, "Timm", "", ["timm"]):
        message = (
            f"source is {source!r}: give one of 'timm', 'torchvision', 'transformers', "
            "'vit-pytorch', 'jax', 'zuppichini'"
        )
        with pytest.raises(ValueError, match=exact_match(message)):
            convert_state_dict(theirs, source, CONFIG)
        with pytest.raises(ValueError, match=exact_match(message)):
            infer_config(theirs, source)
    for config in (None, {}, dataclasses.asdict(CONFIG)):
        message = f"config is a {type(config).__name__}: give a ViTConfig"
        with pytest.raises(TypeError, match=exact_match(message)):
            convert_state_dict(theirs, "timm", config)
    for name, value, error, message in (
        ("num_heads", "4", TypeError, "num_heads is '4': give a whole number"),
        ("num_heads", 0, ValueError, "num_heads is 0: give a whole number of at"),
        ("patch_size", 2.5, TypeError, "patch_size is 2.5: give a whole number"),
        ("patch_size", (0, 2), ValueError, "patch_size is 0: give a whole number"),
        ("image_size", "6", TypeError, "image_size is '6': give a whole number"),
        ("image_size", 7, ValueError, "image height 7 is not divisible by patch"),
        ("norm_eps", "1e-6", TypeError, "norm_eps is '1e-6': give a number"),
        ("norm_eps", 0, ValueError, "norm_eps is 0: give a finite number greater"),
        ("gelu", "relu", ValueError, "gelu is 'relu': give one of 'erf', 'tanh'"),
    ):
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            infer_config(theirs, "timm", **TOLD | {name: value})


def test_sizes_of_a_large_model_cost_no_memory():
    """ViT-H: nothing but shapes is looked at."""
    config = ViTConfig(embed_dim=1280, depth=32, num_heads=16, patch_size=14)
    with torch.device("meta"):
        theirs = ViT(config).state_dict()
        found = convert_state_dict(theirs, "timm", config)
    told = TOLD | {"num_heads": 16}
    assert infer_config(theirs, "timm", **told) == config
    assert {name: v.shape for name, v in found.items()} == {
        name: v.shape for name, v in theirs.items()
    }


# ---- what once went wrong ---------------------------------------------------------


@pytest.mark.parametrize("form", FORM_NAMES[:1] + FORM_NAMES[2:])
def test_a_missing_sign_is_named_too(form):
    _, theirs, config = both(form)
    del theirs[SIGNS[form]]
    for call in (
        lambda: convert_state_dict(theirs, source_of(form), config),
        lambda: infer_config(theirs, source_of(form), **told_of(form)),
    ):
        with pytest.raises(ValueError, match=f"{re.escape(SIGNS[form])}.* missing"):
            call()


@pytest.mark.parametrize("form", FORM_NAMES)
def test_positions_of_another_length_are_no_other_grid(form):
    _, theirs, config = both(form)
    key = next(key for key in theirs if re.search(r"pos_|positions$|position_", key))
    theirs[key] = torch.ones(*theirs[key].shape[:-1], 13)
    with pytest.raises(ValueError, match=f"^'{re.escape(key)}' has shape .* needs"):
        convert_state_dict(theirs, source_of(form), config)


def test_a_table_without_patches():
    _, theirs, config = both("timm")
    theirs["pos_embed"] = torch.ones(1, 0, 12)
    for call in (
        lambda: convert_state_dict(theirs, "timm", config),
        lambda: infer_config(theirs, "timm", **TOLD),
    ):
        with pytest.raises(ValueError, match=r"^'pos_embed' has shape \(1, 0, 12\): "):
            call()
    theirs["pos_embed"] = torch.ones(1, 1, 12)
    with pytest.raises(ValueError, match=r"^'pos_embed' has shape \(1, 1, 12\), the "):
        convert_state_dict(theirs, "timm", config)


def test_the_usual_spelling_of_a_norm_before_the_blocks():
    _, theirs, config = both("timm")
    theirs["pre_layernorm.weight"] = torch.ones(1)
    with pytest.raises(ValueError, match="a norm before the first block"):
        convert_state_dict(theirs, "timm", config)


def test_keys_that_are_no_names():
    for key in (1, None, ("a", "b"), b"cls_token"):
        for call in (
            lambda key=key: detect_source({key: torch.ones(1)}),
            lambda key=key: infer_config({key: torch.ones(1)}, "timm"),
            lambda key=key: convert_state_dict({key: torch.ones(1)}, "timm", CONFIG),
        ):
            with pytest.raises((ValueError, TypeError), match="name"):
                call()


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.module.", "model._orig_mod.", "model.module.", "module." * 2]
)
def test_wrapped_in_any_order(prefix):
    ours, theirs, config = both("timm")
    wrapped = {prefix + name: value for name, value in theirs.items()}
    assert_same(convert_state_dict(wrapped, "timm", config), ours)


@pytest.mark.parametrize("form", ["timm", "vit-pytorch", "jax", "zuppichini"])
def test_tensors_without_axes_or_values(form):
    _, theirs, config = both(form)
    scalars = {name: torch.tensor(1.0) for name in theirs}
    empty = {name: torch.as_tensor(value)[..., :0] for name, value in theirs.items()}
    token = next(key for key in theirs if "cls" in key)
    for wrong in (scalars, empty, theirs | {token: torch.tensor(1.0)}):
        for call in (
            lambda wrong=wrong: convert_state_dict(wrong, source_of(form), config),
            lambda wrong=wrong: infer_config(wrong, source_of(form), **told_of(form)),
        ):
            with pytest.raises(ValueError, match="has shape"):
                call()


def test_a_last_norm_alone_is_no_model():
    theirs = {"fc_norm.weight": torch.ones(12), "pos_embed": torch.ones(1, 10, 12)}
    message = "'blocks.0.' is missing: the nearest key that is there is '"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        convert_state_dict(theirs, "timm", config_of("timm, pooled"))


def test_a_block_far_away_is_left_over():
    """Or a file of a few bytes keeps the machine busy for hours."""
    _, theirs, _ = both("timm")
    theirs["blocks.1000000000.norm1.weight"] = torch.ones(12)
    message = exact_match(
        "the state dict has 3 blocks, the last is 'blocks.1000000000.': one is missing "
        "or left over"
    )
    with pytest.raises(ValueError, match=message):
        infer_config(theirs, "timm", **TOLD)
    with pytest.raises(ValueError, match=message):
        convert_state_dict(theirs, "timm", CONFIG)


def test_a_patch_size_that_the_kernel_contradicts():
    _, theirs, _ = both("timm")
    with pytest.raises(ValueError, match="patch_size"):
        infer_config(theirs, "timm", patch_size=3, **TOLD)


@pytest.mark.parametrize("pool", ["max", 3, []])
def test_an_unknown_pool_is_called_so(pool):
    _, theirs, _ = both("timm")
    with pytest.raises(ValueError, match=r"^pool is .*: give one of"):
        infer_config(theirs, "timm", **TOLD | {"pool": pool})


def test_arrays_of_other_machines():
    ours, theirs, config = both("jax")
    swapped = {name: value.astype(">f4") for name, value in theirs.items()}
    assert_same(convert_state_dict(swapped, "jax", config), ours)


def test_half_a_projection_of_one_head():
    """A weight without its bias is no missing layer."""
    _, theirs, config = both("vit-pytorch", num_heads=1, head_dim=12)
    del theirs["transformer.layers.0.0.to_out.0.bias"]
    with pytest.raises(ValueError, match=r"to_out\.0\.bias' is missing"):
        convert_state_dict(theirs, "vit-pytorch", config)


def test_sizes_beyond_any_tensor():
    _, theirs, config = both("timm")
    huge = dataclasses.replace(config, image_size=2**31 - 2, patch_size=2)
    with pytest.raises(ValueError, match="no tensor is as large"):
        convert_state_dict(theirs, "timm", huge)


def test_only_a_missing_head_is_called_so():
    _, theirs, config = both("vit-pytorch, old")
    for key, called in (("mlp_head.0.bias", False), ("mlp_head.1.bias", True)):
        lacking = {name: value for name, value in theirs.items() if name != key}
        with pytest.raises(ValueError, match=re.escape(key)) as caught:
            convert_state_dict(lacking, "vit-pytorch", config)
        assert ("without its head" in str(caught.value)) == called
