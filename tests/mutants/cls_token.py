"""Answers to the tasks of chapter 02."""

import math

import torch
import torch.nn.functional as F
from einops import repeat

from mutants.answers import right, wrong
from vitlib.checks.cls_token import (
    mean_patches,
    pool_tokens,
    prepend_cls_token,
    prepend_registers,
    token_shares,
    visible_mask,
)

# prepend_cls_token


@right(prepend_cls_token)
def expanded_and_joined(tokens, cls_token):
    return torch.cat((cls_token.expand(tokens.size(0), -1, -1), tokens), dim=1)


@right(prepend_cls_token)
def written_into_an_empty_tensor(tokens, cls_token):
    b, n, e = tokens.shape
    result = tokens.new_empty(b, n + 1, e)
    result[:, :1] = cls_token
    result[:, 1:] = tokens
    return result


@right(prepend_cls_token)
def image_by_image(tokens, cls_token):
    return torch.stack([torch.vstack([cls_token[0], image]) for image in tokens])


@right(prepend_cls_token)
def repeated_by_einops(tokens, cls_token):
    return torch.cat([repeat(cls_token, "1 1 e -> b 1 e", b=len(tokens)), tokens], 1)


@wrong(prepend_cls_token, "one image only")
def joined_without_copies(tokens, cls_token):
    return torch.cat([cls_token, tokens], dim=1)


@wrong(prepend_cls_token, "at the end")
def appended(tokens, cls_token):
    return torch.cat([tokens, cls_token.repeat(len(tokens), 1, 1)], dim=1)


@wrong(prepend_cls_token, "added")
def added_to_each(tokens, cls_token):
    return cls_token + tokens


@wrong(prepend_cls_token, "first patch replaced")
def overwrites_patch_0(tokens, cls_token):
    result = tokens.clone()
    result[:, 0] = cls_token[0, 0]
    return result


@wrong(prepend_cls_token, "zeros")
def a_row_of_zeros(tokens, cls_token):
    row = torch.zeros(len(tokens), 1, tokens.shape[2], dtype=tokens.dtype)
    return torch.cat([row, tokens], dim=1)


@wrong(prepend_cls_token, "joined as features")
def last_axis(tokens, cls_token):
    return torch.cat([cls_token.expand_as(tokens), tokens], dim=-1)


@wrong(prepend_cls_token, "joined as an image")
def first_axis(tokens, cls_token):
    return torch.cat([cls_token.repeat(1, tokens.shape[1], 1), tokens])


@wrong(prepend_cls_token, "no gradient")
def copied_as_data(tokens, cls_token):
    row = cls_token.detach().expand(len(tokens), -1, -1)
    return torch.cat([row, tokens], dim=1)


@wrong(prepend_cls_token, "random")
def a_new_vector_each_time(tokens, cls_token):
    row = torch.randn(1, 1, tokens.shape[2]).expand(len(tokens), -1, -1)
    return torch.cat([row.to(tokens.dtype), tokens], dim=1)


@wrong(prepend_cls_token, "not every image")
def first_image_only(tokens, cls_token):
    rows = torch.zeros_like(tokens[:, :1])
    rows[0] = cls_token[0]
    return torch.cat([rows, tokens], dim=1)


# pool_tokens


@right(pool_tokens)
def three_ifs(tokens, pool):
    if pool == "cls":
        return tokens[:, 0]
    if pool == "mean":
        return tokens[:, 1:].mean(dim=1)
    return tokens.mean(dim=1)


@right(pool_tokens)
def sums_and_counts(tokens, how):
    b, t, e = tokens.shape
    picked = {"cls": [0], "mean": range(1, t), "mean_all": range(t)}[how]
    total = torch.zeros(b, e, dtype=tokens.dtype)
    for i in picked:
        total = total + tokens[:, i]
    return total / len(picked)


@right(pool_tokens)
def weights_over_tokens(tokens, pool):
    t = tokens.shape[1]
    weights = torch.zeros(t, dtype=tokens.dtype)
    weights[{"cls": slice(0, 1), "mean": slice(1, t), "mean_all": slice(t)}[pool]] = 1
    return torch.einsum("t,bte->be", weights / weights.sum(), tokens)


@wrong(pool_tokens, "mean includes the class token", "lucidrains/vit-pytorch issue 226")
def one_mean_for_both(tokens, pool):
    return tokens[:, 0] if pool == "cls" else tokens.mean(dim=1)


@wrong(pool_tokens, "reads token 1", "lucidrains/vit-pytorch issue 18")
def token_one(tokens, pool):
    return tokens[:, 1] if pool == "cls" else three_ifs(tokens, pool)


@wrong(pool_tokens, "reads the last token")
def token_minus_one(tokens, pool):
    return tokens[:, -1] if pool == "cls" else three_ifs(tokens, pool)


@wrong(pool_tokens, "reads image 0")
def first_image(tokens, pool):
    return tokens[0] if pool == "cls" else three_ifs(tokens, pool)


@wrong(pool_tokens, "means swapped")
def the_two_means_swapped(tokens, pool):
    other = {"cls": "cls", "mean": "mean_all", "mean_all": "mean"}
    return three_ifs(tokens, other[pool])


@wrong(pool_tokens, "sum, not mean")
def added_up(tokens, pool):
    if pool == "cls":
        return tokens[:, 0]
    return (tokens[:, 1:] if pool == "mean" else tokens).sum(dim=1)


@wrong(pool_tokens, "divided by one too many")
def class_token_set_to_zero(tokens, pool):
    if pool != "mean":
        return three_ifs(tokens, pool)
    silent = tokens.clone()
    silent[:, 0] = 0
    return silent.mean(dim=1)


@wrong(pool_tokens, "mean over features")
def last_axis_averaged(tokens, pool):
    if pool == "cls":
        return tokens[:, 0]
    return (tokens[:, 1:] if pool == "mean" else tokens).mean(dim=-1)


@wrong(pool_tokens, "pool ignored")
def always_the_class_token(tokens, pool):
    return tokens[:, 0, :]


@wrong(pool_tokens, "axis kept")
def slices_keep_the_axis(tokens, pool):
    if pool == "cls":
        return tokens[:, :1]
    return (tokens[:, 1:] if pool == "mean" else tokens).mean(1, keepdim=True)


@wrong(pool_tokens, "other tokens")
def last_patch_left_out(tokens, pool):
    return tokens[:, 1:-1].mean(dim=1) if pool == "mean" else three_ifs(tokens, pool)


@wrong(pool_tokens, "no mean")
def largest_of_the_patches(tokens, pool):
    return tokens[:, 1:].amax(dim=1) if pool == "mean" else three_ifs(tokens, pool)


@wrong(pool_tokens, "in place")
def class_token_overwritten(tokens, pool):
    if pool == "mean":
        result = tokens[:, 1:].mean(dim=1)
        tokens[:, 0] = result
        return result
    return three_ifs(tokens, pool).clone()


@wrong(pool_tokens, "batch mixed")
def mean_over_the_batch_too(tokens, pool):
    if pool == "mean_all":
        return tokens.mean(dim=(0, 1)).expand(len(tokens), -1)
    return three_ifs(tokens, pool)


# prepend_registers


@right(prepend_registers)
def one_cat(tokens, cls_token, registers):
    front = torch.cat([cls_token, registers], 1).expand(len(tokens), -1, -1)
    return torch.cat([front, tokens], 1)


@right(prepend_registers)
def three_parts_for_each_image(tokens, cls_token, registers):
    rows = [torch.cat([cls_token[0], registers[0], image]) for image in tokens]
    return torch.stack(rows)


@right(prepend_registers)
def filled_in(tokens, cls_token, registers):
    b, n, e = tokens.shape
    r = registers.shape[1]
    result = tokens.new_empty(b, 1 + r + n, e)
    result[:, :1], result[:, 1 : 1 + r], result[:, 1 + r :] = (
        cls_token,
        registers,
        tokens,
    )
    return result


@wrong(prepend_registers, "one image only")
def cat_of_three(tokens, cls_token, registers):
    return torch.cat((cls_token, registers, tokens), 1)


@wrong(prepend_registers, "one image only")
def registers_not_expanded(tokens, cls_token, registers):
    front = cls_token.repeat(len(tokens), 1, 1)
    return torch.cat((front, registers, tokens), 1)


@wrong(prepend_registers, "registers first")
def prepended_after_the_class_token(tokens, cls_token, registers):
    b = len(tokens)
    tokens = torch.cat([cls_token.repeat(b, 1, 1), tokens], 1)
    return torch.cat([registers.repeat(b, 1, 1), tokens], 1)


@wrong(prepend_registers, "registers last")
def registers_appended(tokens, cls_token, registers):
    b = len(tokens)
    return torch.cat([cls_token.repeat(b, 1, 1), tokens, registers.repeat(b, 1, 1)], 1)


@wrong(prepend_registers, "patches first")
def all_appended(tokens, cls_token, registers):
    behind = torch.cat([cls_token, registers], 1).repeat(len(tokens), 1, 1)
    return torch.cat([tokens, behind], 1)


@wrong(prepend_registers, "no class token")
def class_token_not_used(tokens, cls_token, registers):
    return torch.cat([registers.expand(len(tokens), -1, -1), tokens], 1)


@wrong(prepend_registers, "no registers")
def registers_not_used(tokens, cls_token, registers):
    return torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], 1)


@wrong(prepend_registers, "patches replaced")
def written_over_patches(tokens, cls_token, registers):
    tokens = tokens.clone()
    tokens[:, : registers.shape[1]] = registers
    return torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], 1)


@wrong(prepend_registers, "not every image")
def zeros_for_the_other_images(tokens, cls_token, registers):
    front = tokens.new_zeros(len(tokens), 1 + registers.shape[1], tokens.shape[2])
    front[0] = torch.cat([cls_token, registers], 1)[0]
    return torch.cat([front, tokens], 1)


@wrong(prepend_registers, "wrong rows")
def the_same_register_again(tokens, cls_token, registers):
    registers = registers[:, :1].expand_as(registers)
    return one_cat(tokens, cls_token, registers)


# mean_patches


@right(mean_patches)
def sliced(tokens, num_prefix):
    return tokens[:, num_prefix:].mean(1)


@right(mean_patches)
def all_less_those_in_front(tokens, num_prefix):
    total = tokens.sum(1) - tokens[:, :num_prefix].sum(1)
    return total / (tokens.shape[1] - num_prefix)


@right(mean_patches)
def weighed(tokens, num_prefix):
    weights = (torch.arange(tokens.shape[1]) >= num_prefix).to(tokens.dtype)
    return torch.einsum("bte,t->be", tokens, weights / weights.sum())


@wrong(mean_patches, "mean of all", "lucidrains/vit-pytorch issue 226")
def mean_of_everything(tokens, num_prefix):
    return tokens.mean(dim=1)


@wrong(mean_patches, "class token dropped only")
def from_token_1_on(tokens, num_prefix):
    return tokens[:, 1:, :].mean(1)


@wrong(mean_patches, "cut from the end")
def without_the_last_ones(tokens, num_prefix):
    return tokens[:, : tokens.shape[1] - num_prefix].mean(dim=-2)


@wrong(mean_patches, "cut from the end")
def up_to_minus_prefix(tokens, num_prefix):
    return tokens[:, :-num_prefix, :].mean(dim=-2)


@wrong(mean_patches, "divided by all")
def divided_by_t(tokens, num_prefix):
    return tokens[:, num_prefix:].sum(1) / tokens.size(1)


@wrong(mean_patches, "sum, not mean")
def summed(tokens, num_prefix):
    return tokens[:, num_prefix:].sum(1)


@wrong(mean_patches, "mean over features")
def averaged_features(tokens, num_prefix):
    return tokens[:, num_prefix:].mean(-1)


@wrong(mean_patches, "off by one")
def one_patch_lost(tokens, num_prefix):
    return tokens[:, 1 + num_prefix :].mean(1)


@wrong(mean_patches, "other shares")
def zeroed_and_averaged(tokens, num_prefix):
    tokens = tokens.clone()
    tokens[:, 1:num_prefix] = 0
    return tokens.mean(1)


@wrong(mean_patches, "shape")
def axis_kept(tokens, num_prefix):
    return tokens[:, num_prefix:].mean(1, keepdim=True)


# visible_mask


@right(visible_mask)
def padded(visible):
    return F.pad(visible, (1, 0), value=True)[:, None, None, :]


@right(visible_mask)
def written_into_ones(visible):
    mask = torch.ones(len(visible), 1, 1, 1 + visible.shape[1], dtype=torch.bool)
    mask[:, 0, 0, 1:] = visible
    return mask


@right(visible_mask)
def in_two_loops(visible):
    rows = [[[[True, *image.tolist()]]] for image in visible]
    return torch.tensor(rows)


@wrong(visible_mask, "class token shut")
def padded_with_false(visible):
    return F.pad(visible, (1, 0))[:, None, None]


@wrong(visible_mask, "inverted")
def hidden_is_true(visible):
    return F.pad(~visible, (1, 0), value=True)[:, None, None]


@wrong(visible_mask, "class token last")
def padded_behind(visible):
    return F.pad(visible, (0, 1), value=True)[:, None, None]


@wrong(visible_mask, "class token forgotten")
def only_unsqueezed(visible):
    return visible[:, None, None, :]


@wrong(visible_mask, "rows, not columns")
def queries_shut(visible):
    return F.pad(visible, (1, 0), value=True)[:, None, :, None]


@wrong(visible_mask, "axes in front")
def two_axes(visible):
    return F.pad(visible, (1, 0), value=True)


@wrong(visible_mask, "numbers for a mask")
def minus_infinity_added(visible):
    mask = torch.zeros(len(visible), 1, 1, 1 + visible.shape[1])
    return mask.masked_fill(~padded(visible), -math.inf)


@wrong(visible_mask, "one mask for all")
def first_image_for_all(visible):
    return padded(visible[:1].repeat(len(visible), 1))


@wrong(visible_mask, "shape")
def pairs(visible):
    seen = F.pad(visible, (1, 0), value=True)
    return (seen[:, :, None] & seen[:, None])[:, None]


@wrong(visible_mask, "wrong columns")
def class_token_as_visible_as_the_first_patch(visible):
    return torch.cat([visible[:, :1], visible], 1)[:, None, None]


@wrong(visible_mask, "wrong columns")
def first_patch_always_open(visible):
    mask = padded(visible)
    mask[..., 1] = True
    return mask


# token_shares


@right(token_shares)
def by_a_gradient(readout, num_tokens, embed_dim):
    tokens = torch.randn(2, num_tokens, embed_dim, requires_grad=True)
    (grad,) = torch.autograd.grad(readout(tokens).sum(), tokens)
    sizes = grad.abs().sum(dim=(0, 2))
    return sizes / sizes.sum()


@right(token_shares)
def by_a_jacobian(readout, num_tokens, embed_dim):
    tokens = torch.randn(1, num_tokens, embed_dim)
    jacobian = torch.func.jacrev(readout)(tokens)[0, :, 0]
    return F.normalize(jacobian.abs().sum((0, 2)), p=1, dim=0)


@right(token_shares)
def by_moving_one_token(readout, num_tokens, embed_dim):
    tokens = torch.zeros(1, num_tokens, embed_dim)
    moved = [tokens.clone() for _ in range(num_tokens)]
    for place, other in enumerate(moved):
        other[:, place] = 1
    sizes = torch.stack([(readout(x) - readout(tokens)).abs().sum() for x in moved])
    return sizes / sizes.sum()


@wrong(token_shares, "not shares")
def sizes_of_gradients(readout, num_tokens, embed_dim):
    tokens = torch.randn(1, num_tokens, embed_dim, requires_grad=True)
    readout(tokens).sum().backward()
    return tokens.grad[0].abs().sum(1)


@wrong(token_shares, "signs kept")
def gradients_with_signs(readout, num_tokens, embed_dim):
    tokens = torch.randn(1, num_tokens, embed_dim, requires_grad=True)
    readout(tokens).sum().backward()
    return tokens.grad[0].sum(1) / tokens.grad.sum()


@wrong(token_shares, "shares of features")
def wrong_axis(readout, num_tokens, embed_dim):
    tokens = torch.randn(1, num_tokens, embed_dim, requires_grad=True)
    readout(tokens).sum().backward()
    return tokens.grad[0].abs().sum(0) / tokens.grad.abs().sum()


@wrong(token_shares, "squared")
def energies(readout, num_tokens, embed_dim):
    tokens = torch.randn(1, num_tokens, embed_dim, requires_grad=True)
    readout(tokens).sum().backward()
    return tokens.grad[0].square().sum(1) / tokens.grad.square().sum()


@wrong(token_shares, "equal shares")
def always_equal(readout, num_tokens, embed_dim):
    return torch.full((num_tokens,), 1 / num_tokens)


@wrong(token_shares, "one token too few")
def patches_only(readout, num_tokens, embed_dim):
    return by_a_gradient(readout, num_tokens, embed_dim)[1:]


@wrong(token_shares, "other shares")
def softened(readout, num_tokens, embed_dim):
    shares = by_a_gradient(readout, num_tokens, embed_dim) + 0.1
    return shares / shares.sum()


@wrong(token_shares, "negative share")
def divided_by_sizes(readout, num_tokens, embed_dim):
    tokens = torch.randn(1, num_tokens, embed_dim, requires_grad=True)
    readout(tokens).sum().backward()
    first = tokens.grad[0, :, 0]
    return first / first.abs().sum()


@wrong(token_shares, "crash")
def no_gradient_asked_for(readout, num_tokens, embed_dim):
    tokens = torch.randn(1, num_tokens, embed_dim)
    readout(tokens).sum().backward()
    return tokens.grad
