"""A served run: the same answers as `dlrun predict`, whoever asks at the same time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dlrunner
from dlrunner.errors import ConfigError
from tests.conftest import Dlrun
from tests.small_runs import SmallRuns, new_flats

pytest.importorskip("fastapi", reason="needs fastapi: pip install 'dlrunner[serve]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'dlrunner[serve]'")

from dlrunner.serving.page import example_row
from dlrunner.serving.service import Service
from tests.serving.client import Client, as_rows, served


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


def test_columns_of_the_request_stand_beside_its_predictions_where_they_are_asked_for(flats_client: Client) -> None:
    rows = as_rows(new_flats())[:2]
    body = json.dumps({"rows": rows}).encode()
    status, answer = flats_client.send("POST", "/predict?inputs=true", body)
    assert status == 200, answer
    alone = flats_client.predict(*rows)[1]["predictions"]
    assert answer["predictions"] == [{**row, **price} for row, price in zip(rows, alone, strict=True)]
    status, answer = flats_client.send("POST", "/predict?inputs=perhaps", body)
    assert (status, answer["detail"]) == (422, "inputs is 'perhaps', which is not true or false")


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


def test_a_run_whose_rows_are_not_described_is_refused(runs: SmallRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dlrunner.load(runs["numbers"])
    monkeypatch.setattr(run.predictor, "row_fields", tuple)
    with pytest.raises(ConfigError, match="row_fields"):
        Service.of(run)
