"""What the other processes of a run do: they train with rank 0, which reads first, keeps the folder and tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlrunner.dispatch import plan
from dlrunner.looks.progress import SilentDisplay
from dlrunner.machine import keep_freed_memory
from dlrunner.processes import joined, rank, was_left
from dlrunner.randomness import seed_everything
from dlrunner.runner import member_seed
from dlrunner.signals import StopSignals


class _NoFolder:
    """Checkpoints are rank 0's."""

    def load_checkpoint(self) -> dict[str, Any] | None:
        return None

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        pass

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        pass


def follow(config: Mapping[str, Any]) -> int:
    """Train as one of several processes, and return the exit status; where rank 0 has failed, it has told why."""
    checked = plan(config)
    settings = checked.settings
    try:
        with StopSignals() as signals, joined(checked.device) as world:
            if world.first(None) == "finished":
                return 0
            keep_freed_memory()
            data = checked.build_data()
            for index in range(settings.ensemble):
                seed = member_seed(settings.seed, settings.ensemble, index)
                task = checked.build_task(data, seed)
                seed_everything(seed)
                model = checked.build_model(task.dims)
                trainer = checked.build_trainer(seed, world)
                model.load_pretrained()
                trainer.prepare(task, model, lambda text: None)
                trainer.fit(task, model, checked.make_optimizer, _NoFolder(), SilentDisplay(), signals)
            return 0
    except Exception as error:
        if was_left(error):
            return 1
        error.add_note(f"in the process of rank {rank()}")
        raise
