"""From the CPU to a device, without waiting for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the copy is only queued there.

    A GPU copies by itself only from memory that cannot be paged out; from any other, the call would wait.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = pinned(values)
    return values.to(device, non_blocking=True)


def pinned(values: Tensor) -> Tensor:
    """Return a CPU tensor in memory that a GPU can copy from by itself."""
    return values if values.is_pinned() else values.pin_memory()


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items in order while a thread makes the next one: for what a CPU prepares while a GPU works.

    What goes wrong in the thread is raised where its item is asked for.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="one-ahead") as thread:
        waiting: Future[list[Item]] = thread.submit(_next, source)
        while found := waiting.result():
            waiting = thread.submit(_next, source)
            yield found[0]


def _next(source: Iterator[Item]) -> list[Item]:
    return list(itertools.islice(source, 1))
