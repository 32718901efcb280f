"""What every benchmark does: run a contestant, compare them in turn, describe the machine, install the rivals."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
THREADS = torch.get_num_threads()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DLRUN = [sys.executable, "-m", "dlrunner"]

Run = dict[str, Any]
"""What one run of a contestant told: seconds_per_epoch, and how good it became."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    rival: Path
    """The environment of fastai, scikit-learn and LightGBM; it is made where it is not there."""
    repeats: int
    rows: int | None
    """A try on so many of Rossmann's rows; None: the benchmark itself."""
    runs: Path | None
    """Where finished runs of dlrunner are."""

    @property
    def rival_python(self) -> str:
        """The rivals' Python, its environment installed."""
        if not self.rival.exists():
            subprocess.run([str(HERE / "setup-fastai.sh"), str(self.rival)], check=True)
        return str(self.rival / "bin" / "python")


def data_dir() -> Path:
    """Return where published data is looked for."""
    return Path(os.environ.get("DLRUNNER_DATA", "data")).resolve()


def in_turn(contestants: Mapping[str, Callable[[int], Run]], repeats: int) -> dict[str, list[Run]]:
    """Let all of them run once, then all of them again, so that they meet the same weather."""
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for seed in range(repeats):
        for name, measure in contestants.items():
            runs[name].append(measure(seed))
        told = ", ".join(f"{name} {median_seconds(done[-1:]):.2f} s" for name, done in runs.items())
        print(f"repeat {seed + 1} of {repeats}: {told}", file=sys.stderr, flush=True)
    return runs


def told(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command and return the JSON object on its last line."""
    done = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, env={**os.environ, **(environment or {})}
    )
    found: Run = json.loads(done.stdout.splitlines()[-1])
    return found


def dlrunner(words: Sequence[str], runs: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Run `dlrun` without pictures and report; the folder is `runs`/latest."""
    command = [*DLRUN, *words, f"runs_dir={runs}", "log.pictures=false", "log.report=false", "log.progress=none"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    history = [json.loads(line) for line in (runs / "latest" / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds_per_epoch": [row["seconds"] for row in history],
        "valid_mse": [row["valid/loss"] for row in history],
        "peak_memory_mb": json.loads((runs / "latest" / "summary.json").read_text())["peak_memory_mb"]["host"],
    }


def whole_process(words: Sequence[str]) -> dict[str, float]:
    """Time a command from its start to its end, with its peak memory."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)} failed")
    return {"seconds": time.perf_counter() - started, "peak_memory_mb": megabytes(usage)}


def megabytes(usage: resource.struct_rusage) -> float:
    """Return the peak memory of a process."""
    return float(usage.ru_maxrss) / (2**20 if sys.platform == "darwin" else 2**10)


def seconds_of_epochs(runs: Sequence[Run]) -> list[float]:
    """Return the seconds of all epochs but each run's first: libraries warm up in it."""
    return [seconds for run in runs for seconds in run["seconds_per_epoch"][1:]]


def median_seconds(runs: Sequence[Run]) -> float:
    """Return the median seconds of an epoch, the first left out."""
    return float(statistics.median(seconds_of_epochs(runs)))


def with_range(values: Sequence[float], digits: int = 2) -> str:
    """Write a median and the range.

    >>> with_range([1.0, 3.0, 2.0], 1)
    '2.0 (1.0 to 3.0)'
    """
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def speed_table(rows: Mapping[str, Sequence[Run]], quality: str, key: Callable[[Run], float]) -> list[str]:
    """Return a table of the contestants, the first of which is dlrunner.

    Args:
        rows: runs by contestant.
        quality: what the last column is.
        key: the last column of one run; the table has the mean.
    """
    own = median_seconds(next(iter(rows.values())))
    lines = [f"| | seconds an epoch | dlrunner is … times as fast | {quality} |", "|---|---|---|---|"]
    for name, runs in rows.items():
        ratio, mean = median_seconds(runs) / own, statistics.mean(key(run) for run in runs)
        lines.append(f"| {name} | {with_range(seconds_of_epochs(runs))} | {ratio:.1f} | {mean:.4f} |")
    return lines


def machine() -> dict[str, Any]:
    """Return what the figures belong to."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": THREADS,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def conditions(command: str, repeats: int, versions: str) -> str:
    """Return the first line under a title: how often, where and with which versions."""
    here = machine()
    return (
        f"`{command}`; {repeats} runs each, in turn; {THREADS} cores, {here['gpu'] or here['cpu']}; "
        f"{versions}, torch {here['torch']}, Python {here['python']}."
    )
