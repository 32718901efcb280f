"""Jobs as Ray tasks: on the cluster of RAY_ADDRESS or a local one, else on this machine's cores."""

from __future__ import annotations

import logging
import signal
from typing import Any

import ray

from dlrunner.config.schema import NeedsSettings
from dlrunner.errors import ConfigError
from dlrunner.sweeps.engines.base import RemoteCall, RemoteEngine, RemoteJob, without_none
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.slots import ResourceSlot


class RayJob(RemoteJob):
    """A job that is queued or runs on a Ray worker."""

    task: Any

    def has_ended(self) -> bool:
        """Return whether Ray has a result."""
        return bool(ray.wait([self.task], timeout=0)[0])

    def cancel(self, signum: int) -> None:
        """Cancel: the job receives SIGINT, saves and exits; SIGKILL kills its process."""
        ray.cancel(self.task, force=signum == signal.SIGKILL)

    def failure_reason(self) -> str:
        """Return Ray's error."""
        try:
            ray.get(self.task)
        except Exception as error:  # Ray may raise anything
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"the worker exited without a result: {type(error).__name__}: {' '.join(lines)[:300]}"
        return "the worker exited without a result"


class RayEngine(RemoteEngine):
    """Runs jobs as Ray tasks.

    Args:
        needs: the resources of a job.

    Raises:
        ConfigError: the cluster cannot be reached, or Ray does not support one of the requirements.
    """

    def __init__(self, needs: NeedsSettings) -> None:
        super().__init__("ray", needs)
        if needs.partition or needs.minutes:
            raise ConfigError("sweep.needs: Ray has no partition or minutes; use cpus, gpus, memory_gb")
        memory = None if needs.memory_gb is None else int(needs.memory_gb * 2**30)
        options = without_none(num_cpus=needs.cpus or 1, num_gpus=needs.gpus, memory=memory) | needs.more
        self._is_own = not ray.is_initialized()
        """Whether the connection to Ray is this engine's, not that of the program that calls dlrunner."""
        try:
            if self._is_own:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            # Each worker runs a single job, so that no state is left for the next one; the sweep handles failures.
            self.perform: Any = ray.remote(max_calls=1, max_retries=0, **options)(lambda call: call())
        except ConnectionError as error:
            raise ConfigError(f"hydra/launcher=ray: the cluster cannot be reached: {error}") from None
        except (ValueError, TypeError) as error:
            self.close()
            raise ConfigError(f"sweep.needs: {str(error).splitlines()[0]}") from None

    def start(self, job: Job, folder: SweepDirectory, slot: ResourceSlot, alone: bool) -> RayJob:
        """Submit a job."""
        submitted = RayJob(job, folder, slot)
        submitted.task = self.perform.remote(RemoteCall(job, folder, slot))
        return submitted

    def close(self) -> None:
        """Disconnect from the cluster, and shut down one that was started for this sweep; never those of the caller."""
        if self._is_own:
            ray.shutdown()
