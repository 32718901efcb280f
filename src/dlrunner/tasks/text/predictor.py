"""Predictions of a trained text classifier, and the importance of each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.input_columns import ROW, append_predictions
from dlrunner.data.core.targets import Target
from dlrunner.data.texts.dataset import cut_notes
from dlrunner.data.texts.loaders import PAD
from dlrunner.data.texts.tokens import tokens_of
from dlrunner.data.texts.vocabulary import Vocabulary
from dlrunner.encoder_file import EncoderSizes
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.text import TextDims
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import Predictor, RowField
from dlrunner.row_blocks import ROWS, KeptRows, in_blocks
from dlrunner.tasks.text.inputs import read_texts

MAX_VARIANTS = 60
"""Forward passes per text for word importance; words of longer texts are masked in groups."""
MOST_EXPLAINED = 20
"""Texts whose important words are listed."""
MULTIPLE = 8
"""A batch has a multiple of so many texts: the rows of a matrix product are then computed alike, however many."""


class TextPredictor(Predictor):
    """Classifies texts; an ensemble averages the probabilities of its models."""

    example = 'predictor.predict(["it was great", "it was not"])'
    limits = ("Out-of-vocabulary words are all treated alike.",)

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.vocabulary, self.target = Vocabulary(state["words"]), Target.from_state(state["target"])

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> TextDims:
        """Sizes of the vocabulary and the target, and the encoder that the vocabulary belongs to."""
        encoder = EncoderSizes(**state["encoder"]) if state["encoder"] else None
        words = Vocabulary(state["words"])
        return TextDims(len(words.words), Target.from_state(state["target"]).num_outputs, words.digest, encoder)

    @property
    def output_formula(self) -> str:
        """Of the target."""
        return self.target.formula()

    @property
    def text_columns(self) -> Sequence[str]:
        """Texts and names of classes; where a column of the input has the name of one of the answer's, that follows."""
        classes, texts = self.target.class_columns, self.state.get("text_columns", ["text"])
        return list(dict.fromkeys([*texts, *(f"{name}_2" if name in (*texts, ROW) else name for name in classes)]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """Texts of random words and lengths up to some hundred words, padded at the end."""
        generator = torch.Generator().manual_seed(count)
        lengths = torch.randint(1, 100 + count, (count,), generator=generator)
        words = torch.randint(len(self.state["words"]), (count, int(lengths.max())), generator=generator)
        words = words.masked_fill(torch.arange(words.shape[1]) >= lengths[:, None], PAD)
        return {"words": Example(words, ("rows", "steps")), "lengths": Example(lengths, ("rows",))}

    def row_fields(self) -> Sequence[RowField]:
        """Return the text."""
        return [RowField("text", "text", example="a text")]

    def predict_request(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predict the texts of a request; none is the name of a file."""
        return self.predict(rows["text"].tolist())

    def predict(
        self,
        texts: str | Path | Sequence[str],
        *,
        column: str | None = None,
        only: list[str] | None = None,
        words: bool = False,
    ) -> pd.DataFrame:
        """Predict the class of each text with probabilities; labels are independent.

            predictor.predict(["it was great", "it was not"])
            predictor.predict(Path("reviews.csv"), column="review")

        Args:
            texts: a text, a file or folder of texts, or - for standard input; in Python also a list, or a DataFrame.
            column: column of the texts, if it is a table.
            only: columns of the table next to the predictions, instead of all; none: predictions alone.
            words: list the most important words of up to 20 texts: for the class, or for each label that a text has,
                else for the most likely one.

        Raises:
            ConfigError: there is no text, or the argument has another type.
            DataError: a file cannot be read.
        """
        target = self.target
        given = read_texts(texts, column, self.state.get("column"), self.state.get("files"))
        notes = given.notes
        tokens = [tokens_of(text, self.state["tokenizer"], self.state["lower"]) for text in given.texts]
        if (most := self.state.get("max_tokens")) is not None:
            notes += cut_notes(sum(len(each) > most for each in tokens), most)
            tokens = [each[:most] for each in tokens]
        codes = [np.array(self.vocabulary.encode(each), dtype=np.int32) for each in tokens]
        outputs = classify_averaged(self.models, target, codes)
        problems = given.problems
        if given.empty and "without_words" in self.state:  # of a run of an older version they are a problem
            problems = [(row, reason) for row, reason in problems if row not in given.empty]
            constant = self.state["without_words"]
            if constant is not None:
                outputs = outputs.clone()
                outputs[given.empty] = constant
            like = "the model (the run has such)" if constant is None else "the class frequencies of the training texts"
            notes.append(f"{len(given.empty):,} text(s) are empty: their predictions are those of {like}")
        is_given = given.table is not None and target.names[0] in given.table.columns
        inputs = given.columns(only)
        answer = append_predictions(inputs, target.answers(outputs, "prediction" if is_given else target.names[0]))
        answer = with_problems(answer, list(answer.columns[: inputs.shape[1]]), problems)
        if unknown := sum(len(each) > 0 and not (each > 0).any() for each in codes):
            notes.append(f"{unknown:,} text(s) contain only out-of-vocabulary words: their predictions are meaningless")
        if words:
            probs = target.probabilities(outputs[:MOST_EXPLAINED])
            for row, name in enumerate(given.names[:MOST_EXPLAINED]):
                notes += self._important_words(name, tokens[row], codes[row], probs[row])
        return with_notes(answer, notes)

    def _important_words(
        self, name: str, tokens: Sequence[str], codes: NDArray[np.int32], probs: NDArray[np.float32]
    ) -> list[str]:
        """Return the most important words of a text for its class, or for each of its labels, in a line each.

        Args:
            name: of the text, or the text itself.
            tokens: its words.
            codes: of its words.
            probs: of the classes or labels.
        """
        name, lines = name if len(name) < 60 else f"{name[:57]}…", []
        chosen = [int(probs.argmax())]
        if not self.target.has_one_class:
            chosen = np.flatnonzero(probs > 0.5).tolist() or chosen
        for code in chosen:
            weights = word_weights(self.models, self.target, codes, code)
            best = np.argsort(-np.abs(weights), kind="stable")[:8]
            listed = ", ".join(f"{tokens[i]} {weights[i]:+.3f}" for i in best if weights[i])
            label = "" if self.target.has_one_class else f", label {self.target.classes[code]}"
            lines.append(f"{name}{label}: {listed or 'no important words'}")
        return lines


def classify_averaged(models: Sequence[Model], target: Target, texts: Sequence[NDArray[np.int32]]) -> Tensor:
    """Return the averaged outputs of the models for texts, in the given order, [texts] or [texts, classes]."""
    outputs = [classify(model, texts) for model in models]
    return in_blocks(lambda *members: target.average(members), *outputs)


@torch.inference_mode()
def classify(model: Model, texts: Sequence[NDArray[np.int32]]) -> Tensor:
    """Return a model's outputs for texts, in the given order, [texts] or [texts, classes].

    A text is padded to a length that follows from its own alone, and a batch is filled up to a multiple of MULTIPLE
    texts: the outputs of a text do not depend on the others.
    """
    device = next(model.parameters()).device
    model.eval()
    lengths = np.array([max(1, len(text)) for text in texts])
    steps = np.array([padded_length(length) for length in lengths.tolist()])
    order = np.argsort(-steps, kind="stable")
    ends = np.flatnonzero(np.diff(steps[order])) + 1
    found = KeptRows()
    for alike in np.split(order, ends):
        for rows in np.array_split(alike, range(ROWS, len(alike), ROWS)):
            shape = -(-len(rows) // MULTIPLE) * MULTIPLE, int(steps[rows[0]])
            words, counts = torch.full(shape, PAD, dtype=torch.int32), torch.full(shape[:1], shape[1])
            for place, row in enumerate(rows):
                words[place, : len(texts[row])] = torch.from_numpy(texts[row])
                counts[place] = int(lengths[row])
            found.add(forward_pass(model, words.to(device), counts.to(device)).outputs.float().cpu()[: len(rows)])
    return found.joined()[torch.from_numpy(np.argsort(order))]


def padded_length(length: int) -> int:
    """Return the length that a text is padded to.

    >>> [padded_length(each) for each in (1, 8, 9, 100, 129, 2000)]
    [8, 8, 16, 112, 160, 2016]
    """
    step = 8 if length <= 64 else 16 if length <= 128 else 32
    return -(-length // step) * step


def word_weights(models: Sequence[Model], target: Target, codes: NDArray[np.int32], label: int) -> NDArray[np.float64]:
    """Return the drop of the predicted probability when a word is replaced by the unknown token, [words].

    Words of long texts are masked in groups, so that there are at most MAX_VARIANTS forward passes.
    """
    size = max(1, -(-len(codes) // MAX_VARIANTS))
    groups = [slice(start, start + size) for start in range(0, len(codes), size)]
    variants = [codes, *(_mask(codes, group) for group in groups)]
    outputs = classify_averaged(models, target, variants)
    probs = target.probabilities(outputs)[:, label]
    weights = np.zeros(len(codes))
    for group, prob in zip(groups, probs[1:], strict=True):
        weights[group] = probs[0] - prob
    return weights


def _mask(codes: NDArray[np.int32], group: slice) -> NDArray[np.int32]:
    masked = codes.copy()
    masked[group] = 0
    return masked
