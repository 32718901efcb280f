"""A stranger adds a task with one YAML file and one module, in their own folder, without touching the package."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Dlrun, start

YAML = """\
# @package _global_
# dlrun task=parabola
defaults:
  - override /model: wiggle
  - override /optim: adamw

epochs: 60
batch_size: 16
optim:
  lr: 0.02
  weight_decay: 0.0
plugins: [parabola]
task:
  _target_: parabola.Parabola
  num_points: 200
"""

MODEL = """\
# dlrun task=parabola model=wiggle
_target_: parabola.Wiggle
hidden: 16
"""

MODULE = '''
"""y = x², learnt by a small net."""

from dataclasses import dataclass

import torch
from torch import nn

from dlrunner.data.batching import TensorLoader, epoch_order
from dlrunner.metrics import RootMeanSquaredError
from dlrunner.model import Model
from dlrunner.ranges import Count
from dlrunner.task import Task


@dataclass
class Dims:
    inputs: int


class Parabola(Task):
    def __init__(self, batch_size: int, seed: int, *, num_points: Count = 100) -> None:
        self.batch_size, self.seed = batch_size, seed
        self.x = torch.linspace(-1, 1, num_points).unsqueeze(1)
        self.y = self.x.squeeze(1) ** 2

    @property
    def dims(self) -> Dims:
        return Dims(1)

    def batches(self, split, epoch, start=0):
        rows = torch.arange(len(self.y)) % 5 == 0
        rows = rows if split == "valid" else ~rows
        order = epoch_order(int(rows.sum()), self.seed, epoch) if split == "train" else None
        return TensorLoader([self.x[rows]], self.y[rows], self.batch_size, order, start)

    def loss(self, outputs, targets):
        return (outputs - targets).square().mean()

    def metrics(self):
        return {"rmse": RootMeanSquaredError()}


class Wiggle(Model):
    def __init__(self, dims: Dims, *, hidden: Count = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dims.inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x):
        return self.layers(x).squeeze(1)
'''


def add_task(here: Path) -> None:
    for group, name, text in (("task", "parabola", YAML), ("model", "wiggle", MODEL)):
        (here / "conf" / group).mkdir(parents=True)
        (here / "conf" / group / f"{name}.yaml").write_text(text)
    (here / "parabola.py").write_text(MODULE)


def test_an_own_task_runs_resumes_and_is_strict(here: Path) -> None:
    add_task(here)
    process = start("task=parabola", cwd=here)
    _, err = process.communicate()
    assert process.returncode == 0, err
    (run,) = (path for path in (here / "runs" / "parabola").iterdir() if path.is_dir())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metric"]["value"] < 0.1
    assert (run / "plots" / "losses.png").exists()
    again = start("task=parabola", cwd=here)
    assert "already finished" in again.communicate()[0]
    # Its settings are checked like the package's own.
    for word, said in (
        ("task.num_points=0", "task.num_points: must be greater than or equal to 1"),
        ("task.num_point=9", "did you mean num_points?"),
        ("model=dot_bias", "dot_bias does not fit task parabola: it takes RatingDims, the task provides Dims"),
    ):
        wrong = start("task=parabola", word, cwd=here)
        _, err = wrong.communicate()
        assert wrong.returncode == 2, err
        assert said in err
    (here / "parabola.py").write_text(MODULE.replace(", start=0)", ")").replace(", start)", ")"))
    old = start("task=parabola", cwd=here)
    assert "batches has no parameter start" in old.communicate()[1]
    assert old.returncode == 2
    # A changed module is changed code: nothing stale is shown.
    (here / "parabola.py").write_text(MODULE.replace("** 2", "** 4"))
    changed = start("task=parabola", cwd=here)
    assert "the code changed since" in changed.communicate()[0]


def test_help_and_did_you_mean_know_own_options(dlrun: Dlrun, here: Path) -> None:
    add_task(here)
    assert "parabola" in dlrun("--help")[1]
    assert "did you mean parabola?" in dlrun("task=parabole")[2]
