"""The verb that serves a run over HTTP."""

from __future__ import annotations

import argparse
import math
from importlib.util import find_spec

from dlrunner.cli.predictor_verbs import add_plugins_option, check_plugins
from dlrunner.cli.run_names import METAVAR_HELP, named_run
from dlrunner.errors import ConfigError
from dlrunner.serving.limits import Limits


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add = parser.add_argument
    add("run", metavar="RUN", help=f"{METAVAR_HELP}; or an export of one")
    add("--host", default="127.0.0.1", help="0.0.0.0: reachable from other machines, without a password")
    add("--port", type=int, default=8000, metavar="N", help="0: a free one")
    add("--checkpoint", metavar="FILE", help="other weights: last.pt, best.pt, cycle-2.pt …")
    add("--max-mb", type=float, default=Limits.megabytes, metavar="X", help="largest body of a request")
    add("--max-rows", type=int, default=Limits.rows, metavar="N", help="rows of a request")
    add("--max-waiting", type=int, default=Limits.waiting, metavar="N", help="requests that may wait")
    add("--wait-ms", type=float, default=Limits.wait_ms, metavar="X", help="wait for more requests to predict together")
    add_plugins_option(parser)


def serve(arguments: argparse.Namespace) -> int:
    """Serve a run until SIGINT or SIGTERM."""
    limits = {name: getattr(arguments, name) for name in ("max_mb", "max_rows", "max_waiting")}
    for name, value in limits.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"serve: --{name.replace('_', '-')} is {value}; give a number above 0")
    if not 0 <= arguments.wait_ms <= 1000:
        raise ConfigError(f"serve: --wait-ms is {arguments.wait_ms:g}; give a number from 0 to 1000")
    if not 0 <= arguments.port <= 65535:
        raise ConfigError(f"serve: --port is {arguments.port}; give a number from 0 to 65535")
    if missing := [name for name in ("fastapi", "python_multipart", "uvicorn") if find_spec(name) is None]:
        raise ConfigError(f"serve needs {' and '.join(missing)}: pip install 'dlrunner[serve]'")
    from dlrunner.inference.plugins import without_trackers
    from dlrunner.runs.reader import FinishedRun

    finished = FinishedRun.read(named_run(arguments.run))
    check_plugins(without_trackers(finished.config), arguments.plugins)
    from dlrunner.inference.load import loaded
    from dlrunner.serving.server import serve as serve_until_stopped
    from dlrunner.serving.service import Service

    service = Service.of(loaded(finished, arguments.checkpoint))
    chosen = Limits(limits["max_mb"], limits["max_rows"], limits["max_waiting"], arguments.wait_ms)
    return serve_until_stopped(service, arguments.host, arguments.port, chosen)
