"""Default settings of `task=tabular` on real tables against scikit-learn and LightGBM with theirs.

Each seed has its own split, the same rows and columns for all. The defaults (by numbers of rows) were chosen on the
development tables; the others were held out. adult was held out at first, and moved after it had been looked at.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measuring import DLRUN, HERE, Options, conditions, data_dir, run_json
from dlrunner.data.core.regression import Regression
from dlrunner.data.tabular.dataset import TabularData

SEEDS = 5


@dataclass(frozen=True)
class OwnTable:
    """A table, and what a user would say of it."""

    file: str
    target: str
    settings: Mapping[str, Any]
    is_development: bool

    @property
    def name(self) -> str:
        """The name without its extension."""
        return self.file.partition(".")[0]

    def words(self) -> list[str]:
        """Return the words of the command line."""
        path = data_dir() / "tables" / self.file
        settings = [f"data.{name}={str(value).lower()}" for name, value in self.settings.items()]
        return ["task=tabular", f"data.path={path}", f"data.target={self.target}", *settings]


MULTICLASS = {"kind": "multiclass"}
TABLES = (
    OwnTable("wine.csv", "target", MULTICLASS, True),
    OwnTable("cars.csv", "Miles_per_Gallon", {"skip_bad": True}, True),
    OwnTable("breast_cancer.csv", "target", {}, True),
    OwnTable("titanic.csv", "Survived", {}, True),
    OwnTable("housing.csv.gz", "median_house_value", {}, True),
    OwnTable("diabetes.csv", "target", {}, False),
    OwnTable("randhie.csv.gz", "mdvis", {}, False),
    OwnTable("adult.csv.gz", "Salary", {}, True),
)


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements."""
    peers, own = {}, {}
    seeds = options.reported_seeds(SEEDS)
    for table in TABLES:
        peers[table.name] = [peer_results(table, seed, options) for seed in seeds]
        own[table.name] = [own_result(table, seed) for seed in seeds]
        print(_line(table, peers[table.name], own[table.name]), file=sys.stderr, flush=True)
    return _text(peers, own), {"peers": peers, "dlrunner": own}


def own_result(table: OwnTable, seed: int) -> dict[str, Any]:
    """Train with default settings, plots and report included, and return the final metrics and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        words = [*DLRUN, *table.words(), f"seed={seed}", f"data.split_seed={seed}", f"runs_dir={folder}"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        summary = json.loads((Path(folder) / "latest" / "summary.json").read_text())
    final = {name.removeprefix("valid/"): value for name, value in summary["final"].items()}
    return {**final, "seconds": round(seconds, 2)}


def peer_results(table: OwnTable, seed: int, options: Options) -> dict[str, Any]:
    """Fit the peers on the rows of a seed and return the metrics of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        write_rows(table, seed, file)
        return dict(run_json([options.peers_python, str(HERE / "fit_peers.py"), "--rows", str(file)]))


def write_rows(table: OwnTable, seed: int, file: Path) -> None:
    """Write the rows of a table for the peers: numbers stay numbers, texts and truth values are categories."""
    settings: dict[str, Any] = {"path": str(data_dir() / "tables" / table.file), "target": table.target}
    read = TabularData(data_dir(), **settings, **table.settings, split_seed=seed).read()
    inputs = read.frame[list(dict.fromkeys([*read.roles.categorical, *read.roles.continuous]))]  # some are both
    are_numbers = [
        pd.api.types.is_numeric_dtype(inputs[name]) and not pd.api.types.is_bool_dtype(inputs[name]) for name in inputs
    ]
    numbers = inputs.loc[:, are_numbers].to_numpy(np.float64, na_value=np.nan)
    texts = inputs.loc[:, [not each for each in are_numbers]]
    codes = np.empty(texts.shape, np.int64)
    for place, name in enumerate(texts):
        codes[:, place] = pd.factorize(texts[name], sort=True)[0]
    targets = read.values.astype(np.float64 if isinstance(read.target, Regression) else np.int64)
    np.savez(file, codes=codes, numbers=numbers, targets=targets, valid=read.valid)


def monitored(results: Mapping[str, Any]) -> str:
    """Return the metric that is compared."""
    return "rmse" if "rmse" in results else "accuracy"


def verdict(own: Sequence[float], peer: Sequence[float], higher_is_better: bool) -> tuple[float, float]:
    """Return by how much dlrunner is worse, and the standard deviation of that over the seeds.

    >>> verdict([2.0, 3.0], [1.0, 1.0], False)[0]
    1.5
    """
    worse = [(b - a) if higher_is_better else (a - b) for a, b in zip(own, peer, strict=True)]
    return statistics.mean(worse), statistics.stdev(worse) if len(worse) > 1 else 0.0


def compared(peers: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means by contestant, the best peer, and how dlrunner compares with it and with the linear model."""
    metric = monitored(own[0])
    higher = metric == "accuracy"
    values = {name: [float(each["models"][name][metric]) for each in peers] for name in peers[0]["models"]}
    mine = [float(each[metric]) for each in own]
    best = sorted(values, key=lambda name: statistics.mean(values[name]), reverse=higher)[0]
    return {
        "metric": metric,
        "own": mine,
        "values": values,
        "best": best,
        "to_best": verdict(mine, values[best], higher),
        "to_linear": verdict(mine, values["linear"], higher),
    }


def _line(table: OwnTable, peers: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> str:
    found = compared(peers, own)
    cells = [_cell(found["own"], found["metric"])]
    cells += [_cell(values, found["metric"]) for values in found["values"].values()]
    worse, std = found["to_best"]
    outcome = "first" if worse <= 0 else "within noise" if worse <= std else "worse"
    used = "development" if table.is_development else "held out"
    seconds = statistics.median(each["seconds"] for each in own)
    return f"| {table.name} ({used}) | {found['metric']} | {' | '.join(cells)} | {outcome} | {seconds:.0f} |"


def _cell(values: Sequence[float], metric: str) -> str:
    digits = 4 if metric == "accuracy" else max(0, 3 - len(str(int(abs(values[0])))) + 1)
    std = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{std}"


def _text(peers: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    first = next(iter(peers.values()))[0]
    names = list(first["models"])
    versions = f"scikit-learn {first['scikit_learn']}, LightGBM {first['lightgbm']}"
    lines = [
        "# Default settings on real tables",
        "",
        conditions("python -m benchmarks own_data", SEEDS, versions),
        "Mean ± standard deviation over seeds; a seed has a random split of its own (80 % of the rows train), the same",
        "rows for all. Defaults by numbers of rows were chosen on the development tables; the others were held out.",
        "dlrunner is first, within noise of the best peer (the mean difference on the same rows is at most its",
        "standard deviation over the seeds), or worse. Seconds: a whole run, plots and report included.",
        "",
        f"| table | metric | dlrunner | {' | '.join(names)} | dlrunner is | seconds |",
        "|---" * (len(names) + 5) + "|",
        *(_line(table, peers[table.name], own[table.name]) for table in TABLES),
    ]
    return "\n".join([*lines, ""])
