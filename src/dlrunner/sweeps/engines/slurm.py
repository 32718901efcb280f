"""Jobs that submitit hands to Slurm, or to processes of this machine that stand for it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import submitit
from submitit.core.core import DelayedJob
from submitit.core.utils import FailedJobError, FailedSubmissionError

from dlrunner.config.schema import NeedsSettings
from dlrunner.errors import ConfigError, RunError
from dlrunner.sweeps.engines.base import RemoteEngine, RemoteJob, Work, given
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.pool import ResourceSlot
from dlrunner.system.parallel import num_cores

A_DAY = 24 * 60
"""Minutes that a job has when none are stated; submitit's own default is five."""

AGAIN = 3.0
"""Seconds after which a job that did not listen yet is told again to stop."""

MOST_TIMEOUTS = 20
"""A job whose time is up is queued again, and goes on from its checkpoint, so many times."""


class SubmittedJob(RemoteJob):
    """A job that waits in the queue, or runs."""

    submitted: Any

    def over(self) -> bool:
        """Ask submitit, which looks for the result's file often and asks the queue now and then."""
        return bool(self.submitted.done())

    def cancel(self, signum: int) -> None:
        """Cancel: Slurm sends SIGTERM, and SIGKILL half a minute later."""
        if isinstance(self.submitted, DelayedJob):  # the queue has refused it
            return
        if isinstance(self.submitted, submitit.LocalJob):  # its cancel() kills after one second
            with contextlib.suppress(ProcessLookupError):
                # What is signalled hands SIGTERM on; killed, it would leave the job behind. A job that hears SIGTERM a
                # second time does not wait.
                os.kill(int(self.submitted.job_id), signal.SIGTERM)
        else:
            self.submitted.cancel(check=False)

    def stop_again(self) -> None:
        """Stop a job on this machine that did not listen yet when it was told to: submitit has swallowed the signal."""
        told = self.told_to_stop
        if told is None or self.has_heard or not isinstance(self.submitted, submitit.LocalJob):
            return
        if time.monotonic() - told > AGAIN:
            self.stop()

    def last_words(self) -> str:
        """Name the queue's word for it, and where the job's own are."""
        job = self.submitted
        return f"job {job.job_id} of the queue left no word (its state: {job.state}); see {job.paths.stderr}"


class Submitted(RemoteEngine):
    """Hands jobs to Slurm, many of them as one job array.

    Args:
        launcher: submitit_slurm, or submitit_local.
        folder: for submitit's files.
        needs: what a job asks for.
        jobs: most that may run side by side; None: the queue decides.

    Raises:
        ConfigError: there is no Slurm here, or it knows no such need.
    """

    def __init__(self, launcher: str, folder: Path, needs: NeedsSettings, jobs: int | None = None) -> None:
        super().__init__(launcher, needs)
        asked = given(cpus_per_task=needs.cpus, mem_gb=needs.memory_gb, slurm_partition=needs.partition)
        asked |= given(gpus_per_node=None if needs.gpus is None else int(needs.gpus), slurm_array_parallelism=jobs)
        if needs.gpus is not None and needs.gpus != int(needs.gpus):
            raise ConfigError(f"sweep.needs.gpus: Slurm gives whole GPUs, not {needs.gpus}")
        cluster = launcher.removeprefix("submitit_")
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
            more = {f"slurm_{name}": value for name, value in needs.more.items()}
            self.executor.update_parameters(name="dlrun", timeout_min=needs.minutes or A_DAY, **asked, **more)
        except RuntimeError as error:
            raise ConfigError(f"hydra/launcher={launcher}: {error}") from None
        except (NameError, ValueError, TypeError) as error:
            raise ConfigError(f"sweep.needs.more: {str(error).splitlines()[0]}") from None

    def places(self, asked: int | Literal["auto"] | None, number: int) -> list[ResourceSlot]:
        """Hand all jobs to Slurm at once, as an array that knows how many may run; here, as many as there are cores."""
        if self.name == "submitit_slurm":
            return super().places(None, number)
        fit = max(1, num_cores() // (self.needs.cpus or 1))
        return super().places(asked if isinstance(asked, int) else fit, number)

    def start(self, job: Job, folder: SweepDirectory, lease: ResourceSlot, alone: bool) -> SubmittedJob:
        """Submit a job."""
        launched = SubmittedJob(job, folder, lease)
        launched.submitted = self.executor.submit(Work(job, folder, lease))
        return launched

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Submit as one array what is started within.

        Raises:
            RunError: the queue refuses it, and says why.
        """
        # Inherited by processes on this machine: a Ctrl-C on the terminal is for the sweep, which lets them save.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self.executor.batch():
                yield
        except (FailedJobError, FailedSubmissionError) as error:
            said = " ".join(str(error).split())
            raise RunError(f"hydra/launcher={self.name}: the jobs were refused: {said}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait(self, running: Sequence[Any]) -> None:
        """Wait a moment."""
        super().wait(running)
        for each in running:
            each.stop_again()
