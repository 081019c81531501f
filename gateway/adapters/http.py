"""What adapters of HTTP engines share: a POST whose answer is accepted or explained, and the question for health."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from gateway.adapters.connections import Client
from gateway.adapters.http1 import Connection
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    GatewayError,
)
from gateway.settings import Settings
from gateway.verbs import EngineHealth, State
from gateway.wire import engine_health, funasr_http

_ERROR_BYTES = 16 * 1024
_HEALTH_SECONDS = 2.0
_MAX_WAIT = 3600
_UPLOAD_CHUNK = 256 * 1024

Refusal = Callable[[int, bytes, bytes], GatewayError]
"""From an engine's status, body and Retry-After."""


def client(settings: Settings) -> Client:
    """The one client of the process."""
    return Client(
        connect=settings.engine_connect_timeout,
        idle=settings.engine_idle_timeout,
        total=settings.engine_total_timeout,
    )


class Post:
    """The scope of a POST whose answer is 200 and still streaming. Leaving early closes the connection: the engine
    sees it. A class, because a generator costs too much on this path.

    body: the parts of it; with `file`, that file's content goes between the first and the second, and the answer may
    take as long as the total timeout allows: it comes when the whole file has been worked through.
    """

    def __init__(
        self,
        http: Client,
        base: str,
        path: str,
        headers: bytes,
        body: Sequence[bytes],
        file: Path | None = None,
        refused: Refusal | None = None,
    ) -> None:
        """refused: what another status means; `refusal` without one."""
        self._http, self._base, self._path = http, base, path
        self._headers, self._body, self._file = headers, body, file
        self._refused = refused or refusal

    async def __aenter__(self) -> Connection:
        connection = await self._answered()
        if connection.status == 200:
            self._connection = connection
            return connection
        try:
            says = await connection.body(_ERROR_BYTES)
        finally:
            self._http.give_back(connection)
        raise self._refused(connection.status, says, connection.headers.get(b"retry-after", b""))

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.give_back(self._connection)

    async def _answered(self) -> Connection:
        """A kept connection may have been closed by the engine in the moment of its reuse; then another is tried."""
        while True:
            connection = await _send(self._http, self._base, self._path, self._headers, self._body, self._file)
            try:
                await connection.head()
                return connection
            except EngineUnavailable:
                connection.abort()
                if not connection.used:
                    raise
            except BaseException:
                connection.abort()
                raise


async def _send(
    http: Client, base: str, path: str, headers: bytes, body: Sequence[bytes], file: Path | None
) -> Connection:
    if file is None:
        return await http.send(base, b"POST", path, headers, body)
    before, after = body
    size = file.stat().st_size
    connection = await http.send(base, b"POST", path, headers, [before], more=size + len(after))
    connection.patient = True
    try:
        await _upload(connection, file, size, after)
    except BaseException:
        connection.abort()
        raise
    return connection


async def _upload(connection: Connection, file: Path, size: int, after: bytes) -> None:
    """Stops early where the engine answers early: that answer is what counts then."""
    for at in range(0, size, _UPLOAD_CHUNK):
        if not await connection.upload(await asyncio.to_thread(_part, file, at)):
            return
    await connection.upload(after)


def _part(file: Path, at: int) -> bytes:
    """Opened for each, so that a request that is cancelled leaves nothing open."""
    with file.open("rb") as content:
        content.seek(at)
        return content.read(_UPLOAD_CHUNK)


def refusal(status: int, body: bytes, retry_after: bytes) -> GatewayError:
    """What an engine's own refusal means. Its words about a caller's mistake are the caller's to read."""
    says = funasr_http.read_error(body)
    if status in (400, 413, 415, 422) and says:
        return BadRequest(says, code="engine_refused", quotes=True)
    if status in (429, 503):
        wait = min(int(retry_after[:9]), _MAX_WAIT) if retry_after.isdigit() else EngineBusy.retry_after
        return EngineBusy(f"the engine cannot take it now: {says or status}", retry_after=wait, quotes=bool(says))
    return EngineBroke(f"the engine answered {status}" + f": {says}" * bool(says), quotes=bool(says))


async def health(http: Client, base: str) -> EngineHealth:
    """What `GET /health` of an engine says. Never raises for one that is down."""
    return (await health_answer(http, base))[1]


async def health_answer(http: Client, base: str) -> tuple[int, EngineHealth]:
    """The status that it was answered with, too; 0 where there was no answer."""
    try:
        async with asyncio.timeout(_HEALTH_SECONDS):
            status, answer = await ask(http, base, engine_health.PATH)
    except TimeoutError:
        return 0, EngineHealth(State.DOWN, reason=f"no answer within {_HEALTH_SECONDS:g} s")
    except EngineError as exc:
        return 0, EngineHealth(State.DOWN, reason=str(exc))
    report = engine_health.decode(status, answer)
    return status, EngineHealth(State(report.state), report.model, report.device, report.reason, report.progress)


async def ask(http: Client, base: str, path: str, method: bytes = b"GET") -> tuple[int, bytes]:
    """(status, body) of a request without a body, over another connection where a kept one turns out to be closed."""
    while True:
        connection = await http.send(base, method, path)
        try:
            await connection.head()
            return connection.status, await connection.body(_ERROR_BYTES)
        except EngineUnavailable:
            if not connection.used:
                raise
        finally:
            http.give_back(connection)
