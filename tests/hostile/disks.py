"""Disks that are full at every stage of a run: one sentence, nothing damaged, and with room the command succeeds.

As root a file system in memory of the given size; otherwise a limit on the size of each file.
"""

from __future__ import annotations

import random
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.harness import ArchiveOrFolder, Failure, check, shared_value
from tests.hostile.results import differences, results
from tests.hostile.samples import TRAINED, WITHOUT_PAGES, write_samples

SIZES = tuple(round(4096 * 1.55**step / 4096) * 4096 for step in range(15))
"""From 4 KiB to 1.8 MB; a small run takes some 100 kB."""
USES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("runs", "language", (*TRAINED["language"], "epochs=2", *WITHOUT_PAGES), "runs"),
    ("runs with a page", "ratings", (*TRAINED["ratings"], "epochs=1", "log.progress=none"), "runs"),
    ("cache", "pictures", (*TRAINED["pictures"], "epochs=1", *WITHOUT_PAGES), "cache"),
    ("cache and runs", "sales", (*TRAINED["sales"], "epochs=1", *WITHOUT_PAGES), "both"),
)
COUNT = 2 * len(SIZES)


def attempt(number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """Run on a small disk, then with room."""
    size = SIZES[number * 4 % len(SIZES)]  # a tenth of the attempts has small and large ones
    name, kind, words, full = USES[(number + number // len(USES)) % len(USES)]
    expected: dict[str, Any] = shared_value(shared, kind, lambda folder: _unbroken(folder, words))
    place.fill(shared / kind / "place" / "data")
    disk = place.root / "disk"
    disk.mkdir()
    runs = (disk if full in ("runs", "both") else place.work) / "runs"
    environment: dict[str, str | None] = {"DLRUNNER_CACHE": str(disk / "cache")} if full in ("cache", "both") else {}
    where = f"{name} on {size:,} bytes"
    is_mounted = _mount(disk, size)
    words = (*words, f"runs_dir={runs}")
    try:
        before: Callable[[], object] | None = None if is_mounted else lambda: _limit_files(size)
        done = place.run(*words, environment=environment, before=before)
        yield from check(done, (0, 1), where)
        if done.status == 1 and sum(line.startswith("dlrun: ") for line in done.err.splitlines()) != 1:
            yield Failure("differences", f"{where}: not one sentence: {done.err[-400:]!r}")
        for failure in place.left(disk):
            yield Failure(failure.fault, f"{where}: {failure.text}")
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        done = place.run(*words, environment=environment)
        yield from check(done, (0,), f"{where}, then with room")
        if done.status == 0:
            found = results(runs)
            found.pop("report.html", None)  # a page that could not be written ends no run
            for text in differences(expected, found):
                yield Failure("differences", f"{where}, then with room: {text}")
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def _unbroken(folder: Path, words: tuple[str, ...]) -> dict[str, Any]:
    place = ArchiveOrFolder(folder / "place")
    place.work.mkdir()
    write_samples(place.work)
    subprocess.run(["cp", "-r", str(place.work), str(folder / "place" / "data")], check=True)
    done = place.run(*words)
    assert done.status == 0, done.describe()
    found = results(place.work / "runs")
    found.pop("report.html", None)
    return found


def _mount(folder: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
