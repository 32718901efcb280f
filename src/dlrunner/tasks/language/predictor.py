"""What a trained language model makes of texts: how well it expected them, and how they go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import Field

from dlrunner.data.texts.tokens import tokens_of
from dlrunner.data.texts.vocabulary import UNKNOWN, Vocabulary
from dlrunner.errors import ConfigError
from dlrunner.model import Example, Model
from dlrunner.models.language import LanguageDims, LanguageModel
from dlrunner.predictor import Answer, Predictor
from dlrunner.ranges import Count, Positive
from dlrunner.tasks.common.inputs import with_notes
from dlrunner.tasks.common.outputs import average_losses
from dlrunner.tasks.language.generation import PIECE, Generator
from dlrunner.tasks.text.inputs import read_texts

NumWords = Annotated[int, Field(ge=1, le=10_000)]


class LanguagePredictor(Predictor):
    """Answers of language models, whose chances are averaged."""

    example = 'predictor.generate("the film", words=20, seed=1)'
    limits = (
        "It says what is likely after its training texts, not what is true.",
        "Words that are not in its vocabulary are not told from each other.",
    )

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.generator = Generator(language_models(models), Vocabulary(state["words"]))

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> LanguageDims:
        """The size of the vocabulary."""
        return LanguageDims(len(state["words"]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """As many beginnings of any words, all of the same length, which is another for each count."""
        generator = torch.Generator().manual_seed(count)
        words = torch.randint(len(self.state["words"]), (20 + count, count), generator=generator)
        return {"words": Example(words, ("steps", "rows"))}

    @torch.inference_mode()
    def predict(self, texts: str | Path | Sequence[str], *, column: str | None = None) -> pd.DataFrame:
        """Return the perplexity of each text, its words and how many of them are unknown.

            predictor.predict(["the film was great", "great was film the"])

        Args:
            texts: a text, or a file or folder of texts; in Python several texts too.
            column: the column with the texts, where the file is a table.

        Raises:
            ConfigError: there is no text, or it is something else.
            DataError: a file cannot be read.
        """
        names, given, notes = read_texts(texts, column, self.state.get("column"))
        vocabulary, rows = self.generator.vocabulary, []
        for name, text in zip(names, given, strict=True):
            words = self._words_of(text)
            codes = torch.tensor([vocabulary.end or 0, *vocabulary.encode(words)])[:, None]
            losses = []
            for model in self.generator.models:
                found, hidden = [torch.zeros(0)], None
                for piece in zip(torch.split(codes[:-1], PIECE), torch.split(codes[1:], PIECE), strict=True):
                    outputs, hidden, _ = model(*piece, hidden=hidden)
                    found.append(outputs)
                losses.append(torch.cat(found))
            mean = average_losses(losses).mean() if words else torch.tensor(torch.nan)
            unknown = int((codes == 0).sum())
            rows.append({"text": name, "words": len(words), "unknown": unknown, "perplexity": float(mean.exp())})
        return with_notes(pd.DataFrame(rows), notes)

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
        """Let the model go on from a text: with the likeliest words, words drawn at random, or the likeliest text.

            predictor.generate("the film", words=20, top_p=0.9, seed=1)

        Args:
            text: the beginning, which is not repeated.
            words: how many at most; it ends sooner where the text does.
            top_k: draw from this many likeliest words.
            top_p: draw from the likeliest words with this chance together.
            temperature: draw; below 1 bolder, above 1 wilder.
            seed: of the draws; 0 by default.
            beams: look for the likeliest text with so many beams.
            next: list so many likeliest next words instead (see `next_words`).

        Raises:
            ConfigError: no word of the text is known, or options do not go together.
        """
        begun, note = self._begun(text)
        draws = {"top_k": top_k, "top_p": top_p, "temperature": temperature, "seed": seed}
        drawn = any(value is not None for value in draws.values())
        if next is not None:
            if drawn or beams is not None:
                raise ConfigError("next: lists words; it does not go with beams, nor with what draws at random")
            chances, found = self.generator.next_words(begun, next)
            width = max(map(len, found))
            said = "\n".join(f"{word!r:<{width + 3}}{chance:7.2%}" for word, chance in zip(found, chances, strict=True))
        elif beams is None:
            said = self.generator.text_after(begun, words, top_k=top_k, top_p=top_p, temperature=temperature, seed=seed)
        elif drawn:
            raise ConfigError("beams looks for the likeliest text; it does not go with what draws at random")
        else:
            said = self.generator.likeliest_text_after(begun, words, beams)
        answer = Answer(said)
        answer.note = note
        return answer

    def next_words(self, text: str, number: NumWords = 10) -> pd.DataFrame:
        """Return the likeliest next words and their chances, the likeliest first.

            predictor.next_words("the film", 5)

        Args:
            text: what is said already.
            number: how many words.

        Raises:
            ConfigError: no word of the text is known.
        """
        begun, note = self._begun(text)
        chances, words = self.generator.next_words(begun, number)
        return with_notes(pd.DataFrame({"word": words, "chance": chances}), [note] if note else [])

    def _words_of(self, text: str) -> list[str]:
        """Return a text's words as the run reads them."""
        return list(tokens_of(text, self.state["tokenizer"], self.state["lower"]))

    def _begun(self, text: str) -> tuple[list[str], str]:
        """Return a text's words, and which of them are unknown, in a sentence."""
        words = self._words_of(text)
        unknown = self.generator.unknown(words)
        return words, f"unknown here, read as {UNKNOWN}: {', '.join(unknown)}" if unknown else ""


def language_models(models: Sequence[Model]) -> list[LanguageModel]:
    """Return models as what they are."""
    found = [model for model in models if isinstance(model, LanguageModel)]
    if len(found) < len(models):
        raise TypeError(f"{type(models[0]).__name__} is no language model")
    return found
