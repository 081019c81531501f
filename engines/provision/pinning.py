"""deploy/models.lock, written anew with what the hubs state of every file. What people wrote in it stays."""

import json

from engines.provision import lock, web
from engines.provision.hubs import Hub
from engines.provision.lock import Model, Pin, Place, matching
from engines.provision.refusal import ProvisionError
from engines.settings import Engines


def filled(settings: Engines) -> tuple[str, list[str]]:
    """(the text of the lock, what could not be had). A place that could not be asked keeps its pins."""
    text = settings.models_lock.read_text()
    failures = []
    for model in lock.read(settings.models_lock).models.values():
        for place in model.places.values():
            try:
                listed = Hub(place.hub, settings).listing(place)
            except (web.WebError, ProvisionError) as exc:
                failures.append(f"{place.id} on {place.hub}: {exc}")
            else:
                text = _with_pins(text, model, place, listed)
    return text, failures


# Private


def _with_pins(text: str, model: Model, place: Place, listed: dict[str, Pin]) -> str:
    """The place's section with a section of files right behind it, and no other one."""
    head = f"[models.{json.dumps(model.id)}.{place.hub}]"
    files = f"[models.{json.dumps(model.id)}.{place.hub}.files]"
    made: list[str] = []
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            if section == head:
                made += _pins(files, model, listed)
            section = line.strip()
        if section != files:
            made.append(line)
    if section == head:
        made += _pins(files, model, listed)
    return "\n".join(made) + "\n"


def _pins(head: str, model: Model, listed: dict[str, Pin]) -> list[str]:
    lines = [head]
    for name, pin in sorted(listed.items()):
        if not matching(name, model.leaves):
            words = [f"size = {pin.size}"]
            words += [f'{key} = "{value}"' for key, value in (("sha256", pin.sha256), ("git", pin.git)) if value]
            lines.append(f"{json.dumps(name)} = {{ {', '.join(words)} }}")
    return [*lines, ""]
