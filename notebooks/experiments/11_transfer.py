"""From CIFAR-10 to clothes with few images a class (chapter 11).

    python notebooks/experiments/11_transfer.py methods
    python notebooks/experiments/11_transfer.py layers
    python notebooks/experiments/11_transfer.py forgotten --data DIR

`methods` compares, at 10, 50 and 250 images a class: a linear probe and training all
layers, both from the shipped CIFAR-10 weights; the same ViT from scratch, for as many
steps and for three times as many; and two controls, a probe of the untrained ViT and a
probe of the bare pixels. `layers` trains the head and the last blocks only, at several
rates, at 50 images a class. Three draws of images each, measured on 2,000 clothes that
nothing learns from. `forgotten` puts the old head back on bodies that learned clothes,
and measures on the photos of CIFAR-10 that the shipped model did not learn from; DIR is
what `python -m vitlib.downloads cifar10 DIR` fetched.

More than an hour of one core; every line of 11_transfer.csv is written as soon
as it is known, and a second run goes on there.
"""

import argparse
import csv
import itertools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlib import ViT
from vitlib.augment import normalise
from vitlib.checkpoints import load_pretrained
from vitlib.data import cifar10, fashion_mnist, hold_out
from vitlib.files import replace_whole
from vitlib.train import TrainConfig, evaluate, train

STEPS, BATCH_SIZE = 400, 50
# Steps, as a multiple of STEPS, and rate of each method: of 3e-4, 1e-3 and 3e-3 (for a
# head alone 1e-3 to 3e-2) what is best at 50 images a class, on the 2,000 measured.
METHODS = {
    "probe": (1, 1e-2),
    "untrained probe": (1, 1e-2),
    "pixel probe": (1, 1e-3),
    "fine-tune": (1, 1e-3),
    "scratch": (1, 1e-3),
    "scratch, longer": (3, 1e-3),
}
COUNTS = (10, 50, 250)
BLOCKS = (0, 1, 3, "all")
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = range(3)
TABLE = Path(__file__).with_suffix(".csv")
MACHINE = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"


def clothes() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return 10,000 images to learn from and 2,000 to measure on, as CIFAR-10 is cut.

    Shape:
        -> (10000, 3, 32, 32), (10000) and (2000, 3, 32, 32), (2000)
    """
    images, labels = fashion_mnist()
    images = F.pad(images, [2] * 4).repeat(1, 3, 1, 1)
    learn, measure = hold_out(labels, 1 / 6)
    return (images[learn], labels[learn]), (images[measure], labels[measure])


def few(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw `count` images of every class; return their places."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == c][:count] for c in labels.unique()])


def with_new_head(pretrained: bool, seed: int) -> ViT:
    """The shipped model or its untrained twin, with a head that says nothing yet."""
    shipped = load_pretrained("cifar10_vit")
    torch.manual_seed(seed)
    model = ViT(shipped.config)
    if pretrained:
        body = {k: v for k, v in shipped.state_dict().items() if k[:5] != "head."}
        model.load_state_dict(model.state_dict() | body)
    return model


def pixel_probe(images: Tensor, labels: Tensor, steps: int, lr: float) -> nn.Module:
    """Train a head without a body, on all images in every step and without views.

    With views and small batches, as the others learn, it is worse at every count.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10))
    nn.init.zeros_(model[1].weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        loss = F.cross_entropy(model(normalise(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def freeze_but(model: ViT, blocks: int) -> None:
    """Let only the head learn, or the last norm and the last `blocks` blocks too."""
    model.requires_grad_(False)
    parts = [model.norm, *model.blocks[-blocks:]] if blocks else []
    for part in (model.head, *parts):
        part.requires_grad_(True)


def learn(
    model: ViT, images: Tensor, labels: Tensor, steps: int, lr: float, seed: int
) -> None:
    """Train what may learn."""
    epochs = round(steps * BATCH_SIZE / len(labels))
    recipe = dict(batch_size=BATCH_SIZE, epochs=epochs, lr=lr, seed=seed, crop=0.04)
    train(model, images, labels, config=TrainConfig(**recipe, bf16=True, device="cpu"))


def jobs(what: str) -> list[tuple]:
    """List (what, method, count, blocks, lr, seed)."""
    if what == "methods":
        return [
            (what, method, count, 0 if "probe" in method else "all", lr, seed)
            for (method, (_, lr)), count, seed in itertools.product(
                METHODS.items(), COUNTS, SEEDS
            )
        ]
    if what == "forgotten":
        return [(what, "fine-tune", 50, "all", 1e-3, seed) for seed in SEEDS]
    layers = [("fine-tune", blocks) for blocks in BLOCKS] + [("scratch", "all")]
    return [
        (what, method, 50, blocks, lr, seed)
        for (method, blocks), lr, seed in itertools.product(layers, RATES, SEEDS)
    ]


def run(job: tuple, data: str | None = None) -> dict:
    """Train one model and return its row of the table."""
    what, method, count, blocks, lr, seed = job
    (images, labels), measured = clothes()
    drawn = few(labels, count, seed)
    images, labels = images[drawn], labels[drawn]
    steps = METHODS[method][0] * STEPS
    if method == "pixel probe":
        model = pixel_probe(images, labels, steps, lr)
    else:
        model = with_new_head(method in ("probe", "fine-tune"), seed)
        if blocks != "all":
            freeze_but(model, blocks)
        learn(model, images, labels, steps, lr, seed)
    if what == "forgotten":
        model.head = load_pretrained("cifar10_vit").head
        photos, names = cifar10(data)
        _, held = hold_out(names, 0.1)
        measured = photos[held], names[held]
    accuracy = evaluate(model, normalise(measured[0]), measured[1])
    return dict(zip(COLUMNS, (*job, f"{accuracy:.4f}", MACHINE), strict=True))


COLUMNS = ("what", "method", "count", "blocks", "lr", "seed", "accuracy", "machine")


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("methods", "layers", "forgotten"))
    parser.add_argument("--data", help="the folder with CIFAR-10")
    options = parser.parse_args()
    if options.what == "forgotten" and options.data is None:
        parser.error("forgotten needs --data, the folder with CIFAR-10")
    torch.set_num_threads(1)
    rows = []
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {tuple(row.values())[:-2] for row in rows}
    for job in jobs(options.what):
        if tuple(map(str, job)) in done:
            continue
        rows.append(run(job, options.data))
        print(rows[-1], flush=True)
        with replace_whole(TABLE) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
