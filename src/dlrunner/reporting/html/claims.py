"""The report of claims: published figures beside what was earned, each run linked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dlrunner.claims.claim_report import Verdict
from dlrunner.comparison.collect import moved
from dlrunner.errors import ConfigError
from dlrunner.renamed import present_verdict
from dlrunner.reporting.html import page
from dlrunner.reporting.html.charts import strip
from dlrunner.reporting.html.facts import grounds, is_number, is_sound, kind_of
from dlrunner.reporting.html.page import Card, Cell, Table, figure_cell
from dlrunner.reporting.terminal.progress import number
from dlrunner.runs.reader import finished_summary

WORDS = {
    "reached": "The mean over the seeds is the published figure, or better.",
    "reached within noise": "The mean falls short by less than chance explains (one-sided t-test at 5 %).",
    "missed": "The mean falls short by more than chance explains, or a run failed.",
    "cannot be run here": "Data, a GPU or an encoder is lacking, or the data is another release than the figure's.",
}


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the claims that `dlrun reproduce` has judged.

    Args:
        folder: with claims.json.
        out: the HTML file; report.html in the folder, if none is named.

    Raises:
        ConfigError: claims.json is damaged.
        RunError: the file cannot be written.
    """
    out = out or folder / "report.html"
    return page.write(out, render(folder, read(folder / "claims.json"), out))


def read(file: Path) -> list[Verdict]:
    """Read the verdicts of claims.json.

    Raises:
        ConfigError: the file does not hold verdicts.
    """
    try:
        verdicts = [Verdict(**present_verdict(each)) for each in json.loads(file.read_text())]
        if all(map(_is_sound, verdicts)):
            return verdicts
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        pass
    raise ConfigError(f"{file} does not hold verdicts; give `dlrun reproduce` again")


def _is_sound(verdict: Verdict) -> bool:
    """Tell whether a verdict that was read holds what it should."""
    figures = [verdict.published, *verdict.values, *verdict.seconds]
    figures += [each for each in (verdict.mean, verdict.std, verdict.p) if each is not None]
    texts = [verdict.experiment, verdict.metric, verdict.verdict, verdict.why, *verdict.flags, *verdict.folders]
    texts += [text for pair in verdict.failed.items() for text in pair]
    is_even = len(verdict.seeds) == len(verdict.values) and len(verdict.folders) in (0, len(verdict.seeds))
    return is_even and all(map(is_number, figures)) and all(isinstance(text, str) for text in texts)


def render(folder: Path, verdicts: Sequence[Verdict], out: Path) -> bytes:
    """Return the page.

    Args:
        folder: with claims.json; the runs are looked for where they were, or beside it.
        verdicts: in the order of the table.
        out: where the page will lie: the links start from there.
    """
    counts = Counter(verdict.verdict for verdict in verdicts)
    cards = [
        Card(word, str(counts[word]), [meaning], kind_of(word))  # type: ignore[index]
        for word, meaning in WORDS.items()
        if counts[word]  # type: ignore[index]
    ]
    places = [moved(folder, written) for verdict in verdicts for written in verdict.folders]
    found = [finished_summary(place) for place in places if place]
    summaries = [summary for summary in found if summary and is_sound(summary)]
    return page.render(
        "claims.html.j2",
        title=f"Claims: {folder.resolve().name}",
        cards=cards,
        verdicts=_table(verdicts),
        claims=[_claim(each, folder, out) for each in verdicts],
        **grounds(summaries),
    )


def _table(verdicts: Sequence[Verdict]) -> Table:
    names = ("experiment", "verdict", "metric", "published", "ours", "sd", "seeds", "mind", "data", "device", "seconds")
    rows = []
    for v in verdicts:
        rows.append(
            [
                Cell(v.experiment, href=f"#{_anchor(v)}"),
                Cell(v.verdict, kind=kind_of(v.verdict)),
                Cell(v.metric),
                figure_cell(v.published, f"{v.published:.5g}"),
                figure_cell(v.mean),
                figure_cell(v.std),
                figure_cell(len(v.seeds) or None),
                Cell(", ".join(v.flags) or "-"),
                Cell(v.data or "-"),
                Cell(v.device or "-"),
                figure_cell(sum(v.seconds) / len(v.seconds) if v.seconds else None, v.time),
            ]
        )
    return Table(names, rows, "Claims and their verdicts")


def _claim(verdict: Verdict, folder: Path, out: Path) -> dict[str, Any]:
    """Return all of one claim: source, command, the seeds beside the published figure, the runs."""
    drawing = ""
    if verdict.values:
        seeds = ", ".join(number(value) for value in verdict.values)
        drawing = strip(verdict.values, verdict.published, f"published {verdict.published:.5g}; seeds: {seeds}")
    told = [f"seed {seed}: {verdict.metric} {number(v)}" for seed, v in zip(verdict.seeds, verdict.values, strict=True)]
    told += [f"seed {seed}: failed" for seed in verdict.failed]
    runs = []
    for text, written in zip_longest(told, [*verdict.folders, *verdict.failed.values()], fillvalue=""):
        place = moved(folder, written)
        runs.append((text, page.run_link(place, out) if place else ""))
    p = (
        ""
        if verdict.p is None or verdict.p == 1
        else f"{verdict.p:.3f}: chance of a mean this bad, were the true one the published figure"
    )
    return {
        "experiment": verdict.experiment,
        "anchor": _anchor(verdict),
        "facts": [
            ("verdict", f"{verdict.verdict}{f': {verdict.why}' if verdict.why else ''}"),
            ("published", f"{verdict.metric} {verdict.published:.5g}"),
            ("ours", verdict.ours if verdict.values else ""),
            ("p", p),
            ("source", verdict.source),
            ("mind", ", ".join(verdict.flags)),
            ("measured", verdict.measured),
            ("code", verdict.code),
        ],
        "drawing": drawing,
        "runs": runs,
        "command": verdict.command,
    }


def _anchor(verdict: Verdict) -> str:
    return "claim-" + "".join(c if c.isalnum() else "-" for c in verdict.experiment)
