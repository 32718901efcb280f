"""Attributes of items and users as numbers for a model: which categories they belong to, and where numbers lie."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_KNOTS = 9
YEAR = re.compile(r"\((\d{4})\)\s*$")
"""At the end of a film's title."""

Values = NDArray[np.float32]


def film_attributes(titles: Sequence[str], genres: Values) -> Values:
    """Return the attributes of films: their genres, and the year in their titles, (films, attributes)."""
    years = [float(found.group(1)) if (found := YEAR.search(title)) else np.nan for title in titles]
    return np.concatenate([memberships(genres), positions(np.array(years))], axis=1)


def joined(parts: Sequence[Values]) -> Values | None:
    """Return attributes side by side; None: there are none."""
    values = np.concatenate(parts, axis=1) if parts else None
    return values if values is not None and values.shape[1] else None


def memberships(flags: Values) -> Values:
    """Return flags of several categories, those of a row scaled to the length 1."""
    return np.asarray(flags / np.sqrt(np.maximum(flags.sum(axis=1, keepdims=True), 1)), dtype=np.float32)


def positions(numbers: NDArray[np.float64]) -> Values:
    """Return weights of the quantiles that a number lies between; all are 0 where it is missing.

    A linear function of them is piecewise linear in the number.

    >>> positions(np.array([0.0, 8.0, 4.0, 7.0, np.nan] + [4.0] * 20))[:5].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75], [0.0, 0.0, 0.0]]
    """
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return np.zeros((len(numbers), 0), dtype=np.float32)
    knots = np.unique(np.quantile(known, np.linspace(0, 1, NUM_KNOTS)))
    weights = [np.interp(numbers, knots, hat) for hat in np.eye(len(knots))]
    return np.nan_to_num(np.stack(weights, axis=1)).astype(np.float32)
