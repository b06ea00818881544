"""Checks of what chapter 06 builds: GELU, and the two-layer network."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitlib.mlp as library
from vitlib.checks.building import Build, ClassJudge, drawn, drawn_weights
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import (
    any_order_of_tokens,
    each_image_alone,
    each_token_alone,
    narrowed,
    silent,
)
from vitlib.checks.wording import Finding


def _erf(x: Tensor, inside: float = 2**0.5) -> Tensor:
    return 0.5 * (1 + torch.erf(x / inside))


def _tanh(x, factor=(2 / math.pi) ** 0.5, cubic=0.044715, power=3) -> Tensor:
    return 0.5 * (1 + torch.tanh(factor * (x + cubic * x**power)))


def _about_gelu(probe: Probe) -> Finding | None:
    """Ask what must hold of x times a chance."""
    if probe.got.shape != probe.expected.shape:
        return None
    ends = probe.run(torch.tensor([-30.0, 0.0, 30.0]))
    if ends is not None and ends.shape == (3,):
        for place, x, value in ((1, 0, 0), (2, 30, 30), (0, -30, 0)):
            if not abs(ends[place] - value) < 1e-3:
                return Finding(
                    "wrong ends",
                    f"at x = {x} it returns {ends[place]:.4g}: far to the right "
                    "nothing is held back, far to the left everything, and 0 stays 0",
                )
    x = torch.linspace(-4, 4, 81)
    value, mirrored = probe.run(x), probe.run(-x)
    if value is None or mirrored is None or value.shape != x.shape:
        return None
    # The chances of lying below and above x are 1 together.
    if (value - mirrored - x).abs().max() > 1e-4:
        return Finding(
            "chances do not add up",
            "f(x) - f(-x) must be x, because the two chances are 1 together: look at "
            "the factor and the 1 that make a chance of erf or tanh",
        )
    gap = (value - F.gelu(x)).abs()
    return Finding(
        "inside",
        f"0 and both ends are right, the bend is not, by {gap.max():.2g} at x = "
        f"{x[gap.argmax()]:.1f}: look at the numbers inside erf or tanh",
    )


_CURVE = torch.linspace(-3, 3, 25).round(decimals=2)
_CASES = (
    Case("three numbers", (torch.tensor([-1.0, 0.0, 2.0]),)),
    Case("numbers from -3 to 3", (_CURVE,)),
    Case("large numbers", (torch.tensor([-100.0, -12.0, 15.0, 200.0]),)),
    Case("a batch of tokens", (drawn(2, 3, 5),)),
)
_COMMON = (
    Mistake(
        "the chance alone",
        "this is the chance, between 0 and 1: x is not multiplied by it yet",
        _erf,
    ),
    Mistake(
        "the chance alone",
        "this is the chance, between 0 and 1: x is not multiplied by it yet",
        _tanh,
    ),
    Mistake("ReLU", "this is a ReLU: it has no dip and a corner at 0", F.relu),
    Mistake(
        "SiLU",
        "this is x times a sigmoid, the SiLU or Swish: another curve of a similar form",
        F.silu,
    ),
    Mistake(
        "sigmoid approximation",
        "this is x times sigmoid(1.702 x), a coarser approximation of GELU",
        lambda x: x * torch.sigmoid(1.702 * x),
    ),
    Mistake("ELU", "this is an ELU, another function with a similar name", F.elu),
    Mistake("tanh", "this is a tanh, which never exceeds 1", torch.tanh),
    Mistake(
        "not halved",
        "for large x it returns twice x: 1 + erf lies between 0 and 2, and a chance "
        "between 0 and 1",
        lambda x: 2 * x * _erf(x),
    ),
    Mistake(
        "not halved",
        "for large x it returns twice x: 1 + tanh lies between 0 and 2, and a chance "
        "between 0 and 1",
        lambda x: 2 * x * _tanh(x),
    ),
    Mistake(
        "no 1",
        "it is symmetric: erf or tanh alone lies between -1 and 1, a chance between 0 "
        "and 1",
        lambda x: x * (_erf(x) - 0.5),
    ),
    Mistake(
        "no 1",
        "it is symmetric: erf or tanh alone lies between -1 and 1, a chance between 0 "
        "and 1",
        lambda x: x * (_tanh(x) - 0.5),
    ),
)

gelu_exact = Judge(
    task="gelu_exact",
    arguments=("x",),
    axes="...",
    oracle=library.gelu_exact,
    cases=_CASES,
    mistakes=(
        Mistake(
            "the approximation",
            "this is the approximation with tanh: it is off by 0.0005 at most, too "
            "little to see in a training and too much for equal logits",
            library.gelu_tanh,
        ),
        Mistake(
            "no √2",
            "the bend is too sharp: erf belongs to a bell curve that is narrower than "
            "the standard one. What is x divided by?",
            lambda x: x * _erf(x, 1.0),
        ),
        Mistake(
            "divided by 2",
            "x is divided by 2 inside of erf: the bell curve is too wide",
            lambda x: x * _erf(x, 2.0),
        ),
        *_COMMON,
    ),
    questions=(_about_gelu,),
)

gelu_tanh = Judge(
    task="gelu_tanh",
    arguments=("x",),
    axes="...",
    oracle=library.gelu_tanh,
    cases=_CASES,
    mistakes=(
        Mistake(
            "the exact form",
            "this is the exact form with erf: it is off by 0.0005 at most, too little "
            "to see in a training and too much for equal logits",
            library.gelu_exact,
        ),
        Mistake(
            "no √(2/π)",
            "the factor in front of the bracket is missing",
            lambda x: x * _tanh(x, factor=1.0),
        ),
        Mistake(
            "other factor",
            "the factor in front of the bracket is the wrong root",
            lambda x: x * _tanh(x, factor=2 / math.pi),
        ),
        Mistake(
            "other factor",
            "the factor in front of the bracket is the wrong root",
            lambda x: x * _tanh(x, factor=math.sqrt(math.pi / 2)),
        ),
        Mistake(
            "x squared",
            "inside the bracket the small term is even: with a square the curve is no "
            "longer right on the left side",
            lambda x: x * _tanh(x, power=2),
        ),
        Mistake(
            "no cubic term",
            "the small term inside the bracket is missing",
            lambda x: x * _tanh(x, cubic=0.0),
        ),
        Mistake(
            "other digits",
            "the number in front of the cube has its digits or its comma elsewhere",
            lambda x: x * _tanh(x, cubic=0.44715),
        ),
        *_COMMON,
    ),
    questions=(_about_gelu,),
)


# The layer


class _MLP(nn.Module):
    """What the chapter builds; mistakes overwrite forward."""

    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens):
        return self.fc2(F.gelu(self.fc1(tokens)))


def _forward(function):
    """Return the layer with another forward."""
    return type("MLP", (_MLP,), {"forward": function})


def _bent_by(act):
    return _forward(lambda self, x: self.fc2(act(self.fc1(x))))


_FIRST_OR_SECOND = narrowed(
    silent("fc1.weight"),
    right=Finding(
        "first layer",
        "right when the first layer returns its bias alone: look at how its weight "
        "acts on the tokens",
    ),
    wrong=Finding(
        "bend or second layer",
        "wrong even when the first layer returns its bias alone: look at the bend, at "
        "the second layer, and at what else is added",
    ),
)


def _layer(b: int, n: int, e: int, hidden: int) -> tuple:
    weights = drawn_weights(lambda: _MLP(e, hidden), seed=e)
    sizes = {"embed_dim": e, "hidden_dim": hidden}
    return Build(sizes, weights), drawn(b, n, e, seed=n)


MLP = ClassJudge(
    task="MLP",
    arguments=("model", "tokens"),
    axes="b n e",
    oracle=library.MLP,
    cases=(
        Case("one token", _layer(1, 1, 2, 3)),
        Case("as many tokens as features", _layer(2, 4, 4, 6)),
        Case("two images", _layer(2, 7, 5, 12)),
    ),
    mistakes=(
        Mistake(
            "the approximation",
            "the MLP is right but for the form of GELU: this is the one with tanh, off "
            "by 0.0005 at most for each hidden unit",
            _bent_by(library.gelu_tanh),
        ),
        Mistake(
            "no bend",
            "nothing bends between the two linear maps: together they are one linear "
            "map",
            _bent_by(lambda x: x),
        ),
        Mistake("ReLU", "the bend is a ReLU and not a GELU", _bent_by(F.relu)),
        Mistake("SiLU", "the bend is a SiLU and not a GELU", _bent_by(F.silu)),
        Mistake(
            "bend at the end",
            "GELU comes after the second linear map: it belongs between the two",
            _forward(lambda self, x: F.gelu(self.fc2(self.fc1(x)))),
        ),
        Mistake(
            "bend twice",
            "there is a second GELU after the last linear map: a branch must be able "
            "to subtract, too",
            _forward(lambda self, x: F.gelu(self.fc2(F.gelu(self.fc1(x))))),
        ),
        Mistake(
            "bend first",
            "GELU comes before the first linear map: it belongs between the two",
            _forward(lambda self, x: self.fc2(self.fc1(F.gelu(x)))),
        ),
        Mistake(
            "residual inside",
            "the tokens are added to the result: that is the block's part",
            _forward(lambda self, x: x + self.fc2(F.gelu(self.fc1(x)))),
        ),
        Mistake(
            "norm inside",
            "tokens are normalised on the way in: that is the block's part",
            _forward(
                lambda self, x: self.fc2(
                    F.gelu(self.fc1(F.layer_norm(x, x.shape[-1:])))
                )
            ),
        ),
        Mistake(
            "no second layer",
            "the result has the length of the hidden units: the second linear map is "
            "missing",
            _forward(lambda self, x: F.gelu(self.fc1(x))),
        ),
        Mistake(
            "no biases",
            "the weights act, but their biases are not added",
            _forward(
                lambda self, x: F.gelu(x @ self.fc1.weight.mT) @ self.fc2.weight.mT
            ),
        ),
    ),
    questions=(
        each_image_alone(1),
        each_token_alone(1),
        any_order_of_tokens(1),
    ),
    narrowing=(_FIRST_OR_SECOND,),
    hints={
        "fc1.weight": "The first layer widens, nn.Linear(embed_dim, hidden_dim)",
        "fc2.weight": "The second layer narrows, nn.Linear(hidden_dim, embed_dim)",
    },
)
