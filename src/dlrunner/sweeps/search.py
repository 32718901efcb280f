"""A search: Optuna proposes the next trial by what became of the earlier ones; its study lies in the sweep's folder."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the sweep's own lines say it all

NOT_DAMAGED = ("locked", "readonly", "disk I/O", "unable to open", "is full")
"""What SQLite says of a file that may be sound."""


class Search:
    """Trials of a search, numbered as the jobs of its sweep.

    Every proposal rests on (seed, number of the trial, trials before it) and on nothing that a process holds: a search
    that was interrupted goes on with the trials that it would have made.

    Args:
        folder: the sweep's; the study is in search.db there.
        space: what is searched, by the name of the setting.
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
        except Exception as error:  # SQLAlchemy, SQLite and Optuna have a dozen ways to say it
            if any(word in f"{error} {error.__cause__}" for word in NOT_DAMAGED) or not file.exists():
                raise
            for each in folder.glob("search.db*"):
                each.replace(folder / f"damaged-{each.name}")
            kept = folder / "damaged-search.db"
            print(f"note: {file} is damaged; its trials are proposed again ({kept.name})", file=sys.stderr, flush=True)
            self.study = self._open(file)

    def _open(self, file: Path) -> optuna.Study:
        """Open the study in a file, or begin one, and read it once."""
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        study = optuna.create_study(
            storage=self._storage, study_name="search", direction=self._direction, load_if_exists=True
        )
        if [trial.number for trial in study.get_trials(deepcopy=False)] != list(range(len(study.trials))):
            raise ValueError("trials are missing")
        return study

    def unfinished(self) -> dict[int, dict[str, Any]]:
        """Return the values of trials that were begun, by number."""
        begun = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return {trial.number: trial.params for trial in begun}

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Propose the next trial: its number and the value of each setting.

        The values are found in a copy of the study and then written down together: Optuna itself begins a trial and
        writes its values one by one, and a process that is killed in between would leave a trial that can but fail.
        """
        seed = (self.seed * 1_000_003 + len(self)) % 2**32
        samplers = optuna.samplers
        sampler = samplers.TPESampler(seed=seed) if self.sampler == "tpe" else samplers.RandomSampler(seed)
        copy = optuna.create_study(sampler=sampler, direction=self.study.direction)
        copy.add_trials(self.study.get_trials(deepcopy=False))
        found = copy.ask(self.space)
        running = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=found.params, distributions=found.distributions
        )
        self.study.add_trial(running)
        return found.number, found.params

    def tell(self, number: int, record: Mapping[str, Any]) -> None:
        """Take down what became of a trial: its metric, or that it failed; one that was interrupted is still open."""
        value = (record.get("metric") or {}).get("value")
        if record["status"] == "done" and value is not None and math.isfinite(value):
            self.study.tell(number, value, skip_if_finished=True)
        elif record["status"] in ("done", "failed"):
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def values(self, number: int) -> dict[str, Any]:
        """Return the values of a trial."""
        return self.study.get_trials(deepcopy=False)[number].params

    def __len__(self) -> int:
        """Return how many trials were begun."""
        return len(self.study.get_trials(deepcopy=False))

    def best(self) -> tuple[int, float] | None:
        """Return number and metric of the best trial, or None while none has succeeded."""
        done = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return (self.study.best_trial.number, self.study.best_value) if done else None

    def close(self) -> None:
        """Let go of the file."""
        self._storage.engine.dispose()
