"""The YAML files of a configuration: checked before Hydra reads them; optimizer settings belong to an optimizer."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydraFiles
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, flag_override

from dlrunner.cli.conf_paths import conf_dirs
from dlrunner.errors import ConfigError
from dlrunner.files.plain_data import check_yaml, read_yaml


class FileConfigSource(HydraFiles):
    """Hydra's reader of files, with a check for plain YAML of limited size; the same content is parsed once.

    It has the name of the class that it replaces, by which Hydra finds it, in other processes too.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            ConfigError: it is not YAML, or has tags or aliases beyond plain values.
        """
        file = os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path)))  # noqa: PTH118
        if not os.path.isfile(file):  # noqa: PTH113
            return super().load_config(config_path)  # Hydra reports it
        try:
            with open(file, encoding="utf-8") as opened:  # noqa: PTH123
                content = opened.read()
            key = self.provider, self.path, config_path, content
            if key not in _parsed:
                check_yaml(content)
                _parsed[key] = super().load_config(config_path)
        except (OSError, ValueError) as error:
            reason = "it is not UTF-8" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or error
            raise ConfigError(f"{os.path.relpath(file)}: {reason}") from None
        return copy.deepcopy(_parsed[key])


_parsed: dict[tuple[str, str, str, str], ConfigResult] = {}
"""What Hydra makes of files, by their place and content."""


def keep_own_optimizer_settings(config: DictConfig, words: Sequence[str]) -> None:
    """Remove settings from a composed configuration that a file made for another optimizer than the chosen one.

    A task or an experiment that chooses an optimizer (`override /optim: adam`) has settings for it under `optim:`. If
    another one is chosen, the defaults of its own file are used instead; what was typed is always kept. The same holds
    for the momentum, if the chosen schedule changes it and is not the schedule of the file.

    Args:
        config: composed; modified in place.
        words: what was typed.
    """
    chosen = dict(config.hydra.runtime.choices)
    optimizer, schedule = chosen.get("optim"), config.get("schedule")
    moves_momentum = isinstance(schedule, DictConfig) and schedule.get("momentum") is not None
    own: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for group in ("task", "experiment"):
        for file in _files(group, chosen.get(group)):
            settings = file.get("optim")
            for name, value in settings.items() if isinstance(settings, Mapping) else ():
                is_own = _overridden(file, "optim") in (None, optimizer)
                if moves_momentum and name in ("betas", "momentum"):
                    is_own = is_own and _overridden(file, "schedule") in (None, chosen.get("schedule"))
                (own if is_own else others)[name] = value
    typed = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(words))}
    foreign = [name for name in others if name not in own and not _is_typed(f"optim.{name}", typed)]
    if not foreign or not isinstance(config.get("optim"), DictConfig):
        return
    defaults: dict[str, Any] = {}
    for file in _files("optim", optimizer, _as_hydra_reads):
        defaults.update(file)
    with flag_override(config, "struct", False):
        for name in foreign:
            if name in defaults:
                config.optim[name] = defaults[name]
            else:
                config.optim.pop(name, None)


def keep_known_model_settings(config: DictConfig, words: Sequence[str]) -> None:
    """Remove settings of the model that the task makes for models which have them, if the chosen one has not.

    Args:
        config: composed; modified in place.
        words: what was typed, which is kept.
    """
    chosen = dict(config.hydra.runtime.choices)
    made = [file["model"] for file in _files("task", chosen.get("task")) if isinstance(file.get("model"), Mapping)]
    if any("_target_" in settings for settings in made):  # the task itself describes its model
        return
    known = {name for file in _files("model", chosen.get("model")) for name in file}
    typed = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(words))}
    for settings in made:
        for name, value in settings.items():
            foreign = name not in known and config.model.get(name) == value  # no other value of an experiment's
            if foreign and not _is_typed(f"model.{name}", typed):
                with flag_override(config, "struct", False):
                    config.model.pop(name, None)


def _plain(file: Path) -> Any:
    return read_yaml(file.read_text(encoding="utf-8"))


def _as_hydra_reads(file: Path) -> Any:
    """Return the content of a file, with 1e-3 as a number, which YAML reads as text; ten times as slow."""
    return OmegaConf.to_container(OmegaConf.load(file))


def _files(group: str, name: Any, read: Callable[[Path], Any] = _plain, depth: int = 10) -> Iterator[Mapping[str, Any]]:
    """Yield an option's file after those of its group that it includes (`defaults: [collab@_here_]`)."""
    for folder in conf_dirs() if isinstance(name, str) and depth else ():
        file = folder / group / f"{name}.yaml"
        if file.is_file():
            found = read(file)
            if isinstance(found, dict):
                for entry in _defaults(found):
                    if isinstance(entry, str) and entry != "_self_":
                        yield from _files(group, entry.partition("@")[0].removeprefix(f"/{group}/"), read, depth - 1)
                yield {key: value for key, value in found.items() if not (group == "optim" and key == "defaults")}


def _defaults(file: Mapping[str, Any]) -> list[Any]:
    found = file.get("defaults")
    return found if isinstance(found, list) else []


def _overridden(file: Mapping[str, Any], group: str) -> str | None:
    """Return the option of a group that a file chooses."""
    for entry in _defaults(file):
        for key, value in entry.items() if isinstance(entry, dict) else ():
            if str(key).split() in (["override", f"/{group}"], ["override", group]):
                return str(value)
    return None


def _is_typed(name: str, typed: set[str]) -> bool:
    """Return whether a setting, or a part of it, was typed."""
    return any(each == name or each.startswith(f"{name}.") for each in typed)
