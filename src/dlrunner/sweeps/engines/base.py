"""What all engines elsewhere have in common: the sweep and its jobs meet in the sweep's folder, which all see."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from dlrunner.config.schema import NeedsSettings
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.pool import ResourceSlot, perform
from dlrunner.system.signals import StopSignals

CARRIED = ("DLRUNNER_CACHE", "DLRUNNER_DATA", "DLRUNNER_OFFLINE")
"""Variables of the environment that a job elsewhere finds as they are here."""


class Work:
    """A job's work: what an engine carries to another process and calls there.

    Args:
        job: what is asked for.
        folder: the sweep's.
        lease: what the job may use.
    """

    def __init__(self, job: Job, folder: SweepDirectory, lease: ResourceSlot) -> None:
        self.job, self.path, self.lease = job, folder.path.resolve(), lease
        self.here = Path.cwd()
        self.environment = {key: os.environ[key] for key in CARRIED if key in os.environ}

    def __call__(self) -> None:
        """Do the job; its messages go into a file, a line each: once it is there, the job listens to signals."""
        os.chdir(self.here)
        os.environ.update(self.environment)
        file = SweepDirectory(self.path).place(self.job.number) / "messages.jsonl"
        with StopSignals(), file.open("a") as messages:

            def send(message: tuple[Any, ...]) -> None:
                messages.write(json.dumps(message) + "\n")
                messages.flush()

            # If the run is being done, a sweep that is gone has handed it over: its result will be this job's.
            perform(self.job, str(self.path), self.lease, send, patience=math.inf)

    def checkpoint(self) -> Any:
        """Return what submitit queues again when the time is up or the machine is needed: the run goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class RemoteJob(ABC):
    """A job that runs elsewhere."""

    def __init__(self, job: Job, folder: SweepDirectory, lease: ResourceSlot) -> None:
        self.job, self.folder, self.lease, self.alone = job, folder, lease, True
        self._read = 0
        self.told_to_stop: float | None = None  # when, by the monotonic clock
        self.has_heard = False
        for name in ("record.json", "messages.jsonl"):
            (folder.place(job.number) / name).unlink(missing_ok=True)

    @abstractmethod
    def over(self) -> bool:
        """Tell whether it has ended."""

    @abstractmethod
    def cancel(self, signum: int) -> None:
        """Let it save where it stands and leave (SIGTERM), or end it (SIGKILL)."""

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Cancel it."""
        self.told_to_stop = time.monotonic()
        self.has_heard = (self.folder.place(self.job.number) / "messages.jsonl").exists()
        self.cancel(signum)

    @abstractmethod
    def last_words(self) -> str:
        """Say how a job ended that left no record."""

    def received(self) -> list[tuple[Any, ...]]:
        """Return what the job has told since the last look."""
        with contextlib.suppress(OSError), (self.folder.place(self.job.number) / "messages.jsonl").open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
            self._read += len(whole) + 1 if whole else 0
            return [tuple(json.loads(line)) for line in whole.splitlines()]
        return []

    def ended(self) -> dict[str, Any]:
        """Return what became of it; memory elsewhere is not shared with the sweep: nothing is repeated alone."""
        record = self.folder.record(self.job.number)
        if record is None:
            status = "failed" if self.told_to_stop is None else "interrupted"
            record = {"status": status, "error": self.last_words()}
            self.folder.write_record(self.job.number, record)
        return {**record, "out_of_memory": False}


class RemoteEngine(ABC):
    """Starts jobs elsewhere.

    Args:
        name: of the launcher.
        needs: what a job asks for.
    """

    def __init__(self, name: str, needs: NeedsSettings) -> None:
        self.name, self.needs = name, needs

    @abstractmethod
    def start(self, job: Job, folder: SweepDirectory, lease: ResourceSlot, alone: bool) -> RemoteJob:
        """Hand a job over."""

    def together(self) -> AbstractContextManager[None]:
        """Return a context; what is started within it may be handed over in one piece."""
        return contextlib.nullcontext()

    def wait(self, running: Sequence[Any]) -> None:
        """Wait a moment."""
        time.sleep(0.1)

    def places(self, asked: int | Literal["auto"] | None, number: int) -> list[ResourceSlot]:
        """Return what each of the jobs that run at one time may use: threads as cores; the engine hands out the GPUs.

        Args:
            asked: how many jobs side by side; None and auto: the engine decides.
            number: how many jobs there are.
        """
        return [ResourceSlot(self.needs.cpus)] * (min(asked, number) if isinstance(asked, int) else number)

    def close(self) -> None:
        """Leave the engine."""


def given(**needs: Any) -> dict[str, Any]:
    """Return the needs that are stated."""
    return {name: value for name, value in needs.items() if value is not None}
