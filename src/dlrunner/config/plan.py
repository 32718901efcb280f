"""From configuration to objects: binds the arguments of each section to a signature, refuses what does not fit.

All mistakes of a request are reported together, each with its place and the nearest name that exists, before
any data is read.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import nn

from dlrunner.config.schema import OPTIMIZER_SETTINGS, PhaseSettings, Settings, sentences
from dlrunner.errors import RequestError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.model import Model
from dlrunner.schedules import Curves, Phase
from dlrunner.system.cpu_tuning import is_stock, leave_the_compiler_out, shorten_step
from dlrunner.system.process_group import SingleProcess, local_rank, num_processes
from dlrunner.task import Data, Task
from dlrunner.tracker import Tracker
from dlrunner.training import Trainer
from dlrunner.training.distributed import DistributedTrainer


@dataclass(frozen=True)
class Bound:
    """A class or function with checked settings; call it with what the rest of the run provides."""

    target: str
    factory: Callable[..., Any]
    settings: dict[str, Any]

    def __call__(self, **provided: Any) -> Any:
        """Build the object, handing it only what its signature asks for."""
        wanted = inspect.signature(self.factory).parameters
        return self.factory(**{k: v for k, v in provided.items() if k in wanted}, **self.settings)

    def complete(self) -> dict[str, Any]:
        """Return the settings with the signature's defaults filled in: what identifies the object."""
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(self.factory).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        return {"_target_": self.target, **defaults, **self.settings}


@dataclass(frozen=True)
class Plan:
    """What a configuration asks for: checked, and nothing built yet."""

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

    @property
    def signature(self) -> str:
        """Eight hex digits of all that can change the result."""
        kept = {"seed", "batch_size", "precision", "ensemble"}
        trainer = {k: v for k, v in self.trainer.complete().items() if k not in Trainer.not_in_signature}
        identity = {
            **{key: getattr(self.settings, key) for key in kept},
            "phases": [
                {"epochs": p.epochs, "lr": list(p.lr), "freeze_to": p.freeze_to, "schedule": s, "task": dict(p.task)}
                for p, s in zip(self.phases, self._schedules(), strict=True)
            ],
            "data": self.data.complete() if self.data else None,
            "task": self.task.complete(),
            "model": self.model.complete(),
            "optim": self.optim.complete(),
            "trainer": trainer,
        }
        text = json.dumps(_canonical(identity), sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def data_dir(self) -> Path:
        """Where published data, and weights, are looked for."""
        return user_path(self.settings.data_dir)

    def _schedules(self) -> list[dict[str, Any]]:
        entries = self.settings.phases or [PhaseSettings(epochs=1)]
        nodes = [self.settings.schedule if e.schedule is None else e.schedule for e in entries]
        return [_bind_schedule("schedule", node, self.settings.plugins, []).complete() for node in nodes]

    def build_data(self) -> Data | None:
        """Return the data object; it reads nothing yet."""
        if self.data is None:
            return None
        built: Data = self.data(data_dir=self.data_dir)
        return built

    def model_files(self) -> Sequence[Path]:
        """Return the files whose weights the model starts from."""
        found: Sequence[Path] = self.model.factory.files(self.model.complete(), self.data_dir)  # type: ignore[attr-defined]
        return found

    def build_task(self, data: Data | None, seed: int) -> Task:
        """Return the task on its data."""
        built: Task = self.task(data=data, batch_size=self.settings.batch_size, seed=seed, device=self.device)
        return built

    def build_model(self, dims: Any) -> Model:
        """Return the model for sizes that came from the data; seed the generators first."""
        built: Model = self.model(dims=dims, data_dir=self.data_dir)
        return built

    def make_optimizer(self, groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        """Return the optimizer, fused where torch has it.

        It has one parameter group per layer group where their rates or decays differ, else a single one: a step
        over two groups takes a tenth longer than over one.
        """
        decay = self.optim.settings.get("weight_decay")
        if not isinstance(decay, list) and all(len(phase.lr) == 1 for phase in self.phases):
            groups = [nn.ModuleList(groups)]
        rates = _one_per_group(self.phases[0].lr, len(groups), "optim.lr")
        settings = {**self.optim.settings, "lr": rates[0]}
        params = [{"params": list(group.parameters()), "lr": lr} for group, lr in zip(groups, rates, strict=True)]
        if isinstance(decay, list):
            for group, each in zip(params, _one_per_group(decay, len(groups), "optim.weight_decay"), strict=True):
                group["weight_decay"] = each
            settings["weight_decay"] = decay[0]
        if "betas" in settings:
            settings["betas"] = tuple(settings["betas"])
        accepted, kind = inspect.signature(self.optim.factory).parameters, self.device.type
        if settings.get("foreach") is not None:
            pass  # asked for
        elif "fused" in accepted and (
            kind == "cpu" or (kind == "cuda" and self.optim.factory is not torch.optim.Adagrad)
        ):
            settings.setdefault("fused", True)
        elif "foreach" in accepted and settings.get("fused") is None:
            settings["foreach"] = True
        tuned = self.trainer.settings.get("cpu_tuning", True) and kind == "cpu" and is_stock(self.optim.factory)
        if not tuned or self.trainer.settings.get("compile"):
            plain: torch.optim.Optimizer = self.optim.factory(params, **settings)
            return plain
        leave_the_compiler_out()
        optimizer: torch.optim.Optimizer = self.optim.factory(params, **settings)
        shorten_step(optimizer)
        return optimizer

    def build_trainer(self, seed: int, group: SingleProcess | None = None) -> Trainer:
        """Return the training loop, for a single process or one of several."""
        provided = {"phases": self.phases, "device": self.device, "precision": self.settings.precision, "seed": seed}
        if group is None or group.size == 1:
            built: Trainer = self.trainer(**provided)
            return built
        factory: Any = self.trainer.factory  # of a plugin, it may be derived from the usual one
        if factory is not Trainer:
            factory = type(factory.__name__, (DistributedTrainer, factory), {})
        return cast(
            Trainer,
            (DistributedTrainer if factory is Trainer else factory)(**provided, group=group, **self.trainer.settings),
        )


def plan(config: Mapping[str, Any]) -> Plan:
    """Check a whole configuration and bind each section to its class.

    Args:
        config: plain dicts and lists, as composed from the YAML files and the command line.

    Raises:
        RequestError: anything does not fit; the message has one line per mistake.
    """
    problems: list[str] = []
    settings = _check_top_level(config, problems)
    if settings is None:
        raise RequestError("\n".join(problems))
    plugins = settings.plugins
    for plugin in plugins:
        _import_plugin(plugin, problems)

    data = None
    if settings.data is not None:
        data = _bind("data", settings.data, Data, {"data_dir"}, plugins, problems)
    task = _bind("task", settings.task, Task, {"data", "batch_size", "seed", "device"}, plugins, problems)
    model = _bind("model", settings.model, Model, {"dims", "data_dir"}, plugins, problems)
    optim = _bind("optim", settings.optim, torch.optim.Optimizer, {"params"}, plugins, problems)
    provided = {"phases", "device", "precision", "seed"}
    trainer = _bind("trainer", settings.trainer, Trainer, provided, plugins, problems)
    nodes = settings.log.trackers.items()
    trackers = {name: _bind(f"log.trackers.{name}", node, Tracker, set(), plugins, problems) for name, node in nodes}
    if model and not problems:
        try:
            model.factory.check(model.complete())  # type: ignore[attr-defined]
        except ValueError as error:
            problems.append(str(error))
    if optim and "lr" not in settings.optim:
        problems.append("optim.lr: is missing")
    if task and data is None and "data" in inspect.signature(task.factory).parameters:
        problems.append(f"data: is missing: {task.target} works on data")
    if task and model and not problems:
        _check_fit(task, model, settings.choices, problems)
    if task and settings.ensemble > 1 and not getattr(task.factory, "keeps_outputs", True):
        problems.append("ensemble: this task keeps no outputs, which would have to be averaged; take 1")
    if settings.batch_size < num_processes():
        problems.append(f"batch_size: {settings.batch_size} cannot be divided among {num_processes()} processes")
    phases = _phases(settings, problems)
    if optim and not problems:
        _check_momentum(optim, phases, problems)
    if task and not problems:
        _check_batches(task, problems)
    device = _device(settings, problems)
    if task and phases and not problems:
        try:
            task.factory.check(task.complete(), phases)  # type: ignore[attr-defined]
        except ValueError as error:
            problems.append(str(error))
    groups = getattr(model.factory, "group_names", None) if model else None
    if groups and optim and not problems:
        _check_groups(phases, optim.settings.get("weight_decay"), groups, problems)
    if problems or not (task and model and optim and trainer and device):
        raise RequestError("\n".join(problems))
    bound = {name: tracker for name, tracker in trackers.items() if tracker}
    return Plan(dict(config), settings, data, task, model, optim, trainer, phases, device, bound)


def _check_top_level(config: Mapping[str, Any], problems: list[str]) -> Settings | None:
    try:
        return Settings.model_validate(dict(config))
    except ValidationError as error:
        problems.extend(sentences("", error, config, Settings))
        return None


def _bind(
    section: str,
    node: Mapping[str, Any],
    kind: type,
    provided: set[str],
    plugins: Sequence[str],
    problems: list[str],
) -> Bound | None:
    """Bind one section's settings to the signature of the class that its `_target_` names."""
    target = node.get("_target_")
    if not isinstance(target, str):
        problems.append(f"{section}._target_: is missing: it names the class of the {section}")
        return None
    try:
        factory = _locate(target, plugins)
    except RequestError as error:
        problems.append(f"{section}._target_: {error}")
        return None
    if not (isinstance(factory, type) and issubclass(factory, kind)):
        problems.append(f"{section}._target_: {target} is not a {kind.__name__}")
        return None
    return _bind_settings(section, target, factory, node, provided, problems)


def _bind_settings(
    section: str,
    target: str,
    factory: Callable[..., Any],
    node: Mapping[str, Any],
    provided: set[str],
    problems: list[str],
) -> Bound:
    parameters = inspect.signature(factory).parameters
    try:
        hints = _hints(factory)
    except NameError as error:
        problems.append(f"{section}: the annotations of {target} cannot be read: {error}")
        hints = {}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    known = [
        name
        for name, parameter in parameters.items()
        if name not in provided
        and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    settings = {}
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in known and not takes_any:
            problems.append(f"{section}.{key}: {target} has no such setting; {did_you_mean(str(key), known)}")
            continue
        if key in hints:
            try:
                TypeAdapter(hints[key], config=_adapter_config(hints[key])).validate_python(value, strict=True)
            except ValidationError as error:
                problems.extend(sentences(f"{section}.{key}", error, value, None))
                continue
        settings[str(key)] = value
    for name in known:
        missing = parameters[name].default is inspect.Parameter.empty and name not in node
        if missing:
            problems.append(f"{section}.{name}: is missing: {target} needs it")
    return Bound(target, factory, settings)


def _hints(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Return what the settings are annotated with; torch's optimizers have ranges that no annotation tells."""
    if isinstance(factory, type) and issubclass(factory, torch.optim.Optimizer):
        return OPTIMIZER_SETTINGS
    return typing.get_type_hints(_constructor(factory), include_extras=True)


def _constructor(factory: Callable[..., Any]) -> Callable[..., Any]:
    constructor: Callable[..., Any] = getattr(factory, "__init__") if isinstance(factory, type) else factory  # noqa: B009
    return constructor


def _adapter_config(hint: Any) -> ConfigDict | None:
    """Pydantic refuses a configuration for types that carry their own."""
    is_model = isinstance(hint, type) and issubclass(hint, BaseModel)
    return None if is_model else ConfigDict(strict=True, arbitrary_types_allowed=True)


def _locate(target: str, plugins: Sequence[str]) -> Any:
    """Import what a dotted name stands for, from the places a configuration may name and no others.

    Raises:
        RequestError: the place is not allowed, or the name does not exist.
    """
    allowed = ("dlrunner", "torch.optim", *plugins)
    if not any(target.startswith(f"{place}.") for place in allowed):
        raise RequestError(
            f"{target} may not be used: only classes of dlrunner, of torch.optim and of the modules in plugins"
        )
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise RequestError(f"there is no module {module_name}") from None
    if not hasattr(module, name):
        kinds = (type, types.FunctionType)
        members = vars(module).items()
        public = [n for n, v in members if isinstance(v, kinds) and v.__module__ == module_name and n[0] != "_"]
        raise RequestError(f"{module_name} has no {name}; {did_you_mean(name, public)}")
    return getattr(module, name)


def _import_plugin(plugin: str, problems: list[str]) -> None:
    """Import a module that the user lists, from the working directory too."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(plugin)
    except ModuleNotFoundError as error:
        problems.append(f"plugins: there is no module {error.name} (looked in {here} and in what is installed)")
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        problems.append(f"plugins: {plugin} cannot be imported: {type(error).__name__}: {error}")


def _bind_schedule(place: str, node: str | Mapping[str, Any], plugins: Sequence[str], problems: list[str]) -> Bound:
    """Bind a schedule; a bare name, or a `_target_` without dots, is one of dlrunner.schedules."""
    node = {"_target_": node} if isinstance(node, str) else dict(node)
    target = str(node.get("_target_", ""))
    if "." not in target:
        target = f"dlrunner.schedules.{target}"
    try:
        factory = _locate(target, plugins)
        if not (isinstance(factory, types.FunctionType) and _returns(factory) is Curves):
            raise RequestError(f"{target} is not a schedule; {did_you_mean(target, _schedule_names())}")
    except RequestError as error:
        problems.append(f"{place}: {error}")
        return Bound(target, Curves, {})
    return _bind_settings(place, target, factory, {**node, "_target_": target}, {"epochs"}, problems)


def _returns(function: Callable[..., Any]) -> Any:
    """Return what a function says that it returns; None where its annotations cannot be read."""
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:  # anybody's function: names that are not there, expressions that fail
        return None


def _schedule_names() -> list[str]:
    module = importlib.import_module("dlrunner.schedules")
    functions = [(n, f) for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]
    return [name for name, function in functions if not name.startswith("_") and _returns(function) is Curves]


def _phases(settings: Settings, problems: list[str]) -> tuple[Phase, ...]:
    """Return the stretches of training: those of `phases`, or one of `epochs` epochs."""
    if settings.phases and settings.epochs:
        problems.append(
            f"epochs: the phases already say how long to train ({sum(p.epochs for p in settings.phases)} epochs); "
            "set epochs=null with phases, or phases=null with epochs"
        )
    if not settings.phases and not settings.epochs:
        problems.append("epochs: is missing: say for how many epochs to train")
        return ()
    entries = settings.phases or [PhaseSettings(epochs=settings.epochs or 1)]
    phases = []
    for index, entry in enumerate(entries):
        place = f"phases[{index}].schedule" if entry.schedule is not None else "schedule"
        node = settings.schedule if entry.schedule is None else entry.schedule
        found = len(problems)
        bound = _bind_schedule(place, node, settings.plugins, problems)
        if len(problems) > found:
            continue
        try:
            curves = bound(epochs=entry.epochs)
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        lr = entry.lr if entry.lr is not None else settings.optim.get("lr", 1.0)
        rates = tuple(lr) if isinstance(lr, list) else (lr,)
        freeze_to = settings.freeze_to if entry.freeze_to is None else entry.freeze_to
        phases.append(Phase(entry.epochs, curves, rates, freeze_to, entry.task))
    return tuple(phases)


USUAL_MOMENTUM = 0.9
"""SGD's momentum and Adam's first beta where nobody has asked for another."""


def _check_momentum(optim: Bound, phases: Sequence[Phase], problems: list[str]) -> None:
    """Refuse a momentum that the schedule would overrule."""
    if all(phase.curves.momentum is None for phase in phases):
        return
    betas, momentum = optim.settings.get("betas"), optim.settings.get("momentum")
    is_sgd = isinstance(optim.factory, type) and issubclass(optim.factory, torch.optim.SGD)
    if betas and betas[0] != USUAL_MOMENTUM:
        name, value, other = "optim.betas", betas[0], f"optim.betas=[{USUAL_MOMENTUM},{betas[1]}]"
    elif is_sgd and momentum is not None and momentum != USUAL_MOMENTUM:
        name, value, other = "optim.momentum", momentum, f"optim.momentum={USUAL_MOMENTUM}"
    else:
        return
    problems.append(
        f"{name}: the schedule moves the momentum, {value:g} would be overruled; add schedule.momentum=null to keep "
        f"it, or take {other}"
    )


def _check_batches(task: Bound, problems: list[str]) -> None:
    """Refuse a task of a plugin whose batches cannot begin in the midst of an epoch."""
    parameters = inspect.signature(task.factory.batches).parameters  # type: ignore[attr-defined]
    if "start" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        problems.append(
            f"task: {task.target}.batches takes no start: a run that resumes needs batches(split, epoch, start=0), "
            "where batches before start are left out"
        )


def _device(settings: Settings, problems: list[str]) -> torch.device | None:
    """Resolve `device`, refusing one that is not there."""
    name = settings.device
    if name == "auto":
        name = (
            "cuda" if torch.cuda.is_available() else "cpu"
        )  # an Apple GPU only where it is asked for: it has no float64
    if name == "cuda":
        name = f"cuda:{local_rank() or 0}"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        problems.append(f"device: {name!r} is unknown; take auto, cpu, cuda, cuda:1 or mps")
        return None
    if kind == "cuda" and not torch.cuda.is_available():
        problems.append("device: this machine has no CUDA device that torch can use; take device=cpu or device=auto")
        return None
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        problems.append(f"device: there is no {name}; this machine has {torch.cuda.device_count()} CUDA device(s)")
        return None
    if kind == "mps" and not torch.backends.mps.is_available():
        problems.append("device: this machine has no Apple GPU; take device=cpu or device=auto")
        return None
    if settings.precision == "fp16" and kind == "cpu":
        problems.append("precision: fp16 needs a GPU; take bf16 or fp32 on the CPU")
    if settings.precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        problems.append(
            f"precision: {torch.cuda.get_device_name(name)} has no bfloat16, it would only be emulated, slowly; "
            "take fp16 or fp32"
        )
    return torch.device(name)


def _check_fit(task: Bound, model: Bound, choices: Mapping[str, str | None], problems: list[str]) -> None:
    """Compare what the task's `dims` gives with what the model's `dims` wants."""
    dims = getattr(task.factory, "dims")  # noqa: B009
    given = typing.get_type_hints(getattr(dims, "fget", None) or getattr(dims, "func", dims)).get("return")
    wanted = typing.get_type_hints(_constructor(model.factory)).get("dims")
    if isinstance(given, type) and isinstance(wanted, type) and not issubclass(given, wanted):
        problems.append(
            f"model: {choices.get('model') or model.target} does not fit task {choices.get('task') or task.target}: "
            f"it wants {wanted.__name__}, the task gives {given.__name__}"
        )


def _check_groups(phases: Iterable[Phase], weight_decay: Any, groups: Sequence[str], problems: list[str]) -> None:
    if isinstance(weight_decay, list) and len(weight_decay) not in (1, len(groups)):
        problems.append(
            f"optim.weight_decay: {len(weight_decay)} for {len(groups)} layer group(s) ({', '.join(groups)}); "
            "give one, or one per group"
        )
    for index, phase in enumerate(phases):
        if len(phase.lr) not in (1, len(groups)):
            problems.append(
                f"optim.lr: {len(phase.lr)} rates for {len(groups)} layer group(s) ({', '.join(groups)}); "
                "give one, or one per group"
            )
            return
        if not -len(groups) <= phase.freeze_to < len(groups):
            problems.append(
                f"phases[{index}].freeze_to: {phase.freeze_to} leaves nothing to train: "
                f"the model has {len(groups)} layer group(s) ({', '.join(groups)})"
            )


def _one_per_group(rates: Sequence[float], num_groups: int, place: str) -> list[float]:
    if len(rates) == 1:
        return list(rates) * num_groups
    if len(rates) != num_groups:
        raise RequestError(f"{place}: {len(rates)} rates for {num_groups} layer groups; give one, or one per group")
    return list(rates)


def _canonical(value: Any) -> Any:
    """Write equal settings alike: 1 and 1.0, tuples and lists."""
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
