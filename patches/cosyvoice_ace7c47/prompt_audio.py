"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/utils/file_utils.py::load_wav, and its callers in cli/cosyvoice.py
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       since 622a3a1 load_wav is given what upstream's own servers made with it, a tensor, and fails with
              "Invalid file: tensor" once 200 has been sent. A file is read three times for each sentence, and first
              when the answer is under way, so it may be gone by then, or have been read to its end. And
              torchaudio.load needs torchcodec from version 2.9 on
Sent:         not sent, because it has only been tried on tiny models
Remove when:  the servers under runtime/python clone a voice from an upload
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("cosyvoice.utils.file_utils", "cosyvoice.cli.frontend", "cosyvoice.cli.cosyvoice")
READ_AGAINST = {
    "cosyvoice.utils.file_utils": {"load_wav": "a5c688046ab44054378495c6e5b9b122ba696a27cd3ceb222a66564f7840c434"},
    "cosyvoice.cli.frontend": {
        "CosyVoiceFrontEnd._extract_speech_feat": "8160029f8878be432b94c8b5fae0c1666fc0fab065117cbb28cae6216c79a0bf",
        "CosyVoiceFrontEnd._extract_speech_token": "fa56acd851342094fe7fde51324140c319be141da8baf52aafec5a857bcb9786",
        "CosyVoiceFrontEnd._extract_spk_embedding": "fa544313fa1cd225357ffd0706b622be84ca985975cfd64036497499d7893405",
    },
    "cosyvoice.cli.cosyvoice": {
        "CosyVoice.add_zero_shot_spk": "6dc4c77fabc5a0ec2b8bff158889f780abf6a0f666980e5b2c46ebbd75a9aca2",
        "CosyVoice.inference_zero_shot": "13533f26c3e7f6557eaf3223e2bed68f8e172855e9f2f6759b7d538ea162934d",
        "CosyVoice.inference_cross_lingual": "24c5b77f6207067e02df2059274dcf85668df1fdbdf02705d10a35000c94dc50",
        "CosyVoice.inference_vc": "aca17de6ee5cee67efe233c3924052e3653a0da392a4c72ad651af8565322928",
        "CosyVoice2.inference_instruct2": "51e5bc2a0cab266940fa7e0b8385c39deff27f8138c059015530c8f540d013d7",
    },
}
_HANDED_OVER = 16_000
"""Hz, of a tensor from elsewhere: upstream's gRPC server makes it of the bytes it is sent."""


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST[module.__name__], __file__)
    if module.__name__ != "cosyvoice.cli.cosyvoice":
        module.load_wav = load_wav  # type: ignore[attr-defined]
        return
    for name in READ_AGAINST[module.__name__]:
        kind, method = name.split(".")
        cls = getattr(module, kind)
        setattr(cls, method, _reading_first(getattr(cls, method)))


def load_wav(wav: Any, target_sr: int, min_sr: int = 16_000) -> Any:
    """Float [1, samples] at `target_sr`, mixed down. `wav`: a path, a file at any position, or a tensor: one that was
    made here is taken at the rate and in the quality of its file. Raises AssertionError for a rate below `min_sr`."""
    import torchaudio

    speech, rate = _recording(wav)
    if rate == target_sr:
        return _remembering(speech, speech, rate)
    assert rate >= min_sr, f"the recording's sample rate is {rate}; it must be at least {min_sr}"
    return _remembering(torchaudio.functional.resample(speech, rate, target_sr), speech, rate)


def _reading_first(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with its files read before it returns, which a generator function does in its own time."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def reading(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name in ("source_wav", "prompt_wav"):
            wav = given.arguments.get(name)
            if wav is not None and not (isinstance(wav, str) and wav == ""):  # empty beside a registered speaker
                speech, rate = _recording(wav)
                given.arguments[name] = _remembering(speech, speech, rate)
        return call(*given.args, **given.kwargs)

    return reading


def _recording(wav: Any) -> tuple[Any, int]:
    """Float [1, samples], and its rate."""
    import soundfile
    import torch

    if isinstance(wav, torch.Tensor):
        remembered: tuple[Any, int] | None = getattr(wav, "recording", None)
        return remembered or (wav.reshape(-1, wav.shape[-1]).mean(dim=0, keepdim=True), _HANDED_OVER)
    if hasattr(wav, "seek"):
        wav.seek(0)
    samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    return torch.from_numpy(samples).mean(dim=1)[None], rate


def _remembering(speech: Any, recording: Any, rate: int) -> Any:
    speech = speech.view(speech.shape)  # a tensor of its own, so that none comes to hold itself
    speech.recording = (recording, rate)
    return speech
