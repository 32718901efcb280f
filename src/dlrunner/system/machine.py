"""What a result was computed with: versions, memory, cores."""

from __future__ import annotations

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


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Return the largest memory this process held, on the host and on the device."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)}
    if device.type == "cuda":
        peak["device"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return peak
