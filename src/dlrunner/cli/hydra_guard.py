"""Hydra as dlrunner uses it, and only while it does: its own settings are read from the command line only.

An option file that sets them is refused: they name functions that Hydra calls (callbacks, logging, launchers), and
option files may come from untrusted sources.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.errors import CompactHydraException
from hydra.plugins.config_source import ConfigResult
from hydra.version import VersionBase
from omegaconf import DictConfig

from dlrunner.cli.yaml_files import FileConfigSource
from dlrunner.errors import ConfigError

OF_PACKAGES = ("pkg://hydra.", "structured://")
"""Where Hydra and its installed plugins keep their own configuration."""


class RefusedError(ConfigError, CompactHydraException):
    """An option file has a setting that is allowed on the command line only."""


refusals: list[RefusedError] = []
"""Hydra reports these as its own errors and exits; they are raised again from here."""

_load: Any = ConfigLoaderImpl._load_single_config

_patched = threading.RLock()


@contextlib.contextmanager
def own_hydra() -> Iterator[None]:
    """Let Hydra refuse such files, in any package, and read files by `FileConfigSource` within the block.

    A program that uses Hydra itself, and calls dlrunner, finds its own Hydra as it was; other threads wait.
    """
    with _patched:
        Plugins.instance()  # it registers Hydra's own reader
        readers, scheme = SourcesRegistry.instance().types, FileConfigSource.scheme()
        reader, instances = readers[scheme], cast(dict[type, Any], Singleton._instances)
        theirs: dict[type, Any] = {
            kind: instances.pop(kind) for kind in (GlobalHydra, VersionBase) if kind in instances
        }
        ConfigLoaderImpl._load_single_config = _load_checked  # type: ignore[method-assign]
        readers[scheme] = FileConfigSource
        try:
            yield
        finally:
            ConfigLoaderImpl._load_single_config = _load  # type: ignore[method-assign]
            readers[scheme] = reader
            for kind in (GlobalHydra, VersionBase):
                instances.pop(kind, None)
            instances |= theirs


def _load_checked(self: ConfigLoaderImpl, default: ResultDefault, repo: Any) -> ConfigResult:
    assert default.config_path is not None
    found: ConfigResult | None = repo.load_config(config_path=default.config_path)
    if found is None or default.primary or found.path.startswith(OF_PACKAGES):
        return cast(ConfigResult, _load(self, default, repo))
    if default.config_path.startswith("hydra/") or _chooses_of_hydra(found):
        raise _refused(default.config_path)
    result: ConfigResult = _load(self, default, repo)
    if isinstance(result.config, DictConfig) and "hydra" in result.config:  # it has been put into its package
        raise _refused(default.config_path)
    return result


def _refused(name: str) -> RefusedError:
    refused = RefusedError(
        f"{name}.yaml has a hydra section: launchers and sweepers are set on the command line only "
        "(hydra/launcher=ray); remove it from the file"
    )
    refusals.append(refused)
    return refused


def _chooses_of_hydra(result: ConfigResult) -> bool:
    """Return whether the defaults list of a file names one of Hydra's groups."""
    named = (getattr(each, "group", None) or getattr(each, "path", None) or "" for each in result.defaults_list or ())
    return any("hydra" in PurePosixPath(name.partition("@")[0]).parts for name in named)
