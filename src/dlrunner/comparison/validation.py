"""Which runs validated on the same rows and targets: only their metrics can be ranked together.

A run records a digest of its validation rows and targets. Older runs have none: their settings of `data` are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

from dlrunner.comparison.collect import Row, distinct_cuts, frozen, shown

MOST_VALUES = 4
"""Values of a setting that a note lists."""


def validation_sets(rows: Sequence[Row], averaged: Collection[str]) -> list[int]:
    """Return the validation set of each row, numbered from 0 in order of appearance.

    Runs with the same digests of data and validation rows are of one set, and so are runs that agree in all settings
    of `data` that are not averaged over: the folds of a cross-validation are one set, compared in pairs. Runs of
    different tasks never are.

    Args:
        rows: runs.
        averaged: names of the settings that are averaged over.
    """
    parts = [_data_settings(row, averaged, is_averaged=True) for row in rows]
    others = [(row.task, row.data, _data_settings(row, averaged, is_averaged=False)) for row in rows]
    digests: dict[tuple[Hashable, Hashable], set[str]] = {}
    for row, part, other in zip(rows, parts, others, strict=True):
        if row.validation:
            digests.setdefault((part, other), set()).add(row.validation)
    # The same settings with several digests (the code changed in between): the settings say nothing.
    unclear = {other for (_, other), known in digests.items() if len(known) > 1}
    numbers: dict[Hashable, int] = {}
    found: list[int] = []
    for row, part, other in zip(rows, parts, others, strict=True):
        keys: list[Hashable] = [("rows", row.task, row.data, part, row.validation)] if row.validation else []
        if other not in unclear or not keys:
            keys.append(("settings", other))
        joined = {numbers[key] for key in keys if key in numbers}
        number = min(joined, default=len(found))
        if len(joined) > 1:
            numbers = {key: number if each in joined else each for key, each in numbers.items()}
            found = [number if each in joined else each for each in found]
        numbers |= dict.fromkeys(keys, number)
        found.append(number)
    order = {number: index for index, number in enumerate(dict.fromkeys(found))}
    return [order[number] for number in found]


def difference(rows: Sequence[Row], sets: Sequence[int], averaged: Collection[str]) -> str:
    """Return what differs between the validation sets: settings of `data`, the data, or the rows alone."""
    names = dict.fromkeys(name for row in rows for name in row.settings if _is_of_data(row, name, averaged))
    differing = [f"{name} ({_counts(values)})" for name, values in _by_set(rows, sets, names).items()]
    data = {number: {row.data for row, each in zip(rows, sets, strict=True) if each == number} for number in set(sets)}
    if len({frozenset(each) for each in data.values()}) > 1:
        differing.append(f"data ({_counts([row.conditions['data'] for row in rows])})")
    return ", ".join(differing) or "rows or targets, with the same settings of data"


def _by_set(rows: Sequence[Row], sets: Sequence[int], names: Collection[str]) -> Mapping[str, list[str]]:
    """Return the values by row of the settings that differ between sets."""
    found = {}
    for name in names:
        cuts = distinct_cuts(row.settings.get(name) for row in rows)
        values = [shown(row.settings.get(name), cuts) for row in rows]
        by_set: dict[int, set[str]] = {}
        for number, value in zip(sets, values, strict=True):
            by_set.setdefault(number, set()).add(value)
        if len({frozenset(each) for each in by_set.values()}) > 1:
            found[name] = values
    return found


def _counts(values: Sequence[str]) -> str:
    known = Counter(values).most_common()
    more = f", {len(known) - MOST_VALUES} more" if len(known) > MOST_VALUES else ""
    return ", ".join(f"{value}: {n}" for value, n in known[:MOST_VALUES]) + more


def _is_of_data(row: Row, name: str, averaged: Collection[str]) -> bool:
    """Return whether a setting can change the validation rows; the path cannot where the content is known."""
    return name.startswith("data.") and name not in averaged and not (name == "data.path" and row.data)


def _data_settings(row: Row, averaged: Collection[str], is_averaged: bool) -> Hashable:
    if is_averaged:
        return tuple((name, frozen(row.settings.get(name))) for name in sorted(averaged) if name.startswith("data."))
    names = [name for name, value in row.settings.items() if value is not None and _is_of_data(row, name, averaged)]
    return tuple((name, frozen(row.settings[name])) for name in sorted(names))
