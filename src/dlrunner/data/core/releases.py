"""All published releases; each data set tells its own in a module that imports nothing slow."""

from __future__ import annotations

import importlib
import pkgutil

from dlrunner import data
from dlrunner.data.core.source import Release


def releases() -> dict[str, Release]:
    """Return the releases of all data sets by name, gathered from the modules named `…releases`."""
    found: dict[str, Release] = {}
    for module in pkgutil.walk_packages(data.__path__, f"{data.__name__}."):
        if module.name.endswith("releases") and module.name != __name__:
            found |= {release.name: release for release in importlib.import_module(module.name).RELEASES}
    return found
