"""What surrounds a training: a folder of its own, checkpoints, metrics, a bar."""

import csv
import dataclasses
import io
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import torch
from torch import Tensor, nn

from vitlib.arguments import require_choice
from vitlib.files import clear_partials, replace_whole

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


def machine_of(device: torch.device) -> dict[str, str | int]:
    """Name what the last bits of a result depend on.

    Args:
        device: Where the numbers are computed.
    Returns:
        The processor, the number of threads, and PyTorch's version.
    Reference:
        Chapter 10.
    """
    kind = device.type
    if kind == "cpu":
        kind = f"cpu with {torch.backends.cpu.get_cpu_capability()}"
    elif kind == "cuda":
        kind = torch.cuda.get_device_name(device)
    return {
        "device": kind,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


@contextmanager
def alone_in(folder: str | os.PathLike) -> Iterator[None]:
    """Keep a folder for one training at a time, and clear what a killed one left.

    The system locks the empty file .lock there, and unlocks it when the process ends,
    however it ends. On the rare disk that knows no locks nobody is kept out.

    Args:
        folder: The folder; made if need be.
    Returns:
        A context.
    Raises:
        ValueError: another training is running there.
        OSError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # It stays: were it removed, one process could lock the old file and one the new.
    with (folder / ".lock").open("ab") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(
                f"another training is running in {str(folder)!r}: wait until it ends, "
                "stop it, or choose another folder (--out)"
            ) from error
        except OSError:
            pass  # no locks on this disk
        else:
            clear_partials(folder)
        yield


def _lock(file: BinaryIO) -> None:
    """Lock a file until it is closed, or raise an OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class TrainState:
    """Everything a training needs to go on, bit for bit, from where it stood.

    The rate of learning is not in it: it follows from `step`. The same bits come from
    the same processor, number of threads and version of PyTorch (`machine_of`); a GPU
    adds in an order of its own.

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
        # Of this epoch's batches; a smaller one counts as a part of a batch.
        self.loss_sum = 0.0
        self.history: list[dict[str, float]] = []  # a row for every finished epoch
        self.saved_step = 0  # where the last checkpoint stands; 0 if there is none

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
            "machine": self._machine(),
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
        with replace_whole(path) as partial:
            partial.write_bytes(buffer.getbuffer())
        self.saved_step = self.step

    def load(self, path: str | os.PathLike, settings: dict) -> list[str]:
        """Go back to a checkpoint.

        Args:
            path: What `save` wrote.
            settings: Must equal those it was saved with.
        Returns:
            How this machine differs from the checkpoint's, a phrase for each
            difference: if there is one, the result differs in the last bits.
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
        different = _differences(saved, settings)
        if different:
            raise ValueError(
                f"{str(path)!r} belongs to another training ({'; '.join(different)}): "
                "choose another folder (--out), or delete the file to start anew"
            )
        machine = self._machine()
        try:
            self.step = self.saved_step = contents["step"]
            self.order = contents["order"]
            self.loss_sum = contents["loss_sum"]
            self.history = contents["history"]
            self.model.load_state_dict(contents["model"])
            if self.average is not None:
                self.average.load_state_dict(contents["average"])
            self.optimizer.load_state_dict(contents["optimizer"])
            self.generator.set_state(contents["generator"])
            _set_global_generators(contents["global_generators"])
            # The first checkpoints did not say where they were made.
            return _differences(contents.get("machine", machine), machine)
        except Exception as error:
            raise ValueError(broken) from error

    def _machine(self) -> dict[str, str | int]:
        return machine_of(next(self.model.parameters()).device)


def _differences(old: dict, new: dict) -> list[str]:
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


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

    The bar keeps to one line of the terminal, and becomes shorter for a long note.

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
        # A full line would push the cursor on to the next.
        self.columns = shutil.get_terminal_size().columns - 1
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
            length = max(min(24, self.columns - len(text) - 3), 0)
            filled = round(length * done / self.total)
            text = f"[{'#' * filled}{'.' * (length - filled)}] {text}"
            text = "\r" + text[: self.columns].ljust(self.columns)
        print(text, end="" if self.bar else "\n", file=self.stream, flush=True)

    def line(self, text: str) -> None:
        """Write a line that stays.

        Args:
            text: The line.
        """
        if self.stream is not None:
            clear = f"\r{' ' * self.columns}\r" if self.bar else ""
            print(f"{clear}{text}", file=self.stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
