"""Several processes at once: one does the work, the others say that they cannot, or show what is done."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.harness import ArchiveOrFolder, Child, Done, Failure, check, shared_value
from tests.hostile.results import differences, results
from tests.hostile.samples import TRAINED, WITHOUT_PAGES, write_samples

RATINGS = (*TRAINED["ratings"], "epochs=3", *WITHOUT_PAGES)
LATEST = "runs/latest"
ORDER = (
    *(
        "same",
        "cache pictures",
        "lock removed",
        "same",
        "export",
        "cache texts",
        "report",
        "same",
        "cache sales",
        "sweep",
    ),
    *("lock removed", "cache language", "export", "same"),
)
COUNT = len(ORDER)


def attempt(number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """Start several commands at once."""
    name, _, kind = ORDER[number % len(ORDER)].partition(" ")
    data: Path = shared_value(shared, "data", _data)
    place.fill(data)
    delay = rng.choice((0.0, 0.0, 0.05, 0.3))
    if name == "same":
        yield from _one_of(
            place, shared, [RATINGS] * rng.choice((2, 3, 4)), delay, "another process is training this run"
        )
    elif name == "sweep":
        words = ("-m", *RATINGS, "epochs=1", "optim.lr=0.01,0.02")
        yield from _one_of(place, shared, [words] * 2, delay, "another process is running this sweep")
    elif name == "lock":
        yield from _without_lock(place, shared)
    elif name == "cache":
        words = (*TRAINED[kind], "epochs=1", *WITHOUT_PAGES)
        commands = [(*words, f"seed={seed}") for seed in range(rng.choice((2, 3)))]
        yield from _all_of(place, shared, commands, delay)
    else:
        yield from check(place.run(*RATINGS), (0,))
        yield from _as_alone(place, (name, LATEST), delay)
    yield from place.left(place.work, place.cache)


def _one_of(
    place: ArchiveOrFolder, shared: Path, commands: list[tuple[str, ...]], delay: float, busy: str
) -> Iterator[Failure]:
    """One of the commands works, the others are told so, or come when it is done."""
    where = f"{len(commands)} times at once"
    done = _together(place, commands, delay)
    for each in done:
        yield from check(each, (0, 1), where)
        if each.status == 1 and busy not in each.err:
            yield Failure("differences", f"{where}: {each.describe()}")
    if all(each.status for each in done):
        yield Failure("differences", f"{where}: none of them worked")
    yield from _compared(place, shared, commands[:1], where)


def _all_of(place: ArchiveOrFolder, shared: Path, commands: list[tuple[str, ...]], delay: float) -> Iterator[Failure]:
    """All commands work."""
    where = f"{len(commands)} commands at once"
    for each in _together(place, commands, delay):
        yield from check(each, (0,), where)
    yield from _compared(place, shared, commands, where)


def _as_alone(place: ArchiveOrFolder, words: tuple[str, ...], delay: float) -> Iterator[Failure]:
    """The same command twice at once writes what it writes alone."""
    where = f"{words[0]} twice at once"
    for each in _together(place, [words] * 2, delay):
        yield from check(each, (0,), where)
    found = results(place.work / "runs")
    yield from check(place.run(*words), (0,), f"{where}, then alone")
    for text in differences(results(place.work / "runs"), found):
        yield Failure("differences", f"{where}: {text}")


def _without_lock(place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """While one process trains somebody removes its lock: a second one must not spoil what it writes."""
    where = "the lock is removed while a process trains"
    first = Child((*RATINGS, "epochs=40"), place)
    deadline = time.monotonic() + 20
    while not (locks := list((place.work / "runs").glob("*/*/last.pt"))) and time.monotonic() < deadline:
        time.sleep(0.005)
    for found in locks:
        (found.parent / ".lock").unlink(missing_ok=True)
    second = place.run(*RATINGS, "epochs=40")
    one = first.wait()
    yield from check(one, (0, 1), where)
    yield from check(second, (0, 1), where)
    yield from check(place.run(*RATINGS, "epochs=40"), (0,), f"{where}, and again")
    yield from _compared(place, shared, [(*RATINGS, "epochs=40")], where)


def _together(place: ArchiveOrFolder, commands: list[tuple[str, ...]], delay: float) -> list[Done]:
    children = []
    for words in commands:
        children.append(Child(words, place))
        time.sleep(delay)
    return [child.wait() for child in children]


def _compared(place: ArchiveOrFolder, shared: Path, commands: list[tuple[str, ...]], where: str) -> Iterator[Failure]:
    """Compare with the same commands, one after the other."""
    name = hashlib.sha256(repr(commands).encode()).hexdigest()[:8]
    expected: dict[str, Any] = shared_value(shared, name, lambda folder: _expected(folder, commands))
    for text in differences(expected, results(place.work / "runs")):
        yield Failure("differences", f"{where}: {text}")


def _expected(folder: Path, commands: list[tuple[str, ...]]) -> dict[str, Any]:
    place = ArchiveOrFolder(folder / "place")
    place.fill(_data(folder))
    for words in commands:
        done = place.run(*words)
        assert done.status == 0, done.describe()
    return results(place.work / "runs")


def _data(folder: Path) -> Path:
    (folder / "samples").mkdir()
    write_samples(folder / "samples")
    return folder / "samples"
