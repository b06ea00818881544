"""Checks of what chapter 07 builds: the norm, drop path, and the block."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitlib.encoder as library
from vitlib.checks.attention import open_mask
from vitlib.checks.building import Build, ClassJudge, drawn, drawn_weights
from vitlib.checks.comparing import close
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import (
    any_order_of_tokens,
    each_image_alone,
    each_token_alone,
    narrowed,
    silent,
)
from vitlib.checks.wording import Finding
from vitlib.mlp import MLP
from vitlib.multi_head import MultiHeadAttention

EPS = 1e-6


# The norm of one token


def _normed(*axes, eps=EPS, correction=0, outside=False):
    """Return a norm over other axes, or with another spread."""

    def twin(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        over = axes or (-1,)
        mean = tokens.mean(over, keepdim=True)
        spread = tokens.var(over, correction=correction, keepdim=True)
        spread = spread.sqrt() + eps if outside else (spread + eps).sqrt()
        return (tokens - mean) / spread * weight + bias

    return twin


def _plain(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(tokens, weight.shape, weight, bias, EPS)


def _root_mean_square(tokens, weight, bias):
    square = tokens.square().mean(dim=-1, keepdim=True)
    return tokens / (square + EPS).sqrt() * weight + bias


def _variance_for_root(tokens, weight, bias):
    mean = tokens.mean(dim=-1, keepdim=True)
    spread = tokens.var(dim=-1, correction=0, keepdim=True) + EPS
    return (tokens - mean) / spread * weight + bias


def _about_norm(probe: Probe) -> Finding | None:
    """Ask for mean and spread of the result, before weight and bias."""
    tokens, weight, bias = probe.given
    if probe.got.shape != tokens.shape:
        return None
    plain = probe.run(tokens, torch.ones_like(weight), torch.zeros_like(bias))
    if plain is None or plain.shape != tokens.shape:
        return None
    means = plain.mean(dim=-1)
    if means.abs().max() > 1e-3:
        return Finding(
            "mean not 0",
            "with weight 1 and bias 0 a token's mean must be 0, and it is "
            f"{means.flatten()[means.abs().argmax()]:.3g}",
        )
    spread = plain.std(dim=-1, correction=0)
    wanted = _plain(tokens, torch.ones_like(weight), torch.zeros_like(bias))
    wanted = wanted.std(dim=-1, correction=0)
    if not torch.allclose(spread, wanted, atol=1e-3):
        place = (spread - wanted).abs().argmax()
        return Finding(
            "spread not 1",
            "with weight 1 and bias 0 a token's standard deviation must be "
            f"{wanted.flatten()[place]:.3g}, and it is {spread.flatten()[place]:.3g}: "
            "by what do you divide?",
        )
    return Finding(
        "weight and bias",
        "mean and spread are right before weight and bias act: look at how these two "
        "are applied",
    )


def _tokens_and_weights(b: int, n: int, e: int, loud: float = 1.0) -> tuple:
    tokens = loud * drawn(b, n, e, seed=n) + loud
    return tokens, 1 + drawn(e, seed=e) / 2, drawn(e, seed=e + 1)


layer_norm = Judge(
    task="layer_norm",
    arguments=("tokens", "weight", "bias"),
    axes="b n e",
    oracle=_plain,
    cases=(
        Case("one token", _tokens_and_weights(1, 1, 4)),
        Case("as many tokens as features", _tokens_and_weights(2, 5, 5)),
        Case("two images", _tokens_and_weights(2, 3, 6)),
        Case("quiet tokens", _tokens_and_weights(2, 3, 6, loud=0.002)),
    ),
    mistakes=(
        Mistake(
            "over all tokens",
            "right for one token alone, wrong for more: mean and spread are taken over "
            "all tokens of an image. Each token has its own",
            _normed(1, 2),
        ),
        Mistake(
            "over everything",
            "right for one token alone, wrong for more: mean and spread are taken over "
            "the whole batch. Each token has its own",
            _normed(0, 1, 2),
        ),
        Mistake(
            "over the tokens",
            "each feature is normalised over the tokens: it should be each token over "
            "its features",
            _normed(1),
        ),
        Mistake(
            "over the batch",
            "each feature is normalised over the batch, as a BatchNorm does: then an "
            "image knows of its neighbours",
            _normed(0, 1),
        ),
        Mistake(
            "divided by e - 1",
            "the variance is divided by e - 1 and not by e: torch.var and std do so "
            "unless told otherwise",
            _normed(correction=1),
        ),
        Mistake(
            "divided by e - 1",
            "the spread is divided by e - 1 and not by e, as torch.std does unless "
            "told otherwise; and eps stands outside of the root",
            _normed(correction=1, outside=True),
        ),
        Mistake(
            "other eps",
            "right for loud tokens, wrong for quiet ones: eps is 1e-5, PyTorch's, and "
            "not 1e-6, ViT's",
            _normed(eps=1e-5),
        ),
        Mistake(
            "eps outside",
            "right for loud tokens, wrong for quiet ones: eps is added to the standard "
            "deviation and not to the variance",
            _normed(outside=True),
        ),
        Mistake(
            "no eps",
            "right for loud tokens, wrong for quiet ones: eps is missing. A token of "
            "equal numbers would be divided by 0",
            _normed(eps=0.0),
        ),
        Mistake(
            "mean kept",
            "the mean is not subtracted: tokens are brought to a common length only",
            _root_mean_square,
        ),
        Mistake(
            "variance for its root",
            "the tokens are divided by the variance: the root is missing",
            _variance_for_root,
        ),
        Mistake(
            "no weight and bias",
            "the tokens are normalised, but weight and bias do not act",
            lambda t, w, b: F.layer_norm(t, t.shape[-1:], eps=EPS),
        ),
        Mistake(
            "no bias",
            "the bias is not added",
            lambda t, w, b: F.layer_norm(t, t.shape[-1:], w, eps=EPS),
        ),
        Mistake(
            "bias first",
            "the bias is added before the weight multiplies",
            lambda t, w, b: (F.layer_norm(t, t.shape[-1:], eps=EPS) + b) * w,
        ),
    ),
    questions=(each_image_alone(0), each_token_alone(0), _about_norm),
)


# Drop path


def _about_drop_path(probe: Probe) -> Finding | None:
    """Ask all that must hold of a branch that is silenced for some images."""
    build, branch = probe.given
    got, rate = probe.got, build.sizes["drop_path_rate"]
    if got.shape != branch.shape:
        return Finding(
            "shape", f"its shape is {tuple(got.shape)}, needed is {tuple(branch.shape)}"
        )
    if got.dtype != branch.dtype:
        return Finding("dtype", f"it returned {got.dtype}, {branch.dtype} arrived")
    if not got.isfinite().all():
        return Finding("nan", "some numbers are NaN or infinite: division by 0?")
    if not build.training or rate == 0:
        if torch.equal(got, branch):
            return None
        when = "in evaluation" if not build.training else "with a rate of 0"
        return Finding(
            "acts always", f"{when} nothing may happen, and the branch is changed"
        )
    factor = (got / branch).flatten(1).round(decimals=2)  # (b, rest)
    if not torch.equal(factor, factor[:, :1].expand_as(factor)):
        return Finding(
            "like dropout",
            "within one image some numbers are dropped and others kept: the whole "
            "branch of an image shares one fate",
        )
    kept = factor[:, 0] != 0
    if not kept.any():
        return Finding(
            "one fate for all",
            f"all {len(branch)} images lose the branch: does one draw decide for the "
            "whole batch?",
        )
    if kept.all():
        value = factor.mean().item()
        return Finding(
            "one fate for all",
            f"no image of {len(branch)} loses the branch, all are multiplied by "
            f"{value:g}: is anything drawn, and for each image?",
        )
    share, scale = kept.double().mean().item(), factor[kept].mean().item()
    # Six standard deviations of such a share.
    slack = 6 * (rate * (1 - rate) / len(branch)) ** 0.5
    if len(set(factor[:, 0].tolist())) > 2:
        return Finding(
            "many factors", "images are multiplied by many different numbers: 0 or one"
        )
    if abs(share - rate) < slack and abs(share - (1 - rate)) > slack:
        return Finding(
            "rate inverted",
            f"with a drop rate of {rate} the share of images that keep the branch is "
            f"{share:.2f}: the rate says how many lose it",
        )
    if abs(share - (1 - rate)) > slack:
        return Finding(
            "other share",
            f"with a drop rate of {rate} the share of images that keep the branch is "
            f"{share:.2f}",
        )
    if abs(scale - 1 / (1 - rate)) > 1e-2:
        return Finding(
            "not scaled up",
            f"images that keep the branch get it {scale:.3g} times, with a rate of "
            f"{rate}: then the mean over many draws is {share * scale:.2f} times the "
            "branch, and in evaluation it is 1",
        )
    return None


def _dropping(rate: float, training: bool, *shape: int) -> tuple:
    build = Build({"drop_path_rate": rate}, {}, {"rate": rate}, training)
    # No number is 0, so that those that were dropped can be told.
    return build, drawn(*shape, seed=shape[1]).abs() + 1


DropPath = ClassJudge(
    task="DropPath",
    arguments=("model", "branch"),
    axes="b n e",
    oracle=None,
    cases=(
        Case("a rate of 0.5", _dropping(0.5, True, 800, 2, 3)),
        Case("evaluation", _dropping(0.5, False, 4, 2, 3)),
        Case("a rate of 0", _dropping(0.0, True, 4, 2, 3)),
        Case("a rate of 0.25", _dropping(0.25, True, 800, 3, 2)),
    ),
    questions=(_about_drop_path,),
)


# The block


class _Block(nn.Module):
    """What the chapter builds; mistakes overwrite forward, or a part."""

    eps = EPS

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=self.eps)
        self.attn = MultiHeadAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=self.eps)
        self.mlp = MLP(embed_dim, 4 * embed_dim)

    def forward(self, x, mask=None):
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def _forward(function):
    """Return the block with another forward."""

    def forward(self, x, mask=None):
        return function(self, x, mask)

    return type("EncoderBlock", (_Block,), {"forward": forward})


def _in_two(first, second):
    """Return the block with other halves."""
    return _forward(lambda self, x, mask: second(self, first(self, x, mask)))


def _attended(self, x, mask):
    return x + self.attn(self.norm1(x), mask)


def _worked(self, x):
    return x + self.mlp(self.norm2(x))


class _OtherEps(_Block):
    eps = 1e-5


class _Tanh(_Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.mlp = MLP(embed_dim, 4 * embed_dim, gelu="tanh")


class _Relu(_Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.mlp.act = nn.ReLU()


def _parallel(self, x, mask):
    return x + self.attn(self.norm1(x), mask) + self.mlp(self.norm2(x))


def _stream_normed(self, x, mask):
    x = self.norm1(x)
    x = x + self.attn(x, mask)
    x = self.norm2(x)
    return x + self.mlp(x)


def _from_the_start(self, x, mask):
    return x + self.mlp(self.norm2(x + self.attn(self.norm1(x), mask)))


_ENDS = {
    "attention": ("attn.proj.weight", "attn.proj.bias"),
    "the MLP": ("mlp.fc2.weight", "mlp.fc2.bias"),
}


def _stream(probe: Probe) -> Finding | None:
    """Ask what is left on the stream when both branches are silent."""
    build, tokens, _ = probe.given
    weights = build.weights | silent(*sum(_ENDS.values(), ()))(build.weights)
    bare = probe.run(dataclasses.replace(build, weights=weights), *probe.given[1:])
    if bare is None or close(bare, tokens):
        return None
    return Finding(
        "stream changed",
        "with both branches silenced the tokens must come out as they went in, and "
        "they do not: what else stands on the stream, or is missing on it?",
    )


def _branch(name: str):
    """Ask whether a branch is right when the other is silent."""
    (other,) = _ENDS.keys() - {name}
    tell = f"the stream is right, the branch of {name} is not: try it alone"
    return narrowed(
        silent(*_ENDS[other]), right=None, wrong=Finding("one branch", tell)
    )


def _block_case(b, n, e, h, mask=None, loud=1.0) -> tuple:
    weights = drawn_weights(lambda: _Block(e, h), seed=e)
    return (
        Build({"embed_dim": e, "num_heads": h}, weights),
        loud * drawn(b, n, e, seed=n),
        mask,
    )


EncoderBlock = ClassJudge(
    task="EncoderBlock",
    arguments=("model", "tokens", "mask"),
    axes="b n e",
    oracle=library.EncoderBlock,
    cases=(
        Case("two tokens and one head", _block_case(1, 2, 4, 1)),
        Case("as many tokens as features", _block_case(2, 6, 6, 3)),
        Case("two images", _block_case(2, 5, 8, 2)),
        Case("quiet tokens", _block_case(2, 3, 6, 3, loud=0.005)),
        Case(
            "a mask",
            _block_case(2, 5, 6, 3, open_mask(2, 1, 5, 5, seed=4)),
        ),
    ),
    mistakes=(
        Mistake(
            "post-norm",
            "the norms stand behind the additions, on the stream (post-norm): ViT "
            "normalises what enters a branch, and nothing stands on the stream",
            _forward(
                lambda self, x, mask: self.norm2(
                    (y := self.norm1(x + self.attn(x, mask))) + self.mlp(y)
                )
            ),
        ),
        Mistake(
            "no residual",
            "nothing is added to the stream: each half replaces the tokens",
            _in_two(
                lambda self, x, mask: self.attn(self.norm1(x), mask),
                lambda self, x: self.mlp(self.norm2(x)),
            ),
        ),
        Mistake(
            "no residual around attention",
            "attention replaces the tokens: it should be added to them",
            _in_two(lambda self, x, mask: self.attn(self.norm1(x), mask), _worked),
        ),
        Mistake(
            "no residual around the MLP",
            "the MLP replaces the tokens: it should be added to them",
            _in_two(_attended, lambda self, x: self.mlp(self.norm2(x))),
        ),
        Mistake(
            "stream normalised",
            "the norm stands on the stream: what is added to is the normalised token "
            "and no longer the token",
            _forward(_stream_normed),
        ),
        Mistake(
            "parallel branches",
            "the MLP reads what entered the block: it should read what attention has "
            "added to",
            _forward(_parallel),
        ),
        Mistake(
            "first addition lost",
            "the MLP reads what attention made, but is added to what entered the "
            "block: the first addition is lost on the way",
            _forward(_from_the_start),
        ),
        Mistake(
            "norms swapped",
            "norm1 and norm2 have changed places",
            _in_two(
                lambda self, x, mask: x + self.attn(self.norm2(x), mask),
                lambda self, x: x + self.mlp(self.norm1(x)),
            ),
        ),
        Mistake(
            "one norm for both",
            "the same norm is used twice: each branch has its own",
            _in_two(_attended, lambda self, x: x + self.mlp(self.norm1(x))),
        ),
        Mistake(
            "no norms",
            "the norms are not used",
            _in_two(
                lambda self, x, mask: x + self.attn(x, mask),
                lambda self, x: x + self.mlp(x),
            ),
        ),
        Mistake(
            "no second norm",
            "the MLP reads tokens that were not normalised",
            _in_two(_attended, lambda self, x: x + self.mlp(x)),
        ),
        Mistake(
            "no first norm",
            "attention reads tokens that were not normalised",
            _in_two(lambda self, x, mask: x + self.attn(x, mask), _worked),
        ),
        Mistake(
            "MLP first",
            "the MLP comes before attention",
            _forward(lambda self, x, mask: _attended(self, _worked(self, x), mask)),
        ),
        Mistake(
            "attention only",
            "the second half is missing",
            _forward(_attended),
        ),
        Mistake(
            "mask not passed on",
            "right without a mask, wrong with one: it does not reach attention",
            _in_two(lambda self, x, mask: _attended(self, x, None), _worked),
        ),
        Mistake(
            "other eps",
            "right for loud tokens, wrong for quiet ones: eps of the norms is 1e-5, "
            "PyTorch's, and not 1e-6, ViT's",
            _OtherEps,
        ),
        Mistake(
            "the approximation",
            "right but for the form of GELU: this is the one with tanh",
            _Tanh,
        ),
        Mistake("ReLU", "the bend in the MLP is a ReLU and not a GELU", _Relu),
    ),
    questions=(
        each_image_alone(1, 2),
        any_order_of_tokens(1),
    ),
    narrowing=(_stream, _branch("attention"), _branch("the MLP")),
    hints={
        "mlp.fc1.weight": "The MLP widens a token four times",
        "norm1.weight": "The norms are called norm1 and norm2",
    },
)
