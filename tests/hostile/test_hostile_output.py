"""Where things are printed and written: nothing steers a terminal or a spreadsheet, and no full disk ends in a traceback."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.table import Table
from rich.text import Text

import dlrunner
from dlrunner.cli import main
from dlrunner.files.spreadsheet import as_csv, quoted, unquoted, without_quotes
from dlrunner.runs.directory import RunDirectory
from dlrunner.runs.log import logged
from dlrunner.system.terminal import Stream, console, visible
from tests.conftest import Dlrun, Forked, ratings_table
from tests.hostile.conftest import WORDS

ESCAPE = "\x1b[31m[red]x[/red]\x1b]0;title\x07\r\u202e\udcff"

LOGGED = ESCAPE.removesuffix("\udcff")
"""What workers of xdist can send to each other."""


def command(words: str, more: str = "") -> subprocess.CompletedProcess[str]:
    line = f"exec {sys.executable} -m dlrunner {words} {more}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (">/dev/full", "standard output could not be written"),
        pytest.param(">&- 2>&-", "", marks=pytest.mark.slow),  # without standard output alone: the next test
        pytest.param(">/dev/full 2>/dev/full", "", marks=pytest.mark.slow),
    ],
)
def test_a_run_does_not_depend_on_where_it_prints(more: str, said: str, ratings_csv: Path, here: Path) -> None:
    words = " ".join(WORDS)
    done = command(words, more)
    assert done.returncode == 0, (more, done.stderr)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert len(list((here / "runs" / "collab").glob("*-????????"))) == 1
    if not said:  # of the slow ones
        assert command(f"{words} optim.lrr=1", more).returncode == 2
    shown = command("show runs/latest", more)
    assert shown.returncode == ("full" in more)  # its answer is what it prints


def test_no_file_takes_the_number_of_a_closed_stream(ratings_csv: Path, here: Path) -> None:
    def without_output(words: tuple[str, ...]) -> int:
        kept, sys.stdout = sys.stdout, None  # as Python starts with >&-
        os.close(1)
        status = main(words)
        os.write(1, b"printed by a library")
        sys.stdout = kept
        return status

    process = Forked(WORDS, here, {}, without_output)
    _, err = process.communicate()
    assert process.returncode == 0, err
    for file in (here / "runs").rglob("*"):
        assert not file.is_file() or b"printed by a library" not in file.read_bytes()


def test_a_full_disk_cuts_the_log_short_and_says_so_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("dlrunner")
    with logged(here, ["a=1"]):
        (handler,) = [each for each in log.handlers if isinstance(each, logging.FileHandler)]

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(handler.stream, "flush", full, raising=False)
        monkeypatch.setattr(handler, "flush", full)
        for number in range(3):
            log.info("line %d", number)
    err = capsys.readouterr().err
    assert err.count("is incomplete: No space left on device") == 1
    assert "Traceback" not in err


def test_a_line_of_the_log_is_one_message(here: Path) -> None:
    with logged(here, [f"a={LOGGED}\n2026-01-01 INFO forged"]):
        logging.getLogger("dlrunner").info(LOGGED)
    text = (here / "run.log").read_text()
    assert len(text.splitlines()) == 2
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


def test_texts_are_written_whatever_is_in_them(here: Path) -> None:
    RunDirectory(here).write_text("a.txt", ESCAPE)
    assert "\\udcff" in (here / "a.txt").read_text()


def test_printed_texts_hold_no_control_characters() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = "".join(map(chr, rng.integers(0, 0x2070, 50)))
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]", visible(text))
        kept = io.StringIO()
        Stream(kept).write(text + "\udcff")
        assert kept.getvalue() == visible(text + "\udcff")


def test_a_terminal_that_is_not_in_utf8_gets_what_it_can_show() -> None:
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    stream.write("mean ± 1 \udcff")
    assert raw.getvalue() == b"mean \\xb1 1 \\udcff"


def test_tables_show_markup_and_escapes_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = io.StringIO()
    monkeypatch.setattr(kept, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", Stream(kept))
    monkeypatch.setenv("TERM", "xterm-256color")
    out = console(width=200, force_terminal=True)
    table = Table(title=Text(ESCAPE))
    table.add_column(Text("[bold]name"))
    table.add_row(Text(ESCAPE, "red"))
    out.print(table)
    out.print("[blink]a[/blink]")
    out.print(Text("styled", "bold"))
    text = kept.getvalue()
    assert "[red]x[/red]" in text
    assert "[blink]a[/blink]" in text
    assert "\\x1b]0;title" in text
    assert "\x1b]0" not in text
    assert "\x1b[1mstyled" in text  # what dlrunner styles itself is styled


def test_ids_and_labels_of_a_table_cannot_steer_the_terminal(dlrun: Dlrun, here: Path) -> None:
    table = ratings_table()
    table["item"] = table["item"].replace({"i1": LOGGED.replace("\r", ""), "i2": "=1+1", "i3": "[bold]"})
    table.to_csv("my.csv", index=False)
    status, out, err = dlrun(*WORDS, "log.progress=bars")
    assert status == 0, err
    status, shown, err = dlrun("predict", "runs/latest", "--user", "1", "--top", "60")
    assert status == 0, err
    status, _, told = dlrun("predict", "runs/latest", "--user", "\x1b[31mx")
    assert status == 2
    for text in (shown, told, (here / "runs" / "latest" / "run.log").read_text()):
        assert not re.search("\x1b\\]0|\x1b\\[31m|\x07|\u202e", text)
    assert "\x1b]0" not in out


def test_a_cell_that_begins_like_a_formula_is_quoted() -> None:
    table = pd.DataFrame(
        {
            "=name": ["=1+1", "@a", "-a", "+1-2", "\tx", "=r", "'=q", "'tis", "a=b", "", None],
            "number": [-1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, np.nan],
            "id": ["-5", "+3.5", "-1e5", *"abcdefgh"],
        }
    )
    content, count = as_csv(table)
    assert count == 8
    read = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    assert read["'=name"].tolist()[:7] == ["'=1+1", "'@a", "'-a", "'+1-2", "'\tx", "'=r", "''=q"]
    assert read["'=name"].tolist()[7:] == ["'tis", "a=b", "", ""]
    assert read["number"].tolist()[0] == "-1.5"
    assert read["id"].tolist()[:3] == ["-5", "+3.5", "-1e5"]
    assert without_quotes(read)["=name"].tolist()[:9] == table["=name"].tolist()[:9]
    assert as_csv(table, is_raw=True) == (table.to_csv(index=False).encode(), 0)
    assert table["=name"][0] == "=1+1"


def test_quotes_can_be_taken_away_again() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        text = "".join(rng.choice(list("'=+-@\t\ra1. "), rng.integers(0, 6)))
        assert unquoted(quoted(text)) == text
        assert not re.match("[=+@\t\r-]", str(quoted(text))) or float(text) == float(text) or "nan" in text


def test_answers_are_quoted_and_raw_ones_are_not(dlrun: Dlrun, here: Path) -> None:
    table = ratings_table()
    table["item"] = "=" + table["item"]
    table.to_csv("my.csv", index=False)
    assert dlrun(*WORDS)[0] == 0
    asked = ("predict", "runs/latest", "--user", "1", "--out", "answer.csv")
    status, out, _ = dlrun(*asked)
    assert status == 0
    assert "--raw" in out
    assert pd.read_csv("answer.csv").iloc[:, 0].str.startswith("'=").all()
    assert dlrun(*asked, "--raw")[0] == 0
    assert pd.read_csv("answer.csv").iloc[:, 0].str.startswith("=i").all()
    assert pd.read_csv("runs/latest/predictions.csv")["item"].str.startswith("'=").all()
    assert dlrunner.load("runs/latest").predictions["item"].str.startswith("=i").all()


def test_an_answer_that_cannot_be_written_leaves_the_last_one(
    dlrun: Dlrun, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("answer.csv").write_text("the last one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = dlrun("predict", str(run), "--user", "1", "--out", "answer.csv")
    assert status == 1
    assert "the disk is full" in err
    assert Path("answer.csv").read_text() == "the last one"


def test_files_whose_names_are_not_utf8_are_named(dlrun: Dlrun, here: Path) -> None:
    for label in ("pos", "neg"):
        (here / "texts" / label).mkdir(parents=True)
        for number in range(10):
            (here / "texts" / label / f"{number}.txt").write_text("it was good")
    (here / "texts" / "pos" / "a\udcff.txt").write_text("it was good")
    status, _, err = dlrun("task=text", "data.path=texts", "epochs=1")
    assert status == 1
    assert "a\\udcff.txt is not UTF-8; rename it" in err


def test_a_cache_that_cannot_be_written_is_told(dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("")
    monkeypatch.setenv("DLRUNNER_CACHE", str(here / "file" / "cache"))
    ratings_table().to_csv("my.csv", index=False)
    assert dlrun(*WORDS)[0] == 0  # it is only slower
    status, _, err = dlrun("task=dogbreeds", "data.source=synthetic")
    assert status == 1
    assert "set DLRUNNER_CACHE to another folder" in err
