"""Right and wrong answers to everything that has a check, chapter by chapter."""

from mutants import (  # noqa: F401
    attention,
    cls_token,
    encoder,
    mlp,
    multi_head,
    patches,
    positions,
    vit,
)
from mutants.answers import ANSWERS

__all__ = ["ANSWERS"]
