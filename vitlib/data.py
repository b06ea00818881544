"""Data that ships with the book, and a task made on the spot.

Images come as float tensors (N, c, H, W) in [0, 1], labels as whole numbers (N).
"""

from importlib import resources
from operator import index

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ASSETS = resources.files("vitlib") / "assets"

# Where the ring sits, seen from the cross: the classes of the relation task.
RELATIONS = ("left", "right", "above", "below")


def sample_image(name: str = "chelsea") -> Image.Image:
    """Open one of the photos that ship with the book.

    Args:
        name: "chelsea", a cat.
    Returns:
        The photo as an RGB PIL image.
    Raises:
        ValueError: there is no such photo.
    Reference:
        Provenance in the book's page on weights and data.
    """
    samples = {
        file.name.rsplit(".", 1)[0]: file for file in (ASSETS / "samples").iterdir()
    }
    if name not in samples:
        raise ValueError(
            f"there is no sample image {name!r}: give one of "
            + ", ".join(repr(known) for known in sorted(samples))
        )
    with samples[name].open("rb") as file:
        return Image.open(file).convert("RGB")


def imagenet_classes() -> list[str]:
    """List the thousand classes of ImageNet in the order of the models' scores.

    Returns:
        The names, from "tench" to "toilet tissue".
    Reference:
        Russakovsky et al. 2015. Chapter 09.
    """
    return (ASSETS / "imagenet_classes.txt").read_text("utf-8").splitlines()


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """Load handwritten digits of 8 by 8 pixels, small enough to train in seconds.

    Every fifth image is for testing: 1,438 train, 359 test. The digits are not equally
    frequent among those 359.

    Args:
        split: "train" or "test".
    Returns:
        images (N, 1, 8, 8) in [0, 1] and labels (N), the digits 0 to 9.
    Raises:
        ValueError: unknown split.
    Reference:
        Alpaydin & Kaynak 1998. Chapter 02.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: give 'train' or 'test'")
    with (ASSETS / "digits.npz").open("rb") as file, np.load(file) as arrays:
        images = torch.from_numpy(arrays["images"])  # (N, 8, 8), 0 to 16
        labels = torch.from_numpy(arrays["labels"])  # (N)
    chosen = (torch.arange(len(labels)) % 5 == 4) == (split == "test")
    return images[chosen, None].float() / 16, labels[chosen].long()


def relation_task(
    num_images: int, *, seed: int = 0, noise: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Draw a cross and a ring on a 4 by 4 grid; the class is where the ring is.

    Both stand in one row or one column, each fills one cell of 8 by 8 pixels, and
    the cells look the same in every class. Only their places tell the classes
    apart, so a model that cannot see positions stays at chance, 25 %.

    Args:
        num_images: How many, up to a million.
        seed: Of places, classes and noise.
        noise: Standard deviation of the noise on every pixel, in [0, 1).
    Returns:
        images (num_images, 1, 32, 32) and labels (num_images), an index into
        RELATIONS: the ring is left of, right of, above or below the cross.
    Raises:
        ValueError: num_images is out of range or noise lies outside [0, 1).
    Reference:
        Made for this book. Chapter 03.
    """
    if not 1 <= index(num_images) <= 1_000_000:
        raise ValueError(f"num_images is {num_images}: give 1 to 1,000,000")
    if not isinstance(noise, (int, float)):
        raise TypeError(f"noise is {noise!r}: give a number")
    if not 0 <= noise < 1:
        raise ValueError(f"noise is {noise}: give a number in [0, 1)")
    generator = torch.Generator().manual_seed(index(seed))

    def draw(high: int) -> Tensor:
        return torch.randint(high, (num_images,), generator=generator)

    labels, line, first = draw(4), draw(4), draw(4)
    second = (first + 1 + draw(3)) % 4  # another place on the same line
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    ring_first = (labels == 0) | (labels == 2)  # left or above
    ring = torch.where(ring_first, low, high)
    cross = torch.where(ring_first, high, low)
    along_row = labels < 2

    cells = torch.zeros(num_images, 4, 4, 8, 8)
    for place, shape in ((ring, _ring()), (cross, _cross())):
        row = torch.where(along_row, line, place)
        col = torch.where(along_row, place, line)
        cells[torch.arange(num_images), row, col] = shape
    images = cells.permute(0, 1, 3, 2, 4).reshape(num_images, 1, 32, 32)
    images = images + noise * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1), labels


def _cross() -> Tensor:
    shape = torch.zeros(8, 8)
    shape[1:7, 3:5] = 1
    shape[3:5, 1:7] = 1
    return shape


def _ring() -> Tensor:
    shape = torch.zeros(8, 8)
    shape[1:7, 1:7] = 1
    shape[3:5, 3:5] = 0
    return shape
