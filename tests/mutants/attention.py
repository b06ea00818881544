"""Answers to the tasks of chapter 04."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from mutants.answers import right, wrong
from vitlib.checks.attention import (
    SelfAttention,
    attend,
    attention_weights,
    is_causal,
    join_halves,
    key_effects,
    keys_heard,
    masked_softmax,
    padded_weights,
)

# attention_weights


@right(attention_weights)
def einsum_and_softmax(q, k, mask=None):
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


@right(attention_weights)
def exponentials_by_hand(q, k, mask=None):
    scores = (q / q.shape[-1] ** 0.5) @ k.transpose(-2, -1)
    scores = scores - scores.amax(dim=-1, keepdim=True)
    weights = scores.exp()
    if mask is not None:
        weights = weights * mask
    return weights / weights.sum(dim=-1, keepdim=True)


@right(attention_weights)
def read_off_the_fused_kernel(q, k, mask=None):
    j = k.shape[-2]
    values = torch.eye(j, dtype=q.dtype).expand(*k.shape[:-2], j, j)
    return F.scaled_dot_product_attention(q, k, values, attn_mask=mask)


@right(attention_weights)
def softmax_in_double(q, k, mask=None):
    scores = q.double() @ k.double().mT / math.sqrt(q.size(-1))
    if mask is not None:
        scores = torch.where(mask, scores, -1e30)
    return F.softmax(scores, dim=-1).to(q.dtype)


@right(attention_weights)
def head_by_head(q, k, mask=None):
    b, h, i, d = q.shape
    mask = None if mask is None else mask.expand(b, h, i, k.shape[2])
    rows = []
    for x in range(b):
        for y in range(h):
            scores = q[x, y] @ k[x, y].T / d**0.5
            if mask is not None:
                scores[~mask[x, y]] = -math.inf
            rows.append(scores.softmax(dim=1))
    return torch.stack(rows).unflatten(0, (b, h))


def masked(scores, mask, d=1):
    """Divide by √d, and shut keys out."""
    scores = scores / d**0.5
    return scores if mask is None else scores.masked_fill(~mask, -math.inf)


@wrong(attention_weights, "divided late")
def softmax_then_divide(q, k, mask=None):
    return masked(q @ k.mT, mask).softmax(dim=-1) / math.sqrt(q.shape[-1])


@wrong(attention_weights, "divided late", "FrancescoSaverioZuppichini/ViT issue 2")
def softmax_then_divide_by_the_root_of_768(q, k, mask=None):
    return masked(torch.einsum("bhid,bhjd->bhij", q, k), mask).softmax(-1) / 768**0.5


@wrong(attention_weights, "not divided")
def scale_forgotten(q, k, mask=None):
    return masked(q @ k.mT, mask).softmax(dim=-1)


@wrong(attention_weights, "divided by d")
def root_forgotten(q, k, mask=None):
    return masked(q @ k.mT / q.shape[-1], mask).softmax(dim=-1)


@wrong(attention_weights, "multiplied")
def times_the_root(q, k, mask=None):
    return masked(q @ k.mT * q.shape[-1] ** 0.5, mask).softmax(dim=-1)


@wrong(attention_weights, "wrong scale")
def both_scaled(q, k, mask=None):
    scale = q.shape[-1] ** -0.5
    return masked((q * scale) @ (k * scale).mT * 2, mask).softmax(dim=-1)


@wrong(attention_weights, "softmax over the queries")
def softmax_over_minus_two(q, k, mask=None):
    return masked(q @ k.mT / q.shape[-1] ** 0.5, mask).softmax(dim=-2)


@wrong(attention_weights, "softmax over the heads")
def softmax_over_one(q, k, mask=None):
    return masked(q @ k.mT / q.shape[-1] ** 0.5, mask).softmax(dim=1)


@wrong(attention_weights, "no softmax")
def scores_only(q, k, mask=None):
    return masked(q @ k.mT / q.shape[-1] ** 0.5, mask)


@wrong(attention_weights, "mask ignored")
def masked_fill_thrown_away(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


@wrong(attention_weights, "masked late")
def weights_times_mask(q, k, mask=None):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return weights if mask is None else weights * mask


@wrong(attention_weights, "mask inverted")
def true_shuts_out(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(mask, float("-inf"))
    return scores.softmax(dim=-1)


@wrong(attention_weights, "score 0 where masked")
def scores_times_mask(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores * mask
    return scores.softmax(dim=-1)


@wrong(attention_weights, "crash")
def a_method_that_does_not_exist(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores.mask_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1)


@wrong(attention_weights, "queries and keys swapped")
def the_other_way_round(q, k, mask=None):
    weights = (k @ q.mT / q.shape[-1] ** 0.5).softmax(dim=-1).mT
    return weights if mask is None else weights * mask


@wrong(attention_weights, "nan")
def a_score_of_nan(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (scores / scores.sign().add(1)).mul(0).softmax(dim=-1)


@wrong(attention_weights, "in place")
def queries_scaled_in_place(q, k, mask=None):
    q *= q.shape[-1] ** -0.5
    return masked(q @ k.mT, mask).softmax(dim=-1)


@wrong(attention_weights, "masked keys have weight")
def a_penalty_that_is_too_small(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores - 4.0 * ~mask
    return scores.softmax(dim=-1)


@wrong(attention_weights, "lengths do not count")
def cosines_of_queries_and_keys(q, k, mask=None):
    return masked(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT, mask).softmax(-1)


@wrong(attention_weights, "rows do not sum to 1")
def sigmoid_for_softmax(q, k, mask=None):
    return masked(q @ k.mT / q.shape[-1] ** 0.5, mask).sigmoid()


@wrong(attention_weights, "open keys have no weight")
def two_best_keys_only(q, k, mask=None):
    scores = masked(q @ k.mT / q.shape[-1] ** 0.5, mask)
    second = scores.topk(2, dim=-1).values[..., 1:]
    return scores.masked_fill(scores < second, -math.inf).softmax(dim=-1)


# masked_softmax


@right(masked_softmax)
def filled_with_minus_infinity(scores, mask):
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1)


@right(masked_softmax)
def where_and_subtract(scores, mask):
    scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


@right(masked_softmax)
def added_logarithm_of_the_mask(scores, mask):
    return F.softmax(scores + mask.to(scores.dtype).log(), dim=-1)


@right(masked_softmax)
def renormalised_afterwards(scores, mask):
    weights = torch.where(mask, scores.double(), -math.inf).softmax(-1) * mask
    return (weights / weights.sum(-1, keepdim=True)).to(scores.dtype)


@wrong(masked_softmax, "mask ignored")
def result_thrown_away(scores, mask):
    scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


@wrong(masked_softmax, "masked late")
def zeroed_after(scores, mask):
    return scores.softmax(dim=-1).masked_fill(~mask, 0.0)


@wrong(masked_softmax, "mask inverted")
def turned_round(scores, mask):
    return scores.masked_fill(mask, -1e9).softmax(dim=-1)


@wrong(masked_softmax, "score 0 where masked")
def filled_with_zero(scores, mask):
    return torch.where(mask, scores, 0.0).softmax(dim=-1)


@wrong(masked_softmax, "softmax over the queries")
def the_wrong_axis(scores, mask):
    return scores.masked_fill(~mask, -math.inf).softmax(dim=2)


@wrong(masked_softmax, "mask added")
def plus_mask(scores, mask):
    return (scores + mask).softmax(dim=-1)


@wrong(masked_softmax, "overflows")
def naive_exponentials(scores, mask):
    weights = torch.exp(scores) * mask
    return weights / weights.sum(dim=-1, keepdim=True)


@wrong(masked_softmax, "in place")
def filled_in_place(scores, mask):
    scores[~mask.expand_as(scores)] = -math.inf
    return scores.softmax(dim=-1)


@wrong(masked_softmax, "crash")
def tensor_of_another_shape(scores, mask):
    return scores[mask].reshape(len(scores), -1, scores.shape[-1]).softmax(-1)


# attend


@right(attend)
def weights_then_values(q, k, v, mask=None):
    return torch.einsum("bhij,bhjd->bhid", einsum_and_softmax(q, k, mask), v)


@right(attend)
def fused_kernel(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, mask)


@right(attend)
def divided_by_the_sum_at_the_end(q, k, v, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    if mask is not None:
        weights = weights * mask
    return (weights @ v) / weights.sum(-1, keepdim=True)


@right(attend)
def query_by_query(q, k, v, mask=None):
    rows = []
    for i in range(q.shape[-2]):
        scores = (k * q[..., i : i + 1, :]).sum(-1) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[..., i, :], -math.inf)
        rows.append((scores.softmax(-1)[..., None] * v).sum(-2))
    return torch.stack(rows, dim=-2)


@wrong(attend, "divided late")
def division_behind_the_softmax(q, k, v, mask=None):
    return (masked(q @ k.mT, mask).softmax(-1) / q.shape[-1] ** 0.5) @ v


@wrong(attend, "divided late", "FrancescoSaverioZuppichini/ViT issue 5")
def division_by_the_root_of_768(q, k, v, mask=None):
    return (masked(q @ k.mT, mask).softmax(-1) / 768**0.5) @ v


@wrong(attend, "not divided")
def no_scale(q, k, v, mask=None):
    return masked(q @ k.mT, mask).softmax(-1) @ v


@wrong(attend, "wrong scale", "FrancescoSaverioZuppichini/ViT issue 1")
def scale_of_the_whole_token(q, k, v, mask=None):
    return masked(q @ k.mT / 768**0.5, mask).softmax(-1) @ v


@wrong(attend, "softmax over the queries")
def softmax_axis_minus_two(q, k, v, mask=None):
    return masked(q @ k.mT / q.shape[-1] ** 0.5, mask).softmax(-2) @ v


@wrong(attend, "values mixed wrongly")
def transposed_weights(q, k, v, mask=None):
    return einsum_and_softmax(q, k, mask).transpose(-2, -1) @ v


@wrong(attend, "plain mean")
def mean_of_values(q, k, v, mask=None):
    return v.mean(dim=-2, keepdim=True).repeat(1, 1, q.shape[-2], 1)


@wrong(attend, "best value only")
def argmax_of_scores(q, k, v, mask=None):
    best = masked(q @ k.mT, mask).argmax(dim=-1)
    return F.one_hot(best, k.shape[-2]).to(v.dtype) @ v


@wrong(attend, "keys for values")
def keys_mixed(q, k, v, mask=None):
    return einsum_and_softmax(q, k, mask) @ k


@wrong(attend, "mask ignored")
def mask_never_used(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v)


@wrong(attend, "mask inverted")
def mask_of_the_other_convention(q, k, v, mask=None):
    mask = None if mask is None else ~mask
    return F.scaled_dot_product_attention(q, k, v, mask)


@wrong(attend, "masked late")
def mask_on_weights(q, k, v, mask=None):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (weights if mask is None else weights * mask) @ v


@wrong(attend, "type")
def result_and_weights(q, k, v, mask=None):
    weights = einsum_and_softmax(q, k, mask)
    return weights @ v, weights


@wrong(attend, "weights only")
def values_forgotten(q, k, v, mask=None):
    return einsum_and_softmax(q, k, mask)


@wrong(attend, "gradient")
def weights_cut_off(q, k, v, mask=None):
    weights = einsum_and_softmax(q, k, mask)
    return weights.detach() @ v + 0 * (q.sum() + k.sum())


@wrong(attend, "nearly")
def computed_in_half_precision(q, k, v, mask=None):
    return weights_then_values(q.half(), k.half(), v.half(), mask).to(q.dtype)


@wrong(attend, "ignored")
def keys_not_used(q, k, v, mask=None):
    if q.shape == k.shape:
        return weights_then_values(q, q, v, mask)
    return weights_then_values(q, v[..., :1].expand_as(k), v, mask)


# SelfAttention


class Base(nn.Module):
    """What most answers share."""

    def __init__(self, embed_dim):
        super().__init__()
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)


@right(SelfAttention)
class As_in_the_chapter(Base):
    def forward(self, tokens, mask=None):
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        scores = masked(q @ k.mT / q.shape[-1] ** 0.5, mask)
        return self.proj(scores.softmax(-1) @ v)


@right(SelfAttention)
class With_the_fused_kernel(Base):
    def forward(self, tokens, mask=None):
        b, n, e = tokens.shape
        q, k, v = self.qkv(tokens).reshape(b, n, 3, e).unbind(dim=2)
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask))


@right(SelfAttention)
class Three_products(Base):
    def __init__(self, embed_dim, drop=0.1):
        super().__init__(embed_dim)
        self.drop = nn.Dropout(drop)

    def forward(self, tokens, mask=None):
        parts = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        q, k, v = (tokens @ weight.T + bias for weight, bias in parts)
        scores = masked(torch.einsum("bid,bjd->bij", q, k), mask, q.shape[-1])
        return self.proj(self.drop(scores.softmax(-1)) @ v)


@wrong(SelfAttention, "divided late")
class Division_behind_the_softmax(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(masked(q @ k.mT, mask).softmax(-1) / q.shape[-1] ** 0.5 @ v)


@wrong(SelfAttention, "not divided")
class Scale_forgotten(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(masked(q @ k.mT, mask).softmax(-1) @ v)


@wrong(SelfAttention, "q, k and v swapped")
class Keys_first(Base):
    def forward(self, x, mask=None):
        k, q, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask))


@wrong(SelfAttention, "q, k and v woven")
class Axes_read_the_other_way(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).reshape(*x.shape, 3).unbind(dim=-1)
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask))


@wrong(SelfAttention, "no projection")
class Projection_forgotten(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(q, k, v, mask)


@wrong(SelfAttention, "softmax over the queries")
class Softmax_over_axis_1(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(masked(q @ k.mT, mask, q.shape[-1]).softmax(dim=1) @ v)


@wrong(SelfAttention, "residual inside")
class Adds_the_tokens(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return x + self.proj(F.scaled_dot_product_attention(q, k, v, mask))


@wrong(SelfAttention, "mask ignored")
class Mask_not_used(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(F.scaled_dot_product_attention(q, k, v))


@wrong(SelfAttention, "batch mixed")
class Images_attend_to_images(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).transpose(0, 1).chunk(3, dim=-1)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(0, 1))


@wrong(SelfAttention, "place matters")
class Looks_back_only(Base):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        causal = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        mask = causal if mask is None else causal & mask
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask))


@wrong(SelfAttention, "names")
class Three_layers(nn.Module):
    def __init__(self, embed_dim):
        super().__init__()
        self.q, self.k, self.v, self.proj = (
            nn.Linear(embed_dim, embed_dim) for _ in range(4)
        )


# keys_heard


@right(keys_heard)
def exp_of_entropy(weights):
    return torch.exp(torch.special.entr(weights).sum(-1))


@right(keys_heard)
def xlogy_in_bits(weights):
    entropy = -torch.special.xlogy(weights, weights).sum(-1) / math.log(2)
    return 2**entropy


@right(keys_heard)
def clamped_before_the_logarithm(weights):
    logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
    return (-(weights * logs).sum(dim=-1)).exp()


@wrong(keys_heard, "entropy")
def entropy_itself(weights):
    logs = weights.clamp(min=1e-30).log()
    return -(weights * logs).sum(dim=-1)


@wrong(keys_heard, "over the queries")
def over_axis_2(weights):
    return torch.exp(torch.special.entr(weights).sum(2))


@wrong(keys_heard, "sign lost")
def no_minus(weights):
    return torch.special.xlogy(weights, weights).sum(-1).exp()


@wrong(keys_heard, "two bases")
def bits_and_e(weights):
    bits = -(weights * weights.clamp(min=1e-30).log2()).sum(-1)
    return bits.exp()


@wrong(keys_heard, "NaN at 0")
def plain_logarithm(weights):
    return torch.exp(-torch.sum(weights * torch.log(weights), dim=-1))


@wrong(keys_heard, "one over the squares")
def participation_ratio(weights):
    return (weights**2).sum(-1).reciprocal()


@wrong(keys_heard, "share of all keys")
def divided_by_the_keys(weights):
    return torch.special.entr(weights).sum(-1).exp() / weights.size(-1)


@wrong(keys_heard, "keys that are open")
def not_zero(weights):
    return weights.count_nonzero(dim=-1).to(weights.dtype)


@wrong(keys_heard, "one number for all")
def mean_over_all(weights):
    return torch.special.entr(weights).sum(-1).exp().mean()


@wrong(keys_heard, "equal weights")
def keys_besides_the_first(weights):
    return torch.special.entr(weights).sum(-1).exp() - 1


@wrong(keys_heard, "other count")
def one_over_the_largest(weights):
    return 1 / weights.amax(-1)


# padded_weights


@right(padded_weights)
def filled_and_softmaxed(q, k, hidden):
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    return scores.masked_fill(hidden[:, None, None, :], -math.inf).softmax(-1)


@right(padded_weights)
def sdpa_with_unit_values(q, k, hidden):
    keys = k.shape[-2]
    v = torch.eye(keys, dtype=k.dtype).expand(*k.shape[:-1], keys)
    mask = ~hidden[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@right(padded_weights)
def image_by_image_without_the_hidden(q, k, hidden):
    result = []
    for image in range(len(q)):
        seen = ~hidden[image]
        scores = q[image] @ k[image][:, seen].mT / q.shape[-1] ** 0.5
        weights = scores.new_zeros(*scores.shape[:-1], k.shape[-2])
        weights[..., seen] = scores.softmax(-1)
        result.append(weights)
    return torch.stack(result)


@wrong(padded_weights, "divided late", "FrancescoSaverioZuppichini/ViT issue 2")
def scaled_after_the_softmax(q, k, hidden):
    scores = q @ k.mT
    scores = scores.masked_fill(hidden[:, None, None], -math.inf)
    return scores.softmax(-1) / math.sqrt(q.shape[-1])


@wrong(padded_weights, "crash")
def no_such_method(q, k, hidden):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.mask_fill(hidden[:, None, None], -math.inf).softmax(-1)


@wrong(padded_weights, "mask ignored")
def filled_scores_thrown_away(q, k, hidden):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    scores.masked_fill(hidden[:, None, None], -math.inf)
    return scores.softmax(-1)


@wrong(padded_weights, "inverted")
def shown_are_hidden(q, k, hidden):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.masked_fill(~hidden[:, None, None], -1e9).softmax(-1)


@wrong(padded_weights, "heads for images")
def one_axis_too_few(q, k, hidden):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.masked_fill(hidden[:, None], -math.inf).softmax(-1)


@wrong(padded_weights, "queries for images")
def broadcast_as_it_came(q, k, hidden):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.masked_fill(hidden, -math.inf).softmax(-1)


@wrong(padded_weights, "first image for all")
def padding_of_image_0(q, k, hidden):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.masked_fill(hidden[0], -math.inf).softmax(-1)


@wrong(padded_weights, "masked late")
def zeroed_after_the_softmax(q, k, hidden):
    weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return weights * ~hidden[:, None, None]


@wrong(padded_weights, "softmax over the queries")
def over_i(q, k, hidden):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.masked_fill(hidden[:, None, None], -1e9).softmax(-2)


@wrong(padded_weights, "not divided")
def no_root(q, k, hidden):
    return (q @ k.mT).masked_fill(hidden[:, None, None], -math.inf).softmax(-1)


# join_halves


@right(join_halves)
def softmax_of_two(out_a, lse_a, out_b, lse_b):
    shares = torch.stack([lse_a, lse_b], dim=-1).softmax(-1)
    return torch.einsum("bhip,bhidp->bhid", shares, torch.stack([out_a, out_b], -1))


@right(join_halves)
def largest_subtracted(out_a, lse_a, out_b, lse_b):
    top = torch.maximum(lse_a, lse_b)
    a, b = (lse_a - top).exp()[..., None], (lse_b - top).exp()[..., None]
    return (a * out_a + b * out_b) / (a + b)


@right(join_halves)
def with_logaddexp(out_a, lse_a, out_b, lse_b):
    total = torch.logaddexp(lse_a, lse_b)
    return (lse_a - total).exp().unsqueeze(-1) * out_a + (
        lse_b - total
    ).exp().unsqueeze(-1) * out_b


@wrong(join_halves, "plain mean")
def half_and_half(out_a, lse_a, out_b, lse_b):
    return (out_a + out_b) / 2


@wrong(join_halves, "logarithms for sums")
def shares_of_logarithms(out_a, lse_a, out_b, lse_b):
    total = (lse_a + lse_b)[..., None]
    return (lse_a[..., None] * out_a + lse_b[..., None] * out_b) / total


@wrong(join_halves, "parts swapped")
def shares_swapped(out_a, lse_a, out_b, lse_b):
    return largest_subtracted(out_a, lse_b, out_b, lse_a)


@wrong(join_halves, "the louder part only")
def the_larger_wins(out_a, lse_a, out_b, lse_b):
    return torch.where((lse_a > lse_b)[..., None], out_a, out_b)


@wrong(join_halves, "sum of both")
def added(out_a, lse_a, out_b, lse_b):
    return out_a + out_b


@wrong(join_halves, "overflows")
def sums_of_exponentials(out_a, lse_a, out_b, lse_b):
    a, b = lse_a.exp()[..., None], lse_b.exp()[..., None]
    return (a * out_a + b * out_b) / (a + b)


@wrong(join_halves, "silent part")
def looks_at_one_part_alone(out_a, lse_a, out_b, lse_b):
    share = lse_a.sigmoid()[..., None]
    return share * out_a + (1 - share) * out_b


@wrong(join_halves, "no mean")
def each_with_its_own_sigmoid(out_a, lse_a, out_b, lse_b):
    return lse_a.sigmoid()[..., None] * out_a + lse_b.sigmoid()[..., None] * out_b


@wrong(join_halves, "other shares")
def a_softer_share(out_a, lse_a, out_b, lse_b):
    share = ((lse_a - lse_b) / 2).sigmoid()[..., None]
    return share * out_a + (1 - share) * out_b


@wrong(join_halves, "crash")
def axis_forgotten(out_a, lse_a, out_b, lse_b):
    share = (lse_a - lse_b).sigmoid()
    return share * out_a + (1 - share) * out_b


# is_causal


@right(is_causal)
def changes_what_comes_later(layer):
    tokens = torch.randn(2, 6, 4)
    before = layer(tokens)
    for place in range(1, 6):
        other = tokens.clone()
        other[:, place:] = torch.randn_like(other[:, place:])
        if (layer(other) - before)[:, :place].abs().max() > 1e-5:
            return False
    return True


@right(is_causal)
def cuts_off_what_comes_later(layer):
    tokens = torch.randn(1, 7, 3)
    whole = layer(tokens)
    return all(
        torch.allclose(layer(tokens[:, :n]), whole[:, :n], atol=1e-5)
        for n in range(1, 7)
    )


@right(is_causal)
def gradients_of_the_later_ones(layer):
    tokens = torch.randn(1, 6, 4, requires_grad=True)
    out = layer(tokens)
    for place in range(6):
        (grad,) = torch.autograd.grad(out[0, place].sum(), tokens, retain_graph=True)
        if grad[0, place + 1 :].abs().sum() > 1e-6:
            return False
    return True


@wrong(is_causal, "too trusting")
def only_the_last_token_changed(layer):
    tokens = torch.randn(2, 6, 4)
    other = tokens.clone()
    other[:, -1] += 1
    return torch.equal(layer(tokens)[:, 0], layer(other)[:, 0])


@wrong(is_causal, "too trusting")
def only_the_first_result_looked_at(layer):
    tokens = torch.randn(2, 6, 4)
    other = tokens.clone()
    other[:, 1:] = torch.randn(2, 5, 4)
    return torch.allclose(layer(tokens)[:, 0], layer(other)[:, 0], atol=1e-5)


@wrong(is_causal, "too trusting")
def only_the_last_but_one_looked_at(layer):
    tokens = torch.randn(2, 6, 4)
    other = tokens.clone()
    other[:, -1] += 1
    return torch.allclose(layer(tokens)[:, -2], layer(other)[:, -2], atol=1e-5)


@wrong(is_causal, "too trusting")
def one_cut_is_enough(layer):
    tokens = torch.randn(1, 6, 4)
    return torch.allclose(layer(tokens[:, :3]), layer(tokens)[:, :3], atol=1e-4)


@wrong(is_causal, "too trusting")
def a_wide_tolerance(layer):
    tokens = torch.randn(2, 6, 4)
    other = tokens.clone()
    other[:, 3:] = torch.randn(2, 3, 4)
    return torch.allclose(layer(tokens)[:, :3], layer(other)[:, :3], atol=0.5)


@wrong(is_causal, "too strict")
def must_depend_on_what_came_before(layer):
    tokens = torch.randn(2, 6, 4)
    other = tokens.clone()
    other[:, 0] += 1
    moved = (layer(tokens) - layer(other))[:, 1:].abs().max() > 1e-5
    return bool(moved) and changes_what_comes_later(layer)


@wrong(is_causal, "too strict")
def each_token_alone(layer):
    tokens = torch.randn(2, 6, 4)
    other = tokens.clone()
    other[:, 2] += 1
    gap = (layer(tokens) - layer(other)).abs().amax((0, 2))
    return (gap > 1e-5).nonzero().flatten().tolist() == [2]


@wrong(is_causal, "too strict")
def a_layer_must_keep_the_first_token(layer):
    tokens = torch.randn(1, 5, 4)
    kept = torch.allclose(layer(tokens)[:, 0], tokens[:, 0], atol=1e-4)
    return kept and changes_what_comes_later(layer)


@wrong(is_causal, "type")
def prints_a_verdict(layer):
    print(changes_what_comes_later(layer))


# key_effects


def _open(q, k, v, shut=()):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores[..., list(shut)] = -math.inf
    return scores.softmax(dim=-1) @ v


@right(key_effects)
def each_key_shut_in_turn(q, k, v):
    result = _open(q, k, v)
    return torch.stack(
        [(_open(q, k, v, [j]) - result).norm(dim=-1) for j in range(k.shape[2])], -1
    )


@right(key_effects)
def each_key_cut_out(q, k, v):
    effects = q.new_zeros(*q.shape[:3], k.shape[2])
    for j in range(k.shape[2]):
        rest = [place for place in range(k.shape[2]) if place != j]
        left = F.scaled_dot_product_attention(q, k[:, :, rest], v[:, :, rest])
        gap = left - F.scaled_dot_product_attention(q, k, v)
        effects[..., j] = gap.square().sum(-1).sqrt()
    return effects


@right(key_effects)
def by_the_formula(q, k, v):
    weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)
    return weights / (1 - weights) * torch.cdist(weights @ v, v)


@wrong(key_effects, "weights")
def attention_as_importance(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)


@wrong(key_effects, "weight not shared out")
def weight_set_to_zero(q, k, v):
    weights = attention_as_importance(q, k, v)
    effects = []
    for j in range(k.shape[2]):
        left = weights.clone()
        left[..., j] = 0
        effects.append((left @ v - weights @ v).norm(dim=-1))
    return torch.stack(effects, dim=-1)


@wrong(key_effects, "weight not shared out")
def value_set_to_zero(q, k, v):
    result = _open(q, k, v)
    effects = []
    for j in range(v.shape[2]):
        other = v.clone()
        other[:, :, j] = 0
        effects.append((_open(q, k, other) - result).norm(dim=-1))
    return torch.stack(effects, dim=-1)


@wrong(key_effects, "weight not shared out")
def weight_times_distance(q, k, v):
    weights = attention_as_importance(q, k, v)
    return weights * torch.cdist(weights @ v, v)


@wrong(key_effects, "score of 0")
def key_set_to_zero(q, k, v):
    result, effects = _open(q, k, v), []
    for j in range(k.shape[2]):
        other = k.clone()
        other[:, :, j] = 0
        effects.append((_open(q, other, v) - result).norm(dim=-1))
    return torch.stack(effects, dim=-1)


@wrong(key_effects, "distance alone")
def distance_to_each_value(q, k, v):
    return torch.cdist(_open(q, k, v), v)


@wrong(key_effects, "squared")
def squares_of_the_gaps(q, k, v):
    return each_key_shut_in_turn(q, k, v) ** 2


@wrong(key_effects, "averaged numbers")
def mean_gap(q, k, v):
    result = _open(q, k, v)
    gaps = [(_open(q, k, v, [j]) - result).abs().mean(-1) for j in range(k.shape[2])]
    return torch.stack(gaps, dim=-1)


@wrong(key_effects, "lengths compared")
def change_of_the_length(q, k, v):
    length = _open(q, k, v).norm(dim=-1)
    gaps = [
        (_open(q, k, v, [j]).norm(dim=-1) - length).abs() for j in range(len(k[0, 0]))
    ]
    return torch.stack(gaps, dim=-1)


@wrong(key_effects, "shape")
def keys_in_front(q, k, v):
    return each_key_shut_in_turn(q, k, v).movedim(-1, 0)


@wrong(key_effects, "softmax over the queries")
def shares_of_the_queries(q, k, v):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-2)
    return weights / (1 - weights) * torch.cdist(weights @ v, v)


@wrong(key_effects, "not a length")
def relative_to_the_result(q, k, v):
    result = _open(q, k, v)
    return each_key_shut_in_turn(q, k, v) / result.norm(dim=-1, keepdim=True)


@wrong(key_effects, "shape")
def mean_over_the_heads(q, k, v):
    return each_key_shut_in_turn(q, k, v).mean(dim=1)


@wrong(key_effects, "distance alone")
def mask_turned_round(q, k, v):
    keys = range(k.shape[2])
    result = _open(q, k, v)
    gaps = [_open(q, k, v, [o for o in keys if o != j]) - result for j in keys]
    return torch.stack(gaps, dim=3).norm(dim=-1)
