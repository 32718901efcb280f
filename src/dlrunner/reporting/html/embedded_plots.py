"""The plots of a run as they are embedded in its page, with their captions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrunner.errors import ConfigError
from dlrunner.plot import Plot
from dlrunner.runs.reader import own_file

PNG = b"\x89PNG\r\n\x1a\n"
"""Signature of PNG files."""


@dataclass(frozen=True)
class EmbeddedPlot:
    """A plot in the page, or why it is not embedded."""

    name: str
    caption: str
    alt: str
    content: str
    """The file in base64; empty if there is a problem."""
    problem: str

    @property
    def stem(self) -> str:
        """Name of the file without its extension."""
        return Path(self.name).stem


def embed(plots: Sequence[Plot], room: int) -> list[EmbeddedPlot]:
    """Embed the plots while there is room; missing and too large ones get a message."""
    found = []
    for plot in plots:
        problem = _problem(plot.path, room)
        content = "" if problem else base64.b64encode(plot.path.read_bytes()).decode()
        found.append(EmbeddedPlot(plot.path.name, plot.caption, plot.alt or plot.caption, content, problem))
        room -= len(content)
    return found


def _problem(plot: Path, room: int) -> str:
    """Return why a plot is not embedded; empty if it can be. Folders from elsewhere may contain anything."""
    try:
        own_file(plot.parent.parent, f"{plot.parent.name}/{plot.name}")
        if not plot.is_file():
            return "file not found"
        if 4 * plot.stat().st_size / 3 > room:
            return "too large to embed"
        with plot.open("rb") as file:
            return "" if file.read(len(PNG)) == PNG else "not an image"
    except ConfigError:
        return "a link to a file outside of the folder"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
