"""How the two kinds of conversation engine are asked for what a Realtime client wants.

Those that follow (verbs.Converser.follows) are given the conversation with each reply, so a client may edit it as it
likes. The others remember it themselves: they answer what was said last, and whatever they cannot do is refused.
"""

from collections.abc import Sequence
from typing import Protocol

from gateway.dialogue import Dialogue, HandsFree
from gateway.errors import BadRequest
from gateway.memory import Role
from gateway.surfaces.openai_realtime_items import Items, messages
from gateway.surfaces.openai_realtime_response import Response
from gateway.verbs import Change
from gateway.wire.openai_realtime_items import Item, Kind
from gateway.wire.openai_realtime_session import Detection


class Engine(Protocol):
    answers: bool
    """Whether it answers a turn as soon as that has ended, without being asked."""
    edits: bool
    """Whether the client may edit the conversation."""

    def hands_free(self, detection: Detection) -> HandsFree:
        """Raises BadRequest for what it cannot do."""
        ...

    async def commit(self) -> int | None:
        """What was said is an item; gives the number of the turn that has its words, where there is one yet. Raises
        BadRequest(code="nothing_recorded"), TooLarge."""
        ...

    async def clear(self) -> None:
        """What was said and is no item yet is dropped. Raises BadRequest."""
        ...

    async def ask(self, response: Response, items: Items, wishes: Change) -> int:
        """Gives the number of the turn that answers. Raises BadRequest, TooLarge."""
        ...


def engine_of(dialogue: Dialogue) -> Engine:
    return _Following(dialogue) if dialogue.follows else _Remembering(dialogue)


# Private


class _Following:
    answers, edits = False, True

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    def hands_free(self, detection: Detection) -> HandsFree:
        return _hands_free(detection, replies=False)

    async def commit(self) -> int | None:
        return await self._dialogue.end(reply=False, goes_on=True)

    async def clear(self) -> None:
        await self._dialogue.clear()

    async def ask(self, response: Response, items: Items, wishes: Change) -> int:
        return await self._dialogue.reply(messages(response.asked), wishes)


class _Remembering:
    answers, edits = True, False

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._said = False
        """Whether something was committed that is not answered."""
        self._answered = 0
        """Of the items, those before the last answer."""

    def hands_free(self, detection: Detection) -> HandsFree:
        if not detection.creates or not detection.interrupts:
            raise _unsupported("its turns are always answered, and speech always interrupts")
        return _hands_free(detection, replies=True)

    async def commit(self) -> int | None:
        if not self._dialogue.recorded:
            raise BadRequest("nothing was recorded", code="nothing_recorded")
        self._said = True
        return None

    async def clear(self) -> None:
        if self._dialogue.recorded:
            raise _unsupported("it has heard what was said")

    async def ask(self, response: Response, items: Items, wishes: Change) -> int:
        if response.given is not None or not response.kept:
            raise _unsupported("it answers the conversation, and nothing else")
        new: Sequence[Item] = list(items)[self._answered :]
        self._answered = len(items)
        await self._dialogue.change(wishes)
        if self._said:
            self._said = False
            return await self._dialogue.end(goes_on=True)
        turn = 0
        for item in new:
            if item.kind is Kind.RESULT:
                turn = await self._dialogue.tool_result(item.call_id, item.output)
        text = "\n".join(item.text for item in new if item.kind is Kind.MESSAGE and item.role == Role.USER)
        if text:
            turn = await self._dialogue.write(text)
        if not turn:
            raise _unsupported("it answers only what was said, written, or given as the result of a call")
        return turn


def _hands_free(detection: Detection, *, replies: bool) -> HandsFree:
    silence, padding = detection.silence / 1000, detection.padding / 1000
    threshold = None if detection.semantic else detection.threshold
    return HandsFree(silence, threshold, padding, interrupts=detection.interrupts, replies=replies)


def _unsupported(why: str) -> BadRequest:
    return BadRequest(f"the engine of this gateway remembers the conversation itself: {why}", code="engine_unsupported")
