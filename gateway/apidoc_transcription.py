"""The API document of OpenAI's transcriptions and translations."""

from gateway.apidoc_parts import BYTES, TEXT, Document, an_object, errors, form, says
from gateway.wire.openai_transcription_form import LONGEST_KEYWORD, MOST_KEYWORDS, Format

_NUMBER = {"type": "number"}
_TIMES = {"start": _NUMBER, "end": _NUMBER}
_SOURCE = {"timestamps": {"type": "string", "enum": ["engine", "estimated"]}}
_USAGE = {"usage": an_object(type=TEXT, seconds=_NUMBER)}
_WORD = an_object(word=TEXT, **_TIMES)
_SEGMENT = an_object(
    id={"type": "integer"},
    seek={"type": "integer", "description": "Hundredths of a second: where what was recognised with it begins."},
    text=TEXT,
    tokens={"type": "array", "items": {"type": "integer"}},
    temperature=_NUMBER,
    avg_logprob={**_NUMBER, "description": "0: no engine gives it."},
    compression_ratio=_NUMBER,
    no_speech_prob={**_NUMBER, "description": "0: no engine gives it."},
    **_TIMES,
    **_SOURCE,
)
_SPOKEN = an_object(type=TEXT, id=TEXT, speaker={**TEXT, "const": "A"}, text=TEXT, **_TIMES, **_SOURCE)


def paths(schema: str, stamps: tuple[str, ...]) -> Document:
    """schema: of errors; stamps: the headers of every answer."""
    transcribe = _operation("Recognise a recording of any length, with the times of its words.", schema, stamps)
    translate = _operation("The same in English: of English speech, and of engines that translate.", schema, stamps)
    transcribe["requestBody"] = form({**_fields(list(Format)), **_more()}, required=["file"])
    translate["requestBody"] = form(_fields([one for one in Format if one is not Format.DIARIZED]), required=["file"])
    return {"/v1/audio/transcriptions": {"post": transcribe}, "/v1/audio/translations": {"post": translate}}


def _operation(summary: str, schema: str, stamps: tuple[str, ...]) -> Document:
    whole = an_object(text=TEXT, **_USAGE)
    whole["properties"]["languages"] = {"type": "array", "items": an_object(code=TEXT)}
    timed = an_object(task=TEXT, language=TEXT, duration=_NUMBER, text=TEXT, **_SOURCE, **_USAGE)
    timed["properties"] |= {
        "words": {"type": "array", "items": _WORD},
        "segments": {"type": "array", "items": _SEGMENT},
    }
    spoken = an_object(
        task=TEXT, duration=_NUMBER, text=TEXT, segments={"type": "array", "items": _SPOKEN}, **_SOURCE, **_USAGE
    )
    said = {
        "description": "JSON, which begins with blanks where it takes long; or text, subtitles or events "
        "(transcript.text.delta, transcript.text.segment, transcript.text.done), which leave as they are made and are "
        "broken off when the engine fails in the middle. X-Voxgate-Timestamps says whose the times are.",
        "headers": says(*stamps),
        "content": {
            "application/json": {"schema": {"anyOf": [timed, spoken, whole]}},
            **{kind: {"schema": TEXT} for kind in ("text/plain", "text/vtt", "text/event-stream")},
        },
    }
    return {
        "tags": ["OpenAI"],
        "summary": summary,
        "responses": {"200": said, **errors(400, 413, 502, 503, 504, schema=schema)},
    }


def _fields(formats: list[Format]) -> Document:
    return {
        "file": {**BYTES, "description": "Any recording that ffmpeg reads."},
        "model": {**TEXT, "description": "Any: the engine behind the gateway hears it."},
        "prompt": {**TEXT, "description": "Words and names to expect, separated by commas; prose is passed over."},
        "language": {**TEXT, "pattern": r"^[A-Za-z-]{2,20}$", "description": "ISO 639 code of what is spoken."},
        "response_format": {**TEXT, "enum": [one.value for one in formats]},
        "temperature": {**_NUMBER, "minimum": 0, "maximum": 1, "description": "Has no effect."},
    }


def _more() -> Document:
    return {
        "languages[]": _list(TEXT | {"pattern": r"^[A-Za-z]{2,3}$"}, "Which it may be; one alone is as language."),
        "keywords[]": _list(TEXT | {"maxLength": LONGEST_KEYWORD}, "Words to expect.", maxItems=MOST_KEYWORDS),
        "timestamp_granularities[]": _list(TEXT | {"enum": ["word", "segment"]}, "Of verbose_json."),
        "include[]": _list(TEXT | {"enum": ["logprobs"]}, "Accepted; no engine has any."),
        "stream": {"type": "boolean", "description": "Answer with events."},
        "chunking_strategy": {
            **TEXT,
            "description": 'auto, or {"type": "server_vad", "threshold", "silence_duration_ms", "prefix_padding_ms"}.',
        },
    }


def _list(items: Document, description: str, **more: int) -> Document:
    return {"type": "array", "items": items, "description": description, **more}
