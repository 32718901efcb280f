"""The learning-rate range test: trains a copy, stops on divergence, writes a plot, a table and a suggestion."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from dlrunner.model import Model
from dlrunner.runs.checkpoints import weights_digest
from dlrunner.schedules import Phase
from dlrunner.system.seeding import generator_states, seed_everything
from dlrunner.task import Batch, Loader, Split, Task
from dlrunner.training import Trainer
from dlrunner.training.lr_finder import RangeTest, range_test
from tests.conftest import QUICK, Dlrun
from tests.training.test_loop import CPU, Counting, Line, TwoGroups, phase, sgd


def test_the_model_and_the_generators_are_left_as_they_were() -> None:
    seed_everything(0)
    model = TwoGroups()
    before, generators = weights_digest(model.state_dict()), copy.deepcopy(generator_states(CPU))
    found = range_test(Line(), model, sgd, Trainer([phase()], CPU, "fp32", 0), num_steps=100)
    assert weights_digest(model.state_dict()) == before
    assert torch.equal(generator_states(CPU)["torch"], generators["torch"])
    assert generator_states(CPU)["python"] == generators["python"]
    assert len(set(found.losses)) > 10


def test_the_hidden_state_is_reset_for_each_epoch() -> None:
    model = Counting()
    range_test(Line(), model, sgd, Trainer([phase()], CPU, "fp32", 0), 1e-5, 1e-4, num_steps=12)
    assert model.seen == [None, 1, 2, 3, 4, None, 1, 2, 3, 4, None, 1]


def test_it_stops_when_the_loss_diverges_and_suggests_a_rate_that_works() -> None:
    seed_everything(0)
    model = TwoGroups()
    found = range_test(Line(), model, sgd, Trainer([phase()], CPU, "fp32", 0), num_steps=300)
    assert found.diverged
    assert found.rates[-1] < 10
    assert found.rates[0] == pytest.approx(1e-8)
    assert found.suggestion is not None
    # Gradient descent on this line converges below about 1 (2 / the largest curvature).
    assert 1e-3 < found.suggestion < 1


def test_each_step_is_one_of_the_first_phase_with_another_rate() -> None:
    """Frozen groups, the proportions of the rates, accumulation, penalties; the task is in that phase too."""
    phases: list[Phase] = []
    seen: list[list[float]] = []
    tuned: list[torch.Tensor] = []

    class Phased(Line):
        def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
            phases.append(phase)
            return super().batches(split, epoch, phase, start)

    def recording(groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        optimizer = sgd(groups)
        optimizer.register_step_pre_hook(lambda o, *_: seen.append([group["lr"] for group in o.param_groups]))
        tuned.extend(parameter for group in optimizer.param_groups for parameter in group["params"])
        return optimizer

    seed_everything(0)
    model, first = TwoGroups(), phase(lr=(0.01, 0.1), freeze_to=1)
    updates: list[bool] = []

    class Counted(Trainer):
        def train_step(
            self,
            task: Task,
            model: Model,
            optimizer: torch.optim.Optimizer,
            batch: Batch,
            update: bool,
            hidden: Any = None,
        ) -> tuple[torch.Tensor, Any]:
            updates.append(update)
            return super().train_step(task, model, optimizer, batch, update, hidden)

    trainer = Counted([first, phase()], CPU, "fp32", 0, accumulate=3)
    found = range_test(Phased(), model, recording, trainer, 1e-5, 1e-2, num_steps=5)
    assert set(map(id, phases)) == {id(first)}
    assert updates == [False, False, True] * 5
    assert len(seen) == len(found.losses) == 5
    assert [rates[1] for rates in seen] == pytest.approx(found.rates)
    assert all(rates[0] == pytest.approx(rates[1] / 10) for rates in seen)
    slope, offset = tuned
    assert torch.equal(slope, model.slope.weight)  # frozen
    assert not torch.equal(offset, model.offset.weight)


def test_a_loss_that_never_falls_gets_no_suggestion() -> None:
    rising = RangeTest(rates=[10.0**i for i in range(-8, 0)], losses=[1.0] * 8, smoothed=[1 + i / 10 for i in range(8)])
    assert rising.suggestion is None


def test_the_steepest_descent_is_found() -> None:
    rates = [10 ** (-8 + i / 10) for i in range(80)]
    smoothed = [1.0 if i < 40 else 1 - (i - 40) * 0.05 if i < 52 else 0.4 + (i - 52) * 0.5 for i in range(80)]
    found = RangeTest(rates, smoothed, smoothed).suggestion
    assert found is not None
    assert rates[40] <= found <= rates[52]


def test_noise_of_the_first_batches_is_not_taken_for_a_descent() -> None:
    """The average of the first losses settles quickly; the effect of the rate is slower."""
    rates = [10 ** (-8 + i / 20) for i in range(160)]
    smoothed = [0.8 - 0.01 * min(i, 30) if i < 100 else 0.5 - 0.001 * (i - 100) for i in range(160)]
    found = RangeTest(rates, smoothed, smoothed).suggestion
    assert found is not None
    assert found > rates[90]


def test_noise_of_the_first_batches_that_is_lower_than_the_loss_ever_is_hides_no_descent() -> None:
    rates = [1e-8 * 10 ** (9 * step / 199) for step in range(200)]
    smoothed = [1.02 + step / 100 for step in range(7)] + [1.08] * 118
    smoothed += [1.08 - step / 900 for step in range(40)] + [1.03 + step / 10 for step in range(35)]
    found = RangeTest(rates, smoothed, smoothed).suggestion
    assert found is not None
    assert rates[125] < found < rates[165]


def test_the_verb_writes_a_plot_and_a_table(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, out, _ = dlrun("lr-find", "task=collab", "data.path=my.csv")
    assert status == 0
    assert "suggestion: optim.lr=" in out
    (folder,) = (here / "runs" / "lr-find").iterdir()
    table = pd.read_csv(folder / "lr_find.csv")
    assert list(table.columns) == ["lr", "loss", "smoothed"]
    assert table["lr"].is_monotonic_increasing
    assert (folder / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    assert dlrun("lr-find", "task=colab")[0] == 2
    # From the weights of a run, as its training would start.
    assert dlrun("task=collab", "data.path=my.csv", "epochs=3", *QUICK)[0] == 0
    assert dlrun("lr-find", "task=collab", "data.path=my.csv", "init=runs/latest")[0] == 0
    (other,) = (path for path in (here / "runs" / "lr-find").iterdir() if path != folder)
    assert pd.read_csv(other / "lr_find.csv")["loss"][0] < 0.9 * table["loss"][0]


def test_the_digest_of_weights_sees_a_single_bit() -> None:
    state = {"a": torch.ones(3), "n": torch.tensor(3)}
    changed = {"a": torch.tensor([1.0, 1.0, 1.0000001]), "n": torch.tensor(3)}
    assert weights_digest(state) != weights_digest(changed)
    assert weights_digest(state) == weights_digest({"n": torch.tensor(3), "a": torch.ones(3)})


def test_a_loss_below_zero_is_no_divergence() -> None:
    class Likelihood(Line):
        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return super().loss(outputs, targets) - 100

    seed_everything(0)
    found = range_test(Likelihood(), TwoGroups(), sgd, Trainer([phase()], CPU, "fp32", 0), num_steps=300)
    assert max(found.losses[:50]) < 0
    assert len(found.losses) > 50
    assert found.suggestion is not None
