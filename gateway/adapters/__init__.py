"""Engines by name: the whole plugin system. Which one serves a verb, and where, is configuration."""

from collections.abc import Callable

from gateway.adapters.connections import Client
from gateway.adapters.cosyvoice import CosyVoice
from gateway.adapters.funasr_http import FunAsrHttp
from gateway.settings import Settings, SettingsError
from gateway.verbs import Speaker, Transcriber

SPEAKERS: dict[str, Callable[[str, Client, Settings], Speaker]] = {"cosyvoice": CosyVoice}
TRANSCRIBERS: dict[str, Callable[[str, Client, Settings], Transcriber]] = {"funasr_http": FunAsrHttp}


def check(settings: Settings) -> None:
    """Raises SettingsError for an adapter that nobody has."""
    for name, known in (("speak_engine", list(SPEAKERS)), ("transcribe_engine", list(TRANSCRIBERS))):
        if (chosen := getattr(settings, name)) not in known:
            raise SettingsError(f"{name}: no adapter {chosen!r}; there is {', '.join(known)}")


def speakers(settings: Settings, http: Client) -> list[Speaker]:
    """One adapter for each replica of `speak`."""
    return [SPEAKERS[settings.speak_engine](url, http, settings) for url in settings.speak_urls]


def transcribers(settings: Settings, http: Client) -> list[Transcriber]:
    """One adapter for each replica of `transcribe`."""
    return [TRANSCRIBERS[settings.transcribe_engine](url, http, settings) for url in settings.transcribe_urls]
