"""FunASR's WebSocket protocol: JSON text frames around raw PCM, in three modes.

    client                                            engine
    config {"mode": "2pass", "audio_fs": 16000, …}    {"mode": "2pass-online", "text": "今天"}      a delta
    binary frames, s16le mono                         {"mode": "2pass-online", "text": "天气"}      a delta
    {"is_speaking": false, "is_end": true}            {"mode": "2pass-offline", "text": "今天天气。"}
                                                      {"mode": "2pass", "is_final": true, "is_end": true}   the end ack

offline: each utterance whole, once it has ended. online: deltas only. 2pass: deltas, then the utterance whole, which
replaces them; then the deltas of the next one. `is_end` asks for the end ack; upstream knows it since 1.4.0.

What `is_final` means depends on who sends it: upstream's Python server sets it on every whole utterance, its C++
runtime on the last message of a stream. Ours follows the C++ runtime for whole utterances, and sets it on the last
delta of each utterance in the mode `online`. So only the end ack, or the end of the connection, ends a stream for
certain, and a client that waits for `is_final` is never left waiting by ours.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.wire import answers
from gateway.wire import funasr_stamps as stamps
from gateway.wire.funasr_http import UNSPECIFIED, code_of
from gateway.wire.funasr_stamps import Stamp

PATH = "/"
SUBPROTOCOL = "binary"
PCM = "pcm"
RATE = 16_000
"""Hz; what every engine takes."""
LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000

FEATURES = "voxgate-live"
"""A header of our engine's handshake: what it does beyond upstream's, comma-separated."""
RESAMPLES, ACKS = "resample", "ack"
"""It takes every rate that `audio_fs` may say; it ends every stream that asks for it with an end ack."""

LONGEST = 512 * 1024
"""Characters of a text frame; a thousand hotwords fit."""
LONGEST_NAME, MOST_HOTWORDS, LONGEST_HOTWORD = 256, 1000, 64
LARGEST_CHUNK = (30, 60, 30)
"""Of the three numbers of `chunk_size`."""

DONE, UNREADABLE, IDLE, ENGINE_FAILED, TOO_SLOW = 1000, 1007, 1008, 1011, 1013
"""Codes that our engine closes with; 1013 means: try again later. An error is said before each but the first."""

_LONGEST_FORM = 20
_WEIGHT = 20
"""What upstream's client sends for a word without one."""


class Mode(StrEnum):
    OFFLINE = "offline"
    ONLINE = "online"
    TWO_PASS = "2pass"


class Kind(StrEnum):
    """What a result is: a delta (online), or an utterance whole (offline)."""

    OFFLINE = "offline"
    ONLINE = "online"
    FIRST_PASS = "2pass-online"
    SECOND_PASS = "2pass-offline"


@dataclass(frozen=True, slots=True)
class Config:
    """What the first text frame of a stream says."""

    mode: Mode = Mode.TWO_PASS
    name: str = ""
    """`wav_name`; every answer repeats it."""
    rate: int = RATE
    """Hz of the audio; `audio_fs`."""
    form: str = PCM
    """`wav_format`: mono s16le, or with any other name a whole file in a container."""
    chunk: tuple[int, int, int] = (5, 10, 5)
    """`chunk_size`, in 60 ms: the middle one is what the streaming model takes at once, the last its look-ahead."""
    encoder_look_back: int = 4
    decoder_look_back: int = 1
    """In chunks."""
    hotwords: tuple[str, ...] = field(default=(), repr=False)
    itn: bool = True
    language: str = ""
    """ISO 639 code; `svs_lang`. Empty leaves it to the engine."""


@dataclass(frozen=True, slots=True)
class End:
    """No more audio."""

    ack: bool
    """Whether an end ack is wanted."""


@dataclass(frozen=True, slots=True)
class Result:
    kind: Kind
    text: str = field(repr=False)
    name: str = ""
    final: bool = False
    """Believe it of our engine only."""
    start: int | None = None
    end: int | None = None
    """Milliseconds from the start of the stream, of a whole utterance; ours says so, upstream does not."""
    words: tuple[Stamp, ...] = field(default=(), repr=False)
    """Of a whole utterance, where it is known when each was said; milliseconds too."""

    @property
    def whole(self) -> bool:
        return self.kind in (Kind.OFFLINE, Kind.SECOND_PASS)


@dataclass(frozen=True, slots=True)
class Ended:
    """The end ack: everything that was asked for has been answered, or could not be."""

    mode: str
    name: str = ""
    error: str = ""
    """What went wrong, where something did."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error in the middle of a stream; the connection ends after it."""

    error: str


# What a client says


def config(asked: Config, *, plain_hotwords: bool = False) -> str:
    """plain_hotwords: words with blanks between them, as upstream's Python server takes them."""
    first = {
        "mode": asked.mode,
        "wav_name": asked.name,
        "wav_format": asked.form,
        "is_speaking": True,
        "chunk_size": asked.chunk,
        "chunk_interval": 10,
        "encoder_chunk_look_back": asked.encoder_look_back,
        "decoder_chunk_look_back": asked.decoder_look_back,
        "audio_fs": asked.rate,
        "itn": asked.itn,
    }
    if asked.hotwords:  # as upstream's own client writes them
        weighted = json.dumps(dict.fromkeys(asked.hotwords, _WEIGHT), ensure_ascii=False)
        first["hotwords"] = " ".join(asked.hotwords) if plain_hotwords else weighted
    if asked.language:
        first |= {"svs_lang": asked.language, "svs_itn": asked.itn}
    return json.dumps(first, ensure_ascii=False)


def packet_bytes(asked: Config) -> int:
    """Of the binary frames that go with `config`: upstream's Python server counts frames instead of samples."""
    return 2 * asked.rate * 60 * asked.chunk[1] // 10 // 1000


def end(*, ack: bool = True, name: str = "") -> str:
    """name: of the answers that follow, from upstream's servers; ours keeps to the config's."""
    said: dict[str, Any] = {"is_speaking": False}
    return json.dumps(said | ({"is_end": True} if ack else {}) | ({"wav_name": name} if name else {}))


def read_client(frame: str, before: Config) -> Config | End:
    """before: what holds for the fields that the frame does not name. Raises ValueError, in words for the client."""
    if len(frame) > LONGEST:
        raise ValueError(f"a text frame holds at most {LONGEST} characters")
    try:
        found = answers.read(frame.encode())
    except ValueError as exc:
        raise ValueError("a text frame must be a JSON object") from exc
    if not _flag(found, "is_speaking", True):
        return End(_flag(found, "is_end", False))
    return replace(
        before,
        mode=_mode(found.get("mode", before.mode)),
        name=answers.text(found, "wav_name", LONGEST_NAME) or before.name,
        form=(answers.text(found, "wav_format", _LONGEST_FORM) or before.form).lower(),
        rate=_number(found, "audio_fs", before.rate, LOWEST_RATE, HIGHEST_RATE),
        chunk=_chunk(found.get("chunk_size", before.chunk)),
        encoder_look_back=_number(found, "encoder_chunk_look_back", before.encoder_look_back, -1, 100),
        decoder_look_back=_number(found, "decoder_chunk_look_back", before.decoder_look_back, -1, 100),
        hotwords=_hotwords(found["hotwords"]) if found.get("hotwords") is not None else before.hotwords,
        itn=_flag(found, "itn", before.itn),
        language=_language(found, before.language),
    )


# What an engine says


def result(said: Result) -> str:
    body: dict[str, Any] = {"mode": said.kind, "text": said.text, "wav_name": said.name, "is_final": said.final}
    if said.start is not None and said.end is not None:
        body |= {"start_time": said.start, "end_time": said.end}
    if said.words:
        body |= {"timestamp": stamps.timestamp(said.words), "stamp_sents": stamps.sentences(said.text, said.words)}
    return json.dumps(body, ensure_ascii=False)


def ended(said: Ended) -> str:
    body: dict[str, Any] = {"mode": said.mode, "wav_name": said.name, "is_final": not said.error, "is_end": True}
    if said.error:
        body["error"] = said.error
    return json.dumps(body, ensure_ascii=False)


def last_words(asked: Config, *, ack: bool, final: bool, error: str = "") -> str:
    """What ends a stream; it may be empty, and is not sent then. final: whether the last answer said so already."""
    if ack:
        return ended(Ended(asked.mode, asked.name, error))
    kind = {Mode.OFFLINE: Kind.OFFLINE, Mode.ONLINE: Kind.ONLINE, Mode.TWO_PASS: Kind.SECOND_PASS}[asked.mode]
    return "" if final else result(Result(kind, "", asked.name, final=True))


def fault(said: Fault) -> str:
    return json.dumps(asdict(said), ensure_ascii=False)


def read_engine(frame: str) -> Result | Ended | Fault:
    """Raises ValueError."""
    found = answers.read(frame.encode(errors="replace"))
    error = " ".join(answers.text(found, "error", 500).split())
    if found.get("is_end") is True:
        failed = error or ("" if found.get("is_final", True) else "the engine could not finish the stream")
        return Ended(answers.text(found, "mode", 20), answers.text(found, "wav_name", LONGEST_NAME), failed)
    if error:
        return Fault(error)
    text = answers.text(found, "text")
    if (
        "mode" not in found and not text and found.get("is_final") is True
    ):  # so ends the C++ server a stream with nothing left to say
        found["mode"] = Kind.ONLINE
    return Result(
        Kind(answers.text(found, "mode", 20)),
        text,
        answers.text(found, "wav_name", LONGEST_NAME),
        found.get("is_final") is True,
        _milliseconds(found.get("start_time")),
        _milliseconds(found.get("end_time")),
        stamps.read(found.get("timestamp"), text),
    )


# Private


def _flag(found: dict[str, Any], name: str, default: bool) -> bool:
    value = found.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")
    return value


def _number(found: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = found.get(name, default)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if not _whole(value, least, most):
        raise ValueError(f"{name} must be a whole number from {least} to {most}")
    return int(value)


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _mode(value: object) -> Mode:
    try:
        return Mode(str(value))
    except ValueError:
        raise ValueError(f"mode must be one of {', '.join(Mode)}") from None


def _chunk(value: object) -> tuple[int, int, int]:
    if isinstance(value, str):  # as command lines have it
        value = [int(part) if part.strip().isdecimal() else None for part in value[:100].split(",")]
    numbers = list(value) if isinstance(value, list | tuple) else []
    if len(numbers) != 3 or not all(_whole(*one) for one in zip(numbers, (0, 1, 0), LARGEST_CHUNK, strict=True)):
        raise ValueError(f"chunk_size must be three whole numbers such as [5, 10, 5], at most {list(LARGEST_CHUNK)}")
    return (numbers[0], numbers[1], numbers[2])


def _hotwords(value: object) -> tuple[str, ...]:
    """Three ways are in use: {"词": 20} within a string, words separated by blanks or commas, and a list."""
    words: Sequence[object]
    if isinstance(value, str):
        words = _weighted(value) if value.lstrip().startswith("{") else re.split(r"[\s,，]+", value)
    elif isinstance(value, dict | list):
        words = list(value)
    else:
        raise ValueError("hotwords must be text, or a list of words")
    found = tuple(dict.fromkeys(word.strip() for word in words if isinstance(word, str) and word.strip()))
    if len(found) > MOST_HOTWORDS or any(len(word) > LONGEST_HOTWORD for word in found):
        raise ValueError(f"at most {MOST_HOTWORDS} hotwords of at most {LONGEST_HOTWORD} characters")
    return tuple(word.encode(errors="replace").decode() for word in found)


def _weighted(value: str) -> list[str]:
    try:
        return list(answers.read(value.encode(errors="replace")))
    except ValueError as exc:
        raise ValueError('hotwords that begin with { must be JSON such as {"word": 20}') from exc


def _language(found: dict[str, Any], before: str) -> str:
    if "svs_lang" not in found:
        return before
    asked = answers.text(found, "svs_lang", 32).strip().lower()
    return "" if asked in UNSPECIFIED else code_of(asked)


def _milliseconds(value: object) -> int | None:
    return value if isinstance(value, int) and _whole(value, 0, 2**53) else None
