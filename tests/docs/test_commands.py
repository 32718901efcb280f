"""Every command of the documentation is one that dlrun accepts: composed and checked, or its options parsed."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dlrunner.cli.compose import compose, parse
from dlrunner.cli.conf_paths import options_of, with_paths
from dlrunner.cli.options import options_of as options_of_method
from dlrunner.cli.options import returns_text
from dlrunner.cli.parser import Parser
from dlrunner.cli.predictor_verbs import add_result_options
from dlrunner.cli.sweep import chosen_engines, with_seeds
from dlrunner.cli.sweep_files import frozen
from dlrunner.cli.verbs import VERBS
from dlrunner.config.plan import plan
from dlrunner.config.schema import LogSettings, SweepSettings
from dlrunner.config.source_signatures import predictor_methods, signature_in_source
from dlrunner.errors import ConfigError
from dlrunner.runs.labels import run_label
from tests.conftest import REPOSITORY, Dlrun
from tests.docs.pages import PAGES, dlrun_commands, name_of

COMMANDS = [(name_of(page), words) for page in PAGES for words in dlrun_commands(page)]

REFUSED = ("optim.lrr=1",)
"""Shown because they are refused."""


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 80


def test_a_command_that_does_not_exist_would_be_found(here: Path) -> None:
    for words in (["task=colab"], ["show", "RUN", "--opne"], ["predict", "RUN", "x.csv", "--colour"], ["-m", "lr=1,2"]):
        with pytest.raises(ConfigError):
            check(words)


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(words)}" for page, words in COMMANDS])
def test_a_documented_command_is_accepted(page: str, words: list[str], here: Path) -> None:
    make_paths(words)
    if set(words) & set(REFUSED):
        with pytest.raises(ConfigError):
            check(words)
    else:
        check(words)


SHOWN_ERRORS = [
    (name_of(page), shlex.split(command), errors)
    for page in PAGES
    for command, errors in re.findall(r"^\$ dlrun (.*)\n((?:dlrun: .*\n)+)", page.read_text("utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize(("page", "words", "errors"), SHOWN_ERRORS, ids=[page for page, *_ in SHOWN_ERRORS])
def test_errors_are_shown_as_they_are_printed(page: str, words: list[str], errors: str, dlrun: Dlrun) -> None:
    status, _, printed = dlrun(*words)
    assert (status, printed) == (2, errors)


def test_some_errors_are_shown() -> None:
    assert SHOWN_ERRORS


def known_settings() -> set[str]:
    """Return the settings of sections by their full names, of all options."""
    names = {f"sweep.{name}" for name in SweepSettings.model_fields} | {f"log.{n}" for n in LogSettings.model_fields}
    for file in (REPOSITORY / "conf").rglob("*.yaml"):
        content = yaml.safe_load(file.read_text("utf-8")) or {}
        sections = content if "task" in content or "data" in content else {file.parent.name: content}
        for section, settings in sections.items():
            if isinstance(settings, dict) and (signature := signature_in_source(str(settings.get("_target_")))):
                names |= {f"{section}.{name}" for name in signature.parameters}
            names |= {f"{section}.{name}" for name in settings} if isinstance(settings, dict) else set()
    return names


def test_settings_in_a_line_of_text_exist_and_are_read_as_they_are_quoted() -> None:
    known = known_settings()
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for span in re.findall(r"`('?(?:data|model|optim|trainer|task|schedule|log|sweep)\.[a-z_]+=[^`]*)`", text):
            name = span.lstrip("'").partition("=")[0]
            assert name in known, f"{name_of(page)}: {span}"
            if span.startswith("'"):
                assert [override.key_or_group for override in parse(shlex.split(span))] == [name]


def make_paths(words: list[str]) -> None:
    """Create what the settings of a command read, empty."""
    for word in words:
        name, _, value = word.partition("=")
        if name in ("data.path", "data.valid_path", "data.items", "data.users", "data.schema") and value != "-":
            path = Path(value)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir(exist_ok=True)


def check(words: list[str]) -> None:
    """Check a command without running it; a pattern is two files, and any device is there."""
    words = [name for word in words for name in ([f"{word}1", f"{word}2"] if is_pattern(word) else [word])]
    words = [word for word in words if word != "device=cuda"]
    if words[0] == "--cfg":
        compose(words[2:])
    elif verb := VERBS.get(words[0]):
        if any(words[0].replace("-", "_") in methods for methods in predictors()):
            check_predictor(words)
        elif "--help" not in words:
            verb.parser(words[0]).parse(verb.prepare(verb.parser(words[0]), words[1:]))
    elif "-m" in words or any(word.startswith("seeds=") for word in words):
        settings = with_paths([word for word in words if word != "-m"])
        if chosen_engines(settings)[1]:
            return
        frozen(with_seeds(settings))
    else:
        settings = [word for word in words if word not in ("-q", "--quiet", "-v", "--verbose")]
        plan(compose(with_paths(settings)))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_patterns_match_the_folders_that_the_sweeps_of_their_page_make(page: Path, here: Path) -> None:
    commands = dlrun_commands(page)
    patterns = {word for words in commands for word in words if is_pattern(word) and word.startswith("runs/")}
    folders = [folder for words in commands if patterns and words[0] == "-m" for folder in folders_of(words[1:])]
    for pattern in patterns if folders else ():
        assert fnmatch.filter(folders, pattern), pattern


def folders_of(words: list[str]) -> Iterator[str]:
    """Yield the folders that a sweep makes: its own, and those of its runs."""
    make_paths(words)
    settings = with_paths(words)
    if chosen_engines(settings)[1]:
        return
    folder, jobs = frozen(with_seeds(settings))
    yield str(folder.relative_to(Path.cwd()))
    for job in jobs:
        choices = job.config["choices"]
        yield f"runs/{choices['task']}/{run_label(job.overrides, choices, job.swept)}-{job.signature or '0' * 8}"


def is_pattern(word: str) -> bool:
    """Return whether the shell replaces a word by files; a setting is none."""
    return "*" in word and not re.match(r"\+*[\w.]+=", word)


def predictors() -> Iterator[dict[str, object]]:
    """Yield the methods of the predictor of each task."""
    for task in options_of("task"):
        target = compose([f"task={task}"])["task"]["_target_"]
        if methods := predictor_methods(target):
            yield dict(methods)


def check_predictor(words: list[str]) -> None:
    """Check that the predictor of a task has a method with these options."""
    verb, method = VERBS[words[0]], words[0].replace("-", "_")
    errors = []
    for methods in predictors():
        if function := methods.get(method):
            parser: Parser = verb.parser(words[0])
            for option in options_of_method(function):  # type: ignore[arg-type]
                option.add_to(parser)
            if not returns_text(function):  # type: ignore[arg-type]
                add_result_options(parser)
            try:
                parser.parse([word for word in words[1:] if word != "--help"])
            except ConfigError as error:
                errors.append(str(error))
            else:
                return
    raise ConfigError("\n".join(errors))


def test_documented_targets_of_the_makefile_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        for name in re.findall(r"`make ([a-z-]+)", page.read_text("utf-8")):
            assert name in targets, (name_of(page), name)
