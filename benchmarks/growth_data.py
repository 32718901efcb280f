"""Generated data of any size for the benchmark of growth, the same from the same seed; written in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml
from numpy.typing import NDArray
from PIL import Image

from dlrunner.cli.sweep_files import frozen
from dlrunner.config.plan import plan
from dlrunner.execution.identity import digests, identity_of
from dlrunner.files.paths import user_path
from dlrunner.runs.directory import RunDirectory, as_lines
from dlrunner.runs.labels import run_label
from dlrunner.runs.reader import FinishedRun

SEED = 0
PIECE = 500_000
"""Rows that are in memory at a time."""
NUM_CATEGORICAL, NUM_CONTINUOUS = 10, 29
"""Columns of a table, besides the target."""
NUM_CLASSES, PIXELS = 10, 32
WORDS_PER_TEXT = 200


def write_ratings(path: Path, num_rows: int) -> None:
    """Write ratings of as many users and items as MovieLens has for that many, of which some have most."""
    random = np.random.default_rng(SEED)
    num_users, num_items = max(50, num_rows // 154), max(50, int(12 * num_rows**0.5))
    taste, quality = random.normal(0, 0.4, num_users), random.normal(0, 0.5, num_items)
    with path.open("wb") as file:
        for start in range(0, num_rows, PIECE):
            count = min(PIECE, num_rows - start)
            users, items = _skewed(random, num_users, count), _skewed(random, num_items, count)
            values = 3.5 + taste[users] + quality[items] + random.normal(0, 0.85, count)
            columns = {
                "userId": users + 1,
                "movieId": items + 1,
                "rating": np.clip(np.round(2 * values) / 2, 0.5, 5.0),
                "timestamp": random.integers(800_000_000, 1_600_000_000, count),
            }
            _append(file, columns, start == 0)


def write_table(path: Path, num_rows: int) -> None:
    """Write a table of 40 columns: categories, numbers, some of them missing, and `target`, a number."""
    random = np.random.default_rng(SEED)
    sizes = np.geomspace(2, 1000, NUM_CATEGORICAL).round().astype(int)
    effects = [random.normal(0, 1, size) for size in sizes]
    with path.open("wb") as file:
        for start in range(0, num_rows, PIECE):
            count = min(PIECE, num_rows - start)
            codes = [random.integers(0, size, count) for size in sizes]
            numbers = random.normal(0, 1, (NUM_CONTINUOUS, count)).round(3)
            target = sum((effect[code] for effect, code in zip(effects, codes, strict=True)), start=numbers[:5].sum(0))
            columns: dict[str, Any] = {}
            for number, code in enumerate(codes):
                names = np.array([f"c{number}_{value}" for value in range(sizes[number])])
                columns[f"category{number}"] = names[code]
            for number, values in enumerate(numbers):
                is_missing = random.random(count) < 0.02 if number % 5 == 0 else None
                columns[f"number{number}"] = pa.array(values, mask=is_missing)
            columns["target"] = (target + random.normal(0, 1, count)).round(3)
            _append(file, columns, start == 0)


def write_texts(path: Path, num_tokens: int) -> None:
    """Write a text per line of words whose frequencies follow Zipf's law."""
    random = np.random.default_rng(SEED)
    words = np.array([_word(number) for number in range(50_000)])
    with path.open("w") as file:
        for start in range(0, num_tokens, PIECE):
            exponents = random.random(min(PIECE, num_tokens - start))  # uniform in the logarithm of the rank
            drawn = words[((len(words) + 1.0) ** exponents).astype(int) - 1]
            for first in range(0, len(drawn), WORDS_PER_TEXT):
                file.write(" ".join(drawn[first : first + WORDS_PER_TEXT]) + "\n")


def write_images(folder: Path, num_images: int) -> None:
    """Write a folder of small JPEG files per class; a class has a colour."""
    random = np.random.default_rng(SEED)
    colours = random.integers(40, 216, (NUM_CLASSES, 3))
    for number in range(NUM_CLASSES):
        (folder / f"class{number}").mkdir(parents=True)
    for number in range(num_images):
        label = number % NUM_CLASSES
        pixels = np.clip(colours[label] + random.normal(0, 40, (PIXELS, PIXELS, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.jpg")


def write_jobs(words: Sequence[str], trained: Path) -> None:
    """Write the finished runs of the jobs of a sweep as its writer does, with the files of one run that was trained.

    Args:
        words: the command line of the sweep.
        trained: the folder of the run; its metrics are changed a little in each job.
    """
    random = np.random.default_rng(SEED)
    run = FinishedRun.read(trained)
    assert run.summary is not None
    copied = [path for path in trained.iterdir() if path.suffix in (".log", ".html", ".csv")]
    _, jobs = frozen(words)
    identity = identity_of(plan(jobs[0].config).build_data())
    for job in jobs:
        checked = plan(job.config)
        choices = checked.settings.choices
        label = run_label(job.overrides, choices, job.swept)
        runs_dir, task = user_path(checked.settings.runs_dir), choices.get("task") or "task"
        directory, reason = RunDirectory.claim(runs_dir, task, label, digests(checked, identity))
        if reason == "new":
            factor = float(np.exp(random.normal(0, 0.01)))
            history = [{name: _scaled(name, value, factor) for name, value in row.items()} for row in run.history]
            summary = json.loads(json.dumps(run.summary))
            for part in ("final", "best"):
                summary[part] = {name: _scaled(name, value, factor) for name, value in summary[part].items()}
            summary["metric"]["value"] = summary["final"][summary["metric"]["name"]]
            summary["seed"] = checked.settings.seed
            directory.write_text("config.yaml", yaml.safe_dump(checked.config, sort_keys=False))
            directory.write_text("overrides.yaml", yaml.safe_dump(job.overrides))
            directory.write_text("metrics.jsonl", as_lines(history))
            for path in copied:
                directory.write_bytes(path.name, path.read_bytes())
            directory.finish(summary)
        directory.release()


def _scaled(name: str, value: object, factor: float) -> object:
    return value * factor if name.startswith("valid/") and isinstance(value, float) else value


def _skewed(random: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    """Draw from [0, size) so that frequencies fall with the square root of the number."""
    return np.asarray(random.random(count) ** 2 * size).astype(np.int64)


def _word(number: int) -> str:
    """Return a word of letters that no other number has.

    >>> _word(0), _word(27)
    ('a', 'ab')
    """
    letters = "abcdefghijklmnopqrstuvwxyz"
    return (_word(number // 26 - 1) if number >= 26 else "") + letters[number % 26]


def _append(file: BinaryIO, columns: Mapping[str, Any], is_first: bool) -> None:
    options = pa.csv.WriteOptions(include_header=is_first, quoting_style="none")
    pa.csv.write_csv(pa.table(dict(columns)), file, options)
