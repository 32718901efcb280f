"""Jobs that submitit submits to Slurm, or to local processes that simulate it."""

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
from dlrunner.sweeps.engines.base import RemoteCall, RemoteEngine, RemoteJob, without_none
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.slots import ResourceSlot
from dlrunner.system.parallel import num_cores

DEFAULT_MINUTES = 24 * 60
"""Time limit of a job; submitit's own default is five minutes."""

STOP_RETRY_SECONDS = 3.0
"""After this time a job that did not handle signals yet is stopped again."""

MAX_TIMEOUTS = 20
"""How many times a job that reached its time limit is queued again, and resumed from its checkpoint."""


class SlurmJob(RemoteJob):
    """A job that is queued or running."""

    submitted: Any

    def has_ended(self) -> bool:
        """Return whether submitit has a result; it polls the result file often and the queue rarely."""
        return bool(self.submitted.done())

    def cancel(self, signum: int) -> None:
        """Cancel: Slurm sends SIGTERM, and SIGKILL 30 seconds later."""
        if isinstance(self.submitted, DelayedJob):  # the queue has refused it
            return
        if isinstance(self.submitted, submitit.LocalJob):  # its cancel() kills after one second
            with contextlib.suppress(ProcessLookupError):
                # submitit's process forwards SIGTERM; killing it would orphan the job, and a second SIGTERM would not
                # let the job save.
                os.kill(int(self.submitted.job_id), signal.SIGTERM)
        else:
            self.submitted.cancel(check=False)

    def retry_stop(self) -> None:
        """Stop a local job again that did not handle signals yet: submitit ignored the first signal."""
        requested_at = self.stop_requested_at
        if requested_at is None or self.handles_signals or not isinstance(self.submitted, submitit.LocalJob):
            return
        if time.monotonic() - requested_at > STOP_RETRY_SECONDS:
            self.stop()

    def failure_reason(self) -> str:
        """Return the state in the queue, and the path of the job's output."""
        job = self.submitted
        return f"job {job.job_id} ended without a result (state {job.state}); see {job.paths.stderr}"


class SlurmEngine(RemoteEngine):
    """Submits jobs to Slurm, several of them as one job array.

    Args:
        launcher: submitit_slurm, or submitit_local.
        folder: for submitit's files.
        needs: the resources of a job.
        jobs: the maximum number of parallel jobs; None: the queue decides.

    Raises:
        ConfigError: Slurm is not available, or does not support one of the requirements.
    """

    def __init__(self, launcher: str, folder: Path, needs: NeedsSettings, jobs: int | None = None) -> None:
        super().__init__(launcher, needs)
        if needs.gpus is not None and needs.gpus != int(needs.gpus):
            raise ConfigError(f"sweep.needs.gpus: Slurm assigns whole GPUs, not {needs.gpus}")
        parameters = without_none(
            cpus_per_task=needs.cpus,
            gpus_per_node=None if needs.gpus is None else int(needs.gpus),
            mem_gb=needs.memory_gb,
            slurm_partition=needs.partition,
            slurm_array_parallelism=jobs,
        )
        cluster = launcher.removeprefix("submitit_")
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
            more = {f"slurm_{name}": value for name, value in needs.more.items()}
            minutes = needs.minutes or DEFAULT_MINUTES
            self.executor.update_parameters(name="dlrun", timeout_min=minutes, **parameters, **more)
        except RuntimeError as error:
            raise ConfigError(f"hydra/launcher={launcher}: {error}") from None
        except (NameError, ValueError, TypeError) as error:
            raise ConfigError(f"sweep.needs.more: {str(error).splitlines()[0]}") from None

    def slots(self, requested: int | Literal["auto"] | None, num_jobs: int) -> list[ResourceSlot]:
        """Return a slot per job on Slurm, whose job array limits the parallel ones; locally, at most one per core."""
        if self.name == "submitit_slurm":
            return super().slots(None, num_jobs)
        num_parallel = max(1, num_cores() // (self.needs.cpus or 1))
        return super().slots(requested if isinstance(requested, int) else num_parallel, num_jobs)

    def start(self, job: Job, folder: SweepDirectory, slot: ResourceSlot, alone: bool) -> SlurmJob:
        """Submit a job."""
        slurm_job = SlurmJob(job, folder, slot)
        slurm_job.submitted = self.executor.submit(RemoteCall(job, folder, slot))
        return slurm_job

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Submit the jobs that are started within as one array.

        Raises:
            RunError: the queue refused them; the message has its reason.
        """
        # Inherited by local processes: only the sweep handles Ctrl-C, and lets them save.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self.executor.batch():
                yield
        except (FailedJobError, FailedSubmissionError) as error:
            reason = " ".join(str(error).split())
            raise RunError(f"hydra/launcher={self.name}: the jobs were refused: {reason}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait(self, running: Sequence[Any]) -> None:
        """Wait a short time."""
        super().wait(running)
        for job in running:
            job.retry_stop()
