"""What the beta dialect of Realtime calls by other names: a table of events, one of the session's fields, and the kinds
of content. Inside everything has its GA name."""

from enum import StrEnum

from gateway.wire.openai_realtime_fields import Fields, Json, Wrong

PCM, PCMU, PCMA = "audio/pcm", "audio/pcmu", "audio/pcma"

EVENTS = {
    "conversation.item.added": "conversation.item.created",
    "conversation.item.done": "",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}
"""GA → beta; empty where it has none."""
CONTENT = {"output_text": "text", "output_audio": "audio"}
_FORMATS = {"pcm16": PCM, "g711_ulaw": PCMU, "g711_alaw": PCMA}
_FIELDS = {
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "output_audio_format": "audio.output.format",
    "input_audio_format": "audio.input.format",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "turn_detection": "audio.input.turn_detection",
    "max_response_output_tokens": "max_output_tokens",
    "modalities": "output_modalities",
}
_TEMPERATURE = 0.8
"""Shown where the client has set none."""


class Dialect(StrEnum):
    GA = "ga"
    BETA = "beta"


def refuse(found: Fields) -> None:
    """Raises Wrong for a session of the GA dialect with names of this one."""
    for name in _FIELDS:
        if name in found:
            raise Wrong(f"Unknown parameter: '{found.name(name)}'.", "unknown_parameter", found.name(name))


def nested(flat: Json) -> Json:
    """A beta client's session, or its response.create, in the GA shape."""
    made: Json = {name: value for name, value in flat.items() if name not in _FIELDS and name != "audio"}
    for name, path in _FIELDS.items():
        if name in flat:
            *parents, last = path.split(".")
            into = made
            for parent in parents:
                into = into.setdefault(parent, {})
            value = flat[name]
            into[last] = {"type": _format(value)} if last == "format" and value is not None else value
    return made


def flat(said: Json, temperature: float | None) -> Json:
    """A session of the GA shape as a beta client wants to see it. Takes `said` apart."""
    audio = said.pop("audio")
    for name, path in _FIELDS.items():
        *parents, last = path.split(".")
        into = audio.get(parents[-1]) if parents else said
        if into is not None and last in into:
            said[name] = _NAMES[into[last]["type"]] if last == "format" else into[last]
    if "output" in audio:
        del said["max_output_tokens"], said["output_modalities"]
        said["modalities"] = modalities("audio" in said["modalities"])
        said["temperature"] = _TEMPERATURE if temperature is None else temperature
    return said


def modalities(speech: bool) -> list[str]:
    return ["text", "audio"] if speech else ["text"]


def renamed(exc: Wrong, path: str) -> Wrong:
    """With the name that a beta client knows the field by."""
    for name, ga in _FIELDS.items():
        full = f"{path}.{ga}"
        if exc.param is not None and f"{exc.param}.".startswith(f"{full}."):
            rest = exc.param[len(full) :] if ga.rpartition(".")[2] != "format" else ""
            param = f"{path}.{name}{rest}"
            return Wrong(str(exc).replace(exc.param, param), exc.code, param)
    return exc


# Private

_NAMES = {ga: name for name, ga in _FORMATS.items()}


def _format(value: object) -> object:
    return _FORMATS.get(value, value) if isinstance(value, str) else value
