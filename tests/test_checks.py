"""The checks of the exercises, tried on right and wrong answers, and on bad manners."""

import dataclasses
import random
import re
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import kill_table
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vitlib
from vitlib import checks
from vitlib.checks import running
from vitlib.checks.building import ClassJudge, drawn
from vitlib.checks.comparing import close, differing
from vitlib.checks.judging import Case, Judge, Mistake
from vitlib.checks.running import MOST_PRINTED, attempt
from vitlib.checks.wording import YOUR_TURN

ROOT = Path(__file__).resolve().parent.parent
SPLIT = checks.patches.split_patches
# For answers that never end.
IMPATIENT = dataclasses.replace(SPLIT, seconds=0.2)
JUDGES = {
    f"{chapter}.{name}": thing
    for chapter in kill_table.TITLES
    for name, thing in vars(getattr(checks, chapter)).items()
    if isinstance(thing, Judge)
}


def split(images, p):
    """Answer rightly."""
    return vitlib.split_patches(images, p)


def sentences(verdict):
    """Return what a verdict says, without line breaks."""
    return " ".join(verdict.text.split())


# The kill table


def test_every_wrong_answer_is_found():
    for answer, verdict in kill_table.judged():
        if answer.says != "right":
            assert not verdict, f"{answer.check.task}: {answer.name} passed"


def test_nearly_every_wrong_answer_is_named():
    numbers = kill_table.count(kill_table.judged())
    others = [
        f"{answer.check.task}, {answer.name}: {verdict.name}, not {answer.says}"
        for answer, verdict in kill_table.judged()
        if verdict.name != answer.says
    ]
    print(f"{numbers}", *others, sep="\n")
    assert numbers["named"] >= 0.95 * numbers["wrong"], others


def test_no_right_answer_is_refused():
    for answer, verdict in kill_table.judged():
        if answer.says == "right":
            assert verdict, f"{answer.name}\n{verdict.text}"


@pytest.mark.parametrize("name", JUDGES)
def test_every_check_is_tried_enough(name):
    own = [pair for pair in kill_table.judged() if pair[0].check is JUDGES[name]]
    numbers = kill_table.count(own)
    assert numbers["wrong"] >= 6
    assert numbers["right"] >= 3
    assert len({answer.name for answer, _ in own}) == len(own)


def test_every_public_bug_of_these_chapters_is_tried():
    sources = {answer.source for answer, _ in kill_table.judged()}
    for source in (
        "FrancescoSaverioZuppichini/ViT issue 1",
        "FrancescoSaverioZuppichini/ViT issue 2",
        "FrancescoSaverioZuppichini/ViT issue 5",
        "FrancescoSaverioZuppichini/ViT issue 6",
        "deep-dive-patch",
        "duoan/TorchCode issue 21",
        "gupta-abhay/pytorch-vit issue 7",
        "pytorch/examples issue 1178",
        "lucidrains/vit-pytorch issue 352",
        "lucidrains/vit-pytorch issue 226",
        "lucidrains/vit-pytorch issue 18",
        "facebookresearch/dinov2 PR 582",
        "labmlai/annotated_deep_learning_paper_implementations PR 221",
        "sksq96/pytorch-summary issue 148",
        "Lyken17/pytorch-OpCounter issue 197",
        "huggingface/pytorch-image-models issue 908",
        "huggingface/pytorch-image-models PR 750",
        "ageron/handson-mlp issue 14",
        "facebookresearch/mmf PR 47",
        "karpathy/nanochat PR 234",
        "lucidrains/vit-pytorch issue 70",
        "andrewekhalel/MLQuestions issue 10",
        "CSCYQJ/MICCAI23-ProtoContra-SFDA issue 18",
        "bkitano/llama-from-scratch issue 5",
        "huggingface/transformers issue 492",
        "huggingface/transformers issue 24725",
    ):
        assert source in sources, source


def test_the_page_is_current():
    command = "the kill table is old: run python tests/kill_table.py"
    assert kill_table.PAGE.read_text("utf-8") == kill_table.page(), command


def test_the_page_of_the_checks_names_all_of_them():
    page = (ROOT / "book" / "api" / "checks.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+\.\w+)` \| `(.+)` \| \[(\w+)\]", page, re.M)
    called = {name: call for name, call, _ in rows}
    assert list(called) == list(JUDGES)
    for name, _, chapter in rows:
        assert kill_table.TITLES[name.split(".")[0]].startswith(chapter)
    for name, judge in JUDGES.items():
        *built, inputs = re.findall(r"\((.*?)\)", called[name])
        is_class = isinstance(judge, ClassJudge)
        assert inputs.split(", ") == list(judge.arguments[is_class:]), name
        assert bool(built) == is_class, name
        if built:
            build = judge.cases[0].given[0]
            known = build.sizes.keys() | build.aliases.keys()
            assert set(built[0].split(", ")) <= known, name


def test_the_example_on_the_page_prints_what_it_says(capsys):
    page = (ROOT / "book" / "api" / "checks.md").read_text("utf-8")
    code, said = re.findall(r"```(?:python|text)\n(.*?)```", page, re.S)[:2]
    exec(code, {})
    assert capsys.readouterr().out == said


def test_every_chapter_has_its_checks():
    assert sorted([*kill_table.TITLES, "score"]) == checks.__all__


# The checks themselves


@pytest.mark.parametrize("name", JUDGES)
def test_every_mistake_is_told_by_its_name(name, capsys):
    for mistake in JUDGES[name].mistakes:
        assert JUDGES[name](mistake.twin).name == mistake.name


@pytest.mark.parametrize(
    "name", [name for name, judge in JUDGES.items() if judge.axes.startswith("b ")]
)
def test_a_case_has_a_batch_and_sizes_that_all_differ(name):
    firsts = [
        next(value for value in case.given if isinstance(value, torch.Tensor))
        for case in JUDGES[name].cases
    ]
    assert any(
        len(set(value.shape)) == value.ndim and len(value) > 1 for value in firsts
    )


@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (2, 1, 4, 6), (1, 1, 7, 4)])
def test_masks_close_something_and_never_all(shape):
    mask = checks.attention.open_mask(*shape, seed=5)
    assert mask.shape == shape
    for axis in (-1, -2):
        assert mask.any(dim=axis).all()
    assert not mask.all(dim=-1).any()


def test_the_first_failing_case_is_shown_with_both_rows(capsys):
    verdict = SPLIT(lambda images, p: images.mT.reshape(split(images, p).shape))
    said = capsys.readouterr().out
    assert said == verdict.text + "\n"
    assert "smallest example that fails: a grey 2x4 image" in said
    assert re.search(r"expected \[1. 2. 5. 6.\]\n    ?got ", said)


def test_it_says_which_cases_are_right(capsys):
    def of_squares(images, p):
        high, wide = images.shape[2:]
        return split(images if high == wide else images.flip(3), p)

    said = sentences(SPLIT(of_squares))
    assert "right on a square image; wrong on a grey 2x4 image, a high" in said


def test_it_says_at_which_places_the_wrong_numbers_are(capsys):
    def first_token_off(x):
        result = F.gelu(x)
        if x.ndim == 3:
            result = result + torch.tensor([0.5, 0, 0])[:, None]
        return result

    judge = dataclasses.replace(checks.mlp.gelu_exact, axes="b n e", questions=())
    judge = dataclasses.replace(judge, cases=(Case("tokens", (drawn(2, 3, 5),)),))
    assert "all wrong numbers are at n = 0, of 3" in sentences(judge(first_token_off))


def test_the_sum_of_rows_is_told(capsys):
    def late(q, k, mask=None):
        scores = q @ k.mT
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1) / 768**0.5

    said = sentences(checks.attention.attention_weights(late))
    assert "rows of weights sum to 0.036 instead of 1: you divided after" in said


def test_a_right_answer_may_be_off_by_rounding_and_no_more():
    exact = drawn(3, 4).double()
    assert close(exact + 1e-6, exact)
    assert not close(exact + 1e-3, exact)
    assert not close(exact[:2], exact)
    whole = torch.tensor([10_000_000])
    assert not close(whole + 1, whole)


def test_infinite_and_missing_numbers_are_equal_to_nothing_finite():
    exact = torch.ones(3)
    for value in (float("inf"), float("nan")):
        assert not close(torch.tensor([1, 1, value]), exact)
        assert not close(exact, torch.tensor([1, 1, value]))
        wrong = differing(torch.tensor([5, 1, value]), torch.tensor([1, 1, value]))
        assert wrong.tolist() == [True, False, False]


@pytest.mark.parametrize(
    "answer, name, words",
    [
        (None, "no function", "NoneType and not a function"),
        (torch.zeros(3), "no function", "without brackets"),
        (nn.Linear, "no function", "a class"),
        (lambda images: images, "arguments", r"split_patches\(images, patch_size\)"),
        (lambda a, b, c: a, "arguments", r"yours takes \(a, b, c\)"),
    ],
)
def test_what_is_no_answer_at_all(answer, name, words, capsys):
    verdict = SPLIT(answer)
    assert verdict.name == name
    assert re.search(words, sentences(verdict))


def test_what_is_not_written_yet_needs_no_example(capsys):
    def split_patches(images, p):
        raise NotImplementedError(YOUR_TURN)

    class MLP(nn.Module):
        def __init__(self, embed_dim, hidden_dim):
            super().__init__()
            raise NotImplementedError(YOUR_TURN)

    for verdict in (SPLIT(split_patches), checks.mlp.MLP(MLP)):
        assert verdict.name == "not written"
        assert "not yet your turn: write your code" in sentences(verdict)
        assert "example" not in sentences(verdict)

    def of_pytorch(images, p):
        raise NotImplementedError("no kernel for this dtype")

    assert SPLIT(of_pytorch).name == "crash"


def test_a_function_that_judges_says_which_one_it_judges_wrongly(capsys):
    said = sentences(checks.attention.is_causal(lambda layer: True))
    assert "it says True of everything" in said
    said = sentences(checks.attention.is_causal(lambda layer: False))
    assert "it says False of everything" in said
    assert "fails: a map of each token alone expected True got False" in said

    def ends_unchanged(layer):
        tokens = torch.randn(2, 5, 4)
        return torch.equal(layer(tokens)[:, :1], tokens[:, :1])

    said = sentences(checks.attention.is_causal(ends_unchanged))
    assert "says False of a map of each token alone: the task allows that" in said
    layer = checks.attention.is_causal.cases[5].given[0]
    assert repr(layer) == layer.what == "attention without a mask"


def test_a_built_module_is_no_class(capsys):
    verdict = checks.mlp.MLP(vitlib.MLP(4, 8))
    assert verdict.name == "no class"
    assert "this MLP was built already" in sentences(verdict)
    assert checks.mlp.MLP(split).name == "no class"


def test_names_and_shapes_that_differ_are_listed(capsys):
    class Named(nn.Module):
        def __init__(self, embed_dim, hidden_dim):
            super().__init__()
            self.fc1 = nn.Linear(embed_dim, hidden_dim)
            self.out = nn.Linear(hidden_dim, embed_dim)

    said = sentences(checks.mlp.MLP(Named))
    assert "missing: fc2.bias, fc2.weight; yours alone: out.bias, out.weight" in said

    class Shaped(nn.Module):
        def __init__(self, embed_dim, hidden_dim):
            super().__init__()
            self.fc1, self.fc2 = (nn.Linear(embed_dim, hidden_dim) for _ in "12")

    said = sentences(checks.mlp.MLP(Shaped))
    assert "fc2.weight has shape (3, 2), needed is (2, 3). The second layer" in said
    assert "smallest example" not in said


def test_a_judge_says_how_it_calls():
    assert repr(SPLIT) == "the check of split_patches(images, patch_size)"


# Bad manners


def test_a_verdict_is_true_if_right_and_shows_nothing_again(capsys):
    assert SPLIT(split)
    verdict = SPLIT(lambda images, p: None)
    assert not verdict
    said = capsys.readouterr().out
    verdict._ipython_display_()
    assert said and not capsys.readouterr().out


def test_one_failing_task_leaves_the_others_checked(capsys):
    answers = [lambda images, p: 1 / 0, lambda images, p: exit(), split]
    assert [SPLIT(answer).passed for answer in answers] == [False, False, True]


def loops(images, p):
    while True:
        p = p + 1


def swallows_exceptions(images, p):
    while True:
        try:
            images = images + 1
        except Exception:
            continue


def swallows_everything(images, p):
    while True:
        try:
            images = images + 1
        except BaseException:
            continue


def swallows_with_a_bare_except(images, p):
    while True:
        try:
            p = loops(images, p)
        except:  # noqa: E722
            continue


def prints_for_ever(images, p):
    while True:
        print("still here")


def waits_for_itself(images, p):
    lock = threading.Lock()
    while True:
        lock.acquire(timeout=0.01)


@pytest.mark.parametrize(
    "answer",
    [
        loops,
        swallows_exceptions,
        swallows_everything,
        swallows_with_a_bare_except,
        prints_for_ever,
        waits_for_itself,
    ],
)
def test_what_never_ends_is_ended(answer, capsys):
    threads, start = threading.active_count(), time.monotonic()
    verdict = IMPATIENT(answer)
    assert verdict.name == "endless"
    assert "not finished after 0.2 seconds" in sentences(verdict)
    assert "restart" not in sentences(verdict)
    assert threading.active_count() == threads
    assert time.monotonic() - start < 5
    assert "still here" not in capsys.readouterr().out.splitlines()


def test_what_cannot_be_interrupted_is_left_behind(capsys, monkeypatch):
    monkeypatch.setattr(running, "PATIENCE", 0.1)
    released = threading.Event()

    def sleeps(images, p):
        released.wait(30)

    verdict = IMPATIENT(sleeps)
    assert verdict.name == "endless"
    assert "still runs: restart the kernel" in sentences(verdict)
    released.set()


def test_a_limit_that_strikes_late_is_no_result():
    def returns_when_interrupted():
        try:
            while True:
                pass
        except BaseException:
            return "saved"

    outcome = attempt(returns_when_interrupted, (), seconds=0.1)
    assert outcome.late and not outcome.stuck
    assert outcome.value is None and outcome.error is None


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_reader_can_interrupt_a_check():
    threads = threading.active_count()
    timer = threading.Timer(
        0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    )
    # A shell's background job, as on a server, starts with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            attempt(loops, (torch.ones(1), 1), seconds=20)
    finally:
        signal.signal(signal.SIGINT, before)
    timer.join()
    assert time.monotonic() - start < 5
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda images, p: images.mask_fill(p), "has no attribute 'mask_fill'"),
        (lambda images, p: exit(3), "it does not end Python"),
        (lambda images, p: sys.exit(), "it does not end Python"),
        (lambda images, p: (_ for _ in ()).throw(KeyboardInterrupt), "end Python"),
        (lambda images, p: torch.ones(2) @ torch.ones(3), "RuntimeError"),
        (lambda images, p: torch.empty(10**15), "RuntimeError"),
    ],
)
def test_a_crash_is_told(answer, words, capsys):
    verdict = SPLIT(answer)
    assert verdict.name == "crash"
    assert words in sentences(verdict)


def test_the_line_of_a_crash_is_the_students_own(capsys):
    def helper(images):
        return images.reshape(-1, 7)

    def answer(images, p):
        images = images * 1
        return helper(images)

    assert "at `return images.reshape(-1, 7)`" in sentences(SPLIT(answer))


def test_endless_recursion_is_told(capsys):
    def answer(images, p):
        return answer(images, p)

    class Model(nn.Module):
        def forward(self, images, p):
            return self(images, p)

    for code in (answer, Model()):
        verdict = SPLIT(code)
        assert verdict.name == "crash"
        assert "RecursionError" in sentences(verdict)


def test_prints_are_kept_from_the_reader_but_for_the_last_line(capsys):
    def answer(images, p):
        print("one line")
        print("the last line", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        return None

    said = SPLIT(answer).text
    assert "your code printed, last of all: the last line" in said
    assert "one line" not in said
    out, err = capsys.readouterr()
    assert out == said + "\n" and not err


def test_huge_prints_are_cut():
    def answer():
        for _ in range(1000):
            print("x" * 10_000)

    outcome = attempt(answer, ())
    assert len(outcome.printed) == MOST_PRINTED
    assert outcome.error is None


@pytest.mark.parametrize(
    "value, name, words",
    [
        (None, "type", "is there a return"),
        (np.zeros(3), "type", "numpy.ndarray"),
        ([torch.zeros(2)] * 3, "type", "a list of 3"),
        ((), "type", "a tuple of 0"),
        ((x for x in ()), "type", "generator"),
        (split, "type", "function"),
        (True, "type", "bool"),
        (torch.zeros(1, 2, 5), "shape", "look at c*p*p"),
        (torch.zeros(1, 4, 2), "shape", "n and c*p*p are in another order"),
        (torch.zeros(2, 4), "shape", "2 axes instead of 3"),
        (torch.zeros(1, 2, 4).int(), "dtype", "torch.int32"),
        (torch.zeros(1, 2, 4).double(), "dtype", "torch.float64"),
        (torch.zeros(1, 2, 4) * 1j, "type", "complex64"),
        (torch.zeros(1, 2, 4).to_sparse(), "type", "sparse"),
        (torch.zeros(1, 2, 4, device="meta"), "device", "on meta"),
        (torch.full((1, 2, 4), float("nan")), "nan", "0/0"),
        (torch.full((1, 2, 4), float("inf")), "shape", "needed"),
    ],
)
def test_odd_results_are_told(value, name, words, capsys):
    verdict = SPLIT(lambda images, p: value)
    if name == "shape" and words == "needed":
        assert verdict.name not in ("right", "crash")
    else:
        assert verdict.name == name
        assert words in sentences(verdict)


def test_another_device_is_told(capsys):
    if torch.cuda.is_available():
        verdict = SPLIT(lambda images, p: split(images, p).cuda())
        assert "it returned a tensor on cuda" in sentences(verdict)
    else:
        verdict = SPLIT(lambda images, p: split(images.cuda(), p))
        assert "on the device on which they arrive" in sentences(verdict)
    assert verdict.name == "device"


def test_writing_into_an_argument_is_told(capsys):
    def answer(images, p):
        result = split(images, p).clone()
        images.zero_()
        return result

    verdict = SPLIT(answer)
    assert verdict.name == "in place"
    assert "images is another tensor afterwards" in sentences(verdict)
    images = SPLIT.cases[0].given[0]
    assert images.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "harm, words",
    [
        (lambda: torch.set_default_dtype(torch.float64), "the default dtype"),
        (lambda: torch.set_grad_enabled(False), "the gradient mode"),
    ],
)
def test_changes_for_everybody_are_told_and_undone(harm, words, capsys):
    def answer(images, p):
        result = split(images, p)
        harm()
        return result

    verdict = SPLIT(answer)
    assert verdict.name == "global state"
    assert words in sentences(verdict)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert SPLIT(split)


def test_random_numbers_of_the_caller_go_on_as_before(capsys):
    def dice():
        return torch.rand(1).item(), np.random.rand(), random.random()

    def harmful(images, p):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        return split(images, p)

    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    undisturbed = dice()
    for check, code in ((SPLIT, harmful), (checks.vit.ViT, vitlib.ViT)):
        random.seed(7), np.random.seed(7), torch.manual_seed(7)
        assert check(code)
        assert dice() == undisturbed


def test_the_callers_modes_do_not_matter_and_stay(capsys):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            assert SPLIT(split)
            assert checks.mlp.MLP(vitlib.MLP)
            assert torch.is_inference_mode_enabled()
        with torch.no_grad():
            assert checks.encoder.EncoderBlock(vitlib.EncoderBlock)
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_dtype_is_tried(dtype, capsys):
    def answer(images, p):
        result = split(images, p)
        return result.float() if images.dtype == dtype else result

    verdict = SPLIT(answer)
    assert verdict.name == "dtype"
    assert f"right for torch.float32, wrong for {dtype}" in sentences(verdict)


def test_an_answer_that_remembers_is_told(capsys):
    seen = []

    def answer(images, p):
        seen.append(1)
        return split(images, p) + (len(seen) > len(SPLIT.cases))

    assert SPLIT(answer).name == "remembers"


def test_an_answer_that_draws_is_told(capsys):
    verdict = SPLIT(lambda images, p: torch.rand(split(images, p).shape))
    assert verdict.name == "random"


def test_no_gradient_is_told_with_the_name_of_its_start(capsys):
    verdict = checks.patches.embed_patches(
        lambda patches, weight, bias: F.linear(patches, weight.detach(), bias)
    )
    assert verdict.name == "no gradient"
    assert "flows back to weight:" in sentences(verdict)
    verdict = checks.patches.embed_patches(
        lambda patches, weight, bias: F.linear(
            patches, (weight + weight.detach()) / 2, bias
        )
    )
    assert verdict.name == "gradient"
    assert "the gradient of weight is not" in sentences(verdict)


def test_a_parameter_without_effect_is_named(capsys):
    class Tied(vitlib.MLP):
        def forward(self, tokens):
            return F.gelu(self.fc1(tokens)) @ self.fc1.weight + self.fc2.bias

    verdict = checks.mlp.MLP(Tied)
    assert verdict.name == "ignored"
    assert "fc2.weight has no effect" in sentences(verdict)


@pytest.mark.parametrize(
    "wrong, name",
    [
        (lambda x: 3 * x, "factor"),
        (lambda x: x + 2, "offset"),
        (lambda x: x.clamp(min=0), "negative numbers cut"),
        (lambda x: 0 * x, "zeros"),
        (lambda x: x.flip(-1), "order"),
        (lambda x: x + torch.arange(5.0), "same gap"),
        (lambda x: x * 1.0003, "nearly"),
        (lambda x: x * x + 1, "values"),
    ],
)
def test_what_wrong_numbers_have_in_common(wrong, name, capsys):
    judge = Judge("copy", ("x",), "b n e", torch.clone, (Case("x", (drawn(2, 3, 5),)),))
    assert judge(wrong).name == name


def test_a_mistake_must_explain_every_case(capsys):
    cases = tuple(Case(f"{n} numbers", (drawn(n),)) for n in (1, 3))
    twice = Mistake("twice", "it is doubled", lambda x: 2 * x)
    judge = Judge("copy", ("x",), "n", torch.clone, cases, (twice,))
    assert judge(lambda x: x + x).name == "twice"
    assert judge(lambda x: 2 * x if len(x) > 1 else x).name != "twice"
    assert judge(lambda x: 2 * x if len(x) > 1 else 1 / 0).name != "twice"
    fails = Mistake("fails", "it fails", lambda x: 2 * x if len(x) > 1 else 1 / 0)
    judge = dataclasses.replace(judge, mistakes=(fails,))
    assert judge(lambda x: 2 * x if len(x) > 1 else 1 / 0).name == "fails"
    assert judge(lambda x: 2 * x if len(x) > 1 else 3 * x).name != "fails"


def test_a_hard_case_later_does_not_hide_an_easy_one_before(capsys):
    cases = tuple(Case(f"{n} numbers", (drawn(n),)) for n in (1, 3))
    judge = Judge("copy", ("x",), "n", torch.clone, cases)
    verdict = judge(lambda x: x.reshape(1))
    assert verdict.name == "crash"
    assert "right on 1 numbers; wrong on 3 numbers" in sentences(verdict)
