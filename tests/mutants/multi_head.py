"""Answers to the tasks of chapter 05."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from mutants.answers import right, wrong
from vitlib.attention import attend
from vitlib.checks.multi_head import (
    MultiHeadAttention,
    attend_shared,
    head_contributions,
    head_overlap,
    heads_stay_apart,
    mask_for_pytorch,
    merge_heads,
    split_heads,
)

# split_heads


@right(split_heads)
def rearranged(tokens, num_heads):
    return rearrange(tokens, "b n (h d) -> b h n d", h=num_heads)


@right(split_heads)
def view_and_transpose(tokens, h):
    b, n, e = tokens.shape
    return tokens.reshape(b, n, h, e // h).transpose(1, 2)


@right(split_heads)
def slices_stacked(tokens, h):
    d = tokens.shape[-1] // h
    return torch.stack([tokens[..., k * d : (k + 1) * d] for k in range(h)], dim=1)


@wrong(split_heads, "reshape alone")
def straight_reshape(tokens, h):
    b, n, e = tokens.shape
    return tokens.reshape(b, h, n, e // h)


@wrong(split_heads, "heads woven")
def d_before_h(tokens, h):
    return rearrange(tokens, "b n (d h) -> b h n d", h=h)


@wrong(split_heads, "not transposed")
def transpose_forgotten(tokens, h):
    return tokens.unflatten(-1, (h, -1))


@wrong(split_heads, "size for number")
def heads_of_length_h(tokens, h):
    return tokens.unflatten(-1, (-1, h)).transpose(1, 2)


@wrong(split_heads, "heads first")
def chunks_stacked_in_front(tokens, h):
    return torch.stack(tokens.chunk(h, dim=-1))


@wrong(split_heads, "heads joined to the batch")
def three_axes(tokens, h):
    return view_and_transpose(tokens, h).flatten(0, 1)


@wrong(split_heads, "tokens last")
def transposed_once_too_often(tokens, h):
    return view_and_transpose(tokens, h).mT


@wrong(split_heads, "tokens cut")
def tokens_shared_out(tokens, h):
    return torch.stack(tokens.chunk(h, dim=1), dim=1)


@wrong(split_heads, "other pieces")
def heads_backwards(tokens, h):
    return view_and_transpose(tokens, h).flip(1)


@wrong(split_heads, "tokens torn apart")
def tokens_rolled(tokens, h):
    parts = view_and_transpose(tokens, h)
    return torch.stack([parts[:, k].roll(k, dims=1) for k in range(h)], dim=1)


@wrong(split_heads, "other pieces")
def every_head_the_same(tokens, h):
    return view_and_transpose(tokens, h)[:, :1].repeat(1, h, 1, 1)


# merge_heads


@right(merge_heads)
def rearranged_back(heads):
    return rearrange(heads, "b h n d -> b n (h d)")


@right(merge_heads)
def transpose_and_flatten(heads):
    return heads.transpose(1, 2).flatten(2)


@right(merge_heads)
def heads_joined(heads):
    return torch.cat(heads.unbind(dim=1), dim=-1)


@wrong(merge_heads, "reshape alone")
def reshape_without_transpose(heads):
    b, h, n, d = heads.shape
    return heads.reshape(b, n, h * d)


@wrong(merge_heads, "heads woven")
def d_before_h_back(heads):
    return heads.permute(0, 2, 3, 1).flatten(2)


@wrong(merge_heads, "heads added")
def summed(heads):
    return heads.sum(dim=1)


@wrong(merge_heads, "mean of heads")
def averaged(heads):
    return heads.mean(dim=1)


@wrong(merge_heads, "not joined")
def transposed_only(heads):
    return heads.permute(0, 2, 1, 3)


@wrong(merge_heads, "heads as tokens")
def stacked_in_the_row(heads):
    return torch.cat(heads.unbind(1), dim=1)


@wrong(merge_heads, "tokens joined")
def last_two_flattened(heads):
    return heads.flatten(start_dim=2)


@wrong(merge_heads, "strides")
def view_of_what_is_not_in_order(heads):
    b, h, n, d = heads.shape
    parts = heads.view(b, h, n * d).view(b, h, n, d)
    return parts.transpose(1, 2).reshape(b, n, h * d)


@wrong(merge_heads, "order")
def heads_in_reverse(heads):
    return torch.cat(heads.flip(1).unbind(dim=1), dim=-1)


# MultiHeadAttention


class Base(nn.Module):
    """What most answers share."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def heads(self, tokens):
        """Return q, k and v, each (b, h, n, d)."""
        return (
            view_and_transpose(part, self.num_heads)
            for part in self.qkv(tokens).chunk(3, dim=-1)
        )


@right(MultiHeadAttention)
class As_in_the_chapter(Base):
    def forward(self, tokens, mask=None):
        q, k, v = self.heads(tokens)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return self.proj(rearranged_back(scores.softmax(-1) @ v))


@right(MultiHeadAttention)
class Slices_in_a_loop(Base):
    def forward(self, tokens, mask=None):
        b, n, e = tokens.shape
        q, k, v = self.qkv(tokens).split(e, dim=-1)
        d, out = e // self.num_heads, []
        if mask is not None:
            mask = mask.expand(b, self.num_heads, n, n)
        for h in range(self.num_heads):
            part = slice(h * d, h * d + d)
            scores = q[..., part] @ k[..., part].mT / math.sqrt(d)
            if mask is not None:
                scores = torch.where(mask[:, h], scores, -math.inf)
            out.append(scores.softmax(dim=-1) @ v[..., part])
        return self.proj(torch.cat(out, dim=-1))


@right(MultiHeadAttention)
class By_pytorchs_function(Base):
    def forward(self, tokens, mask=None):
        x = tokens.transpose(0, 1)
        if mask is not None:
            b, n, _ = tokens.shape
            mask = ~mask.expand(b, self.num_heads, n, n).flatten(0, 1)
        out, _ = F.multi_head_attention_forward(
            x, x, x, tokens.shape[2], self.num_heads, self.qkv.weight, self.qkv.bias,
            None, None, False, 0.0, self.proj.weight, self.proj.bias,
            attn_mask=mask, need_weights=False,
        )  # fmt: skip
        return out.transpose(0, 1)


@right(MultiHeadAttention)
class Fused_with_one_rearrange(Base):
    def forward(self, tokens, mask=None):
        q, k, v = rearrange(
            self.qkv(tokens), "b n (t h d) -> t b h n d", t=3, h=self.num_heads
        )
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.proj(out.transpose(1, 2).reshape(tokens.shape))


def masked(scores, mask):
    """Shut keys out."""
    return scores if mask is None else scores.masked_fill(~mask, -math.inf)


@wrong(MultiHeadAttention, "divided late", "FrancescoSaverioZuppichini/ViT issue 6")
class Divides_weights_by_the_root_of_e(Base):
    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        energy = torch.einsum("bhqd, bhkd -> bhqk", q, k)
        att = masked(energy, mask).softmax(dim=-1) / x.shape[-1] ** 0.5
        return self.proj(rearranged_back(torch.einsum("bhal, bhlv -> bhav", att, v)))


@wrong(MultiHeadAttention, "divided by √e", "FrancescoSaverioZuppichini/ViT issue 1")
class Divides_scores_by_the_root_of_e(Base):
    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        att = masked(q @ k.mT / x.shape[-1] ** 0.5, mask).softmax(dim=-1)
        return self.proj(rearranged_back(att @ v))


@wrong(MultiHeadAttention, "crash")
class Calls_mask_fill(Base):
    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        energy = q @ k.mT / q.shape[-1] ** 0.5
        if mask is not None:
            energy.mask_fill(~mask, torch.finfo(torch.float32).min)
        return self.proj(rearranged_back(energy.softmax(dim=-1) @ v))


@wrong(MultiHeadAttention, "one head only")
class Number_of_heads_not_used(Base):
    def forward(self, x, mask=None):
        q, k, v = (part[:, None] for part in self.qkv(x).chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.proj(out[:, 0])


@wrong(MultiHeadAttention, "heads torn")
class Reshapes_to_heads(Base):
    def forward(self, x, mask=None):
        q, k, v = (
            straight_reshape(part, self.num_heads)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.proj(rearranged_back(out))


@wrong(MultiHeadAttention, "heads torn")
class Reshapes_back(Base):
    def forward(self, x, mask=None):
        out = F.scaled_dot_product_attention(*self.heads(x), mask)
        return self.proj(out.reshape(x.shape))


@wrong(MultiHeadAttention, "heads torn")
class Reshapes_both_ways(Base):
    def forward(self, x, mask=None):
        q, k, v = (
            straight_reshape(part, self.num_heads)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask).reshape(x.shape))


@wrong(MultiHeadAttention, "q, k and v swapped")
class Values_first(Base):
    def forward(self, x, mask=None):
        v, k, q = self.heads(x)
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.proj(rearranged_back(out))


@wrong(MultiHeadAttention, "qkv head by head")
class Heads_outside_of_three(Base):
    def forward(self, x, mask=None):
        q, k, v = rearrange(
            self.qkv(x), "b n (h t d) -> t b h n d", t=3, h=self.num_heads
        )
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.proj(rearranged_back(out))


@wrong(MultiHeadAttention, "heads attend to heads")
class Transpose_left_out(Base):
    def forward(self, x, mask=None):
        q, k, v = (part.transpose(1, 2) for part in self.heads(x))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.flatten(2))


@wrong(MultiHeadAttention, "no projection")
class Ends_with_the_heads(Base):
    def forward(self, x, mask=None):
        return rearranged_back(F.scaled_dot_product_attention(*self.heads(x), mask))


@wrong(MultiHeadAttention, "softmax over the queries")
class Softmax_over_axis_2(Base):
    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        att = masked(q @ k.mT / q.shape[-1] ** 0.5, mask).softmax(dim=2)
        return self.proj(rearranged_back(att @ v))


@wrong(MultiHeadAttention, "softmax over the heads")
class Softmax_over_axis_1(Base):
    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        att = masked(q @ k.mT / q.shape[-1] ** 0.5, mask).softmax(dim=1)
        return self.proj(rearranged_back(att @ v))


@wrong(MultiHeadAttention, "mask inverted")
class Mask_of_the_other_convention(Base):
    def forward(self, x, mask=None):
        mask = None if mask is None else ~mask
        out = F.scaled_dot_product_attention(*self.heads(x), mask)
        return self.proj(rearranged_back(out))


@wrong(MultiHeadAttention, "scores")
class Divides_by_the_root_of_heads(Base):
    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        scores = masked(q @ k.mT / self.num_heads**0.5, mask)
        return self.proj(rearranged_back(scores.softmax(-1) @ v))


@wrong(MultiHeadAttention, "values")
class Heads_joined_in_reverse(Base):
    def forward(self, x, mask=None):
        out = F.scaled_dot_product_attention(*self.heads(x), mask)
        return self.proj(rearranged_back(out.flip(1)))


@wrong(MultiHeadAttention, "random")
class Drops_in_evaluation(Base):
    def forward(self, x, mask=None):
        out = F.scaled_dot_product_attention(*self.heads(x), mask, dropout_p=0.1)
        return self.proj(rearranged_back(out))


@wrong(MultiHeadAttention, "shapes")
class Head_length_times_heads_forgotten(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim // num_heads)
        self.proj = nn.Linear(embed_dim // num_heads, embed_dim)

    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask))


@wrong(MultiHeadAttention, "no gradient")
class Weights_cut_off(Base):
    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        scores = masked(q @ k.mT / q.shape[-1] ** 0.5, mask)
        out = rearranged_back(scores.softmax(-1) @ v)
        with torch.no_grad():
            return self.proj(out)


# attend_shared


@right(attend_shared)
def keys_repeated_side_by_side(q, k, v):
    times = q.size(1) // k.size(1)
    k, v = (torch.repeat_interleave(x, times, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


@right(attend_shared)
def einsum_with_a_group(q, k, v):
    q = rearrange(q, "b (g r) i d -> b g r i d", g=k.shape[1])
    scores = torch.einsum("bgrid,bgjd->bgrij", q, k) / math.sqrt(q.shape[-1])
    out = torch.einsum("bgrij,bgjd->bgrid", scores.softmax(-1), v)
    return rearrange(out, "b g r i d -> b (g r) i d")


@right(attend_shared)
def head_after_head(q, k, v):
    h, g = q.shape[1], k.shape[1]
    out = []
    for head in range(h):
        group = head * g // h
        scores = q[:, head] @ k[:, group].mT * q.shape[-1] ** -0.5
        out.append(scores.softmax(-1) @ v[:, group])
    return torch.stack(out, dim=1)


@right(attend_shared)
def built_in_option(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@wrong(attend_shared, "groups woven")
def tiled(q, k, v):
    times = q.size(1) // k.size(1)
    k, v = (torch.cat([x] * times, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


@wrong(attend_shared, "groups woven")
def group_is_head_modulo_g(q, k, v):
    groups = torch.arange(q.shape[1]) % k.shape[1]
    return F.scaled_dot_product_attention(q, k[:, groups], v[:, groups])


@wrong(attend_shared, "crash")
def shapes_left_to_broadcasting(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


@wrong(attend_shared, "first key head only")
def one_key_head(q, k, v):
    k, v = k[:, :1], v[:, :1]
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


@wrong(attend_shared, "mean of the key heads")
def averaged_keys(q, k, v):
    k, v = k.mean(1, keepdim=True), v.mean(1, keepdim=True)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


@wrong(attend_shared, "not divided")
def root_forgotten(q, k, v):
    return head_after_head(q * q.shape[-1] ** 0.5, k, v)


@wrong(attend_shared, "softmax over the queries")
def softmax_over_axis_two(q, k, v):
    k, v = (torch.repeat_interleave(x, q.size(1) // x.size(1), 1) for x in (k, v))
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=2) @ v


@wrong(attend_shared, "other groups")
def groups_backwards(q, k, v):
    return head_after_head(q, k.flip(1), v.flip(1))


@wrong(attend_shared, "other groups")
def values_woven_alone(q, k, v):
    times = q.size(1) // k.size(1)
    k = k.repeat_interleave(times, dim=1)
    return F.scaled_dot_product_attention(q, k, v.repeat(1, times, 1, 1))


@wrong(attend_shared, "weights")
def divided_by_the_root_of_groups(q, k, v):
    return head_after_head(q * (q.shape[-1] / (k.shape[1] + 1)) ** 0.5, k, v)


@wrong(attend_shared, "shape")
def queries_averaged_in_groups(q, k, v):
    q = q.unflatten(1, (k.shape[1], -1)).mean(dim=2)
    return F.scaled_dot_product_attention(q, k, v)


@wrong(attend_shared, "one result for a group")
def scores_without_the_letter(q, k, v):
    q = q.unflatten(1, (k.shape[1], -1))
    scores = torch.einsum("bgrid,bgjd->bgij", q, k) / q.shape[-1] ** 0.5
    result = torch.einsum("bgij,bgjd->bgid", scores.softmax(dim=-1), v)
    return result.repeat_interleave(q.shape[2], dim=1)


# head_contributions


@right(head_contributions)
def weight_cut_by_columns(heads, weight):
    pieces = rearrange(weight, "e (h d) -> h e d", h=heads.shape[1])
    return torch.einsum("bhnd,hed->bhne", heads, pieces)


@right(head_contributions)
def others_set_to_zero(heads, weight):
    out = []
    for h in range(heads.shape[1]):
        alone = torch.zeros_like(heads)
        alone[:, h] = heads[:, h]
        out.append(rearranged_back(alone) @ weight.T)
    return torch.stack(out, dim=1)


@right(head_contributions)
def chunks_in_a_loop(heads, weight):
    pairs = zip(heads.unbind(1), weight.chunk(heads.shape[1], dim=1), strict=True)
    return torch.stack([F.linear(head, piece) for head, piece in pairs], dim=1)


@wrong(head_contributions, "weight reshaped")
def viewed_as_heads(heads, weight):
    _, h, _, d = heads.shape
    return heads @ weight.reshape(h, d, -1)


@wrong(head_contributions, "weight turned")
def rows_for_heads(heads, weight):
    pieces = weight.chunk(heads.shape[1], dim=0)
    return torch.stack([heads[:, k] @ piece for k, piece in enumerate(pieces)], dim=1)


@wrong(head_contributions, "heads woven")
def every_second_column(heads, weight):
    h = heads.shape[1]
    return torch.stack([heads[:, k] @ weight[:, k::h].T for k in range(h)], dim=1)


@wrong(head_contributions, "same columns for all")
def first_columns(heads, weight):
    return heads @ weight[:, : heads.shape[-1]].T


@wrong(head_contributions, "summed")
def merged_and_mapped(heads, weight):
    return rearranged_back(heads) @ weight.T


@wrong(head_contributions, "divided by the heads")
def mean_of_pieces(heads, weight):
    return chunks_in_a_loop(heads, weight).div(heads.shape[1])


@wrong(head_contributions, "not split")
def whole_for_each(heads, weight):
    whole = rearranged_back(heads) @ weight.T
    return whole[:, None].repeat(1, heads.shape[1], 1, 1)


@wrong(head_contributions, "right sum, other pieces")
def whole_shared_out_evenly(heads, weight):
    return whole_for_each(heads, weight) / heads.shape[1]


@wrong(head_contributions, "heads mixed")
def running_total(heads, weight):
    return chunks_in_a_loop(heads, weight).cumsum(dim=1)


@wrong(head_contributions, "no gradient")
def measured_without_gradients(heads, weight):
    return chunks_in_a_loop(heads, weight.detach())


# mask_for_pytorch


@right(mask_for_pytorch)
def each_image_repeated(mask, num_heads):
    return mask.logical_not().repeat_interleave(num_heads, dim=0)


@right(mask_for_pytorch)
def expanded_and_flattened(mask, h):
    return ~mask[:, None].expand(-1, h, -1, -1).flatten(0, 1)


@right(mask_for_pytorch)
def list_of_images(mask, h):
    return torch.stack([one == False for one in mask for _ in range(h)])  # noqa: E712


@right(mask_for_pytorch)
def by_einops(mask, h):
    return repeat(~mask, "b i j -> (b h) i j", h=h)


@wrong(mask_for_pytorch, "masks take turns", "ArrowLuo/CLIP4Clip issue 22")
def repeated_in_blocks(mask, num_heads):
    return torch.cat([~mask] * num_heads)


@wrong(mask_for_pytorch, "masks take turns", "line/lighthouse PR 77")
def heads_joined_first(mask, h):
    return repeat(~mask, "b i j -> (h b) i j", h=h)


@wrong(mask_for_pytorch, "not turned round")
def of_the_book(mask, h):
    return repeat(mask, "b i j -> (b h) i j", h=h)


@wrong(mask_for_pytorch, "both")
def repeated_as_it_is(mask, h):
    return mask.repeat(h, 1, 1)


@wrong(mask_for_pytorch, "axis of heads kept")
def four_axes(mask, h):
    return torch.stack([~mask] * h, dim=1)


@wrong(mask_for_pytorch, "queries and keys swapped")
def transposed(mask, h):
    return repeat(~mask, "b j i -> (b h) i j", h=h)


@wrong(mask_for_pytorch, "queries repeated")
def along_the_wrong_axis(mask, h):
    return mask.logical_not().repeat_interleave(h, dim=-2)


@wrong(mask_for_pytorch, "order of masks")
def images_backwards(mask, h):
    return each_image_repeated(mask.flip(0), h)


@wrong(mask_for_pytorch, "numbers for a mask")
def to_be_added(mask, h):
    zero, never = torch.tensor(0.0), torch.tensor(-math.inf)
    return torch.where(each_image_repeated(mask, h), never, zero)


@wrong(mask_for_pytorch, "dtype")
def ones_and_zeros(mask, h):
    return 1 - mask.long().repeat_interleave(h, dim=0)


# heads_stay_apart


def three(b=2, h=3, n=4, d=5):
    """Draw q, k and v."""
    return torch.randn(3, b, h, n, d).unbind()


@right(heads_stay_apart)
def each_head_changed_in_turn(gather):
    given = three()
    before = gather(*given)
    for head in range(3):
        others = [k for k in range(3) if k != head]
        for place in range(3):
            changed = [x.clone() for x in given]
            changed[place][:, head] = torch.randn(2, 4, 5) * 10
            if not torch.allclose(gather(*changed)[:, others], before[:, others]):
                return False
    return True


@right(heads_stay_apart)
def each_head_alone(gather):
    q, k, v = three()
    together = gather(q, k, v)
    alone = [gather(q[:, [h]], k[:, [h]], v[:, [h]]) for h in range(3)]
    return torch.allclose(together, torch.cat(alone, dim=1), atol=1e-5)


@right(heads_stay_apart)
def by_gradients(gather):
    q, k, v = (x.requires_grad_() for x in three())
    for head in range(3):
        out = gather(q, k, v)[:, head].pow(3).sum()
        for grad in torch.autograd.grad(out, (q, k, v), allow_unused=True):
            if grad is None:
                continue
            grad = grad.clone()
            grad[:, head] = 0
            if grad.abs().max() > 1e-7:
                return False
    # What is cut off from gradients may still meet.
    return each_head_alone(gather)


@wrong(heads_stay_apart, "always True")
def shape_only(gather):
    q, k, v = three()
    return gather(q, k, v).shape == q.shape


@wrong(heads_stay_apart, "always False")
def all_heads_compared(gather):
    q, k, v = three()
    other = [x.clone() for x in (q, k, v)]
    other[2][:, 0] += 1
    return torch.equal(gather(q, k, v), gather(*other))


@wrong(heads_stay_apart, "softmax over the heads")
def values_alone_changed(gather):
    q, k, v = three()
    return all(
        torch.allclose(gather(q, k, w)[:, keep], gather(q, k, v)[:, keep])
        for h in range(3)
        for keep in [[x for x in range(3) if x != h]]
        for w in [v + torch.eye(3)[h].view(1, 3, 1, 1)]
    )


@wrong(heads_stay_apart, "leaks one way")
def last_head_alone_changed(gather):
    given = three()
    other = [x.clone() for x in given]
    for x in other:
        x[:, -1] = torch.randn(2, 4, 5) * 10
    return torch.allclose(gather(*given)[:, :-1], gather(*other)[:, :-1])


@wrong(heads_stay_apart, "leaks one way")
def first_head_alone_silenced(gather):
    q, k, v = three()
    before = gather(q, k, v)
    for x in (q, k, v):
        x[:, 0] = 0
    return torch.allclose(gather(q, k, v)[:, 1:], before[:, 1:])


@wrong(heads_stay_apart, "another rule refused")
def compared_with_attention(gather):
    q, k, v = three()
    return torch.allclose(gather(q, k, v), attend(q, k, v), atol=1e-5)


@wrong(heads_stay_apart, "always True")
def rows_compared_with_ones(gather):
    q, k, v = torch.ones(3, 2, 3, 4, 5).unbind()
    return not torch.allclose(gather(q, k, v), torch.zeros_like(v))


@wrong(heads_stay_apart, "type")
def difference_returned(gather):
    q, k, v = three()
    return (gather(q, k, v) - gather(q, k, v)).abs().amax(dim=(0, 2, 3))


# head_overlap


@right(head_overlap)
def minimum_of_all_pairs(weights):
    shared = torch.minimum(weights[:, :, None], weights[:, None]).sum(-1)
    return shared.mean(dim=-1).mean(dim=0)


@right(head_overlap)
def one_minus_half_the_gap(weights):
    gap = (weights.unsqueeze(2) - weights.unsqueeze(1)).abs().sum(-1)
    return 1 - gap.mean(dim=(0, 3)) / 2


@right(head_overlap)
def four_loops(weights):
    b, h, i, _ = weights.shape
    table = torch.zeros(h, h, dtype=weights.dtype)
    for one in range(h):
        for other in range(h):
            for image in range(b):
                for query in range(i):
                    x, y = weights[image, one, query], weights[image, other, query]
                    table[one, other] += torch.where(x < y, x, y).sum() / (b * i)
    return table


@wrong(head_overlap, "products")
def dot_products(weights):
    return torch.einsum("bhij,bgij->hg", weights, weights) / (
        weights.shape[0] * weights.shape[2]
    )


@wrong(head_overlap, "cosines")
def cosine_similarity(weights):
    cosines = F.cosine_similarity(weights[:, :, None], weights[:, None], dim=-1)
    return cosines.mean(dim=(0, 3))


@wrong(head_overlap, "difference for overlap")
def total_variation(weights):
    gap = (weights.unsqueeze(2) - weights.unsqueeze(1)).abs().sum(-1)
    return gap.mean(dim=(0, 3)) / 2


@wrong(head_overlap, "mean over the keys")
def mean_of_everything(weights):
    return torch.minimum(weights[:, :, None], weights[:, None]).mean(dim=(0, 3, 4))


@wrong(head_overlap, "averaged first")
def maps_averaged_first(weights):
    return minimum_of_all_pairs(weights.mean(dim=0, keepdim=True))


@wrong(head_overlap, "images kept apart")
def batch_left(weights):
    return torch.minimum(weights[:, :, None], weights[:, None]).sum(-1).mean(-1)


@wrong(head_overlap, "not 1 with itself")
def gap_not_halved(weights):
    return minimum_of_all_pairs(weights) - torch.eye(weights.shape[1])


@wrong(head_overlap, "not 0 apart")
def sorted_rows(weights):
    return minimum_of_all_pairs(weights.sort(dim=-1)[0])


@wrong(head_overlap, "between 0 and 1")
def share_of_equal_tops(weights):
    tops = weights.argmax(dim=-1)
    same = (tops[:, :, None] == tops[:, None]).to(weights.dtype)
    return same.mean(dim=(0, 3))


@wrong(head_overlap, "not symmetric")
def weight_on_the_others_favourite(weights):
    b, h, i, j = weights.shape
    favourite = weights.argmax(dim=-1)[:, None, :, :, None].expand(b, h, h, i, 1)
    given = weights[:, :, None].expand(b, h, h, i, j).gather(-1, favourite)[..., 0]
    return (given / weights.amax(dim=-1)[:, :, None]).mean(dim=(0, 3))
