"""The report of a run, from its folder alone: to mail, to attach to a build, to print."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dlrunner.comparison.collect import flatten, shown
from dlrunner.errors import ConfigError
from dlrunner.plot import TRAINING_CURVES, Plot
from dlrunner.renamed import present_report
from dlrunner.reporting.html import answer, page
from dlrunner.reporting.html.charts import Curve, curves
from dlrunner.reporting.html.embedded_plots import embed
from dlrunner.reporting.html.facts import audit_findings, data_facts, environment_facts, is_number, is_sound
from dlrunner.reporting.html.page import Cell, Table, count, number_cell
from dlrunner.reporting.terminal.progress import shown_columns
from dlrunner.runs.reader import FinishedRun, member_folders, own_file, read_history
from dlrunner.runs.tags import read_tags

MOST_CHARTS = 8
"""Further metrics are in metrics.jsonl only."""
MOST_EPOCHS = 1000
"""Maximum rows of the table of epochs; of more, every n-th, the best and the last."""


def write(path: Path, out: Path | None = None, summary: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a run from its folder.

    Args:
        path: the folder.
        out: the HTML file; report.html in the folder by default.
        summary: of a run that has not yet written it.

    Raises:
        ConfigError: it is not a run folder, or its files are damaged.
        RunError: the file cannot be written.
    """
    run = FinishedRun.read(path)
    if summary is not None:  # as it will be read from summary.json, which has no NaN
        summary = json.loads(json.dumps(summary), parse_constant=lambda _: None)
    summary = summary or run.summary or {"status": run.status}
    if not is_sound(summary):
        raise ConfigError(f"{path / 'summary.json'} is damaged: it is incomplete")
    kept = read_kept(path)
    history, member = _history(path, run.history)
    tags = read_tags(path)
    return page.write(
        out or path / "report.html",
        render(
            title=f"{(run.config.get('choices') or {}).get('task')}: {tags.name or path.resolve().name}",
            summary=summary,
            history=history,
            member=member,
            config=run.config,
            overrides=run.overrides,
            plots=kept["plots"],
            tables=kept["tables"],
            notes=[*(f"{title}: {text}" for title, text in tags.lines), *kept["notes"]],
            annotated_texts=kept["annotated_texts"],
            changed=kept["changed"],
        ),
    )


def read_kept(path: Path) -> dict[str, Any]:
    """Return the content of report.json: plots, tables, notes, annotated texts and changed settings.

    Folders of older versions have none: all their plots are shown, and the rest is unknown.

    Raises:
        ConfigError: the file is damaged.
    """
    file = own_file(path, "report.json")
    if not file.exists():
        plots = [_plot(path, each.name) for each in sorted((path / "plots").glob("*.png"))]
        return {"plots": plots, "tables": [], "notes": [], "annotated_texts": {}, "changed": None}
    try:
        kept = present_report(json.loads(file.read_text()))
        return {
            "plots": [_plot(path, each) for each in kept["plots"]],
            "tables": [_result_table(each) for each in kept.get("tables") or []],
            "notes": [str(note) for note in kept["notes"]],
            "annotated_texts": {
                str(head): [_annotated_text(text) for text in texts] for head, texts in kept["annotated_texts"].items()
            },
            "changed": None if kept["changed"] is None else {str(k): str(v) for k, v in kept["changed"].items()},
        }
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{file} is damaged; remove it to write the report without notes") from None


def _plot(run: Path, kept: Any) -> Plot:
    """Return a plot of report.json: a file with its texts; in older versions only its name."""
    known = {"file": kept} if isinstance(kept, str) else kept
    name = Path(str(known["file"])).name  # nothing outside the folder is read
    caption = known.get("caption") or Path(name).stem.replace("_", " ").capitalize()
    return Plot(run / "plots" / name, str(caption), str(known.get("alt") or ""))


def _result_table(kept: Mapping[str, Any]) -> tuple[str, Table]:
    """Return a table of results with its caption."""
    names = [str(name) for name in kept["columns"]]
    rows = [[number_cell(cell, count(cell) if isinstance(cell, int) else None) for cell in row] for row in kept["rows"]]
    if any(len(row) != len(names) for row in rows):
        raise ValueError("a cell for each column")
    caption = f"{kept['caption']} ({Path(str(kept['file'])).name})"
    return caption, Table(names, rows, caption)


def _annotated_text(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return a validated text with its highlighted words; weights that are not numbers count as 0."""
    words = [str(word) for word in kept["words"]]
    weights = [float(weight) if is_number(weight) else 0.0 for weight in kept["weights"] or [0.0] * len(words)]
    if len(weights) != len(words):
        raise ValueError("a weight for each word")
    return {"title": str(kept["title"]), "words": words, "weights": weights}


def render(
    *,
    title: str,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    overrides: Sequence[str],
    plots: Sequence[Plot],
    notes: Sequence[str],
    tables: Sequence[tuple[str, Table]] = (),
    annotated_texts: Mapping[str, Sequence[Mapping[str, Any]]] = {},
    changed: Mapping[str, str] | None = None,
    member: int | None = None,
) -> bytes:
    """Return the page of a run; missing parts are omitted.

    Args:
        title: its heading.
        summary: content of summary.json.
        history: one row per epoch.
        config: the composed configuration.
        overrides: what was typed.
        plots: PNG and SVG files to embed.
        notes: further notes.
        tables: of results, with their captions.
        annotated_texts: texts with highlighted words, by heading: title, words, and their weights from -1 to 1.
        changed: the task's defaults of the settings that differ in this run; None if unknown.
        member: the member of an ensemble that the history is of.
    """
    drawings, more_metrics = _curves(history, summary, member is not None)
    of_member, whose = "", ""
    if member is not None:
        whose = f" of member {member}"
        members = len((summary.get("members") or {}).get("seeds") or [])
        of_member = f"One of {members or 'several'} members; the results above are of the members' average."
    if drawings:  # the same curves, but interactive
        plots = [plot for plot in plots if plot.path.stem != Path(TRAINING_CURVES).stem]
    values = {
        "title": answer.question(summary, title),
        "subtitle": title,
        "banners": answer.banners(summary),
        "result": answer.result(summary),
        "bars": answer.bars(summary),
        "verdict": answer.verdict(summary),
        "claim": answer.claim(summary),
        "findings": audit_findings([summary]),
        "command": shlex.join(["dlrun", *overrides]),
        "notes": notes,
        "whose": whose,
        "of_member": of_member,
        "charts": drawings,
        "more_metrics": more_metrics,
        "epochs": _epochs(history, None if whose else (summary.get("best") or {}).get("epoch")),
        "baselines": _baselines(summary),
        "tables": tables,
        "annotated_texts": {heading: _marked_texts(texts) for heading, texts in annotated_texts.items()},
        "data": data_facts(summary.get("data") or {}),
        "columns": _columns((summary.get("data") or {}).get("columns") or []),
        "configuration": _configuration(config, overrides, changed) if config else None,
        "environment": environment_facts(summary),
    }
    room = page.MOST_BYTES - len(page.render("run.html.j2", **values, plots=[])) - 10_000
    return page.render("run.html.j2", **values, plots=embed(plots, room))


def _history(path: Path, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int | None]:
    """Return the rows of a run; of an ensemble, those of its last member and the member's number."""
    members = member_folders(path)
    if rows or not members:
        return rows, None
    return read_history(members[-1]), int(members[-1].name)


def _curves(history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], is_member: bool) -> tuple[list[str], str]:
    """Draw the loss, each metric, and a varying learning rate; return the charts and a note on omitted metrics."""
    rows = [row for row in history if is_number(row.get("epoch"))]
    names = [name for name in dict.fromkeys(n for row in rows for n in row) if name.startswith(("train/", "valid/"))]
    losses = [name for name in ("train/loss", "valid/loss") if name in names]
    claim, metric = summary.get("claim") or {}, summary.get("metric") or {}
    references: dict[str, tuple[str, float]] = {}
    if is_number(best := (summary.get("data") or {}).get("best_achievable")):
        references[str(metric.get("name"))] = ("best achievable", float(best))
    if is_number(published := claim.get("published")):
        references[str(claim.get("metric"))] = ("published", float(published))
    charts = [curves("Loss", [Curve(name, _values(rows, name)) for name in losses], references.get("valid/loss"))]
    others = [name for name in names if name not in losses]
    best = None if is_member else (summary.get("best") or {}).get("epoch")
    charts += [
        curves(
            name,
            [Curve(name, _values(rows, name))],
            references.get(name),
            best=best if name == metric.get("name") and is_number(best) else None,
        )
        for name in others[:MOST_CHARTS]
    ]
    rates = _rates(rows)
    if any(len(set(rate.values.values())) > 1 for rate in rates):
        charts.append(curves("Learning rate", rates))
    beyond = f"{len(others) - MOST_CHARTS} more metrics are in metrics.jsonl" if len(others) > MOST_CHARTS else ""
    return [chart for chart in charts if chart], beyond


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> dict[float, float]:
    return {float(row["epoch"]): float(row[name]) for row in rows if is_number(row.get(name))}


def _rates(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Return the learning rates by epoch: one, or one per layer group."""
    listed = [{**row, "lr": row["lr"] if isinstance(row.get("lr"), list) else [row.get("lr")]} for row in rows]
    most = max((len(row["lr"]) for row in listed), default=0)
    split = [{"epoch": row["epoch"], **dict(enumerate(row["lr"]))} for row in listed]
    names = ["lr"] if most == 1 else [f"lr of group {index}" for index in range(most)]
    return [
        Curve(name, {float(row["epoch"]): float(row[index]) for row in split if is_number(row.get(index))})
        for index, name in enumerate(names)
    ]


def _epochs(history: Sequence[Mapping[str, Any]], best: Any) -> dict[str, Any] | None:
    """Return the table of epochs; the best epoch is highlighted."""
    if not history:
        return None
    columns = shown_columns(max(history, key=len))
    step = -(-len(history) // MOST_EPOCHS)
    last = len(history) - 1
    history = [
        row
        for index, row in enumerate(history)
        if index % step == 0 or index == last or (best is not None and row.get("epoch") == best)
    ]
    rows = []
    for row in history:
        speed = row.get("examples_per_second")
        rows.append([*(_epoch_cell(name, row.get(name)) for name in columns), number_cell(speed, count(speed) or "-")])
    marked = [index for index, row in enumerate(history) if best is not None and row.get("epoch") == best]
    return {
        "table": Table([*columns, "examples/s"], rows, "Epochs", marked),
        "legend": "highlighted: the best epoch" if marked and len(history) > 1 else "",
        "remark": f"every {step}th epoch; metrics.jsonl has all of them" if step > 1 else "",
    }


def _epoch_cell(name: str, value: Any) -> Cell:
    return number_cell(value, f"{value:.2f}" if name == "seconds" and isinstance(value, float) else None)


def _baselines(summary: Mapping[str, Any]) -> Table:
    """Return the metrics of the run and of the baselines."""
    found = summary.get("baselines") or {}
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics if name != "seconds"))
    own = {**(summary.get("final") or {}), "seconds": summary.get("training_seconds")}
    methods = {"this run": own, **found} if found else {}
    rows = [
        [Cell(title), *(number_cell(row.get(name)) for name in names), _epoch_cell("seconds", row.get("seconds"))]
        for title, row in methods.items()
    ]
    return Table(["method", *names, "seconds"], rows, "This run and the baselines")


def _columns(columns: Sequence[Mapping[str, Any]]) -> Table:
    """Return how each column of the data was read and is used."""
    headings = {"name": "column", "type": "read as", "missing": "missing", "example": "example", "use": "use"}
    headings |= {name: name for name in ("doubt", "note") if any(each.get(name) for each in columns)}
    rows = [
        [number_cell(each.get(name), count(each[name]) if each.get(name) else "") for name in headings]
        for each in columns
    ]
    return Table(list(headings.values()), rows, "How the columns were read")


@dataclass(frozen=True)
class _Word:
    text: str
    weight: float

    @property
    def strength(self) -> int:
        """From 0 (not highlighted) to 10."""
        return round(10 * min(1.0, abs(self.weight)))

    @property
    def kind(self) -> str:
        return "for" if self.weight > 0 else "against"

    @property
    def title(self) -> str:
        return f"{self.weight:+.2f}"


def _marked_texts(texts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "is_marked": any(any(text["weights"]) for text in texts),
        "texts": [
            (text["title"], [_Word(*pair) for pair in zip(text["words"], text["weights"], strict=True)])
            for text in texts
        ],
    }


def _configuration(
    config: Mapping[str, Any], overrides: Sequence[str], changed: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the configuration, with highlighted differences from the task's defaults."""
    typed = {word.lstrip("+~").partition("=")[0] for word in overrides}
    marks = dict.fromkeys(typed, "typed") if changed is None else {k: f"default: {v}" for k, v in changed.items()}
    own = f"task={(config.get('choices') or {}).get('task')}"
    if changed is None:
        remark = "Highlighted: what was typed. The task's defaults are unknown."
    elif changed:
        remark = f"Highlighted: differences from the defaults of {own} (without folders and logging)."
    else:
        remark = f"No differences from the defaults of {own} (folders and logging are not compared)."
    settings = flatten(config)
    rows = [
        [Cell(name), Cell(shown(settings[name]) if name in settings else "not set", kind="long"), Cell(value)]
        for name, value in (changed or {}).items()
    ]
    return {
        "remark": remark,
        "changed": Table(["setting", "this run", "default"], rows, "Settings that differ from the defaults"),
        "lines": list(_marked_yaml(config, marks)),
    }


def _marked_yaml(
    section: Mapping[str, Any], marks: Mapping[str, str], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, str | None]]:
    """Yield plain dicts and lists as lines of YAML, each with its remark, if highlighted."""
    indent = "  " * depth
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_as_yaml(str(key))}:", None
            # Choices are typed at the top level: optim=sgd.
            yield from _marked_yaml(value, marks, "" if name == "choices" else f"{name}.", depth + 1)
            continue
        remark = marks.get(name) if depth or name != "choices" else None
        yield f"{indent}{_as_yaml(str(key))}: {_as_yaml(value)}", remark


def _as_yaml(value: Any) -> str:
    """Format a value as YAML on one line."""
    return _json_as_yaml(json.dumps(value, default=str))


@functools.lru_cache(maxsize=10_000)  # the jobs of a sweep share nearly all names and values
def _json_as_yaml(value: str) -> str:
    plain = json.loads(value)
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()
