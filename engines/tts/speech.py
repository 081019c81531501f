"""One answer: made in worker threads a piece at a time, sent as it is made, given up when nobody listens any more.

There is no queue. The next piece is asked for when the last one has gone into the socket, so that a slow reader costs
one sentence of memory and holds no synthesiser.
"""

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, suppress
from threading import Event

from anyio import CancelScope, CapacityLimiter, create_task_group, to_thread
from starlette.types import Receive, Send

from engines.tts.backends import Backend
from engines.tts.job import Job
from gateway.wire import cosyvoice as wire

_WRITE = 16_384
"""Bytes handed to the socket at once: less than what a server buffers before it makes us wait for the reader."""


async def answer(backend: Backend, job: Job, threads: CapacityLimiter, receive: Receive, send: Send) -> None:
    """Raises Refused, or whatever the backend does, before the first byte wherever that is possible."""
    gone = Event()
    async with _listening(receive, gone):
        pieces = await to_thread.run_sync(backend.speak, job, gone.is_set, limiter=threads)
        async with _closed(pieces, threads):
            piece = await _next(pieces, threads)
            if not piece and not gone.is_set():
                raise RuntimeError("the backend made no sound")
            await _send_head(send, backend.sample_rate)
            while piece and not gone.is_set():
                await _send_piece(send, piece)
                piece = await _next(pieces, threads)
            await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def _listening(receive: Receive, gone: Event) -> AsyncIterator[None]:
    """Sets `gone` when the client hangs up, and when the block is left or cancelled. A lone failure keeps its type."""
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(_hang_up, receive, gone)
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


async def _hang_up(receive: Receive, gone: Event) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        gone.set()


@asynccontextmanager
async def _closed(pieces: Generator[bytes, None, None], threads: CapacityLimiter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        # At shutdown a thread may still be in it; `gone` ends that one.
        with CancelScope(shield=True), suppress(ValueError):
            await to_thread.run_sync(pieces.close, limiter=threads)


async def _next(pieces: Generator[bytes, None, None], threads: CapacityLimiter) -> bytes:
    """The next piece; empty after the last."""
    return await to_thread.run_sync(next, pieces, b"", limiter=threads)


async def _send_head(send: Send, sample_rate: int) -> None:
    headers = [
        (b"content-type", wire.PCM_TYPE.encode()),
        (wire.SAMPLE_RATE_HEADER.encode(), str(sample_rate).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_piece(send: Send, piece: bytes) -> None:
    for at in range(0, len(piece), _WRITE):
        await send({"type": "http.response.body", "body": piece[at : at + _WRITE], "more_body": True})
