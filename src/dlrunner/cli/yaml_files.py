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
from dlrunner.config.conf_files import package_conf
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

    def settings(read: Callable[[Path], Any]) -> Iterator[tuple[str, Any, bool]]:
        """Yield name, value, and whether it is for the chosen optimizer, of what the files say: the last one counts."""
        for group in ("task", "experiment"):
            for _, file in _files(group, chosen.get(group), read):
                found = file.get("optim")
                for name, value in found.items() if isinstance(found, Mapping) else ():
                    is_own = _overridden(file, "optim") in (None, optimizer)
                    if moves_momentum and name in ("betas", "momentum"):
                        is_own = is_own and _overridden(file, "schedule") in (None, chosen.get("schedule"))
                    yield name, value, is_own

    typed = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(words))}
    last = {name: is_own for name, _, is_own in settings(_plain)}
    foreign = [name for name, is_own in last.items() if not is_own and not _is_typed(f"optim.{name}", typed)]
    if not foreign or not isinstance(config.get("optim"), DictConfig):
        return
    own: dict[str, Any] = {}
    for _, file in _files("optim", optimizer, _as_hydra_reads):
        own.update(file)
    own.update({name: value for name, value, is_own in settings(_as_hydra_reads) if is_own})
    with flag_override(config, "struct", False):
        for name in foreign:
            if name in own:
                config.optim[name] = own[name]
            else:
                config.optim.pop(name, None)


def keep_known_model_settings(config: DictConfig, words: Sequence[str]) -> None:
    """Remove settings that a task makes for other models than the chosen one, which does not have them.

    The package's tasks have settings of several models. A user's file has settings of the model that it chooses, or
    describes by `model._target_`: they stay, and those that this model does not have are refused later.

    Args:
        config: composed; modified in place.
        words: what was typed, which is kept.
    """
    chosen = dict(config.hydra.runtime.choices)
    known = {name for _, file in _files("model", chosen.get("model")) for name in file}

    def foreign(read: Callable[[Path], Any]) -> dict[str, Any]:
        """Return what the last file that sets it has for another model."""
        usual, found = None, dict[str, Any]()
        for folder, file in _files("task", chosen.get("task"), read):
            usual = _overridden(file, "model") or usual
            settings = file.get("model")
            settings = settings if isinstance(settings, Mapping) else {}
            is_own = "_target_" in settings or (folder != package_conf() and usual == str(chosen.get("model")))
            for name, value in settings.items():
                found.pop(name, None)
                if not is_own and name not in known:
                    found[name] = value
        return found

    if not foreign(_plain) or not isinstance(config.get("model"), DictConfig):
        return
    typed = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(words))}
    composed = OmegaConf.to_container(config.model, resolve=False)
    assert isinstance(composed, dict)
    with flag_override(config, "struct", False):
        for name, value in foreign(_as_hydra_reads).items():
            # An experiment that sets another value means the chosen model.
            if name in composed and composed[name] == value and not _is_typed(f"model.{name}", typed):
                config.model.pop(name)


def _plain(file: Path) -> Any:
    return read_yaml(file.read_text(encoding="utf-8"))


def _as_hydra_reads(file: Path) -> Any:
    """Return the content of a file, with 1e-3 as a number, which YAML reads as text; ten times as slow."""
    return OmegaConf.to_container(OmegaConf.load(file))


def _files(
    group: str, name: Any, read: Callable[[Path], Any] = _plain, depth: int = 10
) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield conf/ and content of an option's file, after those that it includes (`defaults: [collab@_here_]`)."""
    for folder in conf_dirs() if isinstance(name, str) and depth else ():
        file = folder / group / f"{name}.yaml"
        if file.is_file():
            found = read(file)
            if isinstance(found, dict):
                for entry in _defaults(found):
                    if isinstance(entry, str) and entry != "_self_":
                        yield from _files(group, entry.partition("@")[0].removeprefix(f"/{group}/"), read, depth - 1)
                yield (
                    folder,
                    {key: value for key, value in found.items() if not (group == "optim" and key == "defaults")},
                )


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
