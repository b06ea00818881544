"""Is an answer right, and if not, which mistake is it?

A check calls a function on several cases and compares with the library. Where they
differ it looks for the mistake: it computes what known mistakes would give, then asks
questions that can be asked of any answer. It says what is wrong and where to look, with
the smallest example, and never shows how to do it right.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterator
from numbers import Integral, Real

import torch
from torch import Tensor

from vitlib.checks.comparing import close, differing
from vitlib.checks.running import Outcome, attempt, world_kept
from vitlib.checks.wording import (
    Finding,
    Unfit,
    crashed,
    difference,
    endless,
    listed,
    shown,
    telling_numbers,
    where,
    wrong_form,
    wrong_type,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One call to compare.

    Args:
        what: What is special about it, to be read after "right on" and "wrong on".
        given: The arguments, in order.
    Reference:
        The book's page on the checkers.
    """

    what: str
    given: tuple


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A mistake that people make.

    Args:
        name: A few words, for the table of wrong answers.
        tell: What is wrong and where to look; no solution.
        twin: An answer with this mistake; may raise where such an answer would.
    Reference:
        The book's page on the checkers.
    """

    name: str
    tell: str
    twin: Callable


@dataclasses.dataclass(frozen=True)
class Probe:
    """A wrong result, and the means to look closer.

    Args:
        got: What was returned.
        expected: What should have been; None if a result can be right in many ways.
        given: The arguments.
        run: Calls the answer once more, with other arguments; returns its tensor, or
            None if there is none.
        right: The same for the library's answer.
    Reference:
        The book's page on the checkers.
    """

    got: Tensor
    expected: Tensor | None
    given: tuple
    run: Callable
    right: Callable


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check found. True if the answer is right.

    Args:
        task: The name of what was checked.
        passed: Whether it is right.
        name: The mistake's name, or "right".
        text: What was printed.
    Reference:
        The book's page on the checkers.
    """

    task: str
    passed: bool
    name: str
    text: str

    def __bool__(self) -> bool:
        """Say whether the answer is right."""
        return self.passed

    def _ipython_display_(self) -> None:
        """Show nothing: the text was printed already."""


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A case, what came of it, and what should have."""

    case: Case
    outcome: Outcome
    got: object
    expected: Tensor | None
    trouble: str  # "" if right, else its kind


@dataclasses.dataclass(frozen=True)
class Judge:
    """How to check one function.

    Args:
        task: The function's name.
        arguments: Their names, in order.
        axes: Those of the result, one word each.
        oracle: The library's function; None if a result can be right in many ways.
        cases: From small to large; the first that fails is shown.
        mistakes: Known ones, the most telling first.
        questions: Asked of a wrong result that is no known mistake: each takes a Probe
            and returns a Finding or None. Without an oracle they alone decide.
        narrowing: Asked where nothing else was found: in which part is it wrong?
        seconds: The time limit of a call.
        dtypes: Tried besides float32.
        gradients: Whether they are compared, too.
    Reference:
        The book's page on the checkers.
    """

    task: str
    arguments: tuple[str, ...]
    axes: str
    oracle: Callable | None
    cases: tuple[Case, ...]
    mistakes: tuple[Mistake, ...] = ()
    questions: tuple[Callable, ...] = ()
    narrowing: tuple[Callable, ...] = ()
    seconds: float = 10.0
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.bfloat16)
    gradients: bool = True
    _twins: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __call__(self, answer: Callable) -> Verdict:
        """Check an answer, print what was found, and return it."""
        with world_kept():
            finding, lines = self._judged(answer)
        passed = finding is None
        head = f"{self.task}: {'right' if passed else 'not yet'}"
        told = [] if passed else [finding.text]
        text = "\n".join([head, *map(_wrapped, [*told, *lines])])
        print(text)
        return Verdict(self.task, passed, "right" if passed else finding.name, text)

    def __repr__(self) -> str:
        """Say how the answer will be called."""
        return f"the check of {self.task}({', '.join(self.arguments)})"

    # What an answer is; a check of classes has its own

    def unfit(self, answer: object) -> Finding | None:
        """Say why something cannot be called as needed, before it is tried."""
        if not callable(answer) or isinstance(answer, type):
            what = "a class" if isinstance(answer, type) else type(answer).__name__
            return Finding(
                "no function",
                f"this is {what} and not a function: give the name of your function, "
                "without brackets behind it",
            )
        try:
            signature = inspect.signature(answer)
            signature.bind(*self.arguments)
        except ValueError:  # a function written in C does not tell
            return None
        except TypeError:
            return Finding(
                "arguments",
                f"it is called as {self.task}({', '.join(self.arguments)}), but yours "
                f"takes {signature}",
            )
        return None

    def call(self, answer: Callable, *given: object) -> object:
        """Return what an answer makes of the arguments of a case."""
        return answer(*given)

    def leaves(self, answer: Callable, given: tuple) -> tuple[Callable, dict]:
        """Return a call without arguments, and the tensors that it starts from."""
        given = tuple(_leaf(value) for value in given)
        named = zip(self.arguments, given, strict=True)
        leaves = {name: value for name, value in named if _is_leaf(value)}
        return lambda: answer(*given), leaves

    def varied(
        self, given: tuple, change: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[str, tuple]]:
        """Yield arguments in which one is changed, and that one's name."""
        for place, value in enumerate(given):
            if _is_leaf(value):
                changed = (*given[:place], change(value), *given[place + 1 :])
                yield self.arguments[place], changed

    def difference(self, got: Tensor, expected: Tensor) -> Iterator[str]:
        """Yield lines that show a wrong result beside the right one."""
        return difference(got, expected)

    # The judgement

    def _judged(self, answer: Callable) -> tuple[Finding | None, list[str]]:
        finding = self.unfit(answer)
        if finding:
            return finding, []
        trials = []
        for case in self.cases:
            trials.append(self._try(answer, case))
            # Each would take the whole time limit again.
            if trials[-1].outcome.late:
                break
        failed = [trial for trial in trials if trial.trouble]
        if failed:
            finding = self._named(answer, trials, failed)
            # What is not written or cannot be built needs no example.
            unfit = isinstance(failed[0].outcome.error, Unfit)
            if unfit or finding.name == "not written":
                return finding, []
            return finding, [*_pattern(trials), *self._example(failed)]
        for check in (
            self._changed,
            self._again,
            self._gradients,
            self._strided,
            self._dtypes,
        ):
            finding = check(answer, trials)
            if finding:
                return finding, []
        return None, [f"on {listed([case.what for case in self.cases])}"]

    def _try(self, answer: Callable, case: Case, seed: int = 0) -> _Trial:
        expected = None
        if self.oracle is not None:
            with torch.no_grad():
                expected = self.call(self.oracle, *case.given)
        if isinstance(expected, int | float):
            expected = torch.tensor(expected)
        outcome = self._attempt(answer, case.given, seed)
        got = _as_tensor(outcome.value, expected)
        trouble = _trouble(outcome, got, expected)
        trial = _Trial(case, outcome, got, expected, trouble)
        if trouble or expected is not None:
            return trial
        asked = self._asked(answer, [trial], self.questions)
        return dataclasses.replace(trial, trouble="values" if asked else "")

    def _attempt(self, answer: Callable, given: tuple, seed: int = 0) -> Outcome:
        return attempt(
            lambda *given: self.call(answer, *given),
            given,
            seconds=self.seconds,
            seed=seed,
        )

    # What is wrong

    def _named(
        self, answer: Callable, trials: list[_Trial], failed: list[_Trial]
    ) -> Finding:
        first = failed[0]
        if trials[-1].outcome.late:
            return endless(trials[-1].outcome, self.seconds)
        for mistake in self.mistakes:
            # Those that fail tell most mistakes apart.
            if self._fits(mistake, sorted(trials, key=lambda trial: not trial.trouble)):
                return Finding(mistake.name, mistake.tell)
        if first.trouble == "crash":
            return crashed(first.outcome.error)
        if first.trouble == "type":
            return wrong_type(first.got, first.expected)
        if first.trouble != "values":
            return wrong_form(first.trouble, first.got, first.expected, self.axes)
        if self.oracle and self._random(answer, first):
            return Finding(
                "random",
                "called twice with the same arguments it gives two results: something "
                "is drawn at random, such as a new weight or a dropout",
            )
        compared = [trial for trial in failed if trial.trouble == "values"]
        got, expected = compared[-1].got.detach(), compared[-1].expected
        return (
            self._asked(answer, compared, self.questions)
            or telling_numbers(got, expected, self.axes)
            or self._ignored(answer, compared[-1])
            or self._asked(answer, compared[::-1], self.narrowing)
            or self._one_argument(answer, compared[-1])
            or _values(got, expected)
        )

    def _ignored(self, answer: Callable, trial: _Trial) -> Finding | None:
        """Put other numbers into one argument after the other."""
        for name, given in self.varied(trial.case.given, _shaken):
            got = self._attempt(answer, given).value
            if not isinstance(got, Tensor) or not close(got, trial.got):
                continue
            if not close(self.call(self.oracle, *given), trial.expected):
                return Finding(
                    "ignored",
                    f"{name} has no effect: other numbers in it change nothing",
                )
        return None

    def _one_argument(self, answer: Callable, trial: _Trial) -> Finding | None:
        """Put zeros into one argument after the other."""
        for name, given in self.varied(trial.case.given, torch.zeros_like):
            got, expected = (
                self._attempt(answer, given).value,
                self.call(self.oracle, *given),
            )
            if expected.any() and isinstance(got, Tensor) and close(got, expected):
                return Finding(
                    "one argument",
                    f"right where {name} is 0, wrong elsewhere: look at where {name} "
                    "enters, and at what it meets",
                )
        return None

    def _asked(
        self, answer: Callable, trials: list[_Trial], questions: tuple[Callable, ...]
    ) -> Finding | None:
        """Return what the first question finds that finds anything in any trial."""

        def runs(code):
            def run(*given):
                value = self._attempt(code, given).value
                return value.detach() if isinstance(value, Tensor) else None

            return run

        for question in questions:
            for trial in trials:
                finding = question(
                    Probe(
                        trial.got.detach(),
                        trial.expected,
                        trial.case.given,
                        runs(answer),
                        runs(self.oracle),
                    )
                )
                if finding:
                    return finding
        return None

    def _fits(self, mistake: Mistake, trials: list[_Trial]) -> bool:
        """Say whether the mistake explains every case, the right ones too."""
        compared = False
        for trial in trials:
            twin = self._made_by(mistake, trial.case)
            if isinstance(twin, Exception):
                if trial.outcome.error is None:
                    return False
                continue
            if trial.trouble in ("crash", "type", "device"):
                return False
            if not close(trial.got, _as_tensor(twin, trial.expected)):
                return False
            compared = True
        return compared

    def _made_by(self, mistake: Mistake, case: Case) -> object:
        """Return what a mistake makes of a case, or what it raises."""
        # The same whatever the answer is, and asked again with the next one.
        key = id(mistake), id(case)
        if key not in self._twins:
            try:
                self._twins[key] = self.call(mistake.twin, *case.given)
            except Exception as error:
                self._twins[key] = error
        return self._twins[key]

    def _random(self, answer: Callable, trial: _Trial) -> bool:
        again = self._try(answer, trial.case, seed=1)
        return isinstance(again.got, Tensor) and not close(again.got, trial.got)

    def _example(self, failed: list[_Trial]) -> Iterator[str]:
        first = failed[0]
        compared = [trial for trial in failed if trial.trouble == "values"]
        if compared and self.oracle:
            yield from where(compared[-1].got, compared[-1].expected, self.axes)
        yield f"smallest example that fails: {first.case.what}"
        for name, value in zip(self.arguments, first.case.given, strict=True):
            if repr(value) != first.case.what:
                yield from shown(name, value)
        if first.trouble in ("values", "nan") and self.oracle:
            yield from self.difference(first.got, first.expected)
        elif first.trouble == "values":
            yield from shown("it returned", first.got)
        printed = first.outcome.printed.strip().splitlines()
        if printed:
            yield f"your code printed, last of all: {printed[-1][:60]}"

    # What is right so far, but not everywhere

    def _changed(self, answer: Callable, trials: list[_Trial]) -> Finding | None:
        for trial in trials:
            if trial.outcome.left:
                return Finding(
                    "global state",
                    f"the result is right, but {listed([*trial.outcome.left])} is "
                    "another one afterwards, for all code that runs later",
                )
            for place in trial.outcome.changed:
                return Finding(
                    "in place",
                    f"the result is right, but {self.arguments[place]} is another "
                    "tensor afterwards: your code writes into it (+=, a method that "
                    "ends in _, or an assignment to a part). Whoever calls it still "
                    "needs what was there",
                )
        return None

    def _again(self, answer: Callable, trials: list[_Trial]) -> Finding | None:
        if self.oracle and self._try(answer, trials[0].case, seed=1).trouble:
            return Finding(
                "remembers",
                "right at first, but another result when it is called again with the "
                "same arguments: something is kept between the calls",
            )
        return None

    def _gradients(self, answer: Callable, trials: list[_Trial]) -> Finding | None:
        given = trials[-1].case.given
        if not self.gradients or not trials[-1].got.is_floating_point():
            return None
        outcome = attempt(
            lambda *given: _gradients(*self.leaves(answer, given)),
            given,
            seconds=self.seconds,
        )
        wanted = {}
        if self.oracle is not None:
            wanted = _gradients(*self.leaves(self.oracle, given))
            if not wanted:
                return None
        got = outcome.value
        if outcome.late:
            return endless(outcome, self.seconds)
        missing = [
            name
            for name, expected in wanted.items()
            if got and expected is not None and got.get(name) is None
        ]
        if not got or missing:
            start = listed(missing[:3] or list(wanted) or ["the arguments"])
            said = f" ({crashed(outcome.error).text})" if outcome.error else ""
            return Finding(
                "no gradient",
                f"the numbers are right, but no gradient flows back to {start}: on the "
                "way the result is cut off from it (detach, .data, .numpy(), .item(), "
                f"torch.tensor(...), no_grad, or an operation in place){said}",
            )
        for name, expected in wanted.items():
            if expected is not None and not close(got[name], expected):
                return Finding(
                    "gradient",
                    f"the numbers are right, but the gradient of {name} is not: a part "
                    "of the way from it to the result is cut off",
                )
        return None

    def _strided(self, answer: Callable, trials: list[_Trial]) -> Finding | None:
        """Try tensors whose numbers do not lie in order, such as a transposed image."""
        case = trials[-1].case
        given = tuple(
            value.mT.contiguous().mT
            if isinstance(value, Tensor) and value.ndim >= 2
            else value
            for value in case.given
        )
        trial = self._try(answer, Case(case.what, given))
        if not trial.trouble:
            return None
        error = trial.outcome.error
        said = f" ({crashed(error).text})" if error else ""
        return Finding(
            "strides",
            "right, but not for a tensor whose numbers lie in another order in memory, "
            f"such as a transposed one{said}",
        )

    def _dtypes(self, answer: Callable, trials: list[_Trial]) -> Finding | None:
        for dtype in self.dtypes:
            case = trials[0].case
            given = tuple(_converted(value, dtype) for value in case.given)
            trial = self._try(answer, Case(case.what, given))
            got, error = trial.got, trial.outcome.error
            # Where PyTorch has no kernel for a dtype, the answer cannot help it.
            if trial.trouble and not isinstance(error, NotImplementedError):
                said = "" if got is None else f": it returns {got.dtype}"
                said = f": {crashed(error).text}" if error else said
                return Finding(
                    "dtype",
                    f"right for torch.float32, wrong for {dtype}{said}. Make new "
                    "tensors in the dtype of what arrives",
                )
        return None


def _wrapped(line: str) -> str:
    """Break a sentence into short lines; what is set in stays as it is."""
    if line.startswith(" "):
        return f"  {line}"
    return textwrap.fill(
        line, 74, initial_indent="  ", subsequent_indent="  ", break_long_words=False
    )


def _pattern(trials: list[_Trial]) -> Iterator[str]:
    """Say which cases are right and which are not, if there are both."""
    right = [trial.case.what for trial in trials if not trial.trouble]
    wrong = [trial.case.what for trial in trials if trial.trouble]
    if right:
        yield f"right on {listed(right)}; wrong on {listed(wrong)}"


def _values(got: Tensor, expected: Tensor) -> Finding:
    if got.numel() == 1:
        return Finding("values", "the number is wrong")
    wrong = differing(got, expected).sum()
    return Finding("values", f"{wrong} of {got.numel()} numbers are wrong")


def _trouble(outcome: Outcome, got: object, expected: Tensor | None) -> str:
    if outcome.late:
        return "endless"
    if outcome.error is not None:
        return "crash"
    if not isinstance(got, Tensor) or got.layout != torch.strided:
        return "type"
    if got.is_complex() or got.is_quantized:
        return "type"
    if expected is None:
        return ""
    if got.device != expected.device:
        return "device"
    if got.shape != expected.shape:
        return "shape"
    if got.dtype != expected.dtype:
        return "dtype"
    if got.is_floating_point() and got.isnan().any():
        return "nan"
    return "" if close(got, expected) else "values"


def _as_tensor(value: object, expected: Tensor | None) -> object:
    """Read a plain number where a number is expected."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if expected is None or expected.ndim or not is_number:
        return value
    if isinstance(value, Integral):
        value = max(min(int(value), 2**62), -(2**62))  # what an int64 can hold
    if expected.is_floating_point():
        return torch.tensor(float(value), dtype=expected.dtype)
    whole = float(value).is_integer()
    return torch.tensor(int(value) if whole else float(value))


def _gradients(function: Callable, leaves: dict[str, Tensor]) -> dict:
    """Return the gradient of each leaf; nothing if there is none to follow."""
    if not leaves:
        return {}
    result = function()
    if not result.requires_grad:
        return {}
    # Weights that differ: the gradient of a sum of softmax rows is zero.
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype)
    (result * weights.reshape(result.shape)).sum().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def _shaken(value: Tensor) -> Tensor:
    return value + torch.randn_like(value)


def _is_leaf(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _leaf(value: object) -> object:
    return value.clone().requires_grad_() if _is_leaf(value) else value


def _converted(value: object, dtype: torch.dtype) -> object:
    if _is_leaf(value):
        return value.to(dtype)
    return value.converted(dtype) if hasattr(value, "converted") else value
