"""SIGINT and SIGTERM: they stop a run at a point from which it can be resumed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar, NoReturn

from dlrunner.errors import Interrupted, PeerLostError


class StopSignals:
    """Raises `Interrupted` when a stop signal arrives; inside `deferred()` the first one is kept in `pending`.

    Set-up and plotting are interrupted at once: they are repeated anyway. The training loop defers signals, checks
    `pending` after every batch, saves, and then exits. A second signal is not deferred, unless it arrives within two
    seconds: Ctrl-C reaches both a sweep and its job, and the sweep forwards its own.
    """

    _entered: ClassVar[list[StopSignals]] = []

    def __init__(self) -> None:
        self.pending: int | None = None
        self._deferring = False
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._entered.append(self)
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.remove(self)
        for signum, handler in self._previous.items():
            # torchrun stops the remaining processes when one is lost: this one still has to report it.
            is_lost = isinstance(value, PeerLostError) and signum == signal.SIGTERM
            signal.signal(signum, signal.SIG_IGN if is_lost else handler)
        self._previous.clear()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.pending is None:
            self.pending, self._since = signum, time.monotonic()
            if self._deferring:
                return
        elif time.monotonic() - self._since < 2:
            return
        raise Interrupted(signum)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Keep the first signal in `pending`; the caller raises it once everything is saved.

        After an error signals stay deferred, so that the outcome is written.
        """
        self._deferring = True
        yield
        self._deferring = False

    @classmethod
    def raise_replaced(cls) -> NoReturn:
        """Raise the signal whose exception a library has replaced by its own, as DuckDB does in a query.

        Raises:
            Interrupted: a stop signal was received.
            KeyboardInterrupt: by no one but Python.
        """
        for each in reversed(cls._entered):
            if each.pending is not None:
                raise Interrupted(each.pending)
        raise KeyboardInterrupt

    def raise_pending(self) -> None:
        """Raise the pending signal, if there is one."""
        if self.pending is not None:
            raise Interrupted(self.pending)
