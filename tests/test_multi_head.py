"""Multi-head attention against nn.MultiheadAttention, loops and the fused kernel."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitlib.attention import attend
from vitlib.multi_head import MultiHeadAttention, merge_heads, split_heads

B, N, E, HEADS = 2, 5, 12, 3  # d = 4


def make_mask(*shape):
    """Closes about half the keys, never all of a row."""
    mask = torch.rand(shape) < 0.5
    mask[..., 2] = True
    return mask


def test_a_head_is_a_run_of_numbers():
    tokens = torch.randn(B, N, E)
    heads = split_heads(tokens, HEADS)
    assert heads.shape == (B, HEADS, N, 4)
    for head in range(HEADS):
        assert torch.equal(heads[:, head], tokens[:, :, 4 * head : 4 * head + 4])


@given(sizes=st.tuples(*[st.integers(1, 5)] * 4))
def test_round_trip_both_ways(sizes):
    b, h, n, d = sizes
    tokens = torch.randn(b, n, h * d)
    heads = split_heads(tokens, h)
    assert heads.shape == (b, h, n, d)
    assert torch.equal(merge_heads(heads), tokens)
    assert torch.equal(split_heads(merge_heads(heads), h), heads)


def make_pair(jitter, fused):
    """Our layer and PyTorch's with the same numbers."""
    ours = jitter(MultiHeadAttention(E, HEADS, fused=fused))
    theirs = nn.MultiheadAttention(E, HEADS, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    return ours, theirs


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_equal_pytorchs_layer(jitter, fused, masked):
    ours, theirs = make_pair(jitter, fused)
    tokens = torch.randn(B, N, E, requires_grad=True)
    twin = tokens.detach().clone().requires_grad_()
    mask = make_mask(N, N) if masked else None
    out = ours(tokens, mask)
    # PyTorch's layer reads its mask the other way round: True = closed.
    closed = None if mask is None else ~mask
    expected, _ = theirs(twin, twin, twin, attn_mask=closed)
    torch.testing.assert_close(out, expected)

    target = torch.randn(B, N, E)
    (out * target).sum().backward()
    (expected * target).sum().backward()
    torch.testing.assert_close(tokens.grad, twin.grad)
    torch.testing.assert_close(ours.qkv.weight.grad, theirs.in_proj_weight.grad)
    torch.testing.assert_close(ours.qkv.bias.grad, theirs.in_proj_bias.grad)
    torch.testing.assert_close(ours.proj.weight.grad, theirs.out_proj.weight.grad)


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        None,
        (),
        (N,),
        (N, N),
        (HEADS, 1, N),
        (B, 1, N, N),
        (B, 1, 1, N),
        (B, HEADS, N, N),
    ],
)
def test_einsum_equals_fused(jitter, shape, qkv_bias):
    options = {"head_dim": 7, "qkv_bias": qkv_bias}
    written = jitter(MultiHeadAttention(E, HEADS, **options))
    fused = MultiHeadAttention(E, HEADS, fused=True, **options)
    fused.load_state_dict(written.state_dict(), strict=True)
    mask = None
    if shape is not None:
        mask = make_mask(*shape) if shape else torch.tensor(True)
    tokens = torch.randn(B, N, E, requires_grad=True)
    twin = tokens.detach().clone().requires_grad_()
    out, expected = written(tokens, mask), fused(twin, mask)
    torch.testing.assert_close(out, expected)

    target = torch.randn(B, N, E)
    (out * target).sum().backward()
    (expected * target).sum().backward()
    torch.testing.assert_close(tokens.grad, twin.grad)
    for one, other in zip(written.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_fused_calls_the_kernel_and_the_other_path_does_not(jitter, monkeypatch):
    """The results are equal, so only the calls can tell the paths apart."""
    kernel, calls = F.scaled_dot_product_attention, []

    def watched(*args, **kwargs):
        calls.append(kwargs)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    tokens = torch.randn(B, N, E)
    MultiHeadAttention(E, HEADS)(tokens)
    assert not calls
    MultiHeadAttention(E, HEADS, fused=True)(tokens)
    assert len(calls) == 1


def test_heads_one_by_one(jitter):
    """Head h reads its own rows of qkv; head_dim need not be e / h."""
    layer = jitter(MultiHeadAttention(E, HEADS, head_dim=7))
    tokens = torch.randn(B, N, E)
    thirds = [
        tokens @ weight.T + bias
        for weight, bias in zip(
            layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3), strict=True
        )
    ]
    heads = []
    for head in range(HEADS):
        q, k, v = (third[..., 7 * head : 7 * head + 7] for third in thirds)
        heads.append(attend(q, k, v))
    expected = torch.cat(heads, dim=-1) @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(tokens), expected)
    assert (layer.embed_dim, layer.num_heads, layer.head_dim) == (E, HEADS, 7)


@pytest.mark.parametrize("fused", [False, True])
def test_moving_the_tokens_moves_the_output(jitter, fused):
    layer = jitter(MultiHeadAttention(E, HEADS, fused=fused))
    tokens, order = torch.randn(B, N, E), torch.randperm(N)
    torch.testing.assert_close(layer(tokens[:, order]), layer(tokens)[:, order])


@pytest.mark.parametrize("fused", [False, True])
def test_a_closed_token_is_not_seen(jitter, fused):
    layer = jitter(MultiHeadAttention(E, HEADS, fused=fused))
    tokens = torch.randn(B, N, E)
    mask = torch.ones(N, N, dtype=torch.bool).tril()
    before = layer(tokens, mask)
    tokens[:, 3] += 1
    after = layer(tokens, mask)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@pytest.mark.parametrize("fused", [False, True])
def test_the_plain_layer_drops_nothing(jitter, fused):
    layer = jitter(MultiHeadAttention(E, HEADS, fused=fused)).train()
    tokens = torch.randn(B, N, E)
    assert torch.equal(layer(tokens), layer(tokens))
    assert (layer.attn_drop.p, layer.drop.p) == (0.0, 0.0)
    assert layer.fused is fused
    assert MultiHeadAttention(E, HEADS).fused is False
    assert MultiHeadAttention(E, HEADS).qkv.bias is not None


@pytest.mark.parametrize("fused", [False, True])
def test_dropout_on_the_weights_in_training_alone(jitter, fused):
    """With v = 1 and a plain projection, the output is the sum of what is kept."""
    layer = MultiHeadAttention(4, 1, attn_drop_rate=0.25, fused=fused)
    with torch.no_grad():
        layer.qkv.weight.zero_()
        layer.qkv.bias.copy_(torch.tensor([0.0] * 8 + [1.0] * 4))
        layer.proj.weight.copy_(torch.eye(4))
        layer.proj.bias.zero_()
    tokens = torch.randn(B, 16, 4)
    torch.testing.assert_close(layer.eval()(tokens), torch.ones(B, 16, 4))
    sums = torch.stack([layer.train()(tokens) for _ in range(200)])
    kept = sums * 0.75 * 16  # number of keys kept, of 16
    torch.testing.assert_close(kept, kept.round(), atol=1e-4, rtol=0)
    assert kept.std().item() == pytest.approx((16 * 0.75 * 0.25) ** 0.5, rel=0.05)
    assert sums.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_on_the_output_in_training_alone(jitter):
    layer = jitter(MultiHeadAttention(E, HEADS, drop_rate=0.4))
    tokens = torch.randn(B, N, E)
    plain = layer.eval()(tokens)
    dropped = torch.stack([layer.train()(tokens) for _ in range(100)])
    gone = dropped == 0
    assert gone.float().mean() == pytest.approx(0.4, abs=0.03)
    scaled = (plain / 0.6).expand_as(dropped)
    torch.testing.assert_close(dropped[~gone], scaled[~gone])


TOKENS = torch.randn(B, N, E)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: MultiHeadAttention(10, 4),
            ValueError,
            "embed_dim 10 is not divisible by num_heads 4: change one of them, or give "
            "head_dim where the layer takes it",
        ),
        (
            lambda: split_heads(TOKENS, 5),
            ValueError,
            "token length 12 is not divisible by num_heads 5: change one of them, or "
            "give head_dim where the layer takes it",
        ),
        (
            lambda: split_heads(TOKENS, 0),
            ValueError,
            "num_heads is 0: give a whole number of at least 1",
        ),
        (
            lambda: split_heads(TOKENS[0], 3),
            ValueError,
            "tokens has shape (5, 12): give 3 axes, (b, n, h*d)",
        ),
        (
            lambda: split_heads([1], 3),
            TypeError,
            "tokens is a list: give a torch.Tensor",
        ),
        (
            lambda: merge_heads(TOKENS),
            ValueError,
            "heads has shape (2, 5, 12): give 4 axes, (b, h, n, d)",
        ),
        (
            lambda: merge_heads(None),
            TypeError,
            "heads is a NoneType: give a torch.Tensor",
        ),
        (
            lambda: MultiHeadAttention(0, 3),
            ValueError,
            "embed_dim is 0: give a whole number of at least 1",
        ),
        (
            lambda: MultiHeadAttention(12, -3),
            ValueError,
            "num_heads is -3: give a whole number of at least 1",
        ),
        (
            lambda: MultiHeadAttention(12, 3, head_dim=0),
            ValueError,
            "head_dim is 0: give a whole number of at least 1",
        ),
        (
            lambda: MultiHeadAttention(12, 3, qkv_bias=1),
            ValueError,
            "qkv_bias is 1: give one of False, True",
        ),
        (
            lambda: MultiHeadAttention(12, 3, fused="yes"),
            ValueError,
            "fused is 'yes': give one of False, True",
        ),
        (
            lambda: MultiHeadAttention(12, 3, attn_drop_rate=1.0),
            ValueError,
            "attn_drop_rate is 1.0: give a rate in [0, 1), where 0 drops nothing",
        ),
        (
            lambda: MultiHeadAttention(12, 3, drop_rate=-0.5),
            ValueError,
            "drop_rate is -0.5: give a rate in [0, 1), where 0 drops nothing",
        ),
        (
            lambda: MultiHeadAttention(8, 2)(TOKENS),
            ValueError,
            "tokens have length 12, the layer takes embed_dim 8: "
            "build the layer with embed_dim=12",
        ),
        (
            lambda: MultiHeadAttention(12, 3)(TOKENS[0]),
            ValueError,
            "tokens has shape (5, 12): give 3 axes, (b, n, e)",
        ),
        (
            lambda: MultiHeadAttention(12, 3)(TOKENS, torch.ones(5, 5)),
            ValueError,
            "mask is torch.float32: give torch.bool, where True may attend",
        ),
        (
            lambda: MultiHeadAttention(12, 3, fused=True)(TOKENS, torch.ones(5, 5)),
            ValueError,
            "mask is torch.float32: give torch.bool, where True may attend",
        ),
        (
            lambda: MultiHeadAttention(12, 3, fused=True)(
                TOKENS, torch.zeros(5, 5, dtype=torch.bool)
            ),
            ValueError,
            "mask leaves 5 of 5 rows with no key to attend to, and a softmax over "
            "nothing is NaN: let every query attend to at least itself",
        ),
        (
            lambda: MultiHeadAttention(12, 3, fused=True)(
                TOKENS, torch.ones(4, 5, dtype=torch.bool)
            ),
            ValueError,
            "mask has shape (4, 5): give one that broadcasts to the weights' "
            "(2, 3, 5, 5), queries before keys",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
