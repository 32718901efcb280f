"""The verb that names and tags finished or unfinished runs."""

from __future__ import annotations

import argparse

from pydantic import TypeAdapter, ValidationError

from dlrunner.cli.run_names import named_run
from dlrunner.config.schema import Name, validation_messages
from dlrunner.errors import ConfigError
from dlrunner.runs.reader import shorter
from dlrunner.runs.tags import Tags, change_tags


def tag(arguments: argparse.Namespace) -> int:
    """Change the name, the tags and the note of a run, and print them."""
    folder = named_run(arguments.run)
    if not ((folder / "run.json").exists() or (folder / "config.yaml").exists()):
        raise ConfigError(f"there is no run folder {folder}; `dlrun ls` lists the runs")
    for title, names in (("--name", [arguments.name] if arguments.name else []), ("tag", arguments.tags)):
        for name in names:
            _check_name(title, name)
    folder = folder.resolve()

    def change(known: Tags) -> Tags:
        if missing := [each for each in arguments.remove if each not in known.tags]:
            raise ConfigError(f"{shorter(folder)} has no tag {missing[0]}; it has {', '.join(known.tags) or 'none'}")
        return known.without(arguments.remove).updated(arguments.name, arguments.note, arguments.tags)

    tags = change_tags(folder, change)
    print(shorter(folder))
    for title, text in tags.lines or [("tags", "none")]:
        print(f"{title:<9}{text}")
    return 0


def _check_name(title: str, name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError("\n".join(validation_messages(title, error, name, None))) from None
