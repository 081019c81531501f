"""Whether a Duix engine is stuck, and the operator's command that restarts it.

Upstream's server can stay busy for ever with a job that nobody knows, and can stop in the middle of one; it ends no job
and tells nobody. Only a restart helps.
"""

import asyncio
import math

import structlog

from gateway import commands
from gateway.settings import Settings

log = structlog.get_logger(__name__)
_RESTART_SECONDS = 120.0
"""Longest time of the command."""


class Stuck:
    """Of one engine. `str()` of it says why it is, and is empty where it is not."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url, self._command, self._stall = url, settings.animate_restart, settings.animate_stall
        self._busy_since: float | None = None
        """Loop time since which it has said that it is busy, and nothing else."""
        self.hung = False
        """Whether a job of ours made no progress."""
        self._restarted = -math.inf
        self._failure = ""

    def __str__(self) -> str:
        busy = 0.0 if self._busy_since is None else self._now() - self._busy_since
        if self.hung:
            why = f"no progress with a video for {self._stall:g} s"
        elif busy >= self._stall:
            why = f"busy for {busy:.0f} s with a video that is none of ours"
        else:
            return ""
        return f"{why}; " + (f"its restart failed: {self._failure}" if self._failure else "restart it")

    def refused(self) -> None:
        """It is busy with another job, whosever that is."""
        self._busy_since = self._busy_since or self._now()

    def works(self) -> None:
        """It takes jobs, or begins anew."""
        self._busy_since, self.hung, self._failure = None, False, ""

    async def restart(self) -> None:
        """Runs the command, where there is one, and not more often than it takes to be stuck again."""
        if not self._command or self._now() - self._restarted < self._stall:
            return
        log.warning("engine restarted", url=self._url, reason=str(self))
        self._restarted, self._failure = self._now(), ""
        try:
            await commands.run(self._command, seconds=_RESTART_SECONDS, given={"url": self._url})
        except commands.CommandFailed as exc:
            self._failure = str(exc)
            log.error("engine not restarted", url=self._url, error=self._failure)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
