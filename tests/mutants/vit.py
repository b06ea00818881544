"""Answers to the tasks of chapter 08."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import vitlib
from mutants.answers import right, wrong
from vitlib.checks.vit import (
    RegisterViT,
    ViT,
    count_flops,
    count_parameters,
    first_loss,
    uses_every_parameter,
    verdict,
    window_flops,
)

# ViT


class Short_attention(nn.Module):
    """Attention as short as it gets."""

    def __init__(self, e, h):
        super().__init__()
        self.h, self.scale = h, (e // h) ** -0.5
        self.qkv, self.proj = nn.Linear(e, 3 * e), nn.Linear(e, e)

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b t (x h d) -> x b h t d", x=3, h=self.h)
        weights = (q * self.scale @ k.mT).softmax(dim=-1)
        return self.proj(rearrange(weights @ v, "b h t d -> b t (h d)"))


class Short_block(nn.Module):
    """A block as short as it gets."""

    def __init__(self, e, h):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(e, eps=1e-6), Short_attention(e, h)
        self.norm2, self.mlp = nn.LayerNorm(e, eps=1e-6), vitlib.MLP(e, 4 * e)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Short(nn.Module):
    """A ViT whose steps can be replaced."""

    def __init__(self, n, p, e, depth, h, classes, in_channels=3):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_channels, e, p, stride=p)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, e))
        self.pos_embed = nn.Parameter(torch.zeros(1, n + 1, e))
        self.blocks = nn.Sequential(*(Short_block(e, h) for _ in range(depth)))
        self.norm = nn.LayerNorm(e, eps=1e-6)
        self.head = nn.Linear(e, classes)

    def embed(self, images):
        return self.patch_embed.proj(images).flatten(2).transpose(1, 2)

    def enter(self, x):
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed

    def encode(self, x):
        return self.blocks(x)

    def score(self, x):
        return self.head(self.norm(x[:, 0]))

    def forward(self, images):
        return self.score(self.encode(self.enter(self.embed(images))))


@right(ViT)
class As_in_the_chapter(Short):
    pass


@right(ViT)
class Built_from_a_configuration(nn.Module):
    def __init__(self, config):
        super().__init__()
        e = config.embed_dim
        self.patch_embed = vitlib.PatchEmbed(
            image_size=config.image_size,
            patch_size=config.patch_size,
            in_channels=config.in_channels,
            embed_dim=e,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, e))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, e))
        self.blocks = nn.ModuleList(
            vitlib.EncoderBlock(e, config.num_heads, fused=True)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(e, eps=1e-6)
        self.head = nn.Linear(e, config.num_classes)

    def forward(self, images):
        x = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


@right(ViT)
class Sizes_by_keyword(vitlib.ViT):
    def __init__(
        self, image_size, patch_size, num_classes, embed_dim, num_heads, depth
    ):
        super().__init__(
            vitlib.ViTConfig(
                image_size=image_size,
                patch_size=patch_size,
                num_classes=num_classes,
                embed_dim=embed_dim,
                num_heads=num_heads,
                depth=depth,
            )
        )


@wrong(ViT, "no positions")
class Positions_forgotten(Short):
    def enter(self, x):
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)


@wrong(
    ViT,
    "class token without a position",
    "labmlai/annotated_deep_learning_paper_implementations PR 221",
)
class Positions_before_the_class_token(Short):
    def enter(self, x):
        x = x + self.pos_embed[:, 1:]
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)


@wrong(ViT, "shapes", "pytorch/examples issue 1178")
class One_row_an_image(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        self.pos_embed = nn.Parameter(torch.randn(64, 1, e))


@wrong(ViT, "reads token 1", "lucidrains/vit-pytorch issue 18")
class Reads_token_1(Short):
    def score(self, x):
        return self.head(self.norm(x[:, 1]))


@wrong(ViT, "norm before the mean", "lucidrains/vit-pytorch issue 226")
class Mean_with_the_class_token(Short):
    def score(self, x):
        return self.head(self.norm(x).mean(dim=1))


@wrong(ViT, "reshape, no transpose", "duoan/TorchCode issue 21")
class Scrambled_patches(Short):
    def embed(self, images):
        x = self.patch_embed.proj(images)
        return x.reshape(len(x), -1, self.cls_token.shape[-1])


@wrong(ViT, "columns first", "facebookresearch/dinov2 issue 504")
class Height_and_width_swapped(Short):
    def embed(self, images):
        return self.patch_embed.proj(images).transpose(2, 3).flatten(2).mT


@wrong(ViT, "no last norm")
class Norm_forgotten(Short):
    def score(self, x):
        return self.head(x[:, 0])


@wrong(ViT, "softmax at the end")
class Returns_probabilities(Short):
    def score(self, x):
        return F.softmax(super().score(x), dim=1)


@wrong(ViT, "all tokens scored")
class Scores_for_every_token(Short):
    def score(self, x):
        return self.head(self.norm(x))


@wrong(ViT, "one block only")
class Result_of_each_block_overwritten(Short):
    def encode(self, x):
        for block in self.blocks:
            result = block(x)
        return result


@wrong(ViT, "one block again and again")
class The_same_block(Short):
    def encode(self, x):
        for _ in self.blocks:
            x = self.blocks[0](x)
        return x


@wrong(ViT, "blocks backwards")
class Last_block_first(Short):
    def encode(self, x):
        for block in reversed(self.blocks):
            x = block(x)
        return x


@wrong(ViT, "positions too late")
class Positions_behind_the_blocks(Short):
    def enter(self, x):
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)

    def encode(self, x):
        return self.blocks(x) + self.pos_embed


@wrong(ViT, "other eps")
class Eps_as_it_comes(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5


@wrong(ViT, "names")
class Blocks_in_a_list(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        self.layers = list(self.blocks)
        del self.blocks


@wrong(ViT, "same scores")
class Class_token_without_attention(Short):
    def encode(self, x):
        for block in self.blocks:
            x = torch.cat([block(x[:, :1]), block(x[:, 1:])], dim=1)
        return x


@wrong(ViT, "batch mixed")
class Class_token_of_the_batch(Short):
    def score(self, x):
        mean = x[:, 0].mean(dim=0, keepdim=True)
        return self.head(self.norm(x[:, 0] - mean / 2))


@wrong(ViT, "patches")
class Pixels_divided_by_255(Short):
    def embed(self, images):
        return super().embed(images / 255)


@wrong(ViT, "class token or head")
class Class_token_added_to_the_mean(Short):
    def enter(self, x):
        first = x.mean(dim=1, keepdim=True) + self.cls_token
        return torch.cat([first, x], dim=1) + self.pos_embed


@wrong(ViT, "blocks")
class Tokens_normalised_before_the_blocks(Short):
    def enter(self, x):
        return super().enter(F.layer_norm(x, x.shape[-1:]))


# first_loss


@right(first_loss)
class Head_as_pytorch_starts_it(Short):
    pass


@right(first_loss)
class Head_of_zeros(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


@right(first_loss)
class Quiet_head_and_loud_positions(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        nn.init.normal_(self.pos_embed)
        nn.init.trunc_normal_(self.head.weight, std=0.02)


@wrong(first_loss, "loud scores")
class Head_of_unit_normals(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        nn.init.normal_(self.head.weight)


@wrong(first_loss, "one class preferred")
class Head_with_a_large_bias(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.normal_(self.head.bias, std=5)


@wrong(first_loss, "softmax at the end")
class Probabilities(Short):
    def score(self, x):
        return super().score(x).softmax(dim=-1)


@wrong(first_loss, "shape")
class One_class_too_many(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes + 1)


@wrong(first_loss, "shape")
class Every_token_scored(Short):
    def score(self, x):
        return self.head(self.norm(x))


@wrong(first_loss, "nan")
class Table_never_filled(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        # What torch.empty may hold.
        self.pos_embed = nn.Parameter(torch.full((1, n + 1, e), math.nan))


@wrong(first_loss, "one class preferred")
class No_last_norm_and_loud_positions(Short):
    def __init__(self, n, p, e, depth, h, classes):
        super().__init__(n, p, e, depth, h, classes)
        nn.init.normal_(self.pos_embed, std=30)

    def score(self, x):
        return self.head(x[:, 0])


# count_parameters


def add_up(config, *, patches=1, cls=1, pos=None, qkv=3, proj=1, norms=1, head=1):
    """Add up parameters; some parts may be counted otherwise."""
    e, c, p = config.embed_dim, config.in_channels, config.patch_size
    pos = config.num_tokens if pos is None else pos
    block = qkv * (e * e + e) + proj * (e * e + e)
    block += e * 4 * e + 4 * e + 4 * e * e + e + norms * 4 * e
    total = patches * (c * p * p * e + e) + cls * e + pos * e
    total += config.depth * block + norms * 2 * e
    return total + head * (e * config.num_classes + config.num_classes)


@right(count_parameters)
def by_pencil(config):
    return add_up(config)


@right(count_parameters)
def by_building_it(config):
    with torch.device("meta"):
        model = vitlib.ViT(config)
    return sum(parameter.numel() for parameter in model.parameters())


@right(count_parameters)
def powers_of_e(config):
    e, p = config.embed_dim, config.patch_size
    total = torch.tensor(12 * config.depth * e**2)
    linear = 13 * config.depth + config.in_channels * p**2 + config.num_tokens + 4
    return total + (linear + config.num_classes) * e + config.num_classes


@right(count_parameters)
def as_a_float(config):
    return add_up(config) / 1.0


@wrong(
    count_parameters,
    "class token and positions missing",
    "Lyken17/pytorch-OpCounter issue 197",
)
def modules_without_children(config):
    with torch.device("meta"):
        model = vitlib.ViT(config)
    return sum(
        parameter.numel()
        for module in model.modules()
        if not list(module.children())
        for parameter in module.parameters()
    )


@wrong(
    count_parameters,
    "class token and positions missing",
    "sksq96/pytorch-summary issue 148",
)
def layers_alone(config):
    with torch.device("meta"):
        model = vitlib.ViT(config)
    layers = (nn.Linear, nn.Conv2d, nn.LayerNorm)
    return sum(
        parameter.numel()
        for module in model.modules()
        if isinstance(module, layers)
        for parameter in module.parameters()
    )


@wrong(count_parameters, "one vector missing")
def positions_of_patches(config):
    return add_up(config, pos=config.num_patches)


@wrong(count_parameters, "no biases")
def weights_only(config):
    with torch.device("meta"):
        model = vitlib.ViT(config)
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.endswith("bias") or "norm" in name
    )


@wrong(count_parameters, "one of q, k and v")
def one_matrix_for_three(config):
    return add_up(config, qkv=1)


@wrong(count_parameters, "one block only")
def depth_forgotten(config):
    rest = add_up(config) - vitlib.count_parameters(config)
    with torch.device("meta"):
        model = vitlib.ViT(config)
    block = sum(parameter.numel() for parameter in model.blocks[0].parameters())
    return add_up(config) + rest - (config.depth - 1) * block


@wrong(count_parameters, "head missing")
def without_the_head(config):
    return add_up(config, head=0)


@wrong(count_parameters, "norms missing")
def norms_forgotten(config):
    return add_up(config, norms=0)


@wrong(count_parameters, "millions")
def in_millions(config):
    return add_up(config) / 10**6


@wrong(count_parameters, "a part")
def head_twice(config):
    return add_up(config, head=2)


@wrong(count_parameters, "a few vectors")
def two_class_tokens(config):
    return add_up(config, cls=4)


@wrong(count_parameters, "type")
def a_table(config):
    return {"total": add_up(config)}


# count_flops


def operations(config, *, t=None, factor=2, products=2, qkv=3, mlp=2, patches=1):
    """Add up operations; some parts may be counted otherwise."""
    e, n = config.embed_dim, config.num_patches
    t = config.num_tokens if t is None else t
    p = config.patch_size
    block = t * (qkv + 1) * e * e + products * t * t * e + mlp * t * 4 * e * e
    total = patches * n * config.in_channels * p * p * e + config.depth * block
    return factor * (total + e * config.num_classes)


@right(count_flops)
def by_formula(config):
    return operations(config)


@right(count_flops)
def matrix_by_matrix(config):
    e, t, h = config.embed_dim, config.num_tokens, config.num_heads

    def product(rows, inner, cols):
        return sum(2 * inner for _ in range(1)) * rows * cols

    block = product(t, e, 3 * e) + product(t, e, e) + 2 * product(t, e, 4 * e)
    block += h * product(t, e // h, t) + h * product(t, t, e // h)
    patch = config.in_channels * config.patch_size**2
    embed = product(config.num_patches, patch, e)
    return embed + config.depth * block + product(1, e, config.num_classes)


@right(count_flops)
def multiply_adds_doubled(config):
    return 2 * operations(config, factor=1)


@wrong(count_flops, "multiply-adds")
def one_for_both(config):
    return operations(config, factor=1)


@wrong(count_flops, "no attention products")
def weights_alone(config):
    return operations(config, products=0)


@wrong(count_flops, "one attention product")
def scores_alone(config):
    return operations(config, products=1)


@wrong(count_flops, "class token forgotten")
def tokens_are_patches(config):
    return operations(config, t=config.num_patches)


@wrong(count_flops, "one of q, k and v")
def one_third_of_qkv(config):
    return operations(config, qkv=1)


@wrong(count_flops, "one layer of the MLP")
def widening_only(config):
    return operations(config, mlp=1)


@wrong(count_flops, "heads multiply")
def every_head_whole(config):
    return operations(config, products=2 * config.num_heads)


@wrong(count_flops, "a part")
def embedding_forgotten(config):
    return operations(config, patches=0)


@wrong(count_flops, "count")
def three_operations(config):
    return operations(config, factor=3)


@wrong(count_flops, "crash")
def a_name_that_is_not_there(config):
    return 2 * config.num_token * config.embed_dim


@wrong(ViT, "one block only", "simon-ging/coot-videotext issue 5")
class Loop_that_starts_anew(Short):
    def encode(self, x):
        out = None
        for block in self.blocks:
            out = block(x)
        return out


# window_flops


@right(window_flops)
def pairs_of_all_windows(grid_size, window, embed_dim):
    rows, cols = grid_size
    windows = (rows // window) * (cols // window)
    return 2 * 2 * windows * (window * window) ** 2 * embed_dim


@right(window_flops)
def token_by_token(grid_size, window, embed_dim):
    tokens = grid_size[0] * grid_size[1]
    return sum(4 * window**2 * embed_dim for _ in range(tokens))


@right(window_flops)
def in_floats(grid_size, window, embed_dim):
    return 4.0 * grid_size[0] * grid_size[1] * window * window * embed_dim


@wrong(window_flops, "every pair")
def no_windows(grid_size, window, embed_dim):
    tokens = grid_size[0] * grid_size[1]
    return 2 * 2 * tokens * tokens * embed_dim


@wrong(window_flops, "one window only")
def tokens_of_a_window_squared(grid_size, window, embed_dim):
    tokens = window**2
    return 4 * tokens**2 * embed_dim


@wrong(window_flops, "side for area")
def window_tokens_in_a_row(grid_size, window, embed_dim):
    return 4 * grid_size[0] * grid_size[1] * embed_dim * window


@wrong(window_flops, "scores alone")
def one_product_of_two(grid_size, window, embed_dim):
    return pairs_of_all_windows(grid_size, window, embed_dim) // 2


@wrong(window_flops, "multiply-adds of one product")
def pairs_times_length(grid_size, window, embed_dim):
    return grid_size[0] * grid_size[1] * window**2 * embed_dim


@wrong(window_flops, "square grids only")
def square_grids_only(grid_size, window, embed_dim):
    return 4 * grid_size[0] ** 2 * window**2 * embed_dim


@wrong(window_flops, "count")
def three_products(grid_size, window, embed_dim):
    return 6 * grid_size[0] * grid_size[1] * window**2 * embed_dim


# RegisterViT


class Registered(Short):
    """A short ViT with registers."""

    def __init__(self, n, p, e, depth, h, classes, num_registers):
        super().__init__(n, p, e, depth, h, classes)
        self.registers = nn.Parameter(torch.zeros(1, num_registers, e))

    def rows(self, x):
        """Return the registers for every image."""
        return self.registers.repeat(len(x), 1, 1)


@right(RegisterViT)
class Registers_last(Registered):
    def enter(self, x):
        return torch.cat([super().enter(x), self.rows(x)], dim=1)


@right(RegisterViT)
class Registers_behind_the_class_token(Registered):
    def enter(self, x):
        x = super().enter(x)
        return torch.cat([x[:, :1], self.rows(x), x[:, 1:]], dim=1)


@right(RegisterViT)
class Registers_first_and_skipped(Registered):
    def enter(self, x):
        return torch.cat([self.rows(x), super().enter(x)], dim=1)

    def score(self, x):
        return super().score(x[:, self.registers.shape[1] :])


@right(RegisterViT)
class From_the_library(vitlib.ViT):
    def __init__(self, config, num_registers):
        super().__init__(config)
        self.registers = nn.Parameter(torch.randn(1, num_registers, config.embed_dim))

    def forward(self, images):
        x = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        x = x + self.pos_embed
        x = torch.cat([x, self.registers.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


@wrong(RegisterViT, "a register is read")
class Registers_in_front(Registered):
    def enter(self, x):
        return torch.cat([self.rows(x), super().enter(x)], dim=1)


@wrong(RegisterViT, "registers averaged in")
class Mean_of_all(Registers_last):
    def score(self, x):
        return self.head(self.norm(x.mean(dim=1)))


@wrong(RegisterViT, "the last register is read")
class Last_token_read(Registers_last):
    def score(self, x):
        return self.head(self.norm(x)[:, -1])


@wrong(RegisterViT, "mean of the patches")
class Patches_averaged(Registers_last):
    def score(self, x):
        n = self.pos_embed.shape[1]
        return self.head(self.norm(x[:, 1:n].mean(dim=1)))


@wrong(RegisterViT, "class token without a position")
class Positions_of_patches_alone(Registered):
    def enter(self, x):
        cls = self.cls_token.expand(len(x), -1, -1)
        return torch.cat([cls, self.rows(x), x + self.pos_embed[:, 1:]], dim=1)


@wrong(RegisterViT, "registers without effect")
class Registers_shut_out(Registers_last):
    def encode(self, x):
        n = self.pos_embed.shape[1]
        rest = x[:, n:]
        return torch.cat([super().encode(x[:, :n]).abs(), rest], dim=1)


@wrong(RegisterViT, "registers left out")
class Registers_never_used(Registered):
    pass


@wrong(RegisterViT, "registers renewed")
class Fresh_ones_for_every_block(Registered):
    def encode(self, x):
        for block in self.blocks:
            x = block(torch.cat([x, self.rows(x)], dim=1))[:, : x.shape[1]]
        return x


@wrong(RegisterViT, "registers added")
class Sum_of_the_registers(Registered):
    def enter(self, x):
        return super().enter(x) + self.registers.sum(1, keepdim=True)


@wrong(RegisterViT, "one register only")
class First_register_only(Registered):
    def enter(self, x):
        return torch.cat([super().enter(x), self.rows(x)[:, :1]], dim=1)


@wrong(RegisterViT, "crash")
class Batch_of_one(Registered):
    def enter(self, x):
        return torch.cat([super().enter(x), self.registers], dim=1)


@wrong(RegisterViT, "shapes")
class Positions_for_all(Registered):
    def __init__(self, n, p, e, depth, h, classes, num_registers):
        super().__init__(n, p, e, depth, h, classes, num_registers)
        self.pos_embed = nn.Parameter(torch.zeros(1, n + 1 + num_registers, e))


@wrong(RegisterViT, "class token or head")
class Head_of_class_token_and_register(Registers_last):
    def score(self, x):
        return self.head(self.norm(x[:, 0] + x[:, -1]))


@wrong(RegisterViT, "registers for one block")
class Registers_cut_inside_the_loop(From_the_library):
    def forward(self, images):
        x = vitlib.prepend_cls_token(self.patch_embed(images), self.cls_token)
        x = x + self.pos_embed
        count = x.shape[1]
        x = torch.cat([x, self.registers.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)[:, :count]
        return self.head(self.norm(x[:, 0]))


# uses_every_parameter


def shaken(model):
    """Return a copy with other numbers."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return model.zero_grad() or model


@right(uses_every_parameter)
def gradients_of_a_shaken_copy(model, images):
    model = shaken(model)
    model(images).square().sum().backward()
    return all(p.grad is not None and p.grad.any() for p in model.parameters())


@right(uses_every_parameter)
def change_each_and_look(model, images):
    model = shaken(model)
    with torch.no_grad():
        before = model(images)
        for parameter in model.parameters():
            old = parameter.clone()
            parameter.copy_(torch.randn_like(old) * 3)
            if torch.allclose(model(images), before, atol=1e-6):
                return False
            parameter.copy_(old)
    # A change can go through where no gradient comes back.
    return gradients_of_a_shaken_copy(model, images)


@right(uses_every_parameter)
def autograd_with_unused_allowed(model, images):
    model = shaken(model)
    wanted = list(model.parameters())
    grads = torch.autograd.grad(model(images).sum(), wanted, allow_unused=True)
    return not any(grad is None or grad.abs().max() == 0 for grad in grads)


@wrong(uses_every_parameter, "fresh model refused")
def gradients_as_they_are(model, images):
    model(images).sum().backward()
    return all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


@wrong(uses_every_parameter, "no positions")
def layers_only(model, images):
    model = shaken(model)
    model(images).sum().backward()
    return all(
        p.grad is not None and p.grad.any()
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.LayerNorm | nn.Conv2d)
        for p in layer.parameters(recurse=False)
    )


@wrong(uses_every_parameter, "cut off")
def changes_alone(model, images):
    model = shaken(model)
    with torch.no_grad():
        before = model(images)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 3)
            after, before = model(images), before
            if torch.equal(after, before):
                return False
            before = after
    return True


@wrong(uses_every_parameter, "always False")
def every_number(model, images):
    model = shaken(model)
    model.head.bias.requires_grad_(False)
    model(images).sum().backward()
    return all(p.grad is not None and p.grad.all() for p in model.parameters())


@wrong(uses_every_parameter, "always True")
def does_it_require_gradients(model, images):
    return all(p.requires_grad for p in model.parameters())


@wrong(uses_every_parameter, "always False")
def gradients_never_taken(model, images):
    model(images)
    return all(p.grad is not None for p in model.parameters())


@wrong(uses_every_parameter, "crash")
def gradient_of_none(model, images):
    model = shaken(model)
    model(images).sum().backward()
    return all(p.grad.abs().sum() > 0 for p in model.parameters())


# verdict


@right(verdict)
def do_ranges_touch(first, second):
    if min(first) > max(second):
        return "first"
    if max(first) < min(second):
        return "second"
    return "tie"


@right(verdict)
def every_pair(first, second):
    if all(a > b for a in first for b in second):
        return "first"
    return "second" if all(a < b for a in first for b in second) else "tie"


@right(verdict)
def sorted_lists(first, second):
    one, other = sorted(first), sorted(second)
    apart = {one[0] - other[-1] > 0: "first", other[0] - one[-1] > 0: "second"}
    return apart.get(True, "tie")


@wrong(verdict, "means")
def larger_mean(first, second):
    one, other = np.mean(first), np.mean(second)
    if np.isclose(one, other):
        return "tie"
    return "first" if one > other else "second"


@wrong(verdict, "best seeds")
def larger_maximum(first, second):
    one, other = max(first), max(second)
    return "tie" if one == other else "first" if one > other else "second"


@wrong(verdict, "worst seeds")
def larger_minimum(first, second):
    one, other = min(first), min(second)
    return "tie" if one == other else "first" if one > other else "second"


@wrong(verdict, "seed by seed")
def wins_on_every_seed(first, second):
    pairs = list(zip(first, second, strict=False))
    if all(a > b for a, b in pairs):
        return "first"
    return "second" if not any(a > b for a, b in pairs) else "tie"


@wrong(verdict, "touching is apart")
def not_strictly(first, second):
    if min(first) >= max(second):
        return "first"
    return "second" if max(first) <= min(second) else "tie"


@wrong(verdict, "swapped")
def losses_for_accuracies(first, second):
    return do_ranges_touch([-a for a in first], [-b for b in second])


@wrong(verdict, "other rule")
def more_than_two_points(first, second):
    gap = np.mean(first) - np.mean(second)
    return "tie" if abs(gap) < 0.06 else "first" if gap > 0 else "second"


@wrong(verdict, "not symmetric")
def first_or_tie(first, second):
    return "first" if min(first) > max(second) else "tie"


@wrong(verdict, "type")
def none_for_a_tie(first, second):
    if min(first) > max(second):
        return "first"
    if max(first) < min(second):
        return "second"
    return None
