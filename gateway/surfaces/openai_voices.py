"""OpenAI's `audio/voices` and `audio/voice_consents`, over the registry that all surfaces share.

Two families of clients meet on `/v1/audio/voices`: OpenAI's, whose objects these are, and vLLM-Omni's, which send the
same form and read `voices`, `uploaded_voices` and `success` beside them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from gateway import cleanup, reference, training, upload
from gateway.consents import MOST, Consent
from gateway.errors import AudioRejected, BadRequest, NotFound
from gateway.exchange import Exchange, compact
from gateway.state import State
from gateway.surfaces import openai
from gateway.surfaces.desktop import Device
from gateway.voices import Voice, checked
from gateway.wire import openai_audio as wire

SAMPLE, RECORDING = "audio_sample", "recording"
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")

router = APIRouter(prefix="/v1/audio", tags=["voices"])
After = Annotated[str | None, Query(max_length=100, description="The id of the last one of the page before.")]
Whose = Annotated[Device | None, Query(description="Whose they are, where they belong to a device.")]


class VoiceBody(BaseModel):
    id: str
    object: str
    created_at: int
    name: str
    type: str


class VoicesAnswer(BaseModel):
    object: str
    data: list[VoiceBody]
    first_id: str | None
    last_id: str | None
    has_more: bool
    voices: list[str]
    """Every name that speech takes: presets, OpenAI's names, and the ids of registered voices."""
    uploaded_voices: list[dict[str, Any]]


class ConsentBody(BaseModel):
    id: str
    object: str
    created_at: int
    name: str
    language: str


class ConsentsAnswer(BaseModel):
    object: str
    data: list[ConsentBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    id: str
    object: str
    deleted: bool
    success: bool = True


class RenameBody(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]


async def create_voice(http: Exchange) -> None:
    """POST /v1/audio/voices: upload → consent → normalise → keep."""
    state: State = http.state
    async with cleanup.workspace(state["scratch"]) as work:
        form = await _form(http, SAMPLE, work)
        if form.fields.get("type", SAMPLE) != SAMPLE:
            raise BadRequest("voices are made of recordings only", code="unsupported_type", param="type")
        sample = _file(form, SAMPLE)
        name, words = _field(form, "name"), form.fields.get("ref_text", "")
        device, name, words = checked(openai.owner(form.fields.get("device_id")), name, words)
        consent = form.fields.get("consent", "")
        await _agreed(state, device, consent)
        async with http.until_gone():
            with _blamed_on(SAMPLE):
                pcm, digest = await training.reference_of(state, sample, work)
            voice = await state["voices"].add(device, name, pcm, reference.RATE, digest, words, consent)
    await http.answer(200, compact(_shown(voice)))


async def create_consent(http: Exchange) -> None:
    """POST /v1/audio/voice_consents: upload → normalise → speech? → keep."""
    state: State = http.state
    async with cleanup.workspace(state["scratch"]) as work:
        form = await _form(http, RECORDING, work)
        source, language = _file(form, RECORDING), _field(form, "language")
        if len(language) > 35 or not _LANGUAGE.fullmatch(language):
            raise BadRequest("language must be a BCP 47 tag, such as en-US", param="language")
        device, name, _ = checked(openai.owner(form.fields.get("device_id")), _field(form, "name"), "")
        async with http.until_gone():
            with _blamed_on(RECORDING):
                recording, _ = await training.heard(state, source, work / "consent.wav")
            consent = await state["consents"].add(device, name, language, recording.path)
    await http.answer(200, compact(_consent(consent)))


@router.get("/voices", response_model=VoicesAnswer)
async def voices(request: Request, device_id: Whose = None) -> Any:
    """Registered voices, and every name that speech takes."""
    settings = request.state.settings
    found = await request.state.voices.list(openai.owner(device_id))
    names = [*settings.presets, *settings.openai_presets, *(voice.id for voice in found)]
    uploaded = [{**_shown(voice), "consent": voice.consent, "mime_type": "audio/wav"} for voice in found]
    return wire.listed([_shown(voice) for voice in found]) | {"voices": names, "uploaded_voices": uploaded}


@router.get("/voices/{voice_id}", response_model=VoiceBody)
async def voice(request: Request, voice_id: str, device_id: Whose = None) -> Any:
    """A registered voice by its id, or by its name."""
    return _shown(await request.state.voices.named(openai.owner(device_id), voice_id))


@router.delete("/voices/{voice_id}", response_model=Deleted)
async def delete_voice(request: Request, voice_id: str, device_id: Whose = None) -> Any:
    found = await request.state.voices.named(openai.owner(device_id), voice_id)
    await request.state.voices.delete(found.device_id, found.id)
    return wire.deleted(found.id, "audio.voice.deleted")


@router.get("/voice_consents", response_model=ConsentsAnswer)
async def consents(
    request: Request,
    device_id: Whose = None,
    after: Annotated[
        str | None, Query(max_length=100, description="The id of the last one of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 20,
) -> Any:
    """The newest first."""
    try:
        found, more = await request.state.consents.page(openai.owner(device_id), after, limit)
    except NotFound as exc:
        raise BadRequest(str(exc), code=exc.code, param="after") from None
    return wire.listed([_consent(one) for one in found], more=more)


@router.get("/voice_consents/{consent_id}", response_model=ConsentBody)
async def consent(request: Request, consent_id: str, device_id: Whose = None) -> Any:
    return _consent(await request.state.consents.get(openai.owner(device_id), consent_id))


@router.post("/voice_consents/{consent_id}", response_model=ConsentBody)
async def update_consent(request: Request, consent_id: str, body: RenameBody, device_id: Whose = None) -> Any:
    return _consent(await request.state.consents.rename(openai.owner(device_id), consent_id, body.name))


@router.delete("/voice_consents/{consent_id}", response_model=Deleted)
async def delete_consent(request: Request, consent_id: str, device_id: Whose = None) -> Any:
    await request.state.consents.delete(openai.owner(device_id), consent_id)
    return wire.deleted(consent_id, "audio.voice_consent")


# Private


async def _form(http: Exchange, file: str, work: Any) -> upload.Form:
    settings = http.state["settings"]
    return await upload.save(
        http, into=work, files=(file,), limit=settings.upload_max_bytes, idle=settings.upload_idle_timeout
    )


def _file(form: upload.Form, name: str) -> upload.Saved:
    if name not in form.files:
        raise BadRequest(f"no file in the field {name}", code="missing_required_parameter", param=name)
    return form.files[name]


def _field(form: upload.Form, name: str) -> str:
    if not form.fields.get(name, "").strip():
        raise BadRequest(f"{name} is missing", code="missing_required_parameter", param=name)
    return form.fields[name]


async def _agreed(state: State, device: str, consent_id: str) -> None:
    if not state["settings"].openai_consents:
        return
    try:
        await state["consents"].get(device, consent_id)
    except NotFound as exc:
        raise BadRequest(str(exc), code=exc.code, param="consent") from None


@contextmanager
def _blamed_on(field: str) -> Iterator[None]:
    try:
        yield
    except AudioRejected as exc:
        exc.param = field
        raise


def _shown(voice: Voice) -> dict[str, Any]:
    return wire.voice(voice.id, voice.name, voice.created_at)


def _consent(consent: Consent) -> dict[str, Any]:
    return wire.consent(consent.id, consent.name, consent.language, consent.created_at)
