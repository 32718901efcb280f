"""Which setting mattered: the forest finds what was planted, and says when it should not be believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlrunner.comparison.collect import Row
from dlrunner.comparison.importance import Importance, importance
from dlrunner.errors import ConfigError

GROUNDS = {"data": "my.csv", "code": "c", "device": "cpu", "precision": "fp32"}
CHOICES = ("sgd", "adam", "adamw")


def make_row(
    value: float,
    settings: dict[str, Any],
    metric: str = "valid/rmse",
    higher_is_better: bool = False,
    history: Sequence[dict[str, Any]] = (),
) -> Row:
    names = frozenset(settings)
    return Row(Path("run"), "collab", settings, names, metric, higher_is_better, {metric: value}, GROUNDS, history)


def random_search(
    effect: Callable[[dict[str, Any]], float], num_rows: int = 120, noise: float = 0.1, **row: Any
) -> list[Row]:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(num_rows):
        settings = {
            "optim.lr": float(10 ** rng.uniform(-4, 0)),
            "optim": str(rng.choice(CHOICES)),
            "model.factors": int(rng.choice([10, 20, 50])),
            "seed": number % 3,
        }
        rows.append(make_row(effect(settings) + noise * rng.normal(), settings, **row))
    return rows


def test_the_planted_setting_is_found_with_its_fraction_of_the_variance() -> None:
    found = importance(random_search(lambda s: 3.0 * (s["optim"] == "sgd") + 1.0 * (s["model.factors"] == 10)))
    assert list(found.fractions)[:2] == ["optim", "model.factors"]
    assert found.fractions["optim"] == pytest.approx(0.9, abs=0.1)  # variances: 2 and 2/9
    assert found.fractions["model.factors"] == pytest.approx(0.1, abs=0.05)
    assert found.fractions["seed"] < 0.02
    assert found.fractions["optim.lr"] < 0.02
    assert found.r2 > 0.9
    assert found.warnings == []


def test_all_columns_of_a_choice_are_shuffled_together() -> None:
    effects = dict(zip(CHOICES, (0.0, 5.0, -5.0), strict=True))
    found = importance(random_search(lambda s: effects[s["optim"]]))
    assert found.fractions["optim"] == pytest.approx(1.0, abs=0.1)


def test_the_best_region_of_a_number_is_a_range_around_the_optimum() -> None:
    found = importance(random_search(lambda s: (math.log10(s["optim.lr"]) + 2) ** 2, num_rows=200))
    assert found.setting == "optim.lr"
    best = [group for group in found.groups if group.is_best]
    assert 10**-2.8 < best[0].low <= 10**-2 <= best[-1].high < 10**-1.2
    assert [group.low for group in found.groups] == sorted(group.low for group in found.groups)
    assert sum(len(group.values) for group in found.groups) == 200
    assert found.best_region == ", ".join(group.label for group in best)


@pytest.mark.parametrize("higher", [False, True])
def test_the_best_region_is_within_one_standard_error_of_the_best(higher: bool) -> None:
    sign = -1 if higher else 1
    means = {"sgd": [5.0, 5.2], "adam": [1.0, 1.4], "adamw": [1.1, 1.4], "nesterov": [1.3, 1.7]}
    rows = [
        make_row(sign * value, {"optim": optim, "seed": seed}, higher_is_better=higher)
        for optim, values in means.items()
        for seed, value in enumerate(values)
    ]
    found = importance(rows)  # adam: 1.2, its standard error 0.2; adamw 1.25; nesterov 1.5
    assert found.best_region == "adam, adamw"
    assert [group.label for group in found.groups] == ["adam", "adamw", "nesterov", "sgd"]
    assert found.groups[0].error == pytest.approx(0.2)


def test_a_poor_fit_of_the_forest_gives_a_warning() -> None:
    found = importance(random_search(lambda s: 0.0, num_rows=40))
    assert found.r2 < 0.3
    assert "do not trust the importance" in found.warnings[0]


def test_few_runs_give_a_warning_and_fewer_are_refused() -> None:
    rows = random_search(lambda s: float(s["optim"] == "sgd"), num_rows=7)
    assert importance(rows).warnings[0] == "7 runs are few for a random forest: the importance is rough"
    with pytest.raises(ConfigError, match="needs 5 or more runs, not 4"):
        importance(rows[:4])


def test_the_importance_of_the_seed_is_the_noise_floor() -> None:
    found = importance(random_search(lambda s: 2.0 * (s["optim"] == "sgd") + 2.0 * s["seed"]))
    assert found.noise == found.fractions["seed"]
    assert found.noise == max(found.fractions.values())
    assert found.setting == "optim"  # the seed is no setting that anyone could choose


def test_a_diverged_run_does_not_hide_the_others() -> None:
    rows = random_search(lambda s: 3.0 * (s["optim"] == "sgd"))
    rows[5] = make_row(1e6, dict(rows[5].settings))
    found = importance(rows)
    assert found.num_outliers == 1
    assert found.fractions["optim"] > 0.7
    assert found.warnings[0].startswith("1 of 120 runs are outliers")


def test_the_same_runs_give_the_same_importance() -> None:
    rows = random_search(lambda s: math.log10(s["optim.lr"]))
    assert importance(rows) == importance(rows)


def test_null_among_numbers_is_a_value_of_its_own() -> None:
    rows = [
        make_row(1.0 + (clip is None) + i / 100, {"trainer.clip": clip, "seed": i})
        for i in range(5)
        for clip in (None, 0.1, 0.5)
    ]
    found = importance(rows)
    assert found.setting == "trainer.clip"
    assert {group.label for group in found.groups} == {"null", "0.1", "0.5"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [make_row(1.0, dict(row.settings)) for row in rows], "is the same in all runs"),
        (lambda rows: [make_row(row.value, {"seed": i}) for i, row in enumerate(rows)], "no setting differs"),
        (
            lambda rows: [*rows[1:], make_row(0.5, dict(rows[0].settings), metric="valid/accuracy")],
            "of different tasks or metrics",
        ),
    ],
)
def test_runs_without_importance_are_refused(change: Callable[[list[Row]], list[Row]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        importance(change(random_search(lambda s: s["seed"], num_rows=10)))


def test_a_large_sweep_is_explained_in_seconds() -> None:
    found: Importance = importance(random_search(lambda s: math.log10(s["optim.lr"]), num_rows=500))
    assert found.num_rows == 500
    assert found.r2 > 0.9
