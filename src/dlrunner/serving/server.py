"""The process that serves a run until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterator

import uvicorn

from dlrunner.errors import ConfigError, Interrupted
from dlrunner.serving.app import application
from dlrunner.serving.limits import Limits
from dlrunner.serving.service import Service
from dlrunner.system.signals import StopSignals

STOP_SECONDS = 30
"""After a stop signal, for requests that were accepted."""


class Server(uvicorn.Server):
    """Stops at the signals of `StopSignals`, once accepted requests are answered."""

    def __init__(self, config: uvicorn.Config, signals: StopSignals) -> None:
        super().__init__(config)
        self._signals = signals

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `StopSignals`."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop; asked ten times a second."""
        self.should_exit |= self._signals.pending is not None
        return await super().on_tick(counter)


def serve(service: Service, host: str, port: int, limits: Limits) -> int:
    """Serve a run until SIGINT or SIGTERM, answer what was accepted, and return the exit status.

    Raises:
        ConfigError: the address cannot be used.
    """
    with StopSignals() as signals, signals.deferred(), listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        number = listener.getsockname()[1]
        print(f"serving {service.name} on http://{shown}:{number} (Ctrl-C stops)", flush=True)
        if not _is_loopback(host):
            print(f"warning: {host} can be reached from other machines, without a password", file=sys.stderr)
        try:
            Server(server_config(service, limits), signals).run(sockets=[listener])
        except Interrupted as stopped:  # by a second signal
            return stopped.exit_status
        if signals.pending is None:
            return 1
        print("stopped: all requests that were accepted have been answered", flush=True)
        return Interrupted(signals.pending).exit_status


def server_config(service: Service, limits: Limits) -> uvicorn.Config:
    """Return uvicorn's settings."""
    return uvicorn.Config(
        application(service, limits),
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens on an address; port 0 is a free one.

    Raises:
        ConfigError: the address does not exist, or is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
            yield listener
    except OSError as error:
        raise ConfigError(f"{host}, port {port}: {error.strerror or error}; --host and --port name another") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
