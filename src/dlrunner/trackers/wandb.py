"""Weights & Biases: offline in the run's folder, for `wandb sync` later, unless WANDB_MODE says otherwise."""

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
        project: where runs are listed; by default named as the task.
        group: runs of one group are shown together.
    """

    modules = ("wandb",)
    package = "dlrunner[wandb]"

    def __init__(self, project: Text | None = None, group: Text | None = None) -> None:
        self.project, self.group = project, group

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run; one that was begun keeps its id, by which W&B puts the pieces together."""
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
        """Log rows; `step` is one of the numbers, for W&B's own steps may not go back (an ensemble's do)."""
        for step, row in rows.items():
            self._run.log({**row, "step": step})

    def finish(self, status: str, figures: Mapping[str, float], step: int, pictures: Sequence[Path]) -> None:
        """Put the figures into the run's summary, and the pictures beside them."""
        import wandb

        if pictures:
            images = {f"plots/{picture.stem}": wandb.Image(str(picture)) for picture in pictures}
            self._run.log({**images, "step": step})
        self._run.summary.update({**figures, "status": status})
        self._run.finish(exit_code=0 if status == "done" else 1)
