"""Reports of sweeps and of claims."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dlrunner.errors import RequestError
from dlrunner.looks.report import claims, sweep
from dlrunner.looks.report.charts import axis_of
from dlrunner.verdicts import Verdict
from tests.conftest import QUICK, Dlrun
from tests.fake_runs import write_run, write_seeds, write_sweep
from tests.looks.pages import EVIL, assert_harmless


def history(value: float, num_epochs: int = 3) -> list[dict[str, Any]]:
    return [{"epoch": e, "train/loss": value + 1 / e, "valid/rmse": value + 1 / e} for e in range(1, num_epochs + 1)]


def planted(parent: Path) -> Path:
    """A sweep of two optimizers and two rates with two seeds each, whose best is adam at 0.1; one job has failed."""
    runs: list[Path] = []
    for optim, lr, value in (("adam", 0.1, 0.8), ("adam", 0.01, 0.9), ("sgd", 0.1, 1.0), ("sgd", 0.01, 1.1)):
        for seed in (0, 1):
            settings = {"optim": optim, "optim.lr": lr, "seed": seed}
            at = value + 0.02 * seed
            name = f"{optim},{lr},{seed}-{len(runs):08x}"
            runs.append(write_run(parent / "runs" / "collab" / name, at, settings, history=history(at)))
    return write_sweep(parent / "runs" / "sweeps" / "mine", runs, failed=["the loss is not finite"])


def test_a_sweep_is_told_by_groups_bands_lines_and_jobs(tmp_path: Path) -> None:
    folder = planted(tmp_path)
    (folder / "sweep.json").write_text(json.dumps({"words": ["task=collab", "optim=adam,sgd"]}))
    html = sweep.write(folder).read_text()
    assert_harmless(html)
    for said in (
        "8 of 9",
        "1 of 9 jobs are not done: 1 failed",
        "the loss is not finite",
        "dlrun -m task=collab optim=adam,sgd",
        "0.8100",
        "± 0.0141 (sd over 2 runs), lower is better",
        "optim=adam optim.lr=0.1 1.1433 (1.1333 to 1.1533)",
        "job 0: optim=adam optim.lr=0.1 seed=0: valid/rmse 0.8000",
        'href="../../collab/adam%2C0.1%2C0-00000000"',
    ):
        assert said in html, said
    assert html.count('<path class="band ') == 8, "four groups, the metric and the loss"


def test_runs_are_linked_to_their_own_reports_and_links_start_from_where_the_page_lies(tmp_path: Path) -> None:
    folder = planted(tmp_path)
    run = tmp_path / "runs" / "collab" / "adam,0.1,0-00000000"
    (run / "report.html").touch()
    html = sweep.write(folder, tmp_path / "elsewhere.html").read_text()
    assert 'href="runs/collab/adam%2C0.1%2C0-00000000/report.html"' in html


def test_a_sweep_with_hostile_texts_is_harmless(tmp_path: Path) -> None:
    parent = tmp_path / "runs" / "collab"
    runs = [
        write_run(
            parent / f"{n}-0000000{n}",
            0.5 + n / 10,
            {"data.path": [EVIL, "a.csv"][n % 2], "seed": n // 2},
            data={"name": EVIL, "terms": EVIL},
            others={f"valid/{EVIL}": 0.1},
        )
        for n in range(4)
    ]
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs, failed=[EVIL])
    (folder / "sweep.json").write_text(json.dumps({"words": [EVIL]}))
    assert_harmless(sweep.write(folder).read_text())


def test_five_hundred_jobs_are_small_quick_and_all_there(tmp_path: Path) -> None:
    runs = []
    for number in range(500):
        settings = {"optim.lr": 10 ** (-number % 50 / 10), "batch_size": 2 ** (number % 5), "seed": number // 250}
        at = 0.8 + number / 1000
        place = tmp_path / "runs" / "collab" / f"optim.lr={settings['optim.lr']:.3g},n={number}-{number:08x}"
        runs.append(write_run(place, at, settings, history=history(at, 30), others={"valid/mae": at, "valid/f1": at}))
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs)
    started = time.perf_counter()
    html = sweep.write(folder).read_text()
    assert time.perf_counter() - started < 20
    assert len(html.encode()) < 1_500_000
    assert "The best 8 of 50 groups are drawn" in html
    assert "job 499: " in html
    assert_harmless(html)


def test_a_sweep_with_one_run_that_is_done_has_its_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "collab" / "a-00000000", 0.9)
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "mine", [run], failed=["out of memory"])
    html = sweep.write(folder).read_text()
    assert "1 of 2" in html
    assert "out of memory" in html


def test_a_sweep_without_results_or_with_damaged_ones_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    with pytest.raises(RequestError, match=r"has no results\.csv yet"):
        sweep.write(tmp_path)
    (tmp_path / "results.csv").write_bytes(b"\xff\xfe,\n1")
    with pytest.raises(RequestError, match="damaged"):
        sweep.write(tmp_path)


def test_the_verb_reports_a_sweep_twice_the_same(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun("-m", "task=collab", "data.path=my.csv", "epochs=2", "optim.lr=1e-2,1e-3", *QUICK)[0] == 0
    (folder,) = (here / "runs" / "sweeps").iterdir()
    assert dlrun("report", str(folder))[0] == 0
    first = (folder / "report.html").read_bytes()
    assert dlrun("report", str(folder))[0] == 0
    assert (folder / "report.html").read_bytes() == first
    # Its jobs know what they were changed from, though other processes did them.
    run = next((here / "runs" / "collab").glob("*lr=0.001*"))
    assert json.loads((run / "report.json").read_text())["changed"]["optim.lr"] == "0.005"


def test_numbers_have_places_by_size_and_words_side_by_side() -> None:
    assert axis_of("lr", [1e-4, 1e-2, 1.0]).places == pytest.approx([0, 0.5, 1])
    assert axis_of("optim", ["sgd", "adam", None]).places == [0.0, 0.5, 1.0]
    assert axis_of("same", [3, 3]).places == [0.5, 0.5]


def verdicts(folders: list[str]) -> list[Verdict]:
    known: dict[str, Any] = {"metric": "valid/rmse", "published": 0.9, "source": "lesson 5"}
    earned: dict[str, Any] = {"seeds": [0, 1], "values": [0.88, 0.9], "mean": 0.89, "spread": 0.014, "p": 1.0}
    return [
        Verdict("good", **known, verdict="reached", **earned, seconds=[1.0, 2.0], folders=folders, command="dlrun x"),
        Verdict("bad", **known, verdict="missed", why="seed 1: the loss is not finite"),
        Verdict("absent", **known, verdict="cannot be run here", why="it needs a GPU"),
    ]


def write_claims(folder: Path, given: list[Verdict]) -> Path:
    folder.mkdir(parents=True)
    (folder / "claims.json").write_text(json.dumps([asdict(verdict) for verdict in given]))
    return folder


def test_claims_are_told_with_verdicts_terms_and_a_link_to_each_run(tmp_path: Path, dlrun: Dlrun) -> None:
    runs = write_seeds(tmp_path / "runs" / "movielens", [0.88, 0.9], data={"name": "MovieLens", "terms": "research"})
    (runs[0] / "report.html").touch()
    folder = write_claims(tmp_path / "runs" / "claims" / "mine", verdicts([str(run) for run in runs]))
    status, out, _ = dlrun("report", str(folder))
    assert (status, "report.html" in out) == (0, True)
    html = (folder / "report.html").read_text()
    assert_harmless(html)
    for said in (
        '<td class="good"><b>reached</b></td>',
        '<td class="bad"><b>missed</b></td>',
        "it needs a GPU",
        "the loss is not finite",
        "0.8900 ± 0.0140",
        'href="../../movielens/all%3Dsame%2Cseed%3D0-00000000/report.html">seed 0: valid/rmse 0.8800</a>',
        'href="../../movielens/all%3Dsame%2Cseed%3D1-00000001">seed 1',
        "research",
        "dlrun x",
    ):
        assert said in html, said


def test_claims_with_hostile_texts_are_harmless_and_damaged_ones_are_told(tmp_path: Path) -> None:
    (verdict, *_) = verdicts([EVIL, EVIL])
    texts = {"experiment": EVIL, "metric": EVIL, "source": EVIL, "why": EVIL, "flags": [EVIL], "data": EVIL}
    hostile = Verdict(**{**asdict(verdict), **texts, "verdict": EVIL, "command": EVIL, "device": EVIL})
    assert_harmless(claims.write(write_claims(tmp_path / "a", [hostile])).read_text())
    folder = write_claims(tmp_path / "b", [])
    for damaged in ("{", "[1]", '[{"experiment": 1}]', json.dumps([{**asdict(verdict), "published": "x"}])):
        (folder / "claims.json").write_text(damaged)
        with pytest.raises(RequestError, match="does not hold verdicts"):
            claims.write(folder)
