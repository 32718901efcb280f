"""The pages of all reports: one self-contained HTML file each, rendered from `templates`.

The modules of this folder compute plain values, and the templates escape all of them. Style and script are inline and
allowed by their digests, so that injected markup could neither run nor load anything.
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
"""Maximum size of a report, so that it can be mailed."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    order: float | str | None = None
    """Sort key, if that is not the text; numbers are right-aligned."""
    href: str = ""
    kind: str = ""
    """CSS class: good, bad, long."""

    @property
    def sort_key(self) -> str:
        """Sort key of the column; empty if that is the text."""
        return "" if self.order is None or str(self.order) == self.text else str(self.order)


@dataclass(frozen=True)
class Table:
    """A table with sortable columns; it is omitted without rows."""

    names: Sequence[str]
    """Column headings."""
    rows: Sequence[Sequence[Cell]]
    """One cell per column."""
    label: str
    """Description for screen readers."""
    best: Collection[int] = ()
    """Indices of highlighted rows."""

    @property
    def aligned(self) -> list[str]:
        """CSS class per column: n, right-aligned, if it contains numbers."""
        numeric = [any(isinstance(row[at].order, int | float) for row in self.rows) for at in range(len(self.names))]
        return ["n" if each else "" for each in numeric]


@dataclass(frozen=True)
class Card:
    """A result in large type with its name above and remarks below."""

    name: str
    big: str
    lines: Sequence[str] = ()
    kind: str = ""
    """CSS class: good, bad."""


@dataclass(frozen=True)
class _Asset:
    """An inline file, and its digest for the content security policy."""

    text: str
    digest: str


def render(template: str, **values: Any) -> bytes:
    """Render a page.

    Args:
        template: a file in `templates`.
        **values: plain values, which it escapes.
    """
    page = environment().get_template(template)
    html = page.render(values, style=_asset("style.css"), script=_asset("script.js"))
    return html.encode("utf-8", "backslashreplace")  # e.g. half a surrogate pair in a title


@functools.cache
def environment() -> Environment:
    """Return the environment of all pages, which keeps compiled templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes 50 ms

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
    """Write a page atomically.

    Raises:
        RunError: the file cannot be written.
    """
    with readable_os_errors(path):
        remove_abandoned(path.parent, is_ours=lambda name: name_of(name) == path.name)
        write_atomic(path, content)
    return path


def number_cell(value: Any, text: str | None = None) -> Cell:
    """Return a cell with a formatted number, sorted by its exact value; other values as they are.

    >>> number_cell(0.87462), number_cell(float("nan"))
    (Cell(text='0.8746', order=0.87462, href='', kind=''), Cell(text='-', order=None, href='', kind=''))
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(grouped(value) if text is None else text)
    if not math.isfinite(value):
        return Cell("-")
    return Cell(grouped(value) if text is None else text, order=value)


def grouped(value: Any) -> str:
    """Format a number as the terminal does, and the digits of large ones in groups.

    >>> grouped(50191.34), grouped(0.87462), grouped(None)
    ('50,191.3', '0.8746', '-')
    """
    is_large = isinstance(value, float) and 1e4 <= abs(value) < 1e9
    return f"{value:,.1f}" if is_large else number(value)


def readable(value: float) -> str:
    """Format a finite number with about four digits.

    >>> [readable(value) for value in (50191.3, 231.44, 16.1804, 2.10563, 0.84041, -0.00022, 0.0)]
    ['50,191', '231.4', '16.18', '2.106', '0.8404', '-2.2e-04', '0.0000']
    """
    size = abs(value)
    if size >= 1e9:
        return f"{value:.4g}"
    decimals = next((d for least, d in ((1000, 0), (100, 1), (10, 2), (1, 3)) if size >= least), 4)
    return f"{value:,.{decimals}f}" if size >= 1e-3 or value == 0 else f"{value:.1e}"


def count(value: Any) -> str:
    """Format 12345.6 as 12,346; other values as they are."""
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def duration(seconds: Any) -> str:
    """Format 83.2 seconds as 1 min 23 s."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min {rest} s" if minutes >= 60 else f"{minutes} min {rest} s"


def link(target: Path, origin: Path) -> str:
    """Return the address of a file relative to a page, so that both can be moved together.

    >>> link(Path("/r/collab/a=1,b c-00000000/report.html"), Path("/r/sweeps/s/report.html"))
    '../../collab/a%3D1%2Cb%20c-00000000/report.html'
    """
    return quote(os.path.relpath(target.resolve(), origin.parent.resolve()))


def run_link(folder: Path, origin: Path) -> str:
    """Return the address of a run: its report, else its folder; empty if that does not exist."""
    report = folder / "report.html"
    return link(report if report.is_file() else folder, origin) if folder.is_dir() else ""
