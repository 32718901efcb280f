"""Binding of settings to the signature of the class that their `_target_` names."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlrunner.config.schema import OPTIMIZER_SETTINGS
from dlrunner.config.signatures import check_settings
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.runs.plugin_files import checked_files, search_working_directory


@dataclass(frozen=True)
class Bound:
    """A class or function with validated settings; call it with the arguments that the run provides."""

    target: str
    factory: Callable[..., Any]
    settings: dict[str, Any]

    def __call__(self, **provided: Any) -> Any:
        """Build the object; provided arguments that its signature does not have are ignored."""
        wanted = parameters_of(self.factory)
        return self.factory(**{k: v for k, v in provided.items() if k in wanted}, **self.settings)

    def complete(self) -> dict[str, Any]:
        """Return the settings with the signature's defaults filled in; they identify the object."""
        defaults = {
            name: parameter.default
            for name, parameter in parameters_of(self.factory).items()
            if parameter.default is not inspect.Parameter.empty
        }
        return {"_target_": self.target, **defaults, **self.settings}


def bind(
    section: str,
    node: Mapping[str, Any],
    kind: type,
    provided: Collection[str],
    plugins: Sequence[str],
    problems: list[str],
) -> Bound | None:
    """Bind a section's settings to the signature of the class that its `_target_` names."""
    target = node.get("_target_")
    if not isinstance(target, str):
        problems.append(f"{section}._target_: is missing: it names the class of the {section}")
        return None
    try:
        factory = locate(target, plugins)
    except ConfigError as error:
        problems.append(f"{section}._target_: {error}")
        return None
    if not (isinstance(factory, type) and issubclass(factory, kind)):
        problems.append(f"{section}._target_: {target} is not a {kind.__name__}")
        return None
    return bind_settings(section, target, factory, node, provided, problems)


def bind_settings(
    section: str,
    target: str,
    factory: Callable[..., Any],
    node: Mapping[str, Any],
    provided: Collection[str],
    problems: list[str],
) -> Bound:
    """Bind settings to the signature of a class or function; errors are added to `problems`."""
    parameters = parameters_of(factory)
    try:
        hints = _hints(factory)
    except NameError as error:
        problems.append(f"{section}: the annotations of {target} cannot be read: {error}")
        hints = {}
    settable = {name: p for name, p in parameters.items() if name not in provided}
    return Bound(target, factory, check_settings(section, target, settable, hints, node, problems))


@functools.lru_cache(maxsize=256)  # the jobs of a sweep bind the same classes
def parameters_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class or function."""
    return inspect.signature(factory).parameters


@functools.lru_cache(maxsize=256)
def _hints(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations of the settings; for torch's optimizers, which have no ranges, our own."""
    if isinstance(factory, type) and issubclass(factory, torch.optim.Optimizer):
        return OPTIMIZER_SETTINGS
    return typing.get_type_hints(constructor(factory), include_extras=True)


def constructor(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose annotations are the types of the settings."""
    constructor: Callable[..., Any] = getattr(factory, "__init__") if isinstance(factory, type) else factory  # noqa: B009
    return constructor


def locate(target: str, plugins: Sequence[str]) -> Any:
    """Import the object of a dotted name, from allowed modules only.

    Raises:
        ConfigError: the module is not allowed, or the name does not exist.
    """
    allowed = ("dlrunner", "torch.optim", *plugins)
    if not any(target.startswith(f"{module}.") for module in allowed):
        raise ConfigError(
            f"{target} is not allowed: use a class of dlrunner, of torch.optim or of a module listed in plugins"
        )
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise ConfigError(f"there is no module {module_name}") from None
    if not hasattr(module, name):
        kinds = (type, types.FunctionType)
        members = vars(module).items()
        public = [n for n, v in members if isinstance(v, kinds) and v.__module__ == module_name and n[0] != "_"]
        raise ConfigError(f"{module_name} has no {name}; {did_you_mean(name, public)}")
    return getattr(module, name)


def import_plugin(plugin: str, problems: list[str]) -> None:
    """Import a module that the user lists; the working directory is searched too."""
    search_working_directory()
    is_new = plugin not in sys.modules
    try:
        importlib.import_module(plugin)
        if is_new:
            checked_files([plugin])
    except ModuleNotFoundError as error:
        problems.append(f"plugins: there is no module {error.name} in {Path.cwd()} or among the installed packages")
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        problems.append(f"plugins: {plugin} cannot be imported: {type(error).__name__}: {error}")
