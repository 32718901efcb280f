"""The report of a sweep: command, groups, bands over seeds, parallel coordinates, all jobs."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlrunner.comparison.collect import LeftOut, Row, frozen, gather, shown
from dlrunner.comparison.groups import REPEATS, Comparison, Group, compare
from dlrunner.comparison.jobs import jobs_of, moved
from dlrunner.errors import ConfigError
from dlrunner.reporting.html import page
from dlrunner.reporting.html.answer import question
from dlrunner.reporting.html.charts import NUM_COLOURS, Axis, Curve, axis_of, curves, parallel
from dlrunner.reporting.html.facts import audit_findings, conditions, is_number, is_sound
from dlrunner.reporting.html.page import Card, Cell, Table, duration, number_cell
from dlrunner.reporting.html.run import read_kept
from dlrunner.reporting.terminal.comparison import sentences, verdict_sentence
from dlrunner.reporting.terminal.pairwise import pairwise_sentences
from dlrunner.reporting.terminal.progress import number
from dlrunner.runs.reader import finished_summary

MOST_AXES = 9
MOST_LINES = 500
MOST_JOBS = 1000
"""Maximum rows of the table of jobs; results.csv has all."""
MOST_GROUPS = 300
MOST_OF_ERROR = 400
"""Maximum length of an error; record.json in the job's folder has all of it."""
MOST_METRICS = 8
"""Maximum number of metrics in the table of jobs."""
MOST_OF_TITLE = 80
"""Maximum length of the list of varied settings in the title."""
BOOKKEEPING = ("job", "status", "metric", "higher_is_better", "seconds", "folder", "error")
"""Columns of results.csv that are neither settings nor metrics."""


@dataclass(frozen=True)
class Shown:
    """A job, its run folder if it has one, and its run if that can be compared."""

    job: Mapping[str, str]
    folder: Path | None
    run: Row | None


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a sweep, also of an unfinished one.

    Args:
        folder: of the sweep.
        out: the HTML file; report.html in the folder by default.

    Raises:
        ConfigError: the sweep has no jobs, or its results are damaged.
        RunError: the file cannot be written.
    """
    out = out or folder / "report.html"
    jobs = read_jobs(folder)
    rows: Sequence[Row]
    left_out: Sequence[LeftOut]
    try:
        rows, left_out = gather([str(folder)])
        comparison = compare(rows)
    except ConfigError:  # fewer than two runs are finished: there is only the table of jobs
        left_out, comparison = [], None
    for most in (MOST_JOBS, MOST_JOBS // 4, MOST_JOBS // 16):
        content = render(folder, jobs, comparison, left_out, out, most)
        if len(content) <= page.MOST_BYTES:
            break
    return page.write(out, content)


def read_jobs(folder: Path) -> list[dict[str, str]]:
    """Read the rows of results.csv, or the records of the jobs if it does not exist yet.

    Raises:
        ConfigError: there are no jobs, or the file is damaged.
    """
    file = folder / "results.csv"
    if not file.exists():
        if not (known := jobs_of(folder)):
            raise ConfigError(f"{folder} has no jobs yet: run the sweep again")
        names = ("status", "folder", "error")
        return [{"job": job, **dict(zip(names, each, strict=True))} for job, each in known.items()]
    if not file.is_file():
        raise ConfigError(f"{file} is not a regular file; run the sweep again")
    try:
        with file.open(newline="") as lines:
            jobs = [{str(k): str(v or "") for k, v in row.items()} for row in csv.DictReader(lines)]
    except (OSError, ValueError, RecursionError, csv.Error):
        jobs = []
    if not jobs or not all({"job", "status", "folder", "error"} <= job.keys() for job in jobs):
        raise ConfigError(f"{file} is damaged; run the sweep again")
    return jobs


def render(
    folder: Path,
    jobs: Sequence[Mapping[str, str]],
    comparison: Comparison | None,
    left_out: Sequence[LeftOut],
    out: Path,
    most: int = MOST_JOBS,
) -> bytes:
    """Return the page.

    Args:
        folder: of the sweep.
        jobs: rows of results.csv.
        comparison: of the finished runs; None if there are fewer than two.
        left_out: runs that are skipped, and why.
        out: path of the page, to which links are relative.
        most: maximum rows of the table of jobs, and lines of the parallel coordinates.
    """
    runs = {row.path.resolve(): row for row in comparison.rows} if comparison else {}
    paired = [
        Shown(job, path := moved(folder, job["folder"]), runs.get(path.resolve()) if path else None) for job in jobs
    ]
    ranked = comparison if comparison and comparison.is_ranked else None
    if ranked:
        paired.sort(key=lambda each: _rank(each.run))
    found = [finished_summary(each.folder) for each in paired if each.folder]
    summaries = [summary for summary in found if summary and is_sound(summary)]
    verdicts = _verdicts(comparison) if comparison else []
    notes = [line for line in sentences(comparison, left_out) if line not in verdicts] if comparison else []
    return page.render(
        "sweep.html.j2",
        title=_title(folder, comparison, summaries),
        subtitle=f"Sweep: {folder.resolve().name}",
        banners=_warnings(jobs, summaries),
        cards=_cards(ranked, paired),
        verdict="; ".join(verdicts),
        command=_command(folder),
        findings=audit_findings(summaries),
        notes=[_cut(note) for note in notes],
        groups=_groups(comparison) if comparison else None,
        curves=_bands(ranked) if ranked else None,
        parallel=_parallel(paired, ranked, min(most, MOST_LINES)) if ranked else "",
        jobs=_jobs(paired, comparison, out, most),
        configuration=_configuration(comparison.rows) if comparison else None,
        **conditions(summaries),
    )


def _title(folder: Path, comparison: Comparison | None, summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return what was asked and which settings were varied; the folder if that is unknown."""
    questions = {question(summary, "") for summary in summaries}
    asked = questions.pop() if len(questions) == 1 else ""
    varied = ", ".join(comparison.settings) if comparison else ""
    if not asked or len(varied) > MOST_OF_TITLE:
        return asked or f"Sweep: {folder.resolve().name}"
    return f"{asked}: by {varied}" if varied else asked


def _command(folder: Path) -> str:
    """Return the command of the sweep, if it was stored."""
    try:
        return shlex.join(["dlrun", "-m", *map(str, json.loads((folder / "sweep.json").read_text())["words"])])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ""


def _rank(run: Row | None) -> float:
    """Sort the best first, and runs without a value last."""
    if run is None:
        return math.inf
    return -run.value if run.higher_is_better else run.value


def _warnings(jobs: Sequence[Mapping[str, str]], summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter(job["status"] for job in jobs if job["status"] != "done")
    texts = [f"{sum(counts.values())} of {len(jobs)} jobs are not finished: {_counted(counts)}"] if counts else []
    generated = sum((summary.get("data") or {}).get("source") == "synthetic" for summary in summaries)
    if generated:
        part = "" if generated == len(summaries) else f" in {generated} of {len(summaries)} runs"
        texts.append(f"Synthetic data{part}: the results below do not apply to real data.")
    return texts


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items())


def _verdicts(comparison: Comparison) -> list[str]:
    """Return which of two groups is better, or of more which ones the best is better than."""
    verdict = verdict_sentence(comparison)
    return [verdict] if verdict else list(pairwise_sentences(comparison))


def _cards(ranked: Comparison | None, paired: Sequence[Shown]) -> list[Card]:
    done = sum(each.job["status"] == "done" for each in paired)
    seconds = [each.run.numbers["seconds"] for each in paired if each.run and is_number(each.run.numbers["seconds"])]
    lines = [f"{duration(sum(seconds))} of training in total"] if seconds else []
    cards = [Card("finished jobs", f"{done} of {len(paired)}", lines)]
    if ranked is None:
        return cards
    group = ranked.groups[0]
    found = group.estimate
    std = f"± {number(found.sd)} (std over {found.n} runs), " if found.n > 1 else ""
    direction = "higher is better" if group.higher_is_better else "lower is better"
    name = f"{ranked.metric}, best group"
    cards.append(Card(name, number(found.mean), [group.label, f"{std}{direction}"]))
    best = paired[0]
    if best.run is not None and any(len(each.rows) > 1 for each in ranked.groups):
        lines = [
            f"job {best.job['job']}: {_settings(best.run, ranked)}",
            "chosen as the best of many runs: other seeds and rows will be worse on average",
        ]
        cards.append(Card(f"{ranked.metric}, best job", number(best.run.value), lines))
    return cards


def _settings(run: Row, comparison: Comparison) -> str:
    names = dict.fromkeys([*comparison.settings, *comparison.averaged])
    return " ".join(f"{name}={shown(run.settings.get(name), comparison.cuts)}" for name in names)


def _groups(comparison: Comparison) -> dict[str, Any]:
    """Return a row per group, best first: its settings, and mean and standard deviation over seeds."""
    metric = [comparison.metric or "value"]
    in_sets = comparison.num_validation_sets > 1
    names = [*comparison.settings, "n", *metric, "std", "95 % low", "95 % high", "seconds"]
    names = ["validation set", *names] if in_sets else names
    rows = []
    for group in comparison.groups[:MOST_GROUPS]:
        found = group.estimate
        cells = [number_cell(group.validation_set + 1)] if in_sets else []
        cells += [_setting_cell(value, group.cuts) for value in group.settings.values()]
        values = [found.n, found.mean, found.sd, found.low, found.high]
        seconds = group.mean("seconds")
        rows.append([*cells, *map(number_cell, values), number_cell(seconds, f"{seconds:.1f}")])
    remark = "mean, standard deviation and 95 % interval of the mean over the repetitions"
    remark += "; highlighted: the best mean" if comparison.is_ranked else ""
    remark += "; groups of different validation sets are not comparable" if in_sets else ""
    if len(comparison.groups) > MOST_GROUPS:
        remark += f"; the first {MOST_GROUPS} of {len(comparison.groups)} groups"
    best = [0] if comparison.is_ranked else []
    return {"table": Table(names, rows, "Groups of runs that differ only in the seed", best), "remark": remark}


def _setting_cell(value: Any, cuts: Mapping[str, str]) -> Cell:
    return Cell(shown(value, cuts), order=value if is_number(value) else None)


def _bands(comparison: Comparison) -> dict[str, Any] | None:
    """Draw the mean of each of the best groups by epoch, with a band from the lowest to the highest run."""
    assert comparison.metric is not None
    best = comparison.groups[:NUM_COLOURS]
    names = dict.fromkeys([comparison.metric, "train/loss"])
    charts = [
        curves(name, [curve for group in best if (curve := _band(group, name))], is_focused=True) for name in names
    ]
    if not any(charts):
        return None
    remark = "line: mean of the runs of a group; band: from the lowest to the highest"
    remark += "; the first quarter of long runs may be outside of the plot"
    if len(comparison.groups) > len(best):
        remark += f". The best {len(best)} of {len(comparison.groups)} groups are shown; the tables have all"
    return {"remark": remark, "drawings": charts}


def _band(group: Group, name: str) -> Curve | None:
    """Return mean, lowest and highest value for the epochs that all runs of the group have."""
    lines = [
        {float(r["epoch"]): float(r[name]) for r in row.history if is_number(r.get("epoch")) and is_number(r.get(name))}
        for row in group.rows
    ]
    known = [line for line in lines if line]
    if not known:
        return None
    epochs = sorted(set.intersection(*map(set, known)))
    values = {epoch: [line[epoch] for line in known] for epoch in epochs}
    band = {epoch: (min(each), max(each)) for epoch, each in values.items()} if len(known) > 1 else {}
    return Curve(group.label, {epoch: group.average([line.get(epoch) for line in lines]) for epoch in epochs}, band)


def _parallel(paired: Sequence[Shown], comparison: Comparison, most: int) -> str:
    """Draw a line per job through the settings that differ and the metric."""
    assert comparison.metric is not None
    known = [(each.job["job"], each.run) for each in paired if each.run is not None]
    drawn = known[:most]
    names = [name for name in comparison.settings if name not in REPEATS][:MOST_AXES]
    axes: list[Axis] = [
        axis_of(name, [_axis_value(run.settings.get(name), comparison) for _, run in drawn]) for name in names
    ]
    axes.append(axis_of(comparison.metric, [run.value for _, run in drawn]))
    ranks = [index / max(1, len(drawn) - 1) for index in range(len(drawn))]
    texts = [f"job {job}: {_settings(run, comparison)}: {comparison.metric} {number(run.value)}" for job, run in drawn]
    remark = "One line per job, coloured by its rank in the metric."
    if len(drawn) < len(known):
        remark += f" The best {len(drawn)} of {len(known)} jobs."
    if len(names) < len(comparison.settings):
        remark += f" Axes for {len(names)} of {len(comparison.settings)} differing settings."
    return parallel(f"Settings and {comparison.metric}", axes, ranks, texts, remark)


def _axis_value(value: Any, comparison: Comparison) -> Any:
    return value if is_number(value) or value is None else shown(value, comparison.cuts)


def _jobs(paired: Sequence[Shown], comparison: Comparison | None, out: Path, most: int) -> dict[str, Any]:
    """Return a row per job, best first, each linked to its run."""
    if comparison:
        settings = list(dict.fromkeys([*comparison.settings, *comparison.averaged]))
        known = dict.fromkeys(name for row in comparison.rows for name in row.numbers if name != "seconds")
        metric = [comparison.metric] if comparison.metric else []
        all_numbers = list(dict.fromkeys([*metric, *known]))
    else:
        known = dict.fromkeys(name for each in paired for name in each.job if name not in BOOKKEEPING)
        all_numbers = [name for name in known if name.startswith(("train/", "valid/", "test/"))]
        settings = [name for name in known if "/" not in name and not name.startswith("best ")]
    numbers = all_numbers[:MOST_METRICS]
    failed = [each for each in paired if each.job["error"]]
    shown_jobs = paired
    if len(paired) > most:  # failed jobs are kept if possible
        shown_jobs = [each for each in paired if not each.job["error"]]
        shown_jobs = [*shown_jobs[: max(most // 2, most - len(failed))], *failed[: most // 2]]
    cuts = comparison.cuts if comparison else {}
    names = ["job", "status", *settings, *numbers, "seconds", *(["error"] if failed else [])]
    rows = []
    for each in shown_jobs:
        job, run = each.job, each.run
        kind = "" if job["status"] == "done" else "bad"
        address = page.run_link(each.folder, out) if each.folder else ""
        cells = [replace(_csv_cell(job["job"]), href=address), Cell(job["status"], kind=kind)]
        cells += [_setting_cell(run.settings.get(n), cuts) if run else _csv_cell(job.get(n, "")) for n in settings]
        cells += [number_cell(run.numbers.get(n)) if run else _csv_cell(job.get(n, "")) for n in numbers]
        seconds = _csv_cell(job.get("seconds", ""))
        cells.append(number_cell(seconds.order, f"{seconds.order:.1f}") if is_number(seconds.order) else seconds)
        rows.append([*cells, *([Cell(_cut(job["error"]), kind="long")] if failed else [])])
    is_ranked = comparison is not None and comparison.is_ranked
    remarks = [
        "Best first; highlighted: the best; job numbers link to the runs."
        if is_ranked
        else "Job numbers link to the runs."
    ]
    if len(shown_jobs) < len(paired):
        remarks.append(f"{len(shown_jobs)} of {len(paired)} jobs are shown; results.csv has all.")
    if len(numbers) < len(all_numbers):
        remarks.append(f"{len(all_numbers) - len(numbers)} more metrics are in results.csv.")
    best = [0] if is_ranked and shown_jobs[0].run else []
    return {"table": Table(names, rows, "Jobs", best), "remark": " ".join(remarks)}


def _cut(text: str) -> str:
    return text if len(text) <= MOST_OF_ERROR else f"{text[:MOST_OF_ERROR]} …"


def _configuration(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return the settings that all runs share and that differ from the task's defaults."""
    first, *others = [_changed(row.path) for row in rows]
    names = [name for name in first if all(name in changed for changed in others)]
    shared = [name for name in names if len({frozen(row.settings.get(name)) for row in rows}) == 1]
    cells = [[Cell(name), Cell(shown(rows[0].settings.get(name)), kind="long"), Cell(first[name])] for name in shared]
    if not cells:
        return None
    return {
        "table": Table(["setting", "all jobs", "default"], cells, "Settings of all jobs"),
        "remark": (
            "Settings of all jobs that differ from the defaults of the task; the page of each job has all settings."
        ),
    }


def _changed(path: Path) -> Mapping[str, str]:
    """Return the task's defaults of the settings that differ in a run; empty if unknown."""
    try:
        return read_kept(path)["changed"] or {}
    except ConfigError:
        return {}


def _csv_cell(text: str) -> Cell:
    """Return a cell for a value of results.csv, with numbers formatted."""
    try:
        value = float(text)
    except ValueError:
        return Cell(text or "-")
    return number_cell(value) if "." in text else Cell(text, order=value if math.isfinite(value) else None)
