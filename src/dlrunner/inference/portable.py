"""Portable storage of trained models without pickle: safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dlrunner.errors import ConfigError
from dlrunner.files.atomic import write_atomic
from dlrunner.runs.reader import shorter

STATE, TENSORS = "state.json", "state.safetensors"
FORMAT = 1
TIED = "tied:"
"""Prefix of tied weights in the metadata of a file."""


def weights_file(index: int, count: int) -> str:
    """Return the file name of a model, a single one or one of several.

    >>> weights_file(0, 1), weights_file(2, 3)
    ('model.safetensors', 'model-2.safetensors')
    """
    return "model.safetensors" if count == 1 else f"model-{index}.safetensors"


def begin(folder: Path, about: Mapping[str, str]) -> None:
    """Write the identity of the run to state.json, so that an interrupted export can be recognised.

    This invalidates an earlier export in the folder.
    """
    write_atomic(folder / STATE, (json.dumps({"format": FORMAT, **about}, indent=1) + "\n").encode())


def write(folder: Path, state: Mapping[str, Any], models: Sequence[nn.Module], about: Mapping[str, str]) -> list[str]:
    """Write models and state into a folder, the complete state.json last, and return the file names.

    Args:
        folder: an existing folder.
        state: of the task: tensors and plain values, in any nesting.
        models: their weights are written, tied ones once.
        about: metadata for each weights file.

    Raises:
        ConfigError: the state contains something other than tensors and plain values.
    """
    tensors: dict[str, Tensor] = {}
    plain = encoded(state, tensors)
    files = {weights_file(index, len(models)): _weights(model, about) for index, model in enumerate(models)}
    files[TENSORS] = safetensors.torch.save(tensors, {"format": "pt", **about})
    for name, content in files.items():
        write_atomic(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    complete = {"format": FORMAT, **about, "models": len(models), "sha256": digests, "state": plain}
    write_atomic(folder / STATE, (json.dumps(complete, indent=1, allow_nan=False) + "\n").encode())
    return [*files, STATE]


def read_state(folder: Path) -> tuple[dict[str, Any], int]:
    """Return the state and the number of models of an exported folder, after verifying all digests.

    Raises:
        ConfigError: the folder is not an export, or a file is missing, damaged or of another export.
    """
    file = folder / STATE
    try:
        found = json.loads(file.read_text())
        if found["format"] != FORMAT:
            message = f"has format {found['format']}; this version of dlrunner reads format {FORMAT}"
            raise ConfigError(f"{shorter(file)} {message}")
        if "state" not in found:
            raise ConfigError(f"{shorter(folder)} contains an interrupted export; export it again")
        count, digests = int(found["models"]), dict(found["sha256"])
        if not 0 < count < len(digests):
            raise ValueError
        if set(digests) != {TENSORS, *(weights_file(index, count) for index in range(count))}:
            raise ValueError
        for name, digest in digests.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                damaged = shorter(folder / name)
                raise ConfigError(f"{damaged} is damaged or was replaced; export it again")
        state = decoded(found["state"], safetensors.torch.load_file(folder / TENSORS))
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; export it again") from None
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, SafetensorError):
        raise ConfigError(f"{shorter(file)} is damaged, or was not written by `dlrun export`") from None
    if not isinstance(state, dict):
        raise ConfigError(f"{shorter(file)} contains no task state")
    return state, count


def read_weights(model: nn.Module, file: Path) -> None:
    """Load the weights of a file into a model.

    Raises:
        KeyError, RuntimeError: they belong to another model.
    """
    with safe_open(file, "pt") as opened:
        tied = {name: of for name, of in (opened.metadata() or {}).items() if name.startswith(TIED)}
    weights = safetensors.torch.load_file(file)
    model.load_state_dict(weights | {name.removeprefix(TIED): weights[of] for name, of in tied.items()})


def _weights(model: nn.Module, about: Mapping[str, str]) -> bytes:
    """Return the content of a weights file; tied weights are stored once, and their names in the metadata."""
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in sorted(model.state_dict().items()):
        identity = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if tensor.numel() and identity in first:
            aliases[TIED + name] = first[identity]
        else:
            first[identity] = name
            kept[name] = tensor.detach().cpu().contiguous().clone()
    return safetensors.torch.save(kept, {"format": "pt", **about, **aliases})


def encoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Encode plain values as exact JSON; tensors go into `tensors`, types unknown to JSON are tagged.

    >>> encoded({"scale": (1.5, math.inf), 3: None}, {})
    {'$dict': [['scale', {'$tuple': [1.5, {'$float': 'inf'}]}], [3, None]]}
    """
    if isinstance(value, Tensor):
        tensors[name := str(len(tensors))] = value.detach().cpu().contiguous().clone()
        return {"$tensor": name}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if type(value) is list:
        return [encoded(each, tensors) for each in value]
    if type(value) is tuple:
        return {"$tuple": [encoded(each, tensors) for each in value]}
    if isinstance(value, Mapping):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encoded(each, tensors) for key, each in value.items()}
        return {"$dict": [[encoded(key, tensors), encoded(each, tensors)] for key, each in value.items()]}
    raise ConfigError(
        f"the task's state contains a {type(value).__name__}; only tensors and plain values (numbers, texts, lists, "
        "dicts) can be exported"
    )


def decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Decode the result of `encoded`.

    >>> decoded({"$dict": [["scale", {"$tuple": [1.5, {"$float": "inf"}]}], [3, None]]}, {})
    {'scale': (1.5, inf), 3: None}
    """
    if isinstance(value, list):
        return [decoded(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$float" in value:
        return float(value["$float"])
    if "$tuple" in value:
        return tuple(decoded(each, tensors) for each in value["$tuple"])
    if "$dict" in value:
        return {decoded(key, tensors): decoded(each, tensors) for key, each in value["$dict"]}
    return {key: decoded(each, tensors) for key, each in value.items()}
