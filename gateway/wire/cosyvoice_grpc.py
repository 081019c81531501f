"""CosyVoice's gRPC protocol, as upstream's runtime/python/grpc speaks it (read at ace7c47): one call, a request in and
a stream of responses out, each of which carries raw mono s16le PCM.

Protobuf by hand: five messages of nothing but strings and bytes need neither the library nor generated code.
Unknown fields are skipped, as protobuf asks; fields may come in any order and more than once, the last one counts.

Upstream's messages know no speed, no seed, no registered speaker and no instruction beside a recording; we add none of
these, since an engine that ignores them would say nothing about it. Upstream states no sample rate; our engine servers
state it in the initial metadata, under the name that it has as a header of HTTP (gateway/wire/cosyvoice.py).

Health is asked in the standard way (grpc.health.v1). Our engine servers put the whole report, as `GET /health` gives
it, into the initial metadata; upstream's do not know the call: whoever says so is there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass

INFERENCE = "/cosyvoice.CosyVoice/Inference"
HEALTH = "/grpc.health.v1.Health/Check"
REPORT_METADATA = "x-engine-health-bin"
"""Ours: a body as gateway/wire/engine_health.py makes it."""

PROMPT_RATE = 16_000
"""Hz, of every prompt_audio: mono s16le, without a header."""

_MOST_FIELDS = 100
"""Of one message: upstream's have three, and reading a million of them would stop everything else."""
_DEEPEST = 50
_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)


@dataclass(frozen=True, slots=True)
class Sft:
    """Fields of this and the next ones: in the order of their numbers, which begin with 1."""

    spk_id: str = ""
    tts_text: str = ""


@dataclass(frozen=True, slots=True)
class ZeroShot:
    tts_text: str = ""
    prompt_text: str = ""
    prompt_audio: bytes = b""


@dataclass(frozen=True, slots=True)
class CrossLingual:
    tts_text: str = ""
    prompt_audio: bytes = b""


@dataclass(frozen=True, slots=True)
class Instruct:
    tts_text: str = ""
    spk_id: str = ""
    instruct_text: str = ""


Request = Sft | ZeroShot | CrossLingual | Instruct

_PAYLOADS: Mapping[int, type[Request]] = {1: Sft, 2: ZeroShot, 3: CrossLingual, 4: Instruct}
"""The members of the oneof in Request, by field number."""
_NUMBERS = {kind: number for number, kind in _PAYLOADS.items()}
_TEXTS: Mapping[type[Request], Mapping[int, str]] = {
    kind: {at: name for at, name in enumerate(kind.__dataclass_fields__, 1) if name != "prompt_audio"}
    for kind in _NUMBERS
}
_AUDIO: Mapping[type[Request], int] = {ZeroShot: 3, CrossLingual: 2}


def encode_request(request: Request) -> bytes:
    parts = astuple(request)
    fields = [value.encode() if isinstance(value, str) else value for value in parts]
    payload = b"".join([_field(at, value) for at, value in enumerate(fields, 1) if value])
    return _field(_NUMBERS[type(request)], payload)


def decode_request(data: bytes) -> Request | None:
    """None where the request asks for nothing. Raises ValueError."""
    kind: type[Request] | None = None
    found: dict[str, str | bytes] = {}
    for number, value in _fields(data):
        if value is None or number not in _PAYLOADS:
            continue
        if kind is not _PAYLOADS[number]:  # of a oneof the last one counts; two of the same are merged
            kind, found = _PAYLOADS[number], {}
        found |= _values(kind, value)
    return None if kind is None else kind(**found)  # type: ignore[arg-type]


def encode_response(pcm: bytes) -> bytes:
    return _field(1, pcm) if pcm else b""


def decode_response(data: bytes) -> bytes:
    """PCM, which may be empty. Raises ValueError."""
    pcm = memoryview(b"")
    for number, value in _fields(data):
        if number == 1 and value is not None:
            pcm = value
    return bytes(pcm)


def encode_health(serving: bool) -> bytes:
    """A grpc.health.v1.HealthCheckResponse."""
    return b"\x08\x01" if serving else b"\x08\x02"


def _values(kind: type[Request], data: memoryview) -> Iterator[tuple[str, str | bytes]]:
    for number, value in _fields(data):
        if value is None:
            continue
        if number in _TEXTS[kind]:
            yield _TEXTS[kind][number], str(value, "utf-8")
        elif number == _AUDIO.get(kind):
            yield "prompt_audio", bytes(value)


def _field(number: int, value: bytes) -> bytes:
    return b"%c%b%b" % (number << 3 | _BYTES, _length(len(value)), value)


def _length(value: int) -> bytes:
    """As a varint."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """(number, content) of every field; the content is None where it is no string and no bytes. Raises ValueError."""
    view, at, count = memoryview(data), 0, 0
    groups: list[int] = []
    while at < len(view):
        count += 1
        tag, at = _varint(view, at, 5)
        number, kind = tag >> 3, tag & 7
        content = None
        if not 0 < number < 1 << 29 or count > _MOST_FIELDS:
            raise ValueError("not a message of this protocol: a field with an impossible number, or too many of them")
        if kind == _VARINT:
            _, at = _varint(view, at)
        elif kind == _BYTES:
            size, start = _varint(view, at)
            at = start + size
            content = view[start:at]
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        elif kind == _GROUP and len(groups) < _DEEPEST:
            groups.append(number)
        elif kind != _END_GROUP or not groups or groups.pop() != number:
            raise ValueError("not a message of this protocol: a field of an impossible type")
        if at > len(view):
            raise ValueError("the message ends in the middle of a field")
        if not groups:
            yield number, content
    if groups:
        raise ValueError("the message ends in the middle of a group")


def _varint(view: memoryview, at: int, longest: int = 10) -> tuple[int, int]:
    """(value, where the next thing begins). Raises ValueError."""
    value = 0
    for place in range(longest):
        if at + place >= len(view):
            raise ValueError("the message ends in the middle of a number")
        byte = view[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError(f"a number of more than {longest} bytes")
