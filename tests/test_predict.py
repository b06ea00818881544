"""From files of every kind to upright, normalised pixels."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from vitlib import ViT, ViTConfig, predict
from vitlib.augment import normalise
from vitlib.checkpoints import save_checkpoint
from vitlib.data import image_folder, open_rgb
from vitlib.predict import PREPROCESSING, classify, main, preprocess

RNG = np.random.default_rng(0)
ORIENTATION = 0x0112
# What a viewer does with the stored pixels, by EXIF orientation.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


def photo(height=5, width=7, channels=3):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def pixels_of(image):
    return np.array(open_rgb(image))


# ---- every kind of picture -------------------------------------------------------


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff", None])
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    stored = photo()
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    if suffix is not None:
        path = tmp_path / f"photo.{suffix}"
        image.save(path, exif=exif)
        image = path
    assert np.array_equal(pixels_of(image), UPRIGHT[orientation](stored))


def test_a_turned_jpeg_is_turned(tmp_path):
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:, 16:] = 255  # right half white; upright (6: a quarter clockwise) below
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(stored).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    upright = pixels_of(tmp_path / "photo.jpg")
    assert upright.shape == (32, 16, 3)
    assert upright[:14].max() < 20 and upright[18:].min() > 235


def test_grey_becomes_three_equal_channels():
    grey = photo(channels=1)
    assert np.array_equal(pixels_of(Image.fromarray(grey)), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grey_keeps_its_shades(tmp_path, suffix):
    grey = photo(channels=1)
    grey[0, :2] = 0, 255
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    deep.save(tmp_path / f"deep.{suffix}")
    expected = np.stack([grey] * 3, -1)
    assert np.array_equal(pixels_of(deep), expected)
    assert np.array_equal(pixels_of(tmp_path / f"deep.{suffix}"), expected)


def test_black_and_white():
    bits = RNG.integers(0, 2, (5, 7)).astype(bool)
    expected = np.stack([bits * np.uint8(255)] * 3, -1)
    assert np.array_equal(pixels_of(Image.fromarray(bits)), expected)


def test_a_palette_gives_its_colours():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([2, 0, 1])
    assert pixels_of(image).tolist() == [[[70, 80, 90], [10, 20, 30], [40, 50, 60]]]


def test_a_palettes_transparent_colour_is_white(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([2, 0, 1])
    image.save(tmp_path / "palette.png", transparency=0)
    expected = [[[70, 80, 90], [255, 255, 255], [40, 50, 60]]]
    assert pixels_of(tmp_path / "palette.png").tolist() == expected


def test_alpha_is_laid_on_white():
    rgba = photo(channels=4)
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    found = pixels_of(Image.fromarray(rgba))
    assert np.abs(found - expected).max() <= 1
    assert (found[0, 0] == 255).all() and (found[0, 1] == rgba[0, 1, :3]).all()


def test_grey_with_alpha_is_laid_on_white():
    image = Image.fromarray(photo(channels=2))
    shade, alpha = np.moveaxis(np.array(image).astype(float), 2, 0)
    expected = shade * alpha / 255 + 255 - alpha
    found = pixels_of(image)
    assert np.abs(found - expected[..., None]).max() <= 1


def test_cmyk_becomes_rgb(tmp_path):
    inks = photo(channels=4)
    image = Image.fromarray(inks, mode="CMYK")
    image.save(tmp_path / "print.tiff")
    paper = 255.0 - inks
    expected = paper[..., :3] * paper[..., 3:] / 255
    for source in (image, tmp_path / "print.tiff"):
        assert np.abs(pixels_of(source) - expected).max() <= 1


def test_a_colour_photo_is_left_as_it_is(tmp_path):
    pixels = photo()
    image = Image.fromarray(pixels)
    image.save(tmp_path / "photo.png")
    for source in (image, tmp_path / "photo.png", str(tmp_path / "photo.png")):
        assert np.array_equal(pixels_of(source), pixels)
        assert open_rgb(source).mode == "RGB"
    assert np.array_equal(np.array(image), pixels)


# ---- resize, crop, normalise -----------------------------------------------------


def test_crop_and_normalise_without_resizing():
    """At crop_fraction 1 and the right shorter side nothing is resampled."""
    pixels = photo(8, 13)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    found = preprocess(
        Image.fromarray(pixels), image_size=8, crop_fraction=1, mean=mean, std=std
    )
    assert found.shape == (1, 3, 8, 8) and found.dtype == torch.float32
    for channel in range(3):
        for y in range(8):
            for x in range(8):
                value = pixels[y, x + 2, channel] / 255  # round((13 - 8) / 2) = 2
                expected = (value - mean[channel]) / std[channel]
                assert found[0, channel, y, x].item() == pytest.approx(
                    expected, abs=1e-6
                )


def smooth_photo(height, width):
    """Slow waves: a resampler's rounding stays below one shade."""
    y, x = np.mgrid[0:height, 0:width] / 9
    waves = [np.sin(y + 0.5), np.cos(x), np.sin(x + 2 * y)]
    return np.round(np.stack(waves, -1) * 100 + 128).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("photo_size", "image_size", "crop_fraction", "resized", "corner"),
    [
        # resized: the shorter side to floor(size / crop_fraction), the other along
        ((60, 90), 32, 0.8, (40, 60), (4, 14)),
        ((90, 60), 32, 0.8, (60, 40), (14, 4)),
        ((50, 80), (20, 36), 0.5, (45, 72), (12, 18)),
        ((80, 50), (20, 36), 1.0, (57, 36), (18, 0)),
        ((30, 40), 60, 0.9, (66, 88), (3, 14)),
    ],
)
def test_against_an_independent_resampler(
    photo_size, image_size, crop_fraction, resized, corner, interpolation
):
    pixels = smooth_photo(*photo_size)
    found = preprocess(
        Image.fromarray(pixels),
        image_size=image_size,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
    )
    whole = F.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(),
        size=resized,
        mode=interpolation,
        antialias=True,
    )
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    top, left = corner
    expected = whole[..., top : top + height, left : left + width] / 127.5 - 1
    assert found.shape == (1, 3, height, width)
    torch.testing.assert_close(found, expected, atol=1.6 / 127.5, rtol=0)


def test_the_two_resamplers_differ():
    image = Image.fromarray(photo(30, 40))
    cubic = preprocess(image, image_size=16)
    assert torch.equal(cubic, preprocess(image, image_size=16, interpolation="bicubic"))
    linear = preprocess(image, image_size=16, interpolation="bilinear")
    assert (cubic - linear).abs().max() > 0.05


def test_the_rules_when_nothing_is_said():
    image = Image.fromarray(photo(30, 40))
    found = preprocess(image)
    assert found.shape == (1, 3, 224, 224)
    half = (0.5, 0.5, 0.5)
    said = preprocess(image, image_size=224, crop_fraction=0.9, mean=half, std=half)
    assert torch.equal(found, said)
    assert -1 <= found.min() < -0.5 and 0.5 < found.max() <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("photo_size", "image_size", "crop_fraction", "resized", "corner"),
    [
        # resized: both sides to floor(size / crop_fraction), whatever they were
        ((60, 90), 32, 1.0, (32, 32), (0, 0)),
        ((90, 60), 32, 0.8, (40, 40), (4, 4)),
        ((50, 80), (20, 36), 0.5, (40, 72), (10, 18)),
        ((30, 20), (60, 45), 0.9, (66, 50), (3, 2)),
    ],
)
def test_squashing_against_an_independent_resampler(
    photo_size, image_size, crop_fraction, resized, corner, interpolation
):
    pixels = smooth_photo(*photo_size)
    found = preprocess(
        Image.fromarray(pixels),
        image_size=image_size,
        resize="squash",
        crop_fraction=crop_fraction,
        interpolation=interpolation,
    )
    whole = F.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(),
        size=resized,
        mode=interpolation,
        antialias=True,
    )
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    top, left = corner
    expected = whole[..., top : top + height, left : left + width] / 127.5 - 1
    assert found.shape == (1, 3, height, width)
    torch.testing.assert_close(found, expected, atol=1.6 / 127.5, rtol=0)


def test_a_square_photo_is_squashed_into_its_own_form():
    image = Image.fromarray(photo(30, 30))
    kept, squashed = (
        preprocess(image, image_size=16, resize=resize)
        for resize in ("shorter", "squash")
    )
    assert torch.equal(kept, squashed)
    wide = Image.fromarray(photo(30, 60))
    plain = preprocess(wide, image_size=16)
    assert torch.equal(plain, preprocess(wide, image_size=16, resize="shorter"))
    assert not torch.equal(plain, preprocess(wide, image_size=16, resize="squash"))


def test_the_rules_of_each_source():
    """As their own code has them; tests/peers compares with that code."""
    half, imagenet = (0.5,) * 3, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    rules = {
        name: tuple(rule[key] for key in ("resize", "crop_fraction", "interpolation"))
        for name, rule in PREPROCESSING.items()
    }
    assert rules == {
        "timm": ("shorter", 0.9, "bicubic"),
        "torchvision": ("shorter", 0.875, "bilinear"),
        "transformers": ("squash", 1.0, "bilinear"),
        "jax": ("squash", 1.0, "bilinear"),
    }
    for name, rule in PREPROCESSING.items():
        expected = imagenet if name == "torchvision" else (half, half)
        assert (rule["mean"], rule["std"]) == expected
        assert len(rule) == 5
    image = Image.fromarray(photo(40, 60))
    pixels = {name: preprocess(image, **rule) for name, rule in PREPROCESSING.items()}
    assert torch.equal(pixels["timm"], preprocess(image))
    assert torch.equal(pixels["transformers"], pixels["jax"])
    assert not torch.equal(pixels["timm"], pixels["torchvision"])


def test_whole_means_make_floats():
    image = Image.fromarray(photo(30, 40))
    found = preprocess(image, mean=(0, 0, 0), std=(1, 1, 1))
    assert found.dtype == torch.float32
    assert torch.equal(found, preprocess(image, mean=[0.0] * 3, std=[1.0] * 3))


def test_a_one_pixel_photo():
    found = preprocess(Image.new("RGB", (1, 1), (255, 0, 51)), image_size=(2, 3))
    expected = torch.tensor([1.0, -1.0, -0.6]).view(1, 3, 1, 1).expand(1, 3, 2, 3)
    torch.testing.assert_close(found, expected)


# ---- what cannot be read ---------------------------------------------------------


def test_a_missing_file(tmp_path):
    message = f"there is no file {str(tmp_path / 'cat.png')!r}: check the path"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        preprocess(tmp_path / "cat.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "bmp"])
@pytest.mark.parametrize("opened", [False, True])
def test_a_file_cut_short(tmp_path, suffix, opened):
    """Also one that PIL has opened: it reads the pixels only when they are used."""
    path = tmp_path / f"cat.{suffix}"
    Image.fromarray(photo(40, 60)).save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    message = (
        r"cannot be read as an image \(.+\): it may be cut short or no image; "
        r"open it in a viewer and save it again as PNG or JPEG$"
    )
    if opened:
        with Image.open(path) as image, pytest.raises(ValueError, match=message):
            preprocess(image)
    else:
        with pytest.raises(
            ValueError, match=re.escape(repr(str(path))) + f" {message}"
        ):
            preprocess(path)


@pytest.mark.parametrize("content", [b"", b"not an image at all", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image(tmp_path, content):
    (tmp_path / "cat.png").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        preprocess(tmp_path / "cat.png")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        preprocess(tmp_path)  # a folder


IMAGE = Image.new("RGB", (5, 7))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: preprocess(np.zeros((5, 7, 3))),
            TypeError,
            "image is a ndarray: give a PIL image or a file's path",
        ),
        (
            lambda: preprocess(b"cat.png"),
            TypeError,
            "image is a bytes: give a PIL image or a file's path",
        ),
        (
            lambda: open_rgb(Image.new("RGB", (0, 7))),
            ValueError,
            "the image is 0x7: it has no pixels",
        ),
        (
            lambda: open_rgb(Image.new("F", (5, 7))),
            ValueError,
            "the image has mode 'F', whose range is unknown: "
            "scale it to 0-255 and convert it to mode 'L' or 'RGB'",
        ),
        (
            lambda: preprocess(IMAGE, image_size=0),
            ValueError,
            "image_size is 0: give a whole number of at least 1",
        ),
        (
            lambda: preprocess(IMAGE, crop_fraction=1.1),
            ValueError,
            "crop_fraction is 1.1: give a share in [0.1, 1]",
        ),
        (
            lambda: preprocess(IMAGE, crop_fraction=0.01),
            ValueError,
            "crop_fraction is 0.01: give a share in [0.1, 1]",
        ),
        (
            lambda: preprocess(IMAGE, crop_fraction=-1),
            ValueError,
            "crop_fraction is -1: give a finite number greater than 0",
        ),
        (
            lambda: preprocess(IMAGE, resize="stretch"),
            ValueError,
            "resize is 'stretch': give one of 'shorter', 'squash'",
        ),
        (
            lambda: preprocess(IMAGE, resize=None),
            ValueError,
            "resize is None: give one of 'shorter', 'squash'",
        ),
        (
            lambda: preprocess(IMAGE, interpolation="nearest"),
            ValueError,
            "interpolation is 'nearest': give one of 'bicubic', 'bilinear'",
        ),
        (
            lambda: preprocess(IMAGE, mean=0.5),
            TypeError,
            "mean is 0.5: give (red, green, blue)",
        ),
        (
            lambda: preprocess(IMAGE, mean=(0.5, 0.5)),
            ValueError,
            "mean has 2 values: give red, green, blue",
        ),
        (
            lambda: preprocess(IMAGE, mean=(0, 0, float("nan"))),
            ValueError,
            "mean is nan: give a finite number greater than -inf",
        ),
        (
            lambda: preprocess(IMAGE, std=(0.5, 0.5, 0)),
            ValueError,
            "std is 0: give a finite number greater than 0",
        ),
        (
            lambda: preprocess(IMAGE, std=(0.5, 0.5, "1")),
            TypeError,
            "std is '1': give a number",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_an_image_that_resizing_would_make_huge_is_refused():
    with pytest.raises(ValueError, match="1x200000: so narrow"):
        preprocess(Image.new("RGB", (1, 200_000)))


def test_a_narrow_image_may_be_squashed():
    found = preprocess(Image.new("RGB", (1, 200_000)), image_size=2, resize="squash")
    assert torch.equal(found, torch.full((1, 3, 2, 2), -1.0))


# ---- what a model sees ------------------------------------------------------------

LABELS = ["cat", "dog", "bird", "fish"]
TINY = ViTConfig(
    image_size=4, patch_size=2, num_classes=4, embed_dim=4, depth=1, num_heads=2
)


class Scores(nn.Module):
    """A model that always gives the same scores, and records what it is shown."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))
        self.eval()

    def forward(self, images):
        self.seen, self.grad = images, torch.is_grad_enabled()
        return self.scores[None]


IMAGE_TENSOR = torch.zeros(1, 3, 4, 4)


def test_the_likeliest_come_first():
    # Their exponentials are 2, 1, 8 and 5: of 16 in all.
    model = Scores(*np.log([2.0, 1.0, 8.0, 5.0]).tolist())
    found = classify(model, IMAGE_TENSOR, LABELS, top_k=3)
    assert [label for label, _ in found] == ["bird", "fish", "cat"]
    shares = [share for _, share in found]
    assert shares == pytest.approx([8 / 16, 5 / 16, 2 / 16])
    assert all(type(share) is float for share in shares)
    assert model.seen is IMAGE_TENSOR and not model.grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_as_many_as_asked_for(top_k):
    model = Scores(0.0, 3.0, 1.0, 2.0)
    order = ["dog", "fish", "bird", "cat"]
    found = classify(model, IMAGE_TENSOR, LABELS, top_k)
    assert [label for label, _ in found] == order[:top_k]
    everything = classify(model, IMAGE_TENSOR, LABELS, top_k=4)
    assert found == everything[:top_k]
    assert sum(share for _, share in everything) == pytest.approx(1)


def test_five_when_nothing_is_said():
    model = Scores(*map(float, range(7)))
    found = classify(model, IMAGE_TENSOR, list("abcdefg"))
    assert "".join(label for label, _ in found) == "gfedc"


def test_a_model_of_ours(jitter):
    model = jitter(ViT(TINY)).eval()
    image = preprocess(Image.fromarray(photo(9, 9)), image_size=4)
    found = dict(classify(model, image, LABELS, top_k=4))
    scores = model(image)[0]
    expected = (scores.exp() / scores.exp().sum()).tolist()
    assert found == pytest.approx(dict(zip(LABELS, expected, strict=True)))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: classify(Scores(1.0), torch.zeros(3, 4, 4), ["a"], 1),
            ValueError,
            "image has shape (3, 4, 4): give 4 axes, (1, c, H, W)",
        ),
        (
            lambda: classify(Scores(1.0), np.zeros((1, 3, 4, 4)), ["a"], 1),
            TypeError,
            "image is a ndarray: give a torch.Tensor",
        ),
        (
            lambda: classify(Scores(1.0), Image.new("RGB", (4, 4)), ["a"], 1),
            TypeError,
            "image is a Image: give a torch.Tensor",
        ),
        (
            lambda: classify(Scores(1.0), torch.zeros(2, 3, 4, 4), ["a"], 1),
            ValueError,
            "2 images arrived: give one, (1, c, H, W)",
        ),
        (
            lambda: classify(Scores(1.0), torch.zeros(0, 3, 4, 4), ["a"], 1),
            ValueError,
            "0 images arrived: give one, (1, c, H, W)",
        ),
        (
            lambda: classify(Scores(1.0).train(), IMAGE_TENSOR, ["a"], 1),
            ValueError,
            "the model is in training mode: call model.eval() first",
        ),
        (
            lambda: classify(Scores(1.0, 2.0, 3.0), IMAGE_TENSOR, LABELS, 2),
            ValueError,
            "there are 4 labels, the model scores 3 classes: give one label a class",
        ),
        (
            lambda: classify(Scores(1.0, 2.0), IMAGE_TENSOR, [], 2),
            ValueError,
            "there are 0 labels, the model scores 2 classes: give one label a class",
        ),
        (
            lambda: classify(Scores(1.0, 2.0), IMAGE_TENSOR, ["a", "b"]),
            ValueError,
            "top_k is 5: there are 2 classes",
        ),
        (
            lambda: classify(Scores(1.0, 2.0), IMAGE_TENSOR, ["a", "b"], 0),
            ValueError,
            "top_k is 0: give a whole number of at least 1",
        ),
        (
            lambda: classify(Scores(1.0, 2.0), IMAGE_TENSOR, ["a", "b"], 1.0),
            TypeError,
            "top_k is 1.0: give a whole number",
        ),
    ],
)
def test_what_cannot_be_classified(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


# ---- what once went wrong ---------------------------------------------------------


@pytest.mark.parametrize("model", [None, len, {}, "vit"])
def test_only_models_classify(model):
    with pytest.raises(TypeError, match=r"^model is a"):
        classify(model, IMAGE_TENSOR, LABELS, 1)


@pytest.mark.parametrize("labels", [None, 4, dict(enumerate(LABELS)), set(LABELS)])
def test_labels_in_no_order(labels):
    with pytest.raises(TypeError, match=r"^labels is a"):
        classify(Scores(0.0, 3.0, 1.0, 2.0), IMAGE_TENSOR, labels, 1)


class Returns(nn.Module):
    """A model that answers something else than (1, classes)."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.eval()

    def forward(self, images):
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        (torch.zeros(1, 4),),
        torch.zeros(4),
        torch.zeros(2, 4),
        torch.zeros(1, 4, 4),
        torch.tensor([[0.0, float("nan"), 1.0, 2.0]]),
    ],
)
def test_scores_of_another_form(answer):
    with pytest.raises((ValueError, TypeError), match=r"scores|NaN"):
        classify(Returns(answer), IMAGE_TENSOR, LABELS, 1)


def test_too_large_a_size_is_not_the_photos_fault():
    with pytest.raises(ValueError, match=r"image_size"):
        preprocess(IMAGE, image_size=100_000, resize="squash")


# ---- the command line ------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path):
    """Make what a training leaves, with a model that looks at the mean colour."""
    config = ViTConfig(
        image_size=8, patch_size=8, in_channels=3, num_classes=3, embed_dim=8,
        depth=1, num_heads=1,
    )  # fmt: skip
    save_checkpoint(ViT(config), tmp_path / "weights.safetensors")
    (tmp_path / "classes.txt").write_text("red things\ngreen\nblue\n")
    return tmp_path


def favour(monkeypatch):
    """Let the model score each class by its colour."""
    monkeypatch.setattr(ViT, "forward", lambda self, x: 2 * x.mean(dim=(2, 3)))


def test_the_command_line_prints_a_table(run_folder, monkeypatch, capsys):
    favour(monkeypatch)
    photo, weights = run_folder / "p.png", run_folder / "weights.safetensors"
    Image.new("RGB", (30, 20), (255, 0, 128)).save(photo)
    assert main([str(photo), "--weights", str(weights)]) == 0
    assert capsys.readouterr().out == (
        "red things   86.6 %\nblue         11.8 %\ngreen         1.6 %\n"
    )
    assert main([str(photo), "--weights", str(weights), "--top-k", "1"]) == 0
    assert capsys.readouterr().out == "red things   86.6 %\n"
    (run_folder / "classes.txt").unlink()
    assert main([str(photo), "--weights", str(weights), "--top-k", "1"]) == 0
    assert capsys.readouterr().out == "class 0   86.6 %\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png"], "error: there is no file 'nothing.png': check the path\n"),
        (["p.png", "--top-k", "0"], "error: top_k is 0: give a whole number of at"),
        (["p.png", "--weights", "w.safetensors"], "error: there is no file 'w.safet"),
    ],
)
def test_the_command_line_ends_with_one_clear_line(
    run_folder, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(run_folder)
    Image.new("RGB", (30, 20)).save("p.png")
    if "--weights" not in words:
        words = [*words, "--weights", "weights.safetensors"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.err.startswith(message) and said.err.count("\n") == 1 and not said.out


def save_model(path, **changes):
    """Save a ViT that a seed made, its classes unequal."""
    config = ViTConfig(
        image_size=32, patch_size=8, embed_dim=8, depth=1, num_heads=1, **changes
    )
    torch.manual_seed(0)
    model = ViT(config)
    with torch.no_grad():
        model.head.bias.copy_(torch.linspace(0, 9, config.num_classes))
    save_checkpoint(model.half(), path)


@pytest.mark.parametrize("size", [(401, 267), (31, 500), (32, 32), (5, 3)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_model_sees_what_it_saw_in_training(monkeypatch, tmp_path, size, suffix):
    save_model(tmp_path / "weights.safetensors", num_classes=3)
    for name in ("one", "two"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        path = tmp_path / "photos" / name / f"photo.{suffix}"
        Image.fromarray(photo(size[1], size[0])).save(path)
    trained_on = normalise(image_folder(tmp_path / "photos", 32)[0][1:])
    seen = []

    def record(self, images):
        seen.append(images)
        return torch.zeros(1, 3)

    monkeypatch.setattr(ViT, "forward", record)
    assert main([str(path), "--weights", str(tmp_path)]) == 0
    assert len(seen) == 1 and torch.equal(seen[0], trained_on)


def test_a_thousand_classes_without_names_are_imagenets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20)).save("p.png")
    words = ["p.png", "--weights", "w.safetensors", "--top-k", "1"]
    for num_classes, expected in ((1000, "toilet tissue "), (999, "class 998 ")):
        save_model("w.safetensors", num_classes=num_classes)
        assert main(words) == 0
        assert capsys.readouterr().out.startswith(expected)
    save_model("w.safetensors", num_classes=1000)
    (tmp_path / "classes.txt").write_text("".join(f"own {n}\n" for n in range(1000)))
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("own 999 ")


def test_a_folders_classes_stand_in_it(tmp_path):
    (tmp_path / "vit").mkdir()
    (tmp_path / "classes.txt").write_text("wrong\nnames\n")
    assert predict._labels(str(tmp_path / "vit"), 2) == ["class 0", "class 1"]
    (tmp_path / "vit" / "classes.txt").write_text("right\nones\n")
    assert predict._labels(str(tmp_path / "vit"), 2) == ["right", "ones"]


def test_the_model_that_ships_needs_nothing_beside_it(tmp_path, monkeypatch, capsys):
    """A made-up one: ten classes, 32 by 32 pixels, stored in 16 bits."""
    shipped = tmp_path / "assets" / "cifar10_vit.safetensors"
    shipped.parent.mkdir()
    save_model(shipped, num_classes=10)
    monkeypatch.setattr(predict, "DEFAULT", shipped)
    Image.new("RGB", (50, 40), "teal").save(tmp_path / "p.png")
    assert main([str(tmp_path / "p.png"), "--top-k", "3"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["truck", "ship", "horse"]
    assert all(re.fullmatch(r"\w+ +\d+\.\d %", row) for row in rows)


def test_the_help_says_what_the_default_knows(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "(default: cifar10_vit.safetensors, which ships: a small ViT for" in said
    assert "trained on CIFAR-10, that knows airplane, automobile, bird, cat," in said


def test_without_weights_that_ship_some_must_be_given(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(predict, "DEFAULT", tmp_path / "cifar10_vit.safetensors")
    assert main(["p.png"]) == 1
    assert "error: no model ships with this copy" in capsys.readouterr().err
