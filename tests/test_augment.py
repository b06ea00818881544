"""Every view is one that the dice allow, each image has its own, labels follow."""

import math
import re

import pytest
import torch

from vitlib.augment import (
    RANDOM_OPS,
    cutmix,
    flip,
    mixup,
    normalise,
    pad_crop,
    rand_augment,
)


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(count, c=3, height=10, width=8):
    return torch.rand(count, c, height, width, generator=dice(1))


VIEWS = {
    "flip": lambda images, g: flip(images, generator=g),
    "pad_crop": lambda images, g: pad_crop(images, 2, generator=g),
    "rand_augment": lambda images, g: rand_augment(images, generator=g),
    "mixup": lambda images, g: mixup(images, torch.eye(len(images)), 1, generator=g)[0],
    "cutmix": lambda images, g: cutmix(images, torch.eye(len(images)), 1, generator=g)[
        0
    ],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_the_generator_alone_decides(view):
    images = photos(16)
    kept = images.clone()
    before = torch.get_rng_state()
    one = view(images, dice(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(view(images, dice(3)), one)
    assert not torch.equal(view(images, dice(4)), one)
    generator = dice(3)
    view(images, generator)
    assert not torch.equal(view(images, generator), one)  # it moves on
    assert torch.equal(images, kept)
    assert one.shape == images.shape and one.dtype == images.dtype


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 3, 5), (3, 2, 4, 4)])
def test_other_dtypes_and_shapes(view, dtype, shape):
    images = torch.rand(shape, generator=dice()).to(dtype)
    out = view(images, dice())
    assert out.shape == images.shape and out.isfinite().all()
    assert out.dtype in (dtype, torch.float32)


@pytest.mark.parametrize("name", ["flip", "pad_crop", "rand_augment"])
def test_each_image_has_its_own_dice(name):
    same = photos(1).expand(32, -1, -1, -1)
    seen = {view.numpy().tobytes() for view in VIEWS[name](same, dice())}
    assert len(seen) >= {"flip": 2, "pad_crop": 15, "rand_augment": 25}[name]


def test_flip_mirrors_about_half():
    images = photos(400)
    views = flip(images, generator=dice())
    mirrored = [torch.equal(v, i.flip(2)) for v, i in zip(views, images, strict=True)]
    kept = [torch.equal(v, i) for v, i in zip(views, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 160 < sum(mirrored) < 240


def test_pad_crop_is_a_window_of_the_padded_image():
    images = photos(300, height=5, width=7)
    padded = torch.zeros(300, 3, 9, 11)
    padded[:, :, 2:7, 2:9] = images
    seen = set()
    for view, canvas in zip(pad_crop(images, 2, generator=dice()), padded, strict=True):
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(canvas[:, y : y + 5, x : x + 7], view)
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25
    assert torch.equal(pad_crop(images, 0, generator=dice()), images)


def test_normalise():
    ends = normalise(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    assert ends.tolist() == [-1.0, -0.5, 0.0, 1.0]


# ---- RandAugment -----------------------------------------------------------------


def op(name, images, strength):
    strength = torch.full((len(images), 1, 1, 1), float(strength))
    return RANDOM_OPS[name](images, strength)


@pytest.mark.parametrize("name", sorted(RANDOM_OPS.keys() - {"autocontrast"}))
def test_no_strength_no_change(name):
    images = photos(4)
    # Posterize keeps eight bits.
    tolerance = 1 / 255 if name == "posterize" else 1e-5
    torch.testing.assert_close(op(name, images, 0), images, atol=tolerance, rtol=0)


def test_colours():
    images = photos(3)
    assert op("brightness", images, -1).abs().max() == 0
    torch.testing.assert_close(op("brightness", images, 0.5), 1.5 * images)
    flat = images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(op("contrast", images, -1), flat)
    grey = images.mean(dim=1, keepdim=True).expand_as(images)
    torch.testing.assert_close(op("colour", images, -1), grey)
    assert op("colour", images, 0.5).std(dim=1).mean() > images.std(dim=1).mean()


def test_sharpness_against_a_mean_by_hand():
    images = photos(1, c=1, height=4, width=4)
    blurred = op("sharpness", images, -1)
    torch.testing.assert_close(blurred[0, 0, 1, 2], images[0, 0, 0:3, 1:4].mean())
    torch.testing.assert_close(blurred[0, 0, 0, 0], images[0, 0, 0:2, 0:2].mean())
    sharper = op("sharpness", images, 0.5)
    torch.testing.assert_close(sharper, blurred + 1.5 * (images - blurred))


def test_posterize_solarize_autocontrast():
    images = photos(2)
    assert len(op("posterize", images, 1).unique()) == 4  # two bits
    assert len(op("posterize", images, -0.5).unique()) <= 32
    turned = op("solarize", images, 0.4)
    bright = images > 0.6
    torch.testing.assert_close(turned[bright], 1 - images[bright])
    assert torch.equal(turned[~bright], images[~bright])
    stretched = op("autocontrast", 0.2 + 0.3 * images, 0)
    for channel in stretched.flatten(0, 1):
        assert channel.min() == 0 and channel.max() == pytest.approx(1, abs=1e-4)
    plain = torch.full((1, 3, 4, 4), 0.7)
    assert torch.equal(op("autocontrast", plain, 0), plain)


def test_translations_against_slices():
    images = photos(2, height=8, width=8)
    grey = torch.full((2, 3, 8, 2), 0.5)
    # A strength of 1 is half the image; the view looks to the right.
    moved = op("translate_x", images, 0.5)
    torch.testing.assert_close(moved, torch.cat([images[..., 2:], grey], dim=3))
    moved = op("translate_y", images, -0.5)
    expected = torch.cat([grey.transpose(2, 3), images[:, :, :-2]], dim=2)
    torch.testing.assert_close(moved, expected)


def test_a_quarter_turn():
    images = photos(2, height=8, width=8)
    turned = op("rotate", images, 1.5)  # 90 degrees; rand_augment stays below 60
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), atol=1e-4, rtol=1e-3)


def test_shears_move_each_line_by_its_distance_from_the_middle():
    images = photos(1, height=8, width=8)
    sheared = op("shear_x", images, 2 / 7)
    for row in range(8):
        shift = 2 / 7 * (row - 3.5)  # in pixels, to the right
        x = torch.arange(8) + shift
        low = x.floor().long()
        at = torch.nn.functional.pad(images[0, :, row], (4, 4), value=0.5)
        expected = at[:, low + 4] * (1 - (x - low)) + at[:, low + 5] * (x - low)
        torch.testing.assert_close(sheared[0, :, row], expected, atol=1e-5, rtol=1e-4)
    other = op("shear_y", images.transpose(2, 3), 2 / 7).transpose(2, 3)
    torch.testing.assert_close(other, sheared)


def test_every_operation_is_drawn_with_both_signs(monkeypatch):
    seen = {name: [] for name in RANDOM_OPS}

    def spy(name):
        def spied(images, strength):
            seen[name] += strength.flatten().tolist()
            assert strength.shape == (len(images), 1, 1, 1)
            return images

        return spied

    for name in RANDOM_OPS:
        monkeypatch.setitem(RANDOM_OPS, name, spy(name))
    rand_augment(photos(650), num_ops=2, magnitude=0.4, generator=dice())
    counts = [len(strengths) for strengths in seen.values()]
    assert sum(counts) == 1300 and 60 < min(counts) <= max(counts) < 150
    for strengths in seen.values():
        assert -0.4 <= min(strengths) < -0.3 and 0.3 < max(strengths) <= 0.4


def test_rand_augment_stays_in_range_and_grows_with_magnitude():
    images = photos(200, height=16, width=16)
    changes = []
    for magnitude in (0.05, 0.3, 1.0):
        views = rand_augment(images, magnitude=magnitude, generator=dice())
        assert views.min() >= 0 and views.max() <= 1
        changes.append((views - images).abs().mean().item())
    assert changes[0] < changes[1] < changes[2]


# ---- mixup and CutMix: image k is 1 in channel k, so pixels are shares -------------


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_labels_follow_the_pixels(mix, alpha):
    count = 24
    images = torch.eye(count)[:, :, None, None].expand(-1, -1, 12, 9)
    mixed, targets = mix(images, torch.eye(count), alpha, generator=dice())
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count))
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), targets)
    assert targets.min() >= 0
    assert ((targets > 0).sum(dim=1) <= 2).all()
    own = targets.diagonal()
    assert len(own.unique()) > count / 3  # each image its own share
    partners = (targets - torch.diag(own)).argmax(dim=1)
    assert len(partners[own < 0.99].unique()) > count / 3


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_mixup_shares_are_from_a_beta(alpha):
    count = 4000
    images = torch.zeros(count, 1, 1, 1)
    values = torch.randn(count, 1, generator=dice(2))
    _, mixed = mixup(images, values, alpha, generator=dice())
    # Of independent values v and w: var(s v + (1 - s) w) = E[s^2 + (1 - s)^2], and
    # a Beta(alpha, alpha) has E[s^2] = (alpha + 1) / (2 (2 alpha + 1)).
    expected = (alpha + 1) / (2 * alpha + 1)
    assert mixed.var().item() == pytest.approx(expected, rel=0.1)
    # And cov(v, s v + (1 - s) w) = E[s].
    assert (mixed * values).mean().item() == pytest.approx(0.5, abs=0.06)


def test_cutmix_pastes_one_box():
    count = 40
    images = torch.eye(count)[:, :, None, None].expand(-1, -1, 12, 9)
    mixed, _ = cutmix(images, torch.eye(count), 1.0, generator=dice())
    for number, image in enumerate(mixed):
        pasted = image[number] == 0
        rows, cols = pasted.any(dim=1).nonzero(), pasted.any(dim=0).nonzero()
        if len(rows):
            box = pasted[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
            assert box.all() and box.sum() == pasted.sum()
    share = mixed.mean(dim=(2, 3)).diagonal()
    assert 0.5 < share.mean() < 0.85  # a half, but for what the edges cut off


def test_cutmix_boxes_reach_every_corner():
    count = 400
    images = torch.eye(count)[:, :, None, None].expand(-1, -1, 6, 6)
    mixed, _ = cutmix(images, torch.eye(count), 1.0, generator=dice())
    stays = torch.stack([image[k] for k, image in enumerate(mixed)]).mean(dim=0)
    assert stays.max() < 0.9 and stays.min() > 0.3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: flip(photos(2)[0], generator=dice()),
            ValueError,
            "images has shape (3, 10, 8): give 4 axes, (b, c, H, W)",
        ),
        (
            lambda: pad_crop((photos(2) * 255).byte(), 1, generator=dice()),
            ValueError,
            "images is torch.uint8: give floats, for pixels images.float() / 255",
        ),
        (
            lambda: pad_crop(photos(2), -1, generator=dice()),
            ValueError,
            "padding is -1: give a whole number of at least 0",
        ),
        (
            lambda: pad_crop(photos(2), 9, generator=dice()),
            ValueError,
            "padding is 9, the images are 10x8: give at most 8, which may move an "
            "image out of sight",
        ),
        (
            lambda: flip(photos(2)[:0], generator=dice()),
            ValueError,
            "images has shape (0, 3, 10, 8): give at least one",
        ),
        (
            lambda: cutmix(photos(2), torch.eye(2), 1.0, generator=7),
            TypeError,
            "generator is a int: give a torch.Generator, such as "
            "torch.Generator().manual_seed(0)",
        ),
        (
            lambda: rand_augment(photos(2), magnitude=1.5, generator=dice()),
            ValueError,
            "magnitude is 1.5: give a number in (0, 1]",
        ),
        (
            lambda: rand_augment(photos(2), num_ops=0, generator=dice()),
            ValueError,
            "num_ops is 0: give a whole number of at least 1",
        ),
        (
            lambda: mixup(photos(2), torch.eye(3), 1.0, generator=dice()),
            ValueError,
            "2 images and 3 targets arrived: give one row of class probabilities for "
            "each image",
        ),
        (
            lambda: cutmix(photos(2), torch.tensor([0, 1]), 1.0, generator=dice()),
            ValueError,
            "targets has shape (2,): give 2 axes, (b, classes)",
        ),
        (
            lambda: cutmix(photos(2), torch.eye(2).long(), 1.0, generator=dice()),
            ValueError,
            "targets is torch.int64: give class probabilities as floats, for labels "
            "F.one_hot(labels, num_classes).float()",
        ),
        (
            lambda: mixup(photos(2), torch.eye(2), math.nan, generator=dice()),
            ValueError,
            "alpha is nan: give a finite number greater than 0",
        ),
        (
            lambda: mixup(photos(2), torch.eye(2), "1", generator=dice()),
            TypeError,
            "alpha is '1': give a number",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("name", sorted(RANDOM_OPS))
def test_operations_stay_on_their_images_device(name):
    """The meta device refuses what a GPU would: tensors of two devices at once."""
    images = torch.empty(3, 3, 8, 8, device="meta")
    strength = torch.empty(3, 1, 1, 1, device="meta")
    assert RANDOM_OPS[name](images, strength).is_meta
