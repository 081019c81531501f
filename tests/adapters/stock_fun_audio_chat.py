"""A double of upstream's Fun-Audio-Chat server that does on the wire what that server does, its faults among them:

- what is still on its way to the recording when PAUSE or START comes is lost;
- one loop reads both PAUSE and START, and makes the whole reply before it reads on;
- all connections take from one queue of speech, and throw away what is not their own;
- texts wait for the first audio, nothing marks the end of a reply, and a failure of the model is kept quiet;
- audio that is no Opus in Ogg ends the connection without a close frame; a text that is no UTF-8 counts as PAUSE;
- pings of the protocol (`06`) get no answer; those of WebSocket do, in order with everything else;
- there is one path, and everything else is 404.

Made on the sans-IO half of websockets, so that pongs are answered in order and connections can be cut.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sphn
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.wire import opus

SYSTEM_PROMPT = "speak, as it is usual here"
HISTORY_TURNS = 8
_HOP = 15
"""Tokens of speech, 40 ms each, that the vocoder makes audible at a time; it looks 3 ahead."""


@dataclass(slots=True)
class Behaviour:
    """Of the model, for turns from now on. Times in seconds."""

    steps: int = 4
    """Of 5 tokens of speech each, and a piece of text."""
    step: float = 0.005
    delay: float = 0.02
    """Before the first step."""
    texts: tuple[str, ...] = ("Well", ", ", "yes", ".")
    whole: str = ""
    """The text as it is decoded at the end; the pieces put together where empty."""
    refuses: str = ""
    """Said in an `05` instead of a reply."""
    fails: bool = False
    """In generation: nobody is told."""
    mute: bool = False
    """The vocoder's process is dead."""


@dataclass(slots=True)
class Stock:
    url: str = ""
    behaviour: Behaviour = field(default_factory=Behaviour)
    text_every: float = 0.01
    page_every: float = 0.002
    """Upstream's are 0.2 and 0.01."""
    heard: list["Heard"] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    generating: int = 0
    most_generating: int = 0
    connections: int = 0
    cut: bool = False
    """Cuts every connection that says anything more."""
    speech: "asyncio.Queue[tuple[int, bytes]]" = field(default_factory=asyncio.Queue)
    """What the one vocoder has made, for whoever takes it first."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A turn as the model was given it."""

    pcm: bytes
    system_prompt: str
    turns: int
    """In the history, this one among them."""

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / opus.RATE

    @property
    def hz(self) -> float:
        return loudest(self.pcm)


def loudest(pcm: bytes) -> float:
    """The frequency in Hz that is heard most in PCM of 24 kHz; 0 in silence."""
    samples = np.frombuffer(pcm, "<i2").astype(float)
    if not len(samples) or not samples.any():
        return 0.0
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * opus.RATE / len(samples))


def tone(hz: float, seconds: float, rate: int = opus.RATE) -> bytes:
    t = np.arange(round(rate * seconds)) / rate
    return (np.sin(2 * np.pi * hz * t) * 12000).astype("<i2").tobytes()


@asynccontextmanager
async def stock() -> AsyncIterator[Stock]:
    made = Stock()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with suppress(ConnectionError, asyncio.CancelledError):
            await _Connection(made, reader, writer).live()
        writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Dies(Exception):
    """The handler, and with it the connection."""


class _Connection:
    _ids = itertools.count()

    def __init__(self, made: Stock, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._made, self._reader, self._writer = made, reader, writer
        self._protocol = ServerProtocol()
        self._recording = True
        self._signals: asyncio.Queue[str] = asyncio.Queue()
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        """Decoded, on its way to the recording."""
        self._recorded = b""
        self._reader_of_opus, self._packer = sphn.OpusStreamReader(opus.RATE), opus.Packer()
        self._prompt = SYSTEM_PROMPT
        self._messages: list[str] = []
        self._speech_id = next(self._ids)
        self._tokens = self._spoken = 0
        self._pages: asyncio.Queue[bytes] = asyncio.Queue()
        self._texts: asyncio.Queue[str] = asyncio.Queue()
        self._audible = False

    async def live(self) -> None:
        if not await self._opened():
            return
        self._made.connections += 1
        self._made.open += 1
        self._made.most_open = max(self._made.most_open, self._made.open)
        try:
            self._send(b"\0\0\0")
            loops: list[Callable[[], Awaitable[None]]]
            loops = [self._receive, self._control, self._accumulate, self._take_speech, self._send_pages]
            async with asyncio.TaskGroup() as tasks:
                for loop in [*loops, self._send_texts]:
                    tasks.create_task(loop())  # type: ignore[arg-type]
        except* _Dies:
            pass
        finally:
            self._made.open -= 1

    # What comes in

    async def _opened(self) -> bool:
        while data := await self._reader.read(65536):
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Request):
                    known = event.path.split("?")[0] == "/api/chat"
                    answer = self._protocol.accept(event) if known else self._protocol.reject(404, "404: Not Found")
                    self._protocol.send_response(answer)
                    self._flush()
                    return known
        return False

    async def _receive(self) -> None:
        while data := await self._reader.read(65536):
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if self._made.cut:
                    raise _Dies
                if isinstance(event, Frame) and event.opcode is Opcode.BINARY and event.data:
                    self._message(bytes(event.data))
            self._flush()  # the pongs, after all that came before the pings
            if self._protocol.state is not State.OPEN:
                break
        raise _Dies

    def _message(self, message: bytes) -> None:
        kind, rest = message[0], message[1:]
        if kind == 1 and self._recording:
            try:
                samples = self._reader_of_opus.append_bytes(rest)
            except BaseException as exc:  # a panic of its Rust is no Exception
                raise _Dies from exc
            if len(samples):
                self._pieces.put_nowait((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        elif kind == 2:
            try:
                rest.decode()
            except UnicodeDecodeError:
                self._pause()
        elif kind == 3 and rest[:1] in (b"\1", b"\2"):
            self._pause()
        elif kind == 3 and rest[:1] in (b"", b"\0"):
            self._recording = True
            self._signals.put_nowait("start")
        elif kind == 4:
            with suppress(ValueError):
                found: Any = json.loads(rest)
                if isinstance(found, dict) and "system_prompt" in found:
                    self._prompt = found["system_prompt"]

    def _pause(self) -> None:
        self._recording = False
        self._signals.put_nowait("pause")

    async def _accumulate(self) -> None:
        while True:
            piece = await self._pieces.get()
            if self._recording:
                self._recorded += piece

    # The one loop

    async def _control(self) -> None:
        while True:
            if await self._signals.get() == "start":
                self._restart()
            elif self._recorded:
                try:
                    await self._reply()
                except RuntimeError as exc:
                    self._send(b"\5Processing failed: " + str(exc).encode())

    def _restart(self) -> None:
        self._recorded = b""
        self._reader_of_opus = sphn.OpusStreamReader(opus.RATE)
        self._packer.drop()
        self._audible = False
        self._speech_id, self._tokens, self._spoken = next(self._ids), 0, 0
        for queue in (self._pieces, self._pages, self._texts):
            while not queue.empty():
                queue.get_nowait()

    async def _reply(self) -> None:
        made, behaviour = self._made, self._made.behaviour
        self._messages = [*(self._messages or [self._prompt]), "user"]
        if not isinstance(self._messages[0], str):
            raise RuntimeError("the system prompt is no text")
        users = self._messages.count("user")
        made.heard.append(Heard(self._recorded, self._messages[0], min(users, HISTORY_TURNS)))
        if behaviour.refuses:
            raise RuntimeError(behaviour.refuses)
        self._send(b"\2[Processing...]")
        made.generating += 1
        made.most_generating = max(made.most_generating, made.generating)
        try:
            said = await self._generate(behaviour, loudest(self._recorded))
        finally:
            made.generating -= 1
        whole = behaviour.whole or "".join(behaviour.texts)
        if not behaviour.fails and whole != said:
            self._texts.put_nowait(f"\n[Final: {whole}]")
        self._messages.append("assistant")

    async def _generate(self, behaviour: Behaviour, hz: float) -> str:
        """The text that was sent in pieces."""
        said = ""
        await asyncio.sleep(behaviour.delay)
        if behaviour.fails:
            return said
        for number in range(behaviour.steps):
            await asyncio.sleep(behaviour.step)
            text = behaviour.texts[number] if number < len(behaviour.texts) else ""
            if text.strip():
                said += text
                self._texts.put_nowait(text)
            self._tokens += 5
            while self._tokens >= self._spoken + _HOP + 3:
                self._vocode(hz, _HOP)
        if self._tokens > self._spoken + 4:
            self._vocode(hz, self._tokens - self._spoken)
        return said

    def _vocode(self, hz: float, tokens: int) -> None:
        if not self._made.behaviour.mute:
            self._made.speech.put_nowait((self._speech_id, tone(hz, tokens * 0.04)))
        self._spoken += tokens

    # What goes out

    async def _take_speech(self) -> None:
        while True:
            owner, pcm = await self._made.speech.get()
            if owner == self._speech_id:
                for item in self._packer.feed(pcm):
                    self._pages.put_nowait(item)

    async def _send_pages(self) -> None:
        while True:
            self._send(b"\1" + await self._pages.get())
            self._audible = True
            await asyncio.sleep(self._made.page_every)

    async def _send_texts(self) -> None:
        while True:
            text = await self._texts.get()
            while not self._audible:
                await asyncio.sleep(0.01)
            self._send(b"\2" + text.encode())
            await asyncio.sleep(self._made.text_every)

    def _send(self, message: bytes) -> None:
        self._protocol.send_binary(message)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
