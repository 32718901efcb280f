"""A served run, and a client that asks it."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dlrunner
from dlrunner.inference.load import LoadedRun

pytest.importorskip("fastapi", reason="needs fastapi: pip install 'dlrunner[serve]'")
pytest.importorskip("python_multipart", reason="needs python-multipart: pip install 'dlrunner[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'dlrunner[serve]'")

from dlrunner.serving.limits import Limits  # noqa: E402
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

    def upload(self, *files: tuple[str, bytes], field: str = "image") -> Answer:
        """Send files as a browser's form does."""
        parts = [
            f'--limit\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + content
            for name, content in files
        ]
        body = b"\r\n".join([*parts, b"--limit--\r\n"])
        return self.send("POST", "/predict-files", body, **{"Content-Type": "multipart/form-data; boundary=limit"})


@contextlib.contextmanager
def served(run: Path | LoadedRun, **limits: Any) -> Iterator[Client]:
    """Serve a run in a thread of this process."""
    service = Service.of(run if isinstance(run, LoadedRun) else dlrunner.load(run))
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(server_config(service, Limits(**limits)))
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


def as_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows
