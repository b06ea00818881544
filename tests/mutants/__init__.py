"""Right and wrong answers to everything that has a check, chapter by chapter."""

from mutants import (  # noqa: F401
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
from mutants.answers import ANSWERS

__all__ = ["ANSWERS"]
