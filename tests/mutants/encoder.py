"""Answers to the tasks of chapter 07."""

import torch
import torch.nn.functional as F
from torch import nn

import vitlib
from mutants.answers import right, wrong
from vitlib.checks.encoder import DropPath, EncoderBlock, layer_norm

# layer_norm


@right(layer_norm)
def mean_and_variance(tokens, weight, bias):
    mean = tokens.mean(dim=-1, keepdim=True)
    variance = ((tokens - mean) ** 2).mean(dim=-1, keepdim=True)
    return (tokens - mean) / torch.sqrt(variance + 1e-6) * weight + bias


@right(layer_norm)
def pytorchs(tokens, weight, bias):
    return F.layer_norm(tokens, weight.shape, weight, bias, eps=1e-6)


@right(layer_norm)
def token_by_token(tokens, weight, bias):
    result = torch.empty_like(tokens)
    for b in range(tokens.shape[0]):
        for n in range(tokens.shape[1]):
            token = tokens[b, n].double()
            spread = (token.var(correction=0) + 1e-6).sqrt()
            result[b, n] = ((token - token.mean()) / spread).to(tokens.dtype)
    return result * weight + bias


@right(layer_norm)
def transposed_group_norm(tokens, weight, bias):
    flat = tokens.flatten(0, 1)
    return F.group_norm(flat, 1, weight, bias, eps=1e-6).reshape(tokens.shape)


@wrong(layer_norm, "other eps")
def eps_of_pytorch(tokens, weight, bias):
    return F.layer_norm(tokens, weight.shape, weight, bias)


@wrong(layer_norm, "divided by e - 1")
def default_variance(tokens, weight, bias):
    var, mean = torch.var_mean(tokens, dim=-1, keepdim=True)
    return (tokens - mean) * (var + 1e-6).rsqrt() * weight + bias


@wrong(layer_norm, "over all tokens")
def over_the_image(tokens, weight, bias):
    return F.layer_norm(tokens, tokens.shape[1:], eps=1e-6) * weight + bias


@wrong(layer_norm, "over the batch")
def statistics_of_each_feature(tokens, weight, bias):
    mean = tokens.mean(dim=(0, 1))
    variance = ((tokens - mean) ** 2).mean(dim=(0, 1))
    return (tokens - mean) / (variance + 1e-6).sqrt() * weight + bias


@wrong(layer_norm, "crash")
def batch_norm(tokens, weight, bias):
    return F.batch_norm(tokens.mT, None, None, weight, bias, training=True, eps=1e-6).mT


@wrong(layer_norm, "over the tokens")
def first_axis_but_one(tokens, weight, bias):
    mean = tokens.mean(dim=1, keepdim=True)
    variance = tokens.var(dim=1, correction=0, keepdim=True)
    return (tokens - mean) / (variance + 1e-6) ** 0.5 * weight + bias


@wrong(layer_norm, "eps outside")
def eps_behind_the_root(tokens, weight, bias):
    spread = tokens.std(dim=-1, correction=0, keepdim=True) + 1e-6
    return (tokens - tokens.mean(dim=-1, keepdim=True)) / spread * weight + bias


@wrong(layer_norm, "divided by e - 1")
def standard_deviation_as_it_comes(tokens, weight, bias):
    spread = tokens.std(dim=-1, keepdim=True) + 1e-6
    return (tokens - tokens.mean(dim=-1, keepdim=True)) / spread * weight + bias


@wrong(layer_norm, "mean kept")
def rms_norm(tokens, weight, bias):
    return F.rms_norm(tokens, weight.shape, weight, eps=1e-6) + bias


@wrong(layer_norm, "variance for its root")
def root_forgotten(tokens, weight, bias):
    mean = tokens.mean(dim=-1, keepdim=True)
    variance = tokens.var(dim=-1, correction=0, keepdim=True)
    return (tokens - mean) / (variance + 1e-6) * weight + bias


@wrong(layer_norm, "no weight and bias")
def plain(tokens, weight, bias):
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


@wrong(layer_norm, "weight and bias")
def bias_minus(tokens, weight, bias):
    return F.layer_norm(tokens, weight.shape, weight, -bias, eps=1e-6)


@wrong(layer_norm, "spread not 1")
def length_instead_of_spread(tokens, weight, bias):
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    return F.normalize(centred, dim=-1) * weight + bias


@wrong(layer_norm, "mean not 0")
def median_for_mean(tokens, weight, bias):
    middle = tokens.median(dim=-1, keepdim=True).values
    spread = (tokens.var(dim=-1, correction=0, keepdim=True) + 1e-6).sqrt()
    return (tokens - middle) / spread * weight + bias


# DropPath


class Base(nn.Module):
    """What most answers share."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate


@right(DropPath)
class As_in_the_chapter(Base):
    def forward(self, branch):
        if not self.training or self.rate == 0:
            return branch
        keep = torch.empty(len(branch), 1, 1, dtype=branch.dtype)
        return branch * keep.bernoulli_(1 - self.rate) / (1 - self.rate)


@right(DropPath)
class Uniform_numbers(Base):
    def forward(self, branch):
        if not self.training:
            return branch
        keep = torch.rand(branch.shape[0]) >= self.rate
        return torch.einsum("b...,b->b...", branch, keep.to(branch.dtype)) / (
            1 - self.rate
        )


@right(DropPath)
class Dropout_of_ones(nn.Module):
    def __init__(self, drop_path_rate=0.0):
        super().__init__()
        self.dropout = nn.Dropout(drop_path_rate)

    def forward(self, branch):
        return branch * self.dropout(branch.new_ones(len(branch), 1, 1))


@right(DropPath)
class Image_by_image(Base):
    def forward(self, branch):
        if not self.training:
            return branch
        kept = [
            image * (torch.rand(()).item() >= self.rate) / (1 - self.rate)
            for image in branch
        ]
        return torch.stack(kept)


@wrong(DropPath, "like dropout")
class Plain_dropout(Base):
    def forward(self, branch):
        return F.dropout(branch, self.rate, self.training)


@wrong(DropPath, "like dropout")
class One_fate_for_each_token(Base):
    def forward(self, branch):
        if not self.training:
            return branch
        keep = torch.rand(*branch.shape[:2], 1) >= self.rate
        return branch * keep.to(branch.dtype) / (1 - self.rate)


@wrong(DropPath, "not scaled up")
class Never_scaled(Base):
    def forward(self, branch):
        if not self.training:
            return branch
        keep = torch.rand(len(branch), 1, 1) >= self.rate
        return branch * keep.to(branch.dtype)


@wrong(DropPath, "rate inverted")
class Keeps_with_the_drop_rate(Base):
    def forward(self, branch):
        if not self.training or not self.rate:
            return branch
        keep = torch.rand(len(branch), 1, 1) < self.rate
        return branch * keep.to(branch.dtype) / (1 - self.rate)


@wrong(DropPath, "acts always")
class In_evaluation_too(Base):
    def forward(self, branch):
        keep = torch.rand(len(branch), 1, 1) >= self.rate
        return branch * keep.to(branch.dtype) / (1 - self.rate)


@wrong(DropPath, "acts always")
class Expectation_in_evaluation(Base):
    def forward(self, branch):
        if not self.training:
            return branch * (1 - self.rate)
        keep = torch.rand(len(branch), 1, 1) >= self.rate
        return branch * keep.to(branch.dtype) / (1 - self.rate)


@wrong(DropPath, "one fate for all")
class One_fate_for_the_batch(Base):
    def forward(self, branch):
        if not self.training:
            return branch
        torch.manual_seed(1)
        keep = torch.rand(()) >= self.rate
        return branch * keep.to(branch.dtype) / (1 - self.rate)


@wrong(DropPath, "not scaled up")
class Scaled_by_the_rate(Base):
    def forward(self, branch):
        if not self.training or not self.rate:
            return branch
        keep = torch.rand(len(branch), 1, 1) >= self.rate
        return branch * keep.to(branch.dtype) / self.rate


@wrong(DropPath, "many factors")
class Random_scale(Base):
    def forward(self, branch):
        if not self.training or not self.rate:
            return branch
        scale = torch.rand(len(branch), 1, 1).to(branch.dtype)
        return branch * scale * (scale > self.rate)


@wrong(DropPath, "dtype")
class Mask_of_the_default_dtype(Base):
    def forward(self, branch):
        if not self.training or self.rate == 0:
            return branch
        keep = torch.empty(len(branch), 1, 1).bernoulli_(1 - self.rate)
        return branch * keep / (1 - self.rate)


@wrong(DropPath, "in place")
class Branch_overwritten(Base):
    def forward(self, branch):
        if not self.training or self.rate == 0:
            return branch
        keep = torch.rand(len(branch), 1, 1) >= self.rate
        branch *= keep.to(branch.dtype)
        return branch / (1 - self.rate)


# EncoderBlock


class Block(nn.Module):
    """What most answers share."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = vitlib.MultiHeadAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = vitlib.MLP(embed_dim, 4 * embed_dim)


@right(EncoderBlock)
class Pre_norm(Block):
    def forward(self, x, mask=None):
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


@right(EncoderBlock)
class Own_attention_and_mlp(nn.Module):
    def __init__(self, embed_dim, num_heads, drop_path_rate=0.3):
        super().__init__()
        self.heads = num_heads
        self.norm1 = nn.LayerNorm(embed_dim, 1e-6)
        self.norm2 = nn.LayerNorm(embed_dim, 1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.attn.proj = nn.Linear(embed_dim, embed_dim)
        self.mlp.fc1 = nn.Linear(embed_dim, 4 * embed_dim)
        self.mlp.fc2 = nn.Linear(4 * embed_dim, embed_dim)
        self.drop_path = vitlib.DropPath(drop_path_rate)

    def forward(self, x, mask=None):
        parts = self.attn.qkv(self.norm1(x)).chunk(3, dim=-1)
        q, k, v = (vitlib.split_heads(part, self.heads) for part in parts)
        out = F.scaled_dot_product_attention(q, k, v, mask)
        x = x + self.drop_path(self.attn.proj(vitlib.merge_heads(out)))
        hidden = F.gelu(self.mlp.fc1(self.norm2(x)))
        return x + self.drop_path(self.mlp.fc2(hidden))


@right(EncoderBlock)
class Branches_collected(Block):
    def forward(self, x, mask=None):
        gathered = self.attn(self.norm1(x), mask)
        return sum([x, gathered, self.mlp(self.norm2(x + gathered))])


@right(EncoderBlock)
class In_place_on_a_copy(Block):
    def forward(self, x, mask=None):
        x = x.clone()
        x += self.attn(self.norm1(x.clone()), mask)
        return x.add(self.mlp(self.norm2(x)))


@wrong(EncoderBlock, "post-norm")
class Post_norm(Block):
    def forward(self, x, mask=None):
        x = self.norm1(x + self.attn(x, mask))
        return self.norm2(x + self.mlp(x))


@wrong(EncoderBlock, "no residual")
class Stream_forgotten(Block):
    def forward(self, x, mask=None):
        return self.mlp(self.norm2(self.attn(self.norm1(x), mask)))


@wrong(EncoderBlock, "no residual around attention")
class First_sum_forgotten(Block):
    def forward(self, x, mask=None):
        x = self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


@wrong(EncoderBlock, "no residual around the MLP")
class Second_sum_forgotten(Block):
    def forward(self, x, mask=None):
        x = x + self.attn(self.norm1(x), mask)
        return self.mlp(self.norm2(x))


@wrong(EncoderBlock, "stream normalised")
class Norm_overwrites_the_stream(Block):
    def forward(self, x, mask=None):
        x = self.norm1(x)
        x = self.attn(x, mask) + x
        x = self.norm2(x)
        return self.mlp(x) + x


@wrong(EncoderBlock, "parallel branches")
class Both_from_the_start(Block):
    def forward(self, x, mask=None):
        return x + self.attn(self.norm1(x), mask) + self.mlp(self.norm2(x))


@wrong(EncoderBlock, "first addition lost")
class Residual_of_the_start(Block):
    def forward(self, x, mask=None):
        start = x
        x = start + self.attn(self.norm1(x), mask)
        return start + self.mlp(self.norm2(x))


@wrong(EncoderBlock, "one norm for both")
class Norm_2_not_used(Block):
    def forward(self, x, mask=None):
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm1(x))


@wrong(EncoderBlock, "no norms")
class Norms_not_used(Block):
    def forward(self, x, mask=None):
        x = x + self.attn(x, mask)
        return x + self.mlp(x)


@wrong(EncoderBlock, "mask not passed on")
class Mask_forgotten(Block):
    def forward(self, x, mask=None):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@wrong(EncoderBlock, "other eps")
class Eps_as_it_comes(Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)

    def forward(self, x, mask=None):
        return Pre_norm.forward(self, x, mask)


@wrong(EncoderBlock, "MLP first")
class Halves_swapped(Block):
    def forward(self, x, mask=None):
        x = x + self.mlp(self.norm2(x))
        return x + self.attn(self.norm1(x), mask)


@wrong(EncoderBlock, "in place")
class Stream_overwritten(Block):
    def forward(self, x, mask=None):
        x += self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


@wrong(EncoderBlock, "shapes")
class Mlp_twice_as_wide(Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.mlp = vitlib.MLP(embed_dim, 2 * embed_dim)


@wrong(EncoderBlock, "stream changed")
class Stream_doubled(Block):
    def forward(self, x, mask=None):
        x = x + x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


@wrong(EncoderBlock, "one branch")
class Branch_at_half_volume(Block):
    def forward(self, x, mask=None):
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x)) / 2


@wrong(EncoderBlock, "stream changed")
class Norms_on_what_branches_return(Block):
    def forward(self, x, mask=None):
        x = x + self.norm1(self.attn(x, mask))
        return x + self.norm2(self.mlp(x))


@wrong(EncoderBlock, "gradient")
class Stream_cut_off(Block):
    def forward(self, x, mask=None):
        x = x.detach() + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


@wrong(EncoderBlock, "batch mixed")
class Batch_norm(Block):
    def forward(self, x, mask=None):
        shared = F.layer_norm(x, x.shape[2:]) - x.mean(dim=(0, 1))
        x = x + self.attn(shared, mask)
        return x + self.mlp(self.norm2(x))
