"""Engines by name: the whole plugin system. Which one serves a verb, and where, is configuration."""

import re
from collections.abc import Callable
from pathlib import Path

from gateway.adapters.cascade import Cascade
from gateway.adapters.cascade_conversation import Replier
from gateway.adapters.chat import Chat
from gateway.adapters.connections import Client
from gateway.adapters.cosyvoice import CosyVoice
from gateway.adapters.cosyvoice_grpc import CosyVoiceGrpc
from gateway.adapters.duix import Duix
from gateway.adapters.fun_audio_chat import FunAudioChat
from gateway.adapters.funasr import FunAsr, FunAsrWs
from gateway.adapters.funasr_http import FunAsrHttp
from gateway.adapters.responder import Responder
from gateway.events import Audio, Transcript
from gateway.settings import Settings, SettingsError
from gateway.verbs import Animator, Converser, Speak, Speaker, Transcribe, Transcriber, Verb


def _funasr(url: str, http: Client, settings: Settings) -> FunAsr:
    return FunAsr(url, http, settings, whole=FunAsrHttp(url, http, settings))


SPEAKERS: dict[str, Callable[[str, Client, Settings], Speaker]] = {
    "cosyvoice": CosyVoice,
    "cosyvoice_grpc": CosyVoiceGrpc,
}
TRANSCRIBERS: dict[str, Callable[[str, Client, Settings], Transcriber]] = {
    "funasr": _funasr,
    "funasr_http": FunAsrHttp,
    "funasr_ws": lambda url, http, settings: FunAsrWs(url, settings),
}
ANIMATORS: dict[str, Callable[[str, Client, Settings], Animator]] = {"duix": Duix}
CONVERSERS = ("cascade", "fun_audio_chat")

_HTTP = ("http(s)://host[:port][/path]", re.compile(r"https?://.+"))
_ADDRESSES = {
    "cosyvoice_grpc": ("grpc://host:port", re.compile(r"grpc://.+:[0-9]+/?")),
    "funasr_ws": ("ws(s)://host[:port][/path]", re.compile(r"wss?://.+")),
}
"""What the address of an engine looks like, to people and to us; _HTTP for those that are not here."""


def check(settings: Settings) -> None:
    """Raises SettingsError for an adapter that nobody has, and for addresses that are none of its protocol."""
    for name, known in (
        ("speak_engine", SPEAKERS),
        ("transcribe_engine", TRANSCRIBERS),
        ("converse_engine", CONVERSERS),
        ("animate_engine", ANIMATORS),
    ):
        if (chosen := getattr(settings, name)) not in known:
            raise SettingsError(f"{name}: no adapter {chosen!r}; there is {', '.join(known)}")
    for verb in ("speak", "transcribe", "converse", "animate"):
        adapter = getattr(settings, f"{verb}_engine")
        shown, form = _ADDRESSES.get(adapter, _HTTP)
        for url in getattr(settings, f"{verb}_urls"):
            if not form.fullmatch(url):
                raise SettingsError(f"{verb}_urls: the adapter {adapter} takes {shown}, got {url!r}")


def speakers(settings: Settings, http: Client) -> list[Speaker]:
    """One adapter for each replica of `speak`."""
    return [SPEAKERS[settings.speak_engine](url, http, settings) for url in settings.speak_urls]


def transcribers(settings: Settings, http: Client) -> list[Transcriber]:
    """One adapter for each replica of `transcribe`."""
    return [TRANSCRIBERS[settings.transcribe_engine](url, http, settings) for url in settings.transcribe_urls]


def animators(settings: Settings, http: Client) -> list[Animator]:
    """One adapter for each replica of `animate`; there may be none."""
    return [ANIMATORS[settings.animate_engine](url, http, settings) for url in settings.animate_urls]


def conversers(
    settings: Settings,
    http: Client,
    transcribe: Verb[Transcribe, Transcript],
    speak: Verb[Speak, Audio],
    scratch: Path,
) -> list[Converser]:
    """One adapter for each replica of `converse`; the cascade is one, whatever the verbs below it have."""
    if settings.converse_engine == "cascade":
        replier: Replier = Chat(settings, http) if settings.chat_url else Responder()
        return [Cascade(settings, transcribe, speak, replier, scratch)]
    return [FunAudioChat(url, http, settings) for url in settings.converse_urls]
