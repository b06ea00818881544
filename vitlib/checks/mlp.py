"""Checks of what chapter 06 builds: GELU, and the two-layer network."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitlib.mlp as library
from vitlib.checks.building import Build, ClassJudge, altered, drawn, drawn_weights
from vitlib.checks.comparing import close
from vitlib.checks.deciding import Subject, decides
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
    return altered(_MLP, forward=function)


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


# The slope


def _bell(x: Tensor) -> Tensor:
    return torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def _slope_of(function):
    """Return a function's slope, by autograd."""

    def slope(x: Tensor) -> Tensor:
        x = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(function(x).sum(), x)[0]

    return slope


def _about_slope(probe: Probe) -> Finding | None:
    """Ask what must hold of the slope of GELU."""
    ends = probe.run(torch.tensor([-30.0, 0.0, 30.0]))
    if ends is not None and ends.shape == (3,):
        for place, x, value in ((2, 30, 1), (0, -30, 0), (1, 0, 0.5)):
            if not abs(ends[place] - value) < 1e-3:
                return Finding(
                    "wrong ends",
                    f"at x = {x} it returns {ends[place]:.4g}: far to the right GELU "
                    "is x, far to the left it is 0, and at 0 half is let through",
                )
    x = torch.linspace(-4, 4, 81)
    value, mirrored = probe.run(x), probe.run(-x)
    if value is None or mirrored is None or value.shape != x.shape:
        return None
    if (value + mirrored - 1).abs().max() > 1e-3:
        return Finding(
            "not symmetric about 1/2",
            "GELU(x) - GELU(-x) is x, so the slopes at x and at -x must be 1 "
            f"together, and at 1 and -1 they are "
            f"{(probe.run(torch.ones(1)) + probe.run(-torch.ones(1))).item():.3g}",
        )
    gap = (value - _slope_of(F.gelu)(x)).abs()
    return Finding(
        "bell curve",
        f"both ends and 0 are right, in between it is off by {gap.max():.2g} at x = "
        f"{x[gap.argmax()]:.1f}: look at the bell curve, its exponent and its factor",
    )


gelu_slope = Judge(
    task="gelu_slope",
    arguments=("x",),
    axes="...",
    oracle=_slope_of(F.gelu),
    cases=(
        *_CASES,
        Case("double precision", (torch.linspace(-3, 3, 13, dtype=torch.float64),)),
    ),
    mistakes=(
        Mistake(
            "the chance alone",
            "this is the chance alone: the chance depends on x as well, and the rule "
            "for products has a second term",
            _erf,
        ),
        Mistake(
            "second term without x",
            "the slope of the chance is added, but in a product it is multiplied by "
            "the other factor",
            lambda x: _erf(x) + _bell(x),
        ),
        Mistake(
            "second term subtracted",
            "the second term is subtracted: the chance grows with x",
            lambda x: _erf(x) - x * _bell(x),
        ),
        Mistake(
            "bell without its factor",
            "the bell curve is not divided by √(2π): the area below it must be 1",
            lambda x: _erf(x) + x * torch.exp(-(x**2) / 2),
        ),
        Mistake(
            "bell too narrow",
            "the exponent of the bell curve is not halved: this is the curve that "
            "belongs to erf(x), and the chance has erf(x/√2)",
            lambda x: _erf(x) + x * torch.exp(-(x**2)) / math.sqrt(2 * math.pi),
        ),
        Mistake(
            "bell too narrow",
            "this is the slope of erf(x), and inside of erf stands x/√2: both the "
            "exponent and the factor change",
            lambda x: _erf(x) + x * torch.exp(-(x**2)) / math.sqrt(math.pi),
        ),
        Mistake(
            "the second term alone",
            "the first term of the rule for products is missing",
            lambda x: x * _bell(x),
        ),
        Mistake("the value", "this is GELU and not its slope", F.gelu),
        Mistake(
            "the approximation's slope",
            "this is the slope of the form with tanh",
            _slope_of(library.gelu_tanh),
        ),
        Mistake(
            "ReLU's slope",
            "this is the slope of a ReLU, 0 or 1",
            lambda x: (x > 0).to(x.dtype),
        ),
        Mistake(
            "the sigmoid's slope",
            "this is the slope of x times sigmoid(1.702 x)",
            _slope_of(lambda x: x * torch.sigmoid(1.702 * x)),
        ),
    ),
    questions=(_about_slope,),
    dtypes=(),
    gradients=False,
)


# Which GELU is it?


def _quick(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


_FORMS = (
    Subject(
        "the exact form",
        library.gelu_exact,
        "erf",
        "exact form not known",
        "of the exact form it says something else: which x do you look at, and how "
        "large may a difference be?",
    ),
    Subject(
        "the form with a sigmoid",
        _quick,
        "quick",
        "sigmoid form not known",
        "of the form with a sigmoid it says something else: it differs from the others "
        "by up to 0.02",
    ),
    Subject(
        "the form with tanh",
        library.gelu_tanh,
        "tanh",
        "tanh form not known",
        "of the form with tanh it says something else. It differs from the exact form "
        "by 0.0005 at most, and hardly at all near 0 and far from it: which x do you "
        "look at, and does your comparison allow more than that?",
    ),
    Subject(
        "an exact form that rounds in another order",
        lambda x: x * torch.special.ndtr(x),
        "erf",
        "rounding taken for a form",
        "this is the exact form, computed in another order, so its last digits "
        "differ: allow for rounding, but for no more",
    ),
    Subject(
        "PyTorch's layer",
        nn.GELU(),
        "erf",
        "exact form not known",
        "PyTorch's nn.GELU() is the exact form, and it says something else",
    ),
    Subject(
        "PyTorch's layer with tanh",
        nn.GELU(approximate="tanh"),
        "tanh",
        "tanh form not known",
        "PyTorch's nn.GELU(approximate='tanh') is the form with tanh, and it says "
        "something else: compare values, and not names",
    ),
)

which_gelu = decides("which_gelu", ("act",), _FORMS, answers=("erf", "tanh", "quick"))


# A gate


class _GatedMLP(nn.Module):
    """Two halves, one opens and closes the other; mistakes overwrite `mix`."""

    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, 2 * hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens):
        return self.fc2(self.mix(self.fc1(tokens)))

    def mix(self, both):
        gate, value = both.chunk(2, dim=-1)
        return F.silu(gate) * value


def _mixes(function):
    """Return the layer with another way to join gate and value."""

    def mix(self, both):
        return function(*both.chunk(2, dim=-1))

    return altered(_GatedMLP, mix=mix)


def _each_half(probe: Probe) -> Finding | None:
    """Ask whether both halves act, and how the second one does."""
    build, tokens = probe.given
    hidden = build.sizes["hidden_dim"]
    shift = torch.linspace(1, 2, hidden)
    for half, name in enumerate(("first", "second")):
        bias = build.weights["fc1.bias"].clone()
        bias[half * hidden : (half + 1) * hidden] += shift
        weights = build.weights | {"fc1.bias": bias}
        other = probe.run(dataclasses.replace(build, weights=weights), tokens)
        if other is not None and close(other, probe.got):
            return Finding(
                "half unused",
                f"the {name} half of what fc1 returns has no effect on the result",
            )
    weights = dict(build.weights)
    for name in ("fc1.weight", "fc1.bias"):
        weights[name] = weights[name].clone()
        weights[name][hidden:] *= 2
    twice = probe.run(dataclasses.replace(build, weights=weights), tokens)
    bias = build.weights["fc2.bias"]
    if twice is not None and not close(twice - bias, 2 * (probe.got - bias)):
        return Finding(
            "not proportional",
            "with the second half doubled, what enters fc2 is not doubled: a gate "
            "decides how much of a value passes",
        )
    return None


def _gated(b: int, n: int, e: int, hidden: int) -> tuple:
    weights = drawn_weights(lambda: _GatedMLP(e, hidden), seed=e)
    sizes = {"embed_dim": e, "hidden_dim": hidden}
    return Build(sizes, weights), drawn(b, n, e, seed=n)


GatedMLP = ClassJudge(
    task="GatedMLP",
    arguments=("model", "tokens"),
    axes="b n e",
    oracle=_GatedMLP,
    cases=(
        Case("one token", _gated(1, 1, 2, 3)),
        Case("as many tokens as features", _gated(2, 4, 4, 6)),
        Case("two images", _gated(2, 7, 5, 12)),
    ),
    mistakes=(
        Mistake(
            "bend after the product",
            "SiLU bends the product of both halves: one half alone is bent, and then "
            "multiplied by the other, which may have any sign",
            _mixes(lambda gate, value: F.silu(gate * value)),
        ),
        Mistake(
            "other half bent",
            "the second half is bent: here the first one is the gate",
            _mixes(lambda gate, value: gate * F.silu(value)),
        ),
        Mistake(
            "both halves bent",
            "both halves are bent: the value has to keep its sign",
            _mixes(lambda gate, value: F.silu(gate) * F.silu(value)),
        ),
        Mistake(
            "no bend",
            "nothing is bent: the gate multiplies as it is",
            _mixes(lambda gate, value: gate * value),
        ),
        Mistake(
            "sigmoid for SiLU",
            "the gate is a sigmoid: SiLU is x times it",
            _mixes(lambda gate, value: gate.sigmoid() * value),
        ),
        Mistake(
            "GELU for SiLU",
            "the gate is bent by GELU: here it is SiLU",
            _mixes(lambda gate, value: F.gelu(gate) * value),
        ),
        Mistake(
            "ReLU for SiLU",
            "the gate is bent by ReLU: here it is SiLU",
            _mixes(lambda gate, value: F.relu(gate) * value),
        ),
        Mistake(
            "added",
            "gate and value are added: a gate multiplies",
            _mixes(lambda gate, value: F.silu(gate) + value),
        ),
        Mistake(
            "no gate",
            "one half of what fc1 returns is not used",
            _mixes(lambda gate, value: F.silu(gate)),
        ),
        Mistake(
            "halves woven",
            "gate and value take turns, if one believes your cut: the first hidden_dim "
            "numbers are the gate",
            altered(_GatedMLP, mix=lambda self, x: F.silu(x[..., ::2]) * x[..., 1::2]),
        ),
    ),
    questions=(
        each_image_alone(1),
        each_token_alone(1),
        any_order_of_tokens(1),
        _each_half,
    ),
    narrowing=(_FIRST_OR_SECOND,),
    hints={
        "fc1.weight": "One linear map for both halves: "
        "nn.Linear(embed_dim, 2 * hidden_dim)",
        "fc2.weight": "What is left after the product has hidden_dim numbers",
    },
)


# How much of a layer is linear


def _fitted(inputs: Tensor, outputs: Tensor, new: Tensor, bias: bool = True) -> Tensor:
    """Return what the best linear map makes of new inputs."""
    if bias:
        inputs, new = (F.pad(x, (0, 1), value=1.0) for x in (inputs, new))
    return new @ torch.linalg.lstsq(inputs.double(), outputs.double()).solution.to(
        new.dtype
    )


def _share(outputs: Tensor, guessed: Tensor, mean: Tensor | None = None) -> Tensor:
    mean = outputs.mean(dim=0) if mean is None else mean
    return 1 - (outputs - guessed).square().sum() / (outputs - mean).square().sum()


def _linear_share(inputs, outputs, new_inputs, new_outputs):
    return _share(new_outputs, _fitted(inputs, outputs, new_inputs))


def _centred_anew(inputs, outputs, new_inputs, new_outputs):
    inputs, outputs, new, wanted = (
        x - x.mean(dim=0) for x in (inputs, outputs, new_inputs, new_outputs)
    )
    return _share(wanted, _fitted(inputs, outputs, new, bias=False))


def _mean_of_shares(inputs, outputs, new_inputs, new_outputs):
    guessed = _fitted(inputs, outputs, new_inputs)
    pairs = zip(new_outputs.mT, guessed.mT, strict=True)
    return torch.stack([_share(one, guess) for one, guess in pairs]).mean()


def _about_share(probe: Probe) -> Finding | None:
    """Ask what must hold where the share is known without a fit."""
    x = drawn(40, 3, seed=1)
    weight, shift = drawn(3, 2, seed=2), torch.tensor([5.0, -3.0])
    exact = probe.run(x[:20], x[:20] @ weight, x[20:], x[20:] @ weight)
    if exact is not None and abs(exact - 1) > 1e-3:
        return Finding(
            "not 1 for a linear map",
            f"of a linear map without a bias it says {exact:.3g}: everything is "
            "explained, so it must be 1",
        )
    moved = probe.run(x[:20], x[:20] @ weight + shift, x[20:], x[20:] @ weight + shift)
    if moved is not None and abs(moved - 1) > 1e-3:
        return Finding(
            "bias not fitted",
            f"of a linear map with a bias it says {moved:.3g}, and it must be 1: can "
            "your fit add a constant?",
        )
    # The fit is exact, so what is left has to do with the share alone.
    given = x[:20], x[:20] @ weight, x[20:], drawn(20, 2, seed=3)
    share, wanted = probe.run(*given), probe.right(*given)
    if share is not None and abs(share - wanted) > 1e-3 * max(1, abs(wanted)):
        return Finding(
            "the share",
            "where the fit is exact and only the new outputs are not linear, it says "
            f"{share:.4g} and should say {wanted:.4g}: the fit may be right, look at "
            "the share. What is squared, what is subtracted, what is added up?",
        )
    return Finding(
        "the fit",
        "right where a linear map fits exactly, wrong where it cannot: what does your "
        "fit make as small as possible, and on which tokens?",
    )


def _pairs_of(function, few: int, many: int, e: int) -> tuple:
    x, new = drawn(few, e, seed=few), drawn(many, e, seed=many + 1)
    return x, function(x), new, function(new)


linear_share = Judge(
    task="linear_share",
    arguments=("inputs", "outputs", "new_inputs", "new_outputs"),
    axes="",
    oracle=_linear_share,
    cases=(
        Case("x to 2x + 1", _pairs_of(lambda x: 2 * x + 1, 4, 3, 1)),
        Case("an absolute value", _pairs_of(lambda x: x.abs() + 0.5 * x, 5, 4, 1)),
        Case(
            "a GELU",
            _pairs_of(lambda x: F.gelu(x @ drawn(3, 4) + 1), 30, 25, 3),
        ),
        Case(
            "a few tokens for many numbers",
            _pairs_of(lambda x: (3 * x @ drawn(6, 2)).cos() * 4 + 2, 12, 40, 6),
        ),
    ),
    mistakes=(
        Mistake(
            "same tokens twice",
            "the share is taken on the tokens of the fit: with a few tokens and many "
            "numbers a linear map fits anything there. What are the new ones for?",
            lambda x, y, new_x, new_y: _linear_share(x, y, x, y),
        ),
        Mistake(
            "fitted on the new ones",
            "the map is fitted on the new tokens, on which it is judged: those must "
            "not be seen before",
            lambda x, y, new_x, new_y: _linear_share(new_x, new_y, new_x, new_y),
        ),
        Mistake(
            "no bias",
            "the fit cannot add a constant: a linear layer has a bias",
            lambda x, y, new_x, new_y: _share(new_y, _fitted(x, y, new_x, bias=False)),
        ),
        Mistake(
            "new tokens centred",
            "the new tokens are centred by their own mean: a map that was fitted does "
            "not know it, and must take the mean of the tokens of the fit",
            _centred_anew,
        ),
        Mistake(
            "what is left",
            "this is the share that is left over, not the one that is explained",
            lambda *given: 1 - _linear_share(*given),
        ),
        Mistake(
            "mean not subtracted",
            "the squares of the outputs are taken from 0 and not from their mean: then "
            "a constant alone explains something",
            lambda x, y, new_x, new_y: _share(
                new_y, _fitted(x, y, new_x), torch.zeros(())
            ),
        ),
        Mistake(
            "one mean for all",
            "one mean is taken over all numbers: each output has its own",
            lambda x, y, new_x, new_y: _share(
                new_y, _fitted(x, y, new_x), new_y.mean()
            ),
        ),
        Mistake(
            "mean of shares",
            "the share is taken for each output and then averaged: add the squares of "
            "all outputs up, then divide once",
            _mean_of_shares,
        ),
        Mistake(
            "absolute gaps",
            "gaps are taken as they are: they should be squared",
            lambda x, y, new_x, new_y: (
                1
                - (new_y - _fitted(x, y, new_x)).abs().sum()
                / (new_y - new_y.mean(dim=0)).abs().sum()
            ),
        ),
    ),
    questions=(_about_share,),
    dtypes=(),
    gradients=False,
)
