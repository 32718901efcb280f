"""Run folders with planted numbers, as quick to make as a handful of small files."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dlrunner.files.plain_data import SAFE_YAML

CONFIG = """
seed: 0
epochs: 2
batch_size: 64
device: auto
precision: fp32
phases: null
data_dir: data
runs_dir: runs
rerun: false
plugins: []
sweep: {jobs: 1}
seeds: null
data: {_target_: dlrunner.data.ratings.dataset.RatingsData, path: my.csv, split: random, fold: 0}
task: {_target_: dlrunner.tasks.collab.task.Collab}
model: {_target_: dlrunner.models.collab.Net, factors: 50, init: [-0.01, 0.01], hidden: [10]}
optim: {_target_: torch.optim.AdamW, lr: 0.01, betas: [0.9, 0.99]}
schedule: {_target_: dlrunner.schedules.one_cycle, warmup: 0.25}
trainer: {_target_: dlrunner.training.Trainer, clip: null, num_threads: 1}
log: {progress: auto}
choices: {task: collab, model: net, optim: adamw, schedule: one_cycle, experiment: null}
"""

OPTIMIZERS = {
    "adamw": {"_target_": "torch.optim.AdamW", "lr": 0.01, "betas": [0.9, 0.99]},
    "sgd": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
    "adam": {"_target_": "torch.optim.Adam", "lr": 0.01, "betas": [0.9, 0.999]},
}


def write_run(
    path: Path,
    value: float | None,
    settings: Mapping[str, Any] | None = None,
    *,
    typed: Sequence[str] | None = None,
    metric: str = "valid/rmse",
    higher_is_better: bool = False,
    others: Mapping[str, float] | None = None,
    higher: Collection[str] = (),
    history: Sequence[Mapping[str, Any]] | None = None,
    **summary: Any,
) -> Path:
    """Write a run folder.

    Args:
        path: the folder.
        value: the metric at the end.
        settings: by flat name; `optim` and the other choices too.
        typed: names that were typed; all settings, if not given.
        metric: the name of the metric.
        higher_is_better: its direction.
        others: further numbers of the last epoch.
        higher: the names of those of them of which more is better.
        history: one row per epoch; two epochs that end at the value, if not given.
        summary: entries of summary.json to add or replace; `status=None` leaves the file out.
    """
    settings = dict(settings or {})
    config: dict[str, Any] = yaml.load(CONFIG, Loader=SAFE_YAML)
    for name, setting in settings.items():
        if name in config["choices"]:
            config["choices"][name] = setting
            if name == "optim":
                config["optim"] = dict(OPTIMIZERS[setting])
    for name, setting in settings.items():
        if name not in config["choices"]:
            section, _, key = name.rpartition(".")
            (config[section] if section else config)[key] = setting
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    words = [f"{name}={settings.get(name)}" for name in (settings if typed is None else typed)]
    (path / "overrides.yaml").write_text(yaml.safe_dump(words))
    final = {"train/loss": 0.5, "valid/loss": 0.6, metric: value, **(others or {})}
    rows = history
    if rows is None:
        first = None if value is None else value + (-0.1 if higher_is_better else 0.1)
        rows = [{"epoch": 1, **final, metric: first}, {"epoch": 2, **final}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "status": "done",
        "metric": {"name": metric, "value": value, "epoch": len(rows), "higher_is_better": higher_is_better},
        "metrics": {
            name: {"higher_is_better": higher_is_better if name == metric else name in higher, "unit": "", "format": ""}
            for name in final
        },
        "final": final,
        "seconds": 2.0,
        "training_seconds": 1.0,
        "data": {"name": "my.csv", "release": "own", "source": "real", "sha256": "a" * 64},
        "device": "cpu",
        "precision": "fp32",
        "code": "c" * 64,
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        "git": {"commit": "5527c75", "dirty": False},
        "num_threads": 1,
        **summary,
    }
    if content["status"] is not None:
        (path / "summary.json").write_text(json.dumps(content))
    return path


def write_seeds(
    parent: Path, values: Sequence[float], settings: Mapping[str, Any] | None = None, **more: Any
) -> list[Path]:
    """Write a run per value, with the seeds 0, 1, 2 …"""
    name = ",".join(f"{key}={value}" for key, value in (settings or {"all": "same"}).items())
    return [
        write_run(parent / f"{name},seed={seed}-{seed:08x}", value, {**(settings or {}), "seed": seed}, **more)
        for seed, value in enumerate(values)
    ]


def write_sweep(folder: Path, runs: Sequence[Path], failed: Sequence[str] = ()) -> Path:
    """Write the results.csv of a sweep: its runs, and jobs that failed with an error."""
    folder.mkdir(parents=True)
    with (folder / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["job", "status", "folder", "error"])
        for number, run in enumerate(runs):
            table.writerow([number, "done", run.resolve(), ""])
        for number, error in enumerate(failed, start=len(runs)):
            table.writerow([number, "failed", "", error])
    return folder
