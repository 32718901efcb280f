"""Reports of sweeps and of claims."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dlrunner.claims.claim_report import Verdict
from dlrunner.errors import ConfigError
from dlrunner.reporting.html import claims, page, sweep
from dlrunner.reporting.html.charts import axis_of, parallel, strip
from tests.conftest import QUICK, Dlrun
from tests.fake_runs import write_run, write_seeds, write_sweep
from tests.reporting.pages import EVIL, assert_harmless


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


def test_a_sweep_is_reported_by_groups_bands_lines_and_jobs(tmp_path: Path) -> None:
    folder = planted(tmp_path)
    (folder / "sweep.json").write_text(json.dumps({"words": ["task=collab", "optim=adam,sgd"]}))
    html = sweep.write(folder).read_text()
    assert_harmless(html)
    for said in (
        "8 of 9",
        "1 of 9 jobs are not finished: 1 failed",
        "the loss is not finite",
        "dlrun -m task=collab optim=adam,sgd",
        "0.8100",
        "± 0.0141 (std over 2 runs), lower is better",
        "optim=adam optim.lr=0.1 1.1433 (1.1333 to 1.1533)",
        "job 0: optim=adam optim.lr=0.1 seed=0: valid/rmse 0.8000",
        'href="../../collab/adam%2C0.1%2C0-00000000"',
    ):
        assert said in html, said
    assert html.count('<path class="band ') == 8, "four groups, the metric and the loss"


def test_the_verdict_of_more_than_two_groups_is_that_of_their_pairs(tmp_path: Path) -> None:
    html = sweep.write(planted(tmp_path)).read_text()
    verdict = html.partition(">Verdict</h2>")[2].partition("</section>")[0]
    assert "optim=adam optim.lr=0.1 is better than " in verdict
    assert "Holm" not in html.partition(">Notes</h2>")[2].partition("</section>")[0]


def test_a_seed_that_was_run_twice_counts_once_in_the_mean_of_a_band(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "runs" / name, at, {"optim": optim, "seed": seed}, history=history(at))
        for name, optim, seed, at in (("a", "adam", 0, 1.0), ("b", "adam", 0, 1.0), ("c", "adam", 1, 2.0), ("d", "sgd", 0, 4.0))
    ]  # fmt: skip
    html = sweep.write(write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs)).read_text()
    assert "optim=adam 1.8333 (1.3333 to 2.3333)" in html


def test_runs_are_linked_to_their_reports_relative_to_the_page(tmp_path: Path) -> None:
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


@pytest.mark.slow  # five hundred jobs
def test_a_report_of_five_hundred_jobs_is_small_fast_and_complete(tmp_path: Path) -> None:
    runs = []
    for number in range(500):
        settings = {"optim.lr": 10 ** (-number % 50 / 10), "batch_size": 2 ** (number % 5), "seed": number // 250}
        at = 0.8 + number / 1000
        place = tmp_path / "runs" / "collab" / f"optim.lr={settings['optim.lr']:.3g},n={number}-{number:08x}"
        runs.append(write_run(place, at, settings, history=history(at, 30), others={"valid/mae": at, "valid/f1": at}))
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs)
    started = time.process_time()
    html = sweep.write(folder).read_text()
    assert time.process_time() - started < 20
    assert len(html.encode()) < 1_500_000
    assert "The best 8 of 50 groups are shown" in html
    assert "job 499: " in html
    assert_harmless(html)


def test_jobs_on_different_validation_rows_are_not_ranked(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs" / "collab" / f"{v}", 0.8, {"data.valid": v}) for v in (0.1, 0.2)]
    html = sweep.write(write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs)).read_text()
    assert "groups of different validation sets are not comparable" in html
    assert "2 different sets of rows" in html
    assert "highlighted: the best mean" not in html


def test_a_sweep_with_one_finished_run_has_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "collab" / "a-00000000", 0.9)
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "mine", [run], failed=["out of memory"])
    html = sweep.write(folder).read_text()
    assert "1 of 2" in html
    assert "out of memory" in html


def test_a_sweep_on_synthetic_data_has_a_warning_for_any_status_of_its_jobs(tmp_path: Path) -> None:
    parent = tmp_path / "runs" / "collab"
    generated = write_run(parent / "a-00000000", 0.9, {"optim.lr": 0.1}, data={"name": "M", "source": "synthetic"})
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "one", [generated], failed=["out of memory"])
    assert "Synthetic data: the results below" in sweep.write(folder).read_text()
    real = write_run(parent / "b-00000001", 0.8, {"optim.lr": 0.2}, data={"name": "M", "source": "real", "terms": "T"})
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "two", [generated, real])
    html = sweep.write(folder).read_text()
    assert "Synthetic data in 1 of 2 runs:" in html
    assert "<td>T</td>" in html


def test_runs_of_different_tasks_are_not_ranked_and_the_terms_of_all_data_are_shown(tmp_path: Path) -> None:
    runs = [
        write_run(
            tmp_path / "runs" / task / f"a-0000000{number}",
            0.9 - number / 10,
            {"task": task},
            data={"name": task, "release": "1", "terms": f"terms of {task}"},
        )
        for number, task in enumerate(("movielens", "tabular"))
    ]
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs)
    html = sweep.write(folder).read_text()
    assert "their metrics cannot be compared" in html
    for ranking in ("best group", '<tr class="best">', "Parallel coordinates", "Best first"):
        assert ranking not in html, ranking
    assert "terms of movielens" in html
    assert "terms of tabular" in html


def test_an_unfinished_sweep_is_reported_with_its_finished_jobs(tmp_path: Path) -> None:
    folder = planted(tmp_path)
    jobs = sweep.read_jobs(folder)
    (folder / "results.csv").unlink()
    for job in jobs[:4]:
        (folder / "jobs" / job["job"]).mkdir(parents=True)
        record = {"status": "done", "folder": job["folder"]}
        (folder / "jobs" / job["job"] / "record.json").write_text(json.dumps(record))
    (folder / "jobs" / "4").mkdir()
    html = sweep.write(folder).read_text()
    assert "4 of 5" in html
    assert "1 of 5 jobs are not finished: 1 not started, or still running" in html
    assert "optim.lr=0.1 1.1433 (1.1333 to 1.1533)" in html


def test_links_of_a_sweep_work_after_all_runs_were_moved(tmp_path: Path) -> None:
    planted(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "moved")
    html = sweep.write(tmp_path / "moved" / "sweeps" / "mine", tmp_path / "elsewhere.html").read_text()
    assert 'href="moved/collab/adam%2C0.1%2C0-00000000"' in html


def test_a_failed_job_without_a_folder_is_not_the_run_of_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = planted(tmp_path)
    monkeypatch.chdir(tmp_path / "runs" / "collab" / "adam,0.1,0-00000000")
    html = sweep.write(folder).read_text()
    assert html.count('<td class="n" data-order="0.8">0.8000</td>') == 1


def test_a_huge_sweep_keeps_the_size_limit_and_shows_failed_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "MOST_JOBS", 270)
    monkeypatch.setattr(page, "MOST_BYTES", 500_000)
    runs = []
    for number in range(300):
        settings = {f"model.some_setting_{i}": f"value {number} of {i} {'x' * 30}" for i in range(8)}
        place = tmp_path / "runs" / "collab" / f"n={number}-{number:08x}"
        runs.append(write_run(place, 0.8 + number / 1000, settings, history=history(0.8, 2)))
    folder = write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs, failed=["the very reason " + "y" * 5000] * 3)
    html = sweep.write(folder).read_text()
    assert len(html.encode()) <= 500_000
    jobs = html.partition('aria-label="Jobs"')[2]
    assert jobs.count("the very reason") == 3
    assert "y" * 500 not in html
    assert "of 303 jobs are shown; results.csv has all." in html


def test_a_sweep_without_jobs_or_with_damaged_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    with pytest.raises(ConfigError, match="has no jobs yet"):
        sweep.write(tmp_path)
    for damaged in (b"\xff\xfe,\n1", b"", b"job,status\n1,done\n"):
        (tmp_path / "results.csv").write_bytes(damaged)
        with pytest.raises(ConfigError, match="damaged"):
            sweep.write(tmp_path)


def test_the_verb_writes_the_same_report_of_a_sweep_twice(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun("-m", "task=collab", "data.path=my.csv", "epochs=2", "optim.lr=2e-2,1e-3", *QUICK)[0] == 0
    (folder,) = (here / "runs" / "sweeps").iterdir()
    assert dlrun("report", str(folder))[0] == 0
    first = (folder / "report.html").read_bytes()
    assert dlrun("report", str(folder))[0] == 0
    assert (folder / "report.html").read_bytes() == first
    html = first.decode()
    assert '<td>epochs</td><td class="long">2</td><td>auto</td>' in html, "what all jobs share"
    assert "<td>optim.lr</td>" not in html, "what they do not"
    # Its jobs know what they were changed from, though other processes did them.
    run = next((here / "runs" / "collab").glob("*lr=0.001*"))
    assert json.loads((run / "report.json").read_text())["changed"]["optim.lr"] == "0.01"


def test_axes_position_numbers_by_value_and_words_evenly() -> None:
    assert axis_of("lr", [1e-4, 1e-2, 1.0]).positions == pytest.approx([0, 0.5, 1])
    assert axis_of("optim", ["sgd", "adam", None]).positions == [0.5, 1.0, 0.0]
    assert axis_of("batch_size", [None, 128, 8, 16]).positions == pytest.approx([0, 1, 1 / 3, 2 / 3])
    assert axis_of("same", [3, 3]).positions == [0.5, 0.5]


def test_parallel_coordinates_need_two_settings() -> None:
    axes = [axis_of("optim.lr", [0.1, 0.01]), axis_of("valid/rmse", [0.9, 0.8])]
    words = ([0.0, 1.0], ["job 0", "job 1"], "")
    assert parallel("Settings", axes, *words) == ""
    assert "<svg" in parallel("Settings", [axis_of("batch_size", [8, 16]), *axes], *words)


def test_the_seeds_of_a_claim_are_dots_over_an_axis() -> None:
    drawn = strip("valid/rmse", [0.88, 0.9], 0.9, "published 0.9")
    assert re.findall(r">([0-9.]+)</text>", drawn) == ["0.880", "0.885", "0.890", "0.895", "0.900"]
    assert ">valid/rmse</text>" in drawn
    assert ">published</text>" in drawn
    places = [float(x) for x in re.findall(r'<circle [^>]*cx="([^"]*)"', drawn)]
    assert places[0] < places[1]
    assert f'class="published" d="M{places[1]} ' in drawn, "the published value is where the equal one is"


def verdicts(folders: list[str]) -> list[Verdict]:
    known: dict[str, Any] = {"metric": "valid/rmse", "published": 0.9, "source": "lesson 5"}
    earned: dict[str, Any] = {"seeds": [0, 1], "values": [0.88, 0.9], "mean": 0.89, "std": 0.014, "p": 1.0}
    return [
        Verdict("good", **known, verdict="reached", **earned, seconds=[1.0, 2.0], folders=folders, command="dlrun x"),
        Verdict("bad", **known, verdict="missed", why="seed 1: the loss is not finite", failed={"1": ""}),
        Verdict("absent", **known, verdict="cannot be run here", why="it needs a GPU"),
    ]


def write_claims(folder: Path, given: list[Verdict]) -> Path:
    folder.mkdir(parents=True)
    (folder / "claims.json").write_text(json.dumps([asdict(verdict) for verdict in given]))
    return folder


def test_claims_are_reported_with_verdicts_terms_and_a_link_to_each_run(tmp_path: Path, dlrun: Dlrun) -> None:
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


def test_of_a_claim_whose_run_failed_the_others_and_the_failed_one_are_linked_also_when_moved(tmp_path: Path) -> None:
    runs = write_seeds(tmp_path / "runs" / "movielens", [0.88, 0.9], data={"name": "MovieLens", "terms": "research"})
    lost = write_run(tmp_path / "runs" / "movielens" / "lost-00000007", None)
    verdict = Verdict(
        *("bad", "valid/rmse", 0.9, "lesson 5", "missed"),
        seeds=[0, 1],
        values=[0.88, 0.9],
        folders=[str(run) for run in runs],
        failed={"2": str(lost)},
    )
    write_claims(tmp_path / "runs" / "claims" / "mine", [verdict])
    (tmp_path / "runs").rename(tmp_path / "moved")
    html = claims.write(tmp_path / "moved" / "claims" / "mine", tmp_path / "elsewhere.html").read_text()
    assert 'href="moved/movielens/all%3Dsame%2Cseed%3D1-00000001">seed 1: valid/rmse 0.9000' in html
    assert 'href="moved/movielens/lost-00000007">seed 2: failed' in html
    assert "research" in html


def test_claims_with_hostile_texts_are_harmless_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    (verdict, *_) = verdicts([EVIL, EVIL])
    texts = {"experiment": EVIL, "metric": EVIL, "source": EVIL, "why": EVIL, "flags": [EVIL], "data": EVIL}
    hostile = Verdict(**{**asdict(verdict), **texts, "verdict": EVIL, "command": EVIL, "device": EVIL})
    assert_harmless(claims.write(write_claims(tmp_path / "a", [hostile])).read_text())
    folder = write_claims(tmp_path / "b", [])
    for damaged in (
        "{",
        "[1]",
        '[{"experiment": 1}]',
        *(json.dumps([{**asdict(verdict), name: "x"}]) for name in ("published", "p", "mean", "failed")),
    ):
        (folder / "claims.json").write_text(damaged)
        with pytest.raises(ConfigError, match="has no valid verdicts"):
            claims.write(folder)
