"""A turn as the server tells a worker of it: fields, and all its audio one behind the other."""

from typing import Any

import numpy as np

from engines.s2s.backends import Asked, Call, Past, Said, Samples, ToolResult
from engines.s2s.memory import Heard, Turn, Wishes
from engines.workers.messages import Fields


def packed(heard: Heard, past: tuple[Turn, ...], wishes: Wishes) -> tuple[Fields, bytes]:
    fields = {
        "said": _said(heard),
        "past": [
            {"said": _said(turn.heard), "reply": turn.reply, "calls": [_call(call) for call in turn.calls]}
            for turn in past
        ],
        "persona": wishes.persona,
        "language": wishes.language,
        "speech": wishes.speech,
        "tools": list(wishes.tools),
    }
    return fields, b"".join([*(turn.heard.pcm for turn in past), heard.pcm])


def unpacked(fields: Fields, data: bytes) -> Asked:
    audio = _Audio(data)
    history = tuple(
        Past(_heard(turn["said"], audio), turn["reply"], tuple(Call(**call) for call in turn["calls"]))
        for turn in fields["past"]
    )
    return Asked(
        _heard(fields["said"], audio),
        history,
        fields["persona"],
        fields["language"],
        fields["speech"],
        tuple(fields["tools"]),
    )


# Private


def _said(heard: Heard) -> dict[str, Any]:
    results = [{"id": one.id, "output": one.output} for one in heard.results]
    return {"size": len(heard.pcm), "text": heard.text, "results": results}


def _call(call: Call) -> dict[str, str]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _heard(found: dict[str, Any], audio: "_Audio") -> Said:
    results = tuple(ToolResult(**one) for one in found["results"])
    return Said(audio.next(found["size"]), found["text"], results)


class _Audio:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def next(self, size: int) -> Samples:
        found = np.frombuffer(self._data, "<i2", size // 2, self._at)
        self._at += size
        return found.astype(np.float32) / np.float32(32768)
