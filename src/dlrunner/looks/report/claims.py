"""The report of claims: published figures beside what was earned, each run linked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dlrunner.errors import RequestError
from dlrunner.looks.progress import number
from dlrunner.looks.report import page
from dlrunner.looks.report.charts import strip
from dlrunner.looks.report.page import Cell, Section, figure_cell
from dlrunner.looks.report.run import data_facts, environment_facts, is_number
from dlrunner.runs import FinishedRun
from dlrunner.verdicts import Verdict

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
        RequestError: claims.json is damaged.
        RunError: the file cannot be written.
    """
    out = out or folder / "report.html"
    return page.write(out, render(f"Claims: {folder.resolve().name}", read(folder / "claims.json"), out))


def read(file: Path) -> list[Verdict]:
    """Read the verdicts of claims.json.

    Raises:
        RequestError: the file does not hold verdicts.
    """
    try:
        verdicts = [Verdict(**each) for each in json.loads(file.read_text())]
    except (OSError, ValueError, TypeError):
        raise RequestError(f"{file} does not hold verdicts; give `dlrun reproduce` again") from None
    for verdict in verdicts:
        figures = [verdict.published, *verdict.values, *verdict.seconds]
        texts = [verdict.experiment, verdict.metric, verdict.verdict, verdict.why, *verdict.flags, *verdict.folders]
        if not (all(map(is_number, figures)) and all(isinstance(text, str) for text in texts)):
            raise RequestError(f"{file} does not hold verdicts; give `dlrun reproduce` again")
    return verdicts


def render(title: str, verdicts: Sequence[Verdict], out: Path) -> bytes:
    """Return the page.

    Args:
        title: its heading.
        verdicts: in the order of the table.
        out: where the page will lie: the links start from there.
    """
    counts = Counter(verdict.verdict for verdict in verdicts)
    cards = []
    for word, meaning in WORDS.items():
        if counts[word]:  # type: ignore[index]
            kind = "good" if word.startswith("reached") else "bad" if word == "missed" else ""
            cards.append(page.card(word, str(counts[word]), [meaning], kind))  # type: ignore[index]
    summaries = {verdict.experiment: _summary(verdict) for verdict in verdicts}
    said = page.soft("In the drawings the dots are the seeds, and the stroke across is the published figure.")
    sections = [
        Section("Verdicts", _table(verdicts) + page.soft("sd: standard deviation over the seeds")),
        Section("Claim by claim", said + "".join(_claim(verdict, out) for verdict in verdicts)),
        Section("Data and its terms", _data(summaries.values())),
        Section("Environment", environment_facts(next((s for s in summaries.values() if s), {}))),
    ]
    return page.page(title, page.cards(cards), sections)


def _table(verdicts: Sequence[Verdict]) -> str:
    names = ("experiment", "verdict", "metric", "published", "ours", "sd", "seeds", "mind", "data", "device", "seconds")
    rows = []
    for v in verdicts:
        kind = "good" if v.verdict.startswith("reached") else "bad" if v.verdict == "missed" else ""
        rows.append(
            [
                Cell(v.experiment, href=f"#{_anchor(v)}"),
                Cell(v.verdict, kind=kind),
                Cell(v.metric),
                figure_cell(v.published, f"{v.published:.5g}"),
                figure_cell(v.mean),
                figure_cell(v.spread),
                figure_cell(len(v.seeds) or None),
                Cell(", ".join(v.flags) or "-"),
                Cell(v.data or "-"),
                Cell(v.device or "-"),
                figure_cell(sum(v.seconds) / len(v.seconds) if v.seconds else None, v.time),
            ]
        )
    return page.table(names, rows, "Claims and their verdicts")


def _claim(verdict: Verdict, out: Path) -> str:
    """Tell all of one claim: source, command, the seeds beside the published figure, the runs."""
    picture = ""
    if verdict.values:
        seeds = ", ".join(number(value) for value in verdict.values)
        picture = strip(verdict.values, verdict.published, f"published {verdict.published:.5g}; seeds: {seeds}")
    runs = []
    for seed, value, folder in zip(verdict.seeds, verdict.values, verdict.folders, strict=False):
        told = f"seed {seed}: {verdict.metric} {number(value)}"
        address = page.run_link(_moved(folder, out), out)
        runs.append(
            f'<li><a href="{escape(address)}">{escape(told)}</a></li>' if address else f"<li>{escape(told)}</li>"
        )
    p = (
        ""
        if verdict.p is None or verdict.p == 1
        else f"{verdict.p:.3f}: chance of a mean this bad, were the true one the published figure"
    )
    facts = page.facts(
        [
            ("verdict", f"{verdict.verdict}{f': {verdict.why}' if verdict.why else ''}"),
            ("published", f"{verdict.metric} {verdict.published:.5g}"),
            ("ours", verdict.ours if verdict.values else ""),
            ("p", p),
            ("source", verdict.source),
            ("mind", ", ".join(verdict.flags)),
            ("measured", verdict.measured),
            ("code", verdict.code),
        ]
    )
    listed = f"<ul>{''.join(runs)}</ul>" if runs else ""
    command = page.code(verdict.command) if verdict.command else ""
    return f'<h3 id="{_anchor(verdict)}">{escape(verdict.experiment)}</h3>{facts}{picture}{listed}{command}'


def _anchor(verdict: Verdict) -> str:
    return escape("claim-" + "".join(c if c.isalnum() else "-" for c in verdict.experiment))


def _moved(folder: str, out: Path) -> Path:
    """Find a run's folder, also where all of runs/ was moved to another place with this page."""
    written = Path(folder)
    beside = out.resolve().parent.parent.parent.joinpath(*written.parts[-2:])
    return written if written.is_dir() else beside


def _summary(verdict: Verdict) -> Mapping[str, Any]:
    """Return the summary of a claim's first run that is still there."""
    for folder in verdict.folders:
        try:
            return FinishedRun.read(Path(folder)).summary or {}
        except RequestError:
            continue
    return {}


def _data(summaries: Any) -> str:
    """Write each release of data once."""
    found = {}
    for summary in summaries:
        data = {**(summary.get("data") or {}), "rows": None}
        if data.get("name"):
            found[(data["name"], data.get("release"))] = data_facts(data)
    return "".join(found.values())
