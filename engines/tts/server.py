"""CosyVoice's routes and /health, in front of one backend."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engines.tts import form, speech
from engines.tts.backends import Backend
from engines.tts.job import NotReady, Refused
from engines.tts.readiness import Readiness
from gateway.wire import engine_health

log = logging.getLogger(__name__)

_RETRY_AFTER = {"retry-after": "1"}


class Inference:
    """GET or POST of any of the five routes: form -> job -> speech."""

    def __init__(self, backend: Backend, readiness: Readiness) -> None:
        self._backend, self._readiness = backend, readiness
        self._threads = CapacityLimiter(backend.parallel)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._readiness.require()
        try:
            job = await form.read(Request(scope, receive), self._backend.speakers)
        except ClientDisconnect:
            return
        await speech.answer(self._backend, job, self._threads, receive, send)


def create_app(backend: Backend) -> Starlette:
    readiness = Readiness(backend)
    inference = Inference(backend, readiness)

    async def health(_request: Request) -> Response:
        status, body = engine_health.encode(readiness.report)
        headers = None if status == 200 else {"retry-after": engine_health.RETRY_AFTER}
        return Response(body, status, headers, "application/json")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        readiness.start()
        yield

    return Starlette(
        routes=[
            Route(engine_health.PATH, health),
            *(Route(path, inference, methods=["GET", "POST"]) for path in form.FIELDS),
        ],
        exception_handlers={Refused: _refuse, HTTPException: _no_such_route, Exception: _fail},
        lifespan=lifespan,
    )


def _refuse(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refused)
    headers = _RETRY_AFTER if isinstance(exc, NotReady) else None
    return JSONResponse({"error": str(exc)}, exc.status, headers)


def _no_such_route(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"error": exc.detail}, exc.status_code, exc.headers)


def _fail(_request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": f"synthesis failed: {type(exc).__name__}"}, 500)
