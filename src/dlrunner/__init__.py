"""dlrunner: a command-line experiment runner for deep learning, driven by YAML.

In Python a finished run is used in two lines:

    import dlrunner
    predictor = dlrunner.load("runs/latest")
"""

from typing import TYPE_CHECKING, Any

from dlrunner._version import __version__

if TYPE_CHECKING:
    from dlrunner.inference.load import LoadedRun, load
    from dlrunner.predictor import Predictor


__all__ = ["LoadedRun", "Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import what needs torch (two seconds) when it is asked for: the command line answers without."""
    if name == "Predictor":
        from dlrunner.predictor import Predictor

        return Predictor
    if name in ("LoadedRun", "load"):
        from dlrunner.inference import load as loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
