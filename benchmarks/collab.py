"""Collaborative filtering: dlrunner, fastai and a plain loop on MovieLens of October 2016."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    DEVICE,
    DLRUN,
    HERE,
    THREADS,
    Contestant,
    Options,
    Run,
    conditions,
    data_dir,
    dlrunner,
    in_turn,
    lightning,
    run_json,
    sameness,
    speed_table,
    versions,
    whole_process,
    with_range,
)
from dlrunner.errors import DataError

WORK = [
    *("task=movielens", "data.source=real", "data.release=ml-latest-small-2016-10", "optim=adamw"),
    "model.start_at_mean=false",  # as is decided for MovieLens
]
EPOCHS, EPOCHS_OF_A_QUICK_CHECK = 5, 2


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements."""
    epochs = EPOCHS if options.rows is None else EPOCHS_OF_A_QUICK_CHECK
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = in_turn(contestants(options, folder, epochs), options.repeats)
        commands = [
            whole_process([*DLRUN, *WORK, "log.progress=none", f"runs_dir={folder / f'commands{i}'}"])
            for i in range(options.repeats)
        ]
        helps = [_seconds([*DLRUN, "--help"], folder) for _ in range(5)]
    return _text(rows, commands, helps), {"rows": rows, "whole": commands, "help_seconds": helps}


def contestants(options: Options, folder: Path, epochs: int) -> dict[str, Contestant]:
    """Return the contestants, on files in a folder."""
    files = ["--ratings", str(_unpack(folder)), "--device", DEVICE, "--epochs", str(epochs)]
    plain = [sys.executable, "-m", "benchmarks.plain_collab", *files, "--threads", "1"]
    work = [*WORK, f"epochs={epochs}"]

    def own(*settings: str) -> Contestant:
        return lambda seed: dlrunner([*work, f"seed={seed}", *settings], folder / f"runs-{seed}-{len(settings)}")

    def trainer(log: bool) -> Contestant:
        return lambda seed: lightning([*work, f"seed={seed}"], options, log=log)

    def fastai(threads: int) -> Contestant:
        words = [options.rival_python, str(HERE / "fastai_collab.py"), *files, "--threads", str(threads)]
        return lambda seed: run_json([*words, "--seed", str(seed)])

    return {
        "dlrunner": own(),
        "dlrunner, trainer.compile=true": own("trainer.compile=true"),
        "Lightning 2.6": trainer(log=False),
        "Lightning 2.6, training loss kept": trainer(log=True),
        "fastai, 1 thread": fastai(1),
        f"fastai, {THREADS} threads (its default)": fastai(THREADS),
        "plain loop, fused AdamW": lambda seed: run_json([*plain, "--seed", str(seed)]),
    }


def _unpack(folder: Path) -> Path:
    data = data_dir() / "ml-latest-small-2016-10.zip"
    if not data.exists():
        raise DataError(f"the benchmark needs {data}: set DLRUNNER_DATA")
    with zipfile.ZipFile(data) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/ratings.csv"))
        return Path(archive.extract(name, folder))


def _seconds(words: Sequence[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - started


def _text(rows: Mapping[str, list[Run]], commands: Sequence[dict[str, float]], helps: Sequence[float]) -> str:
    seconds, memory = ([run[key] for run in commands] for key in ("seconds", "peak_memory_mb"))
    lines = [
        "# Collaborative filtering: MovieLens of October 2016, batches of 64, 50 factors, 5 epochs, float32",
        "",
        conditions("python -m benchmarks collab", len(commands), versions(rows)),
        "An epoch is training and validation; medians over the epochs after the first, in brackets the range.",
        sameness(rows["dlrunner"], rows["Lightning 2.6"]),
        "The batches favour it, since its users have torch's DataLoader. dlrunner always keeps the training loss.",
        "",
        *speed_table(rows, "validation MSE after the last epoch (mean)", lambda run: run["valid_mse"][-1]),
        "",
        "`dlrun task=movielens optim=adamw`, 5 epochs, plots and report included: "
        f"{with_range(seconds, 1)} seconds, "
        f"{max(memory):.0f} MB at its peak.",
        f"`dlrun --help`: {statistics.median(helps):.2f} s.",
        "",
    ]
    return "\n".join(lines)
