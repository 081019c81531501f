"""NLS synthesis over HTTP: POST /stream/v1/tts, and the voices and the health behind it.

A body that is no wish at all is HTTP 400; failures behind that are as gateway/surfaces/nls.py has them. The audio is
streamed as it is made. Its Content-Type is audio/mpeg whatever its format is, because that is how Alibaba's clients
tell audio from a failure; the setting nls_honest_types has it say what it is.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field

from gateway import __version__, caller
from gateway.delivery import Packed, Wanted, deliver
from gateway.encoding import FORMATS
from gateway.errors import BadRequest
from gateway.exchange import Exchange
from gateway.state import State as Bag
from gateway.stream import Reader
from gateway.surfaces.nls import TASK_HEADER, http_task
from gateway.surfaces.nls_voices import Card, cards, cast
from gateway.text import speakable, untagged
from gateway.verbs import Reference, Speak, State
from gateway.wire import nls
from gateway.wire import nls_tts as wire

PATH = "/stream/v1/tts"
LONGEST_TEXT = 1000
"""Characters."""
COMPATIBLE = b"audio/mpeg"
router = APIRouter(tags=["NLS"], prefix=PATH)


def _known_rate(rate: int | None) -> int | None:
    if rate is not None and rate not in wire.RATES:
        raise ValueError(f"none of {', '.join(map(str, wire.RATES))}")
    return rate


class TtsBody(BaseModel):
    """Other fields are passed over; null is as if it was left out."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT, description="At least one letter or digit.")]
    appkey: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    voice: Annotated[str, Field(max_length=wire.LONGEST_VOICE)] | None = None
    """A preset, one of Alibaba's names, or the name or id of a registered voice; empty is the default voice."""
    device_id: Annotated[str, Field(max_length=200)] | None = None
    """Whose registered voices are meant; without it, those that are registered for all NLS clients."""
    format: Literal["pcm", "wav", "opus", "speex", "amr", "mp3", "aac", "m4a", "flac", "ogg"] | None = None
    """wav unless named. speex and amr are known, but cannot be written."""
    sample_rate: Annotated[
        int | None, AfterValidator(_known_rate), Field(json_schema_extra={"enum": [*wire.RATES, None]})
    ] = None
    """Hz; 22050 unless named."""
    volume: Annotated[float, Field(ge=0, le=100)] | None = None
    """50 leaves it as loud as the voice is, 100 is twice as loud."""
    speech_rate: Annotated[float, Field(ge=-500, le=500)] | None = None
    pitch_rate: Annotated[float, Field(ge=-500, le=500)] | None = None
    """500 is an octave."""
    prompt: Annotated[str, Field(max_length=wire.LONGEST_PROMPT)] | None = None
    """How to say it, in words; for registered voices."""


async def tts(http: Exchange) -> None:
    """POST /stream/v1/tts: admit → engine → effects → pack → stream."""
    state: Bag = http.state
    ask = await http.json(TtsBody, limit=64 * 1024)
    async with http_task(http) as task_id, http.until_gone():
        caller.current().check_appkey(ask.appkey or "")
        manner = _manner(ask)
        text = speakable(untagged(ask.text), state["settings"].text_max_chars)
        voice = await cast(state, manner.voice, ask.device_id or "")
        job = Speak(text, voice, speed=manner.speed, instruction=manner.prompt if isinstance(voice, Reference) else "")
        wanted = Wanted(wire.WRITTEN[manner.format], manner.sample_rate, manner.gain, manner.pitch)
        async with (
            state["speak"].session(job) as events,
            deliver(events, state["encoders"], wanted) as packed,
            Reader(http, state["settings"].client_idle_timeout) as reader,
        ):
            async for piece in packed:
                if isinstance(piece, Packed):
                    if not http.started:
                        await _start(reader, state, wanted, manner.format, task_id)
                    await reader.write(piece.data)
            await reader.end()


class Voices(BaseModel):
    voices: list[str]
    total: int


class Refreshed(Voices):
    message: str


class VoiceCard(BaseModel):
    name: str
    type: Literal["preset", "clone"]
    language: str
    gender: str
    description: str
    sample_rate: int
    available: bool
    reference_text: str | None = None
    added_at: str | None = None


class VoiceCards(BaseModel):
    voices: dict[str, VoiceCard]
    total: int
    preset_count: int
    clone_count: int


class Health(BaseModel):
    status: Literal["healthy", "unhealthy", "error"]
    sft_model_loaded: bool
    tts_model_loaded: bool
    device: str
    preset_voices: list[str]
    version: str
    message: str


@router.get("/voices", response_model=Voices)
async def voices(request: Request) -> Any:
    """The names that `voice` may have: presets, then the voices that are registered for all NLS clients."""
    found = await cards(request.scope["state"])
    return {"voices": list(found), "total": len(found)}


@router.get("/voices/info", response_model=VoiceCards, response_model_exclude_none=True)
async def voices_info(request: Request) -> Any:
    """The same, and what is known of each."""
    bag: Bag = request.scope["state"]
    found = await cards(bag)
    available = bag["speak"].health().state is State.READY
    clones = sum(card.clone for card in found.values())
    return {
        "voices": {name: _shown(card, available) for name, card in found.items()},
        "total": len(found),
        "preset_count": len(found) - clones,
        "clone_count": clones,
    }


@router.post("/voices/refresh", response_model=Refreshed)
async def refresh(request: Request) -> Any:
    """Nothing to do: a voice can be used from the moment that it is registered."""
    return {"message": "音色配置已刷新"} | await voices(request)


@router.get("/health", response_model=Health)
async def health(request: Request) -> Any:
    """Whether synthesis works now. Always 200; /ready has a status that says it."""
    bag: Bag = request.scope["state"]
    found = bag["speak"].health()
    ready = found.state is State.READY
    return {
        "status": "healthy" if ready else "error" if found.state is State.FAILED else "unhealthy",
        "sft_model_loaded": ready,
        "tts_model_loaded": ready,
        "device": found.device or "unknown",
        "preset_voices": list(bag["settings"].presets),
        "version": __version__,
        "message": found.reason or f"synthesis is {found.state}",
    }


# Private


def _manner(ask: TtsBody) -> wire.Manner:
    """Raises BadRequest where its format cannot be written."""
    wishes = ask.model_dump(exclude={"text", "appkey", "device_id"}) | {"format": ask.format or "wav"}
    try:
        return wire.read_manner(wishes, wire.RATE)
    except nls.Unusable as exc:
        raise BadRequest(str(exc)) from None


async def _start(reader: Reader, state: Bag, wanted: Wanted, name: str, task_id: str) -> None:
    form = FORMATS[wanted.format]
    kind = form.content_type if state["settings"].nls_honest_types else COMPATIBLE
    headers = [
        (b"content-disposition", b'attachment; filename="tts_%b.%b"' % (task_id.encode(), name.encode())),
        (TASK_HEADER, task_id.encode()),
        (b"x-sample-rate", b"%d" % form.rate(wanted.sample_rate)),
    ]
    await reader.start(200, kind, headers)


def _shown(card: Card, available: bool) -> dict[str, Any]:
    return {
        "name": card.name,
        "type": "clone" if card.clone else "preset",
        "language": card.language,
        "gender": card.gender,
        "description": card.description,
        "sample_rate": wire.RATE,
        "available": available,
        "reference_text": card.text or None,
        "added_at": card.added_at.isoformat() if card.added_at else None,
    }
