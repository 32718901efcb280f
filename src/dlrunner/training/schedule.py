"""Applying a phase to optimizer and model: rates, momentum, frozen groups; gradient accumulation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dlrunner.errors import ConfigError
from dlrunner.model import Model
from dlrunner.schedules import Phase


def phase_at(phases: Sequence[Phase], epoch: int) -> tuple[Phase, int]:
    """Return the phase of an epoch and its first epoch."""
    first = 0
    for phase in phases:
        if epoch < first + phase.epochs:
            return phase, first
        first += phase.epochs
    raise AssertionError(f"epoch {epoch} lies after the last phase")


def cycle_number(phases: Sequence[Phase], epoch: int) -> int:
    """Count the cycles that are complete after an epoch, over all phases."""
    count, first = 0, 0
    for phase in phases:
        count += sum(first + end <= epoch + 1 for end in phase.curves.cycle_ends)
        first += phase.epochs
    return count


def freeze(model: Model, freeze_to: int) -> None:
    """Train only the layer groups from `freeze_to` on.

    Batch norm in a frozen group keeps its statistics too: frozen layers are a fixed function, whose outputs can be
    precomputed. Dropout in a frozen group stays active.
    """
    groups = list(model.layer_groups())
    if not -len(groups) <= freeze_to < len(groups):
        raise ConfigError(
            f"freeze_to: {freeze_to} of a model with {len(groups)} layer group(s): from -{len(groups)} to "
            f"{len(groups) - 1}"
        )
    first = freeze_to % len(groups) if freeze_to < 0 else freeze_to
    for index, group in enumerate(groups):
        group.requires_grad_(index >= first)
        if index < first:
            for module in group.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def freeze_unused(model: Model) -> None:
    """Freeze parameters without elements, and those in no layer group: nothing trains them.

    DistributedDataParallel waits for the gradient of every parameter that has one.
    """
    trained = {id(each) for group in model.layer_groups() for each in group.parameters() if each.numel()}
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)


def set_rates(optimizer: torch.optim.Optimizer, phase: Phase, progress: float) -> None:
    """Set rates and momentum for a step.

    A schedule changes the momentum of SGD, or the first beta of Adam and its variants; without such a schedule it is
    reset to the optimizer's default.

    Args:
        optimizer: with one parameter group, or one per rate of the phase.
        phase: rates, schedule.
        progress: through the phase, from 0 to 1.
    """
    set_lr(optimizer, phase, phase.curves.lr(progress))
    momentum = None if phase.curves.momentum is None else phase.curves.momentum(progress)
    for group in optimizer.param_groups:
        if "betas" in group:
            own = optimizer.defaults["betas"]
            group["betas"] = tuple(own) if momentum is None else (momentum, *own[1:])
        elif isinstance(optimizer, torch.optim.SGD):
            group["momentum"] = optimizer.defaults["momentum"] if momentum is None else momentum


def set_lr(optimizer: torch.optim.Optimizer, phase: Phase, factor: float) -> None:
    """Set the learning rate of each group to `factor` times that of the phase."""
    rates = phase.lr if len(phase.lr) > 1 else phase.lr * len(optimizer.param_groups)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def current_lr(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the last group."""
    return float(optimizer.param_groups[-1]["lr"])


class Accumulation:
    """Gradient accumulation: averages the gradients of a group of batches over all its examples.

    The number of examples of a group is known only at its end (the last group of an epoch has fewer batches, and
    batches differ in size). So each batch is weighted by its size relative to the first one, and the sum is corrected
    by one factor: 1 for batches of equal size.

    >>> group = Accumulation(2)
    >>> group.add(8), group.add(8), group.close()
    (0.5, 0.5, (1.0, 1.0))
    >>> group.add(8), group.add(4), group.close()
    (0.5, 0.25, (1.3333333333333333, 1.0))

    Args:
        num_batches: batches in a full group.
    """

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self._first, self._examples, self._rates = 0, 0, 0.0

    def add(self, examples: int, rate: float = 1.0) -> float:
        """Add a batch by its number of examples and rate factor; return the weight of its mean loss."""
        self._first = self._first or examples
        self._examples += examples
        self._rates += examples * rate
        return examples / (self._first * self.num_batches)

    def close(self) -> tuple[float, float]:
        """End the group; return the factor for its gradients, and the mean rate factor."""
        factor, rate = self._first * self.num_batches / self._examples, self._rates / self._examples
        self._first, self._examples, self._rates = 0, 0, 0.0
        return factor, rate
