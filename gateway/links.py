"""Absolute addresses of this gateway, as its clients reach it; never the address that it listens on."""

import re

from gateway.exchange import Exchange
from gateway.settings import Settings

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def base(http: Exchange, settings: Settings) -> str:
    """What comes before a path, such as https://speech.example; empty where nobody says what it is."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    scheme, host = str(http.scope.get("scheme", "http")), http.header(b"host")
    if settings.forwarded:  # the first of several is what the outermost proxy was asked for
        host = http.header(b"x-forwarded-host").split(b",")[0].strip() or host
        said = http.header(b"x-forwarded-proto").split(b",")[0].strip().lower().decode("latin-1")
        scheme = said if said in ("http", "https") else scheme
    name = host.decode("latin-1")
    return f"{scheme}://{name}" if _HOST.fullmatch(name) else ""
