"""A served run: the same answers as `dlrun predict`, whoever asks at the same time, and reasons instead of tracebacks."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dlrunner
from dlrunner.errors import ConfigError
from dlrunner.inference.container import container_files
from dlrunner.inference.load import LoadedRun
from tests.conftest import Dlrun, Forked, start
from tests.small_runs import SmallRuns, new_flats

pytest.importorskip("fastapi", reason="needs fastapi: pip install 'dlrunner[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'dlrunner[serve]'")

from dlrunner.serving.limits import Limits  # noqa: E402
from dlrunner.serving.page import example_row  # noqa: E402
from dlrunner.serving.server import listening, server_config  # noqa: E402
from dlrunner.serving.service import Service  # noqa: E402

Answer = tuple[int, Any]


class Client:
    """Sends requests to a port of this machine, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            content = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(content) if is_json else content.decode()
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def predict(self, *rows: Any) -> Answer:
        return self.send("POST", "/predict", json.dumps({"rows": rows}).encode())


@contextlib.contextmanager
def served(run: Path | LoadedRun, limits: Limits | None = None) -> Iterator[Client]:
    """Serve a run in a thread of this process."""
    service = Service.of(run if isinstance(run, LoadedRun) else dlrunner.load(run))
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(server_config(service, limits or Limits()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        port = listener.getsockname()[1]
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Client(port)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def flats_client(runs: SmallRuns) -> Iterator[Client]:
    with served(runs["numbers"]) as client:
        yield client


def as_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows


def as_strings(predictions: list[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return predictions as a CSV file holds them."""
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in predictions]


def by_command(dlrun: Dlrun, run: Path, given: Path) -> list[dict[Any, Any]]:
    """Return the predictions of `dlrun predict` as the strings of its file."""
    status, printed, err = dlrun("predict", str(run), str(given), "--out", "answers.csv", "--raw")
    assert status == 0, printed + err
    return pd.read_csv("answers.csv", dtype=str, keep_default_na=False).to_dict(orient="records")


def flats_of_kind(run: Path) -> pd.DataFrame:
    return new_flats()


def pairs(run: Path) -> pd.DataFrame:
    state = dlrunner.load(run).predictor.state
    return pd.DataFrame({"user": [*state["user_ids"][:5], -1], "item": [*state["item_ids"][:5], state["item_ids"][0]]})


def sales(run: Path) -> pd.DataFrame:
    days = pd.date_range("2015-09-01", periods=6).strftime("%Y-%m-%d")
    columns = {
        "Store": 1,
        "DayOfWeek": 2,
        "Promo": 1,
        "StateHoliday": "0",
        "SchoolHoliday": 0,
        "Open": [1, 0, 1, 1, 1, 1],
    }
    return pd.DataFrame({"Id": range(1, 7), "Date": days, **columns})


def reviews(run: Path) -> pd.DataFrame:
    words = dlrunner.load(run).predictor.state["words"]
    return pd.DataFrame({"text": [" ".join(words[5:15]), "zzz", " ".join(words[2:40])]})


@pytest.mark.parametrize(
    ("kind", "rows_of"),
    [
        ("numbers", flats_of_kind),
        ("classes", flats_of_kind),
        ("labels", flats_of_kind),
        ("several of ratings", pairs),
        ("choices", pairs),
        ("sales", sales),
        ("texts", reviews),
        ("language", reviews),
    ],
)
def test_answers_are_those_of_predict_to_the_last_digit(
    kind: str, rows_of: Callable[[Path], pd.DataFrame], runs: SmallRuns, dlrun: Dlrun, here: Path
) -> None:
    table = rows_of(runs[kind])
    table.to_csv("new.csv", index=False)
    expected = by_command(dlrun, runs[kind], Path("new.csv"))
    with served(runs[kind]) as client:
        known = [each.name for each in Service.of(dlrunner.load(runs[kind])).fields if each.name in table]
        status, answer = client.predict(*as_rows(table[known]))
        assert status == 200, answer
        names = [name for name in answer["predictions"][0] if name != "text"]
        found = as_strings(answer["predictions"])
    assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in expected]


def test_images_are_those_of_a_folder_and_a_damaged_one_has_a_reason(runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    from PIL import Image

    Path("images").mkdir()
    for number, colour in enumerate(["red", "green", "navy"]):
        Image.new("RGB", (50, 40 + number), colour).save(f"images/{number}.png")
    expected = by_command(dlrun, runs["pictures"], Path("images"))
    encoded = [{"image": base64.b64encode(file.read_bytes()).decode()} for file in sorted(Path("images").iterdir())]
    with served(runs["pictures"]) as client:
        status, answer = client.predict(*encoded)
        assert status == 200, answer
        names = [name for name in expected[0] if name != "image"]
        found = as_strings(answer["predictions"])
        assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in expected]
        damaged = base64.b64encode(b"no image").decode()
        status, answer = client.predict(encoded[0], {"image": damaged}, {"image": "§"})
        assert status == 422
        assert [each["row"] for each in answer["rows"]] == [1, 2]
        assert "not an image" in answer["rows"][0]["problem"]
        assert "base64" in answer["rows"][1]["problem"]
        assert client.predict({"image": damaged})[0] == 422


def test_requests_of_twenty_clients_at_a_time_get_the_answers_that_each_would_have_alone(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dlrunner.load(runs["numbers"])
    rows = as_rows(new_flats())
    requests = [rows[start : start + 1 + start % 3] for start in range(38)]
    alone = []
    for each in requests:
        table = pd.DataFrame(each)
        table["area"] = table["area"].astype(float)
        predicted = run.predict(table)
        alone.append((predicted["price"].tolist(), predicted.attrs.get("note")))
    calls: list[int] = []
    predictor = run.predictor
    together = predictor.predict_requests

    def counted(given: Any) -> Any:
        calls.append(len(given))
        return together(given)

    monkeypatch.setattr(predictor, "predict_requests", counted)
    with served(run) as client, ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda each: client.predict(*each), requests * 3))
    assert {status for status, _ in answers} == {200}
    found = [([row["price"] for row in answer["predictions"]], answer["note"]) for _, answer in answers]
    assert found == alone * 3
    assert max(calls) > 1
    assert sum(calls) == len(answers)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "send {"),
        (b"[]", "not a JSON object"),
        (b"{}", "has no rows"),
        (b'{"rows": {}}', "rows is not a list"),
        (b'{"rows": []}', "rows is empty"),
        (b'{"rows": [1]}', "row 0: it is 1"),
        (b'{"row": [], "rows": [{}]}', "'row'"),
        (b'{"rows": "\xe9"}', "could not be read"),
    ],
)
def test_a_bad_body_is_refused_with_a_sentence(body: bytes, words: str, flats_client: Client) -> None:
    status, answer = flats_client.send("POST", "/predict", body)
    assert (status, words in answer["detail"]) == (422, True), answer
    assert flats_client.get("/health")[0] == 200


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"area": "many"}, "area is 'many', which is not a number"),
        ({"area": True}, "area is True, which is not a number"),
        ({"area": [1]}, "area is a list, which is not a number"),
        ({"city": 7}, "city is 7, which is not a text"),
        ({"citty": "Bonn"}, "did you mean city"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(changed: dict[str, Any], words: str, flats_client: Client) -> None:
    good, *_ = as_rows(new_flats())
    status, answer = flats_client.predict(good, {**good, **changed}, good)
    assert status == 422
    assert [each["row"] for each in answer["rows"]] == [1]
    assert words in answer["rows"][0]["problem"]
    assert answer["detail"].startswith("row 1: ")


def test_a_row_without_a_column_is_refused_and_null_is_a_missing_value(flats_client: Client) -> None:
    row = {"city": "Ulm", "rooms": 3, "area": 80.5}
    status, answer = flats_client.predict({"city": "Ulm", "rooms": 3})
    assert (status, answer["detail"]) == (422, "row 0: the column area is missing; null is a missing value")
    status, answer = flats_client.predict({"city": "Ulm"}, {})
    assert (status, answer["detail"].count("null is a missing value")) == (422, 1)
    assert answer["rows"][0]["problem"] == "the column rooms is missing; the column area is missing"
    status, answer = flats_client.predict(row, {**row, "area": None})
    assert status == 200
    assert [list(each) for each in answer["predictions"]] == [["price"], ["price"]]
    assert "replaced by the training median" in answer["note"]


def test_a_missing_user_is_a_reason_and_an_unknown_one_a_note(runs: SmallRuns) -> None:
    with served(runs["ratings"]) as client:
        status, answer = client.predict({"user": 1, "item": 1}, {"user": None, "item": 1})
        assert (status, answer["rows"]) == (422, [{"row": 1, "problem": "user is missing"}])
        status, answer = client.predict({"user": "nobody", "item": 1})
        assert status == 200
        assert answer["predictions"][0]["note"].startswith("unknown user")


def test_bodies_rows_and_waiting_requests_are_limited(runs: SmallRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    row = as_rows(new_flats())[0]
    with served(runs["numbers"], Limits(megabytes=0.01, rows=3)) as client:
        for size in (11_000, 30_000, 200_000):
            status, answer = client.send("POST", "/predict", b" " * size)
            assert (status, "larger than 0.01 MB" in answer["detail"]) == (413, True)
        status, answer = client.predict(*[row] * 4)
        assert (status, "at most 3 rows" in answer["detail"]) == (422, True)
        assert client.predict(*[row] * 3)[0] == 200
    run = dlrunner.load(runs["numbers"])
    going_on, free = threading.Event(), threading.Event()
    together = run.predictor.predict_requests

    def slow(given: Any) -> Any:
        going_on.set()
        free.wait(30)
        return together(given)

    monkeypatch.setattr(run.predictor, "predict_requests", slow)
    with served(run, Limits(waiting=1)) as client, ThreadPoolExecutor(1) as thread:
        first = thread.submit(client.predict, row)
        assert going_on.wait(30)
        assert client.predict(row)[0] == 503
        free.set()
        assert first.result()[0] == 200


def test_an_error_of_one_request_is_its_own_and_no_traceback(
    runs: SmallRuns, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dlrunner.load(runs["numbers"])
    together = run.predictor.predict_requests

    def failing(given: Any) -> Any:
        if any((rows["area"] == 13).any() for rows in given):
            raise KeyError("thirteen")
        return together(given)

    monkeypatch.setattr(run.predictor, "predict_requests", failing)
    good = as_rows(new_flats())[0]
    with served(run) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(client.predict, [good, {**good, "area": 13}] * 8))
    assert [status for status, _ in answers] == [200, 500] * 8
    assert "KeyError" in answers[1][1]["detail"]
    assert "Traceback" not in capfd.readouterr().err


def test_the_run_is_described(runs: SmallRuns) -> None:
    with served(runs["classes"]) as client:
        status, health = client.get("/health")
        assert (status, health["status"], health["run"]) == (200, "ok", runs["classes"].name)
        assert health["metric"] == "valid/accuracy"
        assert 0 <= health["age_days"] < 1
        status, description = client.get("/openapi.json")
        row = description["components"]["schemas"]["Row"]
        assert row["properties"]["city"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
        assert {each["type"] for each in row["properties"]["area"]["anyOf"]} == {"number", "null"}
        assert set(row["required"]) == {"city", "rooms", "area"}
        assert client.send("GET", "/")[0] == 307
        status, page = client.get("/docs")
        assert status == 200
        assert "<td>area<td>number" in page
        assert "//" not in page.replace("openapi.json", "").split("<script>")[0].replace("<!doctype", "")


@pytest.mark.parametrize("kind", ["numbers", "ratings", "texts", "language", "sales"])
def test_the_example_of_the_page_can_be_predicted(kind: str, runs: SmallRuns) -> None:
    service = Service.of(dlrunner.load(runs[kind]))
    with served(service.run) as client:
        status, answer = client.predict(example_row(service))
        assert status == 200, answer


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


def test_a_run_whose_rows_are_not_described_is_refused(runs: SmallRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dlrunner.load(runs["numbers"])
    monkeypatch.setattr(run.predictor, "row_fields", tuple)
    with pytest.raises(ConfigError, match="row_fields"):
        Service.of(run)


def test_versions_of_a_foreign_run_write_no_lines_of_their_own() -> None:
    versions = {"python": "3.11\nRUN evil", "torch": "2.13.0+cpu", "x\n--index-url y": "1", "numpy": 2}
    files = container_files(versions, ["mine\nRUN evil"])
    assert "torch==2.13.0" in files["requirements.txt"]
    assert not [line for text in files.values() for line in text.splitlines() if line.startswith(("RUN evil", "--"))]
