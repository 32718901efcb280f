"""The pages of all reports: one HTML file each, which asks for nothing from outside, written from `templates`.

The modules of this folder compute plain values, and the templates escape all of them. Style and script stand in the
page and are allowed by their digests, so that markup which slipped in all the same could neither run nor load anything.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dlrunner.files.atomic import readable_os_errors, write_atomic
from dlrunner.files.temporary import name_of, remove_abandoned
from dlrunner.reporting.terminal.progress import number

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_BYTES = 3_000_000
"""A report stays small enough to mail."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    order: float | str | None = None
    """What the column is sorted by, where that is not the text; a number stands on the right."""
    href: str = ""
    kind: str = ""
    """A class of the style: good, bad, long."""

    @property
    def sort_key(self) -> str:
        """What the column is sorted by; empty where that is the text."""
        return "" if self.order is None or str(self.order) == self.text else str(self.order)


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted by; one without rows is left out."""

    names: Sequence[str]
    """The columns' heads."""
    rows: Sequence[Sequence[Cell]]
    """A cell for each column."""
    label: str
    """What the table holds, for those who hear it."""
    best: Collection[int] = ()
    """Numbers of the rows that are marked."""

    @property
    def aligned(self) -> list[str]:
        """A class of the style for each column: n, on the right, where it holds numbers."""
        numeric = [any(isinstance(row[at].order, int | float) for row in self.rows) for at in range(len(self.names))]
        return ["n" if each else "" for each in numeric]


@dataclass(frozen=True)
class Card:
    """A result in large type, its name above it, remarks beneath."""

    name: str
    big: str
    lines: Sequence[str] = ()
    kind: str = ""
    """A class of the style: good, bad."""


@dataclass(frozen=True)
class _Asset:
    """A file that stands in the page, and the digest by which the page allows it."""

    text: str
    digest: str


def render(template: str, **values: Any) -> bytes:
    """Return a whole page.

    Args:
        template: a file in `templates`.
        **values: what it shows: plain values, which it escapes.
    """
    page = _environment().get_template(template)
    html = page.render(values, style=_asset("style.css"), script=_asset("script.js"))
    return html.encode("utf-8", "backslashreplace")  # half a surrogate pair in a title is no reason to lose the page


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes a twentieth of a second

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )


@functools.cache
def _asset(name: str) -> _Asset:
    text = (Path(__file__).parent / name).read_text()
    return _Asset(text, f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}")


def write(path: Path, content: bytes) -> Path:
    """Write a page whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    with readable_os_errors(path):
        remove_abandoned(path.parent, is_ours=lambda name: name_of(name) == path.name)
        write_atomic(path, content)
    return path


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
