"""The block against nn.TransformerEncoderLayer; DropPath against its definition."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitlib.encoder import DropPath, EncoderBlock, hidden_dim_of

B, N, E, HEADS = 2, 5, 12, 3


def make_pair(jitter, gelu="erf", norm_eps=1e-6, mlp_ratio=1.5, **options):
    """Our block and PyTorch's pre-norm layer with the same numbers."""
    ours = EncoderBlock(
        E, HEADS, mlp_ratio=mlp_ratio, norm_eps=norm_eps, gelu=gelu, **options
    )
    activation = F.gelu if gelu == "erf" else nn.GELU(approximate="tanh")
    theirs = nn.TransformerEncoderLayer(
        E,
        HEADS,
        dim_feedforward=int(E * mlp_ratio),
        dropout=0.0,
        activation=activation,
        layer_norm_eps=norm_eps,
        batch_first=True,
        norm_first=True,
    )
    jitter(ours)
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight",
        "self_attn.in_proj_bias": "attn.qkv.bias",
        "self_attn.out_proj.weight": "attn.proj.weight",
        "self_attn.out_proj.bias": "attn.proj.bias",
        "linear1.weight": "mlp.fc1.weight",
        "linear1.bias": "mlp.fc1.bias",
        "linear2.weight": "mlp.fc2.weight",
        "linear2.bias": "mlp.fc2.bias",
        "norm1.weight": "norm1.weight",
        "norm1.bias": "norm1.bias",
        "norm2.weight": "norm2.weight",
        "norm2.bias": "norm2.bias",
    }
    state = ours.state_dict()
    theirs.load_state_dict({key: state[name] for key, name in names.items()})
    return ours, theirs, names


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("gelu", ["erf", "tanh"])
@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_equal_pytorchs_layer(jitter, fused, gelu, masked):
    ours, theirs, names = make_pair(jitter, gelu, fused=fused)
    tokens = torch.randn(B, N, E, requires_grad=True)
    twin = tokens.detach().clone().requires_grad_()
    mask = torch.ones(N, N, dtype=torch.bool).tril() if masked else None
    out = ours(tokens, mask)
    expected = theirs(twin, src_mask=None if mask is None else ~mask)
    torch.testing.assert_close(out, expected)

    target = torch.randn(B, N, E)
    (out * target).sum().backward()
    (expected * target).sum().backward()
    torch.testing.assert_close(tokens.grad, twin.grad)
    for key, name in names.items():
        torch.testing.assert_close(
            ours.get_parameter(name).grad, theirs.get_parameter(key).grad
        )


def test_eps_reaches_both_norms(jitter):
    """A large eps shows in the output; a small one only in the attribute."""
    ours, theirs, _ = make_pair(jitter, norm_eps=0.5)
    tokens = torch.randn(B, N, E)
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    block = EncoderBlock(E, HEADS)
    assert block.norm1.eps == block.norm2.eps == 1e-6


@given(st.integers(0, 10**6))
def test_moving_the_tokens_moves_the_output(seed):
    torch.manual_seed(seed)
    block = EncoderBlock(E, HEADS)
    tokens, order = torch.randn(B, N, E), torch.randperm(N)
    torch.testing.assert_close(block(tokens[:, order]), block(tokens)[:, order])


def test_without_its_branches_the_block_is_the_identity():
    block = EncoderBlock(E, HEADS)
    with torch.no_grad():
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    tokens = torch.randn(B, N, E)
    assert torch.equal(block(tokens), tokens)


def test_the_input_is_left_as_it_was(jitter):
    tokens = torch.randn(B, N, E)
    before = tokens.clone()
    jitter(EncoderBlock(E, HEADS))(tokens)
    assert torch.equal(tokens, before)


def test_options_reach_the_parts():
    block = EncoderBlock(
        E,
        HEADS,
        head_dim=7,
        mlp_ratio=2.5,
        qkv_bias=False,
        norm_eps=1e-3,
        gelu="tanh",
        drop_rate=0.1,
        attn_drop_rate=0.2,
        drop_path_rate=0.3,
        fused=True,
    )
    assert block.attn.head_dim == 7
    assert block.mlp.fc1.out_features == 30
    assert block.attn.qkv.bias is None
    assert block.norm1.eps == block.norm2.eps == 1e-3
    assert block.mlp.act.approximate == "tanh"
    assert block.attn.drop.p == block.mlp.drop.p == 0.1
    assert block.attn.attn_drop.p == 0.2
    assert block.drop_path.drop_path_rate == 0.3
    assert block.attn.fused is True


def test_the_rules_when_nothing_is_said():
    block = EncoderBlock(E, HEADS)
    assert block.attn.head_dim == 4
    assert block.mlp.fc1.out_features == 48
    assert block.attn.qkv.bias is not None
    assert block.mlp.act.approximate == "none"
    assert block.attn.drop.p == block.mlp.drop.p == block.attn.attn_drop.p == 0
    assert block.drop_path.drop_path_rate == 0
    assert block.attn.fused is False


@pytest.mark.parametrize(
    ("embed_dim", "mlp_ratio", "hidden_dim"), [(12, 4, 48), (10, 2.55, 25), (3, 0.4, 1)]
)
def test_hidden_length_is_rounded_down(embed_dim, mlp_ratio, hidden_dim):
    hidden = hidden_dim_of(embed_dim, mlp_ratio)
    assert hidden == hidden_dim and type(hidden) is int


# ---- DropPath -------------------------------------------------------------------


def test_an_image_keeps_its_branch_or_loses_it_whole():
    branch = torch.randn(400, N, E)
    dropped = DropPath(0.3).train()(branch)
    gone = (dropped == 0).all(dim=(1, 2))
    assert gone.float().mean() == pytest.approx(0.3, abs=0.07)
    torch.testing.assert_close(dropped[~gone], branch[~gone] / 0.7)


def test_expectation_is_kept():
    drop_path = DropPath(0.2).train()
    branch = torch.ones(20000, 1)
    assert drop_path(branch).mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 3, 2, 2)])
def test_any_axes_after_the_batch(shape):
    dropped = DropPath(0.5).train()(torch.ones(shape)).flatten(1 if shape[1:] else 0)
    rows = dropped.view(50, -1)
    assert (rows == rows[:, :1]).all()
    assert {0.0, 2.0} == set(rows.unique().tolist())


def test_evaluation_and_rate_zero_change_nothing():
    branch = torch.randn(8, N, E)
    assert DropPath(0.9).eval()(branch) is branch
    assert DropPath(0.0).train()(branch) is branch
    assert DropPath().drop_path_rate == 0


def test_gradients_flow_where_the_branch_is_kept():
    branch = torch.randn(50, 3, requires_grad=True)
    dropped = DropPath(0.5).train()(branch)
    dropped.sum().backward()
    kept = (dropped != 0).all(dim=1)
    assert 0 < kept.sum() < 50
    assert (branch.grad[kept] == 2).all() and (branch.grad[~kept] == 0).all()


def test_half_precision_keeps_its_dtype():
    dropped = DropPath(0.5).train()(torch.ones(20, 3, dtype=torch.bfloat16))
    assert dropped.dtype == torch.bfloat16
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_the_rate_is_printed():
    assert repr(DropPath(0.25)) == "DropPath(drop_path_rate=0.25)"


def test_both_branches_are_dropped_each_for_itself(jitter):
    """Of 400 images a quarter keep both, a quarter none, at rate one half."""
    block = jitter(EncoderBlock(E, HEADS, drop_path_rate=0.5))
    tokens = torch.randn(1, N, E).expand(400, N, E)
    out = block.train()(tokens)
    with torch.no_grad():
        attended = tokens + 2 * block.attn(block.norm1(tokens))
        both = attended + 2 * block.mlp(block.norm2(attended))
        mlp_alone = tokens + 2 * block.mlp(block.norm2(tokens))
    for expected in (tokens, attended, mlp_alone, both):
        hits = torch.isclose(out, expected, atol=1e-5).all(dim=(1, 2))
        assert hits.float().mean() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: DropPath(1.0),
            ValueError,
            "drop_path_rate is 1.0: give a rate in [0, 1), where 0 drops nothing",
        ),
        (
            lambda: DropPath("half"),
            TypeError,
            "drop_path_rate is 'half': give a number",
        ),
        (
            lambda: DropPath(0.5)(None),
            TypeError,
            "branch is a NoneType: give a torch.Tensor",
        ),
        (
            lambda: DropPath(0.5)(torch.tensor(1.0)),
            ValueError,
            "branch has shape (): give at least 1 axes, (b, ...)",
        ),
        (
            lambda: DropPath(0.5)(torch.ones(2, dtype=torch.int64)),
            ValueError,
            "branch is torch.int64: give floats, for pixels branch.float() / 255",
        ),
        (
            lambda: EncoderBlock(0, 3),
            ValueError,
            "embed_dim is 0: give a whole number of at least 1",
        ),
        (
            lambda: EncoderBlock(10, 3),
            ValueError,
            "embed_dim 10 is not divisible by num_heads 3: change one of them, or give "
            "head_dim where the layer takes it",
        ),
        (
            lambda: EncoderBlock(12, 3, norm_eps=-1e-6),
            ValueError,
            "norm_eps is -1e-06: give a finite number greater than 0",
        ),
        (
            lambda: EncoderBlock(12, 3, mlp_ratio=0),
            ValueError,
            "mlp_ratio is 0: give a finite number greater than 0",
        ),
        (
            lambda: EncoderBlock(12, 3, mlp_ratio=0.05),
            ValueError,
            "embed_dim 12 times mlp_ratio is 0: give a whole number of at least 1",
        ),
        (
            lambda: EncoderBlock(12, 3, mlp_ratio=1e308),
            ValueError,
            "embed_dim 12 times mlp_ratio is inf: give a finite number greater than 0",
        ),
        (
            lambda: EncoderBlock(12, 3, gelu="relu"),
            ValueError,
            "gelu is 'relu': give one of 'erf', 'tanh'",
        ),
        (
            lambda: EncoderBlock(12, 3, drop_path_rate=2),
            ValueError,
            "drop_path_rate is 2: give a rate in [0, 1), where 0 drops nothing",
        ),
        (
            lambda: EncoderBlock(12, 3)(torch.ones(2, 5, 8)),
            ValueError,
            "tokens have length 8, the layer takes embed_dim 12: "
            "build the layer with embed_dim=8",
        ),
        (
            lambda: EncoderBlock(12, 3)("tokens"),
            TypeError,
            "tokens is a str: give a torch.Tensor",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
