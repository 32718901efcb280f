"""Two processes against two threads, and what an engine adds to each job of a sweep; on generated data."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import growth_data
from benchmarks.measuring import (
    DEVICE,
    DLRUN,
    HERE,
    Contestant,
    Options,
    Run,
    conditions,
    dlrunner,
    in_turn,
    median_seconds,
    seconds_of_epochs,
    with_range,
)

EPOCHS = 3
WORK = {
    "Collaborative filtering, batches of 64": ["task=movielens", "data.source=synthetic"],
    "Collaborative filtering, batches of 1,024": ["task=movielens", "data.source=synthetic", "batch_size=1024"],
    "Tables, batches of 512": ["task=rossmann", "data.source=synthetic", "batch_size=512", "task.baseline=false"],
    "Language model, one layer of 500": ["task=imdb-lm", "data.source=synthetic", "model.layers=1"],
    "Texts, one layer of 500": ["task=imdb-sentiment", "data.source=synthetic", "model.layers=1"],
    "Images, all of ResNet18": [
        *("task=dogbreeds", "data.source=synthetic", "model.weights=null", "model.backbone=resnet18"),
        *("freeze_to=0", "data.size=64"),
    ],
    "Masks, U-Net on ResNet18": ["task=segmentation", "data.source=synthetic", "data.size=64"],
}
PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "dlrunner"]
ONE, THREADS, BOTH = "one thread", "two threads", "two processes"
ENGINES = {"Slurm's submitit, local processes": "submitit_local", "Ray, on this machine": "ray"}
NUM_JOBS = 6


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the tables and their measurements; what `--only` leaves out stays as it was measured."""
    file = HERE / f"results-cores-{DEVICE}.json"
    known = json.loads(file.read_text()) if options.only and file.exists() else {}
    rows: dict[str, dict[str, list[Run]]] = known.get("rows", {})
    jobs: dict[str, list[float]] = known.get("jobs", {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, words in WORK.items():
            if not options.only or title.startswith(tuple(options.only)):
                print(title, file=sys.stderr, flush=True)
                rows[title] = in_turn(_contestants(words, folder / f"runs{len(rows)}"), options.repeats)
        if not options.only or "Engines" in options.only:
            jobs = _seconds_of_engines(folder, options.repeats)
    return text(rows, jobs, options.repeats), {"rows": rows, "jobs": jobs}


def _seconds_of_engines(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each sweep, by engine, in turn; "" is dlrunner's own."""
    jobs: dict[str, list[float]] = {}
    data = folder / "ratings.csv"
    growth_data.write_ratings(data, 1_000)
    for repeat in range(repeats):
        for engine in ("", *(each for each in ENGINES.values() if _is_installed(each))):
            jobs.setdefault(engine, []).append(_seconds_of_sweep(data, folder / f"sweeps{repeat}{engine}", engine))
    return jobs


def _contestants(words: Sequence[str], runs: Path) -> dict[str, Contestant]:
    def trained(name: str, command: Sequence[str], num_threads: int) -> Contestant:
        settings = [*words, f"epochs={EPOCHS}", f"trainer.num_threads={num_threads}"]
        # torchrun starts each process with one thread.
        environment = {"OMP_NUM_THREADS": str(num_threads)}
        return lambda seed: dlrunner([*settings, f"seed={seed}"], runs / name / str(seed), environment, command)

    return {
        ONE: trained("one", DLRUN, 1),
        THREADS: trained("threads", DLRUN, 2),
        BOTH: trained("processes", PROCESSES, 1),
    }


def _is_installed(engine: str) -> bool:
    return find_spec(engine.partition("_")[0]) is not None


def _seconds_of_sweep(data: Path, runs: Path, engine: str) -> float:
    """Return the seconds of a sweep of short jobs, one at a time, from the start of the command to its end."""
    seeds = ",".join(map(str, range(NUM_JOBS)))
    words = ["task=collab", f"data.path={data}", "epochs=1", f"seed={seeds}", f"runs_dir={runs}", "sweep.jobs=1"]
    words += ["trainer.num_threads=1", "log.plots=false", "log.report=false", "log.progress=none"]
    words += [f"hydra/launcher={engine}"] if engine else []
    started = time.perf_counter()
    subprocess.run([*DLRUN, "-m", *words], check=True, stdout=subprocess.DEVNULL, env=os.environ, cwd=data.parent)
    return time.perf_counter() - started


def text(rows: Mapping[str, Mapping[str, list[Run]]], jobs: Mapping[str, list[float]], repeats: int) -> str:
    """Return a table of threads and processes, and one of engines."""
    lines = [
        "# Several processes",
        "",
        conditions("python -m benchmarks cores", repeats, "generated data, default settings"),
        f"Seconds of an epoch, training and validation, of {EPOCHS}: medians without the first, in brackets the range.",
        "Two processes are `torchrun --nproc_per_node=2`, each with one thread and half of each batch (Gloo). The last",
        "two columns say how many times as fast as one thread two threads are, and two processes as two threads: below",
        "1 they are slower.",
        "",
        f"| | {ONE} | {THREADS} | {BOTH} | {THREADS}, times as fast | {BOTH}, times as fast as {THREADS} |",
        "|---|---|---|---|---|---|",
    ]
    for title, of in rows.items():
        one, threads, both = (median_seconds(of[name]) for name in (ONE, THREADS, BOTH))
        cells = [with_range(seconds_of_epochs(of[name])) for name in (ONE, THREADS, BOTH)]
        lines.append(f"| {title} | {' | '.join(cells)} | {one / threads:.2f} | {threads / both:.2f} |")
    own = statistics.median(jobs[""])
    lines += [
        "",
        "## Engines",
        "",
        f"A sweep of {NUM_JOBS} jobs on 1,000 ratings, one at a time, without plots. In dlrunner's own processes it",
        f"takes {with_range(jobs[''], 1)} s.",
        "",
        "| engine | seconds | more for each job |",
        "|---|---|---|",
    ]
    for title, engine in ENGINES.items():
        if engine in jobs:
            more = (statistics.median(jobs[engine]) - own) / NUM_JOBS
            lines.append(f"| {title} | {with_range(jobs[engine], 1)} | {more:.1f} s |")
        else:
            lines.append(f"| {title} | not installed | - |")
    return "\n".join([*lines, ""])
