"""What is drawn is what was given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from vitlib import plots


@pytest.fixture
def ax():
    with plt.rc_context():
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


def test_the_style_is_the_books():
    with plt.rc_context():
        before = dict(plt.rcParams)
        plots.use_style()
        assert dict(plt.rcParams) != before


def test_a_colour_image(ax):
    image = torch.rand(3, 4, 6) * 1.5 - 0.2
    assert plots.show_image(ax, image, "cat") is ax
    (drawn,) = ax.images
    expected = image.clamp(0, 1).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(drawn.get_array(), expected)
    assert ax.get_title() == "cat"
    assert not ax.axison


def test_a_grey_image_runs_from_black_to_white(ax):
    image = torch.rand(1, 4, 6) * 0.5
    plots.show_image(ax, image)
    (drawn,) = ax.images
    np.testing.assert_array_equal(drawn.get_array(), image[0].numpy())
    assert drawn.get_clim() == (0, 1)
    assert drawn.get_cmap().name == "gray"


def test_grid_lines_run_between_the_patches(ax):
    assert plots.show_grid(ax, torch.rand(3, 8, 12), 4) is ax
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines]
    assert places == [(0, 3.5), (3.5, 0), (7.5, 0)]


def test_a_matrix_with_numbers(ax):
    matrix = torch.tensor([[0.25, 1.0, 0.0], [0.5, 0.125, 2.0]])
    drawn = plots.show_matrix(
        ax, matrix, title="t", xlabel="keys", ylabel="queries", decimals=2
    )
    assert drawn is ax
    (picture,) = ax.images
    np.testing.assert_array_equal(picture.get_array(), matrix.numpy())
    assert picture.get_clim() == (0, 2) and picture.get_cmap().name == "cividis"
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts == {
        (col, row): f"{matrix[row, col].item():.2f}"
        for row in range(2)
        for col in range(3)
    }
    assert ax.get_title() == "t"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("keys", "queries")


def test_numbers_stand_out_from_their_cells(ax):
    plots.show_matrix(ax, torch.tensor([[0.0, 1.0]]), decimals=0)
    assert [text.get_color() for text in ax.texts] == ["white", "black"]


def test_a_signed_matrix_is_centred_on_zero(ax):
    plots.show_matrix(ax, torch.tensor([[-3.0, 1.0]]), signed=True)
    (picture,) = ax.images
    assert picture.get_clim() == (-3, 3) and picture.get_cmap().name == "PuOr"
    assert not ax.texts


def test_the_strongest_colour_can_be_shared(ax):
    plots.show_matrix(ax, torch.tensor([[0.5]]), vmax=4.0)
    assert ax.images[0].get_clim() == (0, 4)


def test_attention_lies_over_the_whole_image(ax):
    image, weights = torch.rand(3, 8, 12), torch.rand(6)
    assert plots.show_attention(ax, image, weights, (2, 3)) is ax
    below, above = ax.images
    np.testing.assert_allclose(below.get_array(), image.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(above.get_array(), weights.view(2, 3).numpy())
    assert above.get_extent() == [-0.5, 11.5, 7.5, -0.5] == below.get_extent()
    assert above.get_clim()[0] == 0


def test_attention_is_drawn_in_blocks_and_as_a_map_too(ax):
    """Whatever the style says: nothing is smoothed."""
    weights = torch.rand(2, 3)
    with plt.rc_context({"image.interpolation": "bilinear"}):
        plots.show_attention(ax, torch.rand(1, 4, 6), weights, (2, 3), "rollout")
    above = ax.images[1]
    np.testing.assert_array_equal(above.get_array(), weights.numpy())
    assert above.get_interpolation() == "nearest"
    assert above.get_cmap().name == "cividis" and ax.get_title() == "rollout"


def test_every_position_has_its_map_at_its_place(ax):
    similarity = torch.rand(2, 3, 2, 3) * 2 - 1
    with plt.rc_context({"image.interpolation": "bilinear"}):
        drawn = plots.show_position_similarity(ax, similarity, "learned")
    assert drawn is ax
    (picture,) = ax.images
    mosaic = picture.get_array()
    assert mosaic.shape == (5, 11)  # 2 maps of 2 and a gap, 3 maps of 3 and two
    inside = np.zeros((5, 11), dtype=bool)
    for row in range(2):
        for col in range(3):
            spot = (slice(3 * row, 3 * row + 2), slice(4 * col, 4 * col + 3))
            np.testing.assert_array_equal(mosaic[spot], similarity[row, col].numpy())
            inside[spot] = True
            # The labels stand at the middle of the maps.
            assert ax.get_xticks()[col] == 4 * col + 1
            assert ax.get_yticks()[row] == 3 * row + 0.5
    np.testing.assert_array_equal(np.ma.getmaskarray(mosaic), ~inside)
    assert picture.get_clim() == (-1, 1) and picture.get_cmap().name == "PuOr"
    assert picture.get_interpolation() == "nearest"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1"]
    assert ax.get_title() == "learned"
    assert "column" in ax.get_xlabel() and "row" in ax.get_ylabel()
    (bar,) = (other for other in ax.figure.axes if other is not ax)
    assert bar.get_ylabel() == "cosine similarity"


def test_every_seed_is_a_dot_and_every_mean_a_bar(ax):
    results = {"none": [0.2, 0.3], "learned": [0.9, 1.0, 0.98]}
    drawn = plots.plot_seeds(ax, results, xlabel="test accuracy (%)", chance=0.25)
    assert drawn is ax
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    bars = [
        line for line in ax.lines if to_hex(line.get_color()) == to_hex(plots.ORANGE)
    ]
    for y, values in enumerate(results.values()):
        np.testing.assert_allclose(dots[y].get_xdata(), 100 * np.array(values))
        assert set(dots[y].get_ydata()) == {y}
        np.testing.assert_allclose(bars[y].get_xdata(), 100 * np.mean(values))
    assert [text.get_text() for text in ax.texts] == ["25.0", "96.0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(results)
    assert ax.lines[-1].get_xdata() == [25, 25]
    assert ax.get_xlabel() == "test accuracy (%)"


HISTORY = [
    {"epoch": 1, "train_loss": 2.0, "held_out_accuracy": 0.25},
    {"epoch": 2, "train_loss": 1.5, "held_out_accuracy": 0.5},
]


def test_a_history_has_two_scales(ax):
    assert plots.plot_history(ax, HISTORY) is ax
    (loss,) = ax.lines
    assert loss.get_xydata().tolist() == [[1, 2.0], [2, 1.5]]
    (right,) = (other for other in ax.figure.axes if other is not ax)
    (accuracy,) = right.lines
    assert accuracy.get_xydata().tolist() == [[1, 25.0], [2, 50.0]]
    # Told apart by more than colour.
    assert loss.get_linestyle() == "-" and "solid" in ax.get_ylabel()
    assert accuracy.get_linestyle() == "--" and "dashed" in right.get_ylabel()
    assert ax.get_xlabel() == "epoch"


def test_a_history_without_accuracies(ax):
    rows = [{"epoch": 1, "train_loss": 2.0}]
    plots.plot_history(ax, rows)
    assert ax.figure.axes == [ax]


def test_every_head_is_a_dot_at_its_block(ax):
    distance = torch.tensor([[10.0, 30.0], [5.0, 7.0], [float("nan"), 4.0]])
    assert plots.plot_attention_distance(ax, distance) is ax
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    bars = [line for line in ax.lines if line.get_marker() == "None"]
    assert len(dots) == len(bars) == 3
    for block, mean in enumerate((20, 6, 4)):
        assert list(dots[block].get_xdata()) == [block + 1] * 2
        np.testing.assert_array_equal(dots[block].get_ydata(), distance[block])
        assert list(bars[block].get_xdata()) == [block + 0.7, block + 1.3]
        assert list(bars[block].get_ydata()) == [mean] * 2
        assert dots[block].get_linestyle() == "None"
        assert dots[block].get_color() != bars[block].get_color()
    assert ax.get_ylim()[0] == 0
    assert ax.get_xlabel() == "block" and "pixels" in ax.get_ylabel()
    assert all(float(place).is_integer() for place in ax.get_xticks())


def test_a_deletion_curve_is_a_mean_in_a_band(ax):
    curves = {
        "rollout": (torch.tensor([0.9, 0.3, 0.1]), torch.tensor([0.0, 0.1, 0.05])),
        "random": (torch.tensor([0.9, 0.8, 0.0]), torch.tensor([0.02, 0.0, 0.2])),
    }
    drawn = plots.plot_deletion(ax, [0, 0.5, 1], curves, ylabel="probability (%)")
    assert drawn is ax
    for (mean, half), line, band in zip(
        curves.values(), ax.lines, ax.collections, strict=True
    ):
        np.testing.assert_array_equal(line.get_xdata(), [0, 50, 100])
        np.testing.assert_allclose(line.get_ydata(), 100 * mean, rtol=1e-6)
        corners = band.get_paths()[0].vertices
        for x, middle, width in zip((0, 50, 100), mean, half, strict=True):
            heights = corners[corners[:, 0] == x, 1]
            low, high = 100 * (middle - width), 100 * (middle + width)
            np.testing.assert_allclose(heights.min(), low, rtol=1e-5)
            np.testing.assert_allclose(heights.max(), high, rtol=1e-5)
        assert to_hex(band.get_facecolor()[0]) == to_hex(line.get_color())
        assert band.get_facecolor()[0, 3] < 1
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["rollout", "random"]
    assert ax.get_ylabel() == "probability (%)"
    assert ax.get_xlabel() == "patches deleted (%)"
    assert ax.get_ylim()[0] == 0


def test_deletion_curves_differ_in_colour_and_in_line(ax):
    curves = {str(number): torch.rand(2, 2) for number in range(len(plots.LINES))}
    plots.plot_deletion(ax, [0, 1], curves, ylabel="")
    assert len(ax.lines) == len(curves) >= 4
    assert len({line.get_color() for line in ax.lines}) == len(curves)
    assert len({str(line._unscaled_dash_pattern) for line in ax.lines}) == len(curves)
    many = {**curves, "one more": torch.rand(2, 2)}
    with pytest.raises(ValueError, match=f"^{len(many)} curves arrived: give at most"):
        plots.plot_deletion(ax, [0, 1], many, ylabel="")


def test_a_plot_becomes_a_file(tmp_path):
    before, numbers = matplotlib.rcParams.copy(), plt.get_fignums()
    path = tmp_path / "curve.png"
    plots.save_plot(path, lambda ax: plots.plot_history(ax, HISTORY))
    pixels = plt.imread(path)
    assert pixels.ndim == 3 and len(np.unique(pixels)) > 20
    assert matplotlib.rcParams == before and plt.get_fignums() == numbers
