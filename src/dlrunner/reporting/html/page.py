"""The frame of all reports: one HTML file that asks for nothing from outside, and the pieces that it is made of.

Everything that comes from data, settings or messages passes through `escape`. Style and script stand in the page and
are allowed by their digests, so that markup which slipped in all the same could neither run nor load anything.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dlrunner.files.atomic import readable_os_errors, write_atomic
from dlrunner.files.temporary import name_of, remove_abandoned
from dlrunner.reporting.terminal.progress import number

MOST_BYTES = 3_000_000
"""A report stays small enough to mail."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';img-src data:;style-src {style_digest};\
script-src {script_digest};base-uri 'none';form-action 'none'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{nav}
</header>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; one without content is left out."""

    heading: str
    content: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    order: float | str | None = None
    """What the column is sorted by, where that is not the text; a number stands on the right."""
    href: str = ""
    kind: str = ""
    """A class of the style: good, bad, long."""


def page(title: str, head: str, sections: Iterable[Section]) -> bytes:
    """Return the whole file.

    Args:
        title: plain text.
        head: HTML above the first section.
        sections: in their order.
    """
    told = [(f"s{index}", section) for index, section in enumerate(sections) if section.content]
    links = "".join(f'<a href="#{name}">{escape(section.heading)}</a>' for name, section in told)
    parts = [
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(section.heading)}</h2>{section.content}</section>'
        for name, section in told
    ]
    html = PAGE.format(
        title=escape(title),
        style=_asset("style.css"),
        script=_asset("script.js"),
        style_digest=_digest("style.css"),
        script_digest=_digest("script.js"),
        nav=f'<nav aria-label="Sections">{links}</nav>' if links else "",
        body="\n".join([head, *parts]),
    )
    return html.encode("utf-8", "backslashreplace")  # half a surrogate pair in a title is no reason to lose the page


def write(path: Path, content: bytes) -> Path:
    """Write a page whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    with readable_os_errors(path):
        remove_abandoned(path.parent, is_ours=lambda name: name_of(name) == path.name)
        write_atomic(path, content)
    return path


@functools.cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


@functools.cache
def _digest(name: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()}'"


def code(text: str) -> str:
    """Write a text as it is typed."""
    return f"<pre>{escape(text.strip())}</pre>"


def bullets(texts: Iterable[str]) -> str:
    """Write sentences as a list; none: nothing."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def soft(text: str) -> str:
    """Write a remark."""
    return f'<p class="soft">{escape(text)}</p>'


def banners(texts: Iterable[str]) -> str:
    """Write what a reader must not overlook."""
    return "".join(f'<p class="banner" role="alert">{escape(text)}</p>' for text in texts)


def card(name: str, big: str, lines: Iterable[str] = (), kind: str = "") -> str:
    """Write a figure in large type, its name above it, remarks beneath."""
    text = "".join(soft(line) for line in lines)
    return f'<div class="card {kind}">{escape(name)}<div class="big">{escape(big)}</div>{text}</div>'


def cards(parts: Iterable[str]) -> str:
    """Put cards beside each other."""
    inside = "".join(parts)
    return f'<div class="head">{inside}</div>' if inside else ""


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Write names and values; those without a value are left out."""
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in pairs
        if value not in (None, "")
    ]
    return f'<table class="facts">{"".join(rows)}</table>' if rows else ""


def table(names: Sequence[str], rows: Sequence[Sequence[Cell]], label: str, best: Collection[int] = ()) -> str:
    """Write a table whose columns can be sorted by.

    Args:
        names: the columns' heads.
        rows: a cell for each column.
        label: what the table holds, for those who hear it.
        best: numbers of the rows that are marked.
    """
    if not rows:
        return ""
    # A column of figures has its head above them, on the right.
    numeric = [any(_is_numeric(row[at]) for row in rows) for at in range(len(names))]
    head = "".join(
        f'<th scope="col"{_class("n" if is_numeric else "")}>{escape(name)}</th>'
        for name, is_numeric in zip(names, numeric, strict=True)
    )
    lines = []
    for index, row in enumerate(rows):
        cells = (_cell(cell, is_numeric) for cell, is_numeric in zip(row, numeric, strict=True))
        lines.append(f"<tr{_class('best' if index in best else '')}>{''.join(cells)}</tr>")
    body = f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return wide(body, label)


def wide(content: str, label: str) -> str:
    """Put what may be wider than the window into a box that scrolls, by the keyboard too."""
    return f'<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0">{content}</div>'


def _cell(cell: Cell, is_numeric: bool) -> str:
    text = escape(cell.text)
    if cell.href:
        text = f'<a href="{escape(cell.href)}">{text}</a>'
    if cell.kind in ("good", "bad"):
        text = f"<b>{text}</b>"
    order = "" if cell.order is None or str(cell.order) == cell.text else f' data-order="{escape(str(cell.order))}"'
    return f"<td{_class(cell.kind, 'n' if is_numeric else '')}{order}>{text}</td>"


def _class(*names: str) -> str:
    found = " ".join(filter(None, names))
    return f' class="{found}"' if found else ""


def _is_numeric(cell: Cell) -> bool:
    return isinstance(cell.order, int | float)


def figure_cell(value: Any, text: str | None = None) -> Cell:
    """Return a figure as the tables write it, sorted by its exact value; what is no number as it stands.

    >>> figure_cell(0.87462), figure_cell(float("nan"))
    (Cell(text='0.8746', order=0.87462, href='', kind=''), Cell(text='-', order=None, href='', kind=''))
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(number(value) if text is None else text)
    if not math.isfinite(value):
        return Cell("-")
    return Cell(number(value) if text is None else text, order=value)


def count(value: Any) -> str:
    """Write 12345.6 as 12,346; what is no number as it stands."""
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def duration(seconds: Any) -> str:
    """Write 83.2 seconds as 1 min 23 s."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min {rest} s" if minutes >= 60 else f"{minutes} min {rest} s"


def link(target: Path, origin: Path) -> str:
    """Return the address of a file as it is reached from a page, so that both can move together.

    >>> link(Path("/r/collab/a=1,b c-00000000/report.html"), Path("/r/sweeps/s/report.html"))
    '../../collab/a%3D1%2Cb%20c-00000000/report.html'
    """
    return quote(os.path.relpath(target.resolve(), origin.parent.resolve()))


def run_link(folder: Path, origin: Path) -> str:
    """Return the address of a run: its report where it has one, else its folder; empty where that is gone."""
    report = folder / "report.html"
    return link(report if report.is_file() else folder, origin) if folder.is_dir() else ""
