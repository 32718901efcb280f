"""Loading the models of a finished or exported run from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dlrunner.config.plan import Plan, plan
from dlrunner.errors import ConfigError, DlrunnerError, RunError
from dlrunner.inference.plugins import without_trackers
from dlrunner.inference.portable import STATE, read_state, read_weights, weights_file
from dlrunner.model import Model
from dlrunner.predictor import Predictor
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.runs.reader import REPAIR, FinishedRun, own_file, shorter


def load_models(finished: FinishedRun, checkpoint: str | None = None) -> tuple[Plan, dict[str, Any], list[Model]]:
    """Build the models of a finished run from its folder alone, on the CPU.

    Returns the plan, the stored state of the task, and one model (several for an ensemble).

    Raises:
        ConfigError: the run is unfinished, has no stored state, or its files belong to another run.
        RunError: a checkpoint is damaged.
    """
    path, shown = finished.path, shorter(finished.path)
    if finished.status != "done":
        why = f": {message}" if (message := (finished.summary or {}).get("error")) else ""
        again = "" if finished.status == "failed" else "; its command, given again, resumes it"
        raise ConfigError(f"{shown} is {finished.status}{why}; only a finished run can be used{again}")
    checked = inference_plan(finished.config)
    predictor = predictor_of(checked)
    exported = is_exported(path)
    if not exported and not (path / "task.pt").exists():
        raise ConfigError(f"{shown} has no task.pt: no state was stored for predictions")
    if exported:
        if checkpoint is not None:
            raise ConfigError(f"{shown} was exported: it has no {checkpoint}, only the final weights")
        state, count = read_state(path)
        files = [path / weights_file(index, count) for index in range(count)]
    else:
        state = _load(path / "task.pt").get("task") or {}
        files = _checkpoints(path, checked, checkpoint)
    models = []
    for file in files:
        model = _build_model(checked, predictor, state, path)
        weights = None if exported else _load(file)
        try:
            if weights is None:
                read_weights(model, file)
            else:
                model.load_state_dict(weights["model"])
        except (SafetensorError, OSError) as error:
            raise RunError(f"{shorter(file)} is damaged or cannot be read ({error})") from None
        except (KeyError, TypeError, RuntimeError):
            raise ConfigError(f"{shorter(file)} does not hold the weights of this run's model") from None
        models.append(model.eval())
    return checked, state, models


def _load(file: Path) -> dict[str, Any]:
    try:
        return load_weights_file(file)
    except RunError as error:
        raise RunError(f"{error}; {REPAIR}") from None


def inference_plan(config: Mapping[str, Any]) -> Plan:
    """Return the plan of a finished run for inference: on the CPU, in float32, without trackers.

    Weights are stored in float32: a run in fp16 needed a GPU, its predictions do not. Trackers that are no longer
    installed do not matter.
    """
    return plan({**without_trackers(config), "device": "cpu", "precision": "fp32"})


def predictor_of(checked: Plan) -> type[Predictor]:
    """Return the predictor class of a task.

    Raises:
        ConfigError: the task has none.
    """
    task: Any = checked.task.factory
    found: type[Predictor] | None = task.predictor
    if found is None:
        raise ConfigError(
            f"{task.__name__} has no predictor: its runs can be shown and compared, but not used for predictions"
        )
    return found


def is_exported(folder: Path) -> bool:
    """Return whether a folder was written by `dlrun export`."""
    return (folder / STATE).is_file()


def _build_model(checked: Plan, predictor: type[Predictor], state: Mapping[str, Any], path: Path) -> Model:
    """Return the model with random weights."""
    try:
        return checked.build_model(predictor.dims(state))
    except DlrunnerError:
        raise
    except (SystemExit, Exception) as error:  # of a user's model; the cause is kept for its author
        cause = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{checked.model.target} cannot be built from what {shorter(path)} has stored ({cause})"
        ) from error


def _checkpoints(path: Path, checked: Plan, checkpoint: str | None) -> list[Path]:
    """Return the checkpoint of each member; None: of the weights that the run was evaluated with."""
    ensemble = checked.settings.ensemble > 1
    folders = [own_file(path, f"members/{i}") for i in range(checked.settings.ensemble)] if ensemble else [path]
    name = checkpoint or ("best.pt" if checked.keeps_best else "last.pt")
    files = [folder / name for folder in folders]
    for file in files:
        if not file.exists():
            kept = ", ".join(sorted(each.name for each in file.parent.glob("*.pt") if each.name != "task.pt"))
            advice = f"it has {kept}" if kept else REPAIR
            raise ConfigError(f"{shorter(file.parent)} has no {file.name}; {advice}")
    return files
