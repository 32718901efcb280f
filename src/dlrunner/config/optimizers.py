"""The optimizer of a configuration: parameter groups, learning rates, weight decays, fused if torch supports it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from dlrunner.config.binding import Bound
from dlrunner.config.phases import check_groups
from dlrunner.errors import ConfigError
from dlrunner.schedules import Phase, constant
from dlrunner.system.cpu_tuning import bypass_step_wrappers, is_torch_optimizer, skip_compiler_import


def make_optimizer(
    optim: Bound, phases: Sequence[Phase], groups: Sequence[nn.Module], device: torch.device, *, cpu_tuning: bool
) -> torch.optim.Optimizer:
    """Return the optimizer, fused if torch supports it.

    It has one parameter group per layer group if their learning rates or weight decays differ, else a single one: a
    step with two groups takes 10 % longer.

    Raises:
        ConfigError: rates, weight decays or frozen groups of any phase do not fit the layer groups.
    """
    problems: list[str] = []
    check_groups(optim, phases, len(groups), [], problems)  # before the first phase: not all models name their groups
    if problems:
        raise ConfigError("\n".join(problems))
    decay = optim.settings.get("weight_decay")
    if not isinstance(decay, list) and all(len(phase.lr) == 1 for phase in phases):
        groups = [nn.ModuleList(groups)]
    rates = _one_per_group(phases[0].lr, len(groups))
    settings = {**optim.settings, "lr": rates[0]}
    params = [{"params": list(group.parameters()), "lr": lr} for group, lr in zip(groups, rates, strict=True)]
    if isinstance(decay, list):
        for group, each in zip(params, _one_per_group(decay, len(groups)), strict=True):
            group["weight_decay"] = each
        settings["weight_decay"] = decay[0]
    if "betas" in settings:
        settings["betas"] = tuple(settings["betas"])
    accepted, kind = inspect.signature(optim.factory).parameters, device.type
    if settings.get("foreach") is not None:
        pass  # set by the user
    elif "fused" in accepted and (kind == "cpu" or (kind == "cuda" and optim.factory is not torch.optim.Adagrad)):
        settings.setdefault("fused", True)
    elif "foreach" in accepted and settings.get("fused") is None:
        settings["foreach"] = True
    if not (cpu_tuning and kind == "cpu" and is_torch_optimizer(optim.factory)):
        plain: torch.optim.Optimizer = optim.factory(params, **settings)
        return plain
    skip_compiler_import()
    optimizer: torch.optim.Optimizer = optim.factory(params, **settings)
    bypass_step_wrappers(optimizer)
    return optimizer


def check_optimizer(optim: Bound, device: torch.device, problems: list[str], *, cpu_tuning: bool) -> None:
    """Refuse settings that the optimizer itself refuses, such as Nesterov's momentum of 0, before data is read."""
    if optim.settings.get("differentiable"):
        problems.append("optim.differentiable: a step is never part of a gradient here; leave it out")
        return
    settings = {name: value for name, value in optim.settings.items() if name != "lr" and value != "auto"}
    if isinstance(decay := settings.get("weight_decay"), list):
        settings["weight_decay"] = decay[0]
    try:
        phase = Phase(1, constant(1), (0.1,))
        make_optimizer(replace(optim, settings=settings), [phase], [nn.Linear(1, 1)], device, cpu_tuning=cpu_tuning)
    except (ValueError, TypeError, RuntimeError) as error:
        problems.append(f"optim: {optim.target} refuses its settings: {error}")


def _one_per_group(values: Sequence[float], num_groups: int) -> list[float]:
    return list(values) * num_groups if len(values) == 1 else list(values)
