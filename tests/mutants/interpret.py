"""Answers to the exercises of chapter 13."""

import numpy as np
import torch
import torch.nn.functional as F

import vitlib.interpret
from mutants.answers import right, wrong
from vitlib.checks.interpret import (
    attention_entropy,
    deletion_area,
    rank_agreement,
    weighted_rollout,
)

# attention_entropy


@right(attention_entropy)
def clamped_logarithm(attention):
    bits = -(attention * attention.clamp(min=1e-30).log2()).sum(dim=-1)
    return bits.mean(dim=3).mean(dim=1)


@right(attention_entropy)
def in_loops(attention):
    depth, b, h, queries, _ = attention.shape
    result = torch.zeros(depth, h, dtype=torch.float64)
    for block in range(depth):
        for head in range(h):
            for row in attention[block, :, head].flatten(0, 1):
                row = row[row > 0].double()
                result[block, head] -= (row * row.log2()).sum()
    return (result / (b * queries)).to(attention.dtype)


@right(attention_entropy)
def by_a_distribution(attention):
    entropy = torch.special.entr(attention.double()).sum(-1)
    return (entropy / np.log(2)).mean((1, 3)).to(attention.dtype)


@right(attention_entropy)
def zeros_replaced(attention):
    logs = torch.where(attention > 0, attention, 1.0).log2()
    return -torch.einsum("dbhij,dbhij->dbhi", attention, logs).mean(dim=(1, 3))


@wrong(attention_entropy, "natural logarithm")
def in_nats(attention):
    return torch.special.entr(attention).sum(-1).mean((1, 3))


@wrong(attention_entropy, "log of 0")
def log_as_it_stands(attention):
    return -(attention * torch.log2(attention)).sum(4).mean((1, 3))


@wrong(attention_entropy, "summed, not averaged")
def everything_added(attention):
    return -(attention * attention.clamp(min=1e-30).log2()).sum(dim=(1, 3, 4))


@wrong(attention_entropy, "sign")
def minus_forgotten(attention):
    return -clamped_logarithm(attention)


@wrong(attention_entropy, "entropy of the mean")
def averaged_first(attention):
    mean = attention.mean(dim=(1, 3))
    return -(mean * mean.clamp(min=1e-30).log2()).sum(dim=-1)


@wrong(attention_entropy, "share of the most")
def divided_by_the_largest(attention):
    return clamped_logarithm(attention) / np.log2(attention.shape[-1]).item()


@wrong(attention_entropy, "all heads averaged")
def one_number_a_block(attention):
    return clamped_logarithm(attention).mean(dim=1)


@wrong(attention_entropy, "even attention")
def all_entries_averaged(attention):
    return -(attention * attention.clamp(min=1e-30).log2()).mean(dim=(1, 3, 4))


@wrong(attention_entropy, "shape")
def images_kept(attention):
    return -(attention * attention.clamp(min=1e-30).log2()).sum(-1).mean(-1)


@wrong(attention_entropy, "nearly")
def epsilon_too_large(attention):
    return -(attention * (attention + 1e-4).log2()).sum(-1).mean((1, 3))


# weighted_rollout


@right(weighted_rollout)
def one_block_after_the_other(attention, head_weights):
    depth, b, _, tokens, _ = attention.shape
    eye = torch.eye(tokens, dtype=attention.dtype)
    result = eye.repeat(b, 1, 1)
    for block in range(depth):
        share = head_weights[block] / head_weights[block].sum()
        mean = (attention[block] * share[:, None, None]).sum(dim=1)
        result = (mean + eye) / 2 @ result
    return result


@right(weighted_rollout)
def by_the_library(attention, head_weights):
    share = head_weights / head_weights.sum(1, keepdim=True)
    mean = torch.einsum("dbhij,dh->dbij", attention, share)
    rolled = vitlib.interpret.attention_rollout(mean.unsqueeze(2))
    return rolled.to(attention.dtype)


@right(weighted_rollout)
def one_product_from_the_left(attention, head_weights):
    share = F.normalize(head_weights, p=1, dim=1)
    tables = (attention * share[:, None, :, None, None]).sum(dim=2)
    tables = 0.5 * tables + 0.5 * torch.eye(tables.shape[-1], dtype=tables.dtype)
    result = tables[-1]
    for table in tables.flip(0)[1:]:
        result = torch.bmm(result, table)
    return result


def shares_of(head_weights):
    return head_weights / head_weights.sum(dim=1, keepdim=True)


def tables_of(attention, shares):
    return (attention * shares[:, None, :, None, None]).sum(dim=2)


def multiplied(tables):
    result = tables[0]
    for table in tables[1:]:
        result = table @ result
    return result


def halved(tables):
    return (tables + torch.eye(tables.shape[-1], dtype=tables.dtype)) / 2


@wrong(weighted_rollout, "no residual", "google-research/vision_transformer issue 18")
def attention_alone(attention, head_weights):
    return multiplied(tables_of(attention, shares_of(head_weights)))


@wrong(weighted_rollout, "blocks in the wrong order")
def first_block_leftmost(attention, head_weights):
    return multiplied(halved(tables_of(attention, shares_of(head_weights))).flip(0))


@wrong(weighted_rollout, "no residual, wrong order")
def both_at_once(attention, head_weights):
    return multiplied(tables_of(attention, shares_of(head_weights)).flip(0))


@wrong(weighted_rollout, "heads count equally")
def plain_rollout(attention, head_weights):
    return multiplied(halved(attention.mean(dim=2)))


@wrong(weighted_rollout, "weights not scaled")
def weights_as_they_come(attention, head_weights):
    return multiplied(halved(tables_of(attention, head_weights)))


@wrong(weighted_rollout, "weights not scaled")
def divided_after_the_mixture(attention, head_weights):
    tables = tables_of(attention, head_weights) + torch.eye(attention.shape[-1])
    return multiplied(tables / tables.sum(-1, keepdim=True))


@wrong(weighted_rollout, "scaled over the blocks")
def wrong_axis_of_the_weights(attention, head_weights):
    return multiplied(halved(tables_of(attention, head_weights / head_weights.sum(0))))


@wrong(weighted_rollout, "scaled over everything")
def one_sum_of_all_weights(attention, head_weights):
    return multiplied(halved(tables_of(attention, head_weights / head_weights.sum())))


@wrong(weighted_rollout, "residual added whole")
def identity_added(attention, head_weights):
    return multiplied(2 * halved(tables_of(attention, shares_of(head_weights))))


@wrong(weighted_rollout, "softmax of the weights")
def softmax_over_heads(attention, head_weights):
    return multiplied(halved(tables_of(attention, head_weights.softmax(dim=1))))


@wrong(weighted_rollout, "turned")
def columns_for_rows(attention, head_weights):
    return multiplied(halved(tables_of(attention, shares_of(head_weights)).mT))


@wrong(weighted_rollout, "rows do not sum to 1")
def mean_of_weighted_heads(attention, head_weights):
    weighted = attention * head_weights[:, None, :, None, None]
    return multiplied(halved(weighted.mean(dim=2)))


@wrong(weighted_rollout, "weights of the heads")
def weights_of_the_first_block(attention, head_weights):
    shares = shares_of(head_weights)[:1].expand_as(head_weights)
    return multiplied(halved(tables_of(attention, shares)))


@wrong(weighted_rollout, "what a token keeps")
def mean_over_the_blocks(attention, head_weights):
    return tables_of(attention, shares_of(head_weights)).mean(dim=0)


@wrong(weighted_rollout, "shape")
def class_row_alone(attention, head_weights):
    return one_block_after_the_other(attention, head_weights)[:, 0, 1:]


@wrong(weighted_rollout, "a block that does nothing")
def residual_of_the_product(attention, head_weights):
    eye = torch.eye(attention.shape[-1], dtype=attention.dtype)
    result = eye
    for block, weights in zip(attention, head_weights, strict=True):
        table = (block * (weights / weights.sum())[:, None, None]).sum(dim=1)
        result = (table @ result + eye) / 2
    return result


# rank_agreement


@right(rank_agreement)
def two_argsorts(a, b):
    ranks = [x.flatten(1).argsort(1).argsort(1).to(a.dtype) for x in (a, b)]
    x, y = (r - r.mean(dim=1, keepdim=True) for r in ranks)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()


@right(rank_agreement)
def smaller_ones_counted(a, b):
    found = []
    for x, y in zip(a.flatten(1), b.flatten(1), strict=True):
        ranks = [(v[:, None] > v).sum(dim=1) for v in (x, y)]
        found.append(torch.corrcoef(torch.stack(ranks).to(a.dtype))[0, 1])
    return torch.stack(found)


@right(rank_agreement)
def formula_of_squared_gaps(a, b):
    n = a[0].numel()
    x, y = (v.flatten(1).argsort(1).argsort(1).double() for v in (a, b))
    return (1 - 6 * (x - y).square().sum(1) / (n * (n * n - 1))).to(a.dtype)


def correlated(x, y):
    return torch.stack(
        [
            torch.corrcoef(torch.stack(pair).to(torch.float64))[0, 1]
            for pair in zip(x, y, strict=True)
        ]
    )


@wrong(rank_agreement, "numbers, not ranks")
def pearson(a, b):
    return correlated(a.flatten(1), b.flatten(1)).to(a.dtype)


@wrong(rank_agreement, "argsort is no rank")
def one_argsort(a, b):
    x, y = (v.flatten(1).argsort(dim=1) for v in (a, b))
    return correlated(x, y).to(a.dtype)


@wrong(rank_agreement, "both sorted")
def sorted_values(a, b):
    x, y = (v.flatten(1).sort(dim=1)[0] for v in (a, b))
    return correlated(x, y).to(a.dtype)


@wrong(rank_agreement, "images ranked together")
def one_list_for_the_batch(a, b):
    x, y = (v.flatten().argsort().argsort() for v in (a, b))
    return correlated(x[None], y[None]).to(a.dtype).repeat(len(a))


@wrong(rank_agreement, "row by row")
def ranks_of_the_last_axis(a, b):
    x, y = (v.argsort(-1).argsort(-1).flatten(1) for v in (a, b))
    rows, cols = a.shape[1:]
    x, y = (v.view(-1, rows, cols) for v in (x, y))
    means = [correlated(*pair).mean() for pair in zip(x, y, strict=True)]
    return torch.stack(means).to(a.dtype)


@wrong(rank_agreement, "sign lost")
def absolute_value(a, b):
    return two_argsorts(a, b).abs()


@wrong(rank_agreement, "means not subtracted")
def cosine_of_ranks(a, b):
    x, y = (F.normalize(v.flatten(1).argsort(1).argsort(1).float()) for v in (a, b))
    return (x * y).sum(dim=1).to(a.dtype)


@wrong(rank_agreement, "one number for all")
def averaged_over_images(a, b):
    return two_argsorts(a, b).mean()


@wrong(rank_agreement, "known agreement")
def covariance_of_ranks(a, b):
    x, y = (v.flatten(1).argsort(1).argsort(1).to(a.dtype) for v in (a, b))
    return ((x - x.mean(1, True)) * (y - y.mean(1, True))).mean(dim=1)


@wrong(rank_agreement, "known agreement")
def only_one_ranked(a, b):
    x = a.flatten(1).argsort(1).argsort(1)
    return correlated(x, b.flatten(1)).to(a.dtype)


# deletion_area


@right(deletion_area)
def middle_of_each_step(shares, curves):
    heights = curves / curves[:, :1]
    middles = (heights[:, 1:] + heights[:, :-1]) / 2
    return (middles * (shares[1:] - shares[:-1])).sum(dim=1)


@right(deletion_area)
def step_after_step(shares, curves):
    total = 0
    for k in range(1, len(shares)):
        width = shares[k] - shares[k - 1]
        total = total + width * (curves[:, k] + curves[:, k - 1]) / 2
    return total / curves[:, 0]


@right(deletion_area)
def as_a_matrix_product(shares, curves):
    widths = shares.diff()
    zero = widths.new_zeros(1)
    each = (torch.cat([widths, zero]) + torch.cat([zero, widths])) / 2
    return (curves / curves[:, [0]]) @ each


@wrong(deletion_area, "start not divided out")
def plain_trapezoid(shares, curves):
    return torch.trapezoid(curves, shares, dim=-1)


@wrong(deletion_area, "equal steps")
def steps_taken_as_equal(shares, curves):
    heights = curves / curves[:, :1]
    return ((heights[:, 1:] + heights[:, :-1]) / 2).mean(dim=1)


@wrong(deletion_area, "mean of the points")
def mean_of_what_is_left(shares, curves):
    return curves.mean(dim=1) / curves[:, 0]


@wrong(deletion_area, "left ends")
def before_each_step(shares, curves):
    return (curves[:, :-1] * shares.diff()).sum(dim=1) / curves[:, 0]


@wrong(deletion_area, "right ends")
def after_each_step(shares, curves):
    return (curves[:, 1:] * shares.diff()).sum(dim=1) / curves[:, 0]


@wrong(deletion_area, "one start for all")
def divided_by_the_mean_start(shares, curves):
    return torch.trapezoid(curves, shares, dim=-1) / curves[:, 0].mean()


@wrong(deletion_area, "start subtracted")
def lost_points(shares, curves):
    return 1 - torch.trapezoid(curves[:, :1] - curves, shares, dim=-1)


@wrong(deletion_area, "widths of one")
def no_widths(shares, curves):
    return torch.trapezoid(curves / curves[:, :1])


@wrong(deletion_area, "a straight curve")
def area_above_the_end(shares, curves):
    return torch.trapezoid(curves / curves[:, :1], shares) ** 2


@wrong(deletion_area, "a flat curve")
def area_that_was_lost(shares, curves):
    return 1 - torch.trapezoid(curves / curves[:, :1], shares)


@wrong(deletion_area, "shape")
def summed_over_images(shares, curves):
    return torch.trapezoid((curves / curves[:, :1]).mean(dim=0), shares)
