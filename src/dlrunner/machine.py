"""What a result was computed with: versions, memory, cores."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys

import torch

from dlrunner import __version__


def versions() -> dict[str, str]:
    """Return the versions of what a result rests on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"dlrunner": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "pandas", "hydra-core", "omegaconf", "pydantic", "spacy", "matplotlib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for the next tensor of that size; called before training.

    glibc hands each block of more than 32 MB back to the system when it is freed, and the system fills the next one
    with zeros, page by page. That is half of the time of a step on pictures (224 pixels, batches of 32, MobileNetV2:
    8.8 pictures a second on a core, 19.9 with the memory kept), for a quarter more memory at the peak. Other C
    libraries are left as they are.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # noqa: N806  as in malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Return the largest memory this process held, on the host and on the device."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)}
    if device.type == "cuda":
        peak["device"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return peak
