"""One run by several processes, which torchrun starts: each does its share of every batch.

The batches are those of a single process. Gradients are averaged by torch's DistributedDataParallel, weighted by the
examples of each share, and batch norm sees the whole batch: without dropout the numbers are those of one process,
but for rounding.
"""

from __future__ import annotations

import functools
import gc
import os
import platform
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from dlrunner.errors import RunError
from dlrunner.model import Model
from dlrunner.task import Batch, Task

A_MOMENT = timedelta(seconds=5)
"""So long a process that fails waits for rank 0 to fail too."""


def num_processes() -> int:
    """Return how many processes do this run together: those that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process among those that torchrun has started; 0 without it."""
    return int(os.environ.get("RANK", "0")) if "WORLD_SIZE" in os.environ else 0


def local_rank() -> int | None:
    """Return the number of this process on its machine; None where it is the only one of the run."""
    return int(os.environ["LOCAL_RANK"]) if num_processes() > 1 else None


class World:
    """A run in a single process: nothing is shared."""

    rank, size = 0, 1

    def share(self, task: Task, batch: Batch) -> tuple[Batch, float]:
        """Return this process's share of a batch, and the weight of its mean loss in the mean over processes."""
        return batch, 1.0

    def wrap(self, model: Model) -> nn.Module:
        """Return what is called for a forward pass in training."""
        return model

    def totals(self, losses: Tensor, weights: Sequence[float]) -> list[float]:
        """Return the mean loss of each step over its whole batch."""
        found: list[float] = losses.tolist()
        return found

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """Return what any process wishes, the same answer in all of them."""
        return wishes

    def gather(self, outputs: Tensor) -> Tensor:
        """Return the outputs of all shares of a batch, in its order."""
        return outputs

    def collect(self, value: Any) -> list[Any]:
        """Return what each process has, by rank."""
        return [value]

    def first(self, value: Any) -> Any:
        """Return what the process of rank 0 has."""
        return value

    def compare(self, identity: Mapping[str, str]) -> None:
        """Refuse to go on when a process does another run than rank 0, or does it on other data.

        Args:
            identity: of the run (see `dlrunner.runs.RunDirectory`), as this process has found it.

        Raises:
            RunError: in all processes; it names what differs.
        """

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let rank 0 do it first: what it keeps in the cache is there for the others."""
        yield

    def close(self) -> None:
        """Leave the others."""


class Processes(World):
    """A run by several processes.

    Args:
        device: of this process: NCCL carries what is on a GPU, Gloo what is on the CPU.
    """

    patience = timedelta(minutes=60)
    """A process may wait so long for another: rank 0 reads data and evaluates by itself."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=self.patience)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Python objects and wishes go over the CPU: they do not wait for the GPU.
        self._talk = dist.new_group(backend="gloo", timeout=self.patience)
        self.divides = True  # the batch at hand: one with fewer examples than processes is done whole by each

    @override
    def share(self, task: Task, batch: Batch) -> tuple[Batch, float]:
        part = task.share(batch, self.rank, self.size)
        self.divides = part is not batch
        return part, self.size * len(part.targets) / len(batch.targets) if self.divides else 1.0

    @override
    def wrap(self, model: Model) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.forward = functools.partial(_batch_norm_of_all, module, self)  # type: ignore[method-assign]
        # Frozen parameters may change from epoch to epoch, and what is wrapped keeps to those it has seen.
        return DistributedDataParallel(model)

    @override
    def totals(self, losses: Tensor, weights: Sequence[float]) -> list[float]:
        shares = losses * torch.tensor(weights, dtype=losses.dtype, device=losses.device) / self.size
        dist.all_reduce(shares)
        found: list[float] = shares.tolist()
        return found

    @override
    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        wished = torch.tensor(wishes, dtype=torch.int32)
        dist.all_reduce(wished, dist.ReduceOp.MAX, group=self._talk)
        return tuple(wished.bool().tolist())

    @override
    def gather(self, outputs: Tensor) -> Tensor:
        return torch.cat(self.collect(outputs.cpu())).to(outputs.device)

    @override
    def collect(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._talk)
        return found

    @override
    def first(self, value: Any) -> Any:
        found = [value]
        dist.broadcast_object_list(found, src=0, group=self._talk)
        return found[0]

    @override
    def compare(self, identity: Mapping[str, str]) -> None:
        machines, found = zip(*self.collect((platform.node(), dict(identity))), strict=True)
        for number, each in enumerate(found):
            if differing := [name for name in found[0] if each[name] != found[0][name]]:
                what = ", ".join(differing).replace("signature", "settings")
                raise RunError(
                    f"{what}: those of rank {number} (on {machines[number]}) are not those of rank 0 "
                    f"(on {machines[0]}); all machines need the same settings, code and data"
                )

    @override
    @contextmanager
    def in_turn(self) -> Iterator[None]:
        if self.rank > 0:
            dist.barrier(group=self._talk)
        yield
        if self.rank == 0:
            dist.barrier(group=self._talk)

    @override
    def close(self) -> None:
        # A DistributedDataParallel that outlives its group aborts the process at its end, one time in six; each of
        # them lies in a cycle.
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun has started, or be the only one; leave them in the end."""
    world = World() if local_rank() is None else Processes(device)
    try:
        yield world
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # of all that they hold, for the same reason
        raise
    finally:
        world.close()


@functools.cache
def tells_why() -> bool:
    """Tell, in a process that fails, whether it is the one to say why: rank 0, or a process that fails alone.

    Rank 0 leaves a mark where all meet, and the others wait a moment for it. They ask before they leave the others:
    then rank 0 would fail too.
    """
    if local_rank() is None:
        return True
    mark = f"rank 0 has failed {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store = next(rendezvous("env://", timeout=A_MOMENT))[0]
        if rank() > 0:
            store.wait([mark], A_MOMENT)
            return False
        store.set(mark, "")
    except (RuntimeError, ValueError):  # there is no mark, or no place for one
        pass
    return True


def was_left(error: Exception) -> bool:
    """Tell whether an error is that of a process whose partner is gone; to be asked before it leaves the others."""
    if not dist.is_initialized():
        return False
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl", "peer"))


def divided(carried: Any, index: int, count: int) -> Any:
    """Return the share of what a model carries from batch to batch: examples are the second dimension."""
    if isinstance(carried, Tensor):
        return carried.tensor_split(count, dim=1)[index].contiguous()
    return carried and type(carried)(divided(each, index, count) for each in carried)


def whole(shares: Sequence[Any]) -> Any:
    """Return what all shares carry, as one process would."""
    if isinstance(shares[0], Tensor):
        return torch.cat(list(shares), dim=1)
    return shares[0] and type(shares[0])(whole(each) for each in zip(*shares, strict=True))


class _SumOfAll(torch.autograd.Function):
    """The sum over processes; so is its gradient."""

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


def _batch_norm_of_all(module: nn.modules.batchnorm._BatchNorm, world: Processes, inputs: Tensor) -> Tensor:
    """Do what batch norm does, with the mean and the variance of all processes' inputs.

    torch's SyncBatchNorm does it on GPUs only.
    """
    if not module.training or module.momentum is None or not world.divides:
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
