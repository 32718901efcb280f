"""What goes wrong around a run, each found once by trying: a plain sentence, the right exit status, nothing lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from dlrunner.execution import run as runner
from dlrunner.execution.identity import identity_of
from dlrunner.runs import directory
from dlrunner.system.backends import restored_threads
from dlrunner.task import Data, DataIdentity
from dlrunner.tasks.collab.task import Collab
from tests.conftest import QUICK, Dlrun, flats, ratings_table

WORDS = ("task=collab", "data.path=my.csv", "epochs=1", *QUICK)


def latest(here: Path) -> Path:
    return (here / "runs" / "latest").resolve()


def test_a_range_test_leaves_no_folder_that_a_run_would_take_for_its_own(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    assert dlrun("lr-find", *WORDS)[0] == 0
    assert dlrun(*WORDS)[0] == 0
    assert not (latest(here) / "lr_find.csv").exists()


def test_a_metric_that_is_not_finite_fails_the_run(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = ("optim=sgd", "model=dot", "optim.lr=1e20", "batch_size=2000", "schedule=constant")
    status, _, err = dlrun(*WORDS, *words)
    assert status == 1
    assert "training diverged" in err
    (run,) = (here / "runs" / "collab").glob("*/summary.json")
    assert json.loads(run.read_text())["status"] == "failed"
    assert not run.with_name("best.pt").exists()
    assert not (here / "runs" / "latest").exists(), "it is never a run that failed"


def test_a_full_disk_is_one_sentence(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(directory, "write_atomic", full)
    status, out, err = dlrun("task=collab", "data.path=my.csv", "epochs=1")
    assert status == 1
    assert err.count("the disk is full") == 1
    assert "could not be written" not in out


def test_data_is_prepared_with_the_threads_of_training(
    dlrun: Dlrun, ratings_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def sizes(task: Collab) -> dict[str, int]:
        found.append(torch.get_num_threads())
        return {}

    monkeypatch.setattr(Collab, "sizes", sizes)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert dlrun(*WORDS, "trainer.num_threads=1")[0] == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(found) == {1}


@pytest.mark.parametrize(("batch_size", "threads"), [(64, 1), (1024, 2)])
def test_a_table_is_trained_with_one_thread_until_its_batches_occupy_more(
    batch_size: int, threads: int, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.system.backends.num_cores", lambda: 2)
    flats(1500).to_csv(here / "flats.csv", index=False)
    with restored_threads():
        torch.set_num_threads(2)
        status, _, err = dlrun(
            "task=tabular", "data.path=flats.csv", "data.target=price", f"batch_size={batch_size}", "epochs=1", *QUICK
        )
    assert status == 0, err
    (summary,) = (here / "runs" / "tabular").glob("*/summary.json")
    assert json.loads(summary.read_text())["num_threads"] == threads


def test_an_absurd_rate_diverges_and_is_told(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, _, err = dlrun(*WORDS, "optim.lr=1e9")
    assert status == 1
    assert "training diverged" in err
    assert "try a smaller optim.lr" in err


@pytest.mark.slow  # two programs; a full standard output is tested in test_hostile_output.py
def test_an_output_that_is_closed_early_does_not_fail_the_run(ratings_csv: Path, here: Path) -> None:
    command = f"{sys.executable} -m dlrunner {' '.join(WORDS)} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads((latest(here) / "summary.json").read_text())["status"] == "done"


def test_broken_files_in_ones_own_conf_are_told(dlrun: Dlrun, here: Path) -> None:
    (here / "conf" / "optim").mkdir(parents=True)
    (here / "conf" / "optim" / "broken.yaml").write_text("a: [1")
    status, _, err = dlrun("task=collab", "optim=broken")
    assert status == 2
    assert "Traceback" not in err
    (here / "conf" / "optim" / "broken.yaml").rename(here / "conf" / "optim" / "adamw.yaml")
    status, _, err = dlrun("task=collab")
    assert status == 2
    assert "conf/optim/adamw.yaml has the name of one of dlrunner's own options" in err


def test_a_folder_with_an_apostrophe_is_a_folder(dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "o'x y"
    (folder / "conf" / "optim").mkdir(parents=True)
    (folder / "conf" / "optim" / "mine.yaml").write_text("_target_: torch.optim.SGD\nlr: 0.5\n")
    ratings_table().to_csv(folder / "my.csv", index=False)
    monkeypatch.chdir(folder)
    assert dlrun(*WORDS, "optim=mine")[0] == 0
    assert dlrun("-m", *WORDS, "optim=mine,adam")[0] == 0


def test_a_module_that_cannot_be_imported_is_told(dlrun: Dlrun, here: Path) -> None:
    (here / "leaves.py").write_text("raise SystemExit(3)\n")
    status, _, err = dlrun("task=collab", "plugins=[leaves]")
    assert status == 2
    assert "leaves cannot be imported: SystemExit" in err
    (here / "hidden.py").write_text(
        "from __future__ import annotations\nfrom dlrunner.models.collab import DotBias\n"
        "class Hidden(DotBias):\n    def __init__(self, dims: RatingDims, *, x: Nowhere = 1) -> None: ...\n"
    )
    status, _, err = dlrun("task=collab", "plugins=[hidden]", "model._target_=hidden.Hidden")
    assert status == 2
    assert "the annotations of hidden.Hidden cannot be read" in err


@pytest.mark.parametrize("method", ["recommended(self, settings)", "sizes(self)", "loss(self, outputs, targets)"])
def test_a_module_that_leaves_python_fails_the_run(method: str, dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    name = f"quits_in_{method.partition('(')[0]}"
    (here / f"{name}.py").write_text(
        "import sys\nfrom dlrunner.tasks.collab.task import Collab\n"
        f"class Quits(Collab):\n    def {method}:\n        sys.exit()\n"
    )
    status, _, err = dlrun(*WORDS, f"plugins=[{name}]", f"task._target_={name}.Quits")
    assert status == 1
    assert f"SystemExit ({name}.py, line 5)" in err
    summaries = list((here / "runs" / "collab").glob("*/summary.json"))
    assert [json.loads(file.read_text())["status"] for file in summaries] == ["failed"] * (
        name != "quits_in_recommended"
    )
    status, _, err = dlrun("lr-find", *WORDS, "batch_size=64", f"plugins=[{name}]", f"task._target_={name}.Quits")
    assert (status, f"SystemExit ({name}.py, line 5)" in err) == ((0, False) if "sizes" in name else (1, True))


DAMAGE = {
    "config.yaml": ["", "[1]", "plugins: 5"],
    "overrides.yaml": ["5"],
    "summary.json": ['{"a": 1}', "[]", "{"],
    "metrics.jsonl": ["[1]", "{"],
}


def test_damaged_files_of_a_run_are_named(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    for name, contents in DAMAGE.items():
        file = latest(here) / name
        whole = file.read_text()
        for content in contents:
            file.write_text(content)
            for verb in (["show", "runs/latest"], ["predict", "runs/latest", "--user", "1"], ["replay", "runs/latest"]):
                status, _, err = dlrun(*verb)
                assert status == 2, (name, content, verb)
                assert "is damaged" in err
        file.write_text(whole)
    torch.save({"a": 1}, latest(here) / "best.pt")
    status, _, err = dlrun("predict", "runs/latest", "--user", "1", "--checkpoint", "best.pt")
    assert status == 2
    assert "best.pt does not hold the weights of this run's model" in err


def test_ids_beyond_the_precision_of_floats_stay_apart(dlrun: Dlrun, here: Path) -> None:
    table = ratings_table()
    table["user"] += 9_007_199_254_740_992
    table.to_csv("my.csv", index=False)
    dlrun(*WORDS)
    pairs = pd.DataFrame({"user": [str(9_007_199_254_740_993 + i) for i in range(3)] + ["x"], "item": "i1"})
    pairs.to_csv("pairs.csv", index=False)
    assert dlrun("predict", "runs/latest", "pairs.csv", "--out", "answer.csv")[0] == 0
    answer = pd.read_csv("answer.csv")
    assert list(answer["note"].fillna("")) == ["", "", "", "unknown user: bias only"]
    assert answer["prediction"].nunique() == 4
    assert dlrun("predict", "runs/latest", "--user", "9007199254740993")[0] == 0


def test_a_rating_of_a_new_user_that_is_none_is_left_out_and_told(dlrun: Dlrun, ratings_csv: Path) -> None:
    dlrun(*WORDS)
    pd.DataFrame({"item": ["i1", "i2"], "rating": [3, 5000]}).to_csv("mine.csv", index=False)
    status, out, _ = dlrun("predict", "runs/latest", "--ratings", "mine.csv")
    assert status == 1
    assert "row 3: rating 5000 " in " ".join(out.split())


def test_a_sweep_that_runs_already_is_left_alone(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = ("-m", *WORDS, "seed=0,1")
    assert dlrun(*words)[0] == 0
    (folder,) = (here / "runs" / "sweeps").iterdir()
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, err = dlrun(*words)
    assert status == 1
    assert "another process is running this sweep" in err
    assert list(pd.read_csv(folder / "results.csv")["status"]) == ["done", "done"]


def test_an_interrupted_rerun_goes_on_and_a_finished_one_is_left(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    dlrun(*WORDS, "rerun=true")
    second = latest(here)
    (second / "summary.json").unlink()
    dlrun(*WORDS, "rerun=true")
    assert latest(here) == second
    dlrun(*WORDS, "rerun=true")
    assert latest(here).name.endswith("-3")


def test_a_claim_on_a_metric_that_the_task_lacks_is_told_before_training(dlrun: Dlrun, ratings_csv: Path) -> None:
    status, out, err = dlrun(*WORDS, "claim={metric:valid/foo,value:1.0,source:x}")
    assert status == 2
    assert "this task has no valid/foo; it has valid/loss, valid/rmse, valid/mae" in err
    assert "train/loss" not in out


def test_our_own_mistakes_show_no_traceback_unless_it_is_asked_for(
    dlrun: Dlrun, ratings_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object) -> None:
        raise ZeroDivisionError("oh\nmore")

    monkeypatch.setattr("dlrunner.execution.auto_settings.range_test", fail)
    status, _, err = dlrun("lr-find", *WORDS)
    assert (status, err) == (1, "dlrun: ZeroDivisionError: oh (DLRUNNER_TRACEBACK=1 shows where)\n")
    monkeypatch.setitem(os.environ, "DLRUNNER_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        dlrun("lr-find", *WORDS)


@pytest.mark.parametrize(
    "words",
    [
        ("task=tabular", "data.path=flats.csv", "data.target=price"),
        ("task=tabular", "data.path=flats.csv", "data.target=price", "batch_size=64", "model=linear", "optim.lr=0.1"),
        ("task=text", "data.path=flats.csv", "data.text=city", "data.target=dear"),
    ],
)
def test_data_that_changes_while_it_is_read_is_not_recorded_as_what_it_was(
    words: tuple[str, ...], dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = flats(300)
    table.to_csv(here / "flats.csv", index=False)

    def identity_then_change(data: Data) -> DataIdentity:
        found = identity_of(data)
        table.assign(city="Ulm" + table["city"]).to_csv(here / "flats.csv", index=False)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(runner, "identity_of", identity_then_change)
        status, _, err = dlrun(*words, "epochs=1", *QUICK)
    assert status == 1
    assert "flats.csv changed while it was being read; try again" in err
    assert dlrun(*words, "epochs=1", *QUICK)[0] == 0
