"""Time and memory of dlrunner as data grows: ratings, tables, texts, images, and the jobs of a sweep.

Each size is generated data of its own, from a fixed seed, in a temporary folder. dlrunner runs as a user starts it, for
one epoch: at first with an empty cache, which includes reading and preparing the data, then again with the cache.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import growth_data
from benchmarks.measuring import DEVICE, DLRUN, HERE, Options, conditions, megabytes
from dlrunner.errors import ConfigError
from dlrunner.reporting.plots.training import BLUE, GREEN, ORANGE, PURPLE, RED, save, styled

Measured = dict[str, Any]
"""Of one size: what `trained_twice` and `jobs_read` return, or `error`."""

MOST_GROWTH = 1.1
"""A larger exponent between neighbouring sizes is marked: time or memory grows faster than the data."""
SIGNS = {"k": 10**3, "M": 10**6}


def trained_twice(folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> Measured:
    """Train for one epoch with an empty cache, and again with what the first run left in it."""
    runs, results = folder / "runs", {}
    for name in ("first", "second"):
        command = [*DLRUN, *words, "epochs=1", f"runs_dir={runs}", "rerun=true", "log.progress=none"]
        results[name] = timed(command, environment)
        summary = json.loads((runs / "latest" / "summary.json").read_text())
        results[name] |= {"training_seconds": summary["training_seconds"], "batch_size": batch_size(runs / "latest")}
    return {**results, "cache_mb": folder_mb(Path(environment["DLRUNNER_CACHE"]))}


def jobs_read(folder: Path, size: int, environment: Mapping[str, str]) -> Measured:
    """Write a sweep of so many finished jobs, and time the commands that read them all."""
    data, runs = folder / "ratings.csv", folder / "runs"
    growth_data.write_ratings(data, 2_000)
    words = ["task=movielens", f"data.path={data}", "epochs=1", "model.start_at_mean=false", "log.plots=false"]
    words.append(f"runs_dir={runs}")
    timed([*DLRUN, *words, "log.progress=none"], environment)
    # Five seeds of each learning rate, as users compare them.
    rates = ",".join(f"{0.001 + 0.0001 * number:.4f}" for number in range(max(1, size // 5)))
    words += [f"optim.lr={rates}", f"seed={','.join(map(str, range(min(5, size))))}"]
    code = "import sys; from pathlib import Path; from benchmarks import growth_data; "
    code += "growth_data.write_jobs(sys.argv[2:], Path(sys.argv[1]))"
    timed([sys.executable, "-c", code, str((runs / "latest").resolve()), *words], environment)
    results = {"results": timed([*DLRUN, "-m", *words, "log.progress=none"], environment)}
    sweep = next((runs / "sweeps").iterdir())
    if started := len([*sweep.glob("jobs/*/record.json")]):
        raise ConfigError(f"{started} of {size} jobs did not count as finished, and trained")
    results["compare"] = timed([*DLRUN, "compare", str(sweep)], environment)
    results["report"] = timed([*DLRUN, "report", str(sweep)], environment)
    return {**results, "runs_mb": folder_mb(runs)}


def _ratings(folder: Path, size: int, environment: Mapping[str, str]) -> Measured:
    growth_data.write_ratings(folder / "ratings.csv", size)
    return trained_twice(folder, ["task=collab", f"data.path={folder / 'ratings.csv'}"], environment)


def _tables(folder: Path, size: int, environment: Mapping[str, str]) -> Measured:
    growth_data.write_table(folder / "table.csv", size)
    words = ["task=tabular", f"data.path={folder / 'table.csv'}", "data.target=target"]
    return trained_twice(folder, words, environment)


def _tokens(folder: Path, size: int, environment: Mapping[str, str]) -> Measured:
    growth_data.write_texts(folder / "texts.txt", size)
    # A small network: reading grows with the texts, and a step costs the same whatever their number.
    model = ["model.embedding=32", "model.hidden=32", "model.layers=1", "data.max_vocab=1000"]
    return trained_twice(folder, ["task=lm", f"data.path={folder / 'texts.txt'}", *model], environment)


def _images(folder: Path, size: int, environment: Mapping[str, str]) -> Measured:
    growth_data.write_images(folder / "images", size)
    model = ["model.backbone=resnet18", "model.weights=null", f"data.size={growth_data.PIXELS}"]
    return trained_twice(folder, ["task=image", f"data.path={folder / 'images'}", *model], environment)


@dataclass(frozen=True)
class Subject:
    """What grows."""

    unit: str
    sizes: Sequence[int]
    measure: Callable[[Path, int, Mapping[str, str]], Measured]
    target: str
    """At the largest size."""


SUBJECTS = {
    "ratings": Subject("ratings", (10**5, 10**6, 5 * 10**6, 25 * 10**6), _ratings, "90 s, 2 GB"),
    "tables": Subject("rows of 40 columns", (10**4, 10**5, 10**6, 10**7), _tables, "6 GB"),
    "tokens": Subject("words", (10**6, 10**7, 10**8), _tokens, "linear"),
    "pictures": Subject("images", (10**3, 10**4, 10**5), _images, "linear"),
    "jobs": Subject("finished jobs", (10, 100, 1000), jobs_read, "10 s each"),
}
STEPS = {"first": "first run", "second": "second run", "results": "results", "compare": "compare", "report": "report"}
"""What is timed."""


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements; what `--only` and `--sizes` leave out stays as it was measured."""
    file = HERE / f"results-growth-{DEVICE}.json"
    found: dict[str, dict[str, Measured]] = json.loads(file.read_text())["sizes"] if file.exists() else {}
    for name in options.only or SUBJECTS:
        subject = SUBJECTS[name]
        for size in options.sizes or subject.sizes:
            measured = measured_at(subject, size)
            found[name] = {**found.get(name, {}), str(size): measured}
            print(f"{size:,} {subject.unit}: {json.dumps(measured)}", file=sys.stderr, flush=True)
    draw(found, file.with_suffix(".svg"))
    return text(found), {"sizes": found}


def measured_at(subject: Subject, size: int) -> Measured:
    """Measure one size; a failure is a result too."""
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        environment = {"DLRUNNER_CACHE": str(folder / "cache"), "DLRUNNER_DATA": str(folder / "data")}
        try:
            return subject.measure(folder, size, environment)
        except (subprocess.CalledProcessError, ConfigError) as error:
            return {"error": str(error)}


def timed(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command and return its seconds, its CPU seconds, and the peak memory of its largest process.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, **environment}, cwd=HERE.parent)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # wait4 has taken it from the Popen
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(words)[:8])
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_memory_mb": round(megabytes(usage)),
    }


def batch_size(run: Path) -> int:
    """Return the batch size of a run that was left to choose it."""
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return int(summary.get("auto", {}).get("batch_size", 0))


def folder_mb(folder: Path) -> float:
    """Return the megabytes of the files in a folder."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def sizes_of(text: str) -> list[int]:
    """Return sizes as they are typed.

    >>> sizes_of("10,100k,25M")
    [10, 100000, 25000000]
    """
    return [int(float(each.rstrip("kM")) * SIGNS.get(each[-1:], 1)) for each in text.split(",")]


def exponent(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Return the power of the size that a cost grows with, from two pairs of size and cost.

    >>> exponent((100, 2.0), (1000, 200.0))
    2.0
    """
    return math.log(after[1] / before[1]) / math.log(after[0] / before[0])


def text(found: Mapping[str, Mapping[str, Measured]]) -> str:
    """Return a table for each subject."""
    lines = [
        "# Growth",
        "",
        conditions("python -m benchmarks growth", 1, "generated data, one epoch, default settings"),
        "First run: with an empty cache, reading and preparing included; second run: with the cache. Memory: peak of",
        "the largest process. Exponents: the power of the size of seconds, then memory, from the size above;",
        f"1 is linear, below it a fixed part prevails, above {MOST_GROWTH} it is bold.",
    ]
    for name, subject in SUBJECTS.items():
        if name in found:
            lines += ["", f"## {name.capitalize()}", "", f"Target at the largest size: {subject.target}.", ""]
            lines += _table(subject, sorted(found[name].items(), key=lambda pair: int(pair[0])))
    lines += ["", f"![Seconds and memory by size](results-growth-{DEVICE}.svg)", ""]
    return "\n".join(lines)


def _table(subject: Subject, measured: Sequence[tuple[str, Measured]]) -> list[str]:
    steps = [step for step in STEPS if any(step in each for _, each in measured)]
    trains = "first" in steps
    heads = [subject.unit, *(f"{STEPS[step]} (CPU)" for step in steps)]
    heads += ["training", "batch size"] if trains else []
    heads += [*(f"memory, {STEPS[step]}" for step in steps), "cache" if trains else "runs", "exponents"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    before: tuple[int, Measured] | None = None
    for size, each in measured:
        if "error" in each:
            lines.append(f"| {int(size):,} | failed: {each['error']} |{' |' * (len(heads) - 2)}")
            continue
        cells = [f"{int(size):,}"]
        cells += [f"{each[step]['seconds']:.1f} s ({each[step]['cpu_seconds']:.1f})" for step in steps]
        if trains:
            first = each["first"]
            cells += [f"{first['training_seconds']:.1f} s", str(first["batch_size"] or "as set")]
        cells += [f"{each[step]['peak_memory_mb'] / 1024:.2f} GB" for step in steps]
        cells.append(f"{each['cache_mb' if trains else 'runs_mb']:.0f} MB")
        cells.append("–" if before is None else _exponents(before, (int(size), each), steps))
        lines.append(f"| {' | '.join(cells)} |")
        before = int(size), each
    return lines


def _exponents(before: tuple[int, Measured], after: tuple[int, Measured], steps: Sequence[str]) -> str:
    cells = []
    for key in ("seconds", "peak_memory_mb"):
        powers = [exponent((before[0], before[1][step][key]), (after[0], after[1][step][key])) for step in steps]
        cells.append(", ".join(f"**{each:.2f}**" if each > MOST_GROWTH else f"{each:.2f}" for each in powers))
    return "; ".join(cells)


def draw(found: Mapping[str, Mapping[str, Measured]], path: Path) -> None:
    """Draw seconds and memory by size, both axes logarithmic, with a grey line of linear growth."""
    with styled():
        figure = Figure(figsize=(10.4, 4.6), layout="constrained")
        for axes, key, label, unit in zip(
            figure.subplots(1, 2), ("seconds", "peak_memory_mb"), ("seconds", "memory (GB)"), (1, 1024), strict=True
        ):
            for (name, sizes), colour in zip(found.items(), (BLUE, RED, GREEN, ORANGE, PURPLE), strict=False):
                known = sorted((int(size), each) for size, each in sizes.items() if "error" not in each)
                for step, style in zip(STEPS, ("-", "--", ":", "-", "--"), strict=True):
                    points = [(size, each[step][key] / unit) for size, each in known if step in each]
                    if points:
                        label_of = f"{name}, {STEPS[step]}"
                        axes.plot(*zip(*points, strict=True), style, marker="o", color=colour, label=label_of)
            axes.set(xscale="log", yscale="log", xlabel="size", ylabel=label)
            (left, right), limits = axes.get_xlim(), axes.get_ylim()
            linear = [limits[0], limits[0] * right / left]
            axes.plot((left, right), linear, color="#c4c4c4", linewidth=1, label="linear", scalex=False, scaley=False)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        save(figure, path)
