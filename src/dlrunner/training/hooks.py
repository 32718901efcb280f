"""Hooks of the training loop: progress, checkpoints, stopping."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dlrunner.errors import Interrupted, RunError
from dlrunner.system.signals import StopSignals
from dlrunner.training.loss_log import LossLog
from dlrunner.training.state import Row, TrainingState


class Checkpoints(Protocol):
    """Storage of checkpoints and history."""

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any] | None:
        """Return a checkpoint, or None when there is none."""
        ...

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint atomically."""
        ...

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write the rows of all epochs so far."""
        ...


class Display(Protocol):
    """Progress display of a run."""

    interval: float
    """Seconds between two calls of `advance`."""

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        """Start or resume an epoch at a step."""
        ...

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        """Show the progress of the epoch."""
        ...

    def end_epoch(self, row: Row) -> None:
        """Show the metrics of an epoch."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


@dataclass(frozen=True, slots=True)
class Due:
    """Actions that are due after a step; false if there are none."""

    show: bool = False
    save: bool = False
    stop: bool = False

    def __bool__(self) -> bool:
        return self.show or self.save or self.stop


NOTHING = Due()


class Hooks:
    """Progress, checkpoints and stopping of one training.

    Args:
        run: stores checkpoints and history.
        display: shows progress.
        signals: pending stop signals.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0: none.
        log: writes a line.
    """

    def __init__(
        self,
        run: Checkpoints,
        display: Display,
        signals: StopSignals,
        checkpoint_minutes: float = 10.0,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.run, self.display, self.signals, self.log = run, display, signals, log
        self.checkpoint_minutes = checkpoint_minutes
        self._shown = self._saved = time.perf_counter()

    def load(self, name: str = "last.pt") -> dict[str, Any] | None:
        """Return a checkpoint of this run, or None."""
        return self.run.load_checkpoint(name)

    def load_best(self, name: str, epoch: int | None = None) -> dict[str, Any]:
        """Return the best weights so far.

        Args:
            name: of the checkpoint.
            epoch: that they must be of; None: any.

        Raises:
            RunError: there are none, or they are of another epoch: the metrics would not be theirs.
        """
        best = self.load(name)
        if best is None or epoch not in (None, best["epoch"]):
            problem = "is missing" if best is None else f"has the weights of epoch {best['epoch']}, not of {epoch}"
            raise RunError(f"{name}, the best checkpoint, {problem}; rerun=true trains again in a new folder")
        return best

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Save a checkpoint."""
        self.run.save(name, state)
        self._saved = time.perf_counter()

    def deferred_signals(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which stop signals are deferred until checked."""
        return self.signals.deferred()

    def start_epoch(self, state: TrainingState, num_epochs: int, num_steps: int) -> None:
        """Start or resume an epoch."""
        self.display.start_epoch(state.epoch, num_epochs, num_steps, state.step)
        self._shown = self._saved = time.perf_counter()

    def due(self) -> Due:
        """Return the actions due after this step, from clock and signals, without waiting for a GPU."""
        now = time.perf_counter()
        stop = self.signals.pending is not None
        show = now - self._shown >= self.display.interval
        save = stop or now - self._saved >= 60 * self.checkpoint_minutes > 0
        return Due(show, save, stop) if show or save else NOTHING

    def show(self, losses: LossLog, lr: float) -> None:
        """Show the progress of the epoch, as of the last read of the losses."""
        value = losses.smoothed.value
        self.display.advance(losses.state.step, value, lr, losses.examples_per_second())
        self._shown = time.perf_counter()

    def show_epoch(self, row: Row) -> None:
        """Show the metrics of an epoch."""
        self.display.end_epoch(row)

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write the rows of all epochs so far."""
        self.run.write_history(rows)

    def stop_requested(self) -> bool:
        """Return whether a stop signal is pending."""
        return self.signals.pending is not None

    def stop_requested_in_evaluation(self) -> bool:
        """Return whether a stop signal is pending; called after each batch of an evaluation."""
        return self.stop_requested()

    def stop(self) -> None:
        """Raise the pending stop signal.

        Raises:
            Interrupted: always.
        """
        raise Interrupted(self.signals.pending or signal.SIGTERM)
