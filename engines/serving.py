"""What every engine server has in common: its process, its answers of refusal, its answer of health."""

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Iterable
from typing import TypeVar

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive

from gateway.wire import engine_health
from gateway.wire.engine_health import Report

T = TypeVar("T")


def parser(prog: str, does: str, port: int, backends: Iterable[str]) -> argparse.ArgumentParser:
    """The options that every engine server takes."""
    made = argparse.ArgumentParser(prog=f"python -m {prog}", description=does)
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=port)
    made.add_argument("--backend", choices=sorted(backends), default="embedded")
    return made


def run(app: ASGIApp, host: str, port: int) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        access_log=False,
        log_config=None,
        log_level="warning",
        # Told to end, it ends: whoever sends the signal has drained us first, or means to cut us short.
        timeout_graceful_shutdown=0.5,  # type: ignore[arg-type]  # asyncio takes the fraction
    )


def health(report: Report) -> Response:
    status, body = engine_health.encode(report)
    headers = None if status == 200 else {"retry-after": engine_health.RETRY_AFTER}
    return Response(body, status, headers, "application/json")


def status_of(exc: Exception) -> int:
    """Of an exception that was raised to be read by the caller."""
    status: int = getattr(exc, "status", 500)
    return status


def headers_of(exc: Exception) -> dict[str, str] | None:
    return {"retry-after": "1"} if status_of(exc) == 503 else None


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled when the client hangs up. Raises ClientDisconnect, and what `work` raises."""
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(_settled(work))
        watch = tasks.create_task(_hang_up(receive, job))
        await asyncio.wait([job])
        watch.cancel()
    if job.cancelled():
        raise ClientDisconnect
    result, failure = job.result()
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]


async def _settled(work: Awaitable[T]) -> tuple[T | None, Exception | None]:
    """A task group takes the exceptions of its tasks for its own."""
    try:
        return await work, None
    except Exception as exc:
        return None, exc


async def _hang_up(receive: Receive, job: "asyncio.Task[object]") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    job.cancel()
