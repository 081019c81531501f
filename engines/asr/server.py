"""POST /api/transcribe, FunASR's WebSocket, GET /api/info and GET /health, in front of the worker processes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from engines import serving
from engines.asr import upload
from engines.asr.batches import Batches
from engines.asr.live.endpoint import Limits as LiveLimits
from engines.asr.live.endpoint import Live
from engines.asr.live.workers import Workers
from engines.asr.refusals import Refused, TooLong
from engines.preparation import Preparation
from engines.workers.messages import Fields
from engines.workers.pool import Busy, NotReady, Pool
from engines.workers.process import JobFailed, WorkerGone
from gateway.wire import engine_health, funasr_2pass
from gateway.wire import funasr_http as wire
from gateway.wire.engine_health import Report

MOST_HOTWORDS, LONGEST_HOTWORD = 1000, 64
_JSON = "application/json"
_NO_FACTS: Fields = {"languages": (), "timestamps": False}
_SAID = (Refused, JobFailed, Busy, NotReady)
"""What the caller is told as it stands."""


@dataclass(frozen=True, slots=True)
class Limits:
    scratch: Path
    """Where uploads are written."""
    upload: int
    """Bytes of audio in one request."""
    seconds: float
    """From the end of an upload to its answer."""
    live: LiveLimits = field(default_factory=LiveLimits)


class Transcribe:
    """One recognition: seat -> upload -> batch -> worker -> text."""

    def __init__(self, pool: Pool, batches: Batches, limits: Limits) -> None:
        self._pool, self._batches, self._limits = pool, batches, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            with self._pool.seat(), upload.spool(self._limits.scratch) as file:
                form = await upload.read(request, file, self._limits.upload)
                asked = form.fields.get(wire.LANGUAGE, "")
                language = _language(asked, self._pool.facts["languages"])
                fields = {
                    "language": language,
                    "hotwords": _hotwords(form.fields.get(wire.HOTWORDS, "")),
                    "itn": form.fields.get(wire.ITN, "").lower() not in ("false", "0", "no"),
                }
                heard = await serving.unless_gone(receive, self._heard(form.audio, form.size, fields))
        except ClientDisconnect:
            return
        spoken = heard["language"] or language or self._pool.facts["languages"][0]
        named = wire.name_of(spoken) if asked.lower() in wire.UNSPECIFIED else asked
        times = None
        if self._pool.facts["timestamps"]:
            times = [(word["text"], word["start"], word["end"]) for word in heard["words"]]
        await Response(wire.result(heard["text"], named, times), media_type=_JSON)(scope, receive, send)

    # Private

    async def _heard(self, path: str, size: int, fields: Fields) -> Fields:
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._batches.heard(path, size, fields)
        except TimeoutError:
            raise TooLong(f"no text after {self._limits.seconds:g} s") from None
        except WorkerGone as exc:
            raise JobFailed(f"{exc}; try again", 502) from exc


class OnlyLive:
    """What an engine says to recordings that has no model for them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise Refused("this engine recognises live audio only: ASR_MODEL_MODE is realtime")


def create_app(
    pool: Pool | None, limits: Limits, preparation: Preparation | None = None, live: Pool | None = None
) -> Starlette:
    """pool: of engines.asr.worker. live: of engines.asr.live.worker. There is at least one of them."""
    pools = [one for one in (pool, live) if one is not None]
    workers = Workers(live, pool, limits.scratch) if live else None
    batches = Batches(pool) if pool else None

    def report() -> Report:
        return (preparation and preparation.report) or _together([one.report for one in pools])

    async def health(_request: Request) -> Response:
        return serving.health(report())

    async def info(_request: Request) -> Response:
        found, facts = report(), pool.facts if pool else _NO_FACTS
        body = wire.info(found.model, found.device, facts["languages"], facts["timestamps"])
        return Response(body, media_type=_JSON)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in (preparation, *pools, batches, workers):
                if part is not None:
                    await stack.enter_async_context(part.at_work())
            yield

    return Starlette(
        routes=[
            Route(engine_health.PATH, health),
            Route(wire.INFO, info),
            Route(wire.PATH, Transcribe(pool, batches, limits) if pool and batches else OnlyLive(), methods=["POST"]),
            *([WebSocketRoute(funasr_2pass.PATH, Live(workers, limits.live))] if workers else []),
        ],
        exception_handlers={
            **dict.fromkeys(_SAID, _refuse),
            HTTPException: _no_such_route,
            Exception: _fail,
        },
        lifespan=lifespan,
    )


def _together(reports: Sequence[Report]) -> Report:
    """What several kinds of workers are as one engine: ready when all are."""
    for report in reports:
        if report.state != "ready":
            return report
    models = ", ".join(dict.fromkeys(report.model for report in reports))
    return Report("ready", models, reports[0].device)


def _language(asked: str, known: Sequence[str]) -> str:
    """ISO 639 code of what the caller speaks; empty where it does not say. Raises Refused."""
    if asked.lower() in wire.UNSPECIFIED:
        return ""
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
    return Response(wire.error(str(exc)), serving.status_of(exc), serving.headers_of(exc), _JSON)


def _no_such_route(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return Response(wire.error(exc.detail), exc.status_code, exc.headers, _JSON)


def _fail(_request: Request, exc: Exception) -> Response:
    return Response(wire.error(f"recognition failed: {type(exc).__name__}"), 500, media_type=_JSON)
