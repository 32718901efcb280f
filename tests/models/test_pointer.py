"""The pointer: probabilities by the paper's formula, whatever the pieces; it sees no later word, and words come back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dlrunner.models.language import LanguageDims, LanguageModel
from dlrunner.models.pointer import FORGOTTEN, Pointer

NUM_WORDS = 12
DROPOUTS = ("embedding_dropout", "input_dropout", "weight_dropout", "hidden_dropout", "output_dropout")


def language_model(pointer: int = 5) -> LanguageModel:
    torch.manual_seed(0)
    settings: dict[str, Any] = dict.fromkeys((*DROPOUTS, "alpha", "beta"), 0.0)
    model = LanguageModel(
        LanguageDims(NUM_WORDS), embedding=8, hidden=12, layers=1, pointer=pointer, **settings
    ).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def stream(steps: int, columns: int) -> tuple[Tensor, Tensor]:
    words = torch.randint(NUM_WORDS, (steps + 1, columns), generator=torch.Generator().manual_seed(1))
    return words[:-1], words[1:]


def by_formula(model: LanguageModel, words: Tensor, following: Tensor, window: int) -> Tensor:
    """Return the loss of each next word, one after another, by the paper's formula."""
    pointer = model.pointer
    assert pointer is not None
    states, _ = model.encoder(words)
    plain = torch.log_softmax(states @ model.encoder.embedding.weight.t() + model.bias, dim=2).exp()
    losses = torch.empty(words.shape, dtype=torch.float64)
    for column in range(words.shape[1]):
        for step in range(len(words)):
            state = states[step, column]
            seen = range(max(0, step - window), step)
            scores = [pointer.query(state) @ states[place, column] / math.sqrt(8) for place in seen]
            weights = torch.stack([*scores, pointer.sentinel(state)[0]]).softmax(dim=0)
            probs = weights[-1] * plain[step, column]
            for weight, place in zip(weights, seen, strict=False):
                probs[words[place + 1, column]] += weight
            assert probs.sum().item() == pytest.approx(1)
            losses[step, column] = -probs[following[step, column]].log()
    return losses


@pytest.mark.parametrize("window", [1, 5, 50])
def test_losses_and_gradients_are_those_of_the_formula(window: int) -> None:
    model = language_model(window)
    words, following = stream(9, 3)
    expected = by_formula(model, words, following, window)
    torch.testing.assert_close(model.eval()(words, following).outputs, expected.flatten())
    loss = model.train()(words, following).outputs
    torch.testing.assert_close(loss, expected.mean())
    leaves = list(model.parameters())
    truth = torch.autograd.grad(expected.mean(), leaves)
    for found, right in zip(torch.autograd.grad(loss, leaves), truth, strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("piece", [1, 2, 7])
@torch.inference_mode()
def test_pieces_of_a_stream_have_the_losses_of_the_whole(piece: int) -> None:
    model = language_model().eval()
    words, following = stream(21, 2)
    whole, state = [], None
    for part in zip(torch.split(words, piece), torch.split(following, piece), strict=True):
        losses, state, _ = model(*part, hidden=state)
        whole.append(losses)
        assert len(state[-1][0]) <= 5
        assert all(each.untyped_storage().nbytes() == each.nbytes for each in state[-1])  # checkpoints write all of it
    torch.testing.assert_close(torch.cat(whole), model(words, following).outputs)


@torch.inference_mode()
def test_the_next_words_are_those_of_the_losses() -> None:
    model = language_model().eval()
    words, following = stream(11, 3)
    losses, state = model(words, following).outputs.view(11, 3), None
    for step in range(11):
        logs, state = model.next_words(words[step : step + 1], state)
        torch.testing.assert_close(logs.exp().sum(dim=1).double(), torch.ones(3).double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            -logs.gather(1, following[step, :, None])[:, 0].double(), losses[step], rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(model.next_words(words, None)[0], logs, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_net_that_is_cast_as_a_whole_keeps_its_numbers() -> None:
    model = language_model().eval()
    words, following = stream(11, 3)
    losses = model(words, following).outputs
    narrow = model.bfloat16()
    torch.testing.assert_close(narrow(words, following).outputs.double(), losses.double(), rtol=0.05, atol=0.05)
    logs, _ = narrow.next_words(words, None)
    torch.testing.assert_close(logs.exp().sum(dim=1).double(), torch.ones(3).double(), rtol=0, atol=0.02)


@torch.inference_mode()
def test_a_word_that_is_as_good_as_impossible_has_a_number() -> None:
    model = language_model().eval()
    model.bias[3] = -1e4  # exp() is 0
    logs, _ = model.next_words(torch.full((4, 1), 5), None)
    assert torch.isfinite(logs).all()


@torch.inference_mode()
def test_words_beyond_the_window_and_later_ones_change_nothing() -> None:
    pointer = Pointer(3, 4)
    torch.manual_seed(0)
    states, words, following = torch.randn(9, 1, 4), torch.arange(9)[:, None], torch.arange(1, 10)[:, None]
    memory = pointer.remember(states, words, None)
    pointed, _ = pointer.of_words(states, memory, torch.full_like(following, 5))
    assert (pointed[:, 0] > -100).tolist() == [5 <= step < 8 for step in range(9)]  # 5 follows 4, seen from 5 to 7


def test_columns_forget_in_training_alone() -> None:
    pointer, states, words = Pointer(4, 3), torch.randn(2, 1000, 3), torch.ones(2, 1000, dtype=torch.int64)
    before = pointer.remember(states, words, None)
    torch.manual_seed(0)
    memory = pointer.remember(states, words, before)
    forgotten = (memory.words[:2] == FORGOTTEN).all(dim=0)
    assert 150 < int(forgotten.sum()) < 250
    assert (memory.words[2:] == 1).all()
    pointed, _ = pointer.of_words(states, memory, words)
    assert torch.equal(pointed[0] < -100, forgotten)  # the first step sees only what was before
    pointer.eval()
    assert (pointer.remember(states, words, before).words == 1).all()


def test_a_name_that_a_text_repeats_is_found_again() -> None:
    """Each text repeats a name of its own; a net of the same size without a pointer does not learn it as soon."""
    losses = {}
    for window in (0, 20):
        torch.manual_seed(0)
        model = LanguageModel(LanguageDims(103), embedding=16, hidden=16, layers=1, pointer=window)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(100):
            names = torch.randint(3, 103, (1, 32))
            text = torch.cat([torch.zeros_like(names), names, torch.ones_like(names)]).repeat(4, 1)
            loss = model(text[:-1], text[1:]).outputs
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            losses[window] = model.eval()(text[:-1], text[1:]).outputs.view(11, 32)[3::3].mean().item()
    assert losses[0] > 4
    assert losses[20] < 1
