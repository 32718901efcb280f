"""The command line of a predictor's method, derived from its signature, its annotations and its docstring."""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlrunner.files.paths import exists
from dlrunner.inference.arguments import hints_of, members


@dataclass(frozen=True)
class Option:
    """A parameter of a method as an argument or an option of the command line."""

    parameter: inspect.Parameter
    hint: Any
    help: str

    @property
    def metavar(self) -> str:
        """Placeholder of its value."""
        return _metavar(self.parameter.name, list(members(self.hint)))

    @property
    def word(self) -> str:
        """Its name on the command line, with two dashes if it is an option."""
        name = self.parameter.name.strip("_")
        return f"--{name.replace('_', '-')}" if self.parameter.kind is inspect.Parameter.KEYWORD_ONLY else name

    @property
    def is_required(self) -> bool:
        """Whether the method has no default for it."""
        return self.parameter.default is inspect.Parameter.empty

    @property
    def shown(self) -> str:
        """How messages name it: an option by its name, an argument by its placeholder."""
        return self.word if self.word.startswith("-") else self.metavar

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it to a parser; without a value it is absent from the namespace, so that the method's default is used."""
        kinds, default = list(members(self.hint)), self.parameter.default
        text = self.help.replace("%", "%%")
        settings: dict[str, Any] = {"dest": self.parameter.name, "default": argparse.SUPPRESS}
        if bool in kinds:
            action = argparse.BooleanOptionalAction if default is True else "store_true"
            parser.add_argument(self.word, action=action, help=text, **settings)
            return
        if default not in (None, inspect.Parameter.empty):
            text = f"{text} (default: {default})".strip()
        settings |= {"metavar": self.metavar, "help": text}
        if self.word.startswith("-"):
            is_list = any(typing.get_origin(kind) is list for kind in kinds)
            count = "+" if default is inspect.Parameter.empty else "*"
            parser.add_argument(self.word, nargs=count if is_list else None, **settings)
        else:
            settings.pop("dest")
            parser.add_argument(self.parameter.name, nargs="?", **settings)

    def read(self, given: Any, training_file: Mapping[str, str]) -> Any:
        """Convert a value of the command line to the type of the parameter (see `values_of`)."""
        kinds = list(members(self.hint))
        if isinstance(given, str) and any(_is_table(kind) for each in kinds for kind in _types(each)):
            from dlrunner.data.tables.table import read_new_rows

            return read_new_rows(given, **training_file)
        if isinstance(given, list):
            return [read(each, kinds) for each in given]
        return read(given, kinds) if isinstance(given, str) else given


def options_of(method: Callable[..., Any]) -> list[Option]:
    """Return the arguments and options of a method of a class."""
    hints, help_texts = hints_of(method), help_of_arguments(method)
    _, *parameters = inspect.signature(method).parameters.values()
    return [Option(each, hints.get(each.name, Any), help_texts.get(each.name, "")) for each in parameters]


def usage_of(verb: str, options: Sequence[Option]) -> str:
    """Return the usage line of a verb, with optional arguments in brackets."""
    arguments = [
        each.metavar if each.parameter.default is inspect.Parameter.empty else f"[{each.metavar}]"
        for each in options
        if not each.word.startswith("-")
    ]
    return " ".join(["dlrun", verb, "RUN", *arguments, "[options]"])


def example_of(verb: str, method: Callable[..., Any]) -> str | None:
    """Return the first example of a docstring, a call in Python, as a command; None if there is none.

    Of a list of files or texts the first one is shown, since a command takes one.
    """
    name = re.escape(method.__name__)
    found = re.search(rf"^\s+predictor\.({name}\(.*\))$", inspect.getdoc(method) or "", re.MULTILINE)
    if not found:
        return None
    call = ast.parse(found[1], mode="eval").body
    assert isinstance(call, ast.Call)
    options = options_of(method)
    by_name = {option.parameter.name: option for option in options}
    pairs = [*zip(options, call.args, strict=False), *((by_name[str(each.arg)], each.value) for each in call.keywords)]
    words = []
    for option, node in pairs:
        value = _example_value(node, f"{option.word.lstrip('-')}.csv")
        words += [option.word] * option.word.startswith("-") + [value] * (value != "True")
    return " ".join(["dlrun", verb, "RUN", *(f'"{word}"' if " " in word else word for word in words)])


def _example_value(node: ast.expr, table: str) -> str:
    """Return an argument of an example call as a word of the command line.

    Args:
        node: a literal, a list, or a call such as `pandas.read_csv("new.csv")` or `Path("texts")`.
        table: name of the file for a table that is written out.
    """
    match node:
        case ast.List(elts=[first, *_]):
            return _example_value(first, table)
        case ast.Call(args=[ast.Constant(value=str(file))]):
            return file
        case ast.Constant(value=value):
            return str(value)
    return table


def values_of(
    arguments: argparse.Namespace, options: Sequence[Option], data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the values by the names of the parameters.

    Args:
        arguments: as they were parsed.
        options: of the method.
        data: the settings of the training data: tables are read with its separator and encoding where they need one.

    Raises:
        ConfigError, DataError: a table cannot be read.
    """
    given = vars(arguments)
    file = {name: value for name in ("separator", "encoding") if isinstance(value := (data or {}).get(name), str)}
    return {name: each.read(given[name], file) for each in options if (name := each.parameter.name) in given}


def returns_text(method: Callable[..., Any]) -> bool:
    """Return whether a method is annotated to return a text and not a table."""
    return any(isinstance(each, type) and issubclass(each, str) for each in members(hints_of(method).get("return")))


def description_of(method: Callable[..., Any]) -> str:
    """Return the first sentence of a docstring."""
    return " ".join((inspect.getdoc(method) or "").partition("\n\n")[0].split())


def help_of_arguments(method: Callable[..., Any]) -> Mapping[str, str]:
    """Return the help of parameters by their names, from the section `Args:` of a docstring."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", inspect.getdoc(method) or "", re.MULTILINE)
    texts: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section[1]).strip()) if section else []:
        names, _, text = entry.partition(":")
        texts |= {name.strip(): " ".join(text.split()).removesuffix(".") for name in names.split(",")}
    return texts


def read(text: str, kinds: Sequence[Any]) -> Any:
    """Convert a word of the command line to one of the types of a parameter; the method's own check refuses misfits.

    >>> read("5", [int]), read("5", [int, str]), read("five", [int]), read("5", [Literal[5, 6]])
    (5, '5', 'five', 5)
    """
    types = {kind for each in kinds for kind in _types(each)}
    if Path in types and (str not in types or exists(text)):
        return Path(text)
    for kind in [each for each in (int, float) if each in types and str not in types]:
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _types(kind: Any) -> Iterator[Any]:
    """Yield the types of the values that an annotation without unions allows, of a list those of its entries."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        yield from map(type, inner)
    elif typing.get_origin(kind) is list:
        for each in members(inner[0]):
            yield from _types(each)
    else:
        yield kind


def _is_table(kind: Any) -> bool:
    """Return whether a type is a DataFrame, or its placeholder (`predictor_methods`)."""
    return getattr(kind, "__name__", "") == "DataFrame"


def _metavar(name: str, kinds: Sequence[Any]) -> str:
    literals = [str(value) for kind in kinds if typing.get_origin(kind) is Literal for value in typing.get_args(kind)]
    if literals:
        return f"{{{','.join(literals)}}}"
    if any(_is_table(kind) for kind in kinds):
        return "FILE"
    if Path in kinds and str not in kinds:
        return "PATH"
    if str not in kinds and (int in kinds or float in kinds):
        return "N" if int in kinds else "X"
    return name.strip("_").upper()
