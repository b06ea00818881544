"""The page of claims: up to date, and each claim where a chapter settles it."""

import re

import claims
import nbformat
import pytest

NOTEBOOKS = claims.ROOT / "notebooks"


def test_the_page_is_what_the_measurements_say():
    """Every verdict's conditions hold, too: they are asserted on the way."""
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page(), (
        "run python tests/claims.py and look at what has changed"
    )


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.title)
def test_a_claim_is_settled_in_its_chapter(claim):
    notebook = nbformat.read(NOTEBOOKS / f"{claim.chapter}.ipynb", as_version=4)
    assert re.search(r"tutorials?\b", "".join(cell.source for cell in notebook.cells))
    assert set(claim.said_by) <= set(claims.TUTORIALS)
    assert claim.experiment.endswith(".") and claim.because.endswith(".")


def test_too_few_seeds_are_refused():
    with pytest.raises(AssertionError, match=r"0 rows of 06_mlp\.csv"):
        claims.runs("06_mlp", "accuracy", act="GELU", start="never")


def test_ranges_that_touch_are_a_tie():
    assert claims.tie([0.1, 0.3], [0.3, 0.5]) and claims.tie([0.4], [0.1, 0.5])
    assert not claims.tie([0.1, 0.2], [0.3, 0.4])
    assert not claims.tie([0.3, 0.4], [0.1, 0.2])
