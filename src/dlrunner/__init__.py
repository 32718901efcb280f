"""dlrunner: a command-line experiment runner for deep learning, driven by YAML.

In Python a finished run is used in two lines:

    import dlrunner
    predictor = dlrunner.load("runs/latest")

and a sweep is a table: `dlrunner.load_sweep("runs/sweeps/…")`.
"""

from typing import TYPE_CHECKING, Any

from dlrunner._version import __version__

if TYPE_CHECKING:
    from dlrunner.comparison.sweep_frame import load_sweep
    from dlrunner.inference.load import LoadedRun, load
    from dlrunner.predictor import Predictor


__all__ = ["LoadedRun", "Predictor", "__version__", "load", "load_sweep"]


def __getattr__(name: str) -> Any:
    """Import what needs torch (two seconds) when it is asked for: the command line answers without."""
    if name == "Predictor":
        from dlrunner.predictor import Predictor

        return Predictor
    if name in ("LoadedRun", "load"):
        from dlrunner.inference import load as loading

        return getattr(loading, name)
    if name == "load_sweep":
        from dlrunner.comparison.sweep_frame import load_sweep

        return load_sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
