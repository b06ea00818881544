"""The whole Vision Transformer, its sizes, and what they cost.

An image becomes n patches, each patch a token of length e; a class token joins
them, every token gets its position added, and the blocks let them exchange what
they hold:

    images (b, c, H, W) -> patches (b, n, e) -> tokens (b, T, e), T = n + 1
    -> depth blocks (b, T, e) -> pool, then norm (b, e) -> head (b, num_classes)

Parameter names and shapes are timm's, so a state dict of either fits the other.
Reference: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words".
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from vitlib.arguments import (
    as_pair,
    require_choice,
    require_number,
    require_rate,
    require_whole,
)
from vitlib.cls_token import pool_tokens, prepend_cls_token, require_pool
from vitlib.encoder import EncoderBlock, hidden_dim_of
from vitlib.mlp import GELUS
from vitlib.multi_head import head_dim_of
from vitlib.patches import PatchEmbed, grid_of


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The sizes and choices that define a ViT; the defaults are ViT-B/16.

    Args:
        image_size: Side of the square images, or (H, W), in pixels.
        patch_size: Side of a square patch, or (p1, p2), in pixels.
        in_channels: Colours of a pixel, c.
        num_classes: Number of classes.
        embed_dim: Length of a token, e.
        depth: Number of blocks.
        num_heads: Number of heads, h.
        head_dim: Length of a head's vectors, d; e / h when not given.
        mlp_ratio: Hidden length of the MLP as a multiple of e.
        qkv_bias: Whether queries, keys and values have a bias.
        norm_eps: Added to the variance in every LayerNorm.
        gelu: "erf" for the exact form, "tanh" for the approximation.
        class_token: Whether a class token joins the patches.
        patch_norm: False; "after" for a LayerNorm on the embedded patches; True
            for one on the flat pixels as well (Dual PatchNorm).
        pool: "cls", "mean" (patch tokens) or "mean_all" (every token).
        drop_rate: Share of values to drop after the positions and after each
            dense layer, qkv excepted.
        attn_drop_rate: Share of the attention weights to drop.
        drop_path_rate: Chance that an image loses a branch of the last block; it
            grows linearly from 0 in the first.
        fused: Whether attention runs in PyTorch's fused kernel.
    Raises:
        ValueError: a size, rate or name is out of range, or two do not fit.
    Reference:
        Dosovitskiy et al. 2021, Table 1. Chapter 08.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    head_dim: int | None = None
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    gelu: str = "erf"
    class_token: bool = True
    patch_norm: bool | str = False
    pool: str = "cls"
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    fused: bool = False

    def __post_init__(self):
        """Refuse what no ViT can be built from."""
        for name in ("image_size", "patch_size"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        grid_of(self.image_size, self.patch_size)
        for name in ("in_channels", "num_classes", "embed_dim", "depth", "num_heads"):
            require_whole(name, getattr(self, name))
        head_dim_of(self.embed_dim, self.num_heads, self.head_dim)
        hidden_dim_of(self.embed_dim, self.mlp_ratio)
        require_number("norm_eps", self.norm_eps)
        for name in ("qkv_bias", "class_token", "fused"):
            require_choice(name, getattr(self, name), (False, True))
        require_choice("gelu", self.gelu, tuple(GELUS))
        require_choice("patch_norm", self.patch_norm, (False, "after", True))
        require_pool(self.pool, self.class_token)
        for name in ("drop_rate", "attn_drop_rate", "drop_path_rate"):
            require_rate(name, getattr(self, name))

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and across an image, (rows, cols)."""
        return grid_of(self.image_size, self.patch_size)

    @property
    def num_patches(self) -> int:
        """Patches of an image, n."""
        rows, cols = self.grid_size
        return rows * cols

    @property
    def num_tokens(self) -> int:
        """Tokens in the blocks, T, with the class token if there is one."""
        return self.num_patches + self.class_token


# Touvron et al. 2021 (DeiT), Table 1: the tiny size; also Steiner et al. 2022, Table 1.
VIT_TI_16 = ViTConfig(embed_dim=192, num_heads=3)
# Touvron et al. 2021, Table 1: the small size.
VIT_S_16 = ViTConfig(embed_dim=384, num_heads=6)
# Steiner et al. 2022, Table 1.
VIT_S_32 = ViTConfig(embed_dim=384, num_heads=6, patch_size=32)
# Dosovitskiy et al. 2021, Table 1: the rows Base, Large and Huge.
VIT_B_16 = ViTConfig()
VIT_B_32 = ViTConfig(patch_size=32)
VIT_L_16 = ViTConfig(embed_dim=1024, depth=24, num_heads=16)
VIT_L_32 = ViTConfig(embed_dim=1024, depth=24, num_heads=16, patch_size=32)
VIT_H_14 = ViTConfig(embed_dim=1280, depth=32, num_heads=16, patch_size=14)


class ViT(nn.Module):
    """The Vision Transformer.

    Initialised as the paper's released code does it: Xavier-uniform weights in
    attention and MLP (queries, keys and values each for themselves), MLP biases
    from N(0, 1e-6²), positions from N(0, 0.02²), LeCun-normal patch embedding,
    and zeros for the class token, the other biases and the head. A fresh model
    therefore answers every image with equal logits.

    Args:
        config: Sizes and choices.
    Shape:
        images (b, c, H, W) -> (b, num_classes)
    Raises:
        ValueError: the images do not have the size and channels of the model, are
            not floats, or hold NaN.
    Reference:
        Dosovitskiy et al. 2021, Eq. 1-4; initialisation as in
        google-research/vision_transformer, vit_jax/models_vit.py. Chapter 08.
    """

    def __init__(self, config: ViTConfig = VIT_B_16):
        super().__init__()
        _require_config(config)
        self.config = config
        self.patch_embed = PatchEmbed(
            image_size=config.image_size,
            patch_size=config.patch_size,
            in_channels=config.in_channels,
            embed_dim=config.embed_dim,
            patch_norm=config.patch_norm,
            norm_eps=config.norm_eps,
        )
        self.cls_token = (
            nn.Parameter(torch.empty(1, 1, config.embed_dim))
            if config.class_token
            else None
        )
        self.pos_embed = nn.Parameter(
            torch.empty(1, config.num_tokens, config.embed_dim)
        )
        self.drop = nn.Dropout(config.drop_rate)
        self.blocks = nn.ModuleList(
            EncoderBlock(
                config.embed_dim,
                config.num_heads,
                head_dim=config.head_dim,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                norm_eps=config.norm_eps,
                gelu=config.gelu,
                drop_rate=config.drop_rate,
                attn_drop_rate=config.attn_drop_rate,
                drop_path_rate=config.drop_path_rate * i / max(config.depth - 1, 1),
                fused=config.fused,
            )
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        """Score every class for every image."""
        tokens = self.patch_embed(images)  # (b, n, e)
        if self.cls_token is not None:
            tokens = prepend_cls_token(tokens, self.cls_token)  # (b, T, e)
        tokens = self.drop(tokens + self.pos_embed)  # (b, T, e)
        for block in self.blocks:
            tokens = block(tokens)  # (b, T, e)
        pooled = pool_tokens(
            tokens, self.config.pool, class_token=self.config.class_token
        )  # (b, e)
        return self.head(self.norm(pooled))  # (b, num_classes)

    @torch.no_grad()
    def _initialise(self) -> None:
        fan_in = self.patch_embed.proj.weight[0].numel()
        # A normal cut at two standard deviations is narrower than it was: 0.8796...
        # is what remains of its standard deviation.
        std = math.sqrt(1 / fan_in) / 0.87962566103423978
        nn.init.trunc_normal_(
            self.patch_embed.proj.weight, std=std, a=-2 * std, b=2 * std
        )
        nn.init.zeros_(self.patch_embed.proj.bias)
        if self.cls_token is not None:
            nn.init.zeros_(self.cls_token)
        nn.init.normal_(self.pos_embed, std=0.02)
        for block in self.blocks:
            for weight in block.attn.qkv.weight.chunk(3):
                nn.init.xavier_uniform_(weight)
            if block.attn.qkv.bias is not None:
                nn.init.zeros_(block.attn.qkv.bias)
            nn.init.xavier_uniform_(block.attn.proj.weight)
            nn.init.zeros_(block.attn.proj.bias)
            for layer in (block.mlp.fc1, block.mlp.fc2):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


def count_parameters(config: ViTConfig) -> int:
    """Count a model's parameters from its sizes, without building it.

    Args:
        config: Sizes and choices.
    Returns:
        The number of parameters.
    Reference:
        Dosovitskiy et al. 2021, Table 1. Chapter 08.
    """
    _require_config(config)
    e = config.embed_dim
    p1, p2 = as_pair("patch_size", config.patch_size)
    patch_dim = config.in_channels * p1 * p2
    inner_dim = config.num_heads * head_dim_of(e, config.num_heads, config.head_dim)
    hidden_dim = hidden_dim_of(e, config.mlp_ratio)
    norm = 2 * e

    embed = patch_dim * e + e + config.class_token * e + config.num_tokens * e
    if config.patch_norm:
        embed += norm
    if config.patch_norm is True:
        embed += 2 * patch_dim
    qkv = 3 * inner_dim * (e + config.qkv_bias)
    proj = inner_dim * e + e
    mlp = e * hidden_dim + hidden_dim + hidden_dim * e + e
    head = e * config.num_classes + config.num_classes
    return embed + config.depth * (norm + qkv + proj + norm + mlp) + norm + head


def count_flops(config: ViTConfig) -> int:
    """Count the floating-point operations of one image's forward pass.

    A multiply and an add are two operations; only matrix products are counted.
    Many published tables count a multiply-add once and call it a FLOP: half of
    this.

    Args:
        config: Sizes and choices.
    Returns:
        The number of operations.
    Reference:
        Chapter 08; asserted against torch.utils.flop_counter.
    """
    _require_config(config)
    e, n, t = config.embed_dim, config.num_patches, config.num_tokens
    p1, p2 = as_pair("patch_size", config.patch_size)
    inner_dim = config.num_heads * head_dim_of(e, config.num_heads, config.head_dim)
    hidden_dim = hidden_dim_of(e, config.mlp_ratio)

    embed = n * config.in_channels * p1 * p2 * e
    projections = t * 4 * e * inner_dim
    attention = 2 * t * t * inner_dim
    mlp = 2 * t * e * hidden_dim
    head = e * config.num_classes
    return 2 * (embed + config.depth * (projections + attention + mlp) + head)


def _require_config(config: ViTConfig) -> None:
    if not isinstance(config, ViTConfig):
        raise TypeError(f"config is a {type(config).__name__}: give a ViTConfig")
