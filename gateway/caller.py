"""Who is asking. The door (gateway/access.py) puts a Caller into the context of each request and each connection;
whatever is done for it finds it there, so that no surface can forget to ask what it may and whose it is.

What nobody asked for (a sweep, a health check) has OURSELVES there, who may everything and pays nothing.
"""

import asyncio
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from enum import StrEnum
from typing import Protocol

from gateway.errors import Forbidden, GatewayError, Unauthorized
from gateway.wire import credentials


class Right(StrEnum):
    """What a key may be used for: the verbs, and what only operators ask."""

    SPEAK = "speak"
    TRANSCRIBE = "transcribe"
    CONVERSE = "converse"
    ANIMATE = "animate"
    ADMIN = "admin"


EVERYTHING = frozenset(Right)


class Payer(Protocol):
    """Whose seconds of audio are counted (gateway/accounts.py)."""

    id: str
    tenant: str
    rights: frozenset[Right]
    appkey: str

    def afford(self, seconds: float = 0.0) -> None:
        """Raises QuotaUsed where so many more are too many, or none are left."""
        ...

    def charge(self, right: Right, seconds: float) -> None:
        """Counts them. Raises QuotaUsed where they were more than was left; they are counted all the same."""
        ...


class Caller:
    """One request or connection."""

    __slots__ = ("_ended", "_rights", "payer", "task")

    def __init__(self, payer: Payer | None = None, rights: frozenset[Right] = frozenset()) -> None:
        """payer: who has shown a key. rights: of who has shown none."""
        self.payer, self._rights = payer, rights
        self.task: asyncio.Task[object] | None = None
        """What `end` ends, by a cancellation that `ended` explains."""
        self._ended: GatewayError | None = None

    @property
    def known(self) -> bool:
        """Whether it may be told what is not for everybody."""
        return self.payer is not None or self._rights == EVERYTHING

    @property
    def key_id(self) -> str:
        """Empty without a key."""
        return self.payer.id if self.payer else ""

    @property
    def tenant(self) -> str:
        """Whose voices and chats it sees."""
        return self.payer.tenant if self.payer else ""

    def require(self, right: Right) -> None:
        """Raises Forbidden, or Unauthorized where no key was shown."""
        if right in (self.payer.rights if self.payer else self._rights):
            return
        if self.payer is None:
            raise Unauthorized("a key is needed here")
        raise Forbidden(f"this key is not for this: it lacks the scope {right}")

    def check_appkey(self, given: str) -> None:
        """For surfaces whose clients send one beside their key. Raises Unauthorized where its key has another."""
        if self.payer is None or not self.payer.appkey:
            return
        if not hmac.compare_digest(given.encode(errors="replace"), self.payer.appkey.encode()):
            masked = credentials.masked(given)
            raise Unauthorized("the appkey is missing or wrong", what="appkey", given=masked)

    def afford(self, seconds: float = 0.0) -> None:
        """Raises QuotaUsed where its key has not so many seconds of audio left, or none."""
        if self.payer is not None:
            self.payer.afford(seconds)

    def charge(self, right: Right, seconds: float) -> None:
        """Counts audio that has passed. One second too many ends the request; what is no request's raises QuotaUsed."""
        if self.payer is None:
            return
        try:
            self.payer.charge(right, seconds)
        except GatewayError as exc:
            if self.task is None:
                raise
            self.end(exc)

    def end(self, exc: GatewayError) -> None:
        """Ends what it does, for this reason. Nothing where that has ended, or will in a moment."""
        if self.task is not None and self._ended is None:
            self._ended = exc
            self.task.cancel()

    @property
    def over(self) -> bool:
        """Whether it is being ended."""
        return self._ended is not None

    def ended(self) -> GatewayError | None:
        """Why its task was cancelled, if it was by `end`; the task then goes on, to say so."""
        if self._ended is not None and self.task is not None:
            self.task.uncancel()
        return self._ended


OURSELVES = Caller(rights=EVERYTHING)
_asking: ContextVar[Caller] = ContextVar("caller", default=OURSELVES)


def current() -> Caller:
    return _asking.get()


def tenant() -> str:
    """Whose data this is about."""
    return _asking.get().tenant


def enter(caller: Caller) -> "Token[Caller]":
    """From now on the context is this caller's, until `leave` is given the token."""
    return _asking.set(caller)


def leave(token: "Token[Caller]") -> None:
    _asking.reset(token)


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """Scope of what is done for somebody."""
    token = enter(caller)
    try:
        yield
    finally:
        leave(token)
