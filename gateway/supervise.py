"""`voxgate run`: the gateway and each embedded engine, every one its own process, on this machine alone.

A process that ends is started again, at once the first time and then with growing pauses. Whatever ends the
supervisor, a signal or a kill, ends the others: each is told to stop, and the kernel tells them if nobody else can.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from gateway import logs
from gateway.settings import Settings, arguments_of, foreign_environment, secrets_of
from gateway.tasks import task_group

log = structlog.get_logger(__name__)
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further start; from the top again after a minute of life."""
_LONG_LIFE = 60.0
_STOP_SECONDS = 1.0
"""From a program's signal to its kill, beyond the time that it may use for its running requests."""


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    command: Sequence[str]
    grace: float = 0.0
    """Seconds that it may take to finish what is running, once told to stop."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables of its own: command lines can be read by every user of the machine."""


def run(settings: Settings) -> int:
    """Supervises until SIGTERM or Ctrl-C; gives the exit status."""
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(_supervise(programs(settings)))


def programs(settings: Settings) -> list[Program]:
    """The engines that no setting places elsewhere, then the gateway, told where they are."""
    engines, given = [], {}
    shared = ("--data", str(settings.animation.absolute()))
    for name, option, more in (
        ("tts", "speak_urls", ()),
        ("asr", "transcribe_urls", ()),
        ("avatar", "animate_urls", shared),
    ):
        if option not in settings.model_fields_set:
            port = free_port()
            command = _python(f"engines.{name}", "--host", "127.0.0.1", "--port", str(port), *more)
            engines.append(Program(name, command))
            given[option] = (f"http://127.0.0.1:{port}",)
    told = Settings.model_validate(settings.model_dump(exclude_unset=True) | given)
    serve = _python("gateway", "serve", *arguments_of(told))
    return [*engines, Program("gateway", serve, told.shutdown_grace, secrets_of(told))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


async def _supervise(programs: Sequence[Program]) -> int:
    """The gateway, the last of them, stops first: what it still answers needs the engines."""
    stopping, drained = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    async with task_group() as tasks:
        *engines, gateway = programs
        keepers = [tasks.create_task(_keep(program, drained)) for program in engines]
        door = tasks.create_task(_keep(gateway, stopping))
        anything = [door, *keepers, tasks.create_task(stopping.wait())]
        await asyncio.wait(anything, return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        await asyncio.wait([door])
        drained.set()
    return max(keeper.result() for keeper in (door, *keepers))


async def _keep(program: Program, stopping: asyncio.Event) -> int:
    """Keeps one program alive until `stopping`. Gives 0, or the status of a program that refused its settings."""
    starts = 0
    while not stopping.is_set():
        await _either(asyncio.sleep(_PAUSES[min(starts, len(_PAUSES) - 1)]), stopping)
        if stopping.is_set():
            break
        born = time.monotonic()
        status = await _live(program, stopping)
        if stopping.is_set():
            break
        if status == 2:
            return status
        starts = 1 if time.monotonic() - born > _LONG_LIFE else starts + 1
        pause = _PAUSES[min(starts, len(_PAUSES) - 1)]
        log.warning("ended, starting again", program=program.name, status=status, pause_s=pause)
    return 0


async def _live(program: Program, stopping: asyncio.Event) -> int:
    process = await asyncio.create_subprocess_exec(
        *program.command,
        stdin=asyncio.subprocess.DEVNULL,
        env=foreign_environment() | dict(program.secrets),
        start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops everything in order
        preexec_fn=_die_with_parent,
    )
    try:
        await _either(process.wait(), stopping)
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), program.grace + _STOP_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        status = await process.wait()
    return status


async def _either(work: object, stopping: asyncio.Event) -> None:
    """Waits for `work` or for `stopping`, whichever is first."""
    async with task_group() as tasks:
        both = [tasks.create_task(work), tasks.create_task(stopping.wait())]  # type: ignore[arg-type]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()


def _die_with_parent() -> None:
    """Linux: the kernel sends SIGKILL when the supervisor dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
