"""Synthesis by an engine that speaks CosyVoice's HTTP protocol: upstream's FastAPI server, or ours.

A preset goes to /inference_sft, a reference to /inference_zero_shot where its words are known and to
/inference_cross_lingual where they are not; an instruction to /inference_instruct2 or, with a preset, to
/inference_instruct.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from gateway.adapters import http as engine_http
from gateway.adapters.http1 import Client, Connection
from gateway.errors import EngineBroke
from gateway.events import Audio
from gateway.settings import Settings
from gateway.verbs import EngineHealth, Preset, Reference, Speak, Speaker
from gateway.wire import cosyvoice as wire
from gateway.wire import multipart, wav

_FORM = b"content-type: application/x-www-form-urlencoded\r\n"


class CosyVoice:
    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        self.url = url.rstrip("/")
        self._http = http
        self._silent_rate = settings.speak_sample_rate

    @asynccontextmanager
    async def session(self, job: Speak) -> AsyncIterator[AsyncIterator[Audio]]:
        path, fields = _fields(job)
        if isinstance(job.voice, Reference):
            headers, body = _multipart(fields, job.voice)
        else:  # the lighter form, which upstream's server reads as well
            headers, body = _FORM, [urlencode(fields).encode()]
        async with engine_http.post(self._http, self.url, path, headers, body) as answer:
            yield _pieces(answer, self._rate(answer))

    async def health(self) -> EngineHealth:
        return await engine_http.health(self._http, self.url)

    def _rate(self, answer: Connection) -> int:
        stated = answer.headers.get(wire.SAMPLE_RATE_HEADER.encode())
        if stated is None:
            if self._silent_rate is None:
                raise EngineBroke("the engine does not state its sample rate; set VOXGATE_SPEAK_SAMPLE_RATE")
            return self._silent_rate
        if not stated.isdigit() or not 8000 <= int(stated) <= 192_000:
            raise EngineBroke(f"the engine states an impossible sample rate: {stated[:20]!r}")
        return int(stated)


def _fields(job: Speak) -> tuple[str, dict[str, str]]:
    text = wire.without_control(job.text)
    fields = {} if job.speed == 1.0 else {wire.SPEED: f"{job.speed:g}"}
    match job.voice:
        case Preset(name) if job.instruction:
            path, more = wire.INSTRUCT, {wire.SPEAKER: name, wire.INSTRUCTION: wire.without_control(job.instruction)}
        case Preset(name):
            path, more = wire.SFT, {wire.SPEAKER: name}
        case Reference() if job.instruction:
            path, more = wire.INSTRUCT2, {wire.INSTRUCTION: wire.without_control(job.instruction)}
        case Reference(text=words) if words:
            path, more = wire.ZERO_SHOT, {wire.PROMPT_TEXT: wire.without_control(words)}
        case _:
            path, more = wire.CROSS_LINGUAL, {}
            text = wire.tagged(text, job.language)
    return path, {wire.TEXT: text, **more, **fields}


def _multipart(fields: dict[str, str], voice: Reference) -> tuple[bytes, list[bytes]]:
    form = multipart.envelope(fields, wire.PROMPT_WAV, "prompt.wav", "audio/wav")
    recording = wav.header(voice.sample_rate, len(voice.pcm) // 2)
    return b"content-type: %b\r\n" % form.content_type, [form.before, recording, voice.pcm, form.after]


async def _pieces(answer: Connection, rate: int) -> AsyncIterator[Audio]:
    """Whole samples as they arrive; the network may cut between the two bytes of one."""
    half, silent = b"", True
    while piece := await answer.read():
        piece = half + piece if half else piece
        half = piece[-1:] if len(piece) % 2 else b""
        piece = piece[:-1] if half else piece
        if piece:
            silent = False
            yield Audio(piece, rate)
    if half:
        raise EngineBroke("the engine ended in the middle of a sample")
    if silent:
        raise EngineBroke("the engine gave no audio for this text")


_: type[Speaker] = CosyVoice
