"""Tables: dlrunner, fastai and plain PyTorch train the lesson's net on Rossmann; and the time of the features."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.measuring import (
    DEVICE,
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
    with_range,
)
from benchmarks.rossmann_rows import score, write_rows
from dlrunner.data.rossmann.dataset import RossmannData
from dlrunner.metrics import RootMeanSquaredPercentageError

ROWS = 125_000
"""A fifth are validation rows."""
BATCH_SIZES = (128, 512)
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
WORK = ["task=rossmann", "model=rossmann_net", "optim=adam", "optim.lr=1e-3", "schedule=constant", "epochs=3"]
SPLIT = ["data.source=real", "data.split=random", "data.valid=0.2"]


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the tables and their measurements."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Measured first: the memory of a process starts at that of its parent.
        features = _features(folder, environment(folder), options.repeats)
        count = options.rows or ROWS
        sales = prepare(folder, count)
        slowness = slowness_of_bfloat16()
        precisions = list(PRECISIONS) if slowness < 1 else ["fp32"]
        rows = {}
        for precision in precisions:
            for batch_size in BATCH_SIZES:
                print(f"batches of {batch_size}, {precision}", file=sys.stderr)
                contest = Contest(options, folder, sales, batch_size, precision, count)
                rows[f"{PRECISIONS[precision]}, batches of {batch_size}"] = in_turn(
                    contest.contestants(), options.repeats
                )
    text = _text(rows, features, options, count, slowness)
    return text, {"rows": rows, "features": features, "slowness_of_bfloat16": slowness}


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of all contestants; dlrunner sets the spin count itself.

    Threads that wait by spinning take each other's cores.
    """
    return {"GOMP_SPINCOUNT": "10000", "DLRUNNER_DATA": str(data_dir()), "DLRUNNER_CACHE": str(folder)}


def prepare(folder: Path, count: int) -> NDArray[np.float64]:
    """Write rows for the contestants other than dlrunner; return the sales of the validation rows."""
    data = RossmannData(data_dir(), source="real", split="random", valid=0.2, sample=count)
    return write_rows(data, folder / "rows.npz")


class Contest:
    """One batch size and precision."""

    def __init__(
        self,
        options: Options,
        folder: Path,
        sales: NDArray[np.float64],
        batch_size: int,
        precision: str,
        rows: int,
    ) -> None:
        self.options, self.folder, self.file, self.environment = (
            options,
            folder,
            folder / "rows.npz",
            environment(folder),
        )
        self.sales, self.batch_size, self.precision, self.rows = sales, batch_size, precision, rows

    def contestants(self) -> dict[str, Contestant]:
        """Return the contestants."""
        fastai = [self.options.rival_python, str(HERE / "fastai_tabular.py")]
        plain = [sys.executable, "-m", "benchmarks.plain_tabular", "--loop"]
        return {
            "dlrunner": self._dlrunner,
            "Lightning 2.6": self._lightning,
            "fastai `tabular_learner`": self._other(*fastai),
            "plain loop, DataLoader": self._other(*plain, "loader"),
            "plain loop, slices of tensors, fused Adam": self._other(*plain, "slices"),
        }

    def _words(self, seed: int) -> list[str]:
        settings = [f"data.sample={self.rows}", f"batch_size={self.batch_size}", f"precision={self.precision}"]
        return [*WORK, *SPLIT, *settings, f"seed={seed}"]

    def _lightning(self, seed: int) -> Run:
        run = lightning(self._words(seed), self.options, self.environment)
        return {**run, "rmspe": run["metrics"][-1]["valid/rmspe"]}

    def _dlrunner(self, seed: int) -> Run:
        runs = self.folder / f"runs-{self.batch_size}-{self.precision}-{seed}"
        run = dlrunner(self._words(seed), runs, self.environment)
        table = pd.read_csv(runs / "latest" / "predictions.csv")
        assert (table["Sales"].to_numpy() == self.sales).all(), "dlrunner validated on other rows"
        return self._scored(run, table["prediction"].to_numpy(np.float64))

    def _other(self, *words: str) -> Contestant:
        predictions = self.folder / "predictions.npy"
        settings = ["--batch-size", str(self.batch_size), "--precision", self.precision, "--device", DEVICE]
        files = ["--rows", str(self.file), "--predictions", str(predictions)]

        def run(seed: int) -> Run:
            found = run_json([*words, *files, *settings, "--seed", str(seed)], self.environment)
            return self._scored(found, np.load(predictions))

        return run

    def _scored(self, run: Run, predicted: NDArray[np.float64]) -> Run:
        return {**run, "rmspe": score(RootMeanSquaredPercentageError(), predicted, self.sales)}


def _features(folder: Path, environment: Mapping[str, str], repeats: int) -> dict[str, list[Run]]:
    """Read the tables with an empty cache and again with the filled cache."""
    found: dict[str, list[Run]] = {"from rossmann.tgz, cache empty": [], "from the cache": []}
    for repeat in range(repeats):
        cache = {**environment, "DLRUNNER_CACHE": str(folder / f"cache{repeat}")}
        for runs in found.values():
            words = [sys.executable, "-m", "benchmarks.read_rossmann", "--data", str(data_dir())]
            runs.append(run_json(words, cache))
    return found


def slowness_of_bfloat16() -> float:
    """Return the least time of the matrix product of the hidden layers relative to float32: others may disturb some."""
    dtypes = (torch.float32, torch.bfloat16)
    factors = [[torch.ones(shape, dtype=each).to(DEVICE) for shape in ((512, 1000), (1000, 500))] for each in dtypes]
    times: list[list[float]] = [[], []]
    for _ in range(50):
        for (left, right), seconds in zip(factors, times, strict=True):
            started = time.perf_counter()
            (left @ right)[0, 0].item()  # waits for a GPU
            seconds.append(time.perf_counter() - started)
    return min(times[1]) / min(times[0])


def _text(
    rows: Mapping[str, Mapping[str, Sequence[Run]]],
    features: Mapping[str, Sequence[Run]],
    options: Options,
    count: int,
    slowness: float,
) -> str:
    train = count - int(0.2 * count)
    lines = [
        f"# Tables: Rossmann, {train:,} training and {count - train:,} validation rows, drawn at random, "
        "the lesson's net, 3 epochs",
        "",
        conditions("python -m benchmarks tabular", options.repeats, versions(next(iter(rows.values())))),
        "An epoch is training and validation; medians over the epochs after the first, in brackets the range.",
        "22 embeddings of min(50, (categories + 1) // 2), batch norm on the numbers only, layers of 1000 and 500, a",
        "sigmoid up to 1.2 times the highest log(Sales); Adam at 1e-3, no decay; mean squared error of log(Sales).",
        "All train on the same rows, preprocessed by dlrunner, on a CPU with as many threads as torch uses by default",
        f"({THREADS}) and with GOMP_SPINCOUNT=10000: dlrunner sets that itself, for the others it was set.",
        "RMSPE is exact, over all validation rows, in euros. fastai drops the last incomplete training batch and",
        "validates in batches of the training size, the others in batches of 8,192; its Adam has betas (.9, .99) and",
        "epsilon 1e-5, its linear layers torch's own start, those of the others Kaiming's. dlrunner's outputs start at",
        "the mean of the targets, those of the others in the middle of the range.",
    ]
    for title, contest in rows.items():
        table = speed_table(contest, "RMSPE after the last epoch (mean)", lambda run: run["rmspe"])
        same = sameness(contest["dlrunner"], contest["Lightning 2.6"])
        lines += ["", f"## {title[0].upper()}{title[1:]}", "", *table, "", same]
    if slowness >= 1:
        lines += [
            "",
            f"bfloat16 is left out: this machine emulates it, a product of matrices takes {slowness:.0f} times as long "
            "as in float32.",
        ]
    else:
        lines += ["", "bfloat16 is mixed precision; the last layer is float32 but in fastai."]
    lines += [
        "",
        "## Features",
        "",
        "dlrunner from the publisher's eight tables to one of 22 + 16 columns, in a fresh process, imports left out.",
        "",
        "| | seconds | peak memory of the process, MB | of which the imports |",
        "|---|---|---|---|",
    ]
    for name, runs in features.items():
        seconds = with_range([run["seconds"] for run in runs])
        peak, before = (max(run[key] for run in runs) for key in ("peak_memory_mb", "memory_of_imports_mb"))
        lines.append(f"| {name}, {runs[0]['rows']:,} rows | {seconds} | {peak:.0f} | {before:.0f} |")
    return "\n".join([*lines, ""])
