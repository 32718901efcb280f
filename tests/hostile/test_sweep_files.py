"""A sweep that was killed at any moment, or whose files are damaged in any way, is given again and comes to its end."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dlrunner.sweeps.folder import Job, SweepDirectory
from tests.conftest import QUICK, Dlrun

WORDS = ("-m", "task=collab", "data.path=my.csv", "epochs=1", "log.progress=none", *QUICK)
SWEEP = (*WORDS, "optim.lr=0.01,0.02")
SEARCH = (*WORDS, "optim.lr=interval(0.01,0.1)", "hydra/sweeper=optuna", "sweep.trials=3")


def folder_of(here: Path) -> Path:
    (folder,) = (here / "runs" / "sweeps").iterdir()
    return folder


def results(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv").drop(columns=["seconds"])


def damages(content: bytes, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    yield b""
    yield content[: chance.randrange(1, len(content))]
    yield b"\xff\xfe" + content
    yield b"[]"
    yield b"null"
    yield b'{"number": "../../x", "overrides": 5, "config": null}'
    yield b"[" * 10_000
    yield chance.randbytes(len(content))


@pytest.mark.slow  # gives a sweep eight times; one that is killed at any write is given again above
def test_a_sweep_whose_files_are_damaged_is_given_again(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*SWEEP)[0] == 0
    folder = folder_of(here)
    expected = results(folder)
    files = [folder / "jobs" / "0" / "request.json", folder / "jobs" / "1" / "record.json", folder / "sweep.json"]
    for number, file in enumerate([*files, folder / "results.csv"]):
        whole = file.read_bytes() if file.exists() else b'{"status": "done"}'
        for content in list(damages(whole, number))[:: 1 if number < 2 else 2]:  # all of them for a job's files
            file.write_bytes(content)
            status, out, err = dlrun(*SWEEP)
            assert status == 0, (file, content[:60], out, err)
            assert "Error" not in err
            assert "Traceback" not in err
            pd.testing.assert_frame_equal(results(folder), expected)
            if file.name == "request.json":
                assert f"{file} is damaged and treated as missing" in err
                assert json.loads(file.read_text())["number"] == 0
        (folder / "jobs" / "x").mkdir(exist_ok=True)
        (folder / "jobs" / "x" / "request.json").write_text("a stranger's")


def test_a_sweep_that_is_killed_at_any_write_is_given_again(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dlrun(*SWEEP)[0] == 0
    folder, write = folder_of(here), Path.replace
    expected = results(folder)
    for survives in range(20):
        child = os.fork()
        if child == 0:
            done = 0

            def killed(source: Path, target: Any, survives: int = survives) -> Path:
                nonlocal done
                done += 1
                if done > survives:
                    source.write_bytes(source.read_bytes()[:20])
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(source, target)

            monkeypatch.setattr(Path, "replace", killed)
            os._exit(dlrun(*SWEEP)[0])
        ended = os.waitpid(child, 0)[1]
        status, out, err = dlrun(*SWEEP)
        assert status == 0, (survives, out, err)
        pd.testing.assert_frame_equal(results(folder), expected)
        assert not [path for path in folder.rglob(".*") if path.name != ".lock"]
        if ended == 0:
            break
    assert survives >= 4


@pytest.mark.slow  # gives a search eight times; a search that was killed is given again in test_search.py
def test_a_search_whose_files_are_damaged_is_given_again(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*SEARCH)[0] == 0
    folder = folder_of(here)
    expected, best = results(folder), (folder / "best.yaml").read_text()
    counts = {"jobs/0/request.json": 4, "jobs/1/record.json": 2, "jobs/2/request.json": 1, "search.db": 2}
    for number, (name, count) in enumerate(counts.items()):
        file = folder / name
        whole = file.read_bytes()
        for content in list(damages(whole, number))[1::2][:count]:
            file.write_bytes(content)
            status, out, err = dlrun(*SEARCH)
            assert status == 0, (file, content[:60], out, err)
            assert "damaged" in err
            pd.testing.assert_frame_equal(results(folder), expected)
            assert (folder / "best.yaml").read_text() == best
    for file in (*folder.glob("jobs/*/request.json"), *folder.glob("jobs/*/record.json")):
        file.unlink()
    assert dlrun(*SEARCH)[0] == 0
    pd.testing.assert_frame_equal(results(folder), expected)


def test_results_are_written_of_jobs_that_cannot_be_read_too(here: Path) -> None:
    with SweepDirectory(here / "sweep") as folder:
        for number in range(3):
            folder.add(Job(number, [f"a={number}"], {}))
            folder.write_record(number, {"status": "done", "final": {"valid/rmse": number}})
        (folder.job_folder(1) / "request.json").write_text("{")
        (folder.job_folder(2) / "record.json").write_text("[]")
        found, _ = folder.write_results(["a"])
    assert list(found["status"]) == ["done", "done", "not started"]
    assert list(found["a"].fillna("-")) == ["0", "-", "2"]
