"""What makes small steps faster: it changes no number, and hooks, profilers and plugins are served as ever."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dlrunner.cli.compose import compose
from dlrunner.config.plan import plan

SCRIPT = """
import resource
import numpy as np
from dlrunner.system.cpu_tuning import keep_freed_memory

def faults():
    np.ones(8 * 2**20)  # 64 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no mallopt")
def test_memory_that_was_freed_is_kept_for_the_next_tensor() -> None:
    # In a process of its own: the setting stays with a process.
    told = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout
    before, after = (int(pages) for pages in told.split())
    assert before > 100, "the system provides pages anew"
    assert after < before / 20


def optimizer_of(*words: str) -> tuple[torch.optim.Optimizer, nn.Linear]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)
    return plan(compose(["task=rossmann", "device=cpu", *words])).make_optimizer([layer]), layer


def step(optimizer: torch.optim.Optimizer, layer: nn.Linear) -> None:
    layer(torch.ones(2, 3)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_a_shorter_step_moves_weights_to_the_same_bits(name: str) -> None:
    found = []
    for tuned in ("true", "false"):
        optimizer, layer = optimizer_of(f"optim={name}", f"trainer.cpu_tuning={tuned}")
        for _ in range(3):
            step(optimizer, layer)
        assert ("step" in vars(optimizer)) == (tuned == "true")
        found.append(layer.weight.detach().clone())
    assert torch.equal(*found)


def test_hooks_of_a_step_are_called() -> None:
    optimizer, layer = optimizer_of("optim=adamw")
    step(optimizer, layer)
    seen: list[str] = []
    before = optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    after = optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    step(optimizer, layer)
    before.remove()
    after.remove()
    step(optimizer, layer)
    assert seen == ["before", "after"]
    everywhere = register_optimizer_step_pre_hook(lambda *_: seen.append("everywhere"))
    try:
        step(optimizer, layer)
    finally:
        everywhere.remove()
    assert seen[2:] == ["everywhere"]


def test_a_profiler_sees_the_step_by_its_name() -> None:
    optimizer, layer = optimizer_of("optim=adamw")
    with torch.autograd.profiler.profile() as profile:
        step(optimizer, layer)
    assert any(event.name == "Optimizer.step#AdamW.step" for event in profile.function_events)


PLUGIN = """
import torch

class Signs(torch.optim.Optimizer):
    steps = 0

    def __init__(self, params, *, lr: float):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        Signs.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.grad.sign())
"""


def test_an_optimizer_of_a_plugin_is_left_as_it_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "signs.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(here))
    (here / "conf" / "optim").mkdir(parents=True)
    (here / "conf" / "optim" / "signs.yaml").write_text("_target_: signs.Signs\nlr: 0.1\n")
    optimizer, layer = optimizer_of("optim=signs", "plugins=[signs]")
    assert "step" not in vars(optimizer)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    step(optimizer, layer)
    assert seen == ["before"]
    assert vars(type(optimizer))["steps"] == 1
