"""Parallel jobs: each in its own process, with a slot of cores and a GPU, and all stopped together.

A job that fails, or is killed, does not affect the others. One that ran out of memory next to others is repeated alone.
The engine starts the processes: on this machine (`WorkerPool`), or on others (`dlrunner.sweeps.engines`).
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pkgutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from dlrunner import reporting
from dlrunner.errors import RunError
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.job_process import perform_here
from dlrunner.sweeps.slots import ResourceSlot
from dlrunner.system.signals import StopSignals


class Screen(Protocol):
    """Shows the progress of jobs to the user."""

    def begin(self, job: Job) -> None:
        """A job has started."""
        ...

    def show(self, job: Job, message: tuple[Any, ...]) -> None:
        """A job sent ("message", text), ("epoch", epoch, epochs, steps), ("step", step, loss) or ("row", row)."""
        ...

    def end(self, job: Job, record: Mapping[str, Any]) -> None:
        """A job has ended."""
        ...

    def tick(self) -> None:
        """Some time has passed."""
        ...


class RunningJob(Protocol):
    """A job that an engine has started."""

    job: Job
    slot: ResourceSlot
    alone: bool
    """No other job has run at the same time: after running out of memory, repeating it is useless."""

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        ...

    def receive(self) -> list[tuple[Any, ...]]:
        """Return the job's new messages."""
        ...

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Let it save and exit (SIGTERM), or kill it (SIGKILL)."""
        ...

    def outcome(self) -> dict[str, Any]:
        """Return the record of the ended job; a killed job did not write one itself."""
        ...


class Engine(Protocol):
    """Starts jobs, on this machine or on others."""

    def start(self, job: Job, folder: SweepDirectory, slot: ResourceSlot, alone: bool) -> RunningJob:
        """Start a job."""
        ...

    def batch(self) -> AbstractContextManager[None]:
        """Return a context manager; jobs started within it may be submitted together."""
        ...

    def wait(self, running: Sequence[RunningJob]) -> None:
        """Wait a short time, or until one of the jobs has ended."""
        ...


def start_fork_server(jobs: Sequence[Job] = ()) -> None:
    """Start the process that jobs are forked from: it has imported all modules, and keeps no state of any job.

    Without it every job would take three seconds to import torch, and one more to import matplotlib.

    Args:
        jobs: the jobs to run; the classes of the first one are imported too.
    """
    modules = ["dlrunner.sweeps.job_process"]
    for job in jobs[:1]:
        parts = [job.config[part]["_target_"] for part in ("task", "data", "model") if job.config[part]]
        modules += [name.rpartition(".")[0] for name in parts if name.startswith("dlrunner.")]
        if job.config["log"]["plots"]:
            modules += [module.name for module in pkgutil.walk_packages(reporting.__path__, "dlrunner.reporting.")]
    multiprocessing.set_start_method("forkserver", force=True)  # a library may have set another
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: only the sweep and its jobs handle Ctrl-C
    try:
        forkserver.ensure_running()
    except OSError as error:  # the path of a socket is limited to about 100 characters
        raise RunError(
            f"jobs cannot be started: {error.strerror or error} ({tempfile.gettempdir()}); set TMPDIR to another folder"
        ) from None
    finally:
        signal.signal(signal.SIGINT, previous)


class Worker:
    """A job that runs in its own process on this machine."""

    def __init__(self, job: Job, folder: SweepDirectory, slot: ResourceSlot, alone: bool) -> None:
        self.job, self.folder, self.slot, self.alone = job, folder, slot, alone
        context = multiprocessing.get_context("forkserver")
        self.messages, sender = context.Pipe(duplex=False)
        (folder.job_folder(job.number) / "record.json").unlink(missing_ok=True)
        self.process: BaseProcess = context.Process(target=perform_here, args=(job, str(folder.path), slot, sender))
        self.process.start()
        sender.close()

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return not self.process.is_alive()

    def receive(self) -> list[tuple[Any, ...]]:
        """Return the job's new messages."""
        messages = []
        with contextlib.suppress(EOFError, OSError):
            while self.messages.poll():
                messages.append(self.messages.recv())
        return messages

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Send a signal: SIGTERM lets it save and exit."""
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, signum)

    def outcome(self) -> dict[str, Any]:
        """Wait for the end and return the job's record; for a killed job, write one."""
        self.process.join()
        self.messages.close()
        record = self.folder.record(self.job.number)
        if record is None:
            code = self.process.exitcode or 0
            error = f"killed by signal {-code}" if code < 0 else f"exited with status {code}"
            if code == -signal.SIGKILL:
                error += ", possibly because the system ran out of memory"
            # A stop signal may arrive before the job handles it: there was nothing to save yet.
            status = "interrupted" if code in (-signal.SIGTERM, -signal.SIGINT) else "failed"
            record = {"status": status, "error": error, "out_of_memory": code == -signal.SIGKILL}
            self.folder.write_record(self.job.number, record)
        return record


class WorkerPool:
    """Starts each job in its own process on this machine."""

    def start(self, job: Job, folder: SweepDirectory, slot: ResourceSlot, alone: bool) -> Worker:
        """Start a job."""
        return Worker(job, folder, slot, alone)

    def batch(self) -> AbstractContextManager[None]:
        """Return a context manager that does nothing: local jobs start one by one."""
        return contextlib.nullcontext()

    def wait(self, running: Sequence[Any]) -> None:
        """Wait until one of the processes ends, at most 0.1 s so that progress is shown."""
        connection.wait([each.process.sentinel for each in running], timeout=0.1)


def run_jobs(
    jobs: Iterable[Job],
    folder: SweepDirectory,
    slots: Sequence[ResourceSlot],
    screen: Screen,
    fail_fast: bool = False,
    engine: Engine | None = None,
    on_end: Callable[[Job, Mapping[str, Any]], None] = lambda job, record: None,
) -> dict[int, dict[str, Any]]:
    """Run jobs in parallel, one per slot, and return the records of those that were started.

    Args:
        jobs: in the order in which they start; the next one is requested when a slot is free.
        folder: their records are written here.
        slots: the resources of each parallel job.
        screen: shows progress.
        fail_fast: stop all jobs at the first failure.
        engine: starts the jobs; None: a WorkerPool.
        on_end: called with each ended job and its record, before the next job is requested.

    Raises:
        Interrupted: a stop signal arrived; all jobs have saved their state.
    """
    engine = engine or WorkerPool()
    waiting, again, free = iter(jobs), deque[Job](), deque(slots)
    running: list[RunningJob] = []
    records: dict[int, dict[str, Any]] = {}
    more = True

    def start(job: Job) -> None:
        for other in running:
            other.alone = False
        screen.begin(job)
        running.append(engine.start(job, folder, free.popleft(), alone=not running))

    def stop() -> None:
        nonlocal more
        more = False
        again.clear()
        for each in running:
            each.stop()

    stopping = False
    with StopSignals() as signals, signals.deferred():
        try:
            while running or again or more:
                if signals.pending is not None and not stopping:
                    stopping = True
                    stop()
                if more and free:
                    next_ones = list(itertools.islice(waiting, len(free)))
                    more = len(next_ones) == len(free)
                    if next_ones:
                        with engine.batch():
                            for job in next_ones:
                                start(job)
                if again and not running:
                    start(again.popleft())
                if running:
                    engine.wait(running)
                for each in list(running):
                    has_ended = each.has_ended()  # before receiving: the last messages must not be missed
                    for message in each.receive():
                        screen.show(each.job, message)
                    if not has_ended:
                        continue
                    running.remove(each)
                    free.append(each.slot)
                    record = records[each.job.number] = each.outcome()
                    if record.get("out_of_memory") and not (each.alone or stopping):
                        again.append(each.job)
                        screen.show(each.job, ("message", f"{record['error']}; retrying it alone"))
                        continue
                    screen.end(each.job, record)
                    on_end(each.job, record)
                    if fail_fast and record["status"] == "failed" and not stopping:
                        stopping = True
                        stop()
                screen.tick()
        except BaseException:  # such as a second signal, which is not deferred
            for each in running:
                each.stop(signal.SIGKILL)
            raise
    signals.raise_pending()
    return records
