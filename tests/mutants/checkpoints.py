"""Answers to the exercises of chapter 09."""

import re

import torch
import torch.nn.functional as F
from einops import rearrange

from mutants.answers import right, wrong
from vitlib.checks.checkpoints import find_eps, fold_pixels, is_faithful, rename

# rename

TOP = {"stem": "patch_embed.proj", "post": "norm", "out": "head"}
LAYER = {
    "pre": "norm1",
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "post": "norm2",
    "submodule.up": "mlp.fc1",
    "submodule.down": "mlp.fc2",
}


@right(rename)
def split_at_the_dots(state):
    result = {}
    for name, value in state.items():
        _, *words, part = name.split(".")
        if words[0] == "layers":
            row = f"blocks.{int(words[1]) - 1}.{LAYER['.'.join(words[2:])]}"
        else:
            row = TOP[words[0]]
        result[f"{row}.{part}"] = value
    return result


@right(rename)
def a_table_written_out(state):
    table = {}
    for part in ("weight", "bias"):
        for theirs, ours in TOP.items():
            table[f"module.{theirs}.{part}"] = f"{ours}.{part}"
        for i in range(100):
            for theirs, ours in LAYER.items():
                table[f"module.layers.{i + 1}.{theirs}.{part}"] = (
                    f"blocks.{i}.{ours}.{part}"
                )
    return {table[name]: state[name] for name in sorted(state)}


@right(rename)
def patterns(state):
    def ours(name):
        name = re.sub(r"^module\.", "", name)
        for theirs, word in TOP.items():
            name = re.sub(rf"^{theirs}\.", f"{word}.", name)
        for theirs, word in LAYER.items():
            name = re.sub(
                rf"^layers\.(\d+)\.{re.escape(theirs)}\.",
                lambda m, word=word: f"blocks.{int(m[1]) - 1}.{word}.",
                name,
            )
        return name

    return {ours(name): value.clone() for name, value in state.items()}


def renamed(change):
    """Return an answer that changes names of the right answer, or the state first."""

    def answer(state):
        return {
            change(theirs, ours): value
            for (theirs, value), ours in zip(
                state.items(), split_at_the_dots(state), strict=True
            )
        }

    return answer


@wrong(rename, "prefix kept")
def keeps_module(state):
    return renamed(lambda theirs, ours: f"module.{ours}")(state)


@wrong(rename, "counted from 1")
def number_as_it_is(state):
    def change(theirs, ours):
        return re.sub(r"\d+(?=\.)", lambda m: str(int(m[0]) + 1), ours, count=1)

    return renamed(change)(state)


@wrong(rename, "letters lost", "karpathy/nanochat PR 234")
def lstrip_of_module(state):
    result = {}
    for name, value in state.items():
        name = name.lstrip("module.")
        for theirs, ours in TOP.items():
            if name.startswith(theirs):
                name = name.replace(theirs, ours, 1)
        for theirs, ours in LAYER.items():
            name = re.sub(
                rf"layers\.(\d+)\.{theirs}\.",
                lambda m, ours=ours: f"blocks.{int(m[1]) - 1}.{ours}.",
                name,
            )
        result[name] = value
    return result


@wrong(rename, "name", "facebookresearch/mmf PR 47")
def module_replaced_everywhere(state):
    def change(theirs, ours):
        bare = theirs.replace("module.", "")
        row = bare.split(".", 2)[-1].rsplit(".", 1)[0]
        return ours if row in LAYER or not bare.startswith("layers") else bare

    return renamed(change)(state)


@wrong(rename, "two digits")
def replaced_number_by_number(state):
    result = {}
    for name, value in state.items():
        name = name.removeprefix("module.")
        if name.startswith("layers."):
            for theirs, ours in LAYER.items():
                name = name.replace(f".{theirs}.", f".{ours}.")
            for i in range(1, 13):
                name = name.replace(f"layers.{i}", f"blocks.{i - 1}")
        else:
            word = name.split(".")[0]
            name = name.replace(word, TOP[word], 1)
        result[name] = value
    return result


@wrong(rename, "out is one thing")
def out_is_the_head(state):
    def change(theirs, ours):
        return ours.replace("attn.proj", "head").replace("norm2", "norm")

    return renamed(change)(state)


@wrong(rename, "lost")
def only_weights(state):
    kept = {name: value for name, value in state.items() if name.endswith("weight")}
    return split_at_the_dots(kept)


@wrong(rename, "two digits")
def last_digit_only(state):
    def change(theirs, ours):
        return re.sub(r"blocks\.\d*(\d)\.", r"blocks.\1.", ours)

    return renamed(change)(state)


@wrong(rename, "norms swapped")
def post_is_norm1(state):
    table = LAYER | {"pre": "norm2", "post": "norm1"}
    result = {}
    for name, value in state.items():
        _, *words, part = name.split(".")
        row = TOP.get(words[0])
        if words[0] == "layers":
            row = f"blocks.{int(words[1]) - 1}.{table['.'.join(words[2:])]}"
        result[f"{row}.{part}"] = value
    return result


@wrong(rename, "tensor under another name")
def up_and_down_swapped(state):
    def change(theirs, ours):
        return ours.translate(str.maketrans("", "")).replace(
            *(("fc1", "fc2") if "fc1" in ours else ("fc2", "fc1"))
        )

    return renamed(change)(state)


@wrong(rename, "tensor under another name")
def layers_from_the_end(state):
    depth = sum(".pre.weight" in name for name in state)

    def change(theirs, ours):
        return re.sub(
            r"blocks\.(\d+)", lambda m: f"blocks.{depth - 1 - int(m[1])}", ours
        )

    return renamed(change)(state)


@wrong(rename, "in place")
def pops_the_old_names(state):
    result = split_at_the_dots(state)
    for name in list(state):
        state.pop(name)
    return result


@wrong(rename, "type")
def names_alone(state):
    return list(split_at_the_dots(state))


@wrong(rename, "counted from 1")
def replaced_word_by_word(state):
    words = {
        "module.": "",
        "stem": "patch_embed.proj",
        "layers": "blocks",
        "pre": "norm1",
        "post": "norm2",
        "qkv": "attn.qkv",
        "out": "attn.proj",
        "submodule.up": "mlp.fc1",
        "submodule.down": "mlp.fc2",
    }
    renamed = {}
    for name, value in state.items():
        for theirs, ours in words.items():
            name = name.replace(theirs, ours)
        renamed[name] = value
    return renamed


# fold_pixels


@right(fold_pixels)
def shift_by_the_folded_kernel(weight, bias, mean, std):
    kernel = weight / std.view(1, -1, 1, 1)
    return kernel, bias - torch.einsum("ecpq,c->e", kernel, mean)


@right(fold_pixels)
def asks_the_convolution(weight, bias, mean, std):
    black = (-mean / std)[None, :, None, None].expand(1, *weight.shape[1:])
    shift = F.conv2d(black, weight, bias)[0, :, 0, 0]
    return weight * (1 / std)[:, None, None], shift


@right(fold_pixels)
def channel_by_channel(weight, bias, mean, std):
    kernel, shift = weight.clone(), bias.clone()
    for c in range(len(mean)):
        kernel[:, c] = weight[:, c] / std[c]
        shift = shift - kernel[:, c].sum(dim=(1, 2)) * mean[c]
    return [kernel, shift]


@wrong(fold_pixels, "bias kept")
def only_the_scale(weight, bias, mean, std):
    return weight / std[:, None, None], bias


@wrong(fold_pixels, "sign")
def adds_the_mean(weight, bias, mean, std):
    kernel = weight / std[:, None, None]
    return kernel, bias + torch.einsum("ecpq,c->e", kernel, mean)


@wrong(fold_pixels, "mean not divided")
def bias_by_the_old_kernel(weight, bias, mean, std):
    shift = torch.einsum("ecpq,c->e", weight, mean)
    return weight / std[:, None, None], bias - shift


@wrong(fold_pixels, "multiplied")
def std_on_the_wrong_side(weight, bias, mean, std):
    kernel = weight * std.view(-1, 1, 1)
    return kernel, bias - (kernel * mean.view(-1, 1, 1)).sum((1, 2, 3))


@wrong(fold_pixels, "divided twice")
def std_twice(weight, bias, mean, std):
    kernel = weight / std[:, None, None]
    return kernel, bias - torch.einsum("ecpq,c->e", kernel, mean / std)


@wrong(fold_pixels, "one pixel only")
def mean_of_the_kernel(weight, bias, mean, std):
    kernel = weight / std[:, None, None]
    return kernel, bias - kernel.mean(dim=(2, 3)) @ mean


@wrong(fold_pixels, "weight")
def one_std_for_all(weight, bias, mean, std):
    kernel = weight / std.mean()
    return kernel, bias - (kernel * mean[:, None, None]).sum((1, 2, 3))


@wrong(fold_pixels, "bias")
def one_mean_for_all(weight, bias, mean, std):
    kernel = weight / std[:, None, None]
    return kernel, bias - kernel.sum((1, 2, 3)) * mean.mean()


@wrong(fold_pixels, "shape")
def std_along_the_last_axis(weight, bias, mean, std):
    kernel = weight / std
    return kernel, bias - (kernel * mean).sum((1, 2, 3))


@wrong(fold_pixels, "shape")
def flat_kernel(weight, bias, mean, std):
    kernel, shift = shift_by_the_folded_kernel(weight, bias, mean, std)
    return kernel.flatten(1), shift


@wrong(fold_pixels, "in place")
def divides_the_weight_itself(weight, bias, mean, std):
    weight /= std[:, None, None]
    return weight, bias - torch.einsum("ecpq,c->e", weight, mean)


@wrong(fold_pixels, "type")
def weight_alone(weight, bias, mean, std):
    return weight / std[:, None, None]


# find_eps


@right(find_eps)
def three_questions(norm, embed_dim):
    token = torch.zeros(1, embed_dim)
    token[0, 0], token[0, 1] = 1.0, -1.0
    shift = norm(0 * token)[0, 0]
    loud = norm(1e4 * token)[0, 0] - shift
    # A large token tells the scale; here the variance is 2 / e of the square.
    scale = loud / (embed_dim / 2) ** 0.5
    y = ((norm(1e-6 * token)[0, 0] - shift) / scale).double()
    return float((1e-6 / y) ** 2 - 1e-12 * 2 / embed_dim)


@right(find_eps)
def mirrored_tokens(norm, embed_dim):
    token = torch.linspace(-1, 1, embed_dim, dtype=torch.float64)
    double = norm(torch.stack([1e5 * token, -1e5 * token]))
    quiet = norm(torch.stack([1e-7 * token, -1e-7 * token]))
    share = (quiet[0] - quiet[1])[0] / (double[0] - double[1])[0]
    variance = 1e-14 * token.square().mean()
    return variance / share**2 - variance


@right(find_eps)
def compared_with_layer_norm(norm, embed_dim):
    token = torch.linspace(-1, 1, embed_dim, dtype=torch.float64)
    shift, loud, quiet = norm(torch.stack([0 * token, 1e6 * token, 1e-6 * token]))
    share = (quiet - shift).norm() / (loud - shift).norm()

    def gap(power):
        own = F.layer_norm(1e-6 * token, (embed_dim,), eps=10.0**power)
        full = F.layer_norm(1e6 * token, (embed_dim,), eps=10.0**power)
        return own.norm() / full.norm() - share

    low, high = -14.0, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gap(middle) > 0 else (low, middle)
    return 10.0**low


@wrong(find_eps, "the root")
def forgets_the_square(norm, embed_dim):
    return three_questions(norm, embed_dim) ** 0.5


@wrong(find_eps, "the eps of timm")
def looked_up(norm, embed_dim):
    return 1e-6


@wrong(find_eps, "the eps of nn.LayerNorm")
def the_default(norm, embed_dim):
    return torch.nn.LayerNorm(embed_dim).eps


@wrong(find_eps, "another eps")
def an_ordinary_token(norm, embed_dim):
    token = torch.linspace(-1, 1, embed_dim)
    shift, loud, y = norm(torch.stack([0 * token, 1e4 * token, token]))
    share = (y - shift)[0] / (loud - shift)[0]
    variance = token.var(correction=0)
    return (variance / share**2 - variance).item()


@wrong(find_eps, "scale")
def no_scale(norm, embed_dim):
    token = torch.linspace(-1, 1, embed_dim, dtype=torch.float64)
    y = norm(1e-8 * token) - norm(0 * token)
    return ((1e-8 * token[0] / y[0]) ** 2).item() - 1e-16 * token.square().mean().item()


@wrong(find_eps, "shift")
def no_shift(norm, embed_dim):
    token = torch.linspace(-1, 1, embed_dim, dtype=torch.float64)
    share = norm(1e-6 * token)[0] / norm(1e6 * token)[0]
    variance = 1e-12 * token.square().mean()
    return (variance / share**2 - variance).item()


@wrong(find_eps, "variance by e - 1")
def default_var(norm, embed_dim):
    token = torch.linspace(-1, 1, embed_dim, dtype=torch.float64)
    shift, loud, quiet = norm(torch.stack([0 * token, 1e6 * token, 1e-6 * token]))
    share = (quiet - shift)[0] / (loud - shift)[0]
    variance = (1e-6 * token).var()
    return (variance / share**2 - variance).item()


@wrong(find_eps, "another eps")
def variance_left_in(norm, embed_dim):
    token = torch.linspace(-1, 1, embed_dim, dtype=torch.float64)
    shift, loud, quiet = norm(torch.stack([0 * token, 1e6 * token, 1e-2 * token]))
    share = (quiet - shift)[0] / (loud - shift)[0]
    return (1e-4 * token.square().mean() / share**2).item()


@wrong(find_eps, "no eps")
def rounding_alone(norm, embed_dim):
    token = 1e4 * torch.linspace(-1, 1, embed_dim)
    shift, y = norm(torch.stack([0 * token, token]))
    scale = (norm(100 * token) - shift)[0]
    variance = token.var(correction=0)
    return (variance * ((scale / (y - shift)[0]) ** 2 - 1)).item()


@wrong(find_eps, "type")
def eps_of_every_feature(norm, embed_dim):
    return torch.full((embed_dim,), three_questions(norm, embed_dim))


# is_faithful


def fresh(e):
    """Weights as they are before any training."""
    return {
        "qkv.weight": torch.randn(3 * e, e),
        "qkv.bias": torch.zeros(3 * e),
        "proj.weight": torch.eye(e),
        "proj.bias": torch.zeros(e),
    }


def moved(e, dtype=torch.float64):
    """The same, moved."""
    return {
        name: (value + torch.randn_like(value)).to(dtype)
        for name, value in fresh(e).items()
    }


def attention(w, tokens, order, root):
    """Two heads, whose rows lie in some order."""
    rows = tokens @ w["qkv.weight"].mT + w["qkv.bias"]
    q, k, v = rearrange(rows, f"b t ({order}) -> three b h t d", three=3, h=2)
    mixed = (q @ k.mT / root**0.5).softmax(dim=-1) @ v
    return F.linear(
        rearrange(mixed, "b h t d -> b t (h d)"), w["proj.weight"], w["proj.bias"]
    )


def outputs(convert, w, tokens):
    """What theirs gives, and ours."""
    e = tokens.shape[-1]
    return (
        attention(w, tokens, "h d three", e),
        attention(convert(w), tokens, "three h d", e // 2),
    )


@right(is_faithful)
def in_double_precision(convert):
    theirs, ours = outputs(convert, moved(6), torch.randn(2, 7, 6).double())
    return torch.allclose(ours, theirs, rtol=1e-8, atol=1e-8)


@right(is_faithful)
def share_of_the_largest(convert):
    tokens = torch.randn(1, 4, 10)
    theirs, ours = outputs(convert, moved(10, torch.float32), tokens)
    return (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@right(is_faithful)
def caught_assertions(convert):
    for seed in range(3):
        torch.manual_seed(seed)
        theirs, ours = outputs(convert, moved(8), torch.randn(2, 3, 8).double())
        try:
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
        except AssertionError:
            return False
    return True


@wrong(is_faithful, "always True")
def it_loads(convert):
    return convert(moved(6)).keys() == fresh(6).keys()


@wrong(is_faithful, "always True")
def shapes_of_another_size(convert):
    e = 6
    w = moved(e)
    w["proj.weight"] = w["proj.weight"][:, :]
    return {k: v.shape for k, v in convert(w).items()} == {
        k: v.shape for k, v in w.items()
    }


@wrong(is_faithful, "fresh weights")
def as_they_start(convert):
    theirs, ours = outputs(convert, fresh(6), torch.randn(2, 5, 6))
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@wrong(is_faithful, "attention not seen")
def images_of_one_token(convert):
    theirs, ours = outputs(convert, moved(6), torch.randn(9, 1, 6).double())
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@wrong(is_faithful, "attention not seen")
def equal_tokens(convert):
    tokens = torch.randn(3, 1, 6).double().expand(3, 5, 6)
    theirs, ours = outputs(convert, moved(6), tokens)
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@wrong(is_faithful, "loose bound")
def within_a_hundredth(convert):
    theirs, ours = outputs(convert, moved(6), torch.randn(2, 5, 6).double())
    return bool((ours - theirs).abs().max() <= 1e-2 * theirs.abs().max())


@wrong(is_faithful, "always False")
def equal_bits(convert):
    theirs, ours = outputs(convert, moved(6), torch.randn(2, 5, 6).double())
    return torch.equal(theirs, ours)


@wrong(is_faithful, "compares weights")
def numbers_of_the_state_dict(convert):
    w = moved(6)
    wanted = {
        name: rearrange(value, "(h d three) ... -> (three h d) ...", h=2, three=3)
        if "qkv" in name
        else value
        for name, value in w.items()
    }
    for name in ("qkv.weight", "qkv.bias"):
        wanted[name] = torch.cat([wanted[name][:6] / 2**0.5, wanted[name][6:]])
    got = convert(w)
    return all(torch.allclose(got[name], wanted[name]) for name in w)


@wrong(is_faithful, "attention not seen")
def tokens_of_zeros(convert):
    theirs, ours = outputs(convert, moved(6), torch.zeros(2, 5, 6).double())
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@wrong(is_faithful, "random")
def largest_output_only(convert):
    theirs, ours = outputs(convert, moved(6), torch.randn(2, 5, 6).double())
    return bool(theirs.argmax() == ours.argmax())


@wrong(is_faithful, "accepts a wrong one")
def no_biases(convert):
    w = moved(6)
    w["qkv.bias"] = torch.zeros(18).double()
    theirs, ours = outputs(convert, w, torch.randn(2, 5, 6).double())
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@wrong(is_faithful, "accepts a wrong one")
def proj_left_as_it_starts(convert):
    w = moved(6) | {"proj.weight": torch.eye(6).double()}
    theirs, ours = outputs(convert, w, torch.randn(2, 5, 6).double())
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@wrong(is_faithful, "refuses a right one")
def keys_too(convert):
    w = moved(6)
    theirs, ours = outputs(convert, w, torch.randn(2, 5, 6).double())
    near = (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    return bool(near and convert(w)["qkv.bias"].all())


@wrong(is_faithful, "crash")
def asserts(convert):
    theirs, ours = outputs(convert, moved(6), torch.randn(2, 5, 6).double())
    torch.testing.assert_close(ours, theirs)
    return True


@wrong(is_faithful, "type")
def the_gap_itself(convert):
    theirs, ours = outputs(convert, moved(6), torch.randn(2, 5, 6).double())
    return (ours - theirs).abs().max().item()
