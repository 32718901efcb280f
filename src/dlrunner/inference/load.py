"""A finished run in Python: its models, its record and its predictions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from dlrunner.errors import ConfigError, DlrunnerError, RunError
from dlrunner.files.spreadsheet import without_quotes
from dlrunner.inference.arguments import checked, no_method
from dlrunner.inference.input_tables import as_table
from dlrunner.inference.models import inference_plan, load_models, predictor_of
from dlrunner.inference.plugins import unnamed_plugins, without_trackers
from dlrunner.model import Model
from dlrunner.predictor import Predictor
from dlrunner.runs.query import resolve
from dlrunner.runs.reader import FinishedRun, member_folders, own_file, read_history, shorter
from dlrunner.system.precision import float32_by_default
from dlrunner.system.seeding import generators_lock


class NoMethodError(ConfigError, AttributeError):
    """The predictor of a run does not have this method."""


class LoadedRun:
    """A finished run: its models, its record, and the methods of its task's predictor. Returned by `run` and `load`.

    After `run` the predictor is loaded when it is first used: the record needs neither one nor checkpoints.

    Its methods depend on the task: `dir` and completion list them, `help(run.predict)` documents the arguments.

    | task | methods | input of `predict` | output |
    |---|---|---|---|
    | ratings (movielens, collab), choices (implicit) | `predict`, `recommend`, `similar` | a table of pairs: user, item | the table with prediction and note |
    | tables (rossmann, tabular) | `predict` | a table with the training table's columns | the table with prediction or probabilities |
    | texts (imdb-sentiment, text) | `predict` | a text or several, or a `Path` of texts | text, class, probabilities |
    | images (dogbreeds, image) | `predict`, `explain` | files or PIL images, a folder, a table of paths | classes, probabilities |
    | masks (camvid, segmentation) | `predict` | as for images | masks (files), fractions of the classes |
    | language models (imdb-lm, lm) | `predict`, `generate`, `next_words` | as for texts | text, words, unknown, perplexity |

    A table is a DataFrame, a row as a dict, several as a list of dicts, or the path of a file.

    Arguments are checked against the annotations of the method (`ConfigError`). Notes on a table
    of predictions are in its `attrs["note"]`.
    """  # noqa: E501

    path: Path
    """The run folder, absolute, with symbolic links resolved."""
    summary: dict[str, Any]
    """The content of summary.json."""
    config: dict[str, Any]
    """The complete configuration."""

    def __init__(self, finished: FinishedRun, checkpoint: str | None = None) -> None:
        self.path, self.config, self.summary = finished.path, finished.config, finished.summary or {}
        self._finished, self._history, self._checkpoint = finished, finished.history, checkpoint

    @property
    def models(self) -> list[Model]:
        """The torch modules, in evaluation mode on the CPU: one, or those of an ensemble."""
        return list(self.predictor.models)

    @property
    def model(self) -> Model:
        """The torch module; for an ensemble the first one."""
        return self.models[0]

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The predictor of the task, whose methods are those of the run.

        Raises:
            ConfigError: the task has none, or the run has no checkpoints any more.
            RunError: a checkpoint is damaged.
        """
        # Weights are initialised at random before they are loaded.
        with generators_lock, torch.random.fork_rng(devices=[]), float32_by_default():
            plan, state, models = load_models(self._finished, self._checkpoint)
            with _prediction_errors(self.path):
                return predictor_of(plan)(state, models)

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics by name, such as `valid/rmse`; for an ensemble those of the average."""
        return dict(self.summary.get("final") or {})

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch, as in metrics.jsonl; for an ensemble per member and epoch, with the column `member`."""
        if self._history:
            return pd.DataFrame(self._history)
        members = member_folders(self.path)
        return pd.DataFrame([{"member": int(each.name), **row} for each in members for row in read_history(each)])

    @property
    def predictions(self) -> pd.DataFrame:
        """The validation rows with their predictions, from predictions.csv.

        Raises:
            ConfigError: the task writes none, or the run was exported.
        """
        file = own_file(self.path, "predictions.csv")
        if not file.exists():
            run = shorter(self.path)
            raise ConfigError(f"{run} has no predictions.csv: the task writes none, or the run was exported without it")
        table = pd.read_csv(file)
        has_none = inference_plan(self.config).task.factory.predictor is None  # type: ignore[attr-defined]
        texts = [] if has_none else [name for name in self.predictor.text_columns if name in table.columns]
        if texts:
            table[texts] = pd.read_csv(file, usecols=texts, dtype=str, keep_default_na=False)[texts]
        return without_quotes(table)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method of the predictor with validated arguments.

        Raises:
            NoMethodError: the predictor does not have it.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            methods = self.predictor.methods()
        except ConfigError as error:
            raise NoMethodError(str(error)) from None
        if name not in methods:
            task = str(self.config["task"].get("_target_")).rpartition(".")[2]
            raise NoMethodError(no_method(task, methods, name))
        method = checked(getattr(self.predictor, name), functools.partial(as_table, self.config.get("data")))

        @functools.wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            with _prediction_errors(self.path), float32_by_default():
                return method(*args, **options)

        return call

    def __dir__(self) -> list[str]:
        with contextlib.suppress(DlrunnerError):
            return [*super().__dir__(), *self.predictor.methods()]
        return [*super().__dir__()]

    def __repr__(self) -> str:
        metric = self.summary.get("metric") or {}
        value = f", {metric['name']} {metric['value']:.4f}" if metric else ""
        return f"<LoadedRun {shorter(self.path)}{value}>"


@contextlib.contextmanager
def _prediction_errors(run: Path) -> Iterator[None]:
    """Turn unexpected errors into a RunError: the stored state may be damaged or from another version."""
    try:
        yield
    except (DlrunnerError, OSError, MemoryError):
        raise
    except (SystemExit, Exception) as error:  # of a user's predictor
        first = (str(error).splitlines() or [""])[0][:200]
        raise RunError(
            f"{shorter(run)} failed to predict ({type(error).__name__}: {first}): its task.pt may be damaged "
            "or from another version"
        ) from error


def load(run: str | Path, *, plugins: Sequence[str] = (), checkpoint: str | None = None) -> LoadedRun:
    """Load a finished run for predictions.

        import dlrunner

        predictor = dlrunner.load("runs/latest")
        predictor.predict(table)

    Nothing in the folder is executed: its configuration can name only classes of dlrunner and of the modules in
    `plugins`. `runs/latest` is resolved once: later runs change nothing. The global random state is not changed.

    Args:
        run: a run folder, one written by `dlrun export`, or the id or name of a run in `runs/`; of several the newest.
        plugins: modules of your own that the run may import.
        checkpoint: last.pt, best.pt, cycle-2.pt …; None: the weights that the run was evaluated with.

    Raises:
        ConfigError: the run does not exist, is unfinished or damaged, or imports modules not named in `plugins`.
        RunError: a checkpoint is damaged.
    """
    finished = FinishedRun.read(resolve(run)[0])
    config = without_trackers(finished.config)
    if unnamed_plugins(config, plugins):
        names = list(config["plugins"])
        raise ConfigError(f"this run imports {', '.join(names)}; if you trust it, add: plugins={names!r}")
    return loaded(finished, checkpoint)


def loaded(finished: FinishedRun, checkpoint: str | None = None) -> LoadedRun:
    """Load a finished run; its plugins are trusted (see `load`)."""
    run = LoadedRun(finished, checkpoint)
    assert run.predictor  # its errors are raised here
    return run
