"""Settings that would do harm or nothing: told before any data is read, with exit status 2."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dlrunner.cli.compose import compose
from dlrunner.cli.conf_paths import options_of
from dlrunner.config.plan import plan
from dlrunner.errors import ConfigError
from tests.conftest import QUICK, Dlrun
from tests.hostile.conftest import WORDS
from tests.small_runs import LANGUAGE, PICTURE_NET, PICTURES, RATINGS, SORTING

OWN_DATA = {
    "image": ("data.path=x",),
    "lm": ("data.path=x",),
    "segmentation": ("data.path=x",),
    "tabular": ("data.path=x", "data.target=y"),
    "text": ("data.path=x", "data.text=a", "data.target=b"),
}


def refused(dlrun: Dlrun, *words: str) -> str:
    status, _, err = dlrun(*words)
    assert status == 2, (words, err)
    assert "Traceback" not in err
    assert "DLRUNNER_TRACEBACK" not in err
    assert not Path("runs").exists()
    return err


@pytest.mark.parametrize(
    "word",
    [
        "hydra=null",
        "~hydra",
        "hydra.job.env_set={A: 1}",
        "+hydra.job.env_set.A=1",
        "hydra.searchpath=[/x]",
        "hydra.a=1",
    ],
)
@pytest.mark.parametrize("more", [(), ("-m", "seed=0,1")])
def test_hydras_own_settings_are_refused(dlrun: Dlrun, ratings_csv: Path, word: str, more: tuple[str, ...]) -> None:
    assert "Hydra's own settings do not count here" in refused(dlrun, *more, *WORDS, word)


@pytest.mark.parametrize("target", ["Field", "Curves", "math", "dlrunner.errors.did_you_mean", "_cosine_ease", "5", ""])
def test_a_schedule_that_is_none_is_told(dlrun: Dlrun, ratings_csv: Path, target: str) -> None:
    assert "schedule: " in refused(dlrun, *WORDS, f"schedule._target_={target}")


@pytest.mark.parametrize("name", ["runs_dir", "data_dir", "data.path"])
def test_the_home_of_a_user_that_does_not_exist_is_told(dlrun: Dlrun, ratings_csv: Path, name: str) -> None:
    for more in ((), ("-m", "seed=0,1")):
        status, out, err = dlrun(*more, *WORDS, f"{name}=~nosuch/x")
        assert status == 2 or more, err
        assert "~nosuch has no home folder" in out + err


@pytest.mark.parametrize("verb", ["show", "compare", "report", "replay", "export", "predict", "diff"])
def test_every_verb_tells_of_a_home_that_does_not_exist(dlrun: Dlrun, verb: str) -> None:
    assert "~nosuch has no home folder" in refused(dlrun, verb, "~nosuch/x", *(["~nosuch/y"] if verb == "diff" else []))


@pytest.mark.parametrize("variable", ["DLRUNNER_DATA", "DLRUNNER_CACHE"])
def test_variables_may_name_no_home_that_does_not_exist(
    dlrun: Dlrun, ratings_csv: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "~nosuch/x")
    assert "~nosuch has no home folder" in refused(dlrun, *WORDS)


def test_empty_variables_are_as_if_they_were_not_set(
    dlrun: Dlrun, ratings_csv: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("DLRUNNER_CACHE", "")
    monkeypatch.setenv("DLRUNNER_DATA", "")
    status, _, err = dlrun(*WORDS, "epochs=1")
    assert status == 0, err
    assert (tmp_path / "caches" / "dlrunner").is_dir()


BOMB = "lr: 1.0\na0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "more than 200,000 values"),
        ("lr: !!python/object/apply:os.system ['touch executed']", "!!python/object/apply:os.system is not allowed"),
        ("lr: !!python/object/apply:pathlib.Path [a]", "is not allowed"),
        ("lr: !mine 3", "!mine is not allowed"),
        ("lr: " + "[" * 5000 + "]" * 5000, "more than 100 nested sections"),
        ("lr: BYTE", "not UTF-8"),
    ],
)
def test_option_files_hold_plain_values(dlrun: Dlrun, ratings_csv: Path, content: str, said: str) -> None:
    folder = Path("conf") / "optim"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_bytes(f"_target_: torch.optim.SGD\n{content}\n".encode().replace(b"BYTE", b"\xff"))
    started = time.monotonic()
    for more in ((), ("--cfg", "job"), ("-m", "seed=0,1")):
        err = refused(dlrun, *more, *WORDS, "optim=mine")
        assert said in err
        assert "conf/optim/mine.yaml" in err
    assert time.monotonic() - started < 10
    assert not Path("executed").exists()


def test_settings_nested_too_deep_are_told(dlrun: Dlrun, ratings_csv: Path) -> None:
    for value in ("[" * 3000 + "]" * 3000, "{a:" * 2000 + "1" + "}" * 2000):
        assert "nested" in refused(dlrun, *WORDS, f"optim.lr={value}")


def test_settings_that_are_not_utf8_are_told(dlrun: Dlrun, ratings_csv: Path) -> None:
    Path("a\udcff.csv").write_text("x")
    for word in ("data.path=a\udcff.csv", "runs_dir=b\udcff"):
        for more in ((), ("-m", "seed=0,1")):
            assert "not UTF-8" in refused(dlrun, *more, *WORDS, word)


@pytest.mark.parametrize("task", options_of("task"))
def test_every_task_takes_every_optimizer_and_schedule(task: str) -> None:
    # Each task takes the optimizers with schedules shifted by its own number: together the tasks have every pair.
    optimizers, schedules, shift = options_of("optim"), options_of("schedule"), options_of("task").index(task)
    assert len(options_of("task")) >= len(schedules)
    for number in range(max(len(optimizers), len(schedules))):
        optim = optimizers[number % len(optimizers)]
        schedule = schedules[(number + shift) % len(schedules)]
        config = compose([f"task={task}", f"optim={optim}", f"schedule={schedule}", *OWN_DATA.get(task, ())])
        checked = plan(config)
        assert checked.optim.settings["lr"] == config["optim"]["lr"]


def test_a_tasks_optimizer_settings_hold_for_its_own_optimizer() -> None:
    assert compose(["task=imdb-lm"])["optim"]["betas"] == [0.7, 0.99]
    assert compose(["task=imdb-lm", "optim=adam"])["optim"]["lr"] == 3e-3
    found = compose(["task=imdb-lm", "optim=sgd"])["optim"]
    assert found == compose(["task=collab", "optim=sgd"])["optim"]
    assert compose(["experiment=movielens-net", "optim=sgd"])["optim"] == found
    assert compose(["experiment=movielens-net"])["optim"]["weight_decay"] == 1e-5


def test_what_was_typed_holds_for_any_optimizer() -> None:
    found = compose(["task=imdb-lm", "optim=sgd", "optim.lr=0.5", "optim.weight_decay=1e-3"])["optim"]
    assert (found["lr"], found["weight_decay"]) == (0.5, 1e-3)
    with pytest.raises(ConfigError, match=r"optim\.betas"):
        plan(compose(["task=imdb-lm", "optim=sgd", "optim.betas=[0.8,0.9]"]))


def test_a_task_of_ones_own_may_inherit_and_give_values_for_any_optimizer(here: Path) -> None:
    (here / "conf" / "task").mkdir(parents=True)
    inherited = "# @package _global_\ndefaults:\n  - imdb-lm@_here_\noptim:\n  lr: 0.25\n"
    (here / "conf" / "task" / "mine.yaml").write_text(inherited)
    found = compose(["task=mine", "optim=sgd"])["optim"]
    assert found["lr"] == 0.25
    assert "betas" not in found
    assert compose(["task=mine"])["optim"]["betas"] == [0.7, 0.99]


TABLE = ("task=rossmann", "data.source=synthetic", "data.sample=1000", "epochs=1")


@pytest.mark.parametrize(
    ("words", "optim"),
    [
        (RATINGS, "sgd"),
        (TABLE, "adagrad"),
        (LANGUAGE, "nesterov"),
        (SORTING, "rmsprop"),
        ((*PICTURES, *PICTURE_NET), "adam"),
    ],
)
def test_every_kind_of_task_trains_and_resumes_with_other_optimizers(
    dlrun: Dlrun, words: tuple[str, ...], optim: str
) -> None:
    asked = (*words, f"optim={optim}", "optim.lr=1e-3", *QUICK, "log.progress=none")
    status, _, err = dlrun(*asked)
    assert status == 0, err
    latest = Path("runs/latest").resolve()
    before = (latest / "metrics.jsonl").read_text()
    (latest / "summary.json").unlink()
    status, _, err = dlrun(*asked)
    assert status == 0, err
    assert Path("runs/latest").resolve() == latest
    assert (latest / "metrics.jsonl").read_text() == before
