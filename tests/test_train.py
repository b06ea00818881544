"""The plain loop learns, repeats itself, and does what it says step by step."""

import ast
import contextlib
import csv
import dataclasses
import inspect
import io
import math
import os
import random
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitlib import ViT, ViTConfig
from vitlib import train as train_module
from vitlib.augment import normalise
from vitlib.checkpoints import load_checkpoint
from vitlib.data import digits, hold_out
from vitlib.train import TrainConfig, evaluate, fit, learning_rate, main, train

ROOT = Path(__file__).resolve().parent.parent

CONFIG = ViTConfig(
    image_size=8, patch_size=2, in_channels=1, num_classes=10, embed_dim=24, depth=1,
    num_heads=3, mlp_ratio=2.0,
)  # fmt: skip


def make_model():
    torch.manual_seed(1)
    return ViT(CONFIG)


def make_linear():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_a_small_vit_learns_digits():
    images, labels = digits("train")
    model = make_model()
    assert evaluate(model, *digits("test")) < 0.3
    losses = fit(model, images, labels, steps=100, batch_size=64, lr=4e-3)
    assert len(losses) == 100
    assert losses[0] == pytest.approx(math.log(10), abs=1e-4)  # the head is zero
    assert sum(losses[-10:]) / 10 < 1.4
    assert evaluate(model, *digits("test")) > 0.55
    assert not model.training


def test_same_seed_same_losses_bit_for_bit():
    images, labels = digits("train")
    runs = [
        fit(make_model(), images, labels, steps=8, batch_size=32, seed=seed)
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def fit_by_hand(model, images, labels, *, steps, batch_size, lr, weight_decay, seed):
    """The same training with every learning rate written down."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    warmup = max(steps // 10, 1)
    losses = []
    for step in range(steps):
        rise = min(1.0, 1e-3 + (1 - 1e-3) * step / warmup)
        fall = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * rise * fall
        batch = torch.randperm(len(images), generator=generator)[:batch_size]
        model.zero_grad()
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        length = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
        for parameter in model.parameters():
            parameter.grad.mul_(min(1.0, 1 / (length + 1e-6)))
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_every_step_is_as_described():
    images, labels = digits("train")
    images = images * 20  # large gradients, so that clipping matters
    options = {"batch_size": 16, "lr": 0.01, "weight_decay": 0.3, "seed": 7}
    ours, theirs = make_linear(), make_linear()
    losses = fit(ours, images, labels, steps=40, **options)
    expected = fit_by_hand(theirs, images, labels, steps=40, **options)
    assert losses == pytest.approx(expected, rel=1e-3)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_the_rules_when_nothing_is_said():
    images, labels = digits("train")
    defaults = {"batch_size": 128, "lr": 1e-3, "weight_decay": 0.05, "seed": 0}
    said = fit(make_linear(), images, labels, steps=5, **defaults)
    assert fit(make_linear(), images, labels, steps=5) == said


def test_dropout_is_on_in_training_and_off_after():
    modes = []

    class Watched(nn.Linear):
        def forward(self, images):
            modes.append(self.training)
            return super().forward(images.flatten(1))

    images, labels = digits("test")
    model = Watched(64, 10).eval()
    fit(model, images, labels, steps=2)
    assert modes == [True, True] and not model.training


def test_the_loop_fits_on_a_page():
    function = ast.parse(inspect.getsource(fit)).body[0]
    first = function.body[1]  # what follows the docstring
    assert function.end_lineno - first.lineno + 1 <= 25


# ---- evaluate --------------------------------------------------------------------


class Brightest(nn.Module):
    """Calls each image by the number of its brightest pixel."""

    def forward(self, images):
        return images.flatten(1)


def test_accuracy_against_a_count_by_hand():
    images = torch.eye(6).view(6, 1, 2, 3)
    labels = torch.tensor([0, 1, 2, 0, 0, 5])
    assert evaluate(Brightest(), images, labels) == pytest.approx(4 / 6)
    assert evaluate(Brightest(), images[:1], labels[:1]) == 1.0


def test_accuracy_over_several_batches():
    images = torch.rand(1100, 1, 2, 3)
    labels = torch.randint(6, (1100,))
    hits = sum(
        int(image.flatten().argmax()) == int(label)
        for image, label in zip(images, labels, strict=True)
    )
    assert evaluate(Brightest(), images, labels) == pytest.approx(hits / 1100)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(training):
    model = ViT(CONFIG).train(training)
    images, labels = digits("test")
    evaluate(model, images, labels)
    assert model.training is training and model.blocks[0].training is training


def test_images_go_to_the_device_of_the_model():
    class Elsewhere(Brightest):
        """Has its weights on a device where images do not start."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(1, device="meta"))

        def forward(self, images):
            assert images.device.type == "meta"
            return torch.eye(6)[: len(images)]

    assert evaluate(Elsewhere(), torch.rand(6, 1, 2, 3), torch.arange(6)) == 1.0


def test_evaluation_runs_without_dropout_or_gradients():
    class Watched(Brightest):
        def forward(self, images):
            assert not self.training and not torch.is_grad_enabled()
            return super().forward(images)

    images = torch.rand(5, 1, 2, 3)
    evaluate(Watched().train(), images, torch.zeros(5, dtype=torch.int64))


IMAGES, LABELS = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("run", [evaluate, lambda *data: fit(*data, steps=1)])
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            ("model", IMAGES, LABELS),
            TypeError,
            "model is a str: give a torch.nn.Module",
        ),
        (
            (make_linear(), [1.0], LABELS),
            TypeError,
            "images is a list: give a torch.Tensor",
        ),
        (
            (make_linear(), IMAGES[0], LABELS),
            ValueError,
            "images has shape (1, 8, 8): give 4 axes, (N, c, H, W)",
        ),
        (
            (make_linear(), IMAGES.to(torch.uint8), LABELS),
            ValueError,
            "images is torch.uint8: give floats, for pixels images.float() / 255",
        ),
        (
            (make_linear(), IMAGES, LABELS[:, None]),
            ValueError,
            "labels has shape (4, 1): give 1 axes, (N)",
        ),
        (
            (make_linear(), IMAGES, LABELS[:3]),
            ValueError,
            "4 images and 3 labels arrived: give one label for each of at least one "
            "image",
        ),
        (
            (make_linear(), IMAGES[:0], LABELS[:0]),
            ValueError,
            "0 images and 0 labels arrived: give one label for each of at least one "
            "image",
        ),
        (
            (make_linear(), IMAGES, LABELS.float()),
            ValueError,
            "labels is torch.float32: give torch.int64, labels.long()",
        ),
        (
            (make_linear(), IMAGES, LABELS - 1),
            ValueError,
            "a label is -1: give classes counted from 0",
        ),
    ],
)
def test_bad_data(run, data, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        run(*data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0: give a whole number of at least 1"),
        (
            {"steps": 1, "batch_size": 0},
            "batch_size is 0: give a whole number of at least 1",
        ),
        ({"steps": 1, "seed": -1}, "seed is -1: give a whole number of at least 0"),
        (
            {"steps": 1, "lr": float("inf")},
            "lr is inf: give a finite number greater than 0",
        ),
        (
            {"steps": 1, "weight_decay": -0.1},
            "weight_decay is -0.1: give a finite number greater than 0, or 0 for none",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(make_linear(), IMAGES, LABELS, **options)


def test_labels_beyond_the_classes_are_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 3, 0])
    message = "a label is 3, the model scores 3 classes: build it with num_classes=4"
    with pytest.raises(ValueError, match=message):
        fit(model, images, labels, steps=1)
    with pytest.raises(ValueError, match=message):
        evaluate(model, images, labels)


def test_evaluate_restores_the_mode_of_every_module():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    model[0].eval()
    evaluate(model, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    assert [module.training for module in model.modules()] == [True, False, True]


# ---- the long loop ---------------------------------------------------------------

PLAIN = {"flip": False, "crop": 0.0, "label_smoothing": 0.0, "device": "cpu"}
EVERYTHING = {
    "rand_ops": 2, "mixup": 0.8, "cutmix": 1.0, "ema": 0.9, "batch_size": 20,
    "device": "cpu",
}  # fmt: skip


def some_digits(count=60):
    images, labels = digits("train")
    return images[:count], labels[:count]


def parameters_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train_by_hand(model, images, labels, config):
    """Write the same training down once more, AdamW and average included."""
    generator = torch.Generator().manual_seed(config.seed)
    parameters = list(model.parameters())
    average = [p.detach().clone() for p in parameters]
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    steps = math.ceil(len(images) / config.batch_size)
    last, rise = config.epochs * steps, math.ceil(config.warmup * config.epochs * steps)
    losses = []
    for step in range(last):
        if step % steps == 0:
            order = torch.randperm(len(images), generator=generator)
        at = step % steps * config.batch_size
        batch = order[at : at + config.batch_size]
        logs = model(2 * images[batch] - 1).log_softmax(dim=1)
        own = -logs[range(len(batch)), labels[batch]]
        smooth = config.label_smoothing
        loss = ((1 - smooth) * own - smooth * logs.mean(dim=1)).mean()
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, parameters)
        length = sum(grad.square().sum() for grad in grads).sqrt()
        grads = [grad * min(1.0, config.clip / (length + 1e-6)) for grad in grads]
        if step < rise:
            lr = config.lr * (step + 1) / rise
        else:
            share = (step - rise) / (last - rise)
            lr = config.lr * (1 + math.cos(math.pi * share)) / 2
        keep = min(config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for p, grad, m, v, mean in zip(
                parameters, grads, first, second, average, strict=True
            ):
                if p.ndim > 1:
                    p.mul_(1 - lr * config.weight_decay)
                m.mul_(0.9).add_(0.1 * grad)
                v.mul_(0.999).add_(0.001 * grad**2)
                m_hat, v_hat = (
                    m / (1 - 0.9 ** (step + 1)),
                    v / (1 - 0.999 ** (step + 1)),
                )
                p.sub_(lr * m_hat / (v_hat.sqrt() + 1e-8))
                mean.copy_(keep * mean + (1 - keep) * p)
    # Every image counts alike, so a last batch that is smaller counts for less.
    sizes = [len(part) for part in torch.arange(len(images)).split(config.batch_size)]
    epochs = [
        sum(loss * n for loss, n in zip(losses[i:], sizes, strict=False)) / len(images)
        for i in range(0, last, steps)
    ]
    result = average if config.ema else [p.detach() for p in parameters]
    return torch.cat([tensor.flatten() for tensor in result]), epochs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.3, "clip": 0.05, "seed": 5},
        {"weight_decay": 2.0, "warmup": 0.4, "ema": 0.8},
        {"weight_decay": 0.0, "warmup": 0.0, "batch_size": 25},
    ],
)
def test_every_step_of_train_is_as_described(options):
    images, labels = some_digits(100)
    config = TrainConfig(
        **PLAIN | {"epochs": 4, "batch_size": 32, "lr": 0.01} | options
    )
    ours, theirs = make_linear(), make_linear()
    history = train(ours, images, labels, config=config)
    expected, epochs = train_by_hand(theirs, images, labels, config)
    torch.testing.assert_close(parameters_of(ours), expected, atol=1e-5, rtol=1e-4)
    assert [row["train_loss"] for row in history] == pytest.approx(epochs, rel=1e-4)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["step"] for row in history] == [4, 8, 12, 16]
    assert not ours.training


def test_only_matrices_decay():
    model = ViT(CONFIG)
    decays = {
        id(parameter): group["weight_decay"]
        for group in train_module._optimizer(model, TrainConfig()).param_groups
        for parameter in group["params"]
    }
    kept = {name for name, p in model.named_parameters() if decays[id(p)] == 0}
    assert len(decays) == len(list(model.parameters()))
    assert {decays[key] for key in decays} == {0.0, 0.05}
    assert kept == {
        name
        for name, _ in model.named_parameters()
        if name in ("cls_token", "pos_embed") or name.endswith("bias") or "norm" in name
    }


def test_the_learning_rate_by_hand():
    config = TrainConfig(lr=2.0, warmup=0.2)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)
    assert rates[9] == pytest.approx(1 - math.cos(math.pi / 8))
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_the_model_sees_normalised_pixels_and_every_image_once():
    seen = []

    class Watched(nn.Linear):
        def forward(self, images):
            if self.training:
                seen.append(images)
            return super().forward(images.flatten(1))

    images, labels = some_digits(50)
    config = TrainConfig(**PLAIN, epochs=2, batch_size=16)
    train(Watched(64, 10), images, labels, config=config)
    assert [len(batch) for batch in seen] == [16, 16, 16, 2] * 2
    whole = {image.numpy().tobytes() for image in normalise(images)}
    for epoch in (seen[:4], seen[4:]):
        assert {image.numpy().tobytes() for image in torch.cat(epoch)} == whole
    assert not torch.equal(seen[0], seen[4])


def test_bf16_is_asked_for_in_training_only():
    seen = []

    class Watched(nn.Linear):
        def forward(self, images):
            seen.append((self.training, torch.is_autocast_enabled("cpu")))
            return super().forward(images.flatten(1))

    images, labels = some_digits(20)
    for bf16 in (False, True):
        seen.clear()
        config = TrainConfig(epochs=1, bf16=bf16, device="cpu")
        train(Watched(64, 10), images, labels, held_out=(images, labels), config=config)
        assert (True, bf16) in seen and (True, not bf16) not in seen
        assert (False, True) not in seen


def test_a_small_vit_learns_digits_for_long():
    images, labels = digits("train")
    kept, held = hold_out(labels, 0.1)
    config = TrainConfig(
        epochs=8, batch_size=64, lr=4e-3, flip=False, crop=0.0, ema=0.9, device="cpu"
    )
    model, log = make_model(), io.StringIO()
    history = train(
        model,
        images[kept],
        labels[kept],
        held_out=(images[held], labels[held]),
        config=config,
        log=log,
    )
    accuracy = history[-1]["held_out_accuracy"]
    assert accuracy == evaluate(model, normalise(images[held]), labels[held])
    assert accuracy > 0.7
    assert history[0]["train_loss"] > history[-1]["train_loss"]
    assert log.getvalue().splitlines()[-1] == (
        f"epoch 8 of 8: loss {history[-1]['train_loss']:.4f}, held out "
        f"{100 * accuracy:.2f} % correct"
    )


@pytest.mark.parametrize("chosen", [("mixup",), ("cutmix",), ("mixup", "cutmix")])
def test_batches_are_mixed_as_asked(monkeypatch, chosen):
    calls = []
    for name in ("mixup", "cutmix"):
        real = getattr(train_module, name)

        def spy(images, targets, alpha, *, generator, name=name, real=real):
            calls.append((name, alpha))
            return real(images, targets, alpha, generator=generator)

        monkeypatch.setattr(train_module, name, spy)
    config = TrainConfig(
        epochs=10, batch_size=20, device="cpu", **dict.fromkeys(chosen, 0.7)
    )
    train(make_linear(), *some_digits(), config=config)
    assert len(calls) == 30
    assert set(calls) == {(name, 0.7) for name in chosen}


# ---- going on --------------------------------------------------------------------


class Stop(Exception):
    """What ends a training in the tests below."""


class Stopping(nn.Module):
    """Trains like `inner` until its `limit`-th batch."""

    def __init__(self, inner, limit):
        super().__init__()
        self.inner, self.left = inner, limit

    def forward(self, images):
        if self.training:
            self.left -= 1
            if self.left < 0:
                raise Stop
        return self.inner(images)


def droppy_vit():
    torch.manual_seed(1)
    config = dataclasses.replace(CONFIG, drop_rate=0.2, drop_path_rate=0.2, depth=2)
    return ViT(config)


@pytest.mark.parametrize("stops", [(1,), (2, 1), (4, 3), (5, 5), (7, 1)])
def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path, stops):
    data = some_digits()
    config = TrainConfig(**EVERYTHING, epochs=4, save_every=2)
    whole = Stopping(droppy_vit(), 1000)
    history = train(whole, *data, held_out=data, config=config)
    for limit in stops:
        torch.manual_seed(random.randrange(1000))  # it must not matter
        model = Stopping(droppy_vit(), limit)
        with pytest.raises(Stop):
            train(model, *data, held_out=data, config=config, folder=tmp_path)
    other = dataclasses.replace(config, save_every=3)
    model = Stopping(droppy_vit(), 1000)
    again = train(model, *data, held_out=data, config=other, folder=tmp_path)
    assert again == history
    assert torch.equal(parameters_of(model), parameters_of(whole))
    assert 1000 - model.left <= 12 - sum(stop // 2 * 2 for stop in stops)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows == history

    model = Stopping(droppy_vit(), 0)  # finished: not one more batch
    assert train(model, *data, held_out=data, config=config, folder=tmp_path) == history
    assert torch.equal(parameters_of(model), parameters_of(whole))


def test_metrics_are_complete_before_the_checkpoint_is(tmp_path, monkeypatch):
    """A kill right after the last checkpoint must not cost the last line."""
    save = train_module.TrainState.save

    def save_and_stop(state, path, settings):
        save(state, path, settings)
        if state.step == 6:
            raise Stop

    monkeypatch.setattr(train_module.TrainState, "save", save_and_stop)
    config = TrainConfig(**EVERYTHING, epochs=2)
    with pytest.raises(Stop):
        train(make_model(), *some_digits(), config=config, folder=tmp_path)
    history = train(make_model(), *some_digits(), config=config, folder=tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 2 and rows == history


@pytest.mark.parametrize(
    ("seconds", "save_every", "expected"),
    [
        (0.1, 500, [12]),
        (0.1, 5, [5, 10, 12]),
        (6, 500, [6, 12]),
        (6, 5, [5, 10, 12]),  # the ninth step ends 24 seconds after the fifth
        (10, 500, [3, 6, 9, 12]),
        (100, 500, [3, 6, 9, 12]),
    ],
)
def test_short_epochs_are_not_all_saved(
    tmp_path, monkeypatch, seconds, save_every, expected
):
    """Four epochs of three steps, each so many seconds long."""
    saved, clock = [], [0.0]
    save, step = train_module._save, train_module._step

    def note(state, *rest):
        saved.append(state.step)
        save(state, *rest)

    def wait(*args):
        clock[0] += seconds
        return step(*args)

    monkeypatch.setattr(train_module, "_save", note)
    monkeypatch.setattr(train_module, "_step", wait)
    monkeypatch.setattr(train_module.time, "monotonic", lambda: clock[0])
    config = TrainConfig(epochs=4, batch_size=20, save_every=save_every, device="cpu")
    train(make_linear(), *some_digits(), config=config, folder=tmp_path)
    assert saved == expected


def test_one_training_at_a_time(tmp_path):
    config = TrainConfig(epochs=1, device="cpu")
    with (
        train_module.alone_in(tmp_path),
        pytest.raises(ValueError, match=r"^another training is running in '"),
    ):
        train(make_linear(), *some_digits(), config=config, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    train(make_linear(), *some_digits(), config=config, folder=tmp_path)


def test_a_training_says_where_it_goes_on(tmp_path, monkeypatch):
    def said(limit):
        log = io.StringIO()
        with contextlib.suppress(Stop):
            train(
                Stopping(make_linear(), limit),
                *some_digits(),
                config=TrainConfig(epochs=2, batch_size=20, save_every=2, device="cpu"),
                folder=tmp_path,
                log=log,
            )
        return log.getvalue().splitlines()

    assert [line[:12] for line in said(3)] == ["epoch 1 of 2"]
    assert said(0) == ["going on after step 2 of 6"]
    monkeypatch.setattr("vitlib.runs.machine_of", lambda device: {"threads": 99})
    lines = said(9)
    assert lines[0] == "going on after step 2 of 6"
    assert lines[1].startswith("another machine than before (device was 'cpu with ")
    assert lines[1].endswith(
        f"; threads was {torch.get_num_threads()} and is 99; torch was "
        f"'{torch.__version__}' and is None): the result may differ in the last digits "
        "from one without a stop"
    )
    assert said(0) == [
        "going on after step 6 of 6: this training is finished, nothing is left to do"
    ]


def test_dropout_does_not_repeat_the_dice_of_the_order():
    seen = []

    class Watched(nn.Linear):
        def forward(self, images):
            if self.training:
                seen.append(torch.rand(5))
            return super().forward(images.flatten(1))

    config = TrainConfig(**PLAIN, epochs=1, seed=3)
    for _ in range(2):
        train(Watched(64, 10), *some_digits(), config=config)
    torch.manual_seed(3)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], torch.rand(5))
    other = dataclasses.replace(config, seed=4)
    train(Watched(64, 10), *some_digits(), config=other)
    assert not torch.equal(seen[0], seen[2])


class Greedy(nn.Linear):
    """Wants more memory than there is, in the mode that is named."""

    mode = True

    def forward(self, images):
        if self.training is self.mode and len(images) > 1:
            torch.empty(2**50)
        return super().forward(images.flatten(1))


@pytest.mark.parametrize("mode", [True, False])
def test_too_little_memory(mode):
    model, data = Greedy(64, 10), some_digits()
    model.mode = mode
    config = TrainConfig(epochs=1, batch_size=20, device="cpu")
    message = (
        "^the memory of cpu is too small for batch_size 20: give a smaller one, or "
        r"smaller images or a smaller model\. What was saved before stays as it was"
    )
    with pytest.raises(ValueError, match=message):
        train(model, *data, held_out=data, config=config)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA is full"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_other_words_for_too_little_memory(error):
    with (
        pytest.raises(ValueError, match="for batch_size 7"),
        train_module._enough_memory(torch.device("cpu"), 7),
    ):
        raise error


def test_other_errors_of_a_model_keep_their_words():
    with (
        pytest.raises(RuntimeError, match=r"^an illegal memory access$"),
        train_module._enough_memory(torch.device("cpu"), 7),
    ):
        raise RuntimeError("an illegal memory access")


def test_evaluation_fits_where_training_does():
    """Four times the batch, for it keeps no gradients; 512 as everywhere at most."""
    seen = []

    class Watched(nn.Linear):
        def forward(self, images):
            if not self.training:
                seen.append(len(images))
            return super().forward(images.flatten(1))

    images, labels = digits("train")
    for batch_size, batches in ((20, [80, 80, 40]), (300, [200])):
        seen.clear()
        train(
            Watched(64, 10),
            *some_digits(),
            held_out=(images[:200], labels[:200]),
            config=TrainConfig(epochs=1, batch_size=batch_size, device="cpu"),
        )
        assert seen[1:] == batches  # the first one counts the classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": TrainConfig(**EVERYTHING, epochs=9)}, "epochs was 1 and is 9"),
        ({"images": some_digits()[0].flip(0)}, "images was '"),
        ({"labels": some_digits()[1].flip(0)}, "labels was '"),
        ({"model": make_model()}, "model was "),
        ({"held_out": some_digits()}, "held_out was None"),
    ],
)
def test_another_training_in_the_folder_is_refused(tmp_path, change, message):
    images, labels = some_digits()
    config = TrainConfig(**EVERYTHING, epochs=1)
    given = {"model": droppy_vit(), "images": images, "labels": labels}
    train(**given, config=config, folder=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=re.escape(message)):
        train(**given | {"config": config} | change, folder=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


class Poisoned(nn.Linear):
    """Scores that are no numbers any more from the `limit`-th batch on."""

    left = 5

    def forward(self, images):
        scores = super().forward(images.flatten(1))
        if self.training:
            self.left -= 1
            if self.left < 0:
                return scores * math.nan
        return scores


def test_a_lost_loss_ends_the_training_before_it_does_harm(tmp_path):
    config = TrainConfig(epochs=9, batch_size=20, save_every=1, device="cpu")
    message = (
        r"^at step 5 the loss is nan and its gradient has length nan, at learning rate "
        r"[\d.]+: lower lr or clip, warm up longer, or look for NaN in the images\. "
        r"What was saved before stays as it was; another recipe needs another folder "
        r"\(--out\)$"
    )
    with pytest.raises(ValueError, match=message):
        train(Poisoned(64, 10), *some_digits(), config=config, folder=tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 5
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_step_that_destroys_the_weights_is_not_saved(
    tmp_path, monkeypatch, ema, epochs
):
    """Its gradient is finite: only the weights can tell."""
    config = TrainConfig(
        epochs=epochs, batch_size=20, save_every=1, ema=ema, device="cpu"
    )
    rates = train_module.learning_rate
    monkeypatch.setattr(
        train_module,
        "learning_rate",
        lambda step, *rest: 1e39 if step == 1 else rates(step, *rest),
    )
    message = (
        r"^after step 2 weights are NaN or infinite, at learning rate 1e\+39: lower lr "
        r"or weight_decay, or warm up longer\. What was saved before stays as it was; "
        r"another recipe needs another folder \(--out\)$"
    )
    for _ in range(2):  # the second one goes on from what the first one saved
        with pytest.raises(ValueError, match=message):
            train(make_linear(), *some_digits(), config=config, folder=tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 1
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_an_average_that_is_lost_is_not_saved(tmp_path, monkeypatch):
    def lose(average, *_):
        next(average.parameters()).data.fill_(math.inf)

    monkeypatch.setattr(train_module, "_follow", lose)
    config = TrainConfig(epochs=1, ema=0.9, device="cpu")
    with pytest.raises(ValueError, match=r"^after step 1 weights are NaN or infinite"):
        train(make_linear(), *some_digits(), config=config, folder=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_last_step_that_destroys_the_weights_is_no_result():
    config = TrainConfig(epochs=1, lr=1e39, warmup=0.0, device="cpu")
    with pytest.raises(ValueError, match=r"^after step 1 weights are NaN or inf"):
        train(make_linear(), *some_digits(), config=config)


def test_training_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(make_linear(), *some_digits(), config=TrainConfig(epochs=1, device="cpu"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs is 0: give a whole number of at least 1"),
        ({"lr": 0.0}, ValueError, "lr is 0.0: give a finite number greater than 0"),
        ({"ema": 1.0}, ValueError, "ema is 1.0: give a share below 1, such as 0.999"),
        (
            {"crop": -0.1},
            ValueError,
            "crop is -0.1: give a share below 1, such as 0.1, ",
        ),
        ({"warmup": "1"}, TypeError, "warmup is '1': give a number"),
        (
            {"weight_decay": -1},
            ValueError,
            "weight_decay is -1: give a finite number gr",
        ),
        ({"flip": 1}, ValueError, "flip is 1: give one of False, True"),
        ({"device": "tpu"}, ValueError, "device is 'tpu': give one of 'auto', 'cuda'"),
        ({"mixup": -1}, ValueError, "mixup is -1: give a finite number greater than"),
        ({"rand_magnitude": 2}, ValueError, "rand_magnitude is 2: give a number in (0"),
        ({"seed": 0.5}, TypeError, "seed is 0.5: give a whole number"),
    ],
)
def test_bad_recipes(options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        TrainConfig(**options)


def test_bad_arguments_of_train():
    images, labels = some_digits()
    with pytest.raises(TypeError, match="config is a dict: give a TrainConfig"):
        train(make_linear(), images, labels, config={})
    with pytest.raises(ValueError, match="60 images and 59 labels arrived"):
        train(make_linear(), images, labels, held_out=(images, labels[1:]))
    message = "images run from -1 to 1: give pixels in [0, 1]; train normalises them"
    with pytest.raises(ValueError, match=re.escape(message)):
        train(make_linear(), normalise(images), labels)
    with pytest.raises(ValueError, match="images run from nan to nan: give pixels"):
        train(make_linear(), images * math.nan, labels)
    with pytest.raises(ValueError, match="a label is 12, the model scores 10 classes"):
        train(make_linear(), images, labels + 3)


# ---- the command line ------------------------------------------------------------

WORDS = [
    "--data", "digits", "--epochs", "3", "--batch-size", "64", "--embed-dim", "16",
    "--depth", "1", "--num-heads", "2", "--device", "cpu", "--no-flip",
]  # fmt: skip


def command(*words):
    return [sys.executable, "-m", "vitlib.train", *words]


def test_the_command_line_leaves_everything_in_one_folder(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*WORDS, "--out", str(out), "--held-out", "0.2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "1,151 images to train on and 287 held out, 10 classes; a ViT of 2,794 "
        "parameters with patches of 2 pixels on cpu"
    )
    assert said[1] == (
        "images of each class: 0 (151), 1 (161), 2 (143), 3 (131), 4 (147), 5 (154), "
        "6 (150), 7 (136), 8 (127), 9 (138)"
    )
    assert [line[:12] for line in said[3:6]] == [f"epoch {n} of 3" for n in (1, 2, 3)]
    names = [".lock", "checkpoint.pt", "classes.txt", "curve.png", "metrics.csv"]
    assert sorted(p.name for p in out.iterdir()) == [*names, "weights.safetensors"]
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "classes.txt").read_text() == "".join(f"{d}\n" for d in range(10))
    images, labels = digits("train")
    _, held = hold_out(labels, 0.2, seed=0)
    model = load_checkpoint(out / "weights.safetensors")
    with (out / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    accuracy = evaluate(model, normalise(images[held]), labels[held])
    assert float(last["held_out_accuracy"]) == accuracy
    counts = labels[held].bincount()
    baseline = (
        f"{100 * counts.max() / 287:.2f} % by always answering '{counts.argmax()}'"
    )
    assert said[2] == f"to beat on those held out: {baseline}"
    assert said[6] == f"held out: {100 * accuracy:.2f} % correct, against {baseline}"

    assert main([*WORDS, "--out", str(out), "--held-out", "0.2"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[:3] == said[:3] and again[4:] == said[6:]
    assert again[3].endswith("this training is finished, nothing is left to do")


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((1200, 1200), "1,200"),
        ((1200, 7), "a (1,200), b (7)"),
        ((5, 2, 2, *[4] * 7, 9), "fewest b (2), most k (9)"),
    ],
)
def test_class_sizes_in_one_line(counts, text):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    assert train_module._class_sizes(labels, list("abcdefghijk"[: len(counts)])) == text


def test_what_always_the_same_answer_scores():
    labels = torch.tensor([0, 2, 2, 1, 2, 0, 2, 1])
    said = "50.00 % by always answering 'c'"
    assert train_module._baseline(labels, ["a", "b", "c", "d"]) == said


def test_classes_are_written_before_the_training(tmp_path, monkeypatch, capsys):
    seen = []

    def train_a_little(model, images, labels, held_out, config, out, log):
        seen.append((out / "classes.txt").read_text())
        (out / "checkpoint.pt").touch()
        raise ValueError("stop")

    monkeypatch.setattr(train_module, "_train", train_a_little)
    words = [*WORDS, "--out", str(tmp_path)]
    assert main(words) == 1
    # A folder that may be another training's keeps its names.
    monkeypatch.setattr(
        train_module, "_load", lambda *_: (*digits(), list("zyxwvutsrq"))
    )
    assert main(words) == 1
    assert seen == ["".join(f"{d}\n" for d in range(10))] * 2

    (tmp_path / "checkpoint.pt").unlink()
    names = ["\udcff", *"yxwvutsrq"]
    monkeypatch.setattr(train_module, "_load", lambda *_: (*digits(), names))
    assert main(words) == 1
    assert len(seen) == 2  # never got so far
    assert "can't encode character" in capsys.readouterr().err


def test_two_command_lines_in_one_folder(tmp_path, capsys):
    with train_module.alone_in(tmp_path):
        assert main([*WORDS, "--out", str(tmp_path)]) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert capsys.readouterr().err.startswith("error: another training is running in ")


def make_photos(folder):
    from PIL import Image

    for name, colour in (("dogs", "red"), ("cats", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            photo = Image.new("RGB", (50 + number, 40), colour)
            photo.save(folder / name / f"{number}.jpg")
    return folder


def test_photos_of_ones_own(tmp_path, monkeypatch, capsys):
    make_photos(tmp_path / "my_photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_module, "LEAST_STEPS", 30)
    words = ["--data", "my_photos", "--embed-dim", "16", "--depth", "1"]
    assert main([*words, "--num-heads", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("10 images to train on and 2 held out, 2 classes; a ViT of ")
    assert "patches of 8 pixels" in said
    assert said.count("\nepoch ") == 30
    assert "epoch 30 of 30: " in said and "held out 100.00 % correct" in said
    run = tmp_path / "runs" / "my_photos"
    assert (run / "classes.txt").read_text() == "cats\ndogs\n"
    config = load_checkpoint(run / "weights.safetensors").config
    assert (config.image_size, config.in_channels, config.num_classes) == (64, 3, 2)


def test_every_kind_of_data_is_recognised(tmp_path, monkeypatch):
    for name in ("digits", "fashion_mnist", "cifar10", "image_folder"):
        monkeypatch.setattr(
            train_module, name, lambda *args, name=name, log=None: (name, log)
        )
    load = train_module._load
    assert load("digits", 64)[0] == "digits"
    assert load("fashion_mnist", 64)[0] == "fashion_mnist"
    (tmp_path / "t10k-images-idx3-ubyte.gz").touch()
    assert load(str(tmp_path), 64)[0] == "fashion_mnist"
    cifar = tmp_path / "c" / "cifar-10-batches-bin"
    cifar.mkdir(parents=True)
    (cifar / "test_batch.bin").touch()
    assert load(str(tmp_path / "c"), 64)[0] == "cifar10"
    (tmp_path / "photos").mkdir()
    assert load(str(tmp_path / "photos"), 48) == ("image_folder", sys.stdout)


def test_many_short_epochs_say_few_lines():
    said = [epoch for epoch in range(1, 1001) if train_module._is_news(epoch, 1000)]
    assert said == [1, *range(20, 1001, 20)]


@pytest.mark.parametrize(
    ("size", "patch"), [(4, 2), (8, 2), (28, 4), (32, 4), (64, 8), (50, 5), (62, 2)]
)
def test_patches_are_about_an_eighth(size, patch):
    assert train_module._fair_patch_size(size) == patch


@pytest.mark.parametrize(("size", "near"), [(61, 64), (53, 56), (3, 8), (2, 8), (1, 8)])
def test_one_single_patch_is_not_chosen(size, near):
    message = (
        f"no patch size between 1 and {size} divides images of {size} pixels: give "
        f"--image-size {near}, or choose --patch-size yourself"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train_module._fair_patch_size(size)


def test_the_help_explains_every_option(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(TrainConfig):
        option = "--" + field.name.replace("_", "-")
        assert re.search(rf"{option}\b[^.]* \w{{2,}} \w+", said), option
    assert "--weight-decay X AdamW's, for matrices only" in said
    assert "(default: 0.001)" in said and "my_photos" in said
    assert len(max(said.split(), key=len)) < 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr", "-1"], "error: lr is -1.0: give a finite number greater than 0"),
        (["--patch-size", "3"], "error: image height 8 is not divisible by patch_size"),
        (["--embed-dim", "15"], "error: "),
        (
            ["--held-out", "1"],
            "error: held_out is 1.0: give a share in (0, 1), such as",
        ),
        (["--held-out", "nan"], "error: held_out is nan: give a share in (0, 1), such"),
        (
            ["--ema", "1"],
            "error: ema is 1.0: give a share below 1, such as 0.999, or 0",
        ),
        (
            ["--data", "nowhere"],
            "error: 'nowhere' is neither digits, fashion_mnist",
        ),
        (["--batch-size", "0"], "error: batch_size is 0: give a whole number"),
        (["--patch-size", "0"], "error: patch_size is 0: give a whole number"),
        (["--out", "/dev/null/x"], "error: /dev/null/x: Not a directory"),
    ],
)
def test_bad_options_end_with_one_clear_line(tmp_path, capsys, words, message):
    assert main([*WORDS, "--out", str(tmp_path / "run"), *words]) == 1
    said = capsys.readouterr().err
    assert said.startswith(message) and said.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_words_that_make_no_sense(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*WORDS, "--out", "x", "--speed", "9"])
    assert "unrecognized arguments: --speed 9" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    step = train_module._step

    def said(left):
        """Train so many steps and press Ctrl-C."""
        left = iter(range(left))

        def interrupted(*args):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return step(*args)

        monkeypatch.setattr(train_module, "_step", interrupted)
        assert main([*WORDS, "--out", str(tmp_path), "--save-every", "5"]) == 130
        *_, stopped, empty, last = capsys.readouterr().out.splitlines()
        assert (empty, last) == ("", "interrupted")
        return stopped

    anew = "there is no checkpoint yet, and the same command begins anew"
    on = "there is the checkpoint of step 5, and the same command goes on from it"
    assert said(3) == f"stopped after step 3: {anew}"
    assert not (tmp_path / "checkpoint.pt").exists()
    assert said(7) == f"stopped after step 7: {on}"  # it did begin anew
    assert said(0) == f"stopped after step 5: {on}"
    assert said(2) == f"stopped after step 7: {on}"


def test_an_interruption_before_the_training_promises_nothing(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "_load", interrupted)
    assert main(WORDS) == 130
    assert capsys.readouterr().out == "\ninterrupted\n"


@pytest.mark.parametrize(
    ("limit", "name"), [(9000, "checkpoint.pt"), (20, "metrics.csv")]
)
def test_a_full_disk(tmp_path, limit, name):
    """The system itself refuses bytes: its limit is lowered in mid-training."""
    pytest.importorskip("resource")
    code = """
        import resource, sys
        from vitlib import train
        save, limit = train._save, int(sys.argv.pop())
        def limited(state, *rest):
            if state.step == 42:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(state, *rest)
        train._save = limited
        sys.exit(train.main(sys.argv[1:]))
    """
    words = [*WORDS, "--out", str(tmp_path), "--save-every", "21"]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *words, str(limit)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1
    path = tmp_path / name
    assert done.stderr == (
        f"error: {path}: could not be written (File too large; the one before is "
        "intact): make room or choose another folder, then run the same command "
        "again\n"
    )
    left = {".lock", "checkpoint.pt", "classes.txt", "metrics.csv"}
    assert {path.name for path in tmp_path.iterdir()} == left
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 21
    assert main(words) == 0  # with room again it goes on


def start(words, folder):
    """Start a training, and return it when its data are loaded."""
    running = subprocess.Popen(
        command(*words, "--out", str(folder)), cwd=ROOT, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdout.readline().startswith("1,294 images")
    return running, time.monotonic()


def kill_and_compare(tmp_path, kills):
    """Train once undisturbed, then with SIGKILLs; compare what is left.

    A training that finishes before its moment comes is compared as well, and
    the next one begins.
    """
    words = [
        *WORDS[:2], "--epochs", "10", "--batch-size", "64", "--embed-dim", "16",
        "--depth", "2", "--num-heads", "2", "--device", "cpu", "--rand-ops", "1",
        "--mixup", "0.5", "--cutmix", "1", "--ema", "0.99", "--drop-rate", "0.1",
        "--save-every", "2",
    ]  # fmt: skip
    undisturbed = tmp_path / "undisturbed"
    running, begin = start(words, undisturbed)
    with running:
        for line in running.stdout:
            if line.startswith("epoch 10 of 10"):
                duration = time.monotonic() - begin
    last = torch.load(undisturbed / "checkpoint.pt", weights_only=True)["step"]

    moments = random.Random(os.urandom(8))
    killed_at, folder = [], tmp_path / "killed_0"
    while len(killed_at) < kills or not any(0 < step < last for step in killed_at):
        running, _ = start(words, folder)
        with running:
            time.sleep(moments.uniform(0, duration))
            finished = running.poll() is not None
            running.kill()
        if finished:
            compare(folder, undisturbed, killed_at)
            folder = folder.with_name(f"killed_{len(killed_at)}")
        elif (folder / "checkpoint.pt").exists():
            saved = torch.load(folder / "checkpoint.pt", weights_only=True)
            killed_at.append(saved["step"])
        else:
            killed_at.append(0)
    running, _ = start(words, folder)
    with running:
        running.stdout.read()
    compare(folder, undisturbed, killed_at)


def compare(folder, other, killed_at):
    assert {p.name for p in folder.iterdir()} == {p.name for p in other.iterdir()}
    for name in ("metrics.csv", "classes.txt"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), killed_at
    # The order of a safetensors header is not fixed.
    one, two = (load_checkpoint(f / "weights.safetensors") for f in (folder, other))
    assert one.config == two.config
    assert torch.equal(parameters_of(one), parameters_of(two)), killed_at


def test_killed_three_times_the_result_is_the_same_to_the_bit(tmp_path):
    kill_and_compare(tmp_path, kills=3)


@pytest.mark.soak
def test_killed_twenty_times_the_result_is_the_same_to_the_bit(tmp_path):
    kill_and_compare(tmp_path, kills=20)


def test_what_is_written_may_not_lie_among_the_photos(tmp_path, monkeypatch, capsys):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["--data", "."]) == 1
    assert "lies inside the data" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cats", "dogs"]
