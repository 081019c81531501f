"""The gateway at its address: is it there, are its engines ready, what does it refuse."""

import sys
import time
from typing import Any

import httpx

from gateway.cli import Stopped

_EVERY = 0.5
_ENGINES = {"say": ("tts",), "transcribe": ("asr",), "talk": ("s2s",)}


def wait_until_ready(url: str, command: str, seconds: float, key: str = "") -> None:
    """Shows on one line what is missing. Raises Stopped."""
    deadline, shown = time.monotonic() + seconds, ""
    while True:
        missing = _missing(url, _ENGINES[command], key)
        if missing != shown:
            _show(missing, over=shown)
            shown = missing
        if not missing:
            return
        if time.monotonic() >= deadline:
            raise Stopped(f"not ready within {seconds:g} s: {missing}")
        time.sleep(_EVERY)


def shown(key: str) -> dict[str, str]:
    """The headers that show a key; none without one."""
    return {"authorization": f"Bearer {key}"} if key else {}


def refusal(answer: httpx.Response) -> Stopped:
    """What an answer that is none says."""
    try:
        found = answer.json()
        text = found.get("error") or found.get("message") or found.get("detail")
    except (ValueError, AttributeError):
        text = None
    return Stopped(f"{text or 'no reason given'} ({answer.status_code})")


# Private


def _missing(url: str, names: tuple[str, ...], key: str) -> str:
    """In a few words; empty where nothing is."""
    try:
        answer = httpx.get(f"{url}/health", headers=shown(key), timeout=5)
        found = answer.json()
        if found.get("open") is False and "engines" not in found:
            raise Stopped(f"{url} asks for {'another' if key else 'a'} key: give it in VOXGATE_KEY, or with --key")
        engines = found["engines"]
        return "; ".join(_engine(name, engines[name]) for name in names if engines[name]["state"] != "ready")
    except httpx.InvalidURL:
        raise Stopped(f"{url} is no address; it looks like http://127.0.0.1:9090") from None
    except httpx.UnsupportedProtocol:
        raise Stopped(f"{url} is no address; it looks like http://127.0.0.1:9090") from None
    except httpx.TransportError:
        return f"nobody answers at {url}"
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Stopped(f"what answers at {url} is no gateway of this version") from None


def _engine(name: str, engine: dict[str, Any]) -> str:
    progress = engine.get("progress") or {}
    percent = f" {progress['percent']:g} %" if "percent" in progress else ""
    why = engine.get("reason") or f"{progress.get('phase', '')}{percent}"
    return f"{name} is {engine['state']}{': ' if why else ''}{why}"


def _show(missing: str, over: str) -> None:
    """On a terminal each line replaces the one before."""
    if sys.stderr.isatty():
        text = f"waiting: {missing}" if missing else ""
        print(f"\r{text.ljust(len(over) + 9)}", end="" if missing else "\r", file=sys.stderr, flush=True)
    elif missing:
        print(f"waiting: {missing}", file=sys.stderr, flush=True)
