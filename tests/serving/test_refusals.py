"""Requests that a server refuses: a reason instead of a traceback, and limits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import dlrunner
from tests.small_runs import SmallRuns, new_flats

pytest.importorskip("fastapi", reason="needs fastapi: pip install 'dlrunner[serve]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'dlrunner[serve]'")

from tests.serving.client import Client, as_rows, served


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
        (b'{"ro\\ud83d": []}', "has an entry 'ro"),
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
        ({"city": "a\ud83d"}, "city is 'a\\ud83d', which has half of a character"),
        ({"ci\ud83d": 1}, "there is no column 'ci\\ud83d'"),
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


def test_half_of_a_character_is_refused_in_texts_and_ids(runs: SmallRuns) -> None:
    for kind, row in (("texts", {"text": "a\ud83d"}), ("ratings by dot", {"user": "a\ud83d", "item": 1})):
        with served(runs[kind]) as client:
            status, answer = client.predict(row)
            assert (status, "half of a character" in answer["detail"]) == (422, True), answer


def test_an_error_outside_of_predictions_is_a_sentence_too(
    flats_client: Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("some \ud83d bug")

    good, *_ = as_rows(new_flats())
    for name in ("table_of", "page"):
        with monkeypatch.context() as patch:
            patch.setattr(f"dlrunner.serving.app.{name}", broken)
            status, answer = flats_client.predict(good) if name == "table_of" else flats_client.get("/docs")
        assert (status, "ValueError: some \\ud83d bug" in answer["detail"]) == (500, True)
    printed = capfd.readouterr().err
    assert printed.count("error: ") == 2
    assert "Traceback" not in printed


def test_a_missing_user_is_a_reason_and_an_unknown_one_a_note(runs: SmallRuns) -> None:
    with served(runs["ratings"]) as client:
        status, answer = client.predict({"user": 1, "item": 1}, {"user": None, "item": 1})
        assert (status, answer["rows"]) == (422, [{"row": 1, "problem": "user is missing"}])
        status, answer = client.predict({"user": "nobody", "item": 1})
        assert status == 200
        assert answer["predictions"][0]["note"].startswith("unknown user")


def test_bodies_rows_and_waiting_requests_are_limited(runs: SmallRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    row = as_rows(new_flats())[0]
    with served(runs["numbers"], megabytes=0.01, rows=3) as client:
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
    with served(run, waiting=1) as client, ThreadPoolExecutor(1) as thread:
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
