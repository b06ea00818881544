"""The whole model: sizes, start, costs, and five published variants of it."""

import dataclasses
import math
import re

import pytest
import torch
import torch.nn.functional as F
import torchsummary
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vitlib
from vitlib import ViT, ViTConfig, count_flops, count_parameters

# 4 x 5 = 20 patches of 3*2*3 = 18 values, T = 21, e = 24, d = 8, hidden 36.
TINY = ViTConfig(
    image_size=(8, 15),
    patch_size=(2, 3),
    num_classes=5,
    embed_dim=24,
    depth=2,
    num_heads=3,
    mlp_ratio=1.5,
)
PRESETS = {
    "VIT_TI_16": 5_717_416,
    "VIT_S_32": 22_878_952,
    "VIT_S_16": 22_050_664,
    "VIT_B_32": 88_224_232,
    "VIT_B_16": 86_567_656,
    "VIT_L_32": 306_535_400,
    "VIT_L_16": 304_326_632,
    "VIT_H_14": 632_045_800,
}


def vary(**changes):
    return dataclasses.replace(TINY, **changes)


def make_images(config=TINY):
    return torch.randn(2, config.in_channels, *config.image_size)


def build_on_meta(config):
    with torch.device("meta"):
        return ViT(config)


# ---- the forward pass ------------------------------------------------------------


def logits_by_pytorch(model, images):
    """The same model out of PyTorch's own parts, pre-norm layers included."""
    config = model.config
    state = model.state_dict()
    patches = F.unfold(images, kernel_size=(2, 3), stride=(2, 3)).transpose(1, 2)
    tokens = F.linear(
        patches, state["patch_embed.proj.weight"].flatten(1),
        state["patch_embed.proj.bias"],
    )  # fmt: skip
    if config.class_token:
        front = state["cls_token"].repeat(len(images), 1, 1)
        tokens = torch.cat([front, tokens], dim=1)
    tokens = tokens + state["pos_embed"]
    for i in range(config.depth):
        layer = nn.TransformerEncoderLayer(
            config.embed_dim, config.num_heads, dim_feedforward=36, dropout=0.0,
            activation="gelu", layer_norm_eps=config.norm_eps, batch_first=True,
            norm_first=True,
        )  # fmt: skip
        prefix = f"blocks.{i}."
        names = {
            "self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.",
            "linear1.": "mlp.fc1.", "linear2.": "mlp.fc2.", "norm1.": "norm1.",
            "norm2.": "norm2.",
        }  # fmt: skip
        layer.load_state_dict(
            {
                theirs + kind: state[prefix + ours + kind]
                for theirs, ours in names.items()
                for kind in ("weight", "bias")
            }
        )
        tokens = layer(tokens)
    first = 1 if config.class_token and config.pool == "mean" else 0
    pooled = tokens[:, 0] if config.pool == "cls" else tokens[:, first:].mean(1)
    pooled = F.layer_norm(
        pooled, (24,), state["norm.weight"], state["norm.bias"], config.norm_eps
    )
    return F.linear(pooled, state["head.weight"], state["head.bias"])


@pytest.mark.parametrize(
    ("pool", "class_token"),
    [
        ("cls", True), ("mean", True), ("mean_all", True), ("mean", False),
        ("mean_all", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fused", [False, True])
def test_logits_equal_a_model_of_pytorchs_parts(jitter, pool, class_token, fused):
    model = jitter(ViT(vary(pool=pool, class_token=class_token, fused=fused)))
    images = make_images()
    logits = model(images)
    torch.testing.assert_close(logits, logits_by_pytorch(model, images))
    assert (logits[0] - logits[1]).abs().min() > 1e-3


def test_fused_and_written_out_agree_in_every_gradient(jitter):
    written = jitter(ViT(TINY))
    fused = ViT(vary(fused=True))
    fused.load_state_dict(written.state_dict(), strict=True)
    images = make_images()
    labels = torch.tensor([3, 1])
    for model in (written, fused):
        F.cross_entropy(model(images), labels).backward()
    for one, other in zip(written.parameters(), fused.parameters(), strict=True):
        assert one.grad.abs().max() > 0
        torch.testing.assert_close(one.grad, other.grad)


def test_images_do_not_see_each_other(jitter):
    model = jitter(ViT(TINY))
    images = make_images()
    torch.testing.assert_close(model(images)[1:], model(images[1:]))


@pytest.mark.parametrize("fused", [False, True])
def test_half_precision_by_autocast_and_by_weights(jitter, fused):
    model = jitter(ViT(vary(fused=fused, patch_norm=True)))
    images = make_images()
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(images).float(), expected, atol=0.2, rtol=0)
    half = model.bfloat16()(images.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.2, rtol=0)


def test_the_model_can_be_exported(jitter):
    """The checks that look at values step aside while PyTorch traces."""
    model = jitter(ViT(TINY)).eval()
    images = make_images()
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images + 1), model(images + 1))


def shuffled(images, order):
    patches = vitlib.split_patches(images, TINY.patch_size)[:, order]
    return vitlib.merge_patches(patches, TINY.patch_size, TINY.image_size)


@pytest.mark.parametrize("pool", ["cls", "mean", "mean_all"])
def test_without_positions_the_order_of_patches_is_nothing(jitter, pool):
    model = jitter(ViT(vary(pool=pool)))
    images, order = make_images(), torch.randperm(20)
    with_positions = model(images) - model(shuffled(images, order))
    assert with_positions.abs().max() > 1e-2
    with torch.no_grad():
        model.pos_embed.fill_(0.7)
    torch.testing.assert_close(model(shuffled(images, order)), model(images))


def test_config_reaches_every_part():
    config = vary(
        head_dim=7, qkv_bias=False, norm_eps=1e-3, gelu="tanh", patch_norm=True,
        drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.3, fused=True, depth=4,
    )  # fmt: skip
    model = ViT(config)
    assert model.config is config
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == 2 + 2 * 4 + 1
    assert all(norm.eps == 1e-3 for norm in norms)
    assert model.drop.p == 0.1
    for block in model.blocks:
        assert block.attn.head_dim == 7
        assert block.attn.qkv.bias is None
        assert block.mlp.act.approximate == "tanh"
        assert block.mlp.fc1.out_features == 36
        assert block.attn.drop.p == block.mlp.drop.p == 0.1
        assert block.attn.attn_drop.p == 0.2
        assert block.attn.fused is True
    rates = [block.drop_path.drop_path_rate for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_one_block_drops_no_path():
    (block,) = ViT(vary(depth=1, drop_path_rate=0.5)).blocks
    assert block.drop_path.drop_path_rate == 0
    model = ViT(vary(depth=2, drop_path_rate=0.5))
    assert [block.drop_path.drop_path_rate for block in model.blocks] == [0, 0.5]


def test_evaluation_drops_nothing_and_training_does(jitter):
    rates = {"drop_rate": 0.3, "attn_drop_rate": 0.3, "drop_path_rate": 0.3}
    model = jitter(ViT(vary(**rates)))
    plain = ViT(TINY)
    plain.load_state_dict(model.state_dict(), strict=True)
    images = make_images()
    assert torch.equal(model.eval()(images), plain(images))
    assert not torch.allclose(model.train()(images), plain(images))


def test_dropout_stands_behind_the_positions():
    """With no block to hide it: the tokens that enter block 0 are dropped."""
    model = ViT(vary(drop_rate=0.4))
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.pos_embed.fill_(100.0)
    for _ in range(20):
        model(make_images())
    gone = (torch.cat(seen) == 0).float().mean().item()
    assert gone == pytest.approx(0.4, abs=0.02)


def test_the_model_is_vit_b_16_when_nothing_is_said():
    model = build_on_meta(ViTConfig())
    with torch.device("meta"):
        assert ViT().config == model.config == vitlib.VIT_B_16
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


# ---- names and shapes ------------------------------------------------------------

BLOCK_KEYS = {
    "norm1.weight": (24,),
    "norm1.bias": (24,),
    "attn.qkv.weight": (72, 24),
    "attn.qkv.bias": (72,),
    "attn.proj.weight": (24, 24),
    "attn.proj.bias": (24,),
    "norm2.weight": (24,),
    "norm2.bias": (24,),
    "mlp.fc1.weight": (36, 24),
    "mlp.fc1.bias": (36,),
    "mlp.fc2.weight": (24, 36),
    "mlp.fc2.bias": (24,),
}
KEYS = {
    "cls_token": (1, 1, 24),
    "pos_embed": (1, 21, 24),
    "patch_embed.proj.weight": (24, 3, 2, 3),
    "patch_embed.proj.bias": (24,),
    **{f"blocks.0.{key}": shape for key, shape in BLOCK_KEYS.items()},
    **{f"blocks.1.{key}": shape for key, shape in BLOCK_KEYS.items()},
    "norm.weight": (24,),
    "norm.bias": (24,),
    "head.weight": (5, 24),
    "head.bias": (5,),
}
NORM_KEYS = {"patch_embed.norm.weight": (24,), "patch_embed.norm.bias": (24,)}
PIXEL_KEYS = {
    "patch_embed.pixel_norm.weight": (18,),
    "patch_embed.pixel_norm.bias": (18,),
}
NO_TOKEN = {"pos_embed": (1, 20, 24), "cls_token": None}
NO_BIAS = {"blocks.0.attn.qkv.bias": None, "blocks.1.attn.qkv.bias": None}


@pytest.mark.parametrize(
    ("changes", "other_keys"),
    [
        ({}, {}),
        ({"class_token": False, "pool": "mean"}, NO_TOKEN),
        ({"patch_norm": "after"}, NORM_KEYS),
        ({"patch_norm": True}, NORM_KEYS | PIXEL_KEYS),
        ({"qkv_bias": False}, NO_BIAS),
    ],
)
def test_state_dict_is_named_and_shaped_like_timms(changes, other_keys):
    expected = {
        key: shape for key, shape in (KEYS | other_keys).items() if shape is not None
    }
    state = ViT(vary(**changes)).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


# ---- the start -------------------------------------------------------------------

WIDE = ViTConfig(
    image_size=64, patch_size=8, num_classes=7, embed_dim=160, depth=2, num_heads=5,
    head_dim=24, mlp_ratio=3.0,
)  # fmt: skip


def assert_xavier_uniform(weight):
    """Uniform up to sqrt(6 / (fan_in + fan_out)), and not beyond."""
    bound = math.sqrt(6 / sum(weight.shape))
    assert bound * 0.99 < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=bound * 0.03)


def test_attention_and_mlp_start_xavier_uniform():
    for block in ViT(WIDE).blocks:
        for third in block.attn.qkv.weight.chunk(3):
            assert third.shape == (120, 160)
            assert_xavier_uniform(third)
        for layer in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert_xavier_uniform(layer.weight)
        for layer in (block.attn.qkv, block.attn.proj):
            assert (layer.bias == 0).all()
        for layer in (block.mlp.fc1, block.mlp.fc2):
            assert layer.bias.std().item() == pytest.approx(1e-6, rel=0.25)
            assert layer.bias.mean().item() == pytest.approx(0, abs=3e-7)


def test_patches_start_lecun_normal_cut_at_two_deviations():
    weight = ViT(WIDE).patch_embed.proj.weight
    std = math.sqrt(1 / (3 * 8 * 8))
    assert weight.std().item() == pytest.approx(std, rel=0.02)
    cut = 2 * std / 0.8796256610342398
    assert cut * 0.99 < weight.max() <= cut
    assert -cut <= weight.min() < -cut * 0.99
    assert (ViT(WIDE).patch_embed.proj.bias == 0).all()


def test_zeros_positions_and_norms_at_the_start():
    model = ViT(WIDE)
    for zeros in (model.cls_token, model.head.weight, model.head.bias):
        assert (zeros == 0).all()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.pos_embed.mean().item() == pytest.approx(0, abs=1e-3)
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            assert (part.weight == 1).all() and (part.bias == 0).all()
    images = torch.randn(2, 3, 64, 64)
    assert (model(images) == 0).all()


def test_a_start_without_biases_or_class_token():
    model = ViT(
        dataclasses.replace(WIDE, qkv_bias=False, class_token=False, pool="mean")
    )
    assert model.cls_token is None
    assert all(block.attn.qkv.bias is None for block in model.blocks)


def test_the_seed_makes_the_start():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(ViT(TINY).state_dict())
    one, same, other = states
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["pos_embed"], other["pos_embed"])


# ---- what it costs ---------------------------------------------------------------


def measure_flops(config):
    model = build_on_meta(config)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.empty(1, config.in_channels, *model.patch_embed.image_size,
                          device="meta"))  # fmt: skip
    return counter.get_total_flops()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_published_sizes(name):
    config = getattr(vitlib, name)
    built = sum(part.numel() for part in build_on_meta(config).parameters())
    assert count_parameters(config) == built == PRESETS[name]
    assert count_flops(config) == measure_flops(config)


def test_b_16_at_384():
    config = dataclasses.replace(vitlib.VIT_B_16, image_size=384)
    assert config.num_tokens == 577
    assert count_parameters(config) == 86_859_496


def test_b_16_costs_twice_the_published_multiply_adds():
    n, t, e = 196, 197, 768
    expected = 2 * (n * 768 * e + 12 * (12 * t * e**2 + 2 * t**2 * e) + e * 1000)
    assert count_flops(vitlib.VIT_B_16) == expected
    assert expected / 2 == pytest.approx(17.6e9, rel=0.01)


@st.composite
def configs(draw):
    """Lengths from 2 up: torch's counter leaves out products over one number."""
    heads, p1, p2 = draw(st.tuples(*[st.integers(1, 3)] * 3))
    class_token = draw(st.booleans())
    pools = ["cls", "mean", "mean_all"] if class_token else ["mean", "mean_all"]
    return ViTConfig(
        image_size=(p1 * draw(st.integers(2, 4)), p2 * draw(st.integers(1, 4))),
        patch_size=(p1, p2),
        in_channels=draw(st.integers(1, 4)),
        num_classes=draw(st.integers(1, 6)),
        embed_dim=heads * draw(st.integers(2, 6)),
        depth=draw(st.integers(1, 3)),
        num_heads=heads,
        head_dim=draw(st.none() | st.integers(2, 7)),
        mlp_ratio=draw(st.floats(1, 4)),
        qkv_bias=draw(st.booleans()),
        class_token=class_token,
        patch_norm=draw(st.sampled_from([False, "after", True])),
        pool=draw(st.sampled_from(pools)),
    )


@given(configs())
def test_formulas_count_what_is_built(config):
    parameters = build_on_meta(config).parameters()
    assert count_parameters(config) == sum(part.numel() for part in parameters)
    assert count_flops(config) == measure_flops(config)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "VIT_H_14"])
def test_torchsummary_misses_the_class_token_and_positions(name, capsys):
    config = getattr(vitlib, name)
    model = build_on_meta(config).to_empty(device="cpu")  # it counts, values or not
    with torch.no_grad():
        torchsummary.summary(model, (3, 224, 224), device="cpu")
    total = re.search(r"Total params: ([\d,]+)", capsys.readouterr().out)[1]
    missed = count_parameters(config) - int(total.replace(",", ""))
    assert missed == model.cls_token.numel() + model.pos_embed.numel()
    assert missed == (1 + config.num_tokens) * config.embed_dim


# ---- the five tutorials' models: other layouts, equal logits ---------------------


def rand(*shape):
    return torch.randn(shape) * 0.4


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias
    )


def gelu(x):
    return x * torch.distributions.Normal(0.0, 1.0).cdf(x)


def make_weights(e, inner, hidden, depth, patch_dim=18, classes=5, tokens=21):
    """Random numbers under plain names; each reference reads them in its own way."""
    return {
        "patch": rand(e, patch_dim), "patch_b": rand(e),
        "cls": rand(e), "pos": rand(tokens, e),
        "blocks": [
            {
                "n1": 1 + rand(e), "n1_b": rand(e), "qkv": rand(3 * inner, e),
                "qkv_b": rand(3 * inner), "out": rand(e, inner), "out_b": rand(e),
                "n2": 1 + rand(e), "n2_b": rand(e), "up": rand(hidden, e),
                "up_b": rand(hidden), "down": rand(e, hidden), "down_b": rand(e),
            }
            for _ in range(depth)
        ],
        "n": 1 + rand(e), "n_b": rand(e), "head": rand(classes, e),
        "head_b": rand(classes),
    }  # fmt: skip


def reference(weights, images, *, flatten, heads, read_qkv, divisor, eps, bias, read):
    """A pre-norm ViT, head by head, in matrix products alone.

    `flatten` orders a patch, `read_qkv` finds one head's q, k or v in the fused
    rows, `divisor` scales the scores and `read` turns the tokens into one vector.
    """
    patches = rearrange(
        images, f"b c (rows p1) (cols p2) -> b (rows cols) {flatten}", p1=2, p2=3
    )
    tokens = patches @ weights["patch"].T + weights["patch_b"]
    if "patch_n" in weights:
        tokens = layer_norm(tokens, weights["patch_n"], weights["patch_n_b"], eps)
    front = weights["cls"].expand(len(images), 1, -1)
    tokens = torch.cat([front, tokens], dim=1) + weights["pos"]
    for block in weights["blocks"]:
        x = layer_norm(tokens, block["n1"], block["n1_b"], eps)
        rows = x @ block["qkv"].T + (block["qkv_b"] if bias else 0)
        found = []
        for head in range(heads):
            q, k, v = (rows[..., read_qkv(which, head)] for which in range(3))
            scores = q @ k.transpose(1, 2) / divisor
            powers = (scores - scores.amax(-1, keepdim=True)).exp()
            found.append(powers / powers.sum(-1, keepdim=True) @ v)
        joined = torch.cat(found, dim=-1)
        if "out" in block:
            joined = joined @ block["out"].T + block["out_b"]
        tokens = tokens + joined
        x = layer_norm(tokens, block["n2"], block["n2_b"], eps)
        hidden = gelu(x @ block["up"].T + block["up_b"])
        tokens = tokens + hidden @ block["down"].T + block["down_b"]
    pooled = layer_norm(read(tokens), weights["n"], weights["n_b"], eps)
    return pooled @ weights["head"].T + weights["head_b"]


def blocks_of_heads(heads, head_dim):
    """Fused rows (qkv h d): all of q, then all of k, then all of v."""

    def rows(which, head):
        start = (which * heads + head) * head_dim
        return slice(start, start + head_dim)

    return rows


def load(config, weights, *, kernel, qkv_rows):
    """Build vitlib's model; `kernel` and `qkv_rows` bring the layouts over."""
    state = {
        "cls_token": weights["cls"][None, None],
        "pos_embed": weights["pos"][None],
        "patch_embed.proj.weight": rearrange(
            weights["patch"], f"e {kernel} -> e c p1 p2", p1=2, p2=3
        ),
        "patch_embed.proj.bias": weights["patch_b"],
        "norm.weight": weights["n"],
        "norm.bias": weights["n_b"],
        "head.weight": weights["head"],
        "head.bias": weights["head_b"],
    }
    if config.patch_norm:
        state["patch_embed.norm.weight"] = weights["patch_n"]
        state["patch_embed.norm.bias"] = weights["patch_n_b"]
    names = {
        "norm1": "n1", "attn.proj": "out", "norm2": "n2", "mlp.fc1": "up",
        "mlp.fc2": "down",
    }  # fmt: skip
    for i, block in enumerate(weights["blocks"]):
        for ours, theirs in names.items():
            state[f"blocks.{i}.{ours}.weight"] = block.get(
                theirs, torch.eye(config.embed_dim)
            )
            state[f"blocks.{i}.{ours}.bias"] = block.get(
                f"{theirs}_b", torch.zeros(config.embed_dim)
            )
        state[f"blocks.{i}.attn.qkv.weight"] = qkv_rows(block["qkv"])
        if config.qkv_bias:
            state[f"blocks.{i}.attn.qkv.bias"] = qkv_rows(block["qkv_b"])
    model = ViT(config)
    model.load_state_dict(state, strict=True)
    return model


def assert_same_logits(model, expected, images):
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


def test_interleaved_qkv_and_a_root_of_the_embedding():
    """Rows of qkv run (h d qkv), scores go over sqrt(e), all tokens are averaged."""
    config = vary(norm_eps=1e-5, pool="mean_all")
    weights = make_weights(24, 24, 36, depth=2)

    def qkv_rows(fused):
        rows = rearrange(fused, "(h d three) ... -> three (h d) ...", h=3, three=3)
        # We divide by sqrt(d): the rest of the division moves into q's rows.
        scaled_q = rows[0] * math.sqrt(8 / 24)
        return torch.cat([scaled_q, rows[1], rows[2]])

    images = make_images()
    expected = reference(
        weights, images, flatten="(c p1 p2)", heads=3,
        read_qkv=lambda which, head: slice(head * 24 + which, (head + 1) * 24, 3),
        divisor=math.sqrt(24), eps=1e-5, bias=True, read=lambda tokens: tokens.mean(1),
    )  # fmt: skip
    model = load(config, weights, kernel="(c p1 p2)", qkv_rows=qkv_rows)
    assert_same_logits(model, expected, images)


@pytest.mark.parametrize("pool", ["cls", "mean_all"])
@pytest.mark.parametrize(("heads", "head_dim"), [(3, 10), (1, 24)])
def test_channel_last_patches_and_free_head_length(pool, heads, head_dim):
    """Patches run (p1 p2 c), qkv has no bias, and d is free.

    One head as long as a token has no output projection: the identity matrix.
    """
    config = vary(
        norm_eps=1e-5, pool=pool, qkv_bias=False, num_heads=heads, head_dim=head_dim
    )
    inner = heads * head_dim
    weights = make_weights(24, inner, 36, depth=2)
    if (heads, head_dim) == (1, 24):
        for block in weights["blocks"]:
            del block["out"], block["out_b"]
    images = make_images()
    expected = reference(
        weights, images, flatten="(p1 p2 c)", heads=heads,
        read_qkv=blocks_of_heads(heads, head_dim),
        divisor=math.sqrt(head_dim), eps=1e-5, bias=False,
        read=lambda tokens: tokens[:, 0] if pool == "cls" else tokens.mean(1),
    )  # fmt: skip
    model = load(config, weights, kernel="(p1 p2 c)", qkv_rows=lambda rows: rows)
    assert_same_logits(model, expected, images)


@pytest.mark.parametrize("patch_norm", [False, "after"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_timms_layout_with_and_without_a_norm_after_the_patches(patch_norm, qkv_bias):
    """Rows of qkv run (qkv h d), eps is 1e-6, the class token is read."""
    config = vary(patch_norm=patch_norm, qkv_bias=qkv_bias)
    weights = make_weights(24, 24, 36, depth=2)
    if patch_norm:
        weights |= {"patch_n": 1 + rand(24), "patch_n_b": rand(24)}
    images = make_images()
    expected = reference(
        weights, images, flatten="(c p1 p2)", heads=3,
        read_qkv=blocks_of_heads(3, 8),
        divisor=math.sqrt(8), eps=1e-6, bias=qkv_bias, read=lambda tokens: tokens[:, 0],
    )  # fmt: skip
    model = load(config, weights, kernel="(c p1 p2)", qkv_rows=lambda rows: rows)
    assert_same_logits(model, expected, images)


# ---- the configuration -----------------------------------------------------------


def test_the_configuration_when_nothing_is_said():
    assert dataclasses.asdict(ViTConfig()) == {
        "image_size": 224,
        "patch_size": 16,
        "in_channels": 3,
        "num_classes": 1000,
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "head_dim": None,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "norm_eps": 1e-6,
        "gelu": "erf",
        "class_token": True,
        "patch_norm": False,
        "pool": "cls",
        "drop_rate": 0.0,
        "attn_drop_rate": 0.0,
        "drop_path_rate": 0.0,
        "fused": False,
    }


@pytest.mark.parametrize(
    ("prefix", "embed_dim", "depth", "num_heads"),
    [
        ("VIT_TI", 192, 12, 3), ("VIT_S", 384, 12, 6), ("VIT_B", 768, 12, 12),
        ("VIT_L", 1024, 24, 16), ("VIT_H", 1280, 32, 16),
    ],
)  # fmt: skip
def test_presets_are_the_rows_of_the_published_tables(
    prefix, embed_dim, depth, num_heads
):
    """Heads do not change the parameter count, so it cannot vouch for them."""
    rows = [name for name in PRESETS if name.startswith(prefix)]
    assert rows
    for name in rows:
        assert getattr(vitlib, name) == ViTConfig(
            patch_size=int(name[-2:]),
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
        )


def test_derived_sizes():
    assert TINY.grid_size == (4, 5)
    assert (TINY.num_patches, TINY.num_tokens) == (20, 21)
    bare = vary(class_token=False, pool="mean")
    assert (bare.num_patches, bare.num_tokens) == (20, 20)


def test_a_config_is_fixed_and_comparable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.depth = 3
    assert vary() == TINY and hash(vary()) == hash(TINY)
    assert vary(depth=3) != TINY


NAN_IMAGES = torch.full((2, 3, 8, 15), math.nan)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ViTConfig(image_size=30),
            ValueError,
            "image height 30 is not divisible by patch_size 16: "
            "crop to 16 or pad to 32",
        ),
        (
            lambda: ViTConfig(image_size=(32, 30)),
            ValueError,
            "image width 30 is not divisible by patch_size 16: crop to 16 or pad to 32",
        ),
        *[
            (
                lambda name=name, value=value: vary(**{name: value}),
                ValueError,
                f"{name} is {value}: give a whole number of at least 1",
            )
            for name in (
                "image_size", "patch_size", "in_channels", "num_classes", "embed_dim",
                "depth", "num_heads", "head_dim",
            )
            for value in (0, -3)
        ],
        *[
            (
                lambda name=name: vary(**{name: 2.0}),
                TypeError,
                f"{name} is 2.0: give a whole number",
            )
            for name in (
                "in_channels", "num_classes", "embed_dim", "depth", "num_heads",
            )
        ],
        *[
            (
                lambda name=name, value=value: vary(**{name: value}),
                ValueError,
                f"{name} is {value}: give a rate in [0, 1), where 0 drops nothing",
            )
            for name in ("drop_rate", "attn_drop_rate", "drop_path_rate")
            for value in (1.0, -0.1, math.nan)
        ],
        *[
            (
                lambda name=name: vary(**{name: 1}),
                ValueError,
                f"{name} is 1: give one of False, True",
            )
            for name in ("qkv_bias", "class_token", "fused")
        ],
        (
            lambda: vary(num_heads=5),
            ValueError,
            "embed_dim 24 is not divisible by num_heads 5: change one of them, or give "
            "head_dim where the layer takes it",
        ),
        (
            lambda: vary(mlp_ratio=-1),
            ValueError,
            "mlp_ratio is -1: give a finite number greater than 0",
        ),
        (
            lambda: vary(norm_eps=0),
            ValueError,
            "norm_eps is 0: give a finite number greater than 0",
        ),
        (
            lambda: vary(gelu="relu"),
            ValueError,
            "gelu is 'relu': give one of 'erf', 'tanh'",
        ),
        (
            lambda: vary(patch_norm="before"),
            ValueError,
            "patch_norm is 'before': give one of False, 'after', True",
        ),
        (
            lambda: vary(pool="max"),
            ValueError,
            "pool is 'max': give one of 'cls', 'mean', 'mean_all'",
        ),
        (
            lambda: vary(class_token=False),
            ValueError,
            'pool "cls" reads the class token, but class_token is False: '
            'give pool "mean", or keep the class token',
        ),
        (
            lambda: ViT({"depth": 2}),
            TypeError,
            "config is a dict: give a ViTConfig",
        ),
        (
            lambda: count_parameters(None),
            TypeError,
            "config is a NoneType: give a ViTConfig",
        ),
        (
            lambda: count_flops("B/16"),
            TypeError,
            "config is a str: give a ViTConfig",
        ),
        (
            lambda: ViT(TINY)(torch.ones(2, 3, 16, 15)),
            ValueError,
            "images are 16x15, the model takes 8x15: resize them, or build the model "
            "with image_size=(16, 15)",
        ),
        (
            lambda: ViT(TINY)(torch.ones(2, 1, 8, 15)),
            ValueError,
            "images have 1 channels, the model takes 3: convert them, or build the "
            "model with in_channels=1; the axes are (b, c, H, W), "
            "channels-last images need .permute(0, 3, 1, 2)",
        ),
        (
            lambda: ViT(TINY)(torch.ones(3, 8, 15)),
            ValueError,
            "images has shape (3, 8, 15): give 4 axes, (b, c, H, W)",
        ),
        (
            lambda: ViT(TINY)(torch.ones(2, 3, 8, 15, dtype=torch.uint8)),
            ValueError,
            "images is torch.uint8: give floats, for pixels images.float() / 255",
        ),
        (
            lambda: ViT(TINY)(NAN_IMAGES),
            ValueError,
            "images: 720 of 720 values are NaN or infinite: "
            "mend or drop them before the model spreads them to every token",
        ),
        (
            lambda: ViT(TINY)("cat.jpg"),
            TypeError,
            "images is a str: give a torch.Tensor",
        ),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_a_config_keeps_what_it_checked():
    size = [8, 12]
    config = ViTConfig(image_size=size, patch_size=[2, 4])
    size[0] = 7
    assert config.grid_size == (4, 3)
    assert hash(config) == hash(ViTConfig(image_size=(8, 12), patch_size=(2, 4)))


def test_images_on_another_device_are_refused():
    images = torch.empty(2, TINY.in_channels, *TINY.image_size, device="meta")
    with pytest.raises(ValueError, match="images is on meta, the weights are on cpu"):
        ViT(TINY)(images)
