"""An option file that came from elsewhere executes nothing, by whatever way Hydra is asked to read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrunner.config.conf_files import package_conf
from tests.conftest import QUICK, Dlrun, ratings_table, start

EVIL = "{_target_: evil.Call}"
CALLBACKS = f"callbacks: {{x: {EVIL}}}"
LOGGING = "job_logging: {version: 1, formatters: {f: {(): evil.call}}, root: {level: INFO}}"
ATTEMPTS = {
    "callbacks": ("experiment", f"# @package _global_\nhydra: {{{CALLBACKS}}}\n"),
    "logging": ("experiment", f"# @package _global_\nhydra: {{{LOGGING}}}\n"),
    "launcher": ("experiment", f"# @package _global_\nhydra: {{launcher: {EVIL}}}\n"),
    "a package": ("experiment", f"# @package hydra\n{CALLBACKS}\n"),
    "a package of a package": ("experiment", f"# @package hydra.callbacks\nx: {EVIL}\n"),
    "global": ("experiment", f"# @package _global_.hydra\n{CALLBACKS}\n"),
    "an optimizer": ("optim", f"# @package _global_\nhydra: {{{CALLBACKS}}}\noptim: {{lr: 0.1}}\n"),
    "a schedule": ("schedule", f"# @package hydra\n{CALLBACKS}\n"),
    "defaults": ("experiment", "# @package _global_\ndefaults: [/more/evil@hydra.callbacks.x]\n"),
    "defaults by group": ("experiment", "# @package _global_\ndefaults: [{/more@hydra.callbacks.x: evil}]\n"),
    "nested defaults": ("experiment", "# @package _global_\ndefaults: [/more/nested]\n"),
    "another launcher": ("experiment", "# @package _global_\ndefaults: [{override /hydra/launcher: mine}]\n"),
    "own logging": ("experiment", "# @package _global_\ndefaults: [{override /hydra/job_logging: mine}]\n"),
    "a null": ("experiment", "# @package _global_\nhydra: null\n"),
}


@pytest.fixture(autouse=True)
def evil(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file when any of it is called, and files of options around it."""
    ratings_table().to_csv("my.csv", index=False)
    marks = f"open({str(here / 'called')!r}, 'w').close()"
    Path("evil.py").write_text(
        f"def call(*given, **named):\n    {marks}\n\nclass Call:\n    def __init__(self, *given, **named):\n"
        f"        {marks}\n    def __getattr__(self, name):\n        return call\n"
    )
    monkeypatch.syspath_prepend(here)
    for name, text in {
        "more/evil": "_target_: evil.Call\n",
        "more/nested": f"# @package _global_\nhydra: {{{CALLBACKS}}}\n",
        "hydra/job_logging/mine": LOGGING.partition(": ")[2] + "\n",
        "hydra/launcher/mine": "_target_: evil.Call\n",
        "hydra/callbacks/x": f"x: {EVIL}\n",
    }.items():
        file = here / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return here / "called"


WORDS = ("task=collab", "data.path=my.csv", "epochs=1", *QUICK)
WAYS: dict[str, tuple[str, ...]] = {
    "a run": (),
    "a sweep": ("-m", "seed=0,1"),
    "a plan": ("-m", "seed=0,1", "sweep.dry_run=true"),
    "seeds": ("seeds=2",),
    "an engine": ("-m", "seed=0,1", "hydra/launcher=submitit_local"),
    "the composition": ("--cfg", "job"),
    "hydra's composition": ("--cfg", "hydra"),
    "everything": ("--cfg", "all"),
    "information": ("--info", "all"),
    "a search": ("-m", "optim.lr=interval(0.01,0.1)", "hydra/sweeper=optuna", "sweep.trials=1"),
}


def ways_of(attempt: str) -> list[str]:
    """Return a run and, in turn, a third of the other ways: each way is tried by several attempts."""
    turn = list(ATTEMPTS).index(attempt) % 3
    return [way for index, way in enumerate(WAYS) if index == 0 or index % 3 == turn]


@pytest.mark.parametrize(
    ("attempt", "ways"),
    [
        *[pytest.param(attempt, ways_of(attempt), id=attempt) for attempt in ATTEMPTS],
        # All pairs of an attempt and a way.
        *[pytest.param(name, list(WAYS), id=f"{name} in all ways", marks=pytest.mark.slow) for name in ATTEMPTS],
    ],
)
def test_an_option_file_cannot_set_hydra(attempt: str, ways: list[str], dlrun: Dlrun, here: Path, evil: Path) -> None:
    group, text = ATTEMPTS[attempt]
    file = here / "conf" / group / "mine.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    for way in ways:
        status, out, err = dlrun(*WAYS[way], *WORDS, f"{group}=mine")
        assert status == 2, (way, out, err)
        assert "has a hydra section: " in err, (way, err)
        assert "Traceback" not in err
        assert len(err.splitlines()) == 1, (way, err)
    assert not evil.exists()
    assert not (here / "runs").exists()


def test_an_option_that_is_swept_cannot_set_hydra_either(dlrun: Dlrun, here: Path, evil: Path) -> None:
    for name, (group, text) in {"mine": ATTEMPTS["logging"], "other": ("experiment", "# @package _global_\n")}.items():
        (here / "conf" / group).mkdir(exist_ok=True)
        (here / "conf" / group / f"{name}.yaml").write_text(text)
    for words in (["hydra/launcher=basic"], []):
        status, _, err = dlrun("-m", *WORDS, "experiment=other,mine", *words)
        assert (status, err.count("has a hydra section: ")) == (2, 1)
    assert not evil.exists()
    assert not (here / "runs").exists()


@pytest.mark.parametrize("word", ["hydra/launcher=mine", "hydra/job_logging=mine", "hydra/callbacks=x"])
def test_a_file_in_place_of_one_of_hydras_own_is_refused(word: str, dlrun: Dlrun, here: Path, evil: Path) -> None:
    for words in (("-m", "seed=0,1"), ("-m", "seed=0,1", "hydra/launcher=submitit_local"), ("--cfg", "hydra")):
        status, _, err = dlrun(*words, *WORDS, word)
        assert status == 2, err
        assert "there is no such launcher" in err or "own settings do not count" in err
    assert not evil.exists()


# Submitit starts a program that imports torch; dlrunner's own launcher forks.
@pytest.mark.parametrize("launcher", ["basic", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_what_is_typed_goes_on_working(launcher: str, here: Path) -> None:
    (here / "conf" / "hydra" / "launcher" / "mine.yaml").unlink()
    process = start("-m", *WORDS, "seed=0", f"hydra/launcher={launcher}", cwd=here)
    told = process.communicate()
    assert process.returncode == 0, told


def test_of_the_own_options_only_the_first_file_sets_hydra() -> None:
    found = [file for file in package_conf().rglob("*.yaml") if "hydra" in file.read_text().replace("hydra/", "")]
    assert [
        file.name for file in found if any(line.startswith("hydra:") for line in file.read_text().splitlines())
    ] == ["config.yaml"]
