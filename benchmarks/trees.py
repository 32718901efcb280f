"""Tree baselines: a random forest and LightGBM on the rows and the split of two of dlrunner's experiments."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.measuring import HERE, Options, Run, conditions, data_dir, run_json
from benchmarks.rossmann_rows import score, write_rows
from dlrunner.data.rossmann.dataset import RossmannData
from dlrunner.errors import ConfigError
from dlrunner.metrics import Metric, RootMeanSquaredPercentageError
from dlrunner.regression_metrics import RmspeByBatch
from dlrunner.runs.reader import FinishedRun

TREES, TREES_OF_A_QUICK_CHECK = 1500, 20
EXPERIMENTS = {"rossmann": ("rossmann", "rossmann-best"), "rossmann-honest": ("rossmann-honest",)}
"""Experiments with the same training and validation rows, by the one that the trees use."""
METRICS: dict[str, Callable[[], Metric]] = {
    "rmspe": RootMeanSquaredPercentageError,
    "rmspe_by_batch": RmspeByBatch,
}


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements."""
    found: dict[str, Any] = {}
    for experiment in EXPERIMENTS:
        with tempfile.TemporaryDirectory() as name:
            found[experiment] = _grow(experiment, Path(name), options)
    own = {name: _own_runs(name, options.runs) for names in EXPERIMENTS.values() for name in names}
    return _text(found, own), {"rows": found, "dlrunner": own}


def _grow(experiment: str, folder: Path, options: Options) -> dict[str, Any]:
    """Train both kinds of trees on the rows of an experiment."""
    settings = yaml.safe_load((HERE.parent / "conf" / "experiment" / f"{experiment}.yaml").read_text())["data"]
    settings = {name: str(value) if name.startswith("valid_") else value for name, value in settings.items()}
    sales = write_rows(RossmannData(data_dir(), **settings, sample=options.rows), folder / "rows.npz")
    words = [options.rival_python, str(HERE / "fit_trees.py"), "--rows", str(folder / "rows.npz")]
    words += ["--predictions", str(folder), "--trees", str(TREES if options.rows is None else TREES_OF_A_QUICK_CHECK)]
    result = run_json(words, {"GOMP_SPINCOUNT": "10000"})
    for name, contestant in result["contestants"].items():
        predicted = np.load(folder / f"{name}.npy")
        contestant.update({metric: score(kind(), predicted, sales) for metric, kind in METRICS.items()})
    return result


def _own_runs(experiment: str, folder: Path | None) -> list[Run]:
    """Return the results of finished runs of an unchanged experiment, of any seed."""
    runs = []
    for path in sorted(folder.iterdir()) if folder else []:
        try:
            run = FinishedRun.read(path)
        except ConfigError:
            continue
        changed = [
            word
            for word in run.overrides
            if word.split("=")[0] not in ("experiment", "seed", "runs_dir", "trainer.num_threads")
        ]
        changed = [word for word in changed if not word.startswith(("log.", "data_dir="))]
        if path.is_symlink() or run.status != "done" or changed or run.config["choices"]["experiment"] != experiment:
            continue
        assert run.summary is not None
        final = run.summary["final"]
        metrics = {metric: final.get(f"valid/{metric}") for metric in METRICS}
        runs.append({"seconds": run.summary["seconds"], **metrics})
    return runs


def _text(found: dict[str, Any], own: dict[str, list[Run]]) -> str:
    first = next(iter(found.values()))
    versions = f"scikit-learn {first['scikit_learn']}, LightGBM {first['lightgbm']}"
    lines = [
        "# Tree baselines on Rossmann",
        "",
        conditions("python -m benchmarks trees --runs runs", 1, versions),
        "They learn log(Sales) of the training rows of the experiment, with the same columns, and predict its",
        "validation rows. RMSPE in euros: exact, and as the lesson printed it, averaged over batches of 256 rows in",
        "the file's order.",
        "",
        "| | RMSPE | averaged over batches | seconds |",
        "|---|---|---|---|",
    ]
    for experiment, names in EXPERIMENTS.items():
        rows = found[experiment]
        title = f"`experiment={experiment}`, {rows['train']:,} training and {rows['valid']:,} validation rows"
        lines.append(f"| **{title}** | | | |")
        for contestant in rows["contestants"].values():
            values = " | ".join(f"{contestant[metric]:.4f}" for metric in METRICS)
            lines.append(f"| {contestant['title']} | {values} | {contestant['seconds']:.0f} |")
        for name in names:
            if runs := own[name]:
                values = " | ".join(_mean([run[metric] for run in runs]) for metric in METRICS)
                seconds = statistics.mean(run["seconds"] for run in runs)
                lines.append(f"| dlrunner, `{name}`, mean ± sd of {len(runs)} run(s) | {values} | {seconds:.0f} |")
    return "\n".join([*lines, ""])


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    std = f" ± {statistics.stdev(known):.4f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.4f}{std}"
