"""A training's surroundings: its state on disk, its metrics, its progress."""

import errno
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vitlib import runs
from vitlib.runs import (
    Progress,
    TrainState,
    alone_in,
    choose_device,
    machine_of,
    settings_of,
    write_metrics,
)
from vitlib.train import TrainConfig

SETTINGS = {"lr": 0.1, "images": "abc"}


def make_state(seed=0):
    torch.manual_seed(seed)
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return TrainState(model, optimizer, average, seed)


def take_step(state):
    inputs = torch.rand(5, 3, generator=state.generator)
    loss = nn.functional.dropout(state.model(inputs)).square().sum()
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    state.step += 1
    state.loss_sum += loss.item()
    return loss.item()


def test_a_state_goes_on_from_where_it_was_saved(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = make_state()
    for _ in range(3):
        take_step(state)
    state.order = torch.tensor([2, 0, 1])
    state.history.append({"epoch": 1, "train_loss": 0.25})
    state.save(path, SETTINGS)
    expected = [take_step(state) for _ in range(3)]

    other = make_state(seed=7)
    assert other.load(path, SETTINGS) == []
    assert other.step == other.saved_step == state.saved_step == 3
    assert other.order.tolist() == [2, 0, 1]
    assert other.history == [{"epoch": 1, "train_loss": 0.25}]
    assert [take_step(other) for _ in range(3)] == expected
    assert other.loss_sum == state.loss_sum
    for one, two in (
        (state.model, other.model),
        (state.average, other.average),
    ):
        for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_state_without_an_average(tmp_path):
    state = make_state()
    state.average = None
    state.save(tmp_path / "c", SETTINGS)
    state.load(tmp_path / "c", SETTINGS)
    assert state.average is None


def test_another_machine_is_named_and_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "c"
    machine = {"device": "cpu with AVX2", "threads": 3, "torch": "2.13.0"}
    monkeypatch.setattr(runs, "machine_of", lambda device: machine)
    make_state().save(path, SETTINGS)
    now = machine | {"threads": 8, "torch": "2.14.0"}
    monkeypatch.setattr(runs, "machine_of", lambda device: now)
    assert make_state().load(path, SETTINGS) == [
        "threads was 3 and is 8", "torch was '2.13.0' and is '2.14.0'",
    ]  # fmt: skip


def test_a_checkpoint_that_does_not_name_its_machine(tmp_path):
    """The first ones did not."""
    make_state().save(tmp_path / "c", SETTINGS)
    contents = torch.load(tmp_path / "c", weights_only=True)
    del contents["machine"]
    torch.save(contents, tmp_path / "c")
    assert make_state().load(tmp_path / "c", SETTINGS) == []


def test_the_machine(monkeypatch):
    machine = machine_of(torch.device("cpu"))
    assert machine["torch"] == torch.__version__ and type(machine["torch"]) is str
    assert machine["threads"] == torch.get_num_threads()
    assert machine["device"].startswith("cpu with ")
    assert machine_of(torch.device("mps"))["device"] == "mps"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert machine_of(torch.device("cuda"))["device"] == "NVIDIA H200"


def test_a_checkpoint_holds_no_code(tmp_path):
    make_state().save(tmp_path / "c", SETTINGS)
    assert torch.load(tmp_path / "c", weights_only=True)["step"] == 0


def test_another_trainings_checkpoint_is_refused(tmp_path):
    state = make_state()
    state.save(tmp_path / "c", SETTINGS)
    message = (
        f"'{tmp_path / 'c'}' belongs to another training (lr was 0.1 and is 0.2; "
        "images was 'abc' and is 'abd'): choose another folder (--out), or delete the "
        "file to start anew"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        state.load(tmp_path / "c", {"lr": 0.2, "images": "abd"})


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "c"
    make_state().save(path, SETTINGS)
    path.write_bytes(path.read_bytes()[:keep])
    message = r"'.*c' is damaged or no checkpoint of a training: delete it to start "
    with pytest.raises(ValueError, match=message):
        make_state().load(path, SETTINGS)


def test_a_disk_that_refuses(tmp_path, monkeypatch):
    path = tmp_path / "c"
    state = make_state()
    state.save(path, SETTINGS)
    before = path.read_bytes()
    take_step(state)

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    message = (
        r"could not be written \(No space left on device; the one before is intact\): "
        r"make room or choose another folder, then run the same command again: '.*c'"
    )
    with pytest.raises(OSError, match=message) as error:
        state.save(path, SETTINGS)
    assert error.value.errno == 28
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert state.saved_step == 0 and state.step == 1


def test_settings_tell_trainings_apart():
    model, config = nn.Linear(3, 2), TrainConfig()
    images, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    settings = settings_of(model, images, labels, config)
    assert settings["lr"] == config.lr and settings["epochs"] == config.epochs
    same = settings_of(
        nn.Linear(3, 2),
        images.clone(),
        labels,
        TrainConfig(save_every=7, device="cpu"),
    )
    assert same == settings
    others = [
        settings_of(nn.Linear(3, 3), images, labels, config),
        settings_of(model, images.flip(0), labels, config),
        settings_of(model, images, labels.flip(0), config),
        settings_of(model, images, labels, TrainConfig(seed=1)),
    ]
    assert all(other != settings for other in others)
    turned = images.transpose(2, 3)
    assert settings_of(model, turned, labels, config) == settings_of(
        model, turned.contiguous(), labels, config
    )


def test_metrics_are_a_table(tmp_path):
    rows = [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}]
    write_metrics(rows, tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_bytes() == (
        b"epoch,train_loss\n1,0.5\n2,0.25\n"
    )


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(False, False, "cpu"), (False, True, "mps"), (True, True, "cuda")],
)
def test_the_best_device_that_is_there(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == torch.device(expected)
    assert choose_device("cpu") == torch.device("cpu")
    for name, found in (("cuda", cuda), ("mps", mps)):
        if found:
            assert choose_device(name) == torch.device(name)
        else:
            message = f"device is '{name}', but PyTorch finds none: give 'auto' or"
            with pytest.raises(ValueError, match=message):
                choose_device(name)
    with pytest.raises(ValueError, match="device is 'tpu': give one of 'auto', "):
        choose_device("tpu")


BUSY = (
    "another training is running in '{}': wait until it ends, stop it, or choose "
    "another folder (--out)"
)


def test_one_training_at_a_time_in_a_folder(tmp_path):
    """The lock of another process holds, and goes with it, however it goes."""
    folder = tmp_path / "new" / "run"
    code = (
        "import sys; from vitlib.runs import alone_in\n"
        "with alone_in(sys.argv[1]): print('alone', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    message = f"^{re.escape(BUSY.format(folder))}$"
    left = folder / ".checkpoint.pt.0123abcd.part"
    with other:
        assert other.stdout.readline() == "alone\n"
        left.touch()
        with pytest.raises(ValueError, match=message), alone_in(folder):
            raise AssertionError
        assert left.exists()  # the other one may be writing it
        other.kill()
    with alone_in(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
        with pytest.raises(ValueError, match=message), alone_in(folder):
            raise AssertionError
    with pytest.raises(KeyError), alone_in(folder):
        raise KeyError
    with alone_in(folder):
        pass


def test_a_disk_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(errno.ENOLCK, "No locks available")

    left = tmp_path / ".checkpoint.pt.0123abcd.part"
    left.touch()
    monkeypatch.setattr(runs, "_lock", refuse)
    with alone_in(tmp_path), alone_in(tmp_path):
        assert left.exists()  # another one may be writing it


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(runs.time, "monotonic", lambda: self.now)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_elsewhere(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = Progress(stream, 1000, done=200, every=60)
    progress.update(201)
    clock.now += 61
    progress.update(300, "loss 1.0")
    clock.now += 10
    progress.update(310)
    progress.line("epoch 1")
    # 100 steps in 61 seconds leave 427 for the other 700.
    assert stream.getvalue() == ("300 of 1,000 steps, 7:07 left, loss 1.0\nepoch 1\n")


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    clock, stream = Clock(monkeypatch), Terminal()
    progress = Progress(stream, 8, unit="bytes")
    for done in range(1, 9):
        clock.now += 3600
        progress.update(done, "x")
    progress.line("done")
    bars = stream.getvalue().split("\r")
    assert (
        bars[1].rstrip() == "[###.....................] 1 of 8 bytes, 7:00:00 left, x"
    )
    assert bars[8].rstrip() == "[########################] 8 of 8 bytes, 0:00 left, x"
    assert stream.getvalue().count("\n") == 1
    assert max(map(len, bars)) <= 79
    assert bars[-1] == "done\n" and bars[-2].strip() == ""


@pytest.mark.parametrize("columns", [80, 40])
def test_the_bar_keeps_to_its_line(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    clock, stream = Clock(monkeypatch), Terminal()
    progress = Progress(stream, 12_150_000)
    for note in ("loss 1.234", "x" * 60, "y"):
        clock.now += 36_000
        progress.update(1_234_567, note)
    progress.line("done")
    bars = stream.getvalue().split("\r")[1:-1]
    assert [len(bar) for bar in bars] == [columns - 1] * 4
    if columns == 80:
        assert re.fullmatch(
            r"\[#{2}\.{18}\] 1,234,567 of 12,150,000 steps, 88:24:54 left, loss 1\.234",
            bars[0],
        )


def test_nothing_to_nowhere():
    progress = Progress(None, 10)
    progress.update(5)
    progress.line("nothing")


def test_frozen_layers_are_another_training():
    model, config = nn.Linear(3, 2), TrainConfig()
    data = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    before = settings_of(model, *data, config)
    model.weight.requires_grad_(False)
    assert settings_of(model, *data, config) != before


@pytest.mark.parametrize("contents", [{"settings": [1]}, {"settings": {}}, [1]])
def test_foreign_files_are_no_checkpoints(tmp_path, contents):
    torch.save(contents, tmp_path / "checkpoint.pt")
    model = nn.Linear(2, 2)
    state = TrainState(model, torch.optim.AdamW(model.parameters()), None, 0)
    with pytest.raises(ValueError, match="damaged or no checkpoint of a training"):
        state.load(tmp_path / "checkpoint.pt", {})
