"""Transfer of tensors from the CPU to a device, without synchronising."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the copy is asynchronous, to a GPU from pinned memory.

    Not on Apple devices: MPS would read memory that may be free again
    (https://github.com/pytorch/pytorch/issues/189690).
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = pinned(values)
    return values.to(device, non_blocking=device.type != "mps")


def pinned(values: Tensor) -> Tensor:
    """Return a CPU tensor in pinned memory."""
    return values if values.is_pinned() else values.pin_memory()


def prefetched(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items in order while a thread prepares the next one, so that CPU and GPU work at the same time.

    An exception in the thread is raised when its item is requested.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        future: Future[list[Item]] = thread.submit(_next, source)
        while result := future.result():
            future = thread.submit(_next, source)
            yield result[0]


def _next(source: Iterator[Item]) -> list[Item]:
    return list(itertools.islice(source, 1))
