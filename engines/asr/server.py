"""POST /api/transcribe and GET /health, in front of the worker processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engines.asr import upload
from engines.asr.pool import Job, Pool
from engines.asr.refusals import Refused, WorkerFailed
from gateway.wire import engine_health
from gateway.wire import funasr_http as wire

MOST_HOTWORDS, LONGEST_HOTWORD = 1000, 64
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Limits:
    scratch: Path
    """Where uploads are written."""
    upload: int
    """Bytes of audio in one request."""
    seconds: float
    """From the end of an upload to its answer."""


class Transcribe:
    """One recognition: seat -> upload -> job -> worker -> text."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self._pool, self._limits = pool, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            with self._pool.seat(), upload.spool(self._limits.scratch) as file:
                form = await upload.read(request, file, self._limits.upload)
                asked = form.fields.get(wire.LANGUAGE, "")
                language = _language(asked, self._pool.languages)
                with self._pool.job(form.audio, language, _hotwords(form.fields.get(wire.HOTWORDS, ""))) as job:
                    text = await self._text(job, request)
        except ClientDisconnect:
            return
        named = wire.name_of(language) if asked.lower() in wire.UNSPECIFIED else asked
        await Response(wire.result(text, named), media_type=_JSON)(scope, receive, send)

    # Private

    async def _text(self, job: Job, request: Request) -> str:
        """Raises Refused, ClientDisconnect."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_hang_up(request, job))
            timer = asyncio.get_running_loop().call_later(self._limits.seconds, job.abandon)
            try:
                answer = await job.answer
            finally:
                timer.cancel()
                watch.cancel()
        if answer.status == 499:
            if watch.done() and not watch.cancelled():
                raise ClientDisconnect
            raise WorkerFailed(f"no text after {self._limits.seconds:g} s", 504)
        if answer.status != 200:
            raise WorkerFailed(answer.text, answer.status)
        return answer.text


def create_app(pool: Pool, limits: Limits) -> Starlette:
    async def health(_request: Request) -> Response:
        status, body = engine_health.encode(pool.report)
        headers = None if status == 200 else {"retry-after": engine_health.RETRY_AFTER}
        return Response(body, status, headers, _JSON)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with pool.running():
            yield

    return Starlette(
        routes=[
            Route(engine_health.PATH, health),
            Route(wire.PATH, Transcribe(pool, limits), methods=["POST"]),
        ],
        exception_handlers={Refused: _refuse, HTTPException: _no_such_route, Exception: _fail},
        lifespan=lifespan,
    )


async def _hang_up(request: Request, job: Job) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.abandon()


def _language(asked: str, known: tuple[str, ...]) -> str:
    """ISO 639 code of what the caller speaks. Raises Refused."""
    if asked.lower() in wire.UNSPECIFIED:
        return known[0]
    code = wire.code_of(asked)
    if code not in known:
        raise Refused(
            f"this engine cannot recognise {_named(code[:32])}; it recognises: {', '.join(map(_named, known))}. "
            "Send one of these as language, or use an engine that knows the other one"
        )
    return code


def _named(code: str) -> str:
    name = wire.name_of(code)
    return name if name == code else f"{name} ({code})"


def _hotwords(text: str) -> tuple[str, ...]:
    """Each of them once. Raises Refused."""
    found = tuple(dict.fromkeys(wire.hotwords_of(text)))
    if len(found) > MOST_HOTWORDS or any(len(word) > LONGEST_HOTWORD for word in found):
        raise Refused(f"at most {MOST_HOTWORDS} hotwords of at most {LONGEST_HOTWORD} characters")
    return found


def _refuse(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refused)
    headers = {"retry-after": "1"} if exc.status == 503 else None
    return Response(wire.error(str(exc)), exc.status, headers, _JSON)


def _no_such_route(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return Response(wire.error(exc.detail), exc.status_code, exc.headers, _JSON)


def _fail(_request: Request, exc: Exception) -> Response:
    return Response(wire.error(f"recognition failed: {type(exc).__name__}"), 500, media_type=_JSON)
