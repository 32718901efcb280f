"""Whether dlrunner is still as fast: the ratios of a quick measurement beside the stored ones, never seconds."""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import collab, tabular, text
from benchmarks.measuring import DEVICE, HERE, Contestant, Options, Run, in_turn, machine, with_range
from benchmarks.summary import BENCHMARKS, COLLAB, RIVALS, Quantity

TOLERANCE = 0.15
"""A ratio may fall by so much: quick work has a little more around each step."""
COVERAGE = 0.75
"""How often the interval of a median holds it, at least."""
FEWEST = 3
"""Repetitions that make an interval."""
MOST_REPEATS = 9
MINUTES = 6.0
"""After them nothing is repeated because it was unclear."""
ROWS, BATCH, STEPS, EPOCHS = 25_000, 512, 2, 2
Word = Literal["as fast", "faster", "slower", "too noisy to tell"]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return bounds of the median that hold in three of four measurements, whatever the noise is like.

    The median of all that might be measured lies outside the k-th lowest and highest of n values with a chance of
    2 · P(fewer than k of n coins show heads). Up to five values the bounds are the range; more narrow them.

    >>> interval([1.3, 1.1, 1.2])
    (1.1, 1.3)
    >>> interval([1.0, 1.1, 1.2, 1.3, 1.4, 9.0])
    (1.1, 1.4)
    """
    ordered, n = sorted(values), len(values)
    out = 1
    while 2 * (out + 1) < n and 1 - 2 * sum(math.comb(n, i) for i in range(out + 1)) / 2**n >= COVERAGE:
        out += 1
    return ordered[out - 1], ordered[-out]


def judge(stored: Sequence[float], new: Sequence[float], tolerance: float = TOLERANCE) -> Word:
    """Return what two measurements of a ratio say of each other.

    `slower` only where all that the new median may be lies below all that the stored one may be, by more than the
    tolerance; `as fast` where it does not lie below the stored median by more than that; between them the noise is
    larger than what is looked for.
    """
    low, high = interval(new)
    if high < (1 - tolerance) * interval(stored)[0] and min(len(stored), len(new)) >= FEWEST:
        return "slower"
    if low < (1 - tolerance) * statistics.median(stored):
        return "too noisy to tell"
    return "faster" if low > interval(stored)[1] and len(new) >= FEWEST else "as fast"


@dataclass
class Quick:
    """A small contest beside a row of the stored table."""

    title: str
    stored: Mapping[str, Any]
    quantity: Quantity
    contestants: Mapping[str, Contestant]
    runs: dict[str, list[Run]]

    def repeat(self, times: int) -> None:
        """Measure everyone again."""
        done = len(next(iter(self.runs.values()), []))
        for name, found in in_turn(self.contestants, times, first=done).items():
            self.runs.setdefault(name, []).extend(found)

    def ratios(self) -> dict[str, list[float]]:
        """Return the new ratios by kind of rival."""
        own = next(iter(self.runs.values()))
        measured = {kind: name for kind, name in self.stored["contestants"].items() if name in self.runs}
        return {kind: self.quantity.ratios(own, self.runs[name]) for kind, name in measured.items()}

    def words(self) -> dict[str, Word]:
        """Return what each ratio says."""
        return {kind: judge(self.stored["ratios"][kind], new) for kind, new in self.ratios().items()}

    def lines(self) -> list[str]:
        """Return a sentence for each ratio, with both spreads."""
        return [
            f"{self.title}, against {RIVALS[kind]}: {with_range(self.ratios()[kind])} times as fast in "
            f"{len(self.ratios()[kind])} repetitions, stored {with_range(self.stored['ratios'][kind])} "
            f"in {len(self.stored['ratios'][kind])}: {word}"
            for kind, word in self.words().items()
        ]


def check(options: Options) -> int:
    """Measure, repeat what is unclear, print what was found; return 1 where dlrunner has become slower."""
    file = HERE / f"speed-{DEVICE}.json"
    if not file.exists():
        sys.exit(f"there is nothing to compare with: {file.name} is written by `make bench`")
    stored = json.loads(file.read_text())
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        contests = _contests(options, Path(name), stored["rows"])
        for contest in contests:
            contest.repeat(options.repeats)
        unclear = contests
        while unclear := [each for each in unclear if "too noisy to tell" in each.words().values()]:
            done = len(next(iter(unclear[0].runs.values())))
            if done >= MOST_REPEATS or time.perf_counter() - started > 60 * MINUTES:
                break
            for contest in unclear:
                contest.repeat(1)
    for contest in contests:
        print("\n".join(contest.lines()))
    here = machine()
    checked = {contest.stored["benchmark"]: stored["machines"][contest.stored["benchmark"]] for contest in contests}
    elsewhere = [name for name, there in checked.items() if (there["cpu"], there["gpu"]) != (here["cpu"], here["gpu"])]
    if elsewhere:
        print(f"note: {', '.join(elsewhere)}: stored on another processor, whose ratios may differ")
    words = [word for contest in contests for word in contest.words().values()]
    noisy = words.count("too noisy to tell")
    print(f"{words.count('slower')} of {len(words)} ratios are slower by more than {TOLERANCE:.0%}, {noisy} too noisy")
    return 1 if "slower" in words else 0


def _contests(options: Options, folder: Path, stored: Mapping[str, Any]) -> list[Quick]:
    """Return the contests that are stored, with dlrunner and those of the stored rivals that are installed."""
    offered: dict[str, tuple[str, Mapping[str, Contestant]]] = {}
    for benchmark, contest in (
        ("collab", COLLAB),
        ("tabular", f"float32, batches of {BATCH}"),
        ("text", "float32"),
    ):
        title = f"{BENCHMARKS[benchmark][0]}, {contest}"
        if title not in stored:
            continue
        place = folder / benchmark
        place.mkdir()
        offered[title] = (benchmark, _contestants(benchmark, options, place))
    found = []
    for title, (benchmark, contestants) in offered.items():
        wanted = [next(iter(contestants)), *stored[title]["contestants"].values()]
        chosen = {name: contestants[name] for name in wanted if name in contestants and options.is_installed(name)}
        found.append(Quick(title, stored[title], BENCHMARKS[benchmark][1][0], chosen, {}))
    return found


def _contestants(benchmark: str, options: Options, folder: Path) -> Mapping[str, Contestant]:
    if benchmark == "collab":
        return collab.contestants(options, folder, EPOCHS)
    if benchmark == "tabular":
        return tabular.Contest(options, folder, tabular.prepare(folder, ROWS), BATCH, "fp32", ROWS).contestants()
    text.write_words(folder, STEPS)
    return text.contestants(options, folder, "fp32", EPOCHS)
