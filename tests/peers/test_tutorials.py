"""Each tutorial's model is one of ours: its names, its counts, its logits."""

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
    qkv_rows_as,
    redraw,
    swap_norms,
    swap_q_and_k,
    transposed,
)
from einops import rearrange
from torch import nn
from tutorials import Tutorial3, tutorial_1, tutorial_4, tutorial_5

from vitlib import VIT_B_16, ViTConfig, count_parameters
from vitlib.checkpoints import load_pretrained
from vitlib.convert import convert_state_dict, detect_source, infer_config

# 4 x 4 = 16 patches of 3*3*3 = 27 values, e = 24, d = 8, hidden 48.
SIZES = {
    "image_size": 12, "patch_size": 3, "embed_dim": 24, "depth": 2, "num_heads": 3,
    "num_classes": 5, "mlp_ratio": 2,
}  # fmt: skip
BASE = {
    "patch_size": 16, "embed_dim": 768, "depth": 12, "num_classes": 1000,
}  # fmt: skip

# The third: 4 x 5 = 20 patches of 3*2*3 = 18 values, e = 24, d = 8, hidden 36.
THIRD = ViTConfig(
    image_size=(8, 15),
    patch_size=(2, 3),
    num_classes=5,
    embed_dim=24,
    depth=2,
    num_heads=3,
    mlp_ratio=1.5,
    qkv_bias=False,
    norm_eps=1e-5,
)
THIRD_SQUARE = dataclasses.replace(
    THIRD, image_size=12, patch_size=3, mlp_ratio=1.0, num_classes=24
)
THIRDS = {
    "cls": THIRD,
    "mean": dataclasses.replace(THIRD, pool="mean_all"),
    "wide heads": dataclasses.replace(THIRD, head_dim=20),
    "heads of 64": dataclasses.replace(THIRD, head_dim=64, pool="mean_all"),
    "square": THIRD_SQUARE,
    "one head": dataclasses.replace(THIRD, num_heads=1),
    "one head of another length": dataclasses.replace(THIRD, num_heads=1, head_dim=20),
    "grey": dataclasses.replace(THIRD, in_channels=1),
    "384": dataclasses.replace(THIRD, image_size=384, patch_size=16, depth=1),
}


def pair(size):
    return (size, size) if isinstance(size, int) else size


def third_model(config):
    return Tutorial3(
        image_size=pair(config.image_size),
        patch_size=pair(config.patch_size),
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        num_classes=config.num_classes,
        hidden_dim=int(config.embed_dim * config.mlp_ratio),
        pool="cls" if config.pool == "cls" else "mean",
        head_dim=config.head_dim or config.embed_dim // config.num_heads,
        in_channels=config.in_channels,
    )


@pytest.fixture
def logits_of(jitter):
    """Jitter a model; return it, two images and its logits."""

    def run(model, config, dtype=torch.float32):
        jitter(model, 0.2).eval().to(dtype)
        images = draw_images(config, dtype)
        with torch.no_grad():
            return model, images, model(images)

    return run


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# ---- the parameters that the tutorials print --------------------------------------


@pytest.mark.parametrize(
    ("model", "image_size", "whole"),
    [(tutorial_1, 224, 86_567_656), (tutorial_4, 384, 86_859_496)],
    ids=["tutorial 1", "tutorial 4"],
)
def test_the_printed_count_leaves_class_token_and_positions_out(
    model, image_size, whole
):
    with torch.device("meta"):
        model = model(image_size=image_size, num_heads=12, mlp_ratio=4, **BASE)
    config = dataclasses.replace(VIT_B_16, image_size=image_size)
    assert count(model) == count_parameters(config) == whole
    tokens = config.num_tokens
    assert whole - tokens * 768 - 768 == 86_415_592
    layers = (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    norms = (m for m in model.modules() if isinstance(m, nn.LayerNorm))
    assert sum(map(count, layers)) + sum(map(count, norms)) == 86_415_592


@pytest.mark.parametrize(
    "model", [tutorial_1, tutorial_4, tutorial_5], ids=["1", "4", "5"]
)
def test_the_tutorials_base_model_is_read_from_its_shapes(model):
    with torch.device("meta"):
        state = model(image_size=224, num_heads=12, mlp_ratio=4, **BASE).state_dict()
    source = detect_source(state)
    said = {"num_heads": 12}
    if source == "timm":
        eps = 1e-6 if model is tutorial_4 else 1e-5
        said |= {"norm_eps": eps, "gelu": "erf", "pool": "cls"}
    config = infer_config(state, source, **said)
    assert config == dataclasses.replace(
        VIT_B_16,
        norm_eps=1e-6 if model is tutorial_4 else 1e-5,
        pool="mean_all" if model is tutorial_1 else "cls",
        qkv_bias=model is not tutorial_5,
    )


# ---- tutorial 1: test_zuppichini.py has the rest ----------------------------------


def test_the_first_is_converted(logits_of, dtype):
    config = ViTConfig(**SIZES, norm_eps=1e-5, pool="mean_all")
    model, images, logits = logits_of(tutorial_1(**SIZES), config, dtype)
    converted = convert_state_dict(model.state_dict(), "zuppichini", config)
    assert_agree(logits, converted, config, images)


# ---- tutorial 3 -------------------------------------------------------------------


@pytest.mark.parametrize("name", THIRDS)
def test_the_third_is_converted(logits_of, name, dtype):
    config = THIRDS[name]
    model, images, logits = logits_of(third_model(config), config, dtype)
    state = model.state_dict()
    assert detect_source(state) == "vit-pytorch"
    said = {"num_heads": config.num_heads, "pool": config.pool}
    if not isinstance(config.image_size, int):
        said |= {"image_size": config.image_size, "patch_size": config.patch_size}
    assert infer_config(state, "vit-pytorch", **said) == config
    converted = convert_state_dict(state, "vit-pytorch", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config)


def test_the_width_of_the_third():
    """Sixteen heads of 64 in tokens of 768: inside, attention is wider."""
    config = ViTConfig(
        depth=2, num_heads=16, head_dim=64, qkv_bias=False, norm_eps=1e-5,
        pool="mean_all",
    )  # fmt: skip
    with torch.device("meta"):
        model = third_model(config)
    redraw(model)
    images = draw_images(config)
    with torch.no_grad():
        logits = model(images)
    state = model.state_dict()
    assert infer_config(state, "vit-pytorch", num_heads=16, pool="mean_all") == config
    converted = convert_state_dict(state, "vit-pytorch", config)
    assert_agree(logits, converted, config, images)


def test_thirds_one_head_has_no_last_projection(logits_of):
    config = THIRDS["one head"]
    state = logits_of(third_model(config), config)[0].state_dict()
    assert not any("to_out" in name for name in state)
    converted = convert_state_dict(state, "vit-pytorch", config)
    assert torch.equal(converted["blocks.0.attn.proj.weight"], torch.eye(24))
    assert torch.equal(converted["blocks.0.attn.proj.bias"], torch.zeros(24))


def test_the_thirds_pool_is_not_in_the_file(tmp_path, logits_of):
    config = dataclasses.replace(THIRD_SQUARE, pool="mean_all")
    model, images, logits = logits_of(third_model(config), config)
    torch.save(model.state_dict(), tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=r"num_heads.*pool"):
        load_pretrained(tmp_path / "vit.pt")
    loaded = load_pretrained(tmp_path / "vit.pt", num_heads=3, pool="mean_all")
    assert loaded.config == config
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5


def test_the_third_never_averages_the_patches_alone():
    """Its "mean" takes the class token in: ours is called mean_all."""
    state = third_model(THIRD_SQUARE).state_dict()
    config = dataclasses.replace(THIRD_SQUARE, pool="mean")
    with pytest.raises(ValueError, match="mean_all"):
        convert_state_dict(state, "vit-pytorch", config)
    with pytest.raises(ValueError, match="mean_all"):
        infer_config(state, "vit-pytorch", num_heads=3, pool="mean")


def kernel_as_it_stands(state, config):
    """The kernel's columns are left in the order (p1 p2 c)."""
    return change(
        state,
        "patch_embed.proj.weight",
        lambda kernel: rearrange(kernel, "e c p1 p2 -> e (p1 p2 c)").view_as(kernel),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        kernel_as_it_stands,
        swap_q_and_k,
        qkv_rows_as("(h three d)"),
        qkv_rows_as("(h d three)"),
        heads_out_of_order,
        colour_last,
        columns_before_rows,
        class_position_last,
        swap_norms,
        transposed("attn.proj"),
        transposed("mlp.fc2"),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_nearly_right_conversions_of_the_third_are_found_out(logits_of, wrong):
    config = THIRD_SQUARE
    model, images, logits = logits_of(third_model(config), config)
    converted = convert_state_dict(model.state_dict(), "vit-pytorch", config)
    assert_agree(logits, converted, config, images)
    assert_differ(logits, wrong(converted, config), config, images)


@pytest.mark.parametrize(
    ("field", "value", "at_least"),
    [
        ("pool", "cls", 1e-2),
        ("pool", "mean", 1e-3),
        ("gelu", "tanh", 1e-5),
        ("norm_eps", 1e-6, 1e-8),
    ],
)
def test_a_wrong_choice_for_the_third_is_found_out(logits_of, field, value, at_least):
    config = THIRDS["mean"]
    model, images, logits = logits_of(third_model(config), config, torch.float64)
    converted = convert_state_dict(model.state_dict(), "vit-pytorch", config)
    other = dataclasses.replace(config, **{field: value})
    assert_differ(logits, converted, other, images, at_least)


# ---- tutorials 4 and 5 ------------------------------------------------------------

TIMM_LIKE = {
    "4": (tutorial_4, {}, {}),
    "4, no qkv bias": (tutorial_4, {"qkv_bias": False}, {"qkv_bias": False}),
    "5": (tutorial_5, {}, {"norm_eps": 1e-5, "qkv_bias": False}),
    "5, qkv bias": (tutorial_5, {"qkv_bias": True}, {"norm_eps": 1e-5}),
    "5, norm on patches": (
        tutorial_5,
        {"patch_norm": True},
        {"norm_eps": 1e-5, "qkv_bias": False, "patch_norm": "after"},
    ),
}


@pytest.mark.parametrize("name", TIMM_LIKE)
def test_the_fourth_and_fifth_are_converted(logits_of, name, dtype):
    build, choices, fields = TIMM_LIKE[name]
    config = ViTConfig(**SIZES, **fields)
    model, images, logits = logits_of(build(**SIZES, **choices), config, dtype)
    state = model.state_dict()
    assert detect_source(state) == "timm"
    said = {n: getattr(config, n) for n in ("num_heads", "norm_eps", "gelu", "pool")}
    assert infer_config(state, "timm", **said) == config
    assert_agree(logits, convert_state_dict(state, "timm", config), config, images)
    assert epsilons(model) == {config.norm_eps}


def epsilons(model):
    return {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)}


def test_the_fourth_at_384():
    config = ViTConfig(image_size=384, embed_dim=192, num_heads=12, depth=1)
    model = tutorial_4(
        image_size=384, num_heads=12, mlp_ratio=4,
        **{**BASE, "embed_dim": 192, "depth": 1},
    )  # fmt: skip
    assert model.pos_embed.shape == (1, 577, 192)
    redraw(model.to("meta"), 0.1)
    images = draw_images(config)
    with torch.no_grad():
        logits = model(images)
    converted = convert_state_dict(model.state_dict(), "timm", config)
    assert_agree(logits, converted, config, images)


def test_the_two_eps_are_told_apart_in_double_precision(logits_of):
    """Same names, same shapes: only the number says which of the two it is."""
    right = ViTConfig(**SIZES)
    wrong = dataclasses.replace(right, norm_eps=1e-5)
    model, images, logits = logits_of(tutorial_4(**SIZES), right, torch.float64)
    converted = convert_state_dict(model.state_dict(), "timm", right)
    assert_differ(logits, converted, wrong, images, at_least=1e-8)
    with pytest.raises(ValueError, match="norm_eps"):
        infer_config(model.state_dict(), "timm", num_heads=3, gelu="erf", pool="cls")


def test_the_fifths_drop_path_leaves_no_trace(logits_of):
    config = ViTConfig(**SIZES, norm_eps=1e-5, qkv_bias=False, drop_path_rate=0.5)
    model = tutorial_5(drop_path=0.5, **SIZES)
    model, images, logits = logits_of(model, config)
    assert model.state_dict().keys() == tutorial_5(**SIZES).state_dict().keys()
    converted = convert_state_dict(model.state_dict(), "timm", config)
    assert_agree(logits, converted, config, images)
    model.train()
    with torch.no_grad():
        assert gap(logits, model(images)) > 1e-2
