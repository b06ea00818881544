"""Fixed positions against loops; resampling against what it must not change."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from vitlib.positions import resample_pos_embed, sincos_2d


def test_sincos_against_loops():
    rows, cols, embed_dim = 3, 5, 16
    table = sincos_2d((rows, cols), embed_dim)
    quarter = embed_dim // 4
    for row in range(rows):
        for col in range(cols):
            expected = []
            for place, wave in (
                (col, math.sin), (col, math.cos), (row, math.sin), (row, math.cos),
            ):  # fmt: skip
                for step in range(quarter):
                    expected.append(wave(place / 10000 ** (step / quarter)))
            torch.testing.assert_close(
                table[row * cols + col], torch.tensor(expected), atol=1e-7, rtol=0
            )


def test_sincos_is_exact_far_from_the_corner():
    table = sincos_2d((1, 2000), 24)
    assert table.dtype == torch.float32
    for step in range(6):
        sine = math.sin(1999 / 10000 ** (step / 6))
        assert table[1999, step].item() == pytest.approx(sine, abs=1e-6)


def test_sincos_depends_on_the_distance_alone():
    table = sincos_2d((4, 6), 32).view(4, 6, 32)
    similarity = torch.einsum("rce,sde->rcsd", table, table)
    torch.testing.assert_close(similarity[0, 1, 2, 4], similarity[1, 2, 3, 5])
    assert similarity[1, 1, 1, 1] > similarity[1, 1, 1, 2] > similarity[1, 1, 3, 4]


def test_one_number_is_a_square_grid():
    assert torch.equal(sincos_2d(3, 8), sincos_2d((3, 3), 8))
    table = torch.randn(1, 9, 5)
    assert torch.equal(
        resample_pos_embed(table, 3, 4), resample_pos_embed(table, (3, 3), (4, 4))
    )


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("new_grid", [(6, 7), (2, 9), (2, 2)])
def test_resampling_equals_interpolate(prefix, mode, new_grid):
    table = torch.randn(1, prefix + 15, 8)
    picture = table[0, prefix:].T.reshape(1, 8, 3, 5)
    picture = F.interpolate(picture, size=new_grid, mode=mode, antialias=True)
    moved = resample_pos_embed(table, (3, 5), new_grid, mode)
    assert moved.shape == (1, prefix + new_grid[0] * new_grid[1], 8)
    torch.testing.assert_close(moved[0, prefix:], picture.flatten(2)[0].T)
    assert torch.equal(moved[:, :prefix], table[:, :prefix])


def test_bicubic_is_the_rule():
    table = torch.randn(1, 15, 8)
    moved = resample_pos_embed(table, (3, 5), (4, 6))
    assert torch.equal(moved, resample_pos_embed(table, (3, 5), (4, 6), "bicubic"))
    linear = resample_pos_embed(table, (3, 5), (4, 6), mode="bilinear")
    assert not torch.allclose(moved, linear)


def test_the_same_grid_changes_nothing():
    table = torch.randn(1, 16, 8)
    assert torch.equal(resample_pos_embed(table, (3, 5), (3, 5)), table)


def test_a_swapped_grid_is_another_grid():
    table = torch.randn(1, 15, 8)
    moved = resample_pos_embed(table, (3, 5), (5, 3))
    assert not torch.allclose(moved, table)


@pytest.mark.parametrize("new_grid", [(7, 4), (2, 3)])
def test_a_constant_table_stays_constant(new_grid):
    table = torch.randn(1, 1, 8).expand(1, 15, 8)
    moved = resample_pos_embed(table, (3, 5), new_grid)
    torch.testing.assert_close(moved, table[:, :1].expand_as(moved))


def test_a_ramp_over_columns_stays_a_ramp_over_columns():
    ramp = torch.arange(6.0).repeat(4, 1).reshape(1, 24, 1)
    moved = resample_pos_embed(ramp, (4, 6), (8, 3), "bilinear").view(8, 3)
    torch.testing.assert_close(moved, moved[:1].expand(8, 3))
    assert (moved[0].diff() > 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_keep_their_dtype(dtype):
    table = torch.randn(1, 16, 8).to(dtype)
    moved = resample_pos_embed(table, (3, 5), (4, 7))
    assert moved.dtype == dtype
    precise = torch.promote_types(dtype, torch.float32)
    reference = resample_pos_embed(table.to(precise), (3, 5), (4, 7))
    torch.testing.assert_close(moved, reference.to(dtype))


def test_gradients_reach_the_old_table():
    table = torch.randn(1, 16, 8, requires_grad=True)
    moved = resample_pos_embed(table, (3, 5), (6, 10))
    moved.sum().backward()
    torch.testing.assert_close(table.grad[:, 0], torch.ones(1, 8))
    torch.testing.assert_close(table.grad[:, 1:].sum(), torch.tensor(60.0 * 8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: sincos_2d((2, 3), 6),
            ValueError,
            "embed_dim 6 is not a multiple of 4: a sine and a cosine for each of two "
            "axes need one; give 8",
        ),
        (
            lambda: sincos_2d((2, 3), 22),
            ValueError,
            "embed_dim 22 is not a multiple of 4: a sine and a cosine for each of two "
            "axes need one; give 24",
        ),
        (
            lambda: sincos_2d((2, 3), 0),
            ValueError,
            "embed_dim is 0: give a whole number of at least 1",
        ),
        (
            lambda: sincos_2d((2, -3), 8),
            ValueError,
            "grid_size is -3: give a whole number of at least 1",
        ),
        (
            lambda: resample_pos_embed(torch.ones(15, 8), (3, 5), 4),
            ValueError,
            "pos_embed has shape (15, 8): give 3 axes, (1, T, e)",
        ),
        (
            lambda: resample_pos_embed("table", (3, 5), 4),
            TypeError,
            "pos_embed is a str: give a torch.Tensor",
        ),
        (
            lambda: resample_pos_embed(torch.ones(2, 15, 8), (3, 5), 4),
            ValueError,
            "pos_embed has shape (2, 15, 8): give one table, (1, T, e)",
        ),
        (
            lambda: resample_pos_embed(torch.ones(1, 15, 0), (3, 5), 4),
            ValueError,
            "pos_embed has shape (1, 15, 0): give one table, (1, T, e)",
        ),
        (
            lambda: resample_pos_embed(torch.ones(1, 15, 8).long(), (3, 5), 4),
            ValueError,
            "pos_embed is torch.int64: give floats, for pixels pos_embed.float() / 255",
        ),
        (
            lambda: resample_pos_embed(torch.ones(1, 15, 8), (3, 5), 4, "nearest"),
            ValueError,
            "mode is 'nearest': give one of 'bicubic', 'bilinear'",
        ),
        (
            lambda: resample_pos_embed(torch.ones(1, 17, 8), (3, 5), 4),
            ValueError,
            "pos_embed has 17 rows, but a grid of 3x5 needs 15, or 16 with a class "
            "token: correct old_grid",
        ),
        (
            lambda: resample_pos_embed(torch.ones(1, 14, 8), (3, 5), 4),
            ValueError,
            "pos_embed has 14 rows, but a grid of 3x5 needs 15, or 16 with a class "
            "token: correct old_grid",
        ),
        (
            lambda: resample_pos_embed(torch.ones(1, 15, 8), (3, None), 4),
            TypeError,
            "old_grid is None: give a whole number",
        ),
        (
            lambda: resample_pos_embed(torch.ones(1, 15, 8), (3, 5), 0),
            ValueError,
            "new_grid is 0: give a whole number of at least 1",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
