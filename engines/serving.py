"""What every engine server has in common: its process, its answers of refusal, its answer of health."""

import argparse
import asyncio
import logging
import os
from collections.abc import Awaitable, Iterable
from pathlib import Path
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
    made.add_argument("--port", type=a_port, default=port)
    made.add_argument("--backend", choices=sorted(backends), default="embedded")
    return made


def a_port(text: str) -> int:
    """For argparse: uvloop and gRPC take what is beyond 65535 modulo 65536, and say nothing."""
    return _number(text, 0, 65_535)


def a_count(text: str) -> int:
    """For argparse: at least one."""
    return _number(text, 1, 10**9)


def nothing_or_more(text: str) -> int:
    """For argparse."""
    return _number(text, 0, 10**9)


def a_folder(text: str) -> Path:
    """For argparse: one that files can be written to."""
    folder = Path(text)
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text} is not a folder that can be written to")
    return folder


def run(app: ASGIApp, host: str, port: int) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_is_news)
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


def _is_news(record: logging.LogRecord) -> bool:
    """uvicorn calls every refused WebSocket an error."""
    return "without completing handshake" not in record.getMessage()


def _number(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        bounds = f"from {least} to {most}" if most < 10**9 else f"of at least {least}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
    return number


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
