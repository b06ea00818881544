"""What surrounds a training: checkpoints to go on from, metrics, a progress bar."""

import csv
import dataclasses
import io
import os
import time
import zlib
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor, nn

from vitlib.arguments import require_choice
from vitlib.files import replace_whole

DEVICES = ("auto", "cuda", "mps", "cpu")


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
    require_choice("device", name, DEVICES)
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


class TrainState:
    """Everything a training needs to go on, bit for bit, from where it stood.

    The rate of learning is not in it: it follows from `step`.

    Args:
        model: The model in training.
        optimizer: Its optimizer.
        average: A copy of the model that follows it slowly, or None.
        seed: Of order and augmentation. Dropout draws from PyTorch's global
            generator, whose state is saved as well.
    Reference:
        Chapter 10.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: nn.Module | None,
        seed: int,
    ):
        self.model, self.optimizer, self.average = model, optimizer, average
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.order = torch.empty(0, dtype=torch.int64)  # of the images, this epoch
        self.loss_sum = 0.0  # of the steps of this epoch
        self.history: list[dict[str, float]] = []  # a row for every finished epoch

    def save(self, path: str | os.PathLike, settings: dict) -> None:
        """Write a checkpoint, whole or not at all.

        Args:
            path: The file to make or replace.
            settings: What must be equal when the training goes on.
        Raises:
            OSError: it cannot be written, because the disk is full for example.
        """
        contents = {
            "settings": settings,
            "step": self.step,
            "order": self.order,
            "loss_sum": self.loss_sum,
            "history": self.history,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "global_generators": _global_generators(self.model),
        }
        # torch.save hides why a disk refuses; a plain write says it.
        buffer = io.BytesIO()
        torch.save(contents, buffer)
        try:
            with replace_whole(path) as partial:
                partial.write_bytes(buffer.getbuffer())
        except OSError as error:
            kept = (
                "the one before is intact" if Path(path).exists() else "there is none"
            )
            raise OSError(
                error.errno,
                f"the checkpoint of step {self.step} could not be written "
                f"({error.strerror}; {kept}): make room or choose another folder, then "
                "run the same command again",
                str(path),
            ) from error

    def load(self, path: str | os.PathLike, settings: dict) -> None:
        """Go back to a checkpoint.

        Args:
            path: What `save` wrote.
            settings: Must equal those it was saved with.
        Raises:
            ValueError: the file is damaged, or belongs to another training.
        """
        broken = (
            f"{str(path)!r} is damaged or no checkpoint of a training: delete it to "
            "start anew, or choose another folder (--out)"
        )
        try:
            contents = torch.load(path, weights_only=True, map_location="cpu")
            saved = dict(contents["settings"])
        # It may be whole, and merely not to be read.
        except PermissionError:
            raise
        except Exception as error:
            raise ValueError(broken) from error
        different = [
            f"{name} was {saved.get(name)!r} and is {settings.get(name)!r}"
            for name in dict.fromkeys([*saved, *settings])
            if saved.get(name) != settings.get(name)
        ]
        if different:
            raise ValueError(
                f"{str(path)!r} belongs to another training ({'; '.join(different)}): "
                "choose another folder (--out), or delete the file to start anew"
            )
        try:
            self.step = contents["step"]
            self.order = contents["order"]
            self.loss_sum = contents["loss_sum"]
            self.history = contents["history"]
            self.model.load_state_dict(contents["model"])
            if self.average is not None:
                self.average.load_state_dict(contents["average"])
            self.optimizer.load_state_dict(contents["optimizer"])
            self.generator.set_state(contents["generator"])
            _set_global_generators(contents["global_generators"])
        except Exception as error:
            raise ValueError(broken) from error


def settings_of(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: object,
    held_out: tuple[Tensor, Tensor] | None = None,
) -> dict:
    """Name all that must not change when a training goes on.

    Args:
        model: The model: its config, its parameters' names and shapes, and which of
            them learn.
        images: Training images.
        labels: Their classes.
        config: A `vitlib.train.TrainConfig`.
        held_out: Images and labels to evaluate on.
    Returns:
        The config's values, and checksums of the rest, by name.
    Reference:
        Chapter 10.
    """
    settings = dataclasses.asdict(config)
    # Free to change: when to save, and where to compute. (Another device rounds
    # differently, so only one and the same goes on to the same bits.)
    del settings["save_every"], settings["device"]
    # Not the numbers that it starts with: the checkpoint replaces them.
    settings["model"] = repr(getattr(model, "config", type(model).__name__))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    settings["parameters"] = _checksum(
        *(
            f"{name} {tuple(value.shape)} {name in learning}"
            for name, value in model.state_dict().items()
        )
    )
    settings["images"], settings["labels"] = _checksum(images), _checksum(labels)
    settings["held_out"] = _checksum(*held_out) if held_out else None
    return settings


def _checksum(*parts: Tensor | str) -> str:
    total = 0
    for part in parts:
        if isinstance(part, Tensor):
            # Bytes, for NumPy knows no bfloat16.
            array = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        else:
            array = part.encode()
        total = zlib.crc32(array, total)
    return f"{total:08x}"


def _global_generators(model: nn.Module) -> dict[str, Tensor]:
    """Return the states of the generators that dropout draws from."""
    kinds = {parameter.device.type for parameter in model.parameters()}
    states = {"cpu": torch.get_rng_state()}
    for kind in kinds & {"cuda", "mps"}:
        states[kind] = getattr(torch, kind).get_rng_state()
    return states


def _set_global_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for kind in states.keys() & {"cuda", "mps"}:
        if getattr(torch, kind).is_available():
            getattr(torch, kind).set_rng_state(states[kind])


def write_metrics(history: list[dict[str, float]], path: str | os.PathLike) -> None:
    """Write one line an epoch as comma-separated values.

    Args:
        history: A row for every finished epoch, all with the same names.
        path: The file to make or replace.
    Raises:
        OSError: it cannot be written.
    """
    with replace_whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


class Progress:
    """Tells how far a long job is: a bar on a terminal, plain lines elsewhere.

    Args:
        stream: Where to write; None for nowhere.
        total: Number of steps.
        done: Steps that were done before.
        unit: What a step is called.
        every: Seconds between two plain lines.
    Reference:
        Chapter 10.
    """

    def __init__(
        self,
        stream: TextIO | None,
        total: int,
        *,
        done: int = 0,
        unit: str = "steps",
        every: float = 60,
    ):
        self.stream, self.total, self.first, self.unit = stream, total, done, unit
        self.bar = stream is not None and stream.isatty()
        self.pause = 0.2 if self.bar else every
        self.start = self.last = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` steps are done, if the last word is a while ago.

        Args:
            done: Steps that are done.
            note: Written behind them.
        """
        now = time.monotonic()
        if self.stream is None or now - self.last < self.pause:
            return
        self.last = now
        left = (now - self.start) / max(done - self.first, 1) * (self.total - done)
        text = f"{done:,} of {self.total:,} {self.unit}, {_clock(left)} left, {note}"
        if self.bar:
            filled = round(24 * done / self.total)
            text = f"\r[{'#' * filled}{'.' * (24 - filled)}] {text:<52}"
        print(text, end="" if self.bar else "\n", file=self.stream, flush=True)

    def line(self, text: str) -> None:
        """Write a line that stays.

        Args:
            text: The line.
        """
        if self.stream is not None:
            clear = f"\r{' ' * 79}\r" if self.bar else ""
            print(f"{clear}{text}", file=self.stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
