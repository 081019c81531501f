"""Commands that an operator gives in a setting, such as `docker restart avatar`.

They are run without a shell, for a bounded time. Of what they print, the first line of a complaint is told, no more.
"""

import asyncio
import os
import shlex
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from gateway.settings import foreign_environment
from gateway.tasks import shielded

_COMPLAINT_BYTES = 4096
_LONGEST_LINE = 200


class CommandFailed(Exception):
    """One line for the operator."""


async def run(command: str, *, seconds: float, given: Mapping[str, str] | None = None) -> None:
    """given: what stands for each {name} in its words. Raises CommandFailed. Cancelled, or out of time, it is dead and
    reaped, with what it has started in its session, before this returns."""
    words = [_filled(word, given or {}) for word in shlex.split(command)]
    with tempfile.TemporaryFile() as complaint:  # no pipe: what it leaves running may keep one open
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=complaint,
                env=foreign_environment(),
                start_new_session=True,
            )
        except OSError as exc:
            raise CommandFailed(f"{words[0]}: {exc.strerror}") from None
        status = await _ended(process, seconds)
        if status != 0:
            complaint.seek(0)
            line = _first_line(complaint.read(_COMPLAINT_BYTES))
            raise CommandFailed(f"{words[0]} ended with {status}" + f": {line}" * bool(line))


# Private


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> int:
    try:
        async with asyncio.timeout(seconds):
            return await process.wait()
    except TimeoutError:
        raise CommandFailed(f"not done within {seconds:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await shielded(process.wait())


def _filled(word: str, given: Mapping[str, str]) -> str:
    for name, value in given.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _first_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in lines if line.strip()), "")[:_LONGEST_LINE]
