"""Models as ONNX graphs, which other programs run, compared with what torch says before anybody relies on them."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlrunner.errors import ConfigError, RunError
from dlrunner.model import Example, Model
from dlrunner.predictor import Predictor

TOLERANCE = 1e-4
"""Largest difference from torch, in units of the output where that is above 1: float32 sums in another order."""
COUNTS = (1, 7, 64)
"""Rows in the batches that are compared; the graph is made from a batch of another size."""
OPSET = 18


class NoGraphError(RunError):
    """A model that cannot be a graph, or whose graph says something else; the rest of an export is as good without."""


def check_installed() -> None:
    """Refuse to go on without the packages that graphs need.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--onnx needs {' and '.join(missing)}: pip install 'dlrunner[onnx]'")


def graph_of(model: Model, predictor: Predictor) -> tuple[bytes, float]:
    """Return a model as an ONNX file, and its largest difference from torch on inputs like those of validation.

    Raises:
        NoGraphError: it cannot be one; why, in a sentence.
    """
    if not predictor.examples(2):
        raise NoGraphError(f"{type(predictor).__name__} has no examples of inputs that a graph could be compared on")
    try:
        module = model.graph().eval()
    except ConfigError as error:
        raise NoGraphError(str(error)) from None
    graph = _exported(module, predictor.examples(3))
    worst = float(np.max([_difference(graph, module, predictor.examples(count)) for count in COUNTS]))  # nan stays
    if not worst <= TOLERANCE:
        raise NoGraphError(
            f"the graph differs by {worst:.1e} from torch, in units of the output (at most {TOLERANCE:.0e} is allowed)"
        )
    return graph, worst


def _exported(module: torch.nn.Module, examples: Mapping[str, Example]) -> bytes:
    """Return a graph whose named axes may have any length.

    Torch's older exporter is used, which warns that it will go: the newer one (torch 2.13) fixes the number of words
    that an LSTM reads, and takes 0.6 to 6 s for a model where this one takes 0.1.
    """
    axes = {
        name: {place: axis for place, axis in enumerate(example.axes) if axis} for name, example in examples.items()
    }
    told = logging.getLogger("torch.onnx")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # what a trace may lose is looked for with onnxruntime, not guessed
            torch.onnx.export(
                module,
                tuple(example.values for example in examples.values()),
                Path(folder) / "model.onnx",
                dynamo=False,
                opset_version=OPSET,
                input_names=list(axes),
                output_names=["outputs"],
                dynamic_axes={**axes, "outputs": {0: "rows"}},
            )
            return (Path(folder) / "model.onnx").read_bytes()
    except Exception as error:  # what a model does is its own: the exporter fails in a hundred ways
        first = (str(error).strip().splitlines() or [""])[0]
        raise NoGraphError(f"torch cannot make it a graph ({type(error).__name__}: {first[:200]})") from None
    finally:
        told.setLevel(level)


def _difference(graph: bytes, module: torch.nn.Module, examples: Mapping[str, Example]) -> float:
    """Return the largest difference of a graph's outputs from the module's, in units of the output above 1."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it writes on the terminal what is told here in a sentence
    options.intra_op_num_threads = torch.get_num_threads()
    given: Sequence[Tensor] = [example.values for example in examples.values()]
    with torch.no_grad():
        expected = module(*given).double().numpy()
    try:
        runtime = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        asked = {name: values.numpy() for name, values in zip(examples, given, strict=True)}
        (found,) = runtime.run(None, {each.name: asked[each.name] for each in runtime.get_inputs()})
    except Exception as error:  # its errors have no class in common but this
        first = (str(error).strip().splitlines() or [""])[0]
        raise NoGraphError(f"onnxruntime cannot run its graph ({first[:200]})") from None
    if found.shape != expected.shape:
        raise NoGraphError(f"its graph gives {list(found.shape)} where torch gives {list(expected.shape)}")
    with np.errstate(invalid="ignore"):  # of two infinities
        apart = np.where(found == expected, 0, np.abs(found - expected) / np.maximum(np.abs(expected), 1))
    return float(apart.max(initial=0))
