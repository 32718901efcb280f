"""The parser of the verbs: the same form of help, and the same way to refuse, for all of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from dlrunner.errors import ConfigError, did_you_mean


class Parser(argparse.ArgumentParser):
    """An argparse parser that refuses in one line, as everything else does, and names the nearest option."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the arguments; options may stand before, between and after the others.

        Raises:
            ConfigError: a word does not fit.
        """
        arguments, unknown = self.parse_known_intermixed_args(words)
        for word in unknown:
            name = word.partition("=")[0]
            if name.startswith("-"):
                known = [option for option in self._option_string_actions if option.startswith("--")]
                raise ConfigError(f"{self._verb}: there is no option {name}; {did_you_mean(name, known)}")
            raise ConfigError(f"{self._verb}: {word!r} is one argument too many; usage: {self._usage}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Refuse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self._verb}: {message}; `{self.prog} --help` lists the options")

    @property
    def _verb(self) -> str:
        return self.prog.removeprefix("dlrun ")

    @property
    def _usage(self) -> str:
        return " ".join(self.format_usage().removeprefix("usage: ").split())


class _Help(argparse.HelpFormatter):
    """Keeps the lines of the example, and shows defaults, where there is one that says something."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default in (None, False, argparse.SUPPRESS) or action.default == []
        if says_nothing or not action.help or "default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


@dataclass(frozen=True)
class Verb:
    """What the command line knows of a verb before anything slow is imported."""

    usage: str
    """Its arguments in short, for the list of all verbs."""
    summary: str
    example: str
    add_options: Callable[[argparse.ArgumentParser], None]
    do: Callable[[argparse.Namespace], int]
    prepare: Callable[[Parser, list[str]], list[str]] = lambda parser, words: words
    """Adds the options that depend on the words, and returns the words."""

    def parser(self, name: str, with_help: bool = True) -> Parser:
        """Return the parser of the options that do not depend on a run."""
        made = Parser(
            prog=f"dlrun {name}",
            description=f"{self.summary[0].upper()}{self.summary[1:]}.",
            epilog=f"example:\n  {self.example}",
            formatter_class=_Help,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_options(made)
        if with_help:
            made.add_argument("-h", "--help", action="help", help="show this text")
        return made

    def run(self, name: str, words: list[str]) -> int:
        """Do what the words ask for and return the exit status."""
        parser = self.parser(name)
        words = self.prepare(parser, words)
        return self.do(parser.parse(words))
