"""The architecture of Google's released ViT checkpoints, small, in flax.

After google-research/vision_transformer, vit_jax/models_vit.py. A block's parts
carry the released files' names, which count them in one row from 0.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict


class AddPositions(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        shape = (1, *tokens.shape[1:])
        normal = nn.initializers.normal(0.02)
        return tokens + self.param("pos_embedding", normal, shape)


class MlpBlock(nn.Module):
    hidden_dim: int

    @nn.compact
    def __call__(self, tokens):
        hidden = nn.Dense(self.hidden_dim, name="Dense_0")(tokens)
        return nn.Dense(tokens.shape[-1], name="Dense_1")(nn.gelu(hidden))


class EncoderBlock(nn.Module):
    num_heads: int
    hidden_dim: int

    @nn.compact
    def __call__(self, tokens):
        normed = nn.LayerNorm(name="LayerNorm_0")(tokens)
        attention = nn.MultiHeadDotProductAttention(
            self.num_heads, name="MultiHeadDotProductAttention_1"
        )
        tokens = tokens + attention(normed, normed)
        normed = nn.LayerNorm(name="LayerNorm_2")(tokens)
        return tokens + MlpBlock(self.hidden_dim, name="MlpBlock_3")(normed)


class Encoder(nn.Module):
    depth: int
    num_heads: int
    hidden_dim: int

    @nn.compact
    def __call__(self, tokens):
        tokens = AddPositions(name="posembed_input")(tokens)
        for i in range(self.depth):
            block = EncoderBlock(
                self.num_heads, self.hidden_dim, name=f"encoderblock_{i}"
            )
            tokens = block(tokens)
        return nn.LayerNorm(name="encoder_norm")(tokens)


class FlaxViT(nn.Module):
    """Images are channels last; classifier "token" reads cls, "gap" has none."""

    patch_size: tuple[int, int]
    embed_dim: int
    depth: int
    num_heads: int
    hidden_dim: int
    num_classes: int
    representation_size: int | None = None
    classifier: str = "token"

    @nn.compact
    def __call__(self, images):
        embedding = nn.Conv(
            self.embed_dim, self.patch_size, self.patch_size, "VALID", name="embedding"
        )
        tokens = embedding(images)
        tokens = tokens.reshape(len(tokens), -1, self.embed_dim)
        if self.classifier == "token":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, self.embed_dim))
            cls = jnp.tile(cls, (len(tokens), 1, 1))
            tokens = jnp.concatenate([cls, tokens], axis=1)
        encoder = Encoder(
            self.depth, self.num_heads, self.hidden_dim, name="Transformer"
        )
        tokens = encoder(tokens)
        pooled = tokens[:, 0] if self.classifier == "token" else tokens.mean(axis=1)
        if self.representation_size is not None:
            dense = nn.Dense(self.representation_size, name="pre_logits")
            pooled = jnp.tanh(dense(pooled))
        return nn.Dense(self.num_classes, name="head")(pooled)


def named(params):
    """Return the parameters under the names of the released files."""
    return {
        name: np.asarray(value) for name, value in flatten_dict(params, sep="/").items()
    }


def write_npz(params, path):
    """Save them as the released files are: one array each, path-like names."""
    np.savez(path, **named(params))
