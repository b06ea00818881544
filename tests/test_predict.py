"""From files of every kind to upright, normalised pixels."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vitlib.predict import open_rgb, preprocess

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
