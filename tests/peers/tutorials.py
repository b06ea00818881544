"""The models of four tutorials: their parameter names and arithmetic, our words.

Tutorial 2 explains without code. The classes say nothing of their tutorials'
defaults: every size is asked for.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange, Reduce
from torch import nn

# ---- tutorial 1: after FrancescoSaverioZuppichini/ViT -----------------------------


class InterleavedEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, embed_dim, in_channels):
        super().__init__()
        self.projection = nn.Sequential(
            nn.Conv2d(in_channels, embed_dim, patch_size, patch_size),
            Rearrange("b e rows cols -> b (rows cols) e"),
        )
        tokens = (image_size // patch_size) ** 2 + 1
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.positions = nn.Parameter(torch.randn(tokens, embed_dim))

    def forward(self, images):
        front = self.cls_token.expand(len(images), -1, -1)
        return torch.cat([front, self.projection(images)], dim=1) + self.positions


class InterleavedAttention(nn.Module):
    """The rows of qkv are (h d three); scores are divided by the root of e.

    It takes no mask: the tutorial's `mask_fill` does not exist.
    """

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.scale = 1 / math.sqrt(embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.projection = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens):
        q, k, v = rearrange(
            self.qkv(tokens), "b n (h d three) -> three b h n d",
            h=self.num_heads, three=3,
        )  # fmt: skip
        weights = (torch.einsum("bhid,bhjd->bhij", q, k) * self.scale).softmax(-1)
        gathered = torch.einsum("bhij,bhjd->bhid", weights, v)
        return self.projection(rearrange(gathered, "b h n d -> b n (h d)"))


class AddTo(nn.Module):
    def __init__(self, *steps):
        super().__init__()
        self.fn = nn.Sequential(*steps)

    def forward(self, tokens):
        # Not in place, as the tutorial has it: autograd may need the old tokens.
        return tokens + self.fn(tokens)


def tutorial_1(
    *, image_size, patch_size, embed_dim, depth, num_heads, num_classes,
    mlp_ratio=4, in_channels=3,
):  # fmt: skip
    """Build the model: mean over all tokens, norm, head; eps PyTorch's 1e-5."""
    hidden_dim = mlp_ratio * embed_dim
    blocks = [
        nn.Sequential(
            AddTo(
                nn.LayerNorm(embed_dim),
                InterleavedAttention(embed_dim, num_heads),
                nn.Dropout(0.0),
            ),
            AddTo(
                nn.LayerNorm(embed_dim),
                nn.Sequential(
                    nn.Linear(embed_dim, hidden_dim),
                    nn.GELU(),
                    nn.Dropout(0.0),
                    nn.Linear(hidden_dim, embed_dim),
                ),
                nn.Dropout(0.0),
            ),
        )
        for _ in range(depth)
    ]
    head = nn.Sequential(
        Reduce("b n e -> b e", "mean"),
        nn.LayerNorm(embed_dim),
        nn.Linear(embed_dim, num_classes),
    )
    embedding = InterleavedEmbedding(image_size, patch_size, embed_dim, in_channels)
    return nn.Sequential(embedding, nn.Sequential(*blocks), head)


# ---- tutorial 3: after an early lucidrains/vit-pytorch ----------------------------


class NormFirst(nn.Module):
    def __init__(self, embed_dim, fn):
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.fn = fn

    def forward(self, tokens):
        return self.fn(self.norm(tokens))


class FreeWidthAttention(nn.Module):
    """The heads' length is chosen freely; queries, keys and values have no bias."""

    def __init__(self, embed_dim, num_heads, head_dim):
        super().__init__()
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        inner_dim = num_heads * head_dim
        self.to_qkv = nn.Linear(embed_dim, 3 * inner_dim, bias=False)
        if num_heads == 1 and head_dim == embed_dim:
            self.to_out = nn.Identity()
        else:
            self.to_out = nn.Sequential(
                nn.Linear(inner_dim, embed_dim), nn.Dropout(0.0)
            )

    def forward(self, tokens):
        q, k, v = (
            rearrange(part, "b n (h d) -> b h n d", h=self.num_heads)
            for part in self.to_qkv(tokens).chunk(3, dim=-1)
        )
        # torch's einsum: the tutorial calls one that it never imports.
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * self.scale
        gathered = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
        return self.to_out(rearrange(gathered, "b h n d -> b n (h d)"))


class FeedForward(nn.Module):
    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(hidden_dim, embed_dim),
            nn.Dropout(0.0),
        )

    def forward(self, tokens):
        return self.net(tokens)


class Layers(nn.Module):
    def __init__(self, embed_dim, depth, num_heads, head_dim, hidden_dim):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    NormFirst(
                        embed_dim, FreeWidthAttention(embed_dim, num_heads, head_dim)
                    ),
                    NormFirst(embed_dim, FeedForward(embed_dim, hidden_dim)),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, tokens):
        for attention, feed_forward in self.layers:
            tokens = tokens + attention(tokens)
            tokens = tokens + feed_forward(tokens)
        return tokens


class Tutorial3(nn.Module):
    """Patches are flattened (p1 p2 c); "mean" averages the class token too."""

    def __init__(
        self, *, image_size, patch_size, embed_dim, depth, num_heads, num_classes,
        hidden_dim, pool="cls", head_dim=64, in_channels=3,
    ):  # fmt: skip
        super().__init__()
        (height, width), (p1, p2) = image_size, patch_size
        self.to_patch_embedding = nn.Sequential(
            Rearrange("b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=p1, p2=p2),
            nn.Linear(in_channels * p1 * p2, embed_dim),
        )
        tokens = (height // p1) * (width // p2) + 1
        self.pos_embedding = nn.Parameter(torch.randn(1, tokens, embed_dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.transformer = Layers(embed_dim, depth, num_heads, head_dim, hidden_dim)
        self.pool = pool
        self.mlp_head = nn.Sequential(
            nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes)
        )

    def forward(self, images):
        patches = self.to_patch_embedding(images)
        front = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([front, patches], dim=1) + self.pos_embedding
        tokens = self.transformer(tokens)
        pooled = tokens.mean(dim=1) if self.pool == "mean" else tokens[:, 0]
        return self.mlp_head(pooled)


# ---- tutorials 4 and 5: timm's names ----------------------------------------------


class PatchEmbed(nn.Module):
    def __init__(self, patch_size, embed_dim, in_channels, norm):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)
        self.norm = norm(embed_dim) if norm else nn.Identity()

    def forward(self, images):
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class Attention(nn.Module):
    def __init__(self, embed_dim, num_heads, qkv_bias):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (embed_dim // num_heads) ** -0.5
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens):
        b, n, e = tokens.shape
        qkv = self.qkv(tokens).reshape(b, n, 3, self.num_heads, e // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, e))


class MLP(nn.Module):
    def __init__(self, embed_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens):
        return self.fc2(F.gelu(self.fc1(tokens)))


class DropPath(nn.Module):
    """Tutorial 5 uses it without defining it; this is the usual one."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, branch):
        if not self.training or not self.rate:
            return branch
        kept = torch.rand(len(branch), 1, 1) >= self.rate
        return branch * kept / (1 - self.rate)


class Block(nn.Module):
    def __init__(self, embed_dim, num_heads, hidden_dim, qkv_bias, drop_path, norm):
        super().__init__()
        self.norm1 = norm(embed_dim)
        self.attn = Attention(embed_dim, num_heads, qkv_bias)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm(embed_dim)
        self.mlp = MLP(embed_dim, hidden_dim)

    def forward(self, tokens):
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class TimmLike(nn.Module):
    def __init__(
        self, *, image_size, patch_size, embed_dim, depth, num_heads, num_classes,
        mlp_ratio, qkv_bias, norm, patch_norm=None, drop_path=0.0, in_channels=3,
    ):  # fmt: skip
        super().__init__()
        hidden_dim = int(mlp_ratio * embed_dim)
        self.patch_embed = PatchEmbed(patch_size, embed_dim, in_channels, patch_norm)
        patches = (image_size // patch_size) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, embed_dim))
        self.blocks = nn.Sequential(
            *(
                Block(embed_dim, num_heads, hidden_dim, qkv_bias, drop_path, norm)
                for _ in range(depth)
            )
        )
        self.norm = norm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images):
        front = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([front, self.patch_embed(images)], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def norm_1e6(embed_dim):
    return nn.LayerNorm(embed_dim, eps=1e-6)


def tutorial_4(*, qkv_bias=True, **sizes):
    return TimmLike(norm=norm_1e6, qkv_bias=qkv_bias, **sizes)


def tutorial_5(*, qkv_bias=False, patch_norm=False, drop_path=0.0, **sizes):
    """Build the model: the tutorial shows only parts of it, and no MLP."""
    return TimmLike(
        norm=nn.LayerNorm,
        patch_norm=nn.LayerNorm if patch_norm else None,
        qkv_bias=qkv_bias,
        drop_path=drop_path,
        **sizes,
    )
