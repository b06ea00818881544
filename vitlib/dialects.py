"""How other libraries name and lay out a Vision Transformer, one table each.

Each row says what a parameter of ours is called there and, where it differs, how
its axes are laid out. The axis letters are the book's:

    e embed_dim      h heads    d head_dim    m hidden units of the MLP
    c channels       p1 p2 inside a patch     t tokens      k classes

`vitlib.convert` reads a checkpoint by these tables: for each row a lookup and an
einops rearrangement.
"""

import dataclasses
import re
from collections.abc import Iterable

# Our parameters and their axes. {p} stands for weight and bias, {i} for the block.
OURS = {
    "cls_token": "1 1 e",
    "pos_embed": "1 t e",
    "patch_embed.pixel_norm.{p}": "(c p1 p2)",
    "patch_embed.proj.weight": "e c p1 p2",
    "patch_embed.proj.bias": "e",
    "patch_embed.norm.{p}": "e",
    "blocks.{i}.norm1.{p}": "e",
    "blocks.{i}.attn.qkv.weight": "(three h d) e",
    "blocks.{i}.attn.qkv.bias": "(three h d)",
    "blocks.{i}.attn.proj.weight": "e (h d)",
    "blocks.{i}.attn.proj.bias": "e",
    "blocks.{i}.norm2.{p}": "e",
    "blocks.{i}.mlp.fc1.weight": "m e",
    "blocks.{i}.mlp.fc1.bias": "m",
    "blocks.{i}.mlp.fc2.weight": "e m",
    "blocks.{i}.mlp.fc2.bias": "e",
    "norm.{p}": "e",
    "head.weight": "k e",
    "head.bias": "k",
}


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How one source names and lays out a ViT's parameters.

    Args:
        sign: A key that tells this dialect from all others.
        block: What stands in front of the names inside block {i}.
        outside: Our name -> their name, or (their name, their axes).
        inside: The same for what a block holds. {q,k,v} names three tensors that
            are one of ours.
        fixed: Fields of ViTConfig that the source's code decides, with the values
            they can have.
        ignored: Beginnings of keys that do not touch the class scores.
        score_root: The axis whose root divides the attention scores.
    Reference:
        Chapter 09.
    """

    sign: str
    block: str
    outside: dict[str, str | tuple[str, str]]
    inside: dict[str, str | tuple[str, str]]
    fixed: dict[str, tuple]
    ignored: tuple[str, ...] = ()
    score_root: str = "d"

    def rows(self) -> dict[str, "Row"]:
        """Spell the table out: our parameter, {i} for the block -> its row."""
        our_axes = _spelled_out(OURS)
        inside = {f"blocks.{{i}}.{name}": row for name, row in self.inside.items()}
        rows = {}
        for table, prefix in ((self.outside, ""), (inside, self.block)):
            for name, row in _spelled_out(table).items():
                key, axes = row if isinstance(row, tuple) else (row, our_axes[name])
                # "a.{q,k,v}.b" -> "a.", "q,k,v", ".b"
                before, words, after = re.fullmatch(
                    r"(.*?)(?:\{(\w+,\w+,\w+)\})?([^{}]*)", key
                ).groups("")
                keys = tuple(
                    prefix + before + word + after for word in words.split(",")
                )
                rows[name] = Row(keys, axes, our_axes[name])
        return rows

    def blocks_of(self, keys: Iterable[str]) -> set[int]:
        """Return the numbers of the blocks that the keys of a state dict name."""
        pattern = re.compile(re.escape(self.block).replace(r"\{i\}", r"(\d+)"))
        return {int(m[1]) for key in keys if (m := pattern.match(key))}


@dataclasses.dataclass(frozen=True)
class Row:
    """Where one of our parameters comes from.

    Args:
        keys: Their names, {i} for the block; several are stacked.
        their_axes: How each of them is laid out, in einops notation.
        our_axes: How ours is.
    Reference:
        Chapter 09.
    """

    keys: tuple[str, ...]
    their_axes: str
    our_axes: str


def axes_of(pattern: str) -> list[list[str]]:
    """Cut an einops pattern into axes, and each axis into its letters.

    Args:
        pattern: As in "(three h d) e".
    Returns:
        As in [["three", "h", "d"], ["e"]].
    Reference:
        Chapter 00.
    """
    return [axis.strip("()").split() for axis in re.findall(r"\([^)]*\)|\w+", pattern)]


def _spelled_out(table: dict) -> dict:
    """Write a row with {p} as two, one for weights and one for biases."""

    def put(p: str, row: str | tuple) -> str | tuple:
        if isinstance(row, tuple):
            return tuple(part.replace("{p}", p) for part in row)
        return row.replace("{p}", p)

    return {
        put(p, name): put(p, row)
        for name, row in table.items()
        for p in (("weight", "bias") if "{p}" in name else ("",))
    }


TIMM = Dialect(
    sign="blocks.0.attn.qkv.weight",
    block="blocks.{i}.",
    outside={
        "cls_token": "cls_token",
        "pos_embed": "pos_embed",
        "patch_embed.proj.{p}": "patch_embed.proj.{p}",
        "patch_embed.norm.{p}": "patch_embed.norm.{p}",
        "norm.{p}": "norm.{p}",
        "head.{p}": "head.{p}",
    },
    inside={
        "norm1.{p}": "norm1.{p}",
        "attn.qkv.{p}": "attn.qkv.{p}",
        "attn.proj.{p}": "attn.proj.{p}",
        "norm2.{p}": "norm2.{p}",
        "mlp.fc1.{p}": "mlp.fc1.{p}",
        "mlp.fc2.{p}": "mlp.fc2.{p}",
    },
    fixed={"patch_norm": (False, "after")},
)
# After pooling timm calls its last norm fc_norm.
TIMM_POOLED = dataclasses.replace(
    TIMM, sign="fc_norm.weight", outside=TIMM.outside | {"norm.{p}": "fc_norm.{p}"}
)

TORCHVISION = Dialect(
    sign="encoder.layers.encoder_layer_0.mlp.0.weight",
    block="encoder.layers.encoder_layer_{i}.",
    outside={
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj.{p}": "conv_proj.{p}",
        "norm.{p}": "encoder.ln.{p}",
        "head.{p}": "heads.head.{p}",
    },
    inside={
        "norm1.{p}": "ln_1.{p}",
        "attn.qkv.{p}": "self_attention.in_proj_{p}",
        "attn.proj.{p}": "self_attention.out_proj.{p}",
        "norm2.{p}": "ln_2.{p}",
        "mlp.fc1.{p}": "mlp.0.{p}",
        "mlp.fc2.{p}": "mlp.3.{p}",
    },
    fixed={
        "gelu": ("erf",),
        "pool": ("cls",),
        "qkv_bias": (True,),
        "patch_norm": (False,),
    },
)
# The released files are older than the code that reads them.
TORCHVISION_FILES = dataclasses.replace(
    TORCHVISION,
    sign="encoder.layers.encoder_layer_0.mlp.linear_1.weight",
    inside=TORCHVISION.inside
    | {"mlp.fc1.{p}": "mlp.linear_1.{p}", "mlp.fc2.{p}": "mlp.linear_2.{p}"},
)

# In memory, transformers 5 and newer.
TRANSFORMERS = Dialect(
    sign="vit.layers.0.attention.q_proj.weight",
    block="vit.layers.{i}.",
    outside={
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj.{p}": "vit.embeddings.patch_embeddings.projection.{p}",
        "norm.{p}": "vit.layernorm.{p}",
        "head.{p}": "classifier.{p}",
    },
    inside={
        "norm1.{p}": "layernorm_before.{p}",
        "attn.qkv.weight": ("attention.{q,k,v}_proj.weight", "(h d) e"),
        "attn.qkv.bias": ("attention.{q,k,v}_proj.bias", "(h d)"),
        "attn.proj.{p}": "attention.o_proj.{p}",
        "norm2.{p}": "layernorm_after.{p}",
        "mlp.fc1.{p}": "mlp.fc1.{p}",
        "mlp.fc2.{p}": "mlp.fc2.{p}",
    },
    fixed={"pool": ("cls",), "patch_norm": (False,)},
    ignored=("vit.embeddings.mask_token", "vit.pooler."),
)
TRANSFORMERS_FILES = dataclasses.replace(
    TRANSFORMERS,
    sign="vit.encoder.layer.0.attention.attention.query.weight",
    block="vit.encoder.layer.{i}.",
    inside={
        "norm1.{p}": "layernorm_before.{p}",
        "attn.qkv.weight": ("attention.attention.{query,key,value}.weight", "(h d) e"),
        "attn.qkv.bias": ("attention.attention.{query,key,value}.bias", "(h d)"),
        "attn.proj.{p}": "attention.output.dense.{p}",
        "norm2.{p}": "layernorm_after.{p}",
        "mlp.fc1.{p}": "intermediate.dense.{p}",
        "mlp.fc2.{p}": "output.dense.{p}",
    },
)

# vit-pytorch 1.26; its patches are flattened colour last.
VIT_PYTORCH = Dialect(
    sign="transformer.layers.0.0.to_qkv.weight",
    block="transformer.layers.{i}.",
    outside={
        "cls_token": ("cls_token", "1 e"),
        "pos_embed": ("pos_embedding", "t e"),
        "patch_embed.pixel_norm.{p}": ("to_patch_embedding.1.{p}", "(p1 p2 c)"),
        "patch_embed.proj.weight": ("to_patch_embedding.2.weight", "e (p1 p2 c)"),
        "patch_embed.proj.bias": "to_patch_embedding.2.bias",
        "patch_embed.norm.{p}": "to_patch_embedding.3.{p}",
        "norm.{p}": "transformer.norm.{p}",
        "head.{p}": "mlp_head.{p}",
    },
    inside={
        "norm1.{p}": "0.norm.{p}",
        "attn.qkv.weight": "0.to_qkv.weight",
        "attn.proj.{p}": "0.to_out.0.{p}",
        "norm2.{p}": "1.net.0.{p}",
        "mlp.fc1.{p}": "1.net.1.{p}",
        "mlp.fc2.{p}": "1.net.4.{p}",
    },
    fixed={
        "norm_eps": (1e-5,),
        "gelu": ("erf",),
        "qkv_bias": (False,),
        "class_token": (True,),
        "pool": ("cls",),
        "patch_norm": (True,),
    },
)
# Its first versions, which the third tutorial follows: no norms around the patches,
# and the last norm after pooling.
VIT_PYTORCH_OLD = Dialect(
    sign="transformer.layers.0.0.fn.to_qkv.weight",
    block="transformer.layers.{i}.",
    outside={
        "cls_token": "cls_token",
        "pos_embed": "pos_embedding",
        "patch_embed.proj.weight": ("to_patch_embedding.1.weight", "e (p1 p2 c)"),
        "patch_embed.proj.bias": "to_patch_embedding.1.bias",
        "norm.{p}": "mlp_head.0.{p}",
        "head.{p}": "mlp_head.1.{p}",
    },
    inside={
        "norm1.{p}": "0.norm.{p}",
        "attn.qkv.weight": "0.fn.to_qkv.weight",
        "attn.proj.{p}": "0.fn.to_out.0.{p}",
        "norm2.{p}": "1.norm.{p}",
        "mlp.fc1.{p}": "1.fn.net.0.{p}",
        "mlp.fc2.{p}": "1.fn.net.3.{p}",
    },
    fixed={
        "norm_eps": (1e-5,),
        "gelu": ("erf",),
        "qkv_bias": (False,),
        "class_token": (True,),
        "pool": ("cls", "mean_all"),
        "patch_norm": (False,),
    },
)

# The paper's released code. Its kernels are (in, out), and heads have their own axis.
JAX = Dialect(
    sign="Transformer/encoderblock_0/LayerNorm_0/scale",
    block="Transformer/encoderblock_{i}/",
    outside={
        "cls_token": "cls",
        "pos_embed": "Transformer/posembed_input/pos_embedding",
        "patch_embed.proj.weight": ("embedding/kernel", "p1 p2 c e"),
        "patch_embed.proj.bias": "embedding/bias",
        "norm.weight": "Transformer/encoder_norm/scale",
        "norm.bias": "Transformer/encoder_norm/bias",
        "head.weight": ("head/kernel", "e k"),
        "head.bias": "head/bias",
    },
    inside={
        "norm1.weight": "LayerNorm_0/scale",
        "norm1.bias": "LayerNorm_0/bias",
        "attn.qkv.weight": (
            "MultiHeadDotProductAttention_1/{query,key,value}/kernel",
            "e h d",
        ),
        "attn.qkv.bias": (
            "MultiHeadDotProductAttention_1/{query,key,value}/bias",
            "h d",
        ),
        "attn.proj.weight": ("MultiHeadDotProductAttention_1/out/kernel", "h d e"),
        "attn.proj.bias": "MultiHeadDotProductAttention_1/out/bias",
        "norm2.weight": "LayerNorm_2/scale",
        "norm2.bias": "LayerNorm_2/bias",
        "mlp.fc1.weight": ("MlpBlock_3/Dense_0/kernel", "e m"),
        "mlp.fc1.bias": "MlpBlock_3/Dense_0/bias",
        "mlp.fc2.weight": ("MlpBlock_3/Dense_1/kernel", "m e"),
        "mlp.fc2.bias": "MlpBlock_3/Dense_1/bias",
    },
    fixed={
        "norm_eps": (1e-6,),
        "gelu": ("tanh",),
        "qkv_bias": (True,),
        "class_token": (True,),
        "pool": ("cls",),
        "patch_norm": (False,),
    },
)

# FrancescoSaverioZuppichini/ViT, which the first tutorial follows: q, k and v
# alternate row by row, and the scores are divided by the root of embed_dim. Versions
# of that source divide the weights instead, after the softmax, under the same keys:
# see the page of this module for the way out.
ZUPPICHINI = Dialect(
    sign="0.projection.0.weight",
    block="1.{i}.",
    outside={
        "cls_token": "0.cls_token",
        "pos_embed": ("0.positions", "t e"),
        "patch_embed.proj.{p}": "0.projection.0.{p}",
        "norm.{p}": "2.1.{p}",
        "head.{p}": "2.2.{p}",
    },
    inside={
        "norm1.{p}": "0.fn.0.{p}",
        "attn.qkv.weight": ("0.fn.1.qkv.weight", "(h d three) e"),
        "attn.qkv.bias": ("0.fn.1.qkv.bias", "(h d three)"),
        "attn.proj.{p}": "0.fn.1.projection.{p}",
        "norm2.{p}": "1.fn.0.{p}",
        "mlp.fc1.{p}": "1.fn.1.0.{p}",
        "mlp.fc2.{p}": "1.fn.1.3.{p}",
    },
    fixed={
        "norm_eps": (1e-5,),
        "gelu": ("erf",),
        "qkv_bias": (True,),
        "class_token": (True,),
        "pool": ("mean_all",),
        "patch_norm": (False,),
    },
    score_root="e",
)

# A dialect whose sign is rarer stands before its plainer sibling.
DIALECTS = {
    "timm": (TIMM_POOLED, TIMM),
    "torchvision": (TORCHVISION, TORCHVISION_FILES),
    "transformers": (TRANSFORMERS, TRANSFORMERS_FILES),
    "vit-pytorch": (VIT_PYTORCH, VIT_PYTORCH_OLD),
    "jax": (JAX,),
    "zuppichini": (ZUPPICHINI,),
}
SOURCES = tuple(DIALECTS)
