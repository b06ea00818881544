"""Drawing: every function takes an Axes and returns it.

The only module that imports matplotlib.
"""

import os
from collections.abc import Callable
from importlib import resources

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

STYLE = resources.files("vitlib") / "assets" / "book.mplstyle"

# Okabe & Ito's colours, by name.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, YELLOW, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"

# Lines that stay apart in grey, too.
LINES = [
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (PINK, ":"),
    (BLACK, (0, (8, 3))),
]


def use_style() -> None:
    """Give every figure from here on the look of the book."""
    plt.style.use(str(STYLE))


def show_image(ax: Axes, image: Tensor, title: str = "") -> Axes:
    """Draw one image without axes.

    Args:
        ax: Where to draw.
        image: Pixels in [0, 1].
        title: Above the image.
    Shape:
        image (c, H, W), c = 1 or 3
    Returns:
        The same Axes.
    Reference:
        Chapter 00.
    """
    pixels = image.detach().permute(1, 2, 0).clamp(0, 1).numpy()  # (H, W, c)
    if pixels.shape[2] == 1:
        ax.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1)
    else:
        ax.imshow(pixels)
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def show_grid(ax: Axes, image: Tensor, patch_size: int, title: str = "") -> Axes:
    """Draw one image with the lines along which it is cut.

    Args:
        ax: Where to draw.
        image: Pixels in [0, 1].
        patch_size: Side of a patch, in pixels.
        title: Above the image.
    Shape:
        image (c, H, W), c = 1 or 3
    Returns:
        The same Axes.
    Reference:
        Chapter 01.
    """
    show_image(ax, image, title)
    _, height, width = image.shape
    for y in range(patch_size, height, patch_size):
        ax.axhline(y - 0.5, color="white", linewidth=1)
    for x in range(patch_size, width, patch_size):
        ax.axvline(x - 0.5, color="white", linewidth=1)
    return ax


def show_matrix(
    ax: Axes,
    matrix: Tensor,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    signed: bool = False,
    decimals: int | None = None,
    vmin: float = 0.0,
    vmax: float | None = None,
) -> Axes:
    """Draw a matrix as coloured cells, with its numbers if asked for.

    Args:
        ax: Where to draw.
        matrix: The numbers.
        title: Above the matrix.
        xlabel: What its columns are.
        ylabel: What its rows are.
        signed: False for cividis from vmin, True for PuOr around 0.
        decimals: Decimals to write into the cells; none when not given.
        vmin: Value of the darkest colour, unless signed.
        vmax: Value of the strongest colour; the largest when not given.
    Shape:
        matrix (rows, cols)
    Returns:
        The same Axes.
    Reference:
        Chapter 04.
    """
    values = matrix.detach().numpy()
    top = float(np.abs(values).max()) if vmax is None else vmax
    bottom = -top if signed else vmin
    picture = ax.imshow(
        values, cmap="PuOr" if signed else "cividis", vmin=bottom, vmax=top
    )
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if decimals is not None:
        ax.set_xticks(range(values.shape[1]))
        ax.set_yticks(range(values.shape[0]))
        for (row, col), value in np.ndenumerate(values):
            red, green, blue, _ = picture.to_rgba(value)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ax.text(
                col,
                row,
                f"{value:.{decimals}f}",
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
    return ax


def show_attention(
    ax: Axes,
    image: Tensor,
    weights: Tensor,
    grid_size: tuple[int, int],
    title: str = "",
) -> Axes:
    """Lay one query's attention, or its rollout, over the image it looks at.

    Every patch is one flat block of colour: the map knows no more than that.

    Args:
        ax: Where to draw.
        image: Pixels in [0, 1].
        weights: How much the query attends to each patch.
        grid_size: (rows, cols) of the patches.
        title: Above the image.
    Shape:
        image (c, H, W), weights (n) or (rows, cols)
    Returns:
        The same Axes.
    Reference:
        Chapters 04 and 13.
    """
    show_image(ax, image.mean(dim=0, keepdim=True), title)
    _, height, width = image.shape
    ax.imshow(
        weights.detach().view(grid_size).numpy(),
        cmap="cividis",
        alpha=0.65,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
        vmin=0,
    )
    return ax


def show_position_similarity(ax: Axes, similarity: Tensor, title: str = "") -> Axes:
    """Draw a small map for every patch, where the patch sits in the image.

    Each map shows how similar all positions are to its own. Its colours run from -1
    to 1 and are explained by a bar at the side.

    Args:
        ax: Where to draw.
        similarity: What `vitlib.interpret.position_similarity` returned.
        title: Above the maps.
    Shape:
        similarity (rows, cols, rows, cols)
    Returns:
        The same Axes.
    Reference:
        Dosovitskiy et al. 2021, Fig. 7 (centre). Chapter 13.
    """
    rows, cols = similarity.shape[:2]
    # Each map gets an empty row and column, through which the background shows.
    tiles = F.pad(similarity.detach(), (0, 1, 0, 1), value=float("nan"))
    mosaic = tiles.permute(0, 2, 1, 3).reshape(rows * (rows + 1), cols * (cols + 1))
    picture = ax.imshow(
        mosaic[:-1, :-1].numpy(), cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest"
    )
    ax.set_xticks([(cols + 1) * col + (cols - 1) / 2 for col in range(cols)])
    ax.set_yticks([(rows + 1) * row + (rows - 1) / 2 for row in range(rows)])
    ax.set_xticklabels(range(cols))
    ax.set_yticklabels(range(rows))
    ax.set(title=title, xlabel="column of the patch", ylabel="row of the patch")
    ax.figure.colorbar(picture, ax=ax, label="cosine similarity")
    return ax


def plot_seeds(
    ax: Axes,
    results: dict[str, list[float]],
    *,
    xlabel: str,
    chance: float | None = None,
) -> Axes:
    """Draw every seed of every variant as a dot, and the mean as a bar.

    Args:
        ax: Where to draw.
        results: Accuracies in [0, 1], one for each seed, by the variant's name.
        xlabel: What was measured.
        chance: Accuracy of guessing, drawn as a dashed line if given.
    Returns:
        The same Axes.
    Reference:
        Chapters 02 and 03.
    """
    for y, values in enumerate(results.values()):
        percent = 100 * torch.tensor(values)
        ax.plot(percent, [y] * len(values), "o", color=BLUE, alpha=0.6)
        ax.plot([percent.mean()] * 2, [y - 0.3, y + 0.3], color=ORANGE)
        ax.annotate(
            f"{percent.mean():.1f}",
            (percent.mean(), y - 0.34),
            ha="center",
            va="bottom",
        )
    if chance is not None:
        ax.axvline(100 * chance, color="gray", linestyle="--", linewidth=1)
    ax.set_yticks(range(len(results)), results)
    ax.set(xlabel=xlabel, ylim=(len(results) - 0.4, -0.8))
    return ax


def plot_history(ax: Axes, history: list[dict[str, float]]) -> Axes:
    """Draw what `vitlib.train.train` returned: the loss, and the accuracy if measured.

    The accuracy has its own scale, on the right.

    Args:
        ax: Where to draw.
        history: A row for each epoch.
    Returns:
        The same Axes.
    Reference:
        Chapter 10.
    """
    epochs = [row["epoch"] for row in history]
    ax.plot(epochs, [row["train_loss"] for row in history], color=BLUE)
    ax.set(xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("training loss (solid)", color=BLUE)
    if "held_out_accuracy" in history[0]:
        right = ax.twinx()
        percent = [100 * row["held_out_accuracy"] for row in history]
        right.plot(epochs, percent, color=ORANGE, linestyle="--")
        right.set_ylabel("held out, % correct (dashed)", color=ORANGE)
        right.grid(False)
    return ax


def plot_attention_distance(ax: Axes, distance: Tensor) -> Axes:
    """Draw how far each head looks as a dot, and the mean of a block as a bar.

    Args:
        ax: Where to draw.
        distance: What `vitlib.interpret.mean_attention_distance` returned.
    Shape:
        distance (depth, h)
    Returns:
        The same Axes.
    Reference:
        Dosovitskiy et al. 2021, Fig. 7 (right). Chapter 13.
    """
    for block, heads in enumerate(distance.detach(), start=1):  # (h)
        ax.plot([block] * len(heads), heads, "o", color=BLUE, alpha=0.6)
        ax.plot([block - 0.3, block + 0.3], [heads.nanmean()] * 2, color=ORANGE)
    ax.set(xlabel="block", ylabel="mean attention distance (pixels)", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def plot_deletion(
    ax: Axes,
    shares: list[float],
    curves: dict[str, tuple[Tensor, Tensor]],
    *,
    ylabel: str,
) -> Axes:
    """Draw what is left of an answer as more and more patches are deleted.

    A line is a mean, the band around it says how sure the mean is.

    Args:
        ax: Where to draw.
        shares: Share of the patches deleted at each step, in [0, 1].
        curves: By the name of the order in which the patches went: at each step the
            mean of what was measured and half the width of its band, both as shares.
        ylabel: What was measured.
    Shape:
        curves (steps) and (steps) each
    Returns:
        The same Axes.
    Raises:
        ValueError: more curves than there are colours and line styles.
    Reference:
        Samek et al. 2017; Petsiuk et al. 2018. Chapter 13.
    """
    if len(curves) > len(LINES):
        raise ValueError(
            f"{len(curves)} curves arrived: give at most {len(LINES)}, more cannot be "
            "told apart"
        )
    across = [100 * share for share in shares]
    for (name, curve), (color, linestyle) in zip(curves.items(), LINES, strict=False):
        mean, half = (100 * values.detach() for values in curve)  # (steps)
        ax.plot(across, mean, color=color, linestyle=linestyle, label=name)
        ax.fill_between(
            across, mean - half, mean + half, color=color, alpha=0.2, linewidth=0
        )
    ax.set(xlabel="patches deleted (%)", ylabel=ylabel, ylim=(0, None))
    ax.legend()
    return ax


def save_plot(path: str | os.PathLike, draw: Callable[[Axes], object]) -> None:
    """Draw one plot in the look of the book into a PNG file, without a screen.

    Args:
        path: The file to make or replace.
        draw: Called with the Axes to draw on.
    Raises:
        OSError: the file cannot be written.
    Reference:
        Chapter 10.
    """
    with plt.style.context(str(STYLE)):
        figure = Figure(figsize=(6, 4), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(path, format="png")
