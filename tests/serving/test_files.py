"""Images are uploaded as files too; a request without one, or with something else, is refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.serving.client import Client, served
from tests.small_runs import SmallRuns


def png(colour: str, height: int = 40) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (50, height), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def pictures(runs: SmallRuns) -> Iterator[Client]:
    with served(runs["pictures"], megabytes=1, rows=3) as client:
        yield client


def test_files_have_the_predictions_of_the_same_images_as_rows(pictures: Client) -> None:
    red, green = png("red"), png("green", 47)
    encoded = [{"image": base64.b64encode(content).decode()} for content in (red, green)]
    status, rows = pictures.predict(*encoded)
    assert status == 200
    status, answer = pictures.upload(("red.png", red), ("green.png", green))
    assert status == 200, answer
    names = ["red.png", "green.png"]
    assert answer["predictions"] == [
        {**row, "image": name} for name, row in zip(names, rows["predictions"], strict=True)
    ]
    assert pictures.upload(("red.png", red))[1]["predictions"] == answer["predictions"][:1]


def test_what_is_not_an_image_is_named(pictures: Client) -> None:
    status, answer = pictures.upload(("red.png", png("red")), ("notes.txt", b"no image"))
    assert status == 422
    assert [each["row"] for each in answer["rows"]] == [1]
    assert answer["detail"].startswith("row 1: notes.txt is not an image")


def test_a_request_without_a_file_says_how_to_send_one(pictures: Client) -> None:
    for status, answer in (
        pictures.upload(),
        pictures.upload(("red.png", png("red")), field="photo"),
        pictures.send("POST", "/predict-files", b"{}"),
    ):
        assert status == 422
        assert answer["detail"].startswith("there is no file")
        assert "curl -F image=@" in answer["detail"]


def test_a_file_under_another_name_is_refused_and_not_left_out(pictures: Client) -> None:
    part = '--limit\r\nContent-Disposition: form-data; name="{}"; filename="a.png"\r\n\r\n'
    body = b"".join(part.format(name).encode() + png("red") + b"\r\n" for name in ("image", "img")) + b"--limit--\r\n"
    status, answer = pictures.send(
        "POST", "/predict-files", body, **{"Content-Type": "multipart/form-data; boundary=limit"}
    )
    assert status == 422
    assert answer["detail"].startswith("there is no field 'img'; send one or more files named image")


def test_a_damaged_form_is_refused(pictures: Client) -> None:
    status, answer = pictures.send("POST", "/predict-files", b"--", **{"Content-Type": "multipart/form-data"})
    assert status == 422
    assert "could not be read (missing boundary" in answer["detail"]


def test_the_limits_are_those_of_rows(pictures: Client) -> None:
    small = png("red")
    status, answer = pictures.upload(*[("red.png", small)] * 4)
    assert (status, answer["detail"]) == (422, "a request has at most 3 files; send several requests")
    assert pictures.upload(("large.png", bytes(2**20 + 1)))[0] == 413


def test_more_files_than_a_form_usually_has_are_predicted(runs: SmallRuns) -> None:
    small = png("red", 16)
    with served(runs["pictures"], rows=1_001) as client:
        status, answer = client.upload(*[(f"{number}.png", small) for number in range(1_001)])
        assert (status, len(answer["predictions"])) == (200, 1_001), answer
        status, answer = client.upload(*[("red.png", small)] * 1_002)
        assert (status, answer["detail"]) == (422, "a request has at most 1,001 files; send several requests")


def test_a_picture_without_pixels_is_refused(pictures: Client) -> None:
    status, answer = pictures.upload(("red.png", png("red")), ("nothing.png", b""), ("", b""))
    assert status == 422
    assert [each["problem"] for each in answer["rows"]] == ["nothing.png is an empty file", "file 3 is an empty file"]
    assert pictures.predict({"image": ""})[1]["detail"] == "row 0: is an empty file"
    assert pictures.upload(("", b""), field="photo")[0] == 422


def test_a_field_that_is_no_file_is_refused(pictures: Client) -> None:
    body = b'--limit\r\nContent-Disposition: form-data; name="image"\r\n\r\na.png\r\n--limit--\r\n'
    status, answer = pictures.send(
        "POST", "/predict-files", body, **{"Content-Type": "multipart/form-data; boundary=limit"}
    )
    assert status == 422
    assert answer["detail"].startswith("a field named image is not a file")


def test_the_description_has_the_files_of_runs_on_images_only(pictures: Client, runs: SmallRuns) -> None:
    described = pictures.get("/openapi.json")[1]
    content = described["paths"]["/predict-files"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert content["schema"]["properties"]["image"]["type"] == "array"
    with served(runs["numbers"]) as client:
        assert "/predict-files" not in client.get("/openapi.json")[1]["paths"]
        assert client.upload(("red.png", png("red")))[0] == 404
