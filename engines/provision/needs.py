"""What an engine needs, by its settings."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engines.settings import Engines

Role: TypeAlias = Literal["tts", "asr"]


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
    if role == "asr" or settings.tts_gpus.strip().lower() == "cpu":
        return frozenset()
    return frozenset(name for name in _SWITCHES if getattr(settings, name))


def models(role: Role, settings: Engines) -> list[Need]:
    return _synthesis(settings) if role == "tts" else _recognition(settings)


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
