"""Tags of a run: several processes give some at once, and damaged ones are not overwritten."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dlrunner.errors import RunError
from dlrunner.runs import tags
from dlrunner.runs.tags import Tags, change_tags, keep_tags, read_tags


def test_tags_that_are_given_at_once_are_all_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(folder: Path) -> Tags:
        found = read(folder)
        time.sleep(0.02)
        return found

    run, read = here / "run", tags._read
    run.mkdir()
    monkeypatch.setattr(tags, "_read", slowly)
    names = [f"t{number}" for number in range(5)]

    def add(name: str) -> None:
        change_tags(run, lambda known: known.updated(add=[name]))

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    threads.append(threading.Thread(target=keep_tags, args=(run, {"name": "mine", "tags": ["at the start"]})))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_tags(run).name == "mine"
    assert set(read_tags(run).tags) == {*names, "at the start"}
    assert [path.name for path in run.iterdir()] == ["tags.json"]


def test_damaged_tags_are_not_overwritten_and_a_run_without_new_ones_goes_on(here: Path) -> None:
    file = here / "tags.json"
    file.write_text('{"name": "the best of')
    assert read_tags(here) == Tags()
    keep_tags(here, {"name": None, "tags": [], "note": None})
    with pytest.raises(RunError, match=r"tags\.json is damaged; remove it"):
        change_tags(here, lambda known: known.updated(name="mine"))
    assert file.read_text() == '{"name": "the best of'
