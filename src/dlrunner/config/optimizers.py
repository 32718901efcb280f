"""The optimizer that a configuration asks for: its parameter groups, rates and decays, fused where torch has it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn

from dlrunner.config.binding import Bound
from dlrunner.errors import ConfigError
from dlrunner.schedules import Phase
from dlrunner.system.cpu_tuning import is_stock, leave_the_compiler_out, shorten_step


def make_optimizer(
    optim: Bound, phases: Sequence[Phase], groups: Sequence[nn.Module], device: torch.device, *, cpu_tuning: bool
) -> torch.optim.Optimizer:
    """Return the optimizer, fused where torch has it.

    It has one parameter group per layer group where their rates or decays differ, else a single one: a step
    over two groups takes a tenth longer than over one.
    """
    decay = optim.settings.get("weight_decay")
    if not isinstance(decay, list) and all(len(phase.lr) == 1 for phase in phases):
        groups = [nn.ModuleList(groups)]
    rates = _one_per_group(phases[0].lr, len(groups), "optim.lr")
    settings = {**optim.settings, "lr": rates[0]}
    params = [{"params": list(group.parameters()), "lr": lr} for group, lr in zip(groups, rates, strict=True)]
    if isinstance(decay, list):
        for group, each in zip(params, _one_per_group(decay, len(groups), "optim.weight_decay"), strict=True):
            group["weight_decay"] = each
        settings["weight_decay"] = decay[0]
    if "betas" in settings:
        settings["betas"] = tuple(settings["betas"])
    accepted, kind = inspect.signature(optim.factory).parameters, device.type
    if settings.get("foreach") is not None:
        pass  # asked for
    elif "fused" in accepted and (kind == "cpu" or (kind == "cuda" and optim.factory is not torch.optim.Adagrad)):
        settings.setdefault("fused", True)
    elif "foreach" in accepted and settings.get("fused") is None:
        settings["foreach"] = True
    if not (cpu_tuning and kind == "cpu" and is_stock(optim.factory)):
        plain: torch.optim.Optimizer = optim.factory(params, **settings)
        return plain
    leave_the_compiler_out()
    optimizer: torch.optim.Optimizer = optim.factory(params, **settings)
    shorten_step(optimizer)
    return optimizer


def _one_per_group(rates: Sequence[float], num_groups: int, place: str) -> list[float]:
    if len(rates) == 1:
        return list(rates) * num_groups
    if len(rates) != num_groups:
        raise ConfigError(f"{place}: {len(rates)} rates for {num_groups} layer groups; give one, or one per group")
    return list(rates)
