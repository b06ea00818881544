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


def test_a_plot_becomes_a_file(tmp_path):
    before, numbers = matplotlib.rcParams.copy(), plt.get_fignums()
    path = tmp_path / "curve.png"
    plots.save_plot(path, lambda ax: plots.plot_history(ax, HISTORY))
    pixels = plt.imread(path)
    assert pixels.ndim == 3 and len(np.unique(pixels)) > 20
    assert matplotlib.rcParams == before and plt.get_fignums() == numbers
