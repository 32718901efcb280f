"""Ratings with planted biases and factors, by which the default settings of large tables were chosen.

    python -m benchmarks.planted_ratings my.csv --rows 1000000 --per-user 154 --explained 0.14

Few users and items have many ratings, as in MovieLens, whose biases and factors explain about as much.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

FACTORS = 10
AT_ONCE = 500_000


def ratings(num_rows: int, per_user: float, explained: float) -> pa.Table:
    """Return the ratings, from .5 to 5.

    Args:
        num_rows: their number; of items there are 12 times its root.
        per_user: ratings of a user, on average.
        explained: variance that the factors add; noise has a variance of .56.
    """
    random = np.random.default_rng(1)
    num_users, num_items = int(num_rows // per_user), int(12 * num_rows**0.5)
    of_users, of_items = random.normal(0, 0.43, num_users), random.normal(0, 0.5, num_items)
    scale = np.geomspace(1, 0.25, FACTORS)
    tastes = random.normal(0, 1, (num_users, FACTORS)) * scale * np.sqrt(explained / (scale**2).sum())
    traits = random.normal(0, 1, (num_items, FACTORS))
    users, items = ((random.random(num_rows) ** 2 * count).astype(np.int64) for count in (num_users, num_items))
    values = 3.5 + of_users[users] + of_items[items] + random.normal(0, 0.75, num_rows)
    for start in range(0, num_rows, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        values[part] += (tastes[users[part]] * traits[items[part]]).sum(axis=1)
    return pa.table({"user": users + 1, "item": items + 1, "rating": np.clip(np.round(2 * values) / 2, 0.5, 5)})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--per-user", type=float, default=154.0)
    parser.add_argument("--explained", type=float, default=0.14)
    given = parser.parse_args()
    pyarrow.csv.write_csv(ratings(given.rows, given.per_user, given.explained), given.path)


if __name__ == "__main__":
    main()
