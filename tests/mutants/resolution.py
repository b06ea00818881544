"""Answers to the exercises of chapter 14."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import vitlib
from mutants.answers import right, wrong
from vitlib.checks.resolution import (
    count_tokens,
    crop_positions,
    images_for,
    resize_kernel,
)

# count_tokens


@right(count_tokens)
def by_formula(image_size, patch_size, stride):
    height, width = image_size
    rows = 1 + (height - patch_size) // stride
    return 1 + rows * (1 + (width - patch_size) // stride)


@right(count_tokens)
def corners_counted(image_size, patch_size, stride):
    height, width = image_size
    tokens = 1
    for top in range(0, height, stride):
        for left in range(0, width, stride):
            tokens += top + patch_size <= height and left + patch_size <= width
    return tokens


@right(count_tokens)
def by_unfolding(image_size, patch_size, stride):
    image = torch.zeros(1, 1, *image_size)
    return F.unfold(image, patch_size, stride=stride).shape[2] + 1


@right(count_tokens)
def by_a_convolution(image_size, patch_size, stride):
    grid = nn.Conv2d(1, 1, patch_size, stride)(torch.zeros(1, 1, *image_size))
    return torch.tensor(grid.numel() + 1)


@wrong(count_tokens, "stride ignored")
def as_without_overlap(image_size, patch_size, stride):
    return (
        image_size[0] * image_size[1] // patch_size**2 + 1
        if (image_size[0] % patch_size == image_size[1] % patch_size == 0)
        else (image_size[0] // patch_size) * (image_size[1] // patch_size) + 1
    )


@wrong(count_tokens, "patch ignored")
def side_over_stride(image_size, patch_size, stride):
    return 1 + (image_size[0] // stride) * (image_size[1] // stride)


@wrong(count_tokens, "first patch forgotten")
def steps_for_places(image_size, patch_size, stride):
    rows, cols = ((side - patch_size) // stride for side in image_size)
    return rows * cols + 1


@wrong(count_tokens, "class token forgotten")
def patches_only(image_size, patch_size, stride):
    return by_formula(image_size, patch_size, stride) - 1


@wrong(count_tokens, "square images only")
def height_squared(image_size, patch_size, stride):
    return ((image_size[0] - patch_size) // stride + 1) ** 2 + 1


@wrong(count_tokens, "rounded up")
def with_ceil(image_size, patch_size, stride):
    rows, cols = (int(np.ceil((side - patch_size) / stride)) + 1 for side in image_size)
    return rows * cols + 1


@wrong(count_tokens, "one side only")
def along_the_width(image_size, patch_size, stride):
    return (image_size[1] - patch_size) // stride + 2


@wrong(count_tokens, "added, not multiplied")
def rows_plus_columns(image_size, patch_size, stride):
    return sum((side - patch_size) // stride + 1 for side in image_size) + 1


@wrong(count_tokens, "values")
def true_division(image_size, patch_size, stride):
    rows, cols = ((side - patch_size) / stride + 1 for side in image_size)
    return rows * cols + 1


# crop_positions


def parted(pos_embed, grid_size):
    prefix = pos_embed.shape[1] - grid_size[0] * grid_size[1]
    return pos_embed[:, :prefix], pos_embed[:, prefix:]


@right(crop_positions)
def cut_from_the_grid(pos_embed, grid_size, corner, size):
    first, rest = parted(pos_embed, grid_size)
    grid = rest.reshape(*grid_size, -1)
    piece = grid[corner[0] :, corner[1] :][: size[0], : size[1]]
    return torch.cat([first[0], piece.reshape(-1, piece.shape[2])])[None]


@right(crop_positions)
def row_after_row(pos_embed, grid_size, corner, size):
    first, rest = parted(pos_embed, grid_size)
    pieces = [first]
    for row in range(corner[0], corner[0] + size[0]):
        start = row * grid_size[1] + corner[1]
        pieces.append(rest[:, start : start + size[1]])
    return torch.cat(pieces, dim=1)


@right(crop_positions)
def by_a_mask(pos_embed, grid_size, corner, size):
    first, _ = parted(pos_embed, grid_size)
    mask = torch.zeros(grid_size, dtype=torch.bool)
    mask[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = True
    kept = torch.cat([torch.ones(first.shape[1], dtype=torch.bool), mask.flatten()])
    return pos_embed[:, kept]


@wrong(crop_positions, "a run of rows", "lucidrains/vit-pytorch issue 70")
def one_slice(pos_embed, grid_size, corner, size):
    first, rest = parted(pos_embed, grid_size)
    start = corner[0] * grid_size[1] + corner[1]
    return torch.cat([first, rest[:, start : start + size[0] * size[1]]], dim=1)


@wrong(crop_positions, "stretched")
def resampled(pos_embed, grid_size, corner, size):
    return vitlib.resample_pos_embed(pos_embed, grid_size, size)


@wrong(crop_positions, "corner ignored")
def from_the_top_left(pos_embed, grid_size, corner, size):
    return cut_from_the_grid(pos_embed, grid_size, (0, 0), size)


@wrong(crop_positions, "size read as a corner")
def loops_from_corner_to_size(pos_embed, grid_size, corner, size):
    first, rest = parted(pos_embed, grid_size)
    pieces = [first]
    for row in range(corner[0], size[0]):
        for col in range(corner[1], size[1]):
            place = row * grid_size[1] + col
            pieces.append(rest[:, place : place + 1])
    return torch.cat(pieces, dim=1)


@wrong(crop_positions, "class row lost")
def patches_alone(pos_embed, grid_size, corner, size):
    _, rest = parted(pos_embed, grid_size)
    return cut_from_the_grid(rest, grid_size, corner, size)


@wrong(crop_positions, "off by one")
def table_read_from_row_0(pos_embed, grid_size, corner, size):
    first, _ = parted(pos_embed, grid_size)
    shifted = pos_embed[:, : grid_size[0] * grid_size[1]]
    piece = cut_from_the_grid(shifted, grid_size, corner, size)
    return torch.cat([first, piece], dim=1)


@wrong(crop_positions, "corner turned")
def left_before_top(pos_embed, grid_size, corner, size):
    first, rest = parted(pos_embed, grid_size)
    left, top = corner
    piece = rest.unflatten(1, grid_size)[:, top : top + size[0], left : left + size[1]]
    return torch.cat([first, piece.flatten(1, 2)], dim=1)


@wrong(crop_positions, "rows and columns swapped")
def grid_as_width_height(pos_embed, grid_size, corner, size):
    return cut_from_the_grid(pos_embed, grid_size[::-1], corner, size)


@wrong(crop_positions, "piece turned")
def width_before_height(pos_embed, grid_size, corner, size):
    return cut_from_the_grid(pos_embed, grid_size, corner, (size[1], size[0]))


@wrong(crop_positions, "width of the piece")
def rows_as_wide_as_the_piece(pos_embed, grid_size, corner, size):
    first, rest = parted(pos_embed, grid_size)
    pieces = [first]
    for row in range(corner[0], corner[0] + size[0]):
        start = row * size[1] + corner[1]
        pieces.append(rest[:, start : start + size[1]])
    return torch.cat(pieces, dim=1)


@wrong(crop_positions, "class row expected")
def always_one_class_token(pos_embed, grid_size, corner, size):
    grid = pos_embed[:, 1:].reshape(1, *grid_size, -1)
    piece = grid[:, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    return torch.cat([pos_embed[:, :1], piece.flatten(1, 2)], dim=1)


@wrong(crop_positions, "other place")
def counted_from_the_bottom(pos_embed, grid_size, corner, size):
    top = grid_size[0] - size[0] - corner[0]
    return cut_from_the_grid(pos_embed, grid_size, (top, corner[1]), size)


@wrong(crop_positions, "numbers changed")
def scaled_by_the_area(pos_embed, grid_size, corner, size):
    share = (size[0] * size[1]) / (grid_size[0] * grid_size[1])
    return cut_from_the_grid(pos_embed, grid_size, corner, size) * share


# resize_kernel


def folded(flat):
    side = round(flat.shape[2] ** 0.5)
    return flat.unflatten(2, (side, side))


@right(resize_kernel)
def by_the_pseudoinverse(kernel, matrix):
    return folded(kernel.flatten(2) @ torch.linalg.pinv(matrix))


@right(resize_kernel)
def normal_equations(kernel, matrix):
    m = matrix.double()
    undo = torch.linalg.inv(m.T @ m) @ m.T
    return folded(torch.einsum("eck,kn->ecn", kernel.flatten(2).double(), undo)).to(
        kernel.dtype
    )


@right(resize_kernel)
def least_squares_with_least_length(kernel, matrix):
    flat = kernel.flatten(2).flatten(0, 1).double()
    found = torch.linalg.lstsq(matrix.T.double(), flat.T, driver="gelsd").solution
    return folded(found.T.unflatten(0, kernel.shape[:2]).to(kernel.dtype))


@right(resize_kernel)
def by_singular_values(kernel, matrix):
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    undo = vh.T @ torch.diag(1 / s) @ u.T
    return folded((kernel.flatten(2).double() @ undo).to(kernel.dtype))


@wrong(resize_kernel, "resized like an image")
def enlarged(kernel, matrix):
    return folded(kernel.flatten(2) @ matrix.T)


@wrong(resize_kernel, "resized and divided")
def enlarged_and_divided(kernel, matrix):
    return folded(kernel.flatten(2) @ matrix.T) * matrix.shape[1] / matrix.shape[0]


@wrong(resize_kernel, "each row to a sum of one")
def shares_of_each_pixel(kernel, matrix):
    return folded(kernel.flatten(2) @ (matrix / matrix.sum(dim=0)).T)


@wrong(resize_kernel, "zeros around")
def padded(kernel, matrix):
    new, old = round(matrix.shape[0] ** 0.5), kernel.shape[2]
    result = torch.zeros(*kernel.shape[:2], new, new)
    result[:, :, :old, :old] = kernel
    return result


@wrong(resize_kernel, "transposed patches")
def axes_turned(kernel, matrix):
    return folded(kernel.mT.flatten(2) @ torch.linalg.pinv(matrix))


@wrong(resize_kernel, "channels averaged")
def mean_channel(kernel, matrix):
    grey = kernel.mean(dim=1, keepdim=True).repeat(1, kernel.shape[1], 1, 1)
    return by_the_pseudoinverse(grey, matrix)


@wrong(resize_kernel, "other answers")
def pseudoinverse_and_divided(kernel, matrix):
    return by_the_pseudoinverse(kernel, matrix) * matrix.shape[1] / matrix.shape[0]


@wrong(resize_kernel, "other answers")
def nearest_pixels(kernel, matrix):
    new = round(matrix.shape[0] ** 0.5)
    share = kernel.shape[2] ** 2 / new**2
    return F.interpolate(kernel, size=(new, new), mode="nearest") * share


@wrong(resize_kernel, "more than needed")
def some_solution(kernel, matrix):
    m = matrix.double()
    weight = torch.diag(torch.linspace(1, 3, len(m)).double())
    undo = torch.linalg.inv(m.T @ weight @ m) @ m.T @ weight
    return folded((kernel.flatten(2).double() @ undo).to(kernel.dtype))


@wrong(resize_kernel, "shape")
def left_flat(kernel, matrix):
    return kernel.flatten(2) @ torch.linalg.pinv(matrix)


# images_for


@right(images_for)
def part_by_part(budget, tokens, patch_pixels, embed_dim, depth):
    e = embed_dim
    embed = 2 * (tokens - 1) * patch_pixels * e
    qkv, proj = 2 * tokens * e * 3 * e, 2 * tokens * e * e
    scores = mix = 2 * tokens * tokens * e
    mlp = 2 * (2 * tokens * e * 4 * e)
    forward = embed + depth * (qkv + proj + scores + mix + mlp)
    return budget // (3 * forward)


@right(images_for)
def in_one_line(budget, tokens, patch_pixels, embed_dim, depth):
    block = 24 * tokens * embed_dim**2 + 4 * tokens**2 * embed_dim
    return budget // (6 * (tokens - 1) * patch_pixels * embed_dim + 3 * depth * block)


@right(images_for)
def image_after_image(budget, tokens, patch_pixels, embed_dim, depth):
    work = 3 * in_one_line_work(tokens, patch_pixels, embed_dim, depth)
    low, high = 0, budget
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle * work <= budget else (low, middle)
    return low


def in_one_line_work(tokens, patch_pixels, embed_dim, depth):
    block = 24 * tokens * embed_dim**2 + 4 * tokens**2 * embed_dim
    return 2 * (tokens - 1) * patch_pixels * embed_dim + depth * block


@wrong(images_for, "forward only")
def only_the_way_forward(budget, *sizes):
    return budget // in_one_line_work(*sizes)


@wrong(images_for, "one way back")
def forward_and_back(budget, *sizes):
    return budget // (2 * in_one_line_work(*sizes))


@wrong(images_for, "pairs forgotten")
def dense_layers_only(budget, tokens, patch_pixels, embed_dim, depth):
    work = (tokens - 1) * patch_pixels * embed_dim + depth * 12 * tokens * embed_dim**2
    return budget // (6 * work)


@wrong(images_for, "one operation each")
def multiply_adds(budget, *sizes):
    return budget // (3 * in_one_line_work(*sizes) // 2)


@wrong(images_for, "one block")
def depth_forgotten(budget, tokens, patch_pixels, embed_dim, depth):
    return budget // (3 * in_one_line_work(tokens, patch_pixels, embed_dim, 1))


@wrong(images_for, "class token embedded")
def all_tokens_embedded(budget, tokens, patch_pixels, embed_dim, depth):
    block = 24 * tokens * embed_dim**2 + 4 * tokens**2 * embed_dim
    return budget // (3 * (2 * tokens * patch_pixels * embed_dim + depth * block))


@wrong(images_for, "patches forgotten")
def blocks_only(budget, tokens, patch_pixels, embed_dim, depth):
    return budget // (3 * in_one_line_work(tokens, 0, embed_dim, depth))


@wrong(images_for, "one half of the pairs")
def scores_without_values(budget, tokens, patch_pixels, embed_dim, depth):
    block = 24 * tokens * embed_dim**2 + 2 * tokens**2 * embed_dim
    return budget // (3 * (2 * (tokens - 1) * patch_pixels * embed_dim + depth * block))


@wrong(images_for, "rounded up")
def rounded_to_more(budget, *sizes):
    return int(np.ceil(budget / (3 * in_one_line_work(*sizes))))


@wrong(images_for, "not rounded")
def true_quotient(budget, *sizes):
    return budget / (3 * in_one_line_work(*sizes))


@wrong(images_for, "work of an image")
def projection_forgotten(budget, tokens, patch_pixels, embed_dim, depth):
    block = 22 * tokens * embed_dim**2 + 4 * tokens**2 * embed_dim
    return budget // (3 * (2 * (tokens - 1) * patch_pixels * embed_dim + depth * block))
