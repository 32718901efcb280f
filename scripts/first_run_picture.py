"""Write docs/images/first-run.svg: a terminal in which a table is described, trained on and predicted, as it was.

python scripts/first_run_picture.py
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import sys
import tempfile
import termios
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "first-run.svg"
WIDTH = 80
COMMANDS = (
    "dlrun data get sample-sales",
    "dlrun task=tabular data.path=data/sample-sales/sales.csv data.target=sales "
    "data.date=date data.split=last_days data.valid=31",
    "dlrun predict runs/latest data/sample-sales/next.csv",
)
SHOWN = 2
"""Epochs shown at both ends, and rows of predictions."""


def main() -> None:
    """Run the commands and write the picture."""
    folder = tempfile.mkdtemp()
    os.environ.pop("DLRUNNER_DATA", None)
    os.chdir(folder)
    out = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123  for this process
    for command in COMMANDS:
        out.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        shown = typed(command)
        print(shown)
        out.print(Text.from_ansi(shortened(shown)))
    svg = out.export_svg(title="dlrunner", code_format=without_fonts(CONSOLE_SVG_FORMAT), unique_id="first-run")
    PICTURE.write_text(svg, "utf-8")


def typed(command: str) -> str:
    """Return what a command prints on a terminal."""
    words = [sys.executable, "-m", "dlrunner", *shlex.split(command)[1:], *plain(command)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(words[0], words)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the program has ended
            break
        parts.append(part)
        if not part:
            break
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(b"".join(parts).decode())
    return b"".join(parts).decode().replace("\r\n", "\n")


def plain(command: str) -> list[str]:
    """Return the setting by which a run prints lines instead of bars, which a picture cannot show."""
    return ["log.progress=plain"] if " task=" in command else []


def shortened(text: str) -> str:
    """Return the output with only the first and last rows of a long table, and without the list of files at the end.

    >>> shortened("epoch  loss\\n" + "".join(f"    {n}  0.5\\n" for n in range(1, 9)) + "plots    x\\n")
    'epoch  loss\\n    1  0.5\\n    2  0.5\\n  …\\n    7  0.5\\n    8  0.5'
    """
    lines: list[str] = []
    text = re.sub(r"(?ms)^plots  .*?(?=^\S*run |\Z)", "", text)  # the paths of plots and report are long
    for block in re.split(r"(?m)^((?: *\d.*\n){6,})", text):
        rows = block.splitlines()
        is_long = bool(re.match(r" *\d", block)) and len(rows) > 2 * SHOWN + 1
        lines += [*rows[:SHOWN], "  …", *rows[-SHOWN:]] if is_long else rows
    return "\n".join(lines)


def without_fonts(svg: str) -> str:
    """Return the template without the fonts that it would load from elsewhere."""
    return re.sub(r"@font-face \{\{.*?\}\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    main()
