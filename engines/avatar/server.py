"""POST /easy/submit, GET and DELETE /easy/query, GET /health: Duix-Avatar's wire, without what upstream's is known for.

An outcome can be read any number of times, a code submitted twice is one job, and one that runs can be ended.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engines import serving
from engines.avatar.jobs import Busy, Jobs, Refused
from gateway.wire import duix, engine_health
from gateway.wire.engine_health import Report

MODEL = "template loop (no lip sync)"
_LONGEST_BODY = 64 * 1024


def create_app(jobs: Jobs) -> Starlette:
    async def submit(request: Request) -> Response:
        try:
            jobs.submit(duix.read_submission(await _body(request)))
        except (Busy, ValueError, Refused) as exc:
            if jobs.busy:  # upstream's says so before it looks at anything
                return _answer(duix.Code.BUSY, "busy: one job at a time", success=True)
            return _answer(duix.Code.PARAMETER, str(exc), success=False)
        return _json(duix.accepted())

    async def query(request: Request) -> Response:
        job = jobs.find(request.query_params.get("code", ""))
        if job is None:
            return _answer(duix.Code.UNKNOWN, "no such job", success=True)
        return _json(duix.told(job))

    async def cancel(request: Request) -> Response:
        if not await jobs.cancel(request.query_params.get("code", "")):
            return _answer(duix.Code.UNKNOWN, "no such job runs", success=True)
        return _json(duix.accepted())

    async def health(_request: Request) -> Response:
        return serving.health(Report("ready", MODEL, "cpu"))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with jobs.at_work():
            yield

    return Starlette(
        routes=[
            Route(engine_health.PATH, health),
            Route(duix.SUBMIT, submit, methods=["POST"]),
            Route(duix.QUERY, query),
            Route(duix.QUERY, cancel, methods=["DELETE"]),
        ],
        lifespan=lifespan,
    )


# Private


async def _body(request: Request) -> bytes:
    """Raises ValueError where it is too large."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_BODY:
            raise ValueError(f"more than {_LONGEST_BODY} bytes")
    return body


def _answer(code: duix.Code, text: str, *, success: bool) -> Response:
    return _json(duix.answer(code, text, success=success))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
