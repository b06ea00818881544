"""Patches against loops, unfold and a strided convolution."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitlib.patches import PatchEmbed, grid_of, merge_patches, split_patches

# b, c, (H, W), (p1, p2): 4 x 5 = 20 patches of 3*2*3 = 18 values, e = 7.
IMAGE_SIZE, PATCH_SIZE = (8, 15), (2, 3)


def make_images(dtype=torch.float32):
    return torch.randn(2, 3, *IMAGE_SIZE).to(dtype)


def make_embed(patch_norm=False, **options):
    return PatchEmbed(
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        in_channels=3,
        embed_dim=7,
        patch_norm=patch_norm,
        **options,
    )


def split_by_loops(images, p1, p2):
    """One number at a time, in the order the docstring promises."""
    b, c, height, width = images.shape
    rows, cols = height // p1, width // p2
    patches = torch.full((b, rows * cols, c * p1 * p2), -99.0)
    for image in range(b):
        for row in range(rows):
            for col in range(cols):
                place = 0
                for channel in range(c):
                    for y in range(row * p1, row * p1 + p1):
                        for x in range(col * p2, col * p2 + p2):
                            pixel = images[image, channel, y, x]
                            patches[image, row * cols + col, place] = pixel
                            place += 1
    return patches


def test_split_equals_loops():
    images = make_images()
    assert torch.equal(split_patches(images, PATCH_SIZE), split_by_loops(images, 2, 3))


def test_split_equals_unfold():
    images = make_images()
    columns = F.unfold(images, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)  # (b, cpp, n)
    assert torch.equal(split_patches(images, PATCH_SIZE), columns.transpose(1, 2))


def test_channel_last_is_another_order():
    patches = split_patches(make_images(), PATCH_SIZE)
    channel_last = patches.unflatten(2, (3, 6)).transpose(2, 3).flatten(2)
    assert not torch.equal(channel_last, patches)


def test_one_number_is_a_square():
    images = torch.randn(2, 3, 6, 9)
    assert torch.equal(split_patches(images, 3), split_patches(images, (3, 3)))
    patches = split_patches(images[..., :6], 3)
    assert torch.equal(merge_patches(patches, 3, 6), images[..., :6])


@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 6),
    dtype=st.sampled_from([torch.float32, torch.uint8, torch.bfloat16]),
)
def test_round_trip_both_ways(sizes, dtype):
    b, c, rows, cols, p1, p2 = sizes
    images = (torch.randn(b, c, rows * p1, cols * p2) * 50).abs().to(dtype)
    patches = split_patches(images, (p1, p2))
    assert patches.shape == (b, rows * cols, c * p1 * p2)
    back = merge_patches(patches, (p1, p2), (rows * p1, cols * p2))
    assert torch.equal(back, images)
    assert torch.equal(split_patches(back, (p1, p2)), patches)


def test_merge_puts_a_patch_where_it_was():
    patches = torch.zeros(1, 20, 18)
    patches[0, 7] = 1  # second row, third column
    image = merge_patches(patches, PATCH_SIZE, IMAGE_SIZE)
    assert image[0, :, 2:4, 6:9].eq(1).all()
    assert image.sum() == 18


def test_embedding_equals_flat_patches_times_flat_kernel(jitter):
    embed = jitter(make_embed())
    images = make_images()
    kernel = embed.proj.weight.flatten(1)  # (e, c*p1*p2)
    expected = split_patches(images, PATCH_SIZE) @ kernel.T + embed.proj.bias
    torch.testing.assert_close(embed(images), expected)


def test_embedding_gradients_equal_those_of_a_linear_layer(jitter):
    embed = jitter(make_embed())
    images = make_images().requires_grad_()
    twin = images.detach().clone().requires_grad_()
    linear = nn.Linear(18, 7)
    with torch.no_grad():
        linear.weight.copy_(embed.proj.weight.flatten(1))
        linear.bias.copy_(embed.proj.bias)
    target = torch.randn(2, 20, 7)
    (embed(images) * target).sum().backward()
    (linear(split_patches(twin, PATCH_SIZE)) * target).sum().backward()
    torch.testing.assert_close(images.grad, twin.grad)
    torch.testing.assert_close(embed.proj.weight.grad.flatten(1), linear.weight.grad)
    torch.testing.assert_close(embed.proj.bias.grad, linear.bias.grad)


def normalise(x, layer, eps):
    """LayerNorm written out."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * layer.weight + layer.bias


@pytest.mark.parametrize("patch_norm", [False, "after", True])
def test_patch_norms(jitter, patch_norm):
    embed = jitter(make_embed(patch_norm, norm_eps=0.1))
    images = make_images()
    patches = split_patches(images, PATCH_SIZE)
    if patch_norm is True:
        patches = normalise(patches, embed.pixel_norm, 0.1)
    expected = patches @ embed.proj.weight.flatten(1).T + embed.proj.bias
    if patch_norm:
        expected = normalise(expected, embed.norm, 0.1)
    torch.testing.assert_close(embed(images), expected)
    assert (embed.pixel_norm is not None) == (patch_norm is True)
    assert (embed.norm is not None) == bool(patch_norm)


def test_default_eps_and_norm():
    embed = make_embed(True)
    assert embed.norm.eps == embed.pixel_norm.eps == 1e-6
    plain = PatchEmbed(image_size=4, patch_size=2, in_channels=1, embed_dim=3)
    assert plain.norm is None and plain.pixel_norm is None


def test_embedding_remembers_its_sizes():
    embed = make_embed()
    assert embed.image_size == IMAGE_SIZE
    assert embed.patch_size == PATCH_SIZE
    assert embed.in_channels == 3
    assert embed.grid_size == (4, 5) == grid_of(IMAGE_SIZE, PATCH_SIZE)


def test_square_sizes_are_pairs_too():
    embed = PatchEmbed(image_size=6, patch_size=3, in_channels=1, embed_dim=5)
    assert (embed.image_size, embed.patch_size) == ((6, 6), (3, 3))
    assert embed.grid_size == grid_of(6, 3) == (2, 2)


def test_whole_and_double_images_by_their_dtype():
    embed = make_embed().double()
    images = make_images(torch.float64)
    expected = split_patches(images, PATCH_SIZE) @ embed.proj.weight.flatten(1).T
    torch.testing.assert_close(embed(images), expected + embed.proj.bias)


def nan_image():
    images = make_images()
    images[1, 2, 3, 4] = float("nan")
    images[0, 0, 0, 0] = float("inf")
    return images


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: split_patches(torch.ones(2, 3, 30, 32), 16),
            ValueError,
            "image height 30 is not divisible by patch_size 16: "
            "crop to 16 or pad to 32",
        ),
        (
            lambda: split_patches(torch.ones(2, 3, 32, 50), (16, 8)),
            ValueError,
            "image width 50 is not divisible by patch_size 8: crop to 48 or pad to 56",
        ),
        (
            lambda: grid_of((5, 14), 7),
            ValueError,
            "image height 5 is not divisible by patch_size 7: pad to 7",
        ),
        (
            lambda: grid_of(0, 7),
            ValueError,
            "image_size is 0: give a whole number of at least 1",
        ),
        (
            lambda: grid_of(14, -7),
            ValueError,
            "patch_size is -7: give a whole number of at least 1",
        ),
        (
            lambda: split_patches(torch.ones(3, 4, 4), 2),
            ValueError,
            "images has shape (3, 4, 4): give 4 axes, (b, c, H, W)",
        ),
        (
            lambda: split_patches([[1.0]], 2),
            TypeError,
            "images is a list: give a torch.Tensor",
        ),
        (
            lambda: split_patches(torch.ones(1, 1, 4, 4), 0),
            ValueError,
            "patch_size is 0: give a whole number of at least 1",
        ),
        (
            lambda: merge_patches(torch.ones(4, 12), 2, 4),
            ValueError,
            "patches has shape (4, 12): give 3 axes, (b, n, c*p1*p2)",
        ),
        (
            lambda: merge_patches("patches", 2, 4),
            TypeError,
            "patches is a str: give a torch.Tensor",
        ),
        (
            lambda: merge_patches(torch.ones(2, 4, 12), (2, None), 4),
            TypeError,
            "patch_size is None: give a whole number",
        ),
        (
            lambda: merge_patches(torch.ones(2, 21, 18), PATCH_SIZE, IMAGE_SIZE),
            ValueError,
            "21 patches arrived, but an image of 8x15 pixels has 4*5 = 20: "
            "leave out the class token, or correct image_size",
        ),
        (
            lambda: merge_patches(torch.ones(2, 20, 19), PATCH_SIZE, IMAGE_SIZE),
            ValueError,
            "a patch has 19 values, no multiple of 2*3 = 6: "
            "give pixels, not embeddings, or correct patch_size",
        ),
        (
            lambda: make_embed()(torch.ones(3, 8, 15)),
            ValueError,
            "images has shape (3, 8, 15): give 4 axes, (b, c, H, W)",
        ),
        (
            lambda: make_embed()(None),
            TypeError,
            "images is a NoneType: give a torch.Tensor",
        ),
        (
            lambda: make_embed()(torch.ones(2, 4, 8, 15)),
            ValueError,
            "images have 4 channels, the model takes 3: convert them, or build the "
            "model with in_channels=4; the axes are (b, c, H, W), "
            "channels-last images need .permute(0, 3, 1, 2)",
        ),
        (
            lambda: make_embed()(torch.ones(2, 3, 15, 8)),
            ValueError,
            "images are 15x8, the model takes 8x15: resize them, or build the model "
            "with image_size=(15, 8)",
        ),
        (
            lambda: make_embed()(make_images(torch.uint8)),
            ValueError,
            "images is torch.uint8: give floats, for pixels images.float() / 255",
        ),
        (
            lambda: make_embed()(make_images(torch.float64)),
            ValueError,
            "images is torch.float64, the weights are torch.float32: "
            "give images.to(torch.float32)",
        ),
        (
            lambda: make_embed()(nan_image()),
            ValueError,
            "images: 2 of 720 values are NaN or infinite: "
            "mend or drop them before the model spreads them to every token",
        ),
        (
            lambda: make_embed("before"),
            ValueError,
            "patch_norm is 'before': give one of False, 'after', True",
        ),
        (
            lambda: make_embed(norm_eps=0.0),
            ValueError,
            "norm_eps is 0.0: give a finite number greater than 0",
        ),
        (
            lambda: PatchEmbed(image_size=4, patch_size=2, in_channels=0, embed_dim=3),
            ValueError,
            "in_channels is 0: give a whole number of at least 1",
        ),
        (
            lambda: PatchEmbed(image_size=4, patch_size=2, in_channels=1, embed_dim=-3),
            ValueError,
            "embed_dim is -3: give a whole number of at least 1",
        ),
        (
            lambda: PatchEmbed(image_size=4, patch_size=3, in_channels=1, embed_dim=3),
            ValueError,
            "image height 4 is not divisible by patch_size 3: crop to 3 or pad to 6",
        ),
        (
            lambda: PatchEmbed(
                image_size=4, patch_size="2", in_channels=1, embed_dim=3
            ),
            TypeError,
            "patch_size is '2': give a whole number",
        ),
        (
            lambda: PatchEmbed(
                image_size=4.0, patch_size=2, in_channels=1, embed_dim=3
            ),
            TypeError,
            "image_size is 4.0: give a whole number",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
