"""What the other processes of a run do: they train with rank 0, which reads first, keeps the folder and tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlrunner.dispatch import Plan, plan
from dlrunner.errors import Interrupted
from dlrunner.identity import digests, identity_of
from dlrunner.looks.progress import SilentDisplay
from dlrunner.machine import keep_freed_memory
from dlrunner.processes import World, joined, tells_why, was_left
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
    """Train as one of several processes, and return the exit status; what befalls rank 0 too, rank 0 tells."""
    checked = plan(config)
    try:
        with StopSignals() as signals, joined(checked.device) as world:
            try:
                if world.first(None) != "finished":
                    _train(checked, signals, world)
            except Exception as error:
                if was_left(error) or not tells_why():
                    return 1
                raise
    except Interrupted as stopped:
        return stopped.exit_status
    return 0


def _train(checked: Plan, signals: StopSignals, world: World) -> None:
    """Do what rank 0 does, but for what one process is enough for."""
    keep_freed_memory()
    settings, data = checked.settings, checked.build_data()
    world.compare(digests(checked, identity_of(data)))
    for index in range(settings.ensemble):
        seed = member_seed(settings.seed, settings.ensemble, index)
        task = checked.build_task(data, seed)
        seed_everything(seed)
        model = checked.build_model(task.dims)
        trainer = checked.build_trainer(seed, world)
        model.load_pretrained()
        trainer.prepare(task, model, lambda text: None)
        trainer.fit(task, model, checked.make_optimizer, _NoFolder(), SilentDisplay(), signals)
