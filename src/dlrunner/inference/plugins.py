"""The plugin modules that using a run would import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def without_trackers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without trackers, and without `plugins` that only trackers need.

    >>> trackers = {"mine": {"_target_": "seen.Mine"}}
    >>> config = {"model": {"_target_": "nets.Net"}, "plugins": ["nets", "seen"], "log": {"trackers": trackers}}
    >>> without_trackers(config)
    {'model': {'_target_': 'nets.Net'}, 'plugins': ['nets'], 'log': {'trackers': {}}}
    """
    log = config.get("log")
    if not isinstance(log, Mapping) or not log.get("trackers"):
        return dict(config)
    plugins = config.get("plugins") or []
    rest = {**config, "log": {**log, "trackers": {}}}
    theirs, others = (list(_texts(part)) for part in (log["trackers"], {**rest, "plugins": []}))
    kept = [each for each in plugins if _is_named(each, others) or not _is_named(each, theirs)]
    return {**rest, "plugins": kept}


def unnamed_plugins(config: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
    """Return the plugins of a run that are not in `allowed`.

    Reading a run folder from elsewhere must not execute anything.
    """
    return [plugin for plugin in config.get("plugins") or [] if plugin not in allowed]


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings of a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def _is_named(module: str, texts: Sequence[str]) -> bool:
    """Return whether one of the strings names something in a module."""
    return any(text.startswith(f"{module}.") for text in texts)
