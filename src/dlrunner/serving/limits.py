"""Limits of a server, and the middleware that holds the bodies of requests to theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line takes its defaults from here, also where no server is installed
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DISCARDED = 4
"""Times the limit: what is read of a larger body, so that its client reads the answer."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server, and how long it collects requests."""

    megabytes: float = 16
    """Of the body of a request."""
    rows: int = 10_000
    """Of a request."""
    waiting: int = 128
    """Requests without an answer."""
    wait_ms: float = 2
    """Milliseconds to wait for requests that are predicted together with the first."""


class BodyLimit:
    """Reads the body of each request before its app does, and answers 413 where it is too large."""

    def __init__(self, app: ASGIApp, megabytes: float) -> None:
        self._app, self._megabytes = app, megabytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request with its whole body on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = int(self._megabytes * 2**20)
        parts: list[bytes] = []
        size = 0
        while size <= most * DISCARDED:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            part = message.get("body", b"")
            size += len(part)
            if size <= most:
                parts.append(part)
            if not message.get("more_body", False):
                break
        if size > most:
            await self._refuse(send)
            return
        messages: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, send: Send) -> None:
        detail = f"the body is larger than {self._megabytes:g} MB; send several requests (dlrun serve --max-mb)"
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()})
