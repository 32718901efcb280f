"""One run by several processes: results of a single process, one folder, failures and resuming."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.cli.compose import compose
from dlrunner.config.plan import plan
from dlrunner.errors import ConfigError, Interrupted, PeerLostError
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.runs.reader import read_history
from dlrunner.system.process_group import SingleProcess
from dlrunner.system.signals import StopSignals
from dlrunner.training import Trainer
from dlrunner.training.distributed import merge_hidden, split_hidden
from tests.conftest import QUICK, Dlrun, ratings_table
from tests.scaling import documented
from tests.training.ranks import Ranks, forked
from tests.training.test_devices import SMALL_TEXTS

DRY = [f"model.{name}_dropout=0" for name in ("embedding", "input", "weight", "hidden", "output")]

TASKS = {
    "collab": ("task=collab", "data.path=my.csv", "epochs=2"),
    "rossmann": (
        *("task=rossmann", "data.source=synthetic", "data.sample=1000", "epochs=1", "batch_size=257"),
        *("model=embedding_net", "model.embedding_dropout=0", "model.dropouts=[0,0]"),
    ),
    "imdb-lm": (
        *("task=imdb-lm", *SMALL_TEXTS, "epochs=1", "batch_size=7", "task.bptt=20", "task.ngram=0"),
        *("model.embedding=12", "model.hidden=16", "model.layers=2", *DRY, "task.valid_batch_size=5"),
    ),
    "imdb-sentiment": (
        *("task=imdb-sentiment", *SMALL_TEXTS, "data.sample_test=20", "epochs=1", "task.baseline=false"),
        *("model.embedding=12", "model.hidden=16", "model.layers=2", *DRY),
    ),
    "uneven texts": (  # the last process has texts of which not a word has a gradient: it must not leave the others
        *("task=text", "data.path=uneven.csv", "data.text=text", "data.target=kind", "data.tokenizer=whitespace"),
        *(
            "model=text_classifier",
            "data.min_freq=1",
            "epochs=1",
            "batch_size=8",
            "task.baseline=false",
            "model.max_len=20",
            "model.bptt=5",
        ),
        *("model.embedding=12", "model.hidden=16", "model.layers=2", *DRY),
    ),
    "dogbreeds": (  # a small rate: a deep net whose weights start at random makes much of the last bits
        *("task=dogbreeds", "data.source=synthetic", "epochs=1", "data.size=32", "data.sample=50"),
        *("data.sample_valid=20", "batch_size=20", "model.backbone=resnet18", "model.dropout=0"),
        *("model.xtra_fc=[16]", "optim=sgd", "optim.lr=1e-4"),
    ),
    "segmentation": (
        *("task=segmentation", "data.source=synthetic", "epochs=1", "data.size=32", "data.sample=30", "batch_size=7"),
        *("data.sample_valid=20", "model.backbone=resnet18", "model.channels=32", "optim=sgd", "optim.lr=1e-4"),
    ),
}


def processes(here: Path, count: int, *words: str, where: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start the processes of one run, on one machine or as one node of several."""
    options = [*(where or ("--standalone",)), f"--nproc_per_node={count}", f"--log-dir={here / 'logs'}"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *words],
        cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def torchrun(here: Path, count: int, *words: str) -> subprocess.Popen[str]:
    return processes(here, count, "-m", "dlrunner", *words, *QUICK)


def ended(process: subprocess.Popen[str], patience: float = 120) -> tuple[int, str, str]:
    """Wait for the end and return status, output and errors; processes that wait for each other are killed."""
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def latest(here: Path, runs: str = "runs") -> Path:
    """Return the run that was started last, finished or not."""
    started = (here / runs).glob("*/*/config.yaml")
    return max(started, key=lambda file: file.stat().st_mtime_ns).parent.resolve()


def differences(alone: list[dict[str, Any]], shared: list[dict[str, Any]]) -> dict[str, float]:
    """Return the largest relative difference of each metric."""
    assert len(alone) == len(shared)
    names = [name for name in alone[0] if name.startswith(("train/", "valid/"))]
    pairs = {name: [(a[name], b[name]) for a, b in zip(alone, shared, strict=True)] for name in names}
    return {name: max(abs(a - b) / max(abs(a), 1e-9) for a, b in values) for name, values in pairs.items()}


def uneven_texts(path: Path) -> None:
    """Write three texts of 120 words among short ones: the last one shares a training batch with short ones."""
    rng = np.random.default_rng(0)
    lengths = [120, 120, 120, *rng.integers(4, 12, 57)]
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 30, length)) for length in lengths]
    pd.DataFrame({"text": texts, "kind": rng.integers(0, 2, len(texts))}).to_csv(path, index=False)


# Slow: processes that train for seconds. Batch norm of all processes is tested in test_gradients.py too.
SLOW = {"dogbreeds", "imdb-lm", "imdb-sentiment", "rossmann", "segmentation", "uneven texts"}


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.slow) if task in SLOW else task for task in TASKS]
)
def test_two_processes_have_the_metrics_of_one(task: str, dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    uneven_texts(here / "uneven.csv")
    status, _, err = dlrun(*TASKS[task], "runs_dir=alone", *QUICK)
    assert status == 0, err
    status, out, err = forked(here, 2, *TASKS[task])
    assert status == 0, (out, err)
    summary = json.loads((latest(here) / "summary.json").read_text())
    assert summary["num_processes"] == 2
    assert len(list((here / "runs").glob("*/*/summary.json"))) == 1
    found = differences(read_history(latest(here, "alone")), read_history(latest(here)))
    assert max(found.values()) < 2e-4, found
    assert out.count("epoch  train/loss") == 1  # one process tells


def test_hidden_states_are_split_and_merged_without_loss() -> None:
    carried = [(torch.randn(1, 7, 3), torch.randn(1, 7, 3)), (torch.randn(1, 7, 2),)]
    shards = [split_hidden(carried, index, 3) for index in range(3)]
    assert [shard[0][0].shape[1] for shard in shards] == [3, 2, 2]
    again = merge_hidden(shards)
    assert all(
        torch.equal(a, b) for one, two in zip(again, carried, strict=True) for a, b in zip(one, two, strict=True)
    )
    assert split_hidden(None, 1, 2) is None
    assert merge_hidden([None, None]) is None


def test_a_single_process_communicates_nothing() -> None:
    group = SingleProcess()
    assert group.largest(1, 0) == (1, 0)
    assert group.all_gather_object(3) == [3]
    assert group.broadcast("a") == "a"


LONG = (
    *("task=imdb-lm", "data.source=synthetic", "data.sample=60", "data.sample_valid=30", "epochs=2", "batch_size=6"),
    *("task.bptt=10", "task.ngram=0", "model.embedding=12", "model.hidden=16", "model.layers=2", *DRY),
)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])  # rank 0 waits for the others
def test_a_killed_process_ends_all_and_the_same_command_resumes_with_another_number(
    rank: int, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.system.process_group.RANK0_FAILURE_TIMEOUT", timedelta(seconds=1))
    ranks = Ranks(here, 2, *LONG)
    ranks.wait_until(here, "runs/*/*/metrics.jsonl")
    ranks.processes[rank].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, _, err = ranks.ended()
    assert time.monotonic() - killed < 15  # torchrun itself would wait for 30
    assert all(process.returncode for process in ranks.processes)
    assert "gloo" not in err.lower().replace("[gloo]", "")
    if rank > 0:
        summary = json.loads((latest(here) / "summary.json").read_text())
        assert (summary["status"], summary["error"]) == ("failed", "lost another process of this run")
    (before,) = read_history(latest(here))
    status, out, err = forked(here, 3, *LONG) if rank else dlrun(*LONG, *QUICK)
    assert status == 0, (out, err)
    assert read_history(latest(here))[0] == before  # its time as well: it was not done again
    assert dlrun(*LONG, "runs_dir=alone", *QUICK)[0] == 0
    found = differences(read_history(latest(here, "alone")), read_history(latest(here)))
    assert max(found.values()) < 2e-4, found


# By torchrun itself: three imports of torch, and its wait for what is left. The tests around this one fork.
@pytest.mark.slow
def test_torchrun_ends_a_run_of_which_a_process_was_killed(here: Path) -> None:
    process = torchrun(here, 2, *LONG, "epochs=50")
    deadline = time.monotonic() + 90
    while not list(here.glob("runs/*/*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(_child(process.pid, 1), signal.SIGKILL)
    killed = time.monotonic()
    status, _, err = ended(process)
    assert time.monotonic() - killed < 15  # 1.5 on an idle machine; torchrun itself would wait for 30
    assert status != 0
    assert "gloo" not in err.lower().replace("[gloo]", "")
    summary = json.loads((latest(here) / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "lost another process of this run")


def test_a_stop_saves_the_current_step_and_one_process_resumes(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint after .06 seconds tells that training is under way; an epoch is longer than the processes' agreements.
    words = (*LONG, "data.sample=500", "epochs=1")
    ranks = Ranks(here, 2, *words, "trainer.checkpoint_minutes=0.001")
    ranks.wait_until(here, "runs/*/*/last.pt")
    first = load_weights_file(latest(here) / "last.pt")["state"]["step"]
    for process in ranks.processes:
        process.terminate()
    _, _, err = ranks.ended()
    summary = json.loads((latest(here) / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("interrupted", "stopped by signal 15")
    assert err.count("interrupted: the same command resumes") == 1
    saved = load_weights_file(latest(here) / "last.pt")["state"]
    assert saved["epoch"] == 0
    assert saved["step"] > first > 0

    begun: list[int] = []
    train_epoch = Trainer.train_epoch

    def told(trainer: Trainer, task: Any, model: Any, optimizer: Any, state: Any, *others: Any) -> None:
        begun.append(state.step)
        train_epoch(trainer, task, model, optimizer, state, *others)

    monkeypatch.setattr(Trainer, "train_epoch", told)
    status, _, err = dlrun(*words, *QUICK)
    assert status == 0, err
    assert begun == [saved["step"]]
    assert dlrun(*words, "runs_dir=alone", *QUICK)[0] == 0
    found = differences(read_history(latest(here, "alone")), read_history(latest(here)))
    assert max(found.values()) < 2e-4, found


ODD = """
import os
from dlrunner.metrics import RootMeanSquaredError
from dlrunner.tasks.collab.task import Collab

class Metric(RootMeanSquaredError):
    def compute(self):
        return float("nan") if os.environ.get("RANK") == "1" else super().compute()

class Odd(Collab):  # rank 1 comes to another metric
    def metrics(self):
        return {"rmse": Metric()}

class Failing(Collab):
    def loss(self, outputs, targets):
        if os.environ.get("RANK") == "1":
            raise ValueError("only here")
        return super().loss(outputs, targets)
"""
COLLAB = ("task=collab", "data.path=my.csv", "plugins=[odd]")


@pytest.mark.slow  # trains by three processes; gradients of three are tested in test_gradients.py
def test_clipping_accumulation_and_early_stopping_are_those_of_one_process_and_rank_0_decides(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / "odd.py").write_text(ODD)
    words = (
        *(*COLLAB, "task._target_=odd.Odd", "epochs=40", "optim.lr=0.1", "schedule=constant", "batch_size=50"),
        *("trainer.clip=0.05", "trainer.accumulate=3", "trainer.l1=1e-5", "trainer.early_stopping=2"),
    )
    status, _, err = dlrun(*words, "runs_dir=alone", *QUICK)
    assert status == 0, err
    status, out, err = forked(here, 2, *words)
    assert status == 0, (out, err)
    alone, shared = read_history(latest(here, "alone")), read_history(latest(here))
    assert 3 <= len(shared) < 40
    found = differences(alone, shared)
    assert max(found.values()) < 2e-4, found


def test_an_error_of_one_process_ends_all_and_is_reported_once(
    ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.system.process_group.RANK0_FAILURE_TIMEOUT", timedelta(seconds=1))
    (here / "odd.py").write_text(ODD)
    begun = time.monotonic()
    status, _, err = forked(here, 2, *COLLAB, "task._target_=odd.Failing")
    assert status != 0
    assert time.monotonic() - begun < 60
    assert err.count("dlrun, rank 1: ValueError: only here") == 1, err
    assert err.count("dlrun: lost another process of this run") == 1, err
    assert "gloo" not in err.lower().replace("[gloo]", "")
    assert json.loads((latest(here) / "summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optim.lr=1e12", "training diverged"),  # found by all
        ("optim.lrr=1", "did you mean lr?"),  # before they have met
        ("seeds=3", "torchrun starts the processes of one run"),
    ],
)
def test_an_error_of_all_processes_is_reported_once(word: str, said: str, ratings_csv: Path, here: Path) -> None:
    status, _, err = forked(here, 2, "task=collab", "data.path=my.csv", word)
    assert status != 0
    assert err.count(said) == 1, err
    assert "rank 1: " not in err


def nodes(here: Path, *more: str) -> list[tuple[int, str, str]]:
    """Run the documented command for two machines, each in a folder of its own; return status, output and errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank, command in enumerate((documented("--node_rank=0"), documented("--node_rank=1"))):
        cut = command.index("-m")
        options = [word for word in command[1:cut] if not word.startswith(("--master_port", "--nproc_per_node"))]
        where = (*options, f"--master_port={port}")
        started.append(processes(here / str(rank), 1, *command[cut:], *QUICK, *more, where=where))
    return [ended(process) for process in started]


# Four starts by torchrun; what the processes do then is that of `forked` runs.
@pytest.mark.slow
def test_two_machines_do_one_run_in_half_the_bits_and_refuse_data_that_differs(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(2):
        (here / str(rank)).mkdir()
        ratings_table().to_csv(here / str(rank) / "my.csv", index=False)
    for status, out, err in nodes(here):
        assert status == 0, (out, err)
    summary = json.loads((latest(here / "0") / "summary.json").read_text())
    assert (summary["num_processes"], summary["precision"]) == (2, "bf16")
    assert not (here / "1" / "runs").exists()
    words = documented("--node_rank=0")
    monkeypatch.chdir(here / "0")
    status, _, err = dlrun(*words[words.index("-m") + 2 :], *QUICK, "runs_dir=alone")
    assert status == 0, err
    found = differences(read_history(latest(here / "0", "alone")), read_history(latest(here / "0")))
    assert max(found.values()) < 0.02, found

    ratings_table(seed=1).to_csv(here / "1" / "my.csv", index=False)
    (first, _, told), (second, _, err) = nodes(here, "seed=1")
    assert first != 0
    assert second != 0
    assert told.count("data: rank 1 (on ") == 1
    assert "data: those of" not in err


@pytest.mark.slow  # three imports of torch; what its processes do is that of `forked` runs
def test_torchrun_does_one_run_in_several_processes(ratings_csv: Path, here: Path) -> None:
    words = documented("--standalone")
    status, out, err = ended(torchrun(here, 2, *words[words.index("-m") + 2 :]))
    assert status == 0, err
    assert out.count("epoch  train/loss") == 1
    assert json.loads((latest(here) / "summary.json").read_text())["num_processes"] == 2


def test_a_run_that_is_done_is_shown_and_sweeps_are_refused(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("task=collab", "data.path=my.csv", "epochs=1")
    status, _, err = dlrun(*words, *QUICK)
    assert status == 0, err
    status, out, _ = forked(here, 2, *words)
    assert status == 0
    assert out.count("already finished") == 1
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):  # as torchrun sets them
        monkeypatch.setenv(name, value)
    status, _, err = dlrun("-m", *words)
    assert status != 0
    assert "torchrun starts the processes of one run" in err


@pytest.mark.parametrize(
    "words", [("ls",), ("task=collab", "data.source=synthetic"), ("-m", "task=collab", "seed=0,1")]
)
def test_a_world_size_of_someone_else_is_told(
    words: tuple[str, ...], dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, said in (("2", "WORLD_SIZE is 2, but RANK is not set; use torchrun, or unset"), ("two", "'two', not a")):
        monkeypatch.setenv("WORLD_SIZE", size)
        status, _, err = dlrun(*words)
        assert status == 2
        assert said in err
    monkeypatch.setenv("WORLD_SIZE", "")
    assert dlrun("ls")[0] == 0


def test_a_batch_that_is_too_small_for_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["task=collab", "data.path=my.csv", "batch_size=3"])
    plan(config)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="batch_size: 3 cannot be divided among 4 processes"):
        plan(config)


def test_a_signal_that_comes_twice_within_two_seconds_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.0, 13.0])
    monkeypatch.setattr("dlrunner.system.signals.time.monotonic", lambda: next(clock))
    with StopSignals() as signals:
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # while the summary is written
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


def test_a_process_that_was_left_can_say_so_before_it_is_stopped() -> None:
    def left() -> None:
        with StopSignals() as signals:
            try:
                with signals.deferred():
                    raise PeerLostError("another process is gone")
            except PeerLostError:
                signal.raise_signal(signal.SIGTERM)  # torchrun stops what is left
                assert signals.pending == signal.SIGTERM
                raise

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(PeerLostError):
            left()
        signal.raise_signal(signal.SIGTERM)  # while the error is printed: the tests go on
    finally:
        signal.signal(signal.SIGTERM, before)


def _child(pid: int, rank: int) -> int:
    """Return the process of a rank among those that torchrun has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [each for each in children if f"\0RANK={rank}\0" in Path(f"/proc/{each}/environ").read_text()]
    return int(found)
