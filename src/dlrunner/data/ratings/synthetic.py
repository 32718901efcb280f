"""Generated ratings in the files of MovieLens, whose best achievable error is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from dlrunner.data.core.synthetic import generated

VERSION = 1


FILES = ("ratings.csv", "movies.csv")


GENRES = ("Action", "Comedy", "Drama", "Horror", "Romance", "Sci-Fi", "Thriller", "Western")


NOISE = 0.75
"""Standard deviation of a rating around what user and film have in common, before it is rounded to half stars."""


def write_synthetic_movielens(
    folder: Path, num_users: int = 600, num_items: int = 1500, num_ratings: int = 60_000
) -> tuple[Path, float]:
    """Write ratings.csv and movies.csv with planted factors into a folder, unless they are there.

    A rating is the mean, plus what the user gives and the film gets, plus the product of their four factors,
    plus noise, rounded to half stars within [0.5, 5]. The floor is the root mean squared error of the one who
    knows all but the noise: sqrt(mean(Var[rating | user, film])).

    Returns the folder and the floor.
    """
    place = folder / f"movielens-{VERSION}-{num_users}-{num_items}-{num_ratings}"
    return generated(place, FILES, lambda empty: _generate(empty, num_users, num_items, num_ratings))


def _generate(place: Path, num_users: int, num_items: int, num_ratings: int) -> float:
    rng = np.random.default_rng(0)
    genres = rng.random((num_items, len(GENRES))) < 0.25
    genres[np.arange(num_items), rng.integers(0, len(GENRES), num_items)] = True
    tastes = rng.normal(0, 0.5, (len(GENRES), 4))
    item_factors = genres @ tastes / np.sqrt(genres.sum(1, keepdims=True)) + rng.normal(0, 0.25, (num_items, 4))
    user_factors = rng.normal(0, 0.6, (num_users, 4))
    item_bias, user_bias = rng.normal(0, 0.4, num_items), rng.normal(0, 0.35, num_users)

    # Popularity falls like a power of the rank, as it does among real films and real raters.
    popularity = 1 / (10 + np.arange(num_items)) ** 0.8
    activity = 1 / (5 + np.arange(num_users)) ** 0.6
    pairs = np.empty(0, dtype=np.int64)
    while len(pairs) < num_ratings:
        users = rng.choice(num_users, num_ratings, p=activity / activity.sum())
        items = rng.choice(num_items, num_ratings, p=popularity / popularity.sum())
        pairs = np.unique(np.concatenate([pairs, users * num_items + items]))
    pairs = rng.choice(pairs, num_ratings, replace=False)
    users, items = np.divmod(pairs, num_items)

    mean = 3.5 + user_bias[users] + item_bias[items] + (user_factors[users] * item_factors[items]).sum(1)
    ratings = np.clip(np.round(2 * (mean + rng.normal(0, NOISE, num_ratings))) / 2, 0.5, 5)
    times = rng.integers(1_000_000_000, 1_500_000_000, num_ratings)

    codes = rng.permutation(num_items) * 7 + 1  # ids with gaps, as published ones have
    table = pd.DataFrame({"userId": users + 1, "movieId": codes[items], "rating": ratings, "timestamp": times})
    table.sort_values(["userId", "movieId"]).to_csv(place / "ratings.csv", index=False)
    titles = [f"Film {i + 1} ({1950 + int(year)})" for i, year in enumerate(rng.integers(0, 70, num_items))]
    named = ["|".join(g for g, flag in zip(GENRES, row, strict=True) if flag) for row in genres]
    films = pd.DataFrame({"movieId": codes, "title": titles, "genres": named})
    films.sort_values("movieId").to_csv(place / "movies.csv", index=False)
    return float(np.sqrt(_rounded_variance(mean).mean()))


def _rounded_variance(mean: np.ndarray) -> np.ndarray:
    """Return the variance of a rating with this mean after noise, rounding and clipping."""
    stars = np.arange(0.5, 5.01, 0.5)
    edges = np.concatenate([[-np.inf], stars[:-1] + 0.25, [np.inf]])
    erf = np.vectorize(math.erf)
    below = 0.5 * (1 + erf((edges[None, :] - mean[:, None]) / (NOISE * math.sqrt(2))))
    probabilities = np.diff(below, axis=1)
    first, second = probabilities @ stars, probabilities @ stars**2
    return np.asarray(second - first**2)
