"""Answers to the tasks of chapter 07."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

import vitlib
from mutants.answers import right, wrong
from vitlib.checks.encoder import (
    DropPath,
    EncoderBlock,
    LayerScaleBlock,
    block_effects,
    blocks_are_independent,
    fold_norm,
    layer_norm,
)

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


@wrong(EncoderBlock, "stream changed", "d2l-ai/d2l-en PR 2283")
class Stream_normalised_at_the_door(Block):
    def forward(self, x, mask=None):
        x = self.norm1(x)
        return x + self.mlp(self.norm2(x + self.attn(x, mask)))


# LayerScaleBlock


class Scaled(Block):
    """A block with two factors."""

    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.scale1 = nn.Parameter(torch.ones(embed_dim) / 10)
        self.scale2 = nn.Parameter(torch.ones(embed_dim) / 10)


@right(LayerScaleBlock)
class Two_additions(Scaled):
    def forward(self, x):
        x = x + self.attn(self.norm1(x)) * self.scale1
        return x + self.mlp(self.norm2(x)) * self.scale2


@right(LayerScaleBlock)
class Matrices_of_factors(Scaled):
    def forward(self, x):
        x = x + self.attn(self.norm1(x)) @ torch.diag(self.scale1)
        return x + self.mlp(self.norm2(x)) @ torch.diag(self.scale2)


@right(LayerScaleBlock)
class Factors_in_the_last_weights(Scaled):
    def forward(self, x):
        heads = self.attn(self.norm1(x))
        x = torch.addcmul(x, self.scale1.expand_as(heads), heads)
        hidden = F.gelu(self.mlp.fc1(self.norm2(x)))
        weight = self.mlp.fc2.weight * self.scale2[:, None]
        return x + F.linear(hidden, weight, self.mlp.fc2.bias * self.scale2)


@wrong(LayerScaleBlock, "stream scaled")
class Sum_scaled(Scaled):
    def forward(self, x):
        x = (x + self.attn(self.norm1(x))) * self.scale1
        return (x + self.mlp(self.norm2(x))) * self.scale2


@wrong(LayerScaleBlock, "scaled on the way in")
class Branch_input_scaled(Scaled):
    def forward(self, x):
        x = x + self.attn(self.norm1(x) * self.scale1)
        return x + self.mlp(self.norm2(x) * self.scale2)


@wrong(LayerScaleBlock, "before the norm")
class Tokens_scaled_first(Scaled):
    def forward(self, x):
        x = x + self.attn(self.norm1(x * self.scale1))
        return x + self.mlp(self.norm2(x * self.scale2))


@wrong(LayerScaleBlock, "factors swapped")
class Names_swapped(Scaled):
    def forward(self, x):
        x = x + self.scale2 * self.attn(self.norm1(x))
        return x + self.scale1 * self.mlp(self.norm2(x))


@wrong(LayerScaleBlock, "one factor for both")
class Copied_line(Scaled):
    def forward(self, x):
        x = x + self.scale1 * self.attn(self.norm1(x))
        return x + self.scale1 * self.mlp(self.norm2(x))


@wrong(LayerScaleBlock, "no factors")
class Factors_forgotten(Scaled):
    def forward(self, x):
        return vitlib.EncoderBlock.forward(self, x)

    drop_path = nn.Identity()


@wrong(LayerScaleBlock, "no residual")
class Branches_alone(Scaled):
    def forward(self, x):
        x = self.scale1 * self.attn(self.norm1(x))
        return self.scale2 * self.mlp(self.norm2(x))


@wrong(LayerScaleBlock, "first branch only")
class Second_factor_forgotten(Scaled):
    def forward(self, x):
        x = x + self.scale1 * self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@wrong(LayerScaleBlock, "one branch")
class Parallel_branches(Scaled):
    def forward(self, x):
        return (
            x
            + self.scale1 * self.attn(self.norm1(x))
            + self.scale2 * self.mlp(self.norm2(x)) ** 2
        )


@wrong(LayerScaleBlock, "shapes")
class One_number_for_a_branch(Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.scale1 = nn.Parameter(torch.tensor(0.1))
        self.scale2 = nn.Parameter(torch.tensor(0.1))


@wrong(LayerScaleBlock, "names")
class Plain_tensors(Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.scale1 = self.scale2 = torch.full((embed_dim,), 1e-4)


# fold_norm


@right(fold_norm)
def joined(weight, bias, gamma, beta):
    return torch.cat([weight * gamma, (bias + weight @ beta).unsqueeze(1)], dim=1)


@right(fold_norm)
def one_product(weight, bias, gamma, beta):
    e = len(gamma)
    norm = torch.cat([torch.diag(gamma), beta[:, None]], dim=1)
    last = torch.cat([torch.zeros_like(beta), torch.ones_like(beta[:1])])
    return weight @ norm + torch.outer(bias, last[: e + 1])


@right(fold_norm)
def asked_of_unit_vectors(weight, bias, gamma, beta):
    def layer(x):
        return F.linear(x * gamma + beta, weight, bias)

    zero = layer(torch.zeros_like(gamma))
    units = torch.eye(len(gamma), dtype=gamma.dtype)
    return torch.cat([(layer(units) - zero).T, zero[:, None]], dim=1)


@wrong(fold_norm, "beta not mapped")
def bias_as_it_was(weight, bias, gamma, beta):
    return torch.cat([weight * gamma, bias[:, None]], dim=1)


@wrong(fold_norm, "beta multiplied by gamma")
def new_weight_used_for_beta(weight, bias, gamma, beta):
    weight = weight * gamma
    return torch.cat([weight, (bias + weight @ beta)[:, None]], dim=1)


@wrong(fold_norm, "old bias lost")
def beta_for_bias(weight, bias, gamma, beta):
    return torch.cat([weight * gamma, (weight @ beta)[:, None]], dim=1)


@wrong(fold_norm, "gamma on the rows")
def rows_multiplied(weight, bias, gamma, beta):
    weight, moved = torch.diag(gamma) @ weight, weight @ beta
    return torch.cat([weight, (bias + moved)[:, None]], dim=1)


@wrong(fold_norm, "gamma left out")
def beta_alone(weight, bias, gamma, beta):
    return torch.cat([weight, (bias + weight @ beta)[:, None]], dim=1)


@wrong(fold_norm, "bias first")
def constant_in_front(weight, bias, gamma, beta):
    return joined(weight, bias, gamma, beta).roll(1, dims=1)


@wrong(fold_norm, "divided by gamma")
def undone(weight, bias, gamma, beta):
    return joined(weight, bias, 1 / gamma, beta)


@wrong(fold_norm, "bias")
def bias_multiplied_too(weight, bias, gamma, beta):
    return torch.cat([weight * gamma, ((bias + weight @ beta) * 2)[:, None]], dim=1)


@wrong(fold_norm, "weight")
def gamma_squared(weight, bias, gamma, beta):
    return joined(weight, bias, gamma.square(), beta)


@wrong(fold_norm, "crash")
def beta_added_to_the_bias(weight, bias, gamma, beta):
    return torch.cat([weight * gamma, (bias + beta)[:, None]], dim=1)


@wrong(fold_norm, "type")
def two_tensors(weight, bias, gamma, beta):
    return weight * gamma, bias + weight @ beta


@wrong(fold_norm, "one argument")
def beta_on_the_weight(weight, bias, gamma, beta):
    return torch.cat([weight * gamma + beta, bias[:, None]], dim=1)


# blocks_are_independent


def pairs(blocks):
    """Yield every pair of blocks."""
    blocks = list(blocks)
    for place, one in enumerate(blocks):
        for other in blocks[place + 1 :]:
            yield one, other


@right(blocks_are_independent)
def addresses_and_numbers(blocks):
    for one, other in pairs(blocks):
        places = {p.data_ptr() for p in one.parameters()}
        if any(p.data_ptr() in places for p in other.parameters()):
            return False
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            if p.ndim == 2 and torch.equal(p, q):
                return False
    return True


@right(blocks_are_independent)
def names_of_objects(blocks):
    owners = [id(p) for block in blocks for p in block.parameters()]
    starts = [block.mlp.fc1.weight.sum().item() for block in blocks]
    starts += [block.attn.qkv.weight.sum().item() for block in blocks]
    return len(set(owners)) == len(owners) and len(set(starts)) == len(starts)


@right(blocks_are_independent)
def change_one_and_look(blocks):
    blocks = list(blocks)
    for one, other in pairs(blocks):
        before = [p.detach().clone() for p in other.parameters()]
        mine = [p.detach().clone() for p in one.parameters()]
        if all(map(torch.equal, mine, before)):
            return False
        with torch.no_grad():
            for p in one.parameters():
                p.add_(1.0)
            same = all(map(torch.equal, other.parameters(), before))
            for p, old in zip(one.parameters(), mine, strict=True):
                p.copy_(old)
        if not same:
            return False
    return True


@wrong(blocks_are_independent, "copies")
def different_objects(blocks):
    return len({id(block) for block in blocks}) == len(blocks)


@wrong(blocks_are_independent, "fresh blocks refused", "pytorch/pytorch issue 86274")
def every_parameter_differs(blocks):
    return all(
        not torch.equal(p, q)
        for one, other in pairs(blocks)
        for p, q in zip(one.parameters(), other.parameters(), strict=True)
    )


@wrong(blocks_are_independent, "copies", "habla-liaa/encodecmae issue 3")
def no_parameter_twice(blocks):
    owners = [id(p) for block in blocks for p in block.parameters()]
    return len(set(owners)) == len(owners)


@wrong(blocks_are_independent, "copies far apart")
def neighbours_only(blocks):
    blocks = list(blocks)
    owners = [id(p) for block in blocks for p in block.parameters()]
    same = [
        torch.equal(a.mlp.fc1.weight, b.mlp.fc1.weight)
        for a, b in itertools.pairwise(blocks)
    ]
    return len(set(owners)) == len(owners) and not any(same)


@wrong(blocks_are_independent, "shared norm")
def weights_differ_in_numbers(blocks):
    return all(
        not torch.equal(one.get_parameter(name), other.get_parameter(name))
        for one, other in pairs(blocks)
        for name in ("attn.qkv.weight", "mlp.fc1.weight")
    )


@wrong(blocks_are_independent, "one block refused")
def asks_for_two(blocks):
    return len(blocks) > 1 and names_of_objects(blocks)


@wrong(blocks_are_independent, "always False")
def compares_each_with_itself(blocks):
    return not any(
        torch.equal(a.mlp.fc1.weight, b.mlp.fc1.weight) for a in blocks for b in blocks
    )


# block_effects


@right(block_effects)
def stream_kept(blocks, tokens):
    effects = []
    for block in blocks:
        change = block(tokens) - tokens
        effects.append((change.norm(dim=2) / tokens.norm(dim=2)).mean().detach())
        tokens = tokens + change
    return torch.stack(effects)


@right(block_effects)
def token_by_token_in_loops(blocks, tokens):
    effects = tokens.new_zeros(len(blocks))
    with torch.no_grad():
        for place, block in enumerate(blocks):
            after = block(tokens)
            for one, other in zip(
                tokens.flatten(0, 1), after.flatten(0, 1), strict=True
            ):
                effects[place] += (other - one).norm() / one.norm()
            effects[place] /= tokens.shape[0] * tokens.shape[1]
            tokens = after
    return effects


@right(block_effects)
def states_first(blocks, tokens):
    states = [tokens]
    for block in blocks:
        states.append(block(states[-1]))
    states = torch.stack(states)
    change = torch.linalg.vector_norm(states.diff(dim=0), dim=-1)
    return (change / torch.linalg.vector_norm(states[:-1], dim=-1)).mean(dim=(1, 2))


@wrong(block_effects, "each from the start")
def tokens_never_replaced(blocks, tokens):
    return torch.stack(
        [
            ((block(tokens) - tokens).norm(dim=-1) / tokens.norm(dim=-1)).mean()
            for block in blocks
        ]
    )


@wrong(block_effects, "change since the start")
def compared_with_the_input(blocks, tokens):
    now, effects = tokens, []
    for block in blocks:
        now = block(now)
        effects.append(((now - tokens).norm(dim=-1) / tokens.norm(dim=-1)).mean())
    return torch.stack(effects)


@wrong(block_effects, "not divided")
def size_of_the_change(blocks, tokens):
    effects = []
    for block in blocks:
        change = block(tokens) - tokens
        effects.append(change.norm(dim=-1).mean())
        tokens = tokens + change
    return torch.stack(effects)


@wrong(block_effects, "one norm for all tokens")
def norm_of_everything(blocks, tokens):
    effects = []
    for block in blocks:
        change = block(tokens) - tokens
        effects.append(change.norm() / tokens.norm())
        tokens = tokens + change
    return torch.stack(effects)


@wrong(block_effects, "ratio of lengths")
def growth(blocks, tokens):
    effects = []
    for block in blocks:
        after = block(tokens)
        effects.append((after.norm(dim=-1) / tokens.norm(dim=-1)).mean())
        tokens = after
    return torch.stack(effects)


@wrong(block_effects, "known effects")
def one_minus_cosine(blocks, tokens):
    effects = []
    for block in blocks:
        after = block(tokens)
        effects.append(1 - F.cosine_similarity(after, tokens, dim=-1).mean())
        tokens = after
    return torch.stack(effects)


@wrong(block_effects, "how it is averaged")
def middle_token(blocks, tokens):
    effects = []
    for block in blocks:
        change = block(tokens) - tokens
        ratio = change.norm(dim=-1) / tokens.norm(dim=-1)
        effects.append(ratio.median())
        tokens = tokens + change
    return torch.stack(effects)


@wrong(block_effects, "type")
def a_list_of_numbers(blocks, tokens):
    return stream_kept(blocks, tokens).tolist()


@wrong(block_effects, "shape")
def mean_over_the_blocks(blocks, tokens):
    return stream_kept(blocks, tokens).mean()
