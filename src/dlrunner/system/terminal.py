"""Safe output: control characters are escaped, and a closed or full stream does not stop a run."""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except newline and tab; characters that change the text direction; bytes that are not UTF-8."""


def visible(text: str) -> str:
    r"""Escape control characters, and bytes that are not UTF-8, as in Python.

    >>> print(visible("a\x1b[31m\rb\udcff"))
    a\x1b[31m\rb\udcff
    """
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def visible_line(text: str) -> str:
    r"""Escape a text like `visible`, and newlines too.

    >>> print(visible_line("a\nb"))
    a\nb
    """
    return visible(text).replace("\n", "\\n")


def visible_json(text: str) -> str:
    r"""Escape a JSON text like `visible`, as JSON does: it has the same content.

    >>> print(visible_json('"a\x85"'))
    "a\u0085"
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_content(text: str) -> None:
    """Write the content of a file to standard output: a file or a pipe gets it as it is, a terminal escaped."""
    write = sys.stdout.write
    if isinstance(sys.stdout, Stream) and not sys.stdout.isatty():
        write = sys.stdout.write_raw
    write(text)


class Stream:
    """A standard stream with escaped control characters.

    When the stream is closed (`dlrun … | head`), or its disk is full, further output is discarded and the run
    continues.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        """The error because of which output was lost."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write an untrusted text."""
        return self.write_raw(visible(text))

    def write_raw(self, text: str) -> int:
        """Write a text with our own control characters: colours and progress bars."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:  # the terminal does not use UTF-8
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError) as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush; on an error discard all further output."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if isinstance(error, OSError) and self.lost is None:
            self.lost = error
        devnull = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(devnull, self._stream.fileno())  # so that its buffer is discarded too
        except (OSError, ValueError):
            self._stream = open(os.devnull, "w")  # noqa: SIM115, PTH123  for the rest of this process
        finally:
            os.close(devnull)


class _Raw:
    """The same stream without escaping, for a writer that escapes untrusted text itself."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._stream.write_raw(text)


def open_missing_streams() -> None:
    """Open standard streams that are closed, since the next opened file would get their file descriptors.

    Processes that are started inherit them, as usual: else a pipe of theirs would get the descriptors.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  for the rest of this process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def terminal_width(stream: Any = None) -> int | None:
    """Return the width of the terminal that a stream is, by default standard output; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def wrapped(text: str, indent: int = 2, stream: Any = None) -> str:
    """Return a text wrapped at words to the terminal's width, paths uncut; unchanged for a file or a pipe.

    Args:
        text: one or several lines.
        indent: of the further lines of each.
        stream: that it is written to; None: standard output.
    """
    if (width := terminal_width(stream)) is None:
        return text
    wrap = functools.partial(textwrap.fill, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap(line, width, subsequent_indent=" " * indent) for line in text.splitlines())


def print_wrapped(text: str) -> None:
    """Print a text; a terminal shows it wrapped at words, and a file has it in one line."""
    print(wrapped(text))


def print_warning(text: str) -> None:
    """Print a text on standard error if it is a warning, else nothing."""
    if text.startswith("warning:"):
        print(wrapped(text, stream=sys.stderr), file=sys.stderr)


def console(**settings: Any) -> Console:
    """Return a console for standard output that interprets no markup and escapes control characters.

    Args:
        settings: of rich's Console.
    """
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.segment import Segment

    class Visible(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Any:
            segments: RenderResult = super().render(renderable, options)
            for segment in segments:
                assert isinstance(segment, Segment)
                is_plain = segment.control or not _UNSAFE.search(segment.text)
                yield segment if is_plain else Segment(visible(segment.text), segment.style)

    file = _Raw(sys.stdout) if isinstance(sys.stdout, Stream) else None
    return Visible(file=file, highlight=False, markup=False, emoji=False, **settings)  # type: ignore[arg-type]
