"""The application: what is built at start and closed at the end, and which endpoint answers which path.

The streaming paths are raw ASGI and found by one dictionary look-up before FastAPI is asked, which serves the JSON
routes and the API document.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from gateway import __version__, adapters, apidoc, cleanup
from gateway.access import Access
from gateway.adapters.http import client
from gateway.admission import Gate
from gateway.animation import Animations
from gateway.caller import Right
from gateway.chats import Chats
from gateway.consents import Consents
from gateway.database import open_database
from gateway.encoding import Encoders
from gateway.errors import BadRequest, GatewayError, MethodNotAllowed, NotFound, TooLarge
from gateway.exchange import JSON, Endpoint, Handler, Receive, Scope, Send, Shape, hints
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
from gateway.rest import ALWAYS, JSON_BYTES, Rest, Rule
from gateway.rooms import Rooms
from gateway.settings import Settings, SettingsError
from gateway.socket import SocketEndpoint
from gateway.state import State
from gateway.surfaces import (
    avatar,
    desktop,
    downloads,
    funasr_2pass,
    funaudio,
    funaudio_chat,
    nls_asr,
    nls_async,
    nls_listening,
    nls_socket,
    nls_synthesis,
    nls_tts,
    openai,
    openai_models,
    openai_realtime,
    openai_realtime_secrets,
    openai_speech,
    openai_transcription,
    openai_voices,
    service,
    voicechat,
    voicechat_chat,
    voicechat_listen,
    voices,
)
from gateway.surfaces import nls as nls_surface
from gateway.tasks import KeyedLocks, SharedWork, forever, task_group
from gateway.voices import Voices
from gateway.webhooks import Webhooks
from gateway.wire import duix, fun_audio_chat, nls
from gateway.wire import funasr_2pass as funasr
from gateway.wire import nls_async as nls_async_wire

log = structlog.get_logger(__name__)
_SWEEP_SECONDS = 600.0
_NLS: dict[str, nls_socket.Begin] = {**nls_listening.TASKS, **nls_synthesis.TASKS}
"""The tasks of NLS sockets, by namespace."""
_ROUTERS = (
    service.router,
    voices.router,
    voicechat.router,
    openai_models.router,
    openai_voices.router,
    nls_asr.router,
    nls_tts.router,
    openai_realtime_secrets.router,
)
_FAMILIES = (voicechat, openai, nls_surface, avatar)
"""Client families that own whole paths, whatever there is below them."""
_EXPOSED = ("retry-after", "www-authenticate", "x-request-id", "openai-processing-ms", "x-voxgate-timestamps")
_RULES = (
    Rule("/health", surface=ALWAYS),
    Rule("/ready", surface="ready"),
    Rule("/metrics", Right.ADMIN, surface="metrics"),
    *(Rule(path, surface="docs") for path in ("/docs", "/redoc", "/openapi.json")),
    *(Rule(path, Right.SPEAK) for path in ("/v1/voices", "/v1/voices/", "/v1/audio/")),
    Rule("/chat/", Right.CONVERSE),
    *(Rule(path, Right.ANIMATE, surface="avatar") for path in ("/easy/", "/upload", "/download")),
    Rule("/"),
)
"""What the paths that are not direct ask for; the last one is every other's."""


class Door:
    """Every request of both public ports enters here."""

    def __init__(self, rest: FastAPI, settings: Settings) -> None:
        self.rest = rest
        public = settings.public_surfaces
        self.direct = {
            ("POST", "/v1/voices/train"): Endpoint(desktop.train, desktop.shape, Right.SPEAK),
            ("POST", "/v1/tts"): Endpoint(desktop.tts, desktop.shape, Right.SPEAK),
            ("POST", "/api/transcribe"): Endpoint(funaudio.transcribe, funaudio.shape, Right.TRANSCRIBE),
            ("POST", "/api/synthesize"): Endpoint(funaudio.synthesize, funaudio.shape, Right.SPEAK),
            ("POST", "/v1/audio/speech"): Endpoint(openai_speech.speech, openai.shape, Right.SPEAK),
            ("POST", "/v1/audio/voices"): Endpoint(openai_voices.create_voice, openai.shape, Right.SPEAK),
            ("POST", "/v1/audio/voice_consents"): Endpoint(openai_voices.create_consent, openai.shape, Right.SPEAK),
            ("POST", "/v1/audio/transcriptions"): Endpoint(
                openai_transcription.transcribe, openai.shape, Right.TRANSCRIBE
            ),
            ("POST", "/v1/audio/translations"): Endpoint(
                openai_transcription.translate, openai.shape, Right.TRANSCRIBE
            ),
            ("POST", nls_asr.PATH): Endpoint(nls_asr.asr, nls_surface.shape, Right.TRANSCRIBE, refused=200),
            ("POST", nls_tts.PATH): Endpoint(nls_tts.tts, nls_surface.shape, Right.SPEAK, refused=200),
            ("POST", nls_async_wire.PATH): Endpoint(nls_async.submit, nls_async.shape, None, public=True),
            ("GET", nls_async_wire.PATH): Endpoint(nls_async.query, nls_async.shape, None, public=True),
        }
        self.patterns = _avatar("avatar" in public)
        self._download = Endpoint(downloads.download, desktop.shape, None, public="files" in public)
        chat = SocketEndpoint(funaudio_chat.chat, Right.CONVERSE, funaudio_chat.farewell)
        nls_tasks = SocketEndpoint(partial(nls_socket.serve, kinds=_NLS), None, nls_socket.farewell)
        self.sockets: dict[str, SocketEndpoint] = {
            "/ws": SocketEndpoint(voicechat_listen.listen, Right.TRANSCRIBE, voicechat_listen.farewell),
            "/chatting": SocketEndpoint(voicechat_chat.chatting, Right.CONVERSE, voicechat_chat.farewell),
            **dict.fromkeys((funasr_2pass.PATH, funasr.PATH), SocketEndpoint(funasr_2pass.listen, Right.TRANSCRIBE)),
            fun_audio_chat.PATH: chat,
            fun_audio_chat.BROWSER_PATH: chat,
            **dict.fromkeys((nls.PATH, nls.ASR_PATH, nls.TTS_PATH), nls_tasks),
            openai_realtime.PATH: SocketEndpoint(openai_realtime.realtime, None, openai_realtime.farewell),
        }
        opened = (*public, ALWAYS)
        self._rest = [Rest(rest, rule, self.shape, rule.surface in opened, self.refused) for rule in _RULES]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whoever comes is asked for a key here, on every path, and where there is none too."""
        if scope["type"] == "lifespan":
            await self.rest(scope, receive, send)  # type: ignore[arg-type]
            return
        if scope["type"] == "http" and openai.owns(scope["path"]):
            send = openai.stamped(send)
        found = self._found(scope)
        access: Access = scope["state"]["access"]
        try:
            visitor = access.let_in(scope, found.right, public=found.public)
        except GatewayError as exc:
            await found.refuse(scope, receive, send, exc)
            return
        with access.inside(visitor, lasts=found.lasts):
            await found(scope, receive, send)

    def _found(self, scope: Scope) -> "Endpoint | SocketEndpoint | Rest":
        path: str = scope["path"]
        direct: Endpoint | SocketEndpoint | None
        if scope["type"] == "websocket":
            direct = self.sockets.get(path)
        elif path.startswith(downloads.PREFIX) and scope["method"] in ("GET", "HEAD"):
            direct = self._download
        else:
            direct = self.direct.get((scope["method"], path))
            direct = direct or next(
                (at for method, known, at in self.patterns if method == scope["method"] and known(path)), None
            )
        return direct or next(rest for rest in self._rest if rest.of(path))

    def shape(self, path: str) -> Shape:
        """The errors of a path's client family."""
        for family in _FAMILIES:
            if family.owns(path):
                shape: Shape = family.shape
                return shape
        return next((direct.shape for (_, known), direct in self.direct.items() if known == path), desktop.shape)

    def refused(self, path: str) -> int | None:
        """The status for whom the door does not let in to a JSON route, where its family has one of its own."""
        return nls_surface.REFUSED if nls_surface.owns(path) else None

    def allowed(self, path: str) -> str:
        """Every method of a path, for 405; empty where the path is none."""
        found = {method for method, direct in self.direct if direct == path}
        if path.startswith(downloads.PREFIX):
            found |= {"GET", "HEAD"}
        for router in (self.rest, *_ROUTERS):
            for route in router.routes:
                if isinstance(route, Route) and route.path_regex.match(path):
                    found |= route.methods or set()
        return ", ".join(sorted(found))


def _avatar(public: bool) -> list[tuple[str, Callable[[str], bool], Endpoint]]:
    """Method, paths and endpoint of each thing that clients of the digital human may do."""

    def at(handler: Handler) -> Endpoint:
        return Endpoint(handler, avatar.shape, Right.ANIMATE, public=public)

    fetch = at(avatar.download)
    return [
        ("POST", avatar.UPLOAD.__eq__, at(avatar.receive)),
        ("POST", duix.SUBMIT.__eq__, at(avatar.submit)),
        ("GET", duix.QUERY.__eq__, at(avatar.query)),
        ("GET", avatar.JOBS.__eq__, Endpoint(avatar.listed, avatar.shape, Right.ANIMATE)),
        ("DELETE", avatar.cancels, at(avatar.cancel)),
        ("GET", avatar.fetches, fetch),
        ("HEAD", avatar.fetches, fetch),
    ]


def build(settings: Settings) -> "Cors":
    """The ASGI application. Raises SettingsError where a setting names what does not exist."""
    adapters.check(settings)
    rest = FastAPI(
        title="Voxgate",
        version=__version__,
        summary="One small gateway in front of swappable speech engines.",
        lifespan=partial(lifespan, settings=settings),
        redirect_slashes=False,
    )
    for router in _ROUTERS:
        rest.include_router(router)
    door = Door(rest, settings)
    for kind in (GatewayError, RequestValidationError, HTTPException, Exception):
        rest.add_exception_handler(kind, partial(_refuse, door))
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


async def _refuse(door: Door, request: Request, exc: Exception) -> Response:
    """Failures of the JSON routes, and of a direct path asked with another method, in the shape of the family that has
    the path; of paths that nobody serves, in the desktop client's."""
    headers: dict[str, str] = {}
    if isinstance(exc, RequestValidationError):
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        exc = BadRequest(f"{where}: {first['msg']}", param=where or None)
    elif isinstance(exc, HTTPException):
        allow = door.allowed(request.url.path) if exc.status_code in (404, 405) else ""
        headers = {"allow": allow} if allow else {}
        exc = _meant(exc.status_code, request.url.path, allow)
    elif not isinstance(exc, GatewayError):  # a bug; the server logs it
        exc = GatewayError()
    return Response(door.shape(request.url.path)(exc), exc.status, headers | hints(exc), JSON.decode())


def _meant(status: int, path: str, allow: str) -> GatewayError:
    if allow:
        return MethodNotAllowed(f"use {allow}")
    if status == 404:
        return NotFound(f"there is no {path[:200]}")
    if status == 413:
        return TooLarge(f"more than {JSON_BYTES} bytes")
    return BadRequest("the body cannot be read")


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
