"""NLS recognition of whole recordings: POST /stream/v1/asr, and the models and the health behind it.

A wrong query is HTTP 400; whatever else the caller does wrong is HTTP 200 with a status of its own, as FunSpeech has
it; failures that are ours are 5xx, so that load balancers see them (gateway/surfaces/nls.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway import __version__, caller, cleanup, passages, pieces, upload
from gateway.errors import BadRequest
from gateway.events import Transcript
from gateway.exchange import Exchange, wrong_field
from gateway.recogniser import joined
from gateway.state import State as Bag
from gateway.surfaces.nls import TASK_HEADER, http_task
from gateway.verbs import Recording, State, Transcribe
from gateway.vocabularies import hotwords
from gateway.voiced import voiced
from gateway.wire import nls_recognition as wire
from gateway.written import Style, prepare

PATH = "/stream/v1/asr"
MOST_BYTES = 100 * 1024 * 1024
"""Of a recording; upload_max_bytes may set less."""
router = APIRouter(tags=["NLS"], prefix=PATH)

Format = Literal["pcm", "wav", "opus", "speex", "amr", "mp3", "aac", "m4a", "flac", "ogg"]


def _known_rate(rate: int) -> int:
    if rate not in wire.SAMPLE_RATES:
        raise ValueError(f"none of {', '.join(map(str, wire.SAMPLE_RATES))}")
    return rate


SampleRate = Annotated[int, AfterValidator(_known_rate), Field(json_schema_extra={"enum": list(wire.SAMPLE_RATES)})]


class AsrQuery(BaseModel):
    """Names that are not among these are passed over."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    appkey: Annotated[str, Field(min_length=1, max_length=64)] = ""
    format: Format = "pcm"
    """pcm: mono s16le without a header, where the audio is of no format that is known by its beginning."""
    sample_rate: SampleRate = 16000
    """Hz, of pcm; other formats say it themselves."""
    vocabulary_id: Annotated[str, Field(max_length=32)] = ""
    """Words to expect: a list in the gateway's folder of them."""
    customization_id: Annotated[str, Field(max_length=wire.LONGEST_ID)] = ""
    """One of GET /stream/v1/asr/models."""
    enable_punctuation_prediction: bool = False
    enable_inverse_text_normalization: bool = False
    """Whether numbers are written in figures."""
    enable_voice_detection: bool = False
    """Whether silence around what is said is cut off first, and a recording without speech left unrecognised."""
    disfluency: bool = False
    """Whether hesitations (嗯, um) are left out."""
    enable_words: bool = False
    """Whether the times of words are wanted, where the engine knows them."""
    audio_address: Annotated[str, Field(max_length=512)] = ""
    """Where the audio is downloaded from, instead of the body."""
    dolphin_lang_sym: Annotated[str, Field(max_length=8)] = ""
    """Language, ISO 639."""
    dolphin_region_sym: Annotated[str, Field(max_length=16)] = ""
    """Accepted, and of no effect."""


async def asr(http: Exchange) -> None:
    """POST /stream/v1/asr: upload or download → normalise → engine → words."""
    ask = _query(http)
    bag: Bag = http.state
    settings = bag["settings"]
    async with http_task(http) as task_id:
        caller.current().check_appkey(ask.appkey)
        named(bag, ask.customization_id)
        words = await hotwords(settings.vocabulary_dir, ask.vocabulary_id) if ask.vocabulary_id else ()
        async with cleanup.workspace(bag["scratch"]) as work:
            source = work / "upload"
            limit = min(MOST_BYTES, settings.upload_max_bytes)
            if not ask.audio_address:
                await upload.save_body(http, source, limit=limit, idle=settings.upload_idle_timeout)
            async with http.until_gone(), http.pulse(settings.answer_pulse):
                if ask.audio_address:
                    await bag["fetcher"].download(ask.audio_address, source, limit=limit)
                body = await _heard(bag, ask, words, source, task_id)
        await http.answer(200, body, headers=[(TASK_HEADER, task_id.encode())])


def named(bag: Bag, model: str) -> None:
    """Raises BadRequest where customization_id is no name of the recognition engine."""
    names = bag["settings"].nls_models
    if model and model not in names:
        raise BadRequest(f"unknown customization_id {model!r}; there are {', '.join(names)}", code="unknown_model")


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The names that customization_id may have, and what answers to each of them: the recognition engine."""
    bag: Bag = request.scope["state"]
    settings, health = bag["settings"], bag["transcribe"].health()
    ready = health.state is State.READY
    there = {"path": health.model or settings.transcribe_engine, "exists": ready}
    found = [
        {
            "id": name,
            "name": name,
            "engine": settings.transcribe_engine,
            "description": f"answered by {health.model or settings.transcribe_engine}",
            "languages": [],
            "default": number == 0,
            "loaded": ready,
            "supports_realtime": True,
            "offline_model": there,
            "realtime_model": there,
            "asr_model_mode": "all",
        }
        for number, name in enumerate(settings.nls_models)
    ]
    return {"models": found, "total": len(found), "loaded_count": len(found) * ready, "asr_model_mode": "all"}


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Whether recognition works now. Always 200; /ready has a status that says it."""
    bag: Bag = request.scope["state"]
    found = bag["transcribe"].health()
    ready = found.state is State.READY
    return {
        "status": "healthy" if ready else "error" if found.state is State.FAILED else "unhealthy",
        "model_loaded": ready,
        "device": found.device or "unknown",
        "version": __version__,
        "message": found.reason or f"recognition is {found.state}",
        "loaded_models": [found.model] if ready and found.model else [],
        "asr_model_mode": "all",
    }


# Private


def _query(http: Exchange) -> AsrQuery:
    """Raises BadRequest."""
    try:
        given = dict(
            parse_qsl(http.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=100)
        )
        return AsrQuery.model_validate(given)
    except ValidationError as exc:
        raise BadRequest(wrong_field(exc)) from None
    except ValueError:
        raise BadRequest("more than 100 parameters") from None


async def _heard(bag: Bag, ask: AsrQuery, words: Sequence[str], source: Path, task_id: str) -> bytes:
    """The answer. Raises AudioRejected, and what the engine does."""
    style = Style(ask.enable_inverse_text_normalization, ask.enable_punctuation_prediction, ask.disfluency)
    if style.figures:
        prepare()
    async with bag["decoding"].enter():
        audio = await bag["decoder"].to_wav(
            source,
            source.with_name("audio.wav"),
            max_seconds=bag["settings"].transcribe_max_seconds,
            headerless=ask.sample_rate if ask.format == "pcm" else None,
        )
    job = Transcribe(
        audio,
        ask.dolphin_lang_sym,
        tuple(words),
        itn=style.figures,
        punctuation=style.punctuation,
        words=ask.enable_words,
    )
    said = await _recognise(bag, job, audio, source.parent, ask.enable_voice_detection)
    times = [(word.text, word.start, word.end) for word in said.words] if ask.enable_words else []
    model = bag["transcribe"].health().model
    return wire.answer(task_id, await style.final(said.text), model, audio.seconds, times or None)


async def _recognise(bag: Bag, job: Transcribe, audio: Recording, folder: Path, detect: bool) -> Transcript:
    """All that is said in `audio`, as one; times from its beginning. detect: whether silence is kept from the engine,
    which is always done with long recordings."""
    settings, since = bag["settings"], 0.0
    if detect and audio.seconds <= pieces.LONGEST:
        speech = await voiced(audio, folder / "voiced.wav", settings)
        if speech is None:
            return Transcript("", "")
        job, since = replace(job, audio=speech[0]), speech[1]
    said: list[Transcript] = []
    async with passages.recognised(bag["transcribe"], settings, folder, job, portion=passages.Portion.LARGE) as found:
        async for passage in found:
            said += passage.said
    moved = [replace(word, start=word.start + since, end=word.end + since) for one in said for word in one.words]
    return Transcript(joined([one.text for one in said]), "", words=tuple(moved))
