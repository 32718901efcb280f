"""Commands that are ended at any moment and given again: the results are those of an unbroken run, bit for bit.

A third of them is ended after a random time, the others before a random change of a file (a file is opened for writing,
synced, renamed, removed), where most can go wrong.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.harness import ArchiveOrFolder, Child, Failure, check, shared_value
from tests.hostile.results import content, differences, results
from tests.hostile.samples import FILES, TRAINED, WITHOUT_PAGES, write_samples

COUNT = 200
RUN = "runs/latest"
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDED = {signal.SIGKILL: (-9, 0), signal.SIGTERM: (143, -15, 0), signal.SIGINT: (130, -2, 0)}
"""Statuses of a command that a signal has ended, or that was over before."""


@dataclass(frozen=True)
class Scenario:
    """A command to break."""

    kind: str
    """Of the data."""
    words: tuple[str, ...]
    first: tuple[tuple[str, ...], ...] = ()
    """Commands that are run before, in every attempt's starting folder."""
    whole: str = ""
    """A file or folder that is there before and must be whole whenever the command ends."""


RATINGS = (*TRAINED["ratings"], "epochs=2", *WITHOUT_PAGES)
SWEEP = ("-m", *RATINGS, "epochs=1", "optim.lr=0.01,0.02")
SEARCH = ("-m", "hydra/sweeper=optuna", *RATINGS, "epochs=1", "optim.lr=interval(0.01,0.02)", "sweep.trials=2")
TABLE = tuple(word for word in TRAINED["table"] if not word.startswith("model."))
FROZEN_FIRST = (
    "epochs=null",
    "phases=[{epochs: 1, freeze_to: -1, task: {precompute: true, augment: false}}, {epochs: 1, freeze_to: 1}]",
)
FEATURES = ("freeze_to=-1", "task.precompute=true", "task.augment=false")
TASKS = {
    name: Scenario(name, (*words, "epochs=3", "trainer.checkpoint_minutes=0.001", *WITHOUT_PAGES))
    for name, words in TRAINED.items()
}
PHASES = (
    "epochs=null",
    "phases=[{epochs: 1, freeze_to: 1}, {epochs: 2, lr: [0.01, 0.02], schedule: cosine, new_optimizer: true}]",
)
EARLY = ("epochs=null", "phases=[{epochs: 3, lr: 0.2}, {epochs: 2, lr: 0.01}]", "trainer.early_stopping=1")
NETS = ("model=blend", "model.nets=[{hidden: [8]}, {hidden: [4], exclude: [city], dropouts: [0.1]}]")
CHOSEN = ("task=collab", "data.path=many.csv", "trainer.num_threads=1", "epochs=1", "model.factors=4")
SHORT = ("trainer.checkpoint_minutes=0.001", *WITHOUT_PAGES)
OTHERS = {
    "first export": Scenario("ratings", ("export", RUN), (RATINGS,)),
    "export again": Scenario("ratings", ("export", RUN), (RATINGS, ("export", RUN)), whole="export"),
    "report again": Scenario("ratings", ("report", RUN), (RATINGS, ("report", RUN)), whole="report.html"),
    "sweep given again": Scenario("ratings", SWEEP, (SWEEP,)),
}
SLOW = {
    "phases": Scenario("ratings", (*TRAINED["ratings"], *PHASES, *SHORT)),
    "phases after early stopping": Scenario("ratings", (*TRAINED["ratings"], *EARLY, *SHORT)),
    "phases of images": Scenario("pictures", (*TRAINED["pictures"], *FROZEN_FIRST, *SHORT)),
    "blend": Scenario("table", (*TABLE, *NETS, "epochs=2", "ensemble=2", *SHORT)),
    "views": Scenario("pictures", (*TRAINED["pictures"], "epochs=1", "task.tta=2", "ensemble=2", *SHORT)),
    "choice of settings": Scenario("many ratings", (*CHOSEN, *SHORT)),
    "cycles": Scenario("ratings", (*RATINGS, "epochs=3", "schedule=cosine", "schedule.cycle_len=1")),
    "ensemble": Scenario("ratings", (*RATINGS, "ensemble=2")),
    "features": Scenario("pictures", (*TRAINED["pictures"], "epochs=2", *FEATURES, *WITHOUT_PAGES)),
    "pages": Scenario("ratings", (*TRAINED["ratings"], "epochs=1", "log.progress=none")),
    "sweep": Scenario("ratings", SWEEP),
    "sweep half done": Scenario("ratings", SWEEP, (("-m", *RATINGS, "epochs=1", "optim.lr=0.01"),)),
    "search": Scenario("ratings", SEARCH),
}
SCENARIOS = {**TASKS, **OTHERS, **SLOW}
ORDER = [*TASKS, *OTHERS, *TASKS, *OTHERS, *SCENARIOS, *OTHERS]
"""The first tenth needs few starting folders; then comes what takes longer."""


@dataclass(frozen=True)
class Reference:
    """An unbroken command."""

    seconds: float
    operations: int
    result: dict[str, Any]


def attempt(number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """Break one command, give it again, and compare."""
    name = ORDER[number % len(ORDER)]
    scenario = SCENARIOS[name]
    known: Reference = shared_value(shared, name.replace(" ", "-"), lambda folder: _unbroken(folder, scenario))
    place.fill(shared / name.replace(" ", "-") / "start")
    sent = rng.choice(SIGNALS)
    if rng.random() < 1 / 3:
        moment = rng.uniform(0, 1.1 * known.seconds)
        where = f"{name}: {sent.name} after {moment:.3f} s"
        child = Child(scenario.words, place)
        time.sleep(moment)
        child.send(sent)
    else:
        operation = rng.randrange(1, known.operations + 1)
        where = f"{name}: {sent.name} before change {operation} of {known.operations}"
        child = Child(scenario.words, place, before=lambda: Changes(place.root, (operation, sent)))
    broken = child.wait()
    yield from check(broken, ENDED[sent], where)
    if scenario.whole:
        kept = known.result[scenario.whole]
        if content(place.work / "runs" / "latest" / scenario.whole) != kept:
            yield Failure("differences", f"{where}: {scenario.whole}, which was there before, is not whole")
    _let_time_pass(place)
    again = place.run(*scenario.words)
    yield from check(again, (0,), f"{where}, again")
    if again.status == 0:
        for text in differences(known.result, results(place.work / "runs")):
            yield Failure("differences", f"{where}: {text}")
    yield from place.left(place.work, place.cache)


class Changes:
    """Counts what a process changes in a folder, and sends it a signal before one of these changes.

    Args:
        root: only what lies in it counts.
        at: the number of a change, and the signal.
        told: is called with the number so far, after each.
    """

    def __init__(
        self, root: Path, at: tuple[int, int] | None = None, told: Callable[[int], object] = lambda count: None
    ) -> None:
        self.root, self.at, self.told, self.count = str(root), at, told, 0
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self._change()
            sync(descriptor)

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"):
            path = arguments[0]
        else:
            return
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if isinstance(path, str) and (path.startswith(self.root) or not path.startswith("/")):
            self._change()

    def _change(self) -> None:
        self.count += 1
        self.told(self.count)
        if self.at and self.count == self.at[0]:
            os.kill(os.getpid(), self.at[1])


def _unbroken(folder: Path, scenario: Scenario) -> Reference:
    """Make the starting folder, run the command there without a break, and say what came of it."""
    place = ArchiveOrFolder(folder / "place")
    place.work.mkdir()
    write_samples(folder / "place" / "work")
    for path in place.work.iterdir():
        if path.name not in FILES[scenario.kind]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for words in scenario.first:
        done = place.run(*words)
        assert done.status == 0, done.describe()
    shutil.copytree(place.work, folder / "start", symlinks=True)
    shutil.rmtree(place.cache)
    place.cache.mkdir()
    counter = folder / "count"
    done = place.run(
        *scenario.words, before=lambda: Changes(place.root, told=lambda count: _write_count(counter, count))
    )
    assert done.status == 0, done.describe()
    result = results(place.work / "runs")
    place.remove()
    return Reference(done.seconds, int(counter.read_text()), result)


def _write_count(path: Path, count: int) -> None:
    with path.open("w") as file:  # not counted itself: it lies in no attempt's folder
        file.write(str(count))


def _let_time_pass(place: ArchiveOrFolder) -> None:
    """Make temporary files old: some are left alone as long as another process might still write them."""
    old = time.time() - 2 * 86_400
    for folder in (place.work, place.cache):
        for path in folder.rglob(".*"):
            os.utime(path, (old, old), follow_symlinks=False)
