"""Hydra's own settings are read from the command line only: an option file that sets them is refused.

They name functions that Hydra calls (callbacks, logging, launchers), and option files may come from untrusted sources.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import ResultDefault
from hydra.errors import CompactHydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from dlrunner.errors import ConfigError

OF_PACKAGES = ("pkg://hydra.", "structured://")
"""Where Hydra and its installed plugins keep their own configuration."""


class RefusedError(ConfigError, CompactHydraException):
    """An option file has a setting that is allowed on the command line only."""


refusals: list[RefusedError] = []
"""Hydra reports these as its own errors and exits; they are raised again from here."""

_load: Any = ConfigLoaderImpl._load_single_config


def guard_hydra() -> None:
    """Patch Hydra to refuse such files, in any package."""
    ConfigLoaderImpl._load_single_config = _load_checked  # type: ignore[method-assign]


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


guard_hydra()
