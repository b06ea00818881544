"""Checks of what the exercises of chapter 10 ask for: the parts of a training."""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlib.checks.building import drawn
from vitlib.checks.judging import Case, Judge, Mistake, Probe
from vitlib.checks.reading import Given, ReadJudge, numbered
from vitlib.checks.wording import Finding, Unfit, called, listed
from vitlib.vit import ViT, ViTConfig

# A rate with a plateau


class _EveryStep(Judge):
    """Calls an answer once for every step, and compares the whole curve."""

    def call(self, answer: Callable, *given: object) -> Tensor:
        """Return the rates of all steps."""
        steps, *rest = given
        return torch.stack([numbered(answer(step, *rest)) for step in steps])


def _trapezoid(step, num_steps, lr, warmup, cooldown):
    rise = (step + 1) / max(warmup, 1)
    fall = (num_steps - step) / max(cooldown, 1)
    return lr * min(1.0, rise, fall)


def _shape_of_rates(rise: Callable, fall: Callable) -> Callable:
    """Return an answer with another rise or fall; each gets step, N and its length."""

    def answer(step, num_steps, lr, warmup, cooldown):
        up = rise(step, num_steps, warmup) if warmup else 1.0
        down = fall(step, num_steps, cooldown) if cooldown else 1.0
        return lr * min(1.0, up, down)

    return answer


def _rise(step: int, num_steps: int, length: int) -> float:
    return (step + 1) / length


def _fall(step: int, num_steps: int, length: int) -> float:
    return (num_steps - step) / length


def _which_stretch(probe: Probe) -> Finding | None:
    """Ask in which part of the curve the first wrong rate lies."""
    _, num_steps, lr, warmup, cooldown = probe.given
    wrong = ~torch.isclose(probe.got, probe.expected, rtol=1e-4, atol=1e-7)
    at = wrong.nonzero().flatten().tolist()
    parts = [
        ("rise", [step for step in at if step < warmup]),
        ("plateau", [s for s in at if warmup <= s < num_steps - cooldown]),
        ("fall", [step for step in at if step >= max(warmup, num_steps - cooldown)]),
    ]
    part, places = next((part for part in parts if part[1]), ("", []))
    if not places:
        return None
    step = places[0]
    return Finding(
        part,
        f"wrong in the {part}: of {num_steps} steps, {warmup} of them warm-up and "
        f"{cooldown} cool-down, step {step} gets {probe.got[step]:.4g} of a rate "
        f"of {lr:g}. Write down the shares of all steps: which one should it have?",
    )


def _rates(what: str, num_steps: int, lr: float, warmup: int, cooldown: int) -> Case:
    return Case(what, (range(num_steps), num_steps, lr, warmup, cooldown))


trapezoid = _EveryStep(
    task="trapezoid",
    arguments=("step", "num_steps", "lr", "warmup", "cooldown"),
    axes="step",
    oracle=_trapezoid,
    cases=(
        _rates("a rise and a fall", 8, 0.5, 2, 4),
        _rates("no warm-up", 6, 0.25, 0, 3),
        _rates("no cool-down", 5, 2.5, 3, 0),
        _rates("neither warm-up nor cool-down", 3, 0.5, 0, 0),
        _rates("a rise that meets the fall", 7, 0.125, 5, 6),
    ),
    mistakes=(
        Mistake(
            "starts at 0",
            "the first step has a rate of 0: a whole batch is computed and nothing "
            "moves. The first step is the first share of the rise",
            _shape_of_rates(lambda s, n, length: s / length, _fall),
        ),
        Mistake(
            "ends at 0",
            "the last step has a rate of 0: it is computed for nothing. The share that "
            "is left counts the step itself",
            _shape_of_rates(_rise, lambda s, n, length: (n - s - 1) / length),
        ),
        Mistake(
            "starts and ends at 0",
            "the first and the last step have a rate of 0: they are computed for "
            "nothing",
            _shape_of_rates(
                lambda s, n, length: s / length,
                lambda s, n, length: (n - s - 1) / length,
            ),
        ),
        Mistake(
            "never falls",
            "the rate rises and stays: the last steps have to fall",
            _shape_of_rates(_rise, lambda s, n, length: 1.0),
        ),
        Mistake(
            "never rises",
            "the rate is whole from the start: the first steps have to rise",
            _shape_of_rates(lambda s, n, length: 1.0, _fall),
        ),
        Mistake(
            "rise times fall",
            "right where rise and fall lie apart. Where they meet you multiply them: a "
            "rate is held back by the lower of the two",
            lambda step, n, lr, warmup, cooldown: (
                lr
                * min(1.0, (step + 1) / max(warmup, 1))
                * min(1.0, (n - step) / max(cooldown, 1))
            ),
        ),
        Mistake(
            "crash without warm-up",
            "it fails where there is no warm-up or no cool-down: their length is 0, "
            "and you divide by it",
            lambda step, n, lr, warmup, cooldown: (
                lr * min(1.0, (step + 1) / warmup, (n - step) / cooldown)
            ),
        ),
        Mistake(
            "the rise wins",
            "right where rise and fall lie apart. Where they meet, the fall is not "
            "looked at before the rise is over",
            lambda step, n, lr, warmup, cooldown: (
                lr * (step + 1) / warmup
                if step < warmup
                else lr * min(1.0, (n - step) / max(cooldown, 1))
            ),
        ),
    ),
    questions=(_which_stretch,),
)


# What decays


class _Joined(nn.Linear):
    """A linear layer under another name."""


class _Stranger(nn.Module):
    """A ViT of another author: tables with two axes, a scale on each branch."""

    def __init__(self, c: int, e: int, depth: int):
        super().__init__()
        self.cut = nn.Conv2d(c, e, 2, stride=2)
        self.first = nn.Parameter(torch.zeros(1, e))
        self.where = nn.Parameter(torch.zeros(5, e))
        self.colour = nn.Embedding(3, e)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(e),
                    "mix": _Joined(e, e),
                    "bend": nn.Sequential(nn.Linear(e, 3), nn.GELU(), nn.Linear(3, e)),
                    "scale": nn.PReLU(e),
                }
            )
            for _ in range(depth)
        )
        self.answer = nn.Linear(e, 4, bias=False)


def _decaying(kinds: tuple = (nn.Linear, nn.Conv2d), exact: bool = False) -> Callable:
    def answer(model: nn.Module) -> list[str]:
        found = {
            module.weight
            for module in model.modules()
            if (type(module) in kinds if exact else isinstance(module, kinds))
        }
        return [name for name, value in model.named_parameters() if value in found]

    return answer


def _by(rule: Callable[[str, Tensor], bool]) -> Callable:
    return lambda model: [
        name for name, value in model.named_parameters() if rule(name, value)
    ]


def _read_names(value: object, model: nn.Module) -> Tensor:
    names = [name for name, _ in model.named_parameters()]
    try:
        said = list(value)
    except TypeError:
        said = [None]
    if isinstance(value, str | Tensor | nn.Module) or not all(
        isinstance(name, str) for name in said
    ):
        raise Unfit(
            Finding(
                "type",
                f"it returned {called(value)}: return the names, as "
                "named_parameters() tells them, in a list or a set",
            )
        )
    unknown = [name for name in said if name not in names]
    if unknown:
        raise Unfit(
            Finding(
                "unknown name",
                f"no parameter of the model is called {unknown[0]!r}: its names are "
                f"like {names[-1]!r}, with the whole path",
            )
        )
    return torch.tensor([name in said for name in names])


def _which_parameter(probe: Probe) -> Finding | None:
    """Name the first parameter that is wrong."""
    model = probe.given[0].made()
    named = list(model.named_parameters())
    place = int((probe.got != probe.expected).nonzero()[0, 0])
    name, value = named[place]
    owner = model.get_submodule(name.rpartition(".")[0])
    kind = type(owner).__name__
    if probe.expected[place]:
        return Finding(
            "missing",
            f"{name}, {tuple(value.shape)}, is missing: it belongs to a {kind} and "
            "multiplies what comes in",
        )
    return Finding(
        "too many",
        f"{name}, {tuple(value.shape)}, should not decay: it belongs to a {kind}. Is "
        "zero better than any other value for it?",
    )


_TINY = ViTConfig(
    image_size=(2, 4),
    patch_size=2,
    in_channels=1,
    num_classes=3,
    embed_dim=4,
    depth=1,
    num_heads=2,
    mlp_ratio=1.5,
)

names_that_decay = ReadJudge(
    task="names_that_decay",
    arguments=("model",),
    axes="parameter",
    oracle=_decaying(),
    cases=(
        Case(
            "a linear layer and a norm",
            (
                Given(
                    "Sequential(Linear(2, 3), LayerNorm(3))",
                    lambda: nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)),
                ),
            ),
        ),
        Case("our ViT", (Given("a ViT of one block", lambda: ViT(_TINY)),)),
        Case(
            "a stranger's ViT",
            (Given("a stranger's ViT of two layers", lambda: _Stranger(2, 6, 2)),),
        ),
    ),
    mistakes=(
        Mistake(
            "everything",
            "every parameter decays, biases and the scales of norms too",
            _by(lambda name, value: True),
        ),
        Mistake(
            "nothing",
            "no parameter decays",
            _by(lambda name, value: False),
        ),
        Mistake(
            "all but biases",
            "biases are left alone, but the scale of a norm is called weight as well, "
            "and tables of positions have no bias in their names",
            _by(lambda name, value: "bias" not in name),
        ),
        Mistake(
            "named weight",
            "whatever is called weight decays: the scale of a norm is, and so is an "
            "embedding. A name does not say what a number does",
            _by(lambda name, value: name.endswith("weight")),
        ),
        Mistake(
            "by axes",
            "whatever has two axes or more decays: so do the class token, tables of "
            "positions and embeddings, which multiply nothing",
            _by(lambda name, value: value.ndim > 1),
        ),
        Mistake(
            "by our names",
            "right for our ViT, whose class token and positions you know by name. The "
            "stranger calls them otherwise: which layer does a parameter belong to?",
            _by(
                lambda name, value: (
                    value.ndim > 1 and not name.endswith(("cls_token", "pos_embed"))
                )
            ),
        ),
        Mistake(
            "no kernel",
            "the kernel of the patch embedding is missing: a Conv2d multiplies pixels "
            "as a Linear does",
            _decaying((nn.Linear,)),
        ),
        Mistake(
            "exact type",
            "a layer that is derived from nn.Linear is missing: compare with "
            "isinstance, which knows families",
            _decaying(exact=True),
        ),
    ),
    questions=(_which_parameter,),
    read=_read_names,
)


# A loop with mistakes


class _Dimmed(nn.Module):
    """Halves its input while it is trained: a dropout without dice."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2 if self.training else x


def _network(c: int, e: int, classes: int) -> nn.Module:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(c, e), nn.Tanh(), _Dimmed(), nn.Linear(e, classes)
    )
    with torch.no_grad():
        for place, value in enumerate(model.parameters()):
            value.copy_(0.5 * drawn(*value.shape, seed=place))
    return model.eval()


def _epoch(twice=False, adds=False, silent=False, means=False) -> Callable:
    """Return a loop with some of four mistakes."""

    # What is right is computed without gradients elsewhere.
    @torch.enable_grad()
    def answer(model: nn.Module, batches: list, lr: float) -> float:
        model.train(not silent)
        total, count = 0.0, 0
        for value in model.parameters():
            value.grad = None
        for images, labels in batches:
            scores = model(images)
            loss = F.cross_entropy(scores.softmax(dim=1) if twice else scores, labels)
            if not adds:
                for value in model.parameters():
                    value.grad = None
            loss.backward()
            with torch.no_grad():
                for value in model.parameters():
                    value -= lr * value.grad
            share = 1 if means else len(images)
            total, count = total + share * loss.item(), count + share
        return total / count

    return answer


_FAULTS = {
    "twice": (
        "softmax twice",
        "cross_entropy has a softmax of its own, and gets probabilities",
    ),
    "adds": (
        "gradients add up",
        "the gradient of a batch is added to those of the batches before it",
    ),
    "silent": (
        "not in training mode",
        "the model is not in training mode: parts like dropout do not do their work",
    ),
    "means": (
        "mean of means",
        "the weights are right, but the loss is a mean over batches, and the last one "
        "is smaller: an image in it counts for more",
    ),
}


def _with_faults(faults: tuple[str, ...]) -> Mistake:
    names, tells = zip(*(_FAULTS[fault] for fault in faults), strict=True)
    text = tells[0]
    if tells[1:]:
        counted = "; ".join(f"({i}) {tell}" for i, tell in enumerate(tells, start=1))
        text = f"{len(tells)} mistakes are left. {counted}"
        text = text.replace("the weights are right, but ", "")
    return Mistake(listed(list(names)), text, _epoch(**dict.fromkeys(faults, True)))


def _read_epoch(value: object, model: nn.Module, batches: list, lr: float) -> Tensor:
    weights = torch.cat([value.detach().flatten() for value in model.parameters()])
    return torch.cat([weights, numbered(value, weights)[None]])


def _what_was_learned(probe: Probe) -> Finding | None:
    """Ask how the weights moved, and whether only the loss is wrong."""
    build, batches, _ = probe.given
    before = torch.cat(
        [value.detach().flatten() for value in build.made().parameters()]
    )
    got, expected = probe.got[:-1] - before, probe.expected[:-1] - before
    if not got.any():
        return Finding(
            "nothing learned",
            "the weights are the same afterwards: is there a gradient when they are "
            "moved, and do they move?",
        )
    if torch.allclose(got, expected, rtol=1e-3, atol=1e-5):
        return Finding(
            "loss",
            f"the weights are right, but it returns {probe.got[-1]:.4g}: what is the "
            "mean over all images of the loss that each had in its own step?",
        )
    if torch.allclose(got, -expected, rtol=0.3, atol=1e-2):
        return Finding("uphill", "the weights move uphill: which way is down?")
    if len(batches.made()) > 1:
        first = Given("the first batch", lambda: batches.made()[:1])
        given = build, first, probe.given[2]
        alone, wanted = probe.run(*given), probe.right(*given)
        if alone is None or not torch.allclose(alone, wanted, atol=1e-5):
            return None
        return Finding(
            "carried over",
            "right after one batch, wrong after the next: a step must know of the "
            "steps before by the weights alone. What else is left of them: gradients, "
            "or an average that an optimizer keeps?",
        )
    ratio = (got.norm() / expected.norm()).item()
    return Finding(
        "another step",
        f"already after one batch the weights have moved {ratio:.3g} times as far as "
        "they should, or in another direction: which loss, and which rate?",
    )


def _batches(*sizes: int, c: int, classes: int) -> Given:
    def make() -> list:
        return [
            (drawn(size, 1, 1, c, seed=10 + place), torch.arange(size) % classes)
            for place, size in enumerate(sizes)
        ]

    text = f"batches of {listed([*map(str, sizes)])} images"
    return Given(text if sizes[1:] else f"one batch of {sizes[0]} images", make)


def _training(what: str, *sizes: int, c: int, e: int, classes: int, lr: float) -> Case:
    model = Given(f"a network for {classes} classes", lambda: _network(c, e, classes))
    return Case(what, (model, _batches(*sizes, c=c, classes=classes), lr))


one_epoch = ReadJudge(
    task="one_epoch",
    arguments=("model", "batches", "lr"),
    axes="weights_then_loss",
    oracle=_epoch(),
    cases=(
        _training("one batch", 2, c=3, e=2, classes=2, lr=0.5),
        _training("two equal batches", 3, 3, c=4, e=5, classes=3, lr=0.5),
        _training("a last batch that is smaller", 4, 4, 1, c=5, e=6, classes=3, lr=1.0),
    ),
    mistakes=tuple(
        _with_faults(faults)
        for size in (1, 2, 3, 4)
        for faults in itertools.combinations(_FAULTS, size)
    ),
    questions=(_what_was_learned,),
    read=_read_epoch,
)


# A batch in pieces


class _Counting(nn.Sequential):
    """Remembers how many images it was shown at once."""

    most = 0

    def forward(self, images: Tensor) -> Tensor:
        self.most = max(self.most, len(images))
        return super().forward(images)


def _counting(c: int, e: int, classes: int) -> nn.Module:
    model = _Counting(*_network(c, e, classes))
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    return model


def _accumulated(share: Callable, keeps: bool = False, last: bool = False) -> Callable:
    """Return an answer; share gets the images of a piece, all images, and size."""

    @torch.enable_grad()
    def answer(model: nn.Module, images: Tensor, labels: Tensor, size: int) -> None:
        if not keeps:
            model.zero_grad()
        for part, answers in zip(images.split(size), labels.split(size), strict=True):
            if last:
                model.zero_grad()
            loss = F.cross_entropy(model(part), answers)
            (loss * share(len(part), len(images), size)).backward()

    return answer


def _of_all(part: int, whole: int, size: int) -> float:
    return part / whole


def _read_gradient(value: object, model: nn.Module, images, labels, size) -> Tensor:
    if model.most > size:
        raise Unfit(
            Finding(
                "too many at once",
                f"the model was shown {model.most} images at once, and there is room "
                f"for {size}",
            )
        )
    gradients = [value.grad for value in model.parameters()]
    if any(gradient is None for gradient in gradients):
        raise Unfit(
            Finding(
                "no gradient left",
                f"with {len(images)} images and room for {size}, a parameter's .grad "
                "is None afterwards: the optimizer that comes next finds nothing",
            )
        )
    return torch.cat([gradient.flatten() for gradient in gradients])


def _pieces(what: str, count: int, size: int, c: int, e: int, classes: int) -> Case:
    model = Given(
        "a network with an old gradient in it", lambda: _counting(c, e, classes)
    )
    images = drawn(count, 1, 2, c // 2, seed=5)
    return Case(what, (model, images, torch.arange(count) % classes, size))


def _old_gradient(probe: Probe) -> Finding | None:
    """Ask whether the gradient is that of fewer images."""
    model, images, labels, size = probe.given
    for what, some in (
        ("the first", slice(size)),
        ("the last", slice(len(images) - 1 - (len(images) - 1) % size, None)),
    ):
        alone = probe.right(model, images[some], labels[some], size)
        if alone is not None and torch.allclose(alone, probe.got, atol=1e-5):
            return Finding(
                "one piece",
                f"it is the gradient of {what} piece alone: what happens to those of "
                "the others?",
            )
    return None


accumulate = ReadJudge(
    task="accumulate",
    arguments=("model", "images", "labels", "size"),
    axes="parameter",
    oracle=_accumulated(_of_all),
    cases=(
        _pieces("room for all", 3, 4, 4, 2, 2),
        _pieces("two equal pieces", 6, 3, 4, 5, 3),
        _pieces("a last piece that is smaller", 7, 3, 6, 5, 4),
    ),
    mistakes=(
        Mistake(
            "mean of means",
            "right where all pieces are equal. The last one is smaller, and its images "
            "count for more than the others",
            _accumulated(lambda part, whole, size: 1 / -(-whole // size)),
        ),
        Mistake(
            "sum of means",
            "every piece adds the mean of its own images: with more pieces the "
            "gradient gets longer",
            _accumulated(lambda part, whole, size: 1.0),
        ),
        Mistake(
            "old gradient kept",
            "the gradient that was there before is still in it",
            _accumulated(_of_all, keeps=True),
        ),
        Mistake(
            "old gradient kept",
            "the gradient that was there before is still in it",
            _accumulated(lambda part, whole, size: 1 / -(-whole // size), keeps=True),
        ),
        Mistake(
            "one piece",
            "only the last piece is left: the gradients of the others were thrown away",
            _accumulated(_of_all, last=True),
        ),
        Mistake(
            "one piece",
            "only the last piece is left: the gradients of the others were thrown away",
            _accumulated(lambda part, whole, size: 1.0, last=True),
        ),
        Mistake(
            "divided by size",
            "every piece is divided by the room there is, and not by how many images "
            "the whole batch has",
            _accumulated(lambda part, whole, size: part / size),
        ),
        Mistake(
            "divided by size",
            "every piece is divided by the room there is, and not by how many images "
            "the whole batch has",
            _accumulated(lambda part, whole, size: 1 / size),
        ),
        Mistake(
            "sum over images",
            "it is the gradient of the sum over all images: the mean is asked for",
            _accumulated(lambda part, whole, size: part),
        ),
        Mistake(
            "divided twice",
            "the mean of a piece is divided by the number of all images: its own "
            "number is missing",
            _accumulated(lambda part, whole, size: 1 / whole),
        ),
    ),
    questions=(_old_gradient,),
    read=_read_gradient,
)


# Is it better?


class _Recipe:
    """Stands for a training: tells its accuracy for a seed, and counts the calls."""

    def __init__(self, means: tuple[float, ...]):
        self.means, self.calls = means, []

    def __call__(self, seed: int) -> float:
        self.calls.append(seed)
        return self.means[seed % len(self.means)] + seed // 10 / 100


def _compared(one: Callable, other: Callable, seeds: list[int]) -> Tensor:
    gains = torch.tensor([one(seed) - other(seed) for seed in seeds])
    return torch.stack([gains.min(), gains.mean(), gains.max()])


def _other_gains(gains_of: Callable) -> Callable:
    """Return an answer that makes something else of both lists of accuracies."""

    def answer(one: Callable, other: Callable, seeds: list[int]) -> Tensor:
        a, b = (torch.tensor([train(seed) for seed in seeds]) for train in (one, other))
        return torch.stack([torch.as_tensor(value) for value in gains_of(a, b)])

    return answer


def _read_gains(value: object, one: _Recipe, other: _Recipe, seeds: list) -> Tensor:
    if isinstance(value, tuple | list) and len(value) == 3:
        value = torch.stack([numbered(part) for part in value])
    for name, recipe in (("one", one), ("other", other)):
        if len(recipe.calls) > len(seeds):
            raise Unfit(
                Finding(
                    "trained too often",
                    f"{name} was trained {len(recipe.calls)} times for {len(seeds)} "
                    "seeds: each training costs an hour. Keep what it returned",
                )
            )
    if sorted(one.calls) != sorted(seeds) or sorted(other.calls) != sorted(seeds):
        raise Unfit(
            Finding(
                "other seeds",
                f"with seeds = {seeds}, one was trained with {one.calls} and other "
                f"with {other.calls}: both need the same, or luck is compared",
            )
        )
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float()
    return value


def _recipes(what: str, a: tuple, b: tuple, seeds: list[int]) -> Case:
    one, other = (
        Given(f"a training that gives {listed([*map(str, x)])}", lambda x=x: _Recipe(x))
        for x in (a, b)
    )
    return Case(what, (one, other, seeds))


compare = ReadJudge(
    task="compare",
    arguments=("one", "other", "seeds"),
    axes="lowest_mean_highest",
    oracle=_compared,
    cases=(
        _recipes("one seed", (0.5,), (0.25,), [0]),
        _recipes(
            "always ahead by as much", (0.5, 0.7, 0.9), (0.4, 0.6, 0.8), [0, 1, 2]
        ),
        _recipes("ahead with most seeds", (0.6, 0.8, 0.9), (0.5, 0.85, 0.6), [0, 1, 2]),
        _recipes(
            "seeds that are not counted from 0",
            (0.6, 0.8, 0.9, 0.3),
            (0.7, 0.3, 0.95, 0.5),
            [13, 5, 11, 28],
        ),
    ),
    mistakes=(
        Mistake(
            "not seed by seed",
            "the mean is right, but lowest and highest are differences of extremes: "
            "the worst of one may have another seed than the worst of the other. Which "
            "accuracies share their start and their order?",
            _other_gains(
                lambda a, b: (a.min() - b.min(), (a - b).mean(), a.max() - b.max())
            ),
        ),
        Mistake(
            "every pair",
            "the mean is right, but lowest and highest compare each run of one with "
            "every run of the other: pair those that share a seed",
            _other_gains(
                lambda a, b: (a.min() - b.max(), (a - b).mean(), a.max() - b.min())
            ),
        ),
        Mistake(
            "other way round",
            "the sign is wrong: above 0 means that one is ahead",
            _other_gains(lambda a, b: ((b - a).min(), (b - a).mean(), (b - a).max())),
        ),
        Mistake(
            "no sign",
            "the differences have lost their sign: a seed with which one is behind "
            "counts as a gain",
            _other_gains(
                lambda a, b: (
                    (a - b).abs().min(),
                    (a - b).abs().mean(),
                    (a - b).abs().max(),
                )
            ),
        ),
        Mistake(
            "in the order of the seeds",
            "it returns the differences as they come: the lowest, their mean and the "
            "highest are asked for",
            _other_gains(lambda a, b: tuple(a - b)),
        ),
        Mistake(
            "another order",
            "the three numbers are right but in another order: lowest, mean, highest",
            _other_gains(lambda a, b: ((a - b).mean(), (a - b).min(), (a - b).max())),
        ),
        Mistake(
            "median",
            "the one in the middle is the median: the mean is asked for",
            _other_gains(lambda a, b: ((a - b).min(), (a - b).median(), (a - b).max())),
        ),
    ),
    read=_read_gains,
)
