"""One answer, sent as it is made, given up when nobody listens any more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import CancelScope, create_task_group, fail_after
from starlette.types import Receive, Send

from engines.tts.job import Job
from engines.tts.source import Source
from gateway.wire import cosyvoice as wire

_WRITE = 16_384
"""Bytes handed to the socket at once: less than what a server buffers before it makes us wait for the reader."""
_UNREAD = 60.0
"""Seconds in which nothing is read before the answer is broken off: others wait for who speaks it."""


class _Unread(Exception):
    """The caller is there, and does not read."""


async def answer(source: Source, job: Job, receive: Receive, send: Send) -> None:
    """Raises what the source does, before the first byte wherever that is possible."""
    with suppress(_Unread):
        await _answered(source, job, receive, send)


async def _answered(source: Source, job: Job, receive: Receive, send: Send) -> None:
    async with _unless_gone(receive), source.speaking(job) as speech:
        pieces = aiter(speech)
        piece = await anext(pieces, b"")
        if not piece:
            raise RuntimeError("the backend made no sound")
        await _send_head(send, speech.sample_rate)
        while piece:
            await _send_piece(send, piece)
            piece = await anext(pieces, b"")
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def _unless_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client hangs up. A lone failure keeps its type."""
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(_hang_up, receive, tasks.cancel_scope)
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


async def _hang_up(receive: Receive, scope: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send_head(send: Send, sample_rate: int) -> None:
    headers = [
        (b"content-type", wire.PCM_TYPE.encode()),
        (wire.SAMPLE_RATE_HEADER.encode(), str(sample_rate).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_piece(send: Send, piece: bytes) -> None:
    for at in range(0, len(piece), _WRITE):
        try:
            with fail_after(_UNREAD):
                await send({"type": "http.response.body", "body": piece[at : at + _WRITE], "more_body": True})
        except TimeoutError:
            raise _Unread from None
