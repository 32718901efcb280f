"""Data is read once: the tasks of an ensemble, and the choice of settings before a run, share the result."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Source = TypeVar("Source")
Result = TypeVar("Result")


def read_once(read: Callable[[Source], Result]) -> Callable[[Source], Result]:
    """Make a method without arguments return the result of its first call.

    >>> class Numbers:
    ...     @read_once
    ...     def read(self): return [1, 2]
    >>> numbers = Numbers()
    >>> numbers.read() is numbers.read()
    True
    """

    @functools.wraps(read)
    def wrapper(self: Source) -> Result:
        kept: dict[str, Any] = self.__dict__.setdefault("_read_once", {})
        if read.__name__ not in kept:
            kept[read.__name__] = read(self)
        result: Result = kept[read.__name__]
        return result

    return wrapper
