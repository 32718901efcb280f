"""A check that dlrunner is still as fast: ratios of quick contests against the stored ones, never seconds.

The stored ratios are those of the very same quick contests (`make bench` measures them too): an epoch of little work
has more of what comes once an epoch, and its ratios are not those of the full table.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks import collab, tabular, text
from benchmarks.measuring import DEVICE, HERE, Contestant, Options, Run, in_turn, machine, with_range
from benchmarks.summary import BENCHMARKS, COLLAB, RIVALS, Quantity
from dlrunner.errors import DataError

TOLERANCE = 0.15
"""Tolerated decrease of a ratio: quick work has more overhead per step."""
COVERAGE = 0.75
"""Confidence of the interval of a median."""
FEWEST = 3
"""Repetitions needed for an interval."""
MOST_REPEATS = 9
MINUTES = 6.0
"""Maximum repetitions of an unclear result."""
STORED = 5
"""Minimum repetitions of the stored ratios."""
ROWS, BATCH, STEPS, EPOCHS = 25_000, 512, 2, 2
Word = Literal["as fast", "faster", "slower", "too noisy"]


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


def compare(stored: Sequence[float], new: Sequence[float], tolerance: float = TOLERANCE) -> Word:
    """Compare two measurements of a ratio.

    `slower` only where all that the new median may be lies below all that the stored one may be, by more than the
    tolerance; `as fast` where it does not lie below the stored median by more than that; between them the noise is
    larger than the tolerance.
    """
    low, high = interval(new)
    if high < (1 - tolerance) * interval(stored)[0] and min(len(stored), len(new)) >= FEWEST:
        return "slower"
    if low < (1 - tolerance) * statistics.median(stored):
        return "too noisy"
    return "faster" if low > interval(stored)[1] and len(new) >= FEWEST else "as fast"


@dataclass
class Quick:
    """A small contest: dlrunner and the fastest of each kind of rival."""

    benchmark: str
    title: str
    quantity: Quantity
    rivals: Mapping[str, str]
    """The contestants by kind."""
    contestants: Mapping[str, Contestant]
    """dlrunner first."""
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def repeat(self, times: int) -> None:
        """Measure all contestants again."""
        for name, found in in_turn(self.contestants, times, first=self.repetitions).items():
            self.runs.setdefault(name, []).extend(found)

    @property
    def repetitions(self) -> int:
        """Number of repetitions."""
        return len(next(iter(self.runs.values()), []))

    def ratios(self) -> dict[str, list[float]]:
        """Return the ratios of all repetitions by kind of rival."""
        own = next(iter(self.runs.values()))
        return {kind: self.quantity.ratios(own, self.runs[name]) for kind, name in self.rivals.items()}

    def words(self, stored: Mapping[str, Sequence[float]]) -> dict[str, Word]:
        """Return the result of each kind of rival against the stored ratios."""
        return {kind: compare(stored[kind], new) for kind, new in self.ratios().items() if kind in stored}

    def lines(self, stored: Mapping[str, Sequence[float]]) -> list[str]:
        """Return a sentence for each ratio, with both ranges."""
        return [
            f"{self.title}, against {RIVALS[kind]}: {with_range(self.ratios()[kind])} times as fast in "
            f"{len(self.ratios()[kind])} repetitions, stored {with_range(stored[kind])} in {len(stored[kind])}: {word}"
            for kind, word in self.words(stored).items()
        ]


def store(options: Options) -> Path:
    """Measure the quick contests and write their ratios as the reference of `check`; return the file."""
    with tempfile.TemporaryDirectory() as name:
        contests = _contests(options, Path(name))
        for contest in contests:
            contest.repeat(max(options.repeats, STORED))
    file = HERE / f"quick-{DEVICE}.json"
    rows = {contest.title: contest.ratios() for contest in contests}
    file.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return file


def check(options: Options) -> int:
    """Measure, repeat unclear contests, print the results; return 1 if dlrunner has become slower.

    Raises:
        DataError: nothing can be compared.
    """
    file = HERE / f"quick-{DEVICE}.json"
    if not file.exists():
        raise DataError(f"there is nothing to compare with: {file.name} is written by `make bench`")
    kept = json.loads(file.read_text())
    stored: dict[str, dict[str, list[float]]] = kept["rows"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        contests = [each for each in _contests(options, Path(name)) if stored.get(each.title, {}).keys() & each.rivals]
        if not contests:
            raise DataError("no rival that was stored is here: `make bench` installs fastai and Lightning")
        for contest in contests:
            contest.repeat(options.repeats)
        unclear = contests
        while unclear := [each for each in unclear if "too noisy" in each.words(stored[each.title]).values()]:
            if unclear[0].repetitions >= MOST_REPEATS or time.perf_counter() - started > 60 * MINUTES:
                break
            for contest in unclear:
                contest.repeat(1)
    found = {contest.title: contest.words(stored[contest.title]) for contest in contests}
    for contest in contests:
        print("\n".join(contest.lines(stored[contest.title])))
    here, there = machine(), kept["machine"]
    if (there["cpu"], there["gpu"]) != (here["cpu"], here["gpu"]):
        print("note: stored on another processor, whose ratios may differ")
    absent = [
        f"{title} against {RIVALS[k]}" for title, row in stored.items() for k in row if k not in found.get(title, {})
    ]
    if absent:
        print(f"not measured, for they are not installed: {', '.join(absent)}")
    words = [word for each in found.values() for word in each.values()]
    noisy = words.count("too noisy")
    print(f"{words.count('slower')} of {len(words)} ratios are slower by more than {TOLERANCE:.0%}, {noisy} too noisy")
    print("reviews and images are measured by `make bench` only")
    return 1 if "slower" in words else 0


def _contests(options: Options, folder: Path) -> list[Quick]:
    """Return the contests: dlrunner and the fastest installed contestant of each kind in the full table."""
    speed = HERE / f"speed-{DEVICE}.json"
    known = json.loads(speed.read_text())["rows"] if speed.exists() else {}
    found = []
    for benchmark, (contest, offered) in _offered(options, folder).items():
        title = f"{BENCHMARKS[benchmark][0]}, {contest}"
        own = next(iter(offered))
        first = {kind: name for kind in RIVALS for name in reversed(list(offered)) if name.startswith(kind)}
        fastest = {**first, **known.get(title, {}).get("contestants", {})}
        rivals = {kind: name for kind, name in fastest.items() if name in offered and options.is_installed(name)}
        chosen = {name: offered[name] for name in (own, *rivals.values())}
        found.append(Quick(benchmark, title, BENCHMARKS[benchmark][1][0], rivals, chosen))
    return found


def _offered(options: Options, folder: Path) -> dict[str, tuple[str, Mapping[str, Contestant]]]:
    """Return the quick contest of each benchmark, with its contestants."""
    folders = {name: folder / name for name in ("collab", "tabular", "text")}
    for path in folders.values():
        path.mkdir()
    rows = tabular.prepare(folders["tabular"], ROWS)
    tables = tabular.Contest(options, folders["tabular"], rows, BATCH, "fp32", ROWS)
    text.write_words(folders["text"], STEPS)
    return {
        "collab": (COLLAB, collab.contestants(options, folders["collab"], EPOCHS)),
        "tabular": (f"float32, batches of {BATCH}", tables.contestants()),
        "text": ("float32", text.contestants(options, folders["text"], "fp32", EPOCHS)),
    }
