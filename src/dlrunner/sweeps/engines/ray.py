"""Jobs as Ray tasks: on the cluster that RAY_ADDRESS names or that runs here, else on this machine's cores."""

from __future__ import annotations

import logging
import signal
from typing import Any

import ray

from dlrunner.config.schema import NeedsSettings
from dlrunner.errors import ConfigError
from dlrunner.sweeps.engines.base import RemoteEngine, RemoteJob, Work, given
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.pool import ResourceSlot


class RayJob(RemoteJob):
    """A job that waits for a worker, or runs on one."""

    task: Any

    def over(self) -> bool:
        """Ask Ray."""
        return bool(ray.wait([self.task], timeout=0)[0])

    def cancel(self, signum: int) -> None:
        """Cancel: the job sees a Ctrl-C, saves where it stands and leaves; SIGKILL ends its process."""
        ray.cancel(self.task, force=signum == signal.SIGKILL)

    def last_words(self) -> str:
        """Say what Ray says."""
        try:
            ray.get(self.task)
        except Exception as error:  # whatever Ray, or the machine, has to say
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"its worker left no word: {type(error).__name__}: {' '.join(lines)[:300]}"
        return "its worker left no word"


class OnRay(RemoteEngine):
    """Hands jobs to Ray.

    Args:
        needs: what a job asks for.

    Raises:
        ConfigError: no cluster answers, or Ray knows no such need.
    """

    def __init__(self, needs: NeedsSettings) -> None:
        super().__init__("ray", needs)
        if needs.partition or needs.minutes:
            raise ConfigError("sweep.needs: Ray knows no partition and no minutes; cpus, gpus and memory_gb it does")
        memory = None if needs.memory_gb is None else int(needs.memory_gb * 2**30)
        asked = {"num_cpus": 1, **given(num_cpus=needs.cpus, num_gpus=needs.gpus, memory=memory), **needs.more}
        try:
            if not ray.is_initialized():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            # A worker that has done a job leaves: nothing of the job stays for the next. Nothing is tried again
            # behind the sweep's back.
            self.perform: Any = ray.remote(max_calls=1, max_retries=0, **asked)(lambda work: work())
        except ConnectionError as error:
            raise ConfigError(f"hydra/launcher=ray: no cluster answers: {error}") from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"sweep.needs: {str(error).splitlines()[0]}") from None

    def start(self, job: Job, folder: SweepDirectory, lease: ResourceSlot, alone: bool) -> RayJob:
        """Hand a job over."""
        launched = RayJob(job, folder, lease)
        launched.task = self.perform.remote(Work(job, folder, lease))
        return launched

    def close(self) -> None:
        """Leave the cluster; one that was started for this sweep ends."""
        ray.shutdown()
