"""A stranger adds a task with one YAML file and one module, in their own folder, without touching the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import dlrunner
from dlrunner.errors import ConfigError
from tests.conftest import QUICK, Dlrun, start

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

from dlrunner.data.core.batching import TensorLoader, epoch_order
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

    def batches(self, split, epoch, phase, start=0):
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


PREDICTING = (
    MODULE.replace(
        "class Parabola(Task):\n",
        '''class ParabolaPredictor(Predictor):
    @classmethod
    def dims(cls, state):
        return Dims(1)

    def predict(self, x: float, *, times: Count = 1) -> pd.DataFrame:
        """Return y for x.

        Args:
            x: where: between -1 and 1.
            times: so many rows.
        """
        xs = torch.full((times, 1), x)
        with torch.no_grad():
            return pd.DataFrame({"x": xs.squeeze(1), "y": self.models[0](xs)})

    def find_minimum(self) -> str:
        """Tell where y is least."""
        return "at 0"


class Parabola(Task):
    predictor = ParabolaPredictor

''',
    )
    .replace("import torch\n", "import pandas as pd\nimport torch\n", 1)
    .replace("from dlrunner.ranges", "from dlrunner.predictor import Predictor\nfrom dlrunner.ranges")
)
"""The same task with an inference half."""


def add_task(here: Path, module: str = MODULE) -> None:
    for group, name, text in (("task", "parabola", YAML), ("model", "wiggle", MODEL)):
        (here / "conf" / group).mkdir(parents=True)
        (here / "conf" / group / f"{name}.yaml").write_text(text)
    (here / "parabola.py").write_text(module)


def test_an_own_task_runs_resumes_and_is_strict(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The module is written several times within a second: Python would take a .pyc for that of the present one.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    add_task(here)
    process = start("task=parabola", cwd=here)
    _, err = process.communicate()
    assert process.returncode == 0, err
    (run,) = (path for path in (here / "runs" / "parabola").iterdir() if path.is_dir())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metric"]["value"] < 0.1
    assert (run / "plots" / "losses.svg").exists()
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
    for taken, missing in ((", start=0)", "start"), (", phase, start=0)", "phase and no start")):
        (here / "parabola.py").write_text(MODULE.replace(", phase, start=0)", ", phase, start=0)".replace(taken, ")")))
        old = start("task=parabola", cwd=here)
        assert f"batches takes no {missing}: it must be batches(split, epoch, phase, start=0)" in old.communicate()[1]
        assert old.returncode == 2
    # Test-time augmentation without its batches would fail after training.
    views = "class Parabola(Task):\n    def num_tta_views(self):\n        return 2\n"
    (here / "parabola.py").write_text(MODULE.replace("class Parabola(Task):\n", views))
    old = start("task=parabola", cwd=here)
    assert "parabola.Parabola has num_tta_views but no tta_batches(split, view, phase)" in old.communicate()[1]
    assert old.returncode == 2
    # Alternatives without rows to compare them on would fail after the data is read.
    others = "class Parabola(Task):\n    def alternatives(self, values):\n        return {}\n"
    (here / "parabola.py").write_text(MODULE.replace("class Parabola(Task):\n", others))
    old = start("task=parabola", cwd=here)
    assert "parabola.Parabola has alternatives but no on_training_rows() to compare them on" in old.communicate()[1]
    assert old.returncode == 2
    # Hooks of older versions would be ignored without a word.
    for hook in ("penalty", "carried", "reset_state"):
        (here / "parabola.py").write_text(
            MODULE.replace("class Wiggle(Model):", f"class Wiggle(Model):\n    {hook} = None\n")
        )
        old = start("task=parabola", cwd=here)
        err = old.communicate()[1]
        assert old.returncode == 2, err
        assert f"parabola.Wiggle.{hook} is no longer called; return Outputs(outputs, hidden, penalty)" in err
    # A changed module is changed code: nothing stale is shown.
    (here / "parabola.py").write_text(MODULE.replace("** 2", "** 4"))
    changed = start("task=parabola", cwd=here)
    assert "the code changed since" in changed.communicate()[0]


def test_help_and_did_you_mean_know_own_options(dlrun: Dlrun, here: Path) -> None:
    add_task(here)
    assert "parabola" in dlrun("--help")[1]
    assert "did you mean parabola?" in dlrun("task=parabole")[2]


def test_an_own_task_without_a_predictor_says_so(dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_task(here)
    monkeypatch.syspath_prepend(str(here))
    assert dlrun("task=parabola", "epochs=1", *QUICK)[0] == 0
    for words in (
        ["predict", "runs/latest", "--plugins=parabola", "0.5"],
        ["export", "runs/latest", "--plugins=parabola"],
    ):
        status, _, err = dlrun(*words)
        assert status == 2
        assert "Parabola has no predictor" in err
    with pytest.raises(ConfigError, match="Parabola has no predictor"):
        dlrunner.load("runs/latest", plugins=["parabola"])
    run = dlrunner.run("task=parabola", "epochs=1", *QUICK)
    assert run.metrics.keys() == {"train/loss", "valid/loss", "valid/rmse"}
    assert len(run.history) == 1
    assert "metrics" in dir(run)
    assert not hasattr(run, "predict")
    with pytest.raises(ConfigError, match="Parabola has no predictor"):
        run.predict(0.5)
    sys.modules.pop("parabola")  # elsewhere it is another module


def test_an_own_predictor_has_its_options_in_the_terminal(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_task(here, PREDICTING)
    monkeypatch.syspath_prepend(str(here))
    assert dlrun("task=parabola", "epochs=1", *QUICK)[0] == 0
    asked = ("predict", "runs/latest", "--plugins=parabola")
    status, out, err = dlrun(*asked, "0.25", "--times", "3")
    assert status == 0, err
    assert out.count("0.25") == 3
    for words, told in (
        (["0.25", "--times", "0"], "times: must be greater than or equal to 1, not 0"),
        (["0.25", "--times", "two"], "times: must be an integer, not 'two'"),
        (["far"], "x: must be a number, not 'far'"),
        ([], "predict: the following arguments are required: X; `dlrun predict runs/parabola"),
        (["0.25", "--time", "3"], "there is no option --time; did you mean --times?"),
        (["0.25", "0.5"], "unexpected argument '0.5'"),
    ):
        status, _, err = dlrun(*asked, *words)
        assert status == 2
        assert told in err
        assert sum(not line.startswith("run ") for line in err.strip().splitlines()) == 1
    status, _, err = dlrun("recommend", "runs/latest", "--plugins=parabola", "1")
    assert status == 2
    assert "Parabola has no method recommend; it has predict, find_minimum" in err
    assert dlrun("find-minimum", "runs/latest", "--plugins=parabola")[:2] == (0, "at 0\n")
    status, _, err = dlrun("shw", "runs/latest", "--plugins=parabola")
    assert status == 2
    assert "did you mean show?" in err
    status, help_text, _ = dlrun(*asked, "--help")
    assert status == 0
    assert "Return y for x." in help_text
    assert "where: between -1 and 1" in help_text
    assert "usage: dlrun predict RUN X [options]" in help_text
    assert "other verbs of this run: find-minimum" in help_text
    assert "so many rows (default: 1)" in help_text
    sys.modules.pop("parabola")  # elsewhere it is another module


def test_a_model_of_ones_own_needs_no_setting_that_the_task_makes_for_the_usual_one(here: Path, dlrun: Dlrun) -> None:
    (here / "narrow.py").write_text(
        "from dlrunner.models.language import LanguageDims, LanguageModel\n"
        "class Narrow(LanguageModel):\n"
        "    def __init__(self, dims: LanguageDims, *, width: int = 8) -> None:\n"
        "        super().__init__(dims, embedding=width, hidden=width, layers=1)\n"
    )
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "narrow.yaml").write_text("_target_: narrow.Narrow\nwidth: 8\n")
    (here / "t.txt").write_text("a b c d e f g h\n" * 300)
    words = ("task=lm", "data.path=t.txt", "model=narrow", "plugins=[narrow]", "epochs=1", "task.ngram=0", *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    status, _, err = dlrun(*words, "model.pointer=5")
    assert status == 2
    assert "model.pointer: unknown setting of narrow.Narrow; known: width" in err
    sys.modules.pop("narrow")


def test_a_task_that_describes_its_model_keeps_the_settings_that_the_chosen_option_lacks(
    here: Path, dlrun: Dlrun
) -> None:
    module = MODULE + (
        "\n\nclass Named(Wiggle):\n"
        "    def __init__(self, dims: Dims, *, hidden: Count = 8, title: str = '') -> None:\n"
        "        super().__init__(dims, hidden=hidden)\n"
    )
    add_task(here, module)
    described = YAML + "model:\n  _target_: parabola.Named\n  title: mine\n"
    (here / "conf" / "task" / "parabola.yaml").write_text(described)
    status, out, err = dlrun("task=parabola", "epochs=1", *QUICK)
    assert status == 0, out + err
    settings = next((here / "runs" / "parabola").glob("*/config.yaml")).read_text()
    assert "title: mine" in settings
    sys.modules.pop("parabola")  # elsewhere it is another module
