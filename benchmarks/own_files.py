"""Default settings on texts and pictures, against the baselines that every run is compared with.

The baselines are scikit-learn's logistic regression, on tf-idf and on features of the pre-trained backbone, and class
frequencies. Each seed has a random split of its own.
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import DLRUN, Options, conditions, data_dir

SEEDS = 5
REVIEWS = 2_500
BREEDS = 10


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements."""
    seeds, found = options.reported_seeds(SEEDS), dict[str, Any]()
    for name, (prepare, words) in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = prepare(Path(folder))
            found[name] = [result([*words, f"data.path={path}"], seed) for seed in seeds]
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return text(found), found


def write_reviews(folder: Path) -> Path:
    """Write a table of texts: labelled training reviews of the Large Movie Review Dataset, drawn with seed 0."""
    with tarfile.open(data_dir() / "aclImdb_v1.tar.gz") as archive:
        members = {
            each.name: each
            for each in archive
            if each.name.startswith(("aclImdb/train/pos/", "aclImdb/train/neg/")) and each.isfile()
        }
        chosen = set(random.Random(0).sample(sorted(members), REVIEWS))
        rows = []
        for name, member in members.items():  # in the order of the archive, which is read from front to back
            if name in chosen:
                file = archive.extractfile(member)
                assert file is not None
                rows.append((file.read().decode(), name.split("/")[2]))
    path = folder / "reviews.csv"
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *rows])
    return path


def write_breeds(folder: Path) -> Path:
    """Write a folder of pictures for each of the first ten dog breeds."""
    with zipfile.ZipFile(data_dir() / "dog-breeds.zip") as archive:
        with archive.open("labels.csv") as file:
            rows = list(csv.DictReader(line.decode() for line in file))
        breeds = sorted({row["breed"] for row in rows})[:BREEDS]
        for row in rows:
            if row["breed"] in breeds:
                place = folder / "breeds" / row["breed"]
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{row['id']}.jpg").write_bytes(archive.read(f"train/{row['id']}.jpg"))
    return folder / "breeds"


SETS: Mapping[str, tuple[Callable[[Path], Path], list[str]]] = {
    f"{REVIEWS:,} film reviews, two classes": (write_reviews, ["task=text", "data.text=text", "data.target=label"]),
    f"{BREEDS} dog breeds in folders": (write_breeds, ["task=image"]),
}


def result(words: Sequence[str], seed: int) -> dict[str, Any]:
    """Train with default settings, plots and report included, and return accuracy, seconds and the baselines."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [*DLRUN, *words, f"seed={seed}", f"data.split_seed={seed}", f"runs_dir={folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        summary = json.loads((Path(folder) / "latest" / "summary.json").read_text())
    return {
        "dlrunner": {"accuracy": summary["final"]["valid/accuracy"], "seconds": summary["training_seconds"]},
        **{
            name: {"accuracy": values["valid/accuracy"], "seconds": values["seconds"]}
            for name, values in summary["baselines"].items()
        },
        "whole": round(whole, 2),
    }


def text(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the table."""
    count = len(next(iter(found.values())))
    lines = [
        "# Default settings on texts and pictures",
        "",
        conditions("python -m benchmarks own_files", count, "scikit-learn, in the same run"),
        "Accuracy on the validation rows, mean ± standard deviation over seeds, each with a random split; in",
        "brackets seconds of training. A whole run has plots and report too.",
    ]
    for name, runs in found.items():
        contestants = [each for each in runs[0] if each != "whole"]
        lines += [
            "",
            f"| {name} | {' | '.join(contestants)} | whole run |",
            "|---" * (len(contestants) + 2) + "|",
            f"| accuracy | {' | '.join(_cell([run[each] for run in runs]) for each in contestants)} "
            f"| {statistics.median(run['whole'] for run in runs):.0f} s |",
        ]
    return "\n".join([*lines, ""])


def _cell(runs: Sequence[Mapping[str, float]]) -> str:
    values = [run["accuracy"] for run in runs]
    std = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{std} ({statistics.median(run['seconds'] for run in runs):.1f} s)"
