"""The training phases of a configuration: epochs, schedule, learning rates by layer group, frozen groups."""

from __future__ import annotations

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from dlrunner.config.binding import Bound, bind_settings, locate
from dlrunner.config.schema import PhaseSettings, Settings
from dlrunner.config.signatures import schedule_node
from dlrunner.config.suggestions import PROVIDED
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.schedules import Phase, ScheduleCurves


def resolve_phases(settings: Settings, problems: list[str]) -> tuple[Phase, ...]:
    """Return the phases of training: those of `phases`, or a single one of `epochs` epochs."""
    if settings.phases and isinstance(settings.epochs, int):
        problems.append(
            f"epochs: phases already set the number of epochs ({sum(p.epochs for p in settings.phases)}); "
            "set epochs=null with phases, or phases=null with epochs"
        )
    if not settings.phases and not settings.epochs:
        problems.append("epochs: is missing: the number of epochs to train")
        return ()
    decided = settings.epochs if isinstance(settings.epochs, int) else 1  # auto: replaced before training
    entries = settings.phases or [PhaseSettings(epochs=decided)]
    phases = []
    for index, entry in enumerate(entries):
        section = f"phases[{index}].schedule" if entry.schedule is not None else "schedule"
        node = settings.schedule if entry.schedule is None else entry.schedule
        num_problems = len(problems)
        bound = bind_schedule(section, node, settings.plugins, problems)
        if len(problems) > num_problems:
            continue
        try:
            curves = bound(epochs=entry.epochs)
        except ValueError as error:
            hint = "; set the number of epochs" if settings.epochs == "auto" and not settings.phases else ""
            problems.append(f"{section}: {error}{hint}")
            continue
        lr = entry.lr if entry.lr is not None else settings.optim.get("lr", 1.0)
        lr = 1.0 if lr == "auto" else lr  # the range test scales it
        rates = tuple(lr) if isinstance(lr, list) else (lr,)
        common = 0 if settings.freeze_to == "auto" else settings.freeze_to
        freeze_to = common if entry.freeze_to is None else entry.freeze_to
        phases.append(Phase(entry.epochs, curves, rates, freeze_to, entry.task, entry.new_optimizer))
    return tuple(phases)


def bind_schedule(section: str, node: str | Mapping[str, Any], plugins: Sequence[str], problems: list[str]) -> Bound:
    """Bind a schedule; a bare name, or a `_target_` without dots, is one of dlrunner.schedules."""
    node = schedule_node(node)
    target = node["_target_"]
    try:
        factory = locate(target, plugins)
        if not (isinstance(factory, types.FunctionType) and _returns(factory) is ScheduleCurves):
            raise ConfigError(f"{target} is not a schedule; {did_you_mean(target, _schedule_names())}")
    except ConfigError as error:
        problems.append(f"{section}: {error}")
        return Bound(target, ScheduleCurves, {})
    return bind_settings(section, target, factory, node, PROVIDED["schedule"], problems)


@functools.lru_cache(maxsize=256)
def _returns(function: Callable[..., Any]) -> Any:
    """Return a function's annotated return type; None if its annotations cannot be evaluated."""
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:  # evaluating a user's annotations may raise anything
        return None


def _schedule_names() -> list[str]:
    module = importlib.import_module("dlrunner.schedules")
    functions = [(n, f) for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]
    return [name for name, function in functions if not name.startswith("_") and _returns(function) is ScheduleCurves]


DEFAULT_MOMENTUM = 0.9
"""SGD's momentum and Adam's first beta, unless the user sets another."""


def check_momentum(optim: Bound, phases: Sequence[Phase], problems: list[str]) -> None:
    """Refuse a momentum that the schedule would override."""
    if all(phase.curves.momentum is None for phase in phases):
        return
    betas, momentum = optim.settings.get("betas"), optim.settings.get("momentum")
    is_sgd = isinstance(optim.factory, type) and issubclass(optim.factory, torch.optim.SGD)
    if betas and betas[0] != DEFAULT_MOMENTUM:
        name, value, other = "optim.betas", betas[0], f"optim.betas=[{DEFAULT_MOMENTUM},{betas[1]}]"
    elif is_sgd and momentum is not None and momentum != DEFAULT_MOMENTUM:
        name, value, other = "optim.momentum", momentum, f"optim.momentum={DEFAULT_MOMENTUM}"
    else:
        return
    problems.append(
        f"{name}: the schedule sets the momentum and would override {value:g}; use schedule.momentum=null to keep it, "
        f"or {other}"
    )


def check_phase_settings(task: Bound, phases: Sequence[Phase], problems: list[str]) -> None:
    """Check the task settings of phases: against the names that the task allows, and as its own settings."""
    known: Sequence[str] = getattr(task.factory, "phase_settings", ())
    for index, phase in enumerate(phases):
        if phase.task and not known:
            problems.append(
                f"phases[{index}].task: {task.target} has no settings that change from phase to phase "
                "(its phase_settings would name them)"
            )
            return
        place = f"phases[{index}].task"
        allowed = {name: value for name, value in phase.task.items() if name in known}
        for name in sorted(phase.task.keys() - allowed.keys()):
            problems.append(f"{place}.{name}: is not a setting of a phase; {did_you_mean(name, known)}")
        bind_settings(place, task.target, task.factory, {**task.settings, **allowed}, PROVIDED["task"], problems)


def check_groups(
    optim: Bound, phases: Sequence[Phase], num_groups: int, names: Sequence[str], problems: list[str]
) -> None:
    """Check learning rates, weight decays and frozen groups of all phases against the layer groups of the model."""
    listed = f" ({', '.join(names)})" if names else ""
    lr, weight_decay = optim.settings.get("lr"), optim.settings.get("weight_decay")
    if isinstance(weight_decay, list) and len(weight_decay) not in (1, num_groups):
        problems.append(
            f"optim.weight_decay: {len(weight_decay)} for {num_groups} layer group(s){listed}; "
            "give one, or one per group"
        )
    for index, phase in enumerate(phases):
        if len(phase.lr) not in (1, num_groups):
            place = "optim.lr" if lr == list(phase.lr) else f"phases[{index}].lr"
            problems.append(
                f"{place}: {len(phase.lr)} rates for {num_groups} layer group(s){listed}; give one, or one per group"
            )
            return
        if not -num_groups <= phase.freeze_to < num_groups:
            place = f"phases[{index}].freeze_to" if len(phases) > 1 else "freeze_to"
            problems.append(
                f"{place}: {phase.freeze_to} of a model with {num_groups} layer group(s){listed}: "
                f"from -{num_groups} to {num_groups - 1}"
            )
