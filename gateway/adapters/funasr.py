"""Recognition by FunASR: whole recordings over HTTP, live audio over its WebSocket protocol at the same address; or all
of it over the WebSocket protocol, as upstream's own servers have nothing else.

It serves our engine and upstream's servers (gateway/adapters/funasr_stream.py has how they differ).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.adapters.funasr_line import Line
from gateway.errors import BadRequest, GatewayError
from gateway.events import Audio, Transcript
from gateway.settings import Settings
from gateway.tape import played
from gateway.verbs import EngineHealth, Live, State, Transcribe, Transcriber
from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_http import UNSPECIFIED, code_of

_PIECE = 64 * 1024
_TRUSTED_SECONDS = 10.0
"""How long an engine that opened a WebSocket counts as ready: each one that is opened leaves a line in its log."""


class FunAsr:
    def __init__(self, url: str, http: Client, settings: Settings, whole: Transcriber) -> None:
        """whole: the same engine, for whole recordings."""
        self.url = url.rstrip("/")
        self._http, self._whole, self._line = http, whole, Line(self.url, settings)

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        if not isinstance(job.audio, Live):
            async with self._whole.session(job) as events:
                yield events
            return
        async with self._line.stream(_config(job), _live(job.audio.pieces), whole=False) as events:
            yield events

    async def health(self) -> EngineHealth:
        return await engine_http.health(self._http, self.url)


class FunAsrWs:
    """A server that has a WebSocket and nothing else."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url.rstrip("/")
        self._line = Line(self.url, settings)
        self._trusted = float("-inf")
        """Loop time up to which it counts as ready without being asked."""

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        audio = job.audio
        pieces, whole = (_live(audio.pieces), False) if isinstance(audio, Live) else (played(audio, _PIECE), True)
        self._trusted = float("-inf")  # unless this one opens
        async with self._line.stream(_config(job), pieces, whole=whole) as events:
            self._trust()
            yield events

    async def health(self) -> EngineHealth:
        """Upstream's servers listen once their models are loaded: whoever opens a WebSocket is ready."""
        if asyncio.get_running_loop().time() >= self._trusted:
            try:
                socket = await self._line.dial()
            except GatewayError as exc:
                return EngineHealth(State.DOWN, reason=str(exc))
            await socket.close()
            self._trust()
        return EngineHealth(State.READY, "FunASR")

    # Private

    def _trust(self) -> None:
        self._trusted = asyncio.get_running_loop().time() + _TRUSTED_SECONDS


async def _live(pieces: AsyncIterator[Audio]) -> AsyncGenerator[bytes]:
    async for piece in pieces:
        yield piece.pcm


def _config(job: Transcribe) -> wire.Config:
    """Raises BadRequest."""
    language = "" if job.language.strip().lower() in UNSPECIFIED else code_of(job.language)
    if job.translate and language != "en":  # nor would the engine say what it heard
        raise BadRequest("this recognition engine does not translate into English", code="translation_unsupported")
    return wire.Config(
        mode=wire.Mode.TWO_PASS if job.partials and isinstance(job.audio, Live) else wire.Mode.OFFLINE,
        name="live",
        rate=job.audio.sample_rate,
        hotwords=job.hotwords,
        itn=job.itn,
        language=language,
    )


_: type[Transcriber] = FunAsr
__: type[Transcriber] = FunAsrWs
