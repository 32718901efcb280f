"""AWD-LSTM and what stands on it: weights really drop, states are carried, tied weights stay one tensor."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrunner.encoder_file import Cell, Encoder, EncoderSizes
from dlrunner.errors import ConfigError
from dlrunner.model import Outputs
from dlrunner.models.language import LanguageDims, LanguageModel, regularisation
from dlrunner.models.ngram import KneserNey
from dlrunner.models.recurrent import QRNN, LockedDropout, RecurrentEncoder
from dlrunner.models.softmax import mean_loss, mixed_loss, mixed_loss_and_part, token_losses
from dlrunner.models.text import TextClassifier, TextDims

NO_DROPOUT: dict[str, Any] = {
    "embedding_dropout": 0.0, "input_dropout": 0.0, "weight_dropout": 0.0, "hidden_dropout": 0.0, "output_dropout": 0.0,
}  # fmt: skip
CELLS: list[Cell] = ["lstm", "gru", "qrnn"]


def language_model(cell: Cell = "lstm", **settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageDims(50), **{"embedding": 8, "hidden": 12, "layers": 2, "cell": cell, **settings})


def words(steps: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 50, (steps, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


@pytest.mark.parametrize("cell", CELLS)
def test_a_cpu_without_bfloat16_computes_the_layers_in_float32(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's LSTM needs AVX-512 for bfloat16: an older CPU would end the run with an error of its library."""
    monkeypatch.setattr("dlrunner.system.precision.has_bfloat16", lambda device: False)
    encoder, text = language_model(cell, **NO_DROPOUT).encoder, words(5, 3)
    expected, after = encoder(text)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = encoder(text)
        next_outputs, _ = encoder(text, state)
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, expected)
    assert torch.equal(next_outputs, encoder(text, after)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_weights_really_drop_and_other_ones_in_each_batch(cell: Cell) -> None:
    model = language_model(cell, **{**NO_DROPOUT, "weight_dropout": 0.5})
    layer = model.encoder._layers()[0]
    name = layer.dropped
    before = layer.cell.get_parameter(name).detach().clone()
    first, second = (layer.dropped_weights()[name] for _ in range(2))
    for dropped in (first, second):
        zeros = dropped == 0
        assert 0.35 < zeros.float().mean() < 0.65
        assert torch.allclose(dropped[~zeros], 2 * before[~zeros])
    assert not torch.equal(first == 0, second == 0)
    tokens = words(6, 3)
    outputs = [model.encoder(tokens)[0] for _ in range(2)]
    assert not torch.allclose(outputs[0], outputs[1])
    assert torch.equal(layer.cell.get_parameter(name), before)
    model.eval()
    assert layer.dropped_weights() == {}
    outputs = [model.encoder(tokens)[0] for _ in range(2)]
    assert torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("cell", CELLS)
def test_dropped_weights_are_what_the_layer_computes_with_and_learns_through(cell: Cell) -> None:
    model = language_model(cell, **NO_DROPOUT)
    layer = model.encoder._layers()[0]
    weight = layer.cell.get_parameter(layer.dropped)
    inputs = torch.randn(5, 3, 8)
    halved, _ = layer(inputs, None, {layer.dropped: weight / 2})
    halved.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        weight.mul_(0.5)
    same, _ = layer(inputs, None, {})
    assert torch.allclose(halved, same)


@pytest.mark.parametrize("name", list(NO_DROPOUT))
def test_each_of_the_five_dropouts_does_something_in_training_and_nothing_in_evaluation(name: str) -> None:
    tokens, following = words(7, 4), words(7, 4, 1)
    model = language_model(**{**NO_DROPOUT, name: 0.5})
    plain = language_model(**NO_DROPOUT)
    model.load_state_dict(plain.state_dict())
    losses = {}
    for each in (model, plain):
        each.train()
        losses[each] = float(each(tokens, following).outputs.detach())
    assert losses[model] != pytest.approx(losses[plain], abs=1e-6)
    told = []
    for each in (model, plain):
        each.eval()
        told.append(each(tokens, following).outputs)
    assert torch.equal(told[0], told[1])
    assert float(told[1].mean()) == pytest.approx(losses[plain], abs=1e-5)


def test_the_dropout_of_words_drops_a_word_wherever_it_stands() -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(50, EncoderSizes(8, 8, 1, "lstm"), embedding_dropout=0.5)
    seen: list[torch.Tensor] = []
    encoder.input_dropout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    tokens = torch.tensor([[3, 4, 5, 3, 7, 8], [4, 3, 3, 6, 9, 9]])
    encoder(tokens)
    lost = (seen[0] == 0).all(dim=2)
    for word in set(tokens.flatten().tolist()):
        assert len(set(lost[tokens == word].tolist())) == 1
    assert lost.any()
    assert not lost.all()


def test_locked_dropout_has_one_mask_for_all_steps() -> None:
    torch.manual_seed(0)
    dropped = LockedDropout(0.5)(torch.ones(9, 4, 30))
    assert torch.equal(dropped, dropped[:1].expand(9, 4, 30))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_the_named_layer_groups_are_those_of_the_model() -> None:
    model = TextClassifier(TextDims(50, 1, ""), embedding=8, hidden=12, layers=2)
    assert len(TextClassifier.groups_of({"layers": 2}) or ()) == len(model.layer_groups())
    assert TextClassifier.groups_of({"layers": None}) is None
    assert len(LanguageModel.groups_of({"layers": 2}) or ()) == len(language_model().layer_groups())


def test_the_tied_weights_are_one_tensor_and_stay_so() -> None:
    model = language_model(**NO_DROPOUT)
    groups = [list(group.parameters()) for group in model.layer_groups()]
    ids = [id(parameter) for group in groups for parameter in group]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))
    assert {id(p) for p in model.parameters()} == set(ids)
    optimizer = torch.optim.SGD([p for group in groups for p in group], lr=0.5)
    before = model.encoder.embedding.weight.detach().clone()
    model.train()
    model(words(5, 3), words(5, 3, 1)).outputs.backward()
    gradient = model.encoder.embedding.weight.grad
    assert gradient is not None
    # As an embedding only the words of the batch would have a gradient; as a decoder all have.
    assert (gradient.abs().sum(dim=1) > 0).all()
    optimizer.step()
    assert not torch.equal(before, model.encoder.embedding.weight)
    logs, _ = model.eval().next_words(words(5, 3), None)
    outputs, _ = model.encoder(words(5, 3))
    assert torch.allclose(logs, (outputs[-1] @ model.encoder.embedding.weight.t() + model.bias).log_softmax(dim=1))


@pytest.mark.parametrize("cell", CELLS)
def test_the_hidden_state_goes_on_to_the_next_batch_and_keeps_no_gradients(cell: Cell) -> None:
    model = language_model(cell, **NO_DROPOUT).eval()
    tokens, following = words(12, 3), words(12, 3, 1)
    whole = model(tokens, following).outputs.reshape(12, 3)
    first = model(tokens[:5], following[:5])
    second = model(tokens[5:], following[5:], hidden=first.hidden)
    assert torch.allclose(torch.cat([first.outputs, second.outputs]).reshape(12, 3), whole, atol=1e-6)
    fresh = model(tokens[5:], following[5:]).outputs.reshape(7, 3)
    assert not torch.allclose(fresh, whole[5:], atol=1e-4)
    model.train()
    loss, hidden, _ = model(tokens, following)
    loss.backward()
    assert all(not part.requires_grad for layer in hidden for part in layer)
    buffer = io.BytesIO()
    torch.save(hidden, buffer)
    buffer.seek(0)
    model.eval()
    again = model(tokens, following, hidden=torch.load(buffer, weights_only=True))
    assert torch.equal(again.outputs, model(tokens, following, hidden=hidden).outputs)


def test_the_penalty_is_that_of_the_paper() -> None:
    outputs, dropped = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    penalty = regularisation(outputs, dropped, 2.0, 1.0)
    expected = 2 * dropped.pow(2).mean() + (outputs[1:] - outputs[:-1]).pow(2).mean()
    assert penalty is not None
    assert torch.allclose(penalty, expected)
    assert regularisation(outputs, dropped, 0.0, 0.0) is None
    model = language_model(**NO_DROPOUT)
    model.train()
    assert model(words(4, 2), words(4, 2, 1)).penalty is not None
    model.eval()
    assert model(words(4, 2), words(4, 2, 1)).penalty is None


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_loss_in_parts_is_cross_entropy_with_its_gradients(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.models.softmax.CPU_ELEMENTS", size * 11)
    torch.manual_seed(0)
    states, weight, bias = torch.randn(7, 5) * 3, torch.randn(11, 5), torch.randn(11)
    targets = torch.tensor([0, 10, 3, 3, 5, 0, 9])
    found = [each.clone().requires_grad_() for each in (states, weight, bias)]
    expected = [each.clone().requires_grad_() for each in (states, weight, bias)]
    loss = mean_loss(found[0], found[1], found[2], targets)
    truth = F.cross_entropy(F.linear(*expected), targets)
    (3 * loss).backward()  # type: ignore[no-untyped-call]
    (3 * truth).backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(truth.item(), rel=1e-6)
    for left, right in zip(found, expected, strict=True):
        assert left.grad is not None
        assert right.grad is not None
        assert torch.allclose(left.grad, right.grad, atol=1e-6)
    each = token_losses(states, weight, bias, targets)
    assert torch.allclose(each, F.cross_entropy(F.linear(states, weight, bias), targets, reduction="none"), atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_mixture_in_parts_has_the_loss_and_the_gradients_of_its_formula(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.models.softmax.CPU_ELEMENTS", size * 11)
    torch.manual_seed(0)
    states, weight, bias, share, others = (
        each.double().requires_grad_()
        for each in (torch.randn(7, 5) * 3, torch.randn(11, 5), torch.randn(11), torch.randn(7), torch.randn(7) * 3)
    )
    targets = torch.tensor([0, 10, 3, 3, 5, 0, 9])
    found, part = mixed_loss_and_part(states, weight, bias, targets, share, others)
    logs = F.linear(states, weight, bias).log_softmax(dim=1).gather(1, targets[:, None])[:, 0]
    truth = -(share.exp() * logs.exp() + others.exp()).log()
    torch.testing.assert_close(found, truth.mean())
    torch.testing.assert_close(part, share.exp() * logs.exp() / (-truth).exp())
    leaves = (states, weight, bias, share, others)
    gradients = (torch.autograd.grad(3 * each, leaves) for each in (found, truth.mean()))
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right)


def test_the_loss_of_half_the_bits_is_near() -> None:
    torch.manual_seed(0)
    states, weight, bias = (
        torch.randn(64, 32, requires_grad=True),
        torch.randn(500, 32, requires_grad=True),
        torch.zeros(500),
    )
    bias.requires_grad_()
    targets = torch.randint(0, 500, (64,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_loss(states, weight, bias, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    truth = F.cross_entropy(F.linear(states, weight, bias), targets)
    gradients = torch.autograd.grad(truth, [states, weight, bias])
    assert loss.item() == pytest.approx(truth.item(), rel=0.01)
    for parameter, gradient in zip((states, weight, bias), gradients, strict=True):
        assert parameter.grad is not None
        assert F.cosine_similarity(parameter.grad.flatten(), gradient.flatten(), dim=0) > 0.999


def mixed_with_nothing(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    return mixed_loss(states, weight, bias, targets, torch.zeros(len(states)), torch.full((len(states),), -1e30))


def mixed_with_a_likelier_one(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    share = torch.full((len(states),), -12.0)
    return mixed_loss(states, weight, bias, targets, share, torch.full((len(states),), -3.0))


@pytest.mark.parametrize("loss_of", [mean_loss, mixed_with_nothing])
def test_the_gradients_of_many_words_survive_float16(loss_of: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [0.02 * torch.randn(64, 32, generator=generator), torch.randn(35_000, 32, generator=generator)]
    inputs = [each.half().float() for each in (*inputs, torch.zeros(35_000))]  # only the arithmetic differs
    targets = torch.randint(100, (64,), generator=generator)
    found = [each.clone().requires_grad_() for each in inputs]
    with torch.autocast("cpu", torch.float16):
        loss = loss_of(found[0], found[1], found[2], targets)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = [each.double().requires_grad_() for each in inputs]
    F.cross_entropy(F.linear(*expected), targets).backward()  # type: ignore[no-untyped-call]
    other = slice(100, None)  # words that are no targets: their gradients are all from the probabilities
    for most, left, right in zip((5e-5, 1e-3, 1e-3), found, expected, strict=True):
        assert left.grad is not None
        assert right.grad is not None
        rows = slice(None) if left is found[0] else other
        error = (left.grad[rows].double() - right.grad[rows]).norm() / right.grad[rows].norm()
        assert error < most  # 5e-6, 4e-4, 2e-4; with a scale in float16 2e-4, 2e-2, 2e-4


def test_a_small_part_of_a_mixture_keeps_its_gradients_in_float16() -> None:
    torch.manual_seed(0)
    states, weight, targets = torch.randn(64, 32).half().float(), torch.randn(500, 32), torch.randint(500, (64,))
    gradients: list[Tensor] = []
    for enabled in (True, False):
        leaf = states.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            loss = mixed_with_a_likelier_one(leaf, weight.half().float(), torch.zeros(500), targets)
        gradients += torch.autograd.grad(loss, leaf)
    assert gradients[1].norm() > 0
    assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[1].norm()


def test_float16_gradients_do_not_overflow_when_a_word_is_sure() -> None:
    states, weight = torch.full((4000, 2), 10.0), torch.tensor([[10.0, 10.0], [-10.0, -10.0]])
    targets = torch.ones(4000, dtype=torch.int64)
    found = [each.clone().requires_grad_() for each in (states, weight, torch.zeros(2))]
    with torch.autocast("cpu", torch.float16):
        mean_loss(found[0], found[1], found[2], targets).backward()  # type: ignore[no-untyped-call]
    assert found[1].grad is not None
    assert found[1].grad.tolist() == [[10, 10], [-10, -10]]
    assert found[2].grad is not None
    assert found[2].grad.tolist() == [1, -1]


def test_a_qrnn_is_its_formula() -> None:
    torch.manual_seed(0)
    layer, inputs = QRNN(3, 4), torch.randn(5, 2, 3)
    outputs, (hidden, last) = layer(inputs)
    state, before = torch.zeros(2, 4), torch.zeros(2, 3)
    for step in range(5):
        gates = F.linear(torch.cat([inputs[step], before], dim=1), layer.weight, layer.bias)
        z, f, o = gates.chunk(3, dim=1)
        state = f.sigmoid() * state + (1 - f.sigmoid()) * z.tanh()
        before = inputs[step]
        assert torch.allclose(outputs[step], o.sigmoid() * state, atol=1e-6)
    assert torch.allclose(hidden[0], state, atol=1e-6)
    assert torch.equal(last[0], inputs[-1])


def classifier(**settings: Any) -> TextClassifier:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embedding": 6, "hidden": 9, "layers": 2}
    return TextClassifier(TextDims(50, 3, "digest"), **{**sizes, **settings})


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bptt", [4, 7, 100])
def test_padding_never_changes_a_result(cell: Cell, bptt: int) -> None:
    model = classifier(cell=cell, bptt=bptt).eval()
    lengths = torch.tensor([23, 20, 7, 1])
    texts = words(23, 4).t().contiguous()
    together = torch.where(torch.arange(23) < lengths[:, None], texts, 1)
    scores = model(together, lengths).outputs
    for row, length in enumerate(lengths.tolist()):
        alone = model(texts[row : row + 1, :length], lengths[row : row + 1]).outputs
        assert torch.allclose(alone[0], scores[row], atol=1e-5)
    longer = F.pad(together, (0, 9), value=1)
    assert torch.allclose(model(longer, lengths).outputs, scores, atol=1e-5)


def penalty_of(model: TextClassifier, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    found: Outputs = model(tokens, lengths)
    assert found.penalty is not None
    return found.penalty


def test_the_penalty_of_texts_is_that_of_their_words_whatever_pads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither longer neighbours, nor the pieces that texts are read in, nor the device may change it."""
    settings = {**NO_DROPOUT, "output_dropout": 0.0, "alpha": 2.0, "beta": 1.0}
    model = classifier(bptt=5, **settings)
    model.train()
    lengths = torch.tensor([23, 9, 4, 2])
    tokens = words(23, 4).t().where(torch.arange(23) < lengths[:, None], 1)
    found = penalty_of(model, tokens, lengths)
    wider = torch.cat([tokens, torch.ones(4, 8, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(penalty_of(model, wider, lengths), found)
    outputs = [model.encoder(tokens[row, :length, None])[0][:, 0] for row, length in enumerate(lengths.tolist())]
    squares = torch.cat(outputs).square().mean()
    steps = torch.cat([(each[1:] - each[:-1]) for each in outputs]).square().mean()
    torch.testing.assert_close(found, 2.0 * squares + steps)  # of the real words, each text by itself
    monkeypatch.setattr("dlrunner.models.text._num_active", lambda lengths, start: len(lengths))  # as on a GPU
    torch.testing.assert_close(penalty_of(model, tokens, lengths), found)


def test_last_maximum_and_mean_are_pooled_over_the_whole_text() -> None:
    model = classifier(bptt=4, max_len=4).eval()
    texts, lengths = words(10, 2).t().contiguous(), torch.tensor([10, 6])
    outputs, _ = model.encoder(texts.t())
    pooled, _ = model.pooled(texts, lengths)
    for row, length in enumerate((10, 6)):
        text = outputs[:length, row]
        assert torch.allclose(pooled[row], torch.cat([text[-1], text.amax(dim=0), text.mean(dim=0)]), atol=1e-5)


def test_only_the_last_words_of_a_long_batch_have_gradients() -> None:
    model = classifier(bptt=5, max_len=5, **NO_DROPOUT, alpha=0.0, beta=0.0).eval()
    text = torch.arange(2, 17)[None]
    model.pooled(text, torch.tensor([15]))[0].sum().backward()  # type: ignore[no-untyped-call]
    gradient = model.encoder.embedding.weight.grad
    assert gradient is not None
    touched = gradient.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == list(range(12, 17))
    model.zero_grad()
    whole = classifier(bptt=5, max_len=15, **NO_DROPOUT, alpha=0.0, beta=0.0).eval()
    whole.pooled(text, torch.tensor([15]))[0].sum().backward()  # type: ignore[no-untyped-call]
    gradient = whole.encoder.embedding.weight.grad
    assert gradient is not None
    assert len(gradient.abs().sum(dim=1).nonzero()) == 15


def test_an_encoder_is_taken_over_and_one_that_does_not_fit_is_refused(here: Path) -> None:
    from dlrunner.encoder_file import digest_of_words

    names = [f"w{number}" for number in range(50)]
    source = language_model()
    encoder = Encoder(source.encoder.state_dict(), source.encoder.sizes, names, "spacy", True)
    (here / "encoder.pt").write_bytes(encoder.content())
    dims = TextDims(50, 1, digest_of_words(names), source.encoder.sizes)
    model = TextClassifier(dims, encoder="encoder.pt")
    model.load_pretrained()
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, source.encoder.state_dict()[name])
    with pytest.raises(ConfigError, match="embedding 8, hidden 12, layers 2, cell lstm; requested: embedding 9"):
        TextClassifier(dims, encoder="encoder.pt", embedding=9)
    other = TextClassifier(TextDims(50, 1, "another", source.encoder.sizes), encoder="encoder.pt")
    with pytest.raises(ConfigError, match="another vocabulary"):
        other.load_pretrained()


def test_kneser_ney_sums_to_one_and_comes_near_the_source() -> None:
    rng = np.random.default_rng(0)
    chain = rng.dirichlet(np.full(12, 0.3), 12)

    def drawn(length: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        found = [0]
        for _ in range(length):
            found.append(int(rng.choice(12, p=chain[found[-1]])))
        return np.array(found, np.int32)

    train, valid = drawn(20_000), drawn(5_000)
    entropy = -np.log(chain[valid[:-1], valid[1:]]).mean()
    for order in (1, 2, 3, 4):
        model = KneserNey(train, 12, order)
        for context in ([1, 2, 3], [5, 5, 5], [7, 0, 11]):
            chances = [math.exp(model.log_probabilities(np.array([*context, w], np.int32))[-1]) for w in range(12)]
            assert sum(chances) == pytest.approx(1, abs=1e-9)
        loss = -model.log_probabilities(valid).mean()
        assert loss > entropy
        if order == 2:
            assert loss < entropy + 0.01
