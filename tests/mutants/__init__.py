"""Right and wrong answers to everything that has a check, chapter by chapter."""

from mutants import (  # noqa: F401
    attention,
    checkpoints,
    cls_token,
    encoder,
    mlp,
    multi_head,
    patches,
    positions,
    train,
    transfer,
    vit,
)
from mutants.answers import ANSWERS

__all__ = ["ANSWERS"]
