"""The voices of the NLS family: presets by name, and those that are registered for it, by name or id."""

from gateway.errors import NotFound
from gateway.state import State
from gateway.verbs import Preset, Reference


async def cast(state: State, name: str, device_id: str = "") -> Preset | Reference:
    """The voice of that name; empty is the default one.

    device_id: whose registered voices are meant; empty are those that every NLS client may use (nls_device). Of several
    with one name it is the newest. Raises NotFound.
    """
    settings = state["settings"]
    if name in ("", "default"):
        return Preset(settings.default_voice)
    if name in settings.presets:
        return Preset(name)
    owned = await state["voices"].list(device_id or settings.nls_device)
    found = [voice for voice in owned if name in (voice.id, voice.name)]
    if not found:
        raise NotFound("there is no such voice; GET /stream/v1/tts/voices names all", code="voice_not_found")
    return await state["voices"].reference(found[-1])
