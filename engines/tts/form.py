"""CosyVoice's forms, read within bounds: everything wrong with one is said before the first byte of an answer.

Upstream's fields are required where upstream requires them; `speed` is ours and may be left out.
"""

from collections.abc import Mapping

from anyio import to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from engines.tts import prompt
from engines.tts.job import Job, Malformed, Prompt, Refused, TooLarge
from engines.tts.sentences import speakable
from gateway.wire import cosyvoice as wire

LONGEST_TEXT = 100_000
"""Characters."""
LARGEST_PROMPT = 20 * 2**20
_LARGEST_FIELD = 2**20
_LARGEST_BODY = LARGEST_PROMPT + 2 * _LARGEST_FIELD
_SLOWEST, _FASTEST = 0.5, 2.0

FIELDS: Mapping[str, tuple[str, ...]] = {
    wire.SFT: (wire.TEXT, wire.SPEAKER),
    wire.ZERO_SHOT: (wire.TEXT, wire.PROMPT_TEXT, wire.PROMPT_WAV),
    wire.CROSS_LINGUAL: (wire.TEXT, wire.PROMPT_WAV),
    wire.INSTRUCT: (wire.TEXT, wire.SPEAKER, wire.INSTRUCTION),
    wire.INSTRUCT2: (wire.TEXT, wire.INSTRUCTION, wire.PROMPT_WAV),
}
"""Of each route."""


async def read(request: Request, speakers: tuple[str, ...]) -> Job:
    """What the form asks for. Raises Refused."""
    mode = request.url.path
    bounded = Request(request.scope, _bounded(request.receive))
    try:
        async with bounded.form(max_files=1, max_fields=16, max_part_size=_LARGEST_FIELD) as form:
            asked = {name: _text(form, name) for name in FIELDS[mode] if name != wire.PROMPT_WAV}
            wav = await _file(form) if wire.PROMPT_WAV in FIELDS[mode] else None
            speed = _speed(form.get(wire.SPEED, "1"))
    except HTTPException as exc:
        raise Refused(f"the form cannot be read: {exc.detail}") from exc
    _check_text(asked[wire.TEXT])
    if wire.SPEAKER in asked and asked[wire.SPEAKER] not in speakers:
        raise Refused(f"unknown spk_id {asked[wire.SPEAKER][:40]!r}; known are {', '.join(speakers) or 'none'}")
    return Job(
        mode=mode,
        text=asked[wire.TEXT],
        speaker=asked.get(wire.SPEAKER, ""),
        prompt=wav,
        prompt_text=asked.get(wire.PROMPT_TEXT, ""),
        instruction=asked.get(wire.INSTRUCTION, ""),
        speed=speed,
    )


def _bounded(receive: Receive) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > _LARGEST_BODY:
            raise TooLarge(f"the form is larger than {_LARGEST_BODY} bytes")
        return message

    return bounded


def _text(form: FormData, name: str) -> str:
    found = form.get(name)
    if not isinstance(found, str):
        raise Malformed(f"the text field {name} is missing")
    return found


async def _file(form: FormData) -> Prompt:
    found = form.get(wire.PROMPT_WAV)
    if not isinstance(found, UploadFile):
        raise Malformed(f"the file {wire.PROMPT_WAV} is missing")
    if (found.size or 0) > LARGEST_PROMPT:
        raise TooLarge(f"{wire.PROMPT_WAV} is larger than {LARGEST_PROMPT} bytes")
    # Decoding half a minute of audio is work enough to stall every other stream.
    return await to_thread.run_sync(prompt.read, await found.read())


def _speed(text: object) -> float:
    try:
        speed = float(str(text))
    except ValueError:
        speed = 0.0
    if not _SLOWEST <= speed <= _FASTEST:
        raise Malformed(f"speed must be a number from {_SLOWEST} to {_FASTEST}")
    return speed


def _check_text(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise TooLarge(f"tts_text is longer than {LONGEST_TEXT} characters")
    if not speakable(text):
        raise Refused("there is nothing in tts_text that can be spoken")
