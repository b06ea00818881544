"""torchvision's VisionTransformer, with today's names and with its files' names."""

import dataclasses
import functools

import pytest
import torch
from agreement import (
    assert_agree,
    assert_differ,
    assert_norms_and_gelus,
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
from torch import nn
from torchvision.models import ViT_B_16_Weights, vision_transformer

from vitlib import ViTConfig
from vitlib.checkpoints import load_pretrained
from vitlib.convert import convert_state_dict, detect_source, infer_config
from vitlib.data import imagenet_classes

# 4 x 4 = 16 patches of 3*3*3 = 27 values, e = 24, d = 8, hidden 36.
TINY = ViTConfig(
    image_size=12, patch_size=3, num_classes=5, embed_dim=24, depth=2, num_heads=3,
    mlp_ratio=1.5,
)  # fmt: skip
SQUARE = dataclasses.replace(TINY, mlp_ratio=1.0, num_classes=24)
CONFIGS = {
    "tiny": TINY,
    "square": SQUARE,
    "one head": dataclasses.replace(TINY, num_heads=1),
    "twelve blocks": dataclasses.replace(TINY, depth=12),
    "384": dataclasses.replace(TINY, image_size=384, patch_size=16, depth=1),
}


def torchvision_model(config, **choices):
    return vision_transformer.VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_layers=config.depth,
        num_heads=config.num_heads,
        hidden_dim=config.embed_dim,
        mlp_dim=int(config.embed_dim * config.mlp_ratio),
        num_classes=config.num_classes,
        **choices,
    )


@pytest.fixture
def peer(jitter):
    def build(config, dtype=torch.float32, **choices):
        model = torchvision_model(config, **choices)
        jitter(model, 0.2).eval().to(dtype)
        images = draw_images(config, dtype)
        with torch.no_grad():
            return model, images, model(images)

    return build


def unsaid(config):
    return {"num_heads": config.num_heads, "norm_eps": config.norm_eps}


def with_the_files_names(state):
    """The released files call the MLP's layers linear_1 and linear_2."""
    return {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(
            ".mlp.3.", ".mlp.linear_2."
        ): value
        for name, value in state.items()
    }


# ---- equal logits -----------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("naming", [dict, with_the_files_names])
def test_logits_are_equal(peer, name, naming, dtype):
    config = CONFIGS[name]
    model, images, logits = peer(config, dtype)
    state = naming(model.state_dict())
    assert detect_source(state) == "torchvision"
    assert infer_config(state, "torchvision", **unsaid(config)) == config
    converted = convert_state_dict(state, "torchvision", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config)


def test_torchvision_reads_the_files_names(peer):
    """That they are the older ones is torchvision's word, not ours."""
    model, images, logits = peer(TINY)
    state = with_the_files_names(model.state_dict())
    assert state.keys() != model.state_dict().keys()
    other = torchvision_model(TINY).eval()
    # A file carries no version; a state dict in memory does.
    other.load_state_dict(dict(state), strict=True)
    with torch.no_grad():
        assert torch.equal(other(images), logits)


def test_another_eps_is_carried_over(peer):
    config = dataclasses.replace(TINY, norm_eps=1e-5)
    model, images, logits = peer(
        config, torch.float64, norm_layer=functools.partial(nn.LayerNorm, eps=1e-5)
    )
    state = model.state_dict()
    assert infer_config(state, "torchvision", **unsaid(config)) == config
    converted = convert_state_dict(state, "torchvision", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config)


def test_the_width_of_vit_b():
    config = ViTConfig(depth=2)
    with torch.device("meta"):
        model = torchvision_model(config)
    redraw(model)
    images = draw_images(config)
    state = with_the_files_names(model.state_dict())
    assert infer_config(state, "torchvision", **unsaid(config)) == config
    with torch.no_grad():
        logits = model(images)
    converted = convert_state_dict(state, "torchvision", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_b_16", {}),
        ("vit_b_32", {"patch_size": 32}),
        ("vit_l_16", {"embed_dim": 1024, "depth": 24, "num_heads": 16}),
        (
            "vit_h_14",
            {"embed_dim": 1280, "depth": 32, "num_heads": 16, "patch_size": 14},
        ),
    ],
)
def test_every_size_is_read_from_the_shapes(name, fields):
    with torch.device("meta"):
        state = getattr(vision_transformer, name)().state_dict()
    config = ViTConfig(**fields)
    assert infer_config(state, "torchvision", **unsaid(config)) == config


def test_a_file_is_loaded(tmp_path, peer):
    model, images, logits = peer(TINY)
    path = tmp_path / "vit.pth"
    torch.save(with_the_files_names(model.state_dict()), path)
    with pytest.raises(ValueError, match=r"num_heads.*norm_eps"):
        load_pretrained(path)
    loaded = load_pretrained(path, num_heads=3, norm_eps=1e-6)
    assert loaded.config == TINY
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5


# ---- nearly right -----------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        swap_q_and_k,
        qkv_rows_as("(h three d)"),
        qkv_rows_as("(h d three)"),
        heads_out_of_order,
        colour_last,
        patches_on_their_side,
        columns_before_rows,
        class_position_last,
        swap_norms,
        without_qkv_bias,
        transposed("attn.proj"),
        transposed("mlp.fc1"),
        transposed("mlp.fc2"),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_nearly_right_conversions_are_found_out(peer, wrong):
    model, images, logits = peer(SQUARE)
    converted = convert_state_dict(model.state_dict(), "torchvision", SQUARE)
    assert_agree(logits, converted, SQUARE, images)
    assert_differ(logits, wrong(converted, SQUARE), SQUARE, images)


@pytest.mark.parametrize(
    ("field", "value", "at_least"),
    [("pool", "mean", 1e-2), ("gelu", "tanh", 1e-5), ("norm_eps", 1e-5, 1e-8)],
)
def test_a_wrong_choice_is_found_out_in_double_precision(peer, field, value, at_least):
    model, images, logits = peer(TINY, torch.float64)
    converted = convert_state_dict(model.state_dict(), "torchvision", TINY)
    other = dataclasses.replace(TINY, **{field: value})
    assert_differ(logits, converted, other, images, at_least)


# ---- refused ----------------------------------------------------------------------


def test_the_hidden_layer_before_the_head_is_refused():
    state = torchvision_model(TINY, representation_size=10).state_dict()
    with pytest.raises(ValueError, match=r"heads\.pre_logits.*tanh"):
        convert_state_dict(state, "torchvision", TINY)


def test_a_convolutional_stem_is_refused():
    """Its batch norms also count batches, in whole numbers."""
    stem = [
        vision_transformer.ConvStemConfig(out_channels=10, kernel_size=3, stride=3),
    ]
    state = torchvision_model(TINY, conv_stem_configs=stem).state_dict()
    assert "conv_proj.conv_last.weight" in state
    with pytest.raises(ValueError, match="convolutional stem"):
        convert_state_dict(state, "torchvision", TINY)
    with pytest.raises(ValueError, match="convolutional stem"):
        infer_config(state, "torchvision", **unsaid(TINY))


@pytest.mark.parametrize(
    ("field", "value"),
    [("gelu", "tanh"), ("pool", "mean_all"), ("qkv_bias", False), ("patch_norm", True)],
)
def test_what_the_code_fixes_cannot_be_changed(field, value):
    state = torchvision_model(TINY).state_dict()
    config = dataclasses.replace(TINY, **{field: value})
    with pytest.raises(ValueError, match=field):
        convert_state_dict(state, "torchvision", config)
    if field in ("gelu", "pool"):
        with pytest.raises(ValueError, match=field):
            infer_config(state, "torchvision", **unsaid(TINY), **{field: value})


def test_the_wrong_source_is_named():
    state = torchvision_model(TINY).state_dict()
    with pytest.raises(ValueError, match=r"no timm state dict.*'torchvision'"):
        convert_state_dict(state, "timm", TINY)
    with pytest.raises(ValueError, match=r"torch_vision.*'torchvision'"):
        convert_state_dict(state, "torch_vision", TINY)


def test_the_classes_stand_in_torchvisions_order():
    theirs = ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"]
    assert imagenet_classes() == theirs
