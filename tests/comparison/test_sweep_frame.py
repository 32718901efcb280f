"""A sweep as a table: its settings and metrics with their types, whatever became of its jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dlrunner
from dlrunner.errors import ConfigError
from tests.conftest import QUICK, Dlrun
from tests.fake_runs import write_run, write_seeds, write_sweep


def test_a_real_sweep_is_a_table_with_types(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=1", *QUICK)
    assert dlrun(*words, "optim.lr=0.01,1e12", "optim.betas=[0.9,0.99],[0.9,0.9]")[0] == 1  # 1e12 diverges
    (sweep,) = (here / "runs" / "sweeps").glob("*")
    table = dlrunner.load_sweep(sweep)
    assert table["job"].tolist() == [0, 1, 2, 3]
    assert table["optim.lr"].tolist() == [0.01, 0.01, 1e12, 1e12]
    assert table["optim.lr"].dtype == np.float64
    assert table["optim.betas"].tolist() == [[0.9, 0.99], [0.9, 0.9]] * 2
    assert table["status"].tolist() == ["done", "done", "failed", "failed"]
    assert table["valid/rmse"].notna().tolist() == [True, True, False, False]
    assert table["error"].isna().tolist() == [True, True, False, False]
    assert table["validation_set"].tolist()[:2] == [1, 1]
    assert table.attrs == {"metric": "valid/rmse", "higher_is_better": False, "settings": ["optim.lr", "optim.betas"]}
    written = pd.read_csv(sweep / "results.csv")
    np.testing.assert_array_equal(table["valid/rmse"], written["valid/rmse"])
    np.testing.assert_array_equal(table["seconds"][:2], written["seconds"][:2])
    assert all(Path(path).is_absolute() and Path(path).is_dir() for path in table["path"])


def test_of_a_moved_sweep_without_requests_the_differing_settings_are_shown(here: Path) -> None:
    runs = write_seeds(here / "runs" / "collab", [0.8, 0.9], {"optim": "adamw"})
    runs += write_seeds(here / "runs" / "collab", [0.7, 0.6], {"optim": "sgd"})
    write_sweep(here / "runs" / "sweeps" / "mine", runs, failed=["out of memory"])
    shutil.move(here / "runs", here / "elsewhere")
    table = dlrunner.load_sweep("elsewhere/sweeps/mine")
    assert table["optim"].tolist()[:4] == ["adamw", "adamw", "sgd", "sgd"]
    assert table["valid/rmse"].tolist()[:4] == [0.8, 0.9, 0.7, 0.6]
    assert table["error"].tolist() == [None] * 4 + ["out of memory"]
    assert table["path"].iloc[0].startswith(str(here / "elsewhere"))


def test_runs_on_other_validation_rows_are_marked(here: Path) -> None:
    runs = [write_run(here / "runs" / "collab" / str(valid), 0.8, {"data.valid": valid}) for valid in (0.1, 0.2)]
    write_sweep(here / "runs" / "sweeps" / "mine", runs)
    assert dlrunner.load_sweep("runs/sweeps/mine")["validation_set"].tolist() == [1, 2]


def test_what_is_not_a_sweep_is_refused(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8)
    with pytest.raises(ConfigError, match="runs/a is not a sweep folder"):
        dlrunner.load_sweep("runs/a")
