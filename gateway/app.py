"""The application: what is built at start and closed at the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from gateway import __version__, adapters, apidoc, cleanup
from gateway.access import Access
from gateway.adapters.connections import Client
from gateway.adapters.http import client
from gateway.admission import Gate
from gateway.animation import Animations
from gateway.chats import Chats
from gateway.consents import Consents
from gateway.database import open_database
from gateway.door import ROUTERS, Door, refuse
from gateway.encoding import Encoders
from gateway.errors import GatewayError
from gateway.events import Audio, Conversed, Transcript
from gateway.exchange import Receive, Scope, Send
from gateway.fetch import Fetcher
from gateway.files import Downloads, Files
from gateway.gpu_group import GpuGroup
from gateway.health import Verbs
from gateway.jobs import Jobs, owner_of
from gateway.keys import Keys, pepper
from gateway.metering import ConverseMeter, SpeakMeter, TranscribeMeter
from gateway.metrics import Metrics
from gateway.normalise import Decoder
from gateway.repeats import Repeats
from gateway.replicas import Replicas
from gateway.rooms import Rooms
from gateway.settings import Settings, SettingsError
from gateway.state import State
from gateway.surfaces import (
    nls_async,
)
from gateway.tasks import KeyedLocks, SharedWork, forever, task_group
from gateway.verbs import Converse, Speak, Transcribe
from gateway.voices import Voices
from gateway.webhooks import Webhooks

log = structlog.get_logger(__name__)
_SWEEP_SECONDS = 600.0
_EXPOSED = ("retry-after", "www-authenticate", "x-request-id", "openai-processing-ms", "x-voxgate-timestamps")


def build(settings: Settings) -> "Cors":
    """The ASGI application. Raises SettingsError where a setting names what does not exist."""
    adapters.check(settings)
    rest = FastAPI(
        title="Voxgate",
        version=__version__,
        summary="One small gateway in front of swappable speech engines.",
        lifespan=partial(lifespan, settings=settings),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    for router in ROUTERS:
        rest.include_router(router)
    door = Door(rest, settings)
    for kind in (GatewayError, RequestValidationError, HTTPException, Exception):
        rest.add_exception_handler(kind, partial(refuse, door))
    rest.openapi = apidoc.with_direct_paths(rest.openapi)  # type: ignore[method-assign]
    return Cors(
        door,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "HEAD", "POST", "PATCH", "DELETE"),
        allow_headers=("*",),
        expose_headers=("content-range", "x-sample-rate", *_EXPOSED),
    )


class Cors(CORSMiddleware):
    """For requests of web pages, which name their origin; all others go straight in."""

    def __init__(self, door: Door, **rules: Any) -> None:
        super().__init__(door, **rules)  # type: ignore[arg-type]
        self.rest = door.rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            await super().__call__(scope, receive, send)  # type: ignore[arg-type]
        else:
            await self.app(scope, receive, send)  # type: ignore[arg-type]


@asynccontextmanager
async def lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[State]:
    async with AsyncExitStack() as stack:
        try:
            state = await _state(settings, stack)
        except SettingsError as exc:
            app.state.refused = exc  # serve.py says it in one line
            raise
        state["access"].announce()
        if state["animations"] is not None:
            state["jobs"].register(state["animations"].kind())
        for kind in (nls_async.kind(state), Webhooks(state["fetcher"], settings).kind()):
            state["jobs"].register(kind)
        await stack.enter_async_context(state["jobs"].at_work())
        tasks = await stack.enter_async_context(task_group())
        watch = [
            *(
                tasks.create_task(forever(replicas.refresh, settings.health_interval, _failed("health")))
                for replicas in state["verbs"].values()
            ),
            *([tasks.create_task(state["gpu"].keep())] if state["gpu"] is not None else []),
            tasks.create_task(forever(state["access"].tend, settings.keys_refresh, _failed("keys"))),
            *(tasks.create_task(forever(sweep, _SWEEP_SECONDS, _failed("sweep"))) for sweep in _sweeps(state)),
        ]
        try:
            yield state
        finally:
            for task in watch:
                task.cancel()


async def _state(settings: Settings, stack: AsyncExitStack) -> State:
    scratch = _scratch(settings, stack)
    database = await stack.enter_async_context(open_database(settings))
    keys = Keys(database, await asyncio.to_thread(pepper, settings.data_dir))
    access = Access(keys, settings)
    await access.refresh()
    stack.push_async_callback(access.flush)  # behind the last that uses anything
    files = Files(settings)
    chats = Chats(database)
    await chats.count()
    http = await stack.enter_async_context(client(settings))
    speak, transcribe, converse = _engines(settings, http, keys, scratch)
    jobs = Jobs(database, stack.enter_context(owner_of(settings.data_dir)), keep=settings.jobs_keep)
    decoder = Decoder(settings)
    decoding = Gate("decode", settings.decode_slots, settings.decode_queue, patience=settings.queue_timeout)
    verbs: Verbs = {"tts": speak, "asr": transcribe, "s2s": converse}
    animations = None
    if settings.animate_urls:
        animate = verbs["avatar"] = Replicas(
            "avatar", settings.animate_engine, adapters.animators(settings, http), slots=1, queue=settings.decode_queue
        )
        incoming = stack.enter_context(cleanup.scratch_root(settings.animation / "incoming"))
        animations = Animations(settings, jobs, access, animate, decoder, decoding, scratch, incoming)
    return State(
        settings=settings,
        access=access,
        scratch=scratch,
        speak=speak,
        transcribe=transcribe,
        converse=converse,
        verbs=verbs,
        metrics=Metrics(),
        decoder=decoder,
        decoding=decoding,
        encoders=stack.enter_context(closing(Encoders(settings.encode_threads))),
        voices=Voices(database, files),
        consents=Consents(database, files),
        downloads=Downloads(files, settings),
        repeats=Repeats(database),
        nls_streams=Gate("nls", settings.nls_streams, 0),
        jobs=jobs,
        fetcher=await stack.enter_async_context(Fetcher(settings)),
        syntheses=SharedWork(),
        references=KeyedLocks(),
        chats=chats,
        rooms=Rooms(settings.converse_keep),
        animations=animations,
        gpu=_gpu_group(settings, verbs),
    )


def _engines(
    settings: Settings, http: Client, keys: Keys, scratch: Path
) -> tuple[Replicas[Speak, Audio], Replicas[Transcribe, Transcript], Replicas[Converse, Conversed]]:
    """Of the verbs that there always are."""
    speak = Replicas(
        "tts",
        settings.speak_engine,
        adapters.speakers(settings, http),
        slots=settings.speak_slots,
        queue=settings.speak_queue,
        patience=settings.queue_timeout,
        meter=SpeakMeter(),
    )
    transcribe = Replicas(
        "asr",
        settings.transcribe_engine,
        adapters.transcribers(settings, http),
        slots=settings.transcribe_slots,
        queue=settings.transcribe_queue,
        patience=settings.queue_timeout,
        meter=TranscribeMeter(),
    )
    converse = Replicas(
        "s2s",
        settings.converse_engine,
        adapters.conversers(settings, http, transcribe.unmetered, speak.unmetered, scratch),
        slots=settings.converse_sessions,
        queue=0,
        meter=ConverseMeter(keys.seal),
    )
    return speak, transcribe, converse


def _scratch(settings: Settings, stack: AsyncExitStack) -> Path:
    try:
        return stack.enter_context(cleanup.scratch_root(settings.scratch))
    except OSError as exc:
        name = "scratch_dir" if settings.scratch_dir else "data_dir"
        raise SettingsError(f"{name}: {settings.scratch} cannot be used: {exc.strerror}") from None


def _gpu_group(settings: Settings, verbs: Verbs) -> GpuGroup | None:
    if not settings.gpu_group:
        return None
    names = {"speak": "tts", "transcribe": "asr", "converse": "s2s", "animate": "avatar"}
    return GpuGroup(settings, {verb: verbs[name] for verb, name in names.items() if name in verbs})


def _sweeps(state: State) -> list[Callable[[], Awaitable[object]]]:
    """Each on its own: one that fails does not keep the others from their work."""
    return [
        state["downloads"].sweep,
        state["voices"].sweep,
        state["consents"].sweep,
        state["jobs"].sweep,
        *([state["animations"].sweep] if state["animations"] is not None else []),
        partial(state["repeats"].sweep, state["settings"].repeat_window),
    ]


def _failed(work: str) -> Any:
    return lambda exc: log.error("background work failed", work=work, error=f"{type(exc).__name__}: {exc}")
