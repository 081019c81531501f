"""CosyVoice's HTTP protocol, as upstream's FastAPI server speaks it (read at ace7c47), with additions of ours.

A form in, raw headerless mono s16le PCM out, one piece after the other. Upstream states no sample rate; our engine
servers state it in SAMPLE_RATE_HEADER. Upstream reads no `speed`; our engine servers do, and upstream ignores it.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote_from_bytes

SFT = "/inference_sft"
"""Fields: tts_text, spk_id."""
ZERO_SHOT = "/inference_zero_shot"
"""Fields: tts_text, prompt_text, file prompt_wav."""
CROSS_LINGUAL = "/inference_cross_lingual"
"""Fields: tts_text, file prompt_wav."""
INSTRUCT = "/inference_instruct"
"""Fields: tts_text, spk_id, instruct_text. CosyVoice-300M-Instruct only."""
INSTRUCT2 = "/inference_instruct2"
"""Fields: tts_text, instruct_text, file prompt_wav."""

TEXT, SPEAKER, PROMPT_TEXT, PROMPT_WAV, INSTRUCTION = (
    "tts_text", "spk_id", "prompt_text", "prompt_wav", "instruct_text",
)  # fmt: skip
SPEED, STREAM, SEED, REGISTERED = "speed", "stream", "seed", "zero_shot_spk_id"
"""Ours, each may be left out. speed: 0.5 to 2. stream: true (the default) or false, whether audio comes while a
sentence is still being made. seed: makes the same answer come twice. zero_shot_spk_id: a speaker that
/register_speaker made known, in the place of prompt_wav."""

REGISTER = "/register_speaker"
"""Ours. Fields: zero_shot_spk_id, file prompt_wav; prompt_text may be left out. Answers {"zero_shot_spk_id"}."""
SPEAKERS = "/speakers"
"""Ours, GET: {"speakers": [built in, for spk_id], "registered": [for zero_shot_spk_id]}."""

SAMPLE_RATE_HEADER = "x-sample-rate"
"""Ours: Hz, decimal."""
PCM_TYPE = "audio/pcm"
"""Ours: upstream sends no content type."""

PRESETS = ("中文女", "中文男", "日语男", "粤语女", "英文女", "英文男", "韩语女")
"""Speakers built into CosyVoice-300M-SFT."""

_TAG = re.compile(r"<\|([^|<>]*)\|>")


def tagged(text: str, language: str) -> str:
    """`text` with CosyVoice's language tag before it, for cross-lingual synthesis; unchanged without a language."""
    return f"<|{language}|>{text}" if language else text


def split_tag(text: str) -> tuple[str, str]:
    """(language, text) of a text that may begin with a language tag; language is empty without one."""
    found = _TAG.match(text)
    return (found[1].strip().lower(), text[found.end() :]) if found else ("", text)


def without_control(text: str) -> str:
    """A user's text with nothing in it that CosyVoice reads as an instruction (`<|…|>` also switches off its
    splitting into sentences)."""
    while "<|" in text or "|>" in text:
        text = _TAG.sub(" ", text).replace("<|", "< ").replace("|>", " >")
    return text


def read_rate(stated: bytes) -> int:
    """Hz, of what SAMPLE_RATE_HEADER says. Raises ValueError."""
    if not stated.isdigit() or len(stated) > 6 or not 8000 <= int(stated) <= 192_000:
        raise ValueError(f"the engine states an impossible sample rate: {stated[:20]!r}")
    return int(stated)


def form(fields: Mapping[str, str]) -> bytes:
    """The fields as application/x-www-form-urlencoded. Names are ours and need no escape."""
    return "&".join([f"{name}={quote_from_bytes(value.encode())}" for name, value in fields.items()]).encode()
