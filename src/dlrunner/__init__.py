"""dlrunner: a command-line experiment runner for deep learning, driven by YAML.

In Python it is as on the command line:

    import dlrunner
    run = dlrunner.run("task=collab", "optim=adamw", epochs=5)
    table = dlrunner.sweep("task=collab", "optim=sgd,adam,adamw", seed=range(3))
    predictor = dlrunner.load("runs/latest")

`load_sweep("runs/sweeps/…")` returns the table of a sweep that was run before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlrunner._version import __version__

if TYPE_CHECKING:
    from dlrunner.cli.python import run, sweep
    from dlrunner.comparison.sweep_frame import load_sweep
    from dlrunner.inference.load import LoadedRun, load
    from dlrunner.predictor import Predictor


__all__ = ["LoadedRun", "Predictor", "__version__", "load", "load_sweep", "run", "sweep"]

MODULES = {
    "LoadedRun": "inference.load",
    "Predictor": "predictor",
    "load": "inference.load",
    "load_sweep": "comparison.sweep_frame",
    "run": "cli.python",
    "sweep": "cli.python",
}
"""Of the public names."""


def __getattr__(name: str) -> Any:
    """Import what needs torch (two seconds) when it is asked for: the command line answers without."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dlrunner.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
