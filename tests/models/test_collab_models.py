"""The models of ratings against their formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from dlrunner.models.collab import Dot, DotBias, Net, RatingDims, RatingModel
from dlrunner.models.dropout import Dropout
from dlrunner.models.rated_items import RatedItems
from dlrunner.models.svdpp import SVDpp

DIMS = RatingDims(num_users=5, num_items=7, min_rating=0.5, max_rating=5.0)
USERS, ITEMS = torch.tensor([0, 4, 2]), torch.tensor([6, 0, 3])
RATED = replace(
    DIMS,
    mean_rating=3.2,
    rated_users=torch.tensor([0, 0, 0, 4, 2]),
    rated_items=torch.tensor([1, 5, 2, 6, 5]),
    user_attributes=torch.linspace(0, 1, 10).view(5, 2),
    item_attributes=torch.linspace(-1, 1, 21).view(7, 3),
)


def many_rated() -> RatedItems:
    """Return items of five users: of one a sample of 30, of two others fewer, of two none."""
    users = torch.tensor([0] * 46 + [2, 3] * 27)
    rated = RatedItems(users, torch.arange(100) ** 2 % 13, 5, 13, factors=50, most=30)
    torch.nn.init.normal_(rated.weight, generator=torch.Generator().manual_seed(0))
    return rated


def svdpp(**settings: Any) -> SVDpp:
    """Return a model of which no weight is 0."""
    torch.manual_seed(0)
    model = SVDpp(RATED, factors=3, **settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


MODELS = (Dot(DIMS), DotBias(DIMS, init=0.5), Net(DIMS), svdpp())


def test_dot_is_the_dot_product_of_two_rows() -> None:
    model = Dot(DIMS, factors=3)
    expected = [sum(model.users.weight[u] * model.items.weight[i]) for u, i in zip(USERS, ITEMS, strict=True)]
    torch.testing.assert_close(model(USERS, ITEMS), torch.stack(expected))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "settings"), [(DotBias, {"start_at_mean": True}), (SVDpp, {})])
def test_predictions_start_at_the_mean_of_skewed_ratings(kind: Any, settings: Any) -> None:
    dims = replace(RATED, max_rating=10_000.0, mean_rating=8.0, user_attributes=None, item_attributes=None)
    ratings = kind(dims, init=1e-6, **settings)(USERS, ITEMS).detach()
    torch.testing.assert_close(ratings, torch.full((3,), 8.0), rtol=1e-3, atol=0.0)


def test_dot_bias_adds_both_biases_and_stays_within_the_ratings() -> None:
    model = DotBias(DIMS, factors=3, init=2.0)
    u, i = USERS[0], ITEMS[0]
    match = model.users.weight[u] @ model.items.weight[i] + model.user_bias.weight[u] + model.item_bias.weight[i]
    torch.testing.assert_close(model(USERS, ITEMS)[:1], torch.sigmoid(match) * 4.5 + 0.5)
    wide = DotBias(DIMS, init=100.0)(torch.arange(5).repeat(7), torch.arange(7).repeat_interleave(5)).detach()
    assert 0.5 <= float(wide.min()) < 0.6
    assert 4.9 < float(wide.max()) <= 5.0


def test_a_margin_widens_the_range() -> None:
    wide = DotBias(DIMS, init=100.0, margin=0.5)(
        torch.arange(5).repeat(7), torch.arange(7).repeat_interleave(5)
    ).detach()
    assert float(wide.min()) < 0.1
    assert float(wide.max()) > 5.4


def test_the_net_takes_sizes_apart_layers_genres_and_time() -> None:
    genres = torch.eye(7, 3)
    dims = RatingDims(5, 7, 0.5, 5.0, item_genres=genres, has_time=True)
    model = Net(
        dims, user_factors=4, item_factors=6, hidden=[9, 8], dropouts=[0.1, 0.2, 0.3], genre_factors=2, time=True
    )
    linear = [layer for layer in model.layers if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(4 + 6 + 2 + 1, 9), (9, 8), (8, 1)]
    assert [layer.p for layer in model.layers if isinstance(layer, Dropout)] == [0.1, 0.2, 0.3]
    model.eval()
    early, late = (model(USERS, ITEMS, torch.full((3,), time)) for time in (-1.0, 1.0))
    assert not torch.equal(early, late)
    model(USERS, ITEMS, torch.zeros(3)).sum().backward()
    assert model.genres is not None
    assert model.genres.weight.grad is not None
    assert bool(model.genres.weight.grad.any())


@pytest.mark.parametrize("kind", ["kaiming", "xavier", "torch"])
def test_linear_layers_start_as_asked(kind: str) -> None:
    torch.manual_seed(0)
    model = Net(DIMS, factors=200, hidden=[300], linear_init=kind)  # type: ignore[arg-type]
    layer = model.layers[1]
    assert isinstance(layer, torch.nn.Linear)
    expected = {"kaiming": (2 / 400) ** 0.5, "xavier": (2 / 700) ** 0.5, "torch": (1 / 3 / 400) ** 0.5}[kind]
    assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.02)


def test_embeddings_start_uniform_or_normal() -> None:
    torch.manual_seed(0)
    big = RatingDims(1000, 1000, 0.5, 5)
    uniform = Dot(big, init=[0.0, 0.05]).users.weight.detach()
    assert (float(uniform.min()) >= 0, float(uniform.max()) <= 0.05) == (True, True)
    assert float(uniform.mean()) == pytest.approx(0.025, rel=0.02)
    assert float(Dot(big, init=0.3).users.weight.detach().std()) == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("model", MODELS, ids=["dot", "dot_bias", "net", "svdpp"])
def test_an_extended_model_answers_as_before_and_knows_one_more(model: RatingModel) -> None:
    model.eval()
    extended = model.extended().eval()
    torch.testing.assert_close(extended(USERS, ITEMS), model(USERS, ITEMS))
    assert extended(torch.tensor([5]), torch.tensor([7])).isfinite().all()
    assert model.user_tables()[0].num_embeddings == 5


def test_an_unknown_user_gets_the_answer_of_the_biases() -> None:
    model = DotBias(DIMS, init=0.5)
    answer = model.extended()(torch.tensor([5]), torch.tensor([3]))
    expected = torch.sigmoid(model.user_bias.weight.mean() + model.item_bias.weight[3]) * 4.5 + 0.5
    torch.testing.assert_close(answer, expected)


def test_svdpp_adds_the_factors_of_rated_items_and_what_attributes_give() -> None:
    model = svdpp()
    assert model.implicit is not None
    assert model.of_user is not None
    assert model.of_item is not None
    user, item = 0, 3
    assert RATED.user_attributes is not None
    assert RATED.item_attributes is not None
    x, z = RATED.user_attributes[user], RATED.item_attributes[item]
    rated = model.implicit.weight[[1, 5, 2]].sum(0) / 3**0.5
    p = model.base.users.weight[user] + model.of_user.factors.weight @ x + rated
    q = model.base.items.weight[item] + model.of_item.factors.weight @ z
    biases = model.base.user_bias.weight[user] + model.of_user.bias.weight @ x
    biases = biases + model.base.item_bias.weight[item] + model.of_item.bias.weight @ z
    start = math.log((3.2 - 0.5) / (5.0 - 3.2))
    expected = torch.sigmoid(p @ q + biases + start) * 4.5 + 0.5
    torch.testing.assert_close(model(torch.tensor([user]), torch.tensor([item])), expected)


def test_svdpp_starts_at_the_mean_rating_with_small_factors() -> None:
    model = SVDpp(RATED, init=1e-6)
    torch.testing.assert_close(model(USERS, ITEMS), torch.full((3,), 3.2), atol=1e-4, rtol=0)


def test_svdpp_answers_the_same_whether_users_are_made_distinct_or_not() -> None:
    model, users = svdpp(), torch.tensor([4, 0, 4, 3, 0])
    assert model.implicit is not None
    torch.testing.assert_close(model.implicit.of_users(users), model.implicit.of_each(users))
    assert not model.implicit.of_users(torch.tensor([3])).any()  # rated nothing


def test_sums_of_all_users_at_once_are_those_of_some_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    users = torch.tensor([3, 0, 2, 2, 0, 3, 0])
    found = []
    for users_per_row in (2, 0):  # five users: all at once, or those of the batch
        monkeypatch.setattr("dlrunner.models.rated_items.USERS_PER_ROW", users_per_row)
        rated = many_rated()
        for _ in range(2):  # the lists of all are kept
            sums = rated.of_users(users)
            sums.backward(torch.linspace(-1, 2, sums.numel()).view_as(sums))  # type: ignore[no-untyped-call]
        assert (rated._of_all is None) == (users_per_row == 0)
        assert rated.weight.grad is not None
        found.append((sums, rated.weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_of_a_user_with_many_items_the_same_sample_counts_each_time() -> None:
    users, items = torch.arange(200) % 2, torch.arange(200)
    one, two = (RatedItems(users, items, 2, 200, factors=3, most=30) for _ in range(2))
    assert torch.equal(one.flat, two.flat)
    assert one.count.tolist() == [30, 30]
    sample = one.flat[30:].tolist()
    assert len(set(sample)) == 30
    assert set(sample) <= set(range(1, 200, 2))
    assert set(one.state_dict()) == {"weight"}


def test_an_item_that_is_to_be_predicted_does_not_describe_its_user() -> None:
    rated = RatedItems(torch.tensor([0, 0, 0, 1]), torch.tensor([1, 5, 2, 4]), 2, 7, factors=3, most=9)
    torch.nn.init.normal_(rated.weight)
    found = rated.of_each(torch.tensor([0, 0, 1]), without=torch.tensor([5, 6, 4]))
    expected = [rated.weight[[1, 2]].sum(0) / 2**0.5, rated.weight[[1, 5, 2]].sum(0) / 3**0.5, torch.zeros(3)]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("without", [None, torch.tensor([3, 8, 3, 0, 11, 5])])
def test_sums_of_rated_items_are_those_of_lists_that_are_padded(without: torch.Tensor | None) -> None:
    rated, users = many_rated(), torch.tensor([2, 0, 2, 4, 1, 3])
    gradient = torch.randn(len(users), 50, generator=torch.Generator().manual_seed(1))
    found = rated.of_each(users, without)
    found.backward(gradient)  # type: ignore[no-untyped-call]
    of_table, rated.weight.grad = rated.weight.grad, None
    items = torch.zeros(len(users), rated.most, dtype=torch.long)
    counts = torch.zeros(items.shape, dtype=torch.bool)
    for row, user in enumerate(users.tolist()):
        begin, count = int(rated.begin[user]), int(rated.count[user])
        items[row, :count] = rated.flat[begin : begin + count]
        counts[row, :count] = True if without is None else items[row, :count] != without[row]
    expected = torch.nn.functional.embedding_bag(items, rated.weight, mode="sum", per_sample_weights=counts.float())
    expected = expected * counts.sum(dim=1, keepdim=True).clamp(min=1).rsqrt()
    expected.backward(gradient)  # type: ignore[no-untyped-call]
    assert torch.equal(found, expected)
    torch.testing.assert_close(of_table, rated.weight.grad)


def test_a_step_reads_as_many_items_as_were_rated_and_adds_no_gradient_entry_by_entry() -> None:
    rated, users = many_rated(), torch.arange(5)
    with torch.profiler.profile(record_shapes=True) as profile:
        rated.of_each(users).sum().backward()  # type: ignore[no-untyped-call]
    events = {event.name: event.input_shapes for event in profile.events()}
    assert "aten::_embedding_bag_dense_backward" not in events
    assert events["aten::_embedding_bag"][1] == [int(rated.count.sum())]
    assert int(rated.count.sum()) < rated.most * len(users)


@pytest.mark.parametrize("word", ["implicit", "attributes"])
def test_svdpp_without_a_part_does_not_train_it(word: str) -> None:
    names = {name.partition(".")[0] for name, _ in svdpp(**{word: False}).named_parameters()}
    assert names == {"base", "implicit", "of_user", "of_item"} - (
        {"implicit"} if word == "implicit" else {"of_user", "of_item"}
    )


def test_a_new_user_of_svdpp_is_expected_to_be_like_the_rated_items() -> None:
    model, trained, rated = svdpp(), torch.tensor([0, 2, 4]), torch.tensor([1, 5, 2])
    (mean, variance), _ = model.user_prior(trained, rated)
    (nothing, same), _ = model.user_prior(trained, rated[:0])
    assert model.implicit is not None
    torch.testing.assert_close(mean - nothing, model.implicit.weight[rated].sum(0) / 3**0.5)
    torch.testing.assert_close(variance, same)


def test_layer_groups_have_the_names_that_are_counted_before_data_is_read() -> None:
    for model in MODELS:
        assert len(model.layer_groups()) == len(type(model).group_names)
        grouped = {id(p) for group in model.layer_groups() for p in group.parameters()}
        assert grouped == {id(p) for p in model.parameters()}
