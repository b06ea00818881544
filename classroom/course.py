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
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("your turn")'}
c.ClearSolutions.text_stub = "*Your answer.*"
# What a student's notebook shows can be a script; feedback pages must not run it.
c.HTMLExporter.sanitize_html = True
# As nbgrader has it, with limits while it runs and with our way to give marks.
c.Autograde.autograde_preprocessors = [
    "classroom.marking.RunWithLimits",
    "nbgrader.preprocessors.IgnorePattern",
    "classroom.marking.GiveMarks",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
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

    def api(self, **kernel: str) -> NbGraderAPI:
        """Return nbgrader, set up for this folder.

        Args:
            kernel: Settings of its kernels' manager.
        Returns:
            Its interface.
        """
        loader = PyFileConfigLoader("nbgrader_config.py", path=str(self.root))
        config = Config(loader.load_config())
        config.KernelManager.update(kernel)
        return NbGraderAPI(config=config)

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
        config = self.root / "nbgrader_config.py"
        if not config.exists():
            config.write_text(CONFIG, encoding="utf-8")
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
            ValueError: there is no such assignment.
            RuntimeError: nbgrader refused one.
        """
        for name in names:
            if name not in assignments.names():
                raise ValueError(
                    f"there is no assignment {name!r}: choose from "
                    f"{', '.join(assignments.names())}"
                )
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

    def handed_in(self) -> list[str]:
        """Return the assignments of which there are submissions."""
        names = assignments.names()
        return [
            n for n in names if self.inbox(n).is_dir() and any(self.inbox(n).iterdir())
        ]

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
                f"{name} was not released from {self.root}: do that first, with "
                f"python -m classroom release {name}"
            )
        return path
