"""The return value of a model: a tensor, or outputs with a hidden state and a penalty."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlrunner.model import forward_pass
from tests.inference.test_export import needs_onnx
from tests.training.test_loop import Counting, Shrinking, TwoGroups

X = torch.arange(5.0)


def test_a_model_may_return_its_outputs_alone() -> None:
    model = TwoGroups()
    outputs, hidden, penalty = forward_pass(model, X, hidden=torch.ones(1, 1))  # only for stateful models
    assert torch.equal(outputs, model(X))
    assert hidden is None
    assert penalty is None


def test_a_wrapped_model_is_called_instead() -> None:
    model = Counting()
    given: list[object] = []

    def wrapped(x: torch.Tensor, hidden: object) -> torch.Tensor:
        given.append(hidden)
        return x + 1

    assert torch.equal(forward_pass(model, X, hidden=7, wrapped=wrapped).outputs, X + 1)
    assert given == [7]
    assert model.seen == []


@needs_onnx
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's older exporter
@pytest.mark.parametrize("kind", [Counting, Shrinking])
def test_an_onnx_graph_has_only_the_outputs(kind: type[TwoGroups], here: Path) -> None:
    import onnxruntime

    model = kind().eval()
    torch.onnx.export(model.graph(), (X,), here / "model.onnx", dynamo=False, input_names=["x"])
    (found,) = onnxruntime.InferenceSession(here / "model.onnx").run(None, {"x": X.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), forward_pass(model, X).outputs.detach())
