"""Two training loops: the plain one, and one for long runs that can be killed.

`fit` is what most chapters use. `train` adds augmentation, soft targets, checkpoints
and more; `python -m vitlib.train --help` is its command line.
"""

import copy
import dataclasses
import math
import os
import zlib
from pathlib import Path
from typing import TextIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlib.arguments import (
    require_choice,
    require_float,
    require_number,
    require_rate,
    require_tensor,
    require_whole,
)
from vitlib.augment import cutmix, flip, mixup, pad_crop, rand_augment
from vitlib.runs import Progress, TrainState, write_metrics

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.csv"


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


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train; every default is a fair start.

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step.
        lr: Highest learning rate, at the end of the warm-up.
        warmup: Share of the steps in which the rate rises to lr; then it falls to 0
            along a cosine.
        weight_decay: AdamW's, for matrices only: not for biases, norms, class token
            and positions.
        label_smoothing: Share of every target that is spread over all classes.
        clip: Longest gradient; a longer one is shortened to it.
        flip: Whether to mirror half of the images left to right.
        crop: Largest shift of an image, as a share of its height; 0 for none.
        rand_ops: Random operations an image, such as turning or darkening it.
        rand_magnitude: How strong these may be, up to 1.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none. With mixup as well, every batch draws one
            of the two.
        ema: Share of itself that a moving average of the weights keeps at each step,
            0.999 for example; the average is then the result. 0 for none.
        bf16: Whether to multiply matrices in bfloat16.
        device: "auto" (cuda, else mps, else cpu), or one of these.
        seed: Of order, augmentation and dropout.
        save_every: Steps between two checkpoints; another one follows each epoch.
    Raises:
        ValueError: a value is out of range.
    Reference:
        Loshchilov & Hutter 2019; Steiner et al. 2022. Chapter 10.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip: float = 1.0
    flip: bool = True
    crop: float = 0.1
    rand_ops: int = 0
    rand_magnitude: float = 0.3
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    bf16: bool = False
    device: str = "auto"
    seed: int = 0
    save_every: int = 500

    def __post_init__(self):
        """Refuse what no training can run with."""
        for name in ("epochs", "batch_size", "save_every"):
            require_whole(name, getattr(self, name))
        for name in ("rand_ops", "seed"):
            require_whole(name, getattr(self, name), at_least=0)
        for name in ("lr", "clip", "rand_magnitude"):
            require_number(name, getattr(self, name))
        for name in ("weight_decay", "mixup", "cutmix"):
            if getattr(self, name) != 0:
                require_number(name, getattr(self, name))
        for name in ("warmup", "label_smoothing", "crop", "ema"):
            require_rate(name, getattr(self, name))
        for name in ("flip", "bf16"):
            require_choice(name, getattr(self, name), (False, True))
        require_choice("device", self.device, ("auto", "cuda", "mps", "cpu"))
        if self.rand_magnitude > 1:
            raise ValueError(
                f"rand_magnitude is {self.rand_magnitude}: give a number in (0, 1]"
            )


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    held_out: tuple[Tensor, Tensor] | None = None,
    config: TrainConfig = TrainConfig(),
    folder: str | os.PathLike | None = None,
    log: TextIO | None = None,
) -> list[dict[str, float]]:
    """Train for many epochs, and go on after any interruption as if there were none.

    The model sees pixels as `normalise` makes them, between -1 and 1. With a folder,
    checkpoint.pt is replaced there as the training goes, and metrics.csv after every
    epoch. Called again with the same arguments, the training goes on from there: on
    one machine with one number of threads to the same bits.

    Args:
        model: Maps images to class scores; trained in place, left in eval mode.
        images: Training images in [0, 1].
        labels: Their classes.
        held_out: Images and labels to evaluate on after every epoch, not trained on.
        config: The recipe.
        folder: Where the training is kept; None to keep nothing.
        log: Where to tell the progress, such as sys.stdout; None for nowhere.
    Shape:
        images (N, c, H, W), labels (N)
    Returns:
        A row for each epoch: epoch, step, lr, train_loss, held_out_accuracy.
    Raises:
        ValueError: images and labels do not match, the folder holds another training,
            the device is missing, or the loss is no longer finite.
        OSError: the folder cannot be written.
    Reference:
        Dosovitskiy et al. 2021, appendix B.1. Chapter 10.
    """
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config is a {type(config).__name__}: give a TrainConfig")
    for data in ((images, labels), *([held_out] if held_out else [])):
        _require_data(model, *data)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    model.to(device)
    images, labels = images.to(device), labels.to(device)
    if held_out:
        held_out = normalise(held_out[0].to(device)), held_out[1].to(device)
    num_classes = _count_classes(model, images, labels)

    average = copy.deepcopy(model).eval() if config.ema else None
    state = TrainState(model, _optimizer(model, config), average, config.seed)
    epoch_steps = math.ceil(len(images) / config.batch_size)
    last_step = config.epochs * epoch_steps
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = _settings(model, images, labels, config)
        if (folder / CHECKPOINT).exists():
            state.load(folder / CHECKPOINT, settings)
    progress = Progress(log, last_step, done=state.step)
    if state.step:
        progress.line(f"going on after step {state.step:,} of {last_step:,}")

    model.train()
    while state.step < last_step:
        at = state.step % epoch_steps
        if at == 0:
            state.order = torch.randperm(len(images), generator=state.generator)
            state.loss_sum = 0.0
        batch = state.order[at * config.batch_size :][: config.batch_size].to(device)
        inputs, targets = _augment(
            images[batch], labels[batch], num_classes, config, state.generator
        )
        lr = learning_rate(state.step, last_step, config)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            scores = model(inputs)  # (b, classes)
        loss = F.cross_entropy(
            scores.float(), targets, label_smoothing=config.label_smoothing
        )
        state.optimizer.zero_grad()
        loss.backward()
        length = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        _require_finite(loss, length, state.step, lr)
        state.optimizer.step()
        state.step += 1
        if average is not None:
            _follow(average, model, config.ema, state.step)

        state.loss_sum += loss.item()
        progress.update(state.step, f"loss {state.loss_sum / (at + 1):.3f}")
        epoch_ends = at + 1 == epoch_steps
        if epoch_ends:
            state.history.append(_row(state, epoch_steps, lr, held_out))
            progress.line(_as_text(state.history[-1], config.epochs))
        if folder is not None and (epoch_ends or state.step % config.save_every == 0):
            state.save(folder / CHECKPOINT, settings)
            if state.history:
                write_metrics(state.history, folder / METRICS)
    if average is not None:
        model.load_state_dict(average.state_dict())
    model.eval()
    return state.history


def choose_device(name: str = "auto") -> torch.device:
    """Pick the processor to train on.

    Args:
        name: "auto" for cuda, else mps, else cpu; or one of these.
    Returns:
        The device.
    Raises:
        ValueError: PyTorch does not find it.
    Reference:
        Chapter 10.
    """
    require_choice("device", name, ("auto", "cuda", "mps", "cpu"))
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind in found if found[kind])
    if not found[name]:
        raise ValueError(
            f"device is {name!r}, but PyTorch finds none: give 'auto' or 'cpu', or "
            "install a PyTorch that was built for it"
        )
    return torch.device(name)


def learning_rate(step: int, last_step: int, config: TrainConfig) -> float:
    """Return the rate of a step: a line up to config.lr, then a cosine down to 0.

    Args:
        step: Counted from 0.
        last_step: Number of steps.
        config: The recipe.
    Returns:
        The learning rate.
    Reference:
        Loshchilov & Hutter 2017; Dosovitskiy et al. 2021, appendix B.1. Chapter 10.
    """
    rise = math.ceil(config.warmup * last_step)
    if step < rise:
        return config.lr * (step + 1) / rise
    return (
        config.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / (last_step - rise)))
    )


def normalise(images: Tensor) -> Tensor:
    """Move pixels from [0, 1] to [-1, 1], as `vitlib.predict.preprocess` does.

    Args:
        images: Pixels.
    Returns:
        (images - 0.5) / 0.5
    Reference:
        Chapter 10.
    """
    return (images - 0.5) / 0.5


def hold_out(labels: Tensor, share: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split into images to train on and images to choose a recipe by.

    The same share of every class is held out, rounded, but at least one image of a
    class that has two.

    Args:
        labels: Classes.
        share: How much to hold out, in (0, 1).
        seed: Of the choice.
    Shape:
        labels (N)
    Returns:
        The numbers of the images to train on and of those held out, both rising.
    Raises:
        ValueError: share lies outside (0, 1).
    Reference:
        Chapter 10.
    """
    require_tensor("labels", labels, "N")
    require_number("share", share)
    if share >= 1:
        raise ValueError(f"share is {share}: give a share in (0, 1)")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        count = min(max(round(share * len(mine)), 1), len(mine) - 1)
        held[mine[torch.randperm(len(mine), generator=generator)[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that pulls matrices towards zero, and nothing else."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        token = name.endswith(("cls_token", "pos_embed"))
        (matrices if parameter.ndim > 1 and not token else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    # One kernel for all parameters, on every device that `choose_device` knows.
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def _augment(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    config: TrainConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Make the batch that the model sees, and the distributions it should answer."""
    if config.flip:
        images = flip(images, generator=generator)
    if config.crop:
        shift = round(config.crop * images.shape[2])
        images = pad_crop(images, shift, generator=generator)
    if config.rand_ops:
        images = rand_augment(
            images,
            num_ops=config.rand_ops,
            magnitude=config.rand_magnitude,
            generator=generator,
        )
    images = normalise(images)
    targets = F.one_hot(labels, num_classes).to(images.dtype)  # (b, classes)
    mixes = [
        (mix, a) for mix, a in ((mixup, config.mixup), (cutmix, config.cutmix)) if a
    ]
    if mixes:
        drawn = torch.randint(len(mixes), (), generator=generator)
        mix, alpha = mixes[drawn]
        images, targets = mix(images, targets, alpha, generator=generator)
    return images, targets


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, ema: float, step: int) -> None:
    """Move the average a little towards the model; faster in the first steps."""
    keep = min(ema, step / (step + 9))
    for mine, new in zip(average.parameters(), model.parameters(), strict=True):
        mine.lerp_(new, 1 - keep)
    for mine, new in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(new)


@torch.no_grad()
def _count_classes(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    model.eval()
    scores = model(normalise(images[:1]))  # (1, classes)
    _require_classes(scores, labels)
    return scores.shape[1]


def _settings(
    model: nn.Module, images: Tensor, labels: Tensor, config: TrainConfig
) -> dict:
    """Name all that must not change when a training goes on."""
    settings = dataclasses.asdict(config)
    # Free to change: neither enters the arithmetic.
    del settings["save_every"], settings["device"]
    shapes = [(name, list(v.shape)) for name, v in model.state_dict().items()]
    settings["model"] = f"{zlib.crc32(repr(shapes).encode()):08x}"
    settings["images"] = f"{zlib.crc32(images.cpu().numpy()):08x}"
    settings["labels"] = f"{zlib.crc32(labels.cpu().numpy()):08x}"
    return settings


def _row(
    state: TrainState,
    epoch_steps: int,
    lr: float,
    held_out: tuple[Tensor, Tensor] | None,
) -> dict[str, float]:
    row = {
        "epoch": state.step // epoch_steps,
        "step": state.step,
        "lr": lr,
        "train_loss": state.loss_sum / epoch_steps,
    }
    if held_out:
        row["held_out_accuracy"] = evaluate(state.average or state.model, *held_out)
    return row


def _as_text(row: dict[str, float], epochs: int) -> str:
    text = f"epoch {row['epoch']} of {epochs}: loss {row['train_loss']:.4f}"
    if "held_out_accuracy" in row:
        text += f", held out {100 * row['held_out_accuracy']:.2f} % correct"
    return text


def _require_finite(loss: Tensor, length: Tensor, step: int, lr: float) -> None:
    if not (math.isfinite(loss.item()) and math.isfinite(length.item())):
        raise ValueError(
            f"at step {step} the loss is {loss.item()} and its gradient has length "
            f"{length.item()}, at learning rate {lr:.3g}: lower lr or clip, warm up "
            "longer, or look for NaN in the images; the last checkpoint is intact"
        )


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
