"""Hold our speed and memory against timm's, side by side.

Each number is the median of ratios taken round by round, in CPU time of one thread.
timm runs twice in every round: its ratio to itself says how far to trust the others.
The results go to book/ratios.csv. Not collected by default: it wants a quiet machine
and about ten minutes.
"""

import csv
import dataclasses
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn

from vitlib import VIT_B_16, VIT_TI_16, MultiHeadAttention, ViT, ViTConfig
from vitlib.checkpoints import to_timm

RATIOS = Path(__file__).parents[2] / "book/ratios.csv"
ROUNDS = 9
CIFAR = ViTConfig(
    image_size=32, patch_size=4, num_classes=10, embed_dim=192, depth=6, num_heads=3
)
CELLS = {
    "ViT-B/16, 1 image": (VIT_B_16, 1),
    "ViT-B/16, 8 images": (VIT_B_16, 8),
    "ViT-Ti/16, 8 images": (VIT_TI_16, 8),
    "32x32 pixels, 32 images": (CIFAR, 32),
}
# Differences below three percent are ties.
TIE = 1.03


@pytest.fixture(scope="module")
def record():
    """Collect (ratio, goal) by name; write them all at the end."""
    rows = {}
    if RATIOS.exists():
        with RATIOS.open(encoding="utf-8", newline="") as file:
            rows = {row[0]: row[1:] for row in list(csv.reader(file))[1:]}
    yield rows
    with RATIOS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what is divided by what", "ratio", "goal"])
        writer.writerows([what, *row] for what, row in rows.items())


def pair_of(config, fused):
    """Build our model and timm's, with the same numbers in them."""
    ours = ViT(dataclasses.replace(config, fused=fused))
    set_fused_attn(fused)
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.num_classes,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
    )
    theirs.load_state_dict(to_timm(ours), strict=True)
    return ours, theirs


def ratios_to_first(contenders):
    """Run all in turn, round by round; the first is the measure."""
    times = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):
        order = list(contenders)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            start = time.process_time()
            contenders[name]()
            times[name].append(time.process_time() - start)
    measure, *others = times
    return {
        name: statistics.median(
            mine / its
            for mine, its in zip(times[name][1:], times[measure][1:], strict=True)
        )
        for name in others
    }


@pytest.mark.parametrize("cell", CELLS)
def test_forward(cell, record):
    config, count = CELLS[cell]
    images = torch.randn(count, 3, *[config.image_size] * 2)
    fused, theirs = pair_of(config, True)
    written_out, theirs_unfused = pair_of(config, False)
    half = pair_of(config, True)[0].bfloat16()
    half_images = images.bfloat16()
    for model in (fused, theirs, written_out, theirs_unfused, half):
        model.eval()
    with torch.inference_mode():
        to_fused = ratios_to_first(
            {
                "timm": lambda: theirs(images),
                "again": lambda: theirs(images),
                "fused": lambda: fused(images),
                "half": lambda: half(half_images),
            }
        )
        to_unfused = ratios_to_first(
            {
                "timm": lambda: theirs_unfused(images),
                "einsum": lambda: written_out(images),
            }
        )
    rows = {
        "timm / timm": (to_fused["again"], "0.97 to 1.03"),
        "fused / timm, fused": (to_fused["fused"], "1.03"),
        "einsum / timm, unfused": (to_unfused["einsum"], "1.03"),
        "fused, bfloat16 / timm, fused": (to_fused["half"], "0.60"),
    }
    for name, (ratio, goal) in rows.items():
        record[f"{cell}, forward: {name}"] = (f"{ratio:.2f}", goal)
    assert 0.97 <= to_fused["again"] <= TIE, "the machine is not quiet"
    assert to_fused["fused"] <= TIE
    assert to_unfused["einsum"] <= TIE


@pytest.mark.parametrize("cell", ["ViT-B/16, 1 image", "32x32 pixels, 32 images"])
def test_training_step(cell, record):
    config, count = CELLS[cell]
    images = torch.randn(count, 3, *[config.image_size] * 2)
    labels = torch.randint(config.num_classes, (count,))

    def step_of(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step():
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return step

    ours, theirs = pair_of(config, True)
    theirs_step = step_of(theirs)
    ratios = ratios_to_first(
        {"timm": theirs_step, "again": theirs_step, "ours": step_of(ours)}
    )
    record[f"{cell}, training step: timm / timm"] = (
        f"{ratios['again']:.2f}",
        "0.97 to 1.03",
    )
    record[f"{cell}, training step: fused / timm, fused"] = (
        f"{ratios['ours']:.2f}",
        "1.03",
    )
    assert 0.97 <= ratios["again"] <= TIE, "the machine is not quiet"
    assert ratios["ours"] <= TIE


def peak_of(function, *arguments):
    """Run in a fresh process; return the megabytes it needed at most."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(measure_peak, (function, arguments))


def measure_peak(function, arguments):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    function(*arguments)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def attend_to_4096(fused):
    torch.set_num_threads(1)
    layer = MultiHeadAttention(192, 3, fused=fused)
    with torch.inference_mode():
        layer(torch.randn(1, 4096, 192))


def test_attention_memory(record):
    ratio = peak_of(attend_to_4096, True) / peak_of(attend_to_4096, False)
    record["attention over 4096 tokens, peak memory: fused / einsum"] = (
        f"{ratio:.3f}",
        "0.05",
    )
    assert ratio <= 0.05
