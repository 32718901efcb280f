"""Comparison of runs: the settings that differ, and the metrics as mean ± std over seeds.

Seeds and folds are repetitions: runs that agree in all other settings form a group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dlrunner.comparison.collect import Row, distinct_cuts, frozen, shown
from dlrunner.comparison.pairwise import MOST_GROUPS, Pair, pairwise
from dlrunner.comparison.statistics import Estimate, Verdict, compare_groups, estimate
from dlrunner.comparison.validation import difference, validation_sets
from dlrunner.errors import ConfigError, did_you_mean

FOLD = "data.fold"
REPEATS = ("seed", FOLD)
"""Settings that repeat a run: metrics are averaged over them."""

Repetition = tuple[Hashable, ...]
"""The values of the settings that are averaged over."""


@dataclass(frozen=True)
class Group:
    """Runs that agree in all settings except seed and fold."""

    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    repetitions: tuple[Repetition, ...]
    """Of each row its seed, fold and other settings that are averaged over; rows with the same ones are duplicates."""
    metric: str
    higher_is_better: bool
    validation_set: int = 0
    """Groups of different validation sets are not comparable."""
    cuts: Mapping[str, str] = field(default_factory=dict)
    """Of long values, as in the comparison."""
    seed_at: int | None = None
    """Where a repetition has its seed, if the seeds of a fold are averaged first; None: seeds are repetitions."""

    @cached_property
    def values(self) -> Mapping[Repetition, float]:
        """The metric by repetition; duplicates are averaged into one value, and so are the seeds of a fold.

        The runs of a fold share its rows: counted as independent of each other they make the interval too narrow.
        """
        return self._by_repetition([row.value for row in self.rows])

    @property
    def estimate(self) -> Estimate:
        """Mean, standard deviation and interval of the metric over the repetitions."""
        return estimate(list(self.values.values()))

    @property
    def label(self) -> str:
        """The settings as they are typed."""
        return " ".join(f"{name}={shown(value, self.cuts)}" for name, value in self.settings.items()) or "all runs"

    def mean(self, name: str) -> float:
        """Return the mean of another metric of the runs, NaN if no run has it."""
        return self.average([row.numbers.get(name) for row in self.rows])

    def average(self, values: Sequence[float | None]) -> float:
        """Return the mean of values by row over the repetitions: duplicates count once, None is ignored."""
        means = self._by_repetition(values)
        return sum(means.values()) / len(means) if means else math.nan

    def _by_repetition(self, values: Sequence[float | None]) -> Mapping[Repetition, float]:
        pairs = zip(self.repetitions, values, strict=True)
        means = _means((repetition, value) for repetition, value in pairs if value is not None)
        at = self.seed_at
        return means if at is None else _means(((*key[:at], *key[at + 1 :]), value) for key, value in means.items())


@dataclass(frozen=True)
class Comparison:
    """Runs, the settings in which they differ, and their groups, best first."""

    rows: tuple[Row, ...]
    settings: tuple[str, ...]
    """Names of the settings by which the groups differ."""
    groups: tuple[Group, ...]
    metric: str | None
    """The compared metric; None if the runs have different ones."""
    notes: tuple[str, ...]
    averaged: tuple[str, ...] = ()
    """Names of the settings that are averaged over: they identify a repetition."""
    verdict: Verdict | None = None
    """Of the first group against the second, if there are exactly two, and they are comparable."""
    pairs: Mapping[int, Sequence[Pair]] = field(default_factory=dict)
    """Tests of all pairs of the groups of a validation set, by its number, where there are several; by their index."""
    cuts: Mapping[str, str] = field(default_factory=dict)
    """Of long values that differ in their beginning: how they are shown."""

    @property
    def is_ranked(self) -> bool:
        """Whether all runs have the same task, metric and validation rows, so that they can be ranked."""
        return self.metric is not None and len({row.task for row in self.rows}) == self.num_validation_sets == 1

    @property
    def num_validation_sets(self) -> int:
        """The number of sets of validation rows; the groups of each are ranked by themselves."""
        return len({group.validation_set for group in self.groups})


def compare(rows: Sequence[Row], metric: str | None = None, by: Sequence[str] = ()) -> Comparison:
    """Group runs by the settings that differ, and test the difference if there are two groups.

    Args:
        rows: at least two.
        metric: compare by this metric instead of the runs' own; `mae` is resolved to `valid/mae`.
        by: group by these settings only, averaging over everything else.

    Raises:
        ConfigError: there is no such metric or setting, or the setting does not differ.
    """
    notes = []
    if metric is not None:
        own = {row.metric for row in rows}
        rows = judged_by(rows, metric)
        if rows[0].metric not in own:
            notes.append(
                f"{'higher' if rows[0].higher_is_better else 'lower'} {rows[0].metric} is assumed to be better"
            )
    rows = as_requested(rows)
    varied = varied_settings(rows)
    others = [name for name in differing_settings(rows) if name not in REPEATS]
    chosen = [_varied_name(name, rows, varied) for name in by] or others
    averaged = [name for name in (*others, *REPEATS) if name in varied and name not in chosen]
    metrics, tasks = (list(dict.fromkeys(values)) for values in zip(*((r.metric, r.task) for r in rows), strict=True))
    # Values of different tasks, metrics or validation rows are never averaged.
    kept = dict.fromkeys([*(["task"] if len(tasks) > 1 else []), *chosen])
    is_comparable = len(metrics) == len(tasks) == 1
    sets = validation_sets(rows, averaged)
    buckets: dict[Hashable, list[Row]] = {}
    numbers: dict[Hashable, int] = {}
    for row, number in zip(rows, sets, strict=True):
        key = (row.metric, number, *(frozen(row.settings.get(name)) for name in kept))
        buckets.setdefault(key, []).append(row)
        numbers[key] = number
    cuts = distinct_cuts(row.settings.get(name) for name in varied for row in rows)
    groups = [_group(bucket, list(kept), averaged, numbers[key], cuts) for key, bucket in buckets.items()]
    if {*REPEATS} <= {*averaged} and any(len({row.settings.get(FOLD) for row in group.rows}) > 1 for group in groups):
        groups = [replace(group, seed_at=averaged.index("seed")) for group in groups]
        notes.append("n counts folds: the runs of a fold are not independent, so that its seeds are averaged first")
    groups.sort(
        key=lambda each: (metrics.index(each.metric), tasks.index(each.rows[0].task), each.validation_set, _rank(each))
    )
    verdict = None
    if is_comparable and len(groups) == 2 and len(set(sets)) == 1:
        verdict = compare_groups(groups[0].values, groups[1].values, groups[0].higher_is_better)
    pairs = _pairs(groups) if is_comparable and verdict is None else {}
    if is_comparable and len(set(sets)) > 1:
        notes.append(
            f"these runs validated on {len(set(sets))} different sets of rows, each ranked by itself: they differ in "
            f"{difference(rows, sets, averaged)}"
        )
    return Comparison(
        tuple(rows),
        tuple(kept),
        tuple(groups),
        metrics[0] if len(metrics) == 1 else None,
        (*notes, *_notes(rows, groups, metrics, tasks, averaged)),
        tuple(averaged),
        verdict,
        pairs,
        cuts,
    )


def judged_by(rows: Sequence[Row], metric: str) -> list[Row]:
    """Return the rows that have a metric, compared by it.

    Raises:
        ConfigError: fewer than two rows have it, or its direction is unknown.
    """
    known = dict.fromkeys(name for row in rows for name in row.numbers)
    name = full_name(metric, known, "--metric")
    directions = {row.directions[name] for row in rows if name in row.directions}
    if len(directions) != 1:
        verb = "disagree on" if directions else "do not record"
        raise ConfigError(f"--metric: these runs {verb} whether a higher {name} is better; run one of them again")
    (higher,) = directions
    having = [row.judged_by(name, higher) for row in rows if name in row.numbers]
    if len(having) < 2:
        raise ConfigError(f"--metric: only {having[0].path.name} has {name}; a comparison needs two")
    return having


def full_name(word: str, known: Iterable[str], option: str) -> str:
    """Resolve a name, or its unambiguous last part: `lr` is `optim.lr`, `mae` is `valid/mae`.

    Raises:
        ConfigError: there is no such name, or several.

    >>> full_name("mae", ["valid/rmse", "valid/mae"], "--metric")
    'valid/mae'
    """
    names = list(known)
    if word in names:
        return word
    ending = [name for name in names if name.endswith((f"/{word}", f".{word}"))]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ConfigError(f"{option}: {word!r} is ambiguous: {' or '.join(sorted(ending))}")
    raise ConfigError(f"{option}: there is no {word!r} among these runs; {did_you_mean(word, names)}")


def as_requested(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with `auto` for the settings that were decided differently: for another model, data or seed.

    What was decided is no difference between requests, and the seeds of one request are of one group. A setting that
    was decided to be the same in all rows keeps its value, as one that was typed.
    """
    values: dict[str, set[Hashable]] = {}
    for row in rows:
        for name in row.decided:
            values.setdefault(name, set()).add(frozen(row.settings.get(name)))
    differing = {name for name, found in values.items() if len(found) > 1}
    return [replace(row, settings={**row.settings, **dict.fromkeys(row.decided & differing, "auto")}) for row in rows]


def varied_settings(rows: Sequence[Row]) -> dict[str, list[Hashable]]:
    """Return the settings that differ between rows, with their values by row."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    values = {name: [frozen(row.settings.get(name)) for row in rows] for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def differing_settings(rows: Sequence[Row]) -> list[str]:
    """Return the settings that differ, without those implied by others: `optim`, and not also its momentum and betas.

    A setting is implied by the choice of its section (`optim.betas` by `optim`), the task and the experiment if its
    values follow from them, unless it was typed: `optim=sgd optim.lr=0.1` compared with `optim=adam` shows both.
    """
    varied = varied_settings(rows)
    typed = {name for row in rows for name in row.typed}

    def is_implied(name: str) -> bool:
        choices = dict.fromkeys((name.partition(".")[0], "task", "experiment"))
        implying = [varied[choice] for choice in choices if choice != name and None not in varied.get(choice, [None])]
        values = list(zip(*implying, strict=True))
        return bool(values) and len(set(zip(values, varied[name], strict=True))) == len(set(values))

    return [name for name in varied if name in REPEATS or name in typed or not is_implied(name)]


def _varied_name(word: str, rows: Sequence[Row], varied: Mapping[str, Any]) -> str:
    """Resolve the setting of --by."""
    name = full_name(word, dict.fromkeys(name for row in rows for name in row.settings), "--by")
    if name not in varied:
        differing = ", ".join(differing_settings(rows)) or "nothing"
        raise ConfigError(
            f"--by: {name} is {shown(rows[0].settings.get(name))} in all these runs; differing settings: {differing}"
        )
    return name


def _pairs(groups: Sequence[Group]) -> dict[int, list[Pair]]:
    """Test the pairs of groups of each validation set that has several."""
    found = {}
    for number in dict.fromkeys(group.validation_set for group in groups):
        indices = [index for index, group in enumerate(groups) if group.validation_set == number]
        tests = pairwise([groups[index].values for index in indices], groups[0].higher_is_better)
        found[number] = [replace(each, better=indices[each.better], worse=indices[each.worse]) for each in tests]
    return {number: tests for number, tests in found.items() if tests}


def _group(
    rows: Sequence[Row], names: Sequence[str], repeated: Sequence[str], validation_set: int, cuts: Mapping[str, str]
) -> Group:
    settings = {name: rows[0].settings.get(name) for name in names}
    repetitions = tuple(_repetition(row, repeated) for row in rows)
    metric, higher_is_better = rows[0].metric, rows[0].higher_is_better
    return Group(settings, tuple(rows), repetitions, metric, higher_is_better, validation_set, cuts)


def _means(pairs: Iterable[tuple[Repetition, float]]) -> dict[Repetition, float]:
    """Return the mean of the values of each repetition."""
    found: dict[Repetition, list[float]] = {}
    for repetition, value in pairs:
        found.setdefault(repetition, []).append(value)
    return {repetition: sum(each) / len(each) for repetition, each in found.items()}


def _repetition(row: Row, names: Sequence[str]) -> Repetition:
    return tuple(frozen(row.settings.get(name)) for name in names)


def _rank(group: Group) -> float:
    """Sort the best first."""
    return -group.estimate.mean if group.higher_is_better else group.estimate.mean


def _notes(
    rows: Sequence[Row], groups: Sequence[Group], metrics: Sequence[str], tasks: Sequence[str], averaged: Sequence[str]
) -> Iterable[str]:
    """Yield notes on the validity of the comparison."""
    if len(tasks) > 1:
        yield f"these runs are of different tasks ({', '.join(tasks)}): their metrics cannot be compared, no verdict"
    if len(metrics) > 1:
        yield f"these runs have different metrics ({', '.join(metrics)}): no verdict; choose one with --metric NAME"
    if same := sum(len(group.rows) - len({*group.repetitions}) for group in groups):
        plural = f"{same} runs repeat" if same > 1 else "one run repeats"
        yield f"{plural} the settings and the seed of another: averaged with it and counted once"
    if len(groups) > MOST_GROUPS and any(group.estimate.n > 1 for group in groups):
        yield f"pairs of more than {MOST_GROUPS} groups are not tested; name fewer runs, or average with --by"
    repetitions = {(group.validation_set, frozenset(group.repetitions)) for group in groups}
    if averaged and len(repetitions) > len({group.validation_set for group in groups}):
        effect = "part of a difference of means is theirs" if averaged == ["seed"] else "their means are not comparable"
        yield f"the groups were not run with the same {', '.join(averaged)}: {effect}"
    conditions = {"data": "data", "code": "code", "device": "device", "precision": "precision"}
    if len({group.validation_set for group in groups}) > 1:
        del conditions["data"]  # named with the validation sets, if it differs between them
    differing = []
    for name, words in conditions.items():
        counts = Counter(row.conditions[name] for row in rows)
        if len(counts) > 1:
            differing.append(f"{words} ({', '.join(f'{value}: {n}' for value, n in counts.most_common(4))})")
    if differing:
        yield f"these runs have different {', '.join(differing)}"
