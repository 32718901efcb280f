"""Composition by Hydra: from overrides to one plain configuration."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from importlib.metadata import version
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dlrunner.cli.conf_paths import conf_dirs, groups, options_of, shadowed_options, user_conf
from dlrunner.cli.hydra_guard import RefusedError, own_hydra
from dlrunner.cli.quoting import quoted, with_quotes
from dlrunner.cli.run_names import with_run_folders
from dlrunner.cli.yaml_files import keep_known_model_settings, keep_own_optimizer_settings
from dlrunner.config.conf_files import package_conf
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.files.paths import forget_empty_variables
from dlrunner.renamed import renamed
from dlrunner.sweeps.engines import LAUNCHERS

CHOICES = ("task", "model", "optim", "schedule", "experiment")

ENGINES = {"hydra/launcher": ("basic", *LAUNCHERS), "hydra/sweeper": ("basic", "optuna")}
"""The supported settings of Hydra itself: launcher and sweeper."""

OWN_SETTINGS = {
    "launcher": "sweep.jobs says how many jobs run in parallel, sweep.needs what each of them needs",
    "sweeper": "the settings of a search are sweep.trials, sweep.sampler and sweep.sampler_seed",
}
"""Settings of dlrunner that replace those of Hydra's launchers and sweepers."""

ENTRIES = "the entries of a list are named by their numbers, from 0"

TOO_DEEP = "the configuration has too many nested lists or sections"


Compositions = dict[tuple[str, ...], bytes]
"""Pickled: composed configuration and the names of its options, by the overrides that choose options."""

_composed: dict[str, Compositions] = {}
"""Compositions of this process by their files (see `composition_inputs`)."""
KEPT = 4
"""States of the files of which compositions are kept: the latest used."""


def compose(words: Sequence[str]) -> dict[str, Any]:
    """Compose the configuration for some overrides.

    Hydra composes the same options once (60 ms): a run also needs the defaults of its task.

    Raises:
        ConfigError: an override cannot be read, or names an option that does not exist.
    """
    forget_empty_variables()
    inputs = composition_inputs()
    _composed[inputs] = _composed.pop(inputs, {})  # the latest is the last
    if len(_composed) > KEPT:
        del _composed[next(iter(_composed))]
    (found,) = compose_jobs([words], _composed[inputs])
    if isinstance(found, ConfigError):
        raise found
    return found


def compose_jobs(
    jobs: Sequence[Sequence[str]], composed: Compositions | None = None
) -> Iterator[dict[str, Any] | ConfigError]:
    """Compose the configurations of many jobs, each like `compose`; of an invalid job the error is yielded.

    Hydra reads all files again for each job (50 ms). Jobs with the same options share the composition, and
    differ only in values, which Hydra sets last, as is done here.

    Args:
        jobs: the overrides of each job.
        composed: earlier compositions, to which new ones are added.
    """
    composed = {} if composed is None else composed
    known, checked = groups(), set[str]()  # the jobs of a sweep share most overrides
    for words in jobs:
        try:
            overrides = parse(words)
            for word, override in zip(words, overrides, strict=True):
                if word not in checked:
                    _check_override(override, word)
                    checked.add(word)
            choices = tuple(str(override.input_line) for override in overrides if _is_choice(override, known))
            if choices not in composed:
                composed[choices] = pickle.dumps(without_hydra(compose_for_hydra(choices)))
            config, chosen = pickle.loads(composed[choices])  # a tenth of the time of a deep copy
            for override in overrides:
                if _is_choice(override, known):
                    continue
                _set(config, override)
            plain = _to_plain(config, chosen)
            _check_phases(plain, overrides)
            yield plain
        except ConfigError as error:
            yield error
        except OmegaConfBaseException as error:
            yield ConfigError(" ".join(str(error).split()).partition(" full_key:")[0])
        except RecursionError:
            yield ConfigError(TOO_DEEP)


def _set(config: DictConfig, override: Override) -> None:
    """Set a value.

    Raises:
        ConfigError: a list has no such entry.
    """
    try:
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    except (IndexError, TypeError):
        raise ConfigError(f"{override.input_line}: there is no such entry; {ENTRIES}: phases.0.lr=0.1") from None


def _check_phases(config: Mapping[str, Any], overrides: Sequence[Override]) -> None:
    """Refuse what was typed for all phases where each of them says otherwise: it would have no effect."""
    phases = config.get("phases")
    if not (isinstance(phases, list) and phases and all(isinstance(phase, dict) for phase in phases)):
        return
    for override in overrides:
        name = override.key_or_group
        own = {"optim.lr": "lr", "schedule": "schedule", "freeze_to": "freeze_to"}.get(
            "schedule" if name.startswith("schedule.") else name
        )
        if own and all(phase.get(own) is not None for phase in phases):
            raise ConfigError(
                f"{override.input_line}: has no effect, since every phase sets its {own}; leave it out, or change "
                f"phases.0.{own} …"
            )


class Changes:
    """Differences from the defaults of a task; each task is composed once (50 ms)."""

    def __init__(self) -> None:
        self._own: dict[str, dict[str, Any] | None] = {}

    def of(self, config: Mapping[str, Any]) -> dict[str, str] | None:
        """Return, by flat name, the task's defaults of the settings that differ in a configuration, as text.

        None where the task composes nothing without other settings.
        """
        # They import torch, which would slow down `--cfg` and tab completion.
        from dlrunner.comparison.collect import flatten, shown
        from dlrunner.comparison.diff import differing_settings

        task = config["choices"].get("task")
        if task not in self._own:
            try:
                self._own[task] = compose([f"task={task}"])
            except ConfigError:
                self._own[task] = None
        own = self._own[task]
        if own is None:
            return None
        known = flatten(own)
        differing = differing_settings(own, config)
        return {name: shown(before) if name in known else "not set" for name, before, _ in differing}


def composition_inputs(words: Sequence[str] = ()) -> str:
    """Return a digest of all inputs of a composition except the overrides: files, environment variables, Hydra.

    Args:
        words: overrides, of which only the variables that they refer to count.
    """
    texts = [word.encode(errors="backslashreplace") for word in words]
    digest = hashlib.sha256(f"{hydra.__version__} {version('omegaconf')}".encode())
    for folder in conf_dirs():
        for file in sorted(folder.rglob("*.yaml")):
            texts.append(file.read_bytes())
            digest.update(os.fsencode(file) + b"\0" + texts[-1] + b"\0")
    for name in re.findall(rb"oc\.env:\s*['\"]?(\w+)", b"\0".join(texts)):
        digest.update(name + b"=" + os.environb.get(name, b"\0") + b"\0")
    return digest.hexdigest()


def without_hydra(config: DictConfig) -> tuple[DictConfig, dict[str, Any]]:
    """Return a configuration without Hydra's own, and the names of the chosen options."""
    own = OmegaConf.masked_copy(config, [key for key in map(str, config) if key != "hydra"])
    return own, dict(config.hydra.runtime.choices)


def _to_plain(config: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve a composed configuration into plain dicts and lists, with the names of the chosen options."""
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    except RecursionError:
        raise ConfigError(TOO_DEEP) from None
    if "choices" in plain:
        raise ConfigError("choices: is not a setting; set the options themselves, such as optim=adam")
    return with_run_folders({**plain, "choices": {group: choices.get(group) for group in CHOICES}})


def parse(words: Sequence[str]) -> list[Override]:
    """Parse overrides by Hydra's grammar.

    Raises:
        ConfigError: one of them cannot be read.
    """
    return [_parse_word(word) for word in words]


@functools.lru_cache(maxsize=10_000)  # the jobs of a sweep share most overrides
def _parse_word(word: str) -> Override:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{word}: not UTF-8; rename the file, or link to it") from None
    try:
        return _by_grammar(word)
    except RecursionError:
        raise ConfigError(f"{word[:40]}… has too many nested lists or sections") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ConfigError(f"{word[:40]}… cannot be read: {str(error).partition(';')[0]}") from None
    except OverrideParseException:
        if word.startswith("-"):
            raise ConfigError(f"{word}: there is no such option; a setting is {word.lstrip('-')}=VALUE") from None
        if "=" not in word or word.startswith("="):
            raise ConfigError(f"{word!r} is not name=value; no spaces around the =") from None
        name, _, value = word.partition("=")
        with contextlib.suppress(OverrideParseException):
            if quotes := with_quotes(value, lambda text: _is_readable(f"x={text}")):
                return _by_grammar(f"{name}={quotes}")
        raise ConfigError(f"{word!r} cannot be read as name=value; {_advice(name, value)}") from None


def _by_grammar(word: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


def _is_readable(word: str) -> bool:
    try:
        return not _by_grammar(word).is_sweep_override()
    except OverrideParseException:
        return False


def _advice(name: str, value: str) -> str:
    """Return what to type for a setting that cannot be read."""
    if re.search(r"\[\d+\]", name):
        numbered = re.sub(r"\[(\d+)\]", r".\1", name)
        return f"{ENTRIES}: {numbered}={value}"
    if not re.fullmatch(r"[~+]*[\w./@:-]+", name, re.ASCII) or value.strip().startswith("{"):
        file = "others go in a file, conf/experiment/mine.yaml, and experiment=mine uses it"
        return f"names of settings, and keys as in {{key: 1}}, have letters, digits and _ of ASCII alone; {file}"
    if value.strip().startswith("["):
        return (
            "a list is [a,b]; a text in it with commas, brackets or quotation marks goes in quotation marks, and the "
            f"word in the shell's: '{name}=[\"a,b\",c]'"
        )
    return (
        "a text with commas, brackets or quotation marks goes in quotation marks, and the word in the shell's: "
        f"'{name}=\"a, b\"'"
    )


def forced(words: Sequence[str]) -> list[str]:
    """Write settings as `++name=value`, so that unknown names reach the plan, which suggests the nearest one."""
    overrides, known = parse(words), groups()
    return [str(o.input_line) if _is_choice(o, known) else f"++{str(o.input_line).lstrip('+')}" for o in overrides]


def _is_choice(override: Override, known: Set[str]) -> bool:
    """Return whether an override decides on what is composed, and does not only set a value at the end.

    It chooses an option of a known group, deletes something, or decides whether the momentum is the optimizer's.
    """
    key = override.key_or_group
    return (
        override.is_delete()
        or key in known
        or key == "schedule.momentum"
        or key.startswith(("hydra.", "hydra/"))
        or key == "hydra"
    )


def search_path_override() -> list[str]:
    """Return the override that adds the working directory's conf/ to Hydra's search path."""
    own = user_conf()
    return [f"hydra.searchpath=[{quoted(f'file://{own}')}]"] if own else []


def compose_for_hydra(words: Sequence[str]) -> DictConfig:
    """Compose a configuration with Hydra's own part.

    Raises:
        ConfigError: an override cannot be read, or names an option that does not exist.
    """
    for word, override in zip(words, parse(words), strict=True):
        _check_override(override, word)
    shadowed = shadowed_options()
    if "config.yaml" in shadowed:
        raise ConfigError(
            "conf/config.yaml is not read; put its settings into an option, such as conf/experiment/mine.yaml"
        )
    if shadowed:
        raise ConfigError(
            f"conf/{shadowed[0]} has the name of one of dlrunner's own options, which would be used; give yours another"
        )
    try:
        with own_hydra(), hydra.initialize_config_dir(str(package_conf()), version_base="1.3"):
            config = hydra.compose(
                "config", [*search_path_override(), *forced(without_engines(words))], return_hydra_config=True
            )
            keep_own_optimizer_settings(config, words)
            keep_known_model_settings(config, words)
            return config
    except RefusedError:
        raise
    except MissingConfigException as error:
        raise ConfigError(_missing_option(error)) from None
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        text = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(text.partition(" full_key:")[0]) from None
    except RecursionError:
        raise ConfigError(TOO_DEEP) from None


def _check_override(override: Override, word: str) -> None:
    """Refuse several values, an option that does not exist, and Hydra's own settings."""
    check_hydra_setting(override)
    if override.is_sweep_override():
        setting, _, text = word.partition("=")
        text = text if '"' in text else f'"{text}"'
        raise ConfigError(
            f"{word!r} names several values: add -m for a sweep; one text with a comma goes in quotation marks: "
            f"'{setting}={text}'"
        )
    # An experiment is optional: Hydra would ignore a misspelt one.
    group, name = override.key_or_group, override.value()
    if group == "log.trackers" and isinstance(name, list):
        raise ConfigError(
            f"log.trackers: has the settings of trackers; choose them by log=[{','.join(map(str, name))}]"
        )
    if group not in groups() or override.is_delete():
        return
    if group == "log" and isinstance(name, list):  # other groups take one option
        for each in name:
            _check_override(_parse_word(f"log={each}"), f"log={each}")
        return
    if not (isinstance(name, str) and name in options_of(group)) and not (group == "experiment" and name is None):
        if isinstance(name, str):
            unknown = f"there is no such {group}; {did_you_mean(name, options_of(group))}"
            raise ConfigError(renamed(f"{group}={name}") or f"{group}={name}: {unknown}")
        raise ConfigError(f"{group}={name}: takes one of {', '.join(options_of(group))}")


def check_hydra_setting(override: Override) -> None:
    """Refuse Hydra's own settings, which have no effect: dlrunner has its own folders, logs and engines.

    Raises:
        ConfigError: it is not an engine.
    """
    key = override.key_or_group
    if not re.match(r"hydra\b", key):
        return
    if key in ENGINES and not override.is_delete():
        name = str(override.value())
        if name == "joblib":
            raise ConfigError(f"{key}=joblib: is not needed; for parallel jobs: sweep.jobs=2, or sweep.jobs=auto")
        if name not in ENGINES[key]:
            kind = key.removeprefix("hydra/")
            raise ConfigError(f"{key}={name}: there is no such {kind}; {did_you_mean(name, ENGINES[key])}")
    elif own := OWN_SETTINGS.get(re.split(r"[./]", key)[1] if key != "hydra" else ""):
        raise ConfigError(f"{override.input_line}: Hydra's own settings have no effect; {own}")
    else:
        raise ConfigError(
            f"{override.input_line}: Hydra's own settings do not count here; of them there are only hydra/launcher and "
            "hydra/sweeper"
        )


def without_engines(words: Sequence[str]) -> list[str]:
    """Remove launcher and sweeper, which are not part of a configuration and are unknown to Hydra."""
    return [word for word in words if not word.lstrip("+").startswith(tuple(ENGINES))]


def _missing_option(error: MissingConfigException) -> str:
    """Return an error message for a missing option with the nearest existing one."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return str(error).splitlines()[0]
    return f"{group}={name}: there is no such {group}; {did_you_mean(name, options_of(group))}"
