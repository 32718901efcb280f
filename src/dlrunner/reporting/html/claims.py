"""The report of claims: published values, reproduced values, and links to the runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dlrunner.claims.claim_report import Verdict
from dlrunner.comparison.jobs import moved
from dlrunner.errors import ConfigError
from dlrunner.renamed import present_verdict
from dlrunner.reporting.html import page
from dlrunner.reporting.html.charts import strip
from dlrunner.reporting.html.facts import conditions, is_number, is_sound, kind_of
from dlrunner.reporting.html.page import Card, Cell, Table, number_cell
from dlrunner.reporting.terminal.progress import number
from dlrunner.runs.reader import finished_summary

WORDS = {
    "reached": "The mean over the seeds is as good as the published value, or better.",
    "not distinguishable": "The mean is worse, but by less than these seeds can tell (one-sided test at 5 %).",
    "missed": "The mean is significantly worse, or a run failed.",
    "cannot be run here": "Data, a GPU or an encoder is missing, or the data is another release.",
}


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the claims that `dlrun reproduce` has checked.

    Args:
        folder: contains claims.json.
        out: the HTML file; report.html in the folder by default.

    Raises:
        ConfigError: claims.json is damaged.
        RunError: the file cannot be written.
    """
    out = out or folder / "report.html"
    return page.write(out, render(folder, read(folder / "claims.json"), out))


def read(file: Path) -> list[Verdict]:
    """Read the verdicts of claims.json.

    Raises:
        ConfigError: the file has no valid verdicts.
    """
    try:
        verdicts = [Verdict(**present_verdict(each)) for each in json.loads(file.read_text())]
        if all(map(_is_sound, verdicts)):
            return verdicts
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        pass
    raise ConfigError(f"{file} has no valid verdicts; run `dlrun reproduce` again")


def _is_sound(verdict: Verdict) -> bool:
    """Return whether a verdict that was read is valid."""
    values = [verdict.published, *verdict.values, *verdict.seconds]
    values += [each for each in (verdict.mean, verdict.std, verdict.p) if each is not None]
    texts = [verdict.experiment, verdict.metric, verdict.verdict, verdict.why, *verdict.flags, *verdict.folders]
    texts += [text for pair in verdict.failed.items() for text in pair]
    is_even = len(verdict.seeds) == len(verdict.values) and len(verdict.folders) in (0, len(verdict.seeds))
    return is_even and all(map(is_number, values)) and all(isinstance(text, str) for text in texts)


def render(folder: Path, verdicts: Sequence[Verdict], out: Path) -> bytes:
    """Return the page.

    Args:
        folder: contains claims.json; runs are searched for at their recorded paths, or next to it.
        verdicts: in the order of the table.
        out: path of the page, to which links are relative.
    """
    counts = Counter(verdict.verdict for verdict in verdicts)
    cards = [
        Card(word, str(counts[word]), [meaning], kind_of(word))  # type: ignore[index]
        for word, meaning in WORDS.items()
        if counts[word]  # type: ignore[index]
    ]
    run_folders = [moved(folder, written) for verdict in verdicts for written in verdict.folders]
    found = [finished_summary(path) for path in run_folders if path]
    summaries = [summary for summary in found if summary and is_sound(summary)]
    return page.render(
        "claims.html.j2",
        title=f"Claims: {folder.resolve().name}",
        cards=cards,
        verdicts=_table(verdicts),
        claims=[_claim(each, folder, out) for each in verdicts],
        **conditions(summaries),
    )


def _table(verdicts: Sequence[Verdict]) -> Table:
    names = (
        "experiment",
        "verdict",
        "metric",
        "published",
        "ours",
        "std",
        "seeds",
        "warnings",
        "data",
        "device",
        "seconds",
    )
    rows = []
    for v in verdicts:
        rows.append(
            [
                Cell(v.experiment, href=f"#{_anchor(v)}"),
                Cell(v.verdict, kind=kind_of(v.verdict)),
                Cell(v.metric),
                number_cell(v.published, f"{v.published:.5g}"),
                number_cell(v.mean),
                number_cell(v.std),
                number_cell(len(v.seeds) or None),
                Cell(", ".join(v.flags) or "-"),
                Cell(v.data or "-"),
                Cell(v.device or "-"),
                number_cell(sum(v.seconds) / len(v.seconds) if v.seconds else None, v.time),
            ]
        )
    return Table(names, rows, "Claims and their verdicts")


def _claim(verdict: Verdict, folder: Path, out: Path) -> dict[str, Any]:
    """Return the details of one claim: source, command, seeds and published value, runs."""
    drawing = ""
    if verdict.values:
        seeds = ", ".join(number(value) for value in verdict.values)
        about = f"published {verdict.published:.5g}; seeds: {seeds}"
        drawing = strip(verdict.metric, verdict.values, verdict.published, about)
    texts = [
        f"seed {seed}: {verdict.metric} {number(v)}" for seed, v in zip(verdict.seeds, verdict.values, strict=True)
    ]
    texts += [f"seed {seed}: failed" for seed in verdict.failed]
    runs = []
    for text, written in zip_longest(texts, [*verdict.folders, *verdict.failed.values()], fillvalue=""):
        path = moved(folder, written)
        runs.append((text, page.run_link(path, out) if path else ""))
    p = "" if verdict.p is None or verdict.p == 1 else f"{verdict.p:.3f} (one-sided test against the published value)"
    return {
        "experiment": verdict.experiment,
        "anchor": _anchor(verdict),
        "facts": [
            ("verdict", f"{verdict.verdict_text}{f': {verdict.why}' if verdict.why else ''}"),
            ("published", f"{verdict.metric} {verdict.published:.5g}"),
            ("ours", verdict.ours if verdict.values else ""),
            ("p", p),
            ("source", verdict.source),
            ("warnings", ", ".join(verdict.flags)),
            ("measured", verdict.measured),
            ("code", verdict.code),
        ],
        "drawing": drawing,
        "runs": runs,
        "command": verdict.command,
    }


def _anchor(verdict: Verdict) -> str:
    return "claim-" + "".join(c if c.isalnum() else "-" for c in verdict.experiment)
