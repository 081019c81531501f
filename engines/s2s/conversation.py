"""One client's conversation: what its messages mean, one after the other.

    RECORDING ──PAUSE──▶ a reply ──START──▶ RECORDING …

Recording is on from the first moment. A written turn needs no recording, and interrupts like START. Whatever is wrong
is said in one line, and the conversation goes on.
"""

import asyncio
import json
import logging
from dataclasses import dataclass, replace

from engines.s2s.backends import ToolResult
from engines.s2s.engine import Asked, Engine, ReplyFailed
from engines.s2s.memory import Heard, Memory
from engines.s2s.outbox import Outbox
from engines.s2s.recording import Recording
from engines.s2s.reply import Reply, failed
from engines.workers.pool import NotReady
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns
from gateway.wire.fun_audio_chat import Action

log = logging.getLogger(__name__)

_PIECE = 4096
"""Bytes of audio that are worked through at once."""
_WRONG_IN_A_ROW = 100


class Misbehaved(Exception):
    """The client sends nothing but what nobody understands; the text is for it."""


class TooLong(Exception):
    """A message that nobody has a reason to send; the text is for the client."""


@dataclass(frozen=True, slots=True)
class Lengths:
    recording: float = 300.0
    """Seconds of a turn that are kept: the latest."""
    text: int = turns.LONGEST_PROMPT
    """Characters of a written turn, and of what a tool says."""


class Conversation:
    def __init__(
        self, engine: Engine, memory: Memory, outbox: Outbox, tasks: asyncio.TaskGroup, lengths: Lengths
    ) -> None:
        """tasks: owns the replies."""
        self._engine, self._memory, self._outbox, self._tasks = engine, memory, outbox, tasks
        self._lengths = lengths
        self._recording = Recording(lengths.recording)
        self._turn = 0
        self._reply: Reply | None = None
        self._work: asyncio.Task[None] | None = None
        self._results: dict[str, ToolResult] = {}
        """Of the tools that the last reply called, as far as they have answered."""
        self._wrong = 0
        """Messages in a row."""

    def __repr__(self) -> str:
        return f"<turn {self._turn}, {self._recording}, {self._reply}>"

    async def take(self, data: bytes | str) -> None:
        """The client's next message. Raises Misbehaved, TooLong, and TooSlow where it does not read its answers."""
        self._outbox.check()
        if len(data) > wire.MOST_BYTES:
            raise TooLong(f"a message has more than {wire.MOST_BYTES} bytes")
        try:
            if isinstance(data, str):
                raise wire.Unreadable("text frames mean nothing here; messages are binary")
            await self._act(wire.decode(data))
        except (wire.Unreadable, opus.NotOpus) as exc:
            self._refuse(str(exc), "bad_request")
            self._wrong += 1
            if self._wrong >= _WRONG_IN_A_ROW:
                raise Misbehaved(f"{self._wrong} messages in a row that nobody understands") from exc
        else:
            self._wrong = 0

    def end(self) -> None:
        """The client has left. What was recorded goes now, not with what tracebacks hold once garbage is collected."""
        self._turn_to_the_user()
        self._recording = Recording(self._lengths.recording)

    # Private

    async def _act(self, message: wire.Message) -> None:
        match message:
            case wire.Audio(pages):
                await self._hear(pages)
            case wire.Control(Action.START):
                self._turn_to_the_user()
                self._recording.start()
            case wire.Control(Action.PAUSE | Action.END_TURN):
                self._finish()
            case wire.Text(text):
                self._write(text)
            case wire.Metadata():
                self._wish(message)

    async def _hear(self, pages: bytes) -> None:
        for at in range(0, len(pages), _PIECE):
            self._recording.add(pages[at : at + _PIECE])
            if len(pages) > _PIECE:  # the others' audio cannot wait for all of it
                await asyncio.sleep(0)

    def _finish(self) -> None:
        pcm = self._recording.finish()
        if pcm:
            self._begin(Heard(pcm))
        else:
            self._refuse("nothing has been recorded since the last turn; START records", "nothing_recorded")

    def _write(self, text: str) -> None:
        if not text.strip():
            self._refuse("nothing has been written", "nothing_recorded")
        elif len(text) > self._lengths.text:
            self._refuse(f"a text has more than {self._lengths.text} characters", "too_large")
        else:
            self._turn_to_the_user()
            self._recording.start()
            self._begin(Heard(text=text))

    def _wish(self, message: wire.Metadata) -> None:
        try:
            json.dumps(message.fields, ensure_ascii=False).encode()  # JSON can name halves of characters
            wish = turns.wish_of(message.fields)
        except (UnicodeEncodeError, RecursionError):
            self._refuse("the metadata holds half a character, or is nested too deeply", "bad_request")
            return
        except ValueError as exc:
            self._refuse(str(exc), "bad_request")
            return
        if wish.voice and (known := self._voices()) and wish.voice not in known:
            self._refuse(f"there is no such voice; there are {', '.join(known)}", "bad_request")
            return
        wanted = {
            "persona": wish.system_prompt,
            "voice": wish.voice,
            "language": wish.language,
            "speech": wish.speech,
            "tools": wish.tools,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        self._memory.wishes = replace(self._memory.wishes, **given)  # type: ignore[arg-type]  # wish_of looked
        for result in wish.tool_results:
            self._take_result(ToolResult(result.id, result.output))
        self._go_on()

    def _voices(self) -> tuple[str, ...]:
        try:
            return self._engine.voices
        except NotReady:
            return ()

    def _take_result(self, result: ToolResult) -> None:
        if result.id not in self._called():
            self._refuse("a tool result belongs to no call that is waited for", "bad_request")
        elif len(result.output) > self._lengths.text:
            self._refuse(f"a tool result has more than {self._lengths.text} characters", "too_large")
        else:
            self._results[result.id] = result

    def _called(self) -> list[str]:
        """The tools that are waited for, and those that have answered."""
        return [call.id for call in self._reply.calls_made] if self._reply else []

    def _go_on(self) -> None:
        """The next turn, where the last reply is over and all the tools that it called have answered."""
        called = self._called()
        if called and self._reply and self._reply.over and all(one in self._results for one in called):
            results, self._results = tuple(self._results[one] for one in called), {}
            self._begin(Heard(results=results))

    def _begin(self, heard: Heard) -> None:
        self._turn += 1
        reply = self._reply = Reply(self._turn, heard, self._outbox, self._ended)
        asked = Asked(heard, self._memory.turns, self._memory.wishes)
        self._work = self._tasks.create_task(self._answer(reply, asked))

    async def _answer(self, reply: Reply, asked: Asked) -> None:
        try:
            await self._engine.reply(asked, reply)
        except ReplyFailed as exc:
            reply.fail(exc)
        except Exception:
            log.exception("a reply failed")
            reply.fail(ReplyFailed("the engine failed on this turn", "internal"))
        else:
            reply.complete()

    def _ended(self, reply: Reply, status: str) -> None:
        turn = reply.turn if status == "completed" else replace(reply.turn, calls=())
        if turn.reply or turn.calls:
            self._memory.add(turn)
        if status == "completed":
            self._go_on()

    def _turn_to_the_user(self) -> None:
        """The reply that runs or waits, and what it still wants of tools, is not wanted any more."""
        if self._reply is not None:
            self._reply.cancel()
        if self._work is not None:
            self._work.cancel()
        if self._called():
            self._memory.forget_calls()
        self._reply, self._work, self._results = None, None, {}

    def _refuse(self, text: str, code: str) -> None:
        self._outbox.say(*failed(text, code))
