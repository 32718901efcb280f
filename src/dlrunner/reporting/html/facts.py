"""Parts of all reports: audit findings, data with its terms, environment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from dlrunner.claims.claims import describe_finding
from dlrunner.reporting.html.page import count, duration
from dlrunner.reporting.terminal.progress import number

Facts = list[tuple[str, Any]]
"""Names and values; those without a value are omitted."""


def is_sound(summary: Mapping[str, Any]) -> bool:
    """Return whether the parts of a summary have the expected types."""
    parts = [summary.get(name) or {} for name in ("metric", "claim", "best", "members", "tta", "data", "baselines")]
    parts += list(parts[-1].values()) if isinstance(parts[-1], Mapping) else []
    flags = summary.get("audit") or []
    return (
        all(isinstance(part, Mapping) for part in parts)
        and isinstance(flags, list)
        and all(isinstance(flag, Mapping) and {"flag", "message"} <= flag.keys() for flag in flags)
    )


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def kind_of(verdict: str) -> str:
    """Return the CSS class for a verdict on a claim."""
    return "good" if verdict.startswith("reached") else "bad" if verdict.startswith("missed") else ""


def audit_findings(summaries: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the distinct audit findings of runs, flag and message."""
    found = [each for summary in summaries for each in summary.get("audit") or ()]
    return list(dict.fromkeys((str(each["flag"]), describe_finding(each)) for each in found))


def data_facts(data: Mapping[str, Any]) -> Facts:
    """Return the data of a run, and its terms of use.

    >>> dict(data_facts({"best_achievable": 0.8297772274}))["best achievable"]
    '0.8298'
    """
    best = data.get("best_achievable")
    rows = data.get("rows")
    sizes = ", ".join(f"{count(v)} {k}" for k, v in rows.items()) if isinstance(rows, Mapping) else count(rows)
    names = ("name", "release", "source")
    rest = (
        ("rows", sizes),
        ("best achievable", None if best is None else number(best)),
        ("sha256", data.get("sha256")),
        ("terms", data.get("terms")),
    )
    return [*((name, data.get(name)) for name in names), *rest]


def environment_facts(summary: Mapping[str, Any]) -> Facts:
    """Return the environment of a run."""
    git, memory, versions = summary.get("git"), summary.get("peak_memory_mb"), summary.get("versions")
    if isinstance(git, Mapping):
        git = f"{git.get('commit', '-')}{' with uncommitted changes' if git.get('dirty') else ''}"
    if isinstance(memory, Mapping):
        memory = ", ".join(f"{count(value)} MB on the {device}" for device, value in memory.items())
    elif memory is not None:
        memory = f"{count(memory)} MB"
    if isinstance(versions, Mapping):
        versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    names = ("status", "seed", "device", "precision")
    rest = (
        *(("time", duration(summary.get("seconds"))), ("peak memory", memory), ("versions", versions), ("git", git)),
        *((name, summary.get(name)) for name in ("code", "signature", "finished")),
    )
    return [*((name, summary.get(name)) for name in names), *rest]


def conditions(summaries: Iterable[Mapping[str, Any]]) -> dict[str, list[Facts]]:
    """Return the distinct data releases with their terms, and the distinct environments of runs."""
    data: dict[Any, Facts] = {}
    environments: dict[str, Facts] = {}
    for summary in summaries:
        known = {**(summary.get("data") or {}), "rows": None}
        if known.get("name"):
            data.setdefault((known["name"], known.get("release"), known.get("sha256")), data_facts(known))
        environment = {name: summary.get(name) for name in ("device", "precision", "versions", "git", "code")}
        environments.setdefault(json.dumps(environment, sort_keys=True, default=str), environment_facts(environment))
    return {"data": list(data.values()), "environments": list(environments.values())}
