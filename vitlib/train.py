"""The plain training loop."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlib.arguments import (
    require_float,
    require_number,
    require_tensor,
    require_whole,
)


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
) -> list[float]:
    """Train with AdamW: a tenth of the steps to warm up, then a cosine to zero.

    Args:
        model: Maps images to class scores; trained in place, left in eval mode.
        images: Training images.
        labels: Their classes.
        steps: Number of batches.
        batch_size: Images a batch, drawn anew and without repeats each time.
        lr: The learning rate that warm-up and cosine multiply; its peak is a little
            lower.
        weight_decay: AdamW's.
        seed: Of the batches.
    Shape:
        images (N, c, H, W), labels (N)
    Returns:
        The loss of every step.
    Raises:
        ValueError: images and labels do not match, or an argument is out of range.
    Reference:
        Loshchilov & Hutter 2019; warm-up and cosine as in Dosovitskiy et al.
        2021, appendix B.1. Chapters 02 and 03.
    """
    _require_data(model, images, labels)
    _require_recipe(steps, batch_size, lr, weight_decay, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    warmup = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1e-3, total_iters=max(steps // 10, 1)
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    losses = []
    model.train()
    for _ in range(steps):
        batch = torch.randperm(len(images), generator=generator)[:batch_size]
        scores = model(images[batch])  # (batch_size, classes)
        _require_classes(scores, labels)
        loss = F.cross_entropy(scores, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
        cosine.step()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose highest score is their class.

    Args:
        model: Maps images to class scores; left in the mode it came in.
        images: Images to classify.
        labels: Their classes.
    Shape:
        images (N, c, H, W), labels (N)
    Returns:
        Accuracy in [0, 1].
    Raises:
        ValueError: images and labels do not match.
    Reference:
        Chapter 02.
    """
    _require_data(model, images, labels)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    scores = torch.cat([model(batch) for batch in images.split(512)])  # (N, classes)
    for module, mode in modes.items():
        module.training = mode
    _require_classes(scores, labels)
    return (scores.argmax(dim=1) == labels).float().mean().item()


def _require_recipe(
    steps: int, batch_size: int, lr: float, weight_decay: float, seed: int
) -> None:
    require_whole("steps", steps)
    require_whole("batch_size", batch_size)
    require_number("lr", lr)
    if weight_decay != 0:
        require_number("weight_decay", weight_decay)
    require_whole("seed", seed, at_least=0)


def _require_classes(scores: Tensor, labels: Tensor) -> None:
    if labels.max() >= scores.shape[1]:
        raise ValueError(
            f"a label is {labels.max()}, the model scores {scores.shape[1]} classes: "
            f"build it with num_classes={labels.max() + 1} or more"
        )


def _require_data(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: give a torch.nn.Module")
    require_tensor("images", images, "N c H W")
    require_float("images", images)
    require_tensor("labels", labels, "N")
    if not 0 < len(images) == len(labels):
        raise ValueError(
            f"{len(images)} images and {len(labels)} labels arrived: give one label "
            "for each of at least one image"
        )
    if labels.dtype != torch.int64:
        raise ValueError(f"labels is {labels.dtype}: give torch.int64, labels.long()")
    if labels.min() < 0:
        raise ValueError(f"a label is {labels.min()}: give classes counted from 0")
