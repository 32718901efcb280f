"""How a language model goes on: the likeliest words, words drawn at random, or the likeliest text of some."""

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
"""Words of a given text that are read at once: the memory for a text of any length stays that of a short one."""


class Generator:
    """Continues texts.

    Args:
        models: whose chances are averaged.
        vocabulary: their words.
    """

    def __init__(self, models: Sequence[LanguageModel], vocabulary: Vocabulary) -> None:
        self.models, self.vocabulary = models, vocabulary
        self.device = next(models[0].parameters()).device
        self.never = torch.tensor(vocabulary.encode([UNKNOWN, PAD]), device=self.device)

    def unknown(self, words: Sequence[str]) -> list[str]:
        """Return the words of a text that are not known.

        Raises:
            ConfigError: no word of it is known.
        """
        unknown = sorted({word for word in words if word not in self.vocabulary.index and word.strip()})
        if not any(word in self.vocabulary.index for word in words if word.strip()):
            raise ConfigError(f"no word of the text is known to this run ({', '.join(unknown) or 'it is empty'})")
        return unknown

    @torch.inference_mode()
    def next_words(self, words: Sequence[str], number: int) -> tuple[list[float], list[str]]:
        """Return the likeliest next words, `<unk>` among them, and their chances."""
        logs, _ = self._read(words)
        logs[self.vocabulary.index[PAD]] = -torch.inf
        chances, places = logs.exp().topk(min(number, len(logs) - 1))
        return chances.tolist(), [self.vocabulary.words[place] for place in places.tolist()]

    @torch.inference_mode()
    def text_after(
        self,
        words: Sequence[str],
        number: int,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Return so many words more, never `<unk>`, up to the end of a text.

        Args:
            words: what is said already.
            number: most words.
            top_k: they are drawn from this many likeliest ones.
            top_p: from the fewest likeliest ones that have this chance together (nucleus sampling).
            temperature: chances are raised to 1 / temperature; without any of these each word is the likeliest.
            seed: of the draws.
        """
        draws = any(option is not None for option in (top_k, top_p, temperature, seed))
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        logs, states = self._read(words)
        said: list[int] = []
        while len(said) < number:
            allowed = self._allowed(logs).cpu()
            if not said and self.vocabulary.end is not None:
                allowed[self.vocabulary.end] = -torch.inf  # one word at least
            place = int(_drawn(allowed, top_k, top_p, temperature or 1.0, generator) if draws else allowed.argmax())
            if place == self.vocabulary.end:
                break
            said.append(place)
            logs, states = self._step(torch.tensor([[place]], device=self.device), states)
        return readable([self.vocabulary.words[place] for place in said])

    @torch.inference_mode()
    def likeliest_text_after(self, words: Sequence[str], number: int, num_beams: int) -> str:
        """Return the likeliest text of so many words that a beam search finds, without `<unk>`.

        Texts that end sooner are compared by the mean of their words' logarithms.
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
            states = [_of_beams(state, chosen) for state in states]
            logs, states = self._step(torch.tensor([[text[-1] for text in texts]], device=self.device), states)
            logs = logs.reshape(len(texts), -1)
        ended += [(float(score) / max(1, len(text)), text) for score, text in zip(scores, texts, strict=True)]
        return readable([self.vocabulary.words[place] for place in max(ended)[1]])

    def _read(self, words: Sequence[str]) -> tuple[Tensor, list[State]]:
        """Read what is said already, after the end of another text."""
        start = [] if self.vocabulary.end is None else [self.vocabulary.end]
        codes = torch.tensor([*start, *self.vocabulary.encode(words)], device=self.device)[:, None]
        return self._step(codes, [None] * len(self.models))

    def _step(self, codes: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        """Return the logarithms of the averaged chances, [words] or [batch, words], and the states."""
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


def _drawn(
    logs: Tensor, top_k: int | None, top_p: float | None, temperature: float, generator: torch.Generator
) -> Tensor:
    """Draw one place from logarithms of chances, [words]."""
    order = logs.argsort(descending=True)
    chances = ((logs[order] - logs.max()) / temperature).softmax(dim=0)
    if top_k is not None:
        chances[top_k:] = 0
    if top_p is not None:
        chances[1:][chances.cumsum(dim=0)[:-1] >= top_p] = 0
    return order[torch.multinomial(chances, 1, generator=generator)]


def _of_beams(state: State, chosen: Tensor) -> State:
    return [tuple(part[:, chosen] for part in layer) for layer in state]


def readable(words: Sequence[str]) -> str:
    """Write words as people do: no blank before a full stop, nor within isn't.

    >>> readable(["it", "is", "n't", "bad", ",", "it", "'s", "great", "!"])
    "it isn't bad, it's great!"
    """
    text = " ".join("\\n" if word == "\n" else word for word in words if word != END)
    text = re.sub(r" (n't|'(?:s|m|re|ve|ll|d)\b|[.,!?;:%)\]])", r"\1", text)
    return re.sub(r"([(\[]) ", r"\1", text)
