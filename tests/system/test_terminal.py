"""What is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_processes_inherit_the_streams_that_were_closed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, subprocess, sys\n"
        "from dlrunner.system.terminal import open_missing_streams\n"
        "open_missing_streams()\n"
        "pathlib.Path('opened').touch()\n"
        "child = 'import os; [os.fstat(number) for number in range(3)]'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', child], close_fds=False).returncode)\n"
    )
    closed = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    assert subprocess.run(closed, cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "opened").exists()
