"""What every route and socket of the NLS family shares: task ids, and failures in its shape."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from gateway.errors import (
    AudioRejected,
    BadRequest,
    CallerError,
    ClientGone,
    EngineBusy,
    Forbidden,
    GatewayError,
    NotFound,
    QuotaUsed,
    RateLimited,
    TooLarge,
    TooSlow,
    Unauthorized,
)
from gateway.exchange import Exchange
from gateway.wire import nls as wire
from gateway.wire.nls import Status

_MEANS: tuple[tuple[type[GatewayError], Status], ...] = (
    (Unauthorized, Status.ACCESS_DENIED),
    (Forbidden, Status.ACCESS_DENIED),
    (RateLimited, Status.TOO_MANY_REQUESTS),
    (QuotaUsed, Status.TOO_MANY_REQUESTS),
    (EngineBusy, Status.TOO_MANY_REQUESTS),
    (TooSlow, Status.IDLE_TIMEOUT),
    (TooLarge, Status.INVALID_MESSAGE),
    (AudioRejected, Status.INVALID_MESSAGE),
    (NotFound, Status.INVALID_PARAMETER),
    (BadRequest, Status.INVALID_PARAMETER),
)
REFUSED = 400
"""HTTP status for whom the door does not let in to the routes that are asked by GET, as FunSpeech has it."""


def owns(path: str) -> bool:
    return path.startswith("/stream/v1/")


def new_id() -> str:
    """Of a message or a task: 32 hexadecimal digits."""
    return uuid4().hex


def status_of(exc: GatewayError) -> Status:
    """Where FunSpeech has several, the one that says who can do something about it."""
    if exc.code == "audio_too_long":
        return Status.INVALID_PARAMETER
    other = Status.SERVER_ERROR if exc.status >= 500 else Status.CLIENT_ERROR
    return next((status for kind, status in _MEANS if isinstance(exc, kind)), other)


def reason_of(exc: GatewayError) -> str:
    """As FunSpeech says it, where it has words for it; of what a client sent as a key, only the masked ends."""
    if isinstance(exc, Unauthorized) and exc.what:
        return wire.denied(exc.what, exc.given)
    return str(exc)


def shape(exc: GatewayError) -> bytes:
    """A failure that came before there was a task."""
    return wire.result("", status_of(exc), reason_of(exc))


TASK_HEADER = b"task_id"
"""As FunSpeech spells it."""


@asynccontextmanager
async def http_task(http: Exchange) -> AsyncIterator[str]:
    """Scope of an HTTP request that has a task: its id. What fails in it is answered with the task's id: with HTTP 200,
    as FunSpeech does, where the caller is to blame, else with the status that load balancers and monitors know."""
    task_id = new_id()
    try:
        yield task_id
    except ClientGone:
        raise
    except GatewayError as exc:
        if http.started and not http.blank:
            raise

        def shaped(failure: GatewayError) -> bytes:
            return wire.result(task_id, status_of(failure), reason_of(failure))

        status = 200 if isinstance(exc, CallerError) else exc.status
        await http.refuse(exc, shaped, status=status, headers=[(TASK_HEADER, task_id.encode())])
