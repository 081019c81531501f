"""What an uploaded media file is, found out by a limited child process before anything is done with it.

Rule 1: as in normalise.py: no byte of an upload is decoded in this process, and its child is dead when a call ends.
Rule 2: what the child says is bounded here once more; a file may claim anything.
"""

import asyncio
import json
import math
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import CallerError, GatewayError
from gateway.normalise import CONTAINERS
from gateway.settings import Settings
from gateway.tasks import shielded

_CHILD = Path(__file__).with_name("probe_child.py")
_ANSWER_BYTES = 4096
_MOST_SECONDS = 7 * 24 * 3600.0


class MediaRejected(CallerError):
    """The uploaded file cannot be used. `code` is one of media_empty, media_undecodable, media_no_picture,
    media_no_sound, media_too_long, media_too_large, media_probe_timeout."""

    status, code = 422, "media_rejected"


@dataclass(frozen=True, slots=True)
class Picture:
    width: int
    height: int
    """Pixels, of the first picture that was decoded."""
    seconds: float
    rate: float
    """Pictures a second; 0 where the file does not say."""
    codec: str


@dataclass(frozen=True, slots=True)
class Media:
    seconds: float
    """As the file claims."""
    sound: bool
    picture: Picture | None


class Prober:
    """One per process. Whoever calls it holds a decode slot."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def media(self, path: Path) -> Media:
        """Raises MediaRejected."""
        if not (await asyncio.to_thread(path.stat)).st_size:
            raise MediaRejected("the file is empty", code="media_empty")
        status, said = await self._ask(path)
        if status < 0:
            raise _too_slow()
        if status != 0:
            raise MediaRejected("the file cannot be read as audio or video", code="media_undecodable")
        return _media(said)

    # Private

    async def _ask(self, path: Path) -> tuple[int, bytes]:
        limits = (str(self._settings.decode_cpu_seconds), str(self._settings.decode_memory_bytes))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(_CHILD), str(path.absolute()), CONTAINERS, *limits),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            start_new_session=True,  # uvloop knows no process_group
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._settings.decode_wall_seconds):
                said = await process.stdout.read(_ANSWER_BYTES)
                return await process.wait(), said
        except TimeoutError:
            raise _too_slow() from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await shielded(process.wait())


# Private


def _media(said: bytes) -> Media:
    try:
        found = json.loads(said)
        picture = found["video"]
        shown = None if picture is None else _picture(picture)
        return Media(_bounded(found["seconds"]), bool(found["audio"]), shown)
    except (ValueError, KeyError, TypeError) as exc:
        raise GatewayError("the probe does not say what it found") from exc


def _picture(found: dict[str, Any]) -> Picture:
    return Picture(
        int(found["width"]),
        int(found["height"]),
        _bounded(found["seconds"]),
        _bounded(found["rate"]),
        str(found["codec"]),
    )


def _bounded(number: float) -> float:
    value = float(number)
    return min(max(value, 0.0), _MOST_SECONDS) if math.isfinite(value) else _MOST_SECONDS


def _too_slow() -> MediaRejected:
    return MediaRejected("reading the file takes too long", code="media_probe_timeout")
