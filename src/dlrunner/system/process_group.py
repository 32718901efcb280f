"""The processes of one run, which torchrun starts: how they meet, agree and leave each other."""

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


class SingleProcess:
    """A run in a single process: it agrees with itself."""

    rank, size = 0, 1

    def largest(self, *values: int) -> tuple[int, ...]:
        """Return the largest of each value over all processes, the same answer in all of them."""
        return values

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return what each process has, by rank."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return what the process of rank 0 has."""
        return value

    def compare(self, identity: Mapping[str, str]) -> None:
        """Refuse to go on when a process does another run than rank 0, or does it on other data.

        Args:
            identity: of the run (see `dlrunner.runs.directory.RunDirectory`), as this process has found it.

        Raises:
            RunError: in all processes; it names what differs.
        """

    @contextmanager
    def rank0_first(self) -> Iterator[None]:
        """Let rank 0 do it first: what it keeps in the cache is there for the others."""
        yield

    def close(self) -> None:
        """Leave the others."""


class ProcessGroup(SingleProcess):
    """The processes of one run.

    Args:
        device: of this process: NCCL carries what is on a GPU, Gloo what is on the CPU.
    """

    patience = timedelta(minutes=60)
    """A process may wait so long for another: rank 0 reads data by itself."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=self.patience)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Python objects and decisions go over the CPU: they do not wait for the GPU.
        self._cpu_group = dist.new_group(backend="gloo", timeout=self.patience)

    @override
    def largest(self, *values: int) -> tuple[int, ...]:
        found = torch.tensor(values, dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._cpu_group)
        return tuple(found.tolist())

    @override
    def all_gather_object(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._cpu_group)
        return found

    @override
    def broadcast(self, value: Any) -> Any:
        found = [value]
        dist.broadcast_object_list(found, src=0, group=self._cpu_group)
        return found[0]

    @override
    def compare(self, identity: Mapping[str, str]) -> None:
        machines, found = zip(*self.all_gather_object((platform.node(), dict(identity))), strict=True)
        for number, each in enumerate(found):
            if differing := [name for name in found[0] if each[name] != found[0][name]]:
                what = ", ".join(differing).replace("signature", "settings")
                raise RunError(
                    f"{what}: those of rank {number} (on {machines[number]}) are not those of rank 0 "
                    f"(on {machines[0]}); all machines need the same settings, code and data"
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
        # A DistributedDataParallel that outlives its group aborts the process at its end, one time in six; each of
        # them lies in a cycle.
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def joined(device: torch.device) -> Iterator[SingleProcess]:
    """Join the processes that torchrun has started, or be the only one; leave them in the end."""
    group = SingleProcess() if local_rank() is None else ProcessGroup(device)
    try:
        yield group
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # of all that they hold, for the same reason
        raise
    finally:
        group.close()


@functools.cache
def is_reporting_rank() -> bool:
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


def is_peer_failure(error: Exception) -> bool:
    """Tell whether an error is that of a process whose partner is gone; to be asked before it leaves the others."""
    if not dist.is_initialized():
        return False
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl", "peer"))
