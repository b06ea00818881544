"""Checks of the exercises of chapter 12: what a CNN takes for granted."""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlib.checks.building import drawn, drawn_weights
from vitlib.checks.comparing import close
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.wording import Finding, Unfit, called, listed
from vitlib.vit import ViT, ViTConfig

# How far an output number sees


def _receptive_field(layers):
    seen, step = 1, 1
    for kernel, stride in layers:
        seen += (kernel - 1) * step
        step *= stride
    return seen


def _own_stride_first(layers):
    seen, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        seen += (kernel - 1) * step
    return seen


def _whole_kernels(layers):
    seen, step = 1, 1
    for kernel, stride in layers:
        seen += kernel * step
        step *= stride
    return seen


def _stride_before_alone(layers):
    seen, step = 1, 1
    for kernel, stride in layers:
        seen += (kernel - 1) * step
        step = stride
    return seen


def _about_field(probe: Probe) -> Finding | None:
    """Say which strides matter where one is wrong."""
    (layers,) = probe.given
    last = layers[-1][1]
    if probe.got.numel() == 1 and any(stride > 1 for _, stride in layers[:-1]):
        return Finding(
            "strides",
            f"a number sees {probe.expected.item()} pixels and not "
            f"{probe.got.item():g}: a stride widens what the layers behind it see, all "
            "of them, and not its own layer. Draw the smallest example",
        )
    if probe.got.numel() == 1 and last > 1:
        return Finding(
            "own stride",
            "wrong where only the last layer has a stride: nothing stands behind it "
            "that could see further",
        )
    return None


receptive_field = Judge(
    task="receptive_field",
    arguments=("layers",),
    axes="",
    oracle=_receptive_field,
    cases=(
        Case("one convolution", ([(3, 1)],)),
        Case("a patch embedding", ([(4, 4)],)),
        Case("two convolutions", ([(3, 1), (5, 1)],)),
        Case("a pooling between two", ([(3, 1), (2, 2), (3, 1)],)),
        Case("two poolings", ([(5, 1), (2, 2), (3, 1), (3, 2), (3, 1)],)),
    ),
    mistakes=(
        Mistake(
            "own stride first",
            "a layer's own stride does not widen what it sees: its window lies on the "
            "numbers that arrive. Which layers does it widen?",
            _own_stride_first,
        ),
        Mistake(
            "strides ignored",
            "right without strides: behind a layer of stride 2, neighbouring numbers "
            "stand two pixels apart, and a window reaches further",
            lambda layers: 1 + sum(kernel - 1 for kernel, _ in layers),
        ),
        Mistake(
            "last stride alone",
            "only the stride of the layer before counts here: what do two layers of "
            "stride 2 make together?",
            _stride_before_alone,
        ),
        Mistake(
            "windows multiplied",
            "the windows are multiplied: two windows of 3 that overlap see fewer than "
            "9. Draw them",
            lambda layers: math.prod(kernel for kernel, _ in layers),
        ),
        Mistake(
            "windows added",
            "the windows are added whole: the second window's first number saw a full "
            "window already. How much does each further one add?",
            lambda layers: sum(kernel for kernel, _ in layers),
        ),
        Mistake(
            "windows added",
            "the windows are added whole: a window of 1 would see one pixel more. How "
            "much does a window of 3 add?",
            _whole_kernels,
        ),
        Mistake(
            "starts at 0",
            "one too few: with no layer at all a number sees one pixel, itself",
            lambda layers: _receptive_field(layers) - 1,
        ),
        Mistake(
            "layers in the wrong order",
            "the layers are run through from the last to the first, as if the image "
            "came in at the end",
            lambda layers: _receptive_field(layers[::-1]),
        ),
        Mistake(
            "strides multiplied alone",
            "this is how far two neighbours at the end stand apart, not what one sees",
            lambda layers: math.prod(stride for _, stride in layers),
        ),
    ),
    questions=(_about_field,),
)


# A ViT for a mirrored world


@dataclasses.dataclass(frozen=True)
class Weights:
    """A state dict, given to an answer as a dict.

    Args:
        options: The sizes of its ViT, as for ViTConfig.
        seed: Another one gives other numbers.
        dtype: That of the weights.
        without: Endings of names whose weights are zero.
    Reference:
        The book's page on the checkers.
    """

    options: tuple[tuple[str, object], ...]
    seed: int
    dtype: torch.dtype = torch.float32
    without: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show sizes, and no weights."""
        sizes = ", ".join(f"{name}={value!r}" for name, value in self.options)
        return f"those of a ViT with {sizes}"

    @property
    def config(self) -> ViTConfig:
        """The sizes."""
        return ViTConfig(**dict(self.options))

    def converted(self, dtype: torch.dtype) -> "Weights":
        """Return the same in another dtype."""
        return dataclasses.replace(self, dtype=dtype)

    @functools.cache  # noqa: B019 - there are as many as cases and questions
    def drawn(self) -> dict[str, Tensor]:
        """Return names and weights."""
        weights = drawn_weights(lambda: ViT(self.config), seed=self.seed)
        return {
            name: (value * (not name.endswith(self.without or ("?",)))).to(self.dtype)
            for name, value in weights.items()
        }


@functools.cache
def _model(config: ViTConfig) -> ViT:
    """Return a model whose own weights are never used."""
    with torch.random.fork_rng(devices=[]):
        return ViT(config).eval()


@dataclasses.dataclass(frozen=True, repr=False)
class _MirrorJudge(Judge):
    """How to check what is done to a state dict: by the scores of the model."""

    def call(self, answer: Callable, weights: Weights, grid_size: tuple) -> object:
        """Return the scores, of mirrored images, of a model with the new weights."""
        given, config = weights.drawn(), weights.config
        copies = {name: value.clone() for name, value in given.items()}
        made = answer(dict(copies), grid_size)
        self._require_fitting(made, given)
        if not all(torch.equal(given[name], copies[name]) for name in given):
            raise Unfit(
                Finding(
                    "in place",
                    "the tensors that were given are changed afterwards: write the "
                    "mirrored ones into new tensors",
                )
            )
        images = drawn(2, config.in_channels, *config.image_size, seed=weights.seed)
        images = images.to(weights.dtype).flip(3)
        return torch.func.functional_call(_model(config), made, images)

    def _require_fitting(self, made: object, given: dict[str, Tensor]) -> None:
        if not isinstance(made, dict):
            said = f"it returned {called(made)}: return a dict, as was given"
            raise Unfit(Finding("type", said))
        if made.keys() != given.keys():
            names = sorted(made.keys() ^ given.keys())
            raise Unfit(
                Finding(
                    "names",
                    "return all names of the dict that was given, and no others; "
                    f"missing or new: {listed(names[:3])}",
                )
            )
        for name, value in made.items():
            wanted = tuple(given[name].shape)
            if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
                shape = tuple(getattr(value, "shape", ()))
                raise Unfit(
                    Finding(
                        "shapes",
                        f"{name} has shape {shape} in the result, needed is {wanted}: "
                        "numbers change their places, the shape stays",
                    )
                )


def _mirrored(weights, grid_size, *, kernel=(3,), grid=(2,), places=None):
    """Return an answer that mirrors other axes."""
    rows, cols = grid_size
    table = weights["pos_embed"]
    prefix = table.shape[1] - rows * cols
    if places is None:
        tail = table[:, prefix:].unflatten(1, (rows, cols)).flip(grid).flatten(1, 2)
        places = torch.cat([table[:, :prefix], tail], dim=1)
    else:
        places = places(table, prefix)
    name = "patch_embed.proj.weight"
    return weights | {name: weights[name].flip(kernel), "pos_embed": places}


def _columns_for_rows(weights, grid_size):
    return _mirrored(weights, grid_size[::-1])


def _other_weights(probe: Probe) -> Finding | None:
    """Ask whether it is wrong even where neither pixels nor places count."""
    weights, grid_size = probe.given
    quiet = ("pos_embed", "patch_embed.proj.weight")
    weights = dataclasses.replace(weights, without=quiet)
    got, wanted = (run(weights, grid_size) for run in (probe.run, probe.right))
    if got is None or close(got, wanted):
        return None
    return Finding(
        "other weights",
        "wrong even when neither the pixels nor the places count: a weight was changed "
        "that knows nothing of left and right. Which weights do?",
    )


def _which_half(*endings: str, finding: Finding) -> Callable:
    """Ask whether it is right where some weights are zero."""

    def question(probe: Probe) -> Finding | None:
        weights, grid_size = probe.given
        weights = dataclasses.replace(weights, without=endings)
        got, wanted = (run(weights, grid_size) for run in (probe.run, probe.right))
        return finding if got is not None and close(got, wanted) else None

    return question


def _weights(grid, p, seed, **options) -> tuple:
    sizes = {"image_size": (grid[0] * p, grid[1] * p), "patch_size": p}
    sizes |= {"embed_dim": 6, "depth": 1, "num_heads": 2, "num_classes": 3}
    return Weights(tuple((sizes | options).items()), seed), grid


mirrored = _MirrorJudge(
    task="mirrored",
    arguments=("weights", "grid_size"),
    axes="image num_classes",
    oracle=_mirrored,
    cases=(
        Case("one row of two patches", _weights((1, 2), 2, 1, in_channels=1)),
        Case("a square grid", _weights((2, 2), 3, 2, in_channels=2)),
        Case("a grid of 2x3", _weights((2, 3), 2, 3, in_channels=3)),
        Case(
            "no class token",
            _weights((3, 2), 2, 4, in_channels=2, class_token=False, pool="mean"),
        ),
    ),
    mistakes=(
        Mistake(
            "pixels not mirrored",
            "the places are mirrored, but inside each patch left is still left: which "
            "weights meet the pixels of a patch?",
            lambda weights, grid: _mirrored(weights, grid, kernel=()),
        ),
        Mistake(
            "places not mirrored",
            "inside the patches all is mirrored, but each patch still gets the "
            "position of the place where it now stands",
            lambda weights, grid: _mirrored(weights, grid, grid=()),
        ),
        Mistake(
            "unchanged",
            "the weights come back as they were: a mirrored image gets other scores",
            lambda weights, grid: weights,
        ),
        Mistake(
            "upside down",
            "this is right for images that stand on their head: left and right are to "
            "change places, not above and below",
            lambda weights, grid: _mirrored(weights, grid, kernel=(2,), grid=(1,)),
        ),
        Mistake(
            "turned by half",
            "this is right for images that are turned by half: the rows must stay",
            lambda weights, grid: _mirrored(weights, grid, kernel=(2, 3), grid=(1, 2)),
        ),
        Mistake(
            "all places reversed",
            "the whole list of places is reversed, so the last row comes first: only "
            "the order within each row is to be reversed",
            lambda weights, grid: _mirrored(weights, grid, grid=(1, 2)),
        ),
        Mistake(
            "class row moved",
            "the row of the class token took part: it has no place in the image",
            lambda weights, grid: _mirrored(
                weights, grid, places=lambda table, prefix: table.flip(1)
            ),
        ),
        Mistake(
            "class row expected",
            "right with a class token; without one, row 0 of the table is a patch's. "
            "How do you find out from the shape?",
            lambda weights, grid: _mirrored(
                weights,
                grid,
                places=lambda table, prefix: torch.cat(
                    [
                        table[:, :1],
                        table[:, 1:].unflatten(1, grid).flip(2).flatten(1, 2),
                    ],
                    dim=1,
                ),
            ),
        ),
        Mistake(
            "rows and columns swapped",
            "right on square grids: on others the table is read with rows and columns "
            "swapped",
            _columns_for_rows,
        ),
        Mistake(
            "features mirrored",
            "the features of the positions are reversed, not the places: which axis of "
            "the table is which?",
            lambda weights, grid: _mirrored(
                weights, grid, places=lambda table, prefix: table.flip(2)
            ),
        ),
    ),
    questions=(_other_weights,),
    narrowing=(
        _which_half(
            "pos_embed",
            finding=Finding(
                "positions",
                "right with a table of zeros, so the patches are right: look at what "
                "you do to pos_embed",
            ),
        ),
        _which_half(
            "patch_embed.proj.weight",
            finding=Finding(
                "patches",
                "right when the pixels do not count, so the positions are right: look "
                "at what you do to the weight of the patch embedding",
            ),
        ),
    ),
)


# Does the result move with the image?


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer to measure.

    Args:
        what: What it is, in words.
        kernel: (out, in, k, k).
        stride: How far the window moves.
        wraps: Whether the frame repeats the other side, and is not zero.
        places: Whether every place gets a number of its own added.
    Reference:
        The book's page on the checkers.
    """

    what: str
    kernel: Tensor
    stride: int = 1
    wraps: bool = True
    places: bool = False

    def __repr__(self) -> str:
        """Say what it is."""
        return self.what

    def __call__(self, images: Tensor) -> Tensor:
        """Return what it makes of images."""
        size = self.kernel.shape[2]
        frame = (0 if size == self.stride else size // 2,) * 4
        padded = F.pad(images, frame, mode="circular" if self.wraps else "constant")
        found = F.conv2d(padded, self.kernel.to(images.dtype), stride=self.stride)
        # Whole numbers: moving must not change a digit.
        count = torch.arange(found[0, 0].numel(), dtype=found.dtype)
        return found + self.places * count.reshape(found.shape[2:])


def _kernel(out, channels, size, seed):
    return (10 * drawn(out, channels, size, size, seed=seed)).round().clamp(-9, 9)


def _images(*sizes, seed):
    return (10 * drawn(*sizes, seed=seed)).round().clamp(-9, 9)


def _moved(images, shift, stride=1, sign=1):
    return images.roll([sign * stride * by for by in shift], (2, 3))


def _equivariance_gap(layer, images, shift, stride):
    return _gap(layer(_moved(images, shift, stride)), _moved(layer(images), shift))


def _gap(a, b):
    return (a - b).abs().amax()


def _gap_case(what, sizes, kernel, shift, stride=1, **options):
    images = _images(*sizes, seed=len(what))
    layer = Layer(what, _kernel(*kernel, seed=1), stride=stride, **options)
    return Case(what, (layer, images, shift, stride))


def _about_gap(probe: Probe) -> Finding | None:
    """Ask whether a layer that notices a move was found to notice none."""
    if not probe.got.any() and probe.expected > 0:
        return Finding(
            "no gap",
            "it finds no gap for a layer that treats places differently: are the two "
            "results that you compare from two different images?",
        )
    return None


equivariance_gap = Judge(
    task="equivariance_gap",
    arguments=("layer", "images", "shift", "stride"),
    axes="",
    oracle=_equivariance_gap,
    cases=(
        _gap_case(
            "a convolution with a frame of zeros",
            (1, 1, 2, 4),
            (1, 1, 3),
            (0, 1),
            wraps=False,
        ),
        _gap_case("a convolution that wraps around", (2, 1, 5, 4), (3, 1, 3), (2, -1)),
        _gap_case(
            "one that wraps around, with stride 2", (2, 3, 8, 6), (2, 3, 3), (1, 2), 2
        ),
        _gap_case("a patch embedding", (2, 2, 12, 9), (4, 2, 3), (-1, 1), 3),
        _gap_case(
            "a patch embedding with positions",
            (2, 2, 12, 8),
            (3, 2, 4),
            (1, 0),
            4,
            places=True,
        ),
    ),
    mistakes=(
        Mistake(
            "compared with the unmoved",
            "the result for the moved image is compared with the result for the image "
            "where it was: that asks whether nothing changes. Where should the old "
            "result be found?",
            lambda layer, x, s, stride: _gap(layer(_moved(x, s, stride)), layer(x)),
        ),
        Mistake(
            "stride forgotten",
            "right with stride 1: how many pixels does an image move if its result is "
            "to move by one place?",
            lambda layer, x, s, stride: _gap(layer(_moved(x, s)), _moved(layer(x), s)),
        ),
        Mistake(
            "stride on the result",
            "right with stride 1: shift counts places of the result. Image and result "
            "do not move by the same number",
            lambda layer, x, s, stride: _gap(
                layer(_moved(x, s, stride)), _moved(layer(x), s, stride)
            ),
        ),
        Mistake(
            "stride on the wrong side",
            "right with stride 1: the result was moved by shift times stride and the "
            "image by shift. Which of them has more places?",
            lambda layer, x, s, stride: _gap(
                layer(_moved(x, s)), _moved(layer(x), s, stride)
            ),
        ),
        Mistake(
            "moved the other way",
            "the image moves one way and the result the other",
            lambda layer, x, s, stride: _gap(
                layer(_moved(x, s, stride)), _moved(layer(x), s, sign=-1)
            ),
        ),
        Mistake(
            "down and right swapped",
            "shift is (down, right), and here they are swapped: dimension 2 of an "
            "image runs down, dimension 3 to the right",
            lambda layer, x, s, stride: _equivariance_gap(layer, x, s[::-1], stride),
        ),
        Mistake(
            "mean, not largest",
            "this is the mean of the differences: one place in a hundred that is off "
            "hardly shows in it. Give the largest",
            lambda layer, x, s, stride: (
                (layer(_moved(x, s, stride)) - _moved(layer(x), s)).abs().mean()
            ),
        ),
        Mistake(
            "signs lost",
            "the largest difference is taken with its sign, so one that is far below "
            "zero does not count",
            lambda layer, x, s, stride: (
                layer(_moved(x, s, stride)) - _moved(layer(x), s)
            ).amax(),
        ),
        Mistake(
            "sums compared",
            "the sums over all places are compared: they stay the same where things "
            "moved to wrong places. Compare place by place",
            lambda layer, x, s, stride: _gap(
                layer(_moved(x, s, stride)).sum(), layer(x).sum()
            ),
        ),
    ),
    questions=(_about_gap,),
    gradients=False,
)


# Is one better than the other?


def _paired_gain(before, after, *, unbiased=True, root=True, errors=2.0):
    gains = after - before
    error = gains.std(correction=int(unbiased))
    error = errors * error / (len(gains) ** 0.5 if root else 1)
    return gains.mean() + error * torch.tensor([-1, 0, 1])


def _unpaired_gain(before, after):
    mean = after.mean() - before.mean()
    error = 2 * ((before.var() + after.var()) / len(before)).sqrt()
    return torch.stack([mean - error, mean, mean + error])


def _gain_of_one(before, after):
    mean = after.mean() - before.mean()
    error = 2 * after.std() / len(after) ** 0.5
    return torch.stack([mean - error, mean, mean + error])


def _range_of_gains(before, after):
    gains = after - before
    return torch.stack([gains.min(), gains.mean(), gains.max()])


def _about_gains(probe: Probe) -> Finding | None:
    """Ask what must hold of low, mean and high."""
    low, mean, high = probe.got.tolist()
    if not low <= mean <= high:
        return Finding(
            "order of the three",
            "return them as low, mean, high: here they are not in this order",
        )
    if abs(mean - probe.expected[1]) > 1e-4:
        return Finding(
            "mean",
            f"the middle number is {mean:.4g}: by how much is after better than before "
            "with the same seed, on average?",
        )
    if abs((high - mean) - (mean - low)) > 1e-4:
        return Finding("lopsided", "low and high do not lie equally far from the mean")
    share = (high - mean) / (probe.expected[2] - probe.expected[1]).item()
    return Finding(
        "half width",
        f"the mean is right; low and high are {share:.3g} times as far from it as they "
        "should be: look at the spread, one step after the other",
    )


paired_gain = Judge(
    task="paired_gain",
    arguments=("before", "after"),
    axes="low-mean-high",
    oracle=_paired_gain,
    cases=(
        Case("two seeds", (torch.tensor([0.5, 0.75]), torch.tensor([0.5, 1.0]))),
        Case(
            "the same gain with every seed",
            (torch.tensor([0.25, 0.5, 0.875]), torch.tensor([0.375, 0.625, 1.0])),
        ),
        Case(
            "five seeds",
            (
                torch.tensor([0.81, 0.74, 0.9, 0.62, 0.7]),
                torch.tensor([0.84, 0.75, 0.91, 0.71, 0.68]),
            ),
        ),
    ),
    mistakes=(
        Mistake(
            "pairs torn apart",
            "with the same gain for every seed the gain is known exactly, and yours is "
            "not: the spread between seeds went in. Which numbers belong together?",
            _unpaired_gain,
        ),
        Mistake(
            "pairs torn apart",
            "with the same gain for every seed the gain is known exactly, and yours is "
            "not: the spread between seeds went in. Which numbers belong together?",
            _gain_of_one,
        ),
        Mistake(
            "sign",
            "a gain is after less before: here it is the other way round",
            lambda before, after: _paired_gain(after, before),
        ),
        Mistake(
            "spread of one run",
            "this is how far one run's gain scatters: the mean of n runs scatters "
            "less. How much less?",
            lambda before, after: _paired_gain(before, after, root=False),
        ),
        Mistake(
            "divided by n",
            "the squares are divided by n and not by n - 1: with few seeds that makes "
            "the spread too small",
            lambda before, after: _paired_gain(before, after, unbiased=False),
        ),
        Mistake(
            "one error",
            "this is one standard error to each side: two are asked for",
            lambda before, after: _paired_gain(before, after, errors=1.0),
        ),
        Mistake(
            "lowest and highest",
            "these are the lowest and the highest gain: they move apart with every "
            "further seed, and the mean becomes surer",
            _range_of_gains,
        ),
    ),
    questions=(_about_gains,),
    dtypes=(torch.float64,),
    gradients=False,
)
