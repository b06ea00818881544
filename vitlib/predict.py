"""From a photo to the tensor a ViT takes."""

import argparse
import math
import sys
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitlib.arguments import (
    as_pair,
    require_choice,
    require_finite,
    require_number,
    require_tensor,
    require_whole,
)
from vitlib.checkpoints import SHIPPED, load_preprocessing, load_pretrained
from vitlib.data import (
    CIFAR10_CLASSES,
    MOST_PIXELS,
    cut_centre,
    imagenet_classes,
    open_rgb,
)

# The model that classifies unless another is given.
DEFAULT = SHIPPED["cifar10_vit"]

# What each source's own code does to a photo, as arguments for `preprocess`. A single
# model may differ; `vitlib.checkpoints.load_preprocessing` reads what its files say.
PREPROCESSING = {
    # The ImageNet-21k models of Steiner et al. 2022.
    "timm": {
        "resize": "shorter",
        "crop_fraction": 0.9,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    # IMAGENET1K_V1: the shorter side becomes 256 for a crop of 224.
    "torchvision": {
        "resize": "shorter",
        "crop_fraction": 224 / 256,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
    # The defaults of ViTImageProcessor.
    "transformers": {
        "resize": "squash",
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    # google-research/vision_transformer, vit_jax/input_pipeline.py, for evaluation;
    # it resizes without antialiasing, which PIL cannot.
    "jax": {
        "resize": "squash",
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
}


def preprocess(
    image: Image.Image | str | PathLike,
    *,
    image_size: int | tuple[int, int] = 224,
    resize: str = "shorter",
    crop_fraction: float = 0.9,
    interpolation: str = "bicubic",
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
    std: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> Tensor:
    """Turn a photo upright, resize it, cut out its centre and normalise it.

    The photo becomes image_size / crop_fraction pixels large, the centre of
    image_size is kept, and pixels go from [0, 1] to (pixel - mean) / std. The
    defaults are those of the paper's ImageNet-21k models as timm ships them;
    PREPROCESSING has those of other sources.

    Args:
        image: A PIL image, or the path of an image file; grey, palette,
            transparent (on white), CMYK and rotated ones are all understood.
        image_size: Side of the square to return, or (H, W), in pixels.
        resize: "shorter" keeps the photo's proportions and fits its shorter side;
            "squash" fits both sides.
        crop_fraction: Share of the resized shorter side to keep, in [0.1, 1].
        interpolation: "bicubic" or "bilinear".
        mean: Subtracted from red, green and blue in [0, 1].
        std: Then divides them.
    Shape:
        -> (1, 3, H, W)
    Raises:
        ValueError: the file is missing or no image; an argument is out of range.
        TypeError: it is neither an image nor a path.
    Reference:
        Chapters 00 and 09.
    """
    height, width = as_pair("image_size", image_size)
    require_number("crop_fraction", crop_fraction)
    if not 0.1 <= crop_fraction <= 1:
        raise ValueError(f"crop_fraction is {crop_fraction}: give a share in [0.1, 1]")
    require_choice("resize", resize, ("shorter", "squash"))
    require_choice("interpolation", interpolation, ("bicubic", "bilinear"))
    for name, triple, above in (("mean", mean, -math.inf), ("std", std, 0)):
        if not isinstance(triple, (tuple, list)):
            raise TypeError(f"{name} is {triple!r}: give (red, green, blue)")
        if len(triple) != 3:
            raise ValueError(f"{name} has {len(triple)} values: give red, green, blue")
        for value in triple:
            require_number(name, value, above=above)

    if height * width / crop_fraction**2 > MOST_PIXELS:
        raise ValueError(
            f"image_size is {image_size!r}: give at most {MOST_PIXELS:,} pixels"
        )
    photo = cut_centre(
        image,
        (height, width),
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
    )
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255  # (3, H, W)
    mean, std = (
        torch.tensor(triple, dtype=torch.float32).view(3, 1, 1)
        for triple in (mean, std)
    )
    return ((pixels - mean) / std)[None]  # (1, 3, H, W)


@torch.no_grad()
def classify(
    model: nn.Module, image: Tensor, labels: list[str], top_k: int = 5
) -> list[tuple[str, float]]:
    """Name what a model sees in one image, likeliest first.

    Args:
        model: Maps images to class scores; it must be in eval mode.
        image: The image, as `preprocess` returns it.
        labels: What the classes are called, in the order of the scores.
        top_k: How many to return.
    Shape:
        image (1, c, H, W)
    Returns:
        (label, probability) for the top_k classes; the probability is the softmax
        over all classes.
    Raises:
        ValueError: not one image, not one label a class, top_k above the number of
            classes, a model in training mode, or scores that are not finite.
        TypeError: the image is no tensor, the model no module, or the labels no list.
    Reference:
        Chapter 09.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: give a torch.nn.Module")
    if not isinstance(labels, (list, tuple)):
        raise TypeError(f"labels is a {type(labels).__name__}: give a list of names")
    require_tensor("image", image, "1 c H W")
    require_whole("top_k", top_k)
    if len(image) != 1:
        raise ValueError(f"{len(image)} images arrived: give one, (1, c, H, W)")
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    scores = model(image)  # (1, classes)
    require_tensor("scores", scores, "1 classes")
    if len(scores) != 1:
        raise ValueError(f"the model gave {len(scores)} rows of scores for one image")
    require_finite("scores", scores)
    probabilities = scores.softmax(dim=1)[0]  # (classes)
    if len(labels) != len(probabilities):
        raise ValueError(
            f"there are {len(labels)} labels, the model scores {len(probabilities)} "
            "classes: give one label a class"
        )
    if top_k > len(labels):
        raise ValueError(f"top_k is {top_k}: there are {len(labels)} classes")
    best = probabilities.topk(top_k)
    return [
        (labels[index], probability)
        for index, probability in zip(
            best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


# The command line


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: What follows `python -m vitlib.predict`; the shell's when not given.
    Returns:
        0, or 1 after an error, which is printed.
    Raises:
        SystemExit: the words make no sense, or ask for help.
    """
    parser = argparse.ArgumentParser(
        prog="python -m vitlib.predict",
        description="Say what a ViT sees in a photo.",
    )
    parser.add_argument("photo", help="an image file")
    parser.add_argument(
        "--weights",
        default=str(DEFAULT),
        help="what `python -m vitlib.train` wrote, weights.safetensors with its "
        "classes.txt beside it; or a folder or hub name for load_pretrained (default: "
        f"{DEFAULT.name}, which ships: a small ViT for 32x32 pixels, trained on "
        f"CIFAR-10, that knows {', '.join(CIFAR10_CLASSES)})",
    )
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="classes to show (default: 5)"
    )
    options = parser.parse_args(words)
    try:
        rows = _classify_file(options.photo, options.weights, options.top_k)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    longest = max(len(label) for label, _ in rows)
    for label, probability in rows:
        print(f"{label:<{longest}}  {100 * probability:5.1f} %")
    return 0


def _classify_file(photo: str, weights: str, top_k: int) -> list[tuple[str, float]]:
    if weights == str(DEFAULT) and not DEFAULT.is_file():
        raise ValueError(
            "no model ships with this copy of vitlib: give one with --weights, for "
            "example what python -m vitlib.train wrote"
        )
    if (Path(weights) / "weights.safetensors").is_file():
        weights = str(Path(weights) / "weights.safetensors")
    model = load_pretrained(weights)
    config = model.config
    if Path(weights).is_file():
        # To the pixels that `vitlib.data.image_folder` gave it in training.
        how = {"image_size": config.image_size, "crop_fraction": 1.0}
    else:
        how = load_preprocessing(weights)
    image = open_rgb(photo).convert("L") if config.in_channels == 1 else photo
    image = preprocess(image, **how)[:, : config.in_channels]
    labels = _labels(weights, config.num_classes)
    # What ships is stored in 16 bits and computes in 32.
    return classify(model.float(), image, labels, min(top_k, len(labels)))


def _labels(weights: str, num_classes: int) -> list[str]:
    """Find the names of the classes, or number them."""
    if weights == str(DEFAULT):
        return list(CIFAR10_CLASSES)
    path = Path(weights)
    written = (path if path.is_dir() else path.parent) / "classes.txt"
    if written.is_file():
        return written.read_text("utf-8").splitlines()
    if num_classes == 1000:
        return imagenet_classes()
    return [f"class {number}" for number in range(num_classes)]


if __name__ == "__main__":
    sys.exit(main())
