"""The door: which endpoint answers which path, and who is let in.

The streaming paths are raw ASGI and found by one dictionary look-up before FastAPI is asked, which serves the JSON
routes and the API document.
"""

from collections.abc import Callable
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.access import Access
from gateway.caller import Right
from gateway.errors import BadRequest, GatewayError, MethodNotAllowed, NotFound, TooLarge
from gateway.exchange import JSON, Endpoint, Handler, Receive, Scope, Send, Shape, hints
from gateway.rest import ALWAYS, JSON_BYTES, Rest, Rule
from gateway.settings import Settings
from gateway.socket import SocketEndpoint
from gateway.surfaces import (
    avatar,
    desktop,
    docs,
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
from gateway.wire import duix, fun_audio_chat, nls
from gateway.wire import funasr_2pass as funasr
from gateway.wire import nls_async as nls_async_wire

_NLS: dict[str, nls_socket.Begin] = {**nls_listening.TASKS, **nls_synthesis.TASKS}
"""The tasks of NLS sockets, by namespace."""
ROUTERS = (
    service.router,
    docs.router,
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
RULES = (
    Rule("/health", surface=ALWAYS),
    Rule("/ready", surface="ready"),
    Rule("/metrics", Right.ADMIN, surface="metrics"),
    *(Rule(path, surface="docs") for path in ("/docs", "/openapi.json")),
    *(Rule(path, Right.SPEAK) for path in ("/v1/voices", "/v1/voices/", "/v1/audio/")),
    Rule("/chat/", Right.CONVERSE),
    *(Rule(path, Right.ANIMATE, surface="avatar") for path in ("/easy/", "/upload", "/download")),
    Rule("/"),
)
"""What the paths that are not direct ask for; the last one is every other's."""


Pattern = tuple[str, Callable[[str], bool], Endpoint]
"""A method, which paths it is for, and what answers them."""


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
        self._patterns = [*_files("files" in public), *_avatar("avatar" in public)]
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
        self._rest = [Rest(rest, rule, self.shape, rule.surface in opened, self.refused) for rule in RULES]

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
        else:
            asked = scope["method"]
            direct = self.direct.get((asked, path))
            direct = direct or next((at for method, has, at in self._patterns if method == asked and has(path)), None)
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
        found |= {method for method, has, _ in self._patterns if has(path)}
        for router in (self.rest, *ROUTERS):
            for route in router.routes:
                if isinstance(route, Route) and route.path_regex.match(path):
                    found |= route.methods or set()
        return ", ".join(sorted(found))


def _files(public: bool) -> list[Pattern]:
    download = Endpoint(downloads.download, desktop.shape, None, public=public)
    return [(method, lambda path: path.startswith(downloads.PREFIX), download) for method in ("GET", "HEAD")]


def _avatar(public: bool) -> list[Pattern]:

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


async def refuse(door: Door, request: Request, exc: Exception) -> Response:
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
