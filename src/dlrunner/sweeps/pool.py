"""Jobs side by side: each in a process of its own, cores and GPUs leased out, all stopped together.

A job that fails, or is killed, ends nothing but itself. One that ran out of memory beside others is repeated alone.
Where the processes are is the engine's affair: here (`Processes`), or on other machines (`dlrunner.sweeps.engines`).
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pkgutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from dlrunner import reporting
from dlrunner.errors import BusyError, DataError, DlrunnerError, Interrupted, OutOfMemoryError, RunError
from dlrunner.execution import run as runner
from dlrunner.reporting.terminal.progress import row_line
from dlrunner.runs.fingerprint import code_digest
from dlrunner.sweeps.folder import Job, SweepDirectory, record_of
from dlrunner.system.parallel import num_cores
from dlrunner.system.signals import StopSignals

code_digest()  # of what the jobs' process has loaded: they are forked from it, whatever becomes of the files

PATIENCE = 30.0
"""Seconds that a job here waits for its folder: the jobs of a sweep that was killed still save what they have."""


@dataclass(frozen=True)
class ResourceSlot:
    """What a job may use while it runs: so many CPU threads (None: torch's choice), and one GPU or none."""

    threads: int | None = None
    gpu: str | None = None


class Screen(Protocol):
    """What shows a person how far the jobs are."""

    def begin(self, job: Job) -> None:
        """A job starts."""
        ...

    def show(self, job: Job, message: tuple[Any, ...]) -> None:
        """A job tells: ("said", text), ("epoch", epoch, epochs, steps), ("step", step, loss), ("row", row)."""
        ...

    def end(self, job: Job, record: Mapping[str, Any]) -> None:
        """A job has ended."""
        ...

    def tick(self) -> None:
        """Some time has passed."""
        ...


class Running(Protocol):
    """A job that an engine has started."""

    job: Job
    lease: ResourceSlot
    alone: bool
    """Nothing has run beside it: memory that did not suffice will not suffice again."""

    def over(self) -> bool:
        """Tell whether it has ended."""
        ...

    def received(self) -> list[tuple[Any, ...]]:
        """Return what the job has told since the last look."""
        ...

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Let it save where it stands and leave (SIGTERM), or end it (SIGKILL)."""
        ...

    def ended(self) -> dict[str, Any]:
        """Return what became of it; one that was killed left no word."""
        ...


class Engine(Protocol):
    """What starts jobs: on this machine, or on others."""

    def start(self, job: Job, folder: SweepDirectory, lease: ResourceSlot, alone: bool) -> Running:
        """Start a job."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Return a context; what is started within it, one job or more, may be handed over in one piece."""
        ...

    def wait(self, running: Sequence[Running]) -> None:
        """Wait a moment, or until one of the jobs has ended."""
        ...


def leases(asked: int | Literal["auto"] | None, jobs: Sequence[Job], gpu_share: float = 1.0) -> list[ResourceSlot]:
    """Divide this machine among jobs.

    Args:
        asked: how many jobs side by side (None: one); auto: as many as fit on the GPUs, or as there are cores.
        jobs: what is to be done; those that may use a GPU get one.
        gpu_share: of a GPU, how much a job needs.
    """
    asked = asked or 1
    wants_gpu = any(job.config["device"] in ("auto", "cuda") for job in jobs) and torch.cuda.is_available()
    if wants_gpu:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        # Neighbours in the list are on different GPUs, so that two jobs share one only when all have one.
        slots = [gpu for _ in range(max(1, int(1 / gpu_share + 1e-9))) for gpu in visible.split(",")]
        count = min(len(slots), len(slots) if asked == "auto" else asked)
        threads = max(1, num_cores() // count) if count > 1 else None
        return [ResourceSlot(threads, gpu) for gpu in slots[:count]]
    if asked != "auto":
        count = asked
    else:
        threads_each = max((job.config["trainer"].get("num_threads") or 1 for job in jobs), default=1)
        count = max(1, min(num_cores() // threads_each, len(jobs)))
    return [ResourceSlot(max(1, num_cores() // count) if count > 1 else None)] * count


def start_fork_server(jobs: Sequence[Job] = ()) -> None:
    """Start the process that jobs are forked from: it has imported everything, and nothing of a job stays in it.

    Without it every job would take three seconds to import torch, and one more to import matplotlib.

    Args:
        jobs: what is to be done; what the first of them names is imported too.
    """
    modules = ["dlrunner.sweeps.pool"]
    for job in jobs[:1]:
        parts = [job.config[part]["_target_"] for part in ("task", "data", "model") if job.config[part]]
        modules += [name.rpartition(".")[0] for name in parts if name.startswith("dlrunner.")]
        if job.config["log"]["plots"]:
            modules += [module.name for module in pkgutil.walk_packages(reporting.__path__, "dlrunner.reporting.")]
    multiprocessing.set_start_method("forkserver", force=True)  # a library may have set another
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for the sweep and its jobs
    try:
        forkserver.ensure_running()
    except OSError as error:  # a socket's path may have a hundred characters
        raise RunError(
            f"jobs cannot be started: {error.strerror or error} ({tempfile.gettempdir()}); TMPDIR names another folder"
        ) from None
    finally:
        signal.signal(signal.SIGINT, previous)


class Process:
    """A job that runs, in a process of its own."""

    def __init__(self, job: Job, folder: SweepDirectory, lease: ResourceSlot, alone: bool) -> None:
        self.job, self.folder, self.lease, self.alone = job, folder, lease, alone
        context = multiprocessing.get_context("forkserver")
        self.messages, other = context.Pipe(duplex=False)
        (folder.place(job.number) / "record.json").unlink(missing_ok=True)
        self.process: BaseProcess = context.Process(target=_perform_here, args=(job, str(folder.path), lease, other))
        self.process.start()
        other.close()

    def over(self) -> bool:
        """Tell whether the process has ended."""
        return not self.process.is_alive()

    def received(self) -> list[tuple[Any, ...]]:
        """Return what the job has told since the last look."""
        found = []
        with contextlib.suppress(EOFError, OSError):
            while self.messages.poll():
                found.append(self.messages.recv())
        return found

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Send a signal: SIGTERM lets it save where it stands."""
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, signum)

    def ended(self) -> dict[str, Any]:
        """Wait for the end and return what became of the job; one that was killed left no word."""
        self.process.join()
        self.messages.close()
        record = self.folder.record(self.job.number)
        if record is None:
            code = self.process.exitcode or 0
            said = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
            if code == -signal.SIGKILL:
                said += ", as the system does when memory runs out"
            # A stop signal may come before the job listens to it: there was nothing to save yet.
            status = "interrupted" if code in (-signal.SIGTERM, -signal.SIGINT) else "failed"
            record = {"status": status, "error": said, "out_of_memory": code == -signal.SIGKILL}
            self.folder.write_record(self.job.number, record)
        return record


class Processes:
    """Starts each job in a process of its own on this machine."""

    def start(self, job: Job, folder: SweepDirectory, lease: ResourceSlot, alone: bool) -> Process:
        """Start a job."""
        return Process(job, folder, lease, alone)

    def together(self) -> AbstractContextManager[None]:
        """Nothing is gained by starting several at once."""
        return contextlib.nullcontext()

    def wait(self, running: Sequence[Any]) -> None:
        """Wait until one of the processes ends, but not for long: they tell how far they are."""
        connection.wait([each.process.sentinel for each in running], timeout=0.1)


def run_jobs(
    jobs: Iterable[Job],
    folder: SweepDirectory,
    places: Sequence[ResourceSlot],
    screen: Screen,
    fail_fast: bool = False,
    engine: Engine | None = None,
    told: Callable[[Job, Mapping[str, Any]], None] = lambda job, record: None,
) -> dict[int, dict[str, Any]]:
    """Run jobs, as many side by side as there are places; return what became of those that were started.

    Args:
        jobs: in the order in which they start; the next one is asked for when a place is free.
        folder: where their records go.
        places: what each of the jobs that run at one time may use.
        screen: shows how far they are.
        fail_fast: the first failure ends all.
        engine: starts them; none: processes on this machine.
        told: is called with a job that has ended and what became of it, before the next job is asked for.

    Raises:
        Interrupted: a stop signal came; all jobs have saved where they stood.
    """
    engine = engine or Processes()
    waiting, again, free = iter(jobs), deque[Job](), deque(places)
    running: list[Running] = []
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
                        with engine.together():
                            for job in next_ones:
                                start(job)
                if again and not running:
                    start(again.popleft())
                if running:
                    engine.wait(running)
                for each in list(running):
                    over = each.over()
                    for message in each.received():
                        screen.show(each.job, message)
                    if not over:
                        continue
                    running.remove(each)
                    free.append(each.lease)
                    record = records[each.job.number] = each.ended()
                    if record.get("out_of_memory") and not (each.alone or stopping):
                        again.append(each.job)
                        screen.show(each.job, ("said", f"{record['error']}: it is repeated alone"))
                        continue
                    screen.end(each.job, record)
                    told(each.job, record)
                    if fail_fast and record["status"] == "failed" and not stopping:
                        stopping = True
                        stop()
                screen.tick()
        except BaseException:  # a second signal does not wait
            for each in running:
                each.stop(signal.SIGKILL)
            raise
    signals.raise_pending()
    return records


def _perform_here(job: Job, path: str, lease: ResourceSlot, messages: connection.Connection) -> None:
    """Do a job of a sweep on this machine, and leave when the sweep is killed."""
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    perform(job, path, lease, messages.send)


def perform(
    job: Job, path: str, lease: ResourceSlot, send: Callable[[tuple[Any, ...]], None], patience: float = PATIENCE
) -> None:
    """Do a job and write down what became of it; runs in the job's own process, whoever started that.

    Args:
        job: what is asked for.
        path: the sweep's folder.
        lease: what the job may use.
        send: takes messages (see `Screen.show`) to the sweep; an OSError means that nobody listens any more.
        patience: seconds that it waits for another process that does the same run; then it has failed.
    """
    folder = SweepDirectory(Path(path))
    # What it prints by itself would tear the screen of all jobs apart.
    output = os.open(folder.place(job.number) / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    if lease.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = lease.gpu
    if lease.threads:
        torch.set_num_threads(lease.threads)
    messenger = _Messenger(send)
    record: dict[str, Any]
    try:
        outcome = _run_when_free(job, messenger, patience)
        record = record_of(outcome.path, outcome.summary)
    except Interrupted as stopped:
        record = {"status": "interrupted", "error": f"stopped by signal {stopped.signum}"}
    except DlrunnerError as error:
        place = str(error.folder.resolve()) if error.folder else None
        record = {"status": "failed", "error": str(error), "folder": place}
        record |= {"out_of_memory": isinstance(error, OutOfMemoryError), "lacks_data": isinstance(error, DataError)}
    folder.write_record(job.number, record)
    sys.stdout.flush()


def _run_when_free(job: Job, messenger: _Messenger, patience: float) -> runner.Outcome:
    """Run, once a process that still does the same run has left it; if it has finished, its result is this job's."""
    begun, told = time.monotonic(), False
    while True:
        try:
            return runner.run(job.config, job.overrides, messenger.say, messenger, job.changed)
        except BusyError as busy:
            if time.monotonic() > begun + patience:
                raise
            if not told:
                messenger.say(f"{busy}: waiting for it")
            told = True
            time.sleep(0.2)


def _stop_with_the_sweep() -> None:
    """When the sweep is killed, its jobs save where they stand and leave."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


class _Messenger:
    """Tells the sweep how far this job is; nobody need listen."""

    interval = 1.0

    def __init__(self, send: Callable[[tuple[Any, ...]], None]) -> None:
        self._deliver = send

    def _send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):
            self._deliver(message)

    def say(self, text: str) -> None:
        print(text, flush=True)
        self._send("said", text)

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        self._send("epoch", epoch, num_epochs, num_steps)

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        self._send("step", step, loss)

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        print(row_line(row), flush=True)
        self._send("row", dict(row))

    def close(self) -> None:
        pass
