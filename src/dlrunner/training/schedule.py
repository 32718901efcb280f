"""What a phase does to the optimizer and the model: rates, momentum, frozen groups; gradients of several batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dlrunner.model import Model
from dlrunner.schedules import Phase


def phase_at(phases: Sequence[Phase], epoch: int) -> tuple[Phase, int]:
    """Return the phase of an epoch and the epoch it begins with."""
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
    """Let only the layer groups from `freeze_to` on be trained.

    Batch norm in a frozen group keeps its statistics too: what is frozen is one function of its inputs, so that its
    outputs may be computed once and kept. Dropout in a frozen group goes on.
    """
    groups = list(model.layer_groups())
    first = freeze_to % len(groups) if freeze_to < 0 else freeze_to
    for index, group in enumerate(groups):
        group.requires_grad_(index >= first)
        if index < first:
            for module in group.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def set_rates(optimizer: torch.optim.Optimizer, phase: Phase, progress: float) -> None:
    """Set rates and momentum for a step.

    The momentum that a schedule moves is SGD's, and the first beta of Adam and its kin; without such a schedule it is
    the optimizer's own, whatever the phase before has left.

    Args:
        optimizer: with one parameter group, or one for each rate of the phase.
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
    """Set each group's learning rate to so many times the phase's."""
    rates = phase.lr if len(phase.lr) > 1 else phase.lr * len(optimizer.param_groups)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def current_lr(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the last group."""
    return float(optimizer.param_groups[-1]["lr"])


class Accumulation:
    """The gradients of a group of batches add up to their mean over all examples of the group.

    How many examples a group has is known only at its end (the last group of an epoch has fewer batches, and batches
    differ in size). So each batch is weighted by its size in terms of the first one's, and what is wrong then is put
    right by one factor: 1 for batches of one size.

    >>> group = Accumulation(2)
    >>> group.add(8), group.add(8), group.close()
    (0.5, 0.5, (1.0, 1.0))
    >>> group.add(8), group.add(4), group.close()
    (0.5, 0.25, (1.3333333333333333, 1.0))

    Args:
        num_batches: in a full group.
    """

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self._first, self._examples, self._rates = 0, 0, 0.0

    def add(self, examples: int, rate: float = 1.0) -> float:
        """Take in a batch, its examples and its scale of the learning rate; return the weight of its mean loss."""
        self._first = self._first or examples
        self._examples += examples
        self._rates += examples * rate
        return examples / (self._first * self.num_batches)

    def close(self) -> tuple[float, float]:
        """End the group; return what its gradients are to be multiplied by, and the mean scale of the rate."""
        factor, rate = self._first * self.num_batches / self._examples, self._rates / self._examples
        self._first, self._examples, self._rates = 0, 0, 0.0
        return factor, rate
