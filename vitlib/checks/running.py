"""Running code that may do anything: crash, print, hang, or change what it is given."""

import contextlib
import copy
import ctypes
import dataclasses
import io
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

# How much is kept of what the code prints, in characters.
MOST_PRINTED = 2000
# How long it is tried to interrupt the code, in seconds.
PATIENCE = 2.0


class TimeLimit(BaseException):
    """Raised inside the code that runs for too long.

    `except Exception` misses it. A bare `except:` does not: so from the first one on,
    each line that the thread runs raises another, the lines of that `except:` too.
    """

    def __init__(self):
        super().__init__()
        # Python makes the exception in the thread that is struck.
        frame = sys._getframe(1)
        while frame and frame.f_code.co_filename != __file__:
            frame.f_trace = _strike
            frame = frame.f_back
        sys.settrace(_strike)


def _strike(frame, event, value):
    if event in ("call", "line") and frame.f_code.co_filename != __file__:
        raise TimeLimit
    return _strike


@dataclasses.dataclass
class Outcome:
    """What came of a call.

    Args:
        value: What was returned.
        error: What was raised, or None.
        late: Whether the time limit ended it.
        stuck: Whether it could not be ended, and still runs.
        printed: The beginning of what it printed.
        changed: Places of the tensors among the arguments that it changed.
        left: What it changed for everybody: the default dtype, the gradient mode.
    Reference:
        The book's page on the checkers.
    """

    value: object = None
    error: BaseException | None = None
    late: bool = False
    stuck: bool = False
    printed: str = ""
    changed: tuple[int, ...] = ()
    left: tuple[str, ...] = ()


def attempt(
    function: Callable, given: tuple, *, seconds: float = 10.0, seed: int = 0
) -> Outcome:
    """Call a function with copies of its arguments, and survive it.

    The function runs in a thread of its own, into which the time limit is raised. Code
    that cannot be interrupted, a long call into C for example, is left behind: no
    thread can be killed from outside. Random numbers, default dtype, warnings and the
    output of the caller are afterwards as they were.

    Args:
        function: What to call.
        given: Its arguments; tensors, and what `copy.deepcopy` copies.
        seconds: The time limit.
        seed: Where the function's random numbers start.
    Returns:
        What came of it.
    Reference:
        The book's page on the checkers.
    """
    copies = tuple(_copied(value) for value in given)
    # A join that the reader interrupts takes the thread for ended; an event does not.
    outcome, done = Outcome(), threading.Event()

    def work():
        try:
            try:
                outcome.value = function(*copies)
            # SystemExit and KeyboardInterrupt too: `exit()` must not end the notebook.
            except BaseException as error:
                outcome.error = error
            # The mode belongs to this thread and ends with it.
            if not torch.is_grad_enabled():
                outcome.left += ("the gradient mode",)
        except TimeLimit:
            pass  # it may strike once more, behind the function
        finally:
            sys.settrace(None)
            done.set()

    with world_kept(), _quiet() as printed:
        # Not torch.manual_seed, which notes a seed for every kind of device.
        torch.default_generator.manual_seed(seed)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            outcome.late = not done.wait(seconds)
        finally:  # also if the reader interrupts the check
            outcome.stuck = not _ended(thread, done)
        if torch.get_default_dtype() != torch.float32:
            outcome.left += ("the default dtype",)
    outcome.printed = printed.getvalue()
    if outcome.late:
        return Outcome(late=True, stuck=outcome.stuck, printed=outcome.printed)
    outcome.changed = tuple(
        place
        for place, (old, new) in enumerate(zip(given, copies, strict=True))
        if isinstance(old, Tensor) and not _same_bits(old, new)
    )
    return outcome


def _ended(thread: threading.Thread, done: threading.Event) -> bool:
    """Raise TimeLimit in a thread that is not done until it is; say whether it is."""
    # More than once: each gets out of one `try` that swallows everything.
    end = time.monotonic() + PATIENCE
    while not done.is_set() and time.monotonic() < end:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(TimeLimit)
        )
        done.wait(0.01)
    if done.is_set():
        thread.join()
    return done.is_set()


@contextlib.contextmanager
def world_kept() -> Iterator[None]:
    """Set what code depends on to its usual state, and put it back afterwards.

    Random numbers, the default dtype, the gradient mode and warnings.

    Reference:
        The book's page on the checkers.
    """
    dtype = torch.get_default_dtype()
    dice = random.getstate(), np.random.get_state()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),  # which switches gradients on, too
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(dice[0])
        np.random.set_state(dice[1])
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Catch what is printed."""
    printed = _Limited()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield printed


class _Limited(io.StringIO):
    """Keeps the beginning of what is written."""

    def write(self, text: str) -> int:
        super().write(text[: max(MOST_PRINTED - self.tell(), 0)])
        return len(text)


def _copied(value: object) -> object:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    # Strides too: a copy of a transposed tensor is transposed.
    copied = torch.empty_strided(
        value.shape, value.stride(), dtype=value.dtype, device=value.device
    )
    return copied.copy_(value.detach()).requires_grad_(value.requires_grad)


def _same_bits(old: Tensor, new: Tensor) -> bool:
    return (
        old.shape == new.shape
        and old.dtype == new.dtype
        and torch.equal(torch.nan_to_num(old.detach()), torch.nan_to_num(new.detach()))
    )
