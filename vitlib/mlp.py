"""GELU, and the two-layer network that every token passes through alone."""

import math

import torch
from torch import Tensor, nn

from vitlib.arguments import (
    require_choice,
    require_float,
    require_rate,
    require_tensor,
    require_tokens,
    require_whole,
)

# vitlib's name for each form of GELU -> PyTorch's name for its approximation.
GELUS = {"erf": "none", "tanh": "tanh"}


def gelu_exact(x: Tensor) -> Tensor:
    """Multiply x by the chance that a standard normal draw lies below it.

    Args:
        x: Any float tensor.
    Shape:
        x (...) -> (...)
    Reference:
        Hendrycks & Gimpel 2016, sec. 2. Chapter 06.
    """
    _require_floats(x)
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    """Approximate `gelu_exact` with a tanh, as the paper's released code does.

    Args:
        x: Any float tensor.
    Shape:
        x (...) -> (...)
    Reference:
        Hendrycks & Gimpel 2016, sec. 2. Chapter 06.
    """
    _require_floats(x)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * 0.5 * (1 + torch.tanh(inner))


class MLP(nn.Module):
    """Widen each token, bend it with GELU, narrow it again.

    The GELU that runs is PyTorch's kernel; `gelu_exact` and `gelu_tanh` are the
    formulas it computes.

    Args:
        embed_dim: Length of a token, e.
        hidden_dim: Length in between; 4e in the paper.
        gelu: "erf" for the exact form, "tanh" for the approximation.
        drop_rate: Share of the values to drop in training, after each layer.
    Shape:
        tokens (b, n, e) -> (b, n, e)
    Raises:
        ValueError: unknown gelu, a size below 1, a rate outside [0, 1).
    Reference:
        Dosovitskiy et al. 2021, sec. 3.1 and Eq. 3. Chapter 06.
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        *,
        gelu: str = "erf",
        drop_rate: float = 0.0,
    ):
        super().__init__()
        require_whole("embed_dim", embed_dim)
        require_whole("hidden_dim", hidden_dim)
        require_choice("gelu", gelu, tuple(GELUS))
        require_rate("drop_rate", drop_rate)
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = nn.GELU(approximate=GELUS[gelu])
        self.fc2 = nn.Linear(hidden_dim, embed_dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each token, without looking at the others."""
        require_tokens(tokens, self.fc1.weight)
        hidden = self.drop(self.act(self.fc1(tokens)))  # (b, n, hidden_dim)
        return self.drop(self.fc2(hidden))


def _require_floats(x: Tensor) -> None:
    require_tensor("x", x, "...")
    require_float("x", x)
