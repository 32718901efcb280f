"""The process that serves: stop signals, wrong requests, exports and containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

import dlrunner
from dlrunner.inference.container import container_files
from tests.conftest import Dlrun, Forked, start
from tests.small_runs import SmallRuns, new_flats

pytest.importorskip("fastapi", reason="needs fastapi: pip install 'dlrunner[serve]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'dlrunner[serve]'")

from dlrunner.serving.server import listening
from tests.serving.client import Answer, Client, as_rows, served


def port_of(process: Forked) -> int:
    """Wait until a server says its port, and return it."""
    for _ in range(3000):
        # Reading must not move the position at which the process writes.
        printed = os.pread(process._files[0].fileno(), 10_000, 0).decode()
        if "http://127.0.0.1:" in printed:
            return int(printed.split("http://127.0.0.1:")[1].split(" ")[0])
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_under_load_answers_what_was_accepted(
    sent: signal.Signals, status: int, runs: SmallRuns, here: Path
) -> None:
    process = start("serve", str(runs["numbers"]), "--port", "0", "--wait-ms", "1000", cwd=here)
    client = Client(port_of(process))
    rows = as_rows(new_flats())

    def ask(_: int) -> Answer | None:
        try:
            return client.predict(*rows)
        except ConnectionError:  # not accepted
            return None

    try:
        with ThreadPoolExecutor(20) as threads:
            requests = [threads.submit(ask, number) for number in range(20)]
            while not (accepted := client.get("/health")[1]["waiting"]):
                assert not any(each.done() for each in requests)
            time.sleep(0.3)
            accepted = max(accepted, client.get("/health")[1]["waiting"])
            process.send_signal(sent)
            answers = [answer for each in requests if (answer := each.result())]
    except BaseException:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        raise
    printed, err = process.communicate()
    assert process.returncode == status, printed + err
    assert {(code, len(answer["predictions"])) for code, answer in answers} == {(200, len(rows))}
    assert len(answers) >= accepted > 1
    assert err == ""
    with pytest.raises(ConnectionRefusedError):
        client.get("/health")


def test_wrong_requests_of_the_command_are_refused(runs: SmallRuns, dlrun: Dlrun) -> None:
    run = str(runs["numbers"])
    for words, said in (
        (["nothing"], "no run folder"),
        ([run, "--port", "70000"], "--port is 70000"),
        ([run, "--max-mb", "inf"], "--max-mb is inf"),
        ([run, "--max-rows", "0"], "--max-rows is 0"),
        ([run, "--host", "no.such.host.invalid"], "--host"),
        ([run, "--prot", "80"], "did you mean --port"),
    ):
        status, _, err = dlrun("serve", *words)
        assert (status, said in err) == (2, True), err
    with listening("127.0.0.1", 0) as taken:
        status, _, err = dlrun("serve", run, "--port", str(taken.getsockname()[1]))
    assert (status, "in use" in err) == (2, True), err


@pytest.mark.slow  # starts a program; a run is served above
def test_an_export_is_served_as_its_run_is(runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    status, printed, err = dlrun("export", str(runs["classes"]), "--out", "model")
    assert status == 0, printed + err
    command = json.loads(Path("model/Dockerfile").read_text().rpartition("CMD ")[2])
    assert command == ["python", "-m", "dlrunner", "serve", "/model", "--host", "0.0.0.0"]
    pins = Path("model/requirements.txt").read_text().splitlines()
    assert f"torch=={version('torch').partition('+')[0]}" in pins
    assert pins[-1] == f"./dlrunner-{dlrunner.__version__}-py3-none-any.whl"
    assert {pin.partition("==")[0] for pin in pins} >= {"fastapi", "uvicorn", "numpy", "pandas"}
    rows = as_rows(new_flats().drop(columns="nr"))
    with served(runs["classes"]) as client:
        expected = client.predict(*rows)
    words = [sys.executable, "-m", "dlrunner", "serve", "model", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving model on http://127.0.0.1:")
            found = Client(int(line.split("http://127.0.0.1:")[1].split(" ")[0])).predict(*rows)
        finally:
            process.terminate()
        assert process.wait() == 143
    assert found == expected
    assert found[0] == 200


def test_versions_of_a_foreign_run_write_no_lines_of_their_own() -> None:
    versions = {"python": "3.11\nRUN evil", "torch": "2.13.0+cpu", "x\n--index-url y": "1", "numpy": 2}
    files = container_files(versions, ["mine\nRUN evil"])
    assert "torch==2.13.0" in files["requirements.txt"]
    assert not [line for text in files.values() for line in text.splitlines() if line.startswith(("RUN evil", "--"))]
