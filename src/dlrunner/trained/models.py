"""What a finished run has trained, read from its folder, or from the one it was exported to, alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrunner.dispatch import Plan, plan
from dlrunner.errors import RequestError
from dlrunner.model import Model
from dlrunner.runs import FinishedRun, load_weights_file
from dlrunner.trained.portable import STATE, read_state, read_weights, weights_file


def load_models(finished: FinishedRun, checkpoint: str = "last.pt") -> tuple[Plan, dict[str, Any], list[Model]]:
    """Build the models of a finished run from its folder alone, on the CPU.

    Returns its plan, the stored state of its task, and one model (several for an ensemble).

    Raises:
        RequestError: the run is not done, stored nothing to predict with, or its files are damaged.
    """
    exported = is_exported(finished.path)
    if not exported and not (finished.path / "task.pt").exists():
        raise RequestError(f"{finished.path} is {finished.status}: it has no trained model to use")
    checked = plan({**finished.config, "device": "cpu"})
    if exported:
        if checkpoint != "last.pt":
            raise RequestError(f"{finished.path} was exported: it holds no {checkpoint}, only what the run ended with")
        state, count = read_state(finished.path)
        files = [finished.path / weights_file(place, count) for place in range(count)]
    else:
        state = load_weights_file(finished.path / "task.pt").get("task") or {}
        files = _checkpoints(finished.path, checked, checkpoint)
    task_class: Any = checked.task.factory
    models = []
    for file in files:
        try:
            model = checked.build_model(task_class.dims_of(state))
            if exported:
                read_weights(model, file)
            else:
                model.load_state_dict(load_weights_file(file)["model"])
        except (KeyError, TypeError, RuntimeError):
            raise RequestError(f"{file} does not hold the weights of this run's model") from None
        models.append(model.eval())
    return checked, state, models


def is_exported(folder: Path) -> bool:
    """Tell whether a folder was written by `dlrun export`."""
    return (folder / STATE).is_file()


def unnamed_plugins(config: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
    """Return the modules that a run imports and that who reads it has not named.

    A folder that came from elsewhere executes nothing by being read.
    """
    return [plugin for plugin in config.get("plugins") or [] if plugin not in allowed]


def _checkpoints(path: Path, checked: Plan, checkpoint: str) -> list[Path]:
    """Return the file of each member; with early stopping what was best stands for what was last."""
    ensemble = checked.settings.ensemble > 1
    folders = sorted((path / "members").glob("*"), key=lambda member: int(member.name)) if ensemble else [path]
    early = checked.trainer.settings.get("early_stopping") and checkpoint == "last.pt"
    files = [folder / ("best.pt" if early else checkpoint) for folder in folders]
    for file in files:
        if not file.exists():
            kept = ", ".join(sorted(each.name for each in file.parent.glob("*.pt") if each.name != "task.pt"))
            raise RequestError(f"{file.parent} has no {file.name}; it has {kept}")
    return files
