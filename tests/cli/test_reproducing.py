"""Claims are judged by a test over seeds; a fault is caught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlrunner.claims import Claim, judge_run, judge_seeds
from tests.conftest import QUICK, Dlrun


def test_seeds_are_judged_by_a_one_sided_t_test() -> None:
    assert judge_seeds([0.80, 0.81, 0.79], 0.81, False) == ("reached", 1.0)
    word, p = judge_seeds([0.82, 0.80, 0.815], 0.81, False)
    assert word == "reached within noise"
    assert 0.05 < p < 0.5
    word, p = judge_seeds([0.83, 0.831, 0.832], 0.81, False)
    assert word == "missed"
    assert p < 0.01
    assert judge_seeds([0.93, 0.94], 0.92, True)[0] == "reached"
    assert judge_seeds([0.90, 0.901, 0.899], 0.92, True)[0] == "missed"
    assert judge_seeds([0.9], 0.92, True)[0] == "missed"


def test_a_single_run_is_judged_with_the_measured_spread() -> None:
    claim = Claim(metric="valid/rmse", value=0.87, source="a paper", spread=0.001)
    for value, verdict in ((0.87, "reached"), (0.8716, "reached within noise"), (0.8717, "missed by 0.0017")):
        assert judge_run(claim, {"valid/rmse": value}, False, "any")["verdict"] == verdict


OWN = """\
# @package _global_
# dlrun experiment=own
defaults:
  - override /task: collab
epochs: 2
data:
  path: my.csv
claim:
  metric: valid/rmse
  value: 0.55
  source: "a test"
  quick: true
"""


def test_a_claim_of_ones_own_is_earned_and_a_fault_is_caught(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(OWN.replace("epochs: 2", "epochs: 20"))
    status, out, _ = dlrun("reproduce", "own", "--seeds", "3", "--out", "verdicts.json")
    assert status == 0
    (verdict,) = json.loads((here / "verdicts.json").read_text())
    assert verdict["verdict"] == "reached"
    assert verdict["n"] == 3
    assert 0 < verdict["spread"] < 0.05
    assert "±" in out
    assert "done already" in dlrun("reproduce", "own", "--seeds", "3")[1]
    # A changed figure is compared anew with the finished run.
    (here / "conf" / "experiment" / "own.yaml").write_text(
        OWN.replace("epochs: 2", "epochs: 20").replace("0.55", "0.01")
    )
    status, out, _ = dlrun("experiment=own", *QUICK)
    assert status == 1
    assert "done already" in out
    assert "missed by" in out
    # A rate a hundred times too small must be told as missed.
    status, out, _ = dlrun("reproduce", "own", "--seeds", "2", "--set", "optim.lr=5e-5")
    assert status == 1
    assert "missed" in out
    status, out, _ = dlrun("experiment=own", "optim.lr=5e-5", *QUICK)
    assert status == 1
    assert "missed by" in out


def test_claims_that_cannot_be_run_here_say_why(dlrun: Dlrun) -> None:
    status, out, _ = dlrun("reproduce", "movielens-dot", "--seeds", "1")
    assert status == 0
    assert "cannot be run here" in out
    assert "DLRUNNER_DATA" in out
    status, _, err = dlrun("reproduce", "movielens-dott")
    assert status == 2
    assert "did you mean movielens-dot?" in err


@pytest.mark.data
@pytest.mark.slow
def test_the_published_dot_bias_figure_is_reached_on_real_data(real_data: Path, dlrun: Dlrun) -> None:
    status, out, _ = dlrun("experiment=movielens-single", *QUICK)
    assert status == 0
    assert "0.8746" in out
    assert "reached" in out


def test_a_figure_is_not_compared_with_a_run_on_other_data(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(OWN + "  release: another\n")
    status, out, _ = dlrun("experiment=own", *QUICK)
    assert status == 0
    assert "not comparable: the figure rests on another, this run on own" in out


def test_a_claim_that_needs_a_gpu_or_an_encoder_is_not_run_without(
    dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, out, err = dlrun("reproduce", "imdb-lm", "imdb-sentiment", "--seeds", "1")
    assert status == 0, err
    assert "imdb-lm: cannot be run here it needs a GPU" in out
    assert "imdb-sentiment: cannot be run here it needs an encoder: --set model.encoder=RUN" in out
    assert not list(Path().glob("runs/imdb-*"))
