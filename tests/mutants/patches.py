"""Answers to the tasks of chapter 01."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from mutants.answers import right, wrong
from vitlib.checks.patches import (
    PatchEmbed,
    conv_kernel,
    embed_patches,
    is_patch_embedding,
    kept_share,
    merge_patches,
    overlapping_patches,
    patch_of_pixel,
    split_patches,
)

# split_patches


@right(split_patches)
def two_loops(images, p):
    b, _, height, width = images.shape
    patches = []
    for top in range(0, height, p):
        for left in range(0, width, p):
            square = images[:, :, top : top + p, left : left + p]
            patches.append(square.reshape(b, -1))
    return torch.stack(patches, dim=1)


@right(split_patches)
def unfolded(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


@right(split_patches)
def reshaped_and_permuted(images, p):
    b, c, height, width = images.shape
    grid = images.reshape(b, c, height // p, p, width // p, p)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)


@right(split_patches)
def filled_in_place(images, p):
    b, c, height, width = images.shape
    rows, cols = height // p, width // p
    patches = images.new_zeros(b, rows * cols, c * p * p)
    for n in range(rows * cols):
        top, left = n // cols * p, n % cols * p
        square = images[:, :, top : top + p, left : left + p]
        patches[:, n] = square.flatten(1)
    return patches


@right(split_patches)
def by_a_convolution_with_unit_kernels(images, p):
    size = images.shape[1] * p * p
    kernels = torch.eye(size, dtype=images.dtype).reshape(size, -1, p, p)
    return F.conv2d(images, kernels, stride=p).flatten(2).mT


@right(split_patches)
def prints_while_it_works(images, p):
    print("cutting", tuple(images.shape))
    return two_loops(images, p)


@wrong(split_patches, "reshape alone", "duoan/TorchCode issue 21")
def view_to_patches(x, patch_size):
    b, _, h, w = x.shape
    return x.contiguous().view(b, (h // patch_size) * (w // patch_size), -1)


@wrong(split_patches, "order of axes", "gupta-abhay/pytorch-vit issue 7")
def unfolds_then_view(x, p):
    flat = p * p * x.shape[1]
    return x.unfold(2, p, p).unfold(3, p, p).contiguous().view(len(x), -1, flat)


@wrong(split_patches, "channel last", "lucidrains/vit-pytorch issue 352")
def flattened_channel_last(images, p):
    return rearrange(images, "b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=p, p2=p)


@wrong(split_patches, "columns first", "facebookresearch/dinov2 issue 504")
def loops_left_to_right_outside(images, p):
    found = []
    for x in range(0, images.shape[3], p):
        for y in range(0, images.shape[2], p):
            found.append(images[:, :, y : y + p, x : x + p].flatten(1))
    return torch.stack(found, 1)


@wrong(split_patches, "transposed patches")
def transposed_inside(images, p):
    return torch.cat(
        [
            piece.mT.reshape(len(images), 1, -1)
            for strip in images.split(p, dim=2)
            for piece in strip.split(p, dim=3)
        ],
        dim=1,
    )


@wrong(split_patches, "transposed image")
def height_for_width(images, p):
    return two_loops(images.transpose(2, 3), p)


@wrong(split_patches, "square images only")
def side_from_the_height(images, p):
    b, c, side, _ = images.shape
    k = side // p
    return (
        images.reshape(b, c, k, p, k, p).permute(0, 2, 4, 1, 3, 5).reshape(b, k * k, -1)
    )


@wrong(split_patches, "strewn pixels")
def every_second_pixel(images, p):
    return rearrange(
        images, "b c (p1 rows) (p2 cols) -> b (rows cols) (c p1 p2)", p1=p, p2=p
    )


@wrong(split_patches, "order of patches")
def from_below(images, p):
    return two_loops(images, p).flip(1)


@wrong(split_patches, "repeated patches")
def one_step_too_few(images, p):
    patches = two_loops(images, p)
    return torch.cat([patches[:, :-1], patches[:, -2:-1]], dim=1)


@wrong(split_patches, "shape")
def channels_as_an_axis(images, p):
    return rearrange(images, "b c (h p1) (w p2) -> b (h w) c (p1 p2)", p1=p, p2=p)


@wrong(split_patches, "shape")
def unfolded_and_not_turned(images, p):
    return F.unfold(images, p, stride=p)


@wrong(split_patches, "shape")
def overlapping_windows(images, p):
    return F.unfold(images, p).transpose(1, 2)


@wrong(split_patches, "type")
def a_list_of_patches(images, p):
    return [s for strip in images.split(p, 2) for s in strip.split(p, 3)]


@wrong(split_patches, "type")
def through_numpy(images, p):
    return np.stack([patch.numpy() for patch in two_loops(images, p).unbind(1)], 1)


@wrong(split_patches, "dtype")
def zeros_of_the_default_dtype(images, p):
    patches = two_loops(images, p)
    result = torch.zeros(patches.shape)
    for n in range(patches.shape[1]):
        result[:, n] = patches[:, n]
    return result


@wrong(split_patches, "no gradient")
def made_anew(images, p):
    return torch.tensor(two_loops(images, p).tolist(), dtype=images.dtype)


@wrong(split_patches, "in place")
def scales_the_images(images, p):
    patches = two_loops(images, p).clone()
    images /= 255
    return patches


@wrong(split_patches, "strides")
def view_where_memory_is_in_order(images, p):
    b, c, height, width = images.shape
    grid = images.view(b * c * height // p, p, width // p, p).transpose(1, 2)
    grid = grid.reshape(b, c, -1, p * p)
    return grid.transpose(1, 2).flatten(2)


@wrong(split_patches, "order of axes")
def strewn_along_one_side(images, p):
    return rearrange(
        images, "b c (rows p1) (p2 cols) -> b (rows cols) (c p1 p2)", p1=p, p2=p
    )


@wrong(split_patches, "numbers changed")
def colours_averaged(images, p):
    grey = images.mean(dim=1, keepdim=True)
    return two_loops(grey.repeat(1, images.shape[1], 1, 1), p)


# merge_patches


@right(merge_patches)
def folded(patches, p, image_size):
    return F.fold(patches.mT, image_size, p, stride=p)


@right(merge_patches)
def pasted_in_loops(patches, p, image_size):
    b, n, length = patches.shape
    height, width = image_size
    images = torch.empty(b, length // p**2, height, width, dtype=patches.dtype)
    for k in range(n):
        top, left = k // (width // p) * p, k % (width // p) * p
        images[:, :, top : top + p, left : left + p] = patches[:, k].reshape(
            b, -1, p, p
        )
    return images


@right(merge_patches)
def axes_permuted_back(patches, p, image_size):
    rows, cols = image_size[0] // p, image_size[1] // p
    x = patches.reshape(len(patches), rows, cols, -1, p, p)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, rows * p, cols * p)


@wrong(merge_patches, "reshape alone")
def one_reshape(patches, p, image_size):
    b, _, length = patches.shape
    return patches.reshape(b, length // p**2, image_size[0], image_size[1])


@wrong(merge_patches, "channel last")
def channel_read_last(patches, p, image_size):
    rows = image_size[0] // p
    return rearrange(
        patches,
        "b (h w) (p1 p2 c) -> b c (h p1) (w p2)",
        h=rows,
        p1=p,
        p2=p,
    )


@wrong(merge_patches, "columns first")
def rows_and_columns_of_patches_swapped(patches, p, image_size):
    return rearrange(
        patches,
        "b (w h) (c p1 p2) -> b c (h p1) (w p2)",
        h=image_size[0] // p,
        p1=p,
        p2=p,
    )


@wrong(merge_patches, "transposed patches")
def inside_turned(patches, p, image_size):
    rows, cols = image_size[0] // p, image_size[1] // p
    x = patches.reshape(len(patches), rows, cols, -1, p, p)
    return x.permute(0, 3, 1, 5, 2, 4).reshape(len(patches), -1, rows * p, cols * p)


@wrong(merge_patches, "transposed image")
def width_and_height_swapped(patches, p, image_size):
    rows, cols = image_size[0] // p, image_size[1] // p
    x = patches.reshape(len(patches), rows, cols, -1, p, p)
    return x.permute(0, 3, 2, 5, 1, 4).reshape(len(patches), -1, cols * p, rows * p)


@wrong(merge_patches, "square images only")
def root_of_n(patches, p, image_size):
    k = int(patches.shape[1] ** 0.5)
    x = patches.reshape(len(patches), k, k, -1, p, p)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, k * p, k * p)


@wrong(merge_patches, "order of axes")
def one_axis_forgotten(patches, p, image_size):
    rows, cols = image_size[0] // p, image_size[1] // p
    x = patches.reshape(len(patches), rows, cols, -1, p, p)
    return x.permute(0, 3, 1, 2, 4, 5).reshape(len(patches), -1, rows * p, cols * p)


@wrong(merge_patches, "order of patches")
def pasted_from_below(patches, p, image_size):
    return axes_permuted_back(patches.flip(1), p, image_size)


@wrong(merge_patches, "places not filled")
def loop_ends_early(patches, p, image_size):
    result = torch.zeros_like(axes_permuted_back(patches, p, image_size))
    for k in range(patches.shape[1] - 1):
        top, left = k // (image_size[1] // p) * p, k % (image_size[1] // p) * p
        square = patches[:, k].unflatten(1, (-1, p, p))
        result[:, :, top : top + p, left : left + p] = square
    return result


# embed_patches


@right(embed_patches)
def by_einsum(patches, weight, bias):
    return torch.einsum("bnk,ek->bne", patches, weight) + bias


@right(embed_patches)
def by_matmul(patches, weight, bias):
    return patches @ weight.T + bias


@right(embed_patches)
def one_dot_product_each(patches, weight, bias):
    tokens = [[[row @ w for w in weight] for row in image] for image in patches]
    return torch.stack(
        [torch.stack([torch.stack(row) for row in image]) for image in tokens]
    ).add(bias)


@right(embed_patches)
def in_double_precision(patches, weight, bias):
    return F.linear(patches.double(), weight.double(), bias.double()).to(patches.dtype)


@wrong(embed_patches, "weight turned")
def transpose_forgotten(patches, weight, bias):
    return torch.matmul(patches, weight) + bias


@wrong(embed_patches, "weight reshaped")
def viewed_until_it_fits(patches, weight, bias):
    return patches @ weight.view(weight.size(1), weight.size(0)) + bias


@wrong(embed_patches, "no bias")
def bias_forgotten(patches, weight, bias):
    return torch.einsum("bnk,ek->bne", patches, weight)


@wrong(embed_patches, "bias subtracted")
def minus_bias(patches, weight, bias):
    return F.linear(patches, weight) - bias


@wrong(embed_patches, "same gap")
def bias_twice(patches, weight, bias):
    return F.linear(patches, weight, bias) + bias


@wrong(embed_patches, "batch mixed")
def normalised_over_the_batch(patches, weight, bias):
    tokens = F.linear(patches, weight, bias)
    return tokens - tokens.mean(dim=0) + tokens[:1].mean(dim=0)


@wrong(embed_patches, "tokens mixed")
def patches_pooled(patches, weight, bias):
    return F.linear(patches + patches.mean(dim=1, keepdim=True), weight, bias)


@wrong(embed_patches, "shape")
def summed_over_patches(patches, weight, bias):
    return torch.einsum("bnk,ek->be", patches, weight) + bias


@wrong(embed_patches, "random")
def a_weight_of_its_own(patches, weight, bias):
    return nn.Linear(weight.shape[1], weight.shape[0])(patches)


# conv_kernel


@right(conv_kernel)
def viewed(weight, in_channels, patch_size):
    return weight.view(weight.shape[0], in_channels, patch_size, patch_size)


@right(conv_kernel)
def rearranged(weight, c, p):
    return rearrange(weight, "e (c p1 p2) -> e c p1 p2", c=c, p1=p, p2=p)


@right(conv_kernel)
def unflattened_row_by_row(weight, c, p):
    return torch.stack([row.unflatten(0, (c, p, p)) for row in weight])


@wrong(
    conv_kernel,
    "transposed once too often",
    "deep-dive-patch",
)
def weight_turned_then_reshaped(weight, c, p):
    return weight.T.reshape(weight.shape[0], c, p, p)


@wrong(conv_kernel, "channel last")
def channel_at_the_end_of_a_row(weight, c, p):
    return weight.reshape(-1, p, p, c).permute(0, 3, 1, 2)


@wrong(conv_kernel, "transposed patches")
def kernel_turned(weight, c, p):
    return weight.reshape(-1, c, p, p).mT


@wrong(conv_kernel, "arguments swapped")
def in_and_out_swapped(weight, c, p):
    return weight.reshape(-1, c, p, p).permute(1, 0, 2, 3)


@wrong(conv_kernel, "shape")
def channels_at_the_end(weight, c, p):
    return weight.reshape(-1, p, p, c)


@wrong(conv_kernel, "order")
def kernel_upside_down(weight, c, p):
    return weight.reshape(-1, c, p, p).flip(2, 3)


@wrong(conv_kernel, "crash")
def wrong_method(weight, c, p):
    return weight.reshape_as(c, p, p)


# PatchEmbed


class Base(nn.Module):
    """What most answers share."""

    def __init__(self, patch_size, in_channels, embed_dim):
        super().__init__()
        self.p = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)


@right(PatchEmbed)
class Strided_convolution(Base):
    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


@right(PatchEmbed)
class Linear_on_flat_patches(Base):
    def forward(self, images):
        patches = two_loops(images, self.p)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


@right(PatchEmbed)
class Keywords_and_defaults(nn.Module):
    def __init__(self, *, embed_dim, in_channels=3, patch_size=16, dropout=0.0):
        super().__init__()
        self.proj = nn.Conv2d(
            in_channels, embed_dim, kernel_size=patch_size, stride=patch_size
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, images):
        tokens = self.drop(self.proj(images))
        return rearrange(tokens, "b e rows cols -> b (rows cols) e")


@right(PatchEmbed)
class One_patch_after_the_other(Base):
    def forward(self, images):
        return torch.cat(
            [
                self.proj(piece).flatten(1)[:, None]
                for strip in images.split(self.p, dim=2)
                for piece in strip.split(self.p, dim=3)
            ],
            dim=1,
        )


@wrong(PatchEmbed, "reshape alone", "duoan/TorchCode issue 21")
class View_then_linear(Base):
    def forward(self, x):
        patches = x.reshape(len(x), -1, self.proj.weight[0].numel())
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


@wrong(PatchEmbed, "channel last", "lucidrains/vit-pytorch issue 352")
class Channel_last_then_linear(Base):
    def forward(self, x):
        patches = flattened_channel_last(x, self.p)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


@wrong(PatchEmbed, "shapes", "ageron/handson-mlp issue 14")
class In_and_out_swapped(nn.Module):
    def __init__(self, in_channels, embed_dim, patch_size):
        super().__init__()
        self.proj = nn.Conv2d(embed_dim, in_channels, patch_size, patch_size)

    def forward(self, x):
        return self.proj(x).flatten(2).mT


@wrong(PatchEmbed, "reshape, no transpose")
class Reshaped_to_tokens(Base):
    def forward(self, x):
        return self.proj(x).view(x.size(0), -1, self.proj.out_channels)


@wrong(PatchEmbed, "features before tokens")
class Transpose_forgotten(Base):
    def forward(self, x):
        return self.proj(x).flatten(start_dim=2)


@wrong(PatchEmbed, "still a grid")
class Convolution_only(Base):
    def forward(self, x):
        return self.proj(x)


@wrong(PatchEmbed, "columns first", "facebookresearch/dinov2 issue 504")
class Height_and_width_swapped(Base):
    def forward(self, x):
        return self.proj(x).permute(0, 3, 2, 1).flatten(1, 2)


@wrong(PatchEmbed, "transposed patches")
class Kernel_turned(Base):
    def forward(self, x):
        return F.conv2d(x, self.proj.weight.mT, self.proj.bias, self.p).flatten(2).mT


@wrong(PatchEmbed, "no bias")
class Bias_left_out(Base):
    def forward(self, x):
        return F.conv2d(x, self.proj.weight, stride=self.p).flatten(2).mT


@wrong(PatchEmbed, "negative numbers cut")
class Bent(Base):
    def forward(self, x):
        return self.proj(x).relu().flatten(2).mT


@wrong(PatchEmbed, "names")
class Without_a_bias(nn.Module):
    def __init__(self, patch_size, in_channels, embed_dim):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, bias=False)


@wrong(PatchEmbed, "shapes")
class A_linear_layer(nn.Module):
    def __init__(self, patch_size, in_channels, embed_dim):
        super().__init__()
        self.p = patch_size
        self.proj = nn.Linear(in_channels * patch_size**2, embed_dim)

    def forward(self, x):
        return self.proj(two_loops(x, self.p))


@wrong(PatchEmbed, "shape")
class Stride_forgotten(nn.Module):
    def __init__(self, patch_size, in_channels, embed_dim):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size)

    def forward(self, x):
        return self.proj(x).flatten(2).mT


@wrong(PatchEmbed, "no gradient")
class Weights_cut_off(Base):
    def forward(self, x):
        return F.conv2d(x, self.proj.weight.data, self.proj.bias, self.p).flatten(2).mT


@wrong(PatchEmbed, "crash")
class Init_of_the_parent_forgotten(nn.Module):
    def __init__(self, patch_size, in_channels, embed_dim):
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)


# patch_of_pixel


@right(patch_of_pixel)
def rows_then_columns(y, x, image_size, p):
    return y // p * (image_size[1] // p) + x // p


@right(patch_of_pixel)
def looked_up_in_a_table(y, x, image_size, p):
    rows, cols = image_size[0] // p, image_size[1] // p
    table = torch.arange(rows * cols).reshape(rows, cols)
    return table.repeat_interleave(p, 0).repeat_interleave(p, 1)[y, x].item()


@right(patch_of_pixel)
def counted_patch_by_patch(y, x, image_size, p):
    n = 0
    for top in range(0, image_size[0], p):
        for left in range(0, image_size[1], p):
            if top <= y < top + p and left <= x < left + p:
                return n
            n += 1


@right(patch_of_pixel)
def found_by_a_cut(y, x, image_size, p):
    images = torch.zeros(1, 1, *image_size)
    images[0, 0, y, x] = 1
    return F.unfold(images, p, stride=p)[0].sum(0).argmax()


@wrong(patch_of_pixel, "rows for columns")
def height_counts(y, x, image_size, p):
    height, _ = image_size
    return (y // p) * (height // p) + (x // p)


@wrong(patch_of_pixel, "columns first")
def downwards(y, x, image_size, p):
    return (x // p) * (image_size[0] // p) + y // p


@wrong(patch_of_pixel, "x and y swapped")
def x_before_y(x, y, image_size, patch_size):
    return y // patch_size * (image_size[1] // patch_size) + x // patch_size


@wrong(patch_of_pixel, "counted from 1")
def one_too_many(y, x, image_size, p):
    return 1 + x // p + y // p * (image_size[1] // p)


@wrong(patch_of_pixel, "pixels for patches")
def width_in_pixels(y, x, image_size, p):
    return x // p + image_size[1] * (y // p)


@wrong(patch_of_pixel, "number of the pixel")
def the_pixel_s_own_number_divided(y, x, image_size, p):
    return (y * image_size[1] + x) // p**2


@wrong(patch_of_pixel, "place inside the patch")
def remainders(y, x, image_size, p):
    return p * (y % p) + x % p


@wrong(patch_of_pixel, "not rounded")
def divided_without_rounding(y, x, image_size, p):
    return (y / p) * (image_size[1] // p) + x / p


@wrong(patch_of_pixel, "rounded to the nearest")
def rounded_quotients(y, x, image_size, p):
    return round(x / p) + round(y / p) * round(image_size[1] / p)


@wrong(patch_of_pixel, "type")
def row_and_column(y, x, image_size, p):
    return y // p, x // p


# overlapping_patches


@right(overlapping_patches)
def windows_in_loops(images, p, stride):
    height, width = images.shape[2:]
    return torch.stack(
        [
            images[:, :, top : top + p, left : left + p].flatten(1)
            for top in range(0, height - p + 1, stride)
            for left in range(0, width - p + 1, stride)
        ],
        dim=1,
    )


@right(overlapping_patches)
def windows_unfolded(images, patch_size, stride):
    return F.unfold(images, patch_size, stride=stride).transpose(1, 2)


@right(overlapping_patches)
def two_unfolds_and_a_pattern(images, p, stride):
    windows = images.unfold(2, p, stride).unfold(3, p, stride)
    return rearrange(windows, "b c h w p1 p2 -> b (h w) (c p1 p2)")


@right(overlapping_patches)
def gathered_by_index(images, p, stride):
    tops = torch.arange(0, images.shape[2] - p + 1, stride)
    lefts = torch.arange(0, images.shape[3] - p + 1, stride)
    y = tops[:, None, None, None] + torch.arange(p)[:, None]
    x = lefts[:, None, None] + torch.arange(p)
    return images[:, :, y, x].permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


@wrong(overlapping_patches, "stride ignored")
def side_by_side(images, p, stride):
    return F.unfold(images, p, stride=p).mT


@wrong(overlapping_patches, "every pixel")
def at_every_pixel(images, p, stride):
    return F.unfold(images, p).mT


@wrong(overlapping_patches, "last window missing")
def range_ends_too_soon(images, p, stride):
    height, width = images.shape[2:]
    return torch.stack(
        [
            images[:, :, top : top + p, left : left + p].flatten(1)
            for top in range(0, height - p, stride)
            for left in range(0, width - p, stride)
        ],
        dim=1,
    )


@wrong(overlapping_patches, "channel last")
def colours_last(images, p, stride):
    windows = windows_in_loops(images, p, stride)
    return rearrange(windows, "b n (c p) -> b n (p c)", c=images.shape[1])


@wrong(overlapping_patches, "columns first")
def left_outside_top(images, p, stride):
    height, width = images.shape[2:]
    return torch.stack(
        [
            images[:, :, top : top + p, left : left + p].flatten(1)
            for left in range(0, width - p + 1, stride)
            for top in range(0, height - p + 1, stride)
        ],
        dim=1,
    )


@wrong(overlapping_patches, "transposed patches")
def unfolded_width_first(images, p, stride):
    windows = images.unfold(3, p, stride).unfold(2, p, stride)
    return rearrange(windows, "b c h w p1 p2 -> b (h w) (c p1 p2)")


@wrong(overlapping_patches, "joined without turning")
def two_unfolds_and_a_view(images, p, stride):
    windows = images.unfold(2, p, stride).unfold(3, p, stride).contiguous()
    return windows.view(len(images), -1, images.shape[1] * p * p)


@wrong(overlapping_patches, "shape")
def padded_at_the_far_edge(images, p, stride):
    return windows_in_loops(F.pad(images, (0, stride, 0, stride)), p, stride)


@wrong(overlapping_patches, "crash")
def windows_of_other_sizes(images, p, stride):
    return torch.stack(
        [
            images[:, :, top : top + p, left : left + p].flatten(1)
            for top in range(0, images.shape[2], stride)
            for left in range(0, images.shape[3], stride)
        ],
        dim=1,
    )


@wrong(overlapping_patches, "other windows")
def counters_for_pixels(images, p, stride):
    rows, cols = ((side - p) // stride + 1 for side in images.shape[2:])
    windows = []
    for i in range(rows):
        for j in range(cols):
            windows.append(images[:, :, i : i + p, j : j + p].flatten(1))
    return torch.stack(windows, dim=1)


# is_patch_embedding


def _one_square_at_a_time(embed, rows, cols, b):
    images = torch.randn(b, 3, 4 * rows, 4 * cols)
    before = embed(images)
    for n in range(rows * cols):
        other = images.clone()
        top, left = n // cols * 4, n % cols * 4
        other[0, :, top : top + 4, left : left + 4] += torch.randn(3, 4, 4)
        moved = ((embed(other) - before).abs() > 1e-5).any(2).nonzero().tolist()
        if moved != [[0, n]]:
            return False
    return True


def _same_everywhere(embed, rows, cols):
    tokens = embed(torch.randn(1, 3, 4, 4).repeat(1, 1, rows, cols))
    return torch.allclose(tokens, tokens[:, :1].expand_as(tokens), atol=1e-5)


@right(is_patch_embedding)
def noise_in_one_square_and_one_square_everywhere(embed):
    return _one_square_at_a_time(embed, 2, 3, 2) and _same_everywhere(embed, 2, 3)


@right(is_patch_embedding)
def each_square_as_an_image(embed):
    images = torch.randn(3, 3, 8, 20)
    squares = rearrange(images, "b c (h p) (w q) -> (b h w) c p q", p=4, q=4)
    alone = torch.cat([embed(square[None]) for square in squares])
    return torch.allclose(embed(images).flatten(0, 1), alone[:, 0], atol=1e-5)


@right(is_patch_embedding)
def by_gradients(embed):
    images = torch.randn(2, 3, 12, 8, requires_grad=True)
    tokens = embed(images)
    for n in range(6):
        (grad,) = torch.autograd.grad(tokens[0, n].sum(), images, retain_graph=True)
        found = F.max_pool2d(grad.abs().sum(1), 4).flatten(1).nonzero().tolist()
        if found != [[0, n]]:
            return False
    return _same_everywhere(embed, 3, 2)


@wrong(is_patch_embedding, "too trusting")
def one_square_is_enough(embed):
    return _same_everywhere(embed, 2, 3)


@wrong(is_patch_embedding, "too trusting")
def places_are_not_compared(embed):
    return _one_square_at_a_time(embed, 2, 3, 2)


@wrong(is_patch_embedding, "always True")
def a_square_grid(embed):
    images = torch.randn(1, 3, 8, 8)
    return tuple(embed(images).shape) == (1, 4, 7)


@wrong(is_patch_embedding, "too trusting")
def one_image_only(embed):
    return _one_square_at_a_time(embed, 2, 3, 1) and _same_everywhere(embed, 2, 3)


@wrong(is_patch_embedding, "too trusting")
def only_the_first_square(embed):
    images = torch.randn(2, 3, 8, 12)
    other = images.clone()
    other[0, :, :4, :4] = 0
    moved = ((embed(other) - embed(images)).abs() > 1e-5).any(2)
    return moved.nonzero().tolist() == [[0, 0]] and _same_everywhere(embed, 2, 3)


@wrong(is_patch_embedding, "too strict")
def the_map_must_be_linear(embed):
    images = torch.randn(2, 3, 8, 12)
    zero = embed(torch.zeros_like(images))
    doubled = embed(2 * images) - zero
    linear = torch.allclose(doubled, 2 * (embed(images) - zero), atol=1e-4)
    return linear and noise_in_one_square_and_one_square_everywhere(embed)


@wrong(is_patch_embedding, "too strict")
def every_pixel_must_count(embed):
    images = torch.randn(1, 3, 8, 12, requires_grad=True)
    embed(images).square().sum().backward()
    seen = bool((images.grad.abs() > 1e-6).all())
    return seen and noise_in_one_square_and_one_square_everywhere(embed)


@wrong(is_patch_embedding, "always False")
def never(embed):
    return False


@wrong(is_patch_embedding, "type")
def says_nothing(embed):
    assert _same_everywhere(embed, 2, 3) or True


@wrong(is_patch_embedding, "crash")
def forgets_the_colours(embed):
    return bool(embed(torch.randn(1, 1, 8, 8)).any())


# kept_share


def _rebuilt(new, mean, directions):
    return mean + (new - mean) @ directions.T @ directions


def _by_covariance(patches, k):
    values, vectors = torch.linalg.eigh((patches - patches.mean(0)).mT.cov())
    return vectors[:, values.argsort(descending=True)[:k]].T


@right(kept_share)
def what_cannot_be_rebuilt(patches, new_patches, k):
    mean = patches.mean(dim=0)
    _, _, directions = torch.linalg.svd(patches - mean)
    gaps = new_patches - _rebuilt(new_patches, mean, directions[:k])
    return 1 - gaps.square().sum() / (new_patches - mean).square().sum()


@right(kept_share)
def eigenvectors_of_the_covariance(patches, new_patches, k):
    new = new_patches - patches.mean(dim=0)
    return ((new @ _by_covariance(patches, k).T) ** 2).sum() / (new**2).sum()


@right(kept_share)
def in_numpy_and_as_a_number(patches, new_patches, k):
    old, new = patches.double().numpy(), new_patches.double().numpy()
    mean = old.mean(axis=0)
    directions = np.linalg.svd(old - mean)[2][:k]
    kept = np.linalg.norm((new - mean) @ directions.T) ** 2
    return kept / np.linalg.norm(new - mean) ** 2


@right(kept_share)
def one_direction_after_the_other(patches, new_patches, k):
    old, new = (x - patches.mean(0) for x in (patches, new_patches))
    total, kept = new.square().sum(), new.new_zeros(())
    for place in range(k):
        direction = torch.linalg.svd(old).Vh[place].clone()
        kept += (new @ direction).square().sum()
    return kept / total


@wrong(kept_share, "measured where it was fitted")
def share_of_the_variances(patches, new_patches, k):
    sizes = torch.linalg.svd(patches - patches.mean(0)).S.square()
    return sizes[:k].sum() / sizes.sum()


@wrong(kept_share, "fitted on the new ones")
def new_patches_alone(patches, new_patches, k):
    return what_cannot_be_rebuilt(new_patches, new_patches, k)


@wrong(kept_share, "mean not subtracted")
def svd_as_it_comes(patches, new_patches, k):
    directions = torch.linalg.svd(patches).Vh[:k]
    return (new_patches @ directions.T).square().sum() / new_patches.square().sum()


@wrong(kept_share, "mean of the new ones")
def each_with_its_own_mean(patches, new_patches, k):
    new = new_patches - new_patches.mean(dim=0)
    return (new @ _by_covariance(patches, k).T).square().sum() / new.square().sum()


@wrong(kept_share, "smallest directions")
def eigh_in_its_own_order(patches, new_patches, k):
    vectors = torch.linalg.eigh((patches - patches.mean(0)).mT.cov()).eigenvectors
    new = new_patches - patches.mean(dim=0)
    return (new @ vectors[:, :k]).square().sum() / new.square().sum()


@wrong(kept_share, "first numbers")
def a_shorter_patch(patches, new_patches, k):
    new = new_patches - patches.mean(dim=0)
    return new[:, :k].square().sum() / new.square().sum()


@wrong(kept_share, "what is lost")
def gaps_alone(patches, new_patches, k):
    return 1 - what_cannot_be_rebuilt(patches, new_patches, k)


@wrong(kept_share, "lengths for squares")
def norms(patches, new_patches, k):
    new = new_patches - patches.mean(dim=0)
    return (new @ _by_covariance(patches, k).T).norm() / new.norm()


@wrong(kept_share, "new patches off the line")
def one_less_the_ratio_of_lengths(patches, new_patches, k):
    mean = patches.mean(dim=0)
    rebuilt = _rebuilt(new_patches, mean, _by_covariance(patches, k))
    return 1 - (new_patches - rebuilt).norm() / (new_patches - mean).norm()


@wrong(kept_share, "a line")
def rebuilt_without_the_mean(patches, new_patches, k):
    mean = patches.mean(dim=0)
    directions = _by_covariance(patches, k)
    rebuilt = new_patches @ directions.T @ directions
    left = (new_patches - rebuilt).square().sum()
    return 1 - left / (new_patches - mean).square().sum()


@wrong(kept_share, "crash")
def directions_of_the_wrong_side(patches, new_patches, k):
    directions = torch.linalg.svd(patches - patches.mean(0)).U[:, :k]
    new = new_patches - patches.mean(dim=0)
    return (new @ directions).square().sum() / new.square().sum()


@wrong(kept_share, "columns for rows")
def first_columns_of_vh(patches, new_patches, k):
    _, _, vh = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
    new = new_patches - patches.mean(0)
    return ((new @ vh[:, :k]) ** 2).sum() / (new**2).sum()
