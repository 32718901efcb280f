"""Parallel work in processes or threads, with results in order."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """Return the number of cores available to this process, at least 1: by CPU affinity and the container's quota."""
    from joblib import cpu_count  # importing it takes 0.1 s

    return int(cpu_count())


def in_order(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield results in order with at most `ahead` items in flight; `Executor.map` would take all items at once."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep new processes from importing the user's script, which they do not need and which would start its work anew.

    `multiprocessing` imports it by the name or file that `__main__` has. A pool starts processes as work arrives, so
    that this has to last as long as the pool.
    """
    main = sys.modules["__main__"]
    spec, file = main.__spec__, vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:  # what another thread has taken is not there, and left to it
        if spec is not None:
            main.__spec__ = spec
        if file is not None:
            main.__file__ = file
