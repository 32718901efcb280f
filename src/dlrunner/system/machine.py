"""Provenance of a result: package versions, git commit, peak memory, and time."""

from __future__ import annotations

import contextlib
import functools
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner._version import __version__
from dlrunner.system.parallel import num_cores

if TYPE_CHECKING:
    import torch


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return dict(_versions())


@functools.cache  # reading them takes as long as the report of a small run
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"dlrunner": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "pandas", "hydra-core", "omegaconf", "pydantic", "spacy", "matplotlib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def devices() -> list[str]:
    """Return the devices of this machine as its drivers name them; torch, which takes seconds, is not asked."""
    found = [f"cpu ({num_cores()} cores)"]
    if next(Path("/dev").glob("nvidia[0-9]*"), None):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "--query-gpu=index,name", "--format=csv,noheader"]
            asked = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
            found += [f"cuda:{index} ({name})" for index, name in (line.split(", ", 1) for line in asked.splitlines())]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found.append("mps")
    return found


def reset_peak_memory(device: torch.device) -> None:
    """Start to measure the peak memory, so that it is that of this run and not of an earlier one in this process.

    On the host the peak can be reset on Linux alone; elsewhere it is that of the process.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now the memory in use (see `man 5 proc`)
    if device.type == "cuda":
        import torch

        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # else there is nothing to reset
            torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Return the peak memory of this process since `reset_peak_memory`, on the host and on the device."""
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    with contextlib.suppress(OSError, IndexError, ValueError):
        host = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    peak = {"host": round(host, 1)}
    if device.type == "cuda":
        import torch

        peak["device"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return peak


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the git commit of a folder, and whether the folder has changes; None without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=5
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def now() -> str:
    """Return the current time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
