"""A blend is the mean of its nets, each of which sees its own columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.data.core.regression import Regression
from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann
from dlrunner.errors import ConfigError
from dlrunner.models.blend import Blend
from dlrunner.models.tabular_layers import TabularDims
from tests.conftest import QUICK, Dlrun

SMALL: dict[str, Any] = {
    "hidden": [8],
    "dropouts": 0.0,
    "embedding_dropout": 0.0,
    "batch_norm": False,
    "batch_norm_inputs": False,
}
DIMS = TabularDims(
    {"store": 5, "weekday": 8}, 3, continuous=["price", "history_level", "history_year_1"], has_base=True,
    target_mean=8.0, target=Regression(["y"]),
)  # fmt: skip
NETS = [SMALL, {**SMALL, "exclude": ["history_*", "weekday"], "base": False}]


def inputs(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randint(0, 5, (rows, 2), dtype=torch.int32), torch.randn(rows, 4)


def test_a_blend_trains_its_nets_and_predicts_their_mean() -> None:
    model, (codes, numbers) = Blend(DIMS, nets=NETS), inputs()
    of_each = model.train()(codes, numbers)
    assert of_each.shape == (2, 6)
    torch.testing.assert_close(model.eval()(codes, numbers), of_each.mean(dim=0))
    assert float(of_each[1].detach().mean()) == pytest.approx(8, abs=1), (
        "without a base it starts at the mean of the targets"
    )
    assert [len(list(group.children())) for group in model.layer_groups()] == [2, 2]
    counted = sum(p.numel() for group in model.layer_groups() for p in group.parameters())
    assert counted == sum(p.numel() for p in model.parameters())


def test_a_net_sees_no_column_that_it_excludes() -> None:
    model, (codes, numbers) = Blend(DIMS, nets=NETS), inputs()
    before = model.train()(codes, numbers)
    changed, other = numbers + torch.tensor([0, 1.0, 1.0, 1.0]), codes.clone()
    other[:, 1] = (other[:, 1] + 1) % 5
    after = model(other, changed)
    torch.testing.assert_close(before[1], after[1])
    assert (before[0] != after[0]).all()
    with pytest.raises(ConfigError, match="sales"):
        Blend(DIMS, nets=[SMALL, {"exclude": ["sales*"]}])
    with pytest.raises(ConfigError, match=r"model\.nets\[1\]\.base: there is no base"):
        Blend(replace(DIMS, has_base=False), nets=[SMALL, {"base": False}])
    with pytest.raises(ConfigError, match="leaves no column"):
        Blend(DIMS, nets=[SMALL, {"exclude": ["*"]}])


@pytest.mark.parametrize(
    ("net", "expected"), [("{hiden: [8]}", "hiden"), ("{hidden: 8}", "hidden"), ("{hidden: [8], dropouts: [0.1, 0.1]}", "dropouts"), ("{num_nets: 4}", "num_nets")]
)  # fmt: skip
def test_settings_of_a_net_are_checked(net: str, expected: str, here: Any, dlrun: Dlrun) -> None:
    status, _, err = dlrun("task=rossmann", "data.source=synthetic", "model=blend", f"model.nets=[{{}},{net}]", *QUICK)
    assert status == 2
    assert f"{expected}:" in err


def test_a_blend_learns_and_predicts_as_it_was_evaluated(here: Any, dlrun: Dlrun) -> None:
    nets = "model.nets=[{hidden: [32], dropouts: [0.0]},{hidden: [16], dropouts: [0.0], exclude: ['history_*'], base: false}]"
    history = "data.history={by: [Store], within: [DayOfWeek, Promo], base: true}"
    settings = ("task=rossmann", "data.source=synthetic", "model=blend", "task.baseline=false", "batch_size=128")
    status, out, err = dlrun(*settings, "epochs=2", nets, history, *QUICK)
    assert status == 0, out + err
    folder, _ = write_synthetic_rossmann(Path("chain"))
    train, recorded = pd.read_csv(folder / "train.csv"), pd.read_csv("runs/latest/predictions.csv")
    train[(train["Sales"] > 0) & (train["Date"] >= recorded["Date"].min())].to_csv("again.csv", index=False)
    status, _, err = dlrun("predict", "runs/latest", "again.csv", "--only", "Store,Date", "--out", "answer.csv")
    assert status == 0, err
    both = pd.read_csv("answer.csv").merge(recorded, on=["Store", "Date"])
    np.testing.assert_allclose(both["prediction_x"], both["prediction_y"].round(2), rtol=1e-4)
    assert float(((both["prediction_x"] / both["Sales"] - 1) ** 2).mean() ** 0.5) < 0.2
