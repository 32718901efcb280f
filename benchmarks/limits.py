"""How far each workload of the table of speeds is from what this machine can do: benchmarks/limits.md and .json."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import collab, images, sentiment, tabular, text
from benchmarks.measuring import HERE, THREADS, Options, Run, data_dir, machine, run_json, with_range
from benchmarks.operators import PARTS
from benchmarks.tabular import slowness_of_bfloat16
from benchmarks.text import PRECISIONS

COLUMNS = (*PARTS, "decoding")
ENOUGH = 0.7
"""Share of the ceiling below which a workload has a reason in `REASONS`."""
INTRODUCTION = """\
How far dlrunner is from what this machine can do: its own loop (`Trainer.train_epoch`, `Trainer.evaluate`, the decoder
of images) and, right after it in the same process, the ceiling of the same work. Medians over repetitions, with ranges.

The operators of one pass, backward pass and optimizer included, are recorded as torch dispatches them. The ceiling is
the sum of what they cost this machine at least, each with one thread or with all, whichever is faster:

- *products*: matrix products and convolutions, each timed alone at its very shapes, strides and dtype, its operands in
  the caches where they fit, by torch's own call or by oneDNN, whichever is faster; of a recurrent layer the product of
  all inputs, and for each step that of the states;
- *optimizer*, *embeddings*, *other operators*: the bytes that an operator must read and write (of a table that is
  looked up only the chosen rows), in the time of a copy that moves as many bytes;
- *launches*: as many of the smallest copies as there are operators that run a kernel; views run none;
- *decoding*: Pillow alone, on all cores: reduced decoding and resizing, no checks, no EXIF data, no cache.

Python, autograd, drawing random numbers, and functions such as exp cost nothing in it, and nothing overlaps: the
operators of a step depend on one another. So no loop that calls these operators reaches 1. The columns of the parts are
fractions of dlrunner's time and add up to its share of the ceiling.
"""
REASONS: Mapping[str, str] = {
    "Collaborative filtering": (
        "a batch of 64 touches 128 rows, and AdamW's dense pass moves all 487,000 numbers: 175 µs a step on a core of "
        "AMD EPYC, where a copy of as many bytes takes 115 and SGD's pass 75; the rest is its square roots and "
        "divisions. Updating a row only when it is read next needs the same roots and divisions for every step that it "
        "missed, since Adam's steps have no closed form, so an exact update by rows saves nothing. torch's SparseAdam, "
        "which skips them (other results, no weight decay), is no faster: a whole step takes 450 µs with it and 400 "
        "with the fused dense pass, for it calls some twenty operators for each table. What remains is a step of 26 "
        "kernels on 64 rows: the time goes into Python and autograd."
    ),
    "Tables, float32": (
        "torch multiplies float32 by MKL, which on a core of AMD EPYC reaches 71 to 98 GFLOP/s, oneDNN 109 to 228 at "
        "the same shapes. torch calls oneDNN only in bfloat16; calling it ourselves, forward and backward, would "
        "change the last digits of every published result in float32."
    ),
    "Tables, bfloat16": (
        "at batches of 128 less than half of the time of a step is products (46 %, torch's profiler, one thread). "
        "Adam's dense pass over all embeddings is 13 %, 52 casts between float32 and bfloat16 9 %; the rest are small "
        "operators, 125 kernels a step in all: twelve embeddings are looked up, masked and differentiated one by one."
    ),
    "Language model, float32": "as in bfloat16; and the decoder's products are MKL's, as those of tables in float32.",
    "Language model, bfloat16": (
        "three quarters of the time is oneDNN's LSTM, two thirds of that its backward pass: the products of one step "
        "wait for those of the step before, with the gates between them. Drawing the dropouts is 3 %."
    ),
    "Reviews, float32, training": "the LSTM, as in the language model.",
    "Reviews, bfloat16, training": "the LSTM, as in the language model.",
    "Reviews, bfloat16, prediction": "as in float32.",
    "Reviews, float32, prediction": (
        "95 to 99 % of the time is oneDNN's LSTM. Texts come in batches of similar length, what has ended is left out "
        "of the next piece of 70 words, and nothing else is padded; but the products of one step, of 64 rows at most, "
        "must wait for those of the step before, and the gates are computed between them."
    ),
    "Images, decoding, 224": (
        "of 0.8 ms for a JPEG of this size, on one thread (cProfile), Pillow's decoder takes 0.23; opening it and its "
        "EXIF data 0.1, copies into an array 0.07, a checksum 0.04, the file that the array is mapped from 0.14; the "
        "rest is Python. These parts do not shrink with the image, and a second thread waits for the interpreter."
    ),
    "Images, a head": (
        "63 % of a step is products (torch's profiler, one thread), which are MKL's, as those of tables in float32; "
        "AdamW's pass over 720,000 weights is 14 %, batch norm and dropout, forward and backward, 8 %."
    ),
}
"""Why a workload stays below `ENOUGH`, by the beginning of its title."""


@dataclass(frozen=True)
class Workload:
    """A row of the table of speeds."""

    title: str
    unit: str
    words: Sequence[str]
    """Of `benchmarks.limit_work`."""
    per_pass: bool = False
    """Passes are counted, not examples."""

    def speeds(self, seconds: Sequence[float], examples: int) -> list[float]:
        """Return passes or examples per second."""
        return [(1 if self.per_pass else examples) / each for each in seconds]


def workloads(folder: Path, rows: int | None) -> list[Workload]:
    """Return all workloads of the table of speeds, on files written to a folder."""
    precisions = dict(PRECISIONS) if slowness_of_bfloat16() < 1 else {"fp32": "float32"}
    found = [Workload("Collaborative filtering, float32, batches of 64", "ratings", ["train", *collab.WORK])]
    for precision, name in precisions.items():
        for batch_size in tabular.BATCH_SIZES:
            settings = [f"data.sample={rows or tabular.ROWS}", f"batch_size={batch_size}", f"precision={precision}"]
            words = ["train", *tabular.WORK, *tabular.SPLIT, *settings]
            found.append(Workload(f"Tables, {name}, batches of {batch_size}", "rows", words))
    text.write_words(folder, text.STEPS)
    files = [f"data.path={folder / 'train.txt'}", f"data.valid_path={folder / 'valid.txt'}"]
    for precision, name in precisions.items():
        words = ["train", *text.WORK, *files, f"precision={precision}"]
        found.append(Workload(f"Language model, {name}", "words", words))
    sentiment.write_texts(folder, sentiment.TRAIN, sentiment.VALID)
    for precision, name in precisions.items():
        words = sentiment.run_words(folder, precision, 0)
        found.append(Workload(f"Reviews, {name}, training", "reviews", ["train", *words]))
        found.append(Workload(f"Reviews, {name}, prediction", "reviews", ["evaluate", *words]))
    return [*found, *_of_images(folder, precisions)]


def _of_images(folder: Path, precisions: Mapping[str, str]) -> list[Workload]:
    found = []
    for size, number, scale in (("224", images.NUM_IMAGES, 1), ("1,344", images.NUM_LARGE, 6)):
        images.write_images(folder / size, number, scale)
        words = ["decode", "--images", str(folder / size)]
        found.append(Workload(f"Images, decoding, {size} pixels per side", "images", words))
    weights = str(data_dir() / "weights" / images.WEIGHTS)
    for precision, name in precisions.items():
        words = ["features", "--weights", weights, "--precision", precision]
        found.append(Workload(f"Images, features of MobileNetV2, {name}", "images", words))
    for work, title in (
        ("net", "training all of MobileNetV2, float32, batches of 16"),
        ("head", "a head, batches of 64"),
    ):
        train, valid = images.COUNTS[work]
        sizes = [f"data.sample={train}", f"data.sample_valid={valid}"]
        words = ["train", *images.WORK, *images.TRAINED[work], *sizes]
        found.append(Workload(f"Images, {title}", "epochs" if work == "head" else "images", words, work == "head"))
    return found


def measure(options: Options) -> int:
    """Measure the workloads, print the table and write it; with `options.rows`, a trial, write nothing.

    Args:
        options: repeats, rows of a trial, and beginnings of the titles to measure: the others stay as they were
            measured, if that was on such a machine.
    """
    file, rows = HERE / "limits.json", dict[str, Run]()
    known = json.loads(file.read_text()) if options.only and file.exists() else {}
    kept: Mapping[str, Run] = known["rows"] if known.get("machine") == machine() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = tabular.environment(folder)
        for work in workloads(folder, options.rows):
            if options.only and not work.title.startswith(tuple(options.only)):
                if work.title in kept:
                    rows[work.title] = kept[work.title]
                continue
            print(work.title, file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.limit_work", *work.words, "--repeats", str(options.repeats)]
            run = run_json(command, environment)
            rows[work.title] = {**run, "unit": work.unit, **_speeds(work, run)}
    page = table(rows, options.repeats)
    print(page)
    if options.rows is None:
        (HERE / "limits.md").write_text(page)
        file.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return 0


def _speeds(work: Workload, run: Run) -> dict[str, list[float]]:
    own, examples = run["own"], run["examples"]
    least = [sum(parts.values()) for parts in run["ceilings"]]
    return {
        "speed": work.speeds(own, examples),
        "ceiling": work.speeds(least, examples),
        "share": [possible / needed for possible, needed in zip(least, own, strict=True)],
    }


def table(rows: Mapping[str, Run], repeats: int) -> str:
    """Return the page: how the ceiling is counted, a row for each workload, and reasons for low shares."""
    here = machine()
    lines = [
        "# Limits of the machine",
        "",
        f"`python -m benchmarks limits`; {repeats} repetitions; {THREADS} cores, {here['cpu']}; torch {here['torch']}.",
        "",
        INTRODUCTION,
        f"| | dlrunner, per second | ceiling | share of the ceiling | {' | '.join(COLUMNS)} | threads |",
        "|---|" + "---|" * (len(COLUMNS) + 4),
    ]
    for title, run in rows.items():
        digits = 0 if statistics.median(run["speed"]) >= 100 else 1
        speeds = f"{with_range(run['speed'], digits)} {run['unit']} | {statistics.median(run['ceiling']):.{digits}f}"
        parts = [
            statistics.median(each.get(part, 0.0) / own for each, own in zip(run["ceilings"], run["own"], strict=True))
            for part in COLUMNS
        ]
        shown = " | ".join(f"{part:.2f}" if part >= 0.005 else "-" for part in parts)
        lines.append(f"| {title} | {speeds} | {with_range(run['share'])} | {shown} | {run['threads']} |")
    low = {title for title, run in rows.items() if statistics.median(run["share"]) < ENOUGH}
    reasons = {start: why for start, why in REASONS.items() if any(title.startswith(start) for title in low)}
    lines += ["", *(f"- **{start}**: {why}" for start, why in reasons.items())]
    if unexplained := sorted(title for title in low if not title.startswith(tuple(REASONS))):
        lines += [f"- Below {ENOUGH} without a known reason: {'; '.join(unexplained)}."]
    return "\n".join([*lines, ""])
