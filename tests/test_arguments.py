"""Every mistake has its own words, and nothing but ValueError or TypeError leaves."""

import dataclasses
import json
import math
import re
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import vitlib
from vitlib.arguments import (
    as_pair,
    require_choice,
    require_dtype,
    require_finite,
    require_float,
    require_number,
    require_rate,
    require_tensor,
    require_tokens,
    require_whole,
)
from vitlib.checkpoints import (
    load_checkpoint,
    load_preprocessing,
    load_pretrained,
    save_checkpoint,
    to_timm,
)
from vitlib.convert import convert_state_dict, detect_source, infer_config
from vitlib.data import digits, relation_task, sample_image
from vitlib.dialects import SOURCES
from vitlib.interpret import (
    attention_rollout,
    cls_map,
    delete_patches,
    mean_attention_distance,
    position_similarity,
    record_attention,
)
from vitlib.model_folder import read_config, read_preprocessing
from vitlib.predict import classify, open_rgb, preprocess
from vitlib.train import evaluate, fit

NAN = torch.tensor([0.0, math.nan, math.inf, -math.inf])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: require_whole("n", 1.0), TypeError, "n is 1.0: give a whole number"),
        (lambda: require_whole("n", True), TypeError, "n is True: give a whole number"),
        (lambda: require_whole("n", "3"), TypeError, "n is '3': give a whole number"),
        (
            lambda: require_whole("n", 0),
            ValueError,
            "n is 0: give a whole number of at least 1",
        ),
        (
            lambda: require_whole("n", -1, at_least=0),
            ValueError,
            "n is -1: give a whole number of at least 0",
        ),
        (
            lambda: require_whole("n", 2**31),
            ValueError,
            "n is 2147483648: give a whole number of at most 2147483647",
        ),
        (
            lambda: as_pair("size", (1, 2, 3)),
            ValueError,
            "size is (1, 2, 3): give one number or a pair (height, width)",
        ),
        (
            lambda: as_pair("size", (4, 0)),
            ValueError,
            "size is 0: give a whole number of at least 1",
        ),
        (lambda: as_pair("size", (4, None)), TypeError, "size is None: give a whole"),
        (lambda: as_pair("size", "ab"), TypeError, "size is 'ab': give a whole number"),
        (lambda: require_number("x", "1"), TypeError, "x is '1': give a number"),
        (lambda: require_number("x", True), TypeError, "x is True: give a number"),
        (
            lambda: require_number("x", 0),
            ValueError,
            "x is 0: give a finite number greater than 0",
        ),
        (
            lambda: require_number("x", 2.5, above=2.5),
            ValueError,
            "x is 2.5: give a finite number greater than 2.5",
        ),
        (lambda: require_number("x", math.nan), ValueError, "x is nan: give a finite"),
        (lambda: require_number("x", math.inf), ValueError, "x is inf: give a finite"),
        (lambda: require_number("x", 10**400), ValueError, "x is 1000"),
        (lambda: require_rate("p", "1"), TypeError, "p is '1': give a number"),
        (lambda: require_rate("p", False), TypeError, "p is False: give a number"),
        (
            lambda: require_rate("p", 1),
            ValueError,
            "p is 1: give a rate in [0, 1), where 0 drops nothing",
        ),
        (lambda: require_rate("p", -0.1), ValueError, "p is -0.1: give a rate in"),
        (lambda: require_rate("p", math.nan), ValueError, "p is nan: give a rate in"),
        (
            lambda: require_choice("c", "d", ("a", "b")),
            ValueError,
            "c is 'd': give one of 'a', 'b'",
        ),
        (
            lambda: require_choice("c", 1, (False, True)),
            ValueError,
            "c is 1: give one of False, True",
        ),
        (
            lambda: require_tensor("t", [1], "b n e"),
            TypeError,
            "t is a list: give a torch.Tensor",
        ),
        (
            lambda: require_tensor("t", torch.ones(2, 3), "b n e"),
            ValueError,
            "t has shape (2, 3): give 3 axes, (b, n, e)",
        ),
        (
            lambda: require_tensor("t", torch.ones(2, 3, 4, 5), "b n e"),
            ValueError,
            "t has shape (2, 3, 4, 5): give 3 axes, (b, n, e)",
        ),
        (
            lambda: require_tensor("t", torch.ones(2), "... n d"),
            ValueError,
            "t has shape (2,): give at least 2 axes, (..., n, d)",
        ),
        (
            lambda: require_tokens(torch.ones(2, 3), torch.ones(5, 7)),
            ValueError,
            "tokens has shape (2, 3): give 3 axes, (b, n, e)",
        ),
        (
            lambda: require_tokens(torch.ones(2, 0, 7), torch.ones(5, 7)),
            ValueError,
            "tokens has shape (2, 0, 7): give at least one",
        ),
        (
            lambda: require_tokens(torch.ones(2, 3, 5), torch.ones(5, 7)),
            ValueError,
            "tokens have length 5, the layer takes embed_dim 7: "
            "build the layer with embed_dim=5",
        ),
        (
            lambda: require_tokens(torch.ones(2, 3, 7).double(), torch.ones(5, 7)),
            ValueError,
            "tokens is torch.float64, the weights are torch.float32: "
            "give tokens.to(torch.float32)",
        ),
        (
            lambda: require_float("x", torch.ones(2, dtype=torch.uint8)),
            ValueError,
            "x is torch.uint8: give floats, for pixels x.float() / 255",
        ),
        (
            lambda: require_float("x", torch.ones(2, dtype=torch.complex64)),
            ValueError,
            "x is torch.complex64: give floats",
        ),
        (
            lambda: require_dtype("x", torch.ones(2).half(), torch.ones(2)),
            ValueError,
            "x is torch.float16, the weights are torch.float32: "
            "give x.to(torch.float32)",
        ),
        (
            lambda: require_dtype("x", torch.ones(2, device="meta"), torch.ones(2)),
            ValueError,
            "x is on meta, the weights are on cpu: give x.to('cpu')",
        ),
        (
            lambda: require_finite("x", NAN),
            ValueError,
            "x: 3 of 4 values are NaN or infinite: "
            "mend or drop them before the model spreads them to every token",
        ),
    ],
)
def test_each_mistake_in_its_own_words(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()


def test_good_values_come_back():
    whole = require_whole("n", np.int64(3))
    assert whole == 3 and type(whole) is int
    assert require_whole("n", 0, at_least=0) == 0
    assert require_whole("n", 2**31 - 1) == 2**31 - 1
    assert as_pair("size", 4) == (4, 4)
    assert as_pair("size", [4, 5]) == as_pair("size", (4, 5)) == (4, 5)
    assert require_number("x", Fraction(1, 3)) == Fraction(1, 3)
    assert require_number("x", -1.5, above=-2) == -1.5
    assert require_rate("p", 0) == 0 and require_rate("p", 0.999) == 0.999


@pytest.mark.parametrize("value", ["after", True, False])
def test_choices_keep_true_apart_from_one(value):
    require_choice("c", value, (False, "after", True))
    with pytest.raises(ValueError, match="give one of"):
        require_choice("c", value, (0, 1, "before"))


def test_dots_stand_for_any_axes():
    for shape in [(2, 3), (4, 2, 3), (5, 4, 2, 3)]:
        require_tensor("t", torch.ones(shape), "... n d")
    require_tensor("t", torch.tensor(1.0), "...")


def test_finite_looks_at_values_only_where_there_are_some():
    require_finite("x", torch.zeros(3))
    require_finite("x", torch.empty(3, device="meta"))


def test_autocast_converts_floats_but_not_whole_numbers():
    weight = torch.ones(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        require_dtype("x", torch.ones(2, dtype=torch.bfloat16), weight)
        with pytest.raises(ValueError, match=r"x is torch.int64: give floats"):
            require_dtype("x", torch.ones(2, dtype=torch.int64), weight)


# ---- garbage: whatever arrives, ValueError, TypeError, or a right answer ----------

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@st.composite
def tensors(draw, axes=None, dtypes=DTYPES):
    """Tensors of any shape, also with empty axes, mostly floats, sometimes NaN."""
    count = draw(st.integers(0, 5)) if axes is None else axes
    shape = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    values = torch.randn(shape, generator=generator) * 3
    if draw(st.integers(0, 9)) == 0 and values.numel():
        values.view(-1)[0] = math.nan
    kind = draw(st.one_of(st.just(torch.float32), st.sampled_from(dtypes)))
    return values.nan_to_num().to(kind) if kind in DTYPES[3:] else values.to(kind)


SMALL = st.integers(1, 4)
GARBAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([10**10, -(10**30), 2**63, 10**400]),
    st.floats(),
    st.sampled_from([1e308, 5e-324]),
    st.complex_numbers(),
    st.text("ab0.", max_size=3),
    st.binary(max_size=2),
    st.lists(st.one_of(SMALL, st.none(), st.floats()), max_size=3),
    st.tuples(st.integers(-1, 4), st.integers(0, 4)),
    st.builds(dict),
    st.builds(object),
    tensors(),
)


@st.composite
def mostly(draw, *good):
    """What fits, and garbage in one case of eight: more would hide later checks."""
    return draw(GARBAGE if draw(st.integers(0, 7)) == 0 else st.one_of(*good))


def fitting(*shape):
    """A tensor that fits, or one that nearly does."""
    return mostly(
        st.integers(0, 99).map(
            lambda seed: torch.randn(
                shape, generator=torch.Generator().manual_seed(seed)
            )
        ),
        tensors(len(shape)),
        tensors(len(shape), DTYPES[:3]),
    )


SIZE = mostly(SMALL, st.tuples(SMALL, SMALL))
COUNT = mostly(SMALL)
RATE = mostly(st.just(0.0), st.floats(0, 0.9))
RATIO = mostly(st.floats(0.5, 4))
FLAG = mostly(st.booleans())
EPS = mostly(st.just(1e-6), st.floats(1e-8, 1))
GELU = mostly(st.sampled_from(["erf", "tanh"]))
POOL = mostly(st.sampled_from(["cls", "mean", "mean_all"]))
PATCH_NORM = mostly(st.sampled_from([False, "after", True]))
SAMPLING = mostly(st.sampled_from(["bicubic", "bilinear"]))
MASK = mostly(st.none(), tensors(dtypes=[torch.bool]))


def same(a, b):
    """Assert equality, NaN included."""
    torch.testing.assert_close(a, b, equal_nan=True)


def check_weights(weights, q, k, mask=None, scale=None):
    """Rows of a softmax over finite scores sum to 1, and closed keys get 0."""
    assert weights.shape == (*q.shape[:-1], k.shape[-2])
    if q.isfinite().all() and k.isfinite().all() and scale is None:
        torch.testing.assert_close(
            weights.float().sum(-1), torch.ones(q.shape[:-1]), atol=0.05, rtol=0
        )
    if isinstance(mask, torch.Tensor):
        assert not weights[~mask.expand(weights.shape)].any()


def check_config(config, **_):
    """What ViTConfig accepts can be counted."""
    assert vitlib.count_parameters(config) > 0
    assert vitlib.count_flops(config) > 0
    assert config.num_tokens == config.num_patches + config.class_token


def check_module(module, *_, **__):
    """What can be built has finite parameters."""
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def check_pool(pooled, tokens, pool, class_token=True):
    """Compare with a mean written out."""
    start = 1 if class_token and pool == "mean" else 0
    stop = 1 if pool == "cls" else tokens.shape[1]
    total = sum(tokens[:, i].double() for i in range(start, stop))
    torch.testing.assert_close(
        pooled.double(), total / (stop - start), equal_nan=True, atol=0.1, rtol=0.02
    )


CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "image_size": SIZE,
        "patch_size": SIZE,
        "in_channels": COUNT,
        "num_classes": COUNT,
        "embed_dim": COUNT,
        "depth": COUNT,
        "num_heads": COUNT,
        "head_dim": COUNT,
        "mlp_ratio": RATIO,
        "qkv_bias": FLAG,
        "norm_eps": EPS,
        "gelu": GELU,
        "class_token": FLAG,
        "patch_norm": PATCH_NORM,
        "pool": POOL,
        "drop_rate": RATE,
        "attn_drop_rate": RATE,
        "drop_path_rate": RATE,
        "fused": FLAG,
    },
)
TINY = vitlib.ViTConfig(
    image_size=4, patch_size=2, in_channels=1, num_classes=3, embed_dim=4, depth=1,
    num_heads=2,
)  # fmt: skip


class Scores(nn.Module):
    """The smallest model that fit can train."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, images):
        return images.mean(dim=(1, 2, 3)).nan_to_num()[:, None] * self.scale


@st.composite
def call(draw, arguments, options=()):
    """Draw positional arguments and some of the keyword ones."""
    args = [draw(argument) for argument in arguments]
    kwargs = {
        name: draw(strategy)
        for name, strategy in dict(options).items()
        if draw(st.booleans())
    }
    return args, kwargs


HEADS = {
    "head_dim": COUNT,
    "qkv_bias": FLAG,
    "attn_drop_rate": RATE,
    "drop_rate": RATE,
    "fused": FLAG,
}
BLOCK = {
    **HEADS,
    "mlp_ratio": RATIO,
    "norm_eps": EPS,
    "gelu": GELU,
    "drop_path_rate": RATE,
}
EMBED = {
    "image_size": mostly(st.just(12)),
    "patch_size": SIZE,
    "in_channels": COUNT,
    "embed_dim": COUNT,
}
TRIPLE = mostly(st.tuples(*[st.floats(0.1, 1)] * 3))
LABELS = mostly(st.lists(SMALL, min_size=2, max_size=3).map(torch.LongTensor))


def prefix_is_kept(out, table, old_grid, *_, **__):
    """The class token's row is the same before and after."""
    first = table.shape[1] - math.prod(as_pair("old_grid", old_grid))
    same(out[:, :first], table[:, :first])


def same_shape(out, tokens, **_):
    """A layer between tokens keeps their shape and invents no NaN."""
    assert out.shape == tokens.shape
    assert out.isfinite().all() or not tokens.isfinite().all()


@st.composite
def state_dicts(draw):
    """A state dict that fits, or one in which something is not as it should be."""
    state = dict(vitlib.ViT(TINY).state_dict())
    names = st.lists(st.sampled_from(list(state)), max_size=2, unique=True)
    for name in draw(names):
        change = draw(st.integers(0, 3))
        if change == 0:
            del state[name]
        elif change == 1:
            state[draw(st.one_of(st.text("ab.", max_size=3), SMALL))] = state.pop(name)
        elif change == 2:
            state[name] = draw(fitting(*state[name].shape))
        else:
            state[name] = draw(GARBAGE)
    return state


STATE = mostly(state_dicts())
SOURCE = mostly(st.just("timm"), st.sampled_from(SOURCES))

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-1, 4), st.floats(), st.text("ab0.")
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


def folders(name, *forms):
    """A JSON file in a folder: one of `forms`, with one part garbage, or garbage."""

    @st.composite
    def draw_file(draw):
        said = dict(draw(st.sampled_from(forms)))
        change = draw(st.integers(0, 9))
        if change < 7:
            said[draw(st.sampled_from(sorted(said)))] = draw(JSON)
        return [draw(JSON) if change == 7 else said], {}

    def read_by(read):
        def run(said):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{name}.json"
                path.write_text(json.dumps(said), "utf-8")
                return read(Path(folder))

        return run

    return draw_file(), read_by


CONFIG_FILES, config_read_by = folders(
    "config",
    {
        "model_type": "vit", "num_attention_heads": 4, "layer_norm_eps": 1e-6,
        "hidden_act": "gelu", "image_size": [4, 6],
    },
    {
        "architecture": "vit_tiny_patch16_224", "global_pool": "avg",
        "model_args": {"num_heads": 2, "img_size": 4, "pool_include_prefix": True},
    },
)  # fmt: skip
PHOTO_FILES, photos_read_by = folders(
    "preprocessor_config",
    {
        "size": {"height": 4, "width": 6}, "resample": 2, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "do_center_crop": False,
    },
)  # fmt: skip
TIMM_PHOTO_FILES, timm_photos_read_by = folders(
    "config",
    {
        "architecture": "a", "input_size": [3, 4, 6], "interpolation": "bicubic",
        "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3,
    },
)  # fmt: skip


def check_told(told, *_):
    """What a folder says of a model is what infer_config takes."""
    assert {"num_heads", "norm_eps", "gelu", "pool"} <= set(told)


def check_photos(rules, *_):
    """What a folder says of photos is what preprocess takes."""
    assert set(rules) == {
        "image_size", "resize", "crop_fraction", "interpolation", "mean", "std",
    }  # fmt: skip


def check_shares(found, model, image, labels, top_k=5):
    assert len(found) == top_k
    assert {label for label, _ in found} <= set(labels)
    assert found == sorted(found, key=lambda pair: -pair[1])


def check_fits(out, state, source, config):
    """What is converted fits the model."""
    vitlib.ViT(config).load_state_dict(out, strict=True)


def shares(*shape):
    """Rows that sum to 1, or something else."""
    return mostly(
        st.integers(0, 99).map(
            lambda seed: torch.randn(
                shape, generator=torch.Generator().manual_seed(seed)
            ).softmax(dim=-1)
        ),
        tensors(len(shape)),
    )


ORDER_2 = torch.tensor([[1, 0]])
ORDER = mostly(
    st.permutations(range(4)).map(lambda order: torch.tensor([order, order[::-1]])),
    tensors(2, [torch.int64, torch.uint8]),
)


def check_shares_of_rows(out, *_):
    """What was mixed of rows that sum to 1 sums to 1."""
    same(out.sum(dim=-1), torch.ones(out.shape[:-1], dtype=out.dtype))


def check_deleted(out, images, order, count, patch_size, *_):
    """What was not deleted is as it was."""
    p1, p2 = as_pair("patch_size", patch_size)
    changed = (out != images) & ~(out.isnan() & images.isnan())  # (b, c, H, W)
    assert changed.any(dim=1).sum() <= len(images) * count * p1 * p2


def never(out, *_):
    """Garbage alone went in, so nothing may come out."""
    pytest.fail(f"garbage became {out}")


CALLS = {
    "split_patches": (
        vitlib.split_patches,
        call([fitting(2, 3, 4, 4), SIZE]),
        lambda out, images, patch: same(
            vitlib.merge_patches(out, patch, tuple(images.shape[2:])), images
        ),
    ),
    "merge_patches": (
        vitlib.merge_patches,
        call([fitting(3, 4, 12), SIZE, mostly(st.just(4), st.just((2, 8)))]),
        lambda out, patches, patch, _: same(vitlib.split_patches(out, patch), patches),
    ),
    "prepend_cls_token": (
        vitlib.prepend_cls_token,
        call([fitting(2, 3, 4), fitting(1, 1, 4)]),
        lambda out, tokens, token: (
            same(out[:, 1:], tokens.to(out.dtype)),
            same(out[:, :1], token.to(out.dtype).expand(len(tokens), 1, -1)),
        ),
    ),
    "pool_tokens": (
        vitlib.pool_tokens,
        call([fitting(2, 3, 4), POOL], {"class_token": FLAG}),
        check_pool,
    ),
    "sincos_2d": (
        vitlib.sincos_2d,
        call([SIZE, mostly(st.just(8))]),
        lambda out, *_: check_rows_differ(out),
    ),
    "resample_pos_embed": (
        vitlib.resample_pos_embed,
        call(
            [fitting(1, 5, 3), mostly(st.just(2), st.just((4, 1))), SIZE],
            {"mode": SAMPLING},
        ),
        prefix_is_kept,
    ),
    "attention_weights": (
        vitlib.attention_weights,
        call(
            [fitting(2, 3, 4), fitting(2, 5, 4)],
            {"mask": MASK, "scale": mostly(st.floats(0.1, 1))},
        ),
        check_weights,
    ),
    "attend": (
        vitlib.attend,
        call([fitting(3, 4), fitting(5, 4), fitting(5, 2)], {"mask": MASK}),
        lambda out, q, k, v, mask=None: same(
            out, vitlib.attention_weights(q, k, mask) @ v
        ),
    ),
    "split_heads": (
        vitlib.split_heads,
        call([fitting(2, 3, 4), COUNT]),
        lambda out, tokens, _: same(vitlib.merge_heads(out), tokens),
    ),
    "merge_heads": (
        vitlib.merge_heads,
        call([fitting(2, 3, 5, 4)]),
        lambda out, heads: same(out, heads.transpose(1, 2).flatten(2)),
    ),
    "gelu_exact": (
        vitlib.gelu_exact,
        call([fitting(2, 3)]),
        lambda out, x: torch.testing.assert_close(
            out, F.gelu(x), equal_nan=True, atol=0.1, rtol=0.05
        ),
    ),
    "gelu_tanh": (
        vitlib.gelu_tanh,
        call([fitting(2, 3)]),
        lambda out, x: torch.testing.assert_close(
            out, F.gelu(x, approximate="tanh"), equal_nan=True, atol=0.1, rtol=0.05
        ),
    ),
    "MLP": (
        vitlib.MLP,
        call([COUNT, COUNT], {"gelu": GELU, "drop_rate": RATE}),
        check_module,
    ),
    "MLP.forward": (vitlib.MLP(4, 5), call([fitting(2, 3, 4)]), same_shape),
    "MultiHeadAttention": (
        vitlib.MultiHeadAttention,
        call([COUNT, COUNT], HEADS),
        check_module,
    ),
    "MultiHeadAttention.forward": (
        vitlib.MultiHeadAttention(4, 2),
        call([fitting(2, 3, 4)], {"mask": MASK}),
        same_shape,
    ),
    "MultiHeadAttention.forward, fused": (
        vitlib.MultiHeadAttention(4, 2, fused=True),
        call([fitting(2, 3, 4)], {"mask": MASK}),
        same_shape,
    ),
    "DropPath": (vitlib.DropPath, call([RATE]), check_module),
    "DropPath.forward": (vitlib.DropPath(0.5), call([fitting(2, 3, 4)]), same_shape),
    "EncoderBlock": (vitlib.EncoderBlock, call([COUNT, COUNT], BLOCK), check_module),
    "EncoderBlock.forward": (
        vitlib.EncoderBlock(4, 2),
        call([fitting(2, 3, 4)], {"mask": MASK}),
        same_shape,
    ),
    "PatchEmbed": (
        vitlib.PatchEmbed,
        st.tuples(
            st.just([]),
            st.fixed_dictionaries(
                EMBED, optional={"patch_norm": PATCH_NORM, "norm_eps": EPS}
            ),
        ),
        check_module,
    ),
    "PatchEmbed.forward": (
        vitlib.PatchEmbed(image_size=4, patch_size=2, in_channels=1, embed_dim=3),
        call([fitting(2, 1, 4, 4)]),
        lambda out, images: same(out.isfinite().all(), torch.tensor(True)),
    ),
    "ViTConfig": (
        vitlib.ViTConfig,
        st.tuples(st.just([]), CONFIG),
        lambda config, **_: check_config(config),
    ),
    "ViT": (vitlib.ViT, call([mostly(st.just(TINY))]), check_module),
    "ViT.forward": (
        vitlib.ViT(TINY),
        call([fitting(2, 1, 4, 4)]),
        lambda out, images: same(out, torch.zeros(len(images), 3)),
    ),
    "count_parameters": (vitlib.count_parameters, call([GARBAGE]), never),
    "count_flops": (vitlib.count_flops, call([GARBAGE]), never),
    "preprocess": (
        preprocess,
        call(
            [mostly(st.just(Image.new("RGB", (5, 3), "teal")))],
            {
                "image_size": SIZE,
                "resize": mostly(st.sampled_from(["shorter", "squash"])),
                "crop_fraction": mostly(st.floats(0.1, 1)),
                "interpolation": SAMPLING,
                "mean": TRIPLE,
                "std": TRIPLE,
            },
        ),
        lambda out, *_, **__: same(out.isfinite().all(), torch.tensor(True)),
    ),
    "open_rgb": (open_rgb, call([GARBAGE]), never),
    "classify": (
        classify,
        call(
            [
                mostly(st.just(vitlib.ViT(TINY).eval())),
                fitting(1, 1, 4, 4),
                mostly(st.just(list("abc")), st.lists(st.text("ab"), max_size=4)),
                COUNT,
            ]
        ),
        check_shares,
    ),
    "record_attention": (
        record_attention,
        call([mostly(st.just(vitlib.ViT(TINY).eval())), fitting(2, 1, 4, 4)]),
        lambda out, _, images: check_shares_of_rows(out),
    ),
    "attention_rollout": (
        attention_rollout,
        call([shares(2, 1, 3, 5, 5)]),
        lambda out, _: torch.testing.assert_close(
            out.sum(dim=-1), torch.ones(out.shape[:-1], dtype=out.dtype)
        ),
    ),
    "cls_map": (
        cls_map,
        call([shares(2, 5, 5), mostly(st.just(2), st.just((1, 4)))]),
        lambda out, attention, _: same(out.flatten(-2), attention[..., 0, 1:]),
    ),
    "position_similarity": (
        position_similarity,
        call([fitting(1, 5, 3), mostly(st.just(2), st.just((4, 1)))]),
        lambda out, *_: same(out, out.permute(2, 3, 0, 1)),
    ),
    "mean_attention_distance": (
        mean_attention_distance,
        call([shares(2, 1, 3, 5, 5), mostly(st.just(2), st.just((1, 4))), SIZE]),
        lambda out, attention, *_: same(out.shape, attention.shape[::2][:2]),
    ),
    "delete_patches": (
        delete_patches,
        call([fitting(2, 3, 4, 4), ORDER, COUNT, mostly(st.just(2), st.just((1, 4)))]),
        check_deleted,
    ),
    "delete_patches, fill": (
        lambda fill: delete_patches(torch.ones(1, 1, 2, 1), ORDER_2, 1, 1, fill),
        call([mostly(st.floats(), st.just("mean"))]),
        lambda out, _: same(out.isfinite().all(), torch.tensor(True)),
    ),
    "detect_source": (
        detect_source,
        call([STATE]),
        lambda out, _: same(SOURCES.index(out), 0),
    ),
    "infer_config": (
        infer_config,
        st.tuples(
            st.tuples(STATE, SOURCE),
            st.fixed_dictionaries(
                {"num_heads": COUNT, "norm_eps": EPS, "gelu": GELU, "pool": POOL},
                optional={"image_size": SIZE, "patch_size": SIZE},
            ),
        ),
        lambda out, *_, **__: check_config(out),
    ),
    "convert_state_dict": (
        convert_state_dict,
        call([STATE, SOURCE, mostly(st.just(TINY))]),
        check_fits,
    ),
    "to_timm": (
        to_timm,
        call([mostly(st.just(vitlib.ViT(TINY)))]),
        lambda out, model: check_fits(out, None, None, model.config),
    ),
    "save_checkpoint": (save_checkpoint, call([GARBAGE, GARBAGE]), never),
    "save_checkpoint, path": (
        lambda path: save_checkpoint(vitlib.ViT(TINY), path),
        call([GARBAGE.filter(lambda path: not isinstance(path, str))]),
        never,
    ),
    "load_checkpoint": (load_checkpoint, call([GARBAGE]), never),
    "load_pretrained": (load_pretrained, call([GARBAGE]), never),
    "load_preprocessing": (load_preprocessing, call([GARBAGE]), never),
    "read_config": (config_read_by(read_config), CONFIG_FILES, check_told),
    "read_preprocessing": (
        photos_read_by(read_preprocessing),
        PHOTO_FILES,
        check_photos,
    ),
    "read_preprocessing, timm": (
        timm_photos_read_by(read_preprocessing),
        TIMM_PHOTO_FILES,
        check_photos,
    ),
    "sample_image": (sample_image, call([GARBAGE]), never),
    "digits": (digits, call([GARBAGE]), never),
    "relation_task": (
        relation_task,
        call([COUNT], {"seed": COUNT, "noise": RATE}),
        lambda out, count, **_: same(len(out[0]), int(count)),
    ),
    "fit": (
        fit,
        st.tuples(
            st.tuples(mostly(st.builds(Scores)), fitting(2, 1, 2, 2), LABELS),
            st.fixed_dictionaries(
                {"steps": COUNT},
                optional={
                    "batch_size": COUNT,
                    "lr": EPS,
                    "weight_decay": RATE,
                    "seed": COUNT,
                },
            ),
        ),
        lambda out, *_, steps, **__: same(len(out), steps),
    ),
    "evaluate": (
        evaluate,
        call([mostly(st.builds(Scores)), fitting(2, 1, 2, 2), LABELS]),
        lambda out, *_: same(0 <= out <= 1, True),
    ),
}


def check_rows_differ(table):
    """Every cell of a fixed table has its own row, within [-1, 1]."""
    assert table.abs().max() <= 1
    assert len(table.unique(dim=0)) == len(table)


@pytest.mark.parametrize("name", CALLS)
def test_garbage_raises_nothing_but_value_and_type_errors(name):
    function, arguments, check = CALLS[name]

    accepted = []

    @settings(max_examples=100)
    @given(arguments)
    def run(drawn):
        args, kwargs = drawn
        try:
            result = function(*args, **kwargs)
        except (ValueError, TypeError):
            return
        check(result, *args, **kwargs)
        accepted.append(result)

    run()
    assert accepted or check is never, "nothing got past the checks"


def test_every_public_name_is_fed_garbage():
    presets = {name for name in vitlib.__all__ if name.startswith("VIT_")}
    assert set(vitlib.__all__) - presets <= set(CALLS)
    fields = {field.name for field in dataclasses.fields(vitlib.ViTConfig)}
    assert fields == {*TINY.__dict__}
