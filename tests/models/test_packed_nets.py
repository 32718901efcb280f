"""Bins between quantiles, and several nets in one model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.targets import Binary, MultiClass
from dlrunner.data.tabular.preprocessing import NUM_QUANTILES, TabularPreprocessor
from dlrunner.models.quantile_encoding import QuantileEncoding
from dlrunner.models.tabular import EmbeddingNet
from dlrunner.models.tabular_layers import TabularDims
from dlrunner.tasks.tabular.defaults import recommended_for

QUANTILES = [np.linspace(-2, 2, NUM_QUANTILES).tolist(), []]


def net(num_nets: int, target: Any = None, **settings: Any) -> EmbeddingNet:
    torch.manual_seed(0)
    target = target or Regression(["y"])
    dims = TabularDims({"a": 3}, 2, num_outputs=target.num_outputs, quantiles=QUANTILES, target=target)
    return EmbeddingNet(dims, embedding_dropout=0.0, hidden=[8, 4], dropouts=[0.0, 0.0], num_nets=num_nets, **settings)


def inputs(rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 3, (rows, 1), generator=generator), torch.randn(rows, 2, generator=generator)


def test_the_encoding_is_linear_within_a_bin_and_constant_outside() -> None:
    encoding = QuantileEncoding([[0.0, 1.0, 3.0]], bins=2)
    found = encoding(torch.tensor([[0.0], [0.5], [1.0], [2.0], [3.0]]))
    assert found.tolist() == [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1]]
    beyond = encoding(torch.tensor([[-1.0], [5.0], [1e9]]))
    assert beyond.tolist() == [[-1.0, 0.0], [1.0, 2.0], [1.0, 3.0]]  # told apart, but not without limit


def test_a_column_of_zeros_and_few_other_numbers_has_bins_for_those() -> None:
    column = np.where(np.arange(1000) % 10 == 0, np.arange(1000), 0)
    processor = TabularPreprocessor.fit(pd.DataFrame({"gain": column}), [], ["gain"])
    assert QuantileEncoding([processor.quantiles["gain"]], bins=32).size >= 20
    steady = TabularPreprocessor.fit(pd.DataFrame({"n": np.arange(1000)}), [], ["n"])
    known = np.array(steady.quantiles["n"]) * steady.deviations["n"] + steady.means["n"]
    assert np.allclose(known, np.quantile(np.arange(1000), np.linspace(0, 1, len(known))))


def test_equal_quantiles_share_a_bin_and_indicators_have_none() -> None:
    assert QuantileEncoding([[0.0, 0.0, 0.0, 1.0]], bins=3).size == 1
    assert QuantileEncoding([[], [1.0, 1.0]], bins=4).size == 0
    assert net(1, bins=8).encoding is not None


@pytest.mark.parametrize(
    "target", [Regression(["y"]), Binary(["y"], ["a", "b"]), MultiClass(["y"], ["a", "b", "c"])], ids=lambda t: t.kind
)
def test_in_evaluation_the_outputs_are_the_average_of_the_nets(target: Any) -> None:
    model = net(3, target, batch_norm=False, batch_norm_inputs=False)
    outputs = model(*inputs())
    shape = (16, 3) if target.kind == "multiclass" else (16,)
    assert outputs.shape == (3, *shape)
    assert torch.allclose(model.eval()(*inputs()), target.average(outputs.unbind(0)), atol=1e-6)


def test_the_nets_differ_from_the_start_and_are_trained_apart() -> None:
    model = net(2, batch_norm=False)
    first, second = model(*inputs()).detach()
    assert not torch.allclose(first, second)
    model(*inputs())[0].sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients["layers.scales"][0].abs().sum() > 0
    assert gradients["layers.scales"][1].abs().sum() == 0  # the loss of the first net does not reach the second


def test_one_net_is_the_net_without_packing() -> None:
    assert isinstance(net(1).layers, nn.Sequential)
    assert net(1, bins="auto").encoding is None


def test_more_rows_have_larger_batches_fewer_epochs_and_fewer_nets() -> None:
    rows = [100, 800, 3_000, 16_000, 100_000, 1_000_000, 10_000_000]
    found = [recommended_for(count) for count in rows]
    for name, rises in (("batch_size", True), ("epochs", False), ("model.num_nets", False), ("model.bins", True)):
        values = [each[name] for each in found]
        assert values == sorted(values, reverse=not rises)
    assert min(each["epochs"] for each in found) >= 4
