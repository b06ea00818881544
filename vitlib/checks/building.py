"""Checks of classes: build the student's, load the library's weights, and run it."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from vitlib.checks.judging import Judge
from vitlib.checks.wording import Finding, Unfit, listed

SHOWN_NAMES = 4


@dataclasses.dataclass(frozen=True)
class Build:
    """How to build a module.

    Args:
        sizes: What its constructor may ask for, by name.
        weights: Its state dict; None leaves the weights that it starts with.
        aliases: The same sizes under other names.
        training: Whether it is run in training mode.
        dtype: That of its weights.
    Reference:
        The book's page on the checkers.
    """

    sizes: dict
    weights: dict[str, Tensor] | None
    aliases: dict = dataclasses.field(default_factory=dict)
    training: bool = False
    dtype: torch.dtype = torch.float32

    def __repr__(self) -> str:
        """Show sizes, and no weights."""
        sizes = ", ".join(f"{name}={value!r}" for name, value in self.sizes.items())
        return f"built with {sizes}" + (", in training mode" if self.training else "")

    def __deepcopy__(self, memo: dict) -> "Build":
        """Return itself: no answer ever gets hold of it."""
        return self

    def converted(self, dtype: torch.dtype) -> "Build":
        """Return the same with weights of another dtype."""
        return dataclasses.replace(self, dtype=dtype)


def counted(*sizes: int) -> Tensor:
    """Count from 1, so that each number says where it comes from, and 0 is none.

    Args:
        sizes: The shape.
    Shape:
        -> (*sizes)
    Reference:
        The book's page on the checkers.
    """
    count = torch.Size(sizes).numel()
    return torch.arange(1, count + 1, dtype=torch.float32).reshape(sizes)


def drawn(*sizes: int, seed: int = 0) -> Tensor:
    """Draw numbers that are short to print, and the same on every call.

    Args:
        sizes: The shape.
        seed: Another one gives other numbers.
    Shape:
        -> (*sizes), multiples of 0.1
    Reference:
        The book's page on the checkers.
    """
    dice = torch.Generator().manual_seed(seed)
    return (
        torch.randn(sizes, generator=dice, dtype=torch.float32).mul(10).round().div(10)
    )


def drawn_weights(module: Callable[[], nn.Module], seed: int = 0) -> dict[str, Tensor]:
    """Draw a state dict in which no number is 0 or 1 by design.

    Args:
        module: Builds the module that it is for.
        seed: Another one gives other numbers.
    Returns:
        Names and weights.
    Reference:
        The book's page on the checkers.
    """
    with torch.random.fork_rng(devices=[]):
        shapes = {name: value.shape for name, value in module().state_dict().items()}
    weights = {}
    for place, (name, shape) in enumerate(shapes.items()):
        weights[name] = 0.5 * drawn(*shape, seed=1000 * seed + place)
        if "norm" in name and name.endswith("weight"):
            weights[name] += 1
    return weights


def altered(module: type[nn.Module], **steps: Callable) -> type[nn.Module]:
    """Return a class with other methods, as somebody with a mistake would write it.

    Args:
        module: The right one.
        steps: The methods that are other, by name.
    Returns:
        A subclass.
    Reference:
        The book's page on the checkers.
    """
    return type(module.__name__, (module,), steps)


@dataclasses.dataclass(frozen=True, repr=False)
class ClassJudge(Judge):
    """How to check one class.

    Its first argument is a `Build`, the others are those of `forward`.

    Args:
        task: The class's name.
        arguments: Their names, in order.
        axes: Those of the result, one word each.
        oracle: The library's class; None if a result can be right in many ways.
        cases: From small to large; the first that fails is shown.
        mistakes: Known ones, the most telling first; a twin is a class.
        questions: Asked of a wrong result that is no known mistake.
        narrowing: Asked where nothing else was found.
        seconds: The time limit of a call.
        dtypes: Tried besides float32.
        gradients: Whether they are compared, too.
        hints: What to say of a parameter whose name or shape is wrong.
    Reference:
        The book's page on the checkers.
    """

    hints: dict[str, str] = dataclasses.field(default_factory=dict)

    def unfit(self, answer: object) -> Finding | None:
        """Say why something cannot be built, before it is tried."""
        if isinstance(answer, nn.Module):
            name = type(answer).__name__
            return Finding(
                "no class",
                f"this {name} was built already: give the class, without brackets "
                "behind it",
            )
        if not isinstance(answer, type) or not issubclass(answer, nn.Module):
            return Finding("no class", "give a class that is derived from nn.Module")
        return None

    def call(self, answer: Callable, *given: object) -> object:
        """Build the class, load the weights, and return what forward makes."""
        build, *inputs = given
        return self._built(answer, build)(*inputs)

    def leaves(self, answer: Callable, given: tuple) -> tuple[Callable, dict]:
        """Return a call without arguments, and inputs and parameters by name."""
        module = self._built(answer, given[0])
        run, leaves = super().leaves(lambda _, *inputs: module(*inputs), given)
        return run, leaves | dict(module.named_parameters())

    def varied(
        self, given: tuple, change: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[str, tuple]]:
        """Yield arguments in which one or a parameter is changed."""
        build, *inputs = given
        for name, value in build.weights.items():
            weights = build.weights | {name: change(value)}
            yield name, (dataclasses.replace(build, weights=weights), *inputs)
        yield from super().varied(given, change)

    def _built(self, answer: Callable, build: Build) -> nn.Module:
        module = answer(**self._filled(answer, build))
        if build.weights is not None:
            self._load(module, build.weights)
        return module.to(build.dtype).train(build.training)

    def _load(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        own = dict(module.named_parameters())
        missing = sorted(weights.keys() - own.keys())
        more = sorted(own.keys() - weights.keys())
        if missing or more:
            raise Unfit(Finding("names", self._names(missing, more)))
        for name, value in weights.items():
            if own[name].shape != value.shape:
                raise Unfit(Finding("shapes", self._shapes(name, own[name], value)))
        # A buffer that the library does not have does no harm.
        module.load_state_dict(weights, strict=False)

    def _filled(self, answer: Callable, build: Build) -> dict:
        """Return what the constructor asks for."""
        known, given = build.aliases | build.sizes, {}
        for name, parameter in inspect.signature(answer).parameters.items():
            if name in known:
                given[name] = known[name]
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise Unfit(
                    Finding(
                        "arguments",
                        f"its constructor asks for {name!r}, which the check does not "
                        f"know: it can give {listed(list(known))}",
                    )
                )
        return given

    def _names(self, missing: list[str], more: list[str]) -> str:
        text = "its parameters have other names than those of the book"
        for words, names in (("missing", missing), ("yours alone", more)):
            if names:
                rest = len(names) - SHOWN_NAMES
                tail = f" and {rest} more" if rest > 0 else ""
                text += f"; {words}: {', '.join(names[:SHOWN_NAMES])}{tail}"
        # Where nearly everything is missing, no single hint helps.
        few = len(missing) <= SHOWN_NAMES
        return text + (self._hint(missing + more) if few else "")

    def _shapes(self, name: str, own: Tensor, value: Tensor) -> str:
        return (
            f"its parameter {name} has shape {tuple(own.shape)}, needed is "
            f"{tuple(value.shape)}{self._hint([name])}"
        )

    def _hint(self, names: list[str]) -> str:
        hints = [
            hint
            for ending, hint in self.hints.items()
            if any(name.endswith(ending) for name in names)
        ]
        return "".join(f". {hint}" for hint in hints[:1])
