"""What a terminal of 80 columns shows of a run that is training."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from dlrunner.reporting.terminal.progress import LEFT, BarDisplay, PlainDisplay
from dlrunner.reporting.terminal.tables import print_run
from tests.fake_runs import write_run

ROW = {
    "epoch": 12,
    "train/loss": 0.5,
    "valid/loss": 0.4,
    **{f"valid/{name}": 0.3 for name in ("accuracy", "f1", "roc_auc", "average_precision", "mean_iou")},
    "lr": 1e-3,
    "seconds": 12.5,
}


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make standard output a terminal of 80 columns, which is returned."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return stream


def lines_of(stream: io.StringIO) -> list[str]:
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()))


@pytest.mark.parametrize("kind", [PlainDisplay, BarDisplay])
def test_the_table_of_epochs_leaves_out_the_columns_that_a_terminal_has_no_room_for(
    kind: type[PlainDisplay | BarDisplay], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = terminal(monkeypatch)
    display = kind()
    display.start_epoch(11, 20, 100, 0)
    display.end_epoch(ROW)
    display.close()
    lines = lines_of(shown)
    header = next(line for line in lines if "valid/loss" in line)
    assert header.split() == ["epoch", "train/loss", "valid/loss", "valid/accuracy", "valid/f1", "lr", "seconds"]
    assert max(map(len, lines)) <= 80


def test_a_file_gets_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    PlainDisplay().end_epoch(ROW)
    assert set(ROW) == set(capsys.readouterr().out.split()[: len(ROW)])


EASY = [
    {
        "epoch": epoch,
        "train/loss": loss,
        "valid/loss": loss,
        "valid/accuracy": 1.0,
        "valid/log_loss": log_loss,
        "lr": 1e-3,
    }
    for epoch, loss, log_loss in [(1, 0.5, 0.5), (2, 1e-5, 1.2e-5), (3, 0.4, 0.4)]
]
"""Epochs of which one has a log loss that is not the loss, to the digits that are printed or not."""


@pytest.mark.parametrize("kind", [PlainDisplay, BarDisplay])
@pytest.mark.parametrize("first", [0, 1])
def test_all_epochs_have_the_columns_of_the_header(
    first: int, kind: type[PlainDisplay | BarDisplay], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal(monkeypatch)
    display = kind()
    display.start_epoch(0, 3, 100, 0)
    for row in EASY[first:]:
        display.end_epoch({**row, "seconds": 1.5})
    display.close()
    header, *rows = [line.split() for line in lines_of(stream) if line.split()[-1:] in (["seconds"], ["1.50"])]
    assert ("valid/log_loss" in header) == (first == 1)
    assert [len(row) for row in rows] == [len(header)] * (3 - first)


def test_a_shown_run_has_the_columns_of_the_header_in_all_epochs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(here / "run", 0.8, history=[{**row, "seconds": 1.5} for row in EASY])
    print_run(here / "run")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    header, *rows = [line for line in lines if line[-1:] in (["seconds"], ["1.50"])]
    assert [len(row) for row in rows] == [len(header)] * 3


def test_the_bars_fit_80_columns_and_say_which_time_is_that_of_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    display = BarDisplay()
    display.start_epoch(11, 20, 10_000, 0)
    for step in (4_000, 5_000):
        display.advance(step, 1234.5678, 1e-3, 1_234_567)
        display._progress.refresh()
    display.close()
    shown = [line for line in lines_of(stream) if line.startswith("epoch")]
    assert any(LEFT in line for line in shown)
    assert any("loss 1234.5678" in line for line in shown)
    assert max(map(len, shown)) <= 80
