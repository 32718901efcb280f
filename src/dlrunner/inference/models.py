"""What a finished run has trained, read from its folder, or from the one it was exported to, alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dlrunner.config.plan import Plan, plan
from dlrunner.errors import ConfigError, DlrunnerError, RunError
from dlrunner.inference.portable import STATE, read_state, read_weights, weights_file
from dlrunner.model import Model
from dlrunner.predictor import Predictor
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.runs.reader import FinishedRun, own_file, shorter


def load_models(finished: FinishedRun, checkpoint: str = "last.pt") -> tuple[Plan, dict[str, Any], list[Model]]:
    """Build the models of a finished run from its folder alone, on the CPU.

    Returns its plan, the stored state of its task, and one model (several for an ensemble).

    Raises:
        ConfigError: the run is not done, stored nothing to predict with, or its files are of another run.
        RunError: a checkpoint is damaged.
    """
    path, shown = finished.path, shorter(finished.path)
    if finished.status != "done":
        why = f": {said}" if (said := (finished.summary or {}).get("error")) else ""
        again = "" if finished.status == "failed" else "; its command, given again, goes on"
        raise ConfigError(f"{shown} is {finished.status}{why}; only a finished run can be used{again}")
    checked = plan_for_answers(finished.config)
    predictor = predictor_of(checked)
    exported = is_exported(path)
    if not exported and not (path / "task.pt").exists():
        raise ConfigError(f"{shown} has no task.pt: nothing was stored that an answer could be made from")
    if exported:
        if checkpoint != "last.pt":
            raise ConfigError(f"{shown} was exported: it holds no {checkpoint}, only what the run ended with")
        state, count = read_state(path)
        files = [path / weights_file(place, count) for place in range(count)]
    else:
        state = load_weights_file(path / "task.pt").get("task") or {}
        files = _checkpoints(path, checked, checkpoint)
    models = []
    for file in files:
        model = _built(checked, predictor, state, path)
        weights = None if exported else load_weights_file(file)
        try:
            if weights is None:
                read_weights(model, file)
            else:
                model.load_state_dict(weights["model"])
        except (SafetensorError, OSError) as error:
            raise RunError(f"{shorter(file)} is damaged, or cannot be read ({error})") from None
        except (KeyError, TypeError, RuntimeError):
            raise ConfigError(f"{shorter(file)} does not hold the weights of this run's model") from None
        models.append(model.eval())
    return checked, state, models


def plan_for_answers(config: Mapping[str, Any]) -> Plan:
    """Check a finished run's configuration as far as its answers rest on it.

    They are given on the CPU and in full precision, in which weights are kept: a run in fp16 needed a GPU, its answers
    do not. Nobody is told of them, so what is gone of a tracker is not missed.
    """
    return plan({**without_trackers(config), "device": "cpu", "precision": "fp32"})


def predictor_of(checked: Plan) -> type[Predictor]:
    """Return the class that answers for the runs of a task.

    Raises:
        ConfigError: the task has none.
    """
    task: Any = checked.task.factory
    found: type[Predictor] | None = task.predictor
    if found is None:
        raise ConfigError(f"{task.__name__} has no predictor: its runs can be shown and compared, but asked nothing")
    return found


def without_trackers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without trackers, and without the modules in `plugins` that only a tracker is from.

    >>> trackers = {"mine": {"_target_": "seen.Mine"}}
    >>> config = {"model": {"_target_": "nets.Net"}, "plugins": ["nets", "seen"], "log": {"trackers": trackers}}
    >>> without_trackers(config)
    {'model': {'_target_': 'nets.Net'}, 'plugins': ['nets'], 'log': {'trackers': {}}}
    """
    log = config.get("log")
    if not isinstance(log, Mapping) or not log.get("trackers"):
        return dict(config)
    plugins = config.get("plugins") or []
    rest = {**config, "log": {**log, "trackers": {}}}
    theirs, others = (list(_texts(part)) for part in (log["trackers"], {**rest, "plugins": []}))
    kept = [each for each in plugins if _is_named(each, others) or not _is_named(each, theirs)]
    return {**rest, "plugins": kept}


def is_exported(folder: Path) -> bool:
    """Tell whether a folder was written by `dlrun export`."""
    return (folder / STATE).is_file()


def unnamed_plugins(config: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
    """Return the modules that a run imports and that who reads it has not named.

    A folder that came from elsewhere executes nothing by being read.
    """
    return [plugin for plugin in config.get("plugins") or [] if plugin not in allowed]


def _built(checked: Plan, predictor: type[Predictor], state: Mapping[str, Any], path: Path) -> Model:
    """Return the model, its weights still at random."""
    try:
        return checked.build_model(predictor.dims(state))
    except DlrunnerError:
        raise
    except Exception as error:  # it may be anybody's model; the cause is kept for whoever wrote it
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{checked.model.target} cannot be built from what {shorter(path)} has stored ({said})"
        ) from error


def _checkpoints(path: Path, checked: Plan, checkpoint: str) -> list[Path]:
    """Return the file of each member; with early stopping what was best stands for what was last."""
    ensemble = checked.settings.ensemble > 1
    folders = [own_file(path, f"members/{i}") for i in range(checked.settings.ensemble)] if ensemble else [path]
    early = checked.trainer.settings.get("early_stopping") and checkpoint == "last.pt"
    files = [folder / ("best.pt" if early else checkpoint) for folder in folders]
    for file in files:
        if not file.exists():
            kept = ", ".join(sorted(each.name for each in file.parent.glob("*.pt") if each.name != "task.pt"))
            raise ConfigError(f"{shorter(file.parent)} has no {file.name}; it has {kept}")
    return files


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts of a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def _is_named(module: str, texts: Sequence[str]) -> bool:
    """Tell whether one of the texts is the name of something in a module."""
    return any(text.startswith(f"{module}.") for text in texts)
