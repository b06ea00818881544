"""Answers to the tasks of chapter 05."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from mutants.answers import right, wrong
from vitlib.checks.multi_head import MultiHeadAttention, merge_heads, split_heads

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


@wrong(MultiHeadAttention, "divided late", "FrancescoSaverioZuppichini/ViT issue 2")
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


@wrong(MultiHeadAttention, "crash", "FrancescoSaverioZuppichini/ViT issue 6")
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
