"""Export to ONNX; every graph is compared with torch before it is written."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlrunner.errors import ConfigError, RunError
from dlrunner.model import Example, Model
from dlrunner.predictor import Predictor

TOLERANCE = 1e-4
"""Maximum difference from torch, relative for outputs above 1: float32 sums in another order."""
COUNTS = (1, 7, 64)
"""Batch sizes of the comparison; the graph is traced with another one."""
OPSET = 18


class NoGraphError(RunError):
    """A model cannot be exported to ONNX, or its graph differs; the rest of the export is unaffected."""


def check_installed() -> None:
    """Check that the packages for ONNX export are installed.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--onnx needs {' and '.join(missing)}: pip install 'dlrunner[onnx]'")


def graph_of(model: Model, predictor: Predictor) -> tuple[bytes, float]:
    """Return the ONNX graph of a model, and its largest difference from torch on example inputs.

    Raises:
        NoGraphError: it cannot be exported; the message has the reason.
    """
    if not predictor.examples(2):
        raise NoGraphError(f"{type(predictor).__name__} has no example inputs to verify a graph with")
    try:
        module = model.graph().eval()
    except ConfigError as error:
        raise NoGraphError(str(error)) from None
    graph = _exported(module, predictor.examples(3))
    worst = float(
        np.max([_difference(graph, module, predictor.examples(count)) for count in COUNTS])
    )  # np.max keeps nan
    if not worst <= TOLERANCE:
        raise NoGraphError(
            f"the graph differs by {worst:.1e} from torch, in units of the output (at most {TOLERANCE:.0e} is allowed)"
        )
    return graph, worst


def _exported(module: torch.nn.Module, examples: Mapping[str, Example]) -> bytes:
    """Return an ONNX graph with dynamic named axes.

    This uses torch's older, deprecated exporter: the newer one (torch 2.13) fixes the sequence length of an LSTM, and
    takes 0.6 to 6 s per model instead of 0.1 s.
    """
    axes = {
        name: {index: axis for index, axis in enumerate(example.axes) if axis} for name, example in examples.items()
    }
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the result is verified with onnxruntime instead
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
    except Exception as error:  # the exporter raises many kinds of errors
        first = (str(error).strip().splitlines() or [""])[0]
        raise NoGraphError(f"torch cannot export it ({type(error).__name__}: {first[:200]})") from None
    finally:
        logger.setLevel(level)


def _difference(graph: bytes, module: torch.nn.Module, examples: Mapping[str, Example]) -> float:
    """Return the largest difference of a graph's outputs from the module's, relative for outputs above 1."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are reported by this function instead
    options.intra_op_num_threads = torch.get_num_threads()
    inputs: Sequence[Tensor] = [example.values for example in examples.values()]
    with torch.no_grad():
        expected = module(*inputs).double().numpy()
    try:
        runtime = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        feeds = {name: values.numpy() for name, values in zip(examples, inputs, strict=True)}
        (found,) = runtime.run(None, {each.name: feeds[each.name] for each in runtime.get_inputs()})
    except Exception as error:  # its errors have no common base class
        first = (str(error).strip().splitlines() or [""])[0]
        raise NoGraphError(f"onnxruntime cannot run the graph ({first[:200]})") from None
    if found.shape != expected.shape:
        raise NoGraphError(f"the graph returns shape {list(found.shape)} instead of {list(expected.shape)}")
    with np.errstate(invalid="ignore"):  # of two infinities
        differences = np.where(found == expected, 0, np.abs(found - expected) / np.maximum(np.abs(expected), 1))
    return float(differences.max(initial=0))
