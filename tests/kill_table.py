"""What the checks say to answers of which is known whether they are right.

python tests/kill_table.py    judge all answers and write book/kill_table.md
"""

import contextlib
import functools
import io
from pathlib import Path

from mutants import ANSWERS
from vitlib import checks

PAGE = Path(__file__).parents[1] / "book" / "kill_table.md"
TITLES = {
    "patches": "01 Patches",
    "cls_token": "02 The class token",
    "positions": "03 Positions",
    "attention": "04 Attention",
    "multi_head": "05 Several heads",
    "mlp": "06 The MLP",
    "encoder": "07 The encoder block",
    "vit": "08 The whole model",
    "checkpoints": "09 Checkpoints",
    "train": "10 Train",
    "transfer": "11 Transfer",
    "vit_vs_cnn": "12 ViT against CNN",
    "interpret": "13 Looking inside",
    "resolution": "14 Resolution",
    "capstone": "Capstone",
}
INTRODUCTION = """\
# The kill table

A check that accepts everything is worth nothing, and one that refuses a right answer is
worth less. So every check of [`vitlib.checks`](api/checks.md) is tried on answers of
which is known what they are: {wrong} wrong ones, each with the diagnosis that it should
get, and {right} right ones, written in different ways.

- **Found:** {found} of {wrong} wrong answers were refused.
- **Named:** {named} of {wrong} got the diagnosis that they should get.
- **Accepted:** {accepted} of {right} right answers.

The answers stand in `tests/mutants`. `python tests/kill_table.py` judges them and
writes this page; a test fails if the page is not what it would write. A wrong answer
that is on no list is refused as well, since results are compared with those of the
library. Its diagnosis may then say less: which part, which axis, by how much.

## All checks

| Check | Found | Named | Accepted |
| --- | --- | --- | --- |
"""
PUBLISHED = """
## Bugs from public code

Mistakes that public threads report or discuss, and what the checks say to them.

| Check | Answer | Diagnosis | A thread about such a mistake |
| --- | --- | --- | --- |
"""
CHAPTER = """
## {title}

| Check | Wrong answer | Diagnosis |
| --- | --- | --- |
"""


@functools.cache
def judged():
    """Return every answer with its verdict."""
    verdicts = []
    for answer in ANSWERS:
        with contextlib.redirect_stdout(io.StringIO()):
            verdicts.append((answer, answer.check(answer.code)))
    return verdicts


def count(pairs):
    """Count one check's answers, or all of them."""
    wrong = [(answer, verdict) for answer, verdict in pairs if answer.says != "right"]
    right = [verdict for answer, verdict in pairs if answer.says == "right"]
    return {
        "wrong": len(wrong),
        "found": sum(not verdict for _, verdict in wrong),
        "named": sum(verdict.name == answer.says for answer, verdict in wrong),
        "right": len(right),
        "accepted": sum(map(bool, right)),
    }


def chapters():
    """Return the names of the checks of every chapter."""
    return {
        chapter: [
            name
            for name, thing in vars(getattr(checks, chapter)).items()
            if any(thing is answer.check for answer in ANSWERS)
        ]
        for chapter in TITLES
    }


def link(source):
    """Return a Markdown link to a thread, or a citation."""
    if " " not in source:
        return f"{{cite:p}}`{source}`"
    repository, kind, number = source.split()
    place = {"issue": "issues", "PR": "pull"}[kind]
    return f"[{source}](https://github.com/{repository}/{place}/{number})"


def page():
    """Return the text of the page."""
    pairs = judged()
    text = INTRODUCTION.format(**count(pairs))
    by_check = {
        (chapter, name): [
            pair
            for pair in pairs
            if pair[0].check is getattr(checks, chapter).__dict__[name]
        ]
        for chapter, names in chapters().items()
        for name in names
    }
    for (chapter, name), own in by_check.items():
        text += (
            "| `{check}` | {found} of {wrong} | {named} of {wrong} "
            "| {accepted} of {right} |\n"
        ).format(check=f"{chapter}.{name}", **count(own))
    text += PUBLISHED
    for (chapter, name), own in by_check.items():
        for answer, verdict in own:
            if answer.source:
                text += (
                    f"| `{chapter}.{name}` | {answer.name} | {verdict.name} "
                    f"| {link(answer.source)} |\n"
                )
    for chapter, title in TITLES.items():
        text += CHAPTER.format(title=title)
        for name in chapters()[chapter]:
            for answer, verdict in by_check[chapter, name]:
                if answer.says != "right":
                    text += f"| `{name}` | {answer.name} | {verdict.name} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
