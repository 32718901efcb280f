"""A finished run in Python: what it learned, what it was, and its answers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from dlrunner.errors import ConfigError, DlrunnerError, RunError
from dlrunner.files.paths import user_path
from dlrunner.files.spreadsheet import without_quotes
from dlrunner.inference.arguments import checked
from dlrunner.inference.models import load_models, predictor_of, unnamed_plugins, without_trackers
from dlrunner.model import Model
from dlrunner.predictor import Predictor
from dlrunner.runs.reader import FinishedRun, member_folders, own_file, read_history, shorter


class NoMethodError(ConfigError, AttributeError):
    """A run was asked for something that its predictor has no method for."""


class LoadedRun:
    """A finished run: its models, its record, and the methods of its task's predictor. `load` makes it.

    What it can be asked depends on the task; `dir` and completion show no more than that, `help(run.predict)` what it
    takes.

    | task | methods | `predict` takes | and returns |
    |---|---|---|---|
    | ratings (movielens, collab) | `predict`, `recommend`, `similar` | a table of pairs: user, item | the table with prediction and note |
    | tables (rossmann, tabular) | `predict` | a table with the training table's columns | id, prediction, probabilities |
    | texts (imdb-sentiment, text) | `predict` | a text or several, or a `Path` of texts | text, class, probabilities |
    | pictures (dogbreeds, image) | `predict`, `explain` | files or PIL pictures, one or several, or a folder | classes, probabilities |
    | segmentation | `predict` | files or PIL images, one or several, or a folder | masks (files), fractions of the classes |
    | language models (imdb-lm, lm) | `predict`, `generate`, `next_words` | as of texts | text, words, unknown, perplexity |

    Arguments are checked against the annotations of the method (`ConfigError`). What a person should know about a
    table of answers stands in its `attrs["note"]`.
    """  # noqa: E501

    path: Path
    """The folder, absolute and without links."""
    summary: dict[str, Any]
    """What stands in summary.json."""
    config: dict[str, Any]
    """The whole configuration."""
    models: list[Model]
    """The torch modules, in evaluation mode on the CPU: one, or those of an ensemble."""

    def __init__(self, finished: FinishedRun, predictor: Predictor) -> None:
        self.path, self.config, self.models = finished.path, finished.config, list(predictor.models)
        self.summary = finished.summary or {}
        self._history, self._predictor = finished.history, predictor

    @property
    def model(self) -> Model:
        """The torch module; of an ensemble the first."""
        return self.models[0]

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics at the end by name, such as `valid/rmse`; of an ensemble those of its average."""
        return dict(self.summary.get("final") or {})

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch, as in metrics.jsonl; of an ensemble one per member and epoch, with the column `member`."""
        if self._history:
            return pd.DataFrame(self._history)
        members = member_folders(self.path)
        return pd.DataFrame([{"member": int(each.name), **row} for each in members for row in read_history(each)])

    @property
    def predictions(self) -> pd.DataFrame:
        """The validation rows with what was predicted for them, as in predictions.csv.

        Raises:
            ConfigError: there is none: the task writes none, or the run was exported.
        """
        file = own_file(self.path, "predictions.csv")
        if not file.exists():
            run = shorter(self.path)
            raise ConfigError(f"{run} has no predictions.csv: its task writes none, or it was exported without")
        return without_quotes(pd.read_csv(file))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method of the predictor, its arguments checked.

        Raises:
            NoMethodError: it has no such method.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        methods = self._predictor.methods()
        if name not in methods:
            task = str(self.config["task"].get("_target_")).rpartition(".")[2]
            raise NoMethodError(no_method(task, type(self._predictor), name))
        asked = checked(getattr(self._predictor, name))

        @functools.wraps(asked)
        def answer(*given: Any, **options: Any) -> Any:
            with _answering(self.path):
                return asked(*given, **options)

        return answer

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._predictor.methods()]

    def __repr__(self) -> str:
        metric = self.summary.get("metric") or {}
        told = f", {metric['name']} {metric['value']:.4f}" if metric else ""
        return f"<LoadedRun {shorter(self.path)}{told}>"


def no_method(task: str, predictor: type[Predictor], name: str) -> str:
    """Return the sentence that says what the runs of a task can be asked instead."""
    return f"{task} has no method {name}; it has {', '.join(predictor.methods()) or 'none'}"


@contextlib.contextmanager
def _answering(run: Path) -> Iterator[None]:
    """Tell in a sentence where no answer can be made of what a run has stored: it may come from anyone."""
    try:
        yield
    except (DlrunnerError, OSError, MemoryError):
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise RunError(
            f"{shorter(run)} gives no answer ({type(error).__name__}: {first}): what it has stored in task.pt may be "
            "damaged, or of another version"
        ) from error


def load(run: str | Path, *, plugins: Sequence[str] = (), checkpoint: str = "last.pt") -> LoadedRun:
    """Return what a finished run has learned, ready to answer.

        import dlrunner

        predictor = dlrunner.load("runs/latest")
        predictor.predict(table)

    Nothing in the folder is executed: its configuration can name classes of dlrunner and of the modules in `plugins`.
    `runs/latest` is followed once: what is begun later changes nothing. The caller's random numbers stay as they are.

    Args:
        run: a run's folder, or one that `dlrun export` wrote.
        plugins: modules of your own that the run may import.
        checkpoint: of the run: last.pt, best.pt, cycle-2.pt …

    Raises:
        ConfigError: there is no finished run, it is damaged, or imports modules that `plugins` does not name.
        RunError: a checkpoint is damaged.
    """
    finished = FinishedRun.read(user_path(run))
    config = without_trackers(finished.config)
    if unnamed_plugins(config, plugins):
        asked = list(config["plugins"])
        raise ConfigError(f"this run imports {', '.join(asked)}; if you trust it, add: plugins={asked!r}")
    return loaded(finished, checkpoint)


def loaded(finished: FinishedRun, checkpoint: str = "last.pt") -> LoadedRun:
    """Return what a finished run has learned; its plugins are trusted (see `load`)."""
    with torch.random.fork_rng(devices=[]):  # weights are drawn at random before they are read
        plan, state, models = load_models(finished, checkpoint)
        with _answering(finished.path):
            return LoadedRun(finished, predictor_of(plan)(state, models))
