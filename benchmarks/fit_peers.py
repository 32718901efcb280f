"""Fit the usual models of scikit-learn and LightGBM, with their defaults, on a table's rows.

python fit_peers.py --rows rows.npz          in an environment that has scikit-learn and LightGBM
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
import time
import warnings
from typing import Any

import lightgbm
import numpy as np
import sklearn
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

MAX_CATEGORIES = 255
"""Of a categorical column of HistGradientBoosting."""


def peers(num_categories: int, cardinalities: list[int], num_inputs: int, classes: bool) -> dict[str, Any]:
    """Return the models by name; the first inputs are categories, -1 where missing, the others numbers."""
    categorical = list(range(num_categories))
    numbers = list(range(num_categories, num_inputs))
    linear = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), categorical),
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
    )
    few = [column for column in categorical if cardinalities[column] <= MAX_CATEGORIES]
    if classes:
        return {
            "linear": make_pipeline(linear, LogisticRegression(max_iter=1000)),
            "random forest": RandomForestClassifier(random_state=0, n_jobs=1),
            "HistGradientBoosting": HistGradientBoostingClassifier(categorical_features=few, random_state=0),
            "LightGBM": lightgbm.LGBMClassifier(random_state=0, n_jobs=1, verbose=-1),
        }
    return {
        "linear": make_pipeline(linear, Ridge()),
        "random forest": RandomForestRegressor(random_state=0, n_jobs=1),
        "HistGradientBoosting": HistGradientBoostingRegressor(categorical_features=few, random_state=0),
        "LightGBM": lightgbm.LGBMRegressor(random_state=0, n_jobs=1, verbose=-1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit models and print their metrics.")
    parser.add_argument("--rows", required=True, help="what own_data.py wrote")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with np.load(arguments.rows) as rows:
        codes, numbers, targets, valid = rows["codes"], rows["numbers"], rows["targets"], rows["valid"]
    inputs = np.concatenate([codes.astype(np.float64), numbers], axis=1)
    classes = targets.dtype.kind == "i"
    cardinalities = (codes.max(axis=0) + 1).tolist() if codes.shape[1] else []
    found = {}
    for name, model in peers(codes.shape[1], cardinalities, inputs.shape[1], classes).items():
        started = time.perf_counter()
        own = inputs.copy()
        if name == "HistGradientBoosting":  # it takes missing categories as such
            own[:, : codes.shape[1]][codes == -1] = np.nan
        settings = {"categorical_feature": list(range(codes.shape[1]))} if name == "LightGBM" else {}
        model.fit(own[~valid], targets[~valid], **settings)
        predicted = model.predict(own[valid])
        if classes:
            probabilities = model.predict_proba(own[valid])
            metrics = {
                "accuracy": float((predicted == targets[valid]).mean()),
                "log_loss": float(log_loss(targets[valid], probabilities, labels=model.classes_)),
            }
        else:
            metrics = {"rmse": float(np.sqrt(np.mean((predicted - targets[valid]) ** 2)))}
        found[name] = {**metrics, "seconds": round(time.perf_counter() - started, 2)}
    print(json.dumps({"scikit_learn": sklearn.__version__, "lightgbm": lightgbm.__version__, "models": found}))


if __name__ == "__main__":
    main()
