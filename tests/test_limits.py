"""How the ceiling of a workload is counted, and what the table says of a low share; nothing is measured here."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import limits
from benchmarks.operators import SIZES, Layout, Machine, Operator, Recorder, ceiling


def recorded(step: Any) -> dict[str, list[Operator]]:
    """Return the operators of a step by name."""
    with Recorder() as recorder:
        step()
    found: dict[str, list[Operator]] = {}
    for operator in recorder.counts:
        found.setdefault(operator.name, []).append(operator)
    return found


def test_products_of_both_passes_are_recorded_with_their_shapes() -> None:
    layer, inputs = nn.Linear(30, 20), torch.ones(8, 30)

    def step() -> None:
        torch.autograd.backward(layer(inputs).sum())

    found = recorded(step)
    given = [each.shape for op in (*found["addmm"], *found["mm"]) for each in op.arguments if isinstance(each, Layout)]
    assert (8, 30) in given
    assert (20, 8) in given, "the gradient of the weights"
    assert {op.part for op in (*found["addmm"], *found["mm"])} == {"products"}
    assert shapes(found["mm"][0]) == [(1, (20, 30))], "it can be called again, with tensors of the same layouts"


def shapes(operator: Operator) -> list[tuple[int, tuple[int, ...]]]:
    """Return how many products of each shape an operator consists of; all ways to compute one agree on it."""
    found = []
    for count, ways in operator.products():
        (shape,) = {tuple(way().shape) for way in ways}
        found.append((count, shape))
    return found


@pytest.mark.parametrize("infers", [True, False])
def test_a_recurrent_layer_is_the_product_of_its_inputs_and_one_of_the_states_for_each_step(infers: bool) -> None:
    layer, inputs = nn.LSTM(6, 5), torch.ones(7, 3, 6)

    def step() -> None:
        if infers:
            with torch.no_grad():
                layer(inputs)
        else:
            torch.autograd.backward(layer(inputs)[0].sum())

    found = recorded(step)
    if "mkldnn_rnn_layer" not in found:
        pytest.skip("this torch has no oneDNN: an LSTM is made of products")
    assert shapes(found["mkldnn_rnn_layer"][0]) == [(1, (21, 20)), (7, (3, 20))]
    for backward in found.get("mkldnn_rnn_layer_backward", []):
        assert shapes(backward) == [(1, (21, 6)), (7, (3, 5)), (1, (20, 6)), (1, (20, 5))]


@pytest.mark.parametrize(("name", "moved"), [("AdamW", 7), ("SGD", 3)])
def test_an_optimizer_reads_and_writes_what_its_formula_needs(name: str, moved: int) -> None:
    weights = nn.Parameter(torch.ones(1000))
    weights.grad = torch.ones(1000)
    optimizer = getattr(torch.optim, name)([weights], lr=0.1, fused=True)
    optimizer.step()
    with Recorder() as recorder:
        for rate in (0.1, 0.2):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
    (fused,) = [operator for operator in recorder.counts if operator.part == "optimizer" and "fused" in operator.name]
    assert recorder.counts[fused] == 2, "steps that differ by their rate are alike"
    assert fused.num_bytes == pytest.approx(moved * 4000, abs=100)


def test_a_lookup_reads_the_chosen_rows_only_and_views_cost_nothing() -> None:
    table, rows = torch.ones(100_000, 16), torch.arange(8)
    found = recorded(lambda: torch.embedding(table, rows).t().unsqueeze(0))
    assert found["embedding"][0].num_bytes == 2 * 8 * 16 * 4 + 8 * 8
    assert all(operator.is_view for operator in (*found["t"], *found["unsqueeze"]))
    assert recorded(lambda: torch.zeros(10, 1).expand(10, 50) * 2)["mul"][0].num_bytes == 40 + 2000


def test_the_ceiling_is_the_sum_over_operators_of_bytes_or_launches() -> None:
    machine = Machine(1, copies=[size * 1e-9 for size in SIZES])
    with Recorder() as recorder:
        torch.ones(10**6).mul_(2)
    found = ceiling(recorder.counts, machine)
    kernels = sum(count for operator, count in recorder.counts.items() if not operator.is_view)
    assert found["launches"] == pytest.approx(kernels * SIZES[0] * 1e-9)
    # ones() writes 4 MB, mul_ reads and writes them
    assert found["launches"] + found["other operators"] == pytest.approx(12e-3, rel=0.01)
    assert ceiling(Counter(), machine) == dict.fromkeys(found, 0.0)


def row(share: float) -> dict[str, Any]:
    """Return measurements of a workload at a share of its ceiling."""
    measured = {"own": [1.0], "ceilings": [{"products": share}]}
    return {"unit": "rows", "threads": 2, "speed": [100.0], "ceiling": [100 / share], "share": [share], **measured}


def test_a_low_share_has_a_reason_or_is_said_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REASONS", {"Tables": "small steps."})
    page = limits.table({"Tables, float32": row(0.5), "Reviews": row(0.3), "Images": row(0.9)}, 1)
    assert "- **Tables**: small steps." in page
    assert "without a known reason: Reviews." in page
    assert "| Images | 100 (100 to 100) rows | 111 | 0.90 (0.90 to 0.90) | 0.90 |" in page
    assert "small steps" not in limits.table({"Tables, float32": row(0.8)}, 1)
