"""Implicit feedback from training to recommendations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dlrunner
from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.models.ranking import ChoiceDims, Ranking
from dlrunner.task import Split
from dlrunner.tasks.collab.implicit import Implicit
from tests.conftest import QUICK, Dlrun
from tests.training.test_loop import phase

CPU = torch.device("cpu")


def purchases(num_users: int = 90, num_items: int = 60) -> pd.DataFrame:
    """Return choices of users who keep to one of three kinds of items; a few are popular with all."""
    random = np.random.RandomState(0)
    rows = []
    for user in range(num_users):
        weights = np.where(np.arange(num_items) % 3 == user % 3, 1.0, 0.03) + (np.arange(num_items) < 3)
        for item in random.choice(num_items, 12, replace=False, p=weights / weights.sum()):
            rows.append((f"u{user}", f"i{item}"))
    return pd.DataFrame(rows, columns=["customer", "product"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table without ratings."""
    from dlrunner.cli import main

    folder = tmp_path_factory.mktemp("shop")
    purchases().to_csv(folder / "shop.csv", index=False)
    names = ("data.user=customer", "data.item=product", "data.test=0.1")
    assert main(["task=implicit", f"data.path={folder}/shop.csv", *names, f"runs_dir={folder}", *QUICK]) == 0
    return (folder / "latest").resolve()


def test_what_is_like_a_users_choices_ranks_before_what_is_popular(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert list(summary["baselines"]) == ["popularity", "similar items (kNN)"]
    popular = summary["baselines"]["popularity"]
    assert {"valid/ndcg", "valid/coverage", "test/recall", "seconds"} <= popular.keys()
    assert (summary["metric"]["name"], summary["metric"]["higher_is_better"]) == ("valid/ndcg", True)
    assert summary["final"]["valid/ndcg"] > 1.3 * popular["valid/ndcg"]
    assert summary["final"]["test/recall"] > 1.3 * popular["test/recall"]


def test_recommendations_leave_out_what_was_chosen_and_new_users_need_no_training(
    trained: Path, dlrun: Dlrun, here: Path
) -> None:
    predictor = dlrunner.load(trained)
    best = predictor.recommend("u4", top=6)
    assert sum(int(item[1:]) % 3 == 1 for item in best["item"]) >= 4
    assert best["prediction"].is_monotonic_decreasing
    state = torch.load(trained / "task.pt", weights_only=True)["task"]
    code = state["user_ids"].index("u4")
    known = {state["item_ids"][item] for item in state["rated_items"][state["rated_users"] == code]}
    chosen = set(purchases().query("customer == 'u4'")["product"])
    assert known < chosen, "some rows validate"
    assert set(predictor.recommend("u4", top=60)["item"]) == {f"i{number}" for number in range(60)} - chosen
    pd.DataFrame({"product": ["i8", "i11", "i14", "i17", "nothing"]}).to_csv("mine.csv", index=False)
    status, out, err = dlrun("recommend", str(trained), "--ratings", "mine.csv", "--top", "6", "--out", "best.csv")
    assert status == 0, err
    assert "1 of 5 items are unknown" in " ".join((out + err).split())
    found = pd.read_csv("best.csv")
    assert sum(int(item[1:]) % 3 == 2 for item in found["item"]) >= 4
    assert not {"i8", "i11"} & set(found["item"])
    assert len(predictor.similar("i8", top=3)) == 3


def test_pairs_have_scores_and_unknown_ids_a_note(trained: Path) -> None:
    predictor = dlrunner.load(trained)
    pairs = pd.DataFrame({"customer": ["u4", "u4", "nobody", "u4"], "product": ["i10", "i11", "i10", "nothing"]})
    answer = predictor.predict(pairs)
    assert answer["prediction"][0] > answer["prediction"][1]
    assert list(answer["note"]) == ["", "", "unknown user: bias only", "unknown item: bias only"]


def test_predictions_are_what_users_are_shown_and_where_their_choices_rank(trained: Path) -> None:
    table = dlrunner.load(trained).predictions
    assert list(table.columns) == ["user", "item", "title", "rank", "prediction", "chosen"]
    final, ideal = json.loads((trained / "summary.json").read_text())["final"], 1 / np.log2(np.arange(2, 12))
    ndcg, recall = [], []
    for user, rows in table.groupby("user", sort=False):
        assert list(rows["rank"][:10]) == list(range(1, 11)), user
        assert (rows["rank"] > 10).equals((rows["rank"] > 10) & (rows["chosen"] == 1))
        assert rows["rank"].is_monotonic_increasing
        assert rows["prediction"].is_monotonic_decreasing
        ranks = rows["rank"][(rows["chosen"] == 1) & (rows["rank"] <= 10)]
        num_chosen = int(rows["chosen"].sum())
        recall.append(len(ranks) / num_chosen)
        ndcg.append((1 / np.log2(1 + ranks)).sum() / ideal[:num_chosen].sum())
    assert np.mean(recall) == pytest.approx(final["valid/recall"], abs=1e-6)
    assert np.mean(ndcg) == pytest.approx(final["valid/ndcg"], abs=1e-6)


def test_an_ensemble_ranks_by_the_mean_score_of_its_members(dlrun: Dlrun, here: Path) -> None:
    purchases().to_csv("shop.csv", index=False)
    words = ("data.path=shop.csv", "data.user=customer", "data.item=product", "data.test=0.1", "epochs=2", *QUICK)
    status, out, err = dlrun("task=implicit", *words, "ensemble=2")
    assert status == 0, err
    assert "ensemble of 2: valid/ndcg" in " ".join(out.split())
    run = Path("runs/latest").resolve()
    summary, predictor = json.loads((run / "summary.json").read_text()), dlrunner.load(run)
    assert len(predictor.models) == 2
    assert not {"valid/recall", "test/recall", "test/ndcg"} - summary["final"].keys()
    table = predictor.predictions
    chosen = table[table["chosen"] == 1].groupby("user").agg(hits=("rank", lambda ranks: (ranks <= 10).mean()))
    assert chosen["hits"].mean() == pytest.approx(summary["final"]["valid/recall"], abs=1e-6)
    pairs = predictor.predict(table[["user", "item"]].head(50))
    np.testing.assert_allclose(pairs["prediction"], table["prediction"].head(50), atol=2e-4)


def task(here: Path, **settings: Any) -> Implicit:
    purchases().to_csv(here / "shop.csv", index=False)
    data = RatingsData(here, path="shop.csv", user="customer", item="product", implicit=True, test=0.1)
    return Implicit(data, 64, 0, CPU, **settings)


@pytest.mark.parametrize(("split", "part"), [("valid", 1), ("test", 2)])
def test_each_user_is_ranked_over_all_items_but_those_chosen_before(split: Split, part: int, here: Path) -> None:
    made = task(here, valid_batch_size=7)
    table, batches = made.table, list(made.batches(split, 0, phase()))
    users = torch.cat([batch.inputs[0] for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    assert users.tolist() == sorted(set(table.users[table.split == part]))
    for user, row in zip(users, targets, strict=True):
        own = table.users == int(user)
        assert set(torch.where(row == 1)[0].tolist()) == set(table.items[own & (table.split == part)])
        assert set(torch.where(row == -1)[0].tolist()) == set(table.items[own & (table.split < part)])


def test_sampled_items_are_those_of_seed_epoch_and_batch(here: Path) -> None:
    made = task(here, negatives=5)
    whole, rest = (list(made.batches("train", 1, phase(), start=start)) for start in (0, 3))
    assert len(whole) == 3 + len(rest)
    for one, two in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.inputs, two.inputs, strict=True))
    users, items = whole[0].inputs
    assert items.shape == (64, 6)
    table = made.table
    pairs = set(zip(table.users[table.train], table.items[table.train], strict=True))
    assert {(int(user), int(item)) for user, item in zip(users, items[:, 0], strict=True)} <= pairs
    assert not torch.equal(items[:, 1:], whole[1].inputs[1][:, 1:])


def test_bpr_wants_the_chosen_item_above_each_sampled_one(here: Path) -> None:
    scores = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    expected = torch.nn.functional.softplus(torch.tensor([-2.0, -1.0, 0.0, 0.0])).mean()
    torch.testing.assert_close(task(here, loss="bpr").loss(scores, torch.zeros(2, dtype=torch.int64)), expected)


def test_a_whole_ranking_has_the_cross_entropy_of_what_was_chosen(here: Path) -> None:
    scores, targets = torch.tensor([[1.0, 2.0, 9.0, 0.5]]), torch.tensor([[1, 0, -1, 1]], dtype=torch.int8)
    surprise = -torch.tensor([1.0, 2.0, 0.5]).log_softmax(0)
    torch.testing.assert_close(task(here).loss(scores, targets), (surprise[0] + surprise[2]) / 2)


def test_a_model_scores_pairs_as_whole_rankings_and_leaves_the_item_out_in_training() -> None:
    users, items = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 3, 2, 0, 4])
    model = Ranking(ChoiceDims(3, 5, users, items, item_attributes=torch.eye(5)), factors=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    every = model(torch.arange(3))
    torch.testing.assert_close(model.tables()(torch.arange(3)), every)
    assert model.of_item is not None
    u = model.users.weight[0] + model.chosen.weight[3]  # without item 1
    q = model.items.weight[[1, 4]] + model.of_item.factors.weight.T[[1, 4]]
    bias = model.item_bias.weight[[1, 4], 0] + model.of_item.bias.weight[0, [1, 4]]
    torch.testing.assert_close(model(torch.tensor([0]), torch.tensor([[1, 4]]))[0], q @ u + bias)
    not_chosen = model(torch.tensor([0]), torch.tensor([[2, 4]]))  # nothing is left out
    torch.testing.assert_close(not_chosen[0, 1], every[0, 4])


@pytest.mark.parametrize("init", [1, 0.5, [0.1, 0.2]])
def test_all_factors_start_as_init_says(init: Any) -> None:
    pairs = torch.arange(40)
    model = Ranking(ChoiceDims(40, 40, pairs, pairs), factors=50, init=init)
    for weight in (model.users.weight, model.items.weight, model.chosen.weight):
        if isinstance(init, list):
            assert 0.1 <= float(weight.detach().min()) <= float(weight.detach().max()) <= 0.2
        else:
            assert float(weight.detach().std()) == pytest.approx(init, rel=0.1)


def test_ratings_count_as_choices_from_a_threshold_on(dlrun: Dlrun, here: Path) -> None:
    purchases().assign(rating=[1, 5, 3, 4] * 270).to_csv("shop.csv", index=False)
    words = ("task=implicit", "data.path=shop.csv", "data.user=customer", "data.item=product", "epochs=1", *QUICK)
    status, out, err = dlrun(*words, "data.rating=rating", "data.min_rating=4")
    assert status == 0, err
    assert "540 of 1,080 rows are left out" in " ".join(out.split())
    pd.DataFrame({"product": ["i8", "i11", "i14"], "rating": [5, 1, 3]}).to_csv("rated.csv", index=False)
    pd.DataFrame({"product": ["i8"]}).to_csv("chosen.csv", index=False)
    predictor = dlrunner.load("runs/latest")
    rated, chosen = (predictor.recommend(ratings=pd.read_csv(f"{each}.csv")) for each in ("rated", "chosen"))
    pd.testing.assert_frame_equal(rated, chosen)
    assert "2 of 3 rows are left out: they lie below data.min_rating" in rated.attrs["note"]
    status, out, err = dlrun(*words, "data.min_rating=4")
    assert status == 2
    assert "data.rating" in err
    status, out, err = dlrun(*words)  # a column of ratings is not read unless it is named
    assert status == 0, err
    assert "864 train, 216 valid" in out


def test_a_table_without_ratings_is_told_of_this_task(dlrun: Dlrun, here: Path) -> None:
    purchases().to_csv("shop.csv", index=False)
    status, _, err = dlrun("task=collab", "data.path=shop.csv", "data.user=customer", "data.item=product", *QUICK)
    assert status == 1
    assert "task=implicit if there are none" in err


def test_a_pair_counts_once_and_that_is_told(here: Path) -> None:
    rows = [f"u{user},i{item}" for user in range(6) for item in range(user, user + 4)]
    Path("p.csv").write_text("\n".join(["user,item", *rows, *rows[:2]]) + "\n")
    table = RatingsData(here, path="p.csv", implicit=True).read()
    assert len(table.users) == len(rows)
    assert any("2 row(s) repeat a user and an item: each pair counts once" in note for note in table.notes)
