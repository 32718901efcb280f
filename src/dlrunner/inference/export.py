"""Export of a finished run: weights, state, record, and a model card."""

from __future__ import annotations

import contextlib
import json
import re
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
from dlrunner.inference.container import container_files
from dlrunner.inference.models import is_exported, load_models, predictor_of
from dlrunner.inference.plugins import without_trackers
from dlrunner.predictor import Predictor
from dlrunner.reporting.model_card import Card
from dlrunner.runs.directory import as_lines
from dlrunner.runs.reader import FinishedRun, member_folders, own_file, read_history, shorter
from dlrunner.tracker import without_tracker_settings

OF_EXPORT = {
    *("README.md", "config.yaml", "overrides.yaml", "summary.json", "metrics.jsonl", "members"),
    *(portable.STATE, portable.TENSORS, "Dockerfile", "requirements.txt"),
}
"""Files of an export in addition to the weights."""

OTHER = {"signature": "other settings", "code": "other code", "data": "other data"}
"""Differences between runs that an export records."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    folder: Path
    files: list[str]
    difference: float | None = None
    """Largest difference of the ONNX graphs from torch; None: there are none."""
    no_graph: str = ""
    """Why there is no ONNX graph, if one was requested."""


def export(finished: FinishedRun, folder: Path | None = None, onnx: bool = False) -> Exported:
    """Export a finished run into a folder.

    The folder can be used like the run (`dlrunner.load`, `dlrun predict`, `dlrun show`), with identical predictions. An
    older or interrupted export of the same run is replaced.

    Args:
        finished: the run.
        folder: by default `export` in the run folder.
        onnx: write ONNX graphs too, if the model can be exported.

    Raises:
        ConfigError: the run has nothing to export, or the folder has other content.
        RunError: the folder cannot be written.
    """
    if finished.status != "done" or finished.summary is None:
        raise ConfigError(f"{shorter(finished.path)} is {finished.status}; only a finished run can be exported")
    if is_exported(finished.path):
        raise ConfigError(f"{shorter(finished.path)} was exported already; copy it as it is")
    if onnx:
        graphs.check_installed()
    identity = _identity(finished.summary)
    if folder is None:
        folder = own_file(finished.path, "export")
        _check_folder(folder, {}, "")
    else:
        folder = user_path(folder).resolve()
        _check_folder(folder, identity, "--out: ")
    config, overrides = without_trackers(finished.config), without_tracker_settings(finished.overrides)
    checked, state, models = load_models(finished)
    predictor = predictor_of(checked)(state, models)
    about = {**identity, "task": checked.task.target, "model": checked.model.target}
    with readable_os_errors(folder), _exchanged(folder, about) as made:
        record = _write_record(finished, config, overrides, made)
        files = portable.write(made, state, models, about)
        graphs_of, difference, no_graph = _graphs(made, predictor) if onnx else ([], None, "")
        container = container_files(finished.summary.get("versions"), config.get("plugins") or [])
        for name, text in container.items():
            write_atomic(made / name, text.encode())
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
            files=[*files, *graphs_of, *record, *container],
            difference=difference,
            no_graph=no_graph,
            formula=predictor.output_formula,
        )
        write_atomic(made / "README.md", card.markdown().encode(errors="backslashreplace"))
    return Exported(folder, ["README.md", *files, *graphs_of, *record, *container], difference, no_graph)


@contextlib.contextmanager
def _exchanged(folder: Path, about: Mapping[str, str]) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` atomically if the block succeeds.

    Files that a user added to an older export are kept.
    """
    is_full = folder.exists() and any(name_of(each.name) is None for each in folder.iterdir())
    # An empty folder may be impossible to exchange: a mount point, the working directory.
    within = folder.exists() and not is_full
    target = folder / "export" if within else folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, is_ours=lambda name: name_of(name) == target.name)
    with temporary_folder(target) as made:
        yield made
        if within:
            portable.begin(folder, about)
            for file in sorted(made.iterdir(), key=lambda file: file.name == portable.STATE):
                file.rename(folder / file.name)
        elif is_full:
            for each in folder.iterdir():
                if not _is_of_export(each.name):
                    _copy(each, made / each.name)
            exchange(made, folder)  # the older one is removed now
        else:
            try:
                made.rename(folder)
            except OSError:  # another process has exported the same run in the meantime
                exchange(made, folder)


def _is_of_export(name: str) -> bool:
    """Return whether a file, or a temporary file, belongs to an export."""
    name = name_of(name) or name
    return name in OF_EXPORT or re.fullmatch(r"model(-\d+)?\.(safetensors|onnx)", name) is not None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _identity(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what identifies a run, also among runs with the same settings."""
    identity = {
        "signature": summary.get("signature"),
        "code": summary.get("code"),
        "data": (summary.get("data") or {}).get("sha256"),
        "finished": summary.get("finished"),
    }
    return {name: str(value or "") for name, value in identity.items()}


def _check_folder(folder: Path, identity: Mapping[str, str], option: str) -> None:
    """Refuse a folder with other content than an older or interrupted export of the same run.

    Args:
        folder: destination of the export.
        identity: what an older export must have recorded; empty for a folder in the run.
        option: prefix for messages, if the folder was given by an option.
    """
    remedy = "give a new folder" if option else "name a folder with --out"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{option}{shorter(folder)} is a file; {remedy}")
    if all(name_of(each.name) in (portable.STATE, "export") for each in folder.iterdir()):  # written first
        return
    found = _recorded(folder)
    if found is None:
        raise ConfigError(f"{option}{shorter(folder)} has other content; {remedy}")
    other = [name for name in identity if found.get(name) != identity[name]]
    if other:
        reason = f"it finished at {found.get(other[0])}" if other == ["finished"] else f"of {OTHER[other[0]]}"
        name = f"{option}{shorter(folder)}"
        raise ConfigError(f"{name} has the export of another run ({reason}); remove it, or {remedy}")


def _recorded(folder: Path) -> dict[str, Any] | None:
    """Return the state.json of an export; None without one."""
    try:
        found = json.loads((folder / portable.STATE).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and {"format", "signature"} <= set(found) else None


def _write_record(finished: FinishedRun, config: Mapping[str, Any], overrides: list[str], folder: Path) -> list[str]:
    """Write the record of a run, without local paths."""
    config = {**config, "data_dir": "data", "runs_dir": "runs"}
    data = {name: value for name, value in (finished.summary or {}).get("data", {}).items() if name != "path"}
    record = {
        "config.yaml": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "overrides.yaml": yaml.safe_dump(overrides, allow_unicode=True),
        "summary.json": json.dumps({**(finished.summary or {}), "data": data}, indent=2) + "\n",
    }
    for path in (finished.path, *member_folders(finished.path)):
        if rows := read_history(path):
            record[str((path / "metrics.jsonl").relative_to(finished.path))] = as_lines(rows)
    for name, text in record.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, text.encode())
    return list(record)


def _graphs(folder: Path, predictor: Predictor) -> tuple[list[str], float | None, str]:
    """Write the ONNX graph of each model; if one fails, write none and return the reason."""
    models = predictor.models
    try:
        found = [graphs.graph_of(model, predictor) for model in models]
    except graphs.NoGraphError as error:
        return [], None, str(error)
    names = [portable.weights_file(index, len(models)).replace("safetensors", "onnx") for index in range(len(models))]
    for name, (content, _) in zip(names, found, strict=True):
        write_atomic(folder / name, content)
    return names, max(difference for _, difference in found), ""
