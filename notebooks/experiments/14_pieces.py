"""Why larger images are read worse: what changes is undone bit by bit (chapter 14).

The shipped model of clothes at 56 pixels, where it learned from 28. `cut`: patches of 4
by 4 pixels, as if nothing had happened. `overlapping`: patches of 8 by 8 pixels around
the same 14 by 14 places, so each shows as much as it always showed. `repeated`: the
tokens of the image at 28 pixels, each four times, so that only their number changes.
`whole`: 7 by 7 patches of 8 by 8 pixels. All but `whole` need stretched positions. The
2,000 test images are dealt into five parts; the column `seed` is the part. Writes
14_pieces.csv beside this file, in about three minutes of one core.
"""

import csv
import itertools
import platform
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlib import ViT, resample_pos_embed
from vitlib.augment import normalise
from vitlib.checkpoints import load_pretrained
from vitlib.data import fashion_mnist

sides = import_module(f"{__package__}.14_sides" if __package__ else "14_sides")
SIDE = 56
PIECES = ("cut", "overlapping", "repeated")


def wide_kernel(model: ViT) -> Tensor:
    """Return the kernel for patches twice as wide: equal tokens on doubled images."""
    kernel = model.patch_embed.proj.weight
    return kernel.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4


def tokens_of(model: ViT, images: Tensor, pieces: str) -> Tensor:
    """Embed normalised images of 56 pixels in one of the ways, (N, n, e)."""
    proj = model.patch_embed.proj
    if pieces == "cut":
        cut = proj(images)
    elif pieces == "whole":
        cut = F.conv2d(images, wide_kernel(model), proj.bias, stride=8)
    elif pieces == "overlapping":
        framed = F.pad(images, [2] * 4, value=-1.0)  # black
        cut = F.conv2d(framed, wide_kernel(model), proj.bias, stride=4)
    else:
        small = proj(normalise(sides.resize((images + 1) / 2, 28)))
        cut = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return cut.flatten(2).mT


@torch.inference_mode()
def measure(model: ViT, pieces: str, mode: str, part: int) -> float:
    """Return the accuracy on one part of the test images."""
    images, labels = fashion_mnist("test")
    mine = sides.part_of(len(labels), part)
    pixels = normalise(sides.resize(images[mine], SIDE))
    right = 0
    for some, answers in zip(pixels.split(100), labels[mine].split(100), strict=True):
        tokens = tokens_of(model, some, pieces)  # (N, n, e)
        table = model.pos_embed  # (1, 50, e)
        if pieces != "whole":
            table = resample_pos_embed(table, (7, 7), (14, 14), mode)
        x = torch.cat([model.cls_token.expand(len(some), -1, -1), tokens], dim=1)
        x = x + table  # (N, T, e)
        for block in model.blocks:
            x = block(x)
        x = model.norm(x[:, 1:].mean(dim=1))  # (N, e)
        right += (model.head(x).argmax(dim=1) == answers).sum().item()
    return right / len(mine)


def main() -> None:
    """Measure everything and write the table."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    model = load_pretrained("fashion_mnist_vit")
    runs = [*itertools.product(PIECES, sides.MODES), ("whole", "as learned")]
    with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["pieces", "positions", "seed", "accuracy", "machine"])
        for (pieces, mode), part in itertools.product(runs, range(sides.PARTS)):
            accuracy = measure(model, pieces, mode, part)
            writer.writerow([pieces, mode, part, f"{accuracy:.4f}", machine])
            file.flush()


if __name__ == "__main__":
    main()
