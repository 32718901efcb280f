"""The parser of the verbs: the same format of help and errors for all of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from dlrunner.errors import ConfigError, did_you_mean


class Parser(argparse.ArgumentParser):
    """An argparse parser with errors of one line, which suggest the nearest option."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the arguments; options may come before, between and after positional ones.

        Raises:
            ConfigError: an argument is invalid.
        """
        arguments, unknown = self.parse_known_intermixed_args(words)
        for word in unknown:
            name = word.partition("=")[0]
            if name.startswith("-"):
                raise ConfigError(f"{self._verb}: there is no option {name}; {did_you_mean(name, self.options)}")
            raise ConfigError(f"{self._verb}: unexpected argument {word!r}; usage: {self._usage}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Report an error.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self._verb}: {message}; `{self.prog} --help` lists the options")

    @property
    def options(self) -> list[str]:
        """The long names of its options."""
        return [option for option in self._option_string_actions if option.startswith("--")]

    @property
    def _verb(self) -> str:
        return self.prog.removeprefix("dlrun ")

    @property
    def _usage(self) -> str:
        return " ".join(self.format_usage().removeprefix("usage: ").split())


class _Help(argparse.HelpFormatter):
    """Keeps the line breaks of the example, and shows defaults other than none and false."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_trivial = action.default in (None, False, argparse.SUPPRESS) or action.default == []
        if is_trivial or not action.help or "default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


@dataclass(frozen=True)
class Verb:
    """A verb, without importing anything slow."""

    usage: str
    """Its arguments, for the list of all verbs."""
    summary: str
    example: str
    add_options: Callable[[argparse.ArgumentParser], None]
    do: Callable[[argparse.Namespace], int]
    prepare: Callable[[Parser, list[str]], list[str]] = lambda parser, words: words
    """Adds the options that depend on the words, and returns the words."""
    prints_result: bool = False
    """Its result is its output: it fails if standard output cannot be written."""

    def parser(self, name: str) -> Parser:
        """Return the parser of the options that do not depend on a run."""
        parser = Parser(
            prog=f"dlrun {name}",
            description=f"{self.summary[0].upper()}{self.summary[1:]}.",
            epilog=f"example:\n  {self.example}",
            formatter_class=_Help,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_options(parser)
        parser.add_argument("-h", "--help", action="help", help="show this help")
        return parser

    def run(self, name: str, words: list[str]) -> int:
        """Run the verb and return the exit status."""
        parser = self.parser(name)
        words = self.prepare(parser, words)
        return self.do(parser.parse(words))
