"""Checkpoints as Google's JAX code writes them, against that architecture in flax."""

import dataclasses
import functools
import inspect

import flax.linen
import jax
import numpy as np
import pytest
import torch
from agreement import (
    assert_agree,
    assert_differ,
    change,
    colour_last,
    columns_before_rows,
    draw_images,
    fill,
    gap,
    heads_out_of_order,
    patches_on_their_side,
    qkv_rows_as,
    swap_norms,
    swap_q_and_k,
    transposed,
    without_qkv_bias,
)
from flax.training.checkpoints import convert_pre_linen
from flax.traverse_util import unflatten_dict
from flax_vit import FlaxViT, named, write_npz
from timm.models.vision_transformer import VisionTransformer

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
    gelu="tanh",
)
# Every kernel is a square one.
SQUARE = dataclasses.replace(
    TINY, image_size=12, patch_size=(3, 3), mlp_ratio=1.0, num_classes=24
)
CONFIGS = {
    "tiny": TINY,
    "square": dataclasses.replace(SQUARE, patch_size=3),
    "one head": dataclasses.replace(TINY, num_heads=1),
    "eleven blocks": dataclasses.replace(TINY, depth=11),
    "384": ViTConfig(
        image_size=384, num_classes=7, embed_dim=24, depth=1, num_heads=3, gelu="tanh"
    ),
}
BASE = ViTConfig(depth=2, gelu="tanh")


def flax_model(config, **choices):
    p = config.patch_size
    return FlaxViT(
        patch_size=(p, p) if isinstance(p, int) else p,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        hidden_dim=int(config.embed_dim * config.mlp_ratio),
        num_classes=config.num_classes,
        **choices,
    )


def draw_params(model, images, scale):
    """Draw every parameter anew: flax starts with zeros and ones, too."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), channels_last(images))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        ones = path[-1].key == "scale"
        return (rng.standard_normal(leaf.shape) * scale + ones).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes["params"])


def channels_last(images):
    return images.permute(0, 2, 3, 1).numpy()


def flax_logits(model, params, images):
    with jax.enable_x64(images.dtype == torch.float64):
        params = jax.tree.map(lambda p: p.astype(channels_last(images).dtype), params)
        # Each model runs once: compiling is what takes the time.
        apply = jax.jit(
            model.apply, compiler_options={"xla_backend_optimization_level": 0}
        )
        logits = apply({"params": params}, channels_last(images))
        return torch.from_numpy(np.array(logits))


def scale_for(config):
    return 0.03 if config.embed_dim > 100 else 0.2


@functools.cache
def run(config, dtype, classifier, representation_size):
    model = flax_model(
        config, classifier=classifier, representation_size=representation_size
    )
    images = draw_images(config)
    params = draw_params(model, images, scale_for(config))
    logits = flax_logits(model, params, images.to(dtype))
    kind = "float64" if dtype == torch.float64 else "float32"
    state = {name: value.astype(kind) for name, value in named(params).items()}
    return params, state, images.to(dtype), logits


def peer(config, dtype=torch.float32, *, classifier="token", representation_size=None):
    """Return a flax model's parameters, its named arrays, images and their logits."""
    return run(config, dtype, classifier, representation_size)


# ---- the flax model is the released architecture ----------------------------------


@pytest.mark.parametrize(
    "config", [TINY, CONFIGS["one head"], BASE], ids=["tiny", "one head", "base"]
)
def test_timms_own_loader_reads_the_file_and_gives_flaxs_logits(tmp_path, config):
    params, _, images, logits = peer(config)
    write_npz(params, tmp_path / "weights.npz")
    reader = VisionTransformer(
        img_size=config.image_size, patch_size=config.patch_size,
        num_classes=config.num_classes, embed_dim=config.embed_dim,
        depth=config.depth, num_heads=config.num_heads, mlp_ratio=config.mlp_ratio,
        act_layer="gelu_tanh",
    ).eval()  # fmt: skip
    reader.load_pretrained(str(tmp_path / "weights.npz"))
    with torch.no_grad():
        assert gap(logits, reader(images)) <= 1e-5


def test_flaxs_own_reader_of_old_files_knows_the_names():
    """Linen counts parts kind by kind; flax renames the older count of the files."""
    params, state, _, _ = peer(TINY)
    block = convert_pre_linen(unflatten_dict(state, sep="/"))["Transformer"][
        "encoderblock_0"
    ]
    assert set(block) == {
        "LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0",
    }  # fmt: skip
    assert set(params["Transformer"]["encoderblock_0"]) == {
        "LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3",
    }  # fmt: skip


def test_flaxs_defaults_are_eps_1e_6_and_the_tanh_form():
    assert flax.linen.LayerNorm().epsilon == TINY.norm_eps == 1e-6
    assert inspect.signature(flax.linen.gelu).parameters["approximate"].default is True


# ---- equal logits -----------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_equal(name, dtype):
    config = CONFIGS[name]
    _, state, images, logits = peer(config, dtype)
    assert detect_source(state) == "jax"
    not_square = {} if isinstance(config.image_size, int) else {"image_size": (8, 15)}
    assert infer_config(state, "jax", **not_square) == config
    assert_agree(logits, convert_state_dict(state, "jax", config), config, images)


def test_the_width_of_vit_b():
    _, state, images, logits = peer(BASE)
    assert infer_config(state, "jax") == BASE
    assert_agree(logits, convert_state_dict(state, "jax", BASE), BASE, images)


def test_an_npz_file_is_loaded(tmp_path):
    config = CONFIGS["square"]
    params, _, images, logits = peer(config)
    write_npz(params, tmp_path / "weights.npz")
    model = load_pretrained(tmp_path / "weights.npz")
    assert model.config == config and not model.training
    with torch.no_grad():
        assert gap(logits, model(images)) <= 1e-5


def test_the_names_of_a_training_state_are_understood():
    """The first release keeps the weights beside the optimiser's."""
    _, state, images, logits = peer(TINY)
    state = {f"opt/target/{name}": value for name, value in state.items()}
    converted = convert_state_dict(state, "jax", TINY)
    assert_agree(logits, converted, TINY, images)


# ---- nearly right -----------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        swap_q_and_k,
        qkv_rows_as("(h three d)"),
        qkv_rows_as("(three d h)"),
        heads_out_of_order,
        colour_last,
        patches_on_their_side,
        columns_before_rows,
        swap_norms,
        without_qkv_bias,
        transposed("attn.proj"),
        transposed("mlp.fc1"),
        transposed("mlp.fc2"),
        transposed("head"),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_nearly_right_conversions_are_found_out(wrong):
    _, state, images, logits = peer(SQUARE)
    converted = convert_state_dict(state, "jax", SQUARE)
    assert_agree(logits, converted, SQUARE, images)
    assert_differ(logits, wrong(converted, SQUARE), SQUARE, images)


def test_the_kernels_of_q_k_and_v_cannot_be_read_as_they_stand():
    """Reshaping (e h d) to rows instead of moving the axes fits whenever e = h d."""
    _, state, images, logits = peer(SQUARE)
    converted = convert_state_dict(state, "jax", SQUARE)

    def untouched(rows):
        return torch.cat([part.T for part in rows.chunk(3)])

    wrong = change(converted, "attn.qkv.weight", untouched)
    assert_differ(logits, wrong, SQUARE, images)


def test_the_exact_gelu_is_found_out():
    _, state, images, logits = peer(TINY, torch.float64)
    converted = convert_state_dict(state, "jax", TINY)
    exact = dataclasses.replace(TINY, gelu="erf")
    assert_differ(logits, converted, exact, images, at_least=3e-5)


def test_double_precision_finds_a_wrong_eps_out():
    _, state, images, logits = peer(TINY, torch.float64)
    converted = convert_state_dict(state, "jax", TINY)
    other = dataclasses.replace(TINY, norm_eps=1e-5)
    assert_differ(logits, converted, other, images, at_least=1e-7)


# ---- refused ----------------------------------------------------------------------


def test_the_hidden_layer_before_the_head_is_refused():
    _, state, _, _ = peer(TINY, representation_size=10)
    assert state["pre_logits/kernel"].shape == (24, 10)
    for refuse in (
        lambda: detect_source(state),
        lambda: infer_config(state, "jax", image_size=(8, 15)),
        lambda: convert_state_dict(state, "jax", TINY),
    ):
        with pytest.raises(ValueError, match=r"pre_logits.*tanh"):
            refuse()


def test_averaging_after_the_norm_is_refused(tmp_path):
    """Without cls the released code averages what the last norm returns."""
    config = dataclasses.replace(TINY, class_token=False, pool="mean")
    params, state, images, logits = peer(config, classifier="gap")
    assert "cls" not in state
    with pytest.raises(ValueError, match="mean"):
        infer_config(state, "jax", image_size=(8, 15))
    with pytest.raises(ValueError, match="mean"):
        convert_state_dict(state, "jax", config)
    write_npz(params, tmp_path / "gap.npz")
    with pytest.raises(ValueError, match="mean"):
        load_pretrained(tmp_path / "gap.npz", image_size=(8, 15))

    # What it would cost: our order, pool then norm, on the same weights.
    with_cls = {**state, "cls": np.zeros((1, 1, 24), np.float32)}
    name = "Transformer/posembed_input/pos_embedding"
    with_cls[name] = np.concatenate([np.zeros((1, 1, 24), np.float32), state[name]], 1)
    converted = convert_state_dict(with_cls, "jax", TINY)
    del converted["cls_token"]
    converted["pos_embed"] = converted["pos_embed"][:, 1:]
    assert_differ(logits, converted, config, images)
    # The same weights in the order of the released code.
    model = fill(converted, config)
    with torch.no_grad():
        tokens = model.patch_embed(images) + model.pos_embed
        for block in model.blocks:
            tokens = block(tokens)
        assert gap(logits, model.head(model.norm(tokens).mean(dim=1))) <= 1e-5


@pytest.mark.parametrize(
    ("field", "value"),
    [("gelu", "erf"), ("norm_eps", 1e-5), ("pool", "mean"), ("qkv_bias", False)],
)
def test_what_the_code_fixes_cannot_be_changed(field, value):
    _, state, _, _ = peer(TINY)
    with pytest.raises(ValueError, match=field):
        convert_state_dict(state, "jax", dataclasses.replace(TINY, **{field: value}))
    if field != "qkv_bias":
        with pytest.raises(ValueError, match=field):
            infer_config(state, "jax", image_size=(8, 15), **{field: value})


@pytest.mark.parametrize("num_heads", [1, 4, 6])
def test_another_number_of_heads_is_refused(num_heads):
    _, state, _, _ = peer(TINY)
    with pytest.raises(ValueError, match=r"num_heads|shape"):
        infer_config(state, "jax", image_size=(8, 15), num_heads=num_heads)
    with pytest.raises(ValueError, match=r"num_heads|shape"):
        convert_state_dict(state, "jax", dataclasses.replace(TINY, num_heads=num_heads))
