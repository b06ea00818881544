"""Checks of what chapter 08 builds: the whole model, its parameters and its cost."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from einops import rearrange

import vitlib.vit as library
from vitlib.checks.building import Build, ClassJudge, drawn, drawn_weights
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
        return self.head(self.norm(tokens[:, 0]))


def _with(**steps):
    """Return the model with other steps."""
    return type("ViT", (_ViT,), steps)


def _reads(choose):
    return _with(score=lambda self, tokens: self.head(self.norm(choose(tokens))))


def _enters(function):
    return _with(
        enter=lambda self, tokens: function(tokens, self.cls_token, self.pos_embed)
    )


def _encodes(function):
    def encode(self, tokens):
        for block in function(list(self.blocks)):
            tokens = block(tokens)
        return tokens

    return _with(encode=encode)


def _grid_torn(self, images):
    grid = self.patch_embed.proj(images)
    return grid.reshape(len(grid), -1, grid.shape[1])


def _by_columns(self, images):
    grid = self.patch_embed.proj(images)
    return rearrange(grid, "b e rows cols -> b (cols rows) e")


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


class _PositionsLast(_ViT):
    def enter(self, tokens):
        return prepend_cls_token(tokens, self.cls_token)

    def encode(self, tokens):
        return super().encode(tokens) + self.pos_embed


class _Changed(_ViT):
    """A mistake that is a setting of the configuration."""

    changes: dict = {}  # noqa: RUF012

    def __init__(self, config):
        super().__init__(dataclasses.replace(config, **self.changes))


def _set(**changes):
    return type("ViT", (_Changed,), {"changes": changes})


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
        Mistake(
            "no positions",
            "the positions are not added: shuffled patches give the same scores",
            _enters(lambda x, cls, pos: prepend_cls_token(x, cls)),
        ),
        Mistake(
            "one vector for all tokens",
            "one row of the position table is added to all tokens",
            _enters(lambda x, cls, pos: prepend_cls_token(x, cls) + pos[:, :1]),
        ),
        Mistake(
            "class token without a position",
            "the class token gets no position: row 0 of the table is left over",
            _enters(lambda x, cls, pos: prepend_cls_token(x + pos[:, 1:], cls)),
        ),
        Mistake(
            "off by one",
            "the patches get the positions of their neighbours, and the last row of "
            "the table is left over",
            _enters(lambda x, cls, pos: prepend_cls_token(x + pos[:, :-1], cls)),
        ),
        Mistake(
            "class token last",
            "the class token stands behind the patches, and gets the last position",
            type(
                "ViT",
                (_ViT,),
                {
                    "enter": lambda self, x: (
                        torch.cat([x, self.cls_token.expand(len(x), -1, -1)], 1)
                        + self.pos_embed
                    ),
                    "score": lambda self, x: self.head(self.norm(x[:, -1])),
                },
            ),
        ),
        Mistake(
            "positions too late",
            "the positions are added behind the blocks: in them no place differed from "
            "another",
            _PositionsLast,
        ),
        Mistake(
            "positions in every block",
            "the positions are added before every block: once, before the first",
            type(
                "ViT",
                (_ViT,),
                {
                    "enter": lambda self, x: prepend_cls_token(x, self.cls_token),
                    "encode": _positions_in_every_block,
                },
            ),
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
        Mistake(
            "all tokens scored",
            "every token gets scores: one row of them for each image is needed",
            _with(score=lambda self, x: self.head(self.norm(x))),
        ),
        Mistake(
            "no last norm",
            "the last norm, in front of the head, is not used",
            _with(score=lambda self, x: self.head(x[:, 0])),
        ),
        Mistake(
            "softmax at the end",
            "these are probabilities: cross-entropy takes its own softmax, and two of "
            "them learn slowly",
            _with(score=lambda self, x: _ViT.score(self, x).softmax(dim=-1)),
        ),
        Mistake(
            "one block only",
            "right with one block, wrong with more: only the first one is used",
            _encodes(lambda blocks: blocks[:1]),
        ),
        Mistake(
            "one block only",
            "right with one block, wrong with more: every block starts from the same "
            "tokens, and only the last one counts",
            _encodes(lambda blocks: blocks[-1:]),
        ),
        Mistake(
            "one block again and again",
            "right with one block, wrong with more: the same block is used each time",
            _encodes(lambda blocks: blocks[:1] * len(blocks)),
        ),
        Mistake(
            "blocks backwards",
            "right with one block, wrong with more: the blocks come in reverse order",
            _encodes(lambda blocks: blocks[::-1]),
        ),
        Mistake(
            "no blocks",
            "the blocks are not used",
            _encodes(lambda blocks: []),
        ),
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
