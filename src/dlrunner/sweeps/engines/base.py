"""Base classes of remote engines: the sweep and its jobs communicate through the sweep's folder on a shared disk."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from dlrunner.config.schema import NeedsSettings
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.job_process import perform
from dlrunner.sweeps.slots import ResourceSlot
from dlrunner.system.signals import StopSignals

FORWARDED_VARIABLES = re.compile(
    r"DLRUNNER_(CACHE|DATA|OFFLINE)|(?!\w*(KEY|TOKEN|PASSWORD|SECRET))(HF|MLFLOW|WANDB)_\w+"
)
"""Environment variables that are passed on to a remote job; not keys, since submitit writes the job to a file."""


class RemoteCall:
    """A job as a picklable callable, which an engine calls in another process.

    Args:
        job: the job to run.
        folder: the sweep's.
        slot: the job's resources.
    """

    def __init__(self, job: Job, folder: SweepDirectory, slot: ResourceSlot) -> None:
        self.job, self.path, self.slot = job, folder.path.resolve(), slot
        self.working_directory = Path.cwd()
        self.environment = {key: os.environ[key] for key in os.environ if FORWARDED_VARIABLES.fullmatch(key)}

    def __call__(self) -> None:
        """Run the job; it writes its messages to a file, which exists once the job handles signals."""
        os.chdir(self.working_directory)
        os.environ.update(self.environment)
        file = SweepDirectory(self.path).job_folder(self.job.number) / "messages.jsonl"
        with StopSignals(), file.open("a") as messages:

            def send(message: tuple[Any, ...]) -> None:
                messages.write(json.dumps(message) + "\n")
                messages.flush()

            # Another process may still execute the run for an earlier sweep that is gone: use its result.
            perform(self.job, str(self.path), self.slot, send, busy_timeout=math.inf)

    def checkpoint(self) -> Any:
        """Return the call that submitit queues again after a timeout or preemption; the run is then resumed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class RemoteJob(ABC):
    """A job that runs in a process of a remote engine."""

    def __init__(self, job: Job, folder: SweepDirectory, slot: ResourceSlot) -> None:
        self.job, self.folder, self.slot, self.alone = job, folder, slot, True
        self._read = 0
        self.stop_requested_at: float | None = None  # by the monotonic clock
        self.handles_signals = False
        self._messages = folder.job_folder(job.number) / "messages.jsonl"
        folder.reset(job.number)
        self._messages.unlink(missing_ok=True)

    @abstractmethod
    def has_ended(self) -> bool:
        """Return whether it has ended."""

    @abstractmethod
    def cancel(self, signum: int) -> None:
        """Let it save and exit (SIGTERM), or kill it (SIGKILL)."""

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Cancel it."""
        self.stop_requested_at = time.monotonic()
        self.handles_signals = self._messages.exists()
        self.cancel(signum)

    @abstractmethod
    def failure_reason(self) -> str:
        """Return why a job ended without a record."""

    def receive(self) -> list[tuple[Any, ...]]:
        """Return the job's new messages."""
        with contextlib.suppress(OSError), self._messages.open("rb") as file:
            file.seek(self._read)
            lines = file.read().rpartition(b"\n")[0]
            self._read += len(lines) + 1 if lines else 0
            return [tuple(json.loads(line)) for line in lines.splitlines()]
        return []

    def outcome(self) -> dict[str, Any]:
        """Return the job's record; the sweep does not manage remote memory, so nothing is repeated alone."""
        record = self.folder.record(self.job.number)
        if record is None:
            status = "failed" if self.stop_requested_at is None else "interrupted"
            record = self.folder.end(self.job.number, {"status": status, "error": self.failure_reason()})
        return {**record, "out_of_memory": False}


class RemoteEngine(ABC):
    """Starts jobs on other machines.

    Args:
        name: of the launcher.
        needs: the resources of a job.
    """

    def __init__(self, name: str, needs: NeedsSettings) -> None:
        self.name, self.needs = name, needs

    @abstractmethod
    def start(self, job: Job, folder: SweepDirectory, slot: ResourceSlot, alone: bool) -> RemoteJob:
        """Submit a job."""

    def batch(self) -> AbstractContextManager[None]:
        """Return a context manager; jobs started within it may be submitted together."""
        return contextlib.nullcontext()

    def wait(self, running: Sequence[Any]) -> None:
        """Wait a short time."""
        time.sleep(0.1)

    def slots(self, requested: int | Literal["auto"] | None, num_jobs: int) -> list[ResourceSlot]:
        """Return the slots of parallel jobs, with a thread per core; the engine assigns GPUs itself.

        Args:
            requested: the number of parallel jobs; None and auto: the engine decides.
            num_jobs: the number of jobs.
        """
        return [ResourceSlot(self.needs.cpus)] * (min(requested, num_jobs) if isinstance(requested, int) else num_jobs)

    def close(self) -> None:
        """Disconnect from the engine."""


def without_none(**settings: Any) -> dict[str, Any]:
    """Return the settings that are not None."""
    return {name: value for name, value in settings.items() if value is not None}
