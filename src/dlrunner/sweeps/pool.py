"""Parallel jobs: each in its own process, with a slot of cores and a GPU, and all stopped together.

A job that fails, or is killed, does not affect the others. One that ran out of memory next to others is repeated alone.
The engine starts the processes: on this machine (`WorkerPool`), or on others (`dlrunner.sweeps.engines`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import pkgutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from dlrunner import reporting
from dlrunner.errors import RunError
from dlrunner.runs.fingerprint import code_digest
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.job_process import perform_here
from dlrunner.sweeps.slots import ResourceSlot
from dlrunner.system.parallel import without_main
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


def modules_of(jobs: Sequence[Job]) -> list[str]:
    """Return what the jobs import, or would import each by itself, by the settings of the first one."""
    modules = ["dlrunner.sweeps.job_process"]
    for job in jobs[:1]:
        parts = [job.config[part]["_target_"] for part in ("task", "data", "model") if job.config[part]]
        modules += [name.rpartition(".")[0] for name in parts if name.startswith("dlrunner.")]
        if job.config["data"] and job.config["data"].get("path"):
            modules.append("duckdb")
        if job.config["log"]["report"]:
            modules.append("dlrunner.reporting.html.compiled")
        if job.config["log"]["plots"]:
            modules += [module.name for module in pkgutil.walk_packages(reporting.__path__, "dlrunner.reporting.")]
    return modules


def start_fork_server(jobs: Sequence[Job] = ()) -> None:
    """Start the process that jobs are forked from: it has imported all modules, and keeps no state of any job.

    Without it every job would take three seconds to import torch, and one more to import matplotlib.

    Args:
        jobs: the jobs to run; what the first one needs is imported too.
    """
    multiprocessing.set_start_method("forkserver", force=True)  # a library may have set another
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules_of(jobs))
    is_main = threading.current_thread() is threading.main_thread()  # another one receives no signals, nor may set them
    try:
        if is_main:
            previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: only sweep and jobs handle Ctrl-C
        forkserver.ensure_running()
    except OSError as error:  # the path of a socket is limited to about 100 characters
        raise RunError(
            f"jobs cannot be started: {error.strerror or error} ({tempfile.gettempdir()}); set TMPDIR to another folder"
        ) from None
    finally:
        if is_main:
            signal.signal(signal.SIGINT, previous)


class Worker:
    """A job that runs in its own process on this machine."""

    def __init__(self, job: Job, folder: SweepDirectory, slot: ResourceSlot, alone: bool) -> None:
        self.job, self.folder, self.slot, self.alone = job, folder, slot, alone
        context = multiprocessing.get_context("forkserver")
        self.messages, sender = context.Pipe(duplex=False)
        folder.reset(job.number)
        arguments = (job, str(folder.path), slot, sender, dict(os.environ))
        self.process: BaseProcess = context.Process(target=perform_here, args=arguments)
        with without_main():
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
            ended = {"status": status, "error": error, "out_of_memory": code == -signal.SIGKILL}
            record = self.folder.end(self.job.number, ended)
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
    code = functools.cache(code_digest)
    jobs = (replace(job, code=code(tuple(job.config.get("plugins") or ()))) for job in jobs)
    schedule = _Schedule(jobs, folder, deque(slots), screen, engine or WorkerPool())
    with StopSignals() as signals, signals.deferred():
        try:
            while not schedule.is_finished:
                if signals.pending is not None:
                    schedule.stop()
                schedule.start_next()
                for job, record in schedule.ended():
                    screen.end(job, record)
                    on_end(job, record)
                    if fail_fast and record["status"] == "failed":
                        schedule.stop()
                screen.tick()
        except BaseException:  # such as a second signal, which is not deferred
            schedule.kill()
            raise
    signals.raise_pending()
    return schedule.records


@dataclass
class _Schedule:
    """Which jobs run, and which are next: those that wait, then those that ran out of memory, one by one."""

    waiting: Iterator[Job]
    folder: SweepDirectory
    free: deque[ResourceSlot]
    screen: Screen
    engine: Engine
    running: list[RunningJob] = field(default_factory=list)
    again: deque[Job] = field(default_factory=deque)
    """Jobs that ran out of memory next to others, and are repeated alone."""
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    has_more: bool = True
    """There may be waiting jobs."""
    is_stopping: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether no job runs or waits."""
        return not (self.running or self.again or self.has_more)

    def start_next(self) -> None:
        """Start a job in each free slot; those to be repeated start when no other one runs."""
        if self.has_more and self.free:
            jobs = list(itertools.islice(self.waiting, len(self.free)))
            self.has_more = len(jobs) == len(self.free)
            if jobs:
                with self.engine.batch():
                    for job in jobs:
                        self._start(job)
        if self.again and not self.running:
            self._start(self.again.popleft())

    def _start(self, job: Job) -> None:
        for other in self.running:
            other.alone = False
        self.screen.begin(job)
        self.running.append(self.engine.start(job, self.folder, self.free.popleft(), alone=not self.running))

    def ended(self) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Wait a moment, show new messages, and yield the jobs that have ended with their records."""
        if self.running:
            self.engine.wait(self.running)
        for each in list(self.running):
            has_ended = each.has_ended()  # before receiving: the last messages must not be missed
            for message in each.receive():
                self.screen.show(each.job, message)
            if not has_ended:
                continue
            self.running.remove(each)
            self.free.append(each.slot)
            record = self.records[each.job.number] = each.outcome()
            if record.get("out_of_memory") and not (each.alone or self.is_stopping):
                self.again.append(each.job)
                self.screen.show(each.job, ("message", f"{record['error']}; retrying it alone"))
            else:
                yield each.job, record

    def stop(self) -> None:
        """Let all running jobs save and exit, once, and start no other."""
        if self.is_stopping:
            return
        self.is_stopping, self.has_more = True, False
        self.again.clear()
        for each in self.running:
            each.stop()

    def kill(self) -> None:
        """Kill all running jobs."""
        for each in self.running:
            each.stop(signal.SIGKILL)
