"""W&B's offline file, read back record by record."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlrunner.tracking.relay import numbers
from tests.conftest import Dlrun

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="needs W&B: pip install 'dlrunner[wandb]'"
)
WORDS = ("task=collab", "data.path=my.csv", "log=wandb", "log.tracker_timeout=60", "epochs=3", "batch_size=200")
BLOCK = 32768
FULL, LAST = 1, 4


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: LevelDB's log format, protocol buffers inside."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = file.read_bytes(), 7, b""  # the first seven bytes name the format
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def items(entries: Any) -> dict[str, Any]:
    return {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in entries}


@pytest.fixture(autouse=True)
def _no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.mark.slow  # imports W&B; what trackers are told is tested in test_tracking.py
def test_the_offline_file_holds_what_the_folder_holds(ratings_csv: Path, dlrun: Dlrun) -> None:
    status, out, _ = dlrun(*WORDS)
    assert status == 0
    assert "wandb failed" not in out
    run = Path("runs/latest").resolve()
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    found: dict[str, list[Any]] = {}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        found.setdefault(kind, []).append(getattr(record, kind))
    (begun,) = found["run"]
    config = items(begun.config.update)
    assert (begun.project, begun.display_name, config["folder"]) == ("collab", run.name, str(run))
    assert (config["optim"], config["epochs"]) == ("adamw", 3)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [items(each.item) for each in found["history"]]
    names = set(numbers(rows[0]))
    assert [{k: v for k, v in row.items() if k in names} for row in logged[:3]] == [numbers(row) for row in rows]
    pictures = {f"plots/{picture.stem}/path" for picture in run.glob("plots/*")}
    assert {key for key in logged[3] if key.startswith("plots/") and key.endswith("/path")} == pictures
    told: dict[str, Any] = {}
    for each in found["summary"]:
        told |= items(each.update)
    assert told["final/valid/rmse"] == json.loads((run / "summary.json").read_text())["final"]["valid/rmse"]
    assert told["status"] == "done"
    assert found["exit"][0].exit_code == 0


@pytest.mark.slow  # imports W&B; what trackers are told is tested in test_tracking.py
def test_a_run_that_goes_on_keeps_its_id_and_sends_no_epoch_twice(ratings_csv: Path, dlrun: Dlrun) -> None:
    run = Path("runs/latest")
    for _ in range(2):
        status, out, _ = dlrun(*WORDS, "log.plots=false")
        assert status == 0
        assert "wandb failed" not in out
        (run / "summary.json").unlink()  # as if it had been killed
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1
    logged = [
        items(record.history.item)
        for file in files
        for record in records(file)
        if record.WhichOneof("record_type") == "history"
    ]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in logged if "epoch" in row] == [row["epoch"] for row in rows]
