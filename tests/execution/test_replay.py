"""A replay repeats a run from its folder alone and tells what changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dlrunner.execution.replay import Tolerance, changes, compare, tolerance
from tests.conftest import QUICK, Dlrun, ratings_table

WORDS = ("task=collab", "data.path=my.csv", "model=net", "epochs=2", *QUICK)


def latest(here: Path) -> Path:
    return (here / "runs" / "latest").resolve()


def test_a_replay_of_an_untouched_run_is_identical(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    before = sorted(path.name for path in latest(here).parent.iterdir())
    status, out, _ = dlrun("replay", "runs/latest")
    assert status == 0
    assert out.splitlines()[-1] == "replay: identical"
    assert sorted(path.name for path in latest(here).parent.iterdir()) == before


def test_a_replay_on_other_data_is_different_and_says_where(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    ratings_table(seed=5).to_csv(ratings_csv, index=False)
    status, out, _ = dlrun("replay", "runs/latest")
    assert status == 1
    assert "changed: the data" in out
    assert "replay: different (first at epoch 1: train/loss" in out


def test_a_last_digit_is_rounding_and_more_is_not(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    file = latest(here) / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for factor, status, word in ((1 + 1e-7, 0, "same within rounding"), (1.01, 1, "different (first at epoch 2")):
        changed = [rows[0], {**rows[1], "valid/rmse": rows[1]["valid/rmse"] * factor}]
        file.write_text("".join(json.dumps(row) + "\n" for row in changed))
        found, out, _ = dlrun("replay", "runs/latest")
        assert (found, word in out) == (status, True)


def test_the_members_and_the_final_metrics_of_an_ensemble_are_compared_too(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    dlrun(*WORDS, "epochs=1", "ensemble=2")
    run = latest(here)
    summary = json.loads((run / "summary.json").read_text())
    summary["final"]["valid/rmse"] *= 1.01
    whole = (run / "summary.json").read_text()
    (run / "summary.json").write_text(json.dumps(summary))
    status, out, _ = dlrun("replay", "runs/latest")
    assert (status, "different (in the end: valid/rmse" in out) == (1, True), out
    (run / "summary.json").write_text(whole)
    shutil.rmtree(run / "members" / "1")
    status, out, _ = dlrun("replay", "runs/latest")
    assert (status, "different (members/1: 0 epochs, now 1" in out) == (1, True), out
    status, _, err = dlrun("export", "runs/latest")
    assert (status, "has no last.pt; restore it" in " ".join(err.split())) == (2, True), err


def test_a_gpu_may_add_up_in_another_order_and_how_much_that_may_be_is_told(tmp_path: Path) -> None:
    def folder(name: str, rmse: float, weight: float) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "valid/rmse": rmse}) + "\n")
        torch.save({"model": {"w": torch.tensor([weight])}}, tmp_path / name / "last.pt")
        return tmp_path / name

    gpu = {"device": "cuda:0", "precision": "fp32", "deterministic": False}
    expected = tolerance(gpu)
    assert expected.relative == 1e-3
    assert tolerance({**gpu, "precision": "bf16"}).relative == 2e-2
    assert tolerance({**gpu, "deterministic": True}) == tolerance({"device": "cpu"}) == Tolerance(1e-4)
    first, near, far, other = (
        folder(*each) for each in (("a", 1, 1), ("b", 1.0005, 1), ("c", 1.002, 1), ("d", 1.0, 2))
    )
    verdict, reason = compare(first, near, expected)
    assert verdict == "same within rounding"
    assert "up to 0.001 is expected on cuda:0 in fp32 without trainer.deterministic=true" in reason
    assert compare(first, far, expected)[0] == "different"
    assert compare(first, other, expected)[0] == "same within rounding"
    assert compare(first, near)[0] == compare(first, other)[0] == "different"  # as on a CPU


def test_the_best_weights_are_compared_where_the_last_were_pruned(tmp_path: Path) -> None:
    for name, weight in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        for checkpoint in ("last.pt", "best.pt"):
            torch.save({"model": {"w": torch.tensor([weight])}}, tmp_path / name / checkpoint)
    (tmp_path / "a" / "last.pt").unlink()
    assert compare(tmp_path / "a", tmp_path / "b") == ("different", "equal metrics, but different weights")
    (tmp_path / "a" / "best.pt").unlink()
    verdict, reason = compare(tmp_path / "a", tmp_path / "b")
    assert (verdict, "no checkpoint" in reason) == ("identical", True)


def test_a_changed_version_is_told(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    file = latest(here) / "summary.json"
    summary = json.loads(file.read_text())
    summary["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(summary))
    assert "changed: torch 1.0, now " in dlrun("replay", "runs/latest")[1]


def test_all_that_can_move_a_result_is_told_in_words() -> None:
    data = {"name": "my.csv", "release": "own", "sha256": 64 * "a"}
    before = {"code": "a", "data": data, "device": "cpu", "precision": "fp32", "num_threads": 1, "git": {"commit": "a"}}
    after = {
        **before,
        "code": "b",
        "data": {**data, "sha256": 64 * "b"},
        "device": "cuda:0",
        "num_threads": 2,
        "git": None,
    }
    assert changes(before, after) == [
        "the code of dlrunner (or of a plugin)",
        "the data: own (aaaaaaaa), now own (bbbbbbbb)",
        "device cpu, now cuda:0",
        "CPU threads 1, now 2",
    ]


def test_only_a_finished_run_can_be_replayed(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    (latest(here) / "summary.json").unlink()
    status, _, err = dlrun("replay", "runs/latest")
    assert status == 2
    assert "a replay needs a finished run" in err


@pytest.mark.parametrize("verb", ["replay", "predict"])
def test_a_folder_that_names_modules_imports_none_unless_told_to(
    verb: str, dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / f"mine_{verb}.py").write_text(
        "from pathlib import Path\nPath('imported').touch()\n"
        "from dlrunner.tasks.collab.task import Collab\nclass Mine(Collab):\n    '''The same.'''\n"
    )
    dlrun(*WORDS, f"plugins=[mine_{verb}]", f"task._target_=mine_{verb}.Mine")
    (here / "imported").unlink()
    status, _, err = dlrun(verb, "runs/latest", *(["--user", "1"] if verb == "predict" else []))
    assert status == 2
    assert f"this run imports mine_{verb}; if you trust it, add: --plugins mine_{verb}" in err
    assert not (here / "imported").exists()
    words = ["--user", "1"] if verb == "predict" else []
    assert dlrun(verb, "runs/latest", *words, "--plugins", f"mine_{verb}")[0] == 0
