"""The process group of a distributed run, which torchrun starts: joining, communication, failure of a peer."""

from __future__ import annotations

import functools
import gc
import os
import platform
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from typing_extensions import override

from dlrunner.errors import RunError
from dlrunner.system.torchrun import local_rank, rank

RANK0_FAILURE_TIMEOUT = timedelta(seconds=5)
"""How long a failed process waits for rank 0 to fail too."""


class SingleProcess:
    """A run in a single process: every operation is trivial."""

    rank, size = 0, 1

    def largest(self, *values: int) -> tuple[int, ...]:
        """Return the maximum of each value over all processes."""
        return values

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        return value

    def compare(self, identity: Mapping[str, str]) -> None:
        """Check that all processes have the same settings, code and data as rank 0.

        Args:
            identity: of the run (see `dlrunner.runs.directory.RunDirectory`), as computed by this process.

        Raises:
            RunError: they differ; raised in all processes.
        """

    @contextmanager
    def rank0_first(self) -> Iterator[None]:
        """Run the block on rank 0 first; the others then find its results in the cache."""
        yield

    def close(self) -> None:
        """Leave the process group."""


class ProcessGroup(SingleProcess):
    """The processes of one run.

    Args:
        device: of this process; the backend is NCCL on a GPU, Gloo on the CPU.
    """

    timeout = timedelta(minutes=60)
    """How long a process waits for another: rank 0 reads the data first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=self.timeout)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Python objects and decisions are exchanged on the CPU, without waiting for the GPU.
        self._cpu_group = dist.new_group(backend="gloo", timeout=self.timeout)

    @override
    def largest(self, *values: int) -> tuple[int, ...]:
        maximum = torch.tensor(values, dtype=torch.int32)
        dist.all_reduce(maximum, dist.ReduceOp.MAX, group=self._cpu_group)
        return tuple(maximum.tolist())

    @override
    def all_gather_object(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._cpu_group)
        return values

    @override
    def broadcast(self, value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._cpu_group)
        return values[0]

    @override
    def compare(self, identity: Mapping[str, str]) -> None:
        machines, identities = zip(*self.all_gather_object((platform.node(), dict(identity))), strict=True)
        for peer, other in enumerate(identities):
            if differing := [name for name in identities[0] if other[name] != identities[0][name]]:
                names = ", ".join(differing).replace("signature", "settings")
                raise RunError(
                    f"{names}: rank {peer} (on {machines[peer]}) differs from rank 0 (on {machines[0]}); all machines "
                    "need the same settings, code and data"
                )

    @override
    @contextmanager
    def rank0_first(self) -> Iterator[None]:
        if self.rank > 0:
            dist.barrier(group=self._cpu_group)
        yield
        if self.rank == 0:
            dist.barrier(group=self._cpu_group)

    @override
    def close(self) -> None:
        # A DistributedDataParallel that outlives its group aborts the process at exit, one time in six; each is part
        # of a reference cycle.
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def joined(device: torch.device) -> Iterator[SingleProcess]:
    """Join the process group that torchrun has started, if any, and leave it at the end."""
    group = SingleProcess() if local_rank() is None else ProcessGroup(device)
    try:
        yield group
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they may hold a DistributedDataParallel: see close()
        raise
    finally:
        group.close()


@functools.cache
def is_reporting_rank() -> bool:
    """Return whether this failed process reports the error: rank 0, or a process that fails alone.

    Rank 0 sets a key in the rendezvous store, and the others wait for it. Call it before leaving the process group,
    which would make rank 0 fail too.
    """
    if local_rank() is None:
        return True
    key = f"rank 0 has failed {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store = next(rendezvous("env://", timeout=RANK0_FAILURE_TIMEOUT))[0]
        if rank() > 0:
            store.wait([key], RANK0_FAILURE_TIMEOUT)
            return False
        store.set(key, "")
    except (RuntimeError, ValueError):  # the key was not set, or there is no store
        pass
    return True


def is_peer_failure(error: BaseException) -> bool:
    """Return whether an error was caused by the loss of another process; call it before leaving the process group."""
    if not dist.is_initialized():
        return False
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl", "peer"))
