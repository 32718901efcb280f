"""Signatures read from source code, without importing the modules.

Importing the classes that a configuration names takes two seconds, nearly all of them for torch.
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

LIGHT = (
    *("collections.abc", "pathlib", "pydantic", "typing"),
    *("dlrunner.data.tabular.history_settings", "dlrunner.ranges"),
)
"""Modules that annotations refer to and that are fast to import."""

KEEPS_SIGNATURE = ("torch.inference_mode()", "torch.no_grad()")
"""Decorators of methods that do not change the signature."""


@dataclass(frozen=True)
class SourceSignature:
    """Parameters of a class or a function, read from its source."""

    parameters: Mapping[str, Parameter]
    hints: Mapping[str, Any]
    """Annotations, without those that would need a further import."""
    makes: frozenset[str]
    """Names of the class and its bases, or of a function's return type."""


@functools.cache
def signature_in_source(target: str) -> SourceSignature | None:
    """Read a signature of dlrunner or torch.optim from source; None if the source is not sufficient.

    >>> list(signature_in_source("dlrunner.schedules.triangular").parameters)
    ['epochs', 'cycle_len', 'floor', 'decay']
    """
    found = _definition(*_split(target)) if target.startswith(("dlrunner.", "torch.optim.")) else None
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
    stub = _stub(function, _names(module))
    parameters = dict(inspect.signature(stub).parameters)
    if function.name == "__init__":
        del parameters[next(iter(parameters))]
    return SourceSignature(parameters, {n: hint for n, hint in stub.__annotations__.items() if n != "return"}, makes)


@functools.cache
def dims_in_source(target: str) -> str | None:
    """Return the annotation of `dims` of a model's constructor as it is written; None if it has none.

    >>> dims_in_source("dlrunner.models.text.TextClassifier")
    'TextDims'
    """
    found = _definition(*_split(target)) if target.startswith("dlrunner.") else None
    found = _constructor(*found) if found else None
    if found is None or not isinstance(found[1], ast.FunctionDef):
        return None
    arguments = found[1].args
    annotations = {each.arg: each.annotation for each in (*arguments.args, *arguments.kwonlyargs)}
    return ast.unparse(annotation) if (annotation := annotations.get("dims")) else None


@functools.cache
def predictor_methods(task: str) -> Mapping[str, Callable[..., Any]] | None:
    """Return stubs of the public methods of a task's predictor; None if the source is not sufficient.

    A stub has the signature and the docstring of the method; a class that would have to be imported for an annotation
    is replaced by an empty class of the same name.

    >>> list(predictor_methods("dlrunner.tasks.image.task.ImageClassification"))
    ['predict', 'explain']
    """
    found = _definition(*_split(task)) if task.startswith("dlrunner.") else None
    classes = list(_bases(*found)) if found else []
    for module, defined in classes:
        if name := _class_attributes(defined).get("predictor"):
            predictor = _definition(module, name.id) if isinstance(name, ast.Name) else None
            return _methods(*predictor) if predictor else None
    return None


def _methods(module: str, defined: ast.stmt) -> Mapping[str, Callable[..., Any]] | None:
    """Return stubs of the public methods of a predictor, those of base classes first."""
    classes = list(_bases(module, defined))
    if not classes or classes[-1][1].name != "Predictor":
        return None
    inherited = {each.name for each in classes.pop()[1].body if isinstance(each, ast.FunctionDef)}
    methods: dict[str, Callable[..., Any]] = {}
    for origin, each in reversed(classes):
        for statement in each.body:
            if not isinstance(statement, ast.FunctionDef):
                continue
            if statement.name.startswith("_") or statement.name in inherited:
                continue
            if not {ast.unparse(decorator) for decorator in statement.decorator_list} <= {*KEEPS_SIGNATURE}:
                return None
            methods[statement.name] = _stub(statement, _placeholder_names(origin))
    return methods


def _class_attributes(defined: ast.ClassDef) -> dict[str, ast.expr]:
    """Return the values assigned to names in the body of a class."""
    found = {}
    for statement in defined.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found[name] = value
    return found


def _bases(module: str, defined: ast.stmt) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield a class of dlrunner and its bases, each with its module; of several bases the first one."""
    if isinstance(defined, ast.ClassDef):
        yield module, defined
        if defined.bases and isinstance(base := defined.bases[0], ast.Name) and (found := _definition(module, base.id)):
            yield from _bases(*found)


def _stub(function: ast.FunctionDef, names: _Names) -> Callable[..., Any]:
    """Return a function with the parameters, literal defaults, readable annotations and docstring of a definition.

    Other defaults become `...`.
    """
    arguments, hints = copy.deepcopy(function.args), {}
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument and argument.annotation:
            with contextlib.suppress(NameError, TypeError, AttributeError):  # needs a further import
                hints[argument.arg] = names.evaluate(argument.annotation)
            argument.annotation = None
    if function.returns:
        with contextlib.suppress(NameError, TypeError, AttributeError):
            hints["return"] = names.evaluate(function.returns)
    arguments.defaults = [_literal(default) for default in arguments.defaults]
    arguments.kw_defaults = [default and _literal(default) for default in arguments.kw_defaults]
    expression = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, ast.Constant(None))))
    stub: Callable[..., Any] = eval(compile(expression, function.name, "eval"))
    stub.__name__, stub.__doc__, stub.__annotations__ = function.name, ast.get_docstring(function), hints
    return stub


def _literal(node: ast.expr) -> ast.expr:
    """Return a default if it is a literal, else `...`."""
    try:
        ast.literal_eval(node)
    except ValueError:
        return ast.Constant(...)
    return node


def _split(target: str) -> tuple[str, str]:
    module, _, name = target.rpartition(".")
    return module, name


@functools.cache
def _statements(module: str) -> Mapping[str, ast.stmt]:
    """Return the statement that defines each name of a module; empty if its source is not found."""
    root, *parts = module.split(".")
    if not all(part.isidentifier() for part in parts):  # of an untrusted configuration: no path to elsewhere
        return {}
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(spec.submodule_search_locations[0], *parts)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(file.read_bytes()).body if file.is_file() else ():
        match statement:
            case ast.ImportFrom():
                package = module if path.is_dir() else module.rpartition(".")[0]
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
    """Return the module that an import takes a name from, and its name there."""
    assert statement.module is not None
    return statement.module, next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)


def _definition(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Return the statement that defines a name, with its module; imports are followed."""
    statement = _statements(module).get(name)
    if isinstance(statement, ast.ImportFrom):
        return _definition(*_imported(statement, name))
    return (module, statement) if statement else None


def _constructor(module: str, defined: ast.stmt) -> tuple[str, ast.stmt] | None:
    """Return the constructor of a class, its own or an inherited one."""
    if not isinstance(defined, ast.ClassDef) or defined.decorator_list or defined.keywords:
        return None  # a dataclass or a metaclass: the constructor is created on import
    for statement in defined.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return module, statement
    bases = [base.id if isinstance(base, ast.Name) else "" for base in defined.bases]
    if set(bases) <= {"ABC"}:
        return module, ast.parse("def __init__(self): ...").body[0]
    found = _definition(module, bases[0])
    return _constructor(*found) if found else None


def _makes(module: str, defined: ast.stmt) -> Iterator[str]:
    """Yield the names of a class and its bases, or of a function's return type."""
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
    """The names in the annotations of a module, resolved on first use."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._module = module

    def evaluate(self, node: ast.expr) -> Any:
        """Return the value of an annotation.

        Raises:
            NameError: it contains a class, or something that would need a further import.
        """
        return eval(compile(ast.Expression(node), self._module, "eval"), {"__builtins__": {}}, self)

    def __missing__(self, name: str) -> Any:
        match _statements(self._module).get(name):
            case ast.ImportFrom() as statement:
                module, original = _imported(statement, name)
                if module in LIGHT:
                    self[name] = getattr(importlib.import_module(module), original)
                elif module.startswith("dlrunner."):
                    self[name] = type(self)(module)[original]
                else:
                    raise KeyError(name)
            case ast.Assign(value=value):
                self[name] = self.evaluate(value)
            case None if hasattr(builtins, name):
                self[name] = getattr(builtins, name)
            case _:
                raise KeyError(name)
        return self[name]


class _Placeholder(type):
    """An empty class in place of a class or module that is not imported; its attributes are such classes too."""

    def __getattr__(cls, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name, (), {})


class _PlaceholderNames(_Names):
    """As `_Names`; classes and modules that are not imported are replaced by placeholders."""

    def __missing__(self, name: str) -> Any:
        try:
            return super().__missing__(name)
        except KeyError:
            statement = _statements(self._module).get(name)
            bases = statement.bases if isinstance(statement, ast.ClassDef) else []
            plain = [getattr(builtins, base.id, None) for base in bases if isinstance(base, ast.Name)]
            self[name] = _Placeholder(name, tuple(base for base in plain if isinstance(base, type)), {})
            return self[name]


_names = functools.cache(_Names)
_placeholder_names = functools.cache(_PlaceholderNames)
