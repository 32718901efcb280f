"""Pairwise tests of three or more groups: a compact table and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from dlrunner.comparison.collect import frozen
from dlrunner.comparison.groups import Comparison
from dlrunner.comparison.pairwise import Pair
from dlrunner.reporting.terminal.progress import number

MOST_PAIRS = 15
"""Of more pairs only those with the best group are printed; JSON and Markdown have all."""

INTERVAL = "95 % interval"

OPTIONAL_OF_PAIRS = (INTERVAL, "p", "g", "test")
"""Columns of the table of pairs that may be left out on a narrow terminal, the most important first."""

MOST_NAMED = 4
"""Groups that a sentence names; others are counted."""


def pairs_title(comparison: Comparison, validation_set: int) -> str:
    """Return the heading of the table of pairs."""
    pairs = comparison.pairs[validation_set]
    of_set = f" of validation set {validation_set + 1}" if comparison.num_validation_sets > 1 else ""
    return f"differences of pairs{of_set} (p by Holm's method over {len(pairs)} tests)"


def pairs_frame(comparison: Comparison, validation_set: int, most: int | None = None) -> pd.DataFrame:
    """Return a row per pair of groups, A with the better mean: difference, 95 % interval, Hedges' g, corrected p-value.

    Args:
        comparison: with pairs.
        validation_set: its number.
        most: of more pairs only those with the best group.
    """
    pairs = comparison.pairs[validation_set]
    if most is not None and len(pairs) > most:
        first = _best(comparison, validation_set)
        pairs = [pair for pair in pairs if first in (pair.better, pair.worse)]
    rows = []
    for pair in pairs:
        found, half = pair.found, pair.found.half_width
        rows.append(
            {
                "A": _label(comparison, pair.better),
                "B": _label(comparison, pair.worse),
                "A - B": difference_text(found.mean),
                INTERVAL: f"{difference_text(found.mean - half)} to {difference_text(found.mean + half)}",
                "g": f"{found.effect:.2f}" if math.isfinite(found.effect) else "",
                "p": p_text(pair.p),
                "test": f"{found.n} pairs" if found.method == "pairs" else "Welch",
            }
        )
    return pd.DataFrame(rows)


def pairs_records(comparison: Comparison, validation_set: int) -> Iterator[dict[str, Any]]:
    """Yield the pairs with all digits, for JSON."""
    for pair in comparison.pairs[validation_set]:
        found = pair.found
        yield {
            "validation_set": validation_set + 1,
            "better": comparison.groups[pair.better].label,
            "worse": comparison.groups[pair.worse].label,
            "difference": found.mean,
            "interval": [found.mean - found.half_width, found.mean + found.half_width],
            "hedges_g": found.effect if math.isfinite(found.effect) else None,
            "p": found.p,
            "p_holm": pair.p,
            "is_significant": pair.is_significant,
            "n": found.n,
            "method": found.method,
        }


def pairwise_sentences(comparison: Comparison) -> Iterator[str]:
    """Yield for each validation set which groups the best one is significantly better than, and which are better.

    The best by its mean over all its runs can be worse over the runs that another group has too.
    """
    for validation_set, pairs in comparison.pairs.items():
        best = _best(comparison, validation_set)
        own = [pair for pair in pairs if best in (pair.better, pair.worse)]
        better = [pair for pair in own if pair.better == best and pair.is_significant]
        worse = [pair for pair in own if pair.worse == best and pair.is_significant]
        open_ones = [pair for pair in own if not pair.is_significant]
        name = _label(comparison, best)
        where = f" in validation set {validation_set + 1}" if comparison.num_validation_sets > 1 else ""
        method = f"Holm's correction for {len(pairs)} tests, 5 %"
        if better:
            yield f"{name} is better than {_named(comparison, better, best)}{where} ({method})"
        if worse:
            verb = "is" if len(worse) == 1 else "are"
            pairs_of = f"over pairs of equal {' and '.join(comparison.averaged)}"
            yield f"{_named(comparison, worse, best)} {verb} better than {name} {pairs_of}{where} ({method})"
        if open_ones:
            others = _named(comparison, open_ones, best)
            yield f"no significant difference between {name} and {others}{where} ({method})"


def difference_text(value: float) -> str:
    """Format three significant digits: differences are often small.

    >>> difference_text(0.000741), difference_text(208350.78)
    ('0.000741', '208350.8')
    """
    return f"{value:.3g}" if abs(value) < 1e3 else number(value)


def p_text(p: float) -> str:
    """Format a p-value.

    >>> p_text(0.0421), p_text(0.00004), p_text(1.0)
    ('0.042', '<0.001', '1.000')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _label(comparison: Comparison, index: int) -> str:
    """Return the settings of a group that distinguish it within its validation set, without those implied by others."""
    group = comparison.groups[index]
    others = [each.settings for each in comparison.groups if each.validation_set == group.validation_set]
    names, keys = [], [()] * len(others)
    for name in group.settings:
        longer: list[Any] = [(*key, frozen(each[name])) for key, each in zip(keys, others, strict=True)]
        if len(set(longer)) > len(set(keys)):
            names.append(name)
            keys = longer
    return replace(group, settings={name: group.settings[name] for name in names}).label


def _best(comparison: Comparison, validation_set: int) -> int:
    """Return the index of the first group of a validation set that was tested: groups are sorted, the best first."""
    return min(min(pair.better, pair.worse) for pair in comparison.pairs[validation_set])


def _named(comparison: Comparison, pairs: list[Pair], best: int) -> str:
    labels = [_label(comparison, pair.worse if pair.better == best else pair.better) for pair in pairs]
    more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    return f"{', '.join(labels[:MOST_NAMED])}{more}"
