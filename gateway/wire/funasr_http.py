"""The recognition protocol of the Fun-Audio-Chat stack: POST /api/transcribe, multipart.

Fields: file `audio`; `language`, as an ISO code or a Chinese name; `hotwords`, separated by commas.
Answers: 200 {"text", "language", "success": true}; 4xx and 5xx {"error", "success": false}.
"""

import json
import re

from gateway.wire import answers

PATH = "/api/transcribe"
AUDIO, LANGUAGE, HOTWORDS = "audio", "language", "hotwords"

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
    "tl": ("菲律宾语", "filipino", "tagalog"),
    "ar": ("阿拉伯语", "arabic"),
    "hi": ("印地语", "hindi"),
    "ru": ("俄语", "russian"),
    "de": ("德语", "german"),
    "fr": ("法语", "french"),
    "es": ("西班牙语", "spanish"),
    "pt": ("葡萄牙语", "portuguese"),
    "it": ("意大利语", "italian"),
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
    """The words of a comma-separated field; Chinese commas count too."""
    return tuple(word.strip() for word in re.split("[,，、\n]", text) if word.strip())


def result(text: str, language: str) -> bytes:
    return json.dumps({"text": text, "language": language, "success": True}, ensure_ascii=False).encode()


def error(text: str) -> bytes:
    return json.dumps({"error": text, "success": False}, ensure_ascii=False).encode()


def read_result(body: bytes) -> tuple[str, str]:
    """(text, language) of a 200 answer. Raises ValueError."""
    found = answers.read(body)
    if not isinstance(found.get("text"), str):
        raise ValueError("no text in it")
    return answers.text(found, "text"), answers.text(found, "language", 50)


def read_error(body: bytes) -> str:
    """What an answer of another status says, in one line; empty where it says nothing readable."""
    try:
        found = answers.read(body)
    except ValueError:
        return " ".join(body.decode(errors="replace").split())[:200]
    says = (answers.text(found, name) for name in ("error", "message", "detail"))
    return " ".join(next(filter(None, says), "").split())[:500]
