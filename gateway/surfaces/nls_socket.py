"""WS /ws/v1, /ws/v1/asr and /ws/v1/tts: tasks of the NLS family, one after another on one connection.

Rule 1: every path takes every namespace, because Alibaba's clients open one path for all.
Rule 2: what a client says wrong is answered by TaskFailed, and the task that runs goes on; a task that fails by itself
is answered by TaskFailed too, and the connection takes the next one.
Rule 3: messages are read while a task works, so that a Stop and a hang-up act at once.
Rule 4: a connection that is silent between two tasks closes normally (nls_idle_timeout); one in a task, when neither
side has said anything for long (nls_task_timeout), is told so first.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from gateway import caller
from gateway.caller import Right
from gateway.errors import BadRequest, CallerError, ClientGone, Forbidden, GatewayError, TooSlow, Unauthorized
from gateway.socket import Socket
from gateway.state import State
from gateway.surfaces.nls import new_id, reason_of, status_of
from gateway.surfaces.voicechat import one_more
from gateway.tasks import task_group
from gateway.wire import nls as wire
from gateway.wire.nls import Status

log = structlog.get_logger(__name__)
_LONGEST_AUDIO = 64 * 1024
"""Bytes of a message. Many clients take no more than 1 MiB, and engines may give a minute at once."""
_RIGHTS = {
    wire.TRANSCRIBER: Right.TRANSCRIBE,
    wire.RECOGNIZER: Right.TRANSCRIBE,
    wire.FLOWING: Right.SPEAK,
    wire.SYNTHESIZER: Right.SPEAK,
    wire.LONG_SYNTHESIZER: Right.SPEAK,
}
"""What a key must be for, by namespace."""


class Task(Protocol):
    """One task, from its Start to its end."""

    async def run(self) -> None:
        """Its whole life, in a task of its own: says that it has started, and last, by Line.complete, that it is
        complete. Cancelled where the client leaves. What it raises is said as TaskFailed."""
        ...

    async def command(self, message: wire.Message) -> None:
        """One of wire.COMMANDS. Returns at once. Raises CallerError or wire.Unusable; the task goes on."""
        ...

    async def audio(self, data: bytes) -> None:
        """A binary message. May wait while too much is held; the client is held back then. Raises as `command`."""
        ...


class Line:
    """A task's way to its client. Each method waits while the client reads too slowly, and raises TooSlow and
    ClientGone, which are for the connection to know."""

    def __init__(self, connection: "_Connection", namespace: str, task_id: str) -> None:
        self._connection = connection
        self.namespace, self.task_id = namespace, task_id
        self.session_id = f"session_{new_id()}"
        self.state: State = connection.state

    async def say(self, name: str, payload: Mapping[str, Any] | None = None) -> None:
        await self._connection.send(wire.event(new_id(), self.task_id, self.namespace, name, payload))

    async def play(self, audio: bytes) -> None:
        """In binary messages that any client takes."""
        for at in range(0, len(audio), _LONGEST_AUDIO):
            await self._connection.send(audio[at : at + _LONGEST_AUDIO])

    async def complete(self, name: str, payload: Mapping[str, Any] | None = None) -> None:
        """The last that is said of the task: the client may start the next one right behind it."""
        self._connection.over(self)
        await self.say(name, payload)

    async def fail(self, status: Status, reason: str) -> None:
        self._connection.over(self)
        await self._connection.fail(self.namespace, self.task_id, status, reason)


Begin = Callable[[Line, wire.Message], Task]
"""Makes a task of its Start; raises CallerError or wire.Unusable where it is wrong. Does not wait."""


async def serve(socket: Socket, kinds: Mapping[str, Begin]) -> None:
    """kinds: by namespace."""
    await socket.accept()
    await _Connection(socket, kinds).run()


async def farewell(socket: Socket, exc: GatewayError) -> None:
    """To whom the door does not let in, or shows out: accepted and told, as FunSpeech does."""
    if not socket.opened:
        await socket.accept()
    await socket.send(wire.failed(new_id(), new_id(), wire.DEFAULT, status_of(exc), reason_of(exc)))


class _Connection:
    def __init__(self, socket: Socket, kinds: Mapping[str, Begin]) -> None:
        self.state: State = socket.state
        self._socket, self._kinds = socket, kinds
        self._own_id = new_id()
        """Names no task: for what is said while there is none."""
        self._line: Line | None = None
        self._task: Task | None = None
        self._mistakes = 0
        """In a row."""
        self._stray = False
        """Whether audio that nobody asked for needs no answer: the last message was some, or it was on its way when
        its task ended."""
        self._asked: Line | None = None
        """Of the Start that is being looked at."""
        self._stopped = False
        """Whether the client has ended the task that runs."""
        self._last_id = ""
        """Of a task that ended by itself: its Stop may have been on its way."""
        self._running: asyncio.Task[None] | None = None
        self._clock: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Until the client leaves, or is silent for too long. Raises ClientGone, TooSlow, BadRequest."""
        self._touch()
        async with task_group(failure=0) as self._tasks:
            await self._listen()

    # For a Line

    async def send(self, data: bytes | str) -> None:
        idle = self.state["settings"].client_idle_timeout
        try:
            async with asyncio.timeout(idle):
                await self._socket.send(data)
        except TimeoutError:
            raise TooSlow(f"you have read nothing for {idle:g} s") from None
        self._touch()

    async def fail(self, namespace: str, task_id: str, status: Status, reason: str) -> None:
        await self.send(wire.failed(new_id(), task_id, namespace, status, reason))

    def over(self, line: Line) -> None:
        if line is self._line:
            self._line = self._task = None
            self._stray, self._last_id = not self._stopped, "" if self._stopped else line.task_id
            self._touch()

    # Private

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout_at(self._until) as self._clock:
                    frame = await self._socket.receive()
                self._clock = None
            except TimeoutError:
                await self._silent()
                return
            try:
                await self._take(frame)
                self._mistakes = 0
            except (CallerError, wire.Unusable) as exc:
                self._mistakes = one_more(self._mistakes)
                line = self._line or self._asked
                namespace, task_id = (line.namespace, line.task_id) if line else (wire.DEFAULT, self._own_id)
                await self.fail(namespace, task_id, *_wrong(exc))

    @property
    def _patience(self) -> float:
        settings = self.state["settings"]
        return settings.nls_idle_timeout if self._task is None else settings.nls_task_timeout

    def _touch(self) -> None:
        """Something was said: the silence begins anew."""
        self._until = asyncio.get_running_loop().time() + self._patience
        if self._clock is not None and not self._clock.expired():
            self._clock.reschedule(self._until)

    async def _silent(self) -> None:
        line, running, patience = self._line, self._running, self._patience
        if line is not None and running is not None:
            running.cancel()
            await asyncio.wait([running])
            await line.fail(Status.IDLE_TIMEOUT, f"Gateway:IDLE_TIMEOUT:nothing was said for {patience:g} s")

    async def _take(self, frame: bytes | str) -> None:
        self._asked = None
        if isinstance(frame, bytes):
            await self._hear(frame)
            return
        self._stray = False
        self._touch()
        message = wire.read(frame)
        if message.namespace not in self._kinds:
            raise BadRequest("Invalid namespace")
        if message.name == wire.STARTS[message.namespace]:
            self._begin(message)
        else:
            await self._command(message)

    async def _hear(self, audio: bytes) -> None:
        if self._task is not None:
            self._touch()
            await self._task.audio(audio)
            self._touch()  # it may be we who kept it waiting
        elif not self._stray:
            self._stray = True
            raise BadRequest("Connection not started")

    def _begin(self, message: wire.Message) -> None:
        if self._task is not None:
            raise BadRequest("Connection already started")
        self._asked = line = Line(self, message.namespace, message.task_id or new_id())
        caller.current().require(_RIGHTS[message.namespace])
        caller.current().check_appkey(message.appkey)
        task = self._kinds[message.namespace](line, message)
        self._line, self._task, self._stopped = line, task, False
        self._running = self._tasks.create_task(self._work(line, task))

    async def _command(self, message: wire.Message) -> None:
        if message.name not in wire.COMMANDS[message.namespace]:
            raise BadRequest(f"Invalid message name: {message.name}")
        if self._task is None or self._line is None:
            if message.task_id and message.task_id == self._last_id:
                return
            raise BadRequest("Connection not started")
        if message.namespace != self._line.namespace:
            raise BadRequest("Invalid namespace")
        if message.task_id not in ("", self._line.task_id):
            raise BadRequest("Task ID not match")
        self._stopped = message.name.startswith("Stop")
        await self._task.command(message)

    async def _work(self, line: Line, task: Task) -> None:
        try:
            await task.run()
        except (ClientGone, TooSlow):
            raise
        except GatewayError as exc:
            await line.fail(status_of(exc), reason_of(exc))
        except Exception:
            log.exception("task failed", namespace=line.namespace)
            await line.fail(Status.SERVER_ERROR, str(GatewayError()))


def _wrong(exc: CallerError | wire.Unusable) -> tuple[Status, str]:
    """What a client is told of its mistake; FunSpeech has one status for all but its key."""
    if isinstance(exc, Unauthorized | Forbidden):
        return status_of(exc), reason_of(exc)
    return Status.CLIENT_ERROR, str(exc)
