"""What tests share: an own cache and working directory, small tables, the real data where it is, a time budget.

The process that hands the tests out to the workers of xdist reads this file too, and imports no torch for it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dlrunner.cli import main
from tests.budget import Budget

if TYPE_CHECKING:
    import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"

# Tests run side by side: one thread each, and results that do not depend on how many run.
os.environ["OMP_NUM_THREADS"] = "1"
gc.disable()  # until all is imported: nothing of it becomes garbage


def pytest_configure(config: pytest.Config) -> None:
    """Measure the time of the suite, once."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Budget())


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder that all workers of this test run share."""
    own = factory.getbasetemp()  # alone, its parent is that of earlier test runs too
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name


def pytest_collection_finish() -> None:
    """Prepare what all tests need.

    Forked processes find torch and dlrunner imported. What was imported and collected is left out of garbage collections:
    they took 5 % of all tests.
    """
    import torch

    from dlrunner.cli import compose  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """No network, no real data unless a test asks for it, and a cache that is thrown away."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DLRUNNER_CACHE", str(shared_folder(tmp_path_factory, "cache")))
    patch.setenv("DLRUNNER_OFFLINE", "1")
    found = os.environ.get("DLRUNNER_DATA")
    patch.setenv("REAL_DATA", str(Path(found).resolve() if found else SHARED))
    patch.delenv("DLRUNNER_DATA", raising=False)
    patch.setattr(os, "fsync", lambda descriptor: None)  # 6 % of all tests; none of them cuts the power
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, as a user would."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the real data; the test is skipped where there is none."""
    folder = Path(os.environ["REAL_DATA"])
    if not (folder / "ml-latest-small-2016-10.zip").exists():
        pytest.skip("needs real data: set DLRUNNER_DATA to a folder with ml-latest-small-2016-10.zip")
    monkeypatch.setenv("DLRUNNER_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Small finished runs, to be read only; side by side, all workers share one folder of them."""
    from tests.small_runs import SmallRuns

    return SmallRuns(shared_folder(tmp_path_factory, "small-runs"))


def ratings_table(num_users: int = 40, num_items: int = 60, num_rows: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Return ratings with planted biases, so that there is something to learn."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    pairs = rng.choice(num_users * num_items, num_rows, replace=False)
    users, items = np.divmod(pairs, num_items)
    user_bias, item_bias = rng.normal(0, 0.5, num_users), rng.normal(0, 0.7, num_items)
    raw = 3.5 + user_bias[users] + item_bias[items] + rng.normal(0, 0.3, num_rows)
    ratings = np.clip(np.round(2 * raw) / 2, 0.5, 5)
    return pd.DataFrame({"user": users + 1, "item": [f"i{item}" for item in items], "rating": ratings})


def in_file_order(values: Any) -> Any:
    """Return values of a table of ratings, whose training rows come first, in the order of the file."""
    import numpy as np

    from dlrunner.data.core.splitting import random_parts

    ordered = np.empty_like(values)
    ordered[np.argsort(random_parts(len(values), 0.2, 0.0, 42), kind="stable")] = values
    return ordered


def flats(num_rows: int = 900, seed: int = 0) -> pd.DataFrame:
    """Return rows whose targets follow from their inputs, with a little noise."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "nr": np.arange(num_rows) + 100,
            "city": rng.choice(["Bonn", "Köln", "Ulm"], num_rows),
            "rooms": rng.integers(1, 6, num_rows),
            "area": rng.normal(80, 20, num_rows).round(1),
        }
    )
    worth = 3 + 0.3 * (table["city"] == "Ulm") + 0.1 * table["rooms"] + 0.01 * table["area"]
    table["price"] = np.exp(worth + rng.normal(0, 0.05, num_rows)).round(2)
    table["dear"] = np.where(table["price"] > table["price"].median(), "yes", "no")
    table["size"] = np.select([table["area"] < 70, table["area"] < 90], ["small", "middle"], "large")
    table["big"], table["roomy"] = (table["area"] > 85).astype(int), (table["rooms"] > 3).astype(int)
    return table


@pytest.fixture
def ratings_csv(here: Path) -> Path:
    """A small ratings table in the working directory."""
    path = here / "my.csv"
    ratings_table().to_csv(path, index=False)
    return path


Dlrun = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dlrun(capfd: pytest.CaptureFixture[str]) -> Dlrun:
    """Run the command line in this process: `status, out, err = dlrun("task=collab", …)`."""

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main(words)
        except SystemExit as left:
            status = int(left.code or 0)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run


def _fork_instead(executable: bytes, words: list[str], passed: list[int]) -> int:
    """Run `python -c …` of multiprocessing in a fork, with the descriptors and signals of a new process."""
    pid = os.fork()
    if pid == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
                if descriptor > 2 and descriptor not in (*passed, nothing):
                    with contextlib.suppress(OSError):
                        os.dup2(nothing, descriptor)  # closed, pyarrow would abort when it closes its pipe in a fork
            exec(words[-1], {})
        finally:
            os._exit(0)
    return pid


class ForkedProcess:
    """A process that was forked from this one."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status (negative: the signal that killed it), or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Forked(ForkedProcess):
    """The command line in a process of its own, forked from this one: torch is imported already (3 s a start)."""

    def __init__(
        self,
        words: tuple[str, ...],
        cwd: Path,
        environment: dict[str, str],
        program: Callable[[tuple[str, ...]], int] = main,
    ) -> None:
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.chdir(cwd)
                os.environ.update(environment)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                for descriptor, file in enumerate(self._files, start=1):
                    os.dup2(file.fileno(), descriptor)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                sys.path.insert(0, str(cwd))
                signal.signal(signal.SIGINT, signal.default_int_handler)
                forkserver._forkserver.__init__()  # type: ignore  # the parent's is nobody's child here
                util.spawnv_passfds = _fork_instead  # type: ignore
                status = program(words)
            except SystemExit as left:
                status = left.code if isinstance(left.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def send_signal(self, sent: signal.Signals) -> None:
        os.kill(self.pid, sent)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for the end and return what it printed."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                for file in self._files:
                    file.close()
                raise TimeoutError(f"still running after {timeout} s")
            time.sleep(0.005)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return texts[0], texts[1]


def start(*words: str, cwd: Path, **environment: str) -> Forked:
    """Start the command line in a process of its own."""
    return Forked(words, cwd, environment)


QUICK = ("log.plots=false", "log.report=false")
