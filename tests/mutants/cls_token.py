"""Answers to the tasks of chapter 02."""

import torch
from einops import repeat

from mutants.answers import right, wrong
from vitlib.checks.cls_token import pool_tokens, prepend_cls_token

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
