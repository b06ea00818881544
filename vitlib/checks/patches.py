"""Checks of what chapter 01 and its exercises build: cutting, and the linear map."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import vitlib.patches as library
from vitlib.checks.building import (
    Build,
    ClassJudge,
    altered,
    counted,
    drawn,
    drawn_weights,
)
from vitlib.checks.deciding import Subject, decides
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import (
    each_image_alone,
    each_token_alone,
    only_moved,
    order_of_axes,
)
from vitlib.checks.wording import Finding

# Cutting


def _cut(pattern: str):
    """Return an answer that cuts into another order."""
    return lambda images, p: rearrange(
        images, f"b c (rows p1) (cols p2) -> {pattern}", p1=p, p2=p
    )


def _only_reshaped(images: Tensor, p: int) -> Tensor:
    b, c, height, width = images.shape
    return images.reshape(b, height // p * (width // p), c * p * p)


def _as_square(images: Tensor, p: int) -> Tensor:
    side = images.shape[2] // p
    return rearrange(
        images, "b c (r p1) (s p2) -> b (r s) (c p1 p2)", r=side, s=side, p1=p, p2=p
    )


def _strewn(images: Tensor, p: int) -> Tensor:
    return rearrange(
        images, "b c (p1 rows) (p2 cols) -> b (rows cols) (c p1 p2)", p1=p, p2=p
    )


def _which_patches(probe: Probe) -> Finding:
    """Ask whether the patches are whole."""
    got, expected = probe.got[0], probe.expected[0]
    if all((expected == patch).all(dim=1).any() for patch in got):
        if len(got.unique(dim=0)) < len(got):
            return Finding("repeated patches", "some patches come twice, others never")
        return Finding(
            "order of patches",
            "every patch is cut out rightly, but they come in another order: read the "
            "image like a page",
        )
    ours = expected.sort(dim=1)[0]
    if all((ours == patch.sort()[0]).all(dim=1).any() for patch in got):
        return Finding(
            "order inside a patch",
            "every patch has its own pixels, but they lie in another order inside it: "
            "look at what follows what when a patch is made flat",
        )
    return Finding(
        "mixed patches",
        "a patch holds pixels of several places: those of one patch must be neighbours "
        "in the image. Look at the first patch below: where do its numbers come from?",
    )


def _grid(images: Tensor, p: int):
    b, c, height, width = images.shape
    return images, (b, c, height // p, p, width // p, p)


split_patches = Judge(
    task="split_patches",
    arguments=("images", "patch_size"),
    axes="b n c*p*p",
    oracle=library.split_patches,
    cases=(
        Case("a grey 2x4 image", (counted(1, 1, 2, 4), 2)),
        Case("a square image", (counted(1, 1, 4, 4), 2)),
        Case("a high 6x4 image", (counted(1, 1, 6, 4), 2)),
        Case("a wide 4x6 image", (counted(1, 1, 4, 6), 2)),
        Case("three channels", (counted(1, 3, 4, 6), 2)),
        Case("patches of one pixel", (counted(2, 3, 2, 5), 1)),
        Case("a batch of two", (counted(2, 3, 6, 9), 3)),
    ),
    mistakes=(
        Mistake(
            "reshape alone",
            "the numbers were regrouped in the order in which they lie in memory, line "
            "by line: but a patch is a square, and its lines do not follow each other "
            "there. Which axes have to change places before any are joined?",
            _only_reshaped,
        ),
        Mistake(
            "channel last",
            "inside a patch the channel comes last: the colours of one pixel stand "
            "side by side. A Conv2d stores its kernel the other way, so trained "
            "weights would meet the wrong pixels",
            _cut("b (rows cols) (p1 p2 c)"),
        ),
        Mistake(
            "columns first",
            "the patches are numbered downwards, column by column: read the image like "
            "a page",
            _cut("b (cols rows) (c p1 p2)"),
        ),
        Mistake(
            "transposed patches",
            "inside every patch rows and columns are swapped: each patch is mirrored "
            "at its diagonal",
            _cut("b (rows cols) (c p2 p1)"),
        ),
        Mistake(
            "square images only",
            "right on square images, wrong on others: rows and columns of the grid are "
            "taken to be equally many. Height and width need one count each",
            _as_square,
        ),
        Mistake(
            "transposed image",
            "the whole image is mirrored at its diagonal: rows and columns were "
            "swapped before the cut",
            _cut("b (cols rows) (c p2 p1)"),
        ),
        Mistake(
            "strewn pixels",
            "a patch holds every second (third, ...) pixel of the whole image: the "
            "place inside a patch and the place of the patch are swapped",
            _strewn,
        ),
    ),
    questions=(
        only_moved(0),
        order_of_axes("b c rows p1 cols p2", _grid),
        _which_patches,
    ),
)


# Putting together


def _joined(pattern: str):
    """Return an answer that reads patches in another order."""

    def answer(patches: Tensor, p: int, image_size: tuple[int, int]) -> Tensor:
        rows, cols = image_size[0] // p, image_size[1] // p
        return rearrange(
            patches,
            f"{pattern} -> b c (rows p1) (cols p2)",
            rows=rows,
            cols=cols,
            p1=p,
            p2=p,
        )

    return answer


def _joined_by_reshape(patches: Tensor, p: int, image_size: tuple[int, int]) -> Tensor:
    return patches.reshape(len(patches), -1, *image_size)


def _joined_as_square(patches: Tensor, p: int, image_size: tuple[int, int]) -> Tensor:
    side = round(patches.shape[1] ** 0.5)
    return rearrange(
        patches,
        "b (r s) (c p1 p2) -> b c (r p1) (s p2)",
        r=side,
        s=side,
        p1=p,
        p2=p,
    )


def _joined_as_root(patches: Tensor, p: int, image_size: tuple[int, int]) -> Tensor:
    side = int(patches.shape[1] ** 0.5)
    x = patches.reshape(len(patches), side, side, -1, p, p)
    return rearrange(x, "b r s c p1 p2 -> b c (r p1) (s p2)")


def _turned(patches: Tensor, p: int, image_size: tuple[int, int]) -> Tensor:
    return _joined("b (rows cols) (c p1 p2)")(patches, p, image_size).mT


def _which_squares(probe: Probe) -> Finding | None:
    """Ask whether every patch is somewhere in the image as a whole."""
    p = probe.given[1]
    got, expected = (
        rearrange(x[0], "c (r p1) (s p2) -> (r s) (c p1 p2)", p1=p, p2=p)
        for x in (probe.got, probe.expected)
    )
    if all((expected == square).all(dim=1).any() for square in got):
        return Finding(
            "order of patches",
            "every patch is whole, but they lie in other places: lay them like the "
            "words of a page",
        )
    ours = expected.sort(dim=1)[0]
    if all((ours == square.sort()[0]).all(dim=1).any() for square in got):
        return Finding(
            "order inside a patch",
            "every patch lies at its place, but its pixels are in another order: look "
            "at how a flat patch becomes a square again",
        )
    return Finding(
        "mixed patches",
        "the pixels of one patch are strewn over the image: look where the numbers of "
        "the first patch went",
    )


def _pieces(patches: Tensor, p: int, image_size: tuple[int, int]):
    rows, cols = image_size[0] // p, image_size[1] // p
    return patches, (len(patches), rows, cols, patches.shape[2] // p**2, p, p)


merge_patches = Judge(
    task="merge_patches",
    arguments=("patches", "patch_size", "image_size"),
    axes="b c H W",
    oracle=library.merge_patches,
    cases=(
        Case("a grey 2x4 image", (counted(1, 2, 4), 2, (2, 4))),
        Case("a square image", (counted(1, 4, 4), 2, (4, 4))),
        Case("a high 6x4 image", (counted(1, 6, 4), 2, (6, 4))),
        Case("a wide 4x6 image", (counted(1, 6, 4), 2, (4, 6))),
        Case("three channels", (counted(1, 6, 12), 2, (4, 6))),
        Case("a batch of two", (counted(2, 8, 27), 3, (6, 12))),
    ),
    mistakes=(
        Mistake(
            "reshape alone",
            "the numbers fill the image line by line, patch after patch: but a patch "
            "is a square. Which axes have to change places before any are joined?",
            _joined_by_reshape,
        ),
        Mistake(
            "channel last",
            "inside a patch the channel is read last, as if the colours of one pixel "
            "stood side by side: split_patches puts it elsewhere",
            _joined("b (rows cols) (p1 p2 c)"),
        ),
        Mistake(
            "columns first",
            "the patches are laid downwards, column by column: lay them like the words "
            "of a page",
            _joined("b (cols rows) (c p1 p2)"),
        ),
        Mistake(
            "transposed patches",
            "inside every patch rows and columns are swapped",
            _joined("b (rows cols) (c p2 p1)"),
        ),
        Mistake(
            "transposed image",
            "the whole image is mirrored at its diagonal: height and width are swapped",
            _turned,
        ),
        Mistake(
            "square images only",
            "right on square images, wrong on others: the sides of the grid are taken "
            "from the root of the number of patches. image_size tells them",
            _joined_as_square,
        ),
        Mistake(
            "square images only",
            "right on square images, wrong on others: the sides of the grid are taken "
            "from the root of the number of patches. image_size tells them",
            _joined_as_root,
        ),
    ),
    questions=(
        only_moved(0),
        order_of_axes("b rows cols c p1 p2", _pieces),
        _which_squares,
    ),
)


# The linear map


def _one_by_one(patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Forget the bias."""
    return patches @ weight.T


embed_patches = Judge(
    task="embed_patches",
    arguments=("patches", "weight", "bias"),
    axes="b n e",
    oracle=F.linear,
    cases=(
        Case(
            "two patches of 3 numbers",
            (drawn(1, 2, 3), drawn(2, 3, seed=1), drawn(2, seed=2)),
        ),
        Case(
            "tokens as long as patches",
            (drawn(1, 2, 4, seed=3), drawn(4, 4, seed=4), drawn(4, seed=5)),
        ),
        Case(
            "a batch of two",
            (drawn(2, 6, 8, seed=6), drawn(5, 8, seed=7), drawn(5, seed=8)),
        ),
    ),
    mistakes=(
        Mistake(
            "weight turned",
            "right only where the weight is square? Compare its shape (e, c*p*p) with "
            "what your product needs: axes that meet must mean the same thing",
            lambda patches, weight, bias: patches @ weight + bias,
        ),
        Mistake(
            "weight reshaped",
            "the weight was brought to another shape by a reshape or view: that moves "
            "no axis, it only cuts the same numbers into other rows",
            lambda patches, weight, bias: (
                patches @ weight.reshape(weight.shape[1], -1) + bias
            ),
        ),
        Mistake(
            "no bias",
            "all tokens are off by the same vector: nothing is added after the product",
            _one_by_one,
        ),
        Mistake(
            "bias subtracted",
            "the bias has the wrong sign",
            lambda patches, weight, bias: patches @ weight.T - bias,
        ),
        Mistake(
            "bias first",
            "the bias is part of the product: it was added before the weight acted",
            lambda patches, weight, bias: (patches + bias) @ weight.T,
        ),
    ),
    questions=(each_image_alone(0), each_token_alone(0)),
)


def _kernel(weight: Tensor, in_channels: int, patch_size: int) -> Tensor:
    return weight.reshape(-1, in_channels, patch_size, patch_size)


def _ordered(pattern: str):
    return lambda weight, c, p: rearrange(
        weight, f"e ({pattern}) -> e c p1 p2", c=c, p1=p, p2=p
    )


conv_kernel = Judge(
    task="conv_kernel",
    arguments=("weight", "in_channels", "patch_size"),
    axes="e c p1 p2",
    oracle=_kernel,
    cases=(
        Case("2 outputs for grey patches", (counted(2, 4), 1, 2)),
        Case("a square weight", (counted(8, 8), 2, 2)),
        Case("three channels", (counted(5, 12), 3, 2)),
        Case("patches of 3", (counted(7, 18), 2, 3)),
    ),
    mistakes=(
        Mistake(
            "transposed once too often",
            "the weight of nn.Linear was transposed first: it is stored as "
            "(e, c*p*p), one row for each output, as a kernel is. A reshape of the "
            "transposed numbers has a fitting shape and the wrong numbers",
            lambda weight, c, p: weight.T.reshape(len(weight), c, p, p),
        ),
        Mistake(
            "channel last",
            "a row of the weight is read as if the channel came last in a flat patch",
            _ordered("p1 p2 c"),
        ),
        Mistake(
            "transposed patches",
            "rows and columns inside the kernel are swapped",
            _ordered("c p2 p1"),
        ),
        Mistake(
            "arguments swapped",
            "outputs and channels have changed places: a kernel's first axis is what "
            "comes out, its second what goes in",
            lambda weight, c, p: weight.reshape(-1, c, p, p).transpose(0, 1),
        ),
    ),
    questions=(
        only_moved(0),
        order_of_axes(
            "e c p1 p2", lambda weight, c, p: (weight, (len(weight), c, p, p))
        ),
    ),
)


# The class


class _Embed(nn.Module):
    """Mistakes overwrite one of its three steps."""

    def __init__(self, patch_size, in_channels, embed_dim):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)

    def cut(self, images):
        return library.split_patches(images, self.patch_size)

    def embed(self, patches):
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)

    def forward(self, images):
        return self.embed(self.cut(images))


def _grid_torn(self, images):
    """Reshape where a transpose is needed."""
    grid = self.proj(images)  # (b, e, rows, cols)
    return grid.reshape(len(grid), -1, grid.shape[1])


def _cuts(function):
    """Return the class with another way to cut images."""
    return altered(_Embed, cut=lambda self, images: function(images, self.patch_size))


def _embedding(height: int, width: int, p: int, c: int, e: int, b: int) -> tuple:
    sizes = {"patch_size": p, "in_channels": c, "embed_dim": e}
    build = Build(
        sizes | {"image_size": (height, width)},
        drawn_weights(lambda: _Embed(**sizes), seed=b),
    )
    return build, drawn(b, c, height, width, seed=b)


PatchEmbed = ClassJudge(
    task="PatchEmbed",
    arguments=("model", "images"),
    axes="b n e",
    oracle=library.PatchEmbed,
    cases=(
        Case("a grey 2x4 image", _embedding(2, 4, 2, 1, 3, 1)),
        Case("a square image", _embedding(4, 4, 2, 2, 8, 2)),
        Case("two wide 6x9 images", _embedding(6, 9, 3, 2, 5, 3)),
    ),
    mistakes=(
        *(Mistake(m.name, m.tell, _cuts(m.twin)) for m in split_patches.mistakes),
        Mistake(
            "no bias",
            "all tokens are off by the same vector: the bias is not added",
            altered(
                _Embed, embed=lambda self, x: F.linear(x, self.proj.weight.flatten(1))
            ),
        ),
        Mistake(
            "reshape, no transpose",
            "the convolution gives (b, e, rows, cols), and a reshape straight to "
            "(b, n, e) cuts its numbers into tokens that hold one feature of many "
            "places. Which axes have to change places?",
            altered(_Embed, forward=_grid_torn),
        ),
        Mistake(
            "still a grid",
            "the result is (b, e, rows, cols), a grid of vectors: a transformer takes "
            "a row of them",
            altered(_Embed, forward=lambda self, images: self.proj(images)),
        ),
        Mistake(
            "features before tokens",
            "the result is (b, e, n): tokens and their features have to change places",
            altered(_Embed, forward=lambda self, x: self.proj(x).flatten(2)),
        ),
    ),
    questions=(each_image_alone(1),),
    hints={
        "proj.weight": "A Conv2d takes in_channels, then out_channels, then the kernel",
    },
)


# The exercises: a pixel's patch, windows that overlap, and embeddings of all kinds


def _patch_of_pixel(y: int, x: int, image_size: tuple[int, int], p: int) -> int:
    return y // p * (image_size[1] // p) + x // p


patch_of_pixel = Judge(
    task="patch_of_pixel",
    arguments=("y", "x", "image_size", "patch_size"),
    axes="",
    oracle=_patch_of_pixel,
    cases=(
        Case("the first pixel", (0, 0, (4, 6), 2)),
        Case("the end of the first line", (0, 5, (4, 6), 2)),
        Case("a pixel of a wide image", (3, 1, (4, 6), 2)),
        Case("a pixel of a high image", (10, 4, (12, 6), 3)),
        Case("the last pixel", (35, 19, (36, 20), 4)),
    ),
    mistakes=(
        Mistake(
            "rows for columns",
            "right in the first row of patches, wrong below: one row further down is "
            "as many patches further as a row of patches has. How many are that?",
            lambda y, x, size, p: y // p * (size[0] // p) + x // p,
        ),
        Mistake(
            "columns first",
            "the patches are numbered downwards: number them like the words of a page",
            lambda y, x, size, p: x // p * (size[0] // p) + y // p,
        ),
        Mistake(
            "x and y swapped",
            "x and y have changed places: y counts lines, from above",
            lambda y, x, size, p: x // p * (size[1] // p) + y // p,
        ),
        Mistake(
            "counted from 1",
            "one too many: the first patch is number 0",
            lambda y, x, size, p: _patch_of_pixel(y, x, size, p) + 1,
        ),
        Mistake(
            "pixels for patches",
            "a whole line of pixels is counted where a row of patches should be",
            lambda y, x, size, p: y // p * size[1] + x // p,
        ),
        Mistake(
            "number of the pixel",
            "the pixels were counted, one after the other, and that number divided: a "
            "patch is a square and not a run of pixels",
            lambda y, x, size, p: (y * size[1] + x) // (p * p),
        ),
        Mistake(
            "place inside the patch",
            "this is where the pixel lies inside its patch: the remainder. Which patch "
            "it is, the quotient tells",
            lambda y, x, size, p: y % p * p + x % p,
        ),
        Mistake(
            "not rounded",
            "a patch has a whole number: pixels of one patch must give the same",
            lambda y, x, size, p: y / p * (size[1] // p) + x / p,
        ),
        Mistake(
            "rounded to the nearest",
            "pixels of one patch get different numbers: the quotient was rounded up "
            "for some of them",
            lambda y, x, size, p: round(y / p) * (size[1] // p) + round(x / p),
        ),
    ),
)


def _windows(images: Tensor, p: int, stride: int) -> Tensor:
    return F.unfold(images, p, stride=stride).mT


def _windowed(pattern: str):
    """Return an answer that orders the numbers of a window otherwise."""

    def answer(images: Tensor, p: int, stride: int) -> Tensor:
        windows = images.unfold(2, p, stride).unfold(3, p, stride)
        return rearrange(windows, f"b c rows cols p1 p2 -> {pattern}")

    return answer


def _which_windows(probe: Probe) -> Finding:
    """Ask where in the image each window starts."""
    images, p, stride = probe.given
    wide = images.shape[3] - p + 1
    every = _windows(images[:1], p, 1)[0]  # from each pixel

    def start(window):
        same = (every == window).all(dim=1).nonzero().flatten().tolist()
        return divmod(same[0], wide) if same else None

    for n, pair in enumerate(zip(probe.got[0], probe.expected[0], strict=True)):
        got, expected = map(start, pair)
        if got is None:
            return _which_patches(probe)
        if got != expected:
            return Finding(
                "other windows",
                f"with a stride of {stride} window {n} starts at line {got[0]}, column "
                f"{got[1]}: it should start at line {expected[0]}, column "
                f"{expected[1]}",
            )
    return Finding("other images", "right in the first image, wrong in others")


overlapping_patches = Judge(
    task="overlapping_patches",
    arguments=("images", "patch_size", "stride"),
    axes="b n c*p*p",
    oracle=_windows,
    cases=(
        Case("windows side by side", (counted(1, 1, 4, 6), 2, 2)),
        Case("a grey 3x4 image, stride 1", (counted(1, 1, 3, 4), 2, 1)),
        Case("a square image", (counted(1, 1, 5, 5), 3, 2)),
        Case("a high image and three channels", (counted(1, 3, 7, 5), 3, 2)),
        Case("a side with pixels left over", (counted(1, 2, 6, 8), 3, 2)),
        Case("a batch of two", (counted(2, 3, 7, 10), 4, 3)),
    ),
    mistakes=(
        Mistake(
            "stride ignored",
            "the windows lie side by side whatever stride says: they start stride "
            "pixels apart, and so they overlap",
            lambda images, p, stride: _windows(images, p, p),
        ),
        Mistake(
            "every pixel",
            "a window starts at every pixel whatever stride says",
            lambda images, p, stride: _windows(images, p, 1),
        ),
        Mistake(
            "last window missing",
            "the last window of each line or column is missing: how far may a window "
            "start from the far edge and still fit?",
            lambda images, p, stride: _windows(images[:, :, :-1, :-1], p, stride),
        ),
        Mistake(
            "channel last",
            "inside a window the channel comes last: it comes first in chapter 01",
            _windowed("b (rows cols) (p1 p2 c)"),
        ),
        Mistake(
            "columns first",
            "the windows are numbered downwards: number them like the words of a page",
            _windowed("b (cols rows) (c p1 p2)"),
        ),
        Mistake(
            "transposed patches",
            "inside every window rows and columns are swapped",
            _windowed("b (rows cols) (c p2 p1)"),
        ),
        Mistake(
            "joined without turning",
            "the numbers were joined in the order in which unfold leaves them: the "
            "channel stands in front of the window's place. Which axes have to change "
            "places first?",
            lambda images, p, stride: (
                images.unfold(2, p, stride)
                .unfold(3, p, stride)
                .reshape(len(images), -1, images.shape[1] * p * p)
            ),
        ),
    ),
    questions=(only_moved(0), _which_windows),
)


# What is_patch_embedding has to tell apart; patches of 4 in images with 3 channels


def _linear_maps(*shape: int) -> Tensor:
    return drawn(*shape, seed=11) / 5


def _embeds(pattern: str, *, bent: bool = False):
    """Return an embedding that flattens patches by a pattern."""

    def embed(images: Tensor) -> Tensor:
        patches = rearrange(images, pattern, p1=4, p2=4)
        tokens = patches @ _linear_maps(patches.shape[-1], 7).to(images.dtype)
        return F.gelu(tokens) if bent else tokens + 1

    return embed


def _by_windows(size: int, dilation: int = 1, padding: int = 0):
    """Return an embedding by a convolution with such a kernel and stride 4."""
    return lambda images: (
        F.conv2d(
            images,
            _linear_maps(7, 3, size, size).to(images.dtype),
            stride=4,
            dilation=dilation,
            padding=padding,
        )
        .flatten(2)
        .mT
    )


_PLAIN = _embeds("b c (rows p1) (cols p2) -> b (rows cols) (c p1 p2)")


def _by_its_own_map(images: Tensor) -> Tensor:
    tokens = _PLAIN(images)
    return tokens * torch.linspace(1, 2, tokens.shape[1], dtype=images.dtype)[:, None]


def _strips(images: Tensor) -> Tensor:
    flat = images.reshape(len(images), -1, 48)
    return flat @ _linear_maps(48, 7).to(images.dtype)


is_patch_embedding = decides(
    "is_patch_embedding",
    ("embed",),
    (
        Subject("the embedding of chapter 01", _PLAIN, True),
        Subject(
            "an embedding that flattens a patch with the colour last",
            _embeds("b c (rows p1) (cols p2) -> b (rows cols) (p1 p2 c)"),
            True,
        ),
        Subject("a convolution with kernel 4 and stride 4", _by_windows(4), True),
        Subject(
            "an embedding that bends its tokens by a GELU",
            _embeds("b c (rows p1) (cols p2) -> b (rows cols) (c p1 p2)", bent=True),
            True,
        ),
        Subject(
            "an embedding that looks at the green of each patch alone",
            lambda images: _PLAIN(images * images.new_tensor([[[0]], [[1]], [[0]]])),
            True,
        ),
        Subject("an image that is only reshaped before the map", _strips, False),
        Subject(
            "patches numbered column by column",
            _embeds("b c (rows p1) (cols p2) -> b (cols rows) (c p1 p2)"),
            False,
        ),
        Subject(
            "patches of every other pixel",
            _embeds("b c (p1 rows) (p2 cols) -> b (rows cols) (c p1 p2)"),
            False,
        ),
        Subject(
            "a convolution whose kernel reaches into the neighbours",
            _by_windows(6, padding=1),
            False,
        ),
        Subject("each place with a map of its own", _by_its_own_map, False),
        Subject(
            "tokens from which their mean over the image is subtracted",
            lambda images: _PLAIN(images) - _PLAIN(images).mean(1, keepdim=True),
            False,
        ),
        Subject(
            "tokens to which a tenth of the neighbour image's tokens is added",
            lambda images: _PLAIN(images) + _PLAIN(images).roll(1, 0) / 10,
            False,
        ),
        Subject(
            "patches in reverse order", lambda images: _PLAIN(images).flip(1), False
        ),
    ),
)


# What a narrow embedding keeps


def _directions(patches: Tensor, mean: Tensor, k: int) -> Tensor:
    return torch.linalg.svd(patches - mean, full_matrices=False).Vh[:k]


def _kept(patches: Tensor, mean: Tensor, directions: Tensor) -> Tensor:
    """Return the share of squared distances from the mean that directions keep."""
    patches = patches - mean
    return (patches @ directions.T).square().sum() / patches.square().sum()


def _kept_share(patches: Tensor, new_patches: Tensor, k: int) -> Tensor:
    mean = patches.mean(dim=0)
    return _kept(new_patches, mean, _directions(patches, mean, k))


def _about_mean(fitted, measured):
    """Return an answer that takes other means; each gets old and new patches."""

    def answer(patches: Tensor, new_patches: Tensor, k: int) -> Tensor:
        given = patches, new_patches
        directions = _directions(patches, fitted(*given), k)
        return _kept(new_patches, measured(*given), directions)

    return answer


def _mean(patches: Tensor, new_patches: Tensor) -> Tensor:
    return patches.mean(dim=0)


def _nothing(patches: Tensor, new_patches: Tensor) -> Tensor:
    return patches.new_zeros(())


def _last_directions(patches: Tensor, new_patches: Tensor, k: int) -> Tensor:
    mean = patches.mean(dim=0)
    values = _directions(patches, mean, len(patches[0]))
    return _kept(new_patches, mean, values[max(len(values) - k, 0) :])


def _first_numbers(patches: Tensor, new_patches: Tensor, k: int) -> Tensor:
    return _kept(new_patches, patches.mean(dim=0), torch.eye(len(patches[0]))[:k])


def _columns_of_vh(patches: Tensor, new_patches: Tensor, k: int) -> Tensor:
    mean = patches.mean(dim=0)
    turned = torch.linalg.svd(patches - mean, full_matrices=False).Vh.T
    return _kept(new_patches, mean, turned[:k])


def _patch_by_patch(patches: Tensor, new_patches: Tensor, k: int) -> Tensor:
    mean = patches.mean(dim=0)
    directions = _directions(patches, mean, k)
    return torch.stack([_kept(one[None], mean, directions) for one in new_patches])


def _sizes_added(patches: Tensor, new_patches: Tensor, k: int) -> Tensor:
    sizes = torch.linalg.svdvals(patches - patches.mean(dim=0))
    return sizes[:k].sum() / sizes.sum()


def _what_is_kept(probe: Probe) -> Finding | None:
    """Ask for the share where it is known."""
    patches = probe.given[0]
    cross = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    first = probe.run(cross, cross, 1)
    if first is not None and abs(first - 0.1) < 1e-3:
        return Finding(
            "smallest directions",
            "of patches that vary between -3 and 3 one way and between -1 and 1 the "
            "other, one direction keeps 0.9, and it says 0.1: in which order do your "
            "directions come?",
        )
    everything = probe.run(patches, patches, patches.shape[1])
    if everything is not None and abs(everything - 1) > 1e-3:
        return Finding(
            "not everything kept",
            f"with as many directions as a patch has numbers ({patches.shape[1]}) "
            f"nothing is lost, and it says {everything:.4g}: what do you compare with "
            "what?",
        )
    line = torch.arange(6.0)[:, None] * torch.tensor([2.0, -1.0, 0.5]) + 7
    one = probe.run(line[:3], line[3:], 1)
    if one is not None and abs(one - 1) > 1e-3:
        return Finding(
            "a line",
            "patches on one line through (7, 7, 7) lose nothing with one direction, "
            f"new ones on the line too, and it says {one:.4g}: which point do "
            "directions start from, for old and for new patches?",
        )
    other = probe.run(line[:3], line[3:].flip(1), 1)
    wanted = probe.right(line[:3], line[3:].flip(1), 1)
    if other is not None and abs(other - wanted) > 1e-3:
        return Finding(
            "new patches off the line",
            "directions from patches on a line, and new patches that lie elsewhere: "
            f"{wanted:.4g} is kept of them, and it says {other:.4g}. What is learned "
            "from which patches, and what is squared?",
        )
    return None


def _clouds(few: int, many: int, size: int, k: int) -> tuple:
    """Return patches that vary more along some directions, around 3."""
    spread = drawn(size, size, seed=size) * torch.linspace(2, 0.2, size)[:, None]
    return (
        drawn(few, size, seed=few) @ spread + 3,
        drawn(many, size, seed=many + 1) @ spread + 2.5,
        k,
    )


kept_share = Judge(
    task="kept_share",
    arguments=("patches", "new_patches", "k"),
    axes="",
    oracle=_kept_share,
    cases=(
        Case(
            "patches on a line",
            (
                torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]),
                torch.tensor([[4.0, 8.0], [5.0, 10.0]]),
                1,
            ),
        ),
        Case("one direction of two", _clouds(5, 4, 2, 1)),
        Case("as many patches as numbers", _clouds(5, 5, 5, 2)),
        Case("no direction", _clouds(6, 7, 3, 0)),
        Case("few patches of many numbers", _clouds(7, 30, 12, 4)),
    ),
    mistakes=(
        Mistake(
            "measured where it was fitted",
            "this is the share of the patches that the directions were taken from: few "
            "patches of many numbers seem to lose nothing. What are the new ones for?",
            lambda patches, new, k: _kept_share(patches, patches, k),
        ),
        Mistake(
            "fitted on the new ones",
            "the directions come from the patches on which they are judged: these must "
            "not be seen before",
            lambda patches, new, k: _kept_share(new, new, k),
        ),
        Mistake(
            "fitted on all",
            "the directions come from old and new patches together: those on which "
            "they are judged must not be seen before",
            lambda patches, new, k: _kept_share(torch.cat([patches, new]), new, k),
        ),
        Mistake(
            "mean not subtracted",
            "no mean is subtracted: then the first direction points to the mean, and "
            "most of what is kept is that all patches are bright",
            _about_mean(_nothing, _nothing),
        ),
        Mistake(
            "mean not subtracted",
            "the directions start from the mean, but it is not subtracted from the new "
            "patches",
            _about_mean(_mean, _nothing),
        ),
        Mistake(
            "mean not subtracted",
            "the mean is subtracted from the new patches, but the directions were "
            "taken from patches around 0",
            _about_mean(_nothing, _mean),
        ),
        Mistake(
            "mean of the new ones",
            "the mean of the new patches is subtracted from them: what was fitted does "
            "not know it, and has a mean of its own",
            _about_mean(_mean, lambda patches, new: new.mean(dim=0)),
        ),
        Mistake(
            "one mean for all numbers",
            "one mean is taken over all numbers: each place in a patch has its own",
            _about_mean(*[lambda patches, new: patches.mean()] * 2),
        ),
        Mistake(
            "smallest directions",
            "the directions along which patches vary least are kept: in which order do "
            "they come?",
            _last_directions,
        ),
        Mistake(
            "columns for rows",
            "the columns of Vh are taken: its rows are the directions",
            _columns_of_vh,
        ),
        Mistake(
            "first numbers",
            "the first k numbers of a patch are kept: a direction has a share in all "
            "of them",
            _first_numbers,
        ),
        Mistake(
            "what is lost",
            "this is the share that is lost",
            lambda *given: 1 - _kept_share(*given),
        ),
        Mistake(
            "lengths for squares",
            "a root was taken: shares add up to 1 for squared lengths only",
            lambda *given: _kept_share(*given).sqrt(),
        ),
        Mistake(
            "sizes added",
            "the singular values are added as they are, and they are those of the old "
            "patches: squares add up, and the new patches are asked for",
            _sizes_added,
        ),
        Mistake(
            "mean of shares",
            "a share is taken for each patch and then averaged: add up all squares, "
            "then divide once",
            lambda *given: _patch_by_patch(*given).mean(),
        ),
        Mistake(
            "one share for each patch",
            "there is one share for each patch: one number for all is asked for",
            _patch_by_patch,
        ),
    ),
    questions=(_what_is_kept,),
    dtypes=(torch.float64,),
    gradients=False,
)
