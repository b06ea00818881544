"""The weights that ship do what their cards say."""

import csv
import os
import re
from pathlib import Path

import pytest
import torch

from vitlib import count_parameters
from vitlib.augment import normalise
from vitlib.checkpoints import SHIPPED, load_checkpoint, load_pretrained
from vitlib.data import cifar10, fashion_mnist, sample_image
from vitlib.predict import main, preprocess
from vitlib.train import evaluate

ROOT = Path(__file__).resolve().parent.parent
CARDS = (ROOT / "book" / "weights_and_data.md").read_text("utf-8")
EXPERIMENTS = ROOT / "notebooks" / "experiments"
RECIPES = {"fashion_mnist_vit": "fashion_mnist", "cifar10_vit": "cifar10"}
# What the photos' model says of the cat, class by class.
CAT = [-1.314, -1.512, 1.329, 1.26, 0.661, -0.442, 2.981, -0.813, -1.624, -1.56]


def card_of(name):
    """Return the section of the page whose heading ends with the file's name."""
    pattern = rf"^## [^\n]*: {re.escape(name)}\.safetensors\n(.*?)(?=^## |\Z)"
    (card,) = re.findall(pattern, CARDS, re.M | re.S)
    return card


def said(card, what):
    """Return the percentage that a line of a card gives."""
    return float(re.search(rf"- \*\*{re.escape(what)}:\*\* ([\d.]+) %", card)[1])


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_as_small_as_its_card_says(name):
    stored = load_checkpoint(SHIPPED[name])
    assert {value.dtype for value in stored.state_dict().values()} == {torch.float16}
    config, card = stored.config, card_of(name)
    assert f"{count_parameters(config):,} parameters" in card
    assert f"{SHIPPED[name].stat().st_size:,} bytes" in card
    assert count_parameters(config) <= 1_000_000
    assert (config.embed_dim, config.depth, config.num_heads) == (128, 6, 4)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_agrees_with_the_experiment(name):
    with (EXPERIMENTS / "10_weights.csv").open(newline="") as file:
        rows = {(row["recipe"], row["seed"]): row for row in csv.DictReader(file)}
    row, card = rows[RECIPES[name], "0"], card_of(name)
    assert said(card, "Held out") == pytest.approx(100 * float(row["held_out"]))
    test = said(card, "All 10,000 test images")
    assert test == pytest.approx(100 * float(row["test"]))
    assert test >= {"fashion_mnist_vit": 92, "cifar10_vit": 70}[name]
    with (EXPERIMENTS / f"10_weights_{RECIPES[name]}.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    assert len(log) == int(row["epochs"])
    # The log is of the weights before they were rounded to 16 bits.
    last = float(log[-1]["held_out_accuracy"])
    assert last == pytest.approx(float(row["held_out"]), abs=0.002)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_tells_of_seeds_1_and_2(name):
    with (EXPERIMENTS / "10_weights.csv").open(newline="") as file:
        rows = {(row["recipe"], row["seed"]): row for row in csv.DictReader(file)}
    others = [rows[RECIPES[name], seed] for seed in "12"]
    (line,) = re.findall(r"- \*\*Seeds 1 and 2:\*\* (.*?)\n-", card_of(name), re.S)
    told = [float(number) for number in re.findall(r"([\d.]+) %", line)]
    measured = [row[what] for what in ("test", "held_out") for row in others]
    assert told == [pytest.approx(100 * float(value)) for value in measured]


def test_it_loads_by_name_in_32_bits():
    for name, path in SHIPPED.items():
        model, stored = load_pretrained(name), load_checkpoint(path)
        assert not model.training
        for key, value in model.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, stored.state_dict()[key].float())


def test_another_choice_for_it_is_refused():
    with pytest.raises(ValueError, match="'cifar10_vit' comes with pool='cls'"):
        load_pretrained("cifar10_vit", pool="mean")
    with pytest.raises(ValueError, match=r"that ship \(cifar10_vit, fashion"):
        load_pretrained("cifar11_vit")


def test_the_clothes_are_known_as_promised():
    """All 2,000 test images that ship."""
    images, labels = fashion_mnist("test")
    accuracy = evaluate(load_pretrained("fashion_mnist_vit"), normalise(images), labels)
    card = card_of("fashion_mnist_vit")
    assert 100 * accuracy == pytest.approx(said(card, "The 2,000 that ship"), abs=0.5)


def test_the_photos_are_known_as_promised():
    """500 test images or more, where the set was fetched."""
    folder = os.environ.get("VITLIB_CIFAR10")
    if folder is None:
        pytest.skip("the folder with CIFAR-10 is not given: set VITLIB_CIFAR10")
    images, labels = cifar10(folder, "test")
    accuracy = evaluate(load_pretrained("cifar10_vit"), normalise(images), labels)
    promised = said(card_of("cifar10_vit"), "All 10,000 test images")
    assert 100 * accuracy == pytest.approx(promised, abs=0.5)


def test_the_photos_model_says_of_the_cat_what_it_said():
    cat = preprocess(sample_image(), image_size=32, crop_fraction=1.0)
    with torch.no_grad():
        scores = load_pretrained("cifar10_vit")(cat)  # (1, classes)
    torch.testing.assert_close(scores[0], torch.tensor(CAT), rtol=0, atol=5e-3)


def test_predict_uses_it_by_default(tmp_path, capsys):
    sample_image().save(tmp_path / "photo.png")
    assert main([str(tmp_path / "photo.png"), "--top-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["frog", "bird", "cat"]
    share = torch.tensor(CAT).softmax(dim=0).max().item()
    assert float(lines[0].split()[1]) == pytest.approx(100 * share, abs=0.3)
