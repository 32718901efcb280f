"""Attempts that the generated ones came upon: each ends with a sentence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from dlrunner.files.plain_data import read_yaml
from dlrunner.runs.checkpoints import load_weights_file
from tests.conftest import Dlrun
from tests.small_runs import SmallRuns


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("task=collab", f"seed={'9' * 5000}"), "cannot be read"),
        (("-m", "task=collab", "seed=0,1", "plugins=-1", "sweep.dry_run=true"), "plugins: must be"),
        (("-m", "task=collab", "seed=0,1", "plugins=['']", "sweep.dry_run=true"), "plugins"),
    ],
)
def test_values_that_no_reader_expects_are_refused(words: tuple[str, ...], said: str, dlrun: Dlrun, here: Path) -> None:
    status, _, err = dlrun(*words)
    assert status == 2, err
    assert said in err
    assert "Traceback" not in err
    assert not (here / "runs").exists()


def test_an_alias_of_what_it_stands_in_is_refused() -> None:
    assert read_yaml("a: &x [1]\nb: *x") == {"a": [1], "b": [1]}
    with pytest.raises(ValueError, match="refers to itself"):
        read_yaml("a: &x [1, *x]")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(dlrun: Dlrun, here: Path, runs: SmallRuns) -> None:
    sweep = here / "runs" / "sweeps" / "collab,x-12345678"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text("{}")
    os.mkfifo(sweep / "results.csv")
    assert dlrun("compare", str(sweep))[0] == 2
    run = here / "run"
    run.mkdir()
    for name in ("config.yaml", "overrides.yaml"):
        (run / name).write_text((runs["ratings"] / name).read_text())
    os.mkfifo(run / "summary.json")
    status, _, err = dlrun("show", str(run))
    assert status == 2
    assert "not a regular file" in err


def test_a_stored_state_of_other_types_is_told_and_no_traceback_shown(
    dlrun: Dlrun, here: Path, runs: SmallRuns
) -> None:
    shutil.copytree(runs["numbers"], here / "run")
    content = load_weights_file(here / "run" / "task.pt")
    content["task"]["recipe"] = torch.zeros(2)
    torch.save(content, here / "run" / "task.pt")
    (here / "rows.csv").write_text("nr,city,rooms,area\n1,Rom,2,50\n")
    status, _, err = dlrun("predict", str(here / "run"), "rows.csv")
    assert status == 1
    assert "task.pt may be damaged" in err


def test_a_working_directory_that_is_gone_is_told(dlrun: Dlrun, tmp_path: Path) -> None:
    before, gone = os.open(".", os.O_RDONLY), tmp_path / "gone"
    gone.mkdir()
    try:
        os.chdir(gone)
        gone.rmdir()
        status, _, err = dlrun("--help")
    finally:
        os.fchdir(before)
        os.close(before)
    assert status == 2
    assert "the working directory no longer exists" in err
