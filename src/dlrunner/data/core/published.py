"""Published releases of data sets: each data set lists its own in a module `releases`.

Such a module imports nothing but `Release`, so that they are listed without pandas and torch.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlrunner import data
from dlrunner.data.core.source import Release
from dlrunner.errors import ConfigError


def published(plugins: Sequence[str] = ()) -> dict[str, Release]:
    """Return the releases by name: `RELEASES` of the modules `releases` of the package, and of a user's modules.

    Raises:
        ConfigError: a plugin cannot be imported, or has no RELEASES; two releases have one name.
    """
    names = sorted(module.name for module in pkgutil.walk_packages(data.__path__, f"{data.__name__}."))
    modules = [importlib.import_module(name) for name in names if name.endswith(".releases")]
    found: dict[str, Release] = {}
    for module in [*modules, *map(_import, plugins)]:
        for release in module.RELEASES:
            if release.name in found:
                raise ConfigError(f"{module.__name__}: the release {release.name} is defined twice")
            found[release.name] = release
    return found


def _import(plugin: str) -> Any:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(plugin)
    except ImportError as error:
        raise ConfigError(f"--plugins: {plugin} cannot be imported: {error}") from None
    if not hasattr(module, "RELEASES"):
        raise ConfigError(f"--plugins: {plugin} defines no RELEASES")
    return module
