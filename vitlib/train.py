"""Two training loops: the plain one, and one for long runs that can be killed.

`fit` is what most chapters use. `train` adds augmentation, soft targets, checkpoints
and more; `python -m vitlib.train --help` is its command line.
"""

import argparse
import copy
import dataclasses
import functools
import inspect
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from vitlib.augment import cutmix, flip, mixup, normalise, pad_crop, rand_augment
from vitlib.checkpoints import save_checkpoint
from vitlib.data import (
    CIFAR10_CLASSES,
    FASHION_CLASSES,
    FASHION_FILES,
    cifar10,
    digits,
    fashion_mnist,
    has_cifar10,
    hold_out,
    image_folder,
)
from vitlib.files import replace_whole
from vitlib.runs import (
    DEVICES,
    Progress,
    TrainState,
    alone_in,
    choose_device,
    settings_of,
    write_metrics,
)
from vitlib.vit import ViT, ViTConfig, count_parameters

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.csv"
# An epoch that ends is saved when the last checkpoint is as many seconds old.
SAVE_PAUSE = 30
# What a recipe that fails leaves behind.
WHAT_STAYS = (
    "What was saved before stays as it was; another recipe needs another folder (--out)"
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


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose highest score is their class.

    Args:
        model: Maps images to class scores; left in the mode it came in.
        images: Images to classify; they are moved to the model's device.
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
    return _accuracy(model, images, labels, 512)


@torch.no_grad()
def _accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int
) -> float:
    first = next(model.parameters(), images)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    batches = images.split(batch_size)
    scores = torch.cat([model(batch.to(first.device)) for batch in batches])
    for module, mode in modes.items():
        module.training = mode
    _require_classes(scores, labels)
    return (scores.argmax(dim=1) == labels.to(scores.device)).float().mean().item()


def _require_amount(name: str, value: float) -> None:
    if value != 0:
        try:
            require_number(name, value)
        except ValueError as error:
            raise ValueError(f"{error}, or 0 for none") from None


def _require_share(name: str, value: float, fair: str) -> None:
    try:
        require_rate(name, value)
    except ValueError:
        raise ValueError(
            f"{name} is {value}: give a share below 1, such as {fair}, or 0 for none"
        ) from None


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
        save_every: Steps between two checkpoints. There is one more at the end, and
            where an epoch ends half a minute or more after the last one.
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
            _require_amount(name, getattr(self, name))
        for name in ("warmup", "label_smoothing", "crop"):
            _require_share(name, getattr(self, name), "0.1")
        _require_share("ema", self.ema, "0.999")
        for name in ("flip", "bf16"):
            require_choice(name, getattr(self, name), (False, True))
        require_choice("device", self.device, DEVICES)
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
    checkpoint.pt and metrics.csv are replaced there as the training goes. Called again
    with the same arguments, the training goes on from there: on the same processor,
    with the same number of threads and the same version of PyTorch, to the same bits.
    A GPU adds in an order of its own, and may differ in the last digits. The numbers
    that the model starts with are not compared.

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
        For each epoch a row with epoch, step, lr, train_loss, and held_out_accuracy
        if images were held out.
    Raises:
        ValueError: images and labels do not match, a pixel lies outside [0, 1], the
            folder holds another training or one is running there, the device is
            missing or has too little memory, or loss or weights are no longer finite.
        OSError: the folder cannot be written.
    Reference:
        Dosovitskiy et al. 2021, appendix B.1. Chapter 10.
    """
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config is a {type(config).__name__}: give a TrainConfig")
    for data in ((images, labels), *([held_out] if held_out else [])):
        _require_data(model, *data)
        _require_pixels(data[0])
    if folder is None:
        return _train(model, images, labels, held_out, config, None, log)
    with alone_in(folder):
        return _train(model, images, labels, held_out, config, Path(folder), log)


def _train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    held_out: tuple[Tensor, Tensor] | None,
    config: TrainConfig,
    folder: Path | None,
    log: TextIO | None,
) -> list[dict[str, float]]:
    """Do what `train` says, with sound arguments and alone in the folder."""
    device = choose_device(config.device)
    with _enough_memory(device, config.batch_size):
        _seed_dropout(config.seed)
        model.to(device)
        images, labels = images.to(device), labels.to(device)
        if held_out:
            held_out = normalise(held_out[0].to(device)), held_out[1].to(device)
        num_classes = _count_classes(model, images, labels)
        average = copy.deepcopy(model).eval() if config.ema else None
        state = TrainState(model, _optimizer(model, config), average, config.seed)
        changes, save = [], None
        if folder is not None:
            settings = settings_of(model, images, labels, config, held_out)
            if (folder / CHECKPOINT).exists():
                changes = state.load(folder / CHECKPOINT, settings)
            save = functools.partial(_save, state, folder, settings)

        last_step = config.epochs * math.ceil(len(images) / config.batch_size)
        progress = Progress(log, last_step, done=state.step)
        _say_where(progress, state.step, last_step, changes)
        try:
            _loop(state, images, labels, num_classes, held_out, config, progress, save)
        except KeyboardInterrupt:
            _say_what_is_kept(progress, state)
            raise
    if average is not None:
        model.load_state_dict(average.state_dict())
    model.eval()
    return state.history


def _loop(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    held_out: tuple[Tensor, Tensor] | None,
    config: TrainConfig,
    progress: Progress,
    save: Callable[[], None] | None,
) -> None:
    """Go from the state's step to the last, wherever in an epoch that is."""
    epoch_steps = math.ceil(len(images) / config.batch_size)
    last_step = config.epochs * epoch_steps
    saved_at = time.monotonic()
    state.model.train()
    while state.step < last_step:
        at = state.step % epoch_steps
        if at == 0:
            state.order = torch.randperm(len(images), generator=state.generator)
            state.loss_sum = 0.0
        batch = state.order[at * config.batch_size :][: config.batch_size]
        batch = batch.to(images.device)
        lr = learning_rate(state.step, last_step, config)
        loss = _step(state, images[batch], labels[batch], num_classes, config, lr)
        # In batches, of which the last one of an epoch may be a part.
        state.loss_sum += loss * (len(batch) / config.batch_size)
        mean_loss = state.loss_sum / (at + len(batch) / config.batch_size)
        progress.update(state.step, f"loss {mean_loss:.3f}")

        epoch_ends = at + 1 == epoch_steps
        waited = epoch_ends and time.monotonic() - saved_at >= SAVE_PAUSE
        due = waited or state.step % config.save_every == 0 or state.step == last_step
        if epoch_ends:
            row = _row(state, lr, mean_loss, held_out, config)
            state.history.append(row)
            if _is_news(row["epoch"], config.epochs):
                progress.line(_as_text(row, config.epochs))
        if due:
            _require_finite_weights(state, lr)
            if save is not None:
                save()
            saved_at = time.monotonic()


def _step(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    config: TrainConfig,
    lr: float,
) -> float:
    """Take one step and return its loss."""
    images, targets = _augment(images, labels, num_classes, config, state.generator)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.bf16):
        scores = state.model(images)  # (b, classes)
    loss = F.cross_entropy(
        scores.float(), targets, label_smoothing=config.label_smoothing
    )
    state.optimizer.zero_grad()
    loss.backward()
    length = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
    _require_finite(loss, length, state.step, lr)
    state.optimizer.step()
    state.step += 1
    if state.average is not None:
        _follow(state.average, state.model, config.ema, state.step)
    return loss.item()


def _save(state: TrainState, folder: Path, settings: dict) -> None:
    if state.history:
        write_metrics(state.history, folder / METRICS)
    # Last of all: what comes before it is done again after a kill in between.
    state.save(folder / CHECKPOINT, settings)


def _seed_dropout(seed: int) -> None:
    """Seed PyTorch's global generator, but not to the stream of order and dice."""
    other = torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(other.item())


@contextmanager
def _enough_memory(device: torch.device, batch_size: int) -> Iterator[None]:
    """Say what to do where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # A GPU has a class for it; a processor only words, by the system's choice.
        words = re.search(r"(can't allocate|not enough|out of) memory", str(error))
        if not words and not isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            raise
        raise ValueError(
            f"the memory of {device} is too small for batch_size {batch_size}: give a "
            f"smaller one, or smaller images or a smaller model. {WHAT_STAYS}"
        ) from error


def _say_where(
    progress: Progress, step: int, last_step: int, changes: list[str]
) -> None:
    """Tell where a training goes on, and whether that gives the same bits."""
    if step == last_step:
        progress.line(
            f"going on after step {step:,} of {last_step:,}: this training is "
            "finished, nothing is left to do"
        )
    elif step:
        progress.line(f"going on after step {step:,} of {last_step:,}")
        if changes:
            progress.line(
                f"another machine than before ({'; '.join(changes)}): the result may "
                "differ in the last digits from one without a stop"
            )


def _say_what_is_kept(progress: Progress, state: TrainState) -> None:
    kept = (
        f"the checkpoint of step {state.saved_step:,}, and the same command goes on "
        "from it"
        if state.saved_step
        else "no checkpoint yet, and the same command begins anew"
    )
    progress.line(f"stopped after step {state.step:,}: there is {kept}")


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


def _row(
    state: TrainState,
    lr: float,
    mean_loss: float,
    held_out: tuple[Tensor, Tensor] | None,
    config: TrainConfig,
) -> dict[str, float]:
    row = {
        "epoch": len(state.history) + 1,
        "step": state.step,
        "lr": lr,
        "train_loss": mean_loss,
    }
    if held_out:
        averaged = state.model if state.average is None else state.average
        # Without gradients four times as many images fit into the memory.
        at_once = min(512, 4 * config.batch_size)
        row["held_out_accuracy"] = _accuracy(averaged, *held_out, at_once)
    return row


def _is_news(epoch: int, epochs: int) -> bool:
    """Thousands of epochs of a few photos need not say a line each."""
    return epoch % max(epochs // 50, 1) == 0 or epoch in (1, epochs)


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
            f"longer, or look for NaN in the images. {WHAT_STAYS}"
        )


def _require_finite_weights(state: TrainState, lr: float) -> None:
    """Refuse to save weights that a step from a finite gradient destroyed."""
    models = [state.model] if state.average is None else [state.model, state.average]
    if not all(p.isfinite().all() for model in models for p in model.parameters()):
        raise ValueError(
            f"after step {state.step} weights are NaN or infinite, at learning rate "
            f"{lr:.3g}: lower lr or weight_decay, or warm up longer. {WHAT_STAYS}"
        )


def _require_recipe(
    steps: int, batch_size: int, lr: float, weight_decay: float, seed: int
) -> None:
    require_whole("steps", steps)
    require_whole("batch_size", batch_size)
    require_number("lr", lr)
    _require_amount("weight_decay", weight_decay)
    require_whole("seed", seed, at_least=0)


def _require_classes(scores: Tensor, labels: Tensor) -> None:
    if labels.max() >= scores.shape[1]:
        raise ValueError(
            f"a label is {labels.max()}, the model scores {scores.shape[1]} classes: "
            f"build it with num_classes={labels.max() + 1} or more"
        )


def _require_pixels(images: Tensor) -> None:
    low, high = images.min().item(), images.max().item()
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"images run from {low:.4g} to {high:.4g}: give pixels in [0, 1]; train "
            "normalises them itself, after it has augmented them"
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


# The command line


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: What follows `python -m vitlib.train`; the shell's when not given.
    Returns:
        0; 1 after an error, which is printed; 130 when interrupted.
    Raises:
        SystemExit: the words make no sense, or ask for help.
    """
    options = _parser().parse_args(words)
    try:
        _run(options)
    except (ValueError, TypeError, OSError) as error:
        named = isinstance(error, OSError) and error.filename
        text = f"{error.filename}: {error.strerror}" if named else error
        print(f"error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # What is kept, if a training had begun, was said by it.
        print("\ninterrupted")
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    """Load the data, train, and leave everything that came of it in one folder."""
    require_whole("batch_size", options.batch_size)
    if not 0 < options.held_out < 1:
        raise ValueError(
            f"held_out is {options.held_out}: give a share in (0, 1), such as 0.1"
        )
    data = Path(options.data).resolve()
    out = options.out or Path("runs") / (data.name or "data")
    if data.is_dir() and out.resolve().is_relative_to(data):
        raise ValueError(
            f"{str(out)!r} lies inside the data, and would be read as a class the next "
            "time: give --out a folder elsewhere"
        )
    images, labels, classes = _load(options.data, options.image_size)
    kept, held = hold_out(labels, options.held_out, seed=options.seed)
    # A handful of photos makes an epoch of a step or two, and needs many of them.
    few = math.ceil(LEAST_STEPS / math.ceil(len(kept) / options.batch_size))
    epochs = max(20, few) if options.epochs is None else options.epochs
    config = _picked(TrainConfig, options, epochs=epochs)
    model_config = _picked(
        ViTConfig,
        options,
        image_size=images.shape[2],
        patch_size=_fair_patch_size(images.shape[2])
        if options.patch_size is None
        else options.patch_size,
        in_channels=images.shape[1],
        num_classes=len(classes),
    )
    torch.manual_seed(config.seed)
    model = ViT(model_config)
    print(
        f"{len(kept):,} images to train on and {len(held):,} held out, {len(classes)} "
        f"classes; a ViT of {count_parameters(model_config):,} parameters with patches "
        f"of {model_config.patch_size} pixels on {choose_device(config.device)}\n"
        f"images of each class: {_class_sizes(labels, classes)}",
        flush=True,
    )
    held_out = None
    if len(held):
        held_out = images[held], labels[held]
        baseline = _baseline(labels[held], classes)
        print(f"to beat on those held out: {baseline}", flush=True)
    with alone_in(out):
        # At once, and not after hours, if it cannot be done. What another training
        # left stays until this one has shown that it is the same.
        if not (out / CHECKPOINT).exists():
            _write_classes(classes, out)
        history = _train(
            model, images[kept], labels[kept], held_out, config, out, sys.stdout
        )
        _write_classes(classes, out)
        save_checkpoint(model, out / "weights.safetensors")
        curve = _draw_curve(history, out / "curve.png")
    if held_out:
        accuracy = 100 * history[-1]["held_out_accuracy"]
        print(f"held out: {accuracy:.2f} % correct, against {baseline}")
    print(f"weights: {out / 'weights.safetensors'}\nmetrics: {out / METRICS}")
    print(f"curve: {curve}")


def _class_sizes(labels: Tensor, classes: list[str]) -> str:
    """Say in one line how many images each class has."""
    counts = labels.bincount(minlength=len(classes)).tolist()
    if min(counts) == max(counts):
        return f"{counts[0]:,}"
    pairs = list(zip(counts, classes, strict=True))
    if len(pairs) <= 10:
        return ", ".join(f"{name} ({count:,})" for count, name in pairs)
    (few, rarest), (many, commonest) = min(pairs), max(pairs)
    return f"fewest {rarest} ({few:,}), most {commonest} ({many:,})"


def _baseline(labels: Tensor, classes: list[str]) -> str:
    """Say how often the most frequent class is the right answer."""
    counts = labels.bincount()
    share = 100 * counts.max().item() / len(labels)
    return f"{share:.2f} % by always answering {classes[counts.argmax()]!r}"


def _write_classes(classes: list[str], out: Path) -> None:
    with replace_whole(out / "classes.txt") as partial:
        partial.write_text("".join(f"{name}\n" for name in classes), "utf-8")


def _draw_curve(history: list[dict[str, float]], path: Path) -> str:
    """Draw a training's curve and say where, or why not."""
    try:
        from vitlib.plots import plot_history, save_plot
    except ImportError:
        return "not drawn, for want of matplotlib"
    save_plot(path, lambda ax: plot_history(ax, history))
    return str(path)


# Steps of a training whose number of epochs is not given, at least.
LEAST_STEPS = 1000
# What the command line lets one choose of a ViT, and its defaults: small, for small
# images and a processor without a GPU.
MODEL_OPTIONS = {
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 4,
    "mlp_ratio": 2.0,
    "drop_rate": 0.0,
    "drop_path_rate": 0.1,
    "pool": "mean",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vitlib.train",
        usage="%(prog)s --data DATA [options]",
        description="Train a ViT and keep it in a folder. The same command goes on "
        "with a training that was stopped, in whatever way.",
        epilog="Photos of your own: make a folder with one subfolder for each class "
        "and put the photos into them; then python -m vitlib.train --data my_photos. "
        "What has a left and a right, such as digits, wants --no-flip.",
    )
    add = parser.add_argument
    add(
        "--data",
        required=True,
        help="digits; fashion_mnist, the part that ships; or a folder: your photos, or "
        "the official files of Fashion-MNIST or CIFAR-10",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="Where all that is written goes (default: runs/ and the name of the data)",
    )
    add(
        "--image-size",
        type=int,
        default=64,
        metavar="N",
        help="Side that your own photos are cut to, in pixels (default: 64)",
    )
    add(
        "--held-out",
        type=float,
        default=0.1,
        metavar="X",
        help="Share of the images held out, to measure by and not to train on "
        "(default: 0.1)",
    )
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--patch-size",
        type=int,
        metavar="N",
        help="Side of a square patch, in pixels (default: about an eighth of the "
        "image's)",
    )
    _add_options(model, ViTConfig, MODEL_OPTIONS)
    training = parser.add_argument_group("the training")
    training.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="Passes over the training images (default: 20, and more until these are "
        f"{LEAST_STEPS:,} steps)",
    )
    recipe = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    del recipe["epochs"]
    _add_options(training, TrainConfig, recipe)
    return parser


def _add_options(group, config: type, defaults: dict) -> None:
    """Make an option of each field; its help is what the docstring says of it."""
    doc = inspect.getdoc(config) or ""
    said = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", doc, re.M))
    for name, default in defaults.items():
        text = " ".join(said.get(name, "").split()).rstrip(".").replace("%", "%%")
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        else:
            metavar = {int: "N", float: "X", str: "NAME"}[type(default)]
            kind = {"type": type(default), "metavar": metavar}
        group.add_argument(
            f"--{name.replace('_', '-')}",
            default=default,
            help=f"{text} (default: {default})",
            **kind,
        )


def _picked(config: type, options: argparse.Namespace, **more: object):
    """Build a config from the options that are named like its fields."""
    names = {field.name for field in dataclasses.fields(config)}
    return config(**{k: v for k, v in vars(options).items() if k in names} | more)


def _load(data: str, image_size: int) -> tuple[Tensor, Tensor, list[str]]:
    """Find out what `data` names, and load the part to train on."""
    if data == "digits":
        return *digits(), [str(digit) for digit in range(10)]
    if data == "fashion_mnist":
        return *fashion_mnist(), list(FASHION_CLASSES)
    if any((Path(data) / name).exists() for name in FASHION_FILES):
        return *fashion_mnist("train", data), list(FASHION_CLASSES)
    if has_cifar10(data):
        return *cifar10(data), list(CIFAR10_CLASSES)
    if not Path(data).is_dir():
        raise ValueError(
            f"{data!r} is neither digits, fashion_mnist nor a folder; to fetch "
            "CIFAR-10: python -m vitlib.downloads cifar10 my_data, then --data my_data"
        )
    return image_folder(data, image_size, log=sys.stdout)


def _fair_patch_size(image_size: int) -> int:
    """Choose about an eighth of the image; one patch alone is none to attend to."""
    sizes = [p for p in range(2, image_size) if image_size % p == 0]
    if not sizes:
        near = max(8, 8 * round(image_size / 8))
        raise ValueError(
            f"no patch size between 1 and {image_size} divides images of {image_size} "
            f"pixels: give --image-size {near}, or choose --patch-size yourself"
        )
    return min(sizes, key=lambda p: abs(p - image_size / 8))


if __name__ == "__main__":
    sys.exit(main())
