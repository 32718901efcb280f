"""Processes of trackers that are forked from the tests: a library like MLflow takes three seconds to import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dlrunner.tracking import relay
from tests.conftest import ForkedProcess


class ForkedRelay(ForkedProcess):
    """What the supervisor needs of a `subprocess.Popen` of the module relay, without a new interpreter."""

    def __init__(
        self, words: Sequence[str], pass_fds: Sequence[int], env: Mapping[str, str], stdout: Any, **others: Any
    ) -> None:
        assert list(words[-2:]) == ["dlrunner.tracking.relay", str(pass_fds[0])]
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.setsid()
                os.close(write)
                for descriptor, target in ((read, 0), (stdout.fileno(), 1), (stdout.fileno(), 2)):
                    os.dup2(descriptor, target)
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
                warnings.simplefilter("ignore")  # as outside the tests
                os.environ.clear()
                os.environ.update(env)
                status = relay.main(pass_fds[0])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.close(read)
        self.stdin = os.fdopen(write, "wb")

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("relay", timeout)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode


def fork_relays(patch: pytest.MonkeyPatch) -> None:
    """Fork the processes of trackers."""
    patch.setattr("dlrunner.tracking.supervisor.subprocess", _Subprocess)


@pytest.fixture
def forked_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of trackers."""
    fork_relays(monkeypatch)


class _Subprocess:
    Popen = ForkedRelay
    PIPE, TimeoutExpired = subprocess.PIPE, subprocess.TimeoutExpired
