"""Tags that several processes give a run at once are all kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dlrunner.runs import tags
from dlrunner.runs.tags import Tags, change_tags, keep_tags, read_tags


def test_tags_that_are_given_at_once_are_all_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(folder: Path) -> Tags:
        found = read_tags(folder)
        time.sleep(0.02)
        return found

    run = here / "run"
    run.mkdir()
    monkeypatch.setattr(tags, "read_tags", slowly)
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
