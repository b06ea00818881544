"""Answers to the tasks of chapter 03."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import vitlib
from mutants.answers import right, wrong
from vitlib.checks.positions import (
    Embed,
    add_positions,
    grid_table,
    is_equivariant,
    resample_pos_embed,
    shuffle_share,
    similarity,
    sincos_2d,
    sincos_pairs,
)

# sincos_2d


@right(sincos_2d)
def three_loops(grid_size, e):
    (rows, cols), quarter = grid_size, e // 4
    table = torch.zeros(rows * cols, e)
    for row in range(rows):
        for col in range(cols):
            for k in range(quarter):
                speed = 10000 ** (-k / quarter)
                here = table[row * cols + col]
                here[k] = math.sin(col * speed)
                here[quarter + k] = math.cos(col * speed)
                here[2 * quarter + k] = math.sin(row * speed)
                here[3 * quarter + k] = math.cos(row * speed)
    return table


@right(sincos_2d)
def by_numpy(grid_size, e):
    speeds = 1 / 10000 ** (np.arange(e // 4) / (e / 4))
    row, col = np.mgrid[: grid_size[0], : grid_size[1]].reshape(2, -1)
    a, b = np.outer(col, speeds), np.outer(row, speeds)
    table = np.concatenate([np.sin(a), np.cos(a), np.sin(b), np.cos(b)], axis=1)
    return torch.from_numpy(table).float()


@right(sincos_2d)
def two_tables_broadcast(grid_size, e):
    def clocks(count):
        log_speeds = -math.log(10000) * torch.arange(e // 4) / (e // 4)
        angles = torch.arange(count)[:, None] * log_speeds.exp()
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    rows, cols = grid_size
    by_col = clocks(cols).expand(rows, -1, -1)
    by_row = clocks(rows)[:, None].expand(-1, cols, -1)
    return torch.cat([by_col, by_row], dim=2).flatten(0, 1)


def table_of(first, second, e, speeds=None, join=None):
    """Return sines and cosines of two lists of places."""
    if speeds is None:
        speeds = 1e4 ** (-torch.arange(e // 4) / (e // 4))
    a, b = torch.outer(first, speeds), torch.outer(second, speeds)
    return torch.cat([a.sin(), a.cos(), b.sin(), b.cos()], dim=1)


def places(grid_size):
    """Return the row and the column of each patch."""
    n = torch.arange(grid_size[0] * grid_size[1])
    return (n // grid_size[1]).float(), (n % grid_size[1]).float()


@wrong(sincos_2d, "halves swapped")
def row_half_first(grid_size, e):
    row, col = places(grid_size)
    return table_of(row, col, e)


@wrong(sincos_2d, "interleaved")
def sine_and_cosine_take_turns(grid_size, e):
    row, col = places(grid_size)
    speeds = 1e4 ** (-torch.arange(e // 4) / (e // 4))
    table = torch.zeros(len(row), e)
    half = e // 2
    table[:, 0:half:2] = torch.outer(col, speeds).sin()
    table[:, 1:half:2] = torch.outer(col, speeds).cos()
    table[:, half::2] = torch.outer(row, speeds).sin()
    table[:, half + 1 :: 2] = torch.outer(row, speeds).cos()
    return table


@wrong(sincos_2d, "cosines first")
def cosine_then_sine(grid_size, e):
    table = three_loops(grid_size, e)
    a, b, c, d = table.chunk(4, dim=1)
    return torch.cat([b, a, d, c], dim=1)


@wrong(sincos_2d, "columns first")
def meshgrid_xy(grid_size, e):
    row, col = torch.meshgrid(*map(torch.arange, grid_size), indexing="xy")
    return table_of(col.flatten().float(), row.flatten().float(), e)


@wrong(sincos_2d, "rows and columns swapped")
def divided_by_rows(grid_size, e):
    rows, cols = grid_size
    n = torch.arange(rows * cols)
    return table_of((n % rows).float(), (n // rows).float(), e)


@wrong(sincos_2d, "clocks too close")
def exponent_over_half(grid_size, e):
    row, col = places(grid_size)
    return table_of(col, row, e, 1e4 ** (-torch.arange(e // 4) / (e / 2)))


@wrong(sincos_2d, "clocks too far")
def exponent_doubled(grid_size, e):
    row, col = places(grid_size)
    return table_of(col, row, e, 1e4 ** (-2 * torch.arange(e // 4) / (e / 4)))


@wrong(sincos_2d, "counts from 1")
def from_one(grid_size, e):
    row, col = places(grid_size)
    return table_of(col + 1, row + 1, e)


@wrong(sincos_2d, "one row of words")
def as_in_a_sentence(grid_size, e):
    n = torch.arange(grid_size[0] * grid_size[1]).float()
    angles = torch.outer(n, 1e4 ** (-2 * torch.arange(e // 2) / e))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@wrong(sincos_2d, "shape")
def with_a_batch_axis(grid_size, e):
    return three_loops(grid_size, e)[None]


@wrong(sincos_2d, "dtype")
def left_in_double(grid_size, e):
    return three_loops(grid_size, e).double()


@wrong(sincos_2d, "beyond 1")
def sine_plus_cosine(grid_size, e):
    table = three_loops(grid_size, e)
    return table + table.roll(e // 4, dims=1)


@wrong(sincos_2d, "type")
def numpy_left_as_it_is(grid_size, e):
    return by_numpy(grid_size, e).numpy()


@wrong(sincos_2d, "speed of a clock")
def in_whole_turns(grid_size, e):
    row, col = places(grid_size)
    speeds = 0.3 * math.pi * 1e4 ** (-torch.arange(e // 4) / (e // 4))
    return table_of(col, row, e, speeds)


@wrong(sincos_2d, "angles")
def columns_in_both_halves(grid_size, e):
    _, col = places(grid_size)
    return table_of(col, col, e)


# add_positions


@right(add_positions)
def joined_then_added(tokens, cls_token, pos_embed):
    tokens = torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
    return tokens + pos_embed


@right(add_positions)
def added_in_two_parts(tokens, cls_token, pos_embed):
    first = (cls_token + pos_embed[:, :1]).repeat(len(tokens), 1, 1)
    return torch.cat([first, tokens + pos_embed[:, 1:]], dim=1)


@right(add_positions)
def token_by_token(tokens, cls_token, pos_embed):
    rows = [cls_token[:, 0].expand(len(tokens), -1), *tokens.unbind(dim=1)]
    return torch.stack([row + pos_embed[0, t] for t, row in enumerate(rows)], dim=1)


@wrong(add_positions, "one vector for all tokens", "pytorch/examples issue 1178")
def one_row_broadcast(tokens, cls_token, pos_embed):
    tokens = torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
    return tokens + pos_embed[:, 0].unsqueeze(1)


@wrong(
    add_positions,
    "class token without a position",
    "labmlai/annotated_deep_learning_paper_implementations PR 221",
)
def positions_then_class_token(tokens, cls_token, pos_embed):
    tokens = tokens + pos_embed[:, 1:]
    return torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], dim=1)


@wrong(add_positions, "off by one")
def first_n_rows(tokens, cls_token, pos_embed):
    tokens = tokens + pos_embed[:, : tokens.shape[1]]
    return torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], dim=1)


@wrong(add_positions, "no positions")
def table_forgotten(tokens, cls_token, pos_embed):
    return torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], dim=1)


@wrong(add_positions, "multiplied")
def times(tokens, cls_token, pos_embed):
    return table_forgotten(tokens, cls_token, pos_embed) * pos_embed


@wrong(add_positions, "no class token")
def patches_alone(tokens, cls_token, pos_embed):
    return tokens + pos_embed[:, 1:]


@wrong(add_positions, "joined, not added")
def concatenated(tokens, cls_token, pos_embed):
    tokens = table_forgotten(tokens, cls_token, pos_embed)
    return torch.cat([tokens, pos_embed.repeat(len(tokens), 1, 1)], dim=-1)


@wrong(add_positions, "not for every image")
def another_table_for_each_image(tokens, cls_token, pos_embed):
    tokens = table_forgotten(tokens, cls_token, pos_embed)
    tables = [pos_embed[0].roll(b, dims=0) for b in range(len(tokens))]
    return tokens + torch.stack(tables)


@wrong(add_positions, "one vector for all tokens")
def mean_of_the_table(tokens, cls_token, pos_embed):
    return table_forgotten(tokens, cls_token, pos_embed) + pos_embed.mean(
        dim=1, keepdim=True
    )


@wrong(add_positions, "in place")
def added_in_place(tokens, cls_token, pos_embed):
    tokens += pos_embed[:, 1:]
    cls = (cls_token + pos_embed[:, :1]).expand(len(tokens), -1, -1)
    return torch.cat([cls, tokens], dim=1)


@wrong(add_positions, "other rows")
def table_backwards(tokens, cls_token, pos_embed):
    return table_forgotten(tokens, cls_token, pos_embed) + pos_embed.flip(1)


@wrong(add_positions, "tokens changed")
def tokens_times_the_root_of_e(tokens, cls_token, pos_embed):
    tokens = table_forgotten(tokens, cls_token, pos_embed)
    return tokens * tokens.shape[-1] ** 0.5 + pos_embed


# similarity


@right(similarity)
def units_and_einsum(table):
    unit = table / table.norm(dim=1, keepdim=True)
    return torch.einsum("ie,je->ij", unit, unit)


@right(similarity)
def library_call(table):
    return F.cosine_similarity(table[:, None], table[None], dim=2)


@right(similarity)
def two_loops(table):
    return torch.stack(
        [
            torch.stack([a @ b / (a @ a).sqrt() / (b @ b).sqrt() for b in table])
            for a in table
        ]
    )


@wrong(similarity, "dot products")
def products_only(table):
    return torch.einsum("ie,je->ij", table, table)


@wrong(similarity, "divided once")
def one_norm(table):
    return table @ table.T / table.norm(dim=1)


@wrong(similarity, "features compared")
def transposed(table):
    unit = F.normalize(table, dim=1)
    return F.cosine_similarity(table.T[:, None], table.T[None], dim=2) + 0 * unit.sum()


@wrong(similarity, "wrong axis normalised")
def default_axis_of_softmax(table):
    unit = table / table.norm(dim=0)
    return unit @ unit.T


@wrong(similarity, "distances")
def euclidean(table):
    return (table[:, None] - table[None]).norm(dim=2)


@wrong(similarity, "means subtracted")
def correlations(table):
    return torch.corrcoef(table)


@wrong(similarity, "not 1 with itself")
def softmaxed(table):
    return units_and_einsum(table).softmax(dim=1)


@wrong(similarity, "not 1 with itself")
def squared_norms(table):
    lengths = table.square().sum(dim=1)
    return table @ table.T / lengths[:, None] / lengths[None]


@wrong(similarity, "shape")
def each_with_itself(table):
    return F.cosine_similarity(table, table)


@wrong(similarity, "in place")
def normalised_in_place(table):
    table /= table.norm(dim=1, keepdim=True)
    return table @ table.T


# resample_pos_embed


@right(resample_pos_embed)
def cut_stretch_and_join(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    grid = pos_embed[:, k:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True)
    return torch.cat([pos_embed[:, :k], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


@right(resample_pos_embed)
def feature_by_feature(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    planes = [
        F.interpolate(
            plane.reshape(1, 1, *old).float(), new, mode="bicubic", antialias=True
        ).flatten()
        for plane in pos_embed[0, k:].T
    ]
    table = torch.stack(planes, dim=1)[None].to(pos_embed.dtype)
    return torch.cat([pos_embed[:, :k], table], dim=1)


@right(resample_pos_embed)
def in_double_and_back(pos_embed, old, new):
    return cut_stretch_and_join(pos_embed.double(), old, new).to(pos_embed.dtype)


def stretched(pos_embed, old, new, **options):
    """Return a table that was stretched with other options."""
    k = pos_embed.shape[1] - old[0] * old[1]
    grid = rearrange(pos_embed[:, k:], "1 (r c) e -> 1 e r c", r=old[0])
    grid = F.interpolate(grid, tuple(new), **options)
    return torch.cat([pos_embed[:, :k], grid.flatten(2).transpose(1, 2)], dim=1)


@wrong(resample_pos_embed, "bilinear", "huggingface/pytorch-image-models PR 750")
def bilinear(pos_embed, old, new):
    return stretched(pos_embed, old, new, mode="bilinear", align_corners=False)


@wrong(resample_pos_embed, "bilinear", "huggingface/pytorch-image-models issue 908")
def bilinear_and_smooth(pos_embed, old, new):
    return stretched(pos_embed, old, new, mode="bilinear", antialias=True)


@wrong(resample_pos_embed, "no antialias")
def antialias_left_out(pos_embed, old, new):
    return stretched(pos_embed, old, new, mode="bicubic")


@wrong(resample_pos_embed, "corners aligned")
def align_corners(pos_embed, old, new):
    return stretched(pos_embed, old, new, mode="bicubic", align_corners=True)


@wrong(resample_pos_embed, "nearest")
def default_mode(pos_embed, old, new):
    return stretched(pos_embed, old, new)


@wrong(resample_pos_embed, "rows and columns swapped", "facebookresearch/dinov2 PR 582")
def width_before_height(pos_embed, old, new):
    return stretched(pos_embed, old[::-1], new[::-1], mode="bicubic", antialias=True)


@wrong(resample_pos_embed, "features as places")
def reshaped_to_a_grid(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    e = pos_embed.shape[2]
    grid = pos_embed[:, k:].reshape(1, e, *old)
    grid = F.interpolate(grid, new, mode="bicubic", antialias=True)
    return torch.cat([pos_embed[:, :k], grid.flatten(2).mT], dim=1)


@wrong(resample_pos_embed, "class row lost")
def class_row_dropped(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    return cut_stretch_and_join(pos_embed[:, k:], old, new)


@wrong(resample_pos_embed, "class row last")
def class_row_appended(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    table = cut_stretch_and_join(pos_embed[:, k:], old, new)
    return torch.cat([table, pos_embed[:, :k]], dim=1)


@wrong(resample_pos_embed, "crash")
def square_root_of_n(pos_embed, old, new):
    side = int((pos_embed.shape[1] - 1) ** 0.5)
    grid = pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, new, mode="bicubic", antialias=True)
    return torch.cat([pos_embed[:, :1], grid.flatten(2).mT], dim=1)


@wrong(resample_pos_embed, "places mixed")
def flattened_the_wrong_way_back(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    grid = pos_embed[:, k:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True)
    table = grid.reshape(1, -1, pos_embed.shape[2])
    return torch.cat([pos_embed[:, :k], table], dim=1)


@wrong(resample_pos_embed, "class row changed")
def class_row_replaced_by_a_mean(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    table = cut_stretch_and_join(pos_embed, old, new)[:, k:]
    return torch.cat([table.mean(dim=1, keepdim=True)] * k + [table], dim=1)


@wrong(resample_pos_embed, "levels change")
def divided_by_the_growth(pos_embed, old, new):
    k = pos_embed.shape[1] - old[0] * old[1]
    table = cut_stretch_and_join(pos_embed, old, new).clone()
    table[:, k:] *= old[0] * old[1] / (new[0] * new[1])
    return table


# Embed


class Base(nn.Module):
    """What most answers share."""

    def __init__(self, config):
        super().__init__()
        e = config.embed_dim
        self.patch_embed = vitlib.PatchEmbed(
            image_size=config.image_size,
            patch_size=config.patch_size,
            in_channels=config.in_channels,
            embed_dim=e,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, e))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, config.num_tokens, e))


@right(Embed)
class As_in_the_chapter(Base):
    def forward(self, images):
        tokens = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        return tokens + self.pos_embed


@right(Embed)
class Own_convolution_and_two_sums(nn.Module):
    def __init__(self, config):
        super().__init__()
        p, e = config.patch_size, config.embed_dim
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(config.in_channels, e, p, p)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, e))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, e))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images):
        tokens = self.patch_embed.proj(images).flatten(2).mT
        return added_in_two_parts(tokens, self.cls_token, self.pos_embed) * self.scale


@right(Embed)
class Filled_slice_by_slice(Base):
    def forward(self, images):
        result = self.pos_embed.repeat(len(images), 1, 1)
        return torch.cat(
            [
                result[:, :1] + self.cls_token,
                result[:, 1:] + self.patch_embed(images),
            ],
            dim=1,
        )


@wrong(Embed, "shapes", "pytorch/examples issue 1178")
class One_row_an_image(Base):
    def __init__(self, config):
        super().__init__(config)
        self.pos_embed = nn.Parameter(torch.randn(2, 1, config.embed_dim))

    def forward(self, images):
        tokens = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        return tokens + self.pos_embed


@wrong(
    Embed,
    "class token without a position",
    "labmlai/annotated_deep_learning_paper_implementations PR 221",
)
class Positions_for_patches(Base):
    def forward(self, images):
        tokens = self.patch_embed(images) + self.pos_embed[:, 1:]
        return vitlib.prepend_cls_token(tokens, self.cls_token)


@wrong(Embed, "shapes")
class A_row_for_each_patch(Base):
    def __init__(self, config):
        super().__init__(config)
        self.pos_embed = nn.Parameter(
            torch.zeros(1, config.num_patches, config.embed_dim)
        )


@wrong(Embed, "no positions")
class Sum_thrown_away(Base):
    def forward(self, images):
        tokens = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        tokens + self.pos_embed
        return tokens


@wrong(Embed, "names")
class Table_not_a_parameter(Base):
    def __init__(self, config):
        super().__init__(config)
        del self.pos_embed
        self.pos_embed = torch.zeros(1, config.num_tokens, config.embed_dim)


@wrong(Embed, "names")
class Another_name(Base):
    def __init__(self, config):
        super().__init__(config)
        self.position_embedding = self.pos_embed
        del self.pos_embed


@wrong(Embed, "multiplied")
class Times_positions(Base):
    def forward(self, images):
        tokens = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        return tokens * self.pos_embed


@wrong(Embed, "off by one")
class Class_token_takes_the_last_row(Base):
    def forward(self, images):
        tokens = self.patch_embed(images) + self.pos_embed[:, :-1]
        return vitlib.prepend_cls_token(tokens, self.cls_token)


@wrong(Embed, "twice")
class Added_twice(Base):
    def forward(self, images):
        tokens = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        return tokens + self.pos_embed + self.pos_embed


# sincos_pairs


@right(sincos_pairs)
def sines_and_cosines_in_slices(num_positions, embed_dim):
    table = torch.zeros(num_positions, embed_dim)
    places = torch.arange(num_positions).float()[:, None]
    speeds = torch.exp(-math.log(1e4) * torch.arange(0, embed_dim, 2) / embed_dim)
    table[:, 0::2] = torch.sin(places * speeds)
    table[:, 1::2] = torch.cos(places * speeds)
    return table


@right(sincos_pairs)
def number_by_number(num_positions, embed_dim):
    def value(n, feature):
        angle = n / 10000 ** (2 * (feature // 2) / embed_dim)
        return math.cos(angle) if feature % 2 else math.sin(angle)

    rows = [[value(n, f) for f in range(embed_dim)] for n in range(num_positions)]
    return torch.tensor(rows)


@right(sincos_pairs)
def hands_of_complex_numbers(num_positions, embed_dim):
    speeds = 1e4 ** (-torch.arange(embed_dim // 2).double() / (embed_dim // 2))
    angles = torch.arange(num_positions).double()[:, None] * speeds
    hands = torch.view_as_real(torch.polar(torch.ones_like(angles), angles))
    return hands.flip(-1).flatten(1).float()


@wrong(sincos_pairs, "sines first")
def two_halves(num_positions, embed_dim):
    table = sines_and_cosines_in_slices(num_positions, embed_dim)
    return torch.cat([table[:, ::2], table[:, 1::2]], 1)


@wrong(sincos_pairs, "cosines first")
def cosine_at_even_places(num_positions, embed_dim):
    table = sines_and_cosines_in_slices(num_positions, embed_dim)
    return table.unflatten(1, (-1, 2)).flip(-1).flatten(1)


@wrong(sincos_pairs, "a speed for every feature")
def exponent_of_the_feature(num_positions, embed_dim):
    def value(n, feature):
        angle = n / 10000 ** (feature / embed_dim)
        return math.cos(angle) if feature % 2 else math.sin(angle)

    rows = [[value(n, f) for f in range(embed_dim)] for n in range(num_positions)]
    return torch.tensor(rows)


@wrong(sincos_pairs, "counted from 1")
def from_place_1(num_positions, embed_dim):
    return sines_and_cosines_in_slices(num_positions + 1, embed_dim)[1:]


@wrong(sincos_pairs, "half the exponent")
def one_forgets_the_two(num_positions, embed_dim):
    def value(n, feature):
        angle = n / 10000 ** (feature // 2 / embed_dim)
        return math.cos(angle) if feature % 2 else math.sin(angle)

    rows = [[value(n, f) for f in range(embed_dim)] for n in range(num_positions)]
    return torch.tensor(rows)


@wrong(sincos_pairs, "twice the exponent")
def two_twice(num_positions, embed_dim):
    def value(n, feature):
        angle = n / 10000 ** (4 * (feature // 2) / embed_dim)
        return math.cos(angle) if feature % 2 else math.sin(angle)

    rows = [[value(n, f) for f in range(embed_dim)] for n in range(num_positions)]
    return torch.tensor(rows)


@wrong(sincos_pairs, "transposed")
def features_by_places(num_positions, embed_dim):
    return sines_and_cosines_in_slices(num_positions, embed_dim).mT


@wrong(sincos_pairs, "dtype")
def in_double(num_positions, embed_dim):
    return sines_and_cosines_in_slices(num_positions, embed_dim).double()


@wrong(sincos_pairs, "wrong features")
def another_base(num_positions, embed_dim):
    def value(n, feature):
        angle = n / 1000 ** (2 * (feature // 2) / embed_dim)
        return math.cos(angle) if feature % 2 else math.sin(angle)

    rows = [[value(n, f) for f in range(embed_dim)] for n in range(num_positions)]
    return torch.tensor(rows)


# grid_table


@right(grid_table)
def broadcast(row_table, col_table):
    return (row_table[:, None] + col_table).reshape(-1, row_table.shape[1])


@right(grid_table)
def patch_by_patch(row_table, col_table):
    return torch.stack([row + col for row in row_table for col in col_table])


@right(grid_table)
def looked_up(row_table, col_table):
    n = torch.arange(len(row_table) * len(col_table))
    return row_table[n // len(col_table)] + col_table[n % len(col_table)]


@wrong(grid_table, "columns first")
def down_the_columns(row_table, col_table):
    return torch.stack([row + col for col in col_table for row in row_table])


@wrong(grid_table, "both repeated")
def tables_repeated(row_table, col_table):
    n = torch.arange(len(row_table) * len(col_table))
    return row_table[n % len(row_table)] + col_table[n % len(col_table)]


@wrong(grid_table, "multiplied")
def products(row_table, col_table):
    return torch.stack([row * col for row in row_table for col in col_table])


@wrong(grid_table, "halved")
def means(row_table, col_table):
    return torch.stack([(row + col) / 2 for row in row_table for col in col_table])


@wrong(grid_table, "rows only")
def row_of_each(row_table, col_table):
    return torch.stack([row for row in row_table for col in col_table])


@wrong(grid_table, "columns only")
def column_of_each(row_table, col_table):
    return torch.stack([col for row in row_table for col in col_table])


@wrong(grid_table, "joined, not added")
def rows_and_columns_joined(row_table, col_table):
    return torch.stack([torch.cat([r, c]) for r in row_table for c in col_table])


@wrong(grid_table, "still a grid")
def not_flattened(row_table, col_table):
    return row_table[:, None, :] + col_table[None, :, :]


@wrong(grid_table, "row_table")
def rows_counted_by_rows(row_table, col_table):
    n = torch.arange(len(row_table) * len(col_table))
    row = (n // len(row_table)).clamp(max=len(row_table) - 1)
    return row_table[row] + col_table[n % len(col_table)]


# is_equivariant


def _commutes(layer, tokens, order):
    gap = layer(tokens[:, order]) - layer(tokens)[:, order]
    return bool(gap.abs().max() < 1e-4)


@right(is_equivariant)
def many_random_orders(layer):
    tokens = torch.randn(2, 7, 4)
    return all(_commutes(layer, tokens, torch.randperm(7)) for _ in range(10))


@right(is_equivariant)
def swaps_of_two_tokens(layer):
    tokens = torch.randn(1, 6, 5)
    orders = []
    for a in range(6):
        for b in range(a):
            order = list(range(6))
            order[a], order[b] = b, a
            orders.append(order)
    return all(_commutes(layer, tokens, order) for order in orders)


@right(is_equivariant)
def a_turn_and_a_swap(layer):
    tokens = torch.randn(3, 6, 4)
    return _commutes(layer, tokens, [1, 2, 3, 4, 5, 0]) and _commutes(
        layer, tokens, [1, 0, 2, 3, 4, 5]
    )


@wrong(is_equivariant, "too trusting")
def only_reversed(layer):
    tokens = torch.randn(2, 7, 4)
    return _commutes(layer, tokens, list(range(7))[::-1])


@wrong(is_equivariant, "too trusting")
def only_turned(layer):
    tokens = torch.randn(2, 7, 4)
    return _commutes(layer, tokens, [1, 2, 3, 4, 5, 6, 0])


@wrong(is_equivariant, "too trusting")
def only_the_first_two_swapped(layer):
    tokens = torch.randn(2, 7, 4)
    return _commutes(layer, tokens, [1, 0, 2, 3, 4, 5, 6])


@wrong(is_equivariant, "too trusting")
def halves_swapped(layer):
    tokens = torch.randn(1, 6, 4)
    return _commutes(layer, tokens, [3, 4, 5, 0, 1, 2])


@wrong(is_equivariant, "too trusting")
def compares_the_mean(layer):
    tokens = torch.randn(2, 7, 4)
    gap = layer(tokens[:, torch.randperm(7)]).mean(1) - layer(tokens).mean(1)
    return bool(gap.abs().max() < 1e-4)


@wrong(is_equivariant, "too strict")
def invariant_instead(layer):
    tokens = torch.randn(2, 7, 4)
    gap = layer(tokens[:, torch.randperm(7)]) - layer(tokens)
    return bool(gap.abs().max() < 1e-4)


@wrong(is_equivariant, "too strict")
def each_token_alone(layer):
    tokens = torch.randn(2, 7, 4)
    gap = layer(tokens)[:, :1] - layer(tokens[:, :1])
    return many_random_orders(layer) and bool(gap.abs().max() < 1e-4)


@wrong(is_equivariant, "too strict")
def must_depend_on_the_tokens(layer):
    return many_random_orders(layer) and bool(layer(torch.randn(1, 5, 4)).any())


@wrong(is_equivariant, "type")
def returns_the_gap(layer):
    tokens = torch.randn(2, 7, 4)
    order = torch.randperm(7)
    return (layer(tokens[:, order]) - layer(tokens)[:, order]).abs().max()


# shuffle_share


def _with_orders(orders):
    """Return an answer that takes the orders (b, n) of a seed from a function."""

    def answer(model, images, patch_size, seeds):
        before = model(images).argmax(dim=1)
        patches = vitlib.split_patches(images, patch_size)
        shares = []
        for seed in seeds:
            order = orders(seed, *patches.shape[:2])
            moved = patches.gather(1, order[..., None].expand_as(patches))
            other = vitlib.merge_patches(moved, patch_size, tuple(images.shape[2:]))
            shares.append((model(other).argmax(dim=1) != before).float().mean())
        return torch.stack(shares)

    return answer


def _drawn_orders(seed, b, n):
    dice = torch.Generator().manual_seed(seed)
    return torch.rand(b, n, generator=dice).argsort(dim=1)


def _noisy(moves):
    """Return an answer that changes images by a function of images and size."""

    def answer(model, images, patch_size, seeds):
        before, shares = model(images).argmax(dim=1), []
        for seed in seeds:
            torch.manual_seed(seed)
            after = model(moves(images, patch_size)).argmax(dim=1)
            shares.append((after != before).float().mean())
        return torch.stack(shares)

    return answer


@right(shuffle_share)
def sorted_dice(model, images, patch_size, seeds):
    return _with_orders(_drawn_orders)(model, images, patch_size, seeds)


@right(shuffle_share)
def image_by_image(model, images, patch_size, seeds):
    shares = torch.zeros(len(seeds))
    for place, seed in enumerate(seeds):
        torch.manual_seed(seed)
        for image in images:
            patches = vitlib.split_patches(image[None], patch_size)
            order = torch.randperm(patches.shape[1])
            other = vitlib.merge_patches(
                patches[:, order], patch_size, tuple(image.shape[1:])
            )
            shares[place] += model(other).argmax() != model(image[None]).argmax()
    return shares / len(images)


@right(shuffle_share)
def unfolded_and_numpy(model, images, p, seeds):
    said = model(images).max(dim=1).indices
    columns = F.unfold(images, p, stride=p)  # (b, c*p*p, n)
    shares = []
    for seed in seeds:
        dice = np.random.default_rng(seed)
        mixed = torch.stack([one[:, dice.permutation(one.shape[1])] for one in columns])
        other = F.fold(mixed, images.shape[2:], p, stride=p)
        shares.append((model(other).max(dim=1).indices != said).double().mean().item())
    return torch.tensor(shares)


@wrong(shuffle_share, "patches torn")
def pixels_shuffled(model, images, patch_size, seeds):
    def moves(images, p):
        order = torch.rand(len(images), 1, images[0, 0].numel()).argsort(dim=2)
        return images.flatten(2).gather(2, order.expand(-1, 2, -1)).view_as(images)

    return _noisy(moves)(model, images, patch_size, seeds)


@wrong(shuffle_share, "answers that cannot change")
def images_shuffled(model, images, patch_size, seeds):
    return _noisy(lambda x, p: x[torch.randperm(len(x))])(
        model, images, patch_size, seeds
    )


@wrong(shuffle_share, "one order for all")
def one_order_for_the_batch(model, images, patch_size, seeds):
    def orders(seed, b, n):
        torch.manual_seed(seed)
        return torch.randperm(n).expand(b, n)

    return _with_orders(orders)(model, images, patch_size, seeds)


@wrong(shuffle_share, "no dice")
def reversed_patches(model, images, patch_size, seeds):
    return _with_orders(lambda seed, b, n: torch.arange(n).flip(0).expand(b, n))(
        model, images, patch_size, seeds
    )


@wrong(shuffle_share, "no dice")
def shuffled_and_not_used(model, images, patch_size, seeds):
    def moves(images, p):
        patches = vitlib.split_patches(images, p)
        patches[:, torch.randperm(patches.shape[1])]
        return vitlib.merge_patches(patches, p, tuple(images.shape[2:]))

    return _noisy(moves)(model, images, patch_size, seeds)


@wrong(shuffle_share, "seeds ignored")
def always_seed_0(model, images, patch_size, seeds):
    return _with_orders(lambda seed, b, n: _drawn_orders(0, b, n))(
        model, images, patch_size, seeds
    )


@wrong(shuffle_share, "seeds run on")
def seeded_once(model, images, patch_size, seeds):
    torch.manual_seed(seeds[0])
    return _with_orders(lambda seed, b, n: torch.rand(b, n).argsort(dim=1))(
        model, images, patch_size, seeds
    )


@wrong(shuffle_share, "scores compared")
def any_change_of_a_score(model, images, patch_size, seeds):
    shares = []
    patches = vitlib.split_patches(images, patch_size)
    for seed in seeds:
        order = _drawn_orders(seed, *patches.shape[:2])
        moved = patches.gather(1, order[..., None].expand_as(patches))
        other = vitlib.merge_patches(moved, patch_size, tuple(images.shape[2:]))
        shares.append((model(other) != model(images)).any(dim=1).float().mean())
    return torch.stack(shares)


@wrong(shuffle_share, "share that stays")
def stability(model, images, patch_size, seeds):
    return 1 - sorted_dice(model, images, patch_size, seeds)


@wrong(shuffle_share, "form")
def mean_over_the_seeds(model, images, patch_size, seeds):
    return sorted_dice(model, images, patch_size, seeds).mean()


@wrong(shuffle_share, "no share")
def percent_of_answers(model, images, patch_size, seeds):
    return 100 * sorted_dice(model, images, patch_size, seeds)


@wrong(shuffle_share, "answers that cannot change")
def merged_as_a_square(model, images, patch_size, seeds):
    def moves(images, p):
        b, c, high, wide = images.shape
        grid = vitlib.split_patches(images, p).unflatten(2, (c, p, p))
        mixed = torch.stack([one[torch.randperm(len(one))] for one in grid])
        return mixed.reshape(b, c, high, wide)

    return _noisy(moves)(model, images, patch_size, seeds)


@wrong(shuffle_share, "other share")
def rows_of_the_grid_only(model, images, patch_size, seeds):
    def moves(images, p):
        strips = images.unflatten(2, (-1, p))
        return torch.stack(
            [one[:, torch.randperm(one.shape[1])] for one in strips]
        ).flatten(2, 3)

    return _noisy(moves)(model, images, patch_size, seeds)


@wrong(shuffle_share, "crash")
def sides_swapped_in_the_merge(model, images, p, seeds):
    def moves(images, p):
        patches = vitlib.split_patches(images, p)
        mixed = torch.stack([one[torch.randperm(len(one))] for one in patches])
        return vitlib.merge_patches(mixed, p, tuple(images.shape[2:])[::-1])

    return _noisy(moves)(model, images, p, seeds)


@wrong(shuffle_share, "other axis")
def largest_over_the_batch(model, images, p, seeds):
    return sorted_dice(lambda images: model(images).mT, images, p, seeds)
