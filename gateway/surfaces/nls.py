"""What every route and socket of the NLS family shares: task ids, and failures in its shape."""

from uuid import uuid4

from gateway.errors import (
    BadRequest,
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
    (NotFound, Status.INVALID_PARAMETER),
    (BadRequest, Status.INVALID_PARAMETER),
)
UNSUPPORTED_RATE = "unsupported_sample_rate"
"""Code of the BadRequest that has a status of its own."""


def new_id() -> str:
    """Of a message or a task: 32 hexadecimal digits."""
    return uuid4().hex


def status_of(exc: GatewayError) -> Status:
    """Where FunSpeech has several, the one that says who can do something about it."""
    if exc.code == UNSUPPORTED_RATE:
        return Status.UNSUPPORTED_SAMPLE_RATE
    other = Status.SERVER_ERROR if exc.status >= 500 else Status.CLIENT_ERROR
    return next((status for kind, status in _MEANS if isinstance(exc, kind)), other)


def shape(exc: GatewayError) -> bytes:
    """A failure that came before there was a task."""
    return wire.result("", status_of(exc), str(exc))
