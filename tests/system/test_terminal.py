"""What is printed."""

from __future__ import annotations

import sys

import pytest

from dlrunner.cli import main
from dlrunner.system.terminal import print_wrapped

TEXT = "warning: training data is newer than validation data\n/a/path/that/is/longer/than/the/line/of-this-terminal"


def test_a_terminal_shows_lines_wrapped_at_words_and_paths_uncut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_wrapped(TEXT)
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["warning: training data is", "  newer than validation data", TEXT.splitlines()[1]]


def test_a_file_has_each_text_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_wrapped(TEXT)
    assert capsys.readouterr().out == f"{TEXT}\n"


def test_errors_are_wrapped_where_standard_error_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert main(["shwo", "runs/latest"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["shwo", "runs/latest"]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) > 1
    assert max(map(len, shown)) <= 30
