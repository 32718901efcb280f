"""Machines that are not as one expects: nobody's user, no home, a clock that jumps, streams that are closed or full.

Where a run can go on it does, with the same result; where it cannot, it ends with a sentence.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY
from tests.hostile.harness import ArchiveOrFolder, Failure, check, shared_value
from tests.hostile.results import differences, results
from tests.hostile.samples import TRAINED, write_samples

NOBODY = 54_321
LATEST = "runs/latest"
RUN = (*TRAINED["ratings"], "epochs=1", "log.progress=plain")
USES: tuple[tuple[str, ...], ...] = (
    ("show", LATEST),
    ("report", LATEST),
    ("export", LATEST),
    ("predict", LATEST, "--user", "1"),
    ("compare", LATEST, "other"),
    ("info",),
    ("--help",),
)


@dataclass(frozen=True)
class Surrounding:
    """One thing that is unusual."""

    before: Callable[[], object] = lambda: None
    """Called in the process that is to find it so."""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    prepare: Callable[[ArchiveOrFolder], object] = lambda place: None
    must_work: bool = True
    """Whether a run can go on."""
    as_nobody: bool = False


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _give_away(place: ArchiveOrFolder) -> None:
    for path in [place.root, *place.root.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def _keep_work(place: ArchiveOrFolder) -> None:
    _give_away(place)
    os.chown(place.work, 0, 0)
    place.work.chmod(0o755)


def _keep_cache(place: ArchiveOrFolder) -> None:
    _give_away(place)
    os.chown(place.cache, 0, 0)
    place.cache.chmod(0o755)


def _hide_runs(place: ArchiveOrFolder) -> None:
    _give_away(place)
    runs = place.work / "runs"
    runs.mkdir()
    runs.chmod(0o000)


def _close(descriptor: int) -> Callable[[], None]:
    def before() -> None:
        os.close(descriptor)
        setattr(sys, "stdout" if descriptor == 1 else "stderr", None)  # as Python finds it

    return before


def _redirect(descriptor: int, path: str) -> Callable[[], None]:
    def before() -> None:
        opened = os.open(path, os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)

    return before


def _jump() -> None:
    """A clock that goes back a year, forward ten, and never the same way twice."""
    real, clock = time.time, random.Random(0)
    time.time = lambda: real() + clock.choice((-3.2e7, -86_400.0, -1.0, 0.0, 60.0, 3.2e8))
    time.time_ns = lambda: int(time.time() * 1e9)


def _ascii() -> None:
    sys.stdout = os.fdopen(1, "w", encoding="ascii")
    sys.stderr = os.fdopen(2, "w", encoding="ascii", errors="backslashreplace")


def _leave() -> None:
    """The working directory is removed while it is used."""
    gone = Path.cwd() / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()


NO_HOME: dict[str, str | None] = {"HOME": None, "DLRUNNER_CACHE": None, "XDG_CACHE_HOME": None}
SURROUNDINGS = {
    "nobody": Surrounding(_become_nobody, {}, _give_away, as_nobody=True),
    "stdout closed": Surrounding(_close(1)),
    "a clock that jumps": Surrounding(_jump),
    "no home": Surrounding(environment=NO_HOME),
    "stdout full": Surrounding(_redirect(1, "/dev/full")),
    "nobody without a home": Surrounding(_become_nobody, NO_HOME, _give_away, must_work=False, as_nobody=True),
    "a cache that nobody may write": Surrounding(_become_nobody, {}, _keep_cache, as_nobody=True),
    "a working directory that nobody may write": Surrounding(_become_nobody, {}, _keep_work, must_work=False, as_nobody=True),
    "runs that nobody may read": Surrounding(_become_nobody, {}, _hide_runs, must_work=False, as_nobody=True),
    "stderr closed": Surrounding(_close(2)),
    "stderr full": Surrounding(_redirect(2, "/dev/full")),
    "a home that is not there": Surrounding(environment={**NO_HOME, "HOME": "/nosuch/home"}, must_work=False),
    "a home that is a file": Surrounding(environment={**NO_HOME, "HOME": "/dev/null"}, must_work=False),
    "an empty home": Surrounding(environment={**NO_HOME, "HOME": ""}, must_work=False),
    "a cache that is a file": Surrounding(environment={"DLRUNNER_CACHE": "/dev/null"}),
    "a cache beneath a file": Surrounding(environment={"DLRUNNER_CACHE": "/dev/null/x"}),
    "a cache of nobody's home": Surrounding(environment={"DLRUNNER_CACHE": "~nosuch/x"}, must_work=False),
    "data of nobody's home": Surrounding(environment={"DLRUNNER_DATA": "~nosuch/x"}, must_work=False),
    "no temporary folder": Surrounding(environment={"TMPDIR": "/nosuch"}),
    "ascii": Surrounding(_ascii, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
    "a narrow terminal": Surrounding(environment={"COLUMNS": "1", "TERM": "dumb"}),
    "a working directory that is gone": Surrounding(_leave, must_work=False),
}  # fmt: skip
COUNT = len(SURROUNDINGS)


def attempt(number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """Train in one surrounding, and use the run there."""
    name, found = list(SURROUNDINGS.items())[number % len(SURROUNDINGS)]
    if found.as_nobody and not (os.geteuid() == 0 and _readable_by_all(place.root)):
        return
    expected: dict[str, Any] = shared_value(shared, "usual", _usual)
    place.fill(shared / "usual" / "data")
    place.temporary.chmod(0o777)
    found.prepare(place)
    more: dict[str, Any] = {"before": found.before, "environment": dict(found.environment)}
    done = place.run(*RUN, **more)
    yield from check(done, (0,) if found.must_work else (0, 1, 2), name) if name != "stderr closed" else ()
    if done.status == 0:
        kept = {key: value for key, value in expected.items() if not key.startswith(("export", "report"))}
        made = {
            key: value
            for key, value in results(place.work / "runs").items()
            if not key.startswith(("export", "report"))
        }
        for text in differences(kept, made):
            yield Failure("differences", f"{name}: {text}")
    if (place.work / LATEST).exists():
        shutil.copytree(place.work / LATEST, place.work / "other")
    for words in USES:
        done = place.run(*words, **more)
        # What was to be printed is lost where nothing can be printed: that may be an error, and may go unsaid.
        allowed = (0,) if found.must_work and "std" not in name else (0, 1, 2)
        failures = check(done, allowed, name)
        yield from (failure for failure in failures if "without a sentence" not in failure.text or "std" not in name)
    yield from place.left(place.work, place.cache)


def _usual(folder: Path) -> dict[str, Any]:
    place = ArchiveOrFolder(folder / "place")
    (folder / "data").mkdir()
    write_samples(folder / "data")
    place.fill(folder / "data")
    done = place.run(*RUN)
    assert done.status == 0, done.describe()
    return results(place.work / "runs")


def _readable_by_all(root: Path) -> bool:
    """Tell whether another user could read dlrunner, Python and this attempt's folder."""
    paths = [root.resolve(), REPOSITORY, Path(sys.executable).resolve(), Path(sys.prefix).resolve()]
    return all(path.stat().st_mode & 0o5 for start in paths for path in [start, *start.parents])
