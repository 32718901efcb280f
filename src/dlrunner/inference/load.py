"""A finished run in Python: what it learned, what it was, and its answers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch

from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.files.spreadsheet import without_quotes
from dlrunner.inference.models import load_models, unnamed_plugins, without_trackers
from dlrunner.model import Model
from dlrunner.runs.reader import FinishedRun, member_folders, own_file, read_history, shorter
from dlrunner.task import Answers

if TYPE_CHECKING:
    from PIL.Image import Image

ASKED = ("predict", "generate", "next_words", "recommend", "similar")
"""Methods of a predictor that its run's task may answer or not."""


class Predictor:
    """A finished run: its models, its record, and its answers. `load` makes it.

    What it can be asked depends on the task; `dir` and completion show no more than that.

    | task | `predict` takes | and returns |
    |---|---|---|
    | ratings (movielens, collab) | a table of pairs: user, item | the table with prediction and note |
    | tables (rossmann, tabular) | a table with the training table's columns | id, prediction, probabilities |
    | texts (imdb-sentiment, text) | a text or several | text, class, probabilities |
    | pictures (dogbreeds, image) | files or PIL pictures, one or several | picture, classes, probabilities |
    | language models (imdb-lm, lm) | a text or several | text, words, unknown, perplexity |

    What a person should know about a table of answers stands in its `attrs["note"]`.
    """

    path: Path
    """The folder, absolute and without links."""
    summary: dict[str, Any]
    """What stands in summary.json."""
    config: dict[str, Any]
    """The whole configuration."""
    models: list[Model]
    """The torch modules, in evaluation mode on the CPU: one, or those of an ensemble."""

    def __init__(self, finished: FinishedRun, models: Sequence[Model], answers: Answers | None) -> None:
        self.path, self.config, self.models = finished.path, finished.config, list(models)
        self.summary = finished.summary or {}
        self._history, self._answers = finished.history, answers

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

    def predict(
        self,
        given: pd.DataFrame | pd.Series[Any] | str | Path | Image | Sequence[str | Path | Image],
        *,
        id: str | None = None,
        top: int | None = None,
        words: bool | None = None,
    ) -> pd.DataFrame:
        """Answer about rows, texts or pictures, as `dlrun predict` does about files: a row for each, in their order.

            predictor.predict(pandas.DataFrame({"user": [1, 1], "item": [31, 1029]}))
            predictor.predict(pandas.read_csv("new.csv"), id="nr")
            predictor.predict(["it was great", "it was not"])
            predictor.predict(["a.jpg", PIL.Image.open("b.png")], top=3)

        Args:
            given: a table, a text, a picture, or several; see the class. It is not changed.
            id: of a table: the column that names the rows in the answer.
            top: of pictures: so many of the likeliest classes (5).
            words: of texts: the note tells the words that mattered most.

        Raises:
            ConfigError: it is something else than this run's task takes.
            DataError: a column is missing, a value cannot be used, a picture is damaged.
        """
        options = {"id": id, "top": top, "words": words}
        return cast(pd.DataFrame, self._ask("predict", given, **options))

    def generate(
        self,
        text: str,
        *,
        words: int = 50,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        beams: int | None = None,
    ) -> str:
        """Return how a text goes on; of language models.

            predictor.generate("the film", words=20, top_p=0.9, seed=1)

        Args:
            text: its beginning, which is not repeated.
            words: most words; it ends sooner where the text does.
            top_k, top_p, temperature, seed: words are drawn, not the likeliest taken (`dlrun generate --help`).
            beams: look for the likeliest text with so many beams.

        Raises:
            ConfigError: the run is no language model, knows no word of the text, or options do not go together.
        """
        options = {"top_k": top_k, "top_p": top_p, "temperature": temperature, "seed": seed, "beams": beams}
        return str(self._ask("generate", text, words=words, **options))

    def next_words(self, text: str, number: int = 10) -> pd.DataFrame:
        """Return the likeliest next words and their chances, columns word and chance; of language models.

            predictor.next_words("the film", 5)

        Raises:
            ConfigError: the run is no language model, or knows no word of the text.
        """
        return cast(pd.DataFrame, self._ask("next_words", text, number))

    def recommend(
        self, user: int | str | None = None, *, ratings: pd.DataFrame | None = None, top: int = 20
    ) -> pd.DataFrame:
        """Return the best items for a user, without those rated in training: item, title, prediction, ratings.

            predictor.recommend(user=1, top=5)
            predictor.recommend(ratings=pandas.DataFrame({"item": [31, 1029], "rating": [4.5, 2.0]}))

        Args:
            user: one of the training data.
            ratings: of a new user: item, rating.
            top: so many.

        Raises:
            ConfigError: the run is not of ratings, or the user is not known.
            DataError: a rating cannot be used.
        """
        return cast(pd.DataFrame, self._ask("recommend", user, ratings=ratings, top=top))

    def similar(self, item: int | str, *, top: int = 20) -> pd.DataFrame:
        """Return the items most like one, by its id or part of its title: item, title, cosine, ratings.

            predictor.similar("Toy Story", top=5)

        Raises:
            ConfigError: the run is not of ratings, or no item, or several, are meant.
        """
        return cast(pd.DataFrame, self._ask("similar", item, top=top))

    def _ask(self, what: str, *given: Any, **options: Any) -> Any:
        """Hand a question to the task, options only where they were given."""
        method = getattr(self._answers, what, None)
        task = str(self.config["task"].get("_target_")).rpartition(".")[2]
        if method is None:
            able = [name for name in ASKED if hasattr(self._answers, name)]
            told = f"; it can {' and '.join(able)}" if able else "; the command line may (dlrun predict --help)"
            raise ConfigError(f"{task} cannot {what} in Python{told}")
        asked = {name: value for name, value in options.items() if value is not None}
        for name in asked:
            if name not in inspect.signature(method).parameters:
                raise ConfigError(f"{what}: {task} takes no {name}")
        return method(*given, **asked)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in ASKED or hasattr(self._answers, name)]

    def __repr__(self) -> str:
        metric = self.summary.get("metric") or {}
        told = f", {metric['name']} {metric['value']:.4f}" if metric else ""
        return f"<Predictor of {shorter(self.path)}{told}>"


def load(run: str | Path, *, plugins: Sequence[str] = (), checkpoint: str = "last.pt") -> Predictor:
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
    with torch.random.fork_rng(devices=[]):  # weights are drawn at random before they are read
        checked, state, models = load_models(finished, checkpoint)
        task: Any = checked.task.factory
        return Predictor(finished, models, task.answers(state, models))
