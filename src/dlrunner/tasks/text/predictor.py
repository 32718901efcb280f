"""What a trained classifier says of texts, and which words speak for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.data.texts.loaders import PAD, padded
from dlrunner.data.texts.tokens import tokens_of
from dlrunner.data.texts.vocabulary import Vocabulary
from dlrunner.encoder_file import EncoderSizes
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.text import TextDims
from dlrunner.predictor import Predictor
from dlrunner.tasks.common.inputs import with_notes
from dlrunner.tasks.common.outputs import probabilities, with_distinct_names
from dlrunner.tasks.text.inputs import read_texts

MOST_VARIANTS = 60
"""A text is read again this often at most to find the words that matter; longer ones are taken in groups of words."""


class TextPredictor(Predictor):
    """Answers about texts; the probabilities of several models are averaged."""

    example = 'predictor.predict(["it was great", "it was not"])'
    limits = ("Words that are not in its vocabulary are not told from each other.",)

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.vocabulary, self.target = Vocabulary(state["words"]), Target.from_state(state["target"])

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> TextDims:
        """The vocabulary, the classes, and the encoder whose vocabulary it is."""
        encoder = EncoderSizes(**state["encoder"]) if state["encoder"] else None
        words = Vocabulary(state["words"])
        return TextDims(len(words.words), Target.from_state(state["target"]).num_outputs, words.digest, encoder)

    def examples(self, count: int) -> Mapping[str, Example]:
        """Texts of any words and of any length up to some hundred words, padded at their ends."""
        generator = torch.Generator().manual_seed(count)
        lengths = torch.randint(1, 100 + count, (count,), generator=generator)
        words = torch.randint(len(self.state["words"]), (count, int(lengths.max())), generator=generator)
        words = words.masked_fill(torch.arange(words.shape[1]) >= lengths[:, None], PAD)
        return {"words": Example(words, ("rows", "steps")), "lengths": Example(lengths, ("rows",))}

    def predict(
        self, texts: str | Path | Sequence[str], *, column: str | None = None, words: bool = False
    ) -> pd.DataFrame:
        """Return the class of each text with probabilities; of labels, each by itself.

            predictor.predict(["it was great", "it was not"])
            predictor.predict(Path("reviews.csv"), column="review")

        Args:
            texts: a text, or a file or folder of texts; in Python several texts too.
            column: the column with the texts, where the file is a table.
            words: tell the words that mattered most, of up to 20 texts.

        Raises:
            ConfigError: there is no text, or it is something else.
            DataError: a file cannot be read.
        """
        target = self.target
        names, given, notes = read_texts(texts, column, self.state.get("column"))
        read = [tokens_of(text, self.state["tokenizer"], self.state["lower"]) for text in given]
        codes = [np.array(self.vocabulary.encode(each), dtype=np.int32) for each in read]
        outputs = target.average([classify(model, codes) for model in self.models])
        named = pd.DataFrame({"text": names})
        found = with_distinct_names(pd.concat([named, target.answers(outputs, target.names[0])], axis=1))
        if empty := sum(not (each > 0).any() for each in codes):
            notes.append(f"{empty:,} text(s) hold no word that is known to this run: their answers mean nothing")
        if words and target.has_one_class:
            said = probabilities(target, outputs).argmax(axis=1)
            for place in range(min(20, len(given))):
                weights = word_weights(self.models, target, codes[place], int(said[place]))
                best = np.argsort(-np.abs(weights), kind="stable")[:8]
                told = ", ".join(f"{read[place][i]} {weights[i]:+.3f}" for i in best if weights[i])
                notes.append(f"{names[place]}: {told or 'no word matters'}")
        return with_notes(found, notes)


@torch.inference_mode()
def classify(model: Model, texts: Sequence[NDArray[np.int32]], batch_size: int = 64) -> Tensor:
    """Return a model's outputs for texts, in their order, of shape [texts] or [texts, classes]."""
    device = next(model.parameters()).device
    model.eval()
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")
    found: list[tuple[NDArray[np.int64], Tensor]] = []
    for rows in np.array_split(order, range(batch_size, len(order), batch_size)):
        joined, counts = np.concatenate([texts[row] for row in rows]), lengths[rows]
        codes, starts, sizes = (
            torch.from_numpy(each).to(device) for each in (joined, counts.cumsum() - counts, counts)
        )
        batch = padded(codes, starts, sizes, max(1, int(counts.max())), torch.zeros(len(rows)))
        found.append((rows, forward_pass(model, *batch.inputs).outputs.float().cpu()))
    outputs = torch.cat([output for _, output in found])
    return outputs[torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in found])))]


def word_weights(models: Sequence[Model], target: Target, codes: NDArray[np.int32], answer: int) -> NDArray[np.float64]:
    """Return by how much the chance of an answer falls when a word is made unknown, [words].

    Of a long text words are taken in groups, so that it is read again MOST_VARIANTS times at most.
    """
    size = max(1, -(-len(codes) // MOST_VARIANTS))
    groups = [slice(start, start + size) for start in range(0, len(codes), size)]
    variants = [codes, *(_without(codes, group) for group in groups)]
    outputs = target.average([classify(model, variants) for model in models])
    chances = probabilities(target, outputs)[:, answer]
    weights = np.zeros(len(codes))
    for group, chance in zip(groups, chances[1:], strict=True):
        weights[group] = chances[0] - chance
    return weights


def _without(codes: NDArray[np.int32], group: slice) -> NDArray[np.int32]:
    left = codes.copy()
    left[group] = 0
    return left
