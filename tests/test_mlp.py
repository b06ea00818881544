"""GELU against PyTorch's, the MLP against its formula."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from vitlib.mlp import GELUS, MLP, gelu_exact, gelu_tanh

X = torch.linspace(-6, 6, 1001, dtype=torch.float64)


def test_exact_gelu_is_x_times_the_normal_distribution():
    expected = X * torch.distributions.Normal(0, 1).cdf(X)
    torch.testing.assert_close(gelu_exact(X), expected, atol=1e-12, rtol=1e-10)


def test_both_forms_equal_pytorchs_kernels():
    torch.testing.assert_close(gelu_exact(X), F.gelu(X), atol=1e-12, rtol=1e-10)
    expected = F.gelu(X, approximate="tanh")
    torch.testing.assert_close(gelu_tanh(X), expected, atol=1e-12, rtol=1e-10)


def test_the_forms_differ_and_by_little():
    gap = (gelu_exact(X) - gelu_tanh(X)).abs().max()
    assert 1e-4 < gap < 1e-3


def test_gelu_gradients_equal_pytorchs():
    for ours, name in ((gelu_exact, "none"), (gelu_tanh, "tanh")):
        x = X.clone().requires_grad_()
        twin = X.clone().requires_grad_()
        ours(x).sum().backward()
        F.gelu(twin, approximate=name).sum().backward()
        torch.testing.assert_close(x.grad, twin.grad, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(
    ("gelu", "formula"), [("erf", gelu_exact), ("tanh", gelu_tanh)]
)
def test_mlp_is_two_layers_with_gelu_between(jitter, gelu, formula):
    mlp = jitter(MLP(6, 11, gelu=gelu), scale=2).double()
    tokens = torch.randn(2, 5, 6, dtype=torch.float64)
    hidden = formula(tokens @ mlp.fc1.weight.T + mlp.fc1.bias)
    expected = hidden @ mlp.fc2.weight.T + mlp.fc2.bias
    torch.testing.assert_close(mlp(tokens), expected, atol=1e-10, rtol=1e-8)
    other = MLP(6, 11, gelu="erf" if gelu == "tanh" else "tanh").double()
    other.load_state_dict(mlp.state_dict())
    assert not torch.allclose(other(tokens), expected, atol=1e-6)


def test_the_exact_form_is_the_rule():
    assert MLP(6, 11).act.approximate == GELUS["erf"] == "none"
    assert MLP(6, 11).drop.p == 0


def test_no_token_sees_another(jitter):
    mlp = jitter(MLP(6, 11))
    tokens = torch.randn(2, 5, 6)
    before = mlp(tokens)
    tokens[:, 3] += 1
    after = mlp(tokens)
    untouched = [0, 1, 2, 4]
    torch.testing.assert_close(before[:, untouched], after[:, untouched])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_dropout_after_both_layers_in_training_alone():
    mlp = MLP(6, 400, drop_rate=0.25)
    with torch.no_grad():
        mlp.fc1.weight.zero_()
        mlp.fc1.bias.fill_(10.0)  # GELU(10) = 10
        mlp.fc2.weight.fill_(1 / 4000)
        mlp.fc2.bias.zero_()
    tokens = torch.randn(2, 50, 6)
    torch.testing.assert_close(mlp.eval()(tokens), torch.ones(2, 50, 6))
    out = mlp.train()(tokens)
    gone = out == 0
    assert gone.float().mean() == pytest.approx(0.25, abs=0.06)
    kept = out[~gone] * 0.75  # undo the second dropout's scale
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    # 400 hidden units of which 3 in 4 stay, scaled by 4/3: spread sqrt(1/3/400).
    assert kept.std().item() == pytest.approx(math.sqrt(1 / 3 / 400), rel=0.25)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: MLP(6, 11, gelu="relu"),
            ValueError,
            "gelu is 'relu': give one of 'erf', 'tanh'",
        ),
        (
            lambda: MLP(0, 11),
            ValueError,
            "embed_dim is 0: give a whole number of at least 1",
        ),
        (
            lambda: MLP(6, -1),
            ValueError,
            "hidden_dim is -1: give a whole number of at least 1",
        ),
        (
            lambda: MLP(6, 11, drop_rate=1),
            ValueError,
            "drop_rate is 1: give a rate in [0, 1), where 0 drops nothing",
        ),
        (
            lambda: MLP(6, 11)(torch.ones(2, 5, 11)),
            ValueError,
            "tokens have length 11, the layer takes embed_dim 6: "
            "build the layer with embed_dim=11",
        ),
        (lambda: gelu_exact(1.0), TypeError, "x is a float: give a torch.Tensor"),
        (lambda: gelu_tanh(None), TypeError, "x is a NoneType: give a torch.Tensor"),
        (
            lambda: gelu_exact(torch.ones(2, dtype=torch.int32)),
            ValueError,
            "x is torch.int32: give floats, for pixels x.float() / 255",
        ),
        (
            lambda: gelu_tanh(torch.ones(2, dtype=torch.int32)),
            ValueError,
            "x is torch.int32: give floats, for pixels x.float() / 255",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
