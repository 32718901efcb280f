"""Settings against signatures, and signatures read from source: most mistakes are refused before torch is imported.

To import the classes that a configuration names takes two seconds, nearly all of them torch's. Their constructors are
read from the source instead, where that tells enough; what it does not tell is left to the full check, `plan`.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import functools
import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dlrunner.config.schema import OPTIMIZER_SETTINGS, Settings, validation_messages
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.renamed import renamed

PROVIDED: Mapping[str, frozenset[str]] = {
    "data": frozenset({"data_dir"}),
    "task": frozenset({"data", "batch_size", "seed", "device"}),
    "model": frozenset({"dims", "data_dir"}),
    "optim": frozenset({"params"}),
    "trainer": frozenset({"phases", "device", "precision", "seed"}),
    "log.trackers": frozenset(),
    "schedule": frozenset({"epochs"}),
}
"""What the rest of a run hands to each section's class: these are no settings."""

MADE: Mapping[str, str] = {
    "data": "Data",
    "task": "Task",
    "model": "Model",
    "optim": "Optimizer",
    "trainer": "Trainer",
    "log.trackers": "Tracker",
    "schedule": "ScheduleCurves",
}
"""What each section's class is derived from, or its function returns."""

LIGHT = ("collections.abc", "dlrunner.ranges", "pathlib", "pydantic", "typing")
"""Modules that annotations are made of, and that are imported to read them."""


def check_settings(
    section: str,
    target: str,
    parameters: Mapping[str, Parameter],
    hints: Mapping[str, Any],
    node: Mapping[str, Any],
    problems: list[str],
) -> dict[str, Any]:
    """Return a section's settings, those left out that do not fit the signature, which are told.

    Args:
        section: where the settings stand.
        target: what the signature is of, as people know it.
        parameters: of the signature; those that the run provides are left out.
        hints: types of parameters; one without is not checked.
        node: the settings.
        problems: one line is added for each mistake.
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
            problems.append(renamed(f"{section}.{key}", known) or f"{section}.{key}: {unknown}")
            continue
        if key in hints:
            try:
                TypeAdapter(hints[key], config=_adapter_config(hints[key])).validate_python(value, strict=True)
            except ValidationError as error:
                problems.extend(validation_messages(f"{section}.{key}", error, value, None))
                continue
        settings[str(key)] = value
    for name in known:
        if parameters[name].default is Parameter.empty and name not in node:
            problems.append(f"{section}.{name}: is missing: {target} needs it")
    return settings


def _adapter_config(hint: Any) -> ConfigDict | None:
    """Pydantic refuses a configuration for types that carry their own."""
    is_model = isinstance(hint, type) and issubclass(hint, BaseModel)
    return None if is_model else ConfigDict(strict=True, arbitrary_types_allowed=True)


class EarlyCheck:
    """Refuses configurations whose mistakes show without importing what they name.

    It finds nothing that `plan` does not find, in the same words. With plugins it leaves all to that: a user's
    module has to run before it can be told what fits. Sections that many jobs have in common are checked once.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], list[str]] = {}

    def __call__(self, config: Mapping[str, Any]) -> None:
        """Check a configuration.

        Raises:
            ConfigError: something does not fit; the message has one line per mistake.
        """
        try:
            settings = Settings.model_validate(dict(config))
        except ValidationError as error:
            raise ConfigError("\n".join(validation_messages("", error, config, Settings))) from None
        if settings.plugins:
            return
        problems = [problem for place, kind, node in _sections(settings) for problem in self._check(place, kind, node)]
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))

    def _check(self, place: str, kind: str, node: Mapping[str, Any]) -> list[str]:
        key = place, repr(node)
        if key not in self._known:
            found: list[str] = []
            self._known[key] = found
            signature = signature_in_source(target := str(node.get("_target_")))
            if signature is not None and MADE[kind] in signature.makes:
                hints = OPTIMIZER_SETTINGS if kind == "optim" else signature.hints
                parameters = {name: p for name, p in signature.parameters.items() if name not in PROVIDED[kind]}
                check_settings(place, target, parameters, hints, node, found)
        return self._known[key]


def _sections(settings: Settings) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield place, kind and settings of all that is bound to a signature."""
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


def schedule_node(said: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a schedule; a bare name, or a `_target_` without dots, is one of dlrunner.schedules."""
    node = {"_target_": said} if isinstance(said, str) else dict(said)
    target = str(node.get("_target_", ""))
    return {**node, "_target_": target if "." in target else f"dlrunner.schedules.{target}"}


@dataclass(frozen=True)
class SourceSignature:
    """What the source of a class or a function says of its parameters."""

    parameters: Mapping[str, Parameter]
    hints: Mapping[str, Any]
    """Annotations, those left out that cannot be known without importing more."""
    makes: frozenset[str]
    """Names of the class and its bases, or of what the function returns."""


@functools.cache
def signature_in_source(target: str) -> SourceSignature | None:
    """Read a signature of dlrunner or torch.optim without importing its module; None where the source does not tell.

    >>> list(signature_in_source("dlrunner.schedules.triangular").parameters)
    ['epochs', 'cycle_len', 'floor', 'decay']
    """
    if not target.startswith(("dlrunner.", "torch.optim.")):
        return None
    found = _definition(*_split(target))
    if found is None:
        return None
    makes = frozenset(_makes(*found))
    if isinstance(found[1], ast.ClassDef):
        found = _constructor(*found)
    if found is None:
        return None
    module, function = found
    if not isinstance(function, ast.FunctionDef) or function.decorator_list:
        return None
    arguments, hints, names = copy.deepcopy(function.args), {}, _names(module)
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument and argument.annotation:
            with contextlib.suppress(NameError, TypeError, AttributeError):  # made of more than is read here
                hints[argument.arg] = names.evaluate(argument.annotation)
            argument.annotation = None
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [default and ast.Constant(None) for default in arguments.kw_defaults]
    stub = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, ast.Constant(None))))
    parameters = dict(inspect.signature(eval(compile(stub, target, "eval"))).parameters)
    if function.name == "__init__":
        del parameters[next(iter(parameters))]
    return SourceSignature(parameters, hints, makes)


def _split(target: str) -> tuple[str, str]:
    module, _, name = target.rpartition(".")
    return module, name


@functools.cache
def _statements(module: str) -> Mapping[str, ast.stmt]:
    """Return what the names of a module are defined by; nothing where its source is not found."""
    root, *parts = module.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        return {}
    place = Path(spec.submodule_search_locations[0], *parts)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(file.read_bytes()).body if file.is_file() else ():
        match statement:
            case ast.ImportFrom():
                package = module if place.is_dir() else module.rpartition(".")[0]
                if statement.level:
                    statement.module = importlib.util.resolve_name(
                        "." * statement.level + (statement.module or ""), package
                    )
                found |= {alias.asname or alias.name: statement for alias in statement.names}
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found[name] = statement
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = statement
    return found


def _imported(statement: ast.ImportFrom, name: str) -> tuple[str, str]:
    """Return module and name of what a module has under a name by importing it."""
    assert statement.module is not None
    return statement.module, next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)


def _definition(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Return the statement that defines a name, and its module."""
    statement = _statements(module).get(name)
    if isinstance(statement, ast.ImportFrom):
        return _definition(*_imported(statement, name))
    return (module, statement) if statement else None


def _constructor(module: str, defined: ast.stmt) -> tuple[str, ast.stmt] | None:
    """Return the constructor of a class, its own or the one it inherits."""
    if not isinstance(defined, ast.ClassDef) or defined.decorator_list or defined.keywords:
        return None  # a dataclass, a metaclass: made when they are imported
    for statement in defined.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return module, statement
    bases = [base.id if isinstance(base, ast.Name) else "" for base in defined.bases]
    if set(bases) <= {"ABC"}:
        return module, ast.parse("def __init__(self): ...").body[0]
    found = _definition(module, bases[0])
    return _constructor(*found) if found else None


def _makes(module: str, defined: ast.stmt) -> Iterator[str]:
    """Yield the names of a class and of its bases, or of what a function returns."""
    match defined:
        case ast.FunctionDef(returns=ast.Name(id=name)):
            yield name
        case ast.ClassDef(name=name, bases=bases):
            yield name
            for base in bases:
                found = _definition(module, base.id) if isinstance(base, ast.Name) else None
                if found:
                    yield from _makes(*found)


class _Names(dict[str, Any]):
    """What names mean in the annotations of a module, found as they are asked for."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._module = module

    def evaluate(self, node: ast.expr) -> Any:
        """Return what an annotation says.

        Raises:
            NameError: it names a class, or what another module would have to be imported for.
        """
        return eval(compile(ast.Expression(node), self._module, "eval"), {"__builtins__": {}}, self)

    def __missing__(self, name: str) -> Any:
        match _statements(self._module).get(name):
            case ast.ImportFrom() as statement:
                module, original = _imported(statement, name)
                if module in LIGHT:
                    self[name] = getattr(importlib.import_module(module), original)
                elif module.startswith("dlrunner."):
                    self[name] = _names(module)[original]
                else:
                    raise KeyError(name)
            case ast.Assign(value=value):
                self[name] = self.evaluate(value)
            case None if hasattr(builtins, name):
                self[name] = getattr(builtins, name)
            case _:
                raise KeyError(name)
        return self[name]


_names = functools.cache(_Names)
