"""What an engine needs, by its settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from engines.settings import Engines

Role: TypeAlias = Literal["tts", "asr", "s2s"]

SOURCES: Mapping[Role, tuple[str, ...]] = {"tts": ("CosyVoice",), "asr": (), "s2s": ("CosyVoice", "Fun-Audio-Chat")}
"""What upstream code each stands on, by its name in models.lock. Fun-Audio-Chat's own server has an older CosyVoice
beside it; between the two, what makes its speech has changed for the better only."""


@dataclass(frozen=True, slots=True)
class Need:
    """A model."""

    id: str
    """Its name on a hub, or a folder."""
    setting: str
    """The environment variable that names it."""
    family: str
    """Of its kind in models.lock."""
    switches: frozenset[str] = frozenset()
    """The settings that are on and may ask more of it."""
    also: tuple[str, ...] = ()
    """What it must hold for this use."""


_SWITCHES = ("tts_load_jit", "tts_load_trt", "tts_load_vllm")


def switches(role: Role, settings: Engines) -> frozenset[str]:
    """The settings that are on and ask for more. Without a GPU, CosyVoice goes without all of them."""
    if role != "tts" or settings.tts_gpus.strip().lower() == "cpu":
        return frozenset()
    return frozenset(name for name in _SWITCHES if getattr(settings, name))


def models(role: Role, settings: Engines) -> list[Need]:
    match role:
        case "tts":
            return _synthesis(settings)
        case "asr":
            return _recognition(settings)
        case "s2s":
            return _conversation(settings)


# Private


def _synthesis(settings: Engines) -> list[Need]:
    on = switches("tts", settings)
    mode = settings.tts_model_mode
    needs = []
    if mode in ("all", "sft"):  # a preset voice is an entry of spk2info.pt
        needs.append(Need(settings.sft_model_id, "SFT_MODEL_ID", "cosyvoice", on, ("spk2info.pt",)))
    if mode in ("all", "clone"):
        if settings.clone_model_version == "cosyvoice2":
            needs.append(Need(settings.clone_model_id, "CLONE_MODEL_ID", "cosyvoice", on))
        else:
            needs.append(Need(settings.cosyvoice3_model_id, "COSYVOICE3_MODEL_ID", "cosyvoice", on))
    return needs


def _conversation(settings: Engines) -> list[Need]:
    return [
        Need(settings.s2s_model_id, "S2S_MODEL_ID", "fun_audio_chat"),
        # All of it: the folder is synthesis's as well, which needs more than the flow and the vocoder.
        Need(settings.s2s_vocoder_model_id, "S2S_VOCODER_MODEL_ID", "cosyvoice"),
    ]


def _recognition(settings: Engines) -> list[Need]:
    mode = settings.asr_model_mode
    needs = []
    if mode in ("all", "offline"):
        needs.append(Need(settings.asr_model_id, "ASR_MODEL_ID", "funasr"))
    if mode in ("all", "realtime"):
        needs.append(Need(settings.asr_realtime_model_id, "ASR_REALTIME_MODEL_ID", "funasr"))
    needs.append(Need(settings.vad_model_id, "VAD_MODEL_ID", "funasr"))
    if mode in ("all", "realtime") and settings.asr_enable_realtime_punc:
        needs.append(Need(settings.punc_realtime_model_id, "PUNC_REALTIME_MODEL_ID", "funasr"))
    if settings.punc_model_id.lower() != "none":
        needs.append(Need(settings.punc_model_id, "PUNC_MODEL_ID", "funasr"))
    return needs
