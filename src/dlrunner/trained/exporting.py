"""A finished run for others: its weights, what it needs to answer, its numbers, and a card that says what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dlrunner.dispatch import Plan
from dlrunner.errors import RequestError
from dlrunner.looks.card import Card
from dlrunner.model import Model
from dlrunner.runs import FinishedRun, told_as_sentences, write_atomically
from dlrunner.task import Answers
from dlrunner.trained import graphs, portable
from dlrunner.trained.models import is_exported, load_models


@dataclass(frozen=True)
class Exported:
    """What an export has left."""

    folder: Path
    files: list[str]
    difference: float | None = None
    """Of the ONNX graphs from torch, the largest; None: there are none."""
    no_graph: str = ""
    """Why there is no ONNX graph, though one was asked for."""


def export(finished: FinishedRun, folder: Path | None = None, onnx: bool = False) -> Exported:
    """Write a finished run's models, and what is known about them, into a folder.

    The folder is read like the run's own (`dlrunner.load`, `dlrun predict`, `dlrun show`) and answers the same, bit for
    bit. An older export of the same run in it is written over.

    Args:
        finished: the run.
        folder: by default `export` in the run's folder.
        onnx: write ONNX graphs too, where the model can be one.

    Raises:
        RequestError: the run has nothing to export, or the folder holds something else.
        RunError: the folder cannot be written.
    """
    if finished.status != "done" or finished.summary is None:
        raise RequestError(f"{finished.path} is {finished.status}; only a finished run is exported")
    if is_exported(finished.path):
        raise RequestError(f"{finished.path} was exported already; copy it as it is")
    if onnx:
        graphs.check_installed()
    folder = finished.path / "export" if folder is None else folder.expanduser()
    signature = str(finished.summary.get("signature", ""))
    _check_place(folder, signature)
    checked, state, models = load_models(finished)
    about = {"signature": signature, "task": checked.task.target, "model": checked.model.target}
    with told_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("model*.onnx"):  # of other weights, perhaps
            old.unlink()
        kept = _keep_record(finished, folder)
        files = portable.write(folder, state, models, about)
        made, difference, no_graph = _graphs(folder, checked, state, models) if onnx else ([], None, "")
        task: Any = checked.task.factory
        asked: Answers | None = task.answers(state, models)
        card = Card(
            summary=finished.summary,
            config=finished.config,
            overrides=finished.overrides,
            task=checked.task.target,
            model=checked.model.target,
            settings={k: v for k, v in checked.model.complete().items() if k != "_target_"},
            parameters=[sum(each.numel() for each in model.parameters()) for model in models],
            example=asked.example if asked else "",
            limits=asked.limits if asked else (),
            files=[*files, *made, *kept],
            difference=difference,
            no_graph=no_graph,
        )
        write_atomically(folder / "README.md", card.markdown().encode())
    return Exported(folder, ["README.md", *files, *made, *kept], difference, no_graph)


def _check_place(folder: Path, signature: str) -> None:
    """Refuse a folder that holds something else than an older export of the same run."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RequestError(f"--out: {folder} is a file; give a folder")
    if not any(folder.iterdir()):
        return
    try:
        same = json.loads((folder / portable.STATE).read_text())["signature"] == signature
    except (OSError, ValueError, KeyError, TypeError):
        raise RequestError(
            f"--out: {folder} holds something else already, or an export that was broken off; remove it"
        ) from None
    if not same:
        raise RequestError(f"--out: {folder} holds the export of another run; give another folder")


def _keep_record(finished: FinishedRun, folder: Path) -> list[str]:
    """Write what a run's folder tells about itself, without where things lay on this machine."""
    config = {**finished.config, "data_dir": "data", "runs_dir": "runs"}
    data = {name: value for name, value in (finished.summary or {}).get("data", {}).items() if name != "path"}
    record = {
        "config.yaml": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "overrides.yaml": yaml.safe_dump(finished.overrides, allow_unicode=True),
        "summary.json": json.dumps({**(finished.summary or {}), "data": data}, indent=2) + "\n",
    }
    for file in [finished.path / "metrics.jsonl", *sorted(finished.path.glob("members/*/metrics.jsonl"))]:
        if file.exists():
            record[str(file.relative_to(finished.path))] = file.read_text()
    for name, text in record.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, text.encode())
    return list(record)


def _graphs(
    folder: Path, checked: Plan, state: dict[str, Any], models: list[Model]
) -> tuple[list[str], float | None, str]:
    """Write a graph of each model, or of none, and say why."""
    task: Any = checked.task.factory
    try:
        found = [graphs.graph_of(model, task, state) for model in models]
    except graphs.NoGraphError as error:
        return [], None, str(error)
    names = [portable.weights_file(place, len(models)).replace("safetensors", "onnx") for place in range(len(models))]
    for name, (content, _) in zip(names, found, strict=True):
        write_atomically(folder / name, content)
    return names, max(difference for _, difference in found), ""
