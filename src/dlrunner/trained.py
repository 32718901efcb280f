"""What a finished run has trained, read from its folder alone."""

from __future__ import annotations

from typing import Any

from dlrunner.dispatch import Plan, plan
from dlrunner.errors import RequestError
from dlrunner.model import Model
from dlrunner.runs import FinishedRun, load_weights_file


def load_models(finished: FinishedRun, checkpoint: str = "last.pt") -> tuple[Plan, dict[str, Any], list[Model]]:
    """Build the models of a finished run from its folder alone, on the CPU.

    Returns its plan, the stored state of its task, and one model (several for an ensemble).

    Raises:
        RequestError: the run is not done, or stored nothing to predict with.
    """
    if not (finished.path / "task.pt").exists():
        raise RequestError(f"{finished.path} is {finished.status}: it has no trained model to use")
    checked = plan({**finished.config, "device": "cpu"})
    state: dict[str, Any] = load_weights_file(finished.path / "task.pt").get("task") or {}
    task_class: Any = checked.task.factory
    folders = (
        sorted((finished.path / "members").glob("*"), key=lambda path: int(path.name))
        if checked.settings.ensemble > 1
        else [finished.path]
    )
    early = checked.trainer.settings.get("early_stopping") and checkpoint == "last.pt"
    models = []
    for folder in folders:
        file = folder / ("best.pt" if early else checkpoint)
        if not file.exists():
            kept = ", ".join(sorted(f.name for f in folder.glob("*.pt") if f.name != "task.pt"))
            raise RequestError(f"{folder} has no {file.name}; it has {kept}")
        try:
            model = checked.build_model(task_class.dims_of(state))
            model.load_state_dict(load_weights_file(file)["model"])
        except (KeyError, TypeError, RuntimeError):
            raise RequestError(f"{file} does not hold the weights of this run's model") from None
        models.append(model.eval())
    return checked, state, models
