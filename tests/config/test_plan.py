"""Requests that do not fit are refused, with the place and the nearest name that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlrunner.cli.compose import compose
from dlrunner.config.plan import plan
from dlrunner.errors import ConfigError
from dlrunner.tasks.tabular.rossmann import Rossmann
from tests.conftest import Dlrun

WRONG = {
    "optim.lr=-1": ["optim.lr: must be greater than 0", "not -1"],
    "optim.lr=abc": ["optim.lr: must be", "number", "not 'abc'"],
    "optim.lr=": ["optim.lr: must be", "not ''"],
    "optim=admaw": ["there is no such optim", "did you mean adamw?"],
    "optim.lrr=1": ["optim.lrr", "did you mean lr?"],
    "+optim.lrr=1": ["optim.lrr", "did you mean lr?"],
    "++optim.lrr=1": ["optim.lrr", "did you mean lr?"],
    "task=colab": ["there is no such task", "did you mean collab?"],
    "modle=dot": ["modle: is unknown; did you mean model?"],
    "lr=3": ["lr: is unknown; did you mean optim.lr?"],
    "weight_decay=1": ["did you mean optim.weight_decay?"],
    "weight_deacy=1": ["did you mean optim.weight_decay?"],
    "factors=3": ["did you mean model.factors?"],
    "source=real": ["did you mean data.source?"],
    "warmup=0.1": ["did you mean schedule.warmup?"],
    "patience=2": ["did you mean trainer.early_stopping?"],
    "jobs=2": ["did you mean sweep.jobs?"],
    "task=dogbreeds size=64": ["did you mean data.size or task.size?"],
    "+epochz=3": ["epochz: is unknown; did you mean epochs?"],
    "epochs=0": ["epochs: must be greater than or equal to 1, not 0"],
    "epochs=2.5": ["epochs: must be", "integer", "not 2.5"],
    "epochs=true": ["epochs: must be", "not True"],
    "seed=-1": ["seed: must be greater than or equal to 0"],
    "batch_size=big": ["batch_size: must be", "not 'big'"],
    "precision=fp8": ["precision: must be 'fp32', 'bf16', 'fp16' or 'auto'"],
    "device=gpu": ["device: 'gpu' is unknown"],
    "device=cuda": ["device: torch finds no CUDA device"],
    "model.factors=0": ["model.factors: must be greater than or equal to 1"],
    "model.factor=5": ["model.factor", "did you mean factors?"],
    "model.dims=3": ["model.dims"],
    "data.valid=1.5": ["data.valid: must be less than 1"],
    "log.pictures=false": ["log.pictures is now log.plots"],
    "log.patience=1": ["log.patience is now log.tracker_timeout"],
    "model=picture_net": ["model=picture_net is now model=image_classifier"],
    "data.source=stand-in": ["data.source", "'synthetic'"],
    "data.sauce=real": ["data.sauce", "did you mean source?"],
    "data.split=middle": ["data.split: must be", "'random'"],
    "optim.betas=[0.9]": ["optim.betas"],
    "optim.lr=[0.1,0.2,0.3]": ["3 rates for 2 layer group(s) (factors, biases)"],
    "task=imdb-lm optim.lr=[1e-3,1e-2]": ["optim.lr: 2 rates for 4 layer group(s) (layer 1, layer 2, layer 3, words)"],
    "task=imdb-sentiment model.layers=1 epochs=null phases=[{epochs:1},{epochs:1,lr:[1e-4,1e-3]}]": [
        "phases[1].lr: 2 rates for 3 layer group(s) (embedding, layer 1, head)"
    ],
    "task=imdb-sentiment model.layers=2 epochs=null phases=[{epochs:1},{epochs:1,freeze_to:-9}]": [
        "phases[1].freeze_to: -9 of a model with 4 layer group(s)",
        "from -4 to 3",
    ],
    "optim.weight_decay=[0.1,0.1,0.1]": ["optim.weight_decay: 3 for 2 layer group(s)"],
    "model=net model.hidden=[20,10]": ["model.dropouts: 2 for 2 hidden layer(s); give 3"],
    "task=imdb-lm model.cutoffs=[10]": ["model.cutoffs: a full softmax has none", "model.softmax=adaptive"],
    "task=imdb-lm model.softmax=adaptive model.cutoffs=[20,20]": ["model.cutoffs", "increasing", "not [20, 20]"],
    "trainer.clip=0": ["trainer.clip: must be greater than 0"],
    "schedule.warmup=1.5": ["schedule.warmup: must be less than 1"],
    "schedule.warmpu=0.5": ["schedule.warmpu", "did you mean warmup?"],
    "precision=fp16": ["fp16 needs a GPU"],
    "optim.betas=[0.5,0.99]": [
        "optim.betas: the schedule sets the momentum and would override 0.5",
        "schedule.momentum=null",
    ],
    "phases=[{epochs:1,lr:0.01}] epochs=null optim.lr=0.5": [
        "optim.lr=0.5: has no effect, since every phase sets its lr"
    ],
    "phases=[{epochs:1,schedule:constant}] epochs=null schedule=one_cycle": ["schedule=one_cycle: has no effect"],
    "phases=[{epochs:1,freeze_to:0}] epochs=null freeze_to=-1": ["freeze_to=-1: has no effect"],
    "optim=sgd optim.momentum=0": ["optim.momentum: the schedule sets the momentum and would override 0"],
    "log.progress=fancy": ["log.progress: must be"],
    "name=2024": ["name: must be a string (in quotation marks it is one), not 2024"],
    "epochs=[1": ["cannot be read as name=value"],
    "--epochs 3": ["--epochs: there is no such option; a setting is epochs=VALUE"],
    "epochs = 3": ["'epochs' is not name=value"],
    "hydra/launcher=ray": ["hydra/launcher=ray is for a sweep; add -m"],
    "-m optim.lr=interval(0.1,1)": ["optim.lr=interval(0.1,1): a range without steps is for a search"],
    "optim.lr=1,2": ["names several values: add -m for a sweep"],
    "model._target_=os.system": ["is not allowed", "plugins"],
    "model._target_=torch.optim.SGD": ["torch.optim.SGD is not a Model"],
    "model._target_=dlrunner.models.collab.DotBiass": ["did you mean DotBias?"],
    "plugins=[no_such_module]": ["there is no module no_such_module"],
    "phases=[{epochs:1}] epochs=5": ["phases already set the number of epochs"],
    "experiment=movielens-dott": ["there is no such experiment", "did you mean movielens-dot?"],
    "optim=null": ["optim=None: takes one of adagrad, adam"],
    "model=5": ["model=5: takes one of awd_lstm, blend, dot, dot_bias"],
    "data.path=": ["data.path: must be a non-empty text, not ''"],
    "runs_dir=": ["runs_dir: must be a non-empty text"],
    "optim.lr=[]": ["a list with at least 1 entries"],
    "seed=99999999999999": ["seed: must be less than or equal to 4294967295"],
    "optim.fused=maybe": ["optim.fused: must be"],
    "+choices=5": ["choices: is not a setting"],
    "data=null": ["data: is missing"],
    "data_dir=${nowhere}": ["nowhere"],
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_request_ends_with_status_2_and_a_plain_sentence(word: str, dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun("task=collab", "data.source=synthetic", *word.split(" "))
    assert status == 2
    for expected in WRONG[word]:
        assert expected in err
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err
    assert out == ""
    assert not (here / "runs").exists()


def test_a_word_that_is_neither_verb_nor_setting_names_the_nearest_verb(dlrun: Dlrun) -> None:
    status, _, err = dlrun("shwo", "runs/latest")
    assert status == 2
    assert "did you mean show?" in err


def test_all_mistakes_are_told_at_once(dlrun: Dlrun) -> None:
    _, _, err = dlrun("task=collab", "optim.lrr=1", "epochs=0", "model.factors=x")
    assert len(err.splitlines()) >= 1
    assert "epochs" in err
    _, _, err = dlrun("task=collab", "optim.lrr=1", "trainer.clip=-1", "model.factors=x")
    assert [name in err for name in ("optim.lrr", "trainer.clip", "model.factors")] == [True] * 3


def test_the_signature_tells_results_apart_and_nothing_else() -> None:
    base = plan(compose(["task=collab", "optim.weight_decay=0.1"])).signature
    same = [
        "device=cpu",
        "data_dir=elsewhere",
        "runs_dir=there",
        "log.progress=none",
        "trainer.num_threads=1",
        "trainer.rows_per_thread=64",
        "rerun=true",
        "optim=adamw",
        "optim.weight_decay=1e-1",
        "trainer.checkpoint_minutes=1.0",
        "trainer.cpu_tuning=false",
        "trainer.matmul=tf32",
    ]
    other = [
        "seed=1",
        "epochs=6",
        "optim.lr=0.004",
        "model.factors=51",
        "batch_size=63",
        "precision=bf16",
        "optim=adam",
        "schedule=constant",
        "ensemble=2",
        "data.path=my.csv",
        "trainer.clip=1.0",
        "data.valid=0.3",
        "trainer.matmul=ieee",
        "trainer.deterministic=true",
    ]
    decay = "optim.weight_decay=0.1"
    assert {plan(compose(["task=collab", decay, word])).signature for word in same} == {base}
    assert len({plan(compose(["task=collab", word])).signature for word in other} | {base}) == len(other) + 1


def test_equal_settings_written_otherwise_have_one_signature() -> None:
    first = plan(compose(["optim.lr=1", "+model.margin=0"])).signature
    assert first == plan(compose(["optim.lr=1.0", "model.margin=0.0"])).signature


@pytest.mark.parametrize(
    "words",
    [
        ["optim.betas=[0.9,0.9]"],  # only the second beta is another one
        ["optim.betas=[0.5,0.99]", "schedule.momentum=null"],
        ["optim.betas=[0.5,0.99]", "schedule=constant"],
        ["optim=rmsprop", "optim.momentum=0.5"],  # a cycle leaves it alone
        ["optim=sgd"],
    ],
)
def test_a_momentum_that_no_schedule_overrules_is_taken(words: list[str]) -> None:
    plan(compose(["task=collab", *words]))


def test_an_apple_gpu_is_taken_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert plan(compose(["task=collab"])).device == torch.device("cpu")
    assert plan(compose(["task=collab", "device=mps"])).device == torch.device("mps")


def test_a_gpu_is_named_by_its_number_and_bfloat16_that_it_only_emulates_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert plan(compose(["task=collab"])).device == torch.device("cuda:0")
    assert plan(compose(["task=collab", "precision=fp16"])).device == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="Tesla T4 would only emulate bf16"):
        plan(compose(["task=collab", "precision=bf16"]))


def test_an_automatic_precision_needs_the_hardware_and_a_task_that_is_as_good_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["task=rossmann", "precision=auto"]
    monkeypatch.setattr(Rossmann, "good_in_bf16", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    assert plan(compose(words)).settings.precision == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    found = plan(compose(words))
    assert (found.settings.precision, found.config["precision"]) == ("bf16", "bf16")
    assert "in hardware" in found.precision_reason
    assert plan(compose(["task=collab", "precision=auto"])).settings.precision == "fp32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert plan(compose(words)).settings.precision == "fp32", "the GPU only emulates it"


def test_an_automatic_precision_is_the_same_run_as_the_precision_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rossmann, "good_in_bf16", True)
    for hardware, becomes in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("dlrunner.config.devices.has_bfloat16", lambda device, found=hardware: found)
        typed = plan(compose(["task=rossmann", f"precision={becomes}"]))
        assert plan(compose(["task=rossmann", "precision=auto"])).signature == typed.signature
        assert typed.precision_reason == ""


def test_precedence_is_command_line_then_experiment_then_task_then_defaults() -> None:
    experiment = compose(["experiment=movielens-learner"])
    assert (experiment["epochs"], experiment["optim"]["_target_"]) == (3, "torch.optim.Adam")
    assert experiment["choices"]["task"] == "movielens"
    over = compose(["experiment=movielens-learner", "optim.lr=0.5", "model=net", "model.init=[-0.1,0.1]"])
    assert over["optim"]["lr"] == 0.5
    assert over["choices"]["model"] == "net"


def test_every_configuration_file_says_first_how_it_is_used(request: pytest.FixtureRequest) -> None:
    from dlrunner.config.conf_files import package_conf

    files = sorted(package_conf().rglob("*.yaml"))
    assert len(files) > 20
    for file in files:
        lines = file.read_text().splitlines()
        # Hydra wants its package line to be the very first one.
        command = lines[1] if lines[0] == "# @package _global_" else lines[0]
        assert command.startswith("# dlrun "), file


def test_every_option_of_every_group_composes_and_binds() -> None:
    from dlrunner.cli.conf_paths import options_of

    for group in ("task", "model", "optim", "schedule", "experiment"):
        for option in options_of(group):
            tasks = {
                **dict.fromkeys(("embedding_net", "rossmann_net", "blend", "mlp", "linear"), "tabular"),
                "ranking": "implicit",
                "awd_lstm": "lm",
                "text_classifier": "text",
                "ngrams": "text",
                "image_classifier": "image",
                "unet": "segmentation",
            }
            task = [f"task={tasks[option]}"] if group == "model" and option in tasks else []
            assert plan(compose([*task, f"{group}={option}"])).signature
