"""Names of earlier versions."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from dlrunner.cli.compose import compose
from dlrunner.cli.conf_paths import groups, options_of
from dlrunner.renamed import (
    CLASSES,
    MODULES,
    OPTIONS,
    SETTINGS,
    VALUES,
    new_target,
    present_config,
    present_summary,
    renamed,
)


def test_no_old_name_is_a_new_one() -> None:
    for table in (SETTINGS, OPTIONS, VALUES, CLASSES):
        assert not set(table) & set(table.values())


@pytest.mark.parametrize("module", MODULES)
def test_classes_are_found_where_they_are_now(module: str) -> None:
    assert importlib.import_module(f"dlrunner.{MODULES[module]}")


def test_options_have_moved_to_ones_that_exist() -> None:
    for new in OPTIONS.values():
        group, _, option = new.partition("=")
        assert group in groups()
        assert option in options_of(group)


def test_a_setting_of_another_class_is_not_called_renamed() -> None:
    assert renamed("model.ps", ["dropout"]) == "model.ps is now model.dropout"
    assert renamed("model.ps", ["factors"]) is None
    assert renamed("model.factors") is None


def test_an_old_configuration_is_translated_and_a_new_one_stays() -> None:
    old: dict[str, Any] = {
        "seed": 1,
        "log": {"pictures": False, "report": True},
        "model": {"_target_": "dlrunner.models.image.PictureNet", "ps": 0.1, "wiring": "gluon"},
        "data": {"_target_": "dlrunner.data.dogbreeds.DogBreedsData", "source": "stand-in"},
        "choices": {"task": "dogbreeds", "model": "picture_net"},
        "claim": {"value": 0.8, "flags": ["pictures-overlap-imagenet"]},
    }
    assert present_config(old) == {
        "seed": 1,
        "log": {"plots": False, "report": True},
        "model": {"_target_": "dlrunner.models.image.ImageClassifier", "dropout": 0.1, "variant": "gluon"},
        "data": {"_target_": "dlrunner.data.dogbreeds.dataset.DogBreedsData", "source": "synthetic"},
        "choices": {"task": "dogbreeds", "model": "image_classifier"},
        "claim": {"value": 0.8, "flags": ["images-overlap-imagenet"]},
    }
    new = compose(["task=image", "data.path=x"])
    assert present_config(new) == new


def test_an_old_language_model_compares_as_one_of_today_without_a_pointer() -> None:
    old = {"model": {"_target_": "dlrunner.models.language.LanguageModel", "layers": 3}}
    assert present_config(old)["model"] == {**old["model"], "softmax": "full", "pointer": 0}


def test_an_old_summary_is_translated_and_a_new_one_stays() -> None:
    old = {
        "status": "done",
        "protocol": [{"flag": "validates-on-test", "told": "all rows"}],
        "looks": {"number": 4, "one_look": 0.5},
        "members": {"mean": 1.0, "spread": 0.1},
        "data": {"source": "stand-in", "floor": 0.7},
        "claim": {"verdict": "reached", "flags": ["pictures-overlap-imagenet"], "undeclared": []},
    }
    new = {
        "status": "done",
        "audit": [{"flag": "validates-on-test", "message": "all rows"}],
        "tta": {"num_views": 4, "single_view": 0.5},
        "members": {"mean": 1.0, "std": 0.1},
        "data": {"source": "synthetic", "best_achievable": 0.7},
        "claim": {"verdict": "reached", "flags": ["images-overlap-imagenet"], "undeclared": []},
    }
    assert present_summary(old) == new
    assert present_summary(new) == new
    assert old["members"] == {"mean": 1.0, "spread": 0.1}


def test_a_class_of_a_plugin_keeps_its_name() -> None:
    assert new_target("tasks.text.PictureData") == "tasks.text.PictureData"
