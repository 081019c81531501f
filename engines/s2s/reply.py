"""One turn's reply as its client is told of it. Whatever happens, it ends once, and nothing of it comes after that."""

import asyncio
from collections.abc import Callable

from engines.s2s.backends import Call
from engines.s2s.engine import Out, ReplyFailed
from engines.s2s.memory import Heard, Turn
from engines.s2s.outbox import PAGE_SECONDS, Outbox
from gateway.wire import fun_audio_chat as wire
from gateway.wire import turns


class Reply:
    def __init__(self, number: int, heard: Heard, outbox: Outbox, ended: Callable[["Reply", str], None]) -> None:
        """number: of the turn. ended: told how: completed, cancelled or failed."""
        self.number, self.over = number, False
        self.calls_made: list[Call] = []
        self._heard, self._outbox, self._ended = heard, outbox, ended
        self._text: list[str] = []
        self._asked = asyncio.get_running_loop().time()
        self._timings: dict[str, float] = {}
        self._pages = 0

    def __repr__(self) -> str:
        return f"<reply {self.number}, {'over' if self.over else 'at work'}, {self._pages * PAGE_SECONDS:.1f} s sent>"

    @property
    def turn(self) -> Turn:
        """As it is remembered."""
        return Turn(self._heard, "".join(self._text), tuple(self.calls_made))

    # What the engine tells

    def waits(self, place: int, seconds: float) -> None:
        self._say(turns.Queued(self.number, place, seconds))

    def begins(self) -> None:
        self._since("queued")
        self._say(turns.ReplyStarted(self.number), wire.Text(wire.PROCESSING))

    def words(self, text: str) -> None:
        if not self.over and text:
            self._since("first_token")
            self._text.append(text)
            self._say(wire.Text(text))

    def calls(self, call: Call) -> None:
        if not self.over:
            self.calls_made.append(call)
            self._say(turns.ToolCall(self.number, call.id, call.name, call.arguments))

    async def sound(self, pcm: bytes) -> None:
        if not self.over:
            await self._outbox.sound(pcm, self._page_sent)

    # How it ends

    def complete(self) -> None:
        """All of it has been made; it ends when it has been sent."""
        if not self.over:
            self._outbox.behind(lambda: self._end("completed"))

    def fail(self, failure: ReplyFailed) -> None:
        """What has been made of it is sent, then that."""
        if not self.over:
            self._outbox.behind(lambda: self._end("failed", failure))

    def cancel(self) -> None:
        """It ends now."""
        if not self.over:
            self._outbox.drop()
            self._end("cancelled")

    # Private

    def _end(self, status: str, failure: ReplyFailed | None = None) -> None:
        if failure is not None:
            self._say(*failed(str(failure), failure.code, self.number, failure.retry_after))
        seconds = round(self._pages * PAGE_SECONDS, 3)
        self._say(turns.ReplyDone(self.number, status, seconds, self._timings))
        self.over = True
        self._ended(self, status)

    def _page_sent(self) -> None:
        self._since("first_audio")
        self._pages += 1

    def _since(self, name: str) -> None:
        """Keeps the first time of that name."""
        if name not in self._timings:
            self._timings[name] = round(asyncio.get_running_loop().time() - self._asked, 4)

    def _say(self, *said: turns.Event | wire.Message) -> None:
        if not self.over:
            self._outbox.say(*(one if isinstance(one, wire.Message) else event(one) for one in said))


def event(said: turns.Event) -> wire.Metadata:
    return wire.metadata(turns.fields_of(said))


def failed(text: str, code: str, turn: int = 0, retry_after: int | None = None) -> tuple[wire.Error, wire.Metadata]:
    """An error, for clients that read `05` and for those that read `04`."""
    return wire.Error(text), event(turns.Failed(code, text, turn, retry_after))


_: type[Out] = Reply
