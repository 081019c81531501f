"""One ffmpeg process: what it was told, how far it is, and how it ended."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import imageio_ffmpeg

_COMPLAINT_BYTES = 4096
_LINE_BYTES = 64 * 1024
_QUIET = ("-y", "-nostdin", "-hide_banner", "-v", "error", "-progress", "pipe:1", "-protocol_whitelist", "file")


class Failed(Exception):
    """ffmpeg could not do it; the words are its own, without paths."""


async def run(arguments: Sequence[str], folder: Path, told: Callable[[float], None]) -> None:
    """Runs ffmpeg in `folder`, whose files are all that it is to open. told: seconds of output so far. Raises Failed.

    Cancelled, it is dead and reaped before the cancellation goes on.
    """
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(),
        *_QUIET,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            complaint = tasks.create_task(_complaint(process))
            tasks.create_task(_progress(process, told))
            status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if status != 0:
        raise Failed(_reason(complaint.result(), folder))


# Private


async def _progress(process: asyncio.subprocess.Process, told: Callable[[float], None]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        name, _, value = line.decode("ascii", "ignore").strip().partition("=")
        if name == "out_time_us" and value.isdigit():
            told(int(value) / 1e6)


async def _complaint(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    found = b""
    while piece := await process.stderr.read(_COMPLAINT_BYTES):
        found = (found + piece)[:_COMPLAINT_BYTES]
    return found.decode("utf-8", "ignore")


def _reason(complaint: str, folder: Path) -> str:
    for line in complaint.splitlines():
        words = line.rpartition("] ")[2].replace(f"{folder}/", "").strip()
        if words and "/" not in words:
            return words[:200]
    return "ffmpeg could not read or write a file"
