"""The interface of trackers, which send a run to an experiment-tracking program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class TrackedRun:
    """What is known of a run when it starts."""

    path: Path
    """The run's folder, absolute."""
    task: str
    values: Mapping[str, Any]
    """The settings by flat name: `optim` is the option, `optim.lr` one of its settings."""
    overrides: str
    """The command line's overrides, without the settings of trackers."""
    key: str
    """A unique key of the run, the same after it is resumed."""

    @property
    def name(self) -> str:
        """Return the folder's name."""
        return self.path.name

    @property
    def runs_dir(self) -> Path:
        """Return the folder of all runs."""
        return self.path.parent.parent


def without_tracker_settings(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without the settings of trackers: a URI among them may hold a password.

    >>> without_tracker_settings(["optim=sgd", "log=mlflow", "log.trackers.mlflow.uri=http://me:secret@there"])
    ['optim=sgd', 'log=mlflow']
    """
    return [word for word in overrides if not word.lstrip("+~").startswith("log.trackers")]


class Tracker(ABC):
    """Sends a run to another program.

    It runs in a separate process, which reads the run's folder and calls these methods: a tracker that raises, hangs
    or is slow does not affect the run. The constructor takes the settings of `log.trackers.NAME`.
    """

    modules: ClassVar[Sequence[str]] = ()
    """Modules that it imports."""
    package: ClassVar[str] = ""
    """The package to install for them."""

    @abstractmethod
    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run in the store, and return its id there.

        Args:
            run: what is known when the run starts.
            known: the id that an earlier start returned, to be resumed. If the store no longer has it, return another
                id; all rows are then logged again. None also if an earlier start did not complete: search the
                store for `run.key`.
        """

    @abstractmethod
    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Log new epochs: by global step, the metrics under their names in metrics.jsonl (lr/0, lr/1)."""

    @abstractmethod
    def finish(self, status: str, results: Mapping[str, float], step: int, plots: Sequence[Path]) -> None:
        """Log the end of the run and flush everything: the process exits afterwards.

        Args:
            status: done, failed, interrupted, or killed.
            results: of summary.json, such as `final/valid/rmse` and `best/valid/rmse`.
            step: the last global step.
            plots: PNG files.
        """
