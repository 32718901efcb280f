"""Hyperparameter search: Optuna suggests each trial from the earlier ones; the study is in the sweep's folder."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sqlalchemy.engine import URL

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the sweep reports the trials itself

NOT_DAMAGED = ("locked", "readonly", "disk I/O", "unable to open", "is full")
"""SQLite's error messages for a file that may be intact."""


class Search:
    """Trials of a search, numbered like the jobs of its sweep.

    A suggestion depends only on (seed, number of the trial, earlier trials), not on the state of a process: a resumed
    search makes the same trials as an uninterrupted one.

    Args:
        folder: the sweep's; it holds the study, search.db.
        space: distributions by the name of the setting.
        higher_is_better: the metric's direction.
        sampler: tpe or random.
        seed: of the sampler.
    """

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, BaseDistribution],
        higher_is_better: bool,
        sampler: Literal["tpe", "random"] = "tpe",
        seed: int = 0,
    ) -> None:
        self.space, self.sampler, self.seed = dict(space), sampler, seed
        self._direction: Literal["maximize", "minimize"] = "maximize" if higher_is_better else "minimize"
        file = folder / "search.db"
        try:
            self.study = self._open(file)
        except Exception as error:  # SQLAlchemy, SQLite and Optuna raise a dozen types
            if any(word in f"{error} {error.__cause__}" for word in NOT_DAMAGED) or not file.exists():
                raise
            for each in folder.glob("search.db*"):
                each.replace(folder / f"damaged-{each.name}")
            kept = folder / "damaged-search.db"
            message = f"warning: {file} is damaged and was renamed {kept.name}; its trials are suggested again"
            print(message, file=sys.stderr, flush=True)
            self.study = self._open(file)

    def _open(self, file: Path) -> optuna.Study:
        """Open the study in a file, or create it, and read it once."""
        self._storage = optuna.storages.RDBStorage(URL.create("sqlite", database=str(file)).render_as_string())
        study = optuna.create_study(
            storage=self._storage, study_name="search", direction=self._direction, load_if_exists=True
        )
        if [trial.number for trial in study.get_trials(deepcopy=False)] != list(range(len(study.trials))):
            raise ValueError("trials are missing")
        return study

    def unfinished(self) -> dict[int, dict[str, Any]]:
        """Return the values of started trials, by number."""
        started = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return {trial.number: trial.params for trial in started}

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Suggest the next trial: its number and the value of each setting.

        The values are sampled in a copy of the study and then stored together: Optuna itself creates a trial and
        stores its values one by one, and a process killed in between would leave an incomplete trial.
        """
        seed = (self.seed * 1_000_003 + len(self)) % 2**32
        samplers = optuna.samplers
        sampler = samplers.TPESampler(seed=seed) if self.sampler == "tpe" else samplers.RandomSampler(seed)
        copy = optuna.create_study(sampler=sampler, direction=self.study.direction)
        copy.add_trials(self.study.get_trials(deepcopy=False))
        trial = copy.ask(self.space)
        running = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
        )
        self.study.add_trial(running)
        return trial.number, trial.params

    def tell(self, number: int, record: Mapping[str, Any]) -> None:
        """Store the metric of a trial, or that it failed; an interrupted one stays open."""
        value = (record.get("metric") or {}).get("value")
        if record["status"] == "done" and value is not None and math.isfinite(value):
            self.study.tell(number, value, skip_if_finished=True)
        elif record["status"] in ("done", "failed"):
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def values(self, number: int) -> dict[str, Any]:
        """Return the values of a trial."""
        return self.study.get_trials(deepcopy=False)[number].params

    def __len__(self) -> int:
        """Return the number of started trials."""
        return len(self.study.get_trials(deepcopy=False))

    def best(self) -> tuple[int, float] | None:
        """Return number and metric of the best trial; None if no trial has succeeded yet."""
        done = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return (self.study.best_trial.number, self.study.best_value) if done else None

    def close(self) -> None:
        """Close the file."""
        self._storage.engine.dispose()
