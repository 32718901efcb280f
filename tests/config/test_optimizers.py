"""Every optimizer against its formula, on a line fit with gradients by finite differences (lesson 5's spreadsheet)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dlrunner.cli.compose import compose
from dlrunner.config.plan import plan
from dlrunner.errors import ConfigError

Vector = NDArray[np.float64]
X = np.array([0.3, -1.2, 2.0, 0.7, 1.5])
Y = 2.0 * X + 1.0
STEPS = 25


class Line(nn.Module):
    """y = a·x + b, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.5, -0.5], dtype=torch.float64))

    def loss(self) -> torch.Tensor:
        return (self.weights[0] * torch.tensor(X) + self.weights[1] - torch.tensor(Y)).square().mean()


def loss(w: Vector) -> float:
    return float(np.mean((w[0] * X + w[1] - Y) ** 2))


def gradient(w: Vector) -> Vector:
    """By central finite differences: move a little, see what the loss does."""
    h = 1e-6
    return np.array([(loss(w + step) - loss(w - step)) / (2 * h) for step in h * np.eye(2)])


def sgd(w: Vector, lr: float = 0.01, momentum: float = 0.9, wd: float = 0.01, nesterov: bool = False) -> Vector:
    v = np.zeros(2)
    for _ in range(STEPS):
        g = gradient(w) + wd * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def adagrad(w: Vector, lr: float = 0.01, wd: float = 0.01) -> Vector:
    total = np.zeros(2)
    for _ in range(STEPS):
        g = gradient(w) + wd * w
        total = total + g**2
        w = w - lr * g / (np.sqrt(total) + 1e-10)
    return w


def rmsprop(w: Vector, lr: float = 0.01, alpha: float = 0.99, wd: float = 0.01) -> Vector:
    mean = np.zeros(2)
    for _ in range(STEPS):
        g = gradient(w) + wd * w
        mean = alpha * mean + (1 - alpha) * g**2
        w = w - lr * g / (np.sqrt(mean) + 1e-8)
    return w


def adam(
    w: Vector, lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, wd: float = 0.1, decoupled: bool = False
) -> Vector:
    m, s = np.zeros(2), np.zeros(2)
    for t in range(1, STEPS + 1):
        g = gradient(w)
        if decoupled:
            w = w * (1 - lr * wd)
        else:
            g = g + wd * w
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * g**2
        w = w - lr * (m / (1 - beta1**t)) / (np.sqrt(s / (1 - beta2**t)) + 1e-8)
    return w


CASES: dict[str, tuple[list[str], Callable[[Vector], Vector]]] = {
    "sgd": (["optim.weight_decay=0.01"], sgd),
    "nesterov": (["optim.weight_decay=0.01"], lambda w: sgd(w, nesterov=True)),
    "adagrad": (["optim.weight_decay=0.01"], adagrad),
    "rmsprop": (["optim.weight_decay=0.01"], rmsprop),
    "adam": (["optim.weight_decay=0.1", "optim.betas=[0.9,0.99]"], adam),
    "adamw": (["optim.weight_decay=0.1", "optim.betas=[0.9,0.99]"], lambda w: adam(w, decoupled=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_optimizer_follows_its_formula(name: str) -> None:
    settings, formula = CASES[name]
    line = Line()
    optimizer = plan(compose([f"optim={name}", "optim.lr=0.01", *settings])).make_optimizer([line])
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.autograd.backward(line.loss())
        optimizer.step()
    np.testing.assert_allclose(line.weights.detach().numpy(), formula(np.array([0.5, -0.5])), rtol=1e-6)


def test_decay_in_the_gradient_and_decoupled_decay_are_different_things() -> None:
    start = np.array([0.5, -0.5])
    assert not np.allclose(adam(start), adam(start, decoupled=True), rtol=1e-3)


def test_gradients_agree_with_finite_differences() -> None:
    line = Line()
    torch.autograd.backward(line.loss())
    assert line.weights.grad is not None
    np.testing.assert_allclose(line.weights.grad.numpy(), gradient(np.array([0.5, -0.5])), rtol=1e-6)


def test_rates_and_decay_can_differ_by_layer_group() -> None:
    checked = plan(compose(["optim=adamw", "optim.lr=[0.001,0.01]", "optim.weight_decay=[0.2,0.0]"]))
    groups = checked.make_optimizer([Line(), Line()]).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.001, 0.2), (0.01, 0.0)]


@pytest.mark.parametrize("wrong", ["lr: [1e-4,1e-3]", "freeze_to: -4", "freeze_to: 3"])
def test_a_later_phase_that_does_not_fit_the_layers_is_refused_before_the_first_trains(wrong: str) -> None:
    phases = f"phases=[{{epochs: 1}}, {{epochs: 1, {wrong}}}]"
    checked = plan(compose(["task=imdb-sentiment", "model.layers=null", "epochs=null", phases]))
    with pytest.raises(ConfigError, match=r"phases\[1\].*3 layer group"):
        checked.make_optimizer([Line(), Line(), Line()])


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adagrad", "adam", "adamw"])
def test_optimizers_are_fused_where_torch_has_it(name: str) -> None:
    assert plan(compose(["task=rossmann", f"optim={name}", "device=cpu"])).make_optimizer([Line()]).defaults["fused"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim=nesterov", "optim.momentum=0.0", "schedule=constant"], "Nesterov momentum requires a momentum"),
        (["optim=nesterov", "+optim.dampening=0.1"], "zero dampening"),
        (["optim=adam", "+optim.fused=true", "+optim.foreach=true"], "foreach"),
        (["optim=adam", "+optim.differentiable=true"], "optim.differentiable: a step is never part of a gradient"),
    ],
)
def test_what_an_optimizer_refuses_is_refused_with_the_settings(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(compose(["task=collab", *words]))
