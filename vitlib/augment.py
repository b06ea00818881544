"""Other views of the same images: whole batches at once, each image by its own dice.

Every function takes images (b, c, H, W) in [0, 1] and a `torch.Generator`, and draws
from nothing else: the same generator gives the same images. The dice are rolled on
the generator's device, so one on the CPU serves images on any device.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlib.arguments import (
    require_float,
    require_number,
    require_tensor,
    require_whole,
)


def normalise(images: Tensor) -> Tensor:
    """Move pixels from [0, 1] to [-1, 1], as `vitlib.predict.preprocess` does.

    Args:
        images: Pixels.
    Returns:
        (images - 0.5) / 0.5
    Reference:
        Chapter 10.
    """
    return (images - 0.5) / 0.5


def flip(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Mirror every second image, on average, left to right.

    Args:
        images: Pixels.
        generator: Where the randomness comes from.
    Shape:
        images (b, c, H, W) -> (b, c, H, W)
    Raises:
        ValueError: images are not floats with these axes.
    Reference:
        Chapter 10.
    """
    _require_images(images, generator)
    mirrored = _uniform(len(images), generator, images) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def pad_crop(images: Tensor, padding: int, *, generator: torch.Generator) -> Tensor:
    """Shift every image by up to `padding` pixels; black fills what opens.

    The same as to pad all sides and to cut a window of the old size at random.

    Args:
        images: Pixels.
        padding: The largest shift, in pixels.
        generator: Where the randomness comes from.
    Shape:
        images (b, c, H, W) -> (b, c, H, W)
    Raises:
        ValueError: images are not floats with these axes, or padding is negative or
            larger than an image.
    Reference:
        He et al. 2016, sec. 4.2. Chapter 10.
    """
    _require_images(images, generator)
    require_whole("padding", padding, at_least=0)
    b, c, height, width = images.shape
    if padding > min(height, width):
        raise ValueError(
            f"padding is {padding}, the images are {height}x{width}: give at most "
            f"{min(height, width)}, which may move an image out of sight"
        )
    device = images.device
    corners = torch.randint(
        2 * padding + 1, (2, b), generator=generator, device=generator.device
    ).to(device)
    rows = corners[0, :, None] + torch.arange(height, device=device)  # (b, H)
    cols = corners[1, :, None] + torch.arange(width, device=device)  # (b, W)
    return F.pad(images, [padding] * 4)[
        torch.arange(b, device=device)[:, None, None, None],
        torch.arange(c, device=device)[None, :, None, None],
        rows[:, None, :, None],
        cols[:, None, None, :],
    ]


def rand_augment(
    images: Tensor,
    *,
    num_ops: int = 2,
    magnitude: float = 0.3,
    generator: torch.Generator,
) -> Tensor:
    """Change every image by `num_ops` operations drawn from RANDOM_OPS.

    Each image draws its own operations and their strengths and signs. Where an
    image is moved, grey fills what opens.

    Args:
        images: Pixels in [0, 1].
        num_ops: How many operations an image, one after the other.
        magnitude: The strongest change, in (0, 1].
        generator: Where the randomness comes from.
    Shape:
        images (b, c, H, W) -> (b, c, H, W)
    Raises:
        ValueError: images are not floats with these axes, or a number is out of range.
    Reference:
        Cubuk et al. 2020, "RandAugment". Chapter 10.
    """
    _require_images(images, generator)
    require_whole("num_ops", num_ops)
    require_number("magnitude", magnitude)
    if magnitude > 1:
        raise ValueError(f"magnitude is {magnitude}: give a number in (0, 1]")
    ops = tuple(RANDOM_OPS.values())
    for _ in range(num_ops):
        chosen = torch.randint(
            len(ops), (len(images),), generator=generator, device=generator.device
        )
        strength = 2 * _uniform(len(images), generator, images) - 1
        strength = magnitude * strength[:, None, None, None]  # (b, 1, 1, 1), in (-1, 1)
        changed = images.clone()
        for number, op in enumerate(ops):
            mine = (chosen == number).nonzero()[:, 0].to(images.device)
            changed[mine] = op(images[mine], strength[mine])
        images = changed.clamp(0, 1)
    return images


def mixup(
    images: Tensor, targets: Tensor, alpha: float, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend every image, and its target, with another one of the batch.

    Args:
        images: Pixels.
        targets: What to answer, a distribution over the classes.
        alpha: The share of an image comes from Beta(alpha, alpha): 1 for any share
            alike, close to 0 for nearly unmixed images.
        generator: Where the randomness comes from.
    Shape:
        images (b, c, H, W), targets (b, classes) -> the same
    Raises:
        ValueError: the shapes do not fit, or alpha is not positive.
    Reference:
        Zhang et al. 2018, "mixup". Chapter 10.
    """
    _require_pairs(images, targets, generator)
    share = _beta(len(images), alpha, generator, images)  # (b)
    other = _shuffled(len(images), generator).to(images.device)
    return (
        _blend(images, images[other], share[:, None, None, None]),
        _blend(targets, targets[other], share[:, None]),
    )


def cutmix(
    images: Tensor, targets: Tensor, alpha: float, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paste a box out of another image of the batch; targets follow the areas.

    Args:
        images: Pixels.
        targets: What to answer, a distribution over the classes.
        alpha: The share of an image that stays comes from Beta(alpha, alpha), before
            the box is cut off at the edges.
        generator: Where the randomness comes from.
    Shape:
        images (b, c, H, W), targets (b, classes) -> the same
    Raises:
        ValueError: the shapes do not fit, or alpha is not positive.
    Reference:
        Yun et al. 2019, "CutMix". Chapter 10.
    """
    _require_pairs(images, targets, generator)
    b, _, height, width = images.shape
    side = (1 - _beta(b, alpha, generator, images)).sqrt()  # (b), of the box
    centre = [_uniform(b, generator, images) for _ in range(2)]
    inside = []
    for length, middle in zip((height, width), centre, strict=True):
        pixel = torch.arange(length, device=images.device)  # (H) or (W)
        low = ((middle - side / 2) * length).round()[:, None]
        high = ((middle + side / 2) * length).round()[:, None]
        inside.append((low <= pixel) & (pixel < high))  # (b, H) or (b, W)
    box = inside[0][:, :, None] & inside[1][:, None, :]  # (b, H, W)
    share = 1 - box.float().mean(dim=(1, 2))  # (b), what truly stays
    other = _shuffled(b, generator).to(images.device)
    return (
        torch.where(box[:, None], images[other], images),
        _blend(targets, targets[other], share[:, None]),
    )


# The operations: images (b, c, H, W) and strength (b, 1, 1, 1) in (-1, 1).


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return images * (1 + strength)


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + strength)


def _colour(images: Tensor, strength: Tensor) -> Tensor:
    grey = images.mean(dim=1, keepdim=True)
    return grey + (images - grey) * (1 + strength)


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return blurred + (images - blurred) * (1 + strength)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    steps = 2 ** (8 - 6 * strength.abs()).floor() - 1  # 8 bits, 2 at the strongest
    return (images * steps).round() / steps


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    return torch.where(images > 1 - strength.abs(), 1 - images, images)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    low, high = (f(images, dim=(2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    return torch.where(high > low, (images - low) / (high - low + 1e-6), images)


def _rotate(images: Tensor, strength: Tensor) -> Tensor:
    angle = strength * math.radians(60)
    return _move(images, angle.cos(), -angle.sin(), 0, angle.sin(), angle.cos(), 0)


def _shear_x(images: Tensor, strength: Tensor) -> Tensor:
    return _move(images, 1, strength, 0, 0, 1, 0)


def _shear_y(images: Tensor, strength: Tensor) -> Tensor:
    return _move(images, 1, 0, 0, strength, 1, 0)


def _translate_x(images: Tensor, strength: Tensor) -> Tensor:
    return _move(images, 1, 0, strength, 0, 1, 0)


def _translate_y(images: Tensor, strength: Tensor) -> Tensor:
    return _move(images, 1, 0, 0, 0, 1, strength)


def _move(images: Tensor, *matrix: Tensor | float) -> Tensor:
    """Look each pixel up where the 2 by 3 matrix says; grey beyond the edges."""
    if len(images) == 0:
        return images
    like = images[:, 0, 0, 0]
    entries = [
        m.view(-1) if isinstance(m, Tensor) else torch.full_like(like, m)
        for m in matrix
    ]
    theta = torch.stack(entries, dim=1).view(-1, 2, 3)
    places = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images - 0.5, places, align_corners=False) + 0.5


RANDOM_OPS = {
    "identity": lambda images, strength: images,
    "brightness": _brightness,
    "contrast": _contrast,
    "colour": _colour,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


def _blend(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return share * one + (1 - share) * other


def _uniform(count: int, generator: torch.Generator, like: Tensor) -> Tensor:
    dice = torch.rand(count, generator=generator, device=generator.device)
    return dice.to(like.device, like.dtype)


def _shuffled(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator, device=generator.device)


def _beta(count: int, alpha: float, generator: torch.Generator, like: Tensor) -> Tensor:
    require_number("alpha", alpha)
    # PyTorch draws from a Beta only by its global seed.
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    share = np.random.default_rng(seed.item()).beta(alpha, alpha, size=count)
    return torch.from_numpy(share).to(like.device, like.dtype)


def _require_images(images: Tensor, generator: torch.Generator) -> None:
    require_tensor("images", images, "b c H W")
    require_float("images", images)
    if 0 in images.shape:
        raise ValueError(f"images has shape {tuple(images.shape)}: give at least one")
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is a {type(generator).__name__}: give a torch.Generator, such "
            "as torch.Generator().manual_seed(0)"
        )


def _require_pairs(images: Tensor, targets: Tensor, generator: torch.Generator) -> None:
    _require_images(images, generator)
    require_tensor("targets", targets, "b classes")
    if len(images) != len(targets):
        raise ValueError(
            f"{len(images)} images and {len(targets)} targets arrived: give one row "
            "of class probabilities for each image"
        )
    if not targets.is_floating_point():
        raise ValueError(
            f"targets is {targets.dtype}: give class probabilities as floats, for "
            "labels F.one_hot(labels, num_classes).float()"
        )
