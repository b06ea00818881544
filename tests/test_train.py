"""The plain loop learns, repeats itself, and does what it says step by step."""

import ast
import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitlib import ViT, ViTConfig
from vitlib.data import digits
from vitlib.train import evaluate, fit

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
            "weight_decay is -0.1: give a finite number greater than 0",
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
