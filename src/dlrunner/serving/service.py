"""What is served: a loaded run, what is known of it, and its answers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from dlrunner.errors import ConfigError
from dlrunner.inference.load import LoadedRun
from dlrunner.predictor import RowField
from dlrunner.runs.reader import shorter


@dataclass(frozen=True)
class Service:
    """A run that can be served."""

    run: LoadedRun
    fields: Sequence[RowField]
    """Of a row of a request."""

    @classmethod
    def of(cls, run: LoadedRun) -> Service:
        """Return the service of a run.

        Raises:
            ConfigError: its predictor has no fields.
        """
        fields = run.predictor.row_fields()
        if not fields:
            name = type(run.predictor).__name__
            raise ConfigError(
                f"{shorter(run.path)} cannot be served: {name} has no row_fields, or the run is of an older version"
            )
        return cls(run, fields)

    @property
    def name(self) -> str:
        """The folder of the run."""
        return str(shorter(self.run.path))

    def description(self) -> dict[str, Any]:
        """Return the name of the run, its metric and its age."""
        summary = self.run.summary
        metric: Mapping[str, Any] = summary.get("metric") or {}
        finished = str(summary.get("finished") or "")
        return {
            "run": self.run.path.name,
            "task": str(self.run.config["task"].get("_target_", "")).rpartition(".")[2],
            "metric": metric.get("name"),
            "value": metric.get("value"),
            "finished": finished or None,
            "age_days": _age(finished),
            "synthetic_data": (summary.get("data") or {}).get("source") == "synthetic",
        }

    def predict(self, requests: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
        """Return the predictions of several requests."""
        return self.run.predictor.predict_requests(requests)


def _age(finished: str) -> float | None:
    """Return the days since a time, if it is one."""
    try:
        then = datetime.fromisoformat(finished)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return round((datetime.now(UTC) - then).total_seconds() / 86_400, 2)


def report(error: Exception) -> str:
    """Report an unexpected error of a prediction on standard error, in a line, and return it."""
    first = (str(error).splitlines() or [""])[0][:200].encode(errors="backslashreplace").decode()
    sentence = f"the run failed to predict ({type(error).__name__}: {first})"
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    return sentence
