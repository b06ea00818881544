"""Checks of what the exercises of chapter 09 ask for: reading a stranger's numbers."""

import math
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vitlib.checks.building import drawn
from vitlib.checks.deciding import Subject, decides
from vitlib.checks.judging import Case, Mistake, Probe
from vitlib.checks.reading import Given, ReadJudge, numbered, paired
from vitlib.checks.wording import Finding, Unfit, called

# Other names

_ROWS = {
    "stem": "patch_embed.proj",
    "post": "norm",
    "out": "head",
}
_LAYER = {
    "pre": "norm1",
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "post": "norm2",
    "submodule.up": "mlp.fc1",
    "submodule.down": "mlp.fc2",
}


def _our_name(name: str, first: int = 1) -> str:
    row, part = name.removeprefix("module.").rsplit(".", 1)
    layer = re.fullmatch(r"layers\.(\d+)\.(.*)", row)
    if layer:
        return f"blocks.{int(layer[1]) - first}.{_LAYER[layer[2]]}.{part}"
    return f"{_ROWS[row]}.{part}"


def _renamed(our_name: Callable[[str], str]) -> Callable:
    return lambda state: {our_name(name): value for name, value in state.items()}


def _top_as_layer(name: str) -> str:
    """Read a name at the top as if it stood in a layer."""
    return _our_name(name).replace("head.", "attn.proj.")


def _layer_as_top(name: str) -> str:
    ours = _our_name(name)
    return ours.replace("attn.proj", "head").replace("norm2", "norm")


# A mistake in names leaves no numbers to compare.
_MISNAMED = (
    (
        "prefix kept",
        "the names still begin with module.: that is what training on several devices "
        "puts in front, and no model has a part of that name",
        lambda name: "module." + _our_name(name),
    ),
    (
        "counted from 1",
        "the numbers of the blocks are the stranger's, who counts from 1: ours begin "
        "at 0, so the last one has no place",
        lambda name: _our_name(name, first=0),
    ),
    (
        "out is one thing",
        "the stranger's out means one thing in a layer and another at the top: your "
        "code makes the same of both",
        _layer_as_top,
    ),
    (
        "out is one thing",
        "the stranger's out means one thing in a layer and another at the top: your "
        "code makes the same of both",
        _top_as_layer,
    ),
)


def _read_names(value: object, state: dict) -> Tensor:
    if not isinstance(value, dict):
        raise Unfit(
            Finding(
                "type",
                f"it returned {called(value)}: return a dictionary of our "
                "names and the stranger's tensors",
            )
        )
    wanted = {_our_name(name): tensor for name, tensor in state.items()}
    if value.keys() != wanted.keys():
        raise Unfit(_misnamed(value, state))
    return torch.cat([value[name].flatten() for name in wanted])


def _counted_down(name: str) -> str:
    """Return a name with the number of the block before."""
    return re.sub(r"(?<=blocks\.)\d+", lambda found: f"{int(found[0]) - 1}", name)


def _misnamed(value: dict, state: dict) -> Finding:
    for name, tell, our_name in _MISNAMED:
        if value.keys() == _renamed(our_name)(state).keys():
            return Finding(name, tell)
    became = {
        theirs: [key for key, kept in value.items() if kept is tensor]
        for theirs, tensor in state.items()
    }
    for theirs, (key, *_) in ((k, v) for k, v in became.items() if v):
        if key == _our_name(theirs):
            continue
        bare = theirs.removeprefix("module.")
        eaten = theirs.lstrip("module.").split(".")[0]
        if key.split(".")[0] == eaten != bare.split(".")[0]:
            return Finding(
                "letters lost",
                f"{theirs!r} became {key!r}: letters are missing in front. lstrip "
                "takes a set of letters, not a word",
            )
        if len(state) > 40 and re.search(r"\.\d\d", theirs):
            return Finding(
                "two digits",
                f"{theirs!r} became {key!r}: with ten layers or more a number has two "
                "digits, and layers.1 is also how layers.10 begins",
            )
        if _counted_down(key) == _our_name(theirs):
            return Finding("counted from 1", _MISNAMED[1][1])
        return Finding("name", f"{theirs!r} became {key!r}, which our model has not")
    lost = [theirs for theirs, keys in became.items() if not keys]
    return Finding(
        "lost",
        f"{len(state)} tensors came in and {len(value)} went out; one that is gone is "
        f"{lost[0] if lost else next(iter(state))!r}. Did two of them get one name?",
    )


def _which_name(probe: Probe) -> Finding | None:
    """Ask which tensor lies under a name of another one."""
    state = probe.given[0].made()
    wanted = [(_our_name(theirs), theirs) for theirs in state for _ in state[theirs]]
    at = int((probe.got != probe.expected).nonzero()[0, 0])
    source = (probe.expected == probe.got[at]).nonzero()
    if not len(source):
        return Finding(
            "numbers changed",
            f"under {wanted[at][0]!r} lie numbers that did not arrive: only names "
            "change here",
        )
    return Finding(
        "tensor under another name",
        f"under {wanted[at][0]!r} lies what the stranger calls "
        f"{wanted[int(source[0, 0])][1]!r}",
    )


def _stranger(depth: int) -> Given:
    def make() -> dict[str, Tensor]:
        rows = [
            "stem",
            *(f"layers.{i}.{row}" for i in range(1, depth + 1) for row in _LAYER),
            "post",
            "out",
        ]
        names = [f"module.{row}.{part}" for row in rows for part in ("weight", "bias")]
        counts = [1 + place % 3 for place in range(len(names))]
        numbers = torch.arange(1.0, sum(counts) + 1).split(counts)
        return dict(zip(names, numbers, strict=True))

    return Given(
        f"a stranger's state dict, {depth} layer{'s' * (depth > 1)}", make, casts=False
    )


rename = ReadJudge(
    task="rename",
    arguments=("state",),
    axes="number",
    oracle=_renamed(_our_name),
    cases=(
        Case("a single layer", (_stranger(1),)),
        Case("two layers", (_stranger(2),)),
        Case("twelve layers", (_stranger(12),)),
    ),
    mistakes=(
        Mistake(
            "norms swapped",
            "norm1 and norm2 have changed places: pre stands before the attention, "
            "post behind it. The shapes are equal, so it loads without a word",
            _renamed(
                lambda name: (
                    _our_name(name)
                    .replace("norm1", "norm0")
                    .replace("norm2", "norm1")
                    .replace("norm0", "norm2")
                )
            ),
        ),
        Mistake(
            "weights and biases swapped",
            "what was a weight is called a bias, and the other way round",
            _renamed(
                lambda name: (
                    _our_name(name)[: _our_name(name).rindex(".")]
                    + (".bias" if name.endswith("weight") else ".weight")
                )
            ),
        ),
    ),
    questions=(_which_name,),
    read=_read_names,
)


# Pixels as they are


def _fold(weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor):
    weight = weight / std[:, None, None]
    return weight, bias - (weight * mean[:, None, None]).sum(dim=(1, 2, 3))


def _folded(scale: Callable, shift: Callable) -> Callable:
    """Return an answer that differs in one of the two parts."""

    def answer(weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor):
        return scale(weight, std[:, None, None]), shift(
            weight, bias, mean[:, None, None], std[:, None, None]
        )

    return answer


def _over(weight: Tensor, std: Tensor) -> Tensor:
    return weight / std


def _read_fold(value: object, weight: Tensor, *_: Tensor) -> Tensor:
    kernel, bias = paired(value, ("the weight", "the bias"))
    if kernel.shape != weight.shape or bias.shape != weight.shape[:1]:
        raise Unfit(
            Finding(
                "shape",
                f"weight {tuple(kernel.shape)} and bias {tuple(bias.shape)} came back, "
                f"needed are {tuple(weight.shape)} and {tuple(weight.shape[:1])}: they "
                "have to fit the Conv2d they came from",
            )
        )
    return torch.cat([kernel.flatten(1), bias[:, None]], dim=1)


def _which_part(probe: Probe) -> Finding | None:
    """Ask whether the weight or the bias is wrong, and test with no shift."""
    weight, bias, mean, std = probe.given
    got, expected = probe.got, probe.expected
    if not torch.allclose(got[:, :-1], expected[:, :-1], rtol=1e-4, atol=1e-5):
        return Finding(
            "weight",
            "the weight is wrong. A pixel is divided by its channel's std, and then "
            "weighted: what single number does both, and along which axis do the "
            "channels lie?",
        )
    still = probe.run(weight, bias, torch.zeros_like(mean), std)
    if still is not None and not torch.allclose(still[:, -1], bias, atol=1e-5):
        return Finding(
            "bias without a shift",
            "the weight is right. But with a mean of zeros there is nothing to shift, "
            "and your bias is another one all the same",
        )
    return Finding(
        "bias",
        "the weight is right, the bias is not. Show the old model an image in which "
        "every pixel is 0, and the new one the same: what must the bias make up for?",
    )


def _fold_case(what: str, e: int, c: int, p: int, q: int) -> Case:
    std = 0.2 + drawn(c, seed=3).abs()
    given = (drawn(e, c, p, q), drawn(e, seed=1), drawn(c, seed=2) + 0.3, std)
    return Case(what, given)


fold_pixels = ReadJudge(
    task="fold_pixels",
    arguments=("weight", "bias", "mean", "std"),
    axes="e weights_then_bias",
    oracle=_fold,
    cases=(
        _fold_case("grey patches of one pixel", 2, 1, 1, 1),
        _fold_case("three channels", 2, 3, 1, 1),
        _fold_case("as many channels as outputs", 3, 3, 2, 2),
        _fold_case("high patches of three channels", 5, 3, 4, 2),
    ),
    mistakes=(
        Mistake(
            "bias kept",
            "the weight is right, but the bias is the old one: the mean that was "
            "subtracted from every pixel is subtracted nowhere now",
            _folded(_over, lambda w, b, m, s: b),
        ),
        Mistake(
            "sign",
            "the bias moves in the wrong direction: the mean was subtracted",
            _folded(_over, lambda w, b, m, s: b + (w * m / s).sum(dim=(1, 2, 3))),
        ),
        Mistake(
            "mean not divided",
            "the bias makes up for the mean, but the mean was divided by std too",
            _folded(_over, lambda w, b, m, s: b - (w * m).sum(dim=(1, 2, 3))),
        ),
        Mistake(
            "multiplied",
            "the weight was multiplied by std: the pixels were divided by it",
            _folded(
                lambda w, s: w * s,
                lambda w, b, m, s: b - (w * s * m).sum(dim=(1, 2, 3)),
            ),
        ),
        Mistake(
            "multiplied",
            "the weight was multiplied by std: the pixels were divided by it",
            _folded(
                lambda w, s: w * s,
                lambda w, b, m, s: b - (w * m / s).sum(dim=(1, 2, 3)),
            ),
        ),
        Mistake(
            "divided twice",
            "the weight is right, but in the bias std divides twice: once in the new "
            "weight, and once more",
            _folded(_over, lambda w, b, m, s: b - (w / s * m / s).sum(dim=(1, 2, 3))),
        ),
        Mistake(
            "one pixel only",
            "the bias makes up for one pixel of a patch: every pixel was shifted",
            _folded(_over, lambda w, b, m, s: b - (w * m / s).mean(dim=(2, 3)).sum(1)),
        ),
        Mistake(
            "bias divided",
            "the bias was divided as well: it is added after the product, and never "
            "met a pixel",
            lambda w, b, m, s: (
                w / s[:, None, None],
                b / s.mean() - (w * (m / s)[:, None, None]).sum(dim=(1, 2, 3)),
            ),
        ),
    ),
    questions=(_which_part,),
    read=_read_fold,
)


# An eps that stands nowhere


def _box(e: int, eps: float, scale: Tensor | float, shift: Tensor | float):
    weight, bias = torch.ones(e) * scale, torch.zeros(e) + shift

    def norm(tokens: Tensor) -> Tensor:
        parts = (part.to(tokens.dtype) for part in (weight, bias))
        return F.layer_norm(tokens, (e,), *parts, eps=eps)

    return norm


def _norm(e: int, eps: float, seed: int) -> Given:
    scale, shift = 1 + drawn(e, seed=seed).abs(), 1 + drawn(e, seed=seed + 9)
    return Given(
        f"a LayerNorm with eps {eps:g}, a scale and a shift",
        lambda: _box(e, eps, scale, shift),
    )


def _seen_eps(norm: Callable, e: int, small: float = 1e-6) -> float:
    token = torch.ones(e, dtype=torch.float64)
    token[0] = 1 - e  # its mean is 0
    shift = norm(0 * token)
    scale = norm(1e6 * token) - shift
    shrunk = (norm(small * token) - shift) / scale  # 1 with an eps of 0
    variance = (small * token).var(correction=0)
    # The large token's ratio is 1 up to rounding.
    return (variance / shrunk.square() - variance)[1].item()


def _read_eps(value: object, norm: Callable, e: int) -> Tensor:
    eps = numbered(value).item()
    if not (eps > 0 and math.isfinite(eps)):
        raise Unfit(
            Finding(
                "no eps",
                f"it returned {eps:g}, and an eps is a small positive number. If you "
                "subtract two nearly equal numbers, only rounding is left: which "
                "token would make eps large beside its variance?",
            )
        )
    return torch.tensor(round(math.log10(eps), 2))


def _scale_or_shift(probe: Probe) -> Finding | None:
    """Ask whether a norm without scale and shift is read rightly."""
    e = probe.given[1]

    def right(scale: float, shift: float) -> bool:
        box = Given("a norm", lambda: _box(e, 1e-5, scale, shift))
        got = probe.run(box, e)
        return got is not None and abs(got + 5) < 0.01

    if not right(1.0, 0.0):
        return None
    if not right(3.0, 0.0):
        return Finding(
            "scale",
            "right for a norm that has no scale, wrong for one that has: what comes "
            "out was multiplied by a number you do not know. Which token tells it?",
        )
    if not right(1.0, 2.0):
        return Finding(
            "shift",
            "right for a norm that has no shift, wrong for one that has: a number was "
            "added to what comes out. Which token tells it?",
        )
    return None


def _how_far(probe: Probe) -> Finding | None:
    """Say by how much an eps is off."""
    times = 10 ** (probe.got - probe.expected).item()
    eps = 10 ** probe.expected.item()
    return Finding(
        "another eps",
        f"for an eps of {eps:.3g} it returns {times:.3g} times as much. The output of "
        "a norm is (x - mean) / sqrt(variance + eps): is your token's variance taken "
        "away again, and is it so small that eps can be seen beside it?",
    )


find_eps = ReadJudge(
    task="find_eps",
    arguments=("norm", "embed_dim"),
    axes="",
    oracle=_seen_eps,
    cases=(
        Case("an eps of 1e-3 (log10: -3)", (_norm(4, 1e-3, 1), 4)),
        Case("an eps of 1e-6 (log10: -6)", (_norm(5, 1e-6, 2), 5)),
        Case("an eps of 1e-5 (log10: -5)", (_norm(7, 1e-5, 3), 7)),
        Case("an eps of 1e-12 (log10: -12)", (_norm(6, 1e-12, 4), 6)),
    ),
    mistakes=(
        Mistake(
            "the root",
            "it returns the square root of eps: eps stands below the root",
            lambda norm, e: _seen_eps(norm, e) ** 0.5,
        ),
        Mistake(
            "the eps of timm",
            "it returns 1e-6 whatever the norm does",
            lambda norm, e: 1e-6,
        ),
        Mistake(
            "the eps of nn.LayerNorm",
            "it returns 1e-5 whatever the norm does",
            lambda norm, e: 1e-5,
        ),
        Mistake(
            "variance by e - 1",
            "nearly: a LayerNorm's variance is a mean over e squares, and yours "
            "divides by e - 1, the default of torch.var",
            lambda norm, e: _seen_eps(norm, e) * e / (e - 1),
        ),
    ),
    questions=(_scale_or_shift, _how_far),
    read=_read_eps,
)


# A test of converters

_HEADS = 2


def _split(rows: Tensor, order: str) -> Tensor:
    return rearrange(rows, f"({order}) ... -> three (h d) ...", three=3, h=_HEADS)


def _converter(
    *,
    q: float = 1.0,
    k: float = 1.0,
    order: str = "h d three",
    bias_order: str = "h d three",
    bias_q: bool = True,
    parts: tuple[int, ...] = (0, 1, 2),
    key_bias: bool = True,
    turned: bool = False,
    decimals: int = 16,
) -> Callable[[dict], dict]:
    """Return a converter; q and k are the shares of the scale that each gets."""

    def convert(w: dict[str, Tensor]) -> dict[str, Tensor]:
        # The scores were divided by the root of e, and will be by that of d.
        scale = (
            w["qkv.weight"].shape[0] / 3 / _HEADS / w["qkv.weight"].shape[1]
        ) ** 0.5
        weight = _split(w["qkv.weight"], order).clone()
        bias = _split(w["qkv.bias"], bias_order).clone()
        for place, share in enumerate((q, k)):
            weight[place] *= scale**share
            if bias_q:
                bias[place] *= scale**share
        if not key_bias:
            bias[1] = 0
        converted = {
            "qkv.weight": weight[list(parts)].flatten(0, 1),
            "qkv.bias": bias[list(parts)].flatten(),
            "proj.weight": w["proj.weight"].T if turned else w["proj.weight"],
            "proj.bias": w["proj.bias"],
        }
        if decimals == 16:
            return converted
        return {name: x.round(decimals=decimals) for name, x in converted.items()}

    return convert


_CONVERTERS = {
    "scale into q": _converter(q=1, k=0),
    "scale into k": _converter(q=0, k=1),
    "scale into both": _converter(q=0.5, k=0.5),
    # No output can show it: it adds the same to all scores of a row.
    "no bias of the keys": _converter(q=1, k=0, key_bias=False),
    "rows kept": _converter(q=1, k=0, order="three h d", bias_order="three h d"),
    "bias not reordered": _converter(q=1, k=0, bias_order="three h d"),
    "q and k exchanged": _converter(q=1, k=0, parts=(1, 0, 2)),
    "no scale": _converter(q=0, k=0),
    "bias not scaled": _converter(q=1, k=0, bias_q=False),
    "proj transposed": _converter(q=1, k=0, turned=True),
    "four decimals": _converter(q=1, k=0, decimals=4),
}
_RIGHT = ("scale into q", "scale into k", "scale into both", "no bias of the keys")


def _attention(w: dict[str, Tensor], tokens: Tensor, order: str, root: int) -> Tensor:
    rows = tokens @ w["qkv.weight"].T + w["qkv.bias"]
    q, k, v = rearrange(rows, f"b t ({order}) -> three b h t d", three=3, h=_HEADS)
    weights = (q @ k.mT / root**0.5).softmax(dim=-1)
    mixed = rearrange(weights @ v, "b h t d -> b t (h d)")
    return mixed @ w["proj.weight"].T + w["proj.bias"]


def _theirs(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    return _attention(w, tokens, "h d three", tokens.shape[-1])


def _ours(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    return _attention(w, tokens, "three h d", tokens.shape[-1] // _HEADS)


def _tester(*, tokens: int = 5, moved: bool = True, bound: float = 1e-5, e: int = 6):
    """Return a test of converters, which may be weak in one point."""

    def answer(convert: Callable) -> bool:
        w = {
            "qkv.weight": torch.randn(3 * e, e),
            "qkv.bias": torch.zeros(3 * e),
            "proj.weight": torch.eye(e),
            "proj.bias": torch.zeros(e),
        }
        if moved:
            w = {name: value + torch.randn_like(value) for name, value in w.items()}
        w = {name: value.double() for name, value in w.items()}
        x = torch.randn(2, tokens, e, dtype=torch.float64)
        expected = _theirs(w, x)
        gap = (_ours(convert(w), x) - expected).abs().max() / expected.abs().max()
        return gap.item() <= bound

    return answer


def _same_weights(convert: Callable) -> bool:
    shapes = {
        "qkv.weight": (18, 6),
        "qkv.bias": (18,),
        "proj.weight": (6, 6),
        "proj.bias": (6,),
    }
    w = {name: torch.randn(shape) for name, shape in shapes.items()}
    got, wanted = convert(w), _converter(q=1, k=0)(w)
    return all(torch.allclose(got[name], wanted[name]) for name in wanted)


def _subject(what: str, convert: Callable) -> Subject:
    if what in _RIGHT:
        return Subject(
            f"a right converter: {what}",
            convert,
            True,
            "refuses a right one",
            f"it says False of a right converter: {what}. The outputs agree up to "
            "rounding: what do you compare, and how closely?",
        )
    return Subject(
        f"a wrong converter: {what}",
        convert,
        False,
        "accepts a wrong one",
        f"it says True of a wrong converter: {what}. With which weights, tokens or "
        "bound would the difference show?",
    )


is_faithful = decides(
    "is_faithful",
    ("convert",),
    tuple(_subject(*pair) for pair in _CONVERTERS.items()),
    mistakes=(
        Mistake(
            "always True",
            "it says True to every converter, wrong ones too: that names and shapes "
            "fit says nothing of what the numbers mean",
            lambda convert: True,
        ),
        Mistake(
            "always False",
            "it says False to every converter, right ones too: a right one rounds "
            "elsewhere, so its outputs are not equal to the last bit",
            lambda convert: False,
        ),
        Mistake(
            "compares weights",
            "it accepts one way of converting and refuses others that give the same "
            "outputs: compare what the models do, not their numbers",
            _same_weights,
        ),
        Mistake(
            "fresh weights",
            "it tests with weights as they are before any training: biases of zeros "
            "and a proj that changes nothing cannot show what happens to them",
            _tester(moved=False),
        ),
        Mistake(
            "attention not seen",
            "it lets pass what is wrong with queries and keys. With a single token, or "
            "with tokens that are all equal, every score of a row is the same, and the "
            "outputs show nothing of them",
            _tester(tokens=1),
        ),
        Mistake(
            "loose bound",
            "it accepts what was rounded to four decimals: the outputs are off by far "
            "more than rounding. How close are two models that compute the same?",
            _tester(bound=1e-2),
        ),
    ),
)
