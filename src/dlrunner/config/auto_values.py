"""Values of settings that were `auto`, put into a configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from dlrunner.errors import ConfigError


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with other values, by dotted name.

    >>> with_values({"epochs": "auto", "optim": {"lr": "auto"}}, {"optim.lr": 0.1})
    {'epochs': 'auto', 'optim': {'lr': 0.1}}
    """
    changed = copy.deepcopy(dict(config))
    for name, value in values.items():
        *sections, last = name.split(".")
        node = changed
        for section in sections:
            node = node[section]
        if last not in node:
            raise ConfigError(f"{name}: is missing")
        node[last] = value
    return changed
