"""Differences between two runs, for the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from dlrunner.comparison.collect import distinct_cuts, shown
from dlrunner.comparison.diff import Entry, differing_conditions, differing_settings, first_difference
from dlrunner.reporting.terminal.tables import console, print_table
from dlrunner.runs.reader import FinishedRun, shorter

MOST_NUMBERS = 6
"""Number of metrics that are shown of the first epoch that differs."""


def print_difference(a: FinishedRun, b: FinishedRun) -> None:
    """Print the settings and conditions that differ between two runs, and the first epoch whose metrics differ."""
    out = console()
    for name, run in (("A", a), ("B", b)):
        out.print(Text(f"{name}  {shorter(run.path)}" + ("" if run.status == "done" else f"  ({run.status})")))
    _print_entries("settings", differing_settings(a.config, b.config))
    if a.summary is None or b.summary is None:
        out.print(Text("\ncode, data, versions: unknown without a summary"))
    else:
        _print_entries("code, data, versions, device", differing_conditions(a.summary, b.summary))
    out.print(Text("\n" + "\n".join(_metrics_text(a, b))))


def _print_entries(title: str, entries: Sequence[Entry]) -> None:
    if not entries:
        console().print(Text(f"\n{title}: the same"))
        return
    console().print()
    rows = []
    for name, *pair in entries:
        texts = [_abbreviated(value) for value in pair]
        rows.append([name, *("-" if text is None else shown(text, distinct_cuts(texts)) for text in texts)])
    print_table([title, "A", "B"], rows)


def _metrics_text(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Return the first epoch whose metrics differ, with all digits."""
    lengths = len(a.history), len(b.history)
    if not all(lengths):
        return ["metrics: nothing to compare: " + ("B has no epochs" if lengths[0] else "A has no epochs")]
    rest = "" if lengths[0] == lengths[1] else f"; A has {lengths[0]} epochs, B {lengths[1]}"
    found = first_difference(a.history, b.history)
    if found is None:
        last = min(lengths)
        return [f"metrics: identical in epoch{f's 1 to {last}' if last > 1 else ' 1'}{rest}"]
    if found.first_beyond_rounding is None:
        size = f"never by more than rounding (1e-4); first by {found.difference:.1e}"
    elif found.first_beyond_rounding == found.epoch:
        size = "by more than rounding" + ("" if math.isinf(found.difference) else f" ({found.difference:.1e})")
    else:
        size = f"by rounding ({found.difference:.1e}), by more than rounding from epoch {found.first_beyond_rounding}"
    lines = [f"metrics: first difference in epoch {found.epoch}, {size}{rest}"]
    width = max(len(name) for name, _, _ in found.numbers[:MOST_NUMBERS])
    for name, left, right in found.numbers[:MOST_NUMBERS]:
        lines.append(f"  {name:<{width}}  A {_exact(left)}  B {_exact(right)}")
    if len(found.numbers) > MOST_NUMBERS:
        lines.append(f"  … {len(found.numbers) - MOST_NUMBERS} more")
    return lines


def _abbreviated(value: Any) -> Any:
    """Return the beginning of a digest, other values unchanged."""
    if isinstance(value, str) and re.match(r"[0-9a-f]{40}", value):
        return value[:12] + value[40:].lstrip("0123456789abcdef")
    return value


def _exact(value: Any) -> str:
    return "-" if value is None else repr(value)
