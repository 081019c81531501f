"""Engines that share one GPU take turns at it: those whose turn it is not are stopped by the operator's commands.

Rule 1: nothing that runs is ended: who has the turn is drained first, however long that takes.
Rule 2: who gets it keeps it for a while, so that it was worth it. Then, while others wait, it goes on to the one that
has waited longest: as soon as nothing runs, and when its time is over nothing new begins.
Rule 3: live requests do not wait here: they are refused with their place, and claim the turn by that. Jobs wait.
Rule 4: one task, `keep`, runs the commands; everybody else only claims, takes and gives back.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any

import structlog

from gateway import commands
from gateway.commands import CommandFailed
from gateway.gpu_member import CLAIM_SECONDS, Member, now
from gateway.replicas import Replicas
from gateway.settings import Settings
from gateway.verbs import State

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.2
_LONGEST_PAUSE = 60.0


class Phase(StrEnum):
    SERVING = "serving"
    DRAINING = "draining"
    """What runs may end; nothing new begins."""
    SWITCHING = "switching"
    FAILED = "failed"
    """Nobody has the GPU; it is tried again."""


class GpuGroup:
    """One of the process. The `repr` says who has the turn, and who waits."""

    def __init__(self, settings: Settings, verbs: Mapping[str, Replicas[Any, Any]]) -> None:
        """verbs: by the names that settings give them."""
        self._settings = settings
        starts, stops = settings.gpu_commands
        self._members = [
            Member(self, verbs[verb], starts.get(verb, ""), stops[verb], waits=verb == "animate")
            for verb in settings.gpu_group
            if verb in verbs
        ]
        for one in self._members:
            one.replicas.turn = one
        self._file = settings.data_dir / "gpu_group"
        """Who has the turn, for the next process: what runs at an engine then is not ended."""
        self._holder: Member | None = None
        self._phase = Phase.SWITCHING
        self._since = 0.0
        self._reason, self._failures = "", 0
        self.changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<gpu: {self._phase} {self._holder and self._holder.name} {self._members!r}>"

    @property
    def whose(self) -> str:
        """What is said of the GPU to those who wait."""
        if self._holder is None:
            return "is being given to another engine" if self._phase is Phase.SWITCHING else "nobody can be given now"
        return f"{self._holder.name} has"

    def rests(self, member: Member) -> bool:
        return self._holder is not member and self._phase is not Phase.FAILED

    def report(self) -> dict[str, Any]:
        """For GET /health."""
        body: dict[str, Any] = {"state": str(self._phase), "waiting": {one.name: one.claims for one in self._members}}
        body |= {"engine": self._holder.name} if self._holder is not None else {}
        return body | ({"reason": self._reason} if self._reason else {})

    async def keep(self) -> None:
        """Gives the turn to one after the other, for ever."""
        target = await asyncio.to_thread(self._remembered)
        while True:
            await self._give_to(target)
            target = await (self._next() if self._holder is not None else self._after_failure(target))

    # Private

    async def _next(self) -> Member:
        """Who is to have it after the one that has it now, which is drained."""
        while True:
            holder = self._holder
            assert holder is not None
            self.changed.clear()
            kept = now() - self._since
            target = self._first()
            if target is None:
                self._serve(holder)
                await self._changes(CLAIM_SECONDS)
            elif kept < self._settings.gpu_dwell:
                await self._changes(self._settings.gpu_dwell - kept)
            elif not holder.running:
                return target
            elif kept < self._settings.gpu_turn:
                await self._changes(self._settings.gpu_turn - kept)
            else:
                self._phase = Phase.DRAINING
                holder.served.clear()
                await self._changes(CLAIM_SECONDS)

    async def _after_failure(self, target: Member) -> Member:
        """Who is tried next; whoever it has failed with is the last."""
        target.claimed_at = now()
        await asyncio.sleep(min(2.0 ** (self._failures - 1), _LONGEST_PAUSE))
        return self._first() or target

    def _first(self) -> Member | None:
        """The one that has waited longest."""
        waits = [one for one in self._members if one is not self._holder and one.claims]
        return min(waits, key=lambda one: one.claimed_at, default=None)

    async def _give_to(self, target: Member) -> None:
        for one in self._members:
            one.served.clear()
        self._holder, self._phase = None, Phase.SWITCHING
        try:
            await self._switch(target)
        except (CommandFailed, OSError) as exc:
            self._failures += 1
            self._phase, self._reason = Phase.FAILED, f"{target.name} cannot be given the GPU: {exc}"
            log.error("gpu not given", engine=target.name, error=str(exc), failures=self._failures)
            return
        self._failures, self._reason = 0, ""
        self._holder, self._since = target, now()
        self._serve(target)
        log.info("gpu given", engine=target.name)

    def _serve(self, holder: Member) -> None:
        self._phase = Phase.SERVING
        if not holder.served.is_set():
            holder.begins()

    async def _switch(self, target: Member) -> None:
        """Raises CommandFailed."""
        for one in self._members:
            if one is not target and one.up:
                await self._run(one.stop)
                one.up = False
        await asyncio.to_thread(self._remember, target)
        target.up = True
        await self._run(target.start)
        try:
            async with asyncio.timeout(self._settings.gpu_switch_timeout):
                await _ready(target.replicas)
        except TimeoutError:
            health = target.replicas.best()
            raise CommandFailed(f"not ready in time: {health.reason or health.state}") from None

    async def _run(self, command: str) -> None:
        if command:
            await commands.run(command, seconds=self._settings.gpu_switch_timeout)

    async def _changes(self, seconds: float) -> None:
        """Waits for a change, no longer than so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()

    # Private, and in a thread

    def _remembered(self) -> Member:
        with suppress(OSError):
            name = self._file.read_text().strip()
            return next((one for one in self._members if one.name == name), self._members[0])
        return self._members[0]

    def _remember(self, member: Member) -> None:
        part = self._file.with_name(f"{self._file.name}.part")
        part.write_text(member.name)
        part.replace(self._file)


async def _ready(replicas: Replicas[Any, Any]) -> None:
    while True:
        await replicas.refresh()
        if any(one.health.state is State.READY for one in replicas.members):
            return
        await asyncio.sleep(_LOOK_SECONDS)
