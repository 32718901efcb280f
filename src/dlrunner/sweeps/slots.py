"""The parts of this machine that parallel jobs get: CPU threads, and a GPU or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from dlrunner.sweeps.folder import Job
from dlrunner.system.parallel import num_cores


@dataclass(frozen=True)
class ResourceSlot:
    """Resources of a running job: a number of CPU threads (None: torch's default), and one GPU or none."""

    threads: int | None = None
    gpu: str | None = None


def resource_slots(
    requested: int | Literal["auto"] | None, jobs: Sequence[Job], gpu_share: float = 1.0
) -> list[ResourceSlot]:
    """Divide this machine among jobs.

    Args:
        requested: the number of parallel jobs (None: one); auto: as many as fit on the GPUs, or as there are cores.
        jobs: the jobs to run; those that may use a GPU get one.
        gpu_share: the fraction of a GPU that a job needs.
    """
    requested = requested or 1
    wants_gpu = any(job.config["device"] in ("auto", "cuda") for job in jobs) and torch.cuda.is_available()
    if wants_gpu:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        # Round-robin over the GPUs, so that two jobs share one only if every GPU has a job.
        gpus = [gpu for _ in range(max(1, int(1 / gpu_share + 1e-9))) for gpu in visible.split(",")]
        count = min(len(gpus), len(gpus) if requested == "auto" else requested)
        threads = max(1, num_cores() // count) if count > 1 else None
        return [ResourceSlot(threads, gpu) for gpu in gpus[:count]]
    if requested != "auto":
        count = requested
    else:
        threads_each = max((job.config["trainer"].get("num_threads") or 1 for job in jobs), default=1)
        count = max(1, min(num_cores() // threads_each, len(jobs)))
    return [ResourceSlot(max(1, num_cores() // count) if count > 1 else None)] * count
