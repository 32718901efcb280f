"""A run that is stopped anywhere and given again ends with the same numbers and weights, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dlrunner.comparison.diff import NOT_COMPARED
from dlrunner.runs.checkpoints import load_weights_file, weights_digest
from tests.conftest import QUICK, ratings_table, start

STALLING = '''
"""A task that says where it is and waits there, when the environment asks for it."""
import os, time
from pathlib import Path
from dlrunner.files import atomic
from dlrunner.tasks.collab.task import Collab

PLACE = os.environ.get("STALL", "")

def stall(place):
    if place == PLACE and not Path("reached").exists():
        Path("reached").touch()
        for _ in range(600):
            if Path("go").exists():
                return
            time.sleep(0.02)

class Stalling(Collab):
    steps = 0

    def batches(self, split, epoch, phase, start=0):
        stall(f"set-up of {split}")
        for batch in super().batches(split, epoch, phase, start):
            if split == "train":
                Stalling.steps += 1
                stall(f"step {Stalling.steps}")
            elif epoch == 0:
                stall(f"evaluation {Stalling.steps}")
            yield batch

class Sized:
    """A loader must know its length."""

    def __init__(self, loader, batches):
        self.loader, self.generator = loader, batches

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return self.generator

def batches(self, split, epoch, phase, start=0, generate=Stalling.batches):
    return Sized(Collab.batches(self, split, epoch, phase, start), generate(self, split, epoch, phase, start))

Stalling.batches = batches

write = atomic.os.fsync
count = 0

def fsync(descriptor):
    global count
    count += 1
    stall(f"write {count}")
    write(descriptor)

atomic.os.fsync = fsync

read = Collab.notes

def notes(self):
    stall("reading")
    return read(self)

Stalling.notes = notes
'''

# 1,200 training rows in batches of 64 are 19 steps an epoch. Dropout makes every step draw random numbers.
WORDS = (
    "task=collab", "plugins=[stalling]", "task._target_=stalling.Stalling", "data.path=my.csv", "model=net",
    "epochs=3", "batch_size=64", "schedule=cosine", "schedule.cycle_len=1", "schedule.cycle_mult=2", *QUICK,
)  # fmt: skip


def prepare(folder: Path) -> Path:
    folder.mkdir()
    (folder / "stalling.py").write_text(STALLING)
    ratings_table().to_csv(folder / "my.csv", index=False)
    return folder


def result(folder: Path) -> tuple[list[dict[str, Any]], str, str]:
    """Return the epochs without their times, and the digests of the last and the best weights."""
    (run,) = (path for path in (folder / "runs" / "collab").iterdir() if path.is_dir())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((run / "summary.json").read_text())["status"] == "done"
    digests = [weights_digest(load_weights_file(run / name)["model"]) for name in ("last.pt", "best.pt")]
    return [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in rows], digests[0], digests[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str, str]:
    folder = prepare(tmp_path_factory.mktemp("unbroken") / "run")
    process = start(*WORDS, cwd=folder)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found = result(folder)
    assert len(found[0]) == 3
    return found


PICK = random.Random(4)
STEPS = [f"step {PICK.randint(2, 57)}" for _ in range(6)]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CASES = [
    *zip(SIGNALS, STEPS[:3], strict=True),
    (signal.SIGKILL, "evaluation 38"),
    # Each epoch writes best.pt, last.pt and metrics.jsonl, two syncs each; some also cycle-N.pt.
    *[(signal.SIGKILL, f"write {number}") for number in (7, 13, 18)],
    (signal.SIGTERM, "write 12"),
    (signal.SIGINT, "reading"),
]
MORE = [  # slow: three processes each; other moments of the same kinds
    *zip(SIGNALS, STEPS[3:], strict=True),
    *[(sent, "evaluation 38") for sent in SIGNALS[1:]],
    *[(signal.SIGKILL, f"write {number}") for number in (10, 16)],
    (signal.SIGTERM, "reading"),
]


@pytest.mark.parametrize(
    ("sent", "place"),
    [*CASES, *[pytest.param(*case, marks=pytest.mark.slow) for case in MORE]],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_resumed_run_equals_an_unbroken_one(
    sent: signal.Signals, place: str, here: Path, unbroken: tuple[list[dict[str, Any]], str, str]
) -> None:
    folder = prepare(here / "broken")
    process = start(*WORDS, cwd=folder, STALL=place)
    deadline = time.monotonic() + 60
    while not (folder / "reached").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"never came to {place}"
        time.sleep(0.01)
    process.send_signal(sent)
    (folder / "go").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[sent], (out, err)
    (run,) = (path for path in (folder / "runs" / "collab").iterdir() if path.is_dir())
    if sent is signal.SIGKILL:
        assert not (run / "summary.json").exists()
    else:
        assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
        assert "the same command resumes" in err
        assert "Traceback" not in err

    had_begun = (run / "last.pt").exists()
    again = start(*WORDS, cwd=folder)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert ("resuming after epoch " in out) == had_begun
    assert result(folder) == unbroken
    assert not list(run.glob(".*.*")) or sent is signal.SIGKILL


def test_a_second_stop_after_the_first_is_taken_up_just_as_well(
    here: Path, unbroken: tuple[list[dict[str, Any]], str, str]
) -> None:
    folder = prepare(here / "broken")
    for place in ("step 15", "step 25"):  # the second process counts its own steps: 15 + 25
        for name in ("reached", "go"):
            (folder / name).unlink(missing_ok=True)
        process = start(*WORDS, cwd=folder, STALL=place)
        while not (folder / "reached").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.terminate()
        (folder / "go").touch()
        process.communicate(timeout=60)
        assert process.returncode == 143
    again = start(*WORDS, cwd=folder)
    again.communicate(timeout=120)
    assert result(folder) == unbroken


def test_what_is_compared_can_differ(here: Path, unbroken: tuple[list[dict[str, Any]], str, str]) -> None:
    folder = prepare(here / "other")
    process = start(*WORDS, "seed=1", cwd=folder)
    process.communicate(timeout=120)
    other = result(folder)
    assert other[0] != unbroken[0]
    assert other[1] != unbroken[1]
    shutil.rmtree(folder)
