"""Compositions of this process: the same options of the same files are composed once."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig

from dlrunner.cli import compose as composing


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
