"""A ViT and small CNNs on clothes: few and many, moved and scrambled (chapter 12).

One CNN has the parameters of the ViT, another its operations; an MLP on bare pixels
takes nothing for granted. Measured is how accuracy grows with the number of training
images, for clothes in the middle and for smaller ones that stand anywhere; and what is
left of it when patches, or patches and the pixels inside every patch, or all pixels are
laid in another order, fixed once for all images. Most trainings take the same number of
steps; some take four times as many, or another learning rate, as controls.

A seed draws the start, the batches and, but for all 12,000, the training images.
`unseen` is the accuracy on 2,000 training images that were left out: learning rates are
compared by it. `lost` and `won` are the shares of test images that are answered rightly
only inside, or only at the edge, where the same small picture was put at both places.

Appends to 12_vit_vs_cnn.csv beside this file, in about an hour of one core; run again,
it goes on where it was stopped.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlib import ViT, ViTConfig, merge_patches, sincos_2d, split_patches
from vitlib.augment import normalise
from vitlib.data import fashion_mnist
from vitlib.train import evaluate, fit

CONFIG = ViTConfig(
    image_size=28,
    patch_size=7,
    in_channels=1,
    num_classes=10,
    embed_dim=48,
    depth=3,
    num_heads=4,
    mlp_ratio=2.0,
    pool="mean",
    fused=True,
)
CHANNELS = {"CNN, equal parameters": (26, 52, 100), "CNN, equal compute": (12, 24, 44)}
MODELS = ("ViT", *CHANNELS, "MLP")
DUEL = "ViT", "CNN, equal compute"
CLOTHES = ("middle", "anywhere")
SIZES = (100, 500, 2500, 12000)
STEPS, LONG = 800, 3200
BATCH_SIZE, LR = 64, 0.003
SMALL = 16  # side of the clothes that stand anywhere
LEFT_OUT = 2000

# Clothes, world, model, images, steps, learning rate.
PLAIN = list(itertools.product(CLOTHES, ("plain",), MODELS, SIZES, (STEPS,), (LR,)))
SCRAMBLED = [
    *itertools.product(CLOTHES, ("both",), DUEL, (2500,), (STEPS,), (LR,)),
    *itertools.product(("small",), ("plain", "both"), DUEL, (2500,), (STEPS,), (LR,)),
    *itertools.product(("anywhere",), ("patches",), DUEL, (2500,), (STEPS,), (LR,)),
    *itertools.product(CLOTHES, ("all",), ("ViT",), (2500,), (STEPS,), (LR,)),
]
SINES = [
    (clothes, world, "ViT, sines", 2500, STEPS, LR)
    for clothes, world in (
        ("middle", "plain"),
        ("anywhere", "plain"),
        ("anywhere", "both"),
    )
]
CONTROLS = [
    *itertools.product(("anywhere",), ("plain",), DUEL, (2500, 12000), (LONG,), (LR,)),
    *itertools.product(
        ("anywhere",), ("plain",), DUEL, (2500,), (STEPS,), (0.001, 0.009)
    ),
]
TABLE = Path(__file__).with_suffix(".csv")
VARIANT = "clothes", "world", "model", "images", "steps", "lr", "seed"
MEASURED = "accuracy", "train_accuracy", "unseen", "lost", "won"


class CNN(nn.Sequential):
    """Three convolutions of 3 by 3, a mean over all places, a linear head."""

    def __init__(self, channels: tuple[int, ...], num_classes: int = 10):
        layers = []
        for before, after in itertools.pairwise((1, *channels)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        layers[-1] = nn.AdaptiveAvgPool2d(1)
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels[-1], num_classes))


def build(model: str) -> nn.Module:
    """Make a fresh model.

    The positions of the ViT start as noise, in which no place is near another. Loud
    noise: a table that starts quiet often stays poor (chapter 03). "ViT, sines" starts
    with sines, which know the grid.
    """
    if model in CHANNELS:
        return CNN(CHANNELS[model])
    if model == "MLP":
        layers = nn.Linear(28 * 28, 76), nn.GELU(), nn.Linear(76, 10)
        return nn.Sequential(nn.Flatten(), *layers)
    vit = ViT(CONFIG)
    nn.init.normal_(vit.pos_embed, std=0.5)
    if model == "ViT, sines":
        with torch.no_grad():
            vit.pos_embed[0, 1:] = sincos_2d(CONFIG.grid_size, CONFIG.embed_dim)
    return vit


def corners_of(count: int, seed: int, room: int = 28 - SMALL) -> Tensor:
    """Draw a place for each of the small pictures, (count, 2)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(room + 1, (count, 2), generator=generator)


def inside_and_edge(count: int, room: int = 28 - SMALL) -> tuple[Tensor, Tensor]:
    """Draw places that do not touch the border, and the same moved to one side."""
    generator = torch.Generator().manual_seed(2)
    inside = torch.randint(1, room, (count, 2), generator=generator)
    axis = torch.randint(2, (count,), generator=generator)
    side = room * torch.randint(2, (count,), generator=generator)
    edge = inside.clone()
    edge[torch.arange(count), axis] = side
    return inside, edge


def place(images: Tensor, corners: Tensor) -> Tensor:
    """Put smaller copies of images on black, at the corners given."""
    size = (SMALL, SMALL)
    small = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    canvas = torch.zeros_like(images)
    for target, image, (row, col) in zip(canvas, small, corners.tolist(), strict=True):
        target[:, row : row + SMALL, col : col + SMALL] = image
    return canvas


def orders() -> tuple[Tensor, Tensor, Tensor]:
    """Return the fixed orders: 16 patches, 49 pixels in a patch, all 784 pixels."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randperm(n, generator=generator) for n in (16, 49, 784))


def scramble(images: Tensor, world: str) -> Tensor:
    """Lay images in the order of a world; "plain" leaves them as they are."""
    patch_order, pixel_order, all_pixels = orders()
    if world == "all":
        return images.flatten(1)[:, all_pixels].view_as(images)
    patches = split_patches(images, 7)  # (N, 16, 49)
    if world != "plain":
        patches = patches[:, patch_order]
    if world == "both":
        patches = patches[:, :, pixel_order]
    return merge_patches(patches, 7, 28)


def data(split: str, clothes: str, world: str) -> tuple[Tensor, Tensor]:
    """Return images as the models see them, and labels."""
    images, labels = fashion_mnist(split)
    if clothes == "anywhere":
        seed = ("train", "test").index(split)
        images = place(images, corners_of(len(images), seed))
    if clothes == "small":
        images = place(images, torch.full((len(images), 2), (28 - SMALL) // 2))
    return normalise(scramble(images, world)), labels


def at_the_edge(network: nn.Module) -> tuple[float, float]:
    """Return the shares that are right only inside, and only at the edge."""
    images, labels = fashion_mnist("test")
    right = []
    for corners in inside_and_edge(len(images)):
        with torch.inference_mode():
            scores = network.eval()(normalise(place(images, corners)))  # (N, 10)
        right.append(scores.argmax(dim=1) == labels)
    inside, edge = right
    return [(a & ~b).float().mean().item() for a, b in ((inside, edge), (edge, inside))]


def measure(
    clothes: str, world: str, model: str, images: int, steps: int, lr: float, seed: int
) -> list[str]:
    """Train one model; return what MEASURED names."""
    pixels, labels = data("train", clothes, world)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    seen, unseen = order[:images], order[images : images + LEFT_OUT]
    torch.manual_seed(seed)
    network = build(model)
    batches = dict(steps=steps, batch_size=BATCH_SIZE, lr=lr, seed=seed)
    fit(network, pixels[seen], labels[seen], **batches)
    results = [
        evaluate(network, *data("test", clothes, world)),
        evaluate(network, pixels[seen[:2000]], labels[seen[:2000]]),
    ]
    if len(unseen):
        results.append(evaluate(network, pixels[unseen], labels[unseen]))
    found = [f"{result:.4f}" for result in results] + [""] * (3 - len(results))
    if (clothes, world) == ("anywhere", "plain"):
        return found + [f"{share:.4f}" for share in at_the_edge(network)]
    return [*found, "", ""]


def seeds_of(run: tuple) -> range:
    """Return five seeds where the ViT is compared with itself, else three."""
    _, _, model, images, steps, lr = run
    return range(5 if (model, images, steps, lr) == ("ViT", 2500, STEPS, LR) else 3)


def main() -> None:
    """Train what the table does not have yet."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    known = {tuple(row[: len(VARIANT)]) for row in rows()}
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow([*VARIANT, *MEASURED, "machine"])
        for run in (*SCRAMBLED, *PLAIN, *SINES, *CONTROLS):
            for seed in seeds_of(run):
                if tuple(map(str, (*run, seed))) not in known:
                    writer.writerow([*run, seed, *measure(*run, seed), machine])
                    file.flush()


def rows() -> list[list[str]]:
    """Read the rows that are known, without the names of the columns."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return list(csv.reader(file))[1:]


if __name__ == "__main__":
    main()
