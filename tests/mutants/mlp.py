"""Answers to the tasks of chapter 06."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from mutants.answers import right, wrong
from vitlib.checks.mlp import MLP, gelu_exact, gelu_tanh

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
