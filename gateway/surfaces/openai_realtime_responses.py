"""The responses of one Realtime conversation: one at a time at the engine, the others in order behind it."""

from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.dialogue import Dialogue, Ended
from gateway.errors import GatewayError
from gateway.events import Audio, ReplyAudio, ReplyText, ToolCall
from gateway.surfaces.openai_realtime_engines import Engine
from gateway.surfaces.openai_realtime_items import Items, newest
from gateway.surfaces.openai_realtime_line import Line
from gateway.surfaces.openai_realtime_response import Response
from gateway.verbs import Change, Preset, Reference
from gateway.wire.openai_realtime_fields import Wrong
from gateway.wire.openai_realtime_items import Item
from gateway.wire.openai_realtime_session import Session
from gateway.wire.openai_realtime_tools import chat_tool_choice, chat_tools

Voice = Preset | Reference
MOST_WAITING = 16
_TURN_DETECTED, _CLIENT_CANCELLED, _MOST_TOKENS = "turn_detected", "client_cancelled", "max_output_tokens"


class Responses:
    def __init__(
        self,
        line: Line,
        items: Items,
        dialogue: Dialogue,
        engine: Engine,
        conversation: str,
        questions: int,
        asked: Callable[[int], None],
        ended: Callable[[float], None],
    ) -> None:
        """conversation: its id. questions: how many of the newest one is made from. asked: told the turn that answers.
        ended: told when one was completed, with the loop time at which its sound ends."""
        self._line, self._items, self._dialogue, self._engine = line, items, dialogue, engine
        self._conversation, self._questions, self._asked, self._ended = conversation, questions, asked, ended
        self._active: Response | None = None
        self._waiting: deque[Response] = deque()
        self._owed: tuple[Session, Voice] | None = None
        """Of a turn that is to be answered once its words are known."""

    @property
    def idle(self) -> bool:
        return self._active is None and self._owed is None

    async def create(
        self,
        session: Session,
        voice: Voice,
        *,
        metadata: dict[str, Any] | None = None,
        kept: bool = True,
        given: list[Item] | None = None,
    ) -> None:
        """The client asks for one. Raises Wrong."""
        if kept and any(one.kept for one in self._all()):
            message = "Conversation already has an active response in progress."
            raise Wrong(message, "conversation_already_has_active_response")
        if len(self._waiting) >= MOST_WAITING:
            raise Wrong(f"{MOST_WAITING} responses wait already.", "too_many_responses")
        if kept:
            self._owed = None
        response = self._new(session, voice, metadata=metadata, kept=kept, given=given)
        self._waiting.append(response)
        await self.go_on()

    async def owe(self, session: Session, voice: Voice, turn: int | None) -> None:
        """A turn has ended, and is to be answered. turn: the one that answers it already."""
        if turn is None:
            self._owed = session, voice
            await self.go_on()
        else:
            self._active = self._new(session, voice)
            self._active.turn, self._active.asked = turn, newest(list(self._items), self._questions)

    def forgive(self) -> None:
        """What is owed is not wanted any more: the user goes on."""
        self._owed = None

    async def cancel(self, id: str | None) -> None:  # noqa: A002
        """The client does not want it any more; None is the one that runs. Raises Wrong."""
        found = next((one for one in self._all() if id in (None, one.id)), None)
        if found is None:
            raise Wrong("Cancellation failed: no active response found.", "response_cancel_not_active")
        await self._cut(found, "cancelled", _CLIENT_CANCELLED)
        await self.go_on()

    async def cancel_item(self, item: Item) -> None:
        """The same for the one that writes it now, where one does."""
        if item.status == "in_progress" and self._active is not None:
            await self._cut(self._active, "cancelled", _CLIENT_CANCELLED)
            await self.go_on()

    def interrupted(self) -> None:
        """The user speaks: what was not sent is not said. Its end is told in its turn."""
        if self._active is not None:
            self._active.take_back()

    async def go_on(self) -> None:
        """Asks the engine for the next one, once it is free and all that was said is understood."""
        if self._active is None:
            if self._waiting:
                self._active = self._waiting.popleft()
            elif self._owed is not None and self._understood(self._items):
                owed, self._owed = self._owed, None
                if any(item.text for item in self._unanswered()):
                    self._active = self._new(*owed)
        if self._active is not None and self._active.turn is None:
            await self._ask(self._active)

    async def told(self, event: ReplyText | ReplyAudio | ToolCall | Ended) -> None:
        """By the dialogue."""
        response = self._active
        if response is None or response.turn != event.turn:
            return
        match event:
            case ReplyText(text=text):
                response.write(text)
            case ReplyAudio(audio=Audio() as audio, text=text):
                response.sound(audio, text)
            case ToolCall():
                response.call(event)
            case Ended(status=status):
                self._active = None
                response.end(status, _TURN_DETECTED)
                if status == "completed":
                    self._ended(response.sounds_until)
                await self.go_on()
                return
        if (most := response.session.most_tokens) is not None and response.tokens >= most:
            await self._cut(response, "incomplete", _MOST_TOKENS)
            await self.go_on()

    def failed(self, turn: int, error: GatewayError) -> None:
        """If it was one of these that did, its end follows."""
        if self._active is not None and self._active.turn == turn:
            self._active.error = error

    # Private

    def _all(self) -> list[Response]:
        return [*([self._active] if self._active else []), *self._waiting]

    def _new(self, session: Session, voice: Voice, **given: Any) -> Response:
        response = Response(self._line, self._items, session, voice, conversation=self._conversation, **given)
        response.begin()
        return response

    async def _ask(self, response: Response) -> None:
        items = list(self._items) if response.given is None else response.given
        if not self._engine.answers and not all(item.understood for item in items):
            return
        response.asked = newest(items, self._questions)
        try:
            response.turn = await self._engine.ask(response, self._items, _change(response))
            self._asked(response.turn)
        except GatewayError as exc:
            self._active, response.error = None, exc
            response.end("failed")
            await self.go_on()

    async def _cut(self, response: Response, status: str, reason: str) -> None:
        """Its end is told at once; what still comes of it is passed over."""
        response.take_back()
        if response is self._active:
            self._active = None
            if response.turn is not None:
                await self._dialogue.cancel()
        else:
            self._waiting.remove(response)
        response.end(status, reason)

    def _understood(self, items: Items) -> bool:
        return all(item.understood for item in items)

    def _unanswered(self) -> list[Item]:
        """What the user has said since the last answer."""
        found: list[Item] = []
        for item in reversed(list(self._items)):
            if item.role == "assistant":
                break
            found.append(item)
        return found


def _change(response: Response) -> Change:
    session = response.session
    return Change(
        persona=session.instructions,
        voice=response.voice,
        speech=session.speech,
        tools=chat_tools(session.tools, session.tool_choice),
        speed=session.speed,
        tool_choice=chat_tool_choice(session.tools, session.tool_choice),
    )
