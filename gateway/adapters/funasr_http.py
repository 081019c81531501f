"""Recognition by an engine that serves POST /api/transcribe: the Fun-Audio-Chat stack's, or ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.adapters.http1 import Connection
from gateway.errors import BadRequest, EngineBroke
from gateway.events import Transcript, Word
from gateway.settings import Settings
from gateway.verbs import EngineHealth, Live, Transcribe, Transcriber
from gateway.wire import funasr_http as wire
from gateway.wire import multipart

_ANSWER_BYTES = 16 * 1024 * 1024


class FunAsrHttp:
    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        self.url = url.rstrip("/")
        self._http = http

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        if isinstance(job.audio, Live):
            raise BadRequest("this recognition engine takes whole recordings only", code="live_unsupported")
        fields = {
            wire.LANGUAGE: job.language,
            wire.HOTWORDS: ",".join(job.hotwords),
            wire.ITN: "" if job.itn else "false",
        }
        given = {name: value for name, value in fields.items() if value}
        form = multipart.envelope(given, wire.AUDIO, "audio.wav", "audio/wav")
        headers = b"content-type: %b\r\n" % form.content_type
        async with engine_http.Post(
            self._http, self.url, wire.PATH, headers, [form.before, form.after], job.audio.path
        ) as answer:
            yield _transcript(answer, job)

    async def health(self) -> EngineHealth:
        return await engine_http.health(self._http, self.url)


async def _transcript(answer: Connection, job: Transcribe) -> AsyncIterator[Transcript]:
    try:
        text, language, times = wire.read_result(await answer.body(_ANSWER_BYTES))
    except ValueError as exc:
        raise EngineBroke("the engine's answer is not a transcript") from exc
    if job.translate and text and wire.code_of(language) != "en":
        raise BadRequest("this recognition engine does not translate into English", code="translation_unsupported")
    yield Transcript(text, language, words=tuple(Word(*each) for each in times))


_: type[Transcriber] = FunAsrHttp
