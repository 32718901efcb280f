"""Validation of a predictor's arguments against the signature, for Python and the command line alike."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import numpy as np
from pydantic import TypeAdapter, ValidationError

from dlrunner.config.schema import validation_messages
from dlrunner.errors import ConfigError, did_you_mean

PLAIN = (bool, int, float, str, Path, type(None))
"""Types that are checked here; methods check others themselves."""


def hints_of(method: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a method by parameter name, including `return`."""
    return typing.get_type_hints(method, include_extras=True)


def members(hint: Any) -> Iterator[Any]:
    """Yield the alternatives of a union annotation; other annotations yield themselves.

    >>> list(members(int | list[str] | Literal["a"] | None))
    [<class 'int'>, list[str], typing.Literal['a'], <class 'NoneType'>]
    """
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from members(each)
    elif origin is Annotated:
        yield from members(typing.get_args(hint)[0])
    else:
        yield hint


def no_method(task: str, methods: Iterable[str], name: str) -> str:
    """Return the message for a missing method, with the methods of the task."""
    return f"{task} has no method {name}; it has {', '.join(methods) or 'none'}"


def checked(
    method: Callable[..., Any], as_table: Callable[[str, Any], Any] = lambda _, given: given
) -> Callable[..., Any]:
    """Wrap a method so that arguments that do not fit its signature raise ConfigError.

    NumPy scalars are converted to Python numbers, strings to paths where a path is expected, and what stands for a
    table by `as_table`.

    Args:
        method: of a predictor.
        as_table: returns the argument of a name as a DataFrame, where one is expected.
    """

    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        name, signature, hints = method.__name__, inspect.signature(method), hints_of(method)
        for option in options:
            if option not in signature.parameters:
                raise ConfigError(f"{name}: has no option {option}; {did_you_mean(option, signature.parameters)}")
        try:
            bound = signature.bind(*args, **options)
        except TypeError as error:
            raise ConfigError(f"{name}: {error}") from None
        for parameter, value in bound.arguments.items():
            hint = hints.get(parameter, Any)
            if any(getattr(kind, "__name__", "") == "DataFrame" for kind in members(hint)):
                value = as_table(parameter.strip("_"), value)
            bound.arguments[parameter] = _validated(parameter.strip("_"), value, hint)
        return method(*bound.args, **bound.kwargs)

    return call


def _validated(name: str, value: Any, hint: Any) -> Any:
    """Return a value converted to its annotation.

    Raises:
        ConfigError: it has another type, or is out of range.
    """
    kinds = list(members(hint))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and Path in kinds and str not in kinds:
        return Path(value)
    if not all(_is_plain(kind) for kind in kinds):
        return value
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        shown = value if isinstance(value, (*PLAIN, list)) else _Described(value)
        raise ConfigError("\n".join(validation_messages(name, error, shown, None, is_yaml=False))) from None
    return value


def _is_plain(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is list:
        return all(_is_plain(each) for inner in typing.get_args(kind) for each in members(inner))
    return origin is Literal or kind in PLAIN


class _Described:
    """A placeholder in messages for values with a long repr."""

    def __init__(self, value: Any) -> None:
        self.kind = type(value).__name__

    def __repr__(self) -> str:
        return f"{'an' if self.kind[0] in 'aeiouAEIOU' else 'a'} {self.kind}"
