"""Comparisons for the terminal and for files: table, verdict as a sentence, Markdown, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.text import Text

from dlrunner.comparison.collect import LeftOut, shown
from dlrunner.comparison.groups import FOLD, REPEATS, Comparison, Group, full_name
from dlrunner.comparison.importance import Importance
from dlrunner.comparison.statistics import MOST_SEEDS, Verdict
from dlrunner.reporting.terminal.pairwise import (
    INTERVAL,
    MOST_PAIRS,
    OPTIONAL_OF_PAIRS,
    difference_text,
    pairs_frame,
    pairs_records,
    pairs_title,
    pairwise_sentences,
)
from dlrunner.reporting.terminal.progress import number
from dlrunner.reporting.terminal.tables import console, print_frame, print_sentence, seconds_text
from dlrunner.runs.listing import ListedRun

UNITS: dict[tuple[str, ...], str] = {("seed",): "seeds", (FOLD,): "folds", REPEATS: "folds"}
"""Names of repetitions by the settings that differ between them; others are called pairs."""

MOST_LEFT_OUT = 5
"""Number of skipped runs that are listed; the others are counted."""


def groups_frame(comparison: Comparison) -> pd.DataFrame:
    """Return a row per group, best first: settings, n, mean, std, low and high of the 95 % interval, other means."""
    heading = _heading(comparison)
    others = [name for name in [*_other_numbers(comparison), "seconds"] if name != heading]
    rows = []
    for group in comparison.groups:
        found = group.estimate
        settings = {name: shown(value, group.cuts) for name, value in group.settings.items()}
        metric = {} if comparison.metric else {"metric": group.metric}
        result = {heading: found.mean, "std": found.sd, "low": found.low, "high": found.high}
        rows.append(
            {
                **_set_number(comparison, group),
                **settings,
                "n": found.n,
                **metric,
                **result,
                **{name: group.mean(name) for name in others},
            }
        )
    return pd.DataFrame(rows)


def runs_frame(comparison: Comparison) -> pd.DataFrame:
    """Return a row per run, the groups best first and within each the runs best first."""
    repeats = [name for name in REPEATS if len({row.settings.get(name) for row in comparison.rows}) > 1]
    names = dict.fromkeys([*comparison.settings, *comparison.averaged, *repeats])
    others = _other_numbers(comparison)
    rows = []
    for group in comparison.groups:
        for row in sorted(group.rows, key=lambda row: row.value, reverse=group.higher_is_better):
            settings = {name: shown(row.settings.get(name), comparison.cuts) for name in names}
            metric = {} if comparison.metric else {"metric": row.metric}
            numbers = {name: row.numbers.get(name, math.nan) for name in [*others, "seconds"]}
            found = {**_set_number(comparison, group), **settings, **metric}
            rows.append({**found, _heading(comparison): row.value, **numbers, "run": str(row.path)})
    return pd.DataFrame(rows)


def sort(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Sort by a column, descending with a leading `-`; numbers before words, missing values last.

    Raises:
        ConfigError: there is no such column.
    """
    name = full_name(column.removeprefix("-"), map(str, frame.columns), "--sort")
    known = [at for at in frame.index if frame[name][at] != "null" and not pd.isna(frame[name][at])]
    known.sort(key=lambda at: _as_key(frame[name][at]), reverse=column.startswith("-"))
    return frame.loc[[*known, *frame.index.difference(known)]].reset_index(drop=True)


def formatted(frame: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """Return a table with mean ± std in one column, the interval in the next, and rounded numbers."""
    name = _heading(comparison)
    table = pd.DataFrame(index=frame.index)
    for column in frame.columns:
        if column == name and "std" in frame:
            table[name] = [_with_std(*pair) for pair in zip(frame[name], frame["std"], strict=True)]
            if frame["std"].notna().any():
                pairs = zip(frame["low"], frame["high"], strict=True)
                table[INTERVAL] = [f"{number(a)} to {number(b)}" if a == a else "" for a, b in pairs]
        elif column == "seconds":
            table[column] = [seconds_text(value) for value in frame[column]]
        elif column == "run":
            table[column] = [ListedRun(Path(path)).id for path in frame[column]]
        elif column not in ("std", "low", "high"):
            table[column] = [number(float(v)) if isinstance(v, float) else str(v) for v in frame[column]]
    return table.replace("nan", "")


def print_comparison(comparison: Comparison, frame: pd.DataFrame, left_out: Sequence[LeftOut], top: int) -> None:
    """Print the first `top` rows of the table, the verdict and the notes."""
    count = f"{len(comparison.rows)} runs" + (f" in {len(comparison.groups)} groups" if "n" in frame else "")
    by = f", by {comparison.metric}" if comparison.metric else ""
    over = f", averaged over {' and '.join(comparison.averaged)}" if comparison.averaged and "n" in frame else ""
    title = f"{count}{by}{over}"
    table = formatted(frame, comparison)
    print_frame(
        table.head(top),
        f"\n{title}",
        settings=_setting_names(comparison),
        optional=_optional_columns(comparison),
        elsewhere="--csv FILE writes all",
    )
    if len(table) > top:
        console().print(Text(f"… {len(table) - top} more; --top {len(table)} shows all, --csv FILE writes all"))
    for validation_set in comparison.pairs:
        title = f"\n{pairs_title(comparison, validation_set)}"
        frame_of_pairs = pairs_frame(comparison, validation_set, MOST_PAIRS)
        print_frame(frame_of_pairs, title, optional=OPTIONAL_OF_PAIRS, elsewhere="--md FILE writes all")
    for line in sentences(comparison, left_out):
        print_sentence(line, "bold" if line == verdict_sentence(comparison) else "")


def _setting_names(comparison: Comparison) -> list[str]:
    return [*dict.fromkeys([*comparison.settings, *comparison.averaged, *REPEATS])]


def _optional_columns(comparison: Comparison) -> list[str]:
    """Return the columns that may be left out on a narrow terminal, the most important first."""
    return ["run", INTERVAL, "seconds", *_other_numbers(comparison)]


def sentences(comparison: Comparison, left_out: Sequence[LeftOut]) -> Iterator[str]:
    """Yield the lines below the table: the verdict, notes, skipped runs."""
    if verdict := verdict_sentence(comparison):
        yield verdict
    yield from pairwise_sentences(comparison)
    for note in comparison.notes:
        yield f"note: {note}"
    for each in left_out[:MOST_LEFT_OUT]:
        yield f"skipped: {each.name}: {each.reason}"
    if len(left_out) > MOST_LEFT_OUT:
        yield f"skipped: {len(left_out) - MOST_LEFT_OUT} more"


def verdict_sentence(comparison: Comparison) -> str | None:
    """Return which of two groups is better, or the number of seeds required; None unless there are two groups."""
    verdict = comparison.verdict
    if verdict is None:
        return None
    better, worse = comparison.groups[verdict.better], comparison.groups[1 - verdict.better]
    unit = UNITS.get(comparison.averaged, "pairs")
    measure = (
        f"{better.metric} {'higher' if better.higher_is_better else 'lower'} by {difference_text(verdict.difference)}"
    )
    method = _method(verdict, comparison)
    if verdict.method == "none":
        one = "one seed" if unit == "pairs" else f"one {unit[:-1]}"
        if verdict.difference == 0:
            return f"{better.label} and {worse.label} have the same {better.metric}; {one} each"
        return f"no test with {one}: {better.label} has {measure} than {worse.label}; run both with more seeds"
    if verdict.difference == verdict.high == 0:
        return f"no difference between {better.label} and {worse.label}: {better.metric} is equal in {method}"
    interval = f"95 % interval {difference_text(verdict.low)} to {difference_text(verdict.high)}, {method}"
    if verdict.is_significant:
        return f"{better.label} is better than {worse.label}: {measure} ({interval})"
    needed = verdict.seeds_required
    required = f"about {needed:,}" if needed else f"more than {MOST_SEEDS:,}"
    compared, more = f"{verdict.n} {unit}", unit
    if verdict.method == "welch":
        runs = _runs(comparison)
        compared, more = f"{_sizes(comparison)} {runs}", f"{runs} of each"
    return (
        f"no significant difference with {compared}: {better.label} has {measure} than {worse.label} "
        f"({interval}); {more} required for a difference of this size: {required}"
    )


def _sizes(comparison: Comparison) -> str:
    return " and ".join(str(group.estimate.n) for group in comparison.groups)


def _runs(comparison: Comparison) -> str:
    return "runs" if comparison.averaged != REPEATS else UNITS[REPEATS]


def _method(verdict: Verdict, comparison: Comparison) -> str:
    """Return how an interval was computed."""
    names = comparison.averaged
    if verdict.method == "welch":
        pairs = f"pairs of equal {' and '.join(names) or 'seed'}"
        return (
            f"Welch's, over {_sizes(comparison)} {_runs(comparison)}: fewer than two {pairs}, or all differ by as much"
        )
    plural = f"of {UNITS[names]}" if names in UNITS else f"of equal {' and '.join(names)}"
    dropped = f", {verdict.num_unpaired} unpaired dropped" if verdict.num_unpaired else ""
    return f"{verdict.n} pairs {plural}{dropped}"


def importance_sentences(found: Importance) -> Iterator[str]:
    """Yield the importance of each setting, the best region, and warnings."""
    yield f"\nimportance for {found.metric}: random forest on {found.num_rows} runs, out-of-bag R² {found.r2:.2f}"
    width = max(map(len, found.fractions))
    for name, fraction in found.fractions.items():
        is_noise = found.noise is not None and fraction <= found.noise
        remark = "noise floor" if name in REPEATS else "not above the noise floor" if is_noise else ""
        yield f"  {name:<{width}}  {fraction:>4.0%}  {remark}".rstrip()
    yield f"best: {found.setting} = {found.best_region} (means within one standard error of the best)"
    yield from (f"warning: {warning}" for warning in found.warnings)


def markdown(comparison: Comparison, frame: pd.DataFrame, left_out: Sequence[LeftOut]) -> str:
    """Return the table as Markdown, with the sentences below it."""
    tables = [_markdown_table(formatted(frame, comparison))]
    for validation_set in comparison.pairs:
        tables += [pairs_title(comparison, validation_set), _markdown_table(pairs_frame(comparison, validation_set))]
    return "\n\n".join([*tables, *sentences(comparison, left_out)]) + "\n"


def _markdown_table(frame: pd.DataFrame) -> str:
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def as_json(comparison: Comparison, left_out: Sequence[LeftOut]) -> str:
    """Return groups, runs, verdict and notes as JSON; NaN is null."""
    groups: list[dict[str, Any]] = []
    for group in comparison.groups:
        found = group.estimate
        groups.append(
            {
                "settings": dict(group.settings),
                "validation_set": group.validation_set + 1,
                "metric": group.metric,
                "higher_is_better": group.higher_is_better,
                "n": found.n,
                "mean": _known(found.mean),
                "std": _known(found.sd),
                "interval": [_known(found.low), _known(found.high)],
                "means": {n: _known(group.mean(n)) for n in [*_other_numbers(comparison), "seconds"]},
                "runs": [
                    {
                        "folder": str(row.path),
                        **{name: row.settings.get(name) for name in (*comparison.averaged, *REPEATS)},
                        "value": _known(row.value),
                    }
                    for row in group.rows
                ],
            }
        )
    content = {
        "metric": comparison.metric,
        "settings": comparison.settings,
        "groups": groups,
        "verdict": _verdict_record(comparison),
        "pairs": [record for number in comparison.pairs for record in pairs_records(comparison, number)],
        "notes": comparison.notes,
        "skipped": [{"name": each.name, "reason": each.reason} for each in left_out],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _verdict_record(comparison: Comparison) -> dict[str, Any] | None:
    verdict = comparison.verdict
    if verdict is None:
        return None
    better, worse = comparison.groups[verdict.better], comparison.groups[1 - verdict.better]
    return {
        "is_significant": verdict.is_significant,
        "better": better.label,
        "worse": worse.label,
        "difference": verdict.difference,
        "interval": [_known(verdict.low), _known(verdict.high)],
        "n": verdict.n,
        "method": verdict.method,
        "seeds_required": verdict.seeds_required,
        "sentence": verdict_sentence(comparison),
    }


def _set_number(comparison: Comparison, group: Group) -> dict[str, str]:
    """Return the column that says which groups are not comparable, if there are such."""
    return {"validation set": str(group.validation_set + 1)} if comparison.num_validation_sets > 1 else {}


def _heading(comparison: Comparison) -> str:
    """Return the column of the compared metric."""
    return comparison.metric or "value"


def _other_numbers(comparison: Comparison) -> list[str]:
    """Return the names of the other validation and test metrics, the losses last."""
    names = dict.fromkeys(name for row in comparison.rows for name in row.numbers)
    shown_names = [n for n in names if n.startswith(("valid/", "test/")) and n != comparison.metric]
    return sorted(shown_names, key=lambda name: name.endswith("/loss"))


def _with_std(mean: float, sd: float) -> str:
    """Format mean ± std, with the same decimals where the std is not rounded away.

    >>> _with_std(0.88291, 0.00027), _with_std(0.88291, 0.0), _with_std(0.88291, float("nan"))
    ('0.8829 ± 0.0003', '0.8829 ± 0.0000', '0.8829')
    """
    if sd != sd:
        return number(float(mean))
    return f"{number(float(mean))} ± {f'{sd:.4f}' if 1e-4 <= sd < 1e-3 <= abs(mean) else number(float(sd))}"


def _as_key(value: Any) -> tuple[bool, float, str]:
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, str(value)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
