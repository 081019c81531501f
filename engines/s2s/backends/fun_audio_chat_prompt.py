"""What the model is told: upstream's own sentences, the operator's or user's persona, the turns so far."""

import json
import runpy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines.s2s.backends import RATE, Asked, Said, Samples
from engines.s2s.backends.fun_audio_chat_calls import written

MOST_AUDIO = 300 * RATE
"""Samples of all turns that the model hears again; what its encoder takes grows with the square of them."""
_LEAST_AUDIO = RATE // 2
"""Samples; what is shorter is padded with silence: a clip without a single frame has no place in the prompt."""
_TOOLS = "{tools_definition}"
_LANGUAGES = {
    "zh": "Mandarin Chinese", "yue": "Cantonese", "en": "English", "ja": "Japanese", "ko": "Korean", "fr": "French",
    "de": "German", "es": "Spanish", "it": "Italian", "ru": "Russian", "pt": "Portuguese",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentences:
    """Upstream's. Without the one of its mode the model is not told whether to speak."""

    speak: str
    write: str
    persona: str
    """With `speak` in front."""
    call: str
    """With `write` in front, and a place for the tools."""
    audio: str
    """Where a clip is heard."""


@dataclass(frozen=True, slots=True)
class Prompt:
    messages: list[dict[str, str]] = field(repr=False)
    clips: list[Samples] = field(repr=False)
    """At RATE, one for each place in the messages."""


def sentences(source: Path) -> Sentences:
    """source: upstream's folder."""
    found = runpy.run_path(str(source / "utils" / "constant.py"))
    return Sentences(
        speak=found["DEFAULT_S2M_PROMPT"],
        write=found["DEFAULT_S2T_PROMPT"],
        persona=found["SPOKEN_S2M_PROMPT"],
        call=found["FUNCTION_CALLING_PROMPT"],
        audio=found["AUDIO_TEMPLATE"],
    )


def conversation(asked: Asked, told: Sentences, longest: int, *, calling: bool) -> Prompt:
    """longest: samples of one clip that the model hears; a longer turn is heard as several. calling: whether it is to
    call tools if it wants to, which it can only do in writing."""
    prompt = Prompt([{"role": "system", "content": _system(asked, told, calling)}], [])
    for past in asked.history[_first_heard(asked) :]:
        prompt.messages.append({"role": "user", "content": _user(past.said, told, longest, prompt.clips)})
        if reply := "\n".join(filter(None, (plain(past.reply.strip()), written(past.calls)))):
            prompt.messages.append({"role": "assistant", "content": reply})
    prompt.messages.append({"role": "user", "content": _user(asked.said, told, longest, prompt.clips)})
    return prompt


def plain(text: str) -> str:
    """Text in which nothing can be taken for one of the model's marks, or for the processor's own."""
    return text.replace("<|", "< |").replace("<placeholder>", "< placeholder>")


# Private


def _system(asked: Asked, told: Sentences, calling: bool) -> str:
    mode = told.speak if asked.speech and not calling else told.write
    # Tools are called as upstream tried it: by nobody in particular, unless there is a wish.
    own = "" if calling else told.persona.removeprefix(told.speak).strip()
    persona = plain(asked.persona.strip()) or own
    language = asked.language.split("-")[0].lower()
    wish = f"Always reply in {_LANGUAGES.get(language, plain(asked.language))}." if language else ""
    whole = " ".join(filter(None, (mode, persona, wish)))
    return whole + told.call.removeprefix(told.write).replace(_TOOLS, _tools(asked.tools)) if calling else whole


def _tools(tools: tuple[dict[str, Any], ...]) -> str:
    """One on each line."""
    return "\n".join(plain(json.dumps(tool, ensure_ascii=False)) for tool in tools)


def _first_heard(asked: Asked) -> int:
    """Index into the history: what is older would be too much to hear."""
    heard = len(asked.said.audio)
    for index in range(len(asked.history) - 1, -1, -1):
        heard += len(asked.history[index].said.audio)
        if heard > MOST_AUDIO:
            return index + 1
    return 0


def _user(said: Said, told: Sentences, longest: int, clips: list[Samples]) -> str:
    """Adds the clips of a turn; returns its message."""
    parts = [f"<tool_response>\n{plain(result.output)}\n</tool_response>" for result in said.results]
    for clip in _clips(said.audio[-MOST_AUDIO:], longest):
        clips.append(clip)
        parts.append(told.audio)
    if said.text:
        parts.append(plain(said.text))
    return "\n".join(parts)


def _clips(audio: Samples, longest: int) -> Iterator[Samples]:
    """In pieces of one length as near as can be, so that the last is never a fragment."""
    if not len(audio):
        return
    for piece in np.array_split(audio, -(-len(audio) // longest)):
        clip = np.ascontiguousarray(piece, np.float32)
        yield np.pad(clip, (0, max(0, _LEAST_AUDIO - len(clip))))
