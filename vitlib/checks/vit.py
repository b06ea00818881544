"""Checks of what chapter 08 builds: the whole model, its parameters and its cost."""

import dataclasses
import functools
import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import vitlib.checks.positions as positions
import vitlib.vit as library
from vitlib.checks.building import Build, ClassJudge, altered, drawn, drawn_weights
from vitlib.checks.deciding import Decision, always, decides
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import each_image_alone, narrowed, silent
from vitlib.checks.wording import Finding
from vitlib.cls_token import prepend_cls_token
from vitlib.patches import grid_of
from vitlib.vit import ViTConfig

# The whole forward pass


class _ViT(library.ViT):
    """The library's; mistakes overwrite one of its steps."""

    def forward(self, images):
        return self.score(self.encode(self.enter(self.embed(images))))

    def embed(self, images):
        return self.patch_embed(images)

    def enter(self, tokens):
        return prepend_cls_token(tokens, self.cls_token) + self.pos_embed

    def encode(self, tokens):
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def score(self, tokens):
        return self.head(self.norm(self.choose(tokens)))

    def choose(self, tokens):
        return tokens[:, 0]


def around_blocks(model: type[nn.Module]) -> tuple[Mistake, ...]:
    """Return what may go wrong with a model's blocks, and behind them.

    Args:
        model: Has `blocks`, `norm` and `head`, and the steps `encode`, `choose` (what
            the head reads of the tokens) and `score`.
    Returns:
        The mistakes, each a subclass of the model.
    Reference:
        The book's page on the checkers.
    """

    def through(order):
        def encode(self, tokens):
            for block in order(list(self.blocks)):
                tokens = block(tokens)
            return tokens

        return altered(model, encode=encode)

    def softmax(self, tokens):
        return model.score(self, tokens).softmax(dim=-1)

    def bypassed(self, tokens):
        return tokens + model.encode(self, tokens)

    return (
        Mistake(
            "one block only",
            "right with one block, wrong with more: only the first one is used",
            through(lambda blocks: blocks[:1]),
        ),
        Mistake(
            "one block only",
            "right with one block, wrong with more: every block starts from the same "
            "tokens, and only the last one counts",
            through(lambda blocks: blocks[-1:]),
        ),
        Mistake(
            "one block again and again",
            "right with one block, wrong with more: the same block is used each time",
            through(lambda blocks: blocks[:1] * len(blocks)),
        ),
        Mistake(
            "blocks backwards",
            "right with one block, wrong with more: the blocks come in reverse order",
            through(lambda blocks: blocks[::-1]),
        ),
        Mistake(
            "no blocks",
            "the blocks are not used: what would tell a token of the others?",
            through(lambda blocks: []),
        ),
        Mistake(
            "residual around the blocks",
            "what enters the blocks is added to what leaves them: each block has its "
            "residual stream already",
            altered(model, encode=bypassed),
        ),
        Mistake(
            "all tokens scored",
            "every token gets scores: one row of them for each image is needed",
            altered(model, choose=lambda self, tokens: tokens),
        ),
        Mistake(
            "no last norm",
            "the last norm, in front of the head, is not used",
            altered(model, score=lambda self, tokens: self.head(self.choose(tokens))),
        ),
        Mistake(
            "softmax at the end",
            "these are probabilities: cross-entropy takes its own softmax, and two of "
            "them learn slowly",
            altered(model, score=softmax),
        ),
    )


_with = functools.partial(altered, _ViT)


def _reads(choose):
    return _with(choose=lambda self, tokens: choose(tokens))


def _enters(function):
    return _with(
        enter=lambda self, tokens: function(tokens, self.cls_token, self.pos_embed)
    )


def _grid_torn(self, images):
    grid = self.patch_embed.proj(images)
    return grid.reshape(len(grid), -1, grid.shape[1])


def _by_columns(self, images):
    grid = self.patch_embed.proj(images)
    return rearrange(grid, "b e rows cols -> b (cols rows) e")


def _bare(self, tokens):
    return prepend_cls_token(tokens, self.cls_token)


def _positions_behind_the_blocks(self, tokens):
    return _ViT.encode(self, tokens) + self.pos_embed


def _positions_in_every_block(self, tokens):
    for block in self.blocks:
        tokens = block(tokens + self.pos_embed)
    return tokens


class _PostNorm(_ViT):
    def encode(self, tokens):
        for block in self.blocks:
            tokens = block.norm1(tokens + block.attn(tokens))
            tokens = block.norm2(tokens + block.mlp(tokens))
        return tokens


class _Changed(_ViT):
    """A mistake that is a setting of the configuration."""

    changes: dict = {}  # noqa: RUF012

    def __init__(self, config):
        super().__init__(dataclasses.replace(config, **self.changes))


def _set(**changes):
    return altered(_Changed, changes=changes)


def _aliases(config: ViTConfig) -> dict:
    """Return the names of the chapter, and the configuration as a whole."""
    return {
        "config": config,
        "n": config.num_patches,
        "p": config.patch_size,
        "e": config.embed_dim,
        "h": config.num_heads,
        "classes": config.num_classes,
    }


def _model(b: int, loud: float = 1.0, **options) -> tuple:
    config = ViTConfig(**options)
    weights = drawn_weights(lambda: library.ViT(config), seed=b)
    build = Build(options, weights, _aliases(config))
    return build, loud * drawn(b, config.in_channels, *_pair(config), seed=b)


def _pair(config: ViTConfig) -> tuple[int, int]:
    side = config.image_size
    return side if isinstance(side, tuple) else (side, side)


def _same_scores(probe: Probe) -> Finding | None:
    """Ask whether the scores depend on the image."""
    got = probe.got
    if len(got) > 1 and torch.allclose(got, got[:1].expand_as(got), atol=1e-5):
        return Finding(
            "same scores",
            "all images get the same scores: what is read knows nothing of them",
        )
    return None


def _about_model(probe: Probe) -> Finding | None:
    """Ask what must hold of class scores."""
    build, images = probe.given
    sums = probe.got.sum(dim=1)
    if torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        return Finding(
            "softmax at the end",
            "the scores of an image sum to 1: cross-entropy takes its own softmax",
        )
    p = build.sizes["patch_size"]
    rows, cols = grid_of(tuple(images.shape[2:]), p)
    if rows * cols > 1:
        cut = "b c (rows p1) (cols p2) -> b rows cols c p1 p2"
        back = "b rows cols c p1 p2 -> b c (rows p1) (cols p2)"
        flipped = rearrange(images, cut, p1=p, p2=p).flip(1, 2)
        moved = probe.run(build, rearrange(flipped, back))
        if moved is not None and torch.allclose(moved, probe.got, atol=1e-5):
            return Finding(
                "no positions",
                "shuffled patches give the same scores: no place differs from another",
            )
    return None


_ENDS = ("attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")
_PARTS = (
    narrowed(
        silent(*_ENDS),
        right=None,
        wrong=Finding(
            "class token or head",
            "wrong even when all branches are silent, so that the class token only "
            "runs through: look at how it enters, and at what the head makes of it",
        ),
    ),
    narrowed(
        silent("patch_embed.proj.weight"),
        right=Finding(
            "patches",
            "right when the images do not count, so what follows the patches is "
            "right: look at how an image becomes tokens",
        ),
        wrong=None,
    ),
    narrowed(
        silent("patch_embed.proj.weight", "pos_embed"),
        right=Finding(
            "positions",
            "right with a table of zeros: look at how positions are added",
        ),
        wrong=Finding(
            "blocks",
            "wrong even when images and positions do not count: look at the blocks, "
            "with checks.encoder, at how they follow each other, and at what is done "
            "to the tokens before them",
        ),
    ),
)

_SMALL = {"embed_dim": 4, "depth": 1, "num_heads": 1, "num_classes": 2}
_MEDIUM = {"embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}

ViT = ClassJudge(
    task="ViT",
    arguments=("model", "images"),
    axes="b num_classes",
    oracle=library.ViT,
    cases=(
        Case(
            "one block and two patches",
            _model(1, image_size=(2, 4), patch_size=2, **_SMALL),
        ),
        Case("a square image", _model(3, image_size=4, patch_size=2, **_MEDIUM)),
        Case("wide images", _model(2, image_size=(6, 9), patch_size=3, **_MEDIUM)),
        Case(
            "three blocks",
            _model(4, image_size=(8, 4), patch_size=2, **_MEDIUM | {"depth": 3}),
        ),
    ),
    mistakes=(
        *(
            Mistake(mistake.name, mistake.tell, _enters(mistake.twin))
            for mistake in positions.add_positions.mistakes
            # Longer tokens fit no block.
            if mistake.name != "joined, not added"
        ),
        Mistake(
            "class token last",
            "the class token stands behind the patches, and gets the last position",
            _with(
                enter=lambda self, x: (
                    torch.cat([x, self.cls_token.expand(len(x), -1, -1)], 1)
                    + self.pos_embed
                ),
                choose=lambda self, x: x[:, -1],
            ),
        ),
        Mistake(
            "positions too late",
            "the positions are added behind the blocks: in them no place differed from "
            "another",
            _with(enter=_bare, encode=_positions_behind_the_blocks),
        ),
        Mistake(
            "positions in every block",
            "the positions are added before every block: once, before the first",
            _with(enter=_bare, encode=_positions_in_every_block),
        ),
        Mistake(
            "reads token 1",
            "the head reads token 1, the first patch",
            _reads(lambda tokens: tokens[:, 1]),
        ),
        Mistake(
            "reads the last token",
            "the head reads the last token, a patch",
            _reads(lambda tokens: tokens[:, -1]),
        ),
        Mistake(
            "mean of the patches",
            "the head reads the mean of the patches: here it reads the class token",
            _reads(lambda tokens: tokens[:, 1:].mean(dim=1)),
        ),
        Mistake(
            "mean of all tokens",
            "the head reads the mean of all tokens, class token included: here it "
            "reads the class token",
            _reads(lambda tokens: tokens.mean(dim=1)),
        ),
        Mistake(
            "norm before the mean",
            "the head reads the mean of all normalised tokens: here it reads the class "
            "token",
            _with(score=lambda self, x: self.head(self.norm(x).mean(dim=1))),
        ),
        *around_blocks(_ViT),
        Mistake(
            "reshape, no transpose",
            "the tokens are torn: the convolution's (b, e, rows, cols) was reshaped "
            "straight to (b, n, e). Which axes have to change places?",
            _with(embed=_grid_torn),
        ),
        Mistake(
            "columns first",
            "the patches come column by column: read the image like a page",
            _with(embed=_by_columns),
        ),
        Mistake(
            "post-norm",
            "the blocks normalise behind each addition (post-norm): ViT normalises "
            "what enters a branch",
            _PostNorm,
        ),
        Mistake(
            "other eps",
            "right but for eps of the norms: 1e-5 is PyTorch's, ViT has 1e-6",
            _set(norm_eps=1e-5),
        ),
        Mistake(
            "the approximation",
            "right but for the form of GELU: this is the one with tanh",
            _set(gelu="tanh"),
        ),
    ),
    questions=(each_image_alone(1), _same_scores, _about_model),
    narrowing=_PARTS,
    hints={
        "pos_embed": "One row for each token, the class token too, and one table for "
        "all images: (1, n + 1, e). With one row all tokens get the same vector",
        "cls_token": "One vector for all images: (1, 1, e)",
        "patch_embed.proj.weight": "A convolution from in_channels to embed_dim",
        "head.weight": "The head maps embed_dim to num_classes",
    },
)


# The first loss


def _about_first_loss(probe: Probe) -> Finding | None:
    """Ask whether a fresh model prefers no class."""
    build, images = probe.given
    classes = build.sizes["num_classes"]
    got = probe.got.double()
    if got.shape != (len(images), classes):
        return Finding(
            "shape",
            f"its shape is {tuple(got.shape)}, needed is (b, num_classes) = "
            f"{(len(images), classes)}",
        )
    if not got.isfinite().all():
        return Finding(
            "nan",
            "some scores are NaN or infinite: is a parameter never filled, such as "
            "one made by torch.empty?",
        )
    if torch.allclose(got.sum(dim=1), torch.ones(len(images)).double(), atol=1e-3):
        return Finding(
            "softmax at the end",
            "the scores of an image sum to 1: cross-entropy takes its own softmax, so "
            "the loss is near ln C for the wrong reason, and stays near it",
        )
    labels = torch.arange(len(images)) % classes
    loss = F.cross_entropy(got, labels).item()
    if abs(loss - math.log(classes)) < 0.5:
        return None
    said = (
        f"the loss at step 0 is {loss:.2f}, and ln {classes} = {math.log(classes):.2f}"
        " when no class is preferred"
    )
    if got.std(dim=0).max() < 0.1 * got.std(dim=1).max():
        return Finding(
            "one class preferred",
            f"{said}: all images prefer the same classes. Look at what they share: "
            "the head's bias, or loud positions that no norm brings down",
        )
    return Finding(
        "loud scores",
        f"{said}: the scores of an image differ by {got.std(dim=1).mean():.2g} from "
        "each other. How does the head start, and what normalises what it reads?",
    )


def _fresh(b: int, **options) -> tuple:
    build, images = _model(b, **options)
    return dataclasses.replace(build, weights=None), images


first_loss = ClassJudge(
    task="first_loss",
    arguments=("model", "images"),
    axes="b num_classes",
    oracle=None,
    cases=(
        Case(
            "seven classes",
            _fresh(14, image_size=(6, 9), patch_size=3, **_MEDIUM | {"num_classes": 7}),
        ),
        Case(
            "forty classes",
            _fresh(
                40,
                image_size=(8, 4),
                patch_size=2,
                **_MEDIUM | {"num_classes": 40, "embed_dim": 24},
            ),
        ),
    ),
    questions=(_about_first_loss,),
)


# Counting


def _parts(config: ViTConfig) -> dict[str, int]:
    """Count the parameters of each part."""
    e, t, p = config.embed_dim, config.num_tokens, config.patch_size
    hidden = int(e * config.mlp_ratio)
    return {
        "patches": config.in_channels * p * p * e + e,
        "class token": e,
        "positions": t * e,
        "qkv": config.depth * (3 * e * e + 3 * e),
        "proj": config.depth * (e * e + e),
        "mlp": config.depth * (2 * e * hidden + hidden + e),
        "norms": config.depth * 4 * e,
        "one of two norms": config.depth * 2 * e,
        "norm": 2 * e,
        "head": e * config.num_classes + config.num_classes,
    }


def _less(*names: str):
    """Return an answer that leaves parts out."""
    return lambda config: (
        library.count_parameters(config) - sum(_parts(config)[name] for name in names)
    )


def _biases(config: ViTConfig) -> int:
    e, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
    return e + config.depth * (3 * e + e + hidden + e) + config.num_classes


def _which_part(probe: Probe) -> Finding | None:
    """Ask which parts are missing, or counted twice."""
    (config,) = probe.given
    # With one block too many parts are equally large.
    if config.depth == 1:
        return None
    gap = int(probe.got - probe.expected)
    for name, count in _parts(config).items():
        if gap in (-count, count):
            verb = "missing" if gap < 0 else "counted once too often"
            return Finding(
                "a part", f"it is off by {gap:+,}: as much as {name}, {verb}"
            )
    for name, per in (
        ("embed_dim", config.embed_dim),
        ("num_classes", config.num_classes),
    ):
        if gap % per == 0 and abs(gap // per) < 200:
            return Finding(
                "a few vectors",
                f"it is off by {gap:+,}, which is {gap // per:+} times {name}: which "
                "vectors have this length? Biases, norms, tokens, columns of the "
                "map of patches",
            )
    return Finding("count", f"it is off by {gap:+,}")


_CONFIGS = (
    Case(
        "one block",
        (ViTConfig(image_size=4, patch_size=2, in_channels=1, **_SMALL),),
    ),
    Case("two blocks", (ViTConfig(image_size=12, patch_size=4, **_MEDIUM),)),
    Case(
        "an image of 24x40",
        (
            ViTConfig(
                image_size=(24, 40),
                patch_size=8,
                embed_dim=20,
                depth=3,
                num_heads=5,
                num_classes=7,
            ),
        ),
    ),
    Case("ViT-B/16", (library.VIT_B_16,)),
)

count_parameters = Judge(
    task="count_parameters",
    arguments=("config",),
    axes="",
    oracle=library.count_parameters,
    cases=_CONFIGS,
    mistakes=(
        Mistake(
            "class token and positions missing",
            "the class token and the positions are not counted: a summary that looks "
            "at layers alone misses parameters that the model holds directly",
            _less("class token", "positions"),
        ),
        Mistake(
            "positions missing", "the positions are not counted", _less("positions")
        ),
        Mistake(
            "one vector missing",
            "one vector of length e is missing: the class token, or its row in the "
            "table of positions",
            _less("class token"),
        ),
        Mistake(
            "no biases",
            "the biases are not counted: every linear map here has one",
            lambda config: library.count_parameters(config) - _biases(config),
        ),
        Mistake(
            "one block only",
            "right with one block, wrong with more: the blocks are counted once",
            lambda config: library.count_parameters(
                dataclasses.replace(config, depth=1)
            ),
        ),
        Mistake(
            "heads multiply",
            "the attention is counted once for each head: heads share out what "
            "is there",
            lambda config: (
                library.count_parameters(config)
                + (config.num_heads - 1)
                * (_parts(config)["qkv"] + _parts(config)["proj"])
            ),
        ),
        Mistake(
            "norms missing",
            "the norms are not counted: each has a weight and a bias",
            _less("norms", "norm"),
        ),
        Mistake(
            "last norm missing",
            "the norm in front of the head is not counted",
            _less("norm"),
        ),
        Mistake("head missing", "the head is not counted", _less("head")),
        Mistake(
            "proj missing",
            "the map behind the heads, proj, is not counted",
            _less("proj"),
        ),
        Mistake(
            "one of q, k and v",
            "queries, keys and values are counted as one map: there are three",
            lambda config: (
                library.count_parameters(config) - _parts(config)["qkv"] * 2 // 3
            ),
        ),
        Mistake(
            "millions",
            "it is counted in millions",
            lambda c: library.count_parameters(c) / 1e6,
        ),
    ),
    questions=(_which_part,),
)


def _work(config: ViTConfig) -> dict[str, int]:
    """Count the operations of each part."""
    e, t, n = config.embed_dim, config.num_tokens, config.num_patches
    patch = config.in_channels * config.patch_size**2
    hidden = int(e * config.mlp_ratio)
    return {
        "the patch embedding": 2 * n * patch * e,
        "qkv": 2 * config.depth * t * 3 * e * e,
        "proj": 2 * config.depth * t * e * e,
        "the scores": 2 * config.depth * t * t * e,
        "the mixing of values": 2 * config.depth * t * t * e,
        "the MLP": 2 * config.depth * t * 2 * e * hidden,
        "the head": 2 * e * config.num_classes,
    }


def _which_work(probe: Probe) -> Finding | None:
    """Ask which part is missing, or counted twice."""
    (config,) = probe.given
    gap = int(probe.got - probe.expected)
    for name, count in _work(config).items():
        for times in (-1, 1, -0.5):
            if gap == times * count:
                verb = {-1: "missing", 1: "counted twice", -0.5: "counted half"}[times]
                return Finding(
                    "a part", f"it is off by {gap:+,}: as if {name} were {verb}"
                )
    return Finding(
        "count", f"it is {probe.got / probe.expected:.4g} times what it should be"
    )


def _work_less(*names: str, times: float = 1):
    return lambda config: (
        library.count_flops(config)
        - int(times * sum(_work(config)[name] for name in names))
    )


count_flops = Judge(
    task="count_flops",
    arguments=("config",),
    axes="",
    oracle=library.count_flops,
    cases=_CONFIGS,
    mistakes=(
        Mistake(
            "multiply-adds",
            "it is half of what it should be: a multiplication and an addition are two "
            "operations here, many tables count them as one",
            lambda config: library.count_flops(config) // 2,
        ),
        Mistake(
            "no attention products",
            "the two products without weights are missing, scores and mixing: they "
            "grow with the square of the tokens",
            _work_less("the scores", "the mixing of values"),
        ),
        Mistake(
            "one attention product",
            "attention multiplies twice: for the scores and for the mixing of values. "
            "One of them is missing",
            _work_less("the scores"),
        ),
        Mistake(
            "one block only",
            "right with one block, wrong with more: the blocks are counted once",
            lambda config: library.count_flops(dataclasses.replace(config, depth=1)),
        ),
        Mistake(
            "class token forgotten",
            "in the blocks one token more is worked on than there are patches",
            lambda config: library.count_flops(
                dataclasses.replace(config, class_token=False, pool="mean")
            ),
        ),
        Mistake(
            "heads multiply",
            "the attention products are counted once for each head with the whole "
            "length of a token: each head has only a part of it",
            lambda config: (
                library.count_flops(config)
                + (config.num_heads - 1) * 2 * _work(config)["the scores"]
            ),
        ),
        Mistake(
            "head for every token",
            "the head is counted for every token: it reads one vector an image",
            lambda config: (
                library.count_flops(config)
                + (config.num_tokens - 1) * _work(config)["the head"]
            ),
        ),
        Mistake(
            "one of q, k and v",
            "queries, keys and values are counted as one map: there are three",
            _work_less("qkv", times=2 / 3),
        ),
        Mistake(
            "one layer of the MLP",
            "one of the MLP's two linear maps is missing",
            _work_less("the MLP", times=1 / 2),
        ),
        Mistake(
            "billions",
            "it is counted in billions",
            lambda config: library.count_flops(config) / 1e9,
        ),
        Mistake(
            "weights times tokens",
            "every parameter is counted as used by every token: positions, class "
            "token and norms are in no product, the patch embedding reads patches "
            "only, and the head one vector",
            lambda config: 2 * config.num_tokens * library.count_parameters(config),
        ),
    ),
    questions=(_which_work,),
)


# Attention inside of windows


def _window_flops(grid_size, window, embed_dim):
    return 4 * math.prod(grid_size) * window**2 * embed_dim


def _about_windows(probe: Probe) -> Finding | None:
    """Say by how much the count is off."""
    (rows, cols), window, _ = probe.given
    # Where these are equal, or 1, a mistake can hide.
    if window == 1 or (rows, cols) == (window, window):
        return None
    times = (probe.got / probe.expected).item()
    return Finding(
        "count",
        f"with {rows} by {cols} patches and windows of {window} by {window} it is "
        f"{times:.4g} times what it should be: how many tokens does a token meet, and "
        "how many operations is that?",
    )


window_flops = Judge(
    task="window_flops",
    arguments=("grid_size", "window", "embed_dim"),
    axes="",
    oracle=_window_flops,
    cases=(
        Case("one window", ((2, 2), 2, 3)),
        Case("six windows", ((4, 6), 2, 5)),
        Case("windows of one patch", ((3, 5), 1, 7)),
        Case("a photo, 14 by 28 patches", ((14, 28), 7, 96)),
    ),
    mistakes=(
        Mistake(
            "every pair",
            "right with one window: with more, a token is compared with the tokens of "
            "its own window only",
            lambda grid, window, e: 4 * math.prod(grid) ** 2 * e,
        ),
        Mistake(
            "one window only",
            "right with one window, wrong with more: every window costs as much",
            lambda grid, window, e: 4 * window**4 * e,
        ),
        Mistake(
            "side for area",
            "a window of side w has w times w tokens",
            lambda grid, window, e: 4 * math.prod(grid) * window * e,
        ),
        Mistake(
            "scores alone",
            "one of the two products is missing: scores and mixing, each a "
            "multiplication and an addition",
            lambda *given: _window_flops(*given) // 2,
        ),
        Mistake(
            "multiply-adds of one product",
            "this is a quarter: there are two products, and a multiply and an add are "
            "two operations",
            lambda *given: _window_flops(*given) // 4,
        ),
        Mistake(
            "square grids only",
            "right for as many rows as columns: the grid is taken for a square",
            lambda grid, window, e: 4 * grid[0] ** 2 * window**2 * e,
        ),
        Mistake(
            "windows counted twice",
            "it is counted for every token of every window, and then for every token "
            "again",
            lambda grid, window, e: 4 * math.prod(grid) * window**4 * e,
        ),
        Mistake(
            "windows for pairs",
            "this grows with the number of windows squared: windows never meet",
            lambda grid, window, e: 4 * (math.prod(grid) // window**2) ** 2 * e,
        ),
    ),
    questions=(_about_windows,),
)


# Registers


class _RegisterViT(_ViT):
    """A ViT with registers; mistakes overwrite one of its steps."""

    def __init__(self, config, num_registers):
        super().__init__(config)
        self.registers = nn.Parameter(torch.zeros(1, num_registers, config.embed_dim))

    def enter(self, tokens):
        return torch.cat([super().enter(tokens), self.joining(tokens)], dim=1)

    def joining(self, tokens):
        return self.registers.expand(len(tokens), -1, -1)


_with_registers = functools.partial(altered, _RegisterViT)


def _positions_for_registers(self, tokens):
    tokens = prepend_cls_token(tokens, self.cls_token)
    tokens = torch.cat([tokens, self.joining(tokens)], dim=1)
    positions = self.pos_embed[
        :, torch.arange(tokens.shape[1]) % len(self.pos_embed[0])
    ]
    return tokens + positions


def _registers_first(self, tokens):
    return torch.cat([self.joining(tokens), _ViT.enter(self, tokens)], dim=1)


def _in_each_block(self, tokens):
    count = tokens.shape[1] - self.registers.shape[1]
    for block in self.blocks:
        tokens = torch.cat([tokens[:, :count], self.joining(tokens)], dim=1)
        tokens = block(tokens)
    return tokens


def _in_the_first_block(self, tokens):
    count = tokens.shape[1] - self.registers.shape[1]
    for block in self.blocks:
        tokens = block(tokens)[:, :count]
    return tokens


def _register_case(b: int, registers: int, **options) -> tuple:
    config = ViTConfig(**options)
    weights = drawn_weights(lambda: _RegisterViT(config, registers), seed=b)
    sizes = {**options, "num_registers": registers}
    build = Build(sizes, weights, _aliases(config))
    return build, drawn(b, config.in_channels, *_pair(config), seed=b)


def _registers_count(probe: Probe) -> Finding | None:
    """Ask whether the registers change anything."""
    build, images = probe.given
    # Not a multiple, nor a shift: a norm takes both away.
    weights = build.weights | {"registers": build.weights["registers"].flip(2)}
    other = probe.run(dataclasses.replace(build, weights=weights), images)
    if other is None or not torch.allclose(other, probe.got, atol=1e-5):
        return None
    return Finding(
        "registers without effect",
        "other registers change nothing: are they there while the blocks run?",
    )


RegisterViT = ClassJudge(
    task="RegisterViT",
    arguments=("model", "images"),
    axes="b num_classes",
    oracle=_RegisterViT,
    cases=(
        Case(
            "one register and one block",
            _register_case(1, 1, image_size=(2, 4), patch_size=2, **_SMALL),
        ),
        Case(
            "three registers and two blocks",
            _register_case(3, 3, image_size=4, patch_size=2, **_MEDIUM),
        ),
        Case(
            "wide images",
            _register_case(2, 4, image_size=(6, 9), patch_size=3, **_MEDIUM),
        ),
    ),
    mistakes=(
        Mistake(
            "a register is read",
            "the registers stand in front, and the head reads token 0: that is a "
            "register and not the class token",
            _with_registers(enter=_registers_first),
        ),
        Mistake(
            "the last register is read",
            "the head reads the last token, a register",
            _with_registers(choose=lambda self, x: x[:, -1]),
        ),
        Mistake(
            "registers averaged in",
            "the head reads the mean of all tokens, registers too: it reads the class "
            "token",
            _with_registers(choose=lambda self, x: x.mean(dim=1)),
        ),
        Mistake(
            "mean of the patches",
            "the head reads the mean of the patches: here it reads the class token",
            _with_registers(
                choose=lambda self, x: x[:, 1 : -self.registers.shape[1]].mean(dim=1)
            ),
        ),
        Mistake(
            "class token without a position",
            "the class token gets no position: row 0 of the table is left over",
            _with_registers(
                enter=lambda self, x: torch.cat(
                    [
                        prepend_cls_token(x + self.pos_embed[:, 1:], self.cls_token),
                        self.joining(x),
                    ],
                    dim=1,
                )
            ),
        ),
        Mistake(
            "positions for registers",
            "the registers got positions: they have no place in the image",
            _with_registers(enter=_positions_for_registers),
        ),
        Mistake(
            "registers left out",
            "registers and tokens never meet: they must be there while the blocks run",
            _with_registers(enter=_ViT.enter),
        ),
        Mistake(
            "registers renewed",
            "right with one block, wrong with more: every block starts with fresh "
            "registers, so nothing can be kept in them from block to block",
            _with_registers(encode=_in_each_block),
        ),
        Mistake(
            "registers for one block",
            "right with one block, wrong with more: behind the first block the "
            "registers are gone, so nothing that they gathered can be read",
            _with_registers(encode=_in_the_first_block),
        ),
        Mistake(
            "registers added",
            "the registers are added to the tokens: they are tokens of their own",
            _with_registers(
                enter=lambda self, x: (
                    _ViT.enter(self, x) + self.registers.sum(dim=1, keepdim=True)
                )
            ),
        ),
        Mistake(
            "registers added",
            "the registers are added to the tokens: they are tokens of their own",
            _with_registers(
                enter=lambda self, x: (
                    _ViT.enter(self, x) + self.registers.mean(dim=1, keepdim=True)
                )
            ),
        ),
        Mistake(
            "one register only",
            "right with one register, wrong with more: the others do not join",
            _with_registers(
                joining=lambda self, x: self.registers[:, :1].expand(len(x), -1, -1)
            ),
        ),
        *around_blocks(_RegisterViT),
    ),
    questions=(each_image_alone(1), _registers_count),
    narrowing=_PARTS,
    hints={
        "registers": "One row for each register, one table for all images: "
        "(1, num_registers, e)",
        "pos_embed": "Registers have no position: the table has one row for each "
        "patch and one for the class token",
    },
)


# Does every parameter count?


class _Known(_ViT):
    """A model of which it is known whether all its parameters count."""

    def __init__(self, what, truth, fools, tell, *, fresh=False, **more):
        options = {"image_size": (6, 4), "patch_size": 2, "in_channels": 1} | more
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            super().__init__(ViTConfig(**{**_MEDIUM, **options}))
            for parameter in () if fresh else self.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        self.what, self.truth, self.fools, self.tell = what, truth, fools, tell

    def __repr__(self):
        return f"<{self.what}>"


_known = functools.partial(altered, _Known)


def _from_the_tokens(self, tokens):
    """Give every block the tokens of the start, so that the last one decides."""
    for block in self.blocks:
        result = block(tokens)
    return result


def _cut_off(self, tokens):
    first, *rest = self.blocks
    tokens = first(tokens).detach()
    for block in rest:
        tokens = block(tokens)
    return tokens


def _one_norm(self, tokens):
    for block in self.blocks:
        tokens = tokens + block.attn(block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm1(tokens))
    return tokens


_MODELS = (
    _known()(
        "a model as in the chapter",
        True,
        "right model refused",
        "in this model every parameter counts, and it says False. Do you ask that "
        "every single number has a gradient? Ask it of each parameter as a whole",
    ),
    _known(encode=_from_the_tokens)(
        "a model in which the last block alone decides",
        False,
        "last block alone",
        "fooled by a loop in which every block starts from the same tokens: the first "
        "block runs, and what it makes is thrown away",
    ),
    _known()(
        "a model fresh from the library",
        True,
        "fresh model refused",
        "this is a right model, and it is fresh: its head starts with zeros, so no "
        "gradient comes back through it yet. Give a copy of the model other numbers "
        "before you look",
        fresh=True,
    ),
    _known(enter=_bare)(
        "a model that never adds its positions",
        False,
        "no positions",
        "fooled by positions that are never added: they are a parameter without a "
        "layer. Which parameters do you look at?",
    ),
    _known(score=lambda self, x: self.head(x[:, 0]))(
        "a model that does not use its last norm",
        False,
        "unused norm",
        "fooled by a norm that is there and not used: its gradient is None, or never "
        "comes",
    ),
    _known(choose=lambda self, x: x[:, 1:].mean(dim=1))(
        "a model that reads the mean of the patches",
        True,
        "mean refused",
        "this model reads the patches, and its class token still counts, because the "
        "patches look at it: every parameter has an influence",
    ),
    _known(encode=_cut_off)(
        "a model that is cut off behind its first block",
        False,
        "cut off",
        "fooled by a detach behind the first block: what lies before never learns",
    ),
    _known(encode=_one_norm)(
        "a model in which each block uses one norm twice",
        False,
        "one norm for both",
        "fooled by blocks that use norm1 twice: norm2 is there and never used",
    ),
    _known()(
        "a fresh model with three blocks",
        True,
        "fresh model refused",
        "this is a right and fresh model, and it says False: see how its head starts",
        fresh=True,
        depth=3,
    ),
)

_SIX = drawn(2, 1, 6, 4, seed=6)

uses_every_parameter = decides(
    "uses_every_parameter",
    ("vit", "images"),
    _MODELS,
    _SIX,
    mistakes=(
        Mistake(
            "always False",
            "it says False of every model, of right ones too: do you ask that every "
            "single number has a gradient, or look before any was taken?",
            lambda vit, images: False,
        ),
    ),
)


# When is one of two variants better?


def _ranges(first, second):
    if min(first) > max(second):
        return "first"
    return "second" if min(second) > max(first) else "tie"


def _by(measure):
    """Return a verdict that compares one number of each."""

    def twin(first, second):
        one, other = measure(first), measure(second)
        if one == other:
            return "tie"
        return "first" if one > other else "second"

    return twin


def _mean(values):
    return sum(values) / len(values)


def _seed_by_seed(first, second):
    wins = [a > b for a, b in zip(first, second, strict=False)]
    if all(wins):
        return "first"
    return "tie" if any(wins) else "second"


def _about_verdict(probe: Probe) -> Finding | None:
    """Ask whether the two are treated alike."""
    first, second = probe.given
    swapped = probe.run(second, first)
    mirrored = {0: 1, 1: 0, 2: 2}
    if swapped is not None and int(swapped) != mirrored[int(probe.got)]:
        return Finding(
            "not symmetric",
            "with the two lists swapped the verdict is not the mirrored one",
        )
    words = verdict.answers
    return Finding(
        "other rule",
        f"the accuracies run from {min(first)} to {max(first)} and from {min(second)} "
        f"to {max(second)}, and it says {words[int(probe.got)]!r}: do these two ranges "
        "touch?",
    )


verdict = Decision(
    task="verdict",
    arguments=("first", "second"),
    axes="",
    oracle=_ranges,
    cases=(
        Case("ranges far apart", ([0.9, 0.92, 0.91], [0.6, 0.7, 0.65])),
        Case("the second is better", ([0.5, 0.55, 0.52], [0.8, 0.7, 0.75])),
        Case("ranges that overlap", ([0.95, 0.6, 0.93], [0.7, 0.72, 0.71])),
        Case("equal means", ([0.7, 0.8], [0.72, 0.78])),
        Case("one seed in common", ([0.8, 0.85, 0.9], [0.7, 0.8, 0.75])),
        Case("ahead on every seed", ([0.6, 0.8, 0.95], [0.55, 0.75, 0.9])),
        Case("in any order of the seeds", ([0.9, 0.7, 0.8], [0.65, 0.5, 0.69])),
        Case("other numbers of seeds", ([0.3, 0.2], [0.31, 0.5, 0.4, 0.35])),
    ),
    mistakes=(
        Mistake(
            "means",
            "it compares the means: with a few seeds means always differ a little. How "
            "far do the seeds of one variant spread?",
            _by(_mean),
        ),
        Mistake(
            "best seeds",
            "it compares the best seed of each: one lucky seed decides",
            _by(max),
        ),
        Mistake(
            "worst seeds",
            "it compares the worst seed of each: one unlucky seed decides",
            _by(min),
        ),
        Mistake(
            "first seeds",
            "it compares the first seed of each: what are the others for?",
            _by(lambda values: values[0]),
        ),
        Mistake(
            "seed by seed",
            "it asks who wins on every seed. That is another rule, for runs that saw "
            "the same batches: the one asked for is about ranges",
            _seed_by_seed,
        ),
        Mistake(
            "swapped",
            "the names are swapped: the larger accuracy is the better one",
            lambda first, second: _ranges(second, first),
        ),
        Mistake(
            "touching is apart",
            "ranges that touch in one number count as apart: there a seed of one did "
            "as well as a seed of the other",
            lambda first, second: (
                "first"
                if min(first) >= max(second)
                else "second"
                if min(second) >= max(first)
                else "tie"
            ),
        ),
        *always(("first", "second", "tie")),
    ),
    questions=(_about_verdict,),
    answers=("first", "second", "tie"),
)
