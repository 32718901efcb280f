"""What the files of a run folder must hold, whoever wrote them: sections, numbers and texts where they are read."""

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

NEEDED: dict[str, dict[str, tuple[type, ...]]] = {
    "metric": {"name": (str,), "value": (int, float, type(None))},
    "claim": {"metric": (str,), "verdict": (str,), "source": (str,), "published": (int, float)},
    "members": {"mean": (int, float, type(None)), "std": (int, float, type(None)), "seeds": (list,)},
}
"""What a part of summary.json that is there must have."""


def check_config(config: Any) -> None:
    """Refuse what is not a composed configuration.

    Raises:
        ValueError: in words, what is wrong where.
    """
    _check(isinstance(config, Mapping), "it does not hold names with values")
    for name in SECTIONS:
        _check(isinstance(config.get(name), Mapping | None), f"{name} is no section (names with values)")
    plugins = config.get("plugins", [])
    _check(isinstance(plugins, list) and all(isinstance(each, str) for each in plugins), "plugins is no list of names")
    for group, choice in (config.get("choices") or {}).items():
        _check(isinstance(choice, str | None), f"choices.{group} is no name")


def check_overrides(overrides: Any) -> None:
    """Refuse what is not a list of words.

    Raises:
        ValueError: in words.
    """
    is_words = isinstance(overrides, list) and all(isinstance(word, str) for word in overrides)
    _check(is_words, "it does not hold a list of words")


def check_row(row: Any) -> None:
    """Refuse what is not an epoch's line of metrics.jsonl.

    Raises:
        ValueError: in words, what is wrong where.
    """
    _check(isinstance(row, Mapping) and "epoch" in row, "it does not hold an epoch with its numbers")
    _check(isinstance(row["epoch"], int), "epoch is no whole number")
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        _check(all(each is None or _is_number(each) for each in values), f"{name} is no number")


def check_summary(summary: Any) -> None:
    """Refuse what is not the summary of a run.

    Raises:
        ValueError: in words, what is wrong where.
    """
    _check(isinstance(summary, Mapping) and isinstance(summary.get("status"), str), "it holds no status of a run")
    for part in (*PARTS, "peak_memory_mb"):
        _check(isinstance(summary.get(part), Mapping | None), f"{part} is no section (names with values)")
    for part, known in NEEDED.items():
        for name, kinds in known.items() if summary.get(part) else ():
            _check(isinstance(summary[part].get(name), kinds), f"{part}.{name} is missing or not what it should be")
    for name, known in (summary.get("metrics") or {}).items():
        _check(_is_description(known), f"metrics.{name} is no direction, unit and format")
    for name, value in _numbers(summary):
        _check(value is None or _is_number(value), f"{name} is no number")
    rows = (summary.get("data") or {}).get("rows")
    _check(isinstance(rows, Mapping | None), "data.rows is no section (names with values)")
    _check(all(_is_number(count) for count in (rows or {}).values()), "data.rows holds something that is no number")
    found = summary.get("audit") or []
    is_audit = isinstance(found, list) and all(
        isinstance(f, Mapping) and {"flag", "message"} <= f.keys() for f in found
    )
    _check(is_audit, "audit is not a list of flags with messages")


def _numbers(summary: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all that must be a number, by name."""
    yield "seconds", summary.get("seconds")
    for part in ("final", "best"):
        yield from ((f"{part}.{name}", value) for name, value in (summary.get(part) or {}).items())
    for part, names in NUMBERS.items():
        yield from ((f"{part}.{name}", (summary.get(part) or {}).get(name)) for name in names)
    for baseline, metrics in (summary.get("baselines") or {}).items():
        _check(isinstance(metrics, Mapping), f"baselines.{baseline} is no section (names with values)")
        yield from ((f"baselines.{baseline}.{name}", value) for name, value in metrics.items())


def _is_description(known: Any) -> bool:
    """Tell whether this describes a metric: its direction, its unit and a format of numbers."""
    if not isinstance(known, Mapping) or not isinstance(known.get("higher_is_better"), bool):
        return False
    unit, style = known.get("unit", ""), known.get("format", "")
    return isinstance(unit, str) and isinstance(style, str) and bool(NUMBER_FORMAT.fullmatch(style))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _check(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise ValueError(otherwise)
