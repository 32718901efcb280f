"""Validation of the files of a run folder: sections, numbers and texts have the types that readers expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlrunner.ranges import NUMBER_FORMAT

SECTIONS = ("data", "task", "model", "optim", "schedule", "trainer", "log", "sweep", "claim", "choices")
"""Of config.yaml: null, or names with values."""

PARTS = ("metric", "metrics", "final", "best", "data", "claim", "members", "tta", "baselines", "versions", "git")
"""Of summary.json: null, or names with values."""

NUMBERS = {
    "metric": ("value", "epoch"),
    "members": ("mean", "std"),
    "data": ("best_achievable",),
    "claim": ("published", "value"),
    "peak_memory_mb": ("host", "device"),
}
"""Of the parts of summary.json: null, or a number."""

REQUIRED: dict[str, dict[str, tuple[type, ...]]] = {
    "metric": {"name": (str,), "value": (int, float, type(None))},
    "claim": {"metric": (str,), "verdict": (str,), "source": (str,), "published": (int, float)},
    "members": {"mean": (int, float, type(None)), "std": (int, float, type(None)), "seeds": (list,)},
}
"""Required entries of the parts of summary.json, if the part is present."""


def check_config(config: Any) -> None:
    """Check a composed configuration.

    Raises:
        ValueError: the message says which entry is wrong.
    """
    _check(isinstance(config, Mapping), "it does not hold names with values")
    _check("choices" in config, "it ends early: its last section, choices, is missing")
    for name in SECTIONS:
        _check(isinstance(config.get(name), Mapping | None), f"{name} is not a section (names with values)")
    plugins = config.get("plugins", [])
    is_names = isinstance(plugins, list) and all(isinstance(each, str) for each in plugins)
    _check(is_names, "plugins is not a list of names")
    for group, choice in (config.get("choices") or {}).items():
        _check(isinstance(choice, str | None), f"choices.{group} is not a name")


def check_overrides(overrides: Any) -> None:
    """Check a list of overrides.

    Raises:
        ValueError: it is not a list of words.
    """
    is_words = isinstance(overrides, list) and all(isinstance(word, str) for word in overrides)
    _check(is_words, "it is not a list of words")


def check_row(row: Any) -> None:
    """Check a line of metrics.jsonl.

    Raises:
        ValueError: the message says which entry is wrong.
    """
    _check(isinstance(row, Mapping) and "epoch" in row, "it does not hold the metrics of an epoch")
    _check(isinstance(row["epoch"], int), "epoch is not an integer")
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        _check(all(each is None or _is_number(each) for each in values), f"{name} is not a number")


def check_summary(summary: Any) -> None:
    """Check the summary of a run.

    Raises:
        ValueError: the message says which entry is wrong.
    """
    _check(isinstance(summary, Mapping) and isinstance(summary.get("status"), str), "it has no status")
    for part in (*PARTS, "peak_memory_mb"):
        _check(isinstance(summary.get(part), Mapping | None), f"{part} is not a section (names with values)")
    for part, required in REQUIRED.items():
        for name, kinds in required.items() if summary.get(part) else ():
            _check(isinstance(summary[part].get(name), kinds), f"{part}.{name} is missing or of the wrong type")
    for name, known in (summary.get("metrics") or {}).items():
        _check(_is_description(known), f"metrics.{name} is not a direction, unit and format")
    for name, value in _numbers(summary):
        _check(value is None or _is_number(value), f"{name} is not a number")
    rows = (summary.get("data") or {}).get("rows")
    _check(isinstance(rows, Mapping | None), "data.rows is not a section (names with values)")
    _check(all(_is_number(count) for count in (rows or {}).values()), "data.rows holds a value that is not a number")
    findings = summary.get("audit") or []
    is_audit = isinstance(findings, list) and all(
        isinstance(finding, Mapping) and {"flag", "message"} <= finding.keys() for finding in findings
    )
    _check(is_audit, "audit is not a list of flags with messages")


def _numbers(summary: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all values that must be numbers, by name."""
    yield "seconds", summary.get("seconds")
    for part in ("final", "best"):
        yield from ((f"{part}.{name}", value) for name, value in (summary.get(part) or {}).items())
    for part, names in NUMBERS.items():
        yield from ((f"{part}.{name}", (summary.get(part) or {}).get(name)) for name in names)
    for baseline, metrics in (summary.get("baselines") or {}).items():
        _check(isinstance(metrics, Mapping), f"baselines.{baseline} is not a section (names with values)")
        yield from ((f"baselines.{baseline}.{name}", value) for name, value in metrics.items())


def _is_description(known: Any) -> bool:
    """Tell whether this describes a metric: its direction, its unit and a format of numbers."""
    if not isinstance(known, Mapping) or not isinstance(known.get("higher_is_better"), bool):
        return False
    unit, style = known.get("unit", ""), known.get("format", "")
    return isinstance(unit, str) and isinstance(style, str) and bool(NUMBER_FORMAT.fullmatch(style))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _check(is_valid: bool, message: str) -> None:
    if not is_valid:
        raise ValueError(message)
