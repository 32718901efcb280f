"""Where the table of a predictor's verb goes: to the terminal, to a file, to the next program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.cli.conf_paths import file_to_write
from dlrunner.errors import ConfigError
from dlrunner.system.terminal import print_content, visible_json, wrapped

if TYPE_CHECKING:
    import pandas as pd

STANDARD_OUTPUT = "-"
NUM_ROWS, NUM_COLUMNS = 1000, 40
"""Rows and columns of a table that are printed at most."""
MOST_CHARACTERS = 60
"""Of a text in a printed table."""


@dataclass(frozen=True)
class Output:
    """How a table is shown and written."""

    file: Path | None = None
    """`-` is standard output."""
    is_raw: bool = False
    """Texts that begin like a formula stay as they are."""
    json: str = ""
    """`json` or `jsonl`: printed instead of the table."""

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Output:
        """Return the output that the options name, before anything is computed.

        Raises:
            ConfigError: the file cannot be written, or has an unknown format.
        """
        from dlrunner.files.table_files import encoder_of

        json = "json" if arguments.json else "jsonl" if arguments.jsonl else ""
        if arguments.out == STANDARD_OUTPUT:
            if json:
                raise ConfigError(f"--{json} writes to standard output already; leave out --out -")
            return cls(Path(STANDARD_OUTPUT), arguments.raw)
        file = file_to_write(arguments.out) if arguments.out else None
        if file:
            encoder_of(file)
        return cls(file, arguments.raw, json)

    def put(self, table: pd.DataFrame, with_types: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> None:
        """Write the table and print it, or where standard output is for the next program only notes, to stderr.

        Args:
            table: the columns of the input are strings where its file has no types.
            with_types: returns it with types, for formats that have some.
        """
        from dlrunner.files.table_files import has_types

        is_raw = self.is_raw or table.attrs.get("raw", False)
        is_typed_file = self.file is not None and has_types(self.file)
        typed = with_types(table) if with_types and (self.json or is_typed_file) else table
        written = typed if is_typed_file else table
        num_quoted = self._write(written, is_raw) if self.file else 0
        lines = []
        if self.file and str(self.file) != STANDARD_OUTPUT:
            lines.append(f"{len(table):,} rows: {self.file}")
        if num_quoted:
            lines.append(
                f"note: {num_quoted:,} texts that begin like a formula (with =, +, -, @, tab) are escaped with a ',\n"
                "so that spreadsheets do not run them; --raw disables this"
            )
        if self.json or str(self.file) == STANDARD_OUTPUT:
            if self.json:
                self._print_json(typed)
            notes = [f"note: {line}" for line in (table.attrs.get("note") or "").splitlines()]
            text = wrapped("\n".join([*notes, *lines]), stream=sys.stderr)
            print(text, end="\n" * bool(notes or lines), file=sys.stderr)
            return
        self._print_table(table)
        if lines:
            print("\n".join(lines))

    def _write(self, table: pd.DataFrame, is_raw: bool) -> int:
        """Write the table to the file, and return the number of quoted cells and names."""
        from dlrunner.files.atomic import readable_os_errors, write_atomic
        from dlrunner.files.table_files import encoder_of

        file = self.file
        assert file is not None
        content, num_quoted = encoder_of(file)(table, is_raw)
        if str(file) == STANDARD_OUTPUT:
            print_content(content.decode())
            return num_quoted
        with readable_os_errors(file):
            if file.is_file() or not file.exists():
                write_atomic(file.resolve(), content)
            else:  # a pipe
                file.write_bytes(content)
        return num_quoted

    def _print_json(self, table: pd.DataFrame) -> None:
        from dlrunner.files.table_files import as_json, as_json_lines

        print(visible_json(as_json(table) if self.json == "json" else as_json_lines(table)))

    def _print_table(self, table: pd.DataFrame) -> None:
        """Print the first rows, with the columns of the input that fit, and all predictions."""
        from dlrunner.reporting.terminal import tables

        num_rows = 20 if self.file else NUM_ROWS
        shown = table.iloc[:num_rows].map(_shortened)
        shown = shown.iloc[:, _fitting(shown, table.attrs.get("num_inputs", 0), tables.console().width)]
        num_left_out = table.shape[1] - shown.shape[1]
        note = table.attrs.get("note")
        tables.print_frame(shown, note and wrapped(note), digits=True)
        if not self.file and (len(table) > num_rows or num_left_out):
            more = {"rows": len(table) - num_rows, "columns": num_left_out}
            left_out = " and ".join(f"{number:,} more {what}" for what, number in more.items() if number > 0)
            print(f"… {left_out}; --out FILE writes all")


def _fitting(table: pd.DataFrame, num_inputs: int, width: int) -> list[int]:
    """Return the columns that are printed: the first of the input that fit into a line, at least one, and predictions.

    Args:
        table: the printed rows.
        num_inputs: its first columns, which are those of the input.
        width: of a line.
    """
    texts = [[name, *table.iloc[:20, index]] for index, name in enumerate(table.columns)]
    widths = [2 + max(len(str(text)) for text in column) for column in texts]
    predictions = range(num_inputs, min(table.shape[1], num_inputs + NUM_COLUMNS))
    room, inputs = width - sum(widths[index] for index in predictions), []
    for index in range(num_inputs):
        room -= widths[index]
        if index and room < 0:
            break
        inputs.append(index)
    return [*inputs, *predictions]


def _shortened(value: Any) -> Any:
    is_long = isinstance(value, str) and len(value) > MOST_CHARACTERS
    return f"{value[: MOST_CHARACTERS - 1]}…" if is_long else value
