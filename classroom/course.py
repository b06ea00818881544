"""The course folder: what is in it, and how it comes into being."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from classroom import assignments
from classroom.summative.task import task_for

CONFIG = '''\
"""nbgrader in this folder. Change what you like; `make classroom` keeps it."""

from pathlib import Path

c = get_config()  # noqa: F821
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.CourseDirectory.course_id = "vit"
# Seconds for one cell.
c.Execute.timeout = 60
# Nothing is left to do for a kernel that has run all cells.
c.Execute.shutdown_kernel = "immediate"
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("your turn")'}
c.ClearSolutions.text_stub = "*Your answer.*"
# What a student has written can hold a script; feedback pages must not run it.
c.HTMLExporter.filters = {"markdown2html": "classroom.pages.markdown"}
# As nbgrader has it, in a box and with our way to give marks.
c.Autograde.autograde_preprocessors = [
    "classroom.marking.RunInBox",
    "nbgrader.preprocessors.IgnorePattern",
    "classroom.marking.GiveMarks",
    "nbgrader.preprocessors.LimitOutput",
    "classroom.marking.SaveMarks",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
'''


@contextlib.contextmanager
def setting(**variables: str) -> Iterator[None]:
    """Set variables of the environment for a while; nbgrader's own loses the old ones.

    Args:
        variables: Their names and values.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclasses.dataclass(frozen=True)
class Course:
    """A course folder.

    Args:
        root: Where it is.
    """

    root: Path

    @property
    def seed(self) -> str:
        """The seed of the summative tasks; "" before the first release."""
        path = self.root / "course.json"
        if not path.exists():
            return ""
        return json.loads(path.read_text("utf-8"))["seed"]

    @property
    def config(self) -> Path:
        """The file of nbgrader's settings."""
        return self.root / "nbgrader_config.py"

    def api(self) -> NbGraderAPI:
        """Return nbgrader, set up for this folder."""
        loader = PyFileConfigLoader(self.config.name, path=str(self.root))
        return NbGraderAPI(config=Config(loader.load_config()))

    def gradebook(self) -> Gradebook:
        """Open nbgrader's database."""
        return Gradebook(f"sqlite:///{self.root / 'gradebook.db'}", "vit")

    def start(self, seed: str) -> None:
        """Make the folder, or find it as it was.

        Args:
            seed: Of the summative tasks; "" for that of a folder that is there.
        Raises:
            ValueError: there is no seed, or the folder has another one.
        """
        if not seed and not self.seed:
            raise ValueError(
                "a new course needs a seed, from which its summative tasks are made: "
                "choose a word or a number that your students do not know, and give it "
                "as SEED=... to make or as --seed"
            )
        if seed and self.seed not in ("", seed):
            raise ValueError(
                f"{self.root} was made with another seed, and its tasks may be out "
                "already: leave the seed away, or choose another folder with --course"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            self.config.write_text(CONFIG, encoding="utf-8")
        # nbgrader asks a command of its environment, which need not be active.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with setting(PATH=path):
            self.gradebook().close()
        if not self.seed:
            words = json.dumps({"seed": seed})
            (self.root / "course.json").write_text(words, encoding="utf-8")

    def release(self, names: list[str]) -> None:
        """Write the instructor's notebooks, and let nbgrader make the students'.

        Args:
            names: The assignments.
        Raises:
            RuntimeError: nbgrader refused one.
        """
        api = self.api()
        for name in names:
            path = self.root / "source" / name / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            made = assignments.make(name, task_for(name, self.seed))
            nbformat.write(made, path)
            result = api.generate_assignment(name, force=True, create=True)
            if not result["success"]:
                raise RuntimeError(f"nbgrader did not release {name}: {result['log']}")
            self.inbox(name).mkdir(parents=True, exist_ok=True)

    def unreleased(self) -> list[str]:
        """Return the assignments that the students do not have yet."""
        folder = self.root / "release"
        return [name for name in assignments.names() if not (folder / name).exists()]

    def inbox(self, name: str) -> Path:
        """Return the folder into which an assignment's submissions go."""
        return self.root / "inbox" / name

    def handed_in(self) -> tuple[list[str], list[str]]:
        """Return the assignments with submissions, and what else lies in the inbox."""
        entries = {p.name: p for p in sorted((self.root / "inbox").glob("[!.]*"))}
        ours = [n for n in assignments.names() if n in entries and entries[n].is_dir()]
        others = [name for name in entries if name not in ours]
        return [name for name in ours if any(entries[name].iterdir())], others

    def released(self, name: str) -> Path:
        """Return the students' notebook.

        Args:
            name: The assignment.
        Raises:
            ValueError: it was not released.
        """
        path = self.root / "release" / name / f"{name}.ipynb"
        if not path.exists():
            raise ValueError(
                f"{name} was not released from {self.root}: release it first"
            )
        return path
