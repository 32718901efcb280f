"""SIGINT and SIGTERM: they end a run at a place where it can be taken up again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from dlrunner.errors import Interrupted, PeerLostError


class StopSignals:
    """Raises `Interrupted` when a stop signal arrives; inside `deferred()` the first one waits in `pending`.

    Set-up and drawing are interrupted at once: they are done again anyway. The training loop defers, looks at
    `pending` after every batch, saves, and then leaves. A second signal does not wait, unless it comes within two
    seconds, when it is the same one: Ctrl-C reaches a sweep and its job both, and the sweep passes on what it gets.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._deferring = False
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            # torchrun stops what is left when one process is lost: this one still has to say so.
            gone = isinstance(value, PeerLostError) and signum == signal.SIGTERM
            signal.signal(signum, signal.SIG_IGN if gone else handler)
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
        """Let the first signal wait in `pending`; whoever defers raises it when everything is safe.

        After an error it goes on waiting: how that ended is written all the same.
        """
        self._deferring = True
        yield
        self._deferring = False

    def raise_pending(self) -> None:
        """Raise the signal that waited, if one did."""
        if self.pending is not None:
            raise Interrupted(self.pending)
