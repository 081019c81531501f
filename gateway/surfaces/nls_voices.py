"""The voices of the NLS family: presets by name, and those that are registered for it, by name or id."""

from dataclasses import dataclass, field
from datetime import datetime

from gateway.errors import NotFound
from gateway.state import State
from gateway.verbs import Preset, Reference

_LANGUAGES = {"中文": "zh-CN", "粤语": "zh-HK", "英文": "en-US", "日语": "ja-JP", "韩语": "ko-KR"}
"""What CosyVoice's presets are called after."""
_GENDERS = {"女": "female", "男": "male"}


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a voice."""

    name: str
    clone: bool = False
    language: str = "unknown"
    """BCP 47."""
    gender: str = "unknown"
    description: str = ""
    text: str = field(default="", repr=False)
    """What is said in its recording, where somebody knows."""
    added_at: datetime | None = None


async def cards(state: State) -> dict[str, Card]:
    """Of all that every NLS client may name, by name; of registered ones with one name the newest, and none that has a
    preset's."""
    settings = state["settings"]
    presets = {name: _preset(name) for name in settings.presets}
    owned = await state["voices"].list(settings.nls_device)
    clones = {
        voice.name: Card(
            voice.name,
            clone=True,
            description=f"零样本克隆音色：{voice.name}",
            text=voice.prompt_text,
            added_at=voice.created_at,
        )
        for voice in owned
    }
    return presets | {name: card for name, card in clones.items() if name not in presets}


async def cast(state: State, name: str, device_id: str = "") -> Preset | Reference:
    """The voice of that name: a preset, one of Alibaba's, or a registered one by name or id; empty is the default
    one.

    device_id: whose registered voices are meant; empty are those that every NLS client may use (nls_device). Raises
    NotFound.
    """
    settings = state["settings"]
    if name in settings.presets:
        return Preset(name)
    if name in ("", "default") or name in settings.nls_presets:
        return Preset(settings.nls_presets.get(name, settings.default_voice))
    voices = state["voices"]
    try:
        return await voices.reference(await voices.named(device_id or settings.nls_device, name))
    except NotFound:
        why = "there is no such voice; GET /stream/v1/tts/voices names all"
        raise NotFound(why, code="voice_not_found") from None


# Private


def _preset(name: str) -> Card:
    language = next((tag for word, tag in _LANGUAGES.items() if name.startswith(word)), "unknown")
    return Card(name, language=language, gender=_GENDERS.get(name[-1:], "unknown"), description=f"预设音色：{name}")
