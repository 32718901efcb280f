"""Runs are found by conditions, ids and names, without reading more than needed."""

from __future__ import annotations

import fcntl
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dlrunner.errors import ConfigError
from dlrunner.runs.listing import ListedRun, newest_first, runs_in
from dlrunner.runs.query import Condition, find, find_named, is_query, resolve, select
from dlrunner.runs.tags import Tags, read_tags, write_tags
from tests.fake_runs import write_run


def hours_ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds")


@pytest.fixture
def folder(here: Path) -> Path:
    """A folder of runs: two tasks, two targets, one failed run, one killed run."""
    runs = here / "runs"
    price = {"task": "tabular", "data.target": "price", "data.path": "in/flats.csv"}
    write_run(runs / "tabular" / "epochs=1-00000001", 0.5, price, finished=hours_ago(30))
    write_run(runs / "tabular" / "epochs=2-00000002", 0.4, {**price, "optim.lr": 0.3}, finished=hours_ago(3))
    write_run(
        runs / "tabular" / "size-00000003", 0.9, {"task": "tabular", "data.target": "size"}, finished=hours_ago(2)
    )
    write_run(
        runs / "tabular" / "sgd-00000004", None, {**price, "optim": "sgd"}, status="failed", finished=hours_ago(1)
    )
    write_run(runs / "collab" / "default-00000005-2", 0.8, {}, status=None)
    (runs / "sweeps" / "x-00000006").mkdir(parents=True)
    (runs / "latest").symlink_to("tabular/size-00000003")
    return runs


def ids(runs: list[ListedRun]) -> list[str]:
    return sorted(run.id for run in runs)


def test_all_runs_are_found_and_nothing_else(folder: Path) -> None:
    assert ids(runs_in(folder)) == ["00000001", "00000002", "00000003", "00000004", "00000005-2"]
    assert [run.id for run in newest_first(runs_in(folder))][1:] == ["00000004", "00000003", "00000002", "00000001"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("task=tabular", "1 2 3 4"),
        ("task!=tabular", "5-2"),
        ("status=failed", "4"),
        ("status=killed", "5-2"),
        ("data.target=price", "1 2 4"),
        ("data.path=flats.csv", "1 2 4"),
        ("data.path=*flats*", "1 2 4"),
        ("optim=sgd", "4"),
        ("optim.lr=.3", "2"),
        ("optim.lr>=3e-1", "2"),
        ("metric<.9 task=tabular", "1 2"),
        ("valid/rmse<=0.4", "2"),
        ("rmse>.4 rmse<.9", "1"),
        ("age<2.5h status=done", "3"),
        ("age>1d", "1"),
        ("size>1GB", ""),
        ("optim.betas=0.99 task=tabular", "1 2 3"),
    ],
)
def test_conditions_select_runs(folder: Path, words: str, expected: str) -> None:
    assert ids(select(runs_in(folder), words.split())) == [f"0000000{end}" for end in expected.split()]


def test_a_date_of_a_configuration_is_compared_as_text(folder: Path) -> None:
    config = folder / "tabular" / "size-00000003" / "config.yaml"
    config.write_text(config.read_text().replace("fold: 0", "fold: 2015-01-31"))
    assert ids(select(runs_in(folder), ["data.fold=*2015-01-31*"])) == ["00000003"]


def test_what_no_run_has_is_refused_with_the_nearest_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run has data.tarket; did you mean data.target\?"):
        select(runs_in(folder), ["data.tarket=price"])
    with pytest.raises(ConfigError, match="needs a number"):
        Condition.of("metric<low")
    with pytest.raises(ConfigError, match="is not a condition"):
        Condition.of("new.csv")


def test_the_newest_finished_run_that_fits_answers(folder: Path) -> None:
    assert find(["data.target=price"], folder) == (folder / "tabular" / "epochs=2-00000002", 2)
    with pytest.raises(ConfigError, match=r"no finished run in .* fits optim=sgd; 1 not finished"):
        find(["optim=sgd"], folder)
    assert find(["status=failed"], folder)[1] == 1


def test_a_run_is_found_by_its_id_the_begin_of_it_and_its_name(folder: Path) -> None:
    write_tags(folder / "tabular" / "epochs=1-00000001", Tags("first"))
    for text in ("00000001", "first", "epochs=1-00000001"):
        assert find_named(text, folder) == (folder / "tabular" / "epochs=1-00000001", 1)
    assert find_named("0000", folder) is not None
    assert find_named("0000", folder)[1] == 5  # type: ignore[index]
    assert find_named("00000005-2", folder) is not None
    assert find_named("second", folder) is None


def test_a_folder_that_is_no_run_does_not_hide_the_run_of_its_name(folder: Path, here: Path) -> None:
    run = folder / "tabular" / "epochs=1-00000001"
    write_tags(run, Tags("img"))
    (here / "img").mkdir()
    (here / "other").mkdir()
    assert resolve("img", folder) == (run, 1)
    assert resolve("other", folder) == (Path("other"), 1)
    (here / "img" / "config.yaml").touch()
    assert resolve("img", folder) == (Path("img"), 1)


def test_a_path_with_an_equals_sign_is_no_condition(folder: Path, here: Path) -> None:
    assert not is_query("runs/tabular/epochs=1-00000001")
    assert not is_query("runs/tabular/nothing=1-00000001")
    (here / "a=b").touch()
    assert not is_query("a=b")
    assert is_query("a=c")


def test_a_run_in_progress_is_known_by_its_lock(folder: Path) -> None:
    run = folder / "collab" / "default-00000005-2"
    assert ListedRun(run).status == "killed"
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ListedRun(run).status == "running"
    assert ListedRun(run).status == "killed"


def test_damaged_files_of_a_run_hide_no_other_run(folder: Path) -> None:
    for name in ("summary.json", "config.yaml", "tags.json"):
        (folder / "tabular" / "epochs=1-00000001" / name).write_text("{{")
    assert len(runs_in(folder)) == 5
    assert ids(select(runs_in(folder), ["data.target=price"])) == ["00000002", "00000004"]


def test_tags_outside_of_the_folder_are_not_read(folder: Path, here: Path) -> None:
    (here / "secret").write_text(json.dumps({"name": "secret"}))
    run = folder / "tabular" / "epochs=1-00000001"
    (run / "tags.json").symlink_to(here / "secret")
    assert read_tags(run) == Tags()
    with pytest.raises(ConfigError, match="link"):
        write_tags(run, Tags("x"))
    assert json.loads((here / "secret").read_text()) == {"name": "secret"}


def test_a_run_without_a_setting_differs_from_none_of_its_values(folder: Path) -> None:
    assert "5-2" not in " ".join(ids(select(runs_in(folder), ["data.target!=size"])))
    everything = ids(runs_in(folder))
    assert ids(select(runs_in(folder), ["name!=first"])) == ids(select(runs_in(folder), ["tag!=a"])) == everything
