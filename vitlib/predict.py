"""From a photo to the tensor a ViT takes."""

import argparse
import math
import sys
from importlib import resources
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from vitlib.arguments import (
    as_pair,
    require_choice,
    require_finite,
    require_number,
    require_tensor,
    require_whole,
)
from vitlib.checkpoints import load_preprocessing, load_pretrained
from vitlib.data import CIFAR10_CLASSES

# The model that ships, if this copy of the library has it.
SHIPPED = resources.files("vitlib") / "assets" / "cifar10_vit.safetensors"
# About 400 MB in red, green and blue.
MOST_PIXELS = 2**27

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
    photo = open_rgb(image)
    tall, wide = math.floor(height / crop_fraction), math.floor(width / crop_fraction)
    if resize == "squash":
        size = (wide, tall)
    elif tall * photo.width >= wide * photo.height:
        size = (int(tall * photo.width / photo.height), tall)
    else:
        size = (wide, int(wide * photo.height / photo.width))
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(
            f"the image is {photo.width}x{photo.height}: so narrow that resizing its "
            "shorter side makes it huge; crop it first"
        )
    photo = photo.resize(size, Image.Resampling[interpolation.upper()])
    left = round((photo.width - width) / 2)
    top = round((photo.height - height) / 2)
    photo = photo.crop((left, top, left + width, top + height))

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


def open_rgb(image: Image.Image | str | PathLike) -> Image.Image:
    """Open a photo the way a person sees it: upright, in red, green and blue.

    Args:
        image: A PIL image, or the path of an image file.
    Returns:
        An RGB PIL image; transparent parts are white.
    Raises:
        ValueError: the file is missing, cut short or no image, or has no pixels.
        TypeError: it is neither an image nor a path.
    Reference:
        Chapters 00 and 09.
    """
    if not isinstance(image, (Image.Image, str, PathLike)):
        raise TypeError(
            f"image is a {type(image).__name__}: give a PIL image or a file's path"
        )
    image = _load_upright(image)
    if 0 in image.size:
        raise ValueError(f"the image is {image.width}x{image.height}: it has no pixels")
    if image.mode.startswith("I;16"):
        # Sixteen bits hold 257 shades for each that eight bits hold.
        image = Image.fromarray((np.array(image) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"the image has mode {image.mode!r}, whose range is unknown: "
            "scale it to 0-255 and convert it to mode 'L' or 'RGB'"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _load_upright(image: Image.Image | str | PathLike) -> Image.Image:
    try:
        if isinstance(image, Image.Image):
            return ImageOps.exif_transpose(image)
        with Image.open(image) as file:
            return ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {str(image)!r}: check the path") from error
    # Each of PIL's decoders fails in its own way, and only when it needs the pixels.
    except Exception as error:
        raise ValueError(
            f"{str(image)!r} cannot be read as an image ({error}): it may be cut short "
            "or no image; open it in a viewer and save it again as PNG or JPEG"
        ) from error


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
        default=str(SHIPPED),
        help="what `python -m vitlib.train` wrote, weights.safetensors with its "
        "classes.txt beside it; or a folder or hub name for load_pretrained (default: "
        "the CIFAR-10 model that ships)",
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
    if weights == str(SHIPPED) and not SHIPPED.is_file():
        raise ValueError(
            "no model ships with this copy of vitlib: give one with --weights, for "
            "example what python -m vitlib.train wrote"
        )
    if (Path(weights) / "weights.safetensors").is_file():
        weights = str(Path(weights) / "weights.safetensors")
    model = load_pretrained(weights)
    config = model.config
    if Path(weights).is_file():
        # As `vitlib.data.image_folder` prepared the photos that it was trained on.
        how = {"image_size": config.image_size, "crop_fraction": 1.0}
    else:
        how = load_preprocessing(weights)
    image = open_rgb(photo)
    if config.in_channels == 1:
        image = image.convert("L")
    image = preprocess(image, **how)[:, : config.in_channels]
    labels = _labels(weights, config.num_classes)
    # What ships is stored in 16 bits and computes in 32.
    return classify(model.float(), image, labels, min(top_k, len(labels)))


def _labels(weights: str, num_classes: int) -> list[str]:
    """Find the names of the classes, or number them."""
    beside = Path(weights).with_name("classes.txt")
    if weights == str(SHIPPED):
        return list(CIFAR10_CLASSES)
    if beside.is_file():
        return beside.read_text("utf-8").splitlines()
    return [f"class {number}" for number in range(num_classes)]


if __name__ == "__main__":
    sys.exit(main())
