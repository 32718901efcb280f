"""What is printed: nothing in it can steer a terminal, and a stream that is closed or full ends no run."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for newline and tab; what turns the direction of text; bytes that are not UTF-8."""


def visible(text: str) -> str:
    r"""Return a text whose control characters, and bytes that are not UTF-8, are written as in Python.

    >>> print(visible("a\x1b[31m\rb\udcff"))
    a\x1b[31m\rb\udcff
    """
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_line(text: str) -> str:
    r"""Return a text as `visible` does, on one line.

    >>> print(visible_line("a\nb"))
    a\nb
    """
    return visible(text).replace("\n", "\\n")


class Stream:
    """A standard stream as dlrunner prints to it.

    Control characters are shown as text. Where the stream was closed (`dlrun … | head`), or its disk is full, what is
    printed from then on goes nowhere, and the work goes on.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        """Why something that was printed has not arrived."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text that may come from anywhere."""
        return self.write_raw(visible(text))

    def write_raw(self, text: str) -> int:
        """Write what a terminal may act on: colours and bars of our own."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:  # a terminal that is not in UTF-8
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError) as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or from now on write nowhere."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if isinstance(error, OSError) and self.lost is None:
            self.lost = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self._stream.fileno())  # what is still in its buffer goes there too
        except (OSError, ValueError):
            self._stream = open(os.devnull, "w")  # noqa: SIM115, PTH123  for the rest of this process
        finally:
            os.close(nowhere)


class _Raw:
    """The same stream, for what draws colours and bars and has made all it was given visible."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._stream.write_raw(text)


def open_missing_streams() -> None:
    """Open standard streams that whoever started this process has closed: the next file would take their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  for the rest of this process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def console(**settings: Any) -> Console:
    """Return a console for standard output: of what it is given, nothing is markup or a control character.

    Args:
        settings: of rich's Console.
    """
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.segment import Segment

    class Visible(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Any:
            found: RenderResult = super().render(renderable, options)
            for segment in found:
                assert isinstance(segment, Segment)
                is_plain = segment.control or not _UNSAFE.search(segment.text)
                yield segment if is_plain else Segment(visible(segment.text), segment.style)

    file = _Raw(sys.stdout) if isinstance(sys.stdout, Stream) else None
    return Visible(file=file, highlight=False, markup=False, emoji=False, **settings)  # type: ignore[arg-type]
