"""The scores of guesses."""

import math

import pytest
import torch

from vitlib import checks


def said(capsys, *args, **options):
    verdict = checks.score(*args, **options)
    return verdict, capsys.readouterr().out


@pytest.mark.parametrize(
    ("guess", "answer"),
    [
        (196, 196),
        (196.0, 196),
        (196, torch.tensor(196)),
        ([1, 2.5], torch.tensor([1, 2.5])),
        ((3, "Rows"), [3, "rows"]),
        (" the CNN ", "the cnn"),
        (True, True),
        (0, 0.0),
        (math.inf, math.inf),
    ],
)
def test_a_right_guess(capsys, guess, answer):
    right, text = said(capsys, guess, answer)
    assert right is True
    assert text.startswith("Right: ")


@pytest.mark.parametrize(
    ("guess", "answer", "text"),
    [
        (14, 196, "you said 14, it is 196, 14 times as much."),
        (2744, 196, "you said 2,744, it is 196, 14 times as little."),
        (-2, -3, "you said -2, it is -3, 1.5 times as much."),
        (200, 196, "you said 200, it is 196, 2 % off."),
        (190, 196, "you said 190, it is 196, 3.1 % off."),
        (-1.0, 1.0, "you said -1, it is 1."),
        (0, 5, "you said 0, it is 5."),
        (5, 0, "you said 5, it is 0."),
        (math.nan, 5, "you said nan, it is 5."),
        (math.inf, 5, "you said inf, it is 5."),
        ("many", 5, "you said many, it is 5: a number."),
        (True, 1, "you said True, it is 1: a number."),
        ("rows", "columns", "you said rows, it is columns."),
        (False, True, "you said False, it is True."),
        (1, True, "you said 1, it is True."),
    ],
)
def test_a_wrong_guess_says_how_far_off(capsys, guess, answer, text):
    assert said(capsys, guess, answer) == (False, f"Not quite: {text}\n")


def test_each_of_several_is_scored(capsys):
    right, text = said(capsys, [1, 7, "c"], [1, 2, "b"])
    assert not right
    assert text == (
        "2. Not quite: you said 7, it is 2, 3.5 times as little.\n"
        "3. Not quite: you said c, it is b.\n"
    )


@pytest.mark.parametrize("guess", [..., None, [1, ...]])
def test_no_guess_yet(capsys, guess):
    right, text = said(capsys, guess, [1000, 0.123456])
    assert not right
    assert text == (
        "The answer: 1,000, 0.123. (Your guess goes in place of the dots.)\n"
    )


def test_too_few_guesses(capsys):
    assert said(capsys, 3, [3, 4]) == (
        False,
        "2 asked for, 1 guessed. The answer: 3, 4.\n",
    )


@pytest.mark.parametrize(("guess", "right"), [(90, True), (110, True), (89, False)])
def test_within(capsys, guess, right):
    assert said(capsys, guess, 100, within=0.1)[0] is right


def test_what_an_author_may_not_ask():
    with pytest.raises(ValueError, match="the answer is empty"):
        checks.score(1, [])
    for within in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="give a share of the answer"):
            checks.score(1, 1, within=within)
