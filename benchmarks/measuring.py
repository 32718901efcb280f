"""Common parts of the benchmarks: running contestants alternately, the machine, installing other libraries."""

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

from dlrunner.cli.compose import compose
from dlrunner.config.plan import Plan, plan
from dlrunner.errors import ConfigError

HERE = Path(__file__).resolve().parent
THREADS = torch.get_num_threads()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DLRUN = [sys.executable, "-m", "dlrunner"]

Run = dict[str, Any]
"""Measurements of one run of a contestant: seconds_per_epoch, and its metrics."""
Contestant = Callable[[int], Run]
"""Trains with a seed."""
MOST_DIFFERENCE = 0.1
"""Tolerance of the validation loss after the first epoch between two loops that train the same.

On a CPU there was none in float32. In bfloat16 Lightning's autocast keeps no weights that are cast, and gradients of
a weight that a step uses several times (the pieces of a review) add up in another precision; labels that are drawn at
random, as those of the reviews here, make ever more of that in later epochs.
"""


FIRST_SEED = 10
"""Of the splits of own tables, ratings and files that are reported; settings were tried on splits of lower seeds."""


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    rival: Path
    """The environment of fastai, scikit-learn and LightGBM."""
    lightning: Path
    """The folder of Lightning's packages."""
    peers: Path
    """The environment of scikit-learn, LightGBM, Surprise and implicit, of the same pandas as here."""
    repeats: int
    rows: int | None
    """Number of Rossmann's rows of a trial; None: the full benchmark."""
    runs: Path | None
    """Folder of finished runs of dlrunner."""
    only: Sequence[str] = ()
    """Subjects of growth, or how the titles of limits begin; empty: all."""
    sizes: Sequence[int] = ()
    """Of the one subject; empty: its own."""

    @property
    def rival_python(self) -> str:
        """The rivals' Python."""
        return str(self.rival / "bin" / "python")

    @property
    def peers_python(self) -> str:
        """The Python of the peers in quality."""
        return str(self.peers / "bin" / "python")

    def reported_seeds(self, count: int) -> range:
        """Return so many seeds of splits on which no setting was chosen; a trial has one."""
        return range(FIRST_SEED, FIRST_SEED + (1 if self.rows else count))

    def install_peers(self) -> None:
        """Create the environment of the peers in quality if it is missing."""
        if not self.peers.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.peers)], check=True)
            packages = ["-r", str(HERE / "requirements-peers.txt")]
            subprocess.run([self.peers_python, "-m", "pip", "install", "--quiet", *packages], check=True)

    def install(self) -> None:
        """Create the missing ones of fastai's environment and Lightning's folder."""
        if not self.rival.exists():
            subprocess.run([str(HERE / "setup-fastai.sh"), str(self.rival)], check=True)
        if not self.lightning.exists():
            python = {**os.environ, "PYTHON": sys.executable}
            subprocess.run([str(HERE / "setup-lightning.sh"), str(self.lightning)], check=True, env=python)

    def is_installed(self, contestant: str) -> bool:
        """Return whether a contestant can run without an installation."""
        if contestant.startswith("fastai"):
            return self.rival.exists()
        return self.lightning.exists() or not contestant.startswith("Lightning")


def data_dir() -> Path:
    """Return the folder of published data."""
    return Path(os.environ.get("DLRUNNER_DATA", "data")).resolve()


def in_turn(contestants: Mapping[str, Contestant], repeats: int, first: int = 0) -> dict[str, list[Run]]:
    """Run the contestants alternately, so that the load of the machine affects all alike.

    Args:
        contestants: by name.
        repeats: how often.
        first: the first seed.
    """
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for seed in range(first, first + repeats):
        for name, measure in contestants.items():
            runs[name].append(measure(seed))
        times = ", ".join(f"{name} {median_seconds(done[-1:]):.2f} s" for name, done in runs.items())
        print(f"repeat {seed + 1} of {first + repeats}: {times}", file=sys.stderr, flush=True)
    return runs


def run_json(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command and return the JSON object on its last line."""
    done = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, env={**os.environ, **(environment or {})}
    )
    found: Run = json.loads(done.stdout.splitlines()[-1])
    return found


def dlrunner(
    words: Sequence[str], runs: Path, environment: Mapping[str, str] | None = None, program: Sequence[str] = DLRUN
) -> Run:
    """Run `dlrun` without plots and report; the folder is `runs`/latest."""
    command = [*program, *words, f"runs_dir={runs}", "log.plots=false", "log.report=false", "log.progress=none"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    history = [json.loads(line) for line in (runs / "latest" / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds_per_epoch": [row["seconds"] for row in history],
        "examples_per_second": [row["examples_per_second"] for row in history],
        "valid_mse": [row["valid/loss"] for row in history],
        "metrics": [{name: value for name, value in row.items() if name.startswith("valid/")} for row in history],
        "peak_memory_mb": json.loads((runs / "latest" / "summary.json").read_text())["peak_memory_mb"]["host"],
    }


def lightning(
    words: Sequence[str], options: Options, environment: Mapping[str, str] | None = None, log: bool = False
) -> Run:
    """Train what `dlrun` trains with these words in Lightning's Trainer."""
    paths = [str(options.lightning), os.environ.get("PYTHONPATH", "")]
    modules = {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-m", "benchmarks.lightning_run", *(["--log"] if log else []), *words]
    return run_json(command, {**(environment or {}), **modules})


def settled(words: Sequence[str]) -> Plan:
    """Return the plan for `dlrun`'s overrides, for a loop that trains the same as dlrunner.

    Raises:
        ConfigError: a setting is `auto`: dlrunner would decide it from the data, and the other loop would not.
    """
    checked = plan(compose(words))
    if checked.undecided:
        raise ConfigError(f"{', '.join(checked.undecided)}: must be set, so that all train the same")
    return checked


def largest_difference(own: Sequence[Run], other: Sequence[Run]) -> float:
    """Return the largest relative difference of the metrics of two loops that train the same.

    Raises:
        ValueError: the first validation losses are too far apart: they do not train the same.
    """
    found = 0.0
    for left, right in zip(own, other, strict=True):
        for epoch, (metrics, others) in enumerate(zip(left["metrics"], right["metrics"], strict=True)):
            for name, value in metrics.items():
                apart = abs(value - others[name]) / max(abs(value), abs(others[name]), 1e-12)
                if epoch == 0 and name == "valid/loss" and apart > MOST_DIFFERENCE:
                    raise ValueError(f"{name} is {value} and {others[name]}: these loops do not train the same")
                found = max(found, apart)
    return found


def sameness(own: Sequence[Run], other: Sequence[Run]) -> str:
    """Return a sentence on the metrics of dlrunner and Lightning."""
    apart = largest_difference(own, other)
    outcome = "are dlrunner's to the last digit" if apart == 0 else f"differ from dlrunner's by {apart:.1e} at most"
    return f"Lightning trains the very same modules on the same batches; its metrics of all epochs {outcome}."


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
    lines = [f"| | seconds per epoch | dlrunner is … times as fast | {quality} |", "|---|---|---|---|"]
    for name, runs in rows.items():
        ratio, mean = median_seconds(runs) / own, statistics.mean(key(run) for run in runs)
        lines.append(f"| {name} | {with_range(seconds_of_epochs(runs))} | {ratio:.1f} | {mean:.4f} |")
    return lines


def versions(rows: Mapping[str, Sequence[Run]]) -> str:
    """Return the versions that contestants have reported."""
    found = {run["library"]: run["version"] for runs in rows.values() for run in runs if "version" in run}
    return ", ".join(f"{library} {version}" for library, version in found.items())


def machine() -> dict[str, Any]:
    """Return the machine and the versions of the measurements."""
    return {
        "cpu": _cpu(),
        "cores": THREADS,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu() -> str:
    """Return the name of the processor, on which the ratios depend."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def conditions(command: str, repeats: int, versions: str) -> str:
    """Return the first line under a title: how often, where and with which versions."""
    here = machine()
    return (
        f"`{command}`; {repeats} runs each, in turn; {THREADS} cores, {here['gpu'] or here['cpu']}; "
        f"{versions}, torch {here['torch']}, Python {here['python']}."
    )
