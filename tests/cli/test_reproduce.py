"""Claims are judged by a test over seeds; a fault is caught."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from dlrunner.claims.claim_report import BEGIN, END, Verdict, as_json, check_seeds, junit, markdown, merge, write_tables
from dlrunner.claims.claims import Claim, is_current, judge_run, judge_seeds
from tests.conftest import QUICK, REPOSITORY, Dlrun


def test_seeds_are_checked_by_a_one_sided_t_test() -> None:
    assert judge_seeds([0.80, 0.81, 0.79], 0.81, False) == ("reached", 1.0, None)
    for few, published in (([0.826, 0.834], 0.81), ([0.8265, 0.8285, 0.8385], 0.8205)):
        undecided = judge_seeds(few, published, False)
        assert undecided.word == "not distinguishable"
        assert undecided.needed is not None
        assert undecided.needed > len(few), "what is needed is more than there is"
    word, p, needed = judge_seeds([0.82, 0.80, 0.815], 0.81, False)
    assert word == "not distinguishable"
    assert p == pytest.approx(0.40377, abs=1e-4)
    assert needed == 242  # ((1.645 + 0.842) * 0.0104 / 0.00167)²
    word, p, needed = judge_seeds([0.83, 0.831, 0.832], 0.81, False)
    assert word == "missed"
    assert p < 0.01
    assert needed is None
    assert judge_seeds([0.93, 0.94], 0.92, True)[0] == "reached"
    assert judge_seeds([0.90, 0.901, 0.899], 0.92, True)[0] == "missed"
    assert judge_seeds([0.9], 0.92, True)[0] == "missed"


def test_equal_seeds_are_judged_without_a_warning_of_the_library() -> None:
    assert judge_seeds([0.8] * 3, 0.81, False) == ("reached", 1.0, None)
    assert judge_seeds([0.8] * 3, 0.79, False) == ("missed", 0.0, None)


def test_few_seeds_are_judged_by_the_std_of_the_table_and_five_by_their_own() -> None:
    close = [0.8720, 0.8721, 0.8719, 0.8720]
    assert judge_seeds(close, 0.87, False)[0] == "missed"
    assert judge_seeds(close, 0.87, False, std=0.004)[0] == "not distinguishable"
    assert judge_seeds([*close, 0.8720], 0.87, False, std=0.004)[0] == "missed"


def test_the_table_of_results_compares_with_the_claims_as_they_are() -> None:
    for result in json.loads((REPOSITORY / "docs" / "results.json").read_text()):
        claim = yaml.safe_load((REPOSITORY / "conf" / "experiment" / f"{result['experiment']}.yaml").read_text())[
            "claim"
        ]
        assert (result["metric"], result["published"]) == (claim["metric"], claim["value"]), result["experiment"]


def test_a_single_run_is_checked_with_the_measured_std() -> None:
    claim = Claim(metric="valid/rmse", value=0.87, source="a paper", std=0.001)
    open_verdict = "not distinguishable, n = 1: 3 would be needed"
    for value, verdict in ((0.87, "reached"), (0.8716, open_verdict), (0.8717, "missed by 0.0017")):
        assert judge_run(claim, {"valid/rmse": value}, False, "any")["verdict"] == verdict


OWN = """\
# @package _global_
# dlrun experiment=own
defaults:
  - override /task: collab
epochs: 2
data:
  path: my.csv
log:
  report: false
claim:
  metric: valid/rmse
  value: 0.55
  source: "a test"
  quick: true
"""


def test_a_users_claim_is_reproduced_and_a_worse_recipe_is_missed(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(OWN.replace("epochs: 2", "epochs: 20"))
    status, out, _ = dlrun("reproduce", "own", "--seeds", "3", "--out", "verdicts")
    assert status == 0
    (verdict,) = json.loads((here / "verdicts" / "claims.json").read_text())
    assert verdict["verdict"] == "reached"
    assert verdict["seeds"] == [0, 1, 2]
    assert len(set(verdict["values"])) == 3
    assert all(Path(folder, "summary.json").exists() for folder in verdict["folders"])
    assert 0 < verdict["std"] < 0.05
    assert "±" in out
    assert "finished:" in dlrun("reproduce", "own", "--seeds", "3")[1]
    # A changed figure is compared anew with the finished run.
    (here / "conf" / "experiment" / "own.yaml").write_text(
        OWN.replace("epochs: 2", "epochs: 20").replace("0.55", "0.01")
    )
    status, out, _ = dlrun("experiment=own", *QUICK)
    assert status == 1
    assert "already finished" in out
    assert "missed by" in out
    # A rate a hundred times too small must be told as missed.
    status, out, _ = dlrun("reproduce", "own", "--seeds", "2", "--set", "optim.lr=5e-5")
    assert status == 1
    assert "missed" in out
    status, out, _ = dlrun("experiment=own", "optim.lr=5e-5", *QUICK)
    assert status == 1
    assert "missed by" in out


def test_two_claims_of_one_recipe_share_its_run_and_are_judged_each_by_itself(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    high = OWN.replace("valid/rmse", "valid/mae").replace("0.55", "99")
    for name, text in (("low", OWN.replace("0.55", "0.01")), ("high", high)):
        (here / "conf" / "experiment" / f"{name}.yaml").write_text(text)
    for _ in range(2):
        status, out, err = dlrun("reproduce", "low", "high", "--seeds", "1", "--jobs", "2", "--out", "verdicts")
        assert status == 1, out + err
        verdicts = {each["experiment"]: each for each in json.loads((here / "verdicts" / "claims.json").read_text())}
        assert [verdicts["low"]["verdict"], verdicts["high"]["verdict"]] == ["missed", "reached"]
        assert verdicts["low"]["folders"] == verdicts["high"]["folders"]


def test_a_folder_with_signs_of_hydras_grammar_may_be_set(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(OWN)
    (here / "my.csv").rename(here / "a=1,b=2.csv")
    status, out, err = dlrun("reproduce", "own", "--seeds", "1", "--set", "data.path=a=1,b=2.csv")
    assert status in (0, 1), out + err
    assert "valid/rmse" in out


def test_a_sweep_in_which_a_run_misses_its_claim_has_its_exit_status(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    for name, value in (("own-a", "0.01"), ("own-b", "99")):
        (here / "conf" / "experiment" / f"{name}.yaml").write_text(OWN.replace("0.55", value))
    status, out, err = dlrun("-m", "experiment=glob(own-*)", *QUICK)
    assert status == 1, out + err
    assert "sweep of 2 jobs" in out
    assert "1 of 2 jobs miss the published value" in out
    status, out, err = dlrun("experiment=own-b", "seeds=2", *QUICK)
    assert status == 0, out + err


CLAIM: dict[str, Any] = {"metric": "valid/rmse", "value": 0.8, "source": "a test"}


KNOWN: dict[str, Any] = {
    "experiment": "own",
    "metric": "valid/rmse",
    "published": 0.8,
    "source": "a test",
    "command": "dlrun reproduce own",
}


def test_where_all_seeds_fail_an_earlier_verdict_is_replaced(tmp_path: Path) -> None:
    store = tmp_path / "results.json"
    merge(store, [Verdict(**KNOWN, verdict="reached", seeds=[0], values=[0.7])])
    gone = Verdict(**KNOWN, verdict="cannot be run here", why="no data")
    assert merge(store, [gone])[0].verdict == "reached"
    failed = check_seeds(
        "own", CLAIM, {}, "dlrun reproduce own", {0: {"error": "diverged \x1b[31m", "folder": "/home/me"}}
    )
    assert [each.verdict for each in merge(store, [failed])] == ["missed"]
    assert "/home" not in store.read_text()
    (case,) = ElementTree.fromstring(junit([failed])).iter("testcase")
    assert "diverged" in str(case[0].get("message"))


def test_a_metric_that_is_not_a_number_is_missed() -> None:
    assert judge_seeds([float("nan")], 0.8, True, 0.01).word == "missed"
    run = {"final": {"valid/rmse": None}, "folder": "runs/one"}
    found = check_seeds("own", CLAIM, {0: run}, "dlrun reproduce own")
    assert (found.verdict, found.why) == ("missed", "seed 0: valid/rmse is not a number")


def test_a_run_whose_metric_is_not_a_number_is_missed_again_and_again() -> None:
    claim = Claim(metric="valid/rmse", value=0.87, source="a paper")
    for value in (float("nan"), None):
        assert judge_run(claim, {"valid/rmse": value}, False, "any")["verdict"] == "missed: it is not a number"


def test_a_stored_verdict_is_about_the_present_claim() -> None:
    claim = {**CLAIM, "release": "2016", "flags": ["images-overlap-imagenet"]}
    verdict = judge_run(Claim(**claim), {"valid/rmse": 0.7}, False, "2016", [{"flag": "future-rows-in-training"}])
    assert is_current(claim, verdict, "2016")
    assert not is_current({**claim, "release": "2018"}, verdict, "2016")
    assert not is_current({**claim, "flags": []}, verdict, "2016")
    assert not is_current({**claim, "value": 0.9}, verdict, "2016")
    other = judge_run(Claim(**{**claim, "release": "2018"}), {"valid/rmse": 0.7}, False, "2016")
    assert not is_current(claim, other, "2016")
    assert not is_current(claim, {}, "2016")


def test_files_of_the_user_stay_where_tables_are_written(tmp_path: Path) -> None:
    (tmp_path / ".backup.20240101").mkdir()
    own = [tmp_path / ".env.template", tmp_path / ".notes.0123456789abcdef", tmp_path / ".backup.20240101" / "x"]
    left = tmp_path / ".claims.md.0123456789abcdef"
    for each in (*own, left):
        each.write_text("precious")
        os.utime(each, (0, 0))
    write_tables(tmp_path, [])
    assert all(each.exists() for each in own)
    assert not left.exists()


def test_claims_that_cannot_be_run_here_say_why(dlrun: Dlrun) -> None:
    status, out, _ = dlrun("reproduce", "movielens-dot", "--seeds", "1")
    assert status == 0
    assert "cannot be run here" in out
    assert "DLRUNNER_DATA" in out
    status, _, err = dlrun("reproduce", "movielens-dott")
    assert status == 2
    assert "did you mean movielens-dot?" in err


def test_a_recipe_that_fails_is_missed_with_exit_status_1(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(OWN + "optim:\n  lr: 1.0e+12\nschedule:\n  warmup: 0.01\n")
    status, out, err = dlrun("reproduce", "own", "--seeds", "1", "--out", "verdicts")
    assert status == 1, (out, err)
    assert "own: missed: " in out
    (case,) = ElementTree.parse(here / "verdicts" / "claims.xml").iter("testcase")
    assert case.find("failure") is not None


def test_invalid_requests_are_refused_before_anything_runs(dlrun: Dlrun, here: Path) -> None:
    for words, told in (
        (["--seeds", "0"], "--seeds: must be 1 or more"),
        (["--jobs", "none"], "--jobs: must be a number or auto"),
        (["--markdown", "page.md"], "name it with --results"),
        (["--set", "seed=3"], "cannot be changed"),
        (["--set", "claim.value=3"], "cannot be changed"),
        (["movielens-dot", "imdb-ml"], "no experiment with a claim matches imdb-ml; did you mean imdb-lm?"),
        (["rossmann-best", "--quick"], "none of these claims takes less than two minutes"),
    ):
        status, _, err = dlrun("reproduce", *words)
        assert status == 2
        assert told in err
    assert not (here / "runs").exists()


def test_results_are_stored_by_experiment_and_written_into_a_readme(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(OWN)
    (here / "page.md").write_text("# Mine\n")
    words = ("reproduce", "own", "movielens-dot", "--seeds", "2", "--results", "results.json", "--markdown", "page.md")
    status, _, err = dlrun(*words)
    assert status == 2
    assert "are missing" in err
    (here / "page.md").write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nthe end\n")
    dlrun(*words)
    text = (here / "page.md").read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\n\nthe end\n")
    assert "old" not in text
    row = next(line for line in text.splitlines() if line.startswith("| `own`"))
    results = {each["experiment"]: each for each in json.loads((here / "results.json").read_text())}
    own = results["own"]
    assert f"| {own['mean']:.4f} ± {own['std']:.4f} | 2 |" in row
    assert "- `movielens-dot` (published valid/loss 1.1303): " in text
    # One claim alone takes its own place only, and what cannot be run here takes nobody's.
    dlrun("reproduce", "own", "--seeds", "3", "--results", "results.json")
    again = {each["experiment"]: each for each in json.loads((here / "results.json").read_text())}
    assert again["own"]["seeds"] == [0, 1, 2]
    assert again["movielens-dot"] == results["movielens-dot"]
    (here / "my.csv").unlink()
    dlrun("reproduce", "own", "--seeds", "3", "--results", "results.json")
    last = {each["experiment"]: each for each in json.loads((here / "results.json").read_text())}
    assert last["own"] == again["own"]
    (here / "results.json").write_text('[{"a": 1}]')
    status, _, err = dlrun("reproduce", "own", "--seeds", "1", "--results", "results.json")
    assert status == 2
    assert "results.json has no verdicts" in err


def test_verdicts_are_written_as_markdown_json_and_junit() -> None:
    runs = {
        seed: {
            "final": {"valid/rmse": value},
            "claim": {"verdict": "reached", "higher_is_better": False, "flags": ["validates-on-test"]},
            "seconds": 7.0 + seed,
            "data": {"release": "a|b"},
            "device": "cpu",
            "num_threads": 1,
            "precision": "fp32",
            "finished": "2026-01-02T03:04:05+00:00",
            "code": "0123456789",
            "folder": f"runs/{seed}",
        }
        for seed, value in enumerate((0.80, 0.82))
    }
    claim = {"metric": "valid/rmse", "value": 0.805, "source": "a <paper> & more"}
    good = check_seeds("good", claim, runs, "dlrun reproduce good --seeds 2")
    bad = check_seeds("bad", {**claim, "value": 0.5}, runs, "dlrun reproduce bad --seeds 2")
    absent = Verdict("absent", "valid/rmse", 0.5, "x", "cannot be run here", why="no <data>")
    assert [good.verdict, bad.verdict] == ["not distinguishable", "missed"]
    assert good.mean == pytest.approx(0.81)
    assert good.std == pytest.approx(0.0141421356)
    assert good.time == "7 to 8"
    assert (
        "| `good` | valid/rmse | 0.805 | 0.8100 ± 0.0141 | 2 | not distinguishable, n = 2: 50 would be needed |"
        in markdown([good])
    )
    suite = ElementTree.fromstring(junit([good, bad, absent])).find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["3", "1", "1"]
    assert [[child.tag for child in case] for case in suite] == [["system-out"], ["failure"], ["skipped"]]
    assert json.loads(as_json([good]))[0]["values"] == [0.80, 0.82]


@pytest.mark.data
@pytest.mark.slow  # two trainings at full size; the same recipe of a small table is missed above
def test_a_published_recipe_with_a_tenth_of_its_rates_is_missed(real_data: Path, dlrun: Dlrun, here: Path) -> None:
    recipe = (REPOSITORY / "conf" / "experiment" / "movielens-dot-bias.yaml").read_text()
    slower = re.sub(r"lr: ([\d.e-]+)", lambda found: f"lr: {float(found[1]) / 10}", recipe)
    assert slower != recipe
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "slower.yaml").write_text(slower)
    status, out, _ = dlrun("reproduce", "slower", "--seeds", "2")
    assert status == 1
    assert "missed" in out


@pytest.mark.data
@pytest.mark.slow  # a published recipe at full size; a user's claim is reproduced, and missed, above
def test_the_published_dot_bias_value_is_reached_on_real_data(real_data: Path, dlrun: Dlrun) -> None:
    status, out, _ = dlrun("experiment=movielens-single", *QUICK)
    assert status == 0
    assert "0.8746" in out
    assert "reached" in out


def test_a_published_value_is_not_compared_with_a_run_on_other_data(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(OWN + "  release: another\n")
    status, out, _ = dlrun("experiment=own", *QUICK)
    assert status == 0
    assert "not comparable: the published data is another, this run used own" in out


def test_a_claim_that_needs_a_gpu_or_an_encoder_is_not_run_without(
    dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, out, err = dlrun("reproduce", "imdb-lm-lesson", "imdb-sentiment", "--seeds", "1")
    assert status == 0, err
    assert "imdb-lm-lesson: cannot be run here: it needs a GPU" in out
    assert "imdb-sentiment: cannot be run here: it needs an encoder: --set model.encoder=RUN" in out
    assert not list(Path().glob("runs/imdb-*"))
