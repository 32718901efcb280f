"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import signal
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlrunner.tracking.relay import numbers
from tests.conftest import QUICK, Dlrun, start

pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'dlrunner[tensorboard]'")
WORDS = ("task=collab", "data.path=my.csv", "epochs=3", "batch_size=200", "log=tensorboard", "log.tracker_timeout=60")


def read(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_event_files_hold_what_metrics_jsonl_holds(ratings_csv: Path, dlrun: Dlrun) -> None:
    assert dlrun(*WORDS)[0] == 0
    run = Path("runs/latest")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = read(run)
    for name in numbers(rows[0]):
        wanted = [(row["step"], float(np.float32(row[name]))) for row in rows]
        assert [(event.step, event.value) for event in found.Scalars(name)] == wanted
    final = json.loads((run / "summary.json").read_text())["final"]["valid/rmse"]
    assert [event.value for event in found.Scalars("final/valid/rmse")] == [float(np.float32(final))]
    assert [event.tensor_proto.string_val[0].decode() for event in found.Tensors("folder")] == [str(run.resolve())]
    assert b"adamw" in found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    pictures = sorted((run / "plots").glob("*.png"))
    assert {picture.stem for picture in pictures} >= {chart.stem for chart in (run / "plots").glob("*.svg")} > set()
    assert sorted(found.Tags()["images"]) == [f"plots/{picture.stem}" for picture in pictures]
    for picture in pictures:
        (event,) = found.Images(f"plots/{picture.stem}")
        assert event.encoded_image_string == picture.read_bytes()
        assert struct.pack(">II", event.width, event.height) in picture.read_bytes()[:32]


def test_a_resumed_run_writes_each_epoch_once(here: Path, ratings_csv: Path, dlrun: Dlrun) -> None:
    process = start(*WORDS, *QUICK, "epochs=100", cwd=here)
    while not list(here.glob("runs/*/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert dlrun(*WORDS, *QUICK, "epochs=100")[0] == 0
    run = Path("runs/latest")
    assert len(list((run / "tensorboard").iterdir())) == 2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in read(run).Scalars("valid/rmse")] == [row["step"] for row in rows]
