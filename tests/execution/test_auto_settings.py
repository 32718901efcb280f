"""Settings that are decided from the data before a run starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import QUICK, Dlrun, flats

TABLE = ("task=tabular", "data.path=flats.csv", "data.target=price", "data.categorical=[city]", *QUICK)
INPUTS = ("data.continuous=[area]", "trainer.checkpoint_minutes=0")


@pytest.fixture(autouse=True)
def table(here: Path) -> pd.DataFrame:
    """A table in the working directory."""
    frame = flats(200)
    frame.to_csv(here / "flats.csv", index=False)
    return frame


def folders(here: Path) -> list[Path]:
    return sorted(path.parent for path in (here / "runs" / "tabular").glob("*/summary.json"))


def test_epochs_and_batch_size_follow_from_the_rows_and_are_recorded(dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun(*TABLE, *INPUTS)
    assert status == 0, err
    (folder,) = folders(here)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    names = ("batch_size", "epochs", "model.bins", "model.dropouts", "model.num_nets", "optim.weight_decay")
    assert summary["auto"] == dict(zip(names, (32, 30, 0, 0.3, 8, 1.0), strict=True))
    assert (config["batch_size"], config["epochs"]) == (32, 30)
    assert (config["model"]["bins"], config["model"]["num_nets"]) == (0, 8)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == config["epochs"]
    assert "auto: batch_size=32 epochs=30 model.bins=0 model.dropouts=0.3" in " ".join(out.split())


def test_asking_twice_and_typing_the_decided_numbers_is_asking_once(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLRUNNER_CACHE", str(here / "cache"))  # what it removes, other tests rely on
    assert dlrun(*TABLE, *INPUTS)[0] == 0
    (folder,) = folders(here)
    auto = json.loads((folder / "summary.json").read_text())["auto"]
    with monkeypatch.context() as patch:  # remembered: nothing is read
        patch.setattr("dlrunner.data.tabular.dataset.TabularData.read", None)
        assert "already finished" in dlrun(*TABLE, *INPUTS)[1]
    shutil.rmtree(here / "cache" / "auto")
    assert "already finished" in dlrun(*TABLE, *INPUTS)[1]
    typed = [f"{name}={value}" for name, value in auto.items()]
    assert "already finished" in dlrun(*TABLE, *INPUTS, *typed)[1]
    assert folders(here) == [folder]


def test_more_rows_are_trained_with_larger_batches(dlrun: Dlrun, here: Path) -> None:
    flats(6000).to_csv(here / "flats.csv", index=False)
    assert dlrun(*TABLE, *INPUTS, "epochs=1")[0] == 0
    flats(100).to_csv(here / "flats.csv", index=False)
    assert dlrun(*TABLE, *INPUTS, "epochs=1")[0] == 0
    small, large = sorted(json.loads((f / "summary.json").read_text())["auto"]["batch_size"] for f in folders(here))
    assert small < large


def test_a_rate_is_found_by_the_range_test_and_is_the_rate_of_the_run(dlrun: Dlrun, here: Path) -> None:
    status, _, err = dlrun(*TABLE, *INPUTS, "epochs=2", "batch_size=16", "optim.lr=auto")
    assert status == 0, err
    (folder,) = folders(here)
    rate = json.loads((folder / "summary.json").read_text())["auto"]["optim.lr"]
    assert 1e-6 < rate < 1
    assert yaml.safe_load((folder / "config.yaml").read_text())["optim"]["lr"] == rate
    assert "already finished" in dlrun(*TABLE, *INPUTS, "epochs=2", "batch_size=16", f"optim.lr={rate}")[1]


def test_without_a_decrease_of_the_loss_no_rate_is_invented(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.training.lr_finder.RangeTest.suggestion", None)
    status, _, err = dlrun(*TABLE, *INPUTS, "epochs=2", "optim.lr=auto")
    assert status == 1
    assert "set optim.lr to a number" in err
    assert not folders(here)


def test_a_task_that_decides_nothing_refuses_auto_before_data_is_read(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.tasks.tabular.task.Tabular.auto_settings", ())
    status, _, err = dlrun(*TABLE, *INPUTS)
    assert status == 2
    assert "epochs: must be a number" in err
    assert not (here / "runs").exists()


def test_a_schedule_in_cycles_needs_a_number_of_epochs(dlrun: Dlrun) -> None:
    status, _, err = dlrun(*TABLE, *INPUTS, "schedule=cosine", "schedule.cycle_len=2")
    assert status == 2
    assert "set the number of epochs" in err


@pytest.mark.slow  # two sweeps of programs
def test_a_repeated_sweep_knows_what_was_decided(dlrun: Dlrun, here: Path) -> None:
    words = ("-m", *TABLE, *INPUTS, "seed=0,1")
    assert dlrun(*words)[0] == 0
    status, out, err = dlrun(*words, "sweep.dry_run=true")
    assert status == 0, err
    assert out.count("done") == 2


def test_phases_have_their_own_epochs(dlrun: Dlrun, here: Path) -> None:
    status, _, err = dlrun(*TABLE, *INPUTS, "phases=[{epochs: 1}, {epochs: 2, lr: 1e-3}]")
    assert status == 0, err
    auto = json.loads((folders(here)[0] / "summary.json").read_text())["auto"]
    assert "epochs" not in auto
    assert "batch_size" in auto


def test_a_task_that_promises_a_value_and_has_none_says_so(dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.tasks.tabular.task.Tabular.recommended", lambda self, settings: {"batch_size": 32})
    status, _, err = dlrun(*TABLE, *INPUTS, "data.valid=0.31")
    assert status == 2
    assert "epochs: dlrunner.tasks.tabular.task.Tabular.recommended() has no value for it" in " ".join(err.split())


def test_an_automatic_precision_is_recorded_shown_with_its_reason_and_kept_for_a_replay(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.config.devices.has_bfloat16", lambda device: True)
    words = (*TABLE, *INPUTS, "epochs=1", "batch_size=16")
    with monkeypatch.context() as patch:
        patch.setattr("dlrunner.tasks.tabular.task.Tabular.good_in_bf16", True)
        status, out, err = dlrun(*words, "precision=auto")
        assert status == 0, err
        assert "auto: precision=bf16" in out
        assert "bf16: this cpu has bfloat16 in hardware" in " ".join(out.split())
        (folder,) = folders(here)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["precision"] == summary["auto"]["precision"] == "bf16"
        assert yaml.safe_load((folder / "config.yaml").read_text())["precision"] == "bf16"
        assert "already finished" in dlrun(*words, "precision=bf16")[1]
    out = dlrun(*words, "precision=auto")[1]
    assert "auto: precision=fp32" in out
    assert len(folders(here)) == 2, "nothing that was trained in bfloat16 is shown as float32"
