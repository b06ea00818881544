"""Checks of the exercises of chapter 14: tokens, positions and kernels of new sizes."""

import torch
import torch.nn.functional as F
from torch import Tensor

import vitlib.positions as positions
from vitlib.checks.building import counted, drawn
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import only_moved
from vitlib.checks.wording import Finding

# Patches that overlap


def _places(image_size, patch_size, stride):
    return [(side - patch_size) // stride + 1 for side in image_size]


def _count_tokens(image_size, patch_size, stride):
    rows, cols = _places(image_size, patch_size, stride)
    return rows * cols + 1


def _count_up(image_size, patch_size, stride):
    rows, cols = (-(-(side - patch_size) // stride) + 1 for side in image_size)
    return rows * cols + 1


count_tokens = Judge(
    task="count_tokens",
    arguments=("image_size", "patch_size", "stride"),
    axes="",
    oracle=_count_tokens,
    cases=(
        Case("patches side by side", ((8, 8), 4, 4)),
        Case("patches that overlap by half", ((8, 8), 4, 2)),
        Case("a wide image", ((12, 20), 4, 2)),
        Case("a stride that does not fit", ((11, 18), 5, 3)),
        Case("a stride of one pixel", ((9, 7), 3, 1)),
    ),
    mistakes=(
        Mistake(
            "stride ignored",
            "right where patches stand side by side: the number of patches does not "
            "depend on their overlap here",
            lambda size, p, s: (size[0] // p) * (size[1] // p) + 1,
        ),
        Mistake(
            "patch ignored",
            "a patch starts at every multiple of the stride here, also where it would "
            "reach beyond the image",
            lambda size, p, s: (size[0] // s) * (size[1] // s) + 1,
        ),
        Mistake(
            "first patch forgotten",
            "this is the number of steps in each direction: with three steps a window "
            "stands at four places",
            lambda size, p, s: ((size[0] - p) // s) * ((size[1] - p) // s) + 1,
        ),
        Mistake(
            "class token forgotten",
            "one too few everywhere: these are the patches. Which token is none?",
            lambda size, p, s: _count_tokens(size, p, s) - 1,
        ),
        Mistake(
            "square images only",
            "right on square images: the height counts for both sides",
            lambda size, p, s: _count_tokens((size[0],) * 2, p, s),
        ),
        Mistake(
            "rounded up",
            "right where the stride fits: elsewhere a last patch is counted that "
            "reaches beyond the image",
            _count_up,
        ),
        Mistake(
            "one side only",
            "these are the places along one side: patches stand in rows and columns",
            lambda size, p, s: _places(size, p, s)[1] + 1,
        ),
        Mistake(
            "added, not multiplied",
            "rows and columns are added: each row has all columns",
            lambda size, p, s: sum(_places(size, p, s)) + 1,
        ),
    ),
)


# A piece of a larger image


def _crop_positions(pos_embed, grid_size, corner, size, *, prefix=None, turn=False):
    rows, cols = grid_size[::-1] if turn else grid_size
    if prefix is None:
        prefix = pos_embed.shape[1] - rows * cols
    grid = pos_embed[:, prefix:].unflatten(1, (rows, cols))
    (top, left), (high, wide) = corner, size
    piece = grid[:, top : top + high, left : left + wide]
    return torch.cat([pos_embed[:, :prefix], piece.flatten(1, 2)], dim=1)


def _run_of_rows(pos_embed, grid_size, corner, size):
    prefix = pos_embed.shape[1] - grid_size[0] * grid_size[1]
    start = prefix + corner[0] * grid_size[1] + corner[1]
    piece = pos_embed[:, start : start + size[0] * size[1]]
    return torch.cat([pos_embed[:, :prefix], piece], dim=1)


def _in_a_narrow_grid(pos_embed, grid_size, corner, size):
    """Count rows as if the grid were as wide as the piece."""
    prefix = pos_embed.shape[1] - grid_size[0] * grid_size[1]
    rows = corner[0] + torch.arange(size[0])
    cols = corner[1] + torch.arange(size[1])
    index = (rows[:, None] * size[1] + cols).flatten() + prefix
    return torch.cat([pos_embed[:, :prefix], pos_embed[:, index]], dim=1)


def _row_0_as_patch(pos_embed, grid_size, corner, size):
    grid = pos_embed[:, : grid_size[0] * grid_size[1]].unflatten(1, grid_size)
    (top, left), (high, wide) = corner, size
    piece = grid[:, top : top + high, left : left + wide].flatten(1, 2)
    prefix = pos_embed.shape[1] - grid_size[0] * grid_size[1]
    return torch.cat([pos_embed[:, :prefix], piece], dim=1)


def _stretched(pos_embed, grid_size, corner, size):
    return positions.resample_pos_embed(pos_embed, grid_size, size)


def _which_places(probe: Probe) -> Finding | None:
    """Ask which rows of the table came back, and compare the first that is wrong."""
    pos_embed, grid_size, corner, size = probe.given
    prefix = pos_embed.shape[1] - grid_size[0] * grid_size[1]
    numbered = torch.arange(pos_embed.shape[1], dtype=torch.float32)[None, :, None]
    numbered = numbered.expand_as(pos_embed).contiguous()
    given = (numbered, grid_size, corner, size)
    got, wanted = probe.run(*given), probe.right(*given)
    if got is None or got.shape != wanted.shape:
        return None
    if prefix and got[0, 0, 0] != 0:
        return Finding(
            "class row",
            "row 0 of the result is not the class token's: it has no place in the "
            "image and goes with every piece",
        )
    for place, (one, other) in enumerate(
        zip(got[0, prefix:, 0].tolist(), wanted[0, prefix:, 0].tolist(), strict=True)
    ):
        if one != other:
            row, col = divmod(place, size[1])
            theirs = divmod(int(one) - prefix, grid_size[1])
            return Finding(
                "other place",
                f"the patch in row {row}, column {col} of the piece gets the position "
                f"of row {theirs[0]}, column {theirs[1]} of the whole grid: where does "
                "it stand in the whole image?",
            )
    return None


crop_positions = Judge(
    task="crop_positions",
    arguments=("pos_embed", "grid_size", "corner", "size"),
    axes="1 T e",
    oracle=_crop_positions,
    cases=(
        Case("the whole of a grid", (drawn(1, 5, 3, seed=1), (2, 2), (0, 0), (2, 2))),
        Case("two full rows", (drawn(1, 13, 2, seed=2), (4, 3), (1, 0), (2, 3))),
        Case(
            "a piece inside a square grid",
            (counted(1, 17, 2), (4, 4), (1, 2), (2, 2)),
        ),
        Case(
            "a piece inside a wide grid, no class token",
            (drawn(1, 15, 4, seed=3), (3, 5), (0, 1), (2, 3)),
        ),
        Case("a high piece", (drawn(1, 31, 4, seed=4), (6, 5), (2, 1), (3, 2))),
    ),
    mistakes=(
        Mistake(
            "a run of rows",
            "right for whole rows: here the table's rows are taken one after the "
            "other. What stands behind the last column of the piece?",
            _run_of_rows,
        ),
        Mistake(
            "stretched",
            "the whole table was stretched to the size of the piece: a piece shows a "
            "part of the image at the same scale",
            _stretched,
        ),
        Mistake(
            "corner ignored",
            "the piece is always taken from the corner at the top left",
            lambda t, g, c, s: _crop_positions(t, g, (0, 0), s),
        ),
        Mistake(
            "size read as a corner",
            "right where the corner is (0, 0): size is how many rows and columns the "
            "piece has, and not where it ends",
            lambda t, g, c, s: _crop_positions(
                t, g, c, (max(s[0] - c[0], 0), max(s[1] - c[1], 0))
            ),
        ),
        Mistake(
            "class row lost",
            "the row of the class token is missing: it goes with every piece",
            lambda t, g, c, s: _crop_positions(t, g, c, s)[
                :, t.shape[1] - g[0] * g[1] :
            ],
        ),
        Mistake(
            "off by one",
            "the patches get the positions of their left neighbours: row 0 of the "
            "table belongs to the class token",
            _row_0_as_patch,
        ),
        Mistake(
            "corner turned",
            "down and right are swapped in the corner",
            lambda t, g, c, s: _crop_positions(t, g, c[::-1], s),
        ),
        Mistake(
            "rows and columns swapped",
            "right on square grids: the table is read with rows and columns swapped",
            lambda t, g, c, s: _crop_positions(t, g, c, s, turn=True),
        ),
        Mistake(
            "piece turned",
            "the piece has its height for its width",
            lambda t, g, c, s: _crop_positions(t, g, c, s[::-1]),
        ),
        Mistake(
            "width of the piece",
            "the rows are counted as if the grid were as wide as the piece: how many "
            "places lie between two that stand below each other?",
            _in_a_narrow_grid,
        ),
        Mistake(
            "class row expected",
            "right with a class token: without one, row 0 of the table is a patch's. "
            "How do you find out from the shape?",
            lambda t, g, c, s: torch.cat(
                [
                    t[:, :1],
                    t[:, 1:]
                    .unflatten(1, g)[:, c[0] : c[0] + s[0], c[1] : c[1] + s[1]]
                    .flatten(1, 2),
                ],
                dim=1,
            ),
        ),
    ),
    questions=(only_moved(0), _which_places),
)


# A kernel for larger patches


def _resize_matrix(old: int, new: int) -> Tensor:
    """Return what enlarging does to a patch, as a matrix."""
    pixels = torch.eye(old * old).view(-1, 1, old, old)
    large = F.interpolate(pixels, size=(new, new), mode="bilinear")
    return large.flatten(1).T.contiguous()


def _resize_kernel(kernel, matrix, *, undo=None):
    flat = kernel.flatten(2)  # (e, c, p*p)
    if undo is None:
        # Only the kernel is learned.
        undo = torch.linalg.pinv(matrix.detach().double()).to(matrix.dtype)
    new = (flat @ undo).to(kernel.dtype)
    side = round(matrix.shape[0] ** 0.5)
    return new.unflatten(2, (side, side))


def _sides(matrix):
    return (round(length**0.5) for length in matrix.shape)


def _same_answers(probe: Probe) -> Finding | None:
    """Ask what the new kernel makes of a patch that was enlarged."""
    kernel, matrix = probe.given
    new, old = _sides(matrix)
    patch = torch.zeros(old * old)
    patch[0] = 1
    large = (matrix @ patch).view(new, new)
    before = kernel[0, 0, 0, 0].item()
    after = (probe.got[0, 0] * large).sum().item()
    if abs(after - before) > 1e-3:
        return Finding(
            "other answers",
            "a patch whose first pixel is 1 gave the first feature "
            f"{before:.4g}; enlarged, with your kernel, it gives {after:.4g}",
        )
    return Finding(
        "more than needed",
        "enlarged patches get the right numbers, but of all kernels that do so the "
        "smallest is asked for: the pseudoinverse gives it",
    )


resize_kernel = Judge(
    task="resize_kernel",
    arguments=("kernel", "matrix"),
    axes="e c p1 p2",
    oracle=_resize_kernel,
    cases=(
        Case(
            "patches of 2 made 4",
            (drawn(1, 1, 2, 2, seed=1), _resize_matrix(2, 4)),
        ),
        Case("patches of 2 made 3", (drawn(4, 3, 2, 2, seed=2), _resize_matrix(2, 3))),
        Case("patches of 3 made 5", (drawn(5, 2, 3, 3, seed=3), _resize_matrix(3, 5))),
    ),
    mistakes=(
        Mistake(
            "resized like an image",
            "the kernel was enlarged like the patch: its products with enlarged "
            "patches are sums over more pixels, and grow",
            lambda k, m: _resize_kernel(k, m, undo=m.T),
        ),
        Mistake(
            "resized and divided",
            "the kernel was enlarged like the patch and divided by the number of "
            "pixels: right for pixels that are repeated, not for these",
            lambda k, m: _resize_kernel(k, m, undo=m.T * m.shape[1] / m.shape[0]),
        ),
        Mistake(
            "each row to a sum of one",
            "the kernel was enlarged with shares that sum to 1: what must hold is that "
            "its product with every enlarged patch stays the same",
            lambda k, m: _resize_kernel(k, m, undo=m.T / m.T.sum(dim=1, keepdim=True)),
        ),
        Mistake(
            "zeros around",
            "the kernel was put into a frame of zeros: it then sees a part of the "
            "enlarged patch",
            lambda k, m: F.pad(k, (0, next(_sides(m)) - k.shape[3]) * 2),
        ),
        Mistake(
            "transposed patches",
            "rows and columns of every new kernel are swapped",
            lambda k, m: _resize_kernel(k, m).mT,
        ),
        Mistake(
            "channels averaged",
            "all channels get the same kernel",
            lambda k, m: _resize_kernel(k.mean(dim=1, keepdim=True).expand_as(k), m),
        ),
    ),
    questions=(_same_answers,),
    dtypes=(torch.float64,),
)


# How many images for the same work


def _work(tokens, patch_pixels, embed_dim, depth, *, pairs=True, both=2, every=True):
    embed = both * (tokens - 1) * patch_pixels * embed_dim
    block = both * tokens * 12 * embed_dim**2
    if pairs:
        block += both * 2 * tokens**2 * embed_dim
    return embed + (depth if every else 1) * block


def _images_for(budget, tokens, patch_pixels, embed_dim, depth):
    return budget // (3 * _work(tokens, patch_pixels, embed_dim, depth))


def _about_images(probe: Probe) -> Finding | None:
    """Tell the work that the answer seems to count for an image."""
    budget, *sizes = probe.given
    if not probe.got.is_floating_point() and probe.got > 0:
        return Finding(
            "work of an image",
            f"you seem to count {budget / probe.got.item():.3g} operations for an "
            f"image, needed are {3 * _work(*sizes):.3g}: go through the parts, first "
            "the patches, then a block",
        )
    return None


images_for = Judge(
    task="images_for",
    arguments=("budget", "tokens", "patch_pixels", "embed_dim", "depth"),
    axes="",
    oracle=_images_for,
    cases=(
        Case("one block", (10**8, 5, 16, 8, 1)),
        Case("more blocks", (10**11, 17, 64, 32, 2)),
        Case("many tokens", (10**11, 197, 48, 24, 3)),
        Case("a budget that fits exactly", (3 * 7 * _work(10, 12, 6, 2), 10, 12, 6, 2)),
    ),
    mistakes=(
        Mistake(
            "forward only",
            "this is the work of the way forward: the way back takes twice as much",
            lambda b, *sizes: b // _work(*sizes),
        ),
        Mistake(
            "one way back",
            "the way back is counted like one way forward: it takes two products for "
            "each one",
            lambda b, *sizes: b // (2 * _work(*sizes)),
        ),
        Mistake(
            "pairs forgotten",
            "the products of queries with keys and of weights with values are missing: "
            "they grow with the square of the tokens",
            lambda b, *sizes: b // (3 * _work(*sizes, pairs=False)),
        ),
        Mistake(
            "one operation each",
            "a multiply and an add count as one here: they are two operations",
            lambda b, *sizes: b // (3 * _work(*sizes, both=1)),
        ),
        Mistake(
            "one block",
            "right with one block: the other blocks are not counted",
            lambda b, *sizes: b // (3 * _work(*sizes, every=False)),
        ),
        Mistake(
            "class token embedded",
            "the class token is no patch, and nothing is multiplied to embed it",
            lambda b, t, p, e, d: b // (3 * (_work(t, p, e, d) + 2 * p * e)),
        ),
        Mistake(
            "patches forgotten",
            "the embedding of the patches is not counted",
            lambda b, t, p, e, d: b // (3 * _work(t, 0, e, d)),
        ),
        Mistake(
            "one half of the pairs",
            "of the two products over all pairs only one is counted: queries with "
            "keys, and weights with values",
            lambda b, t, p, e, d: b // (3 * (_work(t, p, e, d) - d * 2 * t**2 * e)),
        ),
        Mistake(
            "rounded up",
            "the last image would go beyond the budget: round down",
            lambda b, *sizes: -(-b // (3 * _work(*sizes))),
        ),
        Mistake(
            "not rounded",
            "a part of an image cannot be trained on: round down",
            lambda b, *sizes: b / (3 * _work(*sizes)),
        ),
    ),
    questions=(_about_images,),
)
