"""What five tutorials claim, and what came of it when measured.

python tests/claims.py    measure what is quick, read the rest, write book/claims.md
"""

import csv
import dataclasses
import io
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitlib
from vitlib.predict import preprocess

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book" / "claims.md"
TUTORIALS = {
    1: "in Korean, from the encoder block to the whole model, in code",
    2: "in Korean, the ideas without code",
    3: "in Korean, a reading of an early vit-pytorch",
    4: "in Korean, a code review that ends with a pretrained model and a cat",
    5: "in Chinese, from patches to ViT-B/16, with DropPath",
}
INTRODUCTION = """\
# Claims, settled

This book grew from five tutorials. They are good reading, and they make claims: some
right, some wrong, some repeated from elsewhere. Here is every one that the chapters
settle, with the experiment, its numbers and a verdict. Accuracies are means over seeds,
with the lowest and the highest in brackets. Where such ranges overlap we call it a tie.

`python tests/claims.py` writes this page from the tables in `notebooks/experiments` and
from what it measures itself. Every verdict rests on conditions that are checked while
the page is written; a test fails if one does not hold, or if the page is out of date.

The tutorials: {tutorials}.

| Claim | Said by | Verdict |
| --- | --- | --- |
"""
SECTION = """
({label})=
## {title}

*Tutorial{plural} {said_by}. [Chapter {number}](../notebooks/{chapter}.ipynb).*

**Experiment.** {experiment}

**Numbers.**

{numbers}

**Verdict: {verdict}.** {because}
"""


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim, who makes it, and how it was settled.

    `measure` returns the numbers, a text each, and asserts what the verdict rests on.
    """

    title: str
    said_by: tuple[int, ...]
    chapter: str
    experiment: str
    verdict: str
    because: str
    measure: Callable[[], list[str]]


CLAIMS: list[Claim] = []


def claim(
    title: str,
    *,
    said_by: tuple[int, ...],
    chapter: str,
    experiment: str,
    verdict: str,
    because: str,
):
    """Enter a function as the measurement of a claim."""

    def enter(measure: Callable[[], list[str]]) -> Callable[[], list[str]]:
        CLAIMS.append(
            Claim(title, said_by, chapter, experiment, verdict, because, measure)
        )
        return measure

    return enter


# Reading the experiments


def runs(chapter: str, column: str, **wanted: str) -> list[float]:
    """Return one column of an experiment's table, in the rows that fit."""
    with open(ROOT / f"notebooks/experiments/{chapter}.csv", newline="") as file:
        found = [
            float(row[column])
            for row in csv.DictReader(file)
            if wanted.items() <= row.items()
        ]
    assert len(found) >= 3, f"{len(found)} rows of {chapter}.csv have {wanted}"
    return found


def told(
    values: list[float], unit: str = " %", factor: float = 100, digits: int = 1
) -> str:
    """Write a mean with its range."""
    mean = sum(values) / len(values)
    mean, low, high = (
        f"{factor * value:.{digits}f}" for value in (mean, min(values), max(values))
    )
    return f"{mean}{unit} ({low} to {high})"


def tie(first: list[float], second: list[float]) -> bool:
    """Say whether the ranges of two variants overlap."""
    return min(first) <= max(second) and min(second) <= max(first)


# Chapters 00 to 03


@claim(
    "The embedding dimension is 16·16·3 = 768",
    said_by=(2, 4, 5),
    chapter="00_shapes",
    experiment="Count the pixels of a patch and the embedding of the paper's three "
    "sizes.",
    verdict="wrong",
    because="The pixels of a patch are mapped to the embedding by a matrix that need "
    "not be square. In ViT-B/16 it happens to be.",
)
def embedding_dimension() -> list[str]:
    named = {
        "ViT-B/16": vitlib.VIT_B_16,
        "ViT-L/16": vitlib.VIT_L_16,
        "ViT-H/14": vitlib.VIT_H_14,
    }
    sizes = {
        name: (3 * config.patch_size**2, config.embed_dim)
        for name, config in named.items()
    }
    assert [a == b for a, b in sizes.values()] == [True, False, False]
    return [f"{name}: {a} pixels, {b} wide" for name, (a, b) in sizes.items()]


@claim(
    "The class token is a trainable key that picks among the values",
    said_by=(5,),
    chapter="02_cls_token",
    experiment="Close the class token's column of the weights (others cannot look "
    "at it), then its row (it cannot look at the photo), in one layer, "
    "and see whether its own result depends on the patches.",
    verdict="wrong",
    because="It is query, key and value in every block, like any token. What it "
    "collects it collects with its query, and the head reads its last state.",
)
def class_token_as_key() -> list[str]:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 10, 8, dtype=torch.float64)  # (b, T, d) each
    no_column = torch.ones(10, 10, dtype=torch.bool)
    no_column[1:, 0] = False
    no_row = torch.ones(10, 10, dtype=torch.bool)
    no_row[0, 1:] = False
    free = vitlib.attend(q, k, v)[0, 0]
    as_key, as_query = (
        (vitlib.attend(q, k, v, mask)[0, 0] - free).abs().max().item()
        for mask in (no_column, no_row)
    )
    assert as_key == 0 and as_query > 0.1
    return [
        "Nobody may look at its key: its own result changes by 0.",
        f"It may not look with its query: by {as_query:.1f}.",
    ]


@claim(
    "With or without positions makes almost no difference",
    said_by=(5,),
    chapter="03_positions",
    experiment="The same small ViT with learned positions and with none, on the "
    "relation task and on digits, five seeds.",
    verdict="wrong",
    because="MoCo v3, which is quoted for it, reports 1.6 points on ImageNet. How much "
    "positions are worth depends on the task: where an answer depends on places, they "
    "are everything.",
)
def without_positions() -> list[str]:
    texts = []
    for task in ("relation", "digits"):
        none, learned = (
            runs("03_positions", "accuracy", task=task, variant=variant)
            for variant in ("none", "learned, loud")
        )
        assert min(learned) - max(none) > 0.2
        texts.append(f"{task}: {told(learned)} with, {told(none)} without")
    return texts


# Chapters 04 and 05


def entropy(weights: Tensor) -> float:
    """Mean entropy of the rows, as a share of the largest possible."""
    bits = -(weights * weights.clamp(min=1e-30).log()).sum(dim=-1)
    return (bits / torch.tensor(float(weights.shape[-1])).log()).mean().item()


@claim(
    "Divide the scores by √e, the root of the whole embedding",
    said_by=(1,),
    chapter="04_attention",
    experiment="Random queries and keys of one head of 96 out of 768; how even the "
    "weights start (entropy, 1 = even), and whether scaled queries give "
    "the same weights.",
    verdict="not the paper's, and harmless",
    because="The paper divides by √d, the root of a head's length. Another divisor is "
    "another start of the training, softer here. A trained model can be carried over "
    "exactly by scaling its queries.",
)
def wrong_root() -> list[str]:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 500, 50, 96, generator=generator, dtype=torch.float64)
    right = vitlib.attention_weights(q, k)
    other = vitlib.attention_weights(q, k, scale=768**-0.5)
    carried = vitlib.attention_weights(q * (96 / 768) ** 0.5, k)
    torch.testing.assert_close(carried, other, rtol=1e-12, atol=1e-12)
    assert entropy(other) > entropy(right)
    return [
        f"entropy {entropy(right):.2f} with √96, {entropy(other):.2f} with √768",
        "equal to twelve digits after scaling the queries",
    ]


@claim(
    "`energy.mask_fill(~mask, value)` masks",
    said_by=(1,),
    chapter="04_attention",
    experiment="Call it, call it by its right name, and assign what that returns; "
    "look at the weight of a forbidden key.",
    verdict="wrong",
    because="There is no such method. With its right name it returns a copy, and the "
    "copy is dropped.",
)
def mask_fill() -> list[str]:
    generator = torch.Generator().manual_seed(0)
    energy = torch.randn(5, 5, generator=generator)
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[:, 4] = False
    assert not hasattr(energy, "mask_fill")
    free = energy.softmax(dim=-1)[:, 4]
    energy.masked_fill(~mask, -torch.inf)
    dropped = energy.softmax(dim=-1)[:, 4]
    assigned = energy.masked_fill(~mask, -torch.inf).softmax(dim=-1)[:, 4]
    assert torch.equal(dropped, free) and (free > 0).all() and (assigned == 0).all()
    return [
        "`mask_fill` stops with an AttributeError",
        "a dropped `masked_fill` leaves the forbidden key the weights it had, up to "
        f"{free.max():.2f}",
        "assigned: 0",
    ]


@claim(
    "The dot product is the cosine similarity",
    said_by=(5,),
    chapter="04_attention",
    experiment="A query, a short key in its direction, and a long one 45 degrees off.",
    verdict="wrong",
    because="Only for vectors of length 1. In attention, length counts.",
)
def dot_or_cosine() -> list[str]:
    query, near, far = torch.tensor([[1.0, 0], [1, 0], [3, 3]])
    dots = query @ near, query @ far
    cosines = (F.cosine_similarity(query, key, dim=0) for key in (near, far))
    near_cosine, far_cosine = cosines
    assert dots[0] < dots[1] and near_cosine > far_cosine
    return [
        f"near key: dot product {dots[0]:.2f}, cosine {near_cosine:.2f}",
        f"far key: dot product {dots[1]:.2f}, cosine {far_cosine:.2f}",
    ]


@claim(
    "Many heads keep the softmax from overflowing to zeros",
    said_by=(5,),
    chapter="05_multi_head",
    experiment="The entropy of fresh weights (1 = even) for a width of 768 cut "
    "into 1 and 12 heads, undivided and divided by √d; and a task that "
    "asks for two places at once, by the number of heads, five seeds.",
    verdict="wrong",
    because="The division by √d does that, at every number of heads. Several heads ask "
    "several questions at once.",
)
def heads_against_saturation() -> list[str]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for heads in (1, 12):
        size = 400, 50, 768 // heads
        q, k = torch.randn(2, *size, generator=generator, dtype=torch.float64)
        found[heads] = [
            entropy(vitlib.attention_weights(q, k, scale=scale)) for scale in (1, None)
        ]
    assert abs(found[1][1] - found[12][1]) < 0.01 and found[12][0] < 0.3
    one, two = (
        runs("05_multi_head", "accuracy", places="2", heads=heads)
        for heads in ("1", "2")
    )
    assert min(two) > max(one)
    return [
        f"entropy, cut into {heads}: {plain:.2f} undivided, {divided:.2f} divided"
        for heads, (plain, divided) in found.items()
    ] + [f"two places at once: {told(one)} with one head, {told(two)} with two"]


# Chapters 06 and 07


@claim(
    "GELU is the DELU, the Double Exponential Linear Unit",
    said_by=(2,),
    chapter="06_mlp",
    experiment="Compare GELU with x·Φ(x) and with ELU, far left of zero.",
    verdict="wrong",
    because="The name is Gaussian Error Linear Unit: x times the share Φ(x) of a bell "
    "curve below x. No exponential linear unit ends at 0.",
)
def gelu_is_no_elu() -> list[str]:
    x = torch.linspace(-6, 6, 241, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    torch.testing.assert_close(F.gelu(x), x * normal.cdf(x), rtol=1e-9, atol=1e-12)
    ends = F.gelu(x[0]).item(), F.elu(x[0]).item()
    assert abs(ends[0]) < 0.01 and ends[1] < -0.99
    return [
        "GELU equals x·Φ(x) at 241 places from -6 to 6",
        f"at -6 the size of GELU is {abs(ends[0]):.3f}, that of ELU {abs(ends[1]):.3f}",
    ]


@claim(
    "GELU converges faster, and ReLU dies",
    said_by=(1, 4),
    chapter="06_mlp",
    experiment="One small ViT on digits with either, at two learning rates and "
    "with hidden units that all start off, five seeds each. Loss: mean "
    "over steps 51 to 100, where the curves fall fastest; accuracy and "
    "dead units at the end.",
    verdict="not found",
    because="At neither learning rate could five seeds tell the two apart, and ReLU "
    "lost no unit. Units that start off stay off with ReLU and wake with GELU, and "
    "even then the accuracy was a tie.",
)
def gelu_against_relu() -> list[str]:
    texts = []
    for start, rate in (("usual", "0.003"), ("usual", "0.02"), ("off", "0.003")):
        gelu, relu = (
            runs("06_mlp", "accuracy", act=act, start=start, lr=rate)
            for act in ("GELU", "ReLU")
        )
        losses = [
            runs("06_mlp", "loss_100", act=act, start=start, lr=rate)
            for act in ("GELU", "ReLU")
        ]
        assert tie(gelu, relu) and tie(*losses)
        dead = runs("06_mlp", "dead_after", act="ReLU", start=start, lr=rate)
        assert (min(dead) > 100) if start == "off" else (max(dead) == 0)
        texts.append(
            f"start {start}, rate {rate}: GELU {told(gelu)}, loss "
            f"{told(losses[0], '', 1, 2)}; ReLU {told(relu)}, loss "
            f"{told(losses[1], '', 1, 2)}, {max(dead):.0f} of 192 units dead"
        )
    return texts


@claim(
    "LayerNorm normalises over C, H and W, or over one whole sample",
    said_by=(4, 5),
    chapter="07_encoder",
    experiment="Make one of five tokens louder and count how many others the norm "
    "changes, for a norm per token and one per sample.",
    verdict="wrong",
    because="In a ViT it takes each token alone, over the embedding. The claim "
    "describes a way of using it on pictures in a CNN.",
)
def layer_norm_axes() -> list[str]:
    torch.manual_seed(0)
    tokens = torch.randn(1, 5, 8, dtype=torch.float64)
    louder = tokens.clone()
    louder[0, 2] *= 10
    found = {}
    for name, axes in (("per token", (8,)), ("per sample", (5, 8))):
        changed = F.layer_norm(louder, axes) - F.layer_norm(tokens, axes)
        others = (changed.abs() > 1e-9).any(dim=-1)[0]
        found[name] = int(others.sum() - others[2].int())
    block = vitlib.EncoderBlock(8, 2).double()
    assert block.norm1.normalized_shape == (8,)
    assert found == {"per token": 0, "per sample": 4}
    return [f"{name}: {count} of 4 change" for name, count in found.items()]


@claim(
    "LayerNorm has to be used rather than BatchNorm",
    said_by=(4, 5),
    chapter="07_encoder",
    experiment="Normalise an image's tokens beside one neighbour and beside "
    "another, and in training and in evaluation mode.",
    verdict="right",
    because="With BatchNorm an image's result depends on the images beside it and on "
    "the mode; with LayerNorm on neither. Which of them trains better was not asked.",
)
def layer_or_batch_norm() -> list[str]:
    torch.manual_seed(0)
    image, one, other = torch.randn(3, 5, 8, dtype=torch.float64)  # (T, e) each
    found = {}
    for name, norm in (("LayerNorm", nn.LayerNorm(8)), ("BatchNorm", BatchNorm(8))):
        norm = norm.double()
        beside, evaluated = norm(torch.stack([image, one]))[0], norm.eval()
        changes = [
            norm.train()(torch.stack([image, other]))[0] - beside,
            evaluated.eval()(torch.stack([image, one]))[0] - beside,
        ]
        found[name] = [change.abs().max().item() for change in changes]
    assert found["LayerNorm"] == [0, 0] and min(found["BatchNorm"]) > 0.1
    return [
        f"{name}: another neighbour changes it by {neighbour:.1f}, the mode by "
        f"{mode:.1f}"
        for name, (neighbour, mode) in found.items()
    ]


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of tokens (b, T, e): each channel over images and tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise."""
        return super().forward(tokens.mT).mT


@claim(
    "`x += res` is the residual",
    said_by=(1,),
    chapter="07_encoder",
    experiment="Branches with different last steps, added to in place, then sent "
    "backwards.",
    verdict="right by luck",
    because="It overwrites the branch's output. Autograd refuses if the branch's last "
    "step has kept its output, as ReLU does. A ViT's branches end in a linear map, "
    "which has kept its input.",
)
def in_place_residual() -> list[str]:
    found = {}
    for last in (nn.Linear(4, 4), nn.GELU(), nn.ReLU(), nn.Softmax(dim=-1)):
        res = torch.randn(2, 4, requires_grad=True) * 1
        x = last(res)
        x += res
        try:
            x.sum().backward()
            found[type(last).__name__] = "works"
        except RuntimeError:
            found[type(last).__name__] = "error"
    assert list(found.values()) == ["works", "works", "error", "error"]
    return [f"branch ends in {name}: {outcome}" for name, outcome in found.items()]


@claim(
    "DropPath is dropout for branches, used against over-fitting",
    said_by=(5,),
    chapter="07_encoder",
    experiment="Four blocks on 200 and on 1438 digits, with rates 0, 0.1 and 0.3, "
    "five seeds.",
    verdict="half right",
    because="It is dropout with one coin for each image and branch, and it keeps the "
    "mean. Against over-fitting it did nothing that five seeds could tell from chance.",
)
def drop_path() -> list[str]:
    texts = []
    for images in ("200", "1438"):
        by_rate = {
            rate: runs(
                "07_encoder",
                "accuracy",
                images=images,
                drop_path_rate=rate,
                norm="pre",
                depth="4",
                lr="0.003",
            )
            for rate in ("0.0", "0.1", "0.3")
        }
        assert all(tie(by_rate["0.0"], other) for other in by_rate.values())
        texts.append(
            f"{images} images: "
            + ", ".join(f"{told(found)} at {rate}" for rate, found in by_rate.items())
        )
    return texts


# Chapters 08 and 09


@claim(
    "ViT-B has 86,415,592 parameters",
    said_by=(1, 4),
    chapter="08_vit",
    experiment="Count all parameters at 224 and at 384 pixels, and those that "
    "layers hold.",
    verdict="wrong",
    because="torchsummary counts what layers report. The class token and the table of "
    "positions belong to no layer. The number is the same for two sizes of image, and "
    "the truth is not.",
)
def parameters() -> list[str]:
    found = {}
    for size in (224, 384):
        config = dataclasses.replace(vitlib.VIT_B_16, image_size=size)
        with torch.device("meta"):
            model = vitlib.ViT(config)
        direct = sum(p.numel() for p in model.parameters(recurse=False))
        found[size] = vitlib.count_parameters(config), direct
        assert found[size][0] - direct == 86_415_592
    return [
        f"{size} pixels: {total:,}, of them {direct:,} in no layer"
        for size, (total, direct) in found.items()
    ]


@claim(
    "Prepare a photo by `image / 128 - 1`, then resize",
    said_by=(4,),
    chapter="09_checkpoints",
    experiment="From timm's preparation of the cat to the tutorial's, one step at "
    "a time: mean change of a pixel, in grey levels of 255.",
    verdict="differs, and hardly matters",
    because="128 for 127.5 and the order of the two steps change the pixels by less "
    "than one grey level. That the photo is squeezed and not cropped, which the line "
    "does not mention, changes them by far more.",
)
def preparation() -> list[str]:
    photo = vitlib.data.sample_image()
    raw = torch.tensor(list(photo.convert("RGB").tobytes()), dtype=torch.float64)
    raw = raw.view(1, photo.height, photo.width, 3).permute(0, 3, 1, 2)

    def squeeze(pixels: Tensor) -> Tensor:
        return F.interpolate(pixels, size=(224, 224), mode="bilinear")

    cropped, whole = (
        preprocess(photo, **options)
        for options in ({}, dict(crop_fraction=1.0, resize="squash"))
    )
    whole_127 = squeeze(raw).round() / 127.5 - 1
    whole_128 = squeeze(raw).round() / 128 - 1
    steps = {
        "squeezed, not cropped": whole - cropped,
        "128 for 127.5": whole_128 - whole_127,
        "scaled before resizing": squeeze(raw / 128 - 1) - whole_128,
    }
    found = {name: 127.5 * step.abs().mean().item() for name, step in steps.items()}
    assert found["squeezed, not cropped"] > 10
    assert all(change < 1 for change in list(found.values())[1:])
    return [f"{name}: {change:.1f}" for name, change in found.items()]


@claim(
    'Load a model with `torch.load("vit.pth")`',
    said_by=(4,),
    chapter="09_checkpoints",
    experiment="Unpickle a file that asks for a call of a harmless function, with "
    "and without `weights_only`.",
    verdict="unsafe",
    because="A pickle is a program, and loading runs it. A state dict in safetensors "
    "holds numbers only.",
)
def unpickling() -> list[str]:
    calls.clear()
    file = io.BytesIO()
    torch.save(Trap(), file)
    torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    without, refused = len(calls), False
    try:
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except pickle.UnpicklingError:
        refused = True
    assert without == 1 and len(calls) == 1 and refused
    return ["`weights_only=False`: the call was made", "`weights_only=True`: refused"]


calls: list[str] = []


def call(what: str) -> None:
    """Stand for whatever a file might do."""
    calls.append(what)


class Trap:
    """An object whose pickle calls a function when it is read."""

    def __reduce__(self):
        """Ask for the call."""
        return call, ("run",)


# Chapters 12 to 14


@claim(
    "A ViT needs more data than a CNN",
    said_by=(4,),
    chapter="12_vit_vs_cnn",
    experiment="The same small ViT, two CNNs and an MLP on 100 to 12,000 clothes that "
    "stand in the middle or anywhere, three to five seeds.",
    verdict="right where things move",
    because="There a hundred images do for the CNN of equal compute what 2,500 do for "
    "the ViT; neither four times the steps nor positions that start as sines close the "
    "gap. Where nothing moves it depends on what is held equal: the CNN of equal "
    "parameters is ahead at every size, that of equal compute is not. And there an MLP "
    "is ahead of the ViT, too, which lacks the same properties.",
)
def more_data() -> list[str]:
    texts, cnn, vit = [], "CNN, equal compute", "ViT"

    def accuracy(clothes: str, model: str, images: int, steps: int = 800):
        wanted = dict(clothes=clothes, world="plain", model=model, lr="0.003")
        wanted |= dict(images=str(images), steps=str(steps))
        return runs("12_vit_vs_cnn", "accuracy", **wanted)

    for clothes in ("middle", "anywhere"):
        for model in (vit, cnn, "CNN, equal parameters", "MLP"):
            sizes = (100, 500, 2500, 12000)
            texts.append(
                f"{clothes}, {model}: "
                + ", ".join(
                    f"{told(accuracy(clothes, model, n), '')} with {n:,}" for n in sizes
                )
            )
    few, many = accuracy("anywhere", cnn, 500), accuracy("anywhere", vit, 12000)
    assert min(few) > max(many)
    longer = accuracy("anywhere", vit, 2500, 3200)
    hundred = accuracy("anywhere", cnn, 100)
    sines = accuracy("anywhere", "ViT, sines", 2500)
    texts.append(f"anywhere, ViT, four times the steps: {told(longer, '')} with 2,500")
    texts.append(f"anywhere, ViT, from sines: {told(sines, '')} with 2,500")
    assert min(accuracy("anywhere", cnn, 2500)) > max(longer + sines)
    assert tie(hundred, accuracy("anywhere", vit, 2500))
    for n in (100, 500, 2500, 12000):
        middle = accuracy("middle", vit, n)
        parameters, mlp = (
            accuracy("middle", model, n) for model in ("CNN, equal parameters", "MLP")
        )
        assert min(parameters) > max(middle) and min(mlp) > max(middle)
    assert max(accuracy("middle", cnn, 12000)) < min(accuracy("middle", vit, 12000))
    return texts


def border_gradient() -> float:
    """Return what the border of a fresh CNN has of the middle's gradient."""
    side = torch.minimum(torch.arange(28), 27 - torch.arange(28))  # (28)
    ring = torch.minimum(side[:, None], side)  # distance to the border
    total = torch.zeros(28, 28)
    for seed in range(10):
        torch.manual_seed(seed)
        layers, before = [], 1
        for after in (26, 52, 100):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.ReLU()]
            layers.append(nn.MaxPool2d(2) if after < 100 else nn.AdaptiveAvgPool2d(1))
            before = after
        noise = torch.randn(32, 1, 28, 28, requires_grad=True)
        answers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(100, 10))(noise)
        (grad,) = torch.autograd.grad(answers[:, 0].sum(), noise)
        total += grad.abs().mean(dim=(0, 1))
    return (total[ring == 0].mean() / total[ring >= 8].mean()).item()


@claim(
    "CNNs see borders weakly, so border pixels contribute less",
    said_by=(5,),
    chapter="12_vit_vs_cnn",
    experiment="Count the windows of 3 by 3 that hold a pixel. Then put 2,000 test "
    "images at a place inside and at one side, and compare the answers of networks "
    "that learned from 12,000 small clothes anywhere, three seeds. What the edge costs "
    "is the share that is right only inside, minus the share that is right only there.",
    verdict="right before training; no cost found after it",
    because="A border pixel is in fewer windows, and in a fresh CNN it moves an answer "
    "about half as much as one in the middle. But what the edge costs the trained CNNs "
    "cannot be told from nothing; it costs the MLP, which uses all pixels alike, most.",
)
def borders() -> list[str]:
    windows = F.conv_transpose2d(
        torch.ones(1, 1, 28, 28), torch.ones(1, 1, 3, 3), padding=1
    )[0, 0].int()
    corner, edge, inside = (windows[0, 0], windows[0, 14], windows[14, 14])
    assert corner < edge < inside
    texts, costs = [f"windows: corner {corner}, edge {edge}, inside {inside}"], {}
    share = border_gradient()
    assert 0.4 < share < 0.65
    texts.append(
        f"fresh CNN: the outermost pixels move an answer {share:.1f} times as much as "
        "those in the middle"
    )
    for model in ("CNN, equal compute", "CNN, equal parameters", "ViT", "MLP"):
        wanted = dict(clothes="anywhere", world="plain", model=model, images="12000")
        wanted |= dict(steps="800", lr="0.003")
        shares = (runs("12_vit_vs_cnn", name, **wanted) for name in ("lost", "won"))
        lost, won = (sum(share) / len(share) for share in shares)
        half = 200 * ((lost + won - (lost - won) ** 2) / 2000) ** 0.5
        costs[model] = 100 * (lost - won), half
        texts.append(
            f"{model}: the edge costs {costs[model][0]:.1f} ± {half:.1f} points"
        )
    told_apart = {model: cost > half for model, (cost, half) in costs.items()}
    assert list(told_apart.values()) == [False, False, True, True]
    assert costs["MLP"] == max(costs.values())
    return texts


@claim(
    "Attention rollout shows where the model looks",
    said_by=(1,),
    chapter="13_interpret",
    experiment="Cover patches in the order of rollout and of its rivals; two "
    "models, two fills, three draws of 200 images. Points of area under "
    "the curve that rollout takes away more than the rival, with a 95 % "
    "band: photos covered by the mean and by black, then clothes.",
    verdict="half right",
    because="What rollout ranks high matters more than chance and more than another "
    "image's rollout, in every case. A rule without a model, the middle of the image "
    "first, does as well or better in three cases of four.",
)
def rollout() -> list[str]:
    texts, won = [], {}
    for rival in ("random", "another's rollout", "centre"):
        points = []
        for model in ("cifar10_vit", "fashion_mnist_vit"):
            for fill in ("mean", "black"):
                wanted = dict(model=model, fill=fill, order=rival)
                means = runs("13_deletion", "above_rollout", **wanted)
                halves = runs("13_deletion", "above_rollout_half", **wanted)
                mean = 100 * sum(means) / len(means)
                half = 100 * sum(x * x for x in halves) ** 0.5 / len(halves)
                points.append((mean, half))
        won[rival] = sum(mean > half for mean, half in points)
        texts.append(
            f"against {rival}: "
            + ", ".join(f"{mean:+.1f} ± {half:.1f}" for mean, half in points)
        )
    assert won == {"random": 4, "another's rollout": 4, "centre": 1}
    return texts


@claim(
    "Smaller patches cost more and are more accurate",
    said_by=(1,),
    chapter="14_resolution",
    experiment="The same small ViT on 12,000 clothes with patches of 14, 7, 4 and 2 "
    "pixels, three seeds, at equal epochs and at equal compute.",
    verdict="right about the cost, wrong here about the accuracy",
    because="At equal epochs smaller patches were behind or tied. At equal compute "
    "they were behind, but for the longest training, a tie. The rate was the best of "
    "three for patches of 14, 7 and 4. The paper, which did not hold compute equal, "
    "trained on far more images.",
)
def smaller_patches() -> list[str]:
    texts = []

    def accuracy(patch_size: int, epochs: str) -> list[float]:
        wanted = dict(patch_size=str(patch_size), epochs=epochs, lr="0.003")
        return runs("14_resolution", "accuracy", **wanted)

    for epochs, sizes in (
        ("1", (14, 7, 4, 2)),
        ("3.3", (14, 7, 4, 2)),
        ("10.9", (14, 7, 4)),
    ):
        found = {size: accuracy(size, epochs) for size in sizes}
        texts.append(
            f"equal epochs, {epochs}: "
            + ", ".join(f"{told(values, '')} with {p}" for p, values in found.items())
        )
        for large, small in itertools.pairwise(sizes):
            a, b = found[large], found[small]
            assert tie(a, b) or max(b) < min(a)
    for large, many, small, few in (
        (14, "3.3", 7, "1"),
        (14, "10.9", 7, "3.3"),
        (14, "36", 7, "10.9"),
        (7, "3.3", 4, "1"),
        (7, "10.9", 4, "3.3"),
        (4, "6.28", 2, "1"),
    ):
        a, b = accuracy(large, many), accuracy(small, few)
        texts.append(
            f"equal compute: {told(a, '')} with {large} and {many} epochs, "
            f"{told(b, '')} with {small} and {few}"
        )
        assert tie(a, b) if many == "36" else max(b) < min(a)
    return texts


# The page


def page() -> str:
    """Return the text of the page."""
    tutorials = "; ".join(f"**{n}** {text}" for n, text in TUTORIALS.items())
    text = INTRODUCTION.format(tutorials=tutorials)
    sections = ""
    for entry in CLAIMS:
        label = f"claim-{entry.measure.__name__.replace('_', '-')}"
        said_by = ", ".join(map(str, entry.said_by))
        text += f"| [{entry.title}](#{label}) | {said_by} | {entry.verdict} |\n"
        sections += SECTION.format(
            label=label,
            title=entry.title,
            plural="s" if len(entry.said_by) > 1 else "",
            said_by=" and ".join(said_by.rsplit(", ", 1)),
            number=entry.chapter[:2],
            chapter=entry.chapter,
            experiment=entry.experiment,
            numbers="\n".join(f"- {text}" for text in entry.measure()),
            verdict=entry.verdict,
            because=entry.because,
        )
    return text + sections


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(CLAIMS)} claims")
