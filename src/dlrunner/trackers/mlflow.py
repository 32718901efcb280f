"""MLflow: one SQLite file for all runs, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrunner.ranges import Text
from dlrunner.tracker import TrackedRun, Tracker

STATUSES = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "killed": "KILLED"}
PARAMS_AT_ONCE, METRICS_AT_ONCE, LONGEST_PARAM = 100, 1000, 6000
"""MLflow's limits."""


class MlflowTracker(Tracker):
    """Writes through MLflow's client.

    Args:
        uri: the store; by default MLFLOW_TRACKING_URI, and without that `mlflow.db` beside the runs.
        experiment: where runs are listed; by default named as the task.
    """

    modules = ("mlflow", "sqlalchemy", "alembic")
    package = "dlrunner[mlflow]"

    def __init__(self, uri: Text | None = None, experiment: Text | None = None) -> None:
        self.uri, self.experiment = uri, experiment

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run, or take up the one that was begun."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        experiment = self.experiment or run.task
        artifacts = None if uri else (run.runs_dir / "mlflow-artifacts" / experiment).as_uri()
        uri = uri or f"sqlite:///{run.runs_dir / 'mlflow.db'}"
        self._lock = run.runs_dir / ".mlflow.lock" if uri.startswith("sqlite:") else None
        with self._alone():  # the first one makes the tables
            self._client = MlflowClient(tracking_uri=uri)
            if known is not None and self._is_there(known):
                self._client.update_run(known, status="RUNNING")
                self._id = known
                return known
            tags = {"folder": str(run.path), "overrides": run.overrides, "mlflow.source.name": "dlrun"}
            place = self._experiment_id(experiment, artifacts)
            self._id = str(self._client.create_run(place, run_name=run.name, tags=tags).info.run_id)
            params = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in run.values.items()]
            for first in range(0, len(params), PARAMS_AT_ONCE):
                self._client.log_batch(self._id, params=params[first : first + PARAMS_AT_ONCE])
        return self._id

    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Log metrics; many rows take hardly longer than one."""
        from mlflow.entities import Metric

        at = int(time.time() * 1000)
        metrics = [Metric(key, value, at, step) for step, row in rows.items() for key, value in row.items()]
        with self._alone():
            for first in range(0, len(metrics), METRICS_AT_ONCE):
                self._client.log_batch(self._id, metrics=metrics[first : first + METRICS_AT_ONCE])

    def finish(self, status: str, figures: Mapping[str, float], step: int, pictures: Sequence[Path]) -> None:
        """Log the figures, copy the pictures, close the run."""
        self.log({step: figures})
        with self._alone():
            for picture in pictures:
                self._client.log_artifact(self._id, str(picture), "plots")
            self._client.set_terminated(self._id, STATUSES[status])

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others out of the SQLite file: of two that begin to write at once, one would fail at once."""
        if self._lock is None:
            yield
            return
        with self._lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _is_there(self, known: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(known).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _experiment_id(self, name: str, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found: Any = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # on a server another run may be faster
                    raise
                found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)
