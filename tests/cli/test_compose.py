"""Compositions of this process: the same options of the same files are composed once."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.version import getbase
from omegaconf import DictConfig

from dlrunner.cli import compose as composing
from dlrunner.errors import ConfigError


def test_compositions_of_the_files_that_were_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    composed = []
    compose_for_hydra = composing.compose_for_hydra
    files = ""

    def counted(choices: tuple[str, ...]) -> DictConfig:
        composed.append(files)
        return compose_for_hydra(choices)

    monkeypatch.setattr(composing, "_composed", {})
    monkeypatch.setattr(composing, "KEPT", 2)
    monkeypatch.setattr(composing, "compose_for_hydra", counted)
    monkeypatch.setattr(composing, "composition_inputs", lambda: files)
    for files in "abaca":  # noqa: B007  what the two functions above return
        assert composing.compose(["task=collab"])["choices"]["task"] == "collab"
    assert composed == ["a", "b", "c"]


def test_a_program_that_uses_hydra_itself_is_left_as_it_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composing, "_composed", {})
    (here / "app").mkdir()
    (here / "app" / "app.yaml").write_text("defaults: [_self_, hydra: quiet]\nsize: 3\n")
    (here / "app" / "hydra").mkdir()
    (here / "app" / "hydra" / "quiet.yaml").write_text("verbose: false\n")
    with hydra.initialize_config_dir(str(here / "app"), version_base="1.2"):
        assert composing.compose(["task=collab", "epochs=7"])["epochs"] == 7
        assert str(getbase()) == "1.2"
        assert hydra.compose("app").size == 3  # with a file that dlrunner refuses among its own
    assert not GlobalHydra.instance().is_initialized()


def test_an_entry_of_a_list_is_named_by_its_number() -> None:
    phases = "phases=[{epochs:1,lr:0.1},{epochs:2}]"
    assert composing.compose(["task=collab", phases, "phases.1.lr=0.5"])["phases"][1] == {"epochs": 2, "lr": 0.5}
    for word in ("phases.2.lr=0.5", "phases.last.lr=0.5", "phases[1].lr=0.5"):
        with pytest.raises(ConfigError, match=r"numbers, from 0: phases\.\d\.lr="):
            composing.compose(["task=collab", phases, word])
