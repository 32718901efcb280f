"""Perplexity of texts, text generation and next words from a trained language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from dlrunner.data.core.input_columns import append_predictions
from dlrunner.data.texts.tokens import tokens_of
from dlrunner.data.texts.vocabulary import UNKNOWN, Vocabulary
from dlrunner.errors import ConfigError
from dlrunner.model import Example, Model
from dlrunner.models.language import LanguageDims, LanguageModel, average_losses
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import Answer, Predictor, RowField
from dlrunner.ranges import Count, Positive
from dlrunner.tasks.language.generation import PIECE, Generator
from dlrunner.tasks.language.interpolation import stream_probabilities
from dlrunner.tasks.text.inputs import read_texts

NumWords = Annotated[int, Field(ge=1, le=10_000)]


class LanguagePredictor(Predictor):
    """Scores and generates texts; an ensemble averages the probabilities of its models."""

    example = 'predictor.generate("the film", words=20, seed=1)'
    limits = (
        "It generates what is likely given its training texts, not what is true.",
        "Out-of-vocabulary words are all treated alike.",
    )

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.generator = Generator(language_models(models), Vocabulary(state["words"]))

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> LanguageDims:
        """The size of the vocabulary."""
        return LanguageDims(len(state["words"]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """`count` prompts of random words, all of one length, which depends on `count`."""
        generator = torch.Generator().manual_seed(count)
        words = torch.randint(len(self.state["words"]), (20 + count, count), generator=generator)
        return {"words": Example(words, ("steps", "rows"))}

    def row_fields(self) -> Sequence[RowField]:
        """Return the text."""
        return [RowField("text", "text", example="a text")]

    def predict_request(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predict the texts of a request; none is the name of a file."""
        return self.predict(rows["text"].tolist())

    @torch.inference_mode()
    def predict(
        self,
        texts: str | Path | Sequence[str],
        *,
        column: str | None = None,
        only: list[str] | None = None,
        cache: Count | None = None,
        cache_theta: Positive = 1.6,
        cache_weight: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> pd.DataFrame:
        """Return the perplexity of each text, its number of words and of out-of-vocabulary words.

            predictor.predict(["the film was great", "great was film the"])

        Args:
            texts: a text, a file or folder of texts, or - for standard input; in Python also a list, or a DataFrame.
            column: column of the texts, if it is a table.
            only: columns of the table next to the predictions, instead of all; none: predictions alone.
            cache: also the perplexity with a neural cache of this many words, which begins with each text.
            cache_theta: of the cache (see `NeuralCache`).
            cache_weight: of the cache's probabilities.

        Raises:
            ConfigError: there is no text, or the argument has another type.
            DataError: a file cannot be read.
        """
        given = read_texts(texts, column, self.state.get("column"), self.state.get("files"))
        vocabulary, rows = self.generator.vocabulary, []
        for text in given.texts:
            words = self._tokens(text)
            codes = torch.tensor([vocabulary.end or 0, *vocabulary.encode(words)])[:, None]
            losses = []
            for model in self.generator.models if words else ():
                parts, hidden = [torch.zeros(0)], None
                for piece in zip(torch.split(codes[:-1], PIECE), torch.split(codes[1:], PIECE), strict=True):
                    outputs, hidden, _ = model(*piece, hidden=hidden)
                    parts.append(outputs)
                losses.append(torch.cat(parts))
            mean = average_losses(losses).mean() if words else torch.tensor(torch.nan)
            row = {"words": len(words), "unknown": int((codes == 0).sum()), "perplexity": _rounded(mean.exp())}
            if cache:
                row["perplexity_cache"] = self._perplexity(codes[:, 0].int(), cache, cache_theta, cache_weight)
            rows.append(row)
        inputs = given.columns(only)
        answer = append_predictions(inputs, pd.DataFrame(rows))
        return with_notes(
            with_problems(answer, list(answer.columns[: -2 if cache else -1]), given.problems), given.notes
        )

    def generate(
        self,
        text: str,
        *,
        words: NumWords = 50,
        top_k: Count | None = None,
        top_p: Annotated[float, Field(gt=0, le=1)] | None = None,
        temperature: Positive | None = None,
        seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None,
        beams: Annotated[int, Field(ge=1, le=1000)] | None = None,
        next: NumWords | None = None,
    ) -> Answer:
        """Continue a text: greedily, by sampling, or by beam search.

            predictor.generate("the film", words=20, top_p=0.9, seed=1)

        Args:
            text: the prompt, which is not repeated in the output.
            words: maximum number of words; shorter if the text ends.
            top_k: sample from this many most likely words.
            top_p: sample from the most likely words with this total probability.
            temperature: sample with this temperature; below 1 sharper, above 1 flatter.
            seed: of the sampling; 0 by default.
            beams: beam search with this many beams.
            next: list this many most likely next words instead (see `next_words`).

        Raises:
            ConfigError: no word of the text is in the vocabulary, or options exclude each other.
        """
        prompt, note = self._prompt(text)
        sampling = {"top_k": top_k, "top_p": top_p, "temperature": temperature, "seed": seed}
        samples = any(value is not None for value in sampling.values())
        if next is not None:
            if samples or beams is not None:
                raise ConfigError("next: cannot be combined with beams or with sampling options")
            probs, found = self.generator.next_words(prompt, next)
            width = max(map(len, found))
            continuation = "\n".join(
                f"{word!r:<{width + 3}}{prob:7.2%}" for word, prob in zip(found, probs, strict=True)
            )
        elif beams is None:
            continuation = self.generator.generate(
                prompt, words, top_k=top_k, top_p=top_p, temperature=temperature, seed=seed
            )
        elif samples:
            raise ConfigError("beams: cannot be combined with sampling options")
        else:
            continuation = self.generator.beam_search(prompt, words, beams)
        answer = Answer(continuation)
        answer.note = note
        return answer

    def next_words(self, text: str, number: NumWords = 10) -> pd.DataFrame:
        """Return the most likely next words and their probabilities, in descending order.

            predictor.next_words("the film", 5)

        Args:
            text: the prompt.
            number: number of words.

        Raises:
            ConfigError: no word of the text is in the vocabulary.
        """
        prompt, note = self._prompt(text)
        probs, words = self.generator.next_words(prompt, number)
        table = pd.DataFrame({"word": words, "probability": [round(float(prob), 6) for prob in probs]})
        return with_notes(table, [note] if note else [])

    def _perplexity(self, codes: Tensor, cache: int, theta: float, weight: float) -> float:
        """Return the perplexity of all words but the first with a neural cache; NaN of a text without words."""
        if len(codes) < 2:
            return math.nan
        net, cached = stream_probabilities(self.generator.models, codes, 1, PIECE, cache, [theta])
        return _rounded(float(np.exp(-np.log((1 - weight) * net + weight * cached[0]).mean())))

    def _tokens(self, text: str) -> list[str]:
        """Return the tokens of a text, with the tokenizer of the run."""
        return list(tokens_of(text, self.state["tokenizer"], self.state["lower"]))

    def _prompt(self, text: str) -> tuple[list[str], str]:
        """Return the tokens of a text, and a note on out-of-vocabulary words."""
        words = self._tokens(text)
        unknown = self.generator.unknown(words)
        return words, f"out-of-vocabulary words, read as {UNKNOWN}: {', '.join(unknown)}" if unknown else ""


def _rounded(perplexity: Tensor | float) -> float:
    """Return the digits of float32."""
    return float(f"{perplexity:.7g}")


def language_models(models: Sequence[Model]) -> list[LanguageModel]:
    """Return the models, which must be language models."""
    found = [model for model in models if isinstance(model, LanguageModel)]
    if len(found) < len(models):
        raise TypeError(f"{type(models[0]).__name__} is not a language model")
    return found
