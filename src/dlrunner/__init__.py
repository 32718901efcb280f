"""dlrunner: a command-line experiment runner for deep learning, driven by YAML.

In Python a finished run is used in two lines:

    import dlrunner
    predictor = dlrunner.load("runs/latest")
"""

from typing import TYPE_CHECKING, Any

from dlrunner._version import __version__

if TYPE_CHECKING:
    from dlrunner.inference.load import Predictor, load


__all__ = ["Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import what needs torch (two seconds) when it is asked for: the command line answers without."""
    if name in ("Predictor", "load"):
        from dlrunner.inference import load as loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "Predictor", "load"])
