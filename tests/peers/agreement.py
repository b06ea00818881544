"""How far two models' logits are apart, and conversions that are nearly right."""

import torch
from einops import rearrange
from torch import nn

from vitlib import ViT

# Largest difference over largest logit. In double precision even a wrong eps, 1e-5
# for 1e-6, is far outside.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def gap(theirs, ours):
    """Return the largest difference, as a share of the largest logit."""
    assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
    assert torch.isfinite(theirs).all()
    # Logits that are tiny, huge or the same for both images compare nothing.
    assert 0.1 < theirs.abs().max() < 100
    assert (theirs[0] - theirs[1]).abs().max() > 0.03 * theirs.abs().max()
    return ((theirs - ours).abs().max() / theirs.abs().max()).item()


def fill(state, config):
    """Build our model around a converted state dict."""
    with torch.device("meta"):
        model = ViT(config)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


@torch.no_grad()
def ours(state, config, images):
    """Return our model's logits."""
    return fill(state, config)(images)


def assert_agree(theirs, state, config, images):
    found = gap(theirs, ours(state, config, images))
    assert found <= TOLERANCE[images.dtype], found


def assert_differ(theirs, state, config, images, at_least=1e-2):
    """A wrong state dict loads all the same, and its logits tell."""
    found = gap(theirs, ours(state, config, images))
    assert found >= at_least, found


def draw_images(config, dtype=torch.float32):
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    shape = (2, config.in_channels, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def redraw(model, scale=0.03):
    """Give memory and random weights to a model built on the meta device."""
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight += 1
    return model.eval()


def assert_norms_and_gelus(theirs, config, gelus=None):
    """Their eps and GELU are what our model has; logits in single do not tell.

    `gelus` says of a class of theirs which form it computes.
    """
    forms = {
        gelus[type(m)] if type(m) in (gelus or {}) else m.approximate
        for m in theirs.modules()
        if isinstance(m, (nn.GELU, *(gelus or {})))
    }
    assert forms == {{"erf": "none", "tanh": "tanh"}[config.gelu]}
    assert epsilons_of(theirs) == {config.norm_eps}
    with torch.device("meta"):
        assert epsilons_of(ViT(config)) == {config.norm_eps}


def epsilons_of(model):
    return {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)}


# ---- nearly right: each takes a right state dict and returns a wrong one ----------


def change(state, part, rewrite):
    """Rewrite every tensor whose name holds `part`."""
    changed = {
        name: rewrite(tensor) if part in name else tensor
        for name, tensor in state.items()
    }
    return {name: tensor.contiguous() for name, tensor in changed.items()}


def swap_q_and_k(state, config):
    return change(
        state,
        "attn.qkv",
        lambda rows: rearrange(rows, "(three hd) ... -> three hd ...", three=3)[
            [1, 0, 2]
        ].flatten(0, 1),
    )


def qkv_rows_as(axes):
    """The three matrices' rows stand in another order, say "(h three d)"."""

    def wrong(state, config):
        return change(
            state,
            "attn.qkv",
            lambda rows: rearrange(
                rows, f"(three h d) ... -> {axes} ...", three=3, h=config.num_heads
            ),
        )

    wrong.__name__ = f"qkv_rows_as_{axes}"
    return wrong


def colour_last(state, config):
    """The kernel's values are read as (p1 p2 c)."""
    return change(
        state,
        "patch_embed.proj.weight",
        lambda kernel: kernel.permute(0, 2, 3, 1).reshape(kernel.shape),
    )


def patches_on_their_side(state, config):
    return change(state, "patch_embed.proj.weight", lambda w: w.transpose(2, 3))


def columns_before_rows(state, config):
    """The positions of the patches are laid out column by column."""
    rows, cols = config.grid_size

    def rewrite(positions):
        grid = rearrange(positions[:, 1:], "b (r c) e -> b (c r) e", r=rows, c=cols)
        return torch.cat([positions[:, :1], grid], dim=1)

    return change(state, "pos_embed", rewrite)


def class_position_last(state, config):
    return change(state, "pos_embed", lambda positions: positions.roll(-1, dims=1))


def transposed(part):
    """A square matrix is not turned from (in, out) to (out, in)."""

    def wrong(state, config):
        return change(state, f"{part}.weight", lambda weight: weight.T)

    wrong.__name__ = f"transposed_{part}"
    return wrong


def heads_out_of_order(state, config):
    """The columns of proj are laid out (d h)."""
    return change(
        state,
        "attn.proj.weight",
        lambda w: rearrange(w, "e (h d) -> e (d h)", h=config.num_heads),
    )


def swap_norms(state, config):
    def other(name):
        if ".norm1." in name:
            return name.replace(".norm1.", ".norm2.")
        return name.replace(".norm2.", ".norm1.")

    return {name: state[other(name)] for name in state}


def without_qkv_bias(state, config):
    return change(state, "attn.qkv.bias", torch.zeros_like)
