"""The process of one job of a sweep: it executes the run, sends messages, and writes the record of how it ended."""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from dlrunner.errors import BusyError, ConfigError, DataError, DlrunnerError, Interrupted, OutOfMemoryError
from dlrunner.execution import run as runner
from dlrunner.reporting.terminal.progress import row_line, shown_columns
from dlrunner.runs.fingerprint import code_digest
from dlrunner.sweeps.folder import Job, SweepDirectory, record_of
from dlrunner.sweeps.slots import ResourceSlot

code_digest()  # cached here, before the jobs are forked: later edits of the files do not change what they run

BUSY_TIMEOUT = 30.0
"""Seconds that a local job waits for its run folder, while a job of a killed sweep is still saving there."""


def perform_here(
    job: Job, path: str, slot: ResourceSlot, messages: connection.Connection, environment: Mapping[str, str]
) -> None:
    """Run a job of a sweep on this machine, and stop it if the sweep is killed.

    The environment is that of the sweep: this process was forked from one that may be of an earlier sweep.
    """
    os.environ.clear()
    os.environ.update(environment)
    gc.freeze()  # what is shared with the other jobs: collections need not visit it
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    perform(job, path, slot, messages.send)


def perform(
    job: Job, path: str, slot: ResourceSlot, send: Callable[[tuple[Any, ...]], None], busy_timeout: float = BUSY_TIMEOUT
) -> None:
    """Run a job and write its record; called in the job's own process.

    Args:
        job: the job to run.
        path: the sweep's folder.
        slot: the job's resources.
        send: sends messages (see `Screen.show`) to the sweep; raises OSError if the sweep is gone.
        busy_timeout: seconds to wait for another process that executes the same run, before the job fails.
    """
    folder = SweepDirectory(Path(path))
    # Its own output would garble the display of all jobs.
    output = os.open(folder.job_folder(job.number) / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    if slot.threads:
        torch.set_num_threads(slot.threads)
    messenger = _Messenger(send)
    try:
        if job.code and job.code != code_digest(job.config["plugins"]):
            raise ConfigError(
                "the code was edited after the sweep had started; the same command runs what is left with the new code"
            )
        outcome = _run_when_free(job, messenger, busy_timeout, functools.partial(folder.start, job.number))
        folder.write_record(job.number, record_of(outcome.path, outcome.summary))
    except Interrupted as stopped:
        folder.end(job.number, {"status": "interrupted", "error": f"stopped by signal {stopped.signum}"})
    except DlrunnerError as error:
        reason = {"out_of_memory": isinstance(error, OutOfMemoryError), "is_data_error": isinstance(error, DataError)}
        folder.end(job.number, {"status": "failed", "error": str(error), **reason})
    sys.stdout.flush()


def _run_when_free(
    job: Job, messenger: _Messenger, busy_timeout: float, on_claim: Callable[[Path], None]
) -> runner.Outcome:
    """Run the job, after any other process that executes the same run; the result of that one is then used."""
    started, notified = time.monotonic(), False
    while True:
        try:
            return runner.run(job.config, job.overrides, messenger.notify, messenger, job.changed, job.swept, on_claim)
        except BusyError as busy:
            if time.monotonic() > started + busy_timeout:
                raise
            if not notified:
                messenger.notify(f"waiting: {busy}")
            notified = True
            time.sleep(0.2)


def _stop_with_the_sweep() -> None:
    """Wait for the end of the sweep's process, then let this job save and exit."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


class _Messenger:
    """Sends the progress of this job to the sweep, if that still runs."""

    interval = 1.0

    def __init__(self, send: Callable[[tuple[Any, ...]], None]) -> None:
        self._deliver = send
        self._columns: list[str] = []

    def _send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):
            self._deliver(message)

    def notify(self, text: str) -> None:
        print(text, flush=True)
        self._send("message", text)

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        self._send("epoch", epoch, num_epochs, num_steps)

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        self._send("step", step, loss)

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        self._columns = self._columns or shown_columns(row)
        print(row_line(row, self._columns), flush=True)
        self._send("row", dict(row))

    def close(self) -> None:
        pass
