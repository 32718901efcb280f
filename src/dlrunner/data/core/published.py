"""Which releases of data sets are known: a data set tells its own, in a module `releases` or `NAME_releases`.

Such a module imports nothing but `Release`, so that they are listed without pandas and torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlrunner.data.core.source import Release
from dlrunner.errors import ConfigError


def published(plugins: Sequence[str] = ()) -> dict[str, Release]:
    """Return the releases by name: `RELEASES` of the modules of releases in this folder, and of a user's modules.

    Raises:
        ConfigError: a plugin cannot be imported, or has no RELEASES; two releases have one name.
    """
    here = Path(__file__).parent
    inside = sorted(path.relative_to(here).with_suffix("") for path in here.rglob("*releases.py"))
    modules = [importlib.import_module(".".join([__package__ or "", *path.parts])) for path in inside]
    found: dict[str, Release] = {}
    for module in [*modules, *map(_import, plugins)]:
        for release in module.RELEASES:
            if release.name in found:
                raise ConfigError(f"{module.__name__}: there is a release {release.name} already")
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
        raise ConfigError(f"--plugins: {plugin} tells no RELEASES of data")
    return module
