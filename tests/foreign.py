"""State dicts as other libraries write them, made from ours by hand.

Nothing here looks at `vitlib.dialects`: names are written out and axes are moved with
plain torch, in the direction that the library never takes.
"""

import torch
from torch import nn

from vitlib import ViT, ViTConfig

BASE = {
    "image_size": 6, "patch_size": 2, "in_channels": 3, "num_classes": 7,
    "embed_dim": 12, "depth": 2, "num_heads": 4, "mlp_ratio": 20 / 12,
}  # fmt: skip

# Every form of every source, and a config that it can have.
FORMS = {
    "timm": ("timm", {}),
    "timm, pooled": ("timm", {"pool": "mean"}),
    "torchvision": ("torchvision", {}),
    "torchvision, files": ("torchvision", {}),
    "transformers": ("transformers", {"norm_eps": 1e-12}),
    "transformers, files": ("transformers", {"norm_eps": 1e-12}),
    "vit-pytorch": (
        "vit-pytorch",
        {"norm_eps": 1e-5, "qkv_bias": False, "patch_norm": True, "head_dim": 5},
    ),
    "vit-pytorch, old": (
        "vit-pytorch",
        {"norm_eps": 1e-5, "qkv_bias": False, "head_dim": 5, "pool": "mean_all"},
    ),
    "jax": ("jax", {"gelu": "tanh"}),
    "zuppichini": ("zuppichini", {"norm_eps": 1e-5, "pool": "mean_all"}),
}


def source_of(form):
    return FORMS[form][0]


def config_of(form, **changes):
    return ViTConfig(**BASE | FORMS[form][1] | changes)


def told_of(form, **changes):
    """Return what the shapes of this form do not say."""
    config = config_of(form, **changes)
    told = {
        "num_heads": config.num_heads,
        "norm_eps": config.norm_eps,
        "gelu": config.gelu,
        "pool": config.pool,
    }
    known = {
        "timm": set(),
        "torchvision": {"gelu", "pool"},
        "transformers": {"pool"},
        "vit-pytorch": {"norm_eps", "gelu", "pool"},
        "jax": {"num_heads", "norm_eps", "gelu", "pool"},
        "zuppichini": {"norm_eps", "gelu", "pool"},
    }[source_of(form)]
    if form == "vit-pytorch, old":
        known = {"norm_eps", "gelu"}
    return {name: value for name, value in told.items() if name not in known}


def draw_state(config):
    """Return a state dict of ours in which every number is another one."""
    with torch.device("meta"):
        shapes = {name: v.shape for name, v in ViT(config).state_dict().items()}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def fill(state, config):
    with torch.device("meta"):
        model = ViT(config)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def copy(theirs, name, to, ours):
    """Copy weight and bias under another name; a missing bias stays missing."""
    for p in ("weight", "bias"):
        if f"{name}.{p}" in ours:
            theirs[to + p if to.endswith("_") else f"{to}.{p}"] = ours[f"{name}.{p}"]


def write(form, ours, config):
    """Write `ours`, a state dict of a ViT(config), as this form would hold it."""
    return _WRITERS[form](ours, config)


def _timm(ours, config, last="norm"):
    theirs = {}
    for name, value in ours.items():
        first, dot, rest = name.partition(".")
        theirs[(last if first == "norm" else first) + dot + rest] = value
    return theirs


def _torchvision(ours, config, mlp=("mlp.0", "mlp.3")):
    theirs = {
        "class_token": ours["cls_token"],
        "encoder.pos_embedding": ours["pos_embed"],
    }
    copy(theirs, "patch_embed.proj", "conv_proj", ours)
    for i in range(config.depth):
        to = f"encoder.layers.encoder_layer_{i}"
        block = f"blocks.{i}"
        copy(theirs, f"{block}.norm1", f"{to}.ln_1", ours)
        copy(theirs, f"{block}.attn.qkv", f"{to}.self_attention.in_proj_", ours)
        copy(theirs, f"{block}.attn.proj", f"{to}.self_attention.out_proj", ours)
        copy(theirs, f"{block}.norm2", f"{to}.ln_2", ours)
        copy(theirs, f"{block}.mlp.fc1", f"{to}.{mlp[0]}", ours)
        copy(theirs, f"{block}.mlp.fc2", f"{to}.{mlp[1]}", ours)
    copy(theirs, "norm", "encoder.ln", ours)
    copy(theirs, "head", "heads.head", ours)
    return theirs


def _transformers(ours, config, files=False):
    names = {
        False: (
            "vit.layers.{}",
            [f"attention.{letter}_proj" for letter in "qkv"],
            ("attention.o_proj", "mlp.fc1", "mlp.fc2"),
        ),
        True: (
            "vit.encoder.layer.{}",
            [f"attention.attention.{word}" for word in ("query", "key", "value")],
            ("attention.output.dense", "intermediate.dense", "output.dense"),
        ),
    }
    layer, qkv, others = names[files]
    theirs = {
        "vit.embeddings.cls_token": ours["cls_token"],
        "vit.embeddings.position_embeddings": ours["pos_embed"],
        # They touch no score.
        "vit.embeddings.mask_token": torch.randn(1, 1, config.embed_dim),
        "vit.pooler.dense.weight": torch.randn(config.embed_dim, config.embed_dim),
        "vit.pooler.dense.bias": torch.randn(config.embed_dim),
    }
    copy(theirs, "patch_embed.proj", "vit.embeddings.patch_embeddings.projection", ours)
    for i in range(config.depth):
        to, block = layer.format(i), f"blocks.{i}"
        copy(theirs, f"{block}.norm1", f"{to}.layernorm_before", ours)
        for p in ("weight", "bias"):
            if f"{block}.attn.qkv.{p}" in ours:
                thirds = ours[f"{block}.attn.qkv.{p}"].chunk(3)
                for name, third in zip(qkv, thirds, strict=True):
                    theirs[f"{to}.{name}.{p}"] = third
        copy(theirs, f"{block}.attn.proj", f"{to}.{others[0]}", ours)
        copy(theirs, f"{block}.norm2", f"{to}.layernorm_after", ours)
        copy(theirs, f"{block}.mlp.fc1", f"{to}.{others[1]}", ours)
        copy(theirs, f"{block}.mlp.fc2", f"{to}.{others[2]}", ours)
    copy(theirs, "norm", "vit.layernorm", ours)
    copy(theirs, "head", "classifier", ours)
    return theirs


def _colour_last(pixels, config):
    """Turn a last axis laid out (c p1 p2) into (p1 p2 c)."""
    size = config.patch_size
    p1, p2 = (size, size) if isinstance(size, int) else size
    split = pixels.unflatten(-1, (config.in_channels, p1, p2))
    return split.movedim(-3, -1).flatten(-3)


def _vit_pytorch(ours, config):
    flat = ours["patch_embed.proj.weight"].flatten(1)
    theirs = {
        "pos_embedding": ours["pos_embed"][0],
        "cls_token": ours["cls_token"][0],
        "to_patch_embedding.2.weight": _colour_last(flat, config),
        "to_patch_embedding.2.bias": ours["patch_embed.proj.bias"],
    }
    for p in ("weight", "bias"):
        theirs[f"to_patch_embedding.1.{p}"] = _colour_last(
            ours[f"patch_embed.pixel_norm.{p}"], config
        )
    copy(theirs, "patch_embed.norm", "to_patch_embedding.3", ours)
    for i in range(config.depth):
        to, block = f"transformer.layers.{i}", f"blocks.{i}"
        copy(theirs, f"{block}.norm1", f"{to}.0.norm", ours)
        copy(theirs, f"{block}.attn.qkv", f"{to}.0.to_qkv", ours)
        copy(theirs, f"{block}.attn.proj", f"{to}.0.to_out.0", ours)
        copy(theirs, f"{block}.norm2", f"{to}.1.net.0", ours)
        copy(theirs, f"{block}.mlp.fc1", f"{to}.1.net.1", ours)
        copy(theirs, f"{block}.mlp.fc2", f"{to}.1.net.4", ours)
    copy(theirs, "norm", "transformer.norm", ours)
    copy(theirs, "head", "mlp_head", ours)
    return theirs


def _vit_pytorch_old(ours, config):
    flat = ours["patch_embed.proj.weight"].flatten(1)
    theirs = {
        "pos_embedding": ours["pos_embed"],
        "cls_token": ours["cls_token"],
        "to_patch_embedding.1.weight": _colour_last(flat, config),
        "to_patch_embedding.1.bias": ours["patch_embed.proj.bias"],
    }
    for i in range(config.depth):
        to, block = f"transformer.layers.{i}", f"blocks.{i}"
        copy(theirs, f"{block}.norm1", f"{to}.0.norm", ours)
        copy(theirs, f"{block}.attn.qkv", f"{to}.0.fn.to_qkv", ours)
        copy(theirs, f"{block}.attn.proj", f"{to}.0.fn.to_out.0", ours)
        copy(theirs, f"{block}.norm2", f"{to}.1.norm", ours)
        copy(theirs, f"{block}.mlp.fc1", f"{to}.1.fn.net.0", ours)
        copy(theirs, f"{block}.mlp.fc2", f"{to}.1.fn.net.3", ours)
    copy(theirs, "norm", "mlp_head.0", ours)
    copy(theirs, "head", "mlp_head.1", ours)
    return theirs


def _jax(ours, config):
    e, h = config.embed_dim, config.num_heads
    d = config.head_dim or e // h
    theirs = {
        "cls": ours["cls_token"],
        "Transformer/posembed_input/pos_embedding": ours["pos_embed"],
        "embedding/kernel": ours["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": ours["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": ours["norm.weight"],
        "Transformer/encoder_norm/bias": ours["norm.bias"],
        "head/kernel": ours["head.weight"].T,
        "head/bias": ours["head.bias"],
    }
    for i in range(config.depth):
        to, block = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        attention = f"{to}/MultiHeadDotProductAttention_1"
        for theirs_name, name in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            theirs[f"{to}/{theirs_name}/scale"] = ours[f"{block}.{name}.weight"]
            theirs[f"{to}/{theirs_name}/bias"] = ours[f"{block}.{name}.bias"]
        weights = ours[f"{block}.attn.qkv.weight"].chunk(3)
        biases = ours[f"{block}.attn.qkv.bias"].chunk(3)
        for word, weight, bias in zip(
            ("query", "key", "value"), weights, biases, strict=True
        ):
            theirs[f"{attention}/{word}/kernel"] = weight.T.reshape(e, h, d)
            theirs[f"{attention}/{word}/bias"] = bias.reshape(h, d)
        proj = ours[f"{block}.attn.proj.weight"]
        theirs[f"{attention}/out/kernel"] = proj.T.reshape(h, d, e)
        theirs[f"{attention}/out/bias"] = ours[f"{block}.attn.proj.bias"]
        for dense, name in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            layer = f"{to}/MlpBlock_3/{dense}"
            theirs[f"{layer}/kernel"] = ours[f"{block}.mlp.{name}.weight"].T
            theirs[f"{layer}/bias"] = ours[f"{block}.mlp.{name}.bias"]
    return {name: value.contiguous().numpy() for name, value in theirs.items()}


def _zuppichini(ours, config):
    theirs = {"0.cls_token": ours["cls_token"], "0.positions": ours["pos_embed"][0]}
    copy(theirs, "patch_embed.proj", "0.projection.0", ours)
    for i in range(config.depth):
        to, block = f"1.{i}", f"blocks.{i}"
        copy(theirs, f"{block}.norm1", f"{to}.0.fn.0", ours)
        for p in ("weight", "bias"):
            q, k, v = ours[f"{block}.attn.qkv.{p}"].chunk(3)
            # It divides scores by the root of e, not of e / h.
            q = q * config.num_heads**0.5
            rows = torch.stack([q, k, v], dim=1)  # (h d, three, ...)
            theirs[f"{to}.0.fn.1.qkv.{p}"] = rows.flatten(0, 1)
        copy(theirs, f"{block}.attn.proj", f"{to}.0.fn.1.projection", ours)
        copy(theirs, f"{block}.norm2", f"{to}.1.fn.0", ours)
        copy(theirs, f"{block}.mlp.fc1", f"{to}.1.fn.1.0", ours)
        copy(theirs, f"{block}.mlp.fc2", f"{to}.1.fn.1.3", ours)
    copy(theirs, "norm", "2.1", ours)
    copy(theirs, "head", "2.2", ours)
    return theirs


_WRITERS = {
    "timm": _timm,
    "timm, pooled": lambda ours, config: _timm(ours, config, "fc_norm"),
    "torchvision": _torchvision,
    "torchvision, files": lambda ours, config: _torchvision(
        ours, config, ("mlp.linear_1", "mlp.linear_2")
    ),
    "transformers": _transformers,
    "transformers, files": lambda ours, config: _transformers(ours, config, True),
    "vit-pytorch": _vit_pytorch,
    "vit-pytorch, old": _vit_pytorch_old,
    "jax": _jax,
    "zuppichini": _zuppichini,
}


def make_model(config=None):
    """Return a model of ours whose every parameter is random."""
    config = config or config_of("timm")
    model = ViT(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()
