"""OpenAI's `POST /v1/audio/speech`: text → speech in six formats, as audio or as events, streamed as it is made."""

from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from gateway import stream
from gateway.errors import BadRequest, ClientGone, GatewayError, TooLarge
from gateway.exchange import Exchange
from gateway.settings import Settings
from gateway.state import State
from gateway.surfaces import openai
from gateway.text import speakable
from gateway.verbs import Speak
from gateway.wire import funasr_http, openai_errors
from gateway.wire import openai_audio as wire

_SLOWEST, _FASTEST = 0.5, 2.0
"""What engines take; the gateway does the rest."""
_VOICE = {"type": "string", "minLength": 1, "maxLength": 200}


def _id_of(voice: object) -> object:
    return voice.get("id", voice) if isinstance(voice, dict) else voice


class SpeechBody(BaseModel):
    """Other fields are ignored; null is as if it was left out."""

    input: Annotated[str, Field(description="At least one letter or digit.")]
    model: Annotated[str, Field(max_length=200)] = ""
    """Any: the engine behind the gateway speaks."""
    voice: Annotated[
        str,
        BeforeValidator(_id_of),
        Field(min_length=1, max_length=200),
        WithJsonSchema({"anyOf": [_VOICE, {"type": "object", "required": ["id"], "properties": {"id": _VOICE}}]}),
    ] = "default"
    """`default`, a preset, one of OpenAI's names, or the id or name of a registered voice; or {"id"}."""
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    """mp3 unless named. pcm: mono s16le at 24 kHz."""
    speed: Annotated[float, Field(ge=0.25, le=4.0)] | None = None
    instructions: Annotated[str, Field(max_length=4096)] | None = None
    """How to say it, for engines that take such."""
    stream_format: Literal["audio", "sse"] | None = None
    sample_rate: Annotated[int, Field(ge=8000, le=48000)] | None = None
    """Hz. A format that cannot carry it gets the next one that it can; X-Sample-Rate says which."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z-]{0,20}$")] | None = None
    """ISO 639 code or English name; empty lets the engine tell from the text."""
    device_id: Annotated[str, Field(max_length=200)] | None = None
    """Whose registered voices are meant, where they belong to a device."""


async def speech(http: Exchange) -> None:
    """POST /v1/audio/speech: admit → engine → pack → stream."""
    state: State = http.state
    settings = state["settings"]
    ask = await http.json(SpeechBody, limit=settings.text_max_chars * 4 + 65536)
    async with http.until_gone():
        speed = ask.speed or 1.0
        at_engine = min(max(speed, _SLOWEST), _FASTEST)
        job = Speak(
            _text(ask, settings),
            await openai.voice_named(state, ask.voice, ask.device_id),
            _language(ask),
            at_engine,
            (ask.instructions or "").strip(),
        )
        form = ask.response_format or "mp3"
        rate = ask.sample_rate or (wire.PCM_RATE if form == "pcm" else None)
        begin = partial(state["encoders"].open, form, target_rate=rate, speed=speed / at_engine)
        usual = state["encoders"].usual_rate
        async with state["speak"].session(job) as events, stream.Encoded(events, begin, usual) as pieces:
            if ask.stream_format == "sse":
                await _events(http, pieces, job, idle=settings.client_idle_timeout)
            else:
                await stream.answer(http, pieces, idle=settings.client_idle_timeout)


async def _events(http: Exchange, pieces: stream.Encoded, job: Speak, *, idle: float) -> None:
    """The same as events. What fails after the first one is an event too, and then the transfer is broken off."""
    async with stream.Reader(http, idle) as reader:
        try:
            async for data in pieces:
                if not http.started:
                    rate = b"%d" % pieces.encoder.sample_rate
                    headers = [(b"x-sample-rate", rate), (b"cache-control", b"no-cache")]
                    await reader.start(200, wire.EVENT_STREAM, headers)
                if data:
                    await reader.write(wire.delta(data))
        except ClientGone:
            raise
        except GatewayError as exc:
            if http.started:
                await reader.write(openai_errors.event(exc.status, exc.code, str(exc)))
            raise
        await reader.write(wire.done(len(job.text) + len(job.instruction), pieces.encoder.seconds))
        await reader.end()


def _text(ask: SpeechBody, settings: Settings) -> str:
    try:
        return speakable(ask.input, settings.text_max_chars)
    except TooLarge as exc:
        raise BadRequest(str(exc), code="string_above_max_length", param="input") from None
    except BadRequest as exc:
        raise BadRequest(str(exc), code=exc.code, param="input") from None


def _language(ask: SpeechBody) -> str:
    asked = (ask.language or "").strip()
    return "" if asked.lower() in funasr_http.UNSPECIFIED else funasr_http.code_of(asked)
