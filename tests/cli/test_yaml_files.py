"""Settings that a file makes for another optimizer or model than the chosen one are not used; its own stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlrunner.cli.compose import compose
from dlrunner.errors import ConfigError


def write(here: Path, option: str, text: str) -> None:
    file = here / "conf" / f"{option}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if option.startswith("model/") else f"# @package _global_\n{text}")


def optim(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = compose(words)["optim"]
    return found


def model(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = compose(words)["model"]
    return found


def test_an_experiments_settings_of_another_optimizer_give_way_to_the_tasks_for_the_chosen_one() -> None:
    expected = optim("task=movielens", "optim=adamw")
    for experiment in ("movielens-dot-bias", "movielens-net"):
        assert optim(f"experiment={experiment}") != optim("task=movielens")
        assert optim(f"experiment={experiment}", "optim=adamw") == expected
        assert optim(f"experiment={experiment}", "optim=adamw", "optim.eps=0.5") == expected | {"eps": 0.5}


def test_an_own_experiments_rate_is_that_of_its_optimizer(here: Path) -> None:
    write(here, "experiment/mine", "defaults: [{override /task: lm}, {override /optim: sgd}]\noptim: {lr: 1e+1}\n")
    assert optim("experiment=mine")["lr"] == 10
    assert optim("experiment=mine", "optim=adam") == optim("task=lm")
    assert optim("experiment=mine", "optim=adam")["lr"] == 5e-3  # a number, as Hydra reads it


def test_the_tasks_momentum_is_kept_where_the_typed_schedule_moves_none() -> None:
    assert optim("task=lm", "schedule=one_cycle")["betas"] == [0.9, 0.999]
    assert optim("task=lm", "schedule=one_cycle", "schedule.momentum=null")["betas"] == optim("task=lm")["betas"]


def test_a_users_settings_of_the_chosen_model_stay_whatever_its_file_lists(here: Path) -> None:
    write(here, "model/mine", "_target_: mine.Net\n")
    write(here, "task/mine", "defaults: [{override /model: mine}]\ntask: {_target_: mine.Task}\nmodel: {hidden: 99}\n")
    assert model("task=mine") == {"_target_": "mine.Net", "hidden": 99}
    assert "hidden" not in model("task=mine", "model=dot_bias")
    write(here, "task/mistyped", "defaults: [lm@_here_]\nmodel: {embeding: 333}\n")
    assert model("task=mistyped")["embeding"] == 333  # is refused with what it may mean


def test_a_model_that_a_task_describes_takes_nothing_of_the_inherited_one(here: Path) -> None:
    described = "defaults: [lm@_here_, {override /model: null}]\nmodel: {_target_: mine.Net, hidden: 99}\n"
    write(here, "task/mine", described)
    assert model("task=mine") == {"_target_": "mine.Net", "hidden": 99}


def test_numbers_of_another_model_are_removed_as_hydra_reads_them(here: Path) -> None:
    write(
        here, "task/mine",
        "defaults: [text@_here_, {override /model: text_classifier}]\nmodel: {input_dropout: 1e-1, max_len: 700}\n",
    )  # fmt: skip
    assert model("task=mine")["input_dropout"] == 0.1
    assert model("task=mine", "model=ngrams") == model("task=text")


def test_a_users_config_yaml_is_refused_and_not_ignored(here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "config.yaml").write_text("seed: 77\n")
    with pytest.raises(ConfigError, match=r"conf/config\.yaml is not read"):
        compose(["task=collab"])
