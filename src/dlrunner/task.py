"""Base class of tasks: batches, loss and metrics; optionally plots and predictions."""

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
from dlrunner.metrics import Metric
from dlrunner.model import Model
from dlrunner.plot import Plot
from dlrunner.predictor import Predictor
from dlrunner.schedules import Phase
from dlrunner.system.transfer import to_device

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and targets of one training step."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    rate: float = 1.0
    """Factor of the scheduled learning rate for this step."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; itself if it is there already."""
        if self.targets.device == device:
            return self
        return Batch(tuple(to_device(each, device) for each in self.inputs), to_device(self.targets, device), self.rate)


class Loader(Protocol):
    """Iterates over batches; their order is a function of (seed, epoch) alone.

    Iteration starts at batch `start` (see `Task.batches`); nothing is read, decoded or drawn at random for the
    batches before.
    """

    def __len__(self) -> int:
        """Return the number of batches of the full epoch."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches from `start` on."""
        ...


@dataclass(frozen=True)
class DataIdentity:
    """The identity of the data of a run."""

    name: str
    release: str
    source: Literal["real", "synthetic"]
    sha256: str
    path: str
    digest: str = ""
    """Digest of everything that is read, if that is more than the file of `sha256`."""
    terms: str = ""
    best_achievable: float | None = None
    """The best achievable score, if known (synthetic data)."""


class Data(ABC):
    """A data source. Constructors store and check; reading is lazy."""

    input_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings that change only the inputs: runs that differ in them validate on the same rows and targets."""

    @abstractmethod
    def identity(self) -> DataIdentity:
        """Find the data (downloading it if permitted) and return its identity, without parsing it.

        Raises:
            DataError: it is missing or damaged.
        """

    def identity_as_read(self) -> DataIdentity:
        """Return the identity again, once the data has been read: that it differs shows a change in between."""
        return self.identity()

    def file_settings(self) -> Mapping[str, str]:
        """Return the separator and encoding that were set for the files, for new ones that need them."""
        return {}


@dataclass(frozen=True)
class AnnotatedText:
    """A text for the report, its words highlighted by weight."""

    title: str
    words: Sequence[str]
    weights: Sequence[float]
    """From -1 to 1, one per word; empty: no highlighting."""


@dataclass(frozen=True)
class ResultTable:
    """A table of results: a CSV file of the run folder, and a section of the report."""

    file: str
    """Its name: `classes.csv`."""
    caption: str
    frame: pd.DataFrame


class Task(ABC):
    """Batches, loss and metrics: all that the training loop needs.

    This is the training half of a task; the inference half is its `predictor`.

    A task's constructor may have the parameters `data` (the object of the `data` section), `batch_size`, `seed`,
    `device` and `phases` (the list of `Phase`s); all others are settings of the `task` section of the YAML.
    """

    @property
    @abstractmethod
    def dims(self) -> Any:
        """The sizes that a model depends on; a model's `dims` argument is annotated with this type."""

    keeps_outputs: ClassVar[bool] = True
    """False if outputs are too large to keep (a value per pixel): `predictions`, `plots` and `annotated_texts` then get
    an empty tensor, an ensemble is evaluated once more, all models together, and there are no TTA views."""
    predictor: ClassVar[type[Predictor] | None] = None
    """The class that makes predictions from the stored `state` and the models; None: there are none."""
    phase_settings: ClassVar[Sequence[str]] = ()
    """Settings that a phase may change (`phases=[{epochs: 1, task: {...}}]`); its values are checked as the run's."""
    auto_settings: ClassVar[Sequence[str]] = ()
    """Settings that may be `auto`: `recommended` has a value for each (`epochs`, `batch_size`, `model.dropout`)."""
    good_in_bf16: ClassVar[bool] = False
    """Whether results in bfloat16 were shown to be as good as in float32, by reproduced claims or in runs of several
    seeds: `precision=auto` is bfloat16 only then. The comment next to it says which."""
    fixed_shapes: ClassVar[bool] = False
    """All batches of a phase have inputs of one size: cuDNN may benchmark its algorithms."""

    @abstractmethod
    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Return the batches of a split from number `start` on; the training split in the order given by (seed, epoch).

        Other splits have a fixed order. A last training batch of a single row, which batch norm refuses, is merged
        into the one before.

        Args:
            split: train, valid or test.
            epoch: of the run, from 0.
            phase: its task settings apply, if it has any (see `phase_settings`).
            start: first batch; earlier ones are skipped.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over a batch."""

    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Return fresh metrics by name; the first one is monitored."""

    # Everything below is optional and has defaults.

    @classmethod
    def check(cls, settings: Mapping[str, Any], phases: Sequence[Phase]) -> None:
        """Check settings against each other and the phases, before data is read; raise ValueError on a conflict."""

    def recommended(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return values that suit the data for all of `auto_settings`, by name; called once, before training.

        Args:
            settings: of data, task, model and optimizer by dotted name, as in `model.dropout`, and `batch_size`,
                `epochs`, `freeze_to`; some are `auto`. A value may depend on what others are, and on which there are:
                they distinguish the models.
        """
        return {}

    def alternatives(self, values: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
        """Return other values for recommended ones, by name; they are tried in this order as long as each is better.

        Args:
            values: the recommended values of the settings that are `auto`.
        """
        return {}

    def on_training_rows(self) -> Task:
        """Return this task on its training rows alone, some of which validate; `alternatives` are compared on it."""
        raise TypeError(f"{type(self).__name__} has alternatives and must define on_training_rows()")

    def setup(self, model: Model, phase: Phase, log: Callable[[str], None]) -> Sequence[str]:
        """Compute what depends on the untrained model, such as features of its frozen part; return notes.

        Called without gradients and in the precision of the run, for the first phase; `log` shows progress.
        """
        return []

    def shard(self, batch: Batch, index: int, count: int) -> Batch:
        """Return the shard of a batch for one of `count` processes; batches with fewer examples are not divided."""
        if len(batch.targets) < count:
            return batch
        inputs = tuple(each.tensor_split(count)[index] for each in batch.inputs)
        return Batch(inputs, batch.targets.tensor_split(count)[index], batch.rate)

    def shard_order(self, batch: Batch, count: int) -> Tensor | None:
        """Return the positions in a batch of the examples of all shards, shard after shard; None: in order."""
        return None

    def num_tta_views(self) -> int:
        """Return the number of test-time augmentation views: the plain one, and those of `tta_batches`.

        A task that overrides this defines `tta_batches` too.
        """
        return 1

    def tta_batches(self, split: Split, view: int, phase: Phase) -> Loader:
        """Return an augmented view of a split, in the order of `batches`; views are numbered from 1."""
        raise TypeError(f"{type(self).__name__} has augmented views and must define tta_batches()")

    def has_test(self) -> bool:
        """Return whether there is a test split; it is evaluated once, after training."""
        return False

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average the outputs of ensemble members or views for the same examples."""
        return torch.stack(list(outputs)).mean(dim=0)

    def sizes(self) -> Mapping[str, int]:
        """Return the number of rows per split, for the summary."""
        return {}

    def purpose(self) -> str:
        """Return what the model does, for the heading of the report: "Predict price"."""
        return ""

    def notes(self) -> Sequence[str]:
        """Return notes on reading the data (rows dropped, columns inferred)."""
        return []

    def data_columns(self) -> Sequence[Mapping[str, Any]]:
        """Return how each column of the data was read and is used: `name`, `type`, `use`, `missing`, `example`."""
        return []

    def split_statistics(self) -> SplitStatistics | None:
        """Return statistics of the splits for the data audit, computed once per run; None: no audit."""
        return None

    def predictions(self, outputs: Tensor) -> pd.DataFrame | None:
        """Return the table of predictions.csv for the outputs on the validation split, in its order."""
        return None

    def tables(self, outputs: Tensor) -> Sequence[ResultTable]:
        """Return further tables of results, such as precision and recall by class, for the validation outputs."""
        return []

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Draw plots of the validation outputs into a folder.

        Args:
            models: the trained models.
            outputs: of the validation split, in its order.
            folder: for the image files.
            phase: the phase that the weights come from; its task settings apply.
        """
        return []

    def annotated_texts(self, models: Sequence[Model], outputs: Tensor) -> Mapping[str, Sequence[AnnotatedText]]:
        """Return texts for the report by heading, for the validation outputs in order."""
        return {}

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Return the metrics of simple baselines on the same splits, and the `seconds` that each takes, by name.

        Computed once for the same data, split and code.
        """
        return {}

    def baseline_key(self) -> str:
        """Return what identifies all that the baselines depend on besides the settings of data and task."""
        return ""

    def artifacts(self, models: Sequence[Model], phase: Phase) -> Mapping[str, bytes]:
        """Return additional files of the run folder by name (a vocabulary, an encoder).

        Called in the precision of the run.
        """
        return {}

    def state(self, phase: Phase) -> dict[str, Any]:
        """Return the state fitted on the training rows, for inference: tensors and plain values only.

        Args:
            phase: the phase that the weights come from; its task settings apply.
        """
        return {}
