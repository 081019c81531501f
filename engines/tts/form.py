"""CosyVoice's forms, read within bounds: everything wrong with one is said before the first byte of an answer.

Upstream's fields are required where upstream requires them; those that are ours may be left out.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from anyio import fail_after, to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from engines.tts import prompt
from engines.tts.job import Job, Malformed, Prompt, Refused, TooLarge, TooSlow
from engines.tts.sentences import speakable
from gateway.wire import cosyvoice as wire

LONGEST_TEXT = 100_000
"""Characters."""
LONGEST_WORDS = 5_000
"""Characters of an instruction, or of what is said in a recording: a model reads them all at once, beside each
sentence."""
LARGEST_PROMPT = 20 * 2**20
_LARGEST_FIELD = 2**20
_LARGEST_BODY = LARGEST_PROMPT + 2 * _LARGEST_FIELD
_LONGEST_NAME = 64
"""Bytes of UTF-8, of a registered speaker."""
_SHOWN = 20
"""Names of speakers in an error."""
_SLOWEST, _FASTEST = 0.5, 2.0
_PATIENCE = 30.0
"""Seconds in which some more of a form must come."""
_SEEDS = 2**32

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
    wanted = FIELDS[mode]
    async with _form(request) as form:
        registered = _name(form) if wire.PROMPT_WAV in wanted and form.get(wire.REGISTERED) else ""
        # A registered speaker was heard already, and what it says is known.
        asked = {name: _text(form, name) for name in wanted if name not in (wire.PROMPT_WAV, wire.PROMPT_TEXT)}
        prompt_text = _text(form, wire.PROMPT_TEXT, "" if registered or wire.PROMPT_TEXT not in wanted else None)
        wav = await _file(form) if wire.PROMPT_WAV in wanted and not registered else None
        speed, stream, seed = _speed(form.get(wire.SPEED, "1")), _stream(form), _seed(form)
    check_text(asked[wire.TEXT])
    check_words(prompt_text, asked.get(wire.INSTRUCTION, ""))
    if wire.SPEAKER in asked:
        check_speaker(asked[wire.SPEAKER], speakers)
    return Job(
        mode=mode,
        text=asked[wire.TEXT],
        speaker=asked.get(wire.SPEAKER, ""),
        prompt=wav,
        prompt_text=prompt_text,
        instruction=asked.get(wire.INSTRUCTION, ""),
        speed=speed,
        registered=registered,
        stream=stream,
        seed=seed,
    )


async def read_registration(request: Request) -> tuple[str, Job]:
    """(name, a job that holds the recording and what is said in it). Raises Refused."""
    async with _form(request) as form:
        name, prompt_text, wav = _name(form), _text(form, wire.PROMPT_TEXT, ""), await _file(form)
    check_words(prompt_text)
    return name, Job(wire.REGISTER, "", prompt=wav, prompt_text=prompt_text)


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """Raises Refused where it cannot be read."""
    bounded = Request(request.scope, _bounded(request.receive))
    try:
        async with bounded.form(max_files=1, max_fields=16, max_part_size=_LARGEST_FIELD) as form:
            yield form
    except HTTPException as exc:
        raise Refused(f"the form cannot be read: {exc.detail}") from exc


def _bounded(receive: Receive) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        try:
            with fail_after(_PATIENCE):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"the form paused for more than {_PATIENCE:g} s") from None
        seen += len(message.get("body", b""))
        if seen > _LARGEST_BODY:
            raise TooLarge(f"the form is larger than {_LARGEST_BODY} bytes")
        return message

    return bounded


def _text(form: FormData, name: str, otherwise: str | None = None) -> str:
    """Where there is no such field: `otherwise`, or Malformed."""
    found = form.get(name, otherwise)
    if not isinstance(found, str):
        raise Malformed(f"the text field {name} is missing")
    return found


def _name(form: FormData) -> str:
    name = _text(form, wire.REGISTERED)
    if not name.isprintable() or name != name.strip() or not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise Malformed(
            f"{wire.REGISTERED} must be 1 to {_LONGEST_NAME} bytes that can be printed, without spaces around"
        )
    return name


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


def _stream(form: FormData) -> bool:
    match str(form.get(wire.STREAM, "true")).strip().lower():
        case "true" | "1" | "":
            return True
        case "false" | "0":
            return False
    raise Malformed(f"{wire.STREAM} must be true or false")


def _seed(form: FormData) -> int | None:
    text = str(form.get(wire.SEED, "")).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _SEEDS):
        raise Malformed(f"{wire.SEED} must be a whole number from 0 to {_SEEDS - 1}")
    return int(text)


def check_text(text: str) -> None:
    """Raises Refused."""
    if len(text) > LONGEST_TEXT:
        raise TooLarge(f"tts_text is longer than {LONGEST_TEXT} characters")
    if not speakable(text):
        raise Refused("there is nothing in tts_text that can be spoken")


def check_words(*texts: str) -> None:
    """Raises Refused."""
    if any(len(text) > LONGEST_WORDS for text in texts):
        raise TooLarge(f"an instruction or a transcript is longer than {LONGEST_WORDS} characters")


def check_speaker(name: str, speakers: tuple[str, ...]) -> None:
    """Raises Refused."""
    if name not in speakers:
        # The answer of gRPC is a header, of which clients take eight kilobytes.
        known = ", ".join(speakers[:_SHOWN]) + (", ..." if len(speakers) > _SHOWN else "") or "none"
        raise Refused(f"unknown spk_id {name[:40]!r}; known are {known}")
