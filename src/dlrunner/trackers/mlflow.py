"""MLflow: one SQLite file for all runs, or the server of MLFLOW_TRACKING_URI."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlrunner.ranges import Text
from dlrunner.tracker import TrackedRun, Tracker

STATUSES = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "killed": "KILLED"}
PARAMS_AT_ONCE, METRICS_AT_ONCE, LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 100, 1000, 250, 6000, 5000
"""MLflow's limits."""
KEY = "dlrunner_key"
"""The tag that identifies a run whose start did not complete."""


class MlflowTracker(Tracker):
    """Writes through MLflow's client.

    Args:
        uri: the store; by default MLFLOW_TRACKING_URI, else `mlflow.db` in the runs folder.
        experiment: its name; by default that of the task.
    """

    modules = ("mlflow", "sqlalchemy", "alembic")
    package = "dlrunner[mlflow]"

    def __init__(self, uri: Text | None = None, experiment: Text | None = None) -> None:
        self.uri, self.experiment = uri, experiment

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run, or resume an earlier one."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        experiment = self.experiment or run.task
        artifacts = None if uri else (run.runs_dir / "mlflow-artifacts" / experiment).as_uri()
        uri = uri or f"sqlite:///{run.runs_dir / 'mlflow.db'}"
        file = _sqlite_file(uri)
        self._lock = file and file.with_name(f".{file.name}.lock")
        with self._locked():
            if file is not None:
                _create_store(file, uri)
            self._client = MlflowClient(tracking_uri=uri)
            if known is None or not self._exists(known):
                experiment_id = self._experiment_id(experiment, artifacts)
                known = self._find(experiment_id, run.key) or self._create(experiment_id, run)
            self._id = known
            self._client.update_run(known, status="RUNNING")
            self._log_params(run.values)
        return known

    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Log metrics in batches; many rows take hardly longer than one."""
        from mlflow.entities import Metric

        at = int(time.time() * 1000)
        metrics = [Metric(name_of(key), value, at, step) for step, row in rows.items() for key, value in row.items()]
        with self._locked():
            for first in range(0, len(metrics), METRICS_AT_ONCE):
                self._client.log_batch(self._id, metrics=metrics[first : first + METRICS_AT_ONCE])

    def finish(self, status: str, results: Mapping[str, float], step: int, plots: Sequence[Path]) -> None:
        """Log the results, upload the plots, close the run."""
        self.log({step: results})
        with self._locked():
            for plot in plots:
                self._client.log_artifact(self._id, str(plot), "plots")
            self._client.set_terminated(self._id, STATUSES[status])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the SQLite file: if two processes start writing at the same time, one fails at once."""
        if self._lock is None:
            yield
            return
        with FileLock(self._lock, fallback_to_soft=False):
            yield

    def _exists(self, known: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(known).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _find(self, experiment_id: str, key: str) -> str | None:
        """Return the id of a run whose start was interrupted before the id was recorded."""
        runs = self._client.search_runs([experiment_id], f"tags.{KEY} = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _create(self, experiment_id: str, run: TrackedRun) -> str:
        texts = {"folder": str(run.path), "overrides": run.overrides, "mlflow.source.name": "dlrun", KEY: run.key}
        tags = {name: text[:LONGEST_TAG] for name, text in texts.items()}
        return str(self._client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id)

    def _log_params(self, values: Mapping[str, Any]) -> None:
        """Log new parameters; MLflow does not allow changing one."""
        from mlflow.entities import Param

        existing = self._client.get_run(self._id).data.params
        texts = {name_of(key): str(value)[:LONGEST_PARAM] for key, value in values.items()}
        params = [Param(name, text) for name, text in texts.items() if name not in existing]
        for first in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + PARAMS_AT_ONCE])

    def _experiment_id(self, name: str, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        experiment: Any = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run may have created it meanwhile
                    raise
                experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id)


def name_of(key: str) -> str:
    """Return a name that MLflow accepts: letters, digits and a few signs, as a normalized path.

    >>> name_of("valid/rmse"), name_of("task.columns.net price (€)"), name_of("/a//../b")
    ('valid/rmse', 'task.columns.net price ___', 'b')
    """
    clean = posixpath.normpath(re.sub(r"[^\w/. :-]", "_", key)[:LONGEST_NAME])
    return clean.lstrip("/.") or "_"


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for any other store, and for one in memory."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database
    return None if not name or name.startswith((":memory:", "file:")) else Path(name)


def _create_store(file: Path, uri: str) -> None:
    """Create an SQLite store atomically.

    MLflow creates its tables in dozens of steps that take seconds; a process killed in between would leave a file
    that no run could use.
    """
    if file.exists() and file.stat().st_size:
        return
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.engine import make_url

    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)  # left by a killed process; SQLite removes its journal
    url = make_url(uri).set(database=str(new))
    SqlAlchemyStore(url.render_as_string(hide_password=False), DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
    new.replace(file)
