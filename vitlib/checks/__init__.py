"""Checks of your own functions: what is wrong, and where to look.

    from vitlib import checks
    checks.patches.split_patches(my_function)

Each module is named like a chapter, each check like the library's function or class. A
check prints what it found and returns a `Verdict`, true if the answer is right. `score`
says how far a guess was from the answer.
"""

from vitlib.checks import (
    attention,
    capstone,
    checkpoints,
    cls_token,
    encoder,
    interpret,
    mlp,
    multi_head,
    patches,
    positions,
    resolution,
    train,
    transfer,
    vit,
    vit_vs_cnn,
)
from vitlib.checks.guessing import score

__all__ = [
    "attention",
    "capstone",
    "checkpoints",
    "cls_token",
    "encoder",
    "interpret",
    "mlp",
    "multi_head",
    "patches",
    "positions",
    "resolution",
    "score",
    "train",
    "transfer",
    "vit",
    "vit_vs_cnn",
]
