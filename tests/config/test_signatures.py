"""Signatures read from source: they say what the imported ones say, and what they refuse the full check refuses too."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dlrunner.cli.compose import compose
from dlrunner.cli.conf_paths import options_of
from dlrunner.config.conf_files import package_conf
from dlrunner.config.plan import plan
from dlrunner.config.signatures import MADE, EarlyCheck
from dlrunner.config.source_signatures import signature_in_source
from dlrunner.config.suggestions import PROVIDED
from dlrunner.errors import ConfigError
from dlrunner.files.plain_data import read_yaml


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "." in str(node.get("_target_", "")):
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)


TARGETS = sorted({name for file in package_conf().rglob("*.yaml") for name in targets(read_yaml(file.read_text()))})


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_read_from_source_is_what_importing_tells(target: str) -> None:
    module, _, name = target.rpartition(".")
    imported = getattr(importlib.import_module(module), name)
    read = signature_in_source(target)
    assert read is not None
    assert read.makes & set(MADE.values())

    def told(parameters: Mapping[str, inspect.Parameter]) -> list[tuple[str, Any, bool]]:
        return [(p.name, p.kind, p.default is p.empty) for p in parameters.values()]

    assert told(read.parameters) == told(inspect.signature(imported).parameters)
    if not target.startswith("torch."):
        constructor = getattr(imported, "__init__") if isinstance(imported, type) else imported  # noqa: B009
        hints = typing.get_type_hints(constructor, None, None, True)
        if "self" not in hints and read.parameters:
            assert set(hints) - set(read.hints) <= {"return"}.union(*PROVIDED.values())
        assert {name: repr(hint) for name, hint in read.hints.items()} == {n: repr(hints[n]) for n in read.hints}


WRONG = [
    "epochs=-1",
    "epchs=3",
    "optim.lrr=1 model.factor=5",
    "optim.lr=abc",
    "model.factors=0",
    "data.sauce=real data.valid=2",
    "task.valid_batch_size=0",
    "trainer.clip=0 schedule.warmup=1.5",
    "epochs=null phases=[{epochs:1,schedule:{_target_:step,gama:1}}]",
    "log=tensorboard log.trackers.tensorboard.x=1",
]


@pytest.mark.parametrize("words", WRONG)
def test_what_is_refused_early_is_refused_in_the_same_words(words: str) -> None:
    config = compose(["task=collab", *words.split()])
    with pytest.raises(ConfigError) as early:
        EarlyCheck()(config)
    with pytest.raises(ConfigError) as full:
        plan(config)
    assert str(early.value) == str(full.value)


def test_a_table_without_a_target_is_refused_early_in_the_same_words(here: Path) -> None:
    (here / "t.csv").write_text("a,b\n1,2\n")
    config = compose(["task=tabular", "data.path=t.csv"])
    with pytest.raises(ConfigError, match="which column is the target") as early:
        EarlyCheck()(config)
    with pytest.raises(ConfigError) as full:
        plan(config).build_data()
    assert str(early.value) == str(full.value)
    EarlyCheck()(compose(["task=tabular", "data.path=t.csv", "data.target=b"]))


@pytest.mark.parametrize("task", options_of("task"))
def test_a_setting_that_no_section_has_is_refused_early_for_every_task(task: str) -> None:
    config = compose(
        [f"task={task}", *(f"{part}.nonsense=1" for part in ("data", "task", "model", "optim", "trainer"))]
    )
    with pytest.raises(ConfigError) as refused:
        EarlyCheck()(config)
    assert str(refused.value).count("nonsense: ") == 5


def test_what_the_source_does_not_tell_is_left_to_the_full_check() -> None:
    for words in (
        ["model._target_=torch.optim.SGD"],
        ["model._target_=dlrunner.tasks.collab.task.Collab"],
        ["schedule._target_=dlrunner.files.paths.user_path"],
        ["model._target_=dlrunner.models.collab.DotBiass"],
        ["model._target_=os.system"],
        ["plugins=[mine]", "optim.lrr=1"],
    ):
        EarlyCheck()(compose(["task=collab", *words]))
