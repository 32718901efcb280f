"""Tables: dlrunner, fastai and plain PyTorch train the lesson's net on Rossmann; and what the features take."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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
    Options,
    Run,
    conditions,
    data_dir,
    dlrunner,
    in_turn,
    speed_table,
    told,
    with_range,
)
from benchmarks.rossmann_rows import score, write_rows
from dlrunner.data.rossmann import RossmannData
from dlrunner.metrics import RootMeanSquaredPercentageError

ROWS = 125_000
"""Of which a fifth validates."""
BATCH_SIZES = (128, 512)
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
WORK = ["task=rossmann", "model=rossmann_net", "optim=adam", "optim.lr=1e-3", "schedule=constant", "epochs=3"]
SPLIT = ["data.source=real", "data.split=random", "data.valid=0.2"]


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the tables and what they were made from."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Threads that wait by spinning take each other's cores; dlrunner sets this itself, the others get it as well.
        everyone = {"GOMP_SPINCOUNT": "10000", "DLRUNNER_DATA": str(data_dir()), "DLRUNNER_CACHE": str(folder)}
        # First of all: a process begins its count of memory with what its parent holds.
        features = _features(folder, everyone, options.repeats)
        count = options.rows or ROWS
        data = RossmannData(data_dir(), source="real", split="random", valid=0.2, sample=count)
        file = folder / "rows.npz"
        sales = write_rows(data, file)
        slowness = slowness_of_bfloat16()
        precisions = list(PRECISIONS) if slowness < 1 else ["fp32"]
        rows = {}
        for precision in precisions:
            for batch_size in BATCH_SIZES:
                contest = _Contest(options, folder, file, everyone, sales, batch_size, precision, count)
                rows[f"{PRECISIONS[precision]}, batches of {batch_size}"] = contest.run()
    text = _text(rows, features, options, count, slowness)
    return text, {"rows": rows, "features": features, "slowness_of_bfloat16": slowness}


class _Contest:
    """One batch size and precision."""

    def __init__(
        self,
        options: Options,
        folder: Path,
        file: Path,
        environment: Mapping[str, str],
        sales: NDArray[np.float64],
        batch_size: int,
        precision: str,
        rows: int,
    ) -> None:
        self.options, self.folder, self.file, self.environment = options, folder, file, environment
        self.sales, self.batch_size, self.precision, self.rows = sales, batch_size, precision, rows

    def run(self) -> dict[str, list[Run]]:
        """Let everyone train, in turn."""
        fastai = [self.options.rival_python, str(HERE / "fastai_tabular.py")]
        plain = [sys.executable, "-m", "benchmarks.plain_tabular", "--loop"]
        print(f"batches of {self.batch_size}, {self.precision}", file=sys.stderr)
        return in_turn(
            {
                "dlrunner": self._dlrunner,
                "fastai `tabular_learner`": self._other(*fastai),
                "plain loop, DataLoader": self._other(*plain, "loader"),
                "plain loop, slices of tensors, fused Adam": self._other(*plain, "slices"),
            },
            self.options.repeats,
        )

    def _dlrunner(self, seed: int) -> Run:
        settings = [f"data.sample={self.rows}", f"batch_size={self.batch_size}", f"precision={self.precision}"]
        runs = self.folder / f"runs-{self.batch_size}-{self.precision}-{seed}"
        run = dlrunner([*WORK, *SPLIT, *settings, f"seed={seed}"], runs, self.environment)
        table = pd.read_csv(runs / "latest" / "predictions.csv")
        assert (table["Sales"].to_numpy() == self.sales).all(), "dlrunner validated on other rows"
        return self._scored(run, table["prediction"].to_numpy(np.float64))

    def _other(self, *words: str) -> Callable[[int], Run]:
        predictions = self.folder / "predictions.npy"
        settings = ["--batch-size", str(self.batch_size), "--precision", self.precision, "--device", DEVICE]
        files = ["--rows", str(self.file), "--predictions", str(predictions)]

        def run(seed: int) -> Run:
            found = told([*words, *files, *settings, "--seed", str(seed)], self.environment)
            return self._scored(found, np.load(predictions))

        return run

    def _scored(self, run: Run, predicted: NDArray[np.float64]) -> Run:
        return {**run, "rmspe": score(RootMeanSquaredPercentageError(), predicted, self.sales)}


def _features(folder: Path, environment: Mapping[str, str], repeats: int) -> dict[str, list[Run]]:
    """Read the tables with an empty cache and again with what that left there."""
    found: dict[str, list[Run]] = {"from rossmann.tgz, cache empty": [], "from the cache": []}
    for repeat in range(repeats):
        cache = {**environment, "DLRUNNER_CACHE": str(folder / f"cache{repeat}")}
        for runs in found.values():
            words = [sys.executable, "-m", "benchmarks.read_rossmann", "--data", str(data_dir())]
            runs.append(told(words, cache))
    return found


def slowness_of_bfloat16() -> float:
    """Return how many times as long as in float32 the product of the hidden layers takes."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(512, 1000, dtype=dtype, device=DEVICE), torch.ones(1000, 500, dtype=dtype).to(DEVICE)
        times = []
        for _ in range(10):
            started = time.perf_counter()
            (left @ right)[0, 0].item()  # waits for a GPU
            times.append(time.perf_counter() - started)
        seconds.append(statistics.median(times))
    return seconds[1] / seconds[0]


def _text(
    rows: Mapping[str, Mapping[str, Sequence[Run]]],
    features: Mapping[str, Sequence[Run]],
    options: Options,
    count: int,
    slowness: float,
) -> str:
    version = next(iter(rows.values()))["fastai `tabular_learner`"][0]["version"]
    train = count - int(0.2 * count)
    lines = [
        f"# Tables: Rossmann, {train:,} random rows and {count - train:,} to validate, the lesson's net, 3 epochs",
        "",
        conditions("python -m benchmarks tabular", options.repeats, f"fastai {version}"),
        "An epoch is training and validation; medians over the epochs after the first, in brackets the range.",
        "22 embeddings of min(50, (levels + 1) // 2), batch norm on the numbers alone, layers of 1000 and 500, and a",
        "sigmoid up to 1.2 times the highest log(Sales); Adam at 1e-3, no decay; mean squared error of log(Sales).",
        "All train on the same rows as dlrunner prepared them, on a CPU with as many threads as torch takes by default",
        f"({THREADS}) and with GOMP_SPINCOUNT=10000: dlrunner sets that itself, for the others it was set.",
        "RMSPE is exact, over all validation rows, in euros. fastai drops the last incomplete training batch and",
        "validates in batches of the training size, the others in batches of 8,192; its Adam has betas (.9, .99) and",
        "epsilon 1e-5, its linear layers torch's own start, those of the others Kaiming's. dlrunner's outputs start at",
        "the mean of the targets, those of the others in the middle of the range.",
    ]
    for title, contest in rows.items():
        table = speed_table(contest, "RMSPE after the last epoch (mean)", lambda run: run["rmspe"])
        lines += ["", f"## {title[0].upper()}{title[1:]}", "", *table]
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
