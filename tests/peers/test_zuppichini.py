"""The first tutorial's model: rows (h d qkv), scores over the root of e."""

import dataclasses

import pytest
import torch
from agreement import (
    assert_agree,
    assert_differ,
    assert_norms_and_gelus,
    change,
    class_position_last,
    colour_last,
    columns_before_rows,
    draw_images,
    gap,
    heads_out_of_order,
    patches_on_their_side,
    qkv_rows_as,
    redraw,
    swap_norms,
    swap_q_and_k,
    transposed,
    without_qkv_bias,
)
from einops import rearrange
from tutorials import InterleavedAttention, tutorial_1

from vitlib import ViTConfig
from vitlib.checkpoints import load_pretrained
from vitlib.convert import convert_state_dict, detect_source, infer_config

# 4 x 4 = 16 patches of 3*3*3 = 27 values, e = 24, d = 8, hidden 48.
TINY = ViTConfig(
    image_size=12, patch_size=3, num_classes=5, embed_dim=24, depth=2, num_heads=3,
    mlp_ratio=2.0, norm_eps=1e-5, pool="mean_all",
)  # fmt: skip
SQUARE = dataclasses.replace(TINY, mlp_ratio=1.0, num_classes=24)
CONFIGS = {
    "tiny": TINY,
    "square": SQUARE,
    "eight heads": dataclasses.replace(TINY, num_heads=8),
    # Then the roots are the same.
    "one head": dataclasses.replace(TINY, num_heads=1),
    "one colour": dataclasses.replace(TINY, in_channels=1),
    "eleven blocks": dataclasses.replace(TINY, depth=11),
    "384": dataclasses.replace(TINY, image_size=384, patch_size=16, depth=1),
}


def tutorial_model(config):
    return tutorial_1(
        image_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        num_classes=config.num_classes,
        mlp_ratio=int(config.mlp_ratio),
        in_channels=config.in_channels,
    )


@pytest.fixture
def peer(jitter):
    def build(config, dtype=torch.float32):
        model = jitter(tutorial_model(config), 0.2).eval().to(dtype)
        images = draw_images(config, dtype)
        with torch.no_grad():
            return model, images, model(images)

    return build


# ---- equal logits -----------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_equal(peer, name, dtype):
    config = CONFIGS[name]
    model, images, logits = peer(config, dtype)
    state = model.state_dict()
    assert detect_source(state) == "zuppichini"
    said = {"num_heads": config.num_heads}
    assert infer_config(state, "zuppichini", **said) == config
    converted = convert_state_dict(state, "zuppichini", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config)


def test_the_width_of_vit_b_with_eight_heads():
    """Eight heads of 96, the tutorial's default: √(d/e) is 1/√8."""
    config = ViTConfig(depth=2, num_heads=8, norm_eps=1e-5, pool="mean_all")
    with torch.device("meta"):
        model = tutorial_model(config)
    redraw(model)
    images = draw_images(config)
    with torch.no_grad():
        logits = model(images)
    converted = convert_state_dict(model.state_dict(), "zuppichini", config)
    assert_agree(logits, converted, config, images)


def test_the_state_dict_that_was_given_stays_as_it_was(peer):
    """Folding the root into q's rows must not touch the caller's tensors."""
    for name in ("tiny", "one head"):
        state = peer(CONFIGS[name])[0].state_dict()
        before = {key: value.clone() for key, value in state.items()}
        converted = convert_state_dict(state, "zuppichini", CONFIGS[name])
        for value in converted.values():
            assert value.is_contiguous()
        assert all(torch.equal(state[key], before[key]) for key in state)


def test_a_file_needs_only_the_heads(tmp_path, peer):
    model, images, logits = peer(TINY)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ValueError, match="num_heads"):
        load_pretrained(tmp_path / "vit.pth")
    loaded = load_pretrained(tmp_path / "vit.pth", num_heads=3)
    assert loaded.config == TINY
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5


def test_a_whole_pickled_model_is_not_unpickled(tmp_path, peer):
    """`torch.load` of a whole model is one of the tutorials' habits."""
    torch.save(peer(TINY)[0], tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"run any code.*state_dict"):
        load_pretrained(tmp_path / "vit.pth", num_heads=3)


# ---- nearly right -----------------------------------------------------------------


def scores_over_the_root_of_d(state, config):
    """The root of e / d is not folded into q."""
    factor = config.num_heads**0.5

    def rewrite(rows):
        q, kv = rows.tensor_split([config.embed_dim])
        return torch.cat([q * factor, kv])

    return change(state, "attn.qkv", rewrite)


def root_folded_into_k_as_well(state, config):
    def rewrite(rows):
        q, k, v = rows.chunk(3)
        return torch.cat([q, k * config.num_heads**-0.5, v])

    return change(state, "attn.qkv", rewrite)


def bias_of_q_not_scaled(state, config):
    def rewrite(rows):
        q, kv = rows.tensor_split([config.embed_dim])
        return torch.cat([q * config.num_heads**0.5, kv])

    return change(state, "attn.qkv.bias", rewrite)


def rows_as_they_stand(state, config):
    """As if the tutorial's rows were laid out like ours."""
    return qkv_rows_as("(h d three)")(state, config)


@pytest.mark.parametrize(
    "wrong",
    [
        scores_over_the_root_of_d,
        root_folded_into_k_as_well,
        bias_of_q_not_scaled,
        rows_as_they_stand,
        qkv_rows_as("(h three d)"),
        swap_q_and_k,
        heads_out_of_order,
        colour_last,
        patches_on_their_side,
        columns_before_rows,
        class_position_last,
        swap_norms,
        without_qkv_bias,
        transposed("attn.proj"),
        transposed("mlp.fc1"),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_nearly_right_conversions_are_found_out(peer, wrong):
    model, images, logits = peer(SQUARE)
    converted = convert_state_dict(model.state_dict(), "zuppichini", SQUARE)
    assert_agree(logits, converted, SQUARE, images)
    assert_differ(logits, wrong(converted, SQUARE), SQUARE, images, at_least=1e-3)


@pytest.mark.parametrize(
    ("field", "value", "at_least"),
    [
        ("pool", "cls", 1e-2),
        ("pool", "mean", 1e-3),
        ("gelu", "tanh", 1e-5),
        ("norm_eps", 1e-6, 1e-8),
    ],
)
def test_a_wrong_choice_is_found_out_in_double_precision(peer, field, value, at_least):
    model, images, logits = peer(TINY, torch.float64)
    converted = convert_state_dict(model.state_dict(), "zuppichini", TINY)
    other = dataclasses.replace(TINY, **{field: value})
    assert_differ(logits, converted, other, images, at_least)


# ---- versions of the original that divide elsewhere -------------------------------


class AfterTheSoftmax(InterleavedAttention):
    """As versions of the original have it: the weights are divided."""

    def forward(self, tokens):
        q, k, v = rearrange(
            self.qkv(tokens), "b n (h d three) -> three b h n d",
            h=self.num_heads, three=3,
        )  # fmt: skip
        weights = (q @ k.transpose(2, 3)).softmax(dim=-1) * self.scale
        return self.projection(rearrange(weights @ v, "b h n d -> b n (h d)"))


def test_weights_divided_after_the_softmax_are_another_model_with_a_way_out(peer):
    """Same names, same shapes: no state dict tells which of the two trained it."""
    model, images, _ = peer(TINY, torch.float64)
    for block in model[1]:
        block[0].fn[1].__class__ = AfterTheSoftmax
    with torch.no_grad():
        logits = model(images)
    converted = convert_state_dict(model.state_dict(), "zuppichini", TINY)
    assert_differ(logits, converted, TINY, images)

    # Scores not divided at all: q times √e, for the tutorial's order. Weights divided:
    # the last projection's matrix divided, its bias not.
    root = TINY.embed_dim**0.5
    state = model.state_dict()
    for i in range(TINY.depth):
        for kind in ("weight", "bias"):
            rows = state[f"1.{i}.0.fn.1.qkv.{kind}"].unflatten(0, (-1, 3))
            rows[:, 0] *= root
        state[f"1.{i}.0.fn.1.projection.weight"] /= root
    converted = convert_state_dict(state, "zuppichini", TINY)
    assert_agree(logits, converted, TINY, images)


# ---- refused ----------------------------------------------------------------------


def test_the_variant_with_a_linear_embedding_is_refused(peer):
    """An earlier version of the original flattens patches (p1 p2 c) for a Linear."""
    state = peer(TINY)[0].state_dict()
    kernel = state.pop("0.projection.0.weight")
    state["0.projection.1.weight"] = rearrange(kernel, "e c p1 p2 -> e (p1 p2 c)")
    state["0.projection.1.bias"] = state.pop("0.projection.0.bias")
    with pytest.raises(ValueError, match=r"0\.projection\.0\.weight|no known source"):
        convert_state_dict(state, "zuppichini", TINY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("norm_eps", 1e-6),
        ("gelu", "tanh"),
        ("pool", "cls"),
        ("pool", "mean"),
        ("qkv_bias", False),
    ],
)
def test_what_the_code_fixes_cannot_be_changed(field, value):
    state = tutorial_model(TINY).state_dict()
    config = dataclasses.replace(TINY, **{field: value})
    with pytest.raises(ValueError, match=field):
        convert_state_dict(state, "zuppichini", config)
