"""Several heads of attention side by side."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitlib.arguments import (
    require_choice,
    require_rate,
    require_tensor,
    require_tokens,
    require_whole,
)
from vitlib.attention import attention_weights, require_mask


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Cut every token into `num_heads` shorter vectors.

    Args:
        tokens: Tokens whose axis is laid out head by head, `(h d)`.
        num_heads: How many pieces.
    Shape:
        tokens (b, n, h*d) -> (b, h, n, d)
    Raises:
        ValueError: the tokens' length is not divisible by num_heads.
    Reference:
        Vaswani et al. 2017, sec. 3.2.2. Chapter 05.
    """
    require_tensor("tokens", tokens, "b n h*d")
    require_whole("num_heads", num_heads)
    require_divisible("token length", tokens.shape[2], num_heads)
    return rearrange(tokens, "b n (h d) -> b h n d", h=num_heads)


def merge_heads(heads: Tensor) -> Tensor:
    """Lay the heads' vectors end to end: the exact inverse of `split_heads`.

    Args:
        heads: One short vector for each head and token.
    Shape:
        heads (b, h, n, d) -> (b, n, h*d)
    Raises:
        ValueError: there are not four axes.
    Reference:
        Vaswani et al. 2017, sec. 3.2.2. Chapter 05.
    """
    require_tensor("heads", heads, "b h n d")
    return rearrange(heads, "b h n d -> b n (h d)")


class MultiHeadAttention(nn.Module):
    """Let every token gather from every token, in several ways at once.

    Args:
        embed_dim: Length of a token, e.
        num_heads: Number of heads, h.
        head_dim: Length of a head's vectors, d; e / h when not given.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop_rate: Share of the attention weights to drop in training.
        drop_rate: Share of the output to drop in training.
        fused: False writes attention out with einsum; True calls PyTorch's
            scaled_dot_product_attention, the same result without the (i, j) table.
    Shape:
        tokens (b, n, e), mask broadcasting to (b, h, n, n) -> (b, n, e)
    Raises:
        ValueError: embed_dim is not divisible by num_heads and head_dim is not
            given; the tokens have another length; the mask does not fit.
    Reference:
        Vaswani et al. 2017, sec. 3.2.2; Dosovitskiy et al. 2021, Eq. 5-8.
        Chapter 05.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        drop_rate: float = 0.0,
        fused: bool = False,
    ):
        super().__init__()
        self.embed_dim = require_whole("embed_dim", embed_dim)
        self.num_heads = require_whole("num_heads", num_heads)
        self.head_dim = head_dim_of(embed_dim, num_heads, head_dim)
        require_choice("qkv_bias", qkv_bias, (False, True))
        require_choice("fused", fused, (False, True))
        require_rate("attn_drop_rate", attn_drop_rate)
        require_rate("drop_rate", drop_rate)
        self.fused = fused
        inner_dim = num_heads * self.head_dim
        self.qkv = nn.Linear(embed_dim, 3 * inner_dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = nn.Linear(inner_dim, embed_dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the tokens of each image; `mask` is True where one may attend."""
        require_tokens(tokens, self.qkv.weight)
        qkv = self.qkv(tokens)  # (b, n, 3*h*d)
        q, k, v = rearrange(
            qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )  # 3 x (b, h, n, d)
        gather = self._fused if self.fused else self._einsum
        gathered = gather(q, k, v, mask)  # (b, h, n, d)
        return self.drop(self.proj(merge_heads(gathered)))

    def _einsum(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        weights = self.attn_drop(attention_weights(q, k, mask))  # (b, h, i, j)
        return torch.einsum("bhij,bhjd->bhid", weights, v)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            shape = (*q.shape[:3], k.shape[2])
            require_mask(mask, shape)
            # The kernel does not broadcast a mask of fewer than two axes.
            mask = mask.expand(shape)
        drop_rate = self.attn_drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=drop_rate
        )


def head_dim_of(embed_dim: int, num_heads: int, head_dim: int | None) -> int:
    """Return the length of a head's vectors.

    Args:
        embed_dim: Length of a token, e.
        num_heads: Number of heads, h.
        head_dim: The length, or None for e / h.
    Raises:
        ValueError: it is not given and e is not divisible by h.
    """
    if head_dim is not None:
        return require_whole("head_dim", head_dim)
    require_divisible("embed_dim", embed_dim, num_heads)
    return embed_dim // num_heads


def require_divisible(name: str, length: int, num_heads: int) -> None:
    """Refuse a length that does not split evenly into heads.

    Args:
        name: What the caller knows the length as.
        length: Length of a token.
        num_heads: Number of heads, h.
    Raises:
        ValueError: as said.
    """
    if length % num_heads:
        raise ValueError(
            f"{name} {length} is not divisible by num_heads {num_heads}: change one "
            "of them, or give head_dim where the layer takes it"
        )
