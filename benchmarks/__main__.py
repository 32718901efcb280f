"""Speed and memory of dlrunner, fastai and a plain loop on the same work, in turn, on this machine.

    make bench            (needs MovieLens of October 2016 in DLRUNNER_DATA; installs fastai into .venv-fastai)

Writes benchmarks/results-DEVICE.md and .json. Compare ratios: seconds belong to the machine and the hour.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
RIVAL = HERE.parent / ".venv-fastai"
REPEATS = 3
THREADS = torch.get_num_threads()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DLRUN = [sys.executable, "-m", "dlrunner"]
WORK = [
    "task=collab",
    "data.source=real",
    "data.release=ml-latest-small-2016-10",
    "optim=adamw",
    "epochs=5",
    "log.progress=none",
]


def main() -> int:
    """Measure, print and write the tables."""
    if not RIVAL.exists():
        subprocess.run([str(HERE / "setup-fastai.sh"), str(RIVAL)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        ratings = _unpack(Path(folder))
        fastai = [
            str(RIVAL / "bin" / "python"),
            str(HERE / "fastai_collab.py"),
            "--ratings",
            str(ratings),
            "--device",
            DEVICE,
        ]
        plain = [sys.executable, "-m", "benchmarks.plain_collab", "--ratings", str(ratings), "--threads", "1"]
        plain += ["--device", DEVICE]
        contestants: dict[str, Callable[[str], dict[str, Any]]] = {
            "dlrunner": lambda seed: _dlrunner(Path(folder), seed, []),
            "dlrunner, trainer.compile=true": lambda seed: _dlrunner(Path(folder), seed, ["trainer.compile=true"]),
            "fastai, 1 thread": lambda seed: _json([*fastai, "--threads", "1", "--seed", seed]),
            f"fastai, {THREADS} threads (its default)": lambda seed: _json(
                [*fastai, "--threads", str(THREADS), "--seed", seed]
            ),
            "plain loop, fused AdamW": lambda seed: _json([*plain, "--seed", seed]),
        }
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
        for seed in range(REPEATS):  # in turn, so that all of them meet the same weather
            for name, measure in contestants.items():
                rows[name].append(measure(str(seed)))
            told = ", ".join(f"{name} {_median(runs[-1:]):.2f} s" for name, runs in rows.items())
            print(f"repeat {seed + 1} of {REPEATS}: {told}", flush=True)
        whole = [_whole(Path(folder) / f"whole{i}") for i in range(REPEATS)]
        helps = [_seconds([*DLRUN, "--help"], Path(folder)) for _ in range(5)]
    text = _tables(rows, whole, helps)
    print(text)
    (HERE / f"results-{DEVICE}.md").write_text(text)
    record = {"machine": _machine(), "rows": rows, "whole": whole, "help_seconds": helps}
    (HERE / f"results-{DEVICE}.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _unpack(folder: Path) -> Path:
    data = Path(os.environ.get("DLRUNNER_DATA", "data")) / "ml-latest-small-2016-10.zip"
    if not data.exists():
        sys.exit(f"the benchmark needs {data}: set DLRUNNER_DATA")
    with zipfile.ZipFile(data) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/ratings.csv"))
        return Path(archive.extract(name, folder))


def _dlrunner(folder: Path, seed: str, settings: Sequence[str]) -> dict[str, Any]:
    runs = folder / f"runs-{seed}-{len(settings)}"
    words = [*DLRUN, *WORK, f"seed={seed}", f"runs_dir={runs}", "log.pictures=false", "log.report=false", *settings]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    history = [json.loads(line) for line in (runs / "latest" / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds_per_epoch": [row["seconds"] for row in history],
        "valid_mse": [row["valid/loss"] for row in history],
        "peak_memory_mb": json.loads((runs / "latest" / "summary.json").read_text())["peak_memory_mb"]["host"],
    }


def _json(words: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=HERE.parent)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _whole(folder: Path) -> dict[str, float]:
    """Time the whole command, pictures included, as a process with its peak memory."""
    started = time.perf_counter()
    words = [*DLRUN, *WORK, f"runs_dir={folder}"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)} failed")
    return {"seconds": time.perf_counter() - started, "peak_memory_mb": _megabytes(usage)}


def _megabytes(usage: resource.struct_rusage) -> float:
    return float(usage.ru_maxrss) / (2**20 if sys.platform == "darwin" else 2**10)


def _seconds(words: Sequence[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - started


def _median(runs: Sequence[dict[str, Any]]) -> float:
    """Median seconds of an epoch, the first left out: libraries warm up in it."""
    return float(statistics.median(seconds for run in runs for seconds in run["seconds_per_epoch"][1:]))


def _machine() -> dict[str, Any]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": THREADS,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _tables(rows: dict[str, list[dict[str, Any]]], whole: Sequence[dict[str, float]], helps: Sequence[float]) -> str:
    machine = _machine()
    versions = f"fastai {rows['fastai, 1 thread'][0]['version']}, torch {machine['torch']}, Python {machine['python']}"
    place = machine["gpu"] or machine["cpu"]
    own = _median(rows["dlrunner"])
    lines = [
        "# Collaborative filtering: MovieLens of October 2016, batches of 64, 50 factors, 5 epochs, float32",
        "",
        f"`make bench`; {REPEATS} runs each, in turn; {THREADS} cores, {place}; {versions}.",
        "An epoch is training and validation; medians over the epochs after the first, in brackets the range.",
        "",
        "| | seconds an epoch | dlrunner is … times as fast | validation MSE after the last epoch (mean) |",
        "|---|---|---|---|",
    ]
    for name, runs in rows.items():
        times = [seconds for run in runs for seconds in run["seconds_per_epoch"][1:]]
        error = statistics.mean(run["valid_mse"][-1] for run in runs)
        spread = f"{_median(runs):.2f} ({min(times):.2f} to {max(times):.2f})"
        lines.append(f"| {name} | {spread} | {_median(runs) / own:.1f} | {error:.4f} |")
    seconds, memory = ([run[key] for run in whole] for key in ("seconds", "peak_memory_mb"))
    lines += [
        "",
        f"The whole command `dlrun task=collab optim=adamw`, 5 epochs, pictures and report included: "
        f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), "
        f"{max(memory):.0f} MB at its peak.",
        f"`dlrun --help`: {statistics.median(helps):.2f} s.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
