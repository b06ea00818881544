"""Answers to the tasks of chapter 06."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from mutants.answers import right, wrong
from vitlib.checks.mlp import (
    MLP,
    GatedMLP,
    gelu_exact,
    gelu_slope,
    gelu_tanh,
    linear_share,
    which_gelu,
)

# gelu_exact


@right(gelu_exact)
def by_erf(x):
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


@right(gelu_exact)
def by_the_normal_distribution(x):
    return x * torch.special.ndtr(x)


@right(gelu_exact)
def library_call(x):
    return F.gelu(x)


@right(gelu_exact)
def by_erfc_in_double(x):
    y = x.double()
    return (y * 0.5 * torch.erfc(-y * 0.5**0.5)).to(x.dtype)


@wrong(gelu_exact, "the approximation")
def tanh_form(x):
    return F.gelu(x, approximate="tanh")


@wrong(gelu_exact, "no √2")
def erf_of_x(x):
    return 0.5 * x * (1 + torch.erf(x))


@wrong(gelu_exact, "divided by 2")
def erf_of_half(x):
    return 0.5 * x * (1 + torch.erf(x / 2))


@wrong(gelu_exact, "not halved")
def twice(x):
    return x * (1 + torch.erf(x / 2**0.5))


@wrong(gelu_exact, "no 1")
def erf_alone(x):
    return x * torch.erf(x / 2**0.5) / 2


@wrong(gelu_exact, "the chance alone")
def distribution_function(x):
    return (1 + torch.erf(x / 2**0.5)) / 2


@wrong(gelu_exact, "ReLU")
def relu(x):
    return x.clamp(min=0)


@wrong(gelu_exact, "SiLU")
def swish(x):
    return x * torch.sigmoid(x)


@wrong(gelu_exact, "sigmoid approximation")
def quick(x):
    return x / (1 + torch.exp(-1.702 * x))


@wrong(gelu_exact, "inside")
def one_digit_of_the_root(x):
    return 0.5 * x * (1 + torch.erf(x / 1.4))


@wrong(gelu_exact, "crash")
def math_for_one_number(x):
    return x / 2 * (1 + math.erf(x / math.sqrt(2)))


@wrong(gelu_exact, "no gradient")
def number_by_number(x):
    return torch.tensor(
        [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x.flatten().tolist()],
        dtype=x.dtype,
    ).reshape(x.shape)


@wrong(gelu_exact, "wrong ends")
def plus_a_half(x):
    return by_erf(x) + 0.5


# gelu_tanh


@right(gelu_tanh)
def as_published(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))


@right(gelu_tanh)
def as_a_sigmoid(x):
    inner = math.sqrt(8 / math.pi) * x * (1 + 0.044715 * x * x)
    return x * torch.sigmoid(inner)


@right(gelu_tanh)
def pytorchs(x):
    return nn.GELU(approximate="tanh")(x)


@wrong(gelu_tanh, "the exact form")
def erf_form(x):
    return F.gelu(x)


@wrong(gelu_tanh, "no √(2/π)")
def factor_forgotten(x):
    return 0.5 * x * (1 + torch.tanh(x + 0.044715 * x**3))


@wrong(gelu_tanh, "other factor")
def root_forgotten(x):
    return 0.5 * x * (1 + torch.tanh(2 / math.pi * (x + 0.044715 * x**3)))


@wrong(gelu_tanh, "x squared")
def square_for_cube(x):
    return 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**2)))


@wrong(gelu_tanh, "no cubic term")
def first_term_only(x):
    return 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * x))


@wrong(gelu_tanh, "other digits")
def comma_moved(x):
    return 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.44715 * x**3)))


@wrong(gelu_tanh, "not halved")
def half_forgotten(x):
    return x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))


@wrong(gelu_tanh, "tanh")
def tanh_only(x):
    return torch.tanh(x)


@wrong(gelu_tanh, "inside")
def bracket_closed_early(x):
    return 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * x + 0.044715 * x**3))


@wrong(gelu_tanh, "nan")
def tanh_from_exponentials(x):
    y = (2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + (y.exp() - (-y).exp()) / (y.exp() + (-y).exp()))


@wrong(gelu_tanh, "in place")
def scaled_in_place(x):
    result = as_published(x)
    x.mul_(0.5)
    return result


# MLP


class Base(nn.Module):
    """What most answers share."""

    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)


@right(MLP)
class As_in_the_chapter(Base):
    def forward(self, tokens):
        return self.fc2(by_erf(self.fc1(tokens)))


@right(MLP)
class With_modules_and_dropout(Base):
    def __init__(self, embed_dim, hidden_dim, drop=0.2):
        super().__init__(embed_dim, hidden_dim)
        self.act, self.drop = nn.GELU(), nn.Dropout(drop)

    def forward(self, x):
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


@right(MLP)
class Token_by_token(Base):
    def forward(self, x):
        hidden = [
            F.gelu(self.fc1.weight @ token + self.fc1.bias) for token in x.flatten(0, 1)
        ]
        return torch.stack([self.fc2(h) for h in hidden]).reshape(x.shape)


@right(MLP)
class Two_convolutions_of_length_1(Base):
    def forward(self, x):
        hidden = F.conv1d(x.mT, self.fc1.weight[..., None], self.fc1.bias)
        return F.conv1d(F.gelu(hidden), self.fc2.weight[..., None], self.fc2.bias).mT


@wrong(MLP, "the approximation")
class Tanh_form(Base):
    def forward(self, x):
        return self.fc2(as_published(self.fc1(x)))


@wrong(MLP, "no bend")
class Two_linear_maps(Base):
    def forward(self, x):
        return self.fc2(self.fc1(x))


@wrong(MLP, "ReLU")
class With_a_relu(Base):
    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


@wrong(MLP, "bend at the end")
class Bend_behind_both(Base):
    def forward(self, x):
        return F.gelu(self.fc2(self.fc1(x)))


@wrong(MLP, "bend twice")
class Bend_behind_each(Base):
    def forward(self, x):
        for layer in (self.fc1, self.fc2):
            x = F.gelu(layer(x))
        return x


@wrong(MLP, "residual inside")
class Adds_the_tokens(Base):
    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x))) + x


@wrong(MLP, "no second layer")
class Stops_in_the_middle(Base):
    def forward(self, x):
        return F.gelu(self.fc1(x))


@wrong(MLP, "shapes")
class Layers_swapped(nn.Module):
    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(hidden_dim, embed_dim)
        self.fc2 = nn.Linear(embed_dim, hidden_dim)


@wrong(MLP, "names")
class In_a_sequential(nn.Module):
    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, embed_dim),
        )


@wrong(MLP, "tokens mixed")
class Normalises_hidden_units_over_tokens(Base):
    def forward(self, x):
        hidden = F.gelu(self.fc1(x))
        return self.fc2(hidden - hidden.mean(dim=1, keepdim=True))


@wrong(MLP, "batch mixed")
class Normalises_hidden_units_over_images(Base):
    def forward(self, x):
        hidden = F.gelu(self.fc1(x))
        return self.fc2(hidden - hidden.mean(dim=0, keepdim=True) / 2)


@wrong(MLP, "ignored")
class First_weight_used_twice(Base):
    def forward(self, x):
        return F.gelu(self.fc1(x)) @ self.fc1.weight + self.fc2.bias


@wrong(MLP, "same gap")
class Last_bias_forgotten(Base):
    def forward(self, x):
        return F.gelu(self.fc1(x)) @ self.fc2.weight.T


@wrong(MLP, "arguments")
class Asks_for_a_ratio(nn.Module):
    def __init__(self, embed_dim, ratio):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, ratio * embed_dim)


# gelu_slope


def phi(x):
    """Return the chance that a draw lies below x."""
    return torch.special.ndtr(x)


def bell(x):
    """Return the height of the bell curve."""
    return torch.distributions.Normal(0.0, 1.0).log_prob(x).exp().to(x.dtype)


@right(gelu_slope)
def rule_for_products(x):
    return phi(x) + x * bell(x)


@right(gelu_slope)
def by_autograd(x):
    x = x.clone().requires_grad_()
    F.gelu(x).sum().backward()
    return x.grad


@right(gelu_slope)
def erf_and_exp(x):
    chance = 0.5 * (1.0 + torch.erf(x * 0.5**0.5))
    return chance + x * (-0.5 * x * x).exp() * 0.3989422804014327


@wrong(gelu_slope, "the chance alone")
def first_factor_only(x):
    return phi(x)


@wrong(gelu_slope, "second term without x")
def sum_of_both(x):
    return phi(x) + bell(x)


@wrong(gelu_slope, "second term subtracted")
def sign_lost(x):
    return phi(x) + x * -bell(x)


@wrong(gelu_slope, "bell without its factor")
def area_not_one(x):
    return phi(x) + x * (-x * x / 2).exp()


@wrong(gelu_slope, "bell too narrow")
def slope_of_erf(x):
    return phi(x) + x * (-x * x).exp() / math.pi**0.5


@wrong(gelu_slope, "the second term alone")
def slope_of_the_chance(x):
    return x * bell(x)


@wrong(gelu_slope, "the value")
def gelu_itself(x):
    return x * phi(x)


@wrong(gelu_slope, "the approximation's slope")
def slope_of_the_tanh_form(x):
    x = x.clone().requires_grad_()
    F.gelu(x, approximate="tanh").sum().backward()
    return x.grad


@wrong(gelu_slope, "ReLU's slope")
def step(x):
    return (x.sign() + 1).div(2).round()


@wrong(gelu_slope, "wrong ends")
def chance_not_halved(x):
    return 1 + torch.erf(x / 2**0.5) + x * bell(x)


@wrong(gelu_slope, "not symmetric about 1/2")
def square_for_x(x):
    return phi(x) + x**2 * bell(x)


@wrong(gelu_slope, "bell curve")
def root_of_pi_only(x):
    return phi(x) + x * (-x * x / 2).exp() / math.pi**0.5


# which_gelu


def forms():
    """Return the three, by name."""
    return {
        "erf": F.gelu,
        "tanh": lambda x: F.gelu(x, approximate="tanh"),
        "quick": lambda x: x * torch.sigmoid(1.702 * x),
    }


@right(which_gelu)
def nearest_on_a_grid(act):
    x = torch.linspace(-5, 5, 501)
    gaps = {name: (act(x) - form(x)).abs().max() for name, form in forms().items()}
    return min(gaps, key=gaps.get)


@right(which_gelu)
def one_number_is_enough(act):
    y = act(torch.tensor([2.7], dtype=torch.float64)).item()
    exact = 2.7 * 0.5 * (1 + math.erf(2.7 / 2**0.5))
    if abs(y - exact) < 1e-6:
        return "erf"
    return "tanh" if abs(y - exact) < 1e-3 else "quick"


@right(which_gelu)
def close_with_a_tight_tolerance(act):
    x = torch.randn(200)
    for name, form in forms().items():
        if torch.allclose(act(x), form(x), atol=1e-6, rtol=1e-4):
            return name


@wrong(which_gelu, "tanh form not known")
def loose_tolerance(act):
    x = torch.linspace(-3, 3, 61)
    for name, form in forms().items():
        if torch.allclose(act(x), form(x), atol=1e-3):
            return name


@wrong(which_gelu, "always erf")
def far_from_zero(act):
    x = torch.tensor([-20.0, 0.0, 20.0])
    for name, form in forms().items():
        if torch.allclose(act(x), form(x), atol=1e-6):
            return name


@wrong(which_gelu, "rounding taken for a form")
def exactly_equal(act):
    x = torch.linspace(-3, 3, 61)
    if torch.equal(act(x), x * 0.5 * (1 + torch.erf(x / 2**0.5))):
        return "erf"
    return "tanh" if (act(x) - F.gelu(x)).abs().max() < 1e-3 else "quick"


@wrong(which_gelu, "exact form not known")
def names_swapped(act):
    return {"erf": "tanh", "tanh": "erf", "quick": "quick"}[nearest_on_a_grid(act)]


@wrong(which_gelu, "sigmoid form not known")
def two_forms_only(act):
    return "erf" if nearest_on_a_grid(act) == "erf" else "tanh"


@wrong(which_gelu, "crash")
def asks_for_its_name(act):
    return "erf" if act.approximate == "none" else "tanh"


@wrong(which_gelu, "type")
def returns_the_function(act):
    return forms()[nearest_on_a_grid(act)]


# GatedMLP


class Gated(nn.Module):
    """Two linear maps; what is between them is to be written."""

    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.hidden = hidden_dim
        self.fc1 = nn.Linear(embed_dim, hidden_dim * 2)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)


@right(GatedMLP)
class Two_halves(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


@right(GatedMLP)
class Slices_and_sigmoid(Gated):
    def forward(self, tokens):
        both = self.fc1(tokens)
        gate, value = both[..., : self.hidden], both[..., self.hidden :]
        return self.fc2(gate * gate.sigmoid() * value)


@right(GatedMLP)
class Two_maps_cut_from_one(Gated):
    def forward(self, tokens):
        weights = self.fc1.weight.split(self.hidden)
        biases = self.fc1.bias.split(self.hidden)
        gate, value = (
            F.linear(tokens, w, b) for w, b in zip(weights, biases, strict=True)
        )
        return self.fc2(value * nn.SiLU()(gate))


@wrong(GatedMLP, "bend after the product", "devvrit/matformer PR 4")
class Activation_of_the_product(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).split(self.hidden, dim=-1)
        return self.fc2(F.silu(value * gate))


@wrong(GatedMLP, "other half bent")
class Value_bent(Gated):
    def forward(self, tokens):
        value, gate = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


@wrong(GatedMLP, "both halves bent")
class Bent_before_the_cut(Gated):
    def forward(self, tokens):
        gate, value = F.silu(self.fc1(tokens)).chunk(2, dim=-1)
        return self.fc2(gate * value)


@wrong(GatedMLP, "no bend")
class Plain_product(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(gate * value)


@wrong(GatedMLP, "sigmoid for SiLU")
class Plain_gate(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(value / (1 + torch.exp(-gate)))


@wrong(GatedMLP, "sigmoid for SiLU")
class Built_in_glu(Gated):
    def forward(self, tokens):
        value, gate = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.glu(torch.cat([gate, value], dim=-1)))


@wrong(GatedMLP, "GELU for SiLU")
class Gelu_gate(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.gelu(gate) * value)


@wrong(GatedMLP, "no gate")
class Value_dropped(Gated):
    def forward(self, tokens):
        return self.fc2(F.silu(self.fc1(tokens)[..., : self.hidden]))


@wrong(GatedMLP, "half unused")
class Gate_by_itself(Gated):
    def forward(self, tokens):
        gate, _ = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * gate)


@wrong(GatedMLP, "not proportional")
class Value_through_tanh(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value.tanh())


@wrong(GatedMLP, "halves woven")
class Every_second(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).unflatten(-1, (-1, 2)).unbind(-1)
        return self.fc2(F.silu(gate) * value)


@wrong(GatedMLP, "shapes")
class One_half_too_few(nn.Module):
    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim // 2, embed_dim)


@wrong(GatedMLP, "crash")
class Chunked_along_the_tokens(Gated):
    def forward(self, tokens):
        gate, value = self.fc1(tokens).chunk(2, dim=1)
        return self.fc2(F.silu(gate) * value)


# linear_share


def with_ones(x):
    """Append a column of ones."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def explained(y, guess):
    """Return the share of the squares that is explained."""
    return 1 - ((y - guess) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


@right(linear_share)
def least_squares(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(with_ones(inputs), outputs).solution
    return explained(new_outputs, with_ones(new_inputs) @ weight)


@right(linear_share)
def pseudo_inverse(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.pinv(with_ones(inputs)) @ outputs
    return explained(new_outputs, with_ones(new_inputs) @ weight).item()


@right(linear_share)
def centred_normal_equations(inputs, outputs, new_inputs, new_outputs):
    mean, shift = inputs.double().mean(0), outputs.double().mean(0)
    x, y = inputs.double() - mean, outputs.double() - shift
    weight = torch.linalg.solve(x.T @ x, x.T @ y)
    guess = (new_inputs.double() - mean) @ weight + shift
    return explained(new_outputs.double(), guess).to(inputs.dtype)


@wrong(linear_share, "same tokens twice")
def judged_where_fitted(inputs, outputs, new_inputs, new_outputs):
    return least_squares(inputs, outputs, inputs, outputs)


@wrong(linear_share, "fitted on the new ones")
def fitted_where_judged(inputs, outputs, new_inputs, new_outputs):
    return least_squares(new_inputs, new_outputs, new_inputs, new_outputs)


@wrong(linear_share, "no bias")
def through_the_origin(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(inputs, outputs).solution
    return explained(new_outputs, new_inputs @ weight)


@wrong(linear_share, "what is left")
def error_over_variance(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(with_ones(inputs), outputs).solution
    gap = new_outputs - with_ones(new_inputs) @ weight
    spread = new_outputs - new_outputs.mean(0)
    return gap.square().sum() / spread.square().sum()


@wrong(linear_share, "mean not subtracted")
def share_of_the_squares(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(with_ones(inputs), outputs).solution
    gap = new_outputs - with_ones(new_inputs) @ weight
    return 1 - (gap**2).sum() / (new_outputs**2).sum()


@wrong(linear_share, "one mean for all")
def variance_over_everything(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(with_ones(inputs), outputs).solution
    gap = new_outputs - with_ones(new_inputs) @ weight
    return 1 - (gap**2).mean() / new_outputs.var(correction=0)


@wrong(linear_share, "mean of shares")
def r_squared_for_each_output(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(with_ones(inputs), outputs).solution
    gap = new_outputs - with_ones(new_inputs) @ weight
    rest = (gap**2).mean(0) / new_outputs.var(dim=0, correction=0)
    return (1 - rest).mean()


@wrong(linear_share, "not 1 for a linear map")
def correlation_of_first_numbers(inputs, outputs, new_inputs, new_outputs):
    pair = torch.stack([new_inputs[:, 0], new_outputs[:, 0]])
    return torch.corrcoef(pair)[0, 1] ** 2


@wrong(linear_share, "crash")
def bias_of_the_wrong_shape(inputs, outputs, new_inputs, new_outputs):
    table = torch.cat([inputs, torch.ones(len(inputs))], dim=1)
    return torch.linalg.lstsq(table, outputs).solution


@wrong(linear_share, "shape")
def one_for_each_token(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(with_ones(inputs), outputs).solution
    gap = (new_outputs - with_ones(new_inputs) @ weight) ** 2
    return 1 - gap.sum(1) / ((new_outputs - new_outputs.mean(0)) ** 2).sum(1)


@wrong(linear_share, "new tokens centred")
def means_taken_anew(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.pinv(inputs - inputs.mean(0)) @ (outputs - outputs.mean(0))
    guess = (new_inputs - new_inputs.mean(0)) @ weight + new_outputs.mean(0)
    return explained(new_outputs, guess)


@wrong(linear_share, "the share")
def mean_over_unbiased_variance(inputs, outputs, new_inputs, new_outputs):
    weight = torch.linalg.lstsq(with_ones(inputs), outputs).solution
    gap = new_outputs - with_ones(new_inputs) @ weight
    return 1 - gap.square().mean() / new_outputs.var(dim=0).mean()


@wrong(linear_share, "the fit")
def weights_kept_small(inputs, outputs, new_inputs, new_outputs):
    table = with_ones(inputs)
    gram = table.T @ table
    residual = outputs - table @ torch.linalg.lstsq(table, outputs).solution
    strength = residual.square().sum()
    weight = torch.linalg.solve(
        gram + strength * torch.eye(len(gram)), table.T @ outputs
    )
    return explained(new_outputs, with_ones(new_inputs) @ weight)
