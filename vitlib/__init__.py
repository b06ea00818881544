"""The companion library of the book: a Vision Transformer to read in one sitting.

One module a chapter. Images are float tensors (b, c, H, W); tokens are (b, n, e).
`vitlib.checkpoints`, `vitlib.checks`, `vitlib.data`, `vitlib.interpret`,
`vitlib.plots`, `vitlib.predict` and `vitlib.train` are imported by name, so that
`import vitlib` costs little more than `import torch`.
"""

from vitlib.attention import attend, attention_weights
from vitlib.cls_token import pool_tokens, prepend_cls_token
from vitlib.encoder import DropPath, EncoderBlock
from vitlib.mlp import MLP, gelu_exact, gelu_tanh
from vitlib.multi_head import MultiHeadAttention, merge_heads, split_heads
from vitlib.patches import PatchEmbed, merge_patches, split_patches
from vitlib.positions import resample_pos_embed, sincos_2d
from vitlib.vit import (
    VIT_B_16,
    VIT_B_32,
    VIT_H_14,
    VIT_L_16,
    VIT_L_32,
    VIT_S_16,
    VIT_S_32,
    VIT_TI_16,
    ViT,
    ViTConfig,
    count_flops,
    count_parameters,
)

__all__ = [
    "MLP",
    "VIT_B_16",
    "VIT_B_32",
    "VIT_H_14",
    "VIT_L_16",
    "VIT_L_32",
    "VIT_S_16",
    "VIT_S_32",
    "VIT_TI_16",
    "DropPath",
    "EncoderBlock",
    "MultiHeadAttention",
    "PatchEmbed",
    "ViT",
    "ViTConfig",
    "attend",
    "attention_weights",
    "count_flops",
    "count_parameters",
    "gelu_exact",
    "gelu_tanh",
    "merge_heads",
    "merge_patches",
    "pool_tokens",
    "prepend_cls_token",
    "resample_pos_embed",
    "sincos_2d",
    "split_heads",
    "split_patches",
]
