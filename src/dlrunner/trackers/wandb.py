"""Weights & Biases: offline in the run's folder, for a later `wandb sync`, unless WANDB_MODE is set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrunner.ranges import Text
from dlrunner.tracker import TrackedRun, Tracker


class WandbTracker(Tracker):
    """Writes through W&B's own service.

    Args:
        project: its name; by default that of the task.
        group: runs of one group are shown together.
    """

    modules = ("wandb",)
    package = "dlrunner[wandb]"

    def __init__(self, project: Text | None = None, group: Text | None = None) -> None:
        self.project, self.group = project, group

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run; a resumed run keeps its id, by which W&B merges its parts."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=self.project or run.task,
            group=self.group,
            dir=str(run.path),
            id=known or run.key,
            resume="allow",
            name=run.name,
            config={**run.values, "folder": str(run.path), "overrides": run.overrides},
            allow_val_change=True,
            mode=mode,
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        self._run.define_metric("*", step_metric="step")
        return str(self._run.id)

    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Log rows with `step` as a metric: W&B's own step must not decrease, as it does for ensembles."""
        for step, row in rows.items():
            self._run.log({**row, "step": step})

    def finish(self, status: str, results: Mapping[str, float], step: int, plots: Sequence[Path]) -> None:
        """Log the plots, and write the results to the run's summary."""
        import wandb

        if plots:
            images = {f"plots/{plot.stem}": wandb.Image(str(plot)) for plot in plots}
            self._run.log({**images, "step": step})
        self._run.summary.update({**results, "status": status})
        self._run.finish(exit_code=0 if status == "done" else 1)
