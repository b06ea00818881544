"""Checks of what chapter 03 and its exercises build: tables of positions."""

import dataclasses

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import vitlib.positions as library
from vitlib.checks.building import Build, ClassJudge, altered, drawn, drawn_weights
from vitlib.checks.comparing import close
from vitlib.checks.deciding import Subject, decides
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import each_image_alone, narrowed, silent
from vitlib.checks.wording import Finding
from vitlib.cls_token import prepend_cls_token
from vitlib.patches import PatchEmbed, split_patches
from vitlib.vit import ViTConfig

# Sines and cosines


def _table(grid_size, embed_dim, *, base=1e4, divisor=None, start=0, share=1.0):
    """Return a table whose clocks turn otherwise."""
    quarter = embed_dim // 4
    steps = torch.arange(quarter, dtype=torch.float64)
    speeds = base ** (-share * steps / (divisor or quarter))
    row, col = torch.meshgrid(
        *(start + torch.arange(side, dtype=torch.float64) for side in grid_size),
        indexing="ij",
    )
    by_row = torch.outer(row.flatten(), speeds)
    by_col = torch.outer(col.flatten(), speeds)
    return by_col, by_row


def _joined(by_col: Tensor, by_row: Tensor) -> Tensor:
    parts = [by_col.sin(), by_col.cos(), by_row.sin(), by_row.cos()]
    return torch.cat(parts, dim=1).float()


def _halves_swapped(grid_size, embed_dim):
    by_col, by_row = _table(grid_size, embed_dim)
    return _joined(by_row, by_col)


def _interleaved(grid_size, embed_dim):
    parts = [
        torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        for angles in _table(grid_size, embed_dim)
    ]
    return torch.cat(parts, dim=1).float()


def _cosines_first(grid_size, embed_dim):
    by_col, by_row = _table(grid_size, embed_dim)
    return torch.cat(
        [by_col.cos(), by_col.sin(), by_row.cos(), by_row.sin()], dim=1
    ).float()


def _numbered_by_columns(grid_size, embed_dim):
    table = library.sincos_2d(grid_size, embed_dim)
    return table.unflatten(0, grid_size).transpose(0, 1).flatten(0, 1)


def _turned_grid(grid_size, embed_dim):
    return library.sincos_2d(grid_size[::-1], embed_dim)


def _one_line(grid_size, embed_dim):
    """Number the patches in one row, as words of a sentence."""
    angles = torch.arange(grid_size[0] * grid_size[1], dtype=torch.float64)
    speeds = 1e4 ** (-torch.arange(embed_dim // 2) / (embed_dim / 2))
    angles = torch.outer(angles, speeds.double())
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _turns(got: Tensor, expected: Tensor) -> Finding | None:
    """Ask by how much each clock turns from one patch to the next."""
    # The sines and cosines of the columns; patch 1 stands right of patch 0.
    for clock in range(got.shape[1] // 4):
        hands = (clock, got.shape[1] // 4 + clock)
        turned, wanted = (
            torch.atan2(table[1, hands[0]], table[1, hands[1]]).item()
            for table in (got, expected)
        )
        if abs(turned - wanted) > 1e-4:
            return Finding(
                "speed of a clock",
                f"from column 0 to column 1, clock {clock} turns by {turned:.4g}, "
                f"needed is {wanted:.4g}: look at the speeds",
            )
    return None


def _which_table(probe: Probe) -> Finding | None:
    """Ask which rows and columns of the table are there, in any order."""
    got, expected = probe.got.double(), probe.expected.double()

    def same_lines(a, b):
        near = (a[:, None] - b[None]).abs().amax(dim=2) < 1e-4
        return bool(near.any(dim=1).all() and near.any(dim=0).all())

    if got.abs().max() > 1 + 1e-6:
        return Finding(
            "beyond 1",
            "some numbers are larger than 1: no sine or cosine is. What is added or "
            "multiplied behind them?",
        )
    if same_lines(got.T, expected.T):
        return Finding(
            "order of features",
            "every column of the table is there, but in another order: look at what is "
            "joined, and in which order",
        )
    if same_lines(got, expected):
        return Finding(
            "order of patches",
            "every row of the table is there, but in another order: number the "
            "patches like the words of a page",
        )
    turns = _turns(got, expected)
    if turns:
        return turns
    quarters = [
        name
        for name, a, b in zip(
            ("sines of the column", "cosines of the column"),
            got.chunk(4, dim=1)[:2],
            expected.chunk(4, dim=1)[:2],
            strict=True,
        )
        if not torch.allclose(a, b, atol=1e-4)
    ] + [
        name
        for name, a, b in zip(
            ("sines of the row", "cosines of the row"),
            got.chunk(4, dim=1)[2:],
            expected.chunk(4, dim=1)[2:],
            strict=True,
        )
        if not torch.allclose(a, b, atol=1e-4)
    ]
    return Finding("angles", f"wrong quarters of the table: {', '.join(quarters)}")


sincos_2d = Judge(
    task="sincos_2d",
    arguments=("grid_size", "embed_dim"),
    axes="n e",
    oracle=library.sincos_2d,
    cases=(
        Case("a grid of 1x3", ((1, 3), 4)),
        Case("a square grid", ((2, 2), 8)),
        Case("a grid of 2x3", ((2, 3), 8)),
        Case("a grid of 5x4", ((5, 4), 12)),
    ),
    mistakes=(
        Mistake(
            "halves swapped",
            "the first half of each row tells the grid row, the second the column: "
            "here it is the other way round",
            _halves_swapped,
        ),
        Mistake(
            "interleaved",
            "sines and cosines take turns: here all sines of an axis come first, then "
            "all its cosines",
            _interleaved,
        ),
        Mistake(
            "cosines first", "sines and cosines have changed places", _cosines_first
        ),
        Mistake(
            "columns first",
            "the patches are numbered downwards: number them like the words of a page",
            _numbered_by_columns,
        ),
        Mistake(
            "rows and columns swapped",
            "right on square grids, wrong on others: rows and columns of the grid are "
            "swapped",
            _turned_grid,
        ),
        Mistake(
            "clocks too close",
            "the speeds do not spread far enough: the exponent should run from 0 to "
            "nearly 1 over the clocks of one axis. How many clocks has one axis?",
            lambda g, e: _joined(*_table(g, e, divisor=e // 2)),
        ),
        Mistake(
            "clocks too close",
            "the speeds do not spread far enough: the exponent should run from 0 to "
            "nearly 1 over the clocks of one axis. How many clocks has one axis?",
            lambda g, e: _joined(*_table(g, e, divisor=e)),
        ),
        Mistake(
            "clocks too far",
            "the speeds fall twice as fast as they should: look at the exponent",
            lambda g, e: _joined(*_table(g, e, share=2.0)),
        ),
        Mistake(
            "counts from 1",
            "rows and columns are counted from 1",
            lambda g, e: _joined(*_table(g, e, start=1)),
        ),
        Mistake(
            "backwards",
            "the later clocks turn faster: the exponent has the wrong sign",
            lambda g, e: _joined(*_table(g, e, share=-1.0)),
        ),
        Mistake(
            "one row of words",
            "the patches are numbered in one long row: two patches below each other "
            "should share half of their vector",
            _one_line,
        ),
        Mistake(
            "other base",
            "the speeds fall to nearly 1/1000 and not to nearly 1/10000",
            lambda g, e: _joined(*_table(g, e, base=1e3)),
        ),
    ),
    questions=(_which_table,),
)


# Adding a table


def _embedded(tokens: Tensor, cls_token: Tensor, pos_embed: Tensor) -> Tensor:
    return prepend_cls_token(tokens, cls_token) + pos_embed


def _patches_only(tokens, cls_token, pos_embed):
    return prepend_cls_token(tokens + pos_embed[:, 1:], cls_token)


def _first_rows(tokens, cls_token, pos_embed):
    return prepend_cls_token(tokens + pos_embed[:, :-1], cls_token)


def _what_was_added(probe: Probe) -> Finding | None:
    """Ask what the result has more than the tokens."""
    tokens, cls_token, pos_embed = probe.given
    joined = prepend_cls_token(tokens, cls_token)  # (b, T, e)
    bare = probe.run(tokens, cls_token, torch.zeros_like(pos_embed))
    if bare is not None and not close(bare, joined):
        return Finding(
            "tokens changed",
            "with a table of zeros the class token and the tokens must come out as "
            "they went in, and they do not",
        )
    added = probe.got - joined
    if not torch.allclose(added, added[:1].expand_as(added), atol=1e-5):
        return Finding(
            "not for every image",
            "images get different additions: every image gets the same table",
        )
    if torch.allclose(added, added[:, :1].expand_as(added), atol=1e-5):
        return Finding(
            "one vector for all tokens",
            "every token gets the same addition, so no place differs from another: "
            "shuffled patches would give the same scores",
        )
    off = (added[0] - pos_embed[0]).abs().amax(dim=1) > 1e-5
    rows = off.nonzero().flatten().tolist()
    return Finding("other rows", f"not their row of the table was added to rows {rows}")


add_positions = Judge(
    task="add_positions",
    arguments=("tokens", "cls_token", "pos_embed"),
    axes="b n+1 e",
    oracle=_embedded,
    cases=(
        Case(
            "one image",
            (drawn(1, 2, 3), drawn(1, 1, 3, seed=1), drawn(1, 3, 3, seed=2)),
        ),
        Case(
            "as many images as tokens",
            (drawn(4, 3, 2, seed=3), drawn(1, 1, 2, seed=4), drawn(1, 4, 2, seed=5)),
        ),
        Case(
            "two images",
            (drawn(2, 6, 5, seed=6), drawn(1, 1, 5, seed=7), drawn(1, 7, 5, seed=8)),
        ),
    ),
    mistakes=(
        Mistake(
            "no positions",
            "the table is not used: without it the patches are a bag, and shuffled "
            "patches give the same scores",
            lambda tokens, cls, table: prepend_cls_token(tokens, cls),
        ),
        Mistake(
            "one vector for all tokens",
            "every token gets the same vector, so no place differs from another: the "
            "table has one row for each token, and here only one is used",
            lambda tokens, cls, table: prepend_cls_token(tokens, cls) + table[:, :1],
        ),
        Mistake(
            "class token without a position",
            "the class token gets no position: the table has n + 1 rows, one for it "
            "too, and the first one is left over",
            _patches_only,
        ),
        Mistake(
            "off by one",
            "the patches get the rows of their neighbours: row 0 of the table belongs "
            "to the class token",
            _first_rows,
        ),
        Mistake(
            "multiplied",
            "tokens and positions are multiplied: they are added",
            lambda tokens, cls, table: prepend_cls_token(tokens, cls) * table,
        ),
        Mistake(
            "no class token",
            "positions were added to the patches, but the class token is missing",
            lambda tokens, cls, table: tokens + table[:, 1:],
        ),
        Mistake(
            "joined, not added",
            "the table was joined to the tokens: every token got longer, or the row "
            "did. Positions are added",
            lambda tokens, cls, table: torch.cat(
                [prepend_cls_token(tokens, cls), table.expand(len(tokens), -1, -1)], 2
            ),
        ),
        Mistake(
            "twice",
            "the table was added twice",
            lambda tokens, cls, table: prepend_cls_token(tokens, cls) + 2 * table,
        ),
    ),
    questions=(each_image_alone(0), _what_was_added),
)


# Comparing places


def _cosines(table: Tensor) -> Tensor:
    unit = F.normalize(table, dim=1)
    return unit @ unit.T


def _about_similarity(probe: Probe) -> Finding | None:
    """Ask what must hold of any table of cosines."""
    got = probe.got
    if not torch.allclose(got.diagonal(), torch.ones(len(got)), atol=1e-4):
        return Finding(
            "not 1 with itself",
            f"a place is compared with itself and gets {got[0, 0]:.4g} instead of 1: "
            "look at the lengths by which you divide",
        )
    if not torch.allclose(got, got.T, atol=1e-4):
        return Finding("not symmetric", "place a with b differs from place b with a")
    return None


similarity = Judge(
    task="similarity",
    arguments=("table",),
    axes="n n",
    oracle=_cosines,
    cases=(
        Case("two places", (drawn(2, 3, seed=1),)),
        Case("as many places as features", (drawn(4, 4, seed=2),)),
        Case("six places", (drawn(6, 4, seed=3) * torch.arange(1.0, 7)[:, None],)),
    ),
    mistakes=(
        Mistake(
            "dot products",
            "these are dot products: a long vector is similar to everything. A cosine "
            "compares directions",
            lambda table: table @ table.T,
        ),
        Mistake(
            "divided once",
            "each product is divided by the length of one of the two vectors only",
            lambda table: F.normalize(table, dim=1) @ table.T,
        ),
        Mistake(
            "divided once",
            "each product is divided by the length of one of the two vectors only",
            lambda table: table @ F.normalize(table, dim=1).T,
        ),
        Mistake(
            "features compared",
            "the features are compared with each other: it should be places with "
            "places. Which index is summed over?",
            lambda table: _cosines(table.T),
        ),
        Mistake(
            "wrong axis normalised",
            "columns were brought to length 1: every place is a row",
            lambda table: F.normalize(table, dim=0) @ F.normalize(table, dim=0).T,
        ),
        Mistake(
            "squared lengths",
            "the products are divided by squares of lengths: a root is missing",
            lambda table: (table @ table.T) / table.square().sum(dim=1)[:, None],
        ),
        Mistake(
            "distances",
            "these are distances: similar places get small numbers. Here 1 is equal",
            lambda table: torch.cdist(table, table),
        ),
        Mistake(
            "means subtracted",
            "the mean of each vector was subtracted first: these are correlations",
            lambda table: _cosines(table - table.mean(dim=1, keepdim=True)),
        ),
    ),
    questions=(_about_similarity,),
)


# Another grid


def _resampled(
    pos_embed, old_grid, new_grid, *, prefix=None, turn=False, as_grid=None, **options
):
    """Return an answer that stretches otherwise."""
    if prefix is None:
        prefix = pos_embed.shape[1] - old_grid[0] * old_grid[1]
    table = pos_embed[:, prefix:]
    rows, cols = old_grid[::-1] if turn else old_grid
    grid = (
        as_grid(table, rows, cols)
        if as_grid
        else rearrange(table, "1 (rows cols) e -> 1 e rows cols", rows=rows, cols=cols)
    )
    options = {"mode": "bicubic", "antialias": True} | options
    size = new_grid[::-1] if turn else new_grid
    grid = F.interpolate(grid, size=tuple(size), **options)
    return torch.cat([pos_embed[:, :prefix], grid.flatten(2).mT], dim=1)


def _class_row_lost(pos_embed, old_grid, new_grid):
    return library.resample_pos_embed(pos_embed, old_grid, new_grid)[
        :, pos_embed.shape[1] - old_grid[0] * old_grid[1] :
    ]


def _class_row_last(pos_embed, old_grid, new_grid):
    prefix = pos_embed.shape[1] - old_grid[0] * old_grid[1]
    table = library.resample_pos_embed(pos_embed, old_grid, new_grid)
    return torch.cat([table[:, prefix:], table[:, :prefix]], dim=1)


def _class_row_as_patch(pos_embed, old_grid, new_grid):
    """Stretch the rows as one long line."""
    line = F.interpolate(
        pos_embed.mT, size=new_grid[0] * new_grid[1] + 1, mode="linear"
    )
    return line.mT


def _returned_unchanged(pos_embed, old_grid, new_grid):
    return pos_embed


def _about_tables(probe: Probe) -> Finding | None:
    """Ask what any stretching keeps: the class row, and a table that is constant."""
    pos_embed, old_grid, new_grid = probe.given
    prefix = pos_embed.shape[1] - old_grid[0] * old_grid[1]
    if prefix and not torch.allclose(probe.got[:, 0], pos_embed[:, 0], atol=1e-5):
        return Finding(
            "class row changed",
            "row 0 belongs to the class token, which has no place in the picture: it "
            "must come out as it went in",
        )
    flat = probe.run(torch.ones_like(pos_embed), old_grid, new_grid)
    if flat is not None and not torch.allclose(flat, torch.ones_like(flat), atol=1e-4):
        return Finding(
            "levels change",
            "a table of ones does not stay a table of ones: something is scaled",
        )
    # A table that tells the column must still tell the column.
    col = torch.arange(old_grid[1]).repeat(old_grid[0]).float()
    table = torch.zeros_like(pos_embed)
    table[0, prefix:, 0] = col
    moved = probe.run(table, old_grid, new_grid)
    if moved is not None and moved.shape == probe.expected.shape:
        lines = moved[0, prefix:].unflatten(0, tuple(new_grid))
        if not torch.allclose(lines, lines[:1].expand_as(lines), atol=1e-4):
            return Finding(
                "places mixed",
                "a table that tells the column of each patch tells something else "
                "afterwards: on the way to the grid or back an axis is misread",
            )
    return Finding(
        "interpolation",
        "grid and class row are right, the numbers in between are not: look at the "
        "arguments of the interpolation, one by one",
    )


resample_pos_embed = Judge(
    task="resample_pos_embed",
    arguments=("pos_embed", "old_grid", "new_grid"),
    axes="1 T e",
    oracle=library.resample_pos_embed,
    cases=(
        Case(
            "a square grid without a class token",
            (drawn(1, 4, 2, seed=1), (2, 2), (3, 3)),
        ),
        Case(
            "a class token and a finer grid", (drawn(1, 10, 4, seed=2), (3, 3), (5, 5))
        ),
        Case("a grid of 2x3 to 4x5", (drawn(1, 7, 4, seed=3), (2, 3), (4, 5))),
        Case("a coarser grid", (drawn(1, 31, 4, seed=4), (5, 6), (3, 2))),
    ),
    mistakes=(
        Mistake(
            "class row lost",
            "the row of the class token is missing in the result",
            _class_row_lost,
        ),
        Mistake(
            "class row last",
            "the row of the class token stands behind the others: it is row 0",
            _class_row_last,
        ),
        Mistake(
            "no antialias",
            "right towards finer grids, wrong towards coarser ones: rows that lie "
            "between two samples are skipped and not averaged",
            lambda t, a, b: _resampled(t, a, b, antialias=False),
        ),
        Mistake(
            "bilinear",
            "this is bilinear: between two rows it takes a mean, and a mean of two "
            "vectors is shorter than they are. The norms shrink",
            lambda t, a, b: _resampled(t, a, b, mode="bilinear"),
        ),
        Mistake(
            "bilinear",
            "this is bilinear: between two rows it takes a mean, and a mean of two "
            "vectors is shorter than they are. The norms shrink",
            lambda t, a, b: _resampled(t, a, b, mode="bilinear", antialias=False),
        ),
        Mistake(
            "nearest",
            "each new place copies its nearest old one: neighbours become equal",
            lambda t, a, b: _resampled(t, a, b, mode="nearest", antialias=False),
        ),
        Mistake(
            "corners aligned",
            "the corners of both grids were laid on each other (align_corners=True): "
            "patches are squares with a size, and here their outer edges fit",
            lambda t, a, b: _resampled(t, a, b, antialias=False, align_corners=True),
        ),
        Mistake(
            "rows and columns swapped",
            "right on square grids, wrong on others: rows and columns are swapped",
            lambda t, a, b: _resampled(t, a, b, turn=True),
        ),
        Mistake(
            "features as places",
            "the table was reshaped straight to (1, e, rows, cols): that strews the "
            "numbers of one place over the grid. Which axes have to change places?",
            lambda t, a, b: _resampled(
                t, a, b, as_grid=lambda x, r, c: x.reshape(1, x.shape[2], r, c)
            ),
        ),
        Mistake(
            "one long line",
            "the rows were stretched as one line: a patch has neighbours above and "
            "below too",
            _class_row_as_patch,
        ),
        Mistake(
            "unchanged",
            "the table comes back as it was",
            _returned_unchanged,
        ),
    ),
    questions=(_about_tables,),
)


# Everything before the first block


class _Embed(nn.Module):
    """What the chapter builds; mistakes overwrite how parts are joined."""

    def __init__(self, config):
        super().__init__()
        e = config.embed_dim
        self.patch_embed = PatchEmbed(
            image_size=config.image_size,
            patch_size=config.patch_size,
            in_channels=config.in_channels,
            embed_dim=e,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, e))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, e))

    def forward(self, images):
        return self.join(self.patch_embed(images), self.cls_token, self.pos_embed)

    def join(self, tokens, cls_token, pos_embed):
        return _embedded(tokens, cls_token, pos_embed)


def _embed_that(joins):
    """Return a class whose parts are joined by one of the functions above."""
    return altered(_Embed, join=lambda self, *given: joins(*given))


_WHICH_PART = narrowed(
    silent("pos_embed"),
    right=Finding(
        "positions",
        "right with a table of zeros, so patches and class token are: look at how the "
        "table is added",
    ),
    wrong=Finding(
        "patches or class token",
        "wrong even with a table of zeros: look at the patches and the class token",
    ),
)


def _embedding(height: int, width: int, p: int, b: int) -> tuple:
    config = ViTConfig(
        image_size=(height, width),
        patch_size=p,
        in_channels=2,
        embed_dim=5,
        num_heads=1,
        num_classes=3,
    )
    weights = drawn_weights(lambda: _Embed(config), seed=b)
    return Build({"config": config}, weights), drawn(b, 2, height, width, seed=b)


Embed = ClassJudge(
    task="Embed",
    arguments=("model", "images"),
    axes="b T e",
    oracle=_Embed,
    cases=(
        Case("one square image", _embedding(4, 4, 2, 1)),
        Case("two wide 6x9 images", _embedding(6, 9, 3, 2)),
        Case("three high images", _embedding(8, 4, 2, 3)),
    ),
    mistakes=tuple(
        Mistake(mistake.name, mistake.tell, _embed_that(mistake.twin))
        for mistake in add_positions.mistakes
    ),
    questions=(each_image_alone(1),),
    narrowing=(_WHICH_PART,),
    hints={
        "pos_embed": "One row for each token, the class token too, and one table for "
        "all images: (1, n + 1, e). With one row all tokens get the same vector",
        "cls_token": "One vector for all images: (1, 1, e)",
    },
)


# The exercises: one line of positions, a grid from two tables, and order


def _pairs(num_positions, embed_dim, *, start=0, base=1e4, share=1.0, turn=False):
    steps = torch.arange(embed_dim // 2, dtype=torch.float64)
    speeds = base ** (-share * steps / (embed_dim // 2))
    places = torch.arange(num_positions, dtype=torch.float64) + start
    angles = torch.outer(places, speeds)
    hands = [angles.cos(), angles.sin()] if turn else [angles.sin(), angles.cos()]
    return torch.stack(hands, dim=2).flatten(1).float()


def _sines_first(num_positions, embed_dim):
    table = _pairs(num_positions, embed_dim)
    return torch.cat([table[:, ::2], table[:, 1::2]], dim=1)


def _a_speed_for_every_feature(num_positions, embed_dim):
    """Take the place of the feature, and not that of its pair, for the speed."""
    features = torch.arange(embed_dim, dtype=torch.float64)
    places = torch.arange(num_positions, dtype=torch.float64)
    angles = torch.outer(places, 1e4 ** (-features / embed_dim))
    even = (features % 2 == 0).expand_as(angles)
    return torch.where(even, angles.sin(), angles.cos()).float()


def _which_pairs(probe: Probe) -> Finding | None:
    """Ask which pairs of features are wrong."""
    if probe.got.abs().max() > 1 + 1e-4:
        return Finding("beyond 1", "some numbers are larger than 1: no sine is")
    gaps = (probe.got - probe.expected).abs().amax(dim=0)
    wrong = (gaps > 1e-4).nonzero().flatten().tolist()
    return Finding(
        "wrong features",
        f"of {len(gaps)} features these are wrong: {wrong}. Features 2k and 2k + 1 are "
        "the sine and the cosine of one angle",
    )


sincos_pairs = Judge(
    task="sincos_pairs",
    arguments=("num_positions", "embed_dim"),
    axes="n e",
    oracle=_pairs,
    cases=(
        Case("three places, one pair", (3, 2)),
        Case("as many places as features", (4, 4)),
        Case("five places, three pairs", (5, 6)),
        Case("more features than places", (7, 16)),
    ),
    mistakes=(
        Mistake(
            "sines first",
            "all sines come first, then all cosines: here they take turns",
            _sines_first,
        ),
        Mistake(
            "cosines first",
            "sine and cosine have changed places: the sine stands at 2k",
            lambda n, e: _pairs(n, e, turn=True),
        ),
        Mistake(
            "a speed for every feature",
            "the two features of a pair turn at different speeds: sine and cosine of "
            "one pair belong to one angle",
            _a_speed_for_every_feature,
        ),
        Mistake(
            "counted from 1",
            "the first place is 0: there all sines are 0",
            lambda n, e: _pairs(n, e, start=1),
        ),
        Mistake(
            "half the exponent",
            "the speeds fall too slowly from pair to pair: the exponent is half of "
            "what it should be",
            lambda n, e: _pairs(n, e, share=0.5),
        ),
        Mistake(
            "twice the exponent",
            "the speeds fall too fast from pair to pair: the exponent is twice what it "
            "should be. How many pairs are there?",
            lambda n, e: _pairs(n, e, share=2.0),
        ),
        Mistake(
            "speeds upside down",
            "later pairs turn faster: they should turn slower",
            lambda n, e: _pairs(n, e, share=-1.0),
        ),
        Mistake(
            "transposed",
            "places and features are swapped: one row for each place",
            lambda n, e: _pairs(n, e).T,
        ),
    ),
    questions=(_which_pairs,),
)


def _grid_of(rows: Tensor, cols: Tensor) -> Tensor:
    return (rows[:, None] + cols[None]).flatten(0, 1)


def _which_part(probe: Probe) -> Finding | None:
    """Ask whether a column of the grid shares a vector, and a row another."""
    row_table, col_table = probe.given
    for name, other in (("row", col_table), ("col", row_table)):
        rest = probe.run(
            *(
                torch.zeros_like(table) if table is other else table
                for table in probe.given
            )
        )
        expected = probe.right(
            *(
                torch.zeros_like(table) if table is other else table
                for table in probe.given
            )
        )
        if rest is not None and not close(rest, expected):
            return Finding(
                f"{name}_table",
                f"{name}_table does not reach the right patches: give the other table "
                f"zeros, and every patch of {name} k should get {name}_table[k]",
            )
    return None


grid_table = Judge(
    task="grid_table",
    arguments=("row_table", "col_table"),
    axes="n e",
    oracle=_grid_of,
    cases=(
        Case("a grid of 2x3", (drawn(2, 5), drawn(3, 5, seed=1))),
        Case("a square grid", (drawn(3, 3, seed=2), drawn(3, 3, seed=3))),
        Case("a grid of one column", (drawn(4, 3, seed=4), drawn(1, 3, seed=5))),
        Case("a grid of 5x4", (drawn(5, 6, seed=6), drawn(4, 6, seed=7))),
    ),
    mistakes=(
        Mistake(
            "columns first",
            "the patches are numbered downwards: number them like the words of a page",
            lambda rows, cols: (cols[:, None] + rows[None]).flatten(0, 1),
        ),
        Mistake(
            "both repeated",
            "row and column run on together: each row must meet each column once",
            lambda rows, cols: rows.repeat(len(cols), 1) + cols.repeat(len(rows), 1),
        ),
        Mistake(
            "multiplied",
            "the two vectors are multiplied: they should be added",
            lambda rows, cols: (rows[:, None] * cols[None]).flatten(0, 1),
        ),
        Mistake(
            "halved",
            "the mean of two vectors is not their sum",
            lambda rows, cols: _grid_of(rows, cols) / 2,
        ),
        Mistake(
            "rows only",
            "col_table has no part: patches of one row cannot be told apart",
            lambda rows, cols: rows.repeat_interleave(len(cols), 0),
        ),
        Mistake(
            "columns only",
            "row_table has no part: patches of one column cannot be told apart",
            lambda rows, cols: cols.repeat(len(rows), 1),
        ),
        Mistake(
            "joined, not added",
            "the two vectors were joined: each patch has 2e numbers. They are added",
            lambda rows, cols: torch.cat(
                [rows.repeat_interleave(len(cols), 0), cols.repeat(len(rows), 1)], 1
            ),
        ),
        Mistake(
            "still a grid",
            "the result is (rows, cols, e): a table of positions has one row for each "
            "patch",
            lambda rows, cols: rows[:, None] + cols[None],
        ),
    ),
    questions=(_which_part,),
)


def _mapped(tokens: Tensor) -> Tensor:
    return tokens @ drawn(tokens.shape[-1], tokens.shape[-1], seed=13).to(tokens.dtype)


def _attended(tokens: Tensor) -> Tensor:
    return (_mapped(tokens) @ tokens.mT).softmax(dim=-1) @ tokens


def _ring(tokens: Tensor) -> Tensor:
    """Mix each token with its two neighbours, the last with the first."""
    return tokens + (tokens.roll(1, 1) + tokens.roll(-1, 1)) / 2


def _with_places(tokens: Tensor) -> Tensor:
    places = torch.arange(tokens.shape[1], dtype=tokens.dtype)
    return tokens + 0.1 * places[:, None]


is_equivariant = decides(
    "is_equivariant",
    ("layer",),
    (
        Subject("a linear map of each token", _mapped, True),
        Subject("attention without positions", _attended, True),
        Subject(
            "the mean of all tokens, given to each",
            lambda x: x.mean(dim=1, keepdim=True).expand_as(x),
            True,
        ),
        Subject("a softmax over the tokens", lambda x: x.softmax(dim=1), True),
        Subject("a layer that returns zeros", torch.zeros_like, True),
        Subject(
            "a linear map with positions added first",
            lambda x: _mapped(_with_places(x)),
            False,
        ),
        Subject(
            "attention with positions", lambda x: _attended(_with_places(x)), False
        ),
        Subject("each token with its neighbours on a ring", _ring, False),
        Subject("sums over the tokens so far", lambda x: x.cumsum(dim=1), False),
        Subject("tokens in reverse order", lambda x: x.flip(1), False),
        Subject("tokens less the first one", lambda x: x - x[:, :1], False),
        Subject("tokens sorted feature by feature", lambda x: x.sort(dim=1)[0], False),
        Subject(
            "a map that leaves the last token as it is",
            lambda x: torch.cat([_mapped(x[:, :-1]), x[:, -1:]], 1),
            False,
        ),
    ),
)


# How many answers depend on where patches stand


def _counts_colour(images: Tensor) -> Tensor:
    return images.sum(dim=(2, 3))


def _by_patch(images: Tensor) -> Tensor:
    """Return the pixels of each patch of 3 by 3, channels apart, (b, n, c, 9)."""
    return split_patches(images, 3).unflatten(2, (images.shape[1], 9))


def _boldest_patch(images: Tensor) -> Tensor:
    patches = _by_patch(images)
    return (patches.amax(dim=3) - patches.amin(dim=3)).amax(dim=1)


def _nearly_sure(images: Tensor) -> Tensor:
    return _counts_colour(images) + 1e-3 * images[:, :, 0, 0]


def _place_of_the_brightest(images: Tensor) -> Tensor:
    return _by_patch(images).sum(dim=(2, 3))


def _noise(b: int, rows: int, cols: int, seed: int) -> Tensor:
    """Return images of two channels in which all sums are exact."""
    # Odd in one channel, even in the other: sums of both are never equal.
    images = (20 * drawn(b, 2, 3 * rows, 3 * cols, seed=seed)).round()
    images[:, :, 0, 0] += (images.sum(dim=(2, 3)) + torch.arange(2)) % 2
    return images


def _one_bright(b: int, rows: int, cols: int, seed: int) -> Tensor:
    images = _noise(b, rows, cols, seed)
    images[:, :, :3, :3] += 200
    return images


_STAY = (
    Subject(
        "a model that compares two colours",
        _counts_colour,
        (0.0, 0.0),
        "answers that cannot change",
        "its answer is the same in any order of patches: does every shuffled image "
        "still hold its own pixels, in their channels, and is its answer compared with "
        "the answer for the same image?",
    ),
    Subject(
        "a model that looks for the patch with the most contrast, wherever it is",
        _boldest_patch,
        (0.0, 0.0),
        "patches torn",
        "its answer is the same in any order of patches, but not if a patch is torn: "
        "are whole patches moved, cut and put together by one rule, on images that "
        "are not square?",
    ),
    Subject(
        "a model that compares two colours, and looks a little at the first pixel",
        _nearly_sure,
        (0.0, 0.0),
        "scores compared",
        "its scores change a little with the order, its answers do not: what counts "
        "is which score is the largest",
    ),
)
_BRIGHTEST = Subject(
    "a model that tells in which patch most light is", _place_of_the_brightest, None
)


def _share_of(model: Subject, places: int) -> Subject:
    """Return the model with the share that shuffling so many places must give."""
    expected, slack = 1 - 1 / places, 5 * (1 / places / 200) ** 0.5
    truth = (expected - slack, min(expected + slack, 0.999))
    return dataclasses.replace(model, truth=truth)


def _shuffled(what: str, model: Subject, images: Tensor, *seeds: int) -> Case:
    def sized(given: Tensor) -> Tensor:
        if given.shape[1:] != images.shape[1:]:
            size, other = tuple(images.shape[1:]), tuple(given.shape[1:])
            raise ValueError(f"the model takes images {size}, and {other} arrived")
        return model(given)

    return Case(what, (dataclasses.replace(model, code=sized), images, 3, [*seeds]))


def _about_shuffles(probe: Probe) -> Finding | None:
    """Ask models of which it is known how many of their answers change."""
    model, images, patch_size, seeds = probe.given
    got, (low, high) = probe.got, model.truth
    if got.shape != (len(seeds),) or not got.is_floating_point():
        return Finding(
            "form",
            f"it returned {got.dtype} of shape {tuple(got.shape)}: one share for each "
            f"seed is asked for, floating-point numbers of shape {(len(seeds),)}",
        )
    worst = got[((got - (low + high) / 2).abs()).argmax()].item()
    said = f"for {model.what} it returns {worst:.3g}: "
    if not 0 <= worst <= 1:
        return Finding("no share", said + "a share lies between 0 and 1")
    if low <= worst <= high:
        return _about_seeds(probe)
    if not high:
        if worst == 1:
            tell = "none of its answers change. Count those that do"
            return Finding("share that stays", said + tell)
        return Finding(model.fools, said + model.tell)
    rows, cols = (side // patch_size for side in images.shape[2:])
    many = _eight(probe, _noise(200, rows, cols, 5))
    if many is None:
        return None
    if (many == many[0]).all():
        what = "as if nothing moved" if not worst else "the same with eight seeds"
        return Finding("no dice", f"{said}{what}. Is every order drawn, and used?")
    if (200 * many - (200 * many).round()).abs().max() > 0.01:
        return Finding(
            "other axis",
            f"{said}and for 200 images {many[0]:.4g}, which is no whole number of 200 "
            "images. Along which axis do you look for the largest score?",
        )
    bright = _eight(probe, _one_bright(50, rows, cols, 4))
    if bright is not None and set(bright.tolist()) <= {0.0, 1.0}:
        return Finding(
            "one order for all",
            f"{said}with images whose first patch is bright, all answers change or "
            "none does. Every image needs an order of its own",
        )
    due = (low + high) / 2
    tell = f"of {rows * cols} places dice leave one as it was, so {due:.2f} is due"
    return Finding("other share", said + tell)


def _eight(probe: Probe, images: Tensor, step: int = 1) -> Tensor | None:
    """Return the shares for eight seeds, from the first or from the last."""
    model, _, patch_size, _ = probe.given
    return probe.run(model, images, patch_size, [11, 5, 3, 8, 2, 9, 4, 7][::step])


def _about_seeds(probe: Probe) -> Finding | None:
    """Ask whether a seed decides, and nothing else does."""
    model, images, *_ = probe.given
    if not model.truth[1]:
        return None
    many, backwards = _eight(probe, images), _eight(probe, images, step=-1)
    if many is not None and (many == many[0]).all():
        return Finding(
            "seeds ignored",
            "eight seeds give eight times the same share: what depends on the seed?",
        )
    if many is not None and not close(many.flip(0), backwards):
        return Finding(
            "seeds run on",
            "the share of a seed depends on the seeds before it: the dice have to "
            "start anew for each one",
        )
    return None


shuffle_share = Judge(
    task="shuffle_share",
    arguments=("model", "images", "patch_size", "seeds"),
    axes="seed",
    oracle=None,
    cases=(
        *(
            _shuffled(model.what, model, _noise(40, 2, 3, place), 0, 1, 2)
            for place, model in enumerate(_STAY)
        ),
        _shuffled(
            _BRIGHTEST.what, _share_of(_BRIGHTEST, 6), _noise(200, 2, 3, 3), 3, 1
        ),
        _shuffled(
            "the same model and images whose first patch is bright",
            _share_of(_BRIGHTEST, 20),
            _one_bright(200, 5, 4, 4),
            *(1, 2, 3, 4),
        ),
    ),
    questions=(_about_shuffles,),
    gradients=False,
)
