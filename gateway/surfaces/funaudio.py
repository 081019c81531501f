"""The HTTP part of the Fun-Audio-Chat stack: POST /api/transcribe and POST /api/synthesize.

Errors are {"error", "success": false}.
"""

from functools import partial
from typing import Annotated

from pydantic import BaseModel, Field

from gateway import cleanup, stream, upload
from gateway.errors import BadRequest, GatewayError
from gateway.exchange import Exchange
from gateway.state import State
from gateway.text import speakable
from gateway.verbs import Preset, Reference, Speak, Transcribe
from gateway.wire import funasr_http as wire


class SynthesizeBody(BaseModel):
    text: Annotated[str, Field(description="At least one letter or digit.")]
    speaker_id: Annotated[str, Field(max_length=200)] = "default"
    """`default`, a preset's name, or the id of a registered voice."""
    device_id: Annotated[str, Field(max_length=200)] = ""
    """Whose voice it is; needed for a registered voice."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z-]{0,20}$")] = ""
    """ISO 639 code; empty lets the engine tell from the text."""
    speed: Annotated[float, Field(ge=0.5, le=2.0)] = 1.0


def shape(exc: GatewayError) -> bytes:
    return wire.error(str(exc))


async def transcribe(http: Exchange) -> None:
    """POST /api/transcribe: upload → normalise → admit → engine → words."""
    state: State = http.state
    settings = state["settings"]
    async with cleanup.workspace(state["scratch"]) as work:
        form = await upload.save(
            http, into=work, files=(wire.AUDIO,), limit=settings.upload_max_bytes, idle=settings.upload_idle_timeout
        )
        if wire.AUDIO not in form.files:
            raise BadRequest("No audio file provided")
        async with http.until_gone(), http.pulse(settings.answer_pulse):
            async with state["decoding"].enter():
                audio = await state["decoder"].to_wav(
                    form.files[wire.AUDIO].path, work / "audio.wav", max_seconds=settings.transcribe_max_seconds
                )
            asked = form.fields.get(wire.LANGUAGE, "").strip()[:50]
            asked = "" if asked.lower() in wire.UNSPECIFIED else asked
            job = Transcribe(audio, asked, wire.hotwords_of(form.fields.get(wire.HOTWORDS, "")))
            async with state["transcribe"].session(job) as events:
                words = [event async for event in events if event.final]
    text = " ".join(one.text for one in words)
    await http.answer(200, wire.result(text, asked or next((one.language for one in words), "")))


async def synthesize(http: Exchange) -> None:
    """POST /api/synthesize: admit → engine → stream."""
    state: State = http.state
    settings = state["settings"]
    ask = await http.json(SynthesizeBody, limit=settings.text_max_chars * 4 + 65536)
    async with http.until_gone():
        voice = await _voice(state, ask)
        job = Speak(speakable(ask.text, settings.text_max_chars), voice, wire.code_of(ask.language), ask.speed)
        begin = partial(state["encoders"].open, "wav")
        async with state["speak"].session(job) as events, stream.Encoded(events, begin) as pieces:
            await stream.answer(http, pieces, idle=settings.client_idle_timeout)


async def _voice(state: State, ask: SynthesizeBody) -> Preset | Reference:
    settings = state["settings"]
    name = ask.speaker_id.strip() or "default"
    if name == "default":
        return Preset(settings.default_voice)
    if name in settings.presets:
        return Preset(name)
    if not ask.device_id:
        raise BadRequest(
            f"unknown speaker_id; there are default, {', '.join(settings.presets)}, and the voices of a device_id",
            code="unknown_speaker",
        )
    return await state["voices"].reference(await state["voices"].get(ask.device_id, name))
