"""FunASR's WebSocket protocol (gateway/wire/funasr_2pass.py) for its existing clients: WS /asr/2pass, and / where they
know a host and a port only.

Rule 1: where utterances begin and end is for gateway/endpointing.py, whatever the engine; `chunk_size` and the
look-backs are taken and change nothing.
Rule 2: of one utterance first the deltas, then, in their place, all of it; then the deltas of the next one.
Rule 3: an utterance that fails is an error in between, and named in the end ack; the stream goes on. What was heard of
it stays.
Rule 4: audio that is no PCM is a whole file: it is decoded once it has all come, and then heard like any other.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway import cleanup
from gateway.errors import BadRequest, CallerError, ClientGone, GatewayError, TooLarge, TooSlow
from gateway.segments import RATE
from gateway.socket import Socket
from gateway.state import State
from gateway.surfaces.funasr_2pass_pen import Pen
from gateway.tape import played
from gateway.tasks import task_group
from gateway.utterances import Failed, Final, Partial, Utterances
from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_2pass import Config, Mode
from gateway.wire.funasr_frames import Audio, Command, Finish, Frames, Open, Unreadable

PATH = "/asr/2pass"

_AHEAD = 8
"""Frames of a client that are read before they are heard."""
_PIECE = 2 * RATE
"""Bytes of a decoded file that are heard at a time."""


async def listen(socket: Socket) -> None:
    """One connection: stream after stream, until the client leaves."""
    state: State = socket.state
    offered = wire.SUBPROTOCOL in socket.scope.get("subprotocols", ())
    await socket.accept(wire.SUBPROTOCOL if offered else None)
    client = _Client(socket, state)
    try:
        async with task_group() as tasks:
            reading = tasks.create_task(client.read())
            await client.serve()
            reading.cancel()
    except (ClientGone, TooSlow):
        raise
    except GatewayError as exc:
        await client.send(wire.fault(wire.Fault(str(exc))))
        raise


class _Client:
    def __init__(self, socket: Socket, state: State) -> None:
        self._socket, self._state, self._settings = socket, state, state["settings"]
        self._ahead: asyncio.Queue[bytes | str] = asyncio.Queue(_AHEAD)
        self._frames = Frames()
        self._commands: list[Command] = []

    async def read(self) -> None:
        """Until the client leaves: also while it waits for us, so that its leaving is seen."""
        while True:
            await self._ahead.put(await self._socket.receive())

    async def serve(self) -> None:
        """Raises BadRequest for frames that cannot be, and whatever ends a connection."""
        while True:
            match await self._next():
                case Open(asked):
                    await self._stream(asked)
                case Finish(ack):  # of a stream without any audio
                    await self.send(wire.last_words(self._frames.asked, ack=ack, final=False))

    async def send(self, text: str) -> None:
        """Nothing where it is empty. Raises TooSlow."""
        if text:
            idle = self._settings.client_idle_timeout
            try:
                async with asyncio.timeout(idle):
                    await self._socket.send(text)
            except TimeoutError:
                raise TooSlow(f"you have read nothing for {idle:g} s") from None

    # Private

    async def _next(self) -> Command:
        while not self._commands:
            frame = await self._ahead.get()
            try:
                self._commands += self._frames.text(frame) if isinstance(frame, str) else self._frames.audio(frame)
            except Unreadable as exc:
                raise BadRequest(str(exc)) from exc
        return self._commands.pop(0)

    async def _stream(self, asked: Config) -> None:
        """One stream, from its config to its last words."""
        pen, live = Pen(asked), asked.form == wire.PCM
        utterances = Utterances(
            self._state["transcribe"],
            self._settings,
            self._state["scratch"],
            sample_rate=asked.rate if live else RATE,
            language=asked.language,
            hotwords=asked.hotwords,
            itn=asked.itn,
            words=True,
            partials=asked.mode is not Mode.OFFLINE,
        )
        async with utterances.at_work(), task_group() as tasks:
            tasks.create_task(self._tell(utterances, pen))
            ack = await (self._live(utterances) if live else self._file(utterances, pen))
            pen.ended = True
            await utterances.end()
        for frame in pen.last_words(ack):
            await self.send(frame)
        if pen.errors and not ack:  # there is no other way to say that this is the end
            raise pen.errors[0]

    async def _live(self, utterances: Utterances) -> bool:
        """Whether the client wants an end ack."""
        said = _Said(self._next)
        async for pcm in said:
            await utterances.feed(pcm)
        return said.ack

    async def _file(self, utterances: Utterances, pen: Pen) -> bool:
        """As `_live`. What cannot be decoded is for the last words to say."""
        settings = self._settings
        async with cleanup.workspace(self._state["scratch"]) as work:
            said = _Said(self._next)
            await _save(said, work / "upload", settings.upload_max_bytes)
            try:
                async with self._state["decoding"].enter():
                    recording = await self._state["decoder"].to_wav(
                        work / "upload", work / "audio.wav", max_seconds=settings.transcribe_max_seconds
                    )
            except CallerError as exc:
                pen.errors.append(exc)
                return said.ack
            pen.ended = True
            async for pcm in played(recording, _PIECE):
                await utterances.feed(pcm)
        return said.ack

    async def _tell(self, utterances: Utterances, pen: Pen) -> None:
        async for event in utterances.events_in_turn():
            match event:
                case Partial():
                    frames = pen.partial(event.text)
                case Final():
                    frames = pen.final(event.transcript)
                case Failed():
                    frames = pen.failed(event.error)
                case _:
                    continue
            for frame in frames:
                await self.send(frame)


class _Said:
    """The audio of the stream that runs; afterwards, whether its client wants an end ack."""

    def __init__(self, following: Callable[[], Awaitable[Command]]) -> None:
        self._following = following
        self.ack = False

    def __aiter__(self) -> "_Said":
        return self

    async def __anext__(self) -> bytes:
        while True:
            match await self._following():
                case Audio(pcm):
                    return pcm
                case Finish(ack):
                    self.ack = ack
                    raise StopAsyncIteration


# Private


async def _save(said: _Said, into: Path, most: int) -> None:
    """Raises TooLarge."""
    size = 0
    with await asyncio.to_thread(into.open, "wb") as file:
        async for piece in said:
            size += len(piece)
            if size > most:
                raise TooLarge(f"more than {most} bytes")
            await asyncio.to_thread(file.write, piece)
