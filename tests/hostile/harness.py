"""What all kinds of attempts share: a place of its own, the command line in a process of its own, counts of what failed.

Every attempt draws from a generator of its own, seeded with the seed, its kind and its number, so that it can be
repeated alone: `python -m tests.hostile --seed 0 --only kills --number 17`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import multiprocessing
import os
import pickle
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, cast

from dlrunner import data, models, tasks
from dlrunner import inference as trained
from dlrunner import reporting as looks
from dlrunner.cli import main
from dlrunner.cli import sweep as sweeping  # noqa: F401  forked processes find it imported

for package in (data, looks, models, tasks, trained):  # a first import of matplotlib writes into the home folder
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

Fault = Literal["differences", "tracebacks", "outside", "left"]
KINDS = ("kills", "disks", "concurrency", "requests", "folders", "archives", "surroundings")
FAULTS: tuple[Fault, ...] = ("differences", "tracebacks", "outside", "left")
LONGEST = 90.0
"""Seconds that one command may take before it is ended and counted as a difference."""

OUR_MISTAKES = re.compile(
    r"Traceback \(most recent call last\)|DLRUNNER_TRACEBACK=1|--- Logging error ---|Exception ignored in|Fatal Python"
)
TEMPORARY = re.compile(r"\..+\.(?:[0-9a-f]{8,}|[a-z0-9_]{8}|\d+)|tmp[a-z0-9_]{8}|\.replay-.+")
"""Names under which files are written before they are renamed."""


@dataclass(frozen=True)
class Failure:
    """What went wrong in an attempt."""

    fault: Fault
    text: str


@dataclass
class Tally:
    """Counts of one kind."""

    kind: str
    attempts: int = 0
    seconds: float = 0.0
    failures: list[tuple[int, Failure]] = field(default_factory=list)

    def count(self, fault: Fault) -> int:
        """Return the number of attempts with a fault."""
        return len({number for number, failure in self.failures if failure.fault == fault})

    def line(self) -> str:
        """Return the counts in one line."""
        counts = "".join(f"{self.count(fault):>13}" for fault in FAULTS)
        return f"{self.kind:<13}{self.attempts:>9}{counts}{self.seconds:>10.1f}"


HEADER = (
    f"{'kind':<13}{'attempts':>9}{'differences':>13}{'tracebacks':>13}{'outside':>13}{'left behind':>13}{'seconds':>10}"
)


class Kind(Protocol):
    """A module with one kind of attempts."""

    COUNT: int

    def attempt(self, number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
        """Try once; `shared` is a folder for what several attempts use."""
        ...


@dataclass
class Done:
    """A command that has ended."""

    words: tuple[str, ...]
    status: int
    out: str
    err: str
    seconds: float
    operations: int = 0
    """Changes of files it has made, or was about to make; counted where `run` was asked to."""

    def describe(self) -> str:
        """Return the command, its status and the end of what it printed."""
        said = " | ".join((self.err or self.out).strip().splitlines()[-4:])
        return f"`dlrun {' '.join(self.words)}` ended with {self.status}: {said[:600]}"


class Child:
    """The command line in a process that is forked from this one: torch is imported already.

    Args:
        words: what is typed.
        place: the working directory, HOME, cache and temporary files.
        before: is called in the new process before the command line.
        environment: variables to set; None takes one away.
    """

    def __init__(
        self,
        words: Sequence[str],
        place: ArchiveOrFolder,
        before: Callable[[], object] | None = None,
        environment: dict[str, str | None] | None = None,
    ) -> None:
        self.words, self.began = tuple(words), time.monotonic()
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._perform(place, before, environment or {})

    def _perform(
        self, place: ArchiveOrFolder, before: Callable[[], object] | None, environment: dict[str, str | None]
    ) -> None:
        """Do what was typed and leave, whatever happens: this process must never go on as its parent does."""
        status = 70
        try:
            _enter(place, environment, [file.fileno() for file in self._files])
            if before:
                before()
            status = main(self.words)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
            os._exit(status)

    def poll(self) -> int | None:
        """Return the exit status (negative: the signal that ended it), or None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def send(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def wait(self, longest: float = LONGEST) -> Done:
        """Wait for the end; what takes too long is killed, and its status is 124."""
        while (status := self.poll()) is None:
            if time.monotonic() - self.began > longest:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                status = self._status = 124
                break
            time.sleep(0.002)
        seconds = time.monotonic() - self.began
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(os.pread(file.fileno(), 1_000_000, 0).decode(errors="backslashreplace"))
            file.close()
        return Done(self.words, status, texts[0], texts[1], seconds)


def _enter(place: ArchiveOrFolder, environment: dict[str, str | None], streams: Sequence[int]) -> None:
    os.chdir(place.work)
    os.environ.update(place.environment)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    tempfile.tempdir = None
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(stream, descriptor)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")  # as Python opens it
    sys.path.insert(0, str(place.work))
    sys.modules["__main__"] = ModuleType("__main__")  # the jobs of a sweep would import it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forkserver._forkserver.__init__()  # type: ignore[misc]  # the parent's is nobody's child here


class ArchiveOrFolder:
    """The folders of one attempt: a working directory, a home, a cache, temporary files, and a neighbour to leave alone.

    Args:
        root: a new folder that holds them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work, self.home, self.cache = root / "work", root / "home", root / "cache"
        self.temporary, self.neighbour = root / "tmp", root / "neighbour"
        for folder in (root, self.home, self.cache, self.temporary, self.neighbour):
            folder.mkdir(exist_ok=True)
        self.canary.write_text("alive")
        self.remember()

    @property
    def canary(self) -> Path:
        """A file in a neighbouring folder that no command may change."""
        return self.neighbour / "canary"

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this attempt finds set."""
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "DLRUNNER_CACHE": str(self.cache),
            "DLRUNNER_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def remember(self) -> None:
        """Take what the neighbour and the home hold now for what they should hold at the end."""
        self._before = {name: _listing(self.root / name) for name in ("neighbour", "home")}

    def fill(self, template: Path) -> None:
        """Make the working directory a copy of a folder."""
        shutil.copytree(template, self.work, symlinks=True)

    def run(self, *words: str, longest: float = LONGEST, **more: Any) -> Done:
        """Run a command to its end; see `Child` for the arguments."""
        return Child(words, self, **more).wait(longest)

    def outside(self) -> Iterator[Failure]:
        """Tell what was written into the neighbour or the home, or started by a text that should have been read."""
        for name, known in self._before.items():
            if changed := sorted(set(_listing(self.root / name).items()) ^ set(known.items())):
                yield Failure("outside", f"{name}: {', '.join(path for path, _ in changed)[:300]}")
        known_names = {"work", "home", "cache", "tmp", "neighbour", "disk"}
        for path in self.root.iterdir():
            if path.name not in known_names:
                yield Failure("outside", f"{path.name} beside the working directory")

    def left(self, *folders: Path) -> Iterator[Failure]:
        """Tell which temporary files there are, and which processes have not ended."""
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if TEMPORARY.fullmatch(path.name):
                    yield Failure("left", str(path.relative_to(self.root)))
        deadline = time.monotonic() + 10
        while pids := self.processes():
            if time.monotonic() > deadline:
                yield Failure("left", f"{len(pids)} processes that still run in the working directory")
                break
            time.sleep(0.05)

    def processes(self) -> list[int]:
        """Return the processes whose working directory is this attempt's."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(self.root):
                    found.append(int(entry.name))
        return found

    def remove(self) -> None:
        """End what still runs here, and remove everything."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for folder in self.root.rglob("*"):
            if folder.is_dir() and not folder.is_symlink():
                with contextlib.suppress(OSError):
                    folder.chmod(0o755)
        shutil.rmtree(self.root, ignore_errors=True)


def check(done: Done, allowed: Sequence[int], where: str = "") -> Iterator[Failure]:
    """Tell how a command ended otherwise than it should: another status, a traceback, an error without a sentence."""
    text = f"{where}: {done.describe()}" if where else done.describe()
    if found := OUR_MISTAKES.search(done.out + done.err):
        yield Failure("tracebacks", f"{text} [{found[0]}]")
    elif done.status == 124 and 124 not in allowed:
        yield Failure("differences", f"{text} (was not over after {done.seconds:.0f} s)")
    elif done.status not in allowed:
        yield Failure("differences", f"{text} (expected {' or '.join(map(str, allowed))})")
    elif done.status in (1, 2) and not (done.err + done.out).strip():
        yield Failure("differences", f"{text} (without a sentence)")


def shared_value(folder: Path, name: str, make: Callable[[Path], Any]) -> Any:
    """Return what `make` returned for a folder of this name; the first process that asks makes it.

    Args:
        folder: where it lies, for all processes.
        name: of a folder in it, which `make` fills.
        make: returns what is kept with pickle.
    """
    file = folder / f"{name}.pickle"
    with (folder / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            place = folder / name
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            file.write_bytes(pickle.dumps(make(place)))
    return pickle.loads(file.read_bytes())


def run_kind(
    name: str, kind: Kind, seed: int, numbers: Sequence[int], root: Path, workers: int, longest: float | None = None
) -> Tally:
    """Make the attempts of one kind.

    Args:
        name: of the kind.
        kind: its module.
        seed: of all attempts.
        numbers: which attempts.
        root: an existing folder for everything.
        workers: processes side by side; 1: this one.
        longest: seconds after which no further attempt is begun.
    """
    tally, began = Tally(name), time.monotonic()
    shared = root / f"{name}-shared"
    shared.mkdir()
    deadline = began + longest if longest else None
    if workers == 1:
        made = [_make(name, kind, seed, numbers, root, deadline)]
    else:
        parts = [
            list(numbers)[start::16] for start in range(min(16, len(numbers)))
        ]  # some take much longer than others
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
            futures = [pool.submit(_make_by_name, name, seed, part, root, deadline) for part in parts]
            made = [future.result() for future in futures]
    for attempts, failures in made:
        tally.attempts += attempts
        tally.failures += failures
    tally.failures.sort(key=lambda pair: pair[0])
    tally.seconds = time.monotonic() - began
    shutil.rmtree(shared, ignore_errors=True)
    return tally


def kind_of(name: str) -> Kind:
    """Return the module of a kind."""
    return cast(Kind, importlib.import_module(f"tests.hostile.{name}"))


Made = tuple[int, list[tuple[int, Failure]]]


def _make_by_name(name: str, seed: int, numbers: Sequence[int], root: Path, deadline: float | None) -> Made:
    return _make(name, kind_of(name), seed, numbers, root, deadline)


def _make(name: str, kind: Kind, seed: int, numbers: Sequence[int], root: Path, deadline: float | None) -> Made:
    failures: list[tuple[int, Failure]] = []
    for made, number in enumerate(numbers):
        if deadline and time.monotonic() > deadline:
            return made, failures
        place = ArchiveOrFolder(root / f"{name[0]}{number}")  # short: sockets have paths of at most 107 characters
        try:
            failures += [
                (number, failure)
                for failure in kind.attempt(
                    number, random.Random(f"{seed} {name} {number}"), place, root / f"{name}-shared"
                )
            ]
            failures += [(number, failure) for failure in place.outside()]
        finally:
            place.remove()
    return len(numbers), failures


def _listing(folder: Path) -> dict[str, str]:
    """Return what each file of a folder holds, by its path."""
    return {
        str(path.relative_to(folder)): path.read_text(errors="replace") if path.is_file() else ""
        for path in folder.rglob("*")
    }
