"""What a task is: data in batches, a loss, metrics; and, where it can, pictures and predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import pandas as pd
import torch
from torch import Tensor

from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.metrics import Metric
from dlrunner.model import Model
from dlrunner.plot import Plot
from dlrunner.predictor import Predictor
from dlrunner.schedules import Phase
from dlrunner.system.transfer import to_device

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step sees: the model's inputs and what it should have said."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    rate: float = 1.0
    """The learning rate of this step is so many times the schedule's."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; itself when it is there already."""
        if self.targets.device == device:
            return self
        return Batch(tuple(to_device(each, device) for each in self.inputs), to_device(self.targets, device), self.rate)


class Loader(Protocol):
    """Iterates over batches; their order is a function of (seed, epoch) alone.

    It knows its position: iteration begins at the batch it was made for (`start` of `Task.batches`), and nothing is
    read, decoded or drawn for the batches before.
    """

    def __len__(self) -> int:
        """Return the number of batches of the whole epoch."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches from `start` on."""
        ...


@dataclass(frozen=True)
class DataIdentity:
    """Which data a result rests on."""

    name: str
    release: str
    source: Literal["real", "synthetic"]
    sha256: str
    path: str
    digest: str = ""
    """Of everything that is read, where that is more than the file whose sha256 is told."""
    terms: str = ""
    best_achievable: float | None = None
    """The best possible score, where it is known (stand-ins)."""


class Data(ABC):
    """Where examples come from. Constructors store and check; reading is lazy."""

    @abstractmethod
    def identity(self) -> DataIdentity:
        """Find the data (downloading it where that is permitted) and say which it is, without parsing it.

        Raises:
            DataError: it is not there, or damaged.
        """


@dataclass(frozen=True)
class AnnotatedText:
    """A text for the report, its words marked by what they weigh."""

    title: str
    words: Sequence[str]
    weights: Sequence[float]
    """From -1 to 1, one a word; none: nothing is marked."""


class Task(ABC):
    """Data in batches, a loss and metrics: what the training loop needs, and nothing of how it trains.

    It is the training half of a task; the inference half is its `predictor`.

    A task's constructor may ask by name for `data` (the object of the `data` section), `batch_size`, `seed`
    and `device`; all its other arguments are settings of the `task` section of the YAML.
    """

    @property
    @abstractmethod
    def dims(self) -> Any:
        """The sizes a model needs to know; a model's `dims` argument is annotated with this type."""

    keeps_outputs: ClassVar[bool] = True
    """False where outputs are too many to be kept (a number for each pixel): `predictions`, `pictures` and `passages`
    then get an empty tensor, and the outputs of an ensemble, or of several looks, cannot be averaged."""
    predictor: ClassVar[type[Predictor] | None] = None
    """What answers from a finished run, given the stored `state` and the models; None: nothing does."""
    fixed_shapes: ClassVar[bool] = False
    """All batches of a phase have inputs of one size: a GPU may try which algorithms are fastest for it."""

    @abstractmethod
    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Return the split's batches from number `start` on; the training split in an order given by (seed, epoch).

        The other splits come in one order. A training batch of a single row, which batch norm refuses, is joined to
        the one before.

        Args:
            split: which rows.
            epoch: of the run, from 0.
            phase: the batches are made with its own settings, where the task has any (see `check`).
            start: batches before it are left out.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over a batch."""

    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Return fresh accumulators by name; the first is the one that a run is judged by."""

    # What follows has defaults: a task without pictures or predictions is a task all the same.

    @classmethod
    def check(cls, settings: Mapping[str, Any], phases: Sequence[Phase]) -> None:
        """Compare settings with each other and with the phases, before data is read; raise ValueError if wrong."""
        for index, phase in enumerate(phases):
            if phase.task:
                raise ConfigError(
                    f"phases[{index}].task: {cls.__name__} has no settings that change from phase to phase"
                )

    def setup(self, model: Model, phase: Phase, tell: Callable[[str], None]) -> Sequence[str]:
        """Compute what needs the model before it is trained (what its frozen part makes of the data).

        It is called without gradients and in the precision of the run, for the first phase; `tell` shows how far it is.
        Returns what a person should know.
        """
        return []

    def shard(self, batch: Batch, index: int, count: int) -> Batch:
        """Return a process's share of a batch: its examples are divided, or, where they are too few, done by all."""
        if len(batch.targets) < count:
            return batch
        inputs = tuple(each.tensor_split(count)[index] for each in batch.inputs)
        return Batch(inputs, batch.targets.tensor_split(count)[index], batch.rate)

    def shard_order(self, batch: Batch, count: int) -> Tensor | None:
        """Return the places in a batch of the examples of all its shares, one share after the other; None: in order."""
        return None

    def num_tta_views(self) -> int:
        """Return how often each example is looked at in the end: once as it is, then as `tta_batches` shows it."""
        return 1

    def tta_batches(self, split: Split, view: int, phase: Phase) -> Loader:
        """Return a split's examples in the order of `batches`, augmented; views are numbered from 1."""
        raise NotImplementedError

    def has_test(self) -> bool:
        """Tell whether there is a test split: it is looked at once, after training."""
        return False

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return what an ensemble says, given what each member says for the same examples."""
        return torch.stack(list(outputs)).mean(dim=0)

    def sizes(self) -> Mapping[str, int]:
        """Return the numbers of rows by split, for the summary."""
        return {}

    def notes(self) -> Sequence[str]:
        """Return what a person should know about how the data was read (rows dropped, columns inferred)."""
        return []

    def split_statistics(self) -> SplitStatistics | None:
        """Return what tells whether the split is a fair one, cheaply: it is looked at once a run; None: nothing."""
        return None

    def predictions(self, outputs: Tensor) -> pd.DataFrame | None:
        """Return the table behind predictions.csv, for the outputs on the validation split, in its order."""
        return None

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Draw what a person wants to see of this task into a folder, for validation outputs in order.

        Like the outputs, the pictures are made with the settings of the phase that the models' weights come from.
        """
        return []

    def annotated_texts(self, models: Sequence[Model], outputs: Tensor) -> Mapping[str, Sequence[AnnotatedText]]:
        """Return texts for the report, by their heading, for validation outputs in order."""
        return {}

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Return the metrics of plain methods on the same splits, by name: what a model must beat."""
        return {}

    def artifacts(self, models: Sequence[Model], phase: Phase) -> Mapping[str, bytes]:
        """Return further files of the run's folder by name (a vocabulary, an encoder)."""
        return {}

    def state(self, phase: Phase) -> dict[str, Any]:
        """Return what was fitted on the training rows, for `predict`: tensors and plain values only.

        Settings are those of the phase that the models' weights come from.
        """
        return {}
