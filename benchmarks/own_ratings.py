"""Default settings of `task=collab` and `task=implicit` against Surprise and implicit with theirs, on MovieLens.

Each seed has its own split, the same rows for all. dlrunner's defaults were chosen on the training rows of one split of
the release of 2016 (`data.split=inner`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import DLRUN, HERE, Options, conditions, data_dir, run_json
from dlrunner.data.ratings.dataset import RatingsData

SEEDS = 3
RELEASES = ("ml-latest-small-2016-10",)
CONTESTS = {"ratings": ("task=collab", "rmse"), "choices": ("task=implicit", "ndcg")}


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements; `--peers` names an environment."""
    seeds, found = options.reported_seeds(SEEDS), dict[str, Any]()
    for release in RELEASES:
        found[release] = {"peers": [], "dlrunner": []}
        for seed in seeds:
            found[release]["peers"].append(peer_results(release, seed, options))
            own = {name: own_result(task, release, seed) for name, (task, _) in CONTESTS.items()}
            found[release]["dlrunner"].append(own)
            print(f"{release}, seed {seed}: {own}", file=sys.stderr, flush=True)
    return text(found), found


def own_result(task: str, release: str, seed: int) -> dict[str, Any]:
    """Train with default settings, and return the final metrics, the seconds of training and the baselines."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["data.source=real", f"data.release={release}", f"seed={seed}", f"data.split_seed={seed}"]
        started = time.perf_counter()
        words = [*DLRUN, task, *settings, f"runs_dir={folder}", "log.plots=false", "log.report=false"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        summary = json.loads((Path(folder) / "latest" / "summary.json").read_text())
    final = {name.removeprefix("valid/"): value for name, value in summary["final"].items()}
    return {
        **final,
        "seconds": summary["training_seconds"],
        "whole": round(whole, 2),
        "baselines": summary["baselines"],
    }


def peer_results(release: str, seed: int, options: Options) -> dict[str, Any]:
    """Fit the peers on the rows of a seed and return the metrics of each."""
    table = RatingsData(data_dir(), source="real", release=release, split_seed=seed).read()  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        np.savez(file, user=table.users, item=table.items, rating=table.ratings, valid=table.valid)
        return dict(run_json([options.peers_python, str(HERE / "fit_raters.py"), "--rows", str(file)]))


def text(found: Mapping[str, Any]) -> str:
    """Return the tables of all contests."""
    peers = found[RELEASES[0]]["peers"]
    versions = ", ".join(f"{name} {version}" for name, version in peers[0]["versions"].items())
    lines = [
        "# Default settings on ratings, and on choices without ratings",
        "",
        conditions("python -m benchmarks own_ratings", len(peers), versions),
        "Mean ± standard deviation over seeds; a seed has a random split of its own (80 % of the rows train), the same",
        "rows for all. dlrunner knows the genres and years of the films too. Choices: every rating counts as one; NDCG",
        "of the first 10 of all items that the user did not choose in training. Seconds: of training and validation.",
    ]
    for contest, (_, metric) in CONTESTS.items():
        names = list(peers[0]["models"][contest])
        kept = list(found[RELEASES[0]]["dlrunner"][0][contest]["baselines"])
        lines += [
            "",
            f"| {metric} | dlrunner | {' | '.join([*names, *kept])} |",
            "|---" * (len(names) + len(kept) + 2) + "|",
        ]
        for release in RELEASES:
            own = [each[contest] for each in found[release]["dlrunner"]]
            others = [each["models"][contest] for each in found[release]["peers"]]
            rows = {"dlrunner": [(each[metric], each["seconds"]) for each in own]}
            rows |= {name: [(each[name][metric], each[name]["seconds"]) for each in others] for name in names}
            for name in kept:
                values = [each["baselines"][name] for each in own]
                rows[name] = [(each[f"valid/{metric}"], each["seconds"]) for each in values]
            lines.append(f"| {release} | {' | '.join(map(_cell, rows.values()))} |")
    return "\n".join([*lines, ""])


def _cell(runs: Sequence[tuple[float, float]]) -> str:
    values = [value for value, _ in runs]
    std = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{std} ({statistics.median(seconds for _, seconds in runs):.1f} s)"
