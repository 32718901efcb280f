"""Features of the history: no row sees its block, forecasts see the past alone, planted effects are where they may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID
from dlrunner.data.tabular.history import History
from dlrunner.data.tabular.history_columns import add_history, with_history
from dlrunner.data.tabular.history_settings import HistorySettings
from dlrunner.data.tabular.target_features import TargetFeatures
from dlrunner.errors import ConfigError

FIRST, NUM_DAYS, BLOCK = 16_000, 900, 30
SETTINGS: dict[str, Any] = {"by": ["store"], "within": ["weekday"], "block": BLOCK, "base": True}
VALID_FROM = FIRST + 600


def sales(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return rows of six stores, their days and targets: store, weekday, a slow drift and noise."""
    rng = np.random.default_rng(seed)
    day, store = (each.ravel() for each in np.meshgrid(np.arange(NUM_DAYS), np.arange(6), indexing="ij"))
    frame = pd.DataFrame({"store": store, "weekday": day % 7, "kind": store % 2, "feast": (day % 50 == 20) * 1.0})
    drift = 0.3 * np.sin(day / 120 + store)
    target = 5 + 0.5 * store + 0.1 * (day % 7) + drift + rng.normal(0, 0.05, len(day))
    return frame, FIRST + day, target


def prepared(target: np.ndarray[Any, Any], **changes: Any) -> TargetFeatures:
    frame, days, _ = sales()
    split = np.where((days >= VALID_FROM) & (days < VALID_FROM + BLOCK), VALID, TRAIN).astype(np.int8)
    settings = HistorySettings(**{**SETTINGS, **changes})
    return with_history(settings, frame, days, Regression(["y"]), target, split)


def features(found: TargetFeatures) -> np.ndarray[Any, Any]:
    return found.frame[found.names].to_numpy()


@pytest.mark.parametrize("effects", [[], ["feast", "kind"]])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("start", [VALID_FROM, VALID_FROM + BLOCK, VALID_FROM - 3 * BLOCK])
def test_no_row_sees_its_block(effects: list[str], past: bool, start: int) -> None:
    _, days, target = sales()
    block = (days >= start) & (days < start + BLOCK)
    planted = np.where(block, target + 3, target)
    planted[days == start + 4] -= 7  # an effect of a day that all stores share
    before, after = (features(prepared(values, past=past, effects=effects)) for values in (target, planted))
    np.testing.assert_array_equal(before[block], after[block])
    assert start == VALID_FROM or not np.array_equal(before, after), "other blocks see it, if it is no validation row"


def test_validation_targets_are_seen_by_no_row() -> None:
    _, days, target = sales()
    valid = (days >= VALID_FROM) & (days < VALID_FROM + BLOCK)
    np.testing.assert_array_equal(features(prepared(target)), features(prepared(np.where(valid, 99.0, target))))


@pytest.mark.parametrize("start", [VALID_FROM, VALID_FROM - 5 * BLOCK])
def test_a_forecast_sees_the_past_alone(start: int) -> None:
    _, days, target = sales()
    future = np.where(days >= start, np.random.default_rng(1).normal(0, 9, len(days)), target)
    known = days < start + BLOCK
    before, after = (features(prepared(values, past=True, effects=["feast"])) for values in (target, future))
    np.testing.assert_array_equal(before[known], after[known])
    without, changed = (features(prepared(values)) for values in (target, future))
    assert not np.array_equal(without[known], changed[known]), "without past the days after a block are used"


def test_level_and_latest_residuals_follow_stores_weekdays_and_drift() -> None:
    frame, _, target = sales()
    found = prepared(target)
    valid = found.split == VALID
    level, base = found.frame["history_level"], found.frame["history_base"]
    errors = [float(np.abs(target - values)[valid].mean()) for values in (target.mean(), level, base)]
    assert errors[0] > 3 * errors[1]
    assert errors[1] > 1.5 * errors[2]
    assert found.base == "history_base"
    assert "history_base" not in found.names
    by_weekday = level[valid].groupby(frame["weekday"][valid]).mean()
    assert by_weekday[6] - by_weekday[0] == pytest.approx(0.6, abs=0.05)


def test_the_level_is_its_formula() -> None:
    frame = pd.DataFrame({"store": [0, 0, 0, 1, 1], "weekday": [0, 1, 0, 0, 1]})
    days = np.array([100, 101, 107, 100, 110])
    split = np.array([TRAIN, TRAIN, TRAIN, TRAIN, VALID], dtype=np.int8)
    settings = HistorySettings(by=["store"], within=["weekday"], block=5)
    found = with_history(settings, frame, days, Regression(["y"]), np.array([2.0, 4.0, 3.0, 7.0, 0.0]), split)
    # By hand: mean 4; store 1 has 4 + 3 / 2 = 5.5, store 0 has 4 - 3 / 4 = 3.25; the weekday 1 was seen once, at store 0.
    of_peers = (4.0 - 3.25) / 2
    assert found.frame["history_level"].iloc[4] == pytest.approx(5.5 + of_peers * 6 / 6)


def test_the_same_days_of_other_years_are_found() -> None:
    _, days, target = sales()
    special = np.isin(days, [VALID_FROM + 5 - 364, VALID_FROM + 5 + 364])
    found = prepared(np.where(special, target + 2, target)).frame
    day = found[days == VALID_FROM + 5]
    others = found[(days >= VALID_FROM) & (days < VALID_FROM + BLOCK) & (days != VALID_FROM + 5)]
    for name in ("minus_364", "plus_364"):
        if day[f"history_day_effect_{name}_known"].all():
            assert day[f"history_day_effect_{name}"].min() > others[f"history_day_effect_{name}"].max()
    assert day["history_day_effect_minus_364_known"].all()
    assert not day["history_day_effect_minus_728_known"].any()
    assert "history_day_effect_plus_364" not in prepared(target, past=True).frame


@pytest.mark.parametrize("past", [False, True])
def test_effects_of_categories_are_found(past: bool) -> None:
    frame, days, target = sales()
    feast, even = frame["feast"] == 1, frame["store"] % 2 == 0
    planted = target + feast * np.where(even, 0.6, 0.2)
    found = prepared(planted, past=past, effects=["feast"]).frame[days >= VALID_FROM - 3 * BLOCK]
    # The day's effect is shrunk by 20 rows, over all six stores and over those of the region, which are the same six.
    of_day = 0.4 * (1 - (20 / 26) ** 2)
    assert found["history_day_effect_by_feast"][feast].mean() == pytest.approx(of_day, abs=0.03)
    assert found["history_day_effect_by_feast"][~feast].abs().max() < 0.03
    by_store = found.groupby([frame["feast"], even])["history_residual_by_feast"].mean()
    assert by_store[1, True] == pytest.approx((0.6 - of_day) * 13 / (13 + 8), abs=0.06)  # of 12 to 17 such days
    assert by_store[1, False] == pytest.approx((0.2 - of_day) * 13 / (13 + 8), abs=0.06)
    assert by_store[0].abs().max() < 0.03


def test_a_category_that_no_training_row_has_has_no_effect() -> None:
    frame, days, target = sales()
    state = prepared(target, effects=["feast"]).recipe["history"]
    rows = History.from_state(state).columns(frame.head(6).assign(feast=7.0), np.full(6, int(days.max()) + 3))
    assert (rows[["history_day_effect_by_feast", "history_residual_by_feast"]] == 0).all(axis=None)


def test_the_state_of_an_older_run_has_no_effects() -> None:
    frame, days, target = sales()
    found = prepared(target)
    state = {name: values for name, values in found.recipe["history"].items() if not name.startswith("effect")}
    state["settings"] = {name: value for name, value in state["settings"].items() if name != "effects"}
    pd.testing.assert_frame_equal(add_history(frame, days, {"history": state}), found.frame)


@pytest.mark.parametrize(
    "settings", [{}, {"effects": ["feast", "kind"]}, {"past": True}, {"peers": "kind", "region": "kind"}]
)
def test_what_a_run_stores_gives_the_same_features(settings: dict[str, Any]) -> None:
    frame, days, target = sales()
    found = prepared(target, **settings)
    again = add_history(frame, days, found.recipe)
    pd.testing.assert_frame_equal(again, found.frame)


def test_new_days_form_blocks_after_the_last_training_day_and_new_groups_have_the_mean() -> None:
    _, _, target = sales()
    found = prepared(target)
    last = FIRST + NUM_DAYS - 1
    assert History.from_state(found.recipe["history"]).block_starts(
        np.array([last + 1, last + BLOCK, last + BLOCK + 1])
    ).tolist() == [*(last + 1, last + 1, last + 1 + BLOCK)]
    new = pd.DataFrame({"store": [3, 77], "weekday": [0, 0], "kind": [1, 1]})
    rows = History.from_state(found.recipe["history"]).columns(new, np.array([last + 1, last + 1]))
    assert np.isfinite(rows.to_numpy()).all()
    assert rows["history_level"].iloc[1] == pytest.approx(target.mean() - 0.3, abs=0.1), "of weekday 0"
    assert rows["history_recent_20"].iloc[1] == 0


def test_the_first_days_can_be_history_only() -> None:
    _, days, target = sales()
    found = prepared(target, past=True, warmup=100)
    assert ((found.split == UNUSED) == (days < FIRST + 100)).all()
    with pytest.raises(ConfigError, match="warmup"):
        prepared(target, warmup=10_000)


def test_unknown_columns_and_classes_are_refused() -> None:
    _, _, target = sales()
    with pytest.raises(ConfigError, match="store"):
        prepared(target, by=["stor"])
    with pytest.raises(ConfigError, match="feast"):
        prepared(target, effects=["feest"])


@pytest.mark.parametrize("past", [False, True])
def test_rows_before_all_others_are_found(past: bool) -> None:
    _, _, target = sales()
    found = prepared(target, past=past)
    days = np.array([FIRST - 400, FIRST + 3, FIRST + BLOCK, FIRST + 5000])
    assert History.from_state(found.recipe["history"]).is_empty(days).tolist() == [past, past, False, False]
    assert any("have no history" in note for note in found.notes) == past
    assert not any("have no history" in note for note in prepared(target, past=past, warmup=BLOCK).notes)
