"""A run in one HTML file that needs nothing else: to mail, to attach to a build, to print."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from dlrunner.claims import flags_told
from dlrunner.looks.progress import number, shown_columns
from dlrunner.runs import write_atomically
from dlrunner.task import Passage

MOST_BYTES = 3_000_000
"""Pictures beyond this size of the file are named, not embedded."""

CAPTIONS = {
    "losses": "Loss and metrics by epoch",
    "lr_range": "Learning-rate range test",
    "predictions": "Predictions on the validation rows",
    "cross_table": "The users with most ratings and the most rated items: ratings and predictions",
    "item_biases": "Items with the highest and the lowest bias",
    "item_components": "Items at both ends of the principal components of the item factors",
    "item_map": "The most rated items on the first two principal components",
    "error_by": "The metric by the levels of some columns",
    "largest_errors": "The validation rows with the largest errors (more of them in largest_errors.csv)",
    "importance": "Permutation importance: how much the metric gets worse when a column is shuffled",
    "embeddings": "What was learned about the categories: their embeddings on two principal components",
    "confusion": "Classes and what they were taken for (validation)",
    "labels": "Precision and recall of each label (validation)",
}

STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--soft:#5f6670;--paper:#fff;--panel:#f4f6f8;--line:#dce1e6;--accent:#0a5f96;
--good:#0b6b45;--good-bg:#e3f4ec;--bad:#a33a00;--bad-bg:#fdebe2}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#a0a8b2;--paper:#15181b;--panel:#1f2429;
--line:#343b42;--accent:#7cc0ec;--good:#7fd8ae;--good-bg:#143527;--bad:#ffb08a;--bad-bg:#43220f}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:66rem;padding:1.5rem 1.1rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
h1{font-size:1.45rem;line-height:1.25;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.2rem 0 .7rem;padding-top:.9rem;border-top:1px solid var(--line)}
.soft{color:var(--soft)} p{margin:.4rem 0}
.head{display:flex;flex-wrap:wrap;gap:.9rem;margin:1.1rem 0 0}
.card{flex:1 1 17rem;background:var(--panel);border-radius:.6rem;padding:.9rem 1.1rem;overflow-wrap:anywhere}
.big{font-size:2.6rem;font-weight:650;line-height:1.1;font-variant-numeric:tabular-nums}
.good{background:var(--good-bg)} .good b{color:var(--good)} .bad{background:var(--bad-bg)} .bad b{color:var(--bad)}
.banner{background:var(--bad-bg);color:var(--bad);border-radius:.6rem;padding:.8rem 1.1rem;margin:1rem 0;
font-weight:600;overflow-wrap:anywhere}
pre,code{font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--panel);border-radius:.6rem;padding:.8rem 1.1rem;margin:.5rem 0;white-space:pre-wrap;
overflow-wrap:anywhere}
.wide{overflow:auto;max-height:34rem}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
.epochs{min-width:100%}
.epochs th,.epochs td{text-align:right;padding:.28rem .8rem;border-bottom:1px solid var(--line);white-space:nowrap}
.epochs th{color:var(--soft);font-weight:600;position:sticky;top:0;background:var(--paper)}
.epochs .best td{background:var(--good-bg);font-weight:600}
.facts th{text-align:left;vertical-align:top;font-weight:400;color:var(--soft);padding:.15rem 1.2rem .15rem 0}
.facts td{padding:.15rem 0;overflow-wrap:anywhere}
.passage{max-width:75ch}mark{color:inherit;border-radius:.2rem;padding:0 .1rem}
mark.for{background:rgb(230 159 0/calc(var(--w)*.75))}mark.against{background:rgb(0 114 178/calc(var(--w)*.6))}
figure{margin:0 0 1.6rem;break-inside:avoid}
figure img{display:block;max-width:100%;height:auto;background:#fff;border:1px solid var(--line);
border-radius:.6rem;padding:.5rem}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.35rem}
@media print{body{max-width:none;padding:0;font-size:11pt}
.wide{overflow:visible;max-height:none}.epochs th{position:static}
.card,.banner,pre{border:1px solid var(--line)}h2{break-after:avoid}tr{break-inside:avoid}}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';img-src data:;style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_report(
    path: Path,
    *,
    title: str,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    overrides: Sequence[str],
    pictures: Sequence[Path],
    notes: Sequence[str],
    passages: Mapping[str, Sequence[Passage]] = {},
) -> Path:
    """Write the report of a run; anything that is missing is left out.

    Args:
        path: the HTML file.
        title: its heading.
        summary: what summary.json holds.
        history: one row per epoch.
        config: the composed configuration.
        overrides: what was typed.
        pictures: PNG files to embed.
        notes: what else the reader must know.
        passages: texts with marked words, by heading.
    """
    before = [
        _status(summary),
        _headline(summary),
        _section("What makes it flattering", _protocol(summary.get("protocol") or ())),
        _section("What was asked for", _code(shlex.join(["dlrun", *overrides]))),
        _section(
            "Notes", "<ul>" + "".join(f"<li>{escape(str(note))}</li>" for note in notes) + "</ul>" if notes else ""
        ),
        _section("Data", _data(summary.get("data") or {})),
        _section("Epochs", _epochs(history, summary)),
        _section("Beside it", _baselines(summary)),
        *(_section(escape(heading), _passages(texts)) for heading, texts in passages.items()),
    ]
    after = [
        _section("Configuration", _code(_as_yaml(config)) if config else ""),
        _section("Environment", _environment(summary)),
    ]
    room = MOST_BYTES - len(STYLE) - sum(len(part.encode("utf-8", "replace")) for part in before + after) - 10_000
    body = "\n".join([*before, _section("Pictures", _pictures(pictures, room)), *after])
    page = PAGE.format(title=escape(title), style=STYLE, body=body)
    write_atomically(path, page.encode("utf-8", "replace"))
    return path


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>" if content else ""


def _code(text: str) -> str:
    return f"<pre>{escape(text.strip())}</pre>"


def _as_yaml(value: Any) -> str:
    """Write plain dicts and lists as YAML; what is neither becomes text."""
    return str(yaml.safe_dump(json.loads(json.dumps(value, default=str)), sort_keys=False, allow_unicode=True))


def _facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Write names and values; those without a value are left out."""
    rows = [
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in pairs
        if value not in (None, "")
    ]
    return f'<table class="facts">{"".join(rows)}</table>' if rows else ""


def _status(summary: Mapping[str, Any]) -> str:
    """Say before any figure what a reader must not overlook: a run that ended badly, data that are generated."""
    banners = []
    if summary.get("status") not in (None, "done"):
        how = {"failed": "failed", "interrupted": "was interrupted"}.get(summary["status"], f"is {summary['status']}")
        banners.append(f"This run {how}: {summary.get('error') or 'it left no message'}")
    if (summary.get("data") or {}).get("source") == "stand-in":
        banners.append("Generated STAND-IN data: the figures below say nothing about the published data.")
    return "".join(f'<p class="banner" role="alert">{escape(text)}</p>' for text in banners)


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
            lines.append(f"best: {number(best[name])} after epoch {best.get('epoch', '-')}")
        if members:
            mean, spread = number(members.get("mean")), number(members.get("spread"))
            lines.append(f"average of {len(members.get('seeds') or [])} members, which reach {mean} ± {spread}")
        floor = (summary.get("data") or {}).get("floor")
        lines += [f"the best possible on this data is {number(floor)}"] if floor is not None else []
        text = "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)
        cards.append(
            f'<div class="card">{escape(name)}<div class="big">{escape(number(metric.get("value")))}</div>{text}</div>'
        )
    if claim:
        verdict = str(claim.get("verdict") or "")
        kind = "good" if verdict.startswith("reached") else "bad"
        facts = _facts([("published", number(claim.get("published"))), ("this run", number(claim.get("value")))])
        flags = f"; mind: {told}" if (told := flags_told(claim)) else ""
        cards.append(
            f'<div class="card {kind}">Claim: {escape(str(claim.get("metric") or ""))}<p><b>{escape(verdict)}</b></p>'
            f'{facts}<p class="soft">{escape(str(claim.get("source") or "") + flags)}</p></div>'
        )
    return f'<div class="head">{"".join(cards)}</div>' if cards else ""


def _protocol(found: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(f"<li><b>{escape(str(each['flag']))}</b>: {escape(str(each['told']))}</li>" for each in found)
    return f"<ul>{items}</ul>" if items else ""


def _data(data: Mapping[str, Any]) -> str:
    rows = data.get("rows")
    sizes = ", ".join(f"{_count(v)} {k}" for k, v in rows.items()) if isinstance(rows, Mapping) else _count(rows)
    names = ("name", "release", "source")
    rest = (("rows", sizes), ("floor", data.get("floor")), ("sha256", data.get("sha256")), ("terms", data.get("terms")))
    return _facts([*((name, data.get(name)) for name in names), *rest])


def _epochs(history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """Write the rows of metrics.jsonl that people read; the best epoch is marked."""
    if not history:
        return ""
    columns = shown_columns(max(history, key=len))
    best = (summary.get("best") or {}).get("epoch")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in [*columns, "examples/s"])
    lines = []
    for row in history:
        cells = [_cell(name, row.get(name)) for name in columns]
        cells.append(_count(row.get("examples_per_second")) or "-")
        mark = ' class="best"' if best is not None and row.get("epoch") == best else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    legend = '<p class="soft">marked: the best epoch</p>' if best is not None and len(history) > 1 else ""
    table = f'<table class="epochs"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<div class="wide" tabindex="0">{table}</div>{legend}'


def _baselines(summary: Mapping[str, Any]) -> str:
    """Write the metrics of plain methods below the run's own."""
    found = summary.get("baselines") or {}
    if not found:
        return ""
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    rows = {"this run": summary.get("final") or {}, **found}
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["", *names])
    body = "".join(
        f"<tr><td>{escape(title)}</td>{''.join(f'<td>{escape(number(row.get(name)))}</td>' for name in names)}</tr>"
        for title, row in rows.items()
    )
    return f'<table class="epochs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _passages(passages: Sequence[Passage]) -> str:
    """Write texts; a word that weighs is marked, for or against, the more the darker."""
    parts = []
    for passage in passages:
        words = []
        weights = passage.weights or [0.0] * len(passage.words)
        for word, weight in zip(passage.words, weights, strict=True):
            if word == "\n":
                words.append("<br>")
                continue
            strength = min(1.0, abs(weight))
            if strength < 0.05:
                words.append(escape(word))
                continue
            kind = "for" if weight > 0 else "against"
            words.append(f'<mark class="{kind}" style="--w:{strength:.2f}" title="{weight:+.2f}">{escape(word)}</mark>')
        parts.append(f'<p class="soft">{escape(passage.title)}</p><p class="passage">{" ".join(words)}</p>')
    return "".join(parts)


def _cell(name: str, value: Any) -> str:
    return f"{value:.2f}" if name == "seconds" and isinstance(value, float) else number(value)


def _pictures(pictures: Sequence[Path], room: int) -> str:
    """Embed the pictures while there is room, and name those that are absent or too large."""
    parts = []
    for picture in pictures:
        caption = escape(CAPTIONS.get(picture.stem) or picture.stem.replace("_", " ").capitalize())
        content = base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else ""
        if not content or len(content) > room:
            why = "there is no such file" if not content else "too large to embed"
            parts.append(f'<p class="soft">{caption}: {escape(picture.name)} ({why})</p>')
            continue
        room -= len(content)
        image = f'<img alt="{caption}" src="data:image/png;base64,{content}">'
        parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return "".join(parts)


def _environment(summary: Mapping[str, Any]) -> str:
    git, memory, versions = summary.get("git"), summary.get("peak_memory_mb"), summary.get("versions")
    if isinstance(git, Mapping):
        git = f"{git.get('commit', '-')}{' with uncommitted changes' if git.get('dirty') else ''}"
    if isinstance(memory, Mapping):
        memory = ", ".join(f"{_count(value)} MB on the {place}" for place, value in memory.items())
    elif memory is not None:
        memory = f"{_count(memory)} MB"
    if isinstance(versions, Mapping):
        versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    names = ("status", "seed", "device", "precision")
    rest = (
        *(("time", _duration(summary.get("seconds"))), ("peak memory", memory), ("versions", versions), ("git", git)),
        *((name, summary.get(name)) for name in ("code", "signature", "finished")),
    )
    return _facts([*((name, summary.get(name)) for name in names), *rest])


def _count(value: Any) -> str:
    """Write 12345.6 as 12,346; what is no number as it stands."""
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _duration(seconds: Any) -> str:
    """Write 83.2 seconds as 1 min 23 s."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min {rest} s" if minutes >= 60 else f"{minutes} min {rest} s"
