"""One run by several processes: the numbers of one process, one folder, a loss that ends all, and the way back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dlrunner.processes import World, divided, whole
from dlrunner.runs import read_history
from tests.conftest import QUICK, Dlrun

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
DRY = [f"model.{name}_dropout=0" for name in ("embedding", "input", "weight", "hidden", "output")]

TASKS = {
    "collab": ("task=collab", "data.path=my.csv", "epochs=3"),
    "rossmann": (
        *("task=rossmann", "data.source=stand-in", "epochs=1", "batch_size=257"),
        *("model=embedding_net", "model.embedding_dropout=0", "model.dropouts=[0,0]"),
    ),
    "imdb-lm": (
        *("task=imdb-lm", "data.source=stand-in", "epochs=1", "batch_size=7", "task.bptt=20", "task.ngram=0"),
        *("model.embedding=12", "model.hidden=16", "model.layers=2", *DRY, "task.valid_batch_size=5"),
    ),
    "imdb-sentiment": (
        *("task=imdb-sentiment", "data.source=stand-in", "epochs=1", "task.baseline=false"),
        *("model.embedding=12", "model.hidden=16", "model.layers=2", *DRY, "model.alpha=0", "model.beta=0"),
    ),
    "dogbreeds": (  # a small rate: a deep net whose weights start at random makes much of the last bits
        *("task=dogbreeds", "data.source=stand-in", "epochs=1", "data.size=32", "data.sample=100"),
        *("model.ps=0", "model.xtra_fc=[16]", "optim=sgd", "optim.lr=1e-4"),
    ),
}


def torchrun(here: Path, count: int, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, f"--nproc_per_node={count}", "-m", "dlrunner", *words, *QUICK],
        cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def together(here: Path, count: int, *words: str) -> tuple[int, str, str]:
    process = torchrun(here, count, *words)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def latest(here: Path, runs: str = "runs") -> Path:
    return (here / runs / "latest").resolve()


def differences(alone: list[dict[str, Any]], shared: list[dict[str, Any]]) -> dict[str, float]:
    """Return the largest relative difference of each metric."""
    assert len(alone) == len(shared)
    names = [name for name in alone[0] if name.startswith(("train/", "valid/"))]
    pairs = {name: [(a[name], b[name]) for a, b in zip(alone, shared, strict=True)] for name in names}
    return {name: max(abs(a - b) / max(abs(a), 1e-9) for a, b in values) for name, values in pairs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_have_the_metrics_of_one(task: str, dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, _, err = dlrun(*TASKS[task], "runs_dir=alone", *QUICK)
    assert status == 0, err
    status, out, err = together(here, 2, *TASKS[task])
    assert status == 0, (out, err)
    summary = json.loads((latest(here) / "summary.json").read_text())
    assert summary["num_processes"] == 2
    assert len(list((here / "runs").glob("*/*/summary.json"))) == 1
    found = differences(read_history(latest(here, "alone")), read_history(latest(here)))
    assert max(found.values()) < 2e-4, found
    assert out.count("epoch  train/loss") == 1  # one process tells


SCRIPT = """
import torch
from torch import nn
from dlrunner.model import Model
from dlrunner.processes import joined
from dlrunner.task import Batch

class Net(Model):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
                                    nn.BatchNorm1d(5, affine=False), nn.Linear(5, 2))
    def forward(self, inputs):
        return self.layers(inputs)

torch.manual_seed(0)
one, shared = Net().double(), Net().double()
shared.load_state_dict(one.state_dict())
inputs, targets = torch.randn(7, 3, 6, 6).double(), torch.randint(2, (7,))
loss = nn.functional.cross_entropy(one(inputs), targets)
loss.backward()
with joined(torch.device("cpu")) as world:
    part = slice(None, 4) if world.rank == 0 else slice(4, None)
    weight = world.size * len(targets[part]) / len(targets)
    wrapped = world.wrap(shared)
    own = nn.functional.cross_entropy(wrapped(inputs[part]), targets[part])
    (own * weight).backward()
    (mean,) = world.totals(own.detach()[None], [weight])
    gaps = [abs(mean - float(loss.detach()))]
    gaps += [float((a.grad - b.grad).abs().max()) for a, b in zip(one.parameters(), shared.parameters())]
    gaps += [float((a - b).abs().max()) for a, b in zip(one.buffers(), shared.buffers())]
    open(f"gap{world.rank}", "w").write(str(max(gaps)))
    del wrapped, own
"""


@pytest.mark.slow
def test_gradients_and_statistics_of_two_processes_are_those_of_one_in_double_precision(here: Path) -> None:
    (here / "gaps.py").write_text(SCRIPT)
    done = subprocess.run([*TORCHRUN, "--nproc_per_node=2", "gaps.py"], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(float((here / f"gap{rank}").read_text()) for rank in range(2)) < 1e-12


def test_what_is_carried_is_divided_and_joined_without_loss() -> None:
    carried = [(torch.randn(1, 7, 3), torch.randn(1, 7, 3)), (torch.randn(1, 7, 2),)]
    shares = [divided(carried, index, 3) for index in range(3)]
    assert [share[0][0].shape[1] for share in shares] == [3, 2, 2]
    again = whole(shares)
    assert all(
        torch.equal(a, b) for one, two in zip(again, carried, strict=True) for a, b in zip(one, two, strict=True)
    )
    assert divided(None, 1, 2) is None
    assert whole([None, None]) is None


def test_alone_nothing_is_shared() -> None:
    world = World()
    assert world.agree(True, False) == (True, False)
    assert world.collect(3) == [3]
    assert world.first("a") == "a"


LONG = (
    *("task=imdb-lm", "data.source=stand-in", "data.sample=400", "data.sample_valid=100", "epochs=2", "batch_size=6"),
    *("task.bptt=10", "task.ngram=0", "model.embedding=12", "model.hidden=16", "model.layers=2", *DRY),
)


def wait_until(here: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not list(here.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_and_the_same_command_goes_on_with_another_number(
    dlrun: Dlrun, here: Path
) -> None:
    process = torchrun(here, 2, *LONG)
    wait_until(here, "runs/*/*/last.pt", process)
    children = [int(pid) for pid in _children(process.pid)]
    os.kill(children[-1], signal.SIGKILL)
    killed = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert process.returncode != 0
    assert (latest(here) / "last.pt").exists()
    status, out, err = together(here, 3, *LONG)
    assert status == 0, (out, err)
    assert dlrun(*LONG, "runs_dir=alone", *QUICK)[0] == 0
    found = differences(read_history(latest(here, "alone")), read_history(latest(here)))
    assert max(found.values()) < 2e-4, found


@pytest.mark.slow
def test_a_stop_saves_this_very_step_and_one_process_goes_on(dlrun: Dlrun, here: Path) -> None:
    process = torchrun(here, 2, *LONG)
    wait_until(here, "runs/*/*/config.yaml", process)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    status, _, err = dlrun(*LONG, *QUICK)
    assert status == 0, err
    assert dlrun(*LONG, "runs_dir=alone", *QUICK)[0] == 0
    found = differences(read_history(latest(here, "alone")), read_history(latest(here)))
    assert max(found.values()) < 2e-4, found


@pytest.mark.slow
def test_a_run_that_is_done_is_shown_and_sweeps_are_refused(ratings_csv: Path, here: Path) -> None:
    words = TASKS["collab"]
    assert together(here, 2, *words)[0] == 0
    status, out, _ = together(here, 2, *words)
    assert status == 0
    assert "done already" in out
    status, _, err = together(here, 2, "-m", *words)
    assert status != 0
    assert "torchrun starts the processes of one run" in err


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
