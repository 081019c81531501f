"""The door's policy, one for every surface: who is let in, as whom, and until when.

Rule 1: whatever no key opens asks for one. Public is what is named so, nothing else.
Rule 2: nothing here waits for the database: all keys are in memory, and what other processes change is read every
`keys_refresh` seconds. Who is not let in any more by then is ended, in the middle of a connection too.
Rule 3: no key is ever logged, nor shown but masked.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from gateway import caller
from gateway.accounts import Account
from gateway.caller import EVERYTHING, Caller, Right
from gateway.ephemeral import Ephemeral
from gateway.errors import Unauthorized
from gateway.exchange import Scope
from gateway.keys import Keys, same
from gateway.settings import Settings
from gateway.tasks import shielded
from gateway.wire import credentials

log = structlog.get_logger(__name__)


class Access:
    """Of one process."""

    def __init__(self, keys: Keys, settings: Settings) -> None:
        self._keys, self._policy = keys, settings.keys
        self._by_id: dict[str, Account] = {}
        self._by_digest: dict[str, Account] = {}
        self._revision = 0
        self._inside: set[Caller] = set()
        self._writing = asyncio.Lock()
        self.ephemeral = Ephemeral()
        """Secrets that stand for keys, at one path and for some minutes."""
        self.open = self._policy == "off"
        """Whether nobody is asked for a key."""

    def __repr__(self) -> str:
        return f"<access: {'open' if self.open else 'asks'}, {len(self._by_id)} keys, {len(self._inside)} inside>"

    def announce(self) -> None:
        """Says aloud where nobody is asked."""
        if self.open:
            log.warning(
                "OPEN TO EVERYBODY: no key is asked of whoever reaches the ports",
                remedy="voxgate keys create" if self._policy == "auto" else "the setting keys",
            )

    async def refresh(self) -> None:
        """Learns what other processes have changed; ends those who would not be let in now."""
        found, self._revision = await self._keys.since(self._revision)
        fresh = [key for key in found if key.id not in self._by_id]
        for key in found:
            account = self._by_id.setdefault(key.id, Account(key))
            account.take_up(key)
            self._by_digest[key.digest] = account
        await self._learn_sums([key.id for key in fresh])
        was_open, self.open = self.open, self._policy == "off" or (self._policy == "auto" and not self._by_id)
        if was_open and not self.open:
            log.info("keys are asked from now on")
        self._show_out()

    async def flush(self) -> None:
        """Writes down what was used, each second of it once, also where the caller is cancelled meanwhile."""
        await shielded(self._flush())

    async def tend(self) -> None:
        """To be repeated."""
        await self.refresh()
        await self.flush()

    def let_in(self, scope: Scope, right: Right | None, *, public: bool = False) -> Caller:
        """Who comes; `inside` must follow. Raises Unauthorized, Forbidden, RateLimited.

        right: what its key must be for; None for any key. public: whether it may come without one; it then has this
        right alone.
        """
        if self.open:
            return Caller(rights=EVERYTHING)
        account = self._account(scope)
        if account is None and public:
            return Caller(rights=frozenset((right,) if right else ()))
        if account is None:
            raise _refusal(next(iter(credentials.given(scope["headers"], scope["query_string"])), ""))
        visitor = Caller(account)
        if right is not None:
            visitor.require(right)
        account.enter()
        return visitor

    def inside(self, visitor: Caller, *, lasts: bool) -> "_Visit":
        """Scope of one request or connection. lasts: whether its task can be ended in the middle."""
        visitor.task = asyncio.current_task() if lasts else None
        return _Visit(self._inside, visitor)

    async def admit(self, token: str, *, appkey: str = "", verb: Right | None = None) -> Caller:
        """For a surface whose clients have their key in the body: what the door let pass as nobody becomes somebody.

        verb: what the key must be for. Raises Unauthorized, Forbidden, RateLimited.
        """
        visitor = caller.current()
        if not self.open and visitor.payer is None:
            account = self._good(token)
            if account is None:
                raise _refusal(token)
            account.enter()
            visitor.payer = account
        visitor.check_appkey(appkey)
        if verb is not None:
            visitor.require(verb)
        return visitor

    @contextmanager
    def on_behalf(self, key_id: str) -> Iterator[Caller]:
        """Scope of work that is done later for whom had asked for it. Raises Unauthorized where the key is no good any
        more. key_id: empty where no key was asked."""
        account = self._by_id.get(key_id)
        if key_id and (account is None or not account.key.good):
            raise Unauthorized("the key that asked for this is not good any more")
        worker = Caller(account) if account else Caller(rights=EVERYTHING)
        with caller.acting(worker):
            yield worker

    # Private

    async def _flush(self) -> None:
        async with self._writing:
            await self._write_down()

    async def _write_down(self) -> None:
        stirred = [account for account in self._by_id.values() if account.stirred]
        seen = {account.id: account.seen for account in stirred if account.seen}
        used = {
            (account.id, day, verb): seconds for account in stirred for (day, verb), seconds in account.take().items()
        }
        try:
            await self._keys.add(used, {one: datetime.fromtimestamp(at, UTC) for one, at in seen.items()})
        except BaseException:
            for account in stirred:
                account.give_back()
            raise
        for account in stirred:
            account.confirm()
            account.seen = 0.0 if account.seen == seen.get(account.id) else account.seen
        await self._learn_sums([account.id for account in stirred if account.limited])

    def _account(self, scope: Scope) -> Account | None:
        """Of the first good key that is shown."""
        for sent in credentials.given(scope["headers"], scope["query_string"]):
            if (account := self._good(sent) or self._lent(sent, scope["path"])) is not None:
                return account
        return None

    def _lent(self, sent: str, path: str) -> Account | None:
        """Whose key an ephemeral secret stands for."""
        secret = self.ephemeral.find(sent, path)
        account = self._by_id.get(secret.key_id) if secret else None
        return account if account and account.key.good else None

    def _good(self, sent: str) -> Account | None:
        key_id, digest = self._keys.digest(sent)
        account = self._by_id.get(key_id) if key_id else self._by_digest.get(digest)
        good = same(digest, account.key if account else None)
        return account if good and account and account.key.good else None

    async def _learn_sums(self, key_ids: list[str]) -> None:
        if key_ids:
            today = datetime.now(UTC).date()
            sums = await self._keys.used(today, key_ids)
            for key_id in key_ids:
                self._by_id[key_id].know(today, sums.get(key_id, (0.0, 0.0)))

    def _show_out(self) -> None:
        if self.open:
            return
        for visitor in tuple(self._inside):
            payer = visitor.payer
            if isinstance(payer, Account) and not payer.key.good:
                visitor.end(Unauthorized("this key is not good any more"))
            elif payer is None and visitor.known:
                visitor.end(Unauthorized("a key is needed here from now on"))


# Private


class _Visit:
    """A class because generators cost too much on this path."""

    __slots__ = ("_inside", "_token", "_visitor")

    def __init__(self, inside: set[Caller], visitor: Caller) -> None:
        self._inside, self._visitor = inside, visitor

    def __enter__(self) -> None:
        self._inside.add(self._visitor)
        self._token = caller.enter(self._visitor)

    def __exit__(self, *_: object) -> None:
        caller.leave(self._token)
        self._inside.discard(self._visitor)
        self._visitor.task = None
        if isinstance(self._visitor.payer, Account):
            self._visitor.payer.leave()


def _refusal(sent: str) -> Unauthorized:
    if not sent:
        return Unauthorized(
            "a key is needed: Authorization: Bearer, X-API-Key, or ?token= in the address", what="token"
        )
    return Unauthorized("this key is not known, or not good any more", what="token", given=credentials.masked(sent))
