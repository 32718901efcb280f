"""The HTTP interface of a served run: predictions of rows and of files, /health, a page for people, OpenAPI."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pandas as pd
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel
from starlette.types import ASGIApp

from dlrunner._version import __version__
from dlrunner.errors import DlrunnerError
from dlrunner.serving.answer import Predictions, Refusal, values_of, with_inputs
from dlrunner.serving.batching import Batcher, FullQueueError
from dlrunner.serving.files import BODY, UploadError, named, table_of_files, takes_files, uploaded
from dlrunner.serving.limits import BodyLimit, Limits
from dlrunner.serving.page import page
from dlrunner.serving.request import SHAPE, bad_rows, refusal, request_model, table_of
from dlrunner.serving.service import Service, report
from dlrunner.serving.unexpected import UnexpectedErrors


class Health(BaseModel):
    """The run that is served."""

    status: str
    run: str
    task: str
    metric: str | None
    value: float | None
    finished: str | None
    age_days: float | None
    synthetic_data: bool
    waiting: int


async def respond(
    batcher: Batcher,
    limits: Limits,
    rows: pd.DataFrame,
    files: Sequence[str] | None = None,
    *,
    with_columns: bool = False,
) -> JSONResponse:
    """Answer a request with predictions, or with the reason why there are none.

    Args:
        batcher: predicts the requests that wait at once.
        limits: of requests.
        rows: of the request.
        files: their names are in the answer.
        with_columns: the columns of the request are in the answer.
    """
    try:
        predicted = await batcher.answer(rows)
        if "num_bad" in predicted.attrs:
            problems = predicted["problem"].dropna()
            reasons = dict(zip(map(int, problems.index), problems, strict=True))
            return JSONResponse(bad_rows(reasons if files is None else named(reasons, files)), 422)
        answer = with_inputs(rows, predicted) if with_columns else predicted
        answer = answer if files is None else answer.assign(image=list(files))
        return JSONResponse({"predictions": values_of(answer), "note": predicted.attrs.get("note")})
    except FullQueueError:
        busy = f"{limits.waiting:,} requests are waiting; try again later"
        return JSONResponse({"detail": busy}, 503, {"Retry-After": "1"})
    except DlrunnerError as error:
        return JSONResponse({"detail": str(error)}, 422)
    except Exception as error:  # a bug, or a user's module
        return JSONResponse({"detail": report(error)}, 500)


def application(service: Service, limits: Limits) -> ASGIApp:
    """Return the application that serves a run."""
    batcher = Batcher(service.predict, limits.rows, limits.waiting, limits.wait_ms / 1000)
    model = request_model(service.fields, limits.rows)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        predicting = asyncio.create_task(batcher.run())
        yield
        predicting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await predicting

    app = FastAPI(title=f"dlrunner: {service.run.path.name}", version=__version__, lifespan=lifespan, openapi_url=None)

    async def predict(body: BaseModel, inputs: bool = False) -> JSONResponse:
        """Predict rows; `inputs=true`: with the columns of the request, as `dlrun predict` has them."""
        rows = table_of(body, service.fields)
        return await respond(batcher, limits, rows, with_columns=inputs)

    async def predict_files(request: Request) -> JSONResponse:
        """Predict uploaded images; `image` of each prediction is the name of its file."""
        try:
            names, contents = await uploaded(request, limits.rows)
        except UploadError as error:
            return JSONResponse({"detail": str(error)}, 422)
        return await respond(batcher, limits, table_of_files(contents, service.fields), names)

    async def health() -> dict[str, Any]:
        """Describe the run that is served."""
        return {"status": "ok", **service.description(), "waiting": batcher.num_waiting}

    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    async def docs() -> HTMLResponse:
        return HTMLResponse(page(service))

    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    predict.__annotations__ = {"body": model, "inputs": bool}
    reasons: dict[int | str, dict[str, Any]] = {
        413: {"model": Refusal, "description": f"the body is larger than {limits.megabytes:g} MB"},
        422: {"model": Refusal, "description": "rows that cannot be read, with reasons"},
        503: {"model": Refusal, "description": "too many requests are waiting"},
    }
    answers = {200: {"model": Predictions}, **reasons}
    app.add_api_route("/predict", predict, methods=["POST"], response_model=None, responses=answers)
    if takes_files(service.fields):
        app.add_api_route(
            "/predict-files",
            predict_files,
            methods=["POST"],
            response_model=None,
            responses=answers,
            openapi_extra={"requestBody": BODY},
        )
    app.add_api_route("/health", health, response_model=Health)
    app.add_api_route("/openapi.json", openapi, include_in_schema=False, response_model=None)
    app.add_api_route("/docs", docs, include_in_schema=False, response_model=None)
    app.add_api_route("/", root, include_in_schema=False, response_model=None)
    _add_error_handlers(app, service, limits)
    return BodyLimit(app, limits.megabytes)


def _add_error_handlers(app: FastAPI, service: Service, limits: Limits) -> None:
    """Let requests that cannot be read be answered with what was expected."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse(refusal(error.errors(), service.fields, limits.rows), 422)

    async def unreadable(request: Request, error: Exception) -> JSONResponse:
        """Report a body that is not text, or nested too deeply."""
        return JSONResponse({"detail": f"the body could not be read; {SHAPE}"}, 422)

    app.add_exception_handler(RequestValidationError, refused)
    app.add_exception_handler(400, unreadable)
    app.add_middleware(UnexpectedErrors)
