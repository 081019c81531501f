"""The desktop voice client on port 9090: voices, synthesis to a file, and the file.

Its contract: a voice belongs to a device_id; errors are read from `message`; a POST is repeated after a socket error
or a 503, so the same train or tts repeated is one voice and one synthesis.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from gateway import caller, cleanup, reference, stream, training, upload
from gateway.errors import BadRequest, GatewayError
from gateway.exchange import Exchange
from gateway.state import State
from gateway.text import speakable
from gateway.verbs import Reference, Speak
from gateway.voices import Voice, checked
from gateway.wire import desktop as wire

FILES = "/files/"
Device = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]


class TtsBody(BaseModel):
    device_id: Device
    voice_id: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(description="At least one letter or digit.")]
    mode: Literal["", "cross_lingual", "zero_shot"] = ""
    """zero_shot uses the words of the reference, cross_lingual does not; empty decides by whether they are known."""
    prompt_text: Annotated[str, Field(max_length=2000)] = ""
    """What is said in the reference, if the voice was trained without it."""


def shape(exc: GatewayError) -> bytes:
    return wire.error(exc.code, str(exc))


async def train(http: Exchange) -> None:
    """POST /v1/voices/train: upload → normalise → keep. The voice is ready when the answer leaves, or it is not."""
    state: State = http.state
    settings = state["settings"]
    async with cleanup.workspace(state["scratch"]) as work:
        form = await upload.save(
            http, into=work, files=(wire.AUDIO,), limit=settings.upload_max_bytes, idle=settings.upload_idle_timeout
        )
        if wire.AUDIO not in form.files:
            raise BadRequest("no file in the field audio")
        device, name, words = checked(*(form.fields.get(one, "") for one in (wire.DEVICE, wire.NAME, wire.PROMPT_TEXT)))
        async with http.until_gone():
            pcm, digest = await training.reference_of(state, form.files[wire.AUDIO], work)
            voice = await state["voices"].add(device, name, pcm, reference.RATE, digest, words)
    await http.answer(200, wire.trained(shown(voice)))


async def tts(http: Exchange) -> None:
    """POST /v1/tts: admit → engine → file, answered with the file's name."""
    state: State = http.state
    settings = state["settings"]
    ask = await http.json(TtsBody, limit=settings.text_max_chars * 4 + 65536)
    async with http.until_gone(), http.pulse(settings.answer_pulse):
        voice = await state["voices"].get(ask.device_id, ask.voice_id)
        job = Speak(speakable(ask.text, settings.text_max_chars), await _voice(state, voice, ask))
        key = _repeat_key(ask)
        name = await state["repeats"].recall(key, min(settings.repeat_window, settings.file_ttl / 2))
        if name is None or not await state["downloads"].exists(name):
            name = await state["syntheses"].run(key, lambda: _synthesise(state, job, key))
    await http.answer(200, wire.spoken(FILES + name, voice.id))


async def _voice(state: State, voice: Voice, ask: TtsBody) -> Reference:
    found = await state["voices"].reference(voice)
    words = "" if ask.mode == "cross_lingual" else ask.prompt_text.strip() or found.text
    if ask.mode == "zero_shot" and not words:
        raise BadRequest("mode zero_shot needs prompt_text: the words of the reference recording")
    return Reference(found.pcm, found.sample_rate, found.digest, words)


def _repeat_key(ask: TtsBody) -> str:
    parts = (caller.tenant(), ask.device_id, ask.voice_id, ask.text, ask.mode, ask.prompt_text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


async def _synthesise(state: State, job: Speak, key: str) -> str:
    async with cleanup.workspace(state["scratch"]) as work:
        async with state["speak"].session(job) as events:
            spoken = await stream.wav_file(events, work / "speech.wav")
        name = await state["downloads"].publish(spoken.path)
    await state["repeats"].remember(key, name)
    return name


def shown(voice: Voice) -> dict[str, str]:
    return wire.voice(voice.id, voice.name, voice.prompt_text, voice.created_at, voice.updated_at)
