"""Checks of what the exercises of chapter 11 ask for: a trained body, a new task."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitlib.checks.building import drawn, drawn_weights
from vitlib.checks.judging import Case, Mistake, Probe
from vitlib.checks.reading import Given, ReadJudge, numbered, paired
from vitlib.checks.wording import Finding, Unfit
from vitlib.cls_token import pool_tokens
from vitlib.vit import ViT, ViTConfig

# A head for old and new classes


def _head(weight: Tensor, bias: Tensor, old_names: list, new_names: list):
    places = {name: place for place, name in enumerate(old_names)}
    rows = [
        weight[places[name]] if name in places else torch.zeros_like(weight[0])
        for name in new_names
    ]
    shifts = [
        bias[places[name]] if name in places else torch.zeros_like(bias[0])
        for name in new_names
    ]
    return torch.stack(rows), torch.stack(shifts)


def _other_head(change: Callable) -> Callable:
    """Return an answer that changes the right head."""

    def answer(weight: Tensor, bias: Tensor, old_names: list, new_names: list):
        known = torch.tensor([name in old_names for name in new_names])
        return change(*_head(weight, bias, old_names, new_names), weight, bias, known)

    return answer


def _in_old_order(weight: Tensor, bias: Tensor, old_names: list, new_names: list):
    names = [name for name in old_names if name in new_names]
    names += [name for name in new_names if name not in old_names]
    return _head(weight, bias, old_names, names)


def _known_first(weight: Tensor, bias: Tensor, old_names: list, new_names: list):
    names = [name for name in new_names if name in old_names]
    names += [name for name in new_names if name not in old_names]
    return _head(weight, bias, old_names, names)


def _by_place(weight: Tensor, bias: Tensor, old_names: list, new_names: list):
    return _head(weight, bias, [*range(len(old_names))], [*range(len(new_names))])


def _read_head(value: object, weight: Tensor, bias, old_names, new_names) -> Tensor:
    rows, shifts = paired(value, ("the weight", "the bias"))
    needed = (len(new_names), weight.shape[1])
    if rows.shape != needed or shifts.shape != needed[:1]:
        raise Unfit(
            Finding(
                "shape",
                f"weight {tuple(rows.shape)} and bias {tuple(shifts.shape)} came back "
                f"for {len(new_names)} new names: needed are {needed} and "
                f"{needed[:1]}, a row for each new name",
            )
        )
    return torch.cat([rows, shifts[:, None]], dim=1)


def _whose_row(probe: Probe) -> Finding | None:
    """Say which class got whose row."""
    weight, _, old_names, new_names = probe.given
    got, expected = probe.got, probe.expected
    near = torch.isclose(got[:, :-1], expected[:, :-1], atol=1e-5).all(dim=1)
    if near.all():
        place = int((got[:, -1] != expected[:, -1]).nonzero()[0, 0])
        return Finding(
            "bias",
            f"the rows are right, the bias of {new_names[place]!r} is not: it belongs "
            "to its class as the row does",
        )
    place = int((~near).nonzero()[0, 0])
    name = new_names[place]
    owner = (weight == got[place, :-1]).all(dim=1).nonzero().flatten().tolist()
    if owner:
        return Finding(
            "row of another class",
            f"the row of {name!r} is the one that {old_names[owner[0]]!r} had: find "
            "rows by name, not by place",
        )
    if name not in old_names:
        return Finding(
            "new row",
            f"{name!r} is new, and its row is not 0: before any training the head "
            "should say nothing about it",
        )
    return Finding(
        "known row",
        f"{name!r} was known, and its row is not the old one: what it has learned "
        "must come along as it is",
    )


def _names(what: str, e: int, old: str, new: str) -> Case:
    old_names, new_names = old.split(), new.split()
    count = len(old_names)
    weight, bias = drawn(count, e) + 3, drawn(count, seed=1) - 5
    return Case(what, (weight, bias, old_names, new_names))


head_for = ReadJudge(
    task="head_for",
    arguments=("weight", "bias", "old_names", "new_names"),
    axes="class weights_then_bias",
    oracle=_head,
    cases=(
        _names("one known, one new class", 2, "cat dog", "dog lamp"),
        _names("all known, in another order", 4, "cat dog ship", "ship cat dog"),
        _names("none known", 3, "cat dog", "lamp shoe"),
        _names("more classes than before", 5, "cat dog ship", "dog lamp ship shoe"),
        _names("fewer than before", 4, "cat dog ship frog deer", "shoe deer cat"),
    ),
    mistakes=(
        Mistake(
            "by place",
            "the first rows are those of the first old classes, whatever the new "
            "classes are called: class 0 meant something else",
            _by_place,
        ),
        Mistake(
            "in the old order",
            "the rows come in the order of the old names: the new task's labels count "
            "in the order of its own",
            _in_old_order,
        ),
        Mistake(
            "known ones first",
            "the known classes come first and the new ones behind: the labels count in "
            "the order of new_names",
            _known_first,
        ),
        Mistake(
            "bias of zeros",
            "the rows are right, but the bias of a known class is lost: it belongs to "
            "its class as the row does",
            _other_head(lambda w, b, old, bias, known: (w, 0 * b)),
        ),
        Mistake(
            "nothing kept",
            "every row is 0: what is known of the old classes is lost",
            _other_head(lambda w, b, old, bias, known: (0 * w, 0 * b)),
        ),
        Mistake(
            "mean for new ones",
            "a new class starts with the mean of the old rows: it should start at 0 "
            "and say nothing",
            _other_head(
                lambda w, b, old, bias, known: (
                    torch.where(known[:, None], w, old.mean(dim=0)),
                    torch.where(known, b, bias.mean()),
                )
            ),
        ),
    ),
    questions=(_whose_row,),
    read=_read_head,
)


# Which parameters learn


def _frozen(
    *,
    blocks: bool = True,
    norm: bool = True,
    head: bool = True,
    front: bool = False,
    zero_is_all: bool = False,
    shift: int = 0,
) -> Callable:
    """Return an answer that is wrong in some way."""

    def answer(model: nn.Module, count: int) -> None:
        depth = len(model.blocks)
        learning = [*range(depth)][depth - count :] if blocks else []
        if front:
            learning = [*range(count)]
        if zero_is_all:
            learning = [*range(depth)][-count:]
        learning = [place + shift for place in learning]
        starts = tuple(f"blocks.{place}." for place in learning)
        starts += ("norm.",) * norm + ("head.",) * head
        for name, value in model.named_parameters():
            value.requires_grad_(name.startswith(starts) if starts else False)

    return answer


def _inverted(model: nn.Module, count: int) -> None:
    _frozen()(model, count)
    for value in model.parameters():
        value.requires_grad_(not value.requires_grad)


def _untouched(model: nn.Module, count: int) -> None:
    """Set an attribute of modules, which no parameter looks at."""


def _compared_as_text(model: nn.Module, count: int) -> None:
    first = str(len(model.blocks) - count)
    for name, value in model.named_parameters():
        word, number = name.split(".")[:2] if "." in name else (name, "")
        block = word == "blocks" and number >= first
        value.requires_grad_(block or word in ("norm", "head"))


def _only_off(model: nn.Module, count: int) -> None:
    """Freeze, and wake nothing that was frozen before."""
    before = [value.requires_grad for value in model.parameters()]
    _frozen()(model, count)
    for value, learned in zip(model.parameters(), before, strict=True):
        value.requires_grad_(value.requires_grad and learned)


def _only_on(model: nn.Module, count: int) -> None:
    before = [value.requires_grad for value in model.parameters()]
    _frozen()(model, count)
    for value, learned in zip(model.parameters(), before, strict=True):
        value.requires_grad_(value.requires_grad or learned)


def _read_flags(value: object, model: nn.Module, count: int) -> Tensor:
    return torch.tensor([parameter.requires_grad for parameter in model.parameters()])


def _which_flag(probe: Probe) -> Finding | None:
    """Name the first parameter whose flag is wrong."""
    model, count = probe.given
    names = [name for name, _ in model.made().named_parameters()]
    place = int((probe.got != probe.expected).nonzero()[0, 0])
    word = "frozen" if probe.expected[place] else "learning"
    other = "learn" if probe.expected[place] else "be frozen"
    return Finding(
        word,
        f"with count = {count} and {len(model.made().blocks)} blocks, {names[place]} "
        f"is {word}: it should {other}",
    )


def _body(depth: int, learning: bool) -> Given:
    config = ViTConfig(
        image_size=(2, 4),
        patch_size=2,
        in_channels=1,
        num_classes=3,
        embed_dim=2,
        depth=depth,
        num_heads=1,
        mlp_ratio=1.5,
    )
    state = "learns" if learning else "is frozen"
    return Given(
        f"a ViT of {depth} blocks that {state}",
        lambda: ViT(config).requires_grad_(learning),
    )


freeze = ReadJudge(
    task="freeze",
    arguments=("model", "count"),
    axes="parameter",
    oracle=_frozen(),
    cases=(
        Case("the last of two blocks", (_body(2, True), 1)),
        Case("the last two of three", (_body(3, True), 2)),
        Case("no block", (_body(2, True), 0)),
        Case("every block", (_body(3, True), 3)),
        Case("a model that was frozen before", (_body(3, False), 1)),
        Case("four of twelve blocks", (_body(12, True), 4)),
    ),
    mistakes=(
        Mistake(
            "nothing frozen",
            "every parameter is as it was. A module has no switch of its own: "
            "module.requires_grad = False makes a new attribute that nobody reads",
            _untouched,
        ),
        Mistake(
            "zero means all",
            "right, but with a count of 0 every block learns: in Python, what is "
            "[-0:] of a list?",
            _frozen(zero_is_all=True),
        ),
        Mistake(
            "from the front",
            "the first blocks learn, those next to the pixels: the last ones are asked "
            "for",
            _frozen(front=True),
        ),
        Mistake(
            "the other way round",
            "what should learn is frozen, and what should be frozen learns",
            _inverted,
        ),
        Mistake(
            "no norm",
            "the last norm is frozen: it stands behind the blocks and should learn",
            _frozen(norm=False),
        ),
        Mistake(
            "no head",
            "the head is frozen: it is new, and nothing else knows the new classes",
            _frozen(head=False),
        ),
        Mistake(
            "head and norm only",
            "no block learns, whatever count says",
            _frozen(blocks=False),
        ),
        Mistake(
            "stays frozen",
            "right for a model that learns. One that was frozen before stays so: what "
            "should learn has to be switched on",
            _only_off,
        ),
        Mistake(
            "never frozen",
            "what should learn does, and all the rest as well: nothing is switched off",
            _only_on,
        ),
        Mistake(
            "compared as text",
            "right for few blocks. Of twelve, blocks 10 and 11 are frozen: as texts, "
            "10 comes before 9. Compare numbers",
            _compared_as_text,
        ),
        Mistake(
            "one block too far",
            "the row of blocks that learn is shifted by one: count from 0, and look "
            "what the last one is called",
            _frozen(shift=1),
        ),
        Mistake(
            "one block too far",
            "the row of blocks that learn is shifted by one: count from 0, and look "
            "what the last one is called",
            _frozen(shift=-1),
        ),
    ),
    questions=(_which_flag,),
    read=_read_flags,
)


# Features


def _features(model: nn.Module, images: Tensor) -> Tensor:
    learning = [module.training for module in model.modules()]
    kept = []
    hook = model.head.register_forward_pre_hook(lambda head, x: kept.append(x[0]))
    model.eval()
    with torch.no_grad():
        model(images)
    hook.remove()
    for module, mode in zip(model.modules(), learning, strict=True):
        module.training = mode
    return kept[0]


def _before_the_norm(model: nn.Module, images: Tensor) -> Tensor:
    kept = []
    hook = model.norm.register_forward_pre_hook(lambda norm, x: kept.append(x[0]))
    _features(model, images)
    hook.remove()
    return kept[0]


def _normed_tokens(model: nn.Module, images: Tensor) -> Tensor:
    kept = []
    last = model.blocks[-1]
    hook = last.register_forward_hook(lambda block, x, tokens: kept.append(tokens))
    _features(model, images)
    hook.remove()
    with torch.no_grad():
        return model.norm(kept[0])


def _class_token(model: nn.Module, images: Tensor) -> Tensor:
    return _normed_tokens(model, images)[:, 0]


def _mean_of_normed(model: nn.Module, images: Tensor) -> Tensor:
    return pool_tokens(_normed_tokens(model, images), model.config.pool)


def _scores(model: nn.Module, images: Tensor) -> Tensor:
    learning = model.training
    with torch.no_grad():
        scores = model.eval()(images)
    model.train(learning)
    return scores


def _read_features(value: object, model: nn.Module, images: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        return value
    if not isinstance(model.head, nn.Linear):
        raise Unfit(
            Finding(
                "head lost",
                f"afterwards the model's head is a {type(model.head).__name__}: its "
                "owner still needs the old one",
            )
        )
    if model.head._forward_pre_hooks or model.head._forward_hooks:
        raise Unfit(
            Finding(
                "hook left",
                "a hook is still on the head: it keeps what passes, at every call that "
                "comes later, and memory fills",
            )
        )
    if value.requires_grad:
        raise Unfit(
            Finding(
                "graph kept",
                "the features know how they were computed (requires_grad is True): "
                "each batch keeps all numbers of the body in memory, for a backward "
                "pass that never comes",
            )
        )
    modes = {module.training for module in model.modules()}
    if modes != {model.was_training}:
        word = "training" if model.was_training else "evaluation"
        raise Unfit(
            Finding(
                "mode",
                f"the model came in {word} mode and left in another: who trains on "
                "does so with other parts switched on",
            )
        )
    if any(not parameter.requires_grad for parameter in model.parameters()):
        raise Unfit(
            Finding(
                "frozen for good",
                "afterwards parameters of the model have requires_grad = False: it "
                "cannot learn any more. No gradients here is no property of the model",
            )
        )
    return value


class _Kept(ViT):
    """A ViT that remembers the mode in which it came."""

    was_training = False


def _trained(pool: str, c: int, e: int, classes: int, training: bool) -> Given:
    config = ViTConfig(
        image_size=(4, 6),
        patch_size=2,
        in_channels=c,
        num_classes=classes,
        embed_dim=e,
        depth=2,
        num_heads=2,
        mlp_ratio=1.5,
        pool=pool,
        drop_rate=0.5,
    )

    def make() -> nn.Module:
        model = _Kept(config)
        model.load_state_dict(drawn_weights(lambda: ViT(config), seed=e))
        model.was_training = training
        return model.train(training)

    state = "training" if training else "evaluation"
    return Given(f"a ViT with dropout, pool {pool!r}, in {state} mode", make)


features = ReadJudge(
    task="features",
    arguments=("model", "images"),
    axes="b e",
    oracle=_features,
    cases=(
        Case(
            "a model in evaluation mode",
            (_trained("cls", 1, 4, 4, False), drawn(1, 1, 4, 6)),
        ),
        Case(
            "a model in training mode",
            (_trained("cls", 2, 4, 3, True), drawn(2, 2, 4, 6, seed=1)),
        ),
        Case(
            "a mean of patches",
            (_trained("mean", 3, 6, 5, True), drawn(2, 3, 4, 6, seed=2)),
        ),
    ),
    mistakes=(
        Mistake(
            "scores",
            "these are the scores of the old classes, (b, num_classes): the features "
            "are what the head gets",
            _scores,
        ),
        Mistake(
            "before the norm",
            "the last norm is missing: the head gets what comes out of it",
            _before_the_norm,
        ),
        Mistake(
            "class token whatever pool says",
            "right for a model that reads the class token. This one reads the mean of "
            "the patches: what its head gets, its pool decides",
            _class_token,
        ),
        Mistake(
            "norm before the mean",
            "right for a model that reads the class token. Where it reads a mean, the "
            "mean is taken first and then normalised",
            _mean_of_normed,
        ),
    ),
    read=_read_features,
)


# What was forgotten

_EVEN, _ODD, _ALL = slice(0, None, 2), slice(1, None, 2), slice(None)


def _share(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores.argmax(dim=1) == labels).double().mean()


def _fit(body: Tensor, labels: Tensor) -> Tensor:
    """Find a matrix by least squares; its last row is the bias."""
    targets = torch.eye(int(labels.max()) + 1, dtype=torch.float64)[labels]
    return torch.linalg.lstsq(_with_one(body), targets).solution


def _with_one(body: Tensor) -> Tensor:
    return torch.cat([body.double(), body.new_ones(len(body), 1).double()], dim=1)


def _measured(
    *,
    learned: slice = _EVEN,
    measured: slice = _ODD,
    old_measured: slice = _ODD,
    one_head: bool = False,
    sign: int = 1,
    share: bool = False,
) -> Callable:
    """Return an answer, which may measure something else."""

    def answer(before, after, head, labels) -> Tensor:
        old, new = [], []
        for body in (before, after):
            scores = _with_one(body[old_measured]) @ head.double()
            old.append(_share(scores, labels[old_measured]))
            from_body = before if one_head else body
            matrix = _fit(from_body[learned], labels[learned])
            scores = _with_one(body[measured]) @ matrix
            new.append(_share(scores, labels[measured]))
        if share:
            return torch.stack([old[1], new[1]])
        return sign * torch.stack([old[0] - old[1], new[0] - new[1]])

    return answer


def _read_losses(value: object, *_: object) -> Tensor:
    if isinstance(value, Tensor) and value.shape == (2,):
        return value.double()
    if not isinstance(value, tuple | list) or len(value) != 2:
        return value
    return torch.stack([numbered(part).double() for part in value])


def _which_loss(probe: Probe) -> Finding | None:
    """Say which of the two numbers is wrong, and for what body."""
    change, got = probe.given[1], probe.got
    if abs(got[0] - probe.expected[0]) > 1e-6:
        return Finding(
            "with the old head",
            f"for {change!r} you find a loss of {got[0]:.3g} with the old head: which "
            "share of the odd rows does it get right before, and which after?",
        )
    return Finding(
        "with a new head",
        f"for {change!r} you find a loss of {got[1]:.3g} with new heads: each body "
        "gets one of its own, fitted on the even rows and measured on the odd ones",
    )


def _bodies(what: str, change: Callable, count: int, e: int, classes: int) -> Case:
    labels = torch.arange(count) * 7 // 2 % classes
    # So near that the old head is not always right.
    centres = drawn(classes, e, seed=classes)
    before = centres[labels] + drawn(count, e, seed=11)
    # Scores fall with the distance to the centre of a class.
    head = torch.cat([centres, -centres.square().sum(1, keepdim=True) / 2], dim=1).T
    made = (
        ("features of the old task", before),
        (f"features {what}", change(before)),
        ("the old head", head),
    )
    given = (Given(text, lambda x=x: x, casts=False) for text, x in made)
    return Case(f"features {what}", (*given, labels))


def _turned(body: Tensor) -> Tensor:
    e = body.shape[1]
    return body @ torch.linalg.qr(drawn(e, e, seed=4))[0]


def _half_gone(body: Tensor) -> Tensor:
    noise = drawn(*body.shape, seed=8)
    return torch.cat([body[:, : body.shape[1] // 3], noise], dim=1)[:, : body.shape[1]]


forgotten = ReadJudge(
    task="forgotten",
    arguments=("before", "after", "head", "labels"),
    axes="old_new",
    oracle=_measured(),
    cases=(
        _bodies("that have not moved", lambda body: body.clone(), 24, 4, 3),
        _bodies("turned and moved", lambda body: _turned(body) + 2, 60, 5, 4),
        _bodies("replaced by dice", lambda body: drawn(*body.shape, seed=3), 40, 8, 3),
        _bodies("of which two thirds are dice", _half_gone, 70, 6, 4),
    ),
    mistakes=(
        Mistake(
            "measured where it was fitted",
            "the new heads are measured on the rows they were fitted on: with few "
            "rows a matrix fits dice as well, and nothing seems lost",
            _measured(measured=_EVEN),
        ),
        Mistake(
            "measured where it was fitted",
            "the new heads are fitted on all rows, those they are measured on too: "
            "with few rows a matrix fits dice as well, and less seems lost",
            _measured(learned=_ALL),
        ),
        Mistake(
            "measured where it was fitted",
            "the new heads are fitted on all rows, and measured on them: with few rows "
            "a matrix fits dice as well, and less seems lost",
            _measured(learned=_ALL, measured=_ALL, old_measured=_ALL),
        ),
        Mistake(
            "old head on all rows",
            "the old head is measured on all rows, the new ones on the odd ones: two "
            "numbers that stand side by side need the same rows",
            _measured(old_measured=_ALL),
        ),
        Mistake(
            "rows swapped",
            "fitted on the odd rows and measured on the even ones: it was asked the "
            "other way round",
            _measured(learned=_ODD, measured=_EVEN, old_measured=_EVEN),
        ),
        Mistake(
            "one head for both",
            "the head that was fitted to the old body is used for the new one, too: it "
            "is another old head. Features that have moved are not gone",
            _measured(one_head=True),
        ),
        Mistake(
            "sign",
            "a loss is what it was before, less what it is after: yours has the other "
            "sign",
            _measured(sign=-1),
        ),
        Mistake(
            "no difference",
            "these are the shares that are right afterwards: how much was right "
            "before, with each of the heads?",
            _measured(share=True),
        ),
    ),
    questions=(_which_loss,),
    read=_read_losses,
)
