"""A conversation engine of a test's own, and a stock client of Fun-Audio-Chat's protocol."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sphn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.errors import GatewayError
from gateway.events import Audio, Conversed, Opus, Phase, ReplyAudio, ReplyText, Resumable, Transcript, Turn
from gateway.replicas import Replicas
from gateway.tasks import task_group
from gateway.verbs import Begin, Cancel, Change, Converse, End, EngineHealth, State, ToolResult, Write
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus
from tests.conftest import Gateway

Heard = list[Audio | Opus]
Answer = Callable[["Talker", int, Heard], AsyncIterator[Conversed]]


def tone(seconds: float, hertz: float = 440.0, rate: int = 24_000) -> bytes:
    t = np.arange(round(rate * seconds)) / rate
    return (np.sin(2 * np.pi * hertz * t) * 12000).astype("<i2").tobytes()


def pitch(pcm: bytes, rate: int = 24_000) -> float:
    """Hz of the loudest tone."""
    found = np.frombuffer(pcm, "<i2").astype(float)
    return float(np.argmax(np.abs(np.fft.rfft(found))) * rate / len(found))


def pages_of(pcm: bytes, packer: opus.Packer | None = None, last: bool = True) -> list[bytes]:
    """An Ogg Opus stream of it, page by page, headers among them."""
    packer, cut = packer or opus.Packer(), opus.Pages()
    messages = packer.feed(pcm) + (packer.end() if last else [])
    return [page for message in messages for page in cut.feed(message)]


async def echo(talker: "Talker", turn: int, heard: Heard) -> AsyncIterator[Conversed]:
    """Says what it heard."""
    yield ReplyText(turn, f"turn {turn}")
    for piece in heard:
        yield ReplyAudio(turn, piece)


def speaks(seconds: float, hertz: float = 440.0, rate: int = 24_000, piece: float = 0.2, pause: float = 0.0) -> Answer:
    """A tone, as fast as it is taken, or with a pause before each piece."""

    async def answer(talker: "Talker", turn: int, heard: Heard) -> AsyncIterator[Conversed]:
        yield ReplyText(turn, "a tone")
        if talker.packed:
            for page in pages_of(tone(seconds, hertz)):
                await asyncio.sleep(pause)
                yield ReplyAudio(turn, Opus(page))
            return
        pcm, step = tone(seconds, hertz, rate), 2 * int(rate * piece)
        for at in range(0, len(pcm), step):
            await asyncio.sleep(pause)
            yield ReplyAudio(turn, Audio(pcm[at : at + step], rate))

    return answer


@dataclass
class Talker:
    """Answers each turn by `answer`; Begin and Cancel stop it."""

    answer: Answer = echo
    packed: bool = False
    follows: bool = False
    fails: GatewayError | None = None
    """Raised where a turn would be answered."""
    refuses: GatewayError | None = None
    never_opens: bool = False
    takes: float = 0.0
    """Seconds for each piece of what is said."""
    token: str = "token-1"
    jobs: list[Converse] = field(default_factory=list)
    turns: list[Heard] = field(default_factory=list)
    """What was said in each."""
    said: list[Any] = field(default_factory=list)
    """All but the audio."""
    stopped: int = 0
    open: int = 0
    url: str = "fake://talker"

    @asynccontextmanager
    async def session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        if self.refuses is not None:
            raise self.refuses
        if self.never_opens:
            await asyncio.Event().wait()
        self.jobs.append(job)
        self.open += 1
        out: asyncio.Queue[Conversed | GatewayError] = asyncio.Queue(1)
        try:
            async with task_group() as tasks:
                listening = tasks.create_task(self._listen(job, out, tasks))
                yield self._events(out)
                listening.cancel()
        finally:
            self.open -= 1

    async def health(self) -> EngineHealth:
        return EngineHealth(State.READY, "talker-1", "cpu")

    async def _events(self, out: "asyncio.Queue[Conversed | GatewayError]") -> AsyncIterator[Conversed]:
        while True:
            event = await out.get()
            if isinstance(event, GatewayError):
                raise event
            yield event

    async def _listen(self, job: Converse, out: Any, tasks: asyncio.TaskGroup) -> None:
        await out.put(Resumable(self.token, bool(job.resume)))
        turn, heard, reply, one_at_a_time = 0, [], None, asyncio.Lock()
        try:
            async for one in job.said:
                if isinstance(one, Audio | Opus):
                    heard.append(one)
                    if self.takes:
                        await asyncio.sleep(self.takes)
                    continue
                self.said.append(one)
                if isinstance(one, Begin | Cancel) and reply is not None and not reply.done():
                    reply.cancel()
                    self.stopped += 1
                if isinstance(one, Begin):
                    heard = []
                if isinstance(one, End | Write | ToolResult):
                    turn += 1
                    self.turns.append(heard)
                    reply = tasks.create_task(self._reply(turn, heard, out, one_at_a_time))
                    heard = []
        finally:
            if reply is not None:
                reply.cancel()

    async def _reply(self, turn: int, heard: Heard, out: Any, one_at_a_time: asyncio.Lock) -> None:
        async with one_at_a_time:
            await out.put(Turn(turn, Phase.WORKING))
            if self.fails is not None:
                await out.put(self.fails)
                return
            await out.put(Transcript(f"{len(heard)} pieces", "en", utterance=turn))
            async for event in self.answer(self, turn, heard):
                await out.put(event)
            await out.put(Turn(turn, Phase.DONE))

    def heard(self, turn: int) -> bytes:
        """PCM of a turn; at 24 kHz."""
        unpacker, found = opus.Unpacker(), b""
        for piece in self.turns[turn - 1]:
            found += unpacker.feed(piece.page) if isinstance(piece, Opus) else piece.pcm
        return found

    def changes(self) -> list[Change]:
        return [one for one in self.said if isinstance(one, Change)]


async def talks(gateway: Gateway, talker: Any, slots: int = 8) -> Any:
    """`talker` converses for this gateway from now on."""
    replicas: Replicas[Any, Any] = Replicas("s2s", "fake", [talker], slots=slots, queue=0)
    await replicas.refresh()
    gateway.state["converse"] = replicas
    return talker


@dataclass
class Stock:
    """What upstream's clients do: pages out, messages in."""

    socket: ClientConnection
    messages: list[tuple[float, wire.Message]] = field(default_factory=list)
    """With the loop time of their arrival."""
    packer: opus.Packer = field(default_factory=opus.Packer)

    async def start(self) -> None:
        await self.socket.send(b"\3\0")

    async def pause(self) -> None:
        await self.socket.send(b"\3\2")

    async def wish(self, **fields: Any) -> None:
        await self.socket.send(wire.encode(wire.metadata(fields)))

    async def speak(self, pcm: bytes) -> None:
        """As fast as the connection takes it, a page a message."""
        for page in pages_of(pcm, self.packer, last=False):
            await self.socket.send(b"\1" + page)

    async def next(self, seconds: float = 5.0) -> wire.Message:
        async with asyncio.timeout(seconds):
            data = await self.socket.recv()
        assert isinstance(data, bytes), "binary messages only"
        message = wire.decode(data)
        self.messages.append((asyncio.get_running_loop().time(), message))
        return message

    async def event(self, type: str, seconds: float = 5.0, **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Reads on until the `04` of that type."""
        async with asyncio.timeout(seconds):
            while True:
                message = await self.next()
                if isinstance(message, wire.Metadata):
                    found = message.fields
                    if found["type"] == type and fields.items() <= found.items():
                        return found

    async def closed(self, seconds: float = 5.0) -> tuple[int, str]:
        async with asyncio.timeout(seconds):
            try:
                while True:
                    await self.next(seconds)
            except ConnectionClosed as exc:
                assert exc.rcvd is not None, "it was cut"
                return exc.rcvd.code, exc.rcvd.reason

    def audio(self) -> list[bytes]:
        return [message.pages for _, message in self.messages if isinstance(message, wire.Audio)]

    def text(self) -> list[str]:
        return [message.text for _, message in self.messages if isinstance(message, wire.Text)]

    def events(self, type: str = "") -> list[dict[str, Any]]:  # noqa: A002
        found = [message.fields for _, message in self.messages if isinstance(message, wire.Metadata)]
        return [one for one in found if not type or one["type"] == type]

    def errors(self) -> list[str]:
        return [message.text for _, message in self.messages if isinstance(message, wire.Error)]

    def pcm(self) -> bytes:
        """All that was heard, by the one decoder that a client has for its connection."""
        reader = sphn.OpusStreamReader(24_000)
        heard = [reader.append_bytes(pages) for pages in self.audio()]
        samples = np.concatenate(heard) if heard else np.zeros(0, np.float32)
        return bytes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())


@asynccontextmanager
async def stock(gateway: Gateway, path: str = "/api/chat", **options: Any) -> AsyncIterator[Stock]:
    """A client that has read the handshake and the session."""
    async with dial(gateway, path, **options) as socket:
        client = Stock(socket)
        assert await client.next() == wire.Handshake()
        assert (await client.event("session"))["id"]
        yield client


def dial(gateway: Gateway, path: str = "/api/chat", **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{gateway.port}{path}", proxy=None, compression=None, **options)
