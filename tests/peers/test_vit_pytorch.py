"""vit-pytorch's ViT as it is today; its first layout is in test_tutorials.py."""

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
    heads_out_of_order,
    ours,
    patches_on_their_side,
    qkv_rows_as,
    redraw,
    swap_norms,
    swap_q_and_k,
    transposed,
)
from einops import rearrange
from vit_pytorch import SimpleViT, ViT
from vit_pytorch.distill import DistillableViT

from vitlib import ViTConfig
from vitlib.checkpoints import load_pretrained
from vitlib.convert import convert_state_dict, detect_source, infer_config

# 4 x 5 = 20 patches of 3*2*3 = 18 values, e = 24, d = 8, hidden 36.
TINY = ViTConfig(
    image_size=(8, 15),
    patch_size=(2, 3),
    num_classes=5,
    embed_dim=24,
    depth=2,
    num_heads=3,
    mlp_ratio=1.5,
    qkv_bias=False,
    norm_eps=1e-5,
    patch_norm=True,
)
SQUARE = dataclasses.replace(
    TINY, image_size=12, patch_size=3, mlp_ratio=1.0, num_classes=24
)
CONFIGS = {
    "tiny": TINY,
    "wide heads": dataclasses.replace(TINY, head_dim=20),
    "heads of 64": dataclasses.replace(TINY, head_dim=64),
    "square": SQUARE,
    # One head as long as a token: the source then leaves out the last projection.
    "one head": dataclasses.replace(TINY, num_heads=1),
    "one head of another length": dataclasses.replace(TINY, num_heads=1, head_dim=20),
    "grey": dataclasses.replace(TINY, in_channels=1),
    "384": dataclasses.replace(TINY, image_size=384, patch_size=16, depth=1),
}


def pair(size):
    return (size, size) if isinstance(size, int) else size


def vit_pytorch_model(config, kind=ViT, **choices):
    return kind(
        image_size=pair(config.image_size),
        patch_size=pair(config.patch_size),
        num_classes=config.num_classes,
        dim=config.embed_dim,
        depth=config.depth,
        heads=config.num_heads,
        dim_head=config.head_dim or config.embed_dim // config.num_heads,
        mlp_dim=int(config.embed_dim * config.mlp_ratio),
        channels=config.in_channels,
        **choices,
    )


@pytest.fixture
def peer(jitter):
    def build(config, dtype=torch.float32, **choices):
        model = vit_pytorch_model(config, **choices)
        jitter(model, 0.2).eval().to(dtype)
        images = draw_images(config, dtype)
        with torch.no_grad():
            return model, images, model(images)

    return build


def unsaid(config):
    said = {"num_heads": config.num_heads}
    if not isinstance(config.image_size, int):
        said |= {"image_size": config.image_size, "patch_size": config.patch_size}
    return said


# ---- equal logits -----------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_equal(peer, name, dtype):
    config = CONFIGS[name]
    model, images, logits = peer(config, dtype)
    state = model.state_dict()
    assert detect_source(state) == "vit-pytorch"
    assert infer_config(state, "vit-pytorch", **unsaid(config)) == config
    converted = convert_state_dict(state, "vit-pytorch", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config)


def test_one_head_has_no_last_projection(peer):
    config = CONFIGS["one head"]
    state = peer(config)[0].state_dict()
    assert not any("to_out" in name for name in state)
    converted = convert_state_dict(state, "vit-pytorch", config)
    assert torch.equal(converted["blocks.1.attn.proj.weight"], torch.eye(24))
    assert torch.equal(converted["blocks.1.attn.proj.bias"], torch.zeros(24))


def test_the_size_of_the_readme(jitter):
    """The first example of its README, four blocks for six; heads of 64, not of e/h."""
    config = ViTConfig(
        image_size=256, patch_size=32, embed_dim=1024, depth=4, num_heads=16,
        mlp_ratio=2.0, qkv_bias=False, norm_eps=1e-5, patch_norm=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = ViT(
            image_size=256, patch_size=32, num_classes=1000, dim=1024, depth=4,
            heads=16, mlp_dim=2048, dropout=0.1, emb_dropout=0.1,
        )  # fmt: skip
    redraw(model, 0.025)
    images = draw_images(config)
    state = model.state_dict()
    assert infer_config(state, "vit-pytorch", num_heads=16) == config
    with torch.no_grad():
        logits = model(images)
    converted = convert_state_dict(state, "vit-pytorch", config)
    assert_agree(logits, converted, config, images)


def test_a_distillable_model_without_its_distiller_is_a_plain_one(peer):
    """Its token comes from outside: alone, it computes what a ViT computes."""
    model, images, logits = peer(TINY)
    other = vit_pytorch_model(TINY, kind=DistillableViT).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    converted = convert_state_dict(other.state_dict(), "vit-pytorch", TINY)
    assert_agree(logits, converted, TINY, images)


def test_a_file_needs_only_the_heads(tmp_path, peer):
    model, images, logits = peer(SQUARE)
    torch.save(model.state_dict(), tmp_path / "vit.pt")
    with pytest.raises(ValueError, match="num_heads"):
        load_pretrained(tmp_path / "vit.pt")
    loaded = load_pretrained(tmp_path / "vit.pt", num_heads=3)
    assert loaded.config == SQUARE
    assert_agree(logits, loaded.state_dict(), SQUARE, images)


# ---- nearly right -----------------------------------------------------------------


def pixel_norm_colour_first(state, config):
    """The first norm's values are left in the order (p1 p2 c)."""
    p1, p2 = pair(config.patch_size)
    return change(
        state,
        "patch_embed.pixel_norm",
        lambda values: rearrange(values, "(c p1 p2) -> (p1 p2 c)", p1=p1, p2=p2),
    )


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
        pixel_norm_colour_first,
        swap_q_and_k,
        qkv_rows_as("(h three d)"),
        qkv_rows_as("(h d three)"),
        heads_out_of_order,
        colour_last,
        patches_on_their_side,
        columns_before_rows,
        class_position_last,
        swap_norms,
        transposed("attn.proj"),
        transposed("mlp.fc2"),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_nearly_right_conversions_are_found_out(peer, wrong):
    model, images, logits = peer(SQUARE)
    converted = convert_state_dict(model.state_dict(), "vit-pytorch", SQUARE)
    assert_agree(logits, converted, SQUARE, images)
    assert_differ(logits, wrong(converted, SQUARE), SQUARE, images)


@pytest.mark.parametrize("norm", ["patch_embed.pixel_norm", "patch_embed.norm"])
def test_no_patch_norm_can_be_left_out(peer, norm):
    model, images, logits = peer(SQUARE)
    converted = convert_state_dict(model.state_dict(), "vit-pytorch", SQUARE)
    patch_norm = "after" if norm == "patch_embed.pixel_norm" else False
    kept = {
        name: value
        for name, value in converted.items()
        if not name.startswith(norm) and (patch_norm or "patch_embed.pixel" not in name)
    }
    other = dataclasses.replace(SQUARE, patch_norm=patch_norm)
    assert_differ(logits, kept, other, images)


@pytest.mark.parametrize(
    ("field", "value", "at_least"),
    [("gelu", "tanh", 1e-5), ("norm_eps", 1e-6, 1e-8), ("pool", "mean_all", 1e-2)],
)
def test_a_wrong_choice_is_found_out_in_double_precision(peer, field, value, at_least):
    model, images, logits = peer(TINY, torch.float64)
    converted = convert_state_dict(model.state_dict(), "vit-pytorch", TINY)
    other = dataclasses.replace(TINY, **{field: value})
    assert_differ(logits, converted, other, images, at_least)


# ---- refused ----------------------------------------------------------------------


def test_the_mean_after_the_norm_is_refused(tmp_path, peer):
    config = dataclasses.replace(TINY, pool="mean", class_token=False)
    model, images, logits = peer(config, pool="mean")
    state = model.state_dict()
    assert state["cls_token"].shape == (0, 24)
    with pytest.raises(ValueError, match="norm before mean"):
        infer_config(state, "vit-pytorch", **unsaid(TINY))
    for pool in ("mean", "mean_all"):
        with pytest.raises(ValueError, match="norm before mean"):
            infer_config(state, "vit-pytorch", pool=pool, **unsaid(TINY))
        for class_token in (True, False):
            other = dataclasses.replace(config, pool=pool, class_token=class_token)
            with pytest.raises(ValueError, match="norm before mean"):
                convert_state_dict(state, "vit-pytorch", other)
    torch.save(state, tmp_path / "mean.pt")
    with pytest.raises(ValueError, match="norm before mean"):
        load_pretrained(tmp_path / "mean.pt", **unsaid(TINY))

    # What taking it all the same would cost: everything else as it should be.
    state["cls_token"] = torch.zeros(1, 24)
    state["pos_embedding"] = torch.cat([torch.zeros(1, 24), state["pos_embedding"]])
    converted = convert_state_dict(state, "vit-pytorch", TINY)
    del converted["cls_token"]
    converted["pos_embed"] = converted["pos_embed"][:, 1:]
    assert_differ(logits, converted, config, images, at_least=0.1)
    assert ours(converted, config, images).shape == logits.shape


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("norm_eps", 1e-6),
        ("gelu", "tanh"),
        ("qkv_bias", True),
        ("patch_norm", False),
        ("patch_norm", "after"),
    ],
)
def test_what_the_code_fixes_cannot_be_changed(field, value):
    state = vit_pytorch_model(TINY).state_dict()
    config = dataclasses.replace(TINY, **{field: value})
    with pytest.raises(ValueError, match=field):
        convert_state_dict(state, "vit-pytorch", config)
    if field in ("norm_eps", "gelu"):
        with pytest.raises(ValueError, match=field):
            infer_config(state, "vit-pytorch", **unsaid(TINY), **{field: value})


def test_another_vit_of_theirs_is_refused():
    """SimpleViT: fixed positions, no class token, mean pooling."""
    model = SimpleViT(
        image_size=12, patch_size=3, num_classes=5, dim=24, depth=2, heads=3,
        mlp_dim=36, dim_head=8,
    )  # fmt: skip
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"position scheme|cls_token|norm before mean"):
        infer_config(state, "vit-pytorch", num_heads=3)
    config = dataclasses.replace(TINY, image_size=12, patch_size=3)
    with pytest.raises(ValueError, match=r"position scheme|cls_token|norm before mean"):
        convert_state_dict(state, "vit-pytorch", config)
    with pytest.raises(ValueError, match="norm before mean"):
        convert_state_dict(
            state | {"pos_embedding": torch.zeros(17, 24)}, "vit-pytorch", config
        )


def test_a_patch_that_is_no_square_needs_its_size():
    config = dataclasses.replace(TINY, image_size=(8, 15))
    state = vit_pytorch_model(config).state_dict()
    with pytest.raises(ValueError, match="patch_size"):
        infer_config(state, "vit-pytorch", num_heads=3, image_size=(8, 15))


def test_more_heads_than_values_are_refused():
    state = vit_pytorch_model(TINY).state_dict()
    with pytest.raises(ValueError, match="num_heads"):
        infer_config(state, "vit-pytorch", **{**unsaid(TINY), "num_heads": 5})
