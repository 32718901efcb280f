"""Models of tables: their sizes, ranges, starts, and that one-hot layers are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dlrunner.errors import ConfigError
from dlrunner.models.dropout import Dropout, zeros
from dlrunner.models.tabular import MLP, EmbeddingNet, Linear
from dlrunner.models.tabular_layers import Embeddings, OneHotLinear, TabularDims

DIMS = TabularDims({"Store": 1116, "DayOfWeek": 8, "State": 13}, num_continuous=4, target_low=3.0, target_high=10.0)


def inputs(rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in DIMS.cardinalities.values()], 1)
    return codes.int(), torch.randn(rows, 4, generator=generator)


def test_the_net_is_the_lessons() -> None:
    model = EmbeddingNet(DIMS, hidden=[1000, 500], dropouts=[0.001, 0.01], batch_norm=False, y_range="auto")
    assert [tuple(model.embeddings.of(name).shape) for name in DIMS.cardinalities] == [(1116, 50), (8, 4), (13, 7)]
    for name in DIMS.cardinalities:
        table = model.embeddings.of(name)
        bound = 2 / (table.shape[1] + 1)
        assert table.abs().max() <= bound
        assert float(table.std()) == pytest.approx(bound / 3**0.5, rel=0.25)
    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(65, 1000), (1000, 500), (500, 1)]
    assert float(linear[1].weight.detach().std()) == pytest.approx((2 / 1000) ** 0.5, rel=0.02), "Kaiming"
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [4], "on the numbers alone"
    outputs = model.eval()(*inputs())
    assert outputs.shape == (16,)
    assert ((outputs > 0) & (outputs < 12)).all(), "(0, 1.2 · 10)"


@pytest.mark.parametrize("kind", [EmbeddingNet, MLP, Linear])
@pytest.mark.parametrize(
    ("y_range", "target", "bounds"),
    [
        ("auto", (3.0, 10.0), (0.0, 12.0)),
        ("auto", (-2.0, 3.0), (-3.0, 4.0)),
        ([1.0, 2.0], (0.0, 9.0), (1.0, 2.0)),
    ],
)
def test_outputs_lie_within_their_range(kind: Any, y_range: Any, target: Any, bounds: tuple[float, float]) -> None:
    dims = TabularDims(DIMS.cardinalities, 4, target_low=target[0], target_high=target[1])
    model = kind(dims, y_range=y_range).eval()
    bias = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")][-1]
    for start, bound in zip((-1000.0, 1000.0), bounds, strict=True):
        torch.nn.init.constant_(bias, start)
        torch.testing.assert_close(model(*inputs()), torch.full((16,), bound))


@pytest.mark.parametrize("kind", [EmbeddingNet, MLP, Linear])
def test_models_do_without_categories_or_without_numbers_and_with_classes(kind: Any) -> None:
    codes, numbers = inputs()
    assert kind(TabularDims({}, 4)).eval()(codes[:, :0], numbers).shape == (16,)
    assert kind(TabularDims(DIMS.cardinalities, 0)).eval()(codes, numbers[:, :0]).shape == (16,)
    assert kind(TabularDims(DIMS.cardinalities, 4, num_outputs=3)).eval()(codes, numbers).shape == (16, 3)
    with pytest.raises(ConfigError, match="y_range: is for numeric targets"):
        kind(TabularDims(DIMS.cardinalities, 4, num_outputs=3), y_range="auto")
    with pytest.raises(ConfigError, match="targets that differ"):
        kind(TabularDims(DIMS.cardinalities, 4, target_low=0.0, target_high=0.0), y_range="auto")


@pytest.mark.parametrize("init", ["kaiming", "xavier", "torch"])
def test_a_one_hot_layer_is_the_product_with_one_hot_vectors(init: Any) -> None:
    torch.manual_seed(0)
    layer = OneHotLinear(DIMS, 64, init)
    codes, numbers = inputs()
    hot = [F.one_hot(codes[:, i].long(), n).float() for i, n in enumerate(DIMS.cardinalities.values())]
    weight = torch.cat([layer.categories.weight, layer.numbers])
    expected = torch.cat([*hot, numbers], dim=1) @ weight + layer.bias
    torch.testing.assert_close(layer(codes, numbers), expected)
    num_inputs = 1116 + 8 + 13 + 4
    deviation = {"kaiming": (2 / num_inputs) ** 0.5, "xavier": (2 / (num_inputs + 64)) ** 0.5}
    wanted = deviation.get(init, (1 / (3 * num_inputs)) ** 0.5)
    assert float(weight.detach().std()) == pytest.approx(wanted, rel=0.02)


def test_a_linear_model_is_linear_and_an_mlp_is_not() -> None:
    torch.manual_seed(0)
    codes, numbers = inputs()
    for kind, is_linear in ((Linear, True), (MLP, False)):
        model = kind(DIMS).eval()
        middle = model(codes, numbers * 2) - 2 * model(codes, numbers) + model(codes, numbers * 0)
        assert bool(middle.abs().max() < 1e-5) is is_linear


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu"])
def test_activations_are_what_they_are_called(activation: Any) -> None:
    for model in (EmbeddingNet(DIMS, activation=activation), MLP(DIMS, activation=activation)):
        names = {type(layer).__name__.lower() for layer in model.modules()}
        assert activation in names


def test_sizes_can_be_given_by_column() -> None:
    model = EmbeddingNet(DIMS, embedding_sizes={"Store": 10})
    assert model.embeddings.of("Store").shape == (1116, 10)
    with pytest.raises(ConfigError, match=r"model.embedding_sizes.Stores: .* did you mean Store\?"):
        EmbeddingNet(DIMS, embedding_sizes={"Stores": 10})


def test_dropout_works_on_the_embeddings_and_only_in_training() -> None:
    torch.manual_seed(0)
    model = EmbeddingNet(DIMS, embedding_dropout=0.5, hidden=[8], dropouts=[0.0], batch_norm=False)
    codes, numbers = inputs()
    assert not torch.equal(model(codes, numbers), model(codes, numbers))
    model.eval()
    assert torch.equal(model(codes, numbers), model(codes, numbers))


@pytest.mark.parametrize("kind", [EmbeddingNet, Linear])
def test_the_last_layer_stays_in_float32_under_autocast(kind: Any) -> None:
    """bfloat16 has eight bits: a logarithm of 8.5 would be known only to ±.03, three per cent of the sales."""
    model = kind(DIMS, y_range="auto").eval()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(*inputs())
    assert outputs.dtype == torch.float32
    assert (outputs != outputs.bfloat16().float()).any()


def test_tables_of_the_same_size_are_looked_up_together_and_stay_apart() -> None:
    dims = {"a": 5, "b": 40, "c": 5, "d": 7}
    tables = Embeddings(dims, {"a": 3, "b": 20, "c": 3, "d": 3})
    assert len(tables.tables) == 2
    codes = torch.tensor([[4, 39, 0, 6], [0, 1, 4, 2]], dtype=torch.int32)
    looked_up = tables(codes)
    expected = [torch.cat([tables.of(name)[row[list(dims).index(name)]] for name in "acdb"]) for row in codes]
    torch.testing.assert_close(looked_up.detach(), torch.stack(expected))
    tables(codes)[:, :3].sum().backward()  # of column a alone
    table = tables.tables[0]
    assert isinstance(table, torch.nn.Embedding)
    grad = table.weight.grad
    assert grad is not None
    assert grad.any(dim=1).nonzero().flatten().tolist() == [0, 4]


@pytest.mark.parametrize("p", [0.001, 0.04, 0.2, 0.5])
def test_dropout_drops_independently_with_its_probability(p: float) -> None:
    torch.manual_seed(0)
    layer = Dropout(p).train()
    inputs = torch.ones(40, 20_000, requires_grad=True)
    outputs = layer(inputs)
    dropped = outputs == 0
    assert float(dropped.float().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / 800_000) ** 0.5)
    assert (outputs[~dropped] == 1 / (1 - p)).all()
    neighbours = (dropped[:, 1:] & dropped[:, :-1]).float().mean()
    assert float(neighbours) == pytest.approx(p * p, abs=5 * (p * p / 800_000) ** 0.5 + 1e-6)
    outputs.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, outputs.detach())
    assert torch.equal(layer.eval()(inputs), inputs)
    torch.manual_seed(0)
    again = layer.train()(inputs)
    assert torch.equal(again, outputs), "drawn from torch's generator, which a checkpoint keeps"


def test_the_last_place_can_be_dropped_as_often_as_the_first() -> None:
    torch.manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(4000):
        counts[zeros(10, 0.2)] += 1
    assert float((counts / 4000 - 0.2).abs().max()) < 4 * (0.16 / 4000) ** 0.5


@pytest.mark.parametrize("kind", [EmbeddingNet, MLP, Linear])
@pytest.mark.parametrize("y_range", [None, "auto", [0.0, 20.0]])
def test_outputs_start_near_the_mean_of_the_training_targets(kind: Any, y_range: Any) -> None:
    torch.manual_seed(0)
    dims = TabularDims(DIMS.cardinalities, 4, target_low=3.0, target_high=10.0, target_mean=8.5)
    outputs = kind(dims, y_range=y_range).eval()(*inputs(500)).detach()
    assert float(outputs.mean()) == pytest.approx(8.5, abs=0.6)
    assert float(outputs.std()) < 2.5


def test_outputs_start_at_the_mean_of_skewed_targets_too() -> None:
    dims = TabularDims(DIMS.cardinalities, 4, target_low=0.0, target_high=10_000.0, target_mean=4.0)
    outputs = Linear(dims, y_range="auto").eval()(*inputs(5)).detach()
    torch.testing.assert_close(outputs, torch.full((5,), 4.0), rtol=1e-4, atol=0.0)


def test_kaimings_last_layer_starts_saturated_as_the_lessons_did() -> None:
    torch.manual_seed(0)
    dims = TabularDims(DIMS.cardinalities, 4, target_low=3.0, target_high=10.0, target_mean=8.5)
    settings: Any = {"hidden": [1000, 500], "dropouts": 0.0, "y_range": "auto", "batch_norm": False}
    spreads = [
        float(EmbeddingNet(dims, head_init=init, **settings)(*inputs(500)).detach().std())
        for init in ("target_mean", "kaiming")
    ]
    assert spreads[1] > 5 * spreads[0]
    with pytest.raises(ValueError, match="head_init"):
        EmbeddingNet.check({"hidden": [8], "dropouts": 0.0, "y_range": None, "head_init": "kaiming", "num_nets": 2})


def test_a_linear_model_starts_at_the_mean_whatever_the_seed() -> None:
    """Its few steps would not leave random weights: on three numbers it stayed worse than the mean."""
    numbers = torch.randn(5, 3)
    for seed in range(3):
        torch.manual_seed(seed)
        model = Linear(TabularDims({"a": 4}, num_continuous=3, target_mean=0.5))
        assert torch.equal(model(torch.ones(5, 1, dtype=torch.long), numbers), torch.full((5,), 0.5))
        random = Linear(TabularDims({"a": 4}, num_continuous=3), init="xavier")
        assert random.layer.numbers.std() > 0.1
