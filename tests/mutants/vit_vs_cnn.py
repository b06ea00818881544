"""Answers to the exercises of chapter 12."""

import math
import statistics

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from mutants.answers import right, wrong
from vitlib.checks.vit_vs_cnn import (
    equivariance_gap,
    mirrored,
    paired_gain,
    receptive_field,
)

# receptive_field


@right(receptive_field)
def from_the_end(layers):
    seen = 1
    for kernel, stride in reversed(layers):
        seen = (seen - 1) * stride + kernel
    return seen


@right(receptive_field)
def places_collected(layers):
    places = {0}
    for kernel, stride in layers[::-1]:
        places = {stride * place + k for place in places for k in range(kernel)}
    return max(places) - min(places) + 1


@right(receptive_field)
def as_one_sum(layers):
    steps = np.cumprod([1] + [stride for _, stride in layers])
    return torch.tensor(
        1 + sum(int(s) * (k - 1) for s, (k, _) in zip(steps, layers, strict=False))
    )


@wrong(receptive_field, "own stride first")
def jump_updated_too_early(layers):
    total, jump = 1, 1
    for k, s in layers:
        jump = jump * s
        total = total + jump * (k - 1)
    return total


@wrong(receptive_field, "strides ignored")
def every_layer_adds_k_minus_one(layers):
    total = 1
    for k, _ in layers:
        total += k - 1
    return total


@wrong(receptive_field, "last stride alone")
def previous_stride(layers):
    total, before = 1, 1
    for k, s in layers:
        total, before = total + (k - 1) * before, s
    return total


@wrong(receptive_field, "windows multiplied")
def product_of_windows(layers):
    total = 1
    for k, _ in layers:
        total *= k
    return total


@wrong(receptive_field, "windows added")
def plain_sum(layers):
    return sum(k for k, _ in layers)


@wrong(receptive_field, "windows added")
def whole_window_each_time(layers):
    total, jump = 1, 1
    for k, s in layers:
        total, jump = total + k * jump, jump * s
    return total


@wrong(receptive_field, "starts at 0")
def begins_with_nothing(layers):
    total, jump = 0, 1
    for k, s in layers:
        total, jump = total + (k - 1) * jump, jump * s
    return total


@wrong(receptive_field, "layers in the wrong order")
def counted_backwards(layers):
    total, jump = 1, 1
    for k, s in reversed(layers):
        total, jump = total + (k - 1) * jump, jump * s
    return total


@wrong(receptive_field, "strides multiplied alone")
def only_the_jump(layers):
    return math.prod(s for _, s in layers)


@wrong(receptive_field, "strides")
def own_stride_alone(layers):
    total = layers[0][0]
    for k, s in layers[1:]:
        total += (k - 1) * s
    return total


@wrong(receptive_field, "type")
def prints_and_forgets(layers):
    print(from_the_end(layers))


# mirrored


def with_parts(weights, kernel=None, table=None):
    made = dict(weights)
    if kernel is not None:
        made["patch_embed.proj.weight"] = kernel
    if table is not None:
        made["pos_embed"] = table
    return made


def prefix_of(weights, grid):
    return weights["pos_embed"].shape[1] - grid[0] * grid[1]


@right(mirrored)
def flipped_axes(weights, grid):
    first = prefix_of(weights, grid)
    head, tail = weights["pos_embed"][:, :first], weights["pos_embed"][:, first:]
    tail = rearrange(tail, "1 (r c) e -> 1 r c e", r=grid[0]).flip(2)
    table = torch.cat([head, tail.reshape(1, -1, tail.shape[3])], dim=1)
    return with_parts(weights, weights["patch_embed.proj.weight"].flip(-1), table)


@right(mirrored)
def row_after_row(weights, grid):
    first, table = prefix_of(weights, grid), weights["pos_embed"].clone()
    for row in range(grid[0]):
        for col in range(grid[1]):
            old = first + row * grid[1] + (grid[1] - 1 - col)
            table[:, first + row * grid[1] + col] = weights["pos_embed"][:, old]
    kernel = weights["patch_embed.proj.weight"]
    turned = torch.stack([kernel[..., x] for x in range(kernel.shape[3])][::-1], dim=3)
    return with_parts(weights, turned, table)


@right(mirrored)
def by_an_index(weights, grid):
    first = prefix_of(weights, grid)
    places = torch.arange(grid[0] * grid[1]).view(grid).fliplr().flatten()
    order = torch.cat([torch.arange(first), first + places])
    kernel = weights["patch_embed.proj.weight"]
    back = torch.arange(kernel.shape[3] - 1, -1, -1)
    return with_parts(weights, kernel[..., back], weights["pos_embed"][:, order])


@wrong(mirrored, "pixels not mirrored")
def places_only(weights, grid):
    return with_parts(weights, None, by_an_index(weights, grid)["pos_embed"])


@wrong(mirrored, "places not mirrored")
def kernel_only(weights, grid):
    return with_parts(weights, weights["patch_embed.proj.weight"].flip(3))


@wrong(mirrored, "unchanged")
def copied(weights, grid):
    return {name: value.clone() for name, value in weights.items()}


@wrong(mirrored, "upside down")
def rows_for_columns(weights, grid):
    first = prefix_of(weights, grid)
    places = torch.arange(grid[0] * grid[1]).view(grid).flipud().flatten()
    order = torch.cat([torch.arange(first), first + places])
    kernel = weights["patch_embed.proj.weight"].flip(2)
    return with_parts(weights, kernel, weights["pos_embed"][:, order])


@wrong(mirrored, "turned by half")
def everything_reversed(weights, grid):
    first, table = prefix_of(weights, grid), weights["pos_embed"]
    table = torch.cat([table[:, :first], table[:, first:].flip(1)], dim=1)
    return with_parts(weights, weights["patch_embed.proj.weight"].flip(2, 3), table)


@wrong(mirrored, "all places reversed")
def list_of_places_reversed(weights, grid):
    first, table = prefix_of(weights, grid), weights["pos_embed"]
    table = torch.cat([table[:, :first], table[:, first:].flip(1)], dim=1)
    return with_parts(weights, weights["patch_embed.proj.weight"].flip(3), table)


@wrong(mirrored, "class row moved")
def whole_table_reversed(weights, grid):
    kernel = weights["patch_embed.proj.weight"].flip(3)
    return with_parts(weights, kernel, weights["pos_embed"].flip(1))


@wrong(mirrored, "class row expected")
def always_skips_row_0(weights, grid):
    head, tail = weights["pos_embed"][:, :1], weights["pos_embed"][:, 1:]
    tail = tail.reshape(1, *grid, -1).flip(2).flatten(1, 2)
    kernel = weights["patch_embed.proj.weight"].flip(3)
    return with_parts(weights, kernel, torch.cat([head, tail], dim=1))


@wrong(mirrored, "rows and columns swapped")
def grid_read_as_width_height(weights, grid):
    return flipped_axes(weights, (grid[1], grid[0]))


@wrong(mirrored, "features mirrored")
def last_axis_of_the_table(weights, grid):
    kernel = weights["patch_embed.proj.weight"].flip(3)
    return with_parts(weights, kernel, weights["pos_embed"].flip(-1))


@wrong(mirrored, "patches")
def colours_mirrored(weights, grid):
    made = flipped_axes(weights, grid)
    return with_parts(made, weights["patch_embed.proj.weight"].flip(1))


@wrong(mirrored, "positions")
def columns_rolled(weights, grid):
    first, table = prefix_of(weights, grid), weights["pos_embed"]
    tail = table[:, first:].unflatten(1, grid).roll(1, 2).flatten(1, 2)
    kernel = weights["patch_embed.proj.weight"].flip(3)
    return with_parts(weights, kernel, torch.cat([table[:, :first], tail], dim=1))


@wrong(mirrored, "other weights")
def every_last_axis(weights, grid):
    return {name: value.flip(-1) for name, value in weights.items()}


@wrong(mirrored, "in place")
def written_over(weights, grid):
    made = flipped_axes(weights, grid)
    weights["pos_embed"].copy_(made["pos_embed"])
    return made


@wrong(mirrored, "names")
def only_what_changes(weights, grid):
    made = flipped_axes(weights, grid)
    return {name: made[name] for name in ("patch_embed.proj.weight", "pos_embed")}


@wrong(mirrored, "shapes")
def table_left_as_a_grid(weights, grid):
    first = prefix_of(weights, grid)
    table = weights["pos_embed"][:, first:].unflatten(1, grid).flip(2)
    return with_parts(weights, weights["patch_embed.proj.weight"].flip(3), table)


@wrong(mirrored, "type")
def two_tensors(weights, grid):
    made = flipped_axes(weights, grid)
    return made["patch_embed.proj.weight"], made["pos_embed"]


# equivariance_gap


@right(equivariance_gap)
def both_ways(layer, images, shift, stride):
    down, right_ = shift
    moved = images.roll(shifts=(down * stride, right_ * stride), dims=(-2, -1))
    return (layer(moved) - layer(images).roll((down, right_), (-2, -1))).abs().max()


@right(equivariance_gap)
def moved_back(layer, images, shift, stride):
    pixels = tuple(stride * by for by in shift)
    after = layer(torch.roll(images, pixels, (2, 3)))
    back = torch.roll(after, tuple(-by for by in shift), (2, 3))
    return torch.dist(back, layer(images), p=float("inf"))


@right(equivariance_gap)
def image_after_image(layer, images, shift, stride):
    largest = 0.0
    for image in images.split(1):
        moved = torch.cat([image] * 2, dim=2)
        moved = torch.cat([moved] * 2, dim=3)
        top = -stride * shift[0] % image.shape[2]
        left = -stride * shift[1] % image.shape[3]
        cut = moved[:, :, top:, left:][..., : image.shape[2], : image.shape[3]]
        gap = layer(cut) - layer(image).roll(shift, (2, 3))
        largest = max(largest, float(gap.abs().max()))
    return torch.tensor(largest, dtype=images.dtype)


@wrong(
    equivariance_gap, "compared with the unmoved", "andrewekhalel/MLQuestions issue 10"
)
def asks_for_invariance(layer, images, shift, stride):
    moved = images.roll((shift[0] * stride, shift[1] * stride), (2, 3))
    return (layer(images) - layer(moved)).abs().max()


@wrong(equivariance_gap, "stride forgotten")
def moved_by_shift_pixels(layer, images, shift, stride):
    moved = images.roll(shift, (2, 3))
    return (layer(images).roll(shift, (2, 3)) - layer(moved)).abs().max()


@wrong(equivariance_gap, "stride on the result")
def both_moved_by_pixels(layer, images, shift, stride):
    pixels = (shift[0] * stride, shift[1] * stride)
    moved = layer(images.roll(pixels, (2, 3)))
    return (layer(images).roll(pixels, (2, 3)) - moved).abs().max()


@wrong(equivariance_gap, "stride on the wrong side")
def sides_swapped(layer, images, shift, stride):
    pixels = (shift[0] * stride, shift[1] * stride)
    moved = layer(images.roll(shift, (2, 3)))
    return (layer(images).roll(pixels, (2, 3)) - moved).abs().max()


@wrong(equivariance_gap, "moved the other way")
def result_moved_back_too_far(layer, images, shift, stride):
    pixels = (shift[0] * stride, shift[1] * stride)
    moved = layer(images.roll(pixels, (2, 3)))
    old = layer(images).roll((-shift[0], -shift[1]), (2, 3))
    return (old - moved).abs().max()


@wrong(equivariance_gap, "down and right swapped")
def x_before_y(layer, images, shift, stride):
    moved = layer(images.roll((shift[0] * stride, shift[1] * stride), (3, 2)))
    return (layer(images).roll(shift, (3, 2)) - moved).abs().max()


@wrong(equivariance_gap, "mean, not largest")
def mean_difference(layer, images, shift, stride):
    moved = layer(images.roll((shift[0] * stride, shift[1] * stride), (2, 3)))
    return F.l1_loss(layer(images).roll(shift, (2, 3)), moved)


@wrong(equivariance_gap, "signs lost")
def no_absolute_value(layer, images, shift, stride):
    moved = layer(images.roll((shift[0] * stride, shift[1] * stride), (2, 3)))
    return (moved - layer(images).roll(shift, (2, 3))).max()


@wrong(equivariance_gap, "sums compared")
def difference_of_sums(layer, images, shift, stride):
    moved = layer(images.roll((shift[0] * stride, shift[1] * stride), (2, 3)))
    return (moved.sum() - layer(images).sum()).abs()


@wrong(equivariance_gap, "shape")
def one_gap_for_each_image(layer, images, shift, stride):
    moved = layer(images.roll((shift[0] * stride, shift[1] * stride), (2, 3)))
    return (moved - layer(images).roll(shift, (2, 3))).abs().amax((1, 2, 3))


@wrong(equivariance_gap, "no gap")
def never_moved(layer, images, shift, stride):
    return (layer(images.clone()) - layer(images)).abs().max()


# paired_gain


@right(paired_gain)
def by_formula(before, after):
    gains = after - before
    half = 2 * gains.std() / len(gains) ** 0.5
    return torch.stack([gains.mean() - half, gains.mean(), gains.mean() + half])


@right(paired_gain)
def with_statistics(before, after):
    gains = [b - a for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    half = 2 * statistics.stdev(gains) / math.sqrt(len(gains))
    mean = statistics.mean(gains)
    return torch.tensor([mean - half, mean, mean + half], dtype=before.dtype)


@right(paired_gain)
def loops_and_squares(before, after):
    n, total, squares = len(before), 0.0, 0.0
    for a, b in zip(before, after, strict=True):
        total = total + (b - a)
    mean = total / n
    for a, b in zip(before, after, strict=True):
        squares = squares + (b - a - mean) ** 2
    half = 2 * (squares / (n * (n - 1))) ** 0.5
    return torch.stack([mean - half, mean, mean + half])


@wrong(paired_gain, "pairs torn apart")
def two_samples(before, after):
    n = len(before)
    mean = after.mean() - before.mean()
    half = 2 * (before.var() / n + after.var() / n) ** 0.5
    return torch.stack([mean - half, mean, mean + half])


@wrong(paired_gain, "pairs torn apart")
def spread_of_the_second(before, after):
    mean = (after - before).mean()
    half = 2 * after.std() / len(after) ** 0.5
    return torch.stack([mean - half, mean, mean + half])


@wrong(paired_gain, "sign")
def first_minus_second(before, after):
    return by_formula(after, before)


@wrong(paired_gain, "spread of one run")
def no_root_of_n(before, after):
    gains = after - before
    return gains.mean() + 2 * gains.std() * torch.tensor([-1.0, 0.0, 1.0])


@wrong(paired_gain, "divided by n")
def numpy_std(before, after):
    gains = (after - before).numpy()
    half = 2 * np.std(gains) / np.sqrt(len(gains))
    return torch.tensor(gains.mean() + half * np.array([-1, 0, 1])).to(before.dtype)


@wrong(paired_gain, "one error")
def one_standard_error(before, after):
    gains = after - before
    half = gains.std() / len(gains) ** 0.5
    return torch.stack([gains.mean() - half, gains.mean(), gains.mean() + half])


@wrong(paired_gain, "lowest and highest")
def range_of_differences(before, after):
    gains = sorted((after - before).tolist())
    return torch.tensor([gains[0], sum(gains) / len(gains), gains[-1]])


@wrong(paired_gain, "order of the three")
def mean_first(before, after):
    low, mean, high = by_formula(before, after)
    return torch.stack([mean, low, high])


@wrong(paired_gain, "half width")
def variance_for_deviation(before, after):
    gains = after - before
    half = 2 * gains.var() / len(gains) ** 0.5
    return torch.stack([gains.mean() - half, gains.mean(), gains.mean() + half])


@wrong(paired_gain, "mean")
def share_of_the_start(before, after):
    return by_formula(torch.ones_like(before), after / before)


@wrong(paired_gain, "shape")
def mean_and_half(before, after):
    gains = after - before
    return torch.stack([gains.mean(), 2 * gains.std() / len(gains) ** 0.5])
