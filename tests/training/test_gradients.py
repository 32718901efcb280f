"""A step of several processes has the gradients and the batch norm statistics of a step of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrunner.model import Model
from dlrunner.models.language import LanguageDims, LanguageModel
from dlrunner.models.ngram_classifier import NgramClassifier
from dlrunner.models.text import TextClassifier, TextDims
from dlrunner.schedules import Phase, constant
from dlrunner.system.process_group import ProcessGroup, joined
from dlrunner.task import Batch, Task
from dlrunner.tasks.language.task import LanguageModeling
from dlrunner.tasks.text.task import TextClassification
from dlrunner.training import Trainer
from dlrunner.training.distributed import DistributedTrainer
from tests.training.ranks import Ranks

SMALL: dict[str, Any] = {
    "embedding": 6,
    "hidden": 9,
    "layers": 2,
    "alpha": 2.0,
    "beta": 1.0,
    "output_dropout": 0.0,
    "embedding_dropout": 0.0,
    "input_dropout": 0.0,
    "weight_dropout": 0.0,
    "hidden_dropout": 0.0,
}


class Net(Model):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
            *(nn.BatchNorm1d(5, affine=False), nn.Linear(5, 2)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)  # type: ignore[no-any-return]


class Images(Task):
    dims = batches = loss = metrics = None  # type: ignore[assignment]


class Kept:
    """An optimizer that leaves weights and gradients as they are."""

    def __init__(self) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": [], "lr": 1.0}]

    def step(self) -> None:
        pass


def images(count: int) -> Batch:
    return Batch((torch.randn(count, 3, 6, 6).double(),), torch.randint(2, (count,)))


def texts() -> Batch:
    lengths = torch.tensor([40, 9, 8, 7, 6, 5, 4])
    words = torch.randint(2, 50, (7, 40)).where(torch.arange(40) < lengths[:, None], 1)
    return Batch((words, lengths), torch.randint(3, (7,)))


def columns() -> Batch:
    following = torch.randint(2, 50, (12, 7))
    following[-4:, -1] = -1
    known = (following.flatten() >= 0).nonzero().flatten()
    return Batch((torch.randint(2, 50, (12, 7)), following, known), following.flatten()[known])


def mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


def cases() -> dict[str, tuple[Callable[[], Model], Batch, type[Task], Callable[[Tensor, Tensor], Tensor]]]:
    entropy = nn.functional.cross_entropy
    return {
        "images": (lambda: Net().double(), images(7), Images, entropy),
        "fewer images than processes": (lambda: Net().double(), images(2), Images, entropy),
        "uneven texts": (
            *(lambda: TextClassifier(TextDims(50, 3, ""), bptt=5, max_len=10, **SMALL), texts()),
            *(TextClassification, entropy),
        ),
        "n-grams": (lambda: NgramClassifier(TextDims(50, 3, "")), texts(), TextClassification, entropy),
        "a pointer": (lambda: LanguageModel(LanguageDims(50), pointer=4, **SMALL), columns(), LanguageModeling, mean),
        "a stream's end": (lambda: LanguageModel(LanguageDims(50), **SMALL), columns(), LanguageModeling, mean),
    }


def write_gaps(_: tuple[str, ...]) -> int:
    """Do a step alone and one together; write the differences of each case."""
    torch.manual_seed(0)
    found = {}
    settings: Any = {"phases": [Phase(1, constant(1), (1.0,))], "device": torch.device("cpu"), "precision": "fp32"}
    with joined(torch.device("cpu")) as group:
        assert isinstance(group, ProcessGroup)
        for name, (make, batch, kind, cost) in cases().items():
            torch.manual_seed(0)
            one, shared = make(), make()
            shared.load_state_dict(one.state_dict())
            task: Any = kind.__new__(kind)
            task.loss = cost
            single, several = Trainer(**settings, seed=0), DistributedTrainer(group=group, **settings, seed=0)
            several._synchronise_batch_norm(shared)
            optimizer: Any = Kept()
            loss, _ = single.train_step(task, one, optimizer, batch, update=True)
            own, _ = several.train_step(task, shared, optimizer, batch, update=True)
            gaps = [abs(sum(group.all_gather_object(float(own))) - float(loss))]
            for a, b in zip(one.parameters(), shared.parameters(), strict=True):
                assert a.grad is not None
                assert b.grad is not None
                gaps.append(float((a.grad - b.grad).abs().max()))
            gaps += [float((a - b).abs().max()) for a, b in zip(one.buffers(), shared.buffers(), strict=True)]
            found[name] = gaps
            del several, shared
        Path(f"gaps{group.rank}.json").write_text(json.dumps(found))
    return 0


def test_gradients_and_statistics_of_three_processes_are_those_of_one(here: Path) -> None:
    status, out, err = Ranks(here, 3, program=write_gaps).ended()
    assert status == 0, (out, err)
    for rank in range(3):
        gaps = json.loads((here / f"gaps{rank}.json").read_text())
        assert len(gaps) == 6
        for name, found in gaps.items():
            limit = 1e-12 if "images" in name else 1e-6  # texts are pooled in single precision
            assert all(gap < limit for gap in found), (name, found)
