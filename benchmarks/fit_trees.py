"""Fit a random forest and LightGBM on Rossmann's rows, in an environment that has scikit-learn and LightGBM.

python fit_trees.py --rows rows.npz --predictions FOLDER
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import sklearn
from sklearn.ensemble import RandomForestRegressor


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit trees and write their predictions.")
    parser.add_argument("--rows", required=True, help="what rossmann_rows.py wrote")
    parser.add_argument("--predictions", type=Path, required=True, help="folder for NAME.npy, predicted sales")
    parser.add_argument("--trees", type=int, default=1500, help="of LightGBM")
    arguments = parser.parse_args()
    with np.load(arguments.rows) as rows:
        inputs = np.concatenate([rows["codes"].astype(np.float32), rows["numbers"]], axis=1)
        targets, valid, num_categories = rows["log_sales"], rows["valid"], rows["codes"].shape[1]
    forest = RandomForestRegressor(40, max_features=0.99, min_samples_leaf=2, n_jobs=-1, random_state=0)
    boosting = lightgbm.LGBMRegressor(
        n_estimators=arguments.trees, num_leaves=255, learning_rate=0.05, n_jobs=-1, random_state=0, verbose=-1
    )
    categories = {"categorical_feature": list(range(num_categories))}
    contestants: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "forest": ("random forest, 40 trees, max_features .99, min_samples_leaf 2", forest, {}),
        "lightgbm": (f"LightGBM, {arguments.trees:,} trees, 255 leaves, rate .05", boosting, categories),
    }
    found = {}
    for name, (title, model, settings) in contestants.items():
        started = time.perf_counter()
        model.fit(inputs[~valid], targets[~valid], **settings)
        predicted = np.exp(model.predict(inputs[valid]).astype(np.float64))
        found[name] = {"title": title, "seconds": time.perf_counter() - started}
        np.save(arguments.predictions / f"{name}.npy", predicted)
    result = {
        "scikit_learn": sklearn.__version__,
        "lightgbm": lightgbm.__version__,
        "train": int((~valid).sum()),
        "valid": int(valid.sum()),
        "contestants": found,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
