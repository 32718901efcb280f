"""dlrunner: a command-line experiment runner for deep learning, driven by YAML."""

__version__ = "0.1.0"
