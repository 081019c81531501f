"""What was said before: the turns of a conversation, bounded, and kept a while for whoever takes it up again.

Rule 1: a conversation has one holder. Who opens it by its token while another still holds it (a client that comes back
before its old connection is known to be dead) takes it over: both go on, each with a copy of its own, and only the
newest holder's is kept. Two holders never write into the same one.
Rule 2: a token is 256 random bits, so nobody takes up what is not theirs by guessing.
Rule 3: all of it lives in memory, bounded three ways (turns, characters, conversations), and is forgotten on time.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

MOST_CHARACTERS = 24_000
"""Of one conversation; the oldest turns go first."""
MOST_CONVERSATIONS = 1000
"""Kept after their end; those used longest ago go first."""
UNANSWERED = "(nobody gave a result)"
"""Stands for the result of a call that nobody answered: chat models want one for each."""


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Call:
    """A function that a reply wants called."""

    id: str
    name: str
    arguments: str = field(repr=False)
    """JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    text: str = field(repr=False)
    calls: tuple[Call, ...] = ()
    call: str = ""
    """TOOL: the id of the call that it answers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reply is made from."""

    messages: tuple[Message, ...]
    """Oldest first; the last one is what is to be answered."""
    persona: str = field(default="", repr=False)
    language: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str = ""
    """"required", or the name of the one to call; empty leaves it to the model."""


@dataclass(slots=True, eq=False)
class Past:
    """One turn: what came in, and what went out as far as it did."""

    question: str = field(default="", repr=False)
    results: dict[str, str] = field(default_factory=dict, repr=False)
    """Of the turn before it, by the id of its calls; then there is no question."""
    reply: str = field(default="", repr=False)
    calls: tuple[Call, ...] = ()

    @property
    def characters(self) -> int:
        said = len(self.question) + len(self.reply) + sum(map(len, self.results.values()))
        return said + sum(len(call.name) + len(call.arguments) for call in self.calls)


class History:
    """One conversation's turns: the newest `turns` questions, each with all that came of it."""

    def __init__(self, turns: int, past: Sequence[Past] = ()) -> None:
        self._turns = turns
        self._past = [replace(one) for one in past]

    def __repr__(self) -> str:
        return f"<history: {len(self._past)}/{self._turns} turns>"

    def __len__(self) -> int:
        return len(self._past)

    def add(self, past: Past) -> None:
        """The turn that begins now; its reply is filled in as it comes."""
        self._past.append(past)
        while self._too_much() and (second := self._second()):
            del self._past[:second]

    def forget(self, past: Past) -> None:
        """A question that cannot be answered, so that it does not stand in the way of the next one. Nothing where
        results were given: they belong to their calls."""
        if not past.results:
            self._past = [one for one in self._past if one is not past]

    def copy(self) -> "History":
        return History(self._turns, self._past)

    def owed(self) -> tuple[Call, ...]:
        """The calls that still wait for their results."""
        return self._past[-1].calls if self._past else ()

    def messages(self) -> tuple[Message, ...]:
        """As chat models want them: users and assistants by turns, and a result for each call."""
        found: list[Message] = []
        owed: tuple[Call, ...] = ()
        for past in self._past:
            found += [Message(Role.TOOL, past.results.get(call.id, UNANSWERED), call=call.id) for call in owed]
            owed = past.calls
            if past.question:
                _say(found, past.question)
            if past.reply or past.calls:
                found.append(Message(Role.ASSISTANT, past.reply, past.calls))
        return tuple(found)

    @property
    def rounds(self) -> int:
        """How many times in a row results were given, without another question."""
        return len(self._past) - 1 - max((at for at, one in enumerate(self._past) if not one.results), default=-1)

    # Private

    def _too_much(self) -> bool:
        questions = sum(not one.results for one in self._past)
        return questions > self._turns or sum(one.characters for one in self._past) > MOST_CHARACTERS

    def _second(self) -> int:
        """Where the second question is: results go together with the calls that they answer."""
        return next((at for at, one in enumerate(self._past) if at and not one.results), 0)


def latest(messages: Sequence[Message], turns: int) -> tuple[Message, ...]:
    """The newest `turns` questions of a conversation that somebody else keeps, each with all that came of it, within
    MOST_CHARACTERS; what belongs to the newest question goes with it, however long. System messages stay."""
    found: list[Message] = []
    system = [one for one in messages if one.role is Role.SYSTEM]
    questions, characters, keep = 0, sum(len(one.text) for one in system), 0
    for message in reversed(messages):
        characters += len(message.text) + sum(len(call.arguments) for call in message.calls)
        if questions and (questions >= turns or characters > MOST_CHARACTERS):
            break
        found.append(message)
        if message.role is Role.USER:
            questions, keep = questions + 1, len(found)
    kept = found[: keep or len(found)][::-1]
    return (*(one for one in system if not any(one is other for other in kept)), *kept)


class Held:
    """A conversation in somebody's hands."""

    def __init__(self, token: str, history: History, resumed: bool) -> None:
        self.token, self.history, self.resumed = token, history, resumed


class Memory:
    """The conversations of one process: those that are held, and those that have ended not long ago."""

    def __init__(self, turns: int, keep: float, most: int = MOST_CONVERSATIONS) -> None:
        """turns: of one conversation; keep: seconds after its end; most: conversations that have ended."""
        self._turns, self._keep, self._most = turns, keep, most
        self._held: dict[str, Held] = {}
        self._ended: OrderedDict[str, tuple[History, asyncio.TimerHandle]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<memory: {len(self._held)} held, {len(self._ended)}/{self._most} kept>"

    def open(self, token: str = "") -> Held:
        """The conversation of that token; a new one where there is none."""
        found = self._take(token)
        held = Held(token if found else secrets.token_urlsafe(32), found or History(self._turns), found is not None)
        self._held[held.token] = held
        return held

    def close(self, held: Held) -> None:
        """Its holder has left. Nothing where another has taken it over, or nothing was said."""
        if self._held.get(held.token) is not held:
            return
        del self._held[held.token]
        if len(held.history):
            timer = asyncio.get_running_loop().call_later(self._keep, self._forget, held.token)
            self._ended[held.token] = (held.history, timer)
        while len(self._ended) > self._most:
            self._forget(next(iter(self._ended)))

    # Private

    def _take(self, token: str) -> History | None:
        if token in self._held:
            return self._held[token].history.copy()
        if token not in self._ended:
            return None
        history, timer = self._ended.pop(token)
        timer.cancel()
        return history

    def _forget(self, token: str) -> None:
        _, timer = self._ended.pop(token)
        timer.cancel()


def _say(messages: list[Message], question: str) -> None:
    """What the user said after something that nobody replied to goes behind that; who began anew said it all again."""
    if messages and messages[-1].role is Role.USER:
        before = messages.pop().text
        question = question if question.startswith(before) else f"{before}\n{question}"
    messages.append(Message(Role.USER, question))
