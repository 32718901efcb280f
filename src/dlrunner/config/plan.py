"""The validated plan of a run: each section of the configuration is bound to the signature of its class.

All errors of a request are reported together, before any data is read; each names the setting and suggests the most
similar name.
"""

from __future__ import annotations

import functools
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import nn

from dlrunner.config.binding import Bound, bind, constructor, import_plugin, parameters_of
from dlrunner.config.devices import automatic_precision, resolve_device
from dlrunner.config.optimizers import check_optimizer, make_optimizer
from dlrunner.config.phases import bind_schedule, check_groups, check_momentum, check_phase_settings, resolve_phases
from dlrunner.config.schema import PhaseSettings, Settings, validation_messages
from dlrunner.config.suggestions import PROVIDED, suggest_setting
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.model import Model
from dlrunner.schedules import Phase
from dlrunner.system.process_group import SingleProcess
from dlrunner.system.torchrun import num_processes
from dlrunner.task import Data, Task
from dlrunner.tracker import Tracker
from dlrunner.training import Trainer
from dlrunner.training.distributed import DistributedTrainer
from dlrunner.training.loop import keeps_best

CONSTANT = "dlrunner.schedules.constant"
UNDECIDED_BATCH_SIZE = 64
"""Of a task that only reads its data, to recommend another one."""


@dataclass(frozen=True)
class Plan:
    """A validated configuration; nothing is built yet."""

    config: dict[str, Any]
    settings: Settings
    data: Bound | None
    task: Bound
    model: Bound
    optim: Bound
    trainer: Bound
    phases: tuple[Phase, ...]
    device: torch.device
    trackers: Mapping[str, Bound]
    undecided: tuple[str, ...] = ()
    """Names of the settings that are `auto`; they have to be decided before training."""
    precision_reason: str = ""
    """Why `precision=auto` became what `config` and `settings` say; empty where a precision was typed."""

    @property
    def signature(self) -> str:
        """Eight hex digits of a hash of all settings that can change the result."""
        return _digest(self._identity(with_epochs=True))

    @property
    def lineage(self) -> str:
        """As the signature, without the number of epochs; empty unless the first epochs do not depend on it."""
        schedules = [node["_target_"] for node in self._schedules()]
        if schedules != [CONSTANT] or self.trainer.settings.get("early_stopping") or self.undecided:
            return ""
        return _digest(self._identity(with_epochs=False))

    def _identity(self, *, with_epochs: bool) -> dict[str, Any]:
        kept = {"seed", "batch_size", "precision", "ensemble"}
        trainer = {k: v for k, v in self.trainer.complete().items() if k not in Trainer.not_in_signature}
        identity = {
            **{key: getattr(self.settings, key) for key in kept},
            "phases": [
                {"lr": list(p.lr), "freeze_to": p.freeze_to, "schedule": s, "task": dict(p.task)}
                | ({"epochs": p.epochs} if with_epochs else {})
                | ({"new_optimizer": True} if p.new_optimizer else {})
                for p, s in zip(self.phases, self._schedules(), strict=True)
            ],
            "data": self.data.complete() if self.data else None,
            "task": self.task.complete(),
            "model": self.model.complete(),
            "optim": self.optim.complete(),
            "trainer": trainer,
        }
        if self.undecided:
            identity["auto"] = list(self.undecided)
        if self.settings.init:
            identity["init"] = self.settings.init
        return identity

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best epoch are used in the end, rather than those of the last one."""
        return keeps_best(self.trainer.settings.get("early_stopping"), self.trainer.settings.get("keep"))

    @property
    def batch_size(self) -> int:
        """Training examples in a batch."""
        return UNDECIDED_BATCH_SIZE if self.settings.batch_size == "auto" else self.settings.batch_size

    def by_name(self) -> dict[str, Any]:
        """Return the settings of data, task, model and optimizer by dotted name, the signatures' defaults filled in.

        With `batch_size`, and, unless phases set them, `epochs` and `freeze_to`; what is not decided yet is `auto`.
        """
        sections = {"data": self.data, "task": self.task, "model": self.model, "optim": self.optim}
        found = {
            f"{section}.{name}": value
            for section, bound in sections.items()
            for name, value in (bound.complete() if bound else {}).items()
        }
        own = ("batch_size",) if self.settings.phases else ("batch_size", "epochs", "freeze_to")
        return {**found, **{name: getattr(self.settings, name) for name in own}}

    @property
    def data_dir(self) -> Path:
        """The folder of published data and pre-trained weights."""
        return user_path(self.settings.data_dir)

    def _schedules(self) -> list[dict[str, Any]]:
        entries = self.settings.phases or [PhaseSettings(epochs=1)]
        nodes = [self.settings.schedule if e.schedule is None else e.schedule for e in entries]
        return [bind_schedule("schedule", node, self.settings.plugins, []).complete() for node in nodes]

    def build_data(self) -> Data | None:
        """Return the data object, which reads nothing yet."""
        if self.data is None:
            return None
        built: Data = self.data(data_dir=self.data_dir)
        return built

    def model_files(self) -> Sequence[Path]:
        """Return the files with the model's pre-trained weights."""
        files: Sequence[Path] = self.model.factory.files(self.model.complete(), self.data_dir)  # type: ignore[attr-defined]
        return files

    def check_model_files(self) -> None:
        """Check that the model's pre-trained weights fit it, before data is read.

        Raises:
            ConfigError: they do not.
            DataError: the file is damaged.
        """
        self.model.factory.check_files(self.model.complete(), self.data_dir)  # type: ignore[attr-defined]

    def build_task(self, data: Data | None, seed: int) -> Task:
        """Return the task with its data."""
        built: Task = self.task(
            data=data, batch_size=self.batch_size, seed=seed, device=self.device, phases=self.phases
        )
        return built

    def build_model(self, dims: Any) -> Model:
        """Return the model for the sizes of the data; seed the random generators first."""
        built: Model = self.model(dims=dims, data_dir=self.data_dir)
        return built

    def make_optimizer(self, groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        """Return the optimizer for these layer groups."""
        return make_optimizer(self.optim, self.phases, groups, self.device, cpu_tuning=_is_tuned(self.trainer))

    def build_trainer(self, seed: int, group: SingleProcess | None = None) -> Trainer:
        """Return the training loop, for a single process or one of several."""
        provided = {"phases": self.phases, "device": self.device, "precision": self.settings.precision, "seed": seed}
        if group is None or group.size == 1:
            built: Trainer = self.trainer(**provided)
            return built
        factory: Any = self.trainer.factory  # a plugin's may be a subclass of Trainer
        if factory is not Trainer:
            factory = type(factory.__name__, (DistributedTrainer, factory), {})
        return cast(
            Trainer,
            (DistributedTrainer if factory is Trainer else factory)(**provided, group=group, **self.trainer.settings),
        )


def plan(config: Mapping[str, Any]) -> Plan:
    """Validate a configuration and bind each section to its class.

    Args:
        config: plain dicts and lists, as composed from the YAML files and the command line.

    Raises:
        ConfigError: the configuration is invalid; the message has one line per error.
    """
    problems: list[str] = []
    settings = _check_top_level(config, problems)
    if settings is None:
        raise ConfigError("\n".join(problems))
    plugins = settings.plugins
    for plugin in plugins:
        import_plugin(plugin, problems)

    data = None
    if settings.data is not None:
        data = bind("data", settings.data, Data, PROVIDED["data"], plugins, problems)
    task = bind("task", settings.task, Task, PROVIDED["task"], plugins, problems)
    model = bind("model", settings.model, Model, PROVIDED["model"], plugins, problems)
    optim = bind("optim", settings.optim, torch.optim.Optimizer, PROVIDED["optim"], plugins, problems)
    trainer = bind("trainer", settings.trainer, Trainer, PROVIDED["trainer"], plugins, problems)
    provided = PROVIDED["log.trackers"]
    trackers = {
        name: bind(f"log.trackers.{name}", node, Tracker, provided, plugins, problems)
        for name, node in settings.log.trackers.items()
    }
    if model and not problems:
        _check_hooks(model, problems)
    if model and not problems:
        try:
            model.factory.check(model.complete())  # type: ignore[attr-defined]
        except ValueError as error:
            problems.append(str(error))
    if optim and "lr" not in settings.optim:
        problems.append("optim.lr: is missing")
    if task and data is None and "data" in parameters_of(task.factory):
        problems.append(f"data: is missing: {task.target} needs data")
    if task and model and not problems:
        _check_fit(task, model, settings.choices, problems)
    if isinstance(settings.batch_size, int) and settings.batch_size < num_processes():
        problems.append(f"batch_size: {settings.batch_size} cannot be divided among {num_processes()} processes")
    phases = resolve_phases(settings, problems)
    undecided = _undecided(settings, task, problems) if task else ()
    if optim and not problems:
        check_momentum(optim, phases, problems)
    if task and not problems:
        _check_methods(task, problems)
        check_phase_settings(task, phases, problems)
    device = resolve_device(settings, problems)
    if optim and trainer and device and not problems:
        check_optimizer(optim, device, problems, cpu_tuning=_is_tuned(trainer))
    # What the task checks against each other is checked again once it is decided.
    checkable = not any(name == "freeze_to" or name.startswith("task.") for name in undecided)
    if task and phases and checkable and not problems:
        try:
            task.factory.check(task.complete(), phases)  # type: ignore[attr-defined]
        except ValueError as error:
            problems.append(str(error))
    if model and optim and not problems:
        groups = model.factory.groups_of(model.complete())  # type: ignore[attr-defined]
        if groups:
            check_groups(optim, phases, len(groups), groups, problems)
    if problems or not (task and model and optim and trainer and device):
        raise ConfigError("\n".join(problems))
    bound = {name: tracker for name, tracker in trackers.items() if tracker}
    composed, reason = dict(config), ""
    if settings.precision == "auto":
        precision, reason = automatic_precision(device, getattr(task.factory, "good_in_bf16"))  # noqa: B009
        composed["precision"], settings = precision, settings.model_copy(update={"precision": precision})
    return Plan(composed, settings, data, task, model, optim, trainer, phases, device, bound, undecided, reason)


def _is_tuned(trainer: Bound) -> bool:
    """Return whether steps on a CPU leave out what only the compiler needs."""
    return bool(trainer.settings.get("cpu_tuning", True) and not trainer.settings.get("compile"))


def _check_top_level(config: Mapping[str, Any], problems: list[str]) -> Settings | None:
    try:
        return Settings.model_validate(dict(config))
    except ValidationError as error:
        problems.extend(validation_messages("", error, config, Settings, functools.partial(suggest_setting, config)))
        return None


def _undecided(settings: Settings, task: Bound, problems: list[str]) -> tuple[str, ...]:
    """Return the names of the settings that are `auto`; refuse those that this task cannot decide."""
    possible = tuple(getattr(task.factory, "auto_settings", ()))
    sections = {"data": settings.data, "task": settings.task, "model": settings.model, "optim": settings.optim}
    values = {name: (sections.get(name.partition(".")[0]) or {}).get(name.partition(".")[2]) for name in possible}
    values |= {"batch_size": settings.batch_size, "optim.lr": settings.optim.get("lr")}
    values |= {"epochs": settings.epochs, "freeze_to": settings.freeze_to} if not settings.phases else {}
    found = [name for name, value in values.items() if value == "auto"]
    problems += [
        f"{name}: must be a number: {task.target} does not decide it from the data"
        for name in found
        if name not in (*possible, "optim.lr")
    ]
    return tuple(sorted(found))


def _check_methods(task: Bound, problems: list[str]) -> None:
    """Refuse a task of a plugin whose methods do not take what they are called with, or of which one is missing."""
    calls = {
        "batches(split, epoch, phase, start=0)": ("phase", "start"),
        "tta_batches(split, view, phase)": ("view", "phase"),
        "plots(models, outputs, folder, phase)": ("phase",),
        "state(phase)": ("phase",),
    }
    for call, names in calls.items():
        method = call.partition("(")[0]
        parameters = parameters_of(getattr(task.factory, method))
        missing = [name for name in names if name not in parameters]
        if missing and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            problems.append(f"task: {task.target}.{method} takes no {' and no '.join(missing)}: it must be {call}")
    tta = {name for name in ("num_tta_views", "tta_batches") if getattr(task.factory, name) is not getattr(Task, name)}
    if tta == {"num_tta_views"}:
        problems.append(f"task: {task.target} has num_tta_views but no tta_batches(split, view, phase)")
    tried = {
        name for name in ("alternatives", "on_training_rows") if getattr(task.factory, name) is not getattr(Task, name)
    }
    if tried == {"alternatives"}:
        problems.append(f"task: {task.target} has alternatives but no on_training_rows() to compare them on")


def _check_hooks(model: Bound, problems: list[str]) -> None:
    """Refuse a plugin's model that defines a method which is no longer called: its penalty or state would be lost."""
    removed = [name for name in ("penalty", "carried", "reset_state") if hasattr(model.factory, name)]
    if removed:
        problems.append(
            f"model: {model.target}.{removed[0]} is no longer called; "
            "return Outputs(outputs, hidden, penalty) from forward instead"
        )


def _check_fit(task: Bound, model: Bound, choices: Mapping[str, str | None], problems: list[str]) -> None:
    """Compare the type of the task's `dims` with the one that the model takes."""
    dims = getattr(task.factory, "dims")  # noqa: B009
    provided = typing.get_type_hints(getattr(dims, "fget", None) or getattr(dims, "func", dims)).get("return")
    required = typing.get_type_hints(constructor(model.factory)).get("dims")
    if isinstance(provided, type) and isinstance(required, type) and not issubclass(provided, required):
        problems.append(
            f"model: {choices.get('model') or model.target} does not fit task {choices.get('task') or task.target}: "
            f"it takes {required.__name__}, the task provides {provided.__name__}"
        )


def _digest(identity: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(identity), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _canonical(value: Any) -> Any:
    """Return equal settings in the same form: 1 and 1.0, tuples and lists."""
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
