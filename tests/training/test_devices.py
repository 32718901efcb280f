"""GPU problems found without a GPU: the `meta` device refuses mixed devices and reads of values."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlrunner.cli.compose import compose
from dlrunner.config.plan import Plan, plan
from dlrunner.data.images.loaders import ImageLoader
from dlrunner.model import Model
from dlrunner.reporting.terminal.progress import SilentDisplay
from dlrunner.system.seeding import seed_everything
from dlrunner.system.signals import StopSignals
from dlrunner.system.transfer import prefetched
from dlrunner.task import Task
from dlrunner.training import Trainer
from dlrunner.training.hooks import Hooks
from dlrunner.training.loss_log import LossLog
from dlrunner.training.state import Evaluation, TrainingState
from tests.training.test_loop import Memory

META = torch.device("meta")
SMALL_TEXTS = ("data.source=synthetic", "data.sample=48", "data.sample_valid=40", "data.min_freq=1")
SMALL_NET = ("model.embedding=12", "model.hidden=16", "model.layers=2")
TASKS: Mapping[str, Sequence[str]] = {
    "collab": (
        "task=collab",
        "data.source=synthetic",
        "model=net",
        "model.time=true",
        "batch_size=512",
        "optim.weight_decay=0.1",
    ),
    "svdpp": ("task=collab", "data.source=synthetic", "model=svdpp", "batch_size=512", "optim.weight_decay=0.1"),
    "implicit": ("task=implicit", "data.source=synthetic", "batch_size=512", "optim.weight_decay=0.1"),
    "rossmann": (
        "task=rossmann",
        "data.source=synthetic",
        "data.sample=600",
        "batch_size=100",
        "trainer.clip=1",
        "trainer.accumulate=3",
    ),
    "imdb-lm": ("task=imdb-lm", *SMALL_TEXTS, *SMALL_NET, "batch_size=40", "task.bptt=10", "trainer.l1=1e-6"),
    "imdb-sentiment": (
        "task=imdb-sentiment",
        *SMALL_TEXTS,
        *SMALL_NET,
        "data.sample_test=20",
        "model.bptt=20",
        "batch_size=16",
    ),
    "ngrams": ("task=imdb-sentiment", "model=ngrams", *SMALL_TEXTS, "data.sample_test=20", "batch_size=16"),
    "dogbreeds": (
        *("task=dogbreeds", "data.source=synthetic", "data.size=32", "data.sample=48", "data.sample_valid=16"),
        *("model.backbone=squeezenet1_1", "batch_size=16"),
    ),
    "segmentation": (
        *("task=segmentation", "data.source=synthetic", "data.size=32", "data.sample=48", "data.sample_valid=16"),
        *("model.backbone=squeezenet1_1", "model.channels=32", "batch_size=16"),
    ),
}


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses copies from the CPU that would synchronise with a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == META and args[0].device.type == "cpu":
            assert kwargs.get("non_blocking"), f"a copy of {tuple(args[0].shape)} waits for the device"
        if func is torch.ops.aten.copy_.default and {args[0].device.type, args[1].device.type} == {"cpu", "meta"}:
            assert args[2:] == (True,), "a copy in place waits for the device"
        return func(*args, **kwargs)


def built(words: Sequence[str], device: torch.device = META) -> tuple[Plan, Task, Model, Trainer]:
    checked = dataclasses.replace(plan(compose([*words, "data_dir=nowhere"])), device=device)
    task = checked.build_task(checked.build_data(), 0)
    seed_everything(0)
    model = checked.build_model(task.dims)
    model.to(device)
    return checked, task, model, checked.build_trainer(0)


class PatientDisplay(SilentDisplay):
    """Hooks with nothing due within an epoch."""

    interval = float("inf")


def hooks() -> Hooks:
    return Hooks(Memory(), PatientDisplay(), StopSignals())


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stub the only intended read of an epoch; return the number of losses of each read."""
    reads: list[int] = []

    def values(log: LossLog, losses: Tensor) -> list[float]:
        reads.append(len(losses))
        return [1.0] * len(losses)

    monkeypatch.setattr(LossLog, "_values", values)
    return reads


@pytest.mark.parametrize("name", TASKS)
def test_a_training_epoch_waits_for_the_device_once(name: str, unread: list[int]) -> None:
    checked, task, model, trainer = built(TASKS[name])
    optimizer = checked.make_optimizer(model.layer_groups())
    phase = checked.phases[0]
    task.batches("train", 0, phase)  # what is prepared once for all epochs may wait
    state = TrainingState()
    with NoWaiting():  # type: ignore[no-untyped-call]
        trainer.train_epoch(task, model, optimizer, state, hooks())
    assert unread == [len(task.batches("train", 0, phase))]
    assert unread[0] > 2
    assert state.step == unread[0]


@pytest.mark.parametrize("name", TASKS)
def test_an_evaluation_reads_nothing_before_its_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked, task, model, trainer = built(TASKS[name])
    phase = checked.phases[0]
    monkeypatch.setattr(
        "dlrunner.training.state.Tally.result", lambda tally, split: Evaluation({"examples": tally._count})
    )
    evaluation = trainer.evaluate(task, model, "valid", phase)
    assert evaluation is not None
    assert evaluation.metrics["examples"] == sum(len(batch.targets) for batch in task.batches("valid", 0, phase))


def test_misplaced_tensors_and_reads_are_detected() -> None:
    values = torch.ones(3, device=META)
    with pytest.raises(RuntimeError):
        values[values > 0]
    with NoWaiting(), pytest.raises(AssertionError, match="waits for"):  # type: ignore[no-untyped-call]
        torch.ones(3).to(META)


def test_a_language_model_resumes_on_a_device_from_a_state_that_was_saved_on_the_cpu(
    unread: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hidden state must be moved: a product of two devices fails."""
    words = TASKS["imdb-lm"]
    checked, task, model, trainer = built(words, torch.device("cpu"))
    optimizer = checked.make_optimizer(model.layer_groups())
    trainer.train_mode(model, checked.phases[0])
    stopped = TrainingState(step=2, losses=[1.0] * 2, sizes=[1] * 2)
    for batch in list(task.batches("train", 0, checked.phases[0]))[:2]:
        _, stopped.hidden = trainer.train_step(task, model, optimizer, batch, True, stopped.hidden)
    saved = trainer.checkpoint(stopped, model, optimizer)

    checked, task, model, trainer = built(words)
    optimizer = checked.make_optimizer(model.layer_groups())
    monkeypatch.setattr(model, "load_state_dict", lambda weights: None)  # `meta` keeps no weights
    state = trainer.restore(saved, model, optimizer)
    assert all(part.device == META for layer in state.hidden for part in layer)
    trainer.train_epoch(task, model, optimizer, state, hooks())
    with pytest.raises(NotImplementedError, match="out of meta tensor"):  # it would be saved on the CPU again
        trainer.checkpoint(state, model, optimizer)


def test_images_are_loaded_while_the_step_runs() -> None:
    """The thread works while the device does: together they take about the time of the slower one."""

    def gathered() -> Iterator[int]:
        for number in range(6):
            time.sleep(0.04)
            yield number

    begun, steps = time.perf_counter(), []
    for number in prefetched(gathered()):
        time.sleep(0.06)
        steps.append(number)
    assert steps == list(range(6))
    assert time.perf_counter() - begun < 6 * (0.04 + 0.06) * 0.85  # one after the other: .6 s; the slower one alone: .4


def test_an_error_in_the_loader_thread_is_raised_by_the_iterator_and_the_thread_ends() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("unreadable")

    found = prefetched(failing())
    assert next(found) == 1
    with pytest.raises(ValueError, match="unreadable"):
        next(found)
    left = prefetched(iter(range(1000)))
    assert next(left) == 0
    left.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_images_in_host_memory_give_the_same_batches() -> None:
    pixels = torch.randint(0, 256, (10, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = list(torch.split(torch.arange(10), 4))
    here = list(ImageLoader(pixels, torch.arange(10), rows, 24))
    there = list(ImageLoader(pixels, torch.arange(10, device=META), rows, 24))
    assert [batch.inputs[0].shape for batch in there] == [batch.inputs[0].shape for batch in here]
    assert all(batch.inputs[0].device == META for batch in there)


@pytest.mark.slow  # imports and runs torch's compiler; compiling is tested in test_loop.py
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, while it traces
def test_a_compiled_language_model_hands_its_hidden_state_on(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = functools.partial(torch.compile, backend="aot_eager")  # traced as for a GPU, without a C++ compiler
    monkeypatch.setattr(torch, "compile", compiled)
    losses = {}
    for word in ("trainer.compile=false", "trainer.compile=true"):
        checked, task, model, trainer = built([*TASKS["imdb-lm"], word], torch.device("cpu"))
        optimizer, hidden, losses[word] = checked.make_optimizer(model.layer_groups()), None, list[Tensor]()
        trainer.train_mode(model, checked.phases[0])
        for batch in list(task.batches("train", 0, checked.phases[0]))[:3]:
            loss, hidden = trainer.train_step(task, model, optimizer, batch, True, hidden)
            losses[word].append(loss)
    plain, traced = losses.values()
    torch.testing.assert_close(traced, plain)
