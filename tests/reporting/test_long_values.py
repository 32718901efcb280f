"""Long values of settings, such as paths: different ones are never shown as the same text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlrunner.comparison.collect import distinct_cuts, gather, shown
from dlrunner.comparison.groups import compare
from dlrunner.comparison.validation import difference
from dlrunner.reporting.html import sweep
from dlrunner.reporting.latex import latex_table
from dlrunner.reporting.terminal import comparison as looks
from dlrunner.reporting.terminal.diff import print_difference
from dlrunner.runs.reader import FinishedRun
from tests.fake_runs import write_run, write_sweep

YEARS = ("2023", "2024")
END = "features/monthly/with-weather/and-holidays/sales.csv"


@pytest.fixture
def runs(here: Path) -> list[Path]:
    return [
        write_run(here / "runs" / year, int(year) / 1e4, {"model.encoder": f"data/{year}/processed/{END}"})
        for year in YEARS
    ]


def test_values_that_end_alike_are_cut_around_their_difference() -> None:
    middle = [f"{'a' * 60}{year}{'b' * 60}" for year in YEARS]
    cuts = distinct_cuts([*middle, *middle, 0.1, None, "short"])
    assert [shown(each, cuts) for each in middle] == [f"…{'a' * 9}{year}{'b' * 33}…" for year in YEARS]
    assert shown("c" * 100, cuts) == f"…{'c' * 47}"
    three = [*middle, f"x{'a' * 59}2023{'b' * 60}"]
    assert [shown(each, distinct_cuts(three)) for each in three] == three, "no cut of one length shows all differences"


def test_a_comparison_tells_them_apart(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(gather(list(map(str, runs)))[0])
    assert [group.label for group in found.groups] == [
        f"model.encoder=data/{year}/processed/features/monthly/with-weat…" for year in YEARS
    ]
    looks.print_comparison(found, looks.groups_frame(found), [], top=5)
    texts = [capsys.readouterr().out, latex_table(found), looks.as_json(found, [])]
    texts += [looks.runs_frame(found)["model.encoder"].str.cat(sep=" ")]
    print_difference(*map(FinishedRun.read, runs))
    texts.append(capsys.readouterr().out.partition("settings")[2])
    for text in texts:
        assert all(f"data/{year}/processed" in text for year in YEARS), text


def test_validation_sets_that_differ_in_the_beginning_of_a_value_are_told_by_it(here: Path) -> None:
    data = {"name": "a", "release": "own", "source": "real"}
    for year in YEARS:
        write_run(here / "runs" / year, 0.5, {"data.valid_files": f"data/{year}/processed/{END}"}, data=data)
    rows = gather(["runs/*"])[0]
    assert difference(rows, [0, 1], ()).startswith("data.valid_files (data/2023/processed")


def test_the_report_of_a_sweep_tells_them_apart(runs: list[Path], here: Path) -> None:
    html = sweep.write(write_sweep(here / "runs" / "sweeps" / "mine", runs)).read_text()
    cells = re.findall(r"<td[^>]*>(?:<[^>]*>)?(data/202[34]/[^<]*)", html)
    assert len(cells) == 4, "in the table of groups and in that of jobs"
    assert len(set(cells)) == 2
