"""Questions on the ideas of the book, for a class to answer before and after it.

python tests/concept_inventory.py    write the pages and the quiz for Moodle

Everything is made of book/concept_inventory.yml.
"""

import dataclasses
import re
from pathlib import Path

import yaml

BOOK = Path(__file__).parents[1] / "book"
SOURCE = BOOK / "concept_inventory.yml"
QUESTIONS_PAGE = BOOK / "concept_inventory.md"
ANSWERS_PAGE = BOOK / "concept_answers.md"
QUIZ = BOOK / "concept_inventory.gift"

QUESTIONS = """\
# Concept inventory

{count} questions for a class, once before the book and once after it. Each has one
right answer. The wrong ones are not there to fill the line: each belongs to an idea
that people have. So the answers tell a teacher which ideas are in the room. The
[answers](concept_answers.md) stand on a page of their own.

- **All of it** is two questions for each of the chapters 01 to 14.
- **The short form** is the questions with odd numbers, one for each chapter.

Print this page, or import {{download}}`the quiz for Moodle <concept_inventory.gift>`.
It is in the GIFT format, which other systems read, too, and holds the right answers,
with the idea behind each wrong one as feedback. Moodle shuffles the options, if it is
told to.

Everything here is public, the answers too. So give no marks for it. Say so, and ask
everybody to leave a question blank in place of guessing.
"""
ANSWERS = """\
# Concept inventory: the answers

The [questions](concept_inventory.md) again, with the right answer, the idea behind each
wrong one, and where to see the answer happen. A test computes the right answer of every
question, from the library or from the tables of the chapters' experiments.

## How to read a class

**Before.** For each question count who chose which option. A wrong one chosen by many
is worth more lesson time than a question that most leave blank: an idea has to be met,
a gap can be filled. When its chapter comes, take the question again as a vote, let
neighbours talk, vote once more {{cite:p}}`crouch2001`, and then run the cells that it
points to.

**After.** The same questions again. Compare option by option. For one number, take what
was gained as a share of what could be gained {{cite:p}}`hake1998`: 40 per cent right
before and 70 after is half of it, 30 of 60. Count those who were there both times.
With thirty students, one of them is three points of a question: read ideas, not
decimals.

**In between**, do not go through the answers as a list. A student who learned the
letters by heart has nothing left to be asked.

## Key

{key}
"""


@dataclasses.dataclass(frozen=True)
class Option:
    """One of the answers that a question offers."""

    letter: str
    name: str
    text: str
    because: str
    misconception: str | None

    @property
    def is_right(self) -> bool:
        """Say whether this is the right one."""
        return self.misconception is None

    @property
    def comment(self) -> str:
        """Say what a teacher should know of whoever chose it."""
        if self.is_right:
            return f"**Right:** {self.because}"
        return f"**The idea:** {self.misconception} **But:** {self.because}"


@dataclasses.dataclass(frozen=True)
class Question:
    """A question, with its options in the order in which they are shown."""

    number: int
    name: str
    chapter: str
    text: str
    show: str
    options: tuple[Option, ...]

    @property
    def right(self) -> Option:
        """Return the right option."""
        (right,) = (option for option in self.options if option.is_right)
        return right


def read(source: str) -> list[Question]:
    """Read the questions, and refuse an option that is neither right nor wrong."""
    questions = []
    for number, entry in enumerate(yaml.safe_load(source), start=1):
        options = []
        for letter, (name, said) in zip("ABCD", entry["options"].items(), strict=True):
            kind = said.keys() - {"text"}
            if kind not in ({"right"}, {"misconception", "but"}):
                raise ValueError(
                    f"{entry['name']}, {name} has {sorted(kind)}: give right, or "
                    "misconception and but"
                )
            because = said.get("right", said.get("but"))
            idea = said.get("misconception")
            options.append(Option(letter, name, said["text"], because, idea))
        text = entry["question"]
        given = entry["name"], entry["chapter"], text, entry["show"], tuple(options)
        questions.append(Question(number, *given))
    return questions


def questions_page(questions: list[Question]) -> str:
    """Write the page that a class may see before it answers."""
    text = QUESTIONS.format(count=len(questions))
    for question in questions:
        text += f"\n**{question.number}.** {question.text}\n\n"
        for option in question.options:
            text += f"- **{option.letter}** {option.text}\n"
    return text


def answers_page(questions: list[Question]) -> str:
    """Write the page with the answers."""
    key = "| Question | Right | Chapter |\n| --- | --- | --- |"
    for question in questions:
        key += f"\n| [{question.number}](#concept-{question.name}) "
        key += f"| {question.right.letter} | {question.chapter[:2]} |"
    text = ANSWERS.format(key=key)
    for question in questions:
        number, chapter = question.chapter[:2], f"../notebooks/{question.chapter}.ipynb"
        text += f"\n(concept-{question.name})=\n## Question {question.number}\n\n"
        text += f"{question.text}\n\n"
        for option in question.options:
            text += f"- **{option.letter}** {option.text}\\\n  {option.comment}\n"
        text += f'\n*Show:* [chapter {number}]({chapter}), "{question.show}".\n'
    return text


def quiz(questions: list[Question]) -> str:
    """Write all questions in Moodle's GIFT format."""

    def plain(text: str) -> str:
        return re.sub(r"([\\~=#{}:])", r"\\\1", text)

    text = ""
    for question in questions:
        category = f"Vision Transformer, piece by piece/Chapter {question.chapter[:2]}"
        text += f"$CATEGORY: {category}\n\n"
        text += f"::{question.number} {question.name}::[markdown]"
        text += f"{plain(question.text)}{{\n"
        for option in question.options:
            mark = "=" if option.is_right else "~"
            text += f"{mark}{plain(option.text)}#{plain(option.comment)}\n"
        text += "}\n\n"
    return text


def made() -> dict[Path, str]:
    """Return every file that is made of the source, and what it should hold."""
    questions = read(SOURCE.read_text("utf-8"))
    return {
        QUESTIONS_PAGE: questions_page(questions),
        ANSWERS_PAGE: answers_page(questions),
        QUIZ: quiz(questions),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(BOOK.parent))
