"""What a tracker is: a store of somebody else's program in which a run is to be seen too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins."""

    path: Path
    """The run's folder, absolute."""
    task: str
    values: Mapping[str, Any]
    """The settings by flat name: `optim` is the choice, `optim.lr` a setting of it."""
    overrides: str
    """What was typed, but for the settings of trackers."""
    key: str
    """What no other run has, and this one keeps when it is resumed."""

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.path.name

    @property
    def runs_dir(self) -> Path:
        """Return the folder that all runs share."""
        return self.path.parent.parent


def without_tracker_settings(overrides: Sequence[str]) -> list[str]:
    """Return what was typed without the settings of trackers: an address among them may hold a password.

    >>> without_tracker_settings(["optim=sgd", "log=mlflow", "log.trackers.mlflow.uri=http://me:secret@there"])
    ['optim=sgd', 'log=mlflow']
    """
    return [word for word in overrides if not word.lstrip("+~").startswith("log.trackers")]


class Tracker(ABC):
    """Shows a run in another program.

    It lives in a process of its own, which reads the run's folder and calls these methods: a tracker may raise, hang
    or take its time, and the run does not notice. The constructor takes the settings of `log.trackers.NAME`.
    """

    modules: ClassVar[Sequence[str]] = ()
    """What must be importable for it."""
    package: ClassVar[str] = ""
    """What is installed for that."""

    @abstractmethod
    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run in the store, and return its id there.

        Args:
            run: what is known when it begins.
            known: the id of an earlier start, which is gone on with. Another id is returned where the store has
                forgotten that one; all rows are then logged again. None too where an earlier start did not come to its
                end: what it has left in the store is known by `run.key`.
        """

    @abstractmethod
    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Take what is new: by global step, an epoch's numbers under their names in metrics.jsonl (lr/0, lr/1)."""

    @abstractmethod
    def finish(self, status: str, figures: Mapping[str, float], step: int, pictures: Sequence[Path]) -> None:
        """Take what the end brings, and keep it for good: the process is ended after it.

        Args:
            status: done, failed, interrupted, or killed.
            figures: of summary.json, `final/valid/rmse`, `best/valid/rmse` and the like.
            step: the last global step.
            pictures: PNG files.
        """
