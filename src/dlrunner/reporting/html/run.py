"""The report of a run, from its folder alone: to mail, to attach to a build, to print."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from dlrunner.claims.claims import describe_flags
from dlrunner.comparison.collect import flatten, shown
from dlrunner.errors import ConfigError
from dlrunner.plot import TRAINING_CURVES, Plot
from dlrunner.renamed import present_report
from dlrunner.reporting.html import page
from dlrunner.reporting.html.charts import Curve, curves
from dlrunner.reporting.html.page import Cell, Section, count, duration, facts, figure_cell
from dlrunner.reporting.terminal.progress import metric_value, number, shown_columns
from dlrunner.runs.reader import FinishedRun, member_folders, own_file, read_history

PNG = b"\x89PNG\r\n\x1a\n"
"""What every PNG file begins with."""
MOST_CHARTS = 8
"""Metrics beyond this number stand in metrics.jsonl only."""
MOST_EPOCHS = 1000
"""Rows of the table of epochs; of more, every n-th, the best and the last."""


def write(path: Path, out: Path | None = None, summary: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a run from its folder.

    Args:
        path: the folder.
        out: the HTML file; report.html in the folder, if none is named.
        summary: of a run that has not written it yet.

    Raises:
        ConfigError: it is not a run folder, or its files are damaged.
        RunError: the file cannot be written.
    """
    run = FinishedRun.read(path)
    if summary is not None:  # as it will be read from summary.json, which knows no NaN
        summary = json.loads(json.dumps(summary), parse_constant=lambda _: None)
    summary = summary or run.summary or {"status": run.status}
    if not is_sound(summary):
        raise ConfigError(f"{path / 'summary.json'} is damaged: it does not hold what it should")
    kept = read_kept(path)
    history, member = _history(path, run.history)
    return page.write(
        out or path / "report.html",
        render(
            title=f"{(run.config.get('choices') or {}).get('task')}: {path.resolve().name}",
            summary=summary,
            history=history,
            member=member,
            config=run.config,
            overrides=run.overrides,
            plots=kept["plots"],
            notes=kept["notes"],
            passages=kept["annotated_texts"],
            changed=kept["changed"],
        ),
    )


def read_kept(path: Path) -> dict[str, Any]:
    """Return what a run keeps for its report in report.json: plots, notes, passages and changed settings.

    A folder without it is one of an older version: all its plots are shown, and nothing is known of the rest.

    Raises:
        ConfigError: the file is damaged.
    """
    file = own_file(path, "report.json")
    if not file.exists():
        plots = [_plot(path, each.name) for each in sorted((path / "plots").glob("*.png"))]
        return {"plots": plots, "notes": [], "annotated_texts": {}, "changed": None}
    try:
        kept = present_report(json.loads(file.read_text()))
        return {
            "plots": [_plot(path, each) for each in kept["plots"]],
            "notes": [str(note) for note in kept["notes"]],
            "annotated_texts": {
                str(head): [_passage(text) for text in texts] for head, texts in kept["annotated_texts"].items()
            },
            "changed": None if kept["changed"] is None else {str(k): str(v) for k, v in kept["changed"].items()},
        }
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{file} is damaged; remove it: the report is then written without notes") from None


def _plot(run: Path, kept: Any) -> Plot:
    """Return a plot of a run as report.json has it: a file with its texts; in older versions its name only."""
    known = {"file": kept} if isinstance(kept, str) else kept
    name = Path(str(known["file"])).name  # nothing beyond the folder is read
    caption = known.get("caption") or Path(name).stem.replace("_", " ").capitalize()
    return Plot(run / "plots" / name, str(caption), str(known.get("alt") or ""))


def is_sound(summary: Mapping[str, Any]) -> bool:
    """Tell whether the parts of a summary are of the kinds that the page goes through."""
    parts = [summary.get(name) or {} for name in ("metric", "claim", "best", "members", "data", "baselines")]
    parts += list(parts[-1].values()) if isinstance(parts[-1], Mapping) else []
    flags = summary.get("audit") or []
    return (
        all(isinstance(part, Mapping) for part in parts)
        and isinstance(flags, list)
        and all(isinstance(flag, Mapping) and {"flag", "message"} <= flag.keys() for flag in flags)
    )


def _passage(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return a text with its marked words, checked; a weight that is no number weighs nothing."""
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
    passages: Mapping[str, Sequence[Mapping[str, Any]]] = {},
    changed: Mapping[str, str] | None = None,
    member: int | None = None,
) -> bytes:
    """Return the page of a run; anything that is missing is left out.

    Args:
        title: its heading.
        summary: what summary.json holds.
        history: one row per epoch.
        config: the composed configuration.
        overrides: what was typed.
        plots: PNG files to embed.
        notes: what else the reader must know.
        passages: texts with marked words, by heading: title, words, and their weights from -1 to 1.
        changed: what the task's own settings hold where this run differs; None where it is not known.
        member: of an ensemble, whose history it is.
    """
    drawn = _curves(history, summary)
    of_member, whose = "", ""
    if member is not None:
        whose = f" of member {member}"
        members = len((summary.get("members") or {}).get("seeds") or [])
        of_member = page.soft(
            f"One of {members or 'several'} members; the figures above are those of the members' average."
        )
    if drawn:  # the same curves, and these answer
        plots = [plot for plot in plots if plot.path.name != TRAINING_CURVES]
    before = [
        Section("What makes it flattering", flattering([summary])),
        Section("What was asked for", page.code(shlex.join(["dlrun", *overrides]))),
        Section("Notes", page.bullets(notes)),
        Section(f"Curves{whose}", of_member + drawn if drawn else ""),
        Section(f"Epochs{whose}", _epochs(history, None if whose else (summary.get("best") or {}).get("epoch"))),
        Section("Beside it", _baselines(summary)),
        *(Section(heading, _passages(texts)) for heading, texts in passages.items()),
    ]
    after = [
        Section("Data and its terms", data_facts(summary.get("data") or {})),
        Section("Configuration", _configuration(config, overrides, changed)),
        Section("Environment", environment_facts(summary)),
    ]
    head = _status(summary) + _headline(summary)
    room = page.MOST_BYTES - len(page.page(title, head, [*before, *after])) - 10_000
    return page.page(title, head, [*before, Section("Pictures", _plots(plots, room)), *after])


def _history(path: Path, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int | None]:
    """Return the rows of a run; of an ensemble, those of its last member and the member's number."""
    members = member_folders(path)
    if rows or not members:
        return rows, None
    return read_history(members[-1]), int(members[-1].name)


def _status(summary: Mapping[str, Any]) -> str:
    """Say before any figure what a reader must not overlook: a run that ended badly, data that are generated."""
    texts = []
    if summary.get("status") not in (None, "done"):
        how = {"failed": "failed", "interrupted": "was interrupted"}.get(summary["status"], f"is {summary['status']}")
        texts.append(f"This run {how}: {summary.get('error') or 'it left no message'}")
    if (summary.get("data") or {}).get("source") == "synthetic":
        texts.append("Generated STAND-IN data: the figures below say nothing about the published data.")
    return page.banners(texts)


def _headline(summary: Mapping[str, Any]) -> str:
    metric, claim = summary.get("metric") or {}, summary.get("claim") or {}
    best, members = summary.get("best") or {}, summary.get("members") or {}
    name = str(metric.get("name") or "")
    cards = []
    if metric:
        directions: dict[Any, str] = {True: "higher is better", False: "lower is better"}
        direction = directions.get(metric.get("higher_is_better"), "")
        lines = [", ".join(part for part in (f"after epoch {metric.get('epoch', '-')}", direction) if part)]
        if best.get(name) is not None and best.get("epoch") != metric.get("epoch"):
            lines.append(f"best: {metric_value(summary, name, best[name])} after epoch {best.get('epoch', '-')}")
        if members:
            mean, spread = number(members.get("mean")), number(members.get("std"))
            lines.append(f"average of {len(members.get('seeds') or [])} members, which reach {mean} ± {spread}")
        if (floor := (summary.get("data") or {}).get("best_achievable")) is not None:
            lines.append(f"the best possible on this data is {metric_value(summary, name, floor)}")
        cards.append(page.card(name, metric_value(summary, name, metric.get("value")), lines))
    if claim:
        verdict = str(claim.get("verdict") or "")
        kind = "good" if verdict.startswith("reached") else "bad" if verdict.startswith("missed") else ""
        figures = facts([("published", number(claim.get("published"))), ("this run", number(claim.get("value")))])
        flags = f"; mind: {told}" if (told := describe_flags(claim)) else ""
        cards.append(
            f'<div class="card {kind}">Claim: {escape(str(claim.get("metric") or ""))}<p><b>{escape(verdict)}</b></p>'
            f"{figures}{page.soft(str(claim.get('source') or '') + flags)}</div>"
        )
    return page.cards(cards)


def flattering(summaries: Iterable[Mapping[str, Any]]) -> str:
    """Write what makes the numbers of runs flattering, each sentence once."""
    found = [each for summary in summaries for each in summary.get("audit") or ()]
    said = dict.fromkeys(f"<li><b>{escape(str(e['flag']))}</b>: {escape(str(e['message']))}</li>" for e in found)
    return f"<ul>{''.join(said)}</ul>" if said else ""


def _curves(history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """Draw the loss, each metric, and the learning rate where it changes."""
    rows = [row for row in history if is_number(row.get("epoch"))]
    names = [name for name in dict.fromkeys(n for row in rows for n in row) if name.startswith(("train/", "valid/"))]
    losses = [name for name in ("train/loss", "valid/loss") if name in names]
    claim, metric = summary.get("claim") or {}, summary.get("metric") or {}
    levels: dict[str, tuple[str, float]] = {}
    if is_number(floor := (summary.get("data") or {}).get("best_achievable")):
        levels[str(metric.get("name"))] = ("best possible", float(floor))
    if is_number(published := claim.get("published")):
        levels[str(claim.get("metric"))] = ("published", float(published))
    charts = [curves("Loss", [Curve(name, _values(rows, name)) for name in losses], levels.get("valid/loss"))]
    others = [name for name in names if name not in losses]
    charts += [curves(name, [Curve(name, _values(rows, name))], levels.get(name)) for name in others[:MOST_CHARTS]]
    rates = _rates(rows)
    if any(len(set(rate.values.values())) > 1 for rate in rates):
        charts.append(curves("Learning rate", rates))
    drawn = "".join(charts)
    beyond = f"{len(others) - MOST_CHARTS} more metrics stand in metrics.jsonl" if len(others) > MOST_CHARTS else ""
    return f'<div class="charts">{drawn}</div>{page.soft(beyond) if beyond else ""}' if drawn else ""


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> dict[float, float]:
    return {float(row["epoch"]): float(row[name]) for row in rows if is_number(row.get(name))}


def _rates(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Return the learning rates by epoch: one, or one for each group of layers."""
    listed = [{**row, "lr": row["lr"] if isinstance(row.get("lr"), list) else [row.get("lr")]} for row in rows]
    most = max((len(row["lr"]) for row in listed), default=0)
    split = [{"epoch": row["epoch"], **dict(enumerate(row["lr"]))} for row in listed]
    names = ["lr"] if most == 1 else [f"lr of group {index}" for index in range(most)]
    return [
        Curve(name, {float(row["epoch"]): float(row[index]) for row in split if is_number(row.get(index))})
        for index, name in enumerate(names)
    ]


def _epochs(history: Sequence[Mapping[str, Any]], best: Any) -> str:
    """Write the rows of metrics.jsonl that people read; the best epoch is marked."""
    if not history:
        return ""
    columns = shown_columns(max(history, key=len))
    step = -(-len(history) // MOST_EPOCHS)
    told = page.soft(f"every {step}th epoch; metrics.jsonl has them all") if step > 1 else ""
    last = len(history) - 1
    history = [
        row
        for index, row in enumerate(history)
        if index % step == 0 or index == last or (best is not None and row.get("epoch") == best)
    ]
    rows = []
    for row in history:
        speed = row.get("examples_per_second")
        rows.append([*(_epoch_cell(name, row.get(name)) for name in columns), figure_cell(speed, count(speed) or "-")])
    marked = [index for index, row in enumerate(history) if best is not None and row.get("epoch") == best]
    legend = page.soft("marked: the best epoch") if marked and len(history) > 1 else ""
    return page.table([*columns, "examples/s"], rows, "Epochs", marked) + legend + told


def _epoch_cell(name: str, value: Any) -> Cell:
    return figure_cell(value, f"{value:.2f}" if name == "seconds" and isinstance(value, float) else None)


def _baselines(summary: Mapping[str, Any]) -> str:
    """Write the metrics of plain methods below the run's own."""
    found = summary.get("baselines") or {}
    if not found:
        return ""
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    table = {"this run": summary.get("final") or {}, **found}
    rows = [[Cell(title), *(figure_cell(row.get(name)) for name in names)] for title, row in table.items()]
    return page.table(["method", *names], rows, "This run and plain methods")


def _passages(passages: Sequence[Mapping[str, Any]]) -> str:
    """Write texts; a word that weighs is marked, for or against, the more the darker."""
    parts = []
    for passage in passages:
        words = []
        for word, weight in zip(passage["words"], passage["weights"], strict=True):
            strength = round(10 * min(1.0, abs(weight)))
            if word == "\n":
                words.append("<br>")
            elif strength == 0:
                words.append(escape(word))
            else:
                kind = "for" if weight > 0 else "against"
                words.append(f'<mark class="{kind} w{strength}" title="{weight:+.2f}">{escape(word)}</mark>')
        parts.append(f'{page.soft(passage["title"])}<p class="passage">{" ".join(words)}</p>')
    is_marked = any(any(passage["weights"]) for passage in passages)
    legend = page.soft("marked: words that speak for the answer; underlined: against it; the stronger, the more colour")
    return (legend if is_marked else "") + "".join(parts)


def _plots(plots: Sequence[Plot], room: int) -> str:
    """Embed the plots while there is room, and name those that are absent or too large."""
    parts = []
    for plot in plots:
        caption, alt = escape(plot.caption), escape(plot.alt or plot.caption)
        if why := _problem(plot.path, room):
            parts.append(f'<p class="soft">{caption}: {escape(plot.path.name)} ({why})</p>')
            continue
        content = base64.b64encode(plot.path.read_bytes()).decode()
        room -= len(content)
        image = f'<img alt="{alt}" src="data:image/png;base64,{content}">'
        hidden = ' aria-hidden="true"' if alt == caption else ""  # it has been heard already
        said = f"<figcaption{hidden}>{caption}</figcaption>"
        parts.append(f"<figure>{page.wide(image, f'Picture: {plot.path.stem}')}{said}</figure>")
    return "".join(parts)


def _problem(picture: Path, room: int) -> str:
    """Say why a picture is not embedded; empty: it may be. A folder that came from elsewhere may hold anything."""
    try:
        own_file(picture.parent.parent, f"{picture.parent.name}/{picture.name}")
        if not picture.is_file():
            return "there is no such file"
        if 4 * picture.stat().st_size / 3 > room:
            return "too large to embed"
        with picture.open("rb") as file:
            return "" if file.read(len(PNG)) == PNG else "it is no picture"
    except ConfigError:
        return "it is a link that leads out of the folder"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def data_facts(data: Mapping[str, Any]) -> str:
    """Write what a run's data is, and on which terms it may be used."""
    rows = data.get("rows")
    sizes = ", ".join(f"{count(v)} {k}" for k, v in rows.items()) if isinstance(rows, Mapping) else count(rows)
    names = ("name", "release", "source")
    rest = (
        ("rows", sizes),
        ("best achievable", data.get("best_achievable")),
        ("sha256", data.get("sha256")),
        ("terms", data.get("terms")),
    )
    return facts([*((name, data.get(name)) for name in names), *rest])


def _configuration(config: Mapping[str, Any], overrides: Sequence[str], changed: Mapping[str, str] | None) -> str:
    """Write the whole configuration, and mark what differs from the task's own settings."""
    if not config:
        return ""
    typed = {word.lstrip("+~").partition("=")[0] for word in overrides}
    marks = dict.fromkeys(typed, "typed") if changed is None else {k: f"default: {v}" for k, v in changed.items()}
    own = f"task={(config.get('choices') or {}).get('task')}"
    if changed is None:
        said = "Marked: what was typed. The task's own settings are not known here."
    elif changed:
        said = f"Marked: what differs from what {own} composes by itself (folders and logging are left out)."
    else:
        said = f"Nothing differs from what {own} composes by itself (folders and logging are left out)."
    settings = flatten(config)
    rows = [
        [Cell(name), Cell(shown(settings[name]) if name in settings else "not set", kind="long"), Cell(value)]
        for name, value in (changed or {}).items()
    ]
    table = page.table(["setting", "this run", "default"], rows, "Settings that differ from the defaults")
    return f"{page.soft(said)}{table}<pre>{''.join(_marked_yaml(config, marks))}</pre>"


def _marked_yaml(
    section: Mapping[str, Any], marks: Mapping[str, str], prefix: str = "", depth: int = 0
) -> Iterator[str]:
    """Write plain dicts and lists as YAML, a remark at each marked setting; what is neither becomes text."""
    indent = "  " * depth
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield escape(f"{indent}{_as_yaml(str(key))}:\n")
            # The choices stand at the top level: what was typed is optim=sgd.
            yield from _marked_yaml(value, marks, "" if name == "choices" else f"{name}.", depth + 1)
            continue
        text = escape(f"{indent}{_as_yaml(str(key))}: {_as_yaml(value)}")
        remark = marks.get(name) if depth or name != "choices" else None
        yield f"<mark>{text}  # {escape(remark)}</mark>\n" if remark is not None else f"{text}\n"


def _as_yaml(value: Any) -> str:
    """Write a value as YAML on one line."""
    plain = json.loads(json.dumps(value, default=str))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def grounds(summaries: Iterable[Mapping[str, Any]]) -> list[Section]:
    """Return what several runs rest on: each release of data with its terms, and each environment, once."""
    data: dict[Any, str] = {}
    places: dict[str, str] = {}
    for summary in summaries:
        known = {**(summary.get("data") or {}), "rows": None}
        if known.get("name"):
            data.setdefault((known["name"], known.get("release"), known.get("sha256")), data_facts(known))
        place = {name: summary.get(name) for name in ("device", "precision", "versions", "git", "code")}
        places.setdefault(json.dumps(place, sort_keys=True, default=str), environment_facts(place))
    return [Section("Data and its terms", "".join(data.values())), Section("Environment", "".join(places.values()))]


def environment_facts(summary: Mapping[str, Any]) -> str:
    """Write where and with what a run was done."""
    git, memory, versions = summary.get("git"), summary.get("peak_memory_mb"), summary.get("versions")
    if isinstance(git, Mapping):
        git = f"{git.get('commit', '-')}{' with uncommitted changes' if git.get('dirty') else ''}"
    if isinstance(memory, Mapping):
        memory = ", ".join(f"{count(value)} MB on the {place}" for place, value in memory.items())
    elif memory is not None:
        memory = f"{count(memory)} MB"
    if isinstance(versions, Mapping):
        versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    names = ("status", "seed", "device", "precision")
    rest = (
        *(("time", duration(summary.get("seconds"))), ("peak memory", memory), ("versions", versions), ("git", git)),
        *((name, summary.get(name)) for name in ("code", "signature", "finished")),
    )
    return facts([*((name, summary.get(name)) for name in names), *rest])
