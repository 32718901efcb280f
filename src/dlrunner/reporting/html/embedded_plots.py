"""The plots of a run as they are embedded in its page, with their captions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrunner.errors import ConfigError
from dlrunner.plot import Plot
from dlrunner.runs.reader import own_file

KINDS = {".png": ("image/png", (b"\x89PNG\r\n\x1a\n",)), ".svg": ("image/svg+xml", (b"<?xml", b"<svg"))}
"""MIME type and signatures by suffix. A browser runs no script of an SVG that is shown as an image."""


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
    def mime(self) -> str:
        """MIME type."""
        return KINDS[Path(self.name).suffix][0]

    @property
    def is_vector(self) -> bool:
        """Whether it is drawn on the page's own background."""
        return self.name.endswith(".svg")

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
        _, signatures = KINDS.get(plot.suffix, ("", ()))
        with plot.open("rb") as file:
            return "" if file.read(8).startswith(signatures) else "not an image"
    except ConfigError:
        return "a link to a file outside of the folder"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
