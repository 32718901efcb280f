"""Collaborative filtering from training to recommendations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.inference.models import load_models
from dlrunner.model import forward_pass
from dlrunner.runs.reader import FinishedRun
from dlrunner.tasks.collab import ensemble_predictor
from dlrunner.tasks.collab.predictor import RatingPredictor
from tests.conftest import QUICK, Dlrun, ratings_table


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on synthetic data with films, genres and planted factors, and its folder."""
    from dlrunner.cli import main

    folder = tmp_path_factory.mktemp("trained")
    words = [
        "task=collab",
        "data.source=synthetic",
        "epochs=4",
        "optim.weight_decay=[0.2,0.0]",
        f"runs_dir={folder}",
        *QUICK,
    ]
    assert main(words) == 0
    return (folder / "latest").resolve()


def recommender(run: Path) -> RatingPredictor:
    _, state, models = load_models(FinishedRun.read(run))
    return RatingPredictor(state, models)


def test_synthetic_ratings_are_learned_and_the_best_achievable_rmse_is_never_beaten(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    best, rmse = summary["data"]["best_achievable"], summary["metric"]["value"]
    rated = pd.read_csv(trained / "predictions.csv")["rating"]
    assert best < rmse < 0.87 * rated.std()
    assert rmse < 0.83  # 0.85 with biases alone


def test_predictions_csv_holds_the_validation_rows_and_gives_the_metric(trained: Path) -> None:
    table = pd.read_csv(trained / "predictions.csv")
    summary = json.loads((trained / "summary.json").read_text())
    assert len(table) == summary["data"]["rows"]["valid"]
    rmse = float(np.sqrt(((table["rating"] - table["prediction"]) ** 2).mean()))
    assert rmse == pytest.approx(summary["metric"]["value"], abs=1e-4)


def test_the_unit_of_ratings_does_not_change_what_is_learned(dlrun: Dlrun, here: Path) -> None:
    ratings, found = ratings_table(), []
    for unit in (1.0, 1e-6):
        ratings.assign(rating=ratings["rating"] * unit).to_csv("own.csv", index=False)
        assert dlrun("task=collab", "data.path=own.csv", "optim.weight_decay=[1,0.1]", "epochs=4", *QUICK)[0] == 0
        summary = json.loads((here / "runs" / "latest" / "summary.json").read_text())
        found.append(summary["metric"]["value"] / unit)
    assert found[0] == pytest.approx(found[1], rel=1e-2)


@pytest.mark.parametrize(
    "model",
    [
        "model=dot",
        pytest.param("model=net", marks=pytest.mark.slow),  # more of it below
        "model=svdpp",
        "model=net model.genre_factors=4 model.time=true model.hidden=[16,8] model.dropouts=[0,0.1,0.1]",
    ],
)
def test_every_model_trains_predicts_and_draws(model: str, dlrun: Dlrun, here: Path) -> None:
    status, _, err = dlrun("task=collab", "data.source=synthetic", "epochs=1", "batch_size=512", *model.split())
    assert (status, err) == (0, "")
    drawn = {path.name for path in (here / "runs" / "latest" / "plots").iterdir()}
    assert drawn >= {"losses.svg", "predictions.svg", "cross_table.svg", "item_components.svg", "item_map.svg"}
    status, out, err = dlrun("predict", "runs/latest", "--user", "1", "--top", "3")
    assert (status, err[:4], err.count("\n")) == (0, "run ", 1)
    assert len(out.strip().splitlines()) == 4


def test_genres_and_time_are_refused_where_the_data_has_none(dlrun: Dlrun, ratings_csv: Path) -> None:
    for setting, message in (
        ("model.genre_factors=3", "this data has no genres"),
        ("model.time=true", "this data has no times"),
    ):
        status, _, err = dlrun("task=collab", "data.path=my.csv", "model=net", setting, *QUICK)
        assert status == 2
        assert message in err


def test_pairs_are_predicted_and_unknown_ids_get_a_bias_only_rating_and_a_note(
    trained: Path, dlrun: Dlrun, here: Path
) -> None:
    stored = pd.read_csv(trained / "predictions.csv").head(5)
    pairs = stored[["user", "item"]].copy()
    pairs.loc[5] = [999_999, pairs["item"][0]]
    pairs.loc[6] = [pairs["user"][0], -7]
    pairs.to_csv("pairs.csv", index=False)
    status, out, _ = dlrun("predict", str(trained), "pairs.csv", "--out", "answer.csv")
    assert status == 0
    assert "unknown user: bias only" in out
    answer = pd.read_csv("answer.csv")
    np.testing.assert_allclose(answer["prediction"][:5], stored["prediction"], atol=2e-4)
    assert list(answer["note"].fillna("")) == [""] * 5 + ["unknown user: bias only", "unknown item: bias only"]


def test_recommendations_exclude_rated_items_and_are_sorted(trained: Path) -> None:
    recommends = recommender(trained)
    user = recommends.state["user_ids"][0]
    best = recommends.recommend(str(user), top=20)
    rated = recommends.state["rated_items"][recommends.state["rated_users"] == 0].tolist()
    assert not set(best["item"]) & {recommends.state["item_ids"][code] for code in rated}
    assert best["prediction"].is_monotonic_decreasing
    assert best["title"].str.startswith("Film ").all()
    codes = np.array([recommends.items.get(item, -1) for item in best["item"]])
    np.testing.assert_allclose(
        best["prediction"], recommends.ensemble.pairs(np.zeros(20, dtype=np.int64), codes), atol=1e-4
    )


def test_a_new_user_is_fitted_from_a_few_ratings_without_retraining(trained: Path) -> None:
    """A new user with the ratings of a known one is predicted nearly as well, and better than by biases."""
    recommends = recommender(trained)
    table = pd.read_csv(trained / "predictions.csv")
    before = [p.clone() for model in recommends.ensemble.models for p in model.parameters()]
    errors: dict[str, list[float]] = {"folded": [], "known": [], "biases": []}
    for user, rows in table.groupby("user"):
        if len(errors["known"]) > 500:  # enough to compare averages
            break
        code = recommends.users.get(user, -1)
        mine = recommends.state["rated_users"] == code
        if int(mine.sum()) < 60 or len(rows) < 10:
            continue
        items = np.array([recommends.items.get(item, -1) for item in rows["item"]])
        folded = recommends.ensemble.fold_in(
            recommends.state["rated_items"][mine].numpy(), recommends.state["ratings"][mine].numpy()
        )
        truth = rows["rating"].to_numpy()
        errors["folded"] += list((folded[items] - truth) ** 2)
        errors["known"] += list((recommends.ensemble.pairs(np.full(len(items), code), items) - truth) ** 2)
        errors["biases"] += list(
            (recommends.ensemble.pairs(np.full(len(items), recommends.ensemble.unknown_user), items) - truth) ** 2
        )
    rmse = {name: float(np.sqrt(np.mean(values))) for name, values in errors.items()}
    assert len(errors["known"]) > 500
    assert rmse["folded"] < 0.95 * rmse["biases"]
    assert rmse["folded"] < 1.03 * rmse["known"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(before, (p for m in recommends.ensemble.models for p in m.parameters()), strict=True)
    )


def test_new_users_cost_one_pass_over_a_sample_of_the_training_ratings(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, ratings = np.arange(6), np.array([5, 4, 5, 1, 2, 1], dtype=np.float32)
    exact = recommender(trained).ensemble.fold_in(items, ratings)
    passes: list[int] = []

    def counted(model: Any, users: Any, items: Any) -> Any:
        passes.append(len(users))
        return forward_pass(model, users, items)

    monkeypatch.setattr(ensemble_predictor, "forward_pass", counted)
    monkeypatch.setattr(ensemble_predictor, "MOST_ERRORS", 5000)
    ensemble = recommender(trained).ensemble
    assert len(ensemble.state["ratings"]) > 5000
    for _ in range(2):
        np.testing.assert_allclose(ensemble.fold_in(items, ratings), exact, atol=0.02)
    assert passes == [5000]


def test_without_ratings_a_new_user_is_the_average_one(trained: Path) -> None:
    recommends = recommender(trained)
    nobody = recommends.ensemble.fold_in(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    assert nobody.shape == (recommends.ensemble.unknown_item,)
    assert np.isfinite(nobody).all()


def test_predict_recommends_to_a_new_user_and_lists_similar_items(trained: Path, dlrun: Dlrun, here: Path) -> None:
    recommends = recommender(trained)
    items = recommends.state["item_ids"][:6]
    pd.DataFrame({"item": [*items, "unheard of"], "rating": [5, 4, 5, 1, 2, 3, 4]}).to_csv("mine.csv", index=False)
    status, out, _ = dlrun("predict", str(trained), "--ratings", "mine.csv", "--top", "5")
    assert status == 0
    assert "1 of 7 items are unknown" in out
    status, out, _ = dlrun("predict", str(trained), "--similar", str(items[0]), "--top", "4")
    assert status == 0
    assert "cosine" in out
    assert f"most similar to {recommends.state['titles'][0]}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give exactly one of"),
        (["--user", "1", "--similar", "1"], "give exactly one of"),
        (["--user", "nobody"], "nobody is not among the 600 users"),
        (["--similar", "no such film"], "no item 'no such film'"),
        (["--similar", "Film 1"], "titles contain 'Film 1'"),
        (["--user", "1", "--top", "0"], "top: must be greater than or equal to 1"),
        (["none.csv"], "there is no file none.csv"),
        (["--user", "1", "--checkpoint", "cycle-9.pt"], "has no cycle-9.pt; it has best.pt, last.pt"),
    ],
)
def test_invalid_requests_are_refused_with_a_message(
    words: list[str], message: str, trained: Path, dlrun: Dlrun
) -> None:
    status, _, err = dlrun("predict", str(trained), *words)
    assert status == 2
    assert message in err


def test_an_ensemble_averages_predictions_and_keeps_its_members(dlrun: Dlrun, here: Path) -> None:
    words = ["task=collab", "data.source=synthetic", "epochs=1", "batch_size=512", "optim.lr=0.02", "ensemble=3"]
    status, out, _ = dlrun(*words, *QUICK)
    assert status == 0
    run = (here / "runs" / "latest").resolve()
    summary = json.loads((run / "summary.json").read_text())
    members = summary["members"]
    assert members["seeds"] == [0, 1, 2]
    assert members["mean"] == pytest.approx(np.mean(members["valid/rmse"]))
    assert members["std"] == pytest.approx(np.std(members["valid/rmse"], ddof=1))
    assert summary["metric"]["value"] < min(members["valid/rmse"])
    assert f"{summary['metric']['value']:.4f}" in out
    assert sorted(path.name for path in (run / "members").iterdir()) == ["0", "1", "2"]
    # predict uses all members: its result is the average in predictions.csv
    stored = pd.read_csv(run / "predictions.csv").head(50)
    recommends = recommender(run)
    assert len(recommends.ensemble.models) == 3
    answer = recommends.ensemble.pairs(
        np.array([recommends.users.get(u, -1) for u in stored["user"]]),
        np.array([recommends.items.get(i, -1) for i in stored["item"]]),
    )
    np.testing.assert_allclose(answer, stored["prediction"], atol=2e-4)
    single = dlrun("show", str(run))[1]
    assert "members  3 seeds" in single


def test_a_member_of_an_ensemble_is_the_run_of_its_seed(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = ["task=collab", "data.path=my.csv", "epochs=1", *QUICK]
    dlrun(*words, "ensemble=2", "seed=1")
    members = json.loads((here / "runs" / "latest" / "summary.json").read_text())["members"]
    assert members["seeds"] == [2, 3]
    dlrun(*words, "seed=3")
    assert (
        json.loads((here / "runs" / "latest" / "summary.json").read_text())["metric"]["value"]
        == members["valid/rmse"][1]
    )


def test_validation_rows_never_train(dlrun: Dlrun, here: Path) -> None:
    """Changed ratings of the validation rows leave the training loss unchanged."""
    from dlrunner.data.core.splitting import random_rows

    table = ratings_table()
    losses: list[Any] = []
    for name in ("a.csv", "b.csv"):
        changed = table.copy()
        if name == "b.csv":
            rows = random_rows(len(table), 0.2, 42)
            changed.loc[rows, "rating"] = 5.5 - changed.loc[rows, "rating"]
        changed.to_csv(name, index=False)
        assert dlrun("task=collab", f"data.path={name}", "epochs=2", *QUICK)[0] == 0
        lines = (here / "runs" / "latest" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line) for line in lines])
    assert [row["train/loss"] for row in losses[0]] == [row["train/loss"] for row in losses[1]]
    assert losses[0][0]["valid/rmse"] != losses[1][0]["valid/rmse"]


@pytest.mark.parametrize("setting", ["data.min_rating=5", "data.split_seed=2"])
def test_training_ratings_that_are_all_equal_are_refused(setting: str, dlrun: Dlrun, here: Path) -> None:
    rows = zip("aaabbb", "xyzxyz", [5, 5, 5, 5, 1, 5], strict=True)
    pd.DataFrame(rows, columns=["user", "item", "rating"]).to_csv("r.csv", index=False)
    status, _, err = dlrun("task=collab", "data.path=r.csv", "epochs=1", setting, *QUICK)
    assert status == 1
    assert "training ratings are 5" in err
    assert ("data.min_rating=5" in err) == ("min_rating" in setting)
