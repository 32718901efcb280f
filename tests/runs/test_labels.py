"""Names of run folders: short, readable, unique, and without characters that a shell interprets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dlrunner.runs import directory as runs
from dlrunner.runs.labels import LENGTH, NOT_IN_LABEL, run_label
from dlrunner.training.loop import Trainer


def test_a_job_is_named_after_the_settings_that_differ() -> None:
    words = ["task=tabular", "data.path=long/flats.csv", "epochs=4", "optim=adam", "seed=1"]
    assert run_label(words, {}, ["optim", "seed"]) == "optim=adam,seed=1"
    assert run_label(["experiment=movielens-dot", "seed=1"], {"experiment": "movielens-dot"}, ["seed"]) == "seed=1"
    swept = ["experiment", "seed"]
    named = run_label(["experiment=movielens-dot", "seed=1"], {"experiment": "movielens-dot"}, swept)
    assert named == "movielens-dot,seed=1"


def test_what_tells_runs_apart_comes_before_what_they_share() -> None:
    words = ["seed=3", "data.path=flats.csv", "data.id=nr", "optim=adam", "data.target=price", "epochs=2"]
    assert run_label(words, {}) == "data.target=price,epochs=2,optim=adam,data.id=nr"
    assert run_label(words[:4], {}) == "optim=adam,data.id=nr,data.path=flats.csv,seed=3"


def test_what_cannot_change_a_result_takes_no_room_from_what_can() -> None:
    assert {f"trainer.{name}" for name in Trainer.not_in_signature} <= set(NOT_IN_LABEL)
    words = ["data.target=price", "trainer.num_threads=1", "data.split=last_days"]
    assert run_label(words, {}) == "data.target=price,data.split=last_days"


def test_a_name_is_short_and_needs_no_quotes(tmp_path: Path) -> None:
    words = [
        *(f"model.setting_{i}=[{i}, 'a b', $HOME, `x`, (y), é*?]" for i in range(9)),
        "data.path='/some where/#1 & 2/x.csv'",
        "note=what I thought",
    ]
    for some in (words, words[:1], words[-2:], ["data.path=" + "x" * 300], ["optim.lr=-1e-3"]):
        name = run_label(some, {"experiment": "movielens-best"})
        assert len(name) <= LENGTH
        assert shlex.quote(name.replace("é", "e").replace("=", "").replace(",", "")) == re.sub(
            "[=,]", "", name
        ).replace("é", "e")
        assert "note" not in name
    identity = {"signature": "0123abcd", "code": "c", "data": "d"}
    for number in range(3):
        run, _ = runs.RunDirectory.claim(tmp_path, "x", run_label(words, {}), identity, rerun=number > 0)
        run.finish({"status": "done"})
        run.release()
        assert len(run.path.name) <= 60


def test_a_finished_run_under_an_old_name_is_found(tmp_path: Path) -> None:
    identity = {"signature": "0123abcd", "code": "c", "data": "d"}
    older, _ = runs.RunDirectory.claim(tmp_path, "x", "data.path=" + "x" * 70 + ",epochs=2", identity)
    older.finish({"status": "done"})
    older.release()
    again, reason = runs.RunDirectory.claim(tmp_path, "x", "epochs=2,data.path=x", identity)
    assert (again.path, reason) == (older.path, "finished")
