"""Fit Surprise's models of ratings and implicit's models of choices, with their defaults, on the rows of a split.

python fit_raters.py --rows rows.npz          in an environment that has scikit-surprise and implicit
"""

# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import surprise
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking


def ratings_results(rows: Any) -> dict[str, dict[str, float]]:
    """Return the errors of Surprise's models on the validation rows."""
    table = pd.DataFrame({name: rows[name] for name in ("user", "item", "rating")})
    valid = rows["valid"]
    reader = surprise.Reader(rating_scale=(float(table["rating"].min()), float(table["rating"].max())))
    train = surprise.Dataset.load_from_df(table[~valid], reader).build_full_trainset()
    test = list(table[valid].itertuples(index=False, name=None))
    models = {
        "SVD": surprise.SVD(random_state=0),
        "SVD++": surprise.SVDpp(random_state=0),
        "KNNBaseline": surprise.KNNBaseline(verbose=False),
    }
    found = {}
    for name, model in models.items():
        started = time.perf_counter()
        with contextlib.redirect_stdout(None):
            predictions = model.fit(train).test(test)
        rmse = surprise.accuracy.rmse(predictions, verbose=False)
        found[name] = {"rmse": float(rmse), "seconds": round(time.perf_counter() - started, 2)}
    return found


def choices_results(rows: Any, k: int) -> dict[str, dict[str, float]]:
    """Return the metrics of implicit's models over the first k items not chosen in training."""
    shape = int(rows["user"].max()) + 1, int(rows["item"].max()) + 1
    train, valid = (_matrix(rows, chosen, shape) for chosen in (~rows["valid"], rows["valid"]))
    users = np.flatnonzero(valid.getnnz(axis=1))
    models = {
        "ALS": AlternatingLeastSquares(random_state=0),
        "BPR": BayesianPersonalizedRanking(random_state=0),
    }
    gains, found = 1 / np.log2(np.arange(2, k + 2)), {}
    for name, model in models.items():
        started = time.perf_counter()
        model.fit(train, show_progress=False)
        first, _ = model.recommend(users, train[users], N=k, filter_already_liked_items=True)
        seconds = round(time.perf_counter() - started, 2)
        ndcg, recall = [], []
        for user, items in zip(users, first, strict=True):
            chosen = valid[user].indices
            hits = np.isin(items, chosen)
            ndcg.append((hits * gains).sum() / gains[: len(chosen)].sum())
            recall.append(hits.sum() / len(chosen))
        found[name] = {"ndcg": float(np.mean(ndcg)), "recall": float(np.mean(recall)), "seconds": seconds}
    return found


def _matrix(rows: Any, chosen: Any, shape: tuple[int, int]) -> Any:
    ones = np.ones(int(chosen.sum()), dtype=np.float32)
    return scipy.sparse.csr_matrix((ones, (rows["user"][chosen], rows["item"][chosen])), shape=shape)


def main() -> None:
    """Fit all models and print their metrics and versions as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", required=True)
    parser.add_argument("--top", type=int, default=10)
    arguments = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # implicit's own threads are faster
    warnings.simplefilter("ignore")
    with np.load(arguments.rows) as rows:
        found = {"ratings": ratings_results(rows), "choices": choices_results(rows, arguments.top)}
    versions = {name: importlib.metadata.version(name) for name in ("scikit-surprise", "implicit")}
    print(json.dumps({"models": found, "versions": versions}))


if __name__ == "__main__":
    main()
