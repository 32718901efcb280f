"""Validation of settings against signatures; most mistakes are refused before torch is imported."""

from __future__ import annotations

import functools
import glob
import os
import typing
from collections.abc import Iterator, Mapping
from inspect import Parameter
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dlrunner.config.conf_files import setting_of_other_model
from dlrunner.config.schema import OPTIMIZER_SETTINGS, Settings, validation_messages
from dlrunner.config.source_signatures import signature_in_source
from dlrunner.config.suggestions import PROVIDED, suggest_setting
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.files.paths import not_found, user_path
from dlrunner.renamed import renamed

MADE: Mapping[str, str] = {
    "data": "Data",
    "task": "Task",
    "model": "Model",
    "optim": "Optimizer",
    "trainer": "Trainer",
    "log.trackers": "Tracker",
    "schedule": "ScheduleCurves",
}
"""Base class, or return type, of what each section names."""


def check_settings(
    section: str,
    target: str,
    parameters: Mapping[str, Parameter],
    hints: Mapping[str, Any],
    node: Mapping[str, Any],
    problems: list[str],
) -> dict[str, Any]:
    """Return the valid settings of a section; for each invalid one a line is added to `problems`.

    Args:
        section: path of the section in the configuration.
        target: name of the class or function, for messages.
        parameters: its parameters, without those that the run provides.
        hints: their annotations; a parameter without one is not checked.
        node: the settings.
        problems: error messages, extended in place.
    """
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    variadic = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    known = [name for name, parameter in parameters.items() if parameter.kind not in variadic]
    settings = {}
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in known and not takes_any:
            unknown = f"unknown setting of {target}; {did_you_mean(str(key), known)}"
            elsewhere = setting_of_other_model(target, str(key)) if section == "model" else None
            problems.append(renamed(f"{section}.{key}", known) or elsewhere or f"{section}.{key}: {unknown}")
            continue
        if key in hints:
            try:
                _adapter(hints[key]).validate_python(value, strict=True)
            except ValidationError as error:
                problems.extend(validation_messages(f"{section}.{key}", error, value, _section_model(hints[key])))
                continue
        settings[str(key)] = value
    for name in known:
        if parameters[name].default is Parameter.empty and name not in node:
            problems.append(f"{section}.{name}: is missing: {target} needs it")
    return settings


@functools.cache  # building one takes a tenth of a millisecond, and a run checks 150 settings
def _adapter(hint: Any) -> TypeAdapter[Any]:
    """Return pydantic's strict validator; models have their own configuration."""
    is_model = isinstance(hint, type) and issubclass(hint, BaseModel)
    return TypeAdapter(hint, config=None if is_model else ConfigDict(strict=True, arbitrary_types_allowed=True))


def _section_model(hint: Any) -> type[BaseModel] | None:
    """Return the model of a section's settings, also of one that may be null."""
    options = typing.get_args(hint) or (hint,)
    return next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)


class EarlyCheck:
    """A check of a configuration that imports no class it names.

    It finds a subset of the errors of `plan`, with the same messages. Configurations with plugins are left to `plan`,
    since a user's module has to be imported. Sections that several jobs share are checked once.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], list[str]] = {}

    def __call__(self, config: Mapping[str, Any]) -> None:
        """Check a configuration.

        Raises:
            ConfigError: it is invalid; the message has one line per error.
        """
        try:
            settings = Settings.model_validate(dict(config))
        except ValidationError as error:
            suggest = functools.partial(suggest_setting, config)
            raise ConfigError("\n".join(validation_messages("", error, config, Settings, suggest))) from None
        if settings.plugins:
            return
        problems = [problem for path, kind, node in _sections(settings) for problem in self._check(path, kind, node)]
        problems += _missing_path(settings.data or {}, settings.choices.get("task"))
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))

    def _check(self, path: str, kind: str, node: Mapping[str, Any]) -> list[str]:
        key = path, repr(node)
        if key not in self._known:
            found: list[str] = []
            self._known[key] = found
            signature = signature_in_source(target := str(node.get("_target_")))
            if signature is not None and MADE[kind] in signature.makes:
                hints = OPTIMIZER_SETTINGS if kind == "optim" else signature.hints
                parameters = {name: p for name, p in signature.parameters.items() if name not in PROVIDED[kind]}
                check_settings(path, target, parameters, hints, node, found)
        return self._known[key]


MISSING_TARGET = "data.target: is missing: which column is the target? dlrun data describe {} lists them"


def _missing_path(data: Mapping[str, Any], task: str | None) -> list[str]:
    """Return an error if dlrunner's own data has no path, or one where nothing is, or a table no target."""
    path, target = data.get("path"), str(data.get("_target_"))
    signature = signature_in_source(target) if target.startswith("dlrunner.") else None
    if signature is None or data.get("source") == "synthetic":
        return []
    if path is None and data.get("query") is None:
        has_others = "query" not in signature.parameters or "source" in signature.parameters
        example = "my.csv data.target=y" if "target_transform" in signature.parameters else "FILE"
        problem = f"data.path: is missing: which file or folder? dlrun task={task} data.path={example}"
        return [] if has_others else [problem]
    if not isinstance(path, str) or path == "-" or glob.has_magic(path):
        return []
    given = user_path(path)
    if os.path.exists(given):  # noqa: PTH110  false for a name that is too long, too
        is_table = {"target", "target_transform"} <= set(signature.parameters)
        return [MISSING_TARGET.format(given)] if is_table and data.get("target") is None else []
    return [f"data.path: {not_found(given, 'file' if given.suffix else 'file or folder')}"]


def _sections(settings: Settings) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield path, kind and settings of each section that is bound to a signature."""
    for kind in ("data", "task", "model", "optim", "trainer"):
        if node := getattr(settings, kind):
            yield kind, kind, node
    for name, node in settings.log.trackers.items():
        yield f"log.trackers.{name}", "log.trackers", node
    for index, phase in enumerate(settings.phases or ()):
        if phase.schedule is not None:
            yield f"phases[{index}].schedule", "schedule", schedule_node(phase.schedule)
    if not settings.phases or any(phase.schedule is None for phase in settings.phases):
        yield "schedule", "schedule", schedule_node(settings.schedule)


def schedule_node(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a schedule; a bare name, or a `_target_` without dots, is one of dlrunner.schedules."""
    node = {"_target_": given} if isinstance(given, str) else dict(given)
    target = str(node.get("_target_", ""))
    return {**node, "_target_": target if "." in target else f"dlrunner.schedules.{target}"}
