"""Replays of what is hard to compare."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dlrunner.runs.checkpoints import weights_digest
from dlrunner.runs.directory import RunDirectory
from tests.conftest import QUICK, Dlrun
from tests.small_runs import PICTURE_NET, PICTURES


def test_weights_are_the_same_in_any_memory_layout() -> None:
    for shape in ((8, 4, 1, 1), (8, 4, 3, 3), (1, 1, 1, 1), (3, 1), (0, 2, 1, 1), (5,)):
        for kind in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
            weights = torch.arange(torch.Size(shape).numel()).reshape(shape).to(kind)
            others = [weights.clone(), weights.repeat(*[2] * weights.dim())[tuple(map(slice, shape))]]
            if weights.dim() == 4:
                others.append(weights.to(memory_format=torch.channels_last))
                others.append(weights.to(memory_format=torch.channels_last)[:])
            assert len({weights_digest({"a": each}) for each in [weights, *others]}) == 1, (shape, kind)
    assert weights_digest({"a": torch.zeros(2)}) != weights_digest({"a": torch.ones(2)})
    assert weights_digest({"a": torch.tensor(1.0)}) != weights_digest({"a": torch.tensor(2.0)})


def test_a_run_of_pictures_that_is_repeated_is_identical(dlrun: Dlrun, here: Path) -> None:
    words = (*PICTURES, *PICTURE_NET, *QUICK)
    assert dlrun(*words)[0] == 0
    status, out, err = dlrun("replay", "runs/latest")
    assert (status, "replay: identical" in out) == (0, True), (out, err)


def test_what_a_killed_replay_has_left_is_removed_by_the_next(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dlrun("task=collab", "data.path=my.csv", "epochs=1", *QUICK)[0] == 0
    run = (here / "runs" / "latest").resolve()
    before = sorted(path.name for path in run.parent.iterdir())
    child = os.fork()
    if child == 0:

        def killed(*given: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(RunDirectory, "finish", killed)
        dlrun("replay", str(run))
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (left,) = (path for path in run.parent.iterdir() if path.name not in before)
    assert list(left.rglob("last.pt"))
    os.utime(left, (0, 0))
    assert dlrun("replay", str(run))[0] == 0
    assert sorted(path.name for path in run.parent.iterdir()) == before


def test_links_that_killed_runs_have_left_are_removed(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "runs").mkdir()
    for name in (".latest.0123456789abcdef", ".latest.4711471147114711"):
        (here / "runs" / name).symlink_to("nowhere")
        os.utime(here / "runs" / name, (0, 0), follow_symlinks=False)
    assert dlrun("task=collab", "data.path=my.csv", "epochs=1", *QUICK)[0] == 0
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["collab", "latest"]
