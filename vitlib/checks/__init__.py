"""Checks of your own functions: what is wrong, and where to look.

    from vitlib import checks
    checks.patches.split_patches(my_function)

Each module is named like a chapter, each check like the library's function or class. A
check prints what it found and returns a `Verdict`, true if the answer is right.
"""

from vitlib.checks import (
    attention,
    capstone,
    cls_token,
    encoder,
    interpret,
    mlp,
    multi_head,
    patches,
    positions,
    resolution,
    vit,
    vit_vs_cnn,
)

__all__ = [
    "attention",
    "capstone",
    "cls_token",
    "encoder",
    "interpret",
    "mlp",
    "multi_head",
    "patches",
    "positions",
    "resolution",
    "vit",
    "vit_vs_cnn",
]
