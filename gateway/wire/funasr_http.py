"""The recognition protocol of the Fun-Audio-Chat stack: POST /api/transcribe, multipart.

Fields: file `audio`; `language`, as an ISO code or a Chinese name; `hotwords`, separated by commas or as a JSON list;
ours: `itn`, true (the default) or false.
Answers: 200 {"text", "language", "success": true}, and from engines that know them
"timestamps": [{"token", "start_time", "end_time"}] in seconds; 4xx and 5xx {"error", "success": false}.
"""

import json
import re
from collections.abc import Sequence
from math import isfinite
from typing import Any

from gateway.wire import answers

PATH = "/api/transcribe"
INFO = "/api/info"
"""GET: {"model", "model_path", "device", "supported_languages", "features", "timestamps"}."""
AUDIO, LANGUAGE, HOTWORDS, ITN = "audio", "language", "hotwords", "itn"
TIMESTAMPS = "timestamps"

UNSPECIFIED = ("", "auto", "自动")
"""What callers write, in any case, where they leave the language to the engine; an upstream engine must not be sent it,
since it puts the word into its prompt."""

LANGUAGES = {
    "zh": ("中文", "汉语", "普通话", "chinese", "mandarin", "cmn", "zh-cn"),
    "en": ("英文", "英语", "english", "en-us", "en-gb"),
    "ja": ("日文", "日语", "japanese", "jp"),
    "yue": ("粤语", "广东话", "cantonese"),
    "ko": ("韩文", "韩语", "korean", "kr"),
    "vi": ("越南语", "vietnamese"),
    "id": ("印尼语", "印度尼西亚语", "indonesian"),
    "th": ("泰语", "thai"),
    "ms": ("马来语", "malay"),
    "tl": ("菲律宾语", "filipino", "tagalog", "fil"),
    "ar": ("阿拉伯语", "arabic"),
    "hi": ("印地语", "hindi"),
    "ru": ("俄语", "russian"),
    "de": ("德语", "german"),
    "fr": ("法语", "french"),
    "es": ("西班牙语", "spanish"),
    "pt": ("葡萄牙语", "portuguese"),
    "it": ("意大利语", "italian"),
    "bg": ("保加利亚语", "bulgarian"),
    "hr": ("克罗地亚语", "croatian"),
    "cs": ("捷克语", "czech"),
    "da": ("丹麦语", "danish"),
    "nl": ("荷兰语", "dutch"),
    "et": ("爱沙尼亚语", "estonian"),
    "fi": ("芬兰语", "finnish"),
    "el": ("希腊语", "greek"),
    "hu": ("匈牙利语", "hungarian"),
    "ga": ("爱尔兰语", "irish"),
    "lv": ("拉脱维亚语", "latvian"),
    "lt": ("立陶宛语", "lithuanian"),
    "mt": ("马耳他语", "maltese"),
    "pl": ("波兰语", "polish"),
    "ro": ("罗马尼亚语", "romanian"),
    "sk": ("斯洛伐克语", "slovak"),
    "sl": ("斯洛文尼亚语", "slovenian"),
    "sv": ("瑞典语", "swedish"),
}
"""ISO 639 code to the other names that callers use for it; the first one is the name this protocol prefers."""

_CODES = {name: code for code, names in LANGUAGES.items() for name in (code, *names)}


def code_of(language: str) -> str:
    """ISO 639 code of a language as a caller wrote it; what it wrote, in lower case, where it is not one of ours."""
    wanted = language.strip().lower()
    return _CODES.get(wanted, wanted)


def name_of(code: str) -> str:
    """The name this protocol prefers for an ISO 639 code."""
    return LANGUAGES[code][0] if code in LANGUAGES else code


def hotwords_of(text: str) -> tuple[str, ...]:
    """The words of a comma-separated field, where Chinese commas count too, or of a JSON list."""
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except ValueError:
            listed = None
        if isinstance(listed, list):
            return tuple(word.strip() for word in map(str, listed) if word.strip())
    return tuple(word.strip() for word in re.split("[,，、\n]", text) if word.strip())


Times = Sequence[tuple[str, float, float]]
"""(word, start, end), in seconds."""


def result(text: str, language: str, times: Times | None = None) -> bytes:
    """times: None where the engine has none to give, which is not the same as nothing said."""
    body: dict[str, Any] = {"text": text, "language": language, "success": True}
    if times is not None:
        body[TIMESTAMPS] = [{"token": word, "start_time": start, "end_time": end} for word, start, end in times]
    return json.dumps(body, ensure_ascii=False).encode()


def info(model: str, device: str, languages: Sequence[str], timestamps: bool) -> bytes:
    """languages: ISO 639 codes."""
    body = {
        "model": model,
        "model_path": model,
        "device": device,
        "supported_languages": [name_of(code) for code in languages],
        "features": ["timestamps"] * timestamps,
        TIMESTAMPS: timestamps,
    }
    return json.dumps(body, ensure_ascii=False).encode()


def error(text: str) -> bytes:
    return json.dumps({"error": text, "success": False}, ensure_ascii=False).encode()


def read_result(body: bytes) -> tuple[str, str, Times]:
    """(text, language, times) of a 200 answer. Raises ValueError."""
    found = answers.read(body)
    if not isinstance(found.get("text"), str):
        raise ValueError("no text in it")
    return answers.text(found, "text"), answers.text(found, "language", 50), _times(found.get(TIMESTAMPS))


def _times(found: object) -> Times:
    if not isinstance(found, list):
        return ()
    try:
        return [(_token(one), _seconds(one["start_time"]), _seconds(one["end_time"])) for one in found]
    except (TypeError, KeyError, ValueError, OverflowError) as exc:
        raise ValueError("timestamps that are none") from exc


def _seconds(found: Any) -> float:
    """Python's JSON knows NaN and Infinity, which nobody else can read."""
    if not isfinite(seconds := float(found)):
        raise ValueError
    return seconds


def _token(found: object) -> str:
    if not isinstance(found, dict):
        raise TypeError
    return answers.text(found, "token", 1000)


def read_error(body: bytes) -> str:
    """What an answer of another status says, in one line; empty where it says nothing readable."""
    try:
        found = answers.read(body)
    except ValueError:
        return " ".join(body.decode(errors="replace").split())[:200]
    says = (answers.text(found, name) for name in ("error", "message", "detail"))
    return " ".join(next(filter(None, says), "").split())[:500]
