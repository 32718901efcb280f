"""Unexpected errors outside of predictions: they are answered in JSON, too."""

from __future__ import annotations

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlrunner.serving.service import report


class UnexpectedErrors:
    """Answers 500 with a sentence where an app raises an error; the framework would send plain text and a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or has_begun:
                raise
            await JSONResponse({"detail": report(error)}, 500)(scope, receive, send)
