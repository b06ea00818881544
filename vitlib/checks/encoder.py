"""Checks of what chapter 07 builds: the norm, drop path, and the block."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitlib.encoder as library
from vitlib.checks.attention import open_mask
from vitlib.checks.building import Build, ClassJudge, altered, drawn, drawn_weights
from vitlib.checks.comparing import close
from vitlib.checks.deciding import decides
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

    return altered(_Block, forward=forward)


def _in_two(first, second):
    """Return the block with other halves."""
    return _forward(lambda self, x, mask: second(self, first(self, x, mask)))


def _attended(self, x, mask):
    return x + self.attn(self.norm1(x), mask)


def _worked(self, x):
    return x + self.mlp(self.norm2(x))


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
            altered(_Block, eps=1e-5),
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


# A block whose branches are scaled


class _LayerScale(_Block):
    """A block with a factor for each number of a branch; mistakes overwrite forward."""

    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.scale1 = nn.Parameter(torch.full((embed_dim,), 1e-4))
        self.scale2 = nn.Parameter(torch.full((embed_dim,), 1e-4))

    def forward(self, x):
        x = x + self.scale1 * self.attn(self.norm1(x))
        return x + self.scale2 * self.mlp(self.norm2(x))


def _scaled(first, second):
    """Return the block with other halves, each a function of itself and the tokens."""

    def forward(self, x):
        return second(self, first(self, x))

    return altered(_LayerScale, forward=forward)


def _first(self, x):
    return x + self.scale1 * self.attn(self.norm1(x))


def _second(self, x):
    return x + self.scale2 * self.mlp(self.norm2(x))


def _scale_case(b, n, e, h) -> tuple:
    weights = drawn_weights(lambda: _LayerScale(e, h), seed=e)
    return Build({"embed_dim": e, "num_heads": h}, weights), drawn(b, n, e, seed=n)


def _scales_silent(probe: Probe) -> Finding | None:
    """Ask what is left when both factors are 0."""
    build, tokens = probe.given
    weights = build.weights | silent("scale1", "scale2")(build.weights)
    bare = probe.run(dataclasses.replace(build, weights=weights), tokens)
    if bare is None or close(bare, tokens):
        return None
    return Finding(
        "stream scaled",
        "with both factors at 0 the tokens must come out as they went in, and they do "
        "not: what do the factors multiply?",
    )


LayerScaleBlock = ClassJudge(
    task="LayerScaleBlock",
    arguments=("model", "tokens"),
    axes="b n e",
    oracle=_LayerScale,
    cases=(
        Case("two tokens and one head", _scale_case(1, 2, 4, 1)),
        Case("as many tokens as features", _scale_case(2, 6, 6, 3)),
        Case("two images", _scale_case(2, 5, 8, 2)),
    ),
    mistakes=(
        Mistake(
            "stream scaled",
            "the factor multiplies the sum, the stream too: it belongs on the branch",
            _scaled(
                lambda self, x: self.scale1 * (x + self.attn(self.norm1(x))),
                lambda self, x: self.scale2 * (x + self.mlp(self.norm2(x))),
            ),
        ),
        Mistake(
            "stream scaled",
            "the factor multiplies the stream: it belongs on the branch",
            _scaled(
                lambda self, x: self.scale1 * x + self.attn(self.norm1(x)),
                lambda self, x: self.scale2 * x + self.mlp(self.norm2(x)),
            ),
        ),
        Mistake(
            "scaled on the way in",
            "the factor multiplies what enters the branch: it belongs on the result",
            _scaled(
                lambda self, x: x + self.attn(self.scale1 * self.norm1(x)),
                lambda self, x: x + self.mlp(self.scale2 * self.norm2(x)),
            ),
        ),
        Mistake(
            "before the norm",
            "the factor multiplies the tokens in front of the norm, which takes most "
            "of it away again: it belongs on what the branch returns",
            _scaled(
                lambda self, x: x + self.attn(self.norm1(self.scale1 * x)),
                lambda self, x: x + self.mlp(self.norm2(self.scale2 * x)),
            ),
        ),
        Mistake(
            "factors swapped",
            "scale1 and scale2 have changed places",
            _scaled(
                lambda self, x: x + self.scale2 * self.attn(self.norm1(x)),
                lambda self, x: x + self.scale1 * self.mlp(self.norm2(x)),
            ),
        ),
        Mistake(
            "one factor for both",
            "scale1 is used twice: each branch has its own",
            _scaled(_first, lambda self, x: x + self.scale1 * self.mlp(self.norm2(x))),
        ),
        Mistake(
            "no factors",
            "the factors are not used",
            _scaled(
                lambda self, x: x + self.attn(self.norm1(x)),
                lambda self, x: x + self.mlp(self.norm2(x)),
            ),
        ),
        Mistake(
            "first branch only",
            "the branch of the MLP is not scaled",
            _scaled(_first, lambda self, x: x + self.mlp(self.norm2(x))),
        ),
        Mistake(
            "second branch only",
            "the branch of attention is not scaled",
            _scaled(lambda self, x: x + self.attn(self.norm1(x)), _second),
        ),
        Mistake(
            "no residual",
            "nothing is added to the stream: each half replaces the tokens",
            _scaled(
                lambda self, x: self.scale1 * self.attn(self.norm1(x)),
                lambda self, x: self.scale2 * self.mlp(self.norm2(x)),
            ),
        ),
    ),
    questions=(each_image_alone(1), any_order_of_tokens(1)),
    narrowing=(
        _scales_silent,
        narrowed(
            silent("scale2"),
            right=Finding(
                "one branch",
                "right when the MLP adds nothing: look at the branch of the MLP",
            ),
            wrong=Finding(
                "one branch",
                "wrong even when the MLP adds nothing: look at the branch of attention",
            ),
        ),
    ),
    hints={
        "scale1": "One factor for each number of a token: nn.Parameter of shape (e,)",
        "scale2": "One factor for each number of a token: nn.Parameter of shape (e,)",
    },
)


# A norm folded into the linear map behind it


def _table(new_weight, new_bias):
    """Return an answer that joins a weight and a bias, each made by a rule."""

    def twin(weight, bias, gamma, beta):
        given = weight, bias, gamma, beta
        return torch.cat([new_weight(*given), new_bias(*given)[:, None]], dim=1)

    return twin


def _columns_scaled(weight, bias, gamma, beta):
    return weight * gamma


def _beta_through(weight, bias, gamma, beta):
    return bias + weight @ beta


def _which_side(probe: Probe) -> Finding | None:
    """Ask which part of the table is wrong, and on which argument it depends."""
    weight, bias, gamma, beta = probe.given
    got, expected = probe.got, probe.expected
    if weight.shape[0] == 1:
        return None
    if close(got[:, :-1], expected[:, :-1]):
        for name, given in (
            ("weight", (0 * weight, bias, gamma, beta)),
            ("beta", (weight, bias, gamma, 0 * beta)),
        ):
            alone = probe.run(*given)
            if alone is not None and not close(alone[:, -1], bias):
                return Finding(
                    "bias",
                    f"the weight is right, the bias is not: with a {name} of zeros the "
                    "bias must stay as it was, and yours changes",
                )
        return Finding(
            "bias",
            "the weight is right, the bias is not: what does the linear map make of "
            "beta alone?",
        )
    if close(got[:, -1], expected[:, -1]):
        return Finding(
            "weight",
            "the bias is right, the weight is not: which numbers does gamma multiply, "
            "and by which axis of the weight do they enter?",
        )
    return None


def _linear_and_norm(o: int, e: int) -> tuple:
    return (
        drawn(o, e, seed=o),
        drawn(o, seed=o + 1),
        1 + drawn(e, seed=e + 2) / 2,
        drawn(e, seed=e + 3),
    )


fold_norm = Judge(
    task="fold_norm",
    arguments=("weight", "bias", "gamma", "beta"),
    axes="o e+1",
    oracle=_table(_columns_scaled, _beta_through),
    cases=(
        Case("one output", _linear_and_norm(1, 2)),
        Case("as many outputs as inputs", _linear_and_norm(3, 3)),
        Case("more outputs than inputs", _linear_and_norm(5, 3)),
        Case("fewer outputs than inputs", _linear_and_norm(2, 4)),
    ),
    mistakes=(
        Mistake(
            "beta not mapped",
            "beta is not in the bias: it passes through the linear map as well",
            _table(_columns_scaled, lambda w, b, gamma, beta: b),
        ),
        Mistake(
            "beta multiplied by gamma",
            "beta is multiplied by gamma on its way: the norm adds it after gamma has "
            "multiplied",
            _table(_columns_scaled, lambda w, b, gamma, beta: b + (w * gamma) @ beta),
        ),
        Mistake(
            "old bias lost",
            "the linear map's own bias is missing",
            _table(_columns_scaled, lambda w, b, gamma, beta: w @ beta),
        ),
        Mistake(
            "gamma on the rows",
            "gamma multiplies the rows of the weight: its numbers belong to what comes "
            "in, and that enters by the columns",
            _table(lambda w, b, gamma, beta: w * gamma[:, None], _beta_through),
        ),
        Mistake(
            "gamma left out",
            "gamma is not in the weight",
            _table(lambda w, b, gamma, beta: w, _beta_through),
        ),
        Mistake(
            "divided by gamma",
            "the weight is divided by gamma: folding does what the norm did, and does "
            "not undo it",
            _table(lambda w, b, gamma, beta: w / gamma, _beta_through),
        ),
        Mistake(
            "bias first",
            "the bias stands in the first column: it should be the last",
            lambda w, b, gamma, beta: torch.cat(
                [_beta_through(w, b, gamma, beta)[:, None], w * gamma], dim=1
            ),
        ),
        Mistake(
            "gamma added",
            "gamma is added to the weight: it multiplies",
            _table(lambda w, b, gamma, beta: w + gamma, _beta_through),
        ),
        Mistake(
            "beta subtracted",
            "beta is subtracted: the norm adds it",
            _table(_columns_scaled, lambda w, b, gamma, beta: b - w @ beta),
        ),
    ),
    questions=(_which_side,),
)


# Does each block have weights of its own?


class _Stack(nn.ModuleList):
    """Blocks of which it is known whether each has weights of its own."""

    def __init__(self, blocks, what, truth, fools, tell):
        super().__init__(blocks)
        self.what, self.truth, self.fools, self.tell = what, truth, fools, tell

    def __repr__(self):
        return f"<{self.what}>"


def _fresh(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return library.EncoderBlock(8, 2)


def _tied(part: str, blocks: list[nn.Module]) -> list[nn.Module]:
    """Give all blocks one part of the first."""
    for block in blocks[1:]:
        setattr(block, part, getattr(blocks[0], part))
    return blocks


def _copied(blocks: list[nn.Module], source: int, target: int) -> list[nn.Module]:
    """Let a block start with the weights of another, in tensors of its own."""
    blocks[target].load_state_dict(blocks[source].state_dict())
    return blocks


def _shaken(blocks: list[nn.Module]) -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for block in blocks:
            for parameter in block.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return blocks


_ONE = _fresh(0)
_STACKS = (
    _Stack(
        [_fresh(0), _fresh(1)],
        "two fresh blocks",
        True,
        "fresh blocks refused",
        "these are two fresh blocks, each drawn for itself, and it says False. All "
        "norms start with ones and zeros and all biases of attention with zeros: equal "
        "numbers there mean nothing",
    ),
    _Stack(
        [_ONE] * 3,
        "one block three times",
        False,
        "one block again and again",
        "fooled by a list that holds one block three times: three entries, one set of "
        "weights",
    ),
    _Stack(
        _copied([_fresh(0), _fresh(1)], 0, 1),
        "two copies of one block",
        False,
        "copies",
        "fooled by copies: each block has tensors of its own, but all start with the "
        "same numbers. Whether two objects are the same is only half of the question",
    ),
    _Stack(
        _tied("mlp", [_fresh(0), _fresh(1), _fresh(2)]),
        "three blocks that share one MLP",
        False,
        "shared MLP",
        "fooled by blocks that share a part: the blocks are different objects, their "
        "MLP is the same one. Look at the parameters",
    ),
    _Stack(
        _tied("norm1", [_fresh(0), _fresh(1)]),
        "two blocks that share their first norm",
        False,
        "shared norm",
        "fooled by a shared norm: fresh norms are equal in numbers and still must be "
        "tensors of their own",
    ),
    _Stack(
        _copied([_fresh(seed) for seed in range(4)], 1, 3),
        "four blocks, the last a copy of the second",
        False,
        "copies far apart",
        "fooled by copies that are not neighbours: the last block starts like the "
        "second. Which pairs do you compare?",
    ),
    _Stack(
        _shaken(_tied("attn", [_fresh(0), _fresh(1)])),
        "two trained blocks that share their attention",
        False,
        "shared attention",
        "fooled by shared attention: norms and MLPs differ here, attention is one "
        "object",
    ),
    _Stack(
        _shaken([_fresh(0), _fresh(1), _fresh(2)]),
        "three trained blocks",
        True,
        "trained blocks refused",
        "these are three trained blocks in which no number is equal, and it says False",
    ),
    _Stack(
        [_fresh(0)],
        "one block alone",
        True,
        "one block refused",
        "one block has nobody to share with, and it says False",
    ),
)

blocks_are_independent = decides(
    "blocks_are_independent",
    ("blocks",),
    _STACKS,
    mistakes=(
        Mistake(
            "always False",
            "it says False of every stack, of right ones too: is a block compared with "
            "itself, or are numbers compared that are equal by design?",
            lambda blocks: False,
        ),
    ),
)


# What each block does to the stream


def _ratios(measure):
    """Return an answer that compares each block's input and output by a rule."""

    def twin(blocks, tokens):
        effects = []
        for block in blocks:
            after = block(tokens)
            effects.append(measure(tokens, after))
            tokens = after
        return torch.stack(effects)

    return twin


def _step(before: Tensor, after: Tensor) -> Tensor:
    return ((after - before).norm(dim=-1) / before.norm(dim=-1)).mean()


def _from_the_input(measure):
    return lambda blocks, tokens: torch.stack(
        [measure(tokens, block(tokens)) for block in blocks]
    )


def _against_the_input(blocks, tokens):
    stream, effects = tokens, []
    for block in blocks:
        stream = block(stream)
        effects.append(_step(tokens, stream))
    return torch.stack(effects)


class _Blocks(list):
    """Functions of tokens, with a name."""

    def __init__(self, what, *blocks):
        super().__init__(blocks)
        self.what = what

    def __repr__(self):
        return f"<{self.what}>"


def _about_effects(probe: Probe) -> Finding | None:
    """Ask what must hold of blocks whose effect is known."""
    tokens = probe.given[1]
    for said, factor, effect in (
        ("leaves the tokens as they are", 1, 0),
        ("doubles the tokens", 2, 1),
        ("halves the tokens", 0.5, 0.5),
    ):
        got = probe.run(_Blocks(said, lambda x, factor=factor: factor * x), tokens)
        if got is not None and got.shape == (1,) and abs(got[0] - effect) > 1e-3:
            return Finding(
                "known effects",
                f"a block that {said} has an effect of {effect:g}, and it says "
                f"{got[0]:.3g}",
            )
    return Finding(
        "how it is averaged",
        "right for blocks that do the same to all tokens: in which order do you "
        "divide, take lengths and average?",
    )


def _two(x: Tensor) -> Tensor:
    return 2 * x


def _turn(x: Tensor) -> Tensor:
    return x.flip(-1)


def _loud(x: Tensor) -> Tensor:
    return x + x.norm(dim=-1, keepdim=True)


def _none(x: Tensor) -> Tensor:
    return 1 * x


block_effects = Judge(
    task="block_effects",
    arguments=("blocks", "tokens"),
    axes="block",
    oracle=_ratios(_step),
    cases=(
        Case(
            "a block that doubles",
            (_Blocks("a block that doubles", _two), drawn(1, 2, 3)),
        ),
        Case(
            "one that does nothing, one that doubles",
            (_Blocks("nothing, then twice", _none, _two), drawn(1, 2, 3, seed=1)),
        ),
        Case(
            "three blocks",
            (
                _Blocks("three functions", _loud, _turn, _two),
                # Tokens of very different lengths.
                drawn(2, 3, 5, seed=2) * torch.tensor([0.1, 1.0, 10.0])[:, None],
            ),
        ),
        Case(
            "two encoder blocks in double precision",
            (
                _Blocks("two encoder blocks", _fresh(0).double(), _fresh(1).double()),
                drawn(2, 5, 8, seed=3).double(),
            ),
        ),
    ),
    mistakes=(
        Mistake(
            "each from the start",
            "right for the first block, wrong for the others: every block is given the "
            "tokens of the start, and in the model it gets what the one before it made",
            _from_the_input(_step),
        ),
        Mistake(
            "change since the start",
            "right for the first block, wrong for the others: the change since the "
            "start is measured, and asked is what this block adds",
            _against_the_input,
        ),
        Mistake(
            "not divided",
            "the change is not divided by the length of what came in: later blocks "
            "have longer tokens",
            _ratios(lambda a, b: (b - a).norm(dim=-1).mean()),
        ),
        Mistake(
            "divided by what comes out",
            "the change is divided by the length of what comes out: take what came in",
            _ratios(lambda a, b: ((b - a).norm(dim=-1) / b.norm(dim=-1)).mean()),
        ),
        Mistake(
            "ratio of lengths",
            "the length after is compared with the length before: a token that turns "
            "has changed and is as long as it was",
            _ratios(lambda a, b: (b.norm(dim=-1) / a.norm(dim=-1)).mean()),
        ),
        Mistake(
            "ratio of lengths",
            "only the length is compared: a token that turns has changed and is as "
            "long as it was",
            _ratios(lambda a, b: (b.norm(dim=-1) / a.norm(dim=-1) - 1).abs().mean()),
        ),
        Mistake(
            "one norm for all tokens",
            "one length is taken over all tokens, so the loudest decide: divide for "
            "each token, then average",
            _ratios(lambda a, b: (b - a).norm() / a.norm()),
        ),
        Mistake(
            "means divided",
            "the mean change is divided by the mean length, so the loudest tokens "
            "decide: divide for each token, then average",
            _ratios(lambda a, b: (b - a).norm(dim=-1).mean() / a.norm(dim=-1).mean()),
        ),
        Mistake(
            "squares",
            "the squares of the lengths are compared: a root is missing",
            _ratios(
                lambda a, b: (
                    (b - a).square().sum(dim=-1) / a.square().sum(dim=-1)
                ).mean()
            ),
        ),
        Mistake(
            "summed",
            "over the tokens it is summed: take the mean",
            _ratios(lambda a, b: _step(a, b) * a.shape[0] * a.shape[1]),
        ),
    ),
    questions=(_about_effects,),
    dtypes=(),
    gradients=False,
)
