"""Safe reading of untrusted YAML and JSON: plain values only, with limits on size and nesting."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

SAFE_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Like yaml.safe_load, but ten times as fast if libyaml is available: 500 runs are compared in a second."""

MAX_VALUES = 200_000
"""A configuration has hundreds of values; with aliases a file of a few lines can expand to billions."""

MAX_DEPTH = 100
"""Nested sections."""

_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


def read_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        ValueError: it is not YAML, holds objects (`!!python/…`), or exceeds the limits; the message says which.
    """
    check_yaml(text)
    try:
        # Bytes that are not UTF-8 are stored as \uDCFF, which libyaml does not read.
        return yaml.load(text, Loader=yaml.SafeLoader if _LONE_SURROGATE.search(text) else SAFE_YAML)
    except yaml.YAMLError as error:
        raise ValueError(yaml_problem(error)) from None


def check_yaml(text: str) -> None:
    """Refuse a YAML text that is not plain, before it is constructed; aliases count with their expanded size.

    Raises:
        ValueError: it is not YAML, holds objects (`!!python/…`), or exceeds the limits; the message says which.
    """
    sizes: dict[str | None, int] = {}
    opened: list[tuple[str | None, int]] = []  # anchors of the enclosing sections, and the count before them
    count = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader if _LONE_SURROGATE.search(text) else SAFE_YAML):
            if isinstance(event, yaml.AliasEvent) and any(event.anchor == anchor for anchor, _ in opened):
                raise ValueError(f"{_line(event.start_mark)}*{event.anchor} refers to itself")
            if isinstance(event, yaml.NodeEvent):
                count += sizes.get(event.anchor, 1) if isinstance(event, yaml.AliasEvent) else 1
            tag = getattr(event, "tag", None)
            if tag not in (None, "!") and tag not in PLAIN_TAGS:
                allowed = "only plain values (texts, numbers, lists, sections)"
                raise ValueError(f"{_line(event.start_mark)}{_short(tag)} is not allowed: {allowed}")
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, count))
                if len(opened) > MAX_DEPTH:
                    raise ValueError(f"{_line(event.start_mark)}more than {MAX_DEPTH} nested sections")
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = opened.pop()
                sizes[anchor] = count - before + 1
            if count > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES:,} values (with aliases expanded)")
    except yaml.YAMLError as error:
        raise ValueError(yaml_problem(error)) from None


def yaml_problem(error: yaml.YAMLError) -> str:
    """Return one line that says what is wrong with a YAML text, and where."""
    return (
        f"{_line(getattr(error, 'problem_mark', None))}{getattr(error, 'problem', None) or str(error).splitlines()[0]}"
    )


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark else ""


def read_json(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many nested lists or sections") from None


def _short(tag: str) -> str:
    """Return a tag in its short form, such as !!python/name."""
    return f"!!{tag.removeprefix('tag:yaml.org,2002:')}" if tag.startswith("tag:yaml.org,2002:") else tag
