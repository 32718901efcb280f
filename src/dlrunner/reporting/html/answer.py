"""The head of a run's page: the question, the result next to the baselines, and a verdict in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlrunner.claims.claims import describe_flags
from dlrunner.reporting.html.facts import is_number, kind_of
from dlrunner.reporting.html.page import Card, duration, readable
from dlrunner.reporting.terminal.baselines import best_baseline, is_dear
from dlrunner.reporting.terminal.progress import metric_value

EQUAL = 0.0005
"""Results that differ by less than this fraction are called equal."""


@dataclass(frozen=True)
class Bar:
    """The result of a method as a bar."""

    name: str
    text: str
    width: float
    """From 0 to 100."""
    is_own: bool


def question(summary: Mapping[str, Any], fallback: str) -> str:
    """Return what was asked, for the heading.

    Args:
        summary: content of summary.json; that of older versions has no purpose.
        fallback: the heading if it is unknown.

    >>> question({"purpose": "Predict price", "data": {"name": "flats.csv"}}, "a run")
    'Predict price of flats.csv'
    """
    purpose, name = summary.get("purpose"), (summary.get("data") or {}).get("name")
    return f"{purpose} of {name}" if purpose and name else fallback


def value_text(summary: Mapping[str, Any], name: Any, value: Any) -> str:
    """Format a value of a metric for reading: with its unit and format if it has any, else with few digits."""
    known = (summary.get("metrics") or {}).get(name) or {}
    if known.get("format") or not is_number(value):
        return metric_value(summary, name, value)
    return f"{readable(value)} {known['unit']}" if known.get("unit") else readable(value)


def result(summary: Mapping[str, Any]) -> Card | None:
    """Return the monitored metric of the run with remarks."""
    metric, best, members = (summary.get(name) or {} for name in ("metric", "best", "members"))
    if not metric:
        return None
    name = str(metric.get("name") or "")
    directions: dict[Any, str] = {True: "higher is better", False: "lower is better"}
    direction = directions.get(metric.get("higher_is_better"), "")
    lines = [", ".join(part for part in (f"after epoch {metric.get('epoch', '-')}", direction) if part)]
    if best.get(name) is not None and best.get("epoch") != metric.get("epoch"):
        lines.append(f"best: {value_text(summary, name, best[name])} after epoch {best.get('epoch', '-')}")
    if members:
        mean, std = (value_text(summary, name, members.get(each)) for each in ("mean", "std"))
        lines.append(f"average of {len(members.get('seeds') or [])} members with {mean} ± {std} each")
    lines += _tta(summary)
    best_achievable = (summary.get("data") or {}).get("best_achievable")
    if best_achievable is not None:
        lines.append(f"best achievable on this data: {value_text(summary, name, best_achievable)}")
    return Card(name, value_text(summary, name, metric.get("value")), lines)


def _tta(summary: Mapping[str, Any]) -> list[str]:
    """Return what test-time augmentation changes: each metric, and that of a single view.

    >>> single = {"valid/accuracy": 0.8625, "valid/log_loss": 0.51}
    >>> final = {"valid/accuracy": 0.8674, "valid/log_loss": 0.485}
    >>> _tta({"tta": {"num_views": 5, "single_view_metrics": single}, "final": final})[1]
    'valid/accuracy 0.8674 (single view: 0.8625), valid/log_loss 0.4850 (single view: 0.5100)'
    """
    tta, final = summary.get("tta") or {}, summary.get("final") or {}
    single = tta.get("single_view_metrics")  # not in runs of older versions
    texts = [
        f"{name} {value_text(summary, name, final[name])} (single view: {value_text(summary, name, value)})"
        for name, value in (single.items() if isinstance(single, Mapping) else ())
        if is_number(value) and is_number(final.get(name))
    ]
    return [f"with TTA ({tta.get('num_views')} views):", ", ".join(texts)] if texts else []


def bars(summary: Mapping[str, Any]) -> list[Bar]:
    """Return the run and its baselines by the monitored metric, the best first; empty without baselines."""
    metric, baselines = summary.get("metric") or {}, summary.get("baselines") or {}
    name = metric.get("name")
    values = {"this run": metric.get("value")} | {method: found.get(name) for method, found in baselines.items()}
    known = {method: value for method, value in values.items() if is_number(value)}
    if len(known) < 2 or "this run" not in known:
        return []
    longest = max(known.values())
    is_drawable = min(known.values()) >= 0 < longest
    return [
        Bar(
            method,
            value_text(summary, name, value),
            round(100 * value / longest, 1) if is_drawable else 0.0,
            method == "this run",
        )
        for method, value in sorted(known.items(), key=lambda each: each[1], reverse=bool(metric["higher_is_better"]))
    ]


def verdict(summary: Mapping[str, Any]) -> str:
    """Return in a sentence how the run compares with the best baseline; empty without baselines.

    >>> metric = {"name": "valid/rmse", "value": 50191.3, "higher_is_better": False}
    >>> verdict({"metric": metric, "baselines": {"mean": {"valid/rmse": 114485.6}, "trees": {"valid/rmse": 47776.9}}})
    'Behind the baseline trees: valid/rmse 50,191 against 47,777, 5.1 % higher.'
    """
    metric = summary.get("metric") or {}
    name, value, higher_is_better = (metric.get(key) for key in ("name", "value", "higher_is_better"))
    others = {k: v for k, v in (summary.get("baselines") or {}).items() if is_number(v.get(name))}
    best = best_baseline(others, str(name), higher_is_better=bool(higher_is_better))
    if best is None or not is_number(value):
        return ""
    method, other = best
    change = value / other - 1 if other > 0 and value < 2 * other else None
    if value == other or (change is not None and abs(change) < EQUAL):
        comparison = "No better than"
    elif (value > other) == bool(higher_is_better):
        comparison = "Better than"
    else:
        comparison = "Behind"
    which = "the baseline" if comparison == "Behind" or len(others) == 1 else "every baseline; the best is"
    if comparison == "No better than":
        which = "the baseline"
    rate = (
        ""
        if change is None or comparison == "No better than"
        else f", {abs(change):.1%} {'higher' if change > 0 else 'lower'}".replace("%", " %")
    )
    seconds, taken = summary.get("training_seconds"), others[method].get("seconds")
    times = ""
    if is_number(seconds) and is_number(taken) and is_dear(seconds, taken):
        times = f"; the baseline took {duration(taken)}, this run {duration(seconds)}"
    return (
        f"{comparison} {which} {method}: {name} {value_text(summary, name, value)} "
        f"against {value_text(summary, name, other)}{rate}{times}."
    )


def claim(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the verdict on the claim of a run, with its source and warnings."""
    found = summary.get("claim") or {}
    if not found:
        return None
    said = str(found.get("verdict") or "")
    warnings = f"; warnings: {flags}" if (flags := describe_flags(found)) else ""
    return {
        "metric": found.get("metric") or "",
        "verdict": said,
        "kind": kind_of(said),
        "facts": [
            (title, metric_value(summary, found.get("metric"), found.get(key)))
            for title, key in (("published", "published"), ("this run", "value"))
        ],
        "source": f"{found.get('source') or ''}{warnings}",
    }


def banners(summary: Mapping[str, Any]) -> list[str]:
    """Return warnings for the top of the page: a failed run, synthetic data."""
    texts = []
    if summary.get("status") not in (None, "done"):
        how = {"failed": "failed", "interrupted": "was interrupted"}.get(summary["status"], f"is {summary['status']}")
        texts.append(f"This run {how}: {summary.get('error') or 'no message'}")
    if (summary.get("data") or {}).get("source") == "synthetic":
        texts.append("Synthetic data: the results below do not apply to real data.")
    return texts
