"""Synthesis by an engine that speaks CosyVoice's HTTP protocol: upstream's FastAPI server, or ours.

A preset goes to /inference_sft, a reference to /inference_zero_shot where its words are known and to
/inference_cross_lingual where they are not; an instruction to /inference_instruct2 or, with a preset, to
/inference_instruct.
"""

from types import TracebackType

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.adapters.http1 import Connection
from gateway.errors import EngineBroke
from gateway.events import Audio
from gateway.settings import Settings
from gateway.verbs import EngineHealth, Preset, Reference, Speak, Speaker
from gateway.wire import cosyvoice as wire
from gateway.wire import multipart, wav

_RATE = wire.SAMPLE_RATE_HEADER.encode()
_FORM = b"content-type: application/x-www-form-urlencoded\r\n"


class CosyVoice:
    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        self.url = url.rstrip("/")
        self._http = http
        self._silent_rate = settings.speak_sample_rate

    def session(self, job: Speak) -> "_Session":
        path, fields = _fields(job)
        if isinstance(job.voice, Reference):
            headers, body = _multipart(fields, job.voice)
        else:  # the lighter form, which upstream's server reads as well
            headers, body = _FORM, [wire.form(fields)]
        return _Session(engine_http.Post(self._http, self.url, path, headers, body), self._silent_rate)

    async def health(self) -> EngineHealth:
        return await engine_http.health(self._http, self.url)


def _fields(job: Speak) -> tuple[str, dict[str, str]]:
    text = wire.without_control(job.text)
    fields = {} if job.speed == 1.0 else {wire.SPEED: f"{job.speed:g}"}
    match job.voice:
        case Preset(name) if job.instruction:
            path, more = wire.INSTRUCT, {wire.SPEAKER: name, wire.INSTRUCTION: wire.without_control(job.instruction)}
        case Preset(name):
            path, more = wire.SFT, {wire.SPEAKER: name}
            text = wire.tagged(text, job.language)
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


class _Session:
    """The scope of one synthesis."""

    def __init__(self, post: engine_http.Post, silent_rate: int | None) -> None:
        self._post, self._silent_rate = post, silent_rate

    async def __aenter__(self) -> "_Pieces":
        answer = await self._post.__aenter__()
        try:
            return _Pieces(answer, _rate(answer, self._silent_rate))
        except EngineBroke as exc:
            await self._post.__aexit__(EngineBroke, exc, exc.__traceback__)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._post.__aexit__(kind, exc, trace)


class _Pieces:
    """Whole samples as they arrive; the network may cut between the two bytes of one."""

    def __init__(self, answer: Connection, rate: int) -> None:
        self._answer, self._rate = answer, rate
        self._half = b""
        self._silent = True

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> Audio:
        while piece := await self._answer.read():
            if self._half or len(piece) % 2:
                piece = self._half + piece
                self._half = piece[-1:] if len(piece) % 2 else b""
                piece = piece[:-1] if self._half else piece
            if piece:
                self._silent = False
                return Audio(piece, self._rate)
        if self._half:
            raise EngineBroke("the engine ended in the middle of a sample")
        if self._silent:
            raise EngineBroke("the engine gave no audio for this text")
        raise StopAsyncIteration


def _rate(answer: Connection, silent_rate: int | None) -> int:
    """The rate that the answer states; `silent_rate` for an engine that states none."""
    stated = answer.headers.get(_RATE)
    if stated is None:
        if silent_rate is None:
            raise EngineBroke("the engine does not state its sample rate; set VOXGATE_SPEAK_SAMPLE_RATE")
        return silent_rate
    try:
        return wire.read_rate(stated)
    except ValueError as exc:
        raise EngineBroke(str(exc)) from None


_: type[Speaker] = CosyVoice
