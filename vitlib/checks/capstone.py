"""Checks of the capstone: a ViT without a class token, its training, and what it does.

Its attention and its block are those of chapters 05 and 07, and are checked there.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitlib.checks.patches as patches
from vitlib.checks.building import Build, ClassJudge, altered, drawn, drawn_weights
from vitlib.checks.comparing import differing
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.questions import each_image_alone, narrowed, silent
from vitlib.checks.vit import around_blocks
from vitlib.checks.wording import Finding
from vitlib.data import relation_task
from vitlib.encoder import EncoderBlock
from vitlib.patches import grid_of, split_patches

# Patches and places


class _Embed(nn.Module):
    """Flat patches through a dense layer, and a position for each."""

    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__()
        rows, cols = grid_of(image_size, patch_size)
        self.patch_size = patch_size
        self.proj = nn.Linear(in_channels * patch_size**2, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * cols, embed_dim))

    def forward(self, images):
        return self.join(self.proj(self.cut(images)))

    def cut(self, images):
        return split_patches(images, self.patch_size)

    def join(self, tokens):
        return tokens + self.pos_embed


def _joins(function):
    """Return the embedding with another way to add positions."""
    return altered(_Embed, join=function)


def _cuts(function):
    """Return the embedding with another way to cut images."""
    return altered(_Embed, cut=lambda self, images: function(images, self.patch_size))


_NO_TABLE = narrowed(
    silent("pos_embed"),
    right=Finding(
        "positions",
        "right with a table of zeros, so the patches are right: look at how the table "
        "is added",
    ),
    wrong=Finding(
        "patches",
        "wrong even with a table of zeros: look at how an image is cut and laid flat",
    ),
)


def _built(oracle: type, b: int, sizes: dict, seed: int) -> tuple:
    height, width = sizes["image_size"]
    build = Build(sizes, drawn_weights(lambda: oracle(**sizes), seed=seed))
    return build, drawn(b, sizes["in_channels"], height, width, seed=seed)


def _embed_case(b, height, width, p, c, e) -> tuple:
    sizes = {
        "image_size": (height, width),
        "patch_size": p,
        "in_channels": c,
        "embed_dim": e,
    }
    return _built(_Embed, b, sizes, seed=b)


Embed = ClassJudge(
    task="Embed",
    arguments=("model", "images"),
    axes="b n e",
    oracle=_Embed,
    cases=(
        Case("one grey 2x4 image", _embed_case(1, 2, 4, 2, 1, 4)),
        Case("square images", _embed_case(2, 4, 4, 2, 2, 8)),
        Case("high images", _embed_case(3, 9, 6, 3, 2, 12)),
    ),
    mistakes=(
        *(
            Mistake(m.name, m.tell, _cuts(m.twin))
            for m in patches.split_patches.mistakes
        ),
        Mistake(
            "no positions",
            "the positions are not added: ring left of cross and cross left of ring "
            "are then the same set of tokens",
            _joins(lambda self, tokens: tokens),
        ),
        Mistake(
            "one vector for all tokens",
            "every token gets the same row of the table, so no place differs",
            _joins(lambda self, tokens: tokens + self.pos_embed[:, :1]),
        ),
        Mistake(
            "multiplied",
            "tokens and positions are multiplied: they are added",
            _joins(lambda self, tokens: tokens * self.pos_embed),
        ),
    ),
    questions=(each_image_alone(1),),
    narrowing=(_NO_TABLE,),
    hints={
        "pos_embed": "One row for each patch and one table for all images: (1, n, e). "
        "There is no class token here",
        "proj.weight": "It is the weight of an nn.Linear from the c*p*p numbers of a "
        "flat patch to e",
    },
)


# The whole model


class _ViT(nn.Module):
    """The model; mistakes overwrite one of its steps."""

    def __init__(
        self,
        image_size,
        patch_size,
        in_channels,
        embed_dim,
        depth,
        num_heads,
        num_classes,
    ):
        super().__init__()
        self.embed = _Embed(image_size, patch_size, in_channels, embed_dim)
        self.blocks = nn.Sequential(
            *(EncoderBlock(embed_dim, num_heads) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images):
        return self.score(self.encode(self.embed(images)))

    def encode(self, tokens):
        return self.blocks(tokens)

    def choose(self, tokens):
        return tokens.mean(dim=1)

    def score(self, tokens):
        return self.head(self.norm(self.choose(tokens)))


_vit = functools.partial(altered, _ViT)

_READ = narrowed(
    silent("attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
    right=Finding(
        "blocks",
        "right when all branches of the blocks are silent: look at how the blocks "
        "follow each other, and try checks.encoder.EncoderBlock on yours",
    ),
    wrong=Finding(
        "embedding or head",
        "wrong even when the blocks change nothing: try checks.capstone.Embed on "
        "yours, then look at what the head reads",
    ),
)


def _vit_case(b, image_size, p, depth, e=8) -> tuple:
    sizes = {
        "image_size": image_size,
        "patch_size": p,
        "in_channels": 2,
        "embed_dim": e,
        "depth": depth,
        "num_heads": 2,
        "num_classes": 5,
    }
    return _built(_ViT, b, sizes, seed=10 + b)


ViT = ClassJudge(
    task="ViT",
    arguments=("model", "images"),
    axes="b num_classes",
    oracle=_ViT,
    cases=(
        Case("one block, one patch", _vit_case(1, (2, 2), 2, 1)),
        Case("square images", _vit_case(2, (4, 4), 2, 1)),
        Case("three blocks and wide images", _vit_case(3, (4, 6), 2, 3)),
    ),
    mistakes=(
        Mistake(
            "first token",
            "the head reads token 0. It is a patch like all others here, as there is "
            "no class token: which tokens should have a say?",
            _vit(choose=lambda self, x: x[:, 0]),
        ),
        Mistake(
            "norm before the mean",
            "each token is normalised before the mean: take the mean first",
            _vit(score=lambda self, x: self.head(self.norm(x).mean(dim=1))),
        ),
        Mistake(
            "largest, not mean",
            "the largest number of each feature is taken: take the mean of the tokens",
            _vit(choose=lambda self, x: x.amax(dim=1)),
        ),
        *around_blocks(_ViT),
    ),
    questions=(each_image_alone(1),),
    narrowing=(_READ,),
    hints={
        "embed.pos_embed": "The table belongs to the Embed of the task before, and "
        "that to self.embed",
        "norm.weight": "A LayerNorm called norm stands in front of the head",
    },
)


# Training


class _Small(nn.Sequential):
    """A network that tells training from evaluation, without dice."""

    def __init__(self):
        dice = torch.random.get_rng_state()
        torch.manual_seed(1)
        super().__init__(
            nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, 3)
        )
        torch.random.set_rng_state(dice)

    def __repr__(self) -> str:
        return "a small network with a BatchNorm"


class _Batches(list):
    """Shown by its length."""

    def __repr__(self) -> str:
        images = len(self[0][0])
        return f"[(images, labels), ...], {len(self)} batches of {images} images"


def _batches(steps, size, seed):
    dice = torch.Generator().manual_seed(seed)
    return _Batches(
        (
            drawn(size, 1, 2, 3, seed=100 * seed + step),
            torch.randint(3, (size,), generator=dice),
        )
        for step in range(steps)
    )


@dataclasses.dataclass(frozen=True, repr=False)
class _NetworkJudge(Judge):
    """How to check what is done to a network: each call gets a copy of its own."""

    def call(self, answer: Callable, network: nn.Module, *given: object) -> object:
        """Return what the answer makes of a copy of the network."""
        with torch.enable_grad():
            return answer(copy.deepcopy(network), *given)


def _fit(
    network,
    batches,
    lr,
    *,
    optimizer=torch.optim.AdamW,
    mode=True,
    clear=True,
    move=True,
    loss_of=F.cross_entropy,
    fresh=False,
):
    """Train; mistakes do one thing otherwise."""
    network.train(mode)
    stepper = optimizer(network.parameters(), lr=lr)
    losses = []
    for images, labels in batches:
        if fresh:
            stepper = optimizer(network.parameters(), lr=lr)
        loss = loss_of(network(images), labels)
        if clear:
            stepper.zero_grad()
        loss.backward()
        if move:
            stepper.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def _fit_late(network, batches, lr):
    """Note each loss behind its step."""
    losses = []
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        losses.append(F.cross_entropy(network(images), labels).detach())
    return torch.stack(losses)


def _about_losses(probe: Probe) -> Finding | None:
    """Ask which is the first loss that is wrong."""
    off = differing(probe.got, probe.expected).nonzero().flatten().tolist()
    if off[0] == 0:
        return Finding(
            "first loss",
            "the first loss is wrong already, before any step: look at what the "
            "network is told to do, and at what goes into the loss",
        )
    return Finding(
        "steps",
        f"the losses are right up to step {off[0] - 1}, and then they are not: look at "
        "what a step does, and at what is left over from the one before",
    )


fit = _NetworkJudge(
    task="fit",
    arguments=("network", "batches", "lr"),
    axes="step",
    oracle=_fit,
    cases=(
        Case("two steps", (_Small().eval(), _batches(2, 4, 1), 0.05)),
        Case("five steps", (_Small().eval(), _batches(5, 7, 2), 0.02)),
    ),
    mistakes=(
        Mistake(
            "gradients not cleared",
            "from the third loss on: each backward adds to the gradients of the step "
            "before, which nobody cleared",
            lambda *given: _fit(*given, clear=False),
        ),
        Mistake(
            "no step",
            "the weights never change: is there a step, and are the gradients still "
            "there when it is made?",
            lambda *given: _fit(*given, move=False),
        ),
        Mistake(
            "not in training mode",
            "the network arrives in evaluation mode and stays in it: dropout and "
            "BatchNorm do not work as in training then",
            lambda *given: _fit(*given, mode=False),
        ),
        Mistake(
            "a new optimizer for each step",
            "AdamW starts anew with every batch: it lives from what it remembers of "
            "the steps before",
            lambda *given: _fit(*given, fresh=True),
        ),
        Mistake(
            "softmax twice",
            "the scores went through a softmax before the cross-entropy, which takes "
            "its own",
            lambda *given: _fit(
                *given, loss_of=lambda s, y: F.cross_entropy(s.softmax(dim=1), y)
            ),
        ),
        Mistake(
            "summed loss",
            "the losses of a batch are added: take their mean",
            lambda *given: _fit(
                *given, loss_of=lambda s, y: F.cross_entropy(s, y, reduction="sum")
            ),
        ),
        Mistake(
            "SGD",
            "these are steps of plain gradient descent: AdamW is asked for",
            lambda *given: _fit(*given, optimizer=torch.optim.SGD),
        ),
        Mistake(
            "Adam",
            "nearly: these are steps of Adam, without the W",
            lambda *given: _fit(*given, optimizer=torch.optim.Adam),
        ),
        Mistake(
            "loss behind the step",
            "each loss is measured again behind its step: the loss of a step is the "
            "one that its gradients come from",
            _fit_late,
        ),
        Mistake(
            "lr ignored",
            "lr has no effect: the optimizer runs with a learning rate of its own",
            lambda network, batches, lr: _fit(network, batches, 1e-3),
        ),
    ),
    questions=(_about_losses,),
    dtypes=(),
    gradients=False,
)


def _accuracy(network, images, labels, *, mode=False, axis=1):
    network.train(mode)
    return (network(images).argmax(dim=axis) == labels).float().mean()


def _worst_class(network, images, labels):
    network.eval()
    return (network(images).argmin(dim=1) == labels).float().mean()


accuracy = _NetworkJudge(
    task="accuracy",
    arguments=("network", "images", "labels"),
    axes="",
    oracle=_accuracy,
    cases=tuple(
        Case(f"{size} images", (_Small().train(), *_batches(1, size, seed)[0]))
        for size, seed in ((4, 3), (7, 4), (40, 5))
    ),
    mistakes=(
        Mistake(
            "in training mode",
            "the network arrives in training mode and stays in it: BatchNorm looks at "
            "the other images then, and dropout would leave numbers out",
            lambda *given: _accuracy(*given, mode=True),
        ),
        Mistake(
            "counted, not averaged",
            "this is a number of images: a share between 0 and 1 is asked for",
            lambda network, x, y: _accuracy(network, x, y) * len(y),
        ),
        Mistake(
            "percent",
            "this is in percent: a share between 0 and 1 is asked for",
            lambda *given: 100 * _accuracy(*given),
        ),
        Mistake(
            "share of errors",
            "this is the share of wrong answers",
            lambda *given: 1 - _accuracy(*given),
        ),
        Mistake(
            "lowest score",
            "the class with the lowest score is taken",
            _worst_class,
        ),
    ),
    dtypes=(),
    gradients=False,
)


# Ring and cross


NEEDED, CHANCE_AT_MOST = 0.95, 0.35
_draw = functools.cache(relation_task)


class Relation:
    """Images to learn from, and images to tell the classes of."""

    # Drawn when they are asked for, and copied: they are the student's then.
    @functools.cached_property
    def images(self) -> Tensor:
        """8000 of (1, 32, 32)."""
        return _draw(8000, seed=0)[0].clone()

    @functools.cached_property
    def labels(self) -> Tensor:
        """Their classes."""
        return _draw(8000, seed=0)[1].clone()

    @functools.cached_property
    def unseen(self) -> Tensor:
        """1000 others."""
        return _draw(1000, seed=1)[0].clone()

    def __repr__(self) -> str:
        """Say what it has."""
        return "8000 images with labels, and 1000 unseen images"


def _about_answers(probe: Probe) -> Finding | None:
    """Ask how many unseen images are right, and what the others have in common."""
    _, _, positions = probe.given
    got, labels = probe.got, _draw(1000, seed=1)[1]
    if got.shape != labels.shape or got.is_floating_point():
        return Finding(
            "form",
            f"it returned {got.dtype} of shape {tuple(got.shape)}: return one class "
            f"for each unseen image, whole numbers of shape {tuple(labels.shape)}",
        )
    share = (got == labels).double().mean().item()
    if not positions:
        return None if share <= CHANCE_AT_MOST else _about_control(share)
    if share >= NEEDED:
        return None
    if len(got.unique()) == 1:
        return Finding(
            "one class",
            f"every image gets class {got[0].item()}: has it been trained, and on "
            "labels that belong to the images?",
        )
    table = torch.zeros(4, 4).index_put_(
        (labels, got.clamp(0, 3).long()), torch.ones(()), accumulate=True
    )
    likely = table.argmax(dim=1)
    if likely.unique().numel() == 4 and table.amax(dim=1).sum() > NEEDED * len(labels):
        return Finding(
            "classes renamed",
            f"class 0 is nearly always called {likely[0].item()}, class 1 "
            f"{likely[1].item()}, and so on: it tells the classes apart, by other "
            "numbers. What happened to the labels?",
        )
    if share <= CHANCE_AT_MOST:
        return Finding(
            "at chance",
            f"{share:.0%} of the unseen images are right: no better than a guess. Does "
            "the loss fall at all? If not, look at the positions and how they start",
        )
    return Finding(
        "not enough",
        f"{share:.0%} of the unseen images are right, {NEEDED:.0%} are needed: does "
        "the loss still fall when you stop?",
    )


def _about_control(share: float) -> Finding:
    return Finding(
        "control",
        f"without positions {share:.0%} are right, where a guess has 25%: something "
        "else still tells the model where a patch stands",
    )


solve = Judge(
    task="solve",
    arguments=("relation", "seed", "positions"),
    axes="M",
    oracle=None,
    cases=(
        Case("seed 0", (Relation(), 0, True)),
        Case("seed 1", (Relation(), 1, True)),
        Case("seed 2", (Relation(), 2, True)),
        Case("the control without positions", (Relation(), 0, False)),
    ),
    questions=(_about_answers,),
    seconds=120.0,
    dtypes=(),
)
