"""The training state: everything that changes from step to step, saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dlrunner.metrics import Metric
from dlrunner.model import Model
from dlrunner.row_blocks import KeptRows
from dlrunner.system.seeding import generator_states, restore_generators
from dlrunner.task import Task

Row = dict[str, Any]
"""One epoch's line of metrics.jsonl."""
MakeOptimizer = Callable[[Sequence[nn.Module]], torch.optim.Optimizer]


@dataclass
class TrainingState:
    """Position and history of training; saved with weights, optimizer and random generators."""

    epoch: int = 0
    """Of the schedule: epochs skipped by early stopping count."""
    step: int = 0
    """Finished batches of this epoch."""
    global_step: int = 0
    """Optimizer steps."""
    losses: list[float] = field(default_factory=list)
    """Losses of this epoch's batches, without penalties."""
    sizes: list[int] = field(default_factory=list)
    """Numbers of examples of this epoch's batches."""
    seconds: float = 0.0
    """Training time of this epoch so far."""
    history: list[Row] = field(default_factory=list)
    best: Row | None = None
    phase_best: Row | None = None
    """The best row of the current phase."""
    smoothed: tuple[float, int] = (0.0, 0)
    """Average and count of the `EMA` of the training loss."""
    hidden: Any = None
    """Hidden state of a stateful model after the last finished batch of this epoch."""


@dataclass(frozen=True)
class Monitor:
    """The monitored metric of a run: the first one of its task."""

    name: str
    higher_is_better: bool

    @classmethod
    def of(cls, task: Task) -> Monitor:
        """Return the monitor of a task."""
        name, metric = next(iter(task.metrics().items()))
        return cls(f"valid/{name}", metric.higher_is_better)

    def improves(self, row: Row, best: Row | None) -> bool:
        """Return whether a row is better than the best so far."""
        if best is None:
            return True
        return bool(row[self.name] > best[self.name] if self.higher_is_better else row[self.name] < best[self.name])


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation of a split."""

    metrics: dict[str, float]
    outputs: Tensor | None = None
    """Outputs of all examples in the order of the batches, on the CPU; None: not kept."""
    targets: Tensor | None = None


class Tally:
    """Loss and metrics of a split: exact sums over examples, on the device until the end.

    Args:
        task: provides loss and metrics.
        keep: keep outputs and targets on the CPU.
        on_cpu: accumulate on the CPU, for devices without float64.
    """

    def __init__(self, task: Task, keep: bool = False, on_cpu: bool = False) -> None:
        self.task, self.keep, self.on_cpu = task, keep, on_cpu
        self.metrics: Mapping[str, Metric] = task.metrics()
        self._total: Tensor | float = 0.0
        self._count = 0
        self._outputs, self._targets = KeptRows(), KeptRows()

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        if self.on_cpu:
            outputs, targets = outputs.cpu(), targets.cpu()
        self._total = self._total + self.task.loss(outputs, targets).double() * len(targets)
        self._count += len(targets)
        for metric in self.metrics.values():
            metric.update(outputs, targets)
        if self.keep:  # waits for the GPU once per batch, only if outputs are kept
            self._outputs.add(outputs.cpu())
            self._targets.add(targets.cpu())

    def result(self, split: str) -> Evaluation:
        """Read the sums and return the metrics."""
        values = {
            "loss": float(self._total) / self._count,
            **{name: metric.compute() for name, metric in self.metrics.items()},
        }
        outputs, targets = (each.joined() if len(each) else None for each in (self._outputs, self._targets))
        return Evaluation({f"{split}/{name}": value for name, value in values.items()}, outputs, targets)


def snapshot(
    state: TrainingState,
    model: Model,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> dict[str, Any]:
    """Return a checkpoint. The hidden state moves to the CPU, since it may be restored on another device."""
    return {
        "state": {**vars(state), "hidden": moved(state.hidden, torch.device("cpu"))},
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "generators": [generator_states(device)],
    }


def restore(
    checkpoint: Mapping[str, Any],
    model: Model,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> TrainingState:
    """Restore a checkpoint and return its training state."""
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    scaler.load_state_dict(checkpoint["scaler"])
    restore_generators(checkpoint["generators"][0], device)
    state = TrainingState(**checkpoint["state"])
    state.hidden = moved(state.hidden, device)
    return state


def moved(hidden: Any, device: torch.device) -> Any:
    """Return a hidden state (tensors in tuples and lists, or None) on a device."""
    if isinstance(hidden, Tensor):
        return hidden.to(device)
    return hidden and type(hidden)(moved(each, device) for each in hidden)
