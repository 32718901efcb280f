"""YAML and JSON that may come from anyone: read as plain values, refused where they would take all memory or time."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

SAFE_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads what yaml.safe_load reads, ten times as fast where libyaml is there: 500 runs are compared in a second."""

MOST_VALUES = 200_000
"""A configuration has hundreds of values; with aliases a file of a few lines can stand for billions."""

DEEPEST = 100
"""Sections within sections."""

_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


def read_yaml(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        ValueError: it is no YAML, holds objects (`!!python/…`), or too much; in words.
    """
    check_yaml(text)
    try:
        # What stands for a byte that is not UTF-8 is written as \uDCFF, which libyaml does not read.
        return yaml.load(text, Loader=yaml.SafeLoader if _LONE_SURROGATE.search(text) else SAFE_YAML)
    except yaml.YAMLError as error:
        raise ValueError(yaml_problem(error)) from None


def check_yaml(text: str) -> None:
    """Refuse a YAML text that is not plain, before anything is made of it; aliases count as what they stand for.

    Raises:
        ValueError: it is no YAML, holds objects (`!!python/…`), or too much; in words.
    """
    sizes: dict[str | None, int] = {}
    opened: list[tuple[str | None, int]] = []  # the anchors of the sections around, and how much was before them
    count = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader if _LONE_SURROGATE.search(text) else SAFE_YAML):
            if isinstance(event, yaml.AliasEvent) and any(event.anchor == anchor for anchor, _ in opened):
                raise ValueError(f"{_line(event.start_mark)}*{event.anchor} stands within what it stands for")
            if isinstance(event, yaml.NodeEvent):
                count += sizes.get(event.anchor, 1) if isinstance(event, yaml.AliasEvent) else 1
            tag = getattr(event, "tag", None)
            if tag not in (None, "!") and tag not in PLAIN_TAGS:
                allowed = "only plain values (texts, numbers, lists, sections)"
                raise ValueError(f"{_line(event.start_mark)}{_short(tag)} is not allowed: {allowed}")
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, count))
                if len(opened) > DEEPEST:
                    raise ValueError(f"{_line(event.start_mark)}more than {DEEPEST} sections within each other")
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = opened.pop()
                sizes[anchor] = count - before + 1
            if count > MOST_VALUES:
                raise ValueError(f"it stands for more than {MOST_VALUES:,} values (with aliases written out)")
    except yaml.YAMLError as error:
        raise ValueError(yaml_problem(error)) from None


def yaml_problem(error: yaml.YAMLError) -> str:
    """Say on one line what is wrong with a YAML text, and where."""
    return (
        f"{_line(getattr(error, 'problem_mark', None))}{getattr(error, 'problem', None) or str(error).splitlines()[0]}"
    )


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark else ""


def read_json(text: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many lists or sections within each other") from None


def _short(tag: str) -> str:
    """Write a tag as it is typed."""
    return f"!!{tag.removeprefix('tag:yaml.org,2002:')}" if tag.startswith("tag:yaml.org,2002:") else tag
