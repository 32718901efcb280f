"""The adaptive softmax: exact probabilities, the gradients of its formula, one tensor for embedding and decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dlrunner.errors import ConfigError
from dlrunner.models.adaptive_softmax import AdaptiveSoftmax
from dlrunner.models.language import LanguageDims, LanguageModel

CUTOFFS = [7, 20]


def words(steps: int, columns: int, seed: int = 0, below: int = 50) -> Tensor:
    return torch.randint(below, (steps, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def language_model(**settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embedding": 8, "hidden": 12, "layers": 2, "softmax": "adaptive", "cutoffs": CUTOFFS}
    return LanguageModel(LanguageDims(50), **{**sizes, **settings})


def dense(softmax: AdaptiveSoftmax, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the log-probabilities of all words, each by the formula."""
    scores, of_clusters = states @ weight.T + bias, states @ softmax.weight.T + softmax.bias
    head = torch.cat([scores[:, :7], of_clusters], dim=1).log_softmax(dim=1)
    columns = [head[:, word] for word in range(7)]
    for index, (start, end) in enumerate([(7, 20), (20, 50)]):
        within = scores[:, start:end].log_softmax(dim=1)
        columns += [head[:, 7 + index] + within[:, word] for word in range(end - start)]
    return torch.stack(columns, dim=1)


def inputs(tokens: int = 40, below: int = 50) -> tuple[AdaptiveSoftmax, tuple[Tensor, Tensor, Tensor], Tensor]:
    torch.manual_seed(0)
    softmax = AdaptiveSoftmax(50, 5, CUTOFFS).double()
    states, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((tokens, 5), (50, 5), (50,)))
    return softmax, (states, weight, bias), torch.randint(below, (tokens,))


@pytest.mark.parametrize("elements", [13, 1000])
def test_losses_and_gradients_are_those_of_the_dense_formula(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.models.softmax.CPU_ELEMENTS", elements)
    softmax, tensors, targets = inputs()
    assert {int((targets >= cutoff).sum()) > 0 for cutoff in (0, *CUTOFFS)} == {True}
    leaves = [*(each.requires_grad_() for each in tensors), softmax.weight, softmax.bias]
    expected = -dense(softmax, *tensors).gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(softmax.token_losses(*tensors, targets), expected.detach())
    loss = softmax.mean_loss(*tensors, targets)
    torch.testing.assert_close(loss, expected.mean())
    gradients = torch.autograd.grad(3 * loss, leaves)
    for found, truth in zip(
        gradients, torch.autograd.grad(3 * expected.mean(), leaves, retain_graph=True), strict=True
    ):
        torch.testing.assert_close(found, truth)
    mixture = [torch.randn(len(targets), dtype=torch.float64, requires_grad=True) for _ in range(2)]
    loss, mixed = softmax.mixed_loss(*tensors, targets, *mixture), -torch.logaddexp(mixture[0] - expected, mixture[1])
    torch.testing.assert_close(loss, mixed.mean())
    gradients = torch.autograd.grad(3 * loss, [*leaves, *mixture])
    for found, truth in zip(gradients, torch.autograd.grad(3 * mixed.mean(), [*leaves, *mixture]), strict=True):
        torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("below", [7, 20])
def test_clusters_without_targets_add_nothing(below: int) -> None:
    softmax, tensors, targets = inputs(below=below)
    expected = -dense(softmax, *tensors).gather(1, targets[:, None]).mean()
    torch.testing.assert_close(softmax.mean_loss(*tensors, targets), expected)
    weight = tensors[1].requires_grad_()
    (gradient,) = torch.autograd.grad(softmax.mean_loss(*tensors, targets), [weight])
    assert not gradient[20:].any()


def test_probabilities_sum_to_one_over_all_words_and_are_what_the_losses_say() -> None:
    model = language_model().eval()
    text = words(12, 3)
    logs, _ = model.next_words(text[:-1], None)
    assert logs.shape == (3, 50)
    torch.testing.assert_close(logs.exp().sum(dim=1), torch.ones(3))
    losses = model(text[:-1], text[1:]).outputs.reshape(11, 3)
    torch.testing.assert_close(-logs.gather(1, text[-1:].long().T).squeeze(1), losses[-1])


def test_half_the_bits_give_nearly_the_same_loss_and_gradients() -> None:
    losses, gradients = [], []
    for precision in (torch.float32, torch.bfloat16):
        model = language_model(
            embedding_dropout=0.0, input_dropout=0.0, weight_dropout=0.0, hidden_dropout=0.0, output_dropout=0.0
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = model(words(20, 8), words(20, 8, 1)).outputs
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99


def test_embedding_and_decoder_are_one_tensor_in_one_group_with_the_clusters() -> None:
    model = language_model()
    groups = [list(group.parameters()) for group in model.layer_groups()]
    ids = [id(parameter) for group in groups for parameter in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters()}
    assert model.clusters is not None
    assert {id(model.encoder.embedding.weight), id(model.clusters.weight)} < {id(each) for each in groups[-1]}
    assert model.encoder.embedding.weight.shape == (50, 8)
    model(words(9, 4, below=7), words(9, 4, 1)).outputs.backward()
    gradient = model.encoder.embedding.weight.grad
    assert gradient is not None
    assert gradient[20:].abs().sum(dim=1).all()  # rare words are never read here, only predicted


def test_an_encoder_has_the_same_weights_whatever_the_softmax() -> None:
    plain = language_model(softmax="full", cutoffs=None)
    model = language_model()
    model.encoder.load_state_dict(plain.encoder.state_dict())
    torch.testing.assert_close(model.eval().encoder(words(5, 2))[0], plain.eval().encoder(words(5, 2))[0])


def test_cutoffs_are_by_default_those_that_the_vocabulary_has_words_after() -> None:
    assert AdaptiveSoftmax(34_892, 4).sizes == [2_000, 8_000, 24_892]
    assert AdaptiveSoftmax(10_000, 4).sizes == [2_000, 8_000]
    for num_words, cutoffs in ((2_000, None), (50, [50]), (50, [7, 60])):
        with pytest.raises(ConfigError, match=f"model.cutoffs: the vocabulary has {num_words:,} words"):
            AdaptiveSoftmax(num_words, 4, cutoffs)
