"""CosyVoice's routes, registered speakers and /health, in front of one source of speech."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engines import serving
from engines.tts import form, speech
from engines.tts.job import Refused
from engines.tts.source import Source
from engines.workers.pool import Busy, NotReady
from engines.workers.process import JobFailed
from gateway.wire import cosyvoice as wire
from gateway.wire import engine_health

_SAID = (Refused, JobFailed, Busy, NotReady)
"""What the caller is told as it stands."""

Door = Callable[[Source], AbstractAsyncContextManager[object]]
"""Something else that offers the same speech, for as long as the server lives."""


class Inference:
    """GET or POST of any of the five routes: form -> job -> speech."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        speakers = self._source.speakers
        job = await form.read(Request(scope, receive), speakers)
        await speech.answer(self._source, job, receive, send)


def create_app(source: Source, *doors: Door) -> Starlette:
    async def health(_request: Request) -> Response:
        return serving.health(source.report)

    async def speakers(_request: Request) -> Response:
        body = {"speakers": source.speakers, "registered": await source.registered()}
        return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")

    async def register(request: Request) -> Response:
        assert source.speakers is not None  # raises where it is not ready
        name, job = await form.read_registration(request)
        await source.register(name, job)
        return JSONResponse({wire.REGISTERED: name})

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(source.at_work())
            for door in doors:
                await stack.enter_async_context(door(source))
            yield

    return Starlette(
        routes=[
            Route(engine_health.PATH, health),
            Route(wire.SPEAKERS, speakers),
            Route(wire.REGISTER, register, methods=["POST"]),
            *(Route(path, Inference(source), methods=["GET", "POST"]) for path in form.FIELDS),
        ],
        exception_handlers={
            **dict.fromkeys(_SAID, _refuse),
            ClientDisconnect: _nobody,
            HTTPException: _no_such_route,
            Exception: _fail,
        },
        lifespan=lifespan,
    )


def _refuse(_request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": str(exc)}, serving.status_of(exc), serving.headers_of(exc))


def _nobody(_request: Request, _exc: Exception) -> Response:
    """The caller left before it had asked: whoever serves us drops the answer."""
    return Response(status_code=499)


def _no_such_route(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"error": exc.detail}, exc.status_code, exc.headers)


def _fail(_request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": f"synthesis failed: {type(exc).__name__}"}, 500)
