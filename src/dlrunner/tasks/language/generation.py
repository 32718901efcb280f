"""Text generation by language models: greedy, sampling, or beam search."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from dlrunner.data.texts.tokens import END
from dlrunner.data.texts.vocabulary import PAD, UNKNOWN, Vocabulary
from dlrunner.errors import ConfigError
from dlrunner.models.language import LanguageModel
from dlrunner.models.recurrent import State

PIECE = 1000
"""Words of a prompt per forward pass: bounds the memory for long texts."""


class Generator:
    """Continues texts.

    Args:
        models: their probabilities are averaged.
        vocabulary: of the models.
    """

    def __init__(self, models: Sequence[LanguageModel], vocabulary: Vocabulary) -> None:
        self.models, self.vocabulary = models, vocabulary
        self.device = next(models[0].parameters()).device
        self.never = torch.tensor(vocabulary.encode([UNKNOWN, PAD]), device=self.device)

    def unknown(self, words: Sequence[str]) -> list[str]:
        """Return the out-of-vocabulary words of a text.

        Raises:
            ConfigError: no word is in the vocabulary.
        """
        unknown = sorted({word for word in words if word not in self.vocabulary.index and word.strip()})
        if not any(word in self.vocabulary.index for word in words if word.strip()):
            raise ConfigError(
                f"no word of the text is in the vocabulary of this run ({', '.join(unknown) or 'it is empty'})"
            )
        return unknown

    @torch.inference_mode()
    def next_words(self, words: Sequence[str], number: int) -> tuple[list[float], list[str]]:
        """Return the probabilities of the most likely next words, and these words; `<unk>` may be among them."""
        logs, _ = self._read(words)
        logs[self.vocabulary.index[PAD]] = -torch.inf
        probs, places = logs.exp().topk(min(number, len(logs) - 1))
        return probs.tolist(), [self.vocabulary.words[place] for place in places.tolist()]

    @torch.inference_mode()
    def generate(
        self,
        words: Sequence[str],
        number: int,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Continue a text, without `<unk>`, up to its end.

        Args:
            words: the prompt.
            number: maximum number of words.
            top_k: sample from this many most likely words.
            top_p: sample from the most likely words with this total probability (nucleus sampling).
            temperature: probabilities are raised to 1 / temperature; without any of these decoding is greedy.
            seed: of the sampling.
        """
        samples = any(option is not None for option in (top_k, top_p, temperature, seed))
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        logs, states = self._read(words)
        generated: list[int] = []
        while len(generated) < number:
            allowed = self._allowed(logs).cpu()
            if not generated and self.vocabulary.end is not None:
                allowed[self.vocabulary.end] = -torch.inf  # at least one word
            code = int(_sample(allowed, top_k, top_p, temperature or 1.0, generator) if samples else allowed.argmax())
            if code == self.vocabulary.end:
                break
            generated.append(code)
            logs, states = self._step(torch.tensor([[code]], device=self.device), states)
        return detokenize([self.vocabulary.words[code] for code in generated])

    @torch.inference_mode()
    def beam_search(self, words: Sequence[str], number: int, num_beams: int) -> str:
        """Return the most likely continuation found by beam search, without `<unk>`.

        Texts of different lengths are compared by their mean log probability per word.
        """
        logs, states = self._read(words)
        texts: list[list[int]] = [[]]
        scores = torch.zeros(1, device=self.device)
        ended: list[tuple[float, list[int]]] = []
        logs = logs[None]
        for step in range(number):
            totals = (scores[:, None] + self._allowed(logs)).flatten()
            best, places = totals.topk(min(2 * num_beams, int(torch.isfinite(totals).sum())))
            kept: list[tuple[float, int, int]] = []
            for total, place in zip(best.tolist(), places.tolist(), strict=True):
                beam, word = divmod(place, logs.shape[1])
                if word == self.vocabulary.end:
                    if step:
                        ended.append((total / (step + 1), texts[beam]))
                elif len(kept) < num_beams:
                    kept.append((total, beam, word))
            if not kept:
                break
            texts = [[*texts[beam], word] for _, beam, word in kept]
            scores = torch.tensor([total for total, _, _ in kept], device=self.device)
            chosen = torch.tensor([beam for _, beam, _ in kept], device=self.device)
            states = [_select_beams(state, chosen) for state in states]
            logs, states = self._step(torch.tensor([[text[-1] for text in texts]], device=self.device), states)
            logs = logs.reshape(len(texts), -1)
        ended += [(float(score) / max(1, len(text)), text) for score, text in zip(scores, texts, strict=True)]
        return detokenize([self.vocabulary.words[place] for place in max(ended)[1]])

    def _read(self, words: Sequence[str]) -> tuple[Tensor, list[State]]:
        """Run the prompt through the models, preceded by an end-of-text token."""
        start = [] if self.vocabulary.end is None else [self.vocabulary.end]
        codes = torch.tensor([*start, *self.vocabulary.encode(words)], device=self.device)[:, None]
        return self._step(codes, [None] * len(self.models))

    def _step(self, codes: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        """Return the log of the averaged probabilities, [words] or [batch, words], and the hidden states."""
        *beginning, last = torch.split(codes, PIECE)
        for piece in beginning:
            states = [
                model.eval().next_words(piece, state)[1] for model, state in zip(self.models, states, strict=True)
            ]
        found = [model.eval().next_words(last, state) for model, state in zip(self.models, states, strict=True)]
        logs = torch.stack([each for each, _ in found]).logsumexp(dim=0) - math.log(len(found))
        return logs[0] if len(logs) == 1 else logs, [state for _, state in found]

    def _allowed(self, logs: Tensor) -> Tensor:
        return logs.index_fill(-1, self.never, -torch.inf)


def _sample(
    logs: Tensor, top_k: int | None, top_p: float | None, temperature: float, generator: torch.Generator
) -> Tensor:
    """Sample one word code from log probabilities, [words]."""
    order = logs.argsort(descending=True)
    probs = ((logs[order] - logs.max()) / temperature).softmax(dim=0)
    if top_k is not None:
        probs[top_k:] = 0
    if top_p is not None:
        probs[1:][probs.cumsum(dim=0)[:-1] >= top_p] = 0
    return order[torch.multinomial(probs, 1, generator=generator)]


def _select_beams(state: State, chosen: Tensor) -> State:
    return [tuple(part[:, chosen] for part in layer) for layer in state]


def detokenize(words: Sequence[str]) -> str:
    """Detokenize: no space before punctuation or within contractions.

    >>> detokenize(["it", "is", "n't", "bad", ",", "it", "'s", "great", "!"])
    "it isn't bad, it's great!"
    """
    text = " ".join("\\n" if word == "\n" else word for word in words if word != END)
    text = re.sub(r" (n't|'(?:s|m|re|ve|ll|d)\b|[.,!?;:%)\]])", r"\1", text)
    return re.sub(r"([(\[]) ", r"\1", text)
