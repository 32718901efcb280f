"""A finished run for others: its weights, what it needs to answer, its numbers, and a card that says what it is."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dlrunner.errors import ConfigError
from dlrunner.files.atomic import readable_os_errors, write_atomic
from dlrunner.files.paths import user_path
from dlrunner.files.temporary import exchange, name_of, remove_abandoned, temporary_folder
from dlrunner.inference import onnx as graphs
from dlrunner.inference import portable
from dlrunner.inference.models import is_exported, load_models, predictor_of, without_trackers
from dlrunner.predictor import Predictor
from dlrunner.reporting.model_card import Card
from dlrunner.runs.directory import as_lines
from dlrunner.runs.reader import FinishedRun, member_folders, own_file, read_history, shorter
from dlrunner.tracker import without_tracker_settings

OF_EXPORT = {
    *("README.md", "config.yaml", "overrides.yaml", "summary.json", "metrics.jsonl", "members"),
    *(portable.STATE, portable.TENSORS),
}
"""What an export writes, beside the weights."""

OTHER = {"signature": "other settings", "code": "other code", "data": "other data"}
"""How a run is told from another, by what an export has recorded of it."""


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
    bit. An older export of the same run in it is written over, and one that was broken off too.

    Args:
        finished: the run.
        folder: by default `export` in the run's folder.
        onnx: write ONNX graphs too, where the model can be one.

    Raises:
        ConfigError: the run has nothing to export, or the folder holds something else.
        RunError: the folder cannot be written.
    """
    if finished.status != "done" or finished.summary is None:
        raise ConfigError(f"{shorter(finished.path)} is {finished.status}; only a finished run is exported")
    if is_exported(finished.path):
        raise ConfigError(f"{shorter(finished.path)} was exported already; copy it as it is")
    if onnx:
        graphs.check_installed()
    identity = _identity(finished.summary)
    if folder is None:
        folder = own_file(finished.path, "export")
        _check_place(folder, {}, "")
    else:
        folder = user_path(folder).resolve()
        _check_place(folder, identity, "--out: ")
    config, overrides = without_trackers(finished.config), without_tracker_settings(finished.overrides)
    checked, state, models = load_models(finished)
    predictor = predictor_of(checked)(state, models)
    about = {**identity, "task": checked.task.target, "model": checked.model.target}
    with readable_os_errors(folder), _exchanged(folder, about) as made:
        kept = _keep_record(finished, config, overrides, made)
        files = portable.write(made, state, models, about)
        graphs_of, difference, no_graph = _graphs(made, predictor) if onnx else ([], None, "")
        card = Card(
            summary=finished.summary,
            config=config,
            overrides=overrides,
            task=checked.task.target,
            model=checked.model.target,
            settings={k: v for k, v in checked.model.complete().items() if k != "_target_"},
            parameters=[sum(each.numel() for each in model.parameters()) for model in models],
            example=predictor.example,
            limits=predictor.limits,
            files=[*files, *graphs_of, *kept],
            difference=difference,
            no_graph=no_graph,
        )
        write_atomic(made / "README.md", card.markdown().encode(errors="backslashreplace"))
    return Exported(folder, ["README.md", *files, *graphs_of, *kept], difference, no_graph)


@contextlib.contextmanager
def _exchanged(folder: Path, about: Mapping[str, str]) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` when the block ends well; until then that is as it was.

    What a person has put beside an older export stays.
    """
    is_full = folder.exists() and any(name_of(each.name) is None for each in folder.iterdir())
    # An empty folder may be one that cannot be exchanged: a disk of its own, the working directory.
    within = folder.exists() and not is_full
    place = folder / "export" if within else folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place.parent, is_ours=lambda name: name_of(name) == place.name)
    with temporary_folder(place) as made:
        yield made
        if within:
            portable.begin(folder, about)
            for file in sorted(made.iterdir(), key=lambda file: file.name == portable.STATE):
                file.rename(folder / file.name)
        elif is_full:
            for each in folder.iterdir():
                if not _is_of_export(each.name):
                    _copy(each, made / each.name)
            exchange(made, folder)  # what is removed now is the older one
        else:
            try:
                made.rename(folder)
            except OSError:  # another process has exported the same run meanwhile
                exchange(made, folder)


def _is_of_export(name: str) -> bool:
    """Tell whether a file, or what was to become one, is written by an export."""
    name = name_of(name) or name
    return name in OF_EXPORT or (name.startswith("model") and name.endswith((".safetensors", ".onnx")))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _identity(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what tells a run from all others, those with the same settings too."""
    told = {
        "signature": summary.get("signature"),
        "code": summary.get("code"),
        "data": (summary.get("data") or {}).get("sha256"),
        "finished": summary.get("finished"),
    }
    return {name: str(value or "") for name, value in told.items()}


def _check_place(folder: Path, identity: Mapping[str, str], option: str) -> None:
    """Refuse a folder that holds something else than an older export of the same run, whole or broken off.

    Args:
        folder: where an export is to go.
        identity: what that one must have recorded; nothing, where the folder is the run's own.
        option: by which the folder was named.
    """
    remedy = "give a new folder" if option else "name a folder with --out"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{option}{shorter(folder)} is a file; {remedy}")
    if all(name_of(each.name) in (portable.STATE, "export") for each in folder.iterdir()):  # what is written first
        return
    found = _recorded(folder)
    if found is None:
        raise ConfigError(f"{option}{shorter(folder)} holds something else already; {remedy}")
    other = [name for name in identity if found.get(name) != identity[name]]
    if other:
        told = f"it finished at {found.get(other[0])}" if other == ["finished"] else f"of {OTHER[other[0]]}"
        place = f"{option}{shorter(folder)}"
        raise ConfigError(f"{place} holds the export of another run ({told}); remove it, or {remedy}")


def _recorded(folder: Path) -> dict[str, Any] | None:
    """Return what an export says of itself; None where there is none."""
    try:
        found = json.loads((folder / portable.STATE).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and {"format", "signature"} <= set(found) else None


def _keep_record(finished: FinishedRun, config: Mapping[str, Any], overrides: list[str], folder: Path) -> list[str]:
    """Write what a run's folder tells about itself, without where things lay on this machine."""
    config = {**config, "data_dir": "data", "runs_dir": "runs"}
    data = {name: value for name, value in (finished.summary or {}).get("data", {}).items() if name != "path"}
    record = {
        "config.yaml": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "overrides.yaml": yaml.safe_dump(overrides, allow_unicode=True),
        "summary.json": json.dumps({**(finished.summary or {}), "data": data}, indent=2) + "\n",
    }
    for place in (finished.path, *member_folders(finished.path)):
        if rows := read_history(place):
            record[str((place / "metrics.jsonl").relative_to(finished.path))] = as_lines(rows)
    for name, text in record.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, text.encode())
    return list(record)


def _graphs(folder: Path, predictor: Predictor) -> tuple[list[str], float | None, str]:
    """Write a graph of each model, or of none, and say why."""
    models = predictor.models
    try:
        found = [graphs.graph_of(model, predictor) for model in models]
    except graphs.NoGraphError as error:
        return [], None, str(error)
    names = [portable.weights_file(place, len(models)).replace("safetensors", "onnx") for place in range(len(models))]
    for name, (content, _) in zip(names, found, strict=True):
        write_atomic(folder / name, content)
    return names, max(difference for _, difference in found), ""
