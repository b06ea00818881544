"""The data is what it says, and positions alone carry the relation task."""

import hashlib
import re
from collections import Counter

import pytest
import torch

from vitlib.data import RELATIONS, digits, relation_task, sample_image


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
