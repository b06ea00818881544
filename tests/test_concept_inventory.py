"""The concept inventory: its form, what is made of it, every right answer computed."""

import csv
import inspect
import io
import math
import re
from collections import Counter

import concept_inventory
import nbformat
import pytest
import torch
import torch.nn.functional as F
from concept_inventory import BOOK, SOURCE, read
from torch import nn

import vitlib
from vitlib.augment import normalise
from vitlib.checkpoints import load_pretrained
from vitlib.data import digits, fashion_mnist
from vitlib.interpret import attention_rollout, record_attention
from vitlib.train import evaluate, fit

ROOT = BOOK.parent
TEXT = SOURCE.read_text("utf-8")
QUESTIONS = read(TEXT)
NAMES = [question.name for question in QUESTIONS]
SMALL = vitlib.ViTConfig(
    image_size=(12, 20), patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=2
)


# Its form


def test_two_questions_for_each_chapter():
    numbers = [question.chapter[:2] for question in QUESTIONS]
    assert numbers == [f"{n:02}" for n in range(1, 15) for _ in range(2)]
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("question", QUESTIONS, ids=NAMES)
def test_a_question_is_whole(question):
    assert question.right.letter in "ABCD"
    texts = [option.text for option in question.options]
    assert len(set(texts)) == len(texts) == 4
    for option in question.options:
        assert option.because.endswith((".", ")"))
        assert option.is_right or option.misconception.endswith(".")


def test_neither_letter_nor_length_gives_the_answer_away():
    letters = Counter(question.right.letter for question in QUESTIONS)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) <= 9 and min(letters.values()) >= 5
    ranks = [
        sorted(len(option.text) for option in question.options).index(
            len(question.right.text)
        )
        for question in QUESTIONS
    ]
    assert max(Counter(ranks).values()) <= len(QUESTIONS) / 2


@pytest.mark.parametrize("question", QUESTIONS, ids=NAMES)
def test_the_chapter_has_what_is_to_be_shown(question):
    notebook = nbformat.read(ROOT / f"notebooks/{question.chapter}.ipynb", 4)
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert re.search(rf"^##+ {re.escape(question.show)}$", text, re.M)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("      misconception: A batch is always averaged.\n", "gradient, mean has"),
        ("      right: The same vector is used twice", "gradient, sum has"),
    ],
)
def test_an_option_without_its_reason_is_refused(wrong, said):
    assert TEXT.count(wrong) == 1
    with pytest.raises(ValueError, match=said):
        read(TEXT.replace(wrong, wrong.split(":")[0] + "_: " + wrong.split(":")[1]))


# What is made of it


@pytest.mark.parametrize("path", concept_inventory.made(), ids=lambda path: path.name)
def test_what_is_made_is_current(path):
    assert path.read_text("utf-8") == concept_inventory.made()[path], (
        "change book/concept_inventory.yml, then run python tests/concept_inventory.py"
    )


def test_the_page_of_questions_keeps_the_answers():
    page = concept_inventory.QUESTIONS_PAGE.read_text("utf-8")
    for question in QUESTIONS:
        assert question.text in page
        for option in question.options:
            assert f"- **{option.letter}** {option.text}\n" in page
            for told in (option.because, option.misconception):
                assert told is None or told not in page


def test_the_quiz_reads_back():
    """Read GIFT as Moodle's manual describes it, and get the questions again."""
    quiz = concept_inventory.QUIZ.read_text("utf-8")
    special = r"\\([\\~=#{}:])"
    marks = {mark: chr(0xE000 + i) for i, mark in enumerate("\\~=#{}:")}
    hidden = re.sub(special, lambda found: marks[found[1]], quiz)

    def shown(text):
        for mark, private in marks.items():
            text = text.replace(private, mark)
        return text.strip()

    entries = re.findall(
        r"^\$CATEGORY: (.+)\n\n::(\d+) (\w+)::\[markdown\]([^~=#{}:]+)\{([^{}:]+)\}$",
        hidden,
        re.M,
    )
    found = []
    for category, number, name, text, answers in entries:
        options = re.findall(r"([=~])([^=~#]+)#([^=~#]+)", answers)
        found.append((int(number), name, category[-2:], shown(text)))
        found += [(mark == "=", *map(shown, rest)) for mark, *rest in options]
    expected = []
    for question in QUESTIONS:
        expected.append(
            (question.number, question.name, question.chapter[:2], question.text)
        )
        expected += [
            (option.is_right, option.text, option.comment)
            for option in question.options
        ]
    assert found == expected


# Every right answer, computed

ANSWERS = {}


def answers(name):
    """Enter a function as the one that computes the answer to a question."""

    def enter(compute):
        assert name not in ANSWERS
        ANSWERS[name] = compute
        return compute

    return enter


def test_every_question_is_computed():
    assert set(ANSWERS) == set(NAMES)


@pytest.mark.parametrize("question", QUESTIONS, ids=NAMES)
def test_the_right_answer_is_right(question, jitter):
    compute = ANSWERS[question.name]
    given = {"jitter": jitter} if inspect.signature(compute).parameters else {}
    assert compute(**given) == question.right.name


def text_of(name):
    """Return what a question asks."""
    return next(question.text for question in QUESTIONS if question.name == name)


def table(name, **wanted):
    """Return the rows of an experiment's table that fit."""
    path = ROOT / f"notebooks/experiments/{name}.csv"
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    found = [row for row in rows if wanted.items() <= row.items()]
    assert len(found) >= 3
    return found


def column(rows, name):
    """Return one column as numbers."""
    return [float(row[name]) for row in rows]


def gap(one, other):
    """Return the largest difference of two tensors."""
    return (one - other).abs().max().item()


def model_of(jitter, **changes):
    """Return a small model of which no parameter is zero or one."""
    config = {**vars(SMALL), **changes}
    return jitter(vitlib.ViT(vitlib.ViTConfig(**config))).eval()


@answers("patches")
def patches():
    photo, counts = torch.randn(1, 3, 48, 80), set()
    for embed_dim in (64, 192, 100):
        embed = vitlib.PatchEmbed(
            image_size=(48, 80), patch_size=8, in_channels=3, embed_dim=embed_dim
        )
        counts.add(embed(photo).shape[1])
        assert embed(photo).shape[2] == embed_dim
    return {60: "free", 8: "count"}[counts.pop()]


@answers("reshape")
def reshape():
    number = torch.arange(3.0 * 48 * 80).view(1, 3, 48, 80)
    rows = number.reshape(1, 60, 192)
    right = vitlib.split_patches(number, 8)
    if rows.flatten().sort()[0].ne(right.flatten().sort()[0]).any():
        return "lost"
    # Sorted, a row is the same in every order of its numbers.
    squares = right[0].sort(dim=1)[0].tolist()
    is_patch = [row in squares for row in rows[0].sort(dim=1)[0].tolist()]
    return "mixed" if not any(is_patch) else "order"


@answers("gradient")
def gradient():
    cls_token = torch.zeros(1, 1, 4, requires_grad=True)
    row = vitlib.prepend_cls_token(torch.randn(2, 3, 4), cls_token)  # (b, T, e)
    (row[:, 0].sum(dim=1) * torch.tensor([1.0, 10.0])).sum().backward()
    return {11: "sum", 5.5: "mean", 0: "nothing"}[cls_token.grad.max().item()]


@answers("blind")
def blind(jitter):
    model = model_of(jitter)
    mask = torch.ones(16, 16, dtype=torch.bool)  # (i, j)
    mask[0, 1:] = False
    scores = []
    for photo in torch.randn(2, 1, 3, 12, 20):
        tokens = vitlib.prepend_cls_token(model.patch_embed(photo), model.cls_token)
        tokens = tokens + model.pos_embed
        for block in model.blocks:
            tokens = block(tokens, mask)
        scores.append(model.head(model.norm(tokens[:, 0])))
    assert gap(tokens[:, 1], tokens[:, 2]) > 0.1  # the patches do exchange something
    return "nothing" if gap(*scores) == 0 else "pushed"


@answers("shuffle")
def shuffle(jitter):
    moved = {}
    for pool in ("cls", "mean"):
        model = model_of(jitter, pool=pool)
        nn.init.zeros_(model.pos_embed)
        photo = torch.randn(2, 3, 12, 20)
        patches = vitlib.split_patches(photo, 4)[:, torch.randperm(15)]
        shuffled = vitlib.merge_patches(patches, 4, (12, 20))
        moved[pool] = gap(model(photo), model(shuffled))
    return {(True, True): "same", (False, True): "class"}[
        moved["cls"] < 1e-4, moved["mean"] < 1e-4
    ]


@answers("relation")
def relation():
    none, learned = (
        column(table("03_positions", task="relation", variant=variant), "accuracy")
        for variant in ("none", "learned, loud")
    )
    assert min(learned) > 0.95 and max(none) < 0.3
    assert "loses 1.6 points" in text_of("relation")  # as in the chapter
    return "guess"


@answers("rows")
def rows():
    q, k = torch.randn(1, 1, 5, 4), torch.randn(1, 1, 7, 4)
    weights = vitlib.attention_weights(q, k)[0, 0]  # (i, j)
    ones = {
        name: bool((sums - 1).abs().max() < 1e-5)
        for name, sums in (("rows", weights.sum(1)), ("columns", weights.sum(0)))
    }
    return {(True, False): "rows", (True, True): "both"}[ones["rows"], ones["columns"]]


@answers("root")
def root():
    found = {}
    for scale in (1.0, None):
        q, k = torch.randn(200, 768), torch.randn(197, 768)  # (i, d), (j, d)
        scores = q @ k.T * (scale or 768**-0.5)
        weights = scores.requires_grad_().softmax(dim=1)  # (i, j)
        (weights @ torch.randn(197, 5) * torch.randn(200, 5)).sum().backward()
        sizes = scores.grad.abs()
        top = sizes.topk(2, dim=1).values.sum(dim=1) / sizes.sum(dim=1)
        found[scale] = weights.max(dim=1)[0].mean().item(), top.mean().item()
    largest, top_two = found[1.0]
    if math.isnan(largest):
        return "overflow"
    if abs(largest - found[None][0]) < 0.1:
        return "equal"
    return "sharp" if largest > 0.8 and top_two > 0.9 else "even"


@answers("heads")
def heads():
    one, twelve = (
        sum(p.numel() for p in vitlib.MultiHeadAttention(768, h).parameters())
        for h in (1, 12)
    )
    return {1: "same", 12: "twelfth"}[twelve / one]


@answers("apart")
def apart():
    found = {
        (places, heads): column(
            table("05_multi_head", places=places, heads=heads), "accuracy"
        )
        for places in "12"
        for heads in "12"
    }
    # One place is no trouble for one head, with as many parameters and as long vectors.
    assert min(found["1", "1"]) > 0.98 and heads() == "same"
    if not max(found["2", "1"]) < 0.75 < min(found["2", "2"]):
        return "parameters"
    # And one head can look at two tokens.
    q, k = torch.ones(1, 1, 1, 4), torch.tensor([[9.0], [9], [-9]]).expand(1, 1, 3, 4)
    weights = vitlib.attention_weights(q, k)[0, 0, 0]  # (j)
    return "apart" if weights.gt(0.4).sum() == 2 else "look"


@answers("alone")
def alone(jitter):
    mlp, tokens = jitter(vitlib.MLP(12, 48)), torch.randn(1, 6, 12)
    changed = tokens.clone()
    changed[:, 3] += 1
    moved = (mlp(changed) - mlp(tokens)).abs().amax(dim=(0, 2)) > 0  # (n)
    return {(3,): "own", (2, 3, 4): "near"}[tuple(moved.nonzero().flatten().tolist())]


@answers("bend")
def bend():
    wide, back = nn.Linear(12, 48).double(), nn.Linear(48, 12).double()
    one = nn.Linear(12, 12).double()
    with torch.no_grad():
        one.weight.copy_(back.weight @ wide.weight)
        one.bias.copy_(back.weight @ wide.bias + back.bias)
    tokens = torch.randn(2, 5, 12, dtype=torch.double)
    assert gap(back(F.gelu(wide(tokens))), one(tokens)) > 0.01
    return "linear" if gap(back(wide(tokens)), one(tokens)) < 1e-12 else "wide"


@answers("norm")
def norm(jitter):
    layer = jitter(vitlib.EncoderBlock(24, 2)).norm1
    tokens = torch.randn(3, 5, 24)  # (b, n, e)
    louder = tokens.clone()
    louder[0, 2] *= 10
    moved = (layer(louder) - layer(tokens)).abs().amax(dim=2) > 1e-3  # (b, n)
    return {0: "none", 1: "own", 5: "image", 15: "batch"}[int(moved.sum())]


@answers("silent")
def silent(jitter):
    block = jitter(vitlib.EncoderBlock(24, 2))
    for last in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    tokens = torch.randn(3, 5, 24)
    return "same" if torch.equal(block(tokens), tokens) else "normed"


@answers("arithmetic")
def arithmetic():
    config = vitlib.VIT_B_16
    e, T, L = config.embed_dim, config.num_tokens, config.depth
    parts = {
        "pairs": 2 * L * 2 * T * T * e,
        "mlp": 2 * L * T * 8 * e * e,
        "maps": 2 * L * T * 4 * e * e,
        "patches": 2 * config.num_patches * 3 * 16 * 16 * e,
    }
    whole = vitlib.count_flops(config)
    assert sum(parts.values()) + 2 * e * config.num_classes == whole
    shares = {name: flops / whole for name, flops in parts.items()}
    assert 0.6 < shares["mlp"] < 0.7 and 0.3 < shares["maps"] < 0.4
    assert shares["pairs"] < 0.05 and shares["patches"] < 0.01
    return max(shares, key=shares.get)


@answers("larger")
def larger():
    large, small = vitlib.VIT_B_32, vitlib.VIT_B_16
    more = vitlib.count_parameters(large) / vitlib.count_parameters(small)
    work = vitlib.count_flops(large) / vitlib.count_flops(small)
    assert (large.num_tokens, small.num_tokens) == (50, 197)
    return "quarter" if 1 < more < 1.05 and 0.22 < work < 0.28 else "both"


@answers("strict")
def strict(jitter):
    state, photo = model_of(jitter).state_dict(), torch.randn(1, 3, 12, 20)
    scores = []
    for num_heads in (1, 2, 3):
        model = model_of(jitter, num_heads=num_heads)
        model.load_state_dict(state, strict=True)
        scores.append(model(photo))
    return "names" if gap(scores[0], scores[1]) > 0.1 < gap(*scores[1:]) else "function"


@answers("converted")
def converted():
    lost = {}
    for row in table("09_checkpoints"):
        assert float(row["logit_error"]) > 0
        points = float(row["right_accuracy"]) - float(row["accuracy"])
        lost.setdefault(row["misreading"], []).append(points)
    kinds = {
        "rows": min(min(lost[f"qkv: ({o})"]) for o in ("h d three", "h three d")),
        "colours": min(lost["patch: colour last"]),
        "small": max(max(lost[name]) for name in lost if name[:3] in ("eps", "GEL")),
    }
    assert kinds["colours"] > 0.2 and kinds["rows"] > 0.8
    (silent,) = (name for name, points in kinds.items() if points == 0)
    return silent


@answers("fresh")
def fresh():
    model = vitlib.ViT(vitlib.ViTConfig(**{**vars(SMALL), "num_classes": 10}))
    losses = {
        F.cross_entropy(model(images), torch.randint(10, (6,))).item()
        for images in (torch.randn(6, 3, 12, 20), torch.zeros(6, 3, 12, 20))
    }
    if max(losses) - min(losses) > 1e-5:
        return "images"
    values = {"zero": 0.0, "log": math.log(10), "nine": 0.9}
    return min(values, key=lambda name: abs(values[name] - max(losses)))


@answers("batch")
def batch():
    images, labels = (part[:32] for part in digits("train"))
    shuffled = labels[torch.randperm(32)]
    mistakes = {
        "labels": lambda scores: F.cross_entropy(scores, shuffled),
        "softmax": lambda scores: F.cross_entropy(scores.softmax(dim=1), labels),
        "cut": lambda scores: F.cross_entropy(scores.detach() * one, labels),
        "cleared": lambda scores: F.cross_entropy(scores, labels),
    }
    one, last = torch.ones((), requires_grad=True), {}
    for name, loss_of in mistakes.items():
        torch.manual_seed(0)
        model = vitlib.ViT(
            vitlib.ViTConfig(
                image_size=8, patch_size=2, in_channels=1, num_classes=10,
                embed_dim=24, depth=1, num_heads=2, pool="mean",
            )
        )  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(60):
            loss = loss_of(model(images))
            if name != "cleared":
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        last[name] = loss.item()
    assert last["softmax"] > 1.4
    (passes,) = (name for name, loss in last.items() if loss < 0.05)
    return passes


@answers("probe")
def probe():
    found = {
        (method, count): column(
            table("11_transfer", what="methods", method=method, count=count), "accuracy"
        )
        for method in ("probe", "pixel probe", "fine-tune")
        for count in ("10", "50", "250")
    }
    means = {key: sum(values) / len(values) for key, values in found.items()}
    assert f"gets {100 * means['probe', '10']:.0f} % right" in text_of("probe")
    for count in ("10", "50", "250"):
        assert means["fine-tune", count] > means["probe", count]
        assert min(found["pixel probe", count]) > max(found["probe", count])
    assert means["pixel probe", "10"] > means["fine-tune", "10"] - 0.01
    return "control"


@answers("head")
def head():
    images, labels = (part[:300] for part in fashion_mnist("test"))
    images = F.pad(images, [2] * 4).expand(-1, 3, -1, -1)  # (N, c, H, W)
    model = load_pretrained("cifar10_vit")
    with torch.no_grad():
        loss = F.cross_entropy(model(normalise(images)), labels).item()
    return "higher" if loss > math.log(10) + 0.3 else "equal"


def worlds(across):
    """Return a scramble of 28 by 28 pixels, as a function of images."""
    dice = torch.Generator().manual_seed(0)
    whole = torch.randperm(784, generator=dice)
    patch_order = torch.randperm(16, generator=dice)
    pixel_order = torch.randperm(49, generator=dice)

    def scramble(images):
        if across:
            return images.flatten(2)[:, :, whole].view_as(images)
        patches = vitlib.split_patches(images, 7)[:, patch_order][:, :, pixel_order]
        return vitlib.merge_patches(patches, 7, 28)

    return scramble, patch_order, pixel_order


@answers("scrambled")
def scrambled():
    scramble, patch_order, pixel_order = worlds(across=False)
    config = vitlib.ViTConfig(
        image_size=28, patch_size=7, in_channels=1, num_classes=10, embed_dim=24,
        depth=2, num_heads=2,
    )  # fmt: skip
    plain, other = (vitlib.ViT(config).double() for _ in range(2))
    state = plain.state_dict()
    kernel = state["patch_embed.proj.weight"].flatten(1)[:, pixel_order]
    first, places = state["pos_embed"].split((1, 16), dim=1)
    table = torch.cat([first, places[:, patch_order]], dim=1)
    other.load_state_dict(
        state
        | {"patch_embed.proj.weight": kernel.view(-1, 1, 7, 7), "pos_embed": table}
    )
    images, labels = (part[:128] for part in fashion_mnist("train"))
    images = images.double()
    for model, shown in ((plain, images), (other, scramble(images))):
        fit(model, shown, labels, steps=10, batch_size=32)
    with torch.no_grad():
        return "same" if gap(plain(images), other(scramble(images))) < 1e-9 else "anew"


@answers("across")
def across():
    scramble, *_ = worlds(across=True)
    number = torch.arange(784.0).view(1, 1, 28, 28)
    moved = scramble(number)
    if moved.flatten().sort()[0].ne(number.flatten()).any():
        return "lost"
    patch_of = torch.empty(784, dtype=torch.long)  # of each pixel, before
    for patch, pixels in enumerate(vitlib.split_patches(number, 7)[0].long()):
        patch_of[pixels] = patch
    # A token is a function of one patch. Which old patches does a new one hold?
    rows = vitlib.split_patches(moved, 7)[0].long()
    held = [patch_of[row].unique().numel() for row in rows]
    return "mixed" if min(held) > 8 else "positions"


@answers("outline")
def outline():
    images = fashion_mnist("test")[0][:40]
    bright = vitlib.split_patches(images, 4).mean(dim=2)  # (b, n)
    trained = load_pretrained("fashion_mnist_vit")
    torch.manual_seed(0)
    untrained = vitlib.ViT(trained.config).eval()
    likeness = []
    for model in (trained, untrained):
        rollout = attention_rollout(record_attention(model, normalise(images)))
        maps = rollout[:, 1:, 1:].mean(dim=1)  # (b, n)
        pairs = zip(maps, bright, strict=True)
        likeness.append(
            torch.stack([torch.corrcoef(torch.stack(p))[0, 1] for p in pairs])
        )
    assert likeness[1].mean() > 0.5
    return "nothing" if likeness[1].mean() > likeness[0].mean() else "noise"


@answers("asked")
def asked(jitter):
    model, photo = model_of(jitter), torch.randn(20, 3, 12, 20)
    before = attention_rollout(record_attention(model, photo))
    answers_before = model(photo).argmax(dim=1)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.copy_(parameter.roll(1, dims=0))
    assert (model(photo).argmax(dim=1) != answers_before).all()
    after = attention_rollout(record_attention(model, photo))
    return "same" if torch.equal(before, after) else "little"


@answers("side")
def side():
    def tokens(pixels):
        return vitlib.ViTConfig(image_size=pixels, patch_size=4).num_tokens

    assert tokens(28) == 50 and 15 < (tokens(56) / tokens(28)) ** 2 < 16
    return {50: "fixed", 100: "twice", 200: "whole", 197: "patches"}[tokens(56)]


@answers("sharper")
def sharper():
    images, labels = (part[:100] for part in fashion_mnist("test"))
    model = load_pretrained("fashion_mnist_vit")
    config = vitlib.ViTConfig(**{**vars(model.config), "image_size": 56})
    table = vitlib.resample_pos_embed(model.pos_embed.detach(), 7, 14)
    larger = vitlib.ViT(config).eval()
    larger.load_state_dict(model.state_dict() | {"pos_embed": table})
    enlarged = F.interpolate(images, size=(56, 56), mode="bicubic").clamp(0, 1)
    before = evaluate(model, normalise(images), labels)
    after = evaluate(larger, normalise(enlarged), labels)
    if abs(after - before) < 0.05:
        return "stays"
    return "falls" if after < before else "rises"
