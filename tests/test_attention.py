"""Attention against loops and PyTorch's kernel; masks close keys exactly."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vitlib.attention import attend, attention_weights

B, H, N, J, D, DV = 2, 3, 4, 5, 6, 7


def make_qkv(**options):
    return (
        torch.randn(B, H, N, D, **options),
        torch.randn(B, H, J, D, **options),
        torch.randn(B, H, J, DV, **options),
    )


def make_mask(*shape):
    """Closes about half the keys, never all of a row."""
    mask = torch.rand(shape) < 0.5
    mask[..., 1] = True
    return mask


def weights_by_loops(q, k, mask, scale):
    """One weight at a time, with the exponentials written out."""
    weights = torch.zeros(B, H, N, J)
    for b in range(B):
        for h in range(H):
            for i in range(N):
                powers = []
                for j in range(J):
                    product = sum((q[b, h, i, d] * k[b, h, j, d]) for d in range(D))
                    is_open = mask is None or bool(mask[b, h, i, j])
                    powers.append(math.exp(product * scale) if is_open else 0.0)
                for j in range(J):
                    weights[b, h, i, j] = powers[j] / sum(powers)
    return weights


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_weights_against_loops(masked, scale):
    q, k, _ = make_qkv()
    mask = make_mask(B, H, N, J) if masked else None
    expected = weights_by_loops(q, k, mask, scale or 1 / math.sqrt(D))
    torch.testing.assert_close(attention_weights(q, k, mask, scale), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_attend_and_its_gradients_equal_sdpa(masked):
    mask = make_mask(B, 1, N, J) if masked else None
    ours = make_qkv(requires_grad=True)
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    target = torch.randn(B, H, N, DV)
    out = attend(*ours, mask)
    expected = F.scaled_dot_product_attention(*theirs, attn_mask=mask)
    torch.testing.assert_close(out, expected)
    (out * target).sum().backward()
    (expected * target).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@given(
    st.integers(0, 10**6), st.tuples(*[st.integers(1, 5)] * 3), st.floats(0.01, 1000)
)
def test_rows_sum_to_one(seed, sizes, spread):
    i, j, d = sizes
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, i, d, generator=generator) * spread
    k = torch.randn(2, j, d, generator=generator)
    weights = attention_weights(q, k)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, i))


@given(st.integers(0, 10**6))
def test_moving_the_keys_moves_the_columns(seed):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, n, D, generator=generator) for n in (N, J))
    v = torch.randn(2, J, DV, generator=generator)
    order = torch.randperm(J, generator=generator)
    torch.testing.assert_close(
        attention_weights(q, k[:, order]), attention_weights(q, k)[..., order]
    )
    torch.testing.assert_close(attend(q, k[:, order], v[:, order]), attend(q, k, v))


@pytest.mark.parametrize(
    "shape",
    [(B, H, N, J), (B, 1, N, J), (1, H, N, J), (N, J), (H, N, J), (B, 1, 1, J), (J,)],
)
def test_masks_broadcast(shape):
    q, k, v = make_qkv()
    mask = make_mask(*shape)
    weights = attention_weights(q, k, mask)
    full = mask.expand(B, H, N, J)
    assert (weights[~full] == 0).all() and (weights[full] > 0).all()
    torch.testing.assert_close(weights, weights_by_loops(q, k, full, D**-0.5))
    torch.testing.assert_close(
        attend(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, attn_mask=full)
    )


def test_an_open_mask_changes_nothing():
    q, k, v = make_qkv()
    plain = attend(q, k, v)
    assert torch.equal(attend(q, k, v, torch.tensor(True)), plain)
    assert torch.equal(attend(q, k, v, torch.ones(N, 1, dtype=torch.bool)), plain)


def test_a_closed_key_gets_nothing_back_and_gives_nothing():
    q, k, v = make_qkv(requires_grad=True)
    mask = torch.ones(J, dtype=torch.bool)
    mask[2] = False
    attend(q, k, v, mask).square().sum().backward()
    for tensor in (k, v):
        assert (tensor.grad[:, :, 2] == 0).all()
        assert (tensor.grad[:, :, 3] != 0).any()
    assert q.grad.isfinite().all()
    with torch.no_grad():
        before = attend(q, k, v, mask)
        k[:, :, 2], v[:, :, 2] = 1e6, -1e6
        assert torch.equal(attend(q, k, v, mask), before)


def test_large_scores_stay_finite():
    q, k, v = make_qkv()
    out = attend(q * 1e4, k, v)
    assert out.isfinite().all()
    best = (q @ k.transpose(-2, -1)).argmax(-1)  # (b, h, i)
    picked = v.gather(2, best[..., None].expand(-1, -1, -1, DV))
    torch.testing.assert_close(out, picked, atol=1e-3, rtol=1e-3)


def test_any_leading_axes():
    q, k, v = make_qkv()
    torch.testing.assert_close(attend(q[0, 0], k[0, 0], v[0, 0]), attend(q, k, v)[0, 0])
    torch.testing.assert_close(attend(q[0], k[0], v[0]), attend(q, k, v)[0])


def test_no_images_are_no_mistake():
    q, k, v = (tensor[:0] for tensor in make_qkv())
    assert attend(q, k, v).shape == (0, H, N, DV)
    assert attention_weights(q[:, 0], k[:, 0]).shape == (0, N, J)


def test_a_graph_can_be_traced_on_the_meta_device():
    q, k, v = (tensor.to("meta") for tensor in make_qkv())
    mask = torch.zeros(N, J, dtype=torch.bool, device="meta")
    assert attend(q, k, v, mask).shape == (B, H, N, DV)


def test_a_masked_graph_can_be_exported():
    class Attend(torch.nn.Module):
        def forward(self, q, k, v, mask):
            return attend(q, k, v, mask)

    inputs = (*make_qkv(), make_mask(N, J))
    program = torch.export.export(Attend(), inputs)
    torch.testing.assert_close(program.module()(*inputs), attend(*inputs))


def closed_mask():
    mask = torch.ones(B, 1, N, J, dtype=torch.bool)
    mask[0, 0, 2] = mask[1, 0, 0] = False
    return mask


Q, K, V = make_qkv()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: attend(Q, K, V, closed_mask()),
            ValueError,
            "mask leaves 2 of 8 rows with no key to attend to, and a softmax over "
            "nothing is NaN: let every query attend to at least itself",
        ),
        (
            lambda: attend(Q, K, V, torch.tensor(False)),
            ValueError,
            "mask leaves 1 of 1 rows with no key to attend to, and a softmax over "
            "nothing is NaN: let every query attend to at least itself",
        ),
        (
            lambda: attention_weights(Q, K, torch.tensor([[True], [False]] * 2)),
            ValueError,
            "mask leaves 2 of 4 rows with no key to attend to, and a softmax over "
            "nothing is NaN: let every query attend to at least itself",
        ),
        (
            lambda: attend(Q, K, V, torch.ones(N, J)),
            ValueError,
            "mask is torch.float32: give torch.bool, where True may attend",
        ),
        (
            lambda: attend(Q, K, V, [[True]]),
            TypeError,
            "mask is a list: give a torch.Tensor",
        ),
        (
            lambda: attend(Q, K, V, torch.ones(J, N, dtype=torch.bool)),
            ValueError,
            "mask has shape (5, 4): give one that broadcasts to the weights' "
            "(2, 3, 4, 5), queries before keys",
        ),
        (
            lambda: attend(Q, K, V, torch.ones(2, B, H, N, J, dtype=torch.bool)),
            ValueError,
            "mask has shape (2, 2, 3, 4, 5): give one that broadcasts to the weights' "
            "(2, 3, 4, 5), queries before keys",
        ),
        (
            lambda: attention_weights(Q, K[..., :-1]),
            ValueError,
            "q has shape (2, 3, 4, 6), k (2, 3, 5, 5): give the same leading axes and "
            "the same length of a vector",
        ),
        (
            lambda: attention_weights(Q, K[:, :1]),
            ValueError,
            "q has shape (2, 3, 4, 6), k (2, 1, 5, 6): give the same leading axes and "
            "the same length of a vector",
        ),
        (
            lambda: attend(Q, K, V[:, :, :-1]),
            ValueError,
            "k has shape (2, 3, 5, 6), v (2, 3, 4, 7): give the same leading axes and "
            "the same number of tokens",
        ),
        (
            lambda: attend(Q, K, V[:1]),
            ValueError,
            "k has shape (2, 3, 5, 6), v (1, 3, 5, 7): give the same leading axes and "
            "the same number of tokens",
        ),
        (
            lambda: attend(Q, K, "v"),
            TypeError,
            "v is a str: give a torch.Tensor",
        ),
        (
            lambda: attend(Q, None, V),
            TypeError,
            "k is a NoneType: give a torch.Tensor",
        ),
        (
            lambda: attention_weights(None, K),
            TypeError,
            "q is a NoneType: give a torch.Tensor",
        ),
        (
            lambda: attention_weights(torch.ones(6), K),
            ValueError,
            "q has shape (6,): give at least 2 axes, (..., tokens, length)",
        ),
        (
            lambda: attention_weights(Q[0, 0], K[0, 0, :0]),
            ValueError,
            "k has shape (0, 6): give at least one token of at least one number",
        ),
        (
            lambda: attention_weights(Q, K[:, :, :0]),
            ValueError,
            "k has shape (2, 3, 0, 6): give at least one token of at least one number",
        ),
        (
            lambda: attention_weights(Q[..., :0], K[..., :0]),
            ValueError,
            "q has shape (2, 3, 4, 0): give at least one token of at least one number",
        ),
        (
            lambda: attention_weights(Q, K.double()),
            ValueError,
            "q is torch.float32, k torch.float64: give floats of one dtype",
        ),
        (
            lambda: attention_weights(Q.long(), K.long()),
            ValueError,
            "q is torch.int64, k torch.int64: give floats of one dtype",
        ),
        (
            lambda: attention_weights(Q, K, scale=0),
            ValueError,
            "scale is 0: give a finite number greater than 0",
        ),
        (
            lambda: attention_weights(Q, K, scale="1"),
            TypeError,
            "scale is '1': give a number",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
