"""Where training stands: all that changes from step to step, saved and put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dlrunner.metrics import Metric
from dlrunner.model import Model
from dlrunner.system.seeding import generator_states, restore_generators
from dlrunner.task import Task

Row = dict[str, Any]
"""One epoch's line of metrics.jsonl."""
MakeOptimizer = Callable[[Sequence[nn.Module]], torch.optim.Optimizer]


@dataclass
class TrainingState:
    """Where training stands; together with weights, optimizer and generators, all there is to save."""

    epoch: int = 0
    """Of the schedule: epochs that early stopping left out are counted."""
    step: int = 0
    """Batches of this epoch that are done."""
    global_step: int = 0
    """Optimizer steps."""
    losses: list[float] = field(default_factory=list)
    """Of this epoch's batches, without penalties."""
    sizes: list[int] = field(default_factory=list)
    """Examples of this epoch's batches."""
    seconds: float = 0.0
    """Spent on training in this epoch so far."""
    history: list[Row] = field(default_factory=list)
    best: Row | None = None
    phase_best: Row | None = None
    """The best row of the present phase."""
    smoothed: tuple[float, int] = (0.0, 0)
    """Of the training loss: `EMA`'s average and count."""
    hidden: Any = None
    """Of a stateful model, after this epoch's last batch so far."""


@dataclass(frozen=True)
class Monitor:
    """The metric that a run is judged by: the first one of its task."""

    name: str
    higher_is_better: bool

    @classmethod
    def of(cls, task: Task) -> Monitor:
        """Return the task's."""
        name, metric = next(iter(task.metrics().items()))
        return cls(f"valid/{name}", metric.higher_is_better)

    def improves(self, row: Row, best: Row | None) -> bool:
        """Tell whether a row is better than the best so far."""
        if best is None:
            return True
        return bool(row[self.name] > best[self.name] if self.higher_is_better else row[self.name] < best[self.name])


@dataclass(frozen=True)
class Evaluation:
    """What a pass over a split gave."""

    metrics: dict[str, float]
    outputs: Tensor | None = None
    """Of all examples in the order of the batches, on the CPU; None: they were not kept."""
    targets: Tensor | None = None


class Tally:
    """The loss and the metrics of a split: exact sums over examples, on the device until the end.

    Args:
        task: gives loss and metrics.
        keep: outputs and targets are kept, batch by batch, on the CPU.
        on_cpu: the device has no float64: sums are made on the CPU.
    """

    def __init__(self, task: Task, keep: bool = False, on_cpu: bool = False) -> None:
        self.task, self.keep, self.on_cpu = task, keep, on_cpu
        self.metrics: Mapping[str, Metric] = task.metrics()
        self._total: Tensor | float = 0.0
        self._count = 0
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in one batch."""
        if self.on_cpu:
            outputs, targets = outputs.cpu(), targets.cpu()
        self._total = self._total + self.task.loss(outputs, targets).double() * len(targets)
        self._count += len(targets)
        for metric in self.metrics.values():
            metric.update(outputs, targets)
        if self.keep:  # waits for the GPU, once a batch and only where outputs are wanted
            self._outputs.append(outputs.cpu())
            self._targets.append(targets.cpu())

    def result(self, split: str) -> Evaluation:
        """Read the sums."""
        values = {
            "loss": float(self._total) / self._count,
            **{name: metric.compute() for name, metric in self.metrics.items()},
        }
        outputs, targets = (torch.cat(each) if each else None for each in (self._outputs, self._targets))
        return Evaluation({f"{split}/{name}": value for name, value in values.items()}, outputs, targets)


def snapshot(
    state: TrainingState,
    model: Model,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> dict[str, Any]:
    """Return a checkpoint. The hidden state goes to the CPU: where it is read back is not where it was."""
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
    """Put everything back to where a checkpoint was made."""
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
