"""The encoder block: attention and an MLP, each added to the residual stream."""

from torch import Tensor, nn

from vitlib.arguments import (
    require_float,
    require_number,
    require_rate,
    require_tensor,
    require_tokens,
    require_whole,
)
from vitlib.mlp import MLP
from vitlib.multi_head import MultiHeadAttention


class DropPath(nn.Module):
    """Silence a whole branch for some images of a batch (stochastic depth).

    The images that keep the branch get it divided by the chance of keeping it,
    so its expectation does not change. In evaluation nothing happens.

    Args:
        drop_path_rate: Chance that an image loses the branch.
    Shape:
        branch (b, ...) -> (b, ...)
    Raises:
        ValueError: the rate lies outside [0, 1).
    Reference:
        Huang et al. 2016. Chapter 07.
    """

    def __init__(self, drop_path_rate: float = 0.0):
        super().__init__()
        self.drop_path_rate = require_rate("drop_path_rate", drop_path_rate)

    def forward(self, branch: Tensor) -> Tensor:
        """Keep or silence each image's branch."""
        require_tensor("branch", branch, "b ...")
        require_float("branch", branch)
        if not self.training or self.drop_path_rate == 0:
            return branch
        keep_rate = 1 - self.drop_path_rate
        keep = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1))
        return branch * keep.bernoulli_(keep_rate) / keep_rate

    def extra_repr(self) -> str:
        """Show the rate where the module is printed."""
        return f"drop_path_rate={self.drop_path_rate}"


class EncoderBlock(nn.Module):
    """One block of the encoder, normalising before each branch (pre-norm).

    Args:
        embed_dim: Length of a token, e.
        num_heads: Number of heads, h.
        head_dim: Length of a head's vectors, d; e / h when not given.
        mlp_ratio: Hidden length of the MLP as a multiple of e.
        qkv_bias: Whether queries, keys and values have a bias.
        norm_eps: Added to the variance in the LayerNorms.
        gelu: "erf" or "tanh".
        drop_rate: Share of values to drop after each dense layer, qkv excepted.
        attn_drop_rate: Share of the attention weights to drop.
        drop_path_rate: Chance that an image loses a branch.
        fused: Whether attention runs in PyTorch's fused kernel.
    Shape:
        tokens (b, n, e), mask broadcasting to (b, h, n, n) -> (b, n, e)
    Raises:
        ValueError: a size, rate or name is out of range.
    Reference:
        Dosovitskiy et al. 2021, Eq. 2 and 3; Huang et al. 2016. Chapter 07.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        gelu: str = "erf",
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        fused: bool = False,
    ):
        super().__init__()
        require_whole("embed_dim", embed_dim)
        require_number("norm_eps", norm_eps)
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attn = MultiHeadAttention(
            embed_dim,
            num_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            attn_drop_rate=attn_drop_rate,
            drop_rate=drop_rate,
            fused=fused,
        )
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(
            embed_dim,
            hidden_dim_of(embed_dim, mlp_ratio),
            gelu=gelu,
            drop_rate=drop_rate,
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Add what attention gathers, then what the MLP makes of it."""
        require_tokens(tokens, self.norm1.weight)
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), mask))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


def hidden_dim_of(embed_dim: int, mlp_ratio: float) -> int:
    """Return the hidden length of the MLP, rounded down.

    Args:
        embed_dim: Length of a token, e.
        mlp_ratio: Hidden length as a multiple of e.
    Raises:
        ValueError: the ratio leaves no hidden unit.
    """
    require_number("mlp_ratio", mlp_ratio)
    name = f"embed_dim {embed_dim} times mlp_ratio"
    return require_whole(name, int(require_number(name, embed_dim * mlp_ratio)))
