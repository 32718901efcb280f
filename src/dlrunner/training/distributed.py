"""Data-parallel training by several processes started with torchrun: each trains on its shard of every batch.

The batches are those of a single process. torch's DistributedDataParallel averages the gradients, weighted by the
examples of each shard, and batch norm uses statistics of the full batch: without dropout results equal those of one
process up to rounding.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from dlrunner.model import Model, Outputs, forward_pass
from dlrunner.schedules import Phase
from dlrunner.system.process_group import SingleProcess
from dlrunner.system.seeding import seed_everything
from dlrunner.task import Batch, Task
from dlrunner.training.hooks import NOTHING, Due, Hooks
from dlrunner.training.loop import FitResult, Trainer
from dlrunner.training.loss_log import LossLog
from dlrunner.training.schedule import freeze_unused
from dlrunner.training.state import Evaluation, MakeOptimizer, Tally, TrainingState

AGREEMENT_SECONDS = 0.5
"""Interval at which processes agree on progress, checkpoints and stopping: one collective for all three."""
MAX_STEPS = 256
"""Maximum number of steps between two agreements."""
EVALUATED_BATCHES = 8
"""Batches of an evaluation between two agreements on stopping."""
EXAMPLES_AT_ONCE = 2**22
"""Examples per gather in an evaluation: one gather per split, except for very large ones."""
RANK_SEED = 1_000_003


class DistributedTrainer(Trainer):
    """A trainer that divides each batch among the processes of its group.

    Args:
        group: the processes of this run.
        settings: arguments of `Trainer`.
    """

    def __init__(self, *, group: SingleProcess, **settings: Any) -> None:
        super().__init__(**settings)
        self.group = group
        self.divides = True  # False for batches with fewer examples than processes: each rank computes them in full
        self._parallel: DistributedDataParallel | None = None
        self._phase: Phase | None = None

    @override
    def fit(self, task: Task, model: Model, make_optimizer: MakeOptimizer, hooks: Hooks) -> FitResult:
        if self.group.rank:
            seed_everything(self.seed + RANK_SEED * self.group.rank)  # different dropout masks per rank
        model.to(self.device)
        self._synchronise_batch_norm(model)
        try:
            return super().fit(task, model, make_optimizer, SharedHooks(hooks, self.group))
        finally:
            self._wrapped = self._parallel = None  # it must not outlive the process group

    @override
    def train_step(
        self,
        task: Task,
        model: Model,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        update: bool,
        hidden: Any = None,
    ) -> tuple[Tensor, Any]:
        self.wrapped(model)
        assert self._parallel is not None
        # Accumulated gradients are only synchronised on the last micro-step.
        with contextlib.nullcontext() if update else self._parallel.no_sync():
            return super().train_step(task, model, optimizer, batch, update, hidden)

    @override
    def backward(self, task: Task, model: Model, batch: Batch, weight: float, hidden: Any) -> tuple[Tensor, Any]:
        shard, part = self.shard(task, batch)
        loss, hidden = super().backward(task, model, shard, weight * part, hidden)
        return loss * (part / self.group.size), hidden

    def shard(self, task: Task, batch: Batch) -> tuple[Batch, float]:
        """Return this process's shard of a batch, and the weight of its mean loss in the mean over processes."""
        shard = task.shard(batch, self.group.rank, self.group.size)
        self.divides = shard is not batch
        return shard, self.group.size * len(shard.targets) / len(batch.targets) if self.divides else 1.0

    @override
    def evaluate_step(self, task: Task, model: Model, batch: Batch, tally: Tally, hidden: Any = None) -> Any:
        assert isinstance(tally, _SharedTally)
        shard, _ = self.shard(task, batch)
        outputs, hidden, _ = forward_pass(model, *shard.to(self.device).inputs, hidden=hidden)
        order = task.shard_order(batch, self.group.size) if self.divides else None
        tally.add_shard(_Shard(outputs, batch.targets.to(self.device), self.divides, order))
        return hidden

    @override
    def train_mode(self, model: Model, phase: Phase) -> None:
        super().train_mode(model, phase)
        if phase is not self._phase:  # DDP is bound to the parameters that require gradients when it is created
            self._phase, self._wrapped = phase, None

    @override
    def wrap(self, model: Model) -> Callable[..., Tensor | Outputs]:
        freeze_unused(model)
        self._parallel = DistributedDataParallel(model)
        return torch.compile(self._parallel) if self.compile else self._parallel

    @override
    def loss_log(self, state: TrainingState, num_steps: int) -> LossLog:
        return _SharedLossLog(state, num_steps, self.device)

    @override
    def tally(self, task: Task, keep: bool) -> Tally:
        return _SharedTally(task, keep, self.group, self.autocast)

    @override
    def checkpoint(self, state: TrainingState, model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        found = super().checkpoint(state, model, optimizer)
        shards = self.group.all_gather_object((found["state"]["hidden"], found["generators"][0]))
        hidden = merge_hidden([hidden for hidden, _ in shards])
        saved = {**found["state"], "hidden": hidden}
        return {**found, "state": saved, "generators": [generators for _, generators in shards]}

    @override
    def restore(self, checkpoint: Mapping[str, Any], model: Model, optimizer: torch.optim.Optimizer) -> TrainingState:
        rank, saved, generators = self.group.rank, checkpoint["state"], checkpoint["generators"]
        own = {
            **checkpoint,
            "state": {**saved, "hidden": split_hidden(saved["hidden"], rank, self.group.size)},
            "generators": generators[rank : rank + 1] or generators[:1],
        }
        state = super().restore(own, model, optimizer)
        if rank >= len(generators):  # resumed with more processes than before
            seed_everything(self.seed + RANK_SEED * rank + state.global_step)
        return state

    def _synchronise_batch_norm(self, model: Model) -> None:
        """Synchronise batch norm across processes: torch's SyncBatchNorm on GPUs, the function below elsewhere."""
        if self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.forward = functools.partial(_batch_norm_of_all, module, self)  # type: ignore[method-assign]


class SharedHooks(Hooks):
    """Hooks on which all processes agree every half second: an action due on one rank is done by all.

    Args:
        hooks: of this process.
        group: the processes.
    """

    def __init__(self, hooks: Hooks, group: SingleProcess) -> None:
        super().__init__(hooks.run, hooks.display, hooks.signals, hooks.checkpoint_minutes, hooks.log)
        self.group = group
        self._wait = self._steps = 1
        self._agreed = time.perf_counter()
        self._evaluated = 0

    @override
    def load(self, name: str = "last.pt") -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.group.broadcast(super().load(name))
        return found

    @override
    def start_epoch(self, state: TrainingState, num_epochs: int, num_steps: int) -> None:
        super().start_epoch(state, num_epochs, num_steps)
        self._wait = self._steps = 1
        self._agreed = time.perf_counter()

    @override
    def due(self) -> Due:
        self._wait -= 1
        if self._wait > 0:
            return NOTHING
        own, now = super().due(), time.perf_counter()
        steps = int(self._steps * AGREEMENT_SECONDS / max(now - self._agreed, 1e-6))
        # The slowest process determines the number of steps until the next agreement.
        show, save, stop, most = self.group.largest(own.show, own.save, own.stop, -min(max(steps, 1), MAX_STEPS))
        self._wait = self._steps = -most
        self._agreed = now
        return Due(bool(show), bool(save), bool(stop))

    @override
    def stop_requested(self) -> bool:
        return bool(self.group.largest(super().stop_requested())[0])

    @override
    def stop_requested_in_evaluation(self) -> bool:
        self._evaluated += 1
        return self._evaluated % EVALUATED_BATCHES == 0 and self.stop_requested()


class _SharedLossLog(LossLog):
    """Losses of shards, whose sum over processes is the loss of the batch."""

    @override
    def _values(self, losses: Tensor) -> list[float]:
        dist.all_reduce(losses)
        return super()._values(losses)


@dataclass(frozen=True, slots=True)
class _Shard:
    """The outputs of this rank for an evaluated batch, and what is known of the batch."""

    outputs: Tensor
    targets: Tensor
    """Of the full batch."""
    divides: bool
    """False: the outputs are those of the full batch."""
    order: Tensor | None
    """See `Task.shard_order`."""


class _SharedTally(Tally):
    """Sums on rank 0 over the outputs of all ranks, which are gathered many batches at a time.

    Args:
        task, keep: see `Tally`.
        group: the processes.
        autocast: context in which losses are computed.
    """

    def __init__(
        self,
        task: Task,
        keep: bool,
        group: SingleProcess,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        super().__init__(task, keep)
        self.group, self.autocast = group, autocast
        self._shards: list[_Shard] = []
        self._num_waiting = 0

    def add_shard(self, shard: _Shard) -> None:
        """Add this rank's shard of a batch."""
        self._shards.append(shard)
        self._num_waiting += len(shard.targets)
        if self._num_waiting >= EXAMPLES_AT_ONCE or not self.task.keeps_outputs:
            self._gather()

    @override
    def result(self, split: str) -> Evaluation:
        with self.autocast():
            self._gather()
        own = super().result(split) if self.group.rank == 0 else Evaluation({})
        return Evaluation(self.group.broadcast(own.metrics), own.outputs, own.targets)

    def _gather(self) -> None:
        """Gather the outputs of all shards and add them to the sums of rank 0, each in the order of its batch."""
        divided = [each.outputs for each in self._shards if each.divides]
        gathered = [iter(each) for each in gather_rows(divided, self.group)] if divided else []
        for each in self._shards:
            outputs = torch.cat([next(shard) for shard in gathered]) if each.divides else each.outputs
            if each.order is not None:
                outputs = outputs[each.order.argsort()]
            if self.group.rank == 0:
                self.add(outputs, each.targets)
        self._shards, self._num_waiting = [], 0


def gather_rows(shards: Sequence[Tensor], group: SingleProcess) -> list[list[Tensor]]:
    """Return the shards of all processes by rank: tensors with any number of rows, in one collective.

    Args:
        shards: of this process; all processes have as many, of equal shapes except for the number of rows.
        group: the processes.
    """
    own = torch.cat(list(shards)).contiguous()
    rows = group.all_gather_object([len(each) for each in shards])
    width = math.prod(own.shape[1:]) * own.element_size()  # bytes per row
    padded = torch.zeros(max(map(sum, rows)) * width, dtype=torch.uint8, device=own.device)
    padded[: own.nbytes] = own.view(-1).view(torch.uint8)
    found = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(found, padded)
    return [
        list(torch.split(each[: sum(count) * width].view(own.dtype).view(-1, *own.shape[1:]), count))
        for each, count in zip(found, rows, strict=True)
    ]


def split_hidden(hidden: Any, index: int, count: int) -> Any:
    """Return a rank's shard of a hidden state; examples are the second dimension."""
    if isinstance(hidden, Tensor):
        return hidden.tensor_split(count, dim=1)[index].contiguous()
    return hidden and type(hidden)(split_hidden(each, index, count) for each in hidden)


def merge_hidden(shards: Sequence[Any]) -> Any:
    """Return the hidden state of the full batch from all shards."""
    if isinstance(shards[0], Tensor):
        return torch.cat(list(shards), dim=1)
    return shards[0] and type(shards[0])(merge_hidden(each) for each in zip(*shards, strict=True))


class _SumOfAll(torch.autograd.Function):
    """An all-reduce sum, whose gradient is an all-reduce sum too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def _batch_norm_of_all(module: nn.modules.batchnorm._BatchNorm, trainer: DistributedTrainer, inputs: Tensor) -> Tensor:
    """Batch norm with mean and variance over the inputs of all processes.

    torch's SyncBatchNorm supports GPUs only.
    """
    if not module.training or module.momentum is None or not trainer.divides:
        return type(module).forward(module, inputs)
    wide = inputs.float() if inputs.dtype in (torch.bfloat16, torch.float16) else inputs
    over = [d for d in range(wide.ndim) if d != 1]
    shape = [1, -1] + [1] * (wide.ndim - 2)
    count = torch.tensor(float(wide.numel() // wide.shape[1]), dtype=wide.dtype, device=wide.device)
    dist.all_reduce(count)
    mean: Tensor = _SumOfAll.apply(wide.sum(over)) / count  # type: ignore[no-untyped-call]
    centred = wide - mean.view(shape)
    variance: Tensor = _SumOfAll.apply(centred.square().sum(over)) / count  # type: ignore[no-untyped-call]
    if module.running_mean is not None and module.running_var is not None:
        with torch.no_grad():
            module.running_mean.lerp_(mean.to(module.running_mean.dtype), module.momentum)
            unbiased = variance * count / (count - 1).clamp(min=1)
            module.running_var.lerp_(unbiased.to(module.running_var.dtype), module.momentum)
            if module.num_batches_tracked is not None:
                module.num_batches_tracked.add_(1)
    normal = centred * (variance + module.eps).rsqrt().view(shape)
    if module.affine:
        normal = normal * module.weight.view(shape) + module.bias.view(shape)
    return normal.to(inputs.dtype)
