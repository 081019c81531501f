"""What a client of /api/chat does, without an event loop: it speaks, waits for the reply, and interrupts it."""

import io
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import soxr
from websockets.sync.client import ClientConnection, connect

from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns, wav
from tests.e2e import client

PATIENCE = 60.0
"""Seconds for whatever is waited for."""
_STEP = 2 * opus.FRAME


def sound(recording: bytes) -> bytes:
    """A WAV of 16 bits, also a streamed one, as it is said: mono s16le at opus.RATE."""
    with wave.open(io.BytesIO(client.closed(recording))) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
    said = soxr.resample(samples, rate, opus.RATE) if rate != opus.RATE else samples
    return bytes(said.astype("<i2").tobytes())


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * opus.RATE))


@dataclass(slots=True)
class Reply:
    """What has come of a turn."""

    text: str = ""
    pcm: bytes = b""
    """Mono s16le at opus.RATE."""
    last_sound: float = 0.0
    """When its last page came."""
    done: turns.ReplyDone | None = None

    @property
    def recording(self) -> bytes:
        return wav.header(opus.RATE, len(self.pcm) // 2) + self.pcm


@dataclass(slots=True)
class Talker:
    """One connection; turns count from 1."""

    socket: ClientConnection
    events: list[turns.Event] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _replies: dict[int, Reply] = field(default_factory=dict)
    _at: int = 0
    """The turn that is being answered."""
    _packer: opus.Packer = field(default_factory=opus.Packer)
    _unpacker: opus.Unpacker = field(default_factory=opus.Unpacker)

    def start(self) -> None:
        self._control(wire.Action.START)

    def say(self, pcm: bytes) -> None:
        """All at once."""
        self._send(self._packer.feed(pcm))

    def say_slowly(self, pcm: bytes) -> None:
        """In real time, as a microphone does."""
        began = time.monotonic()
        for number, at in enumerate(range(0, len(pcm), _STEP)):
            self._send(self._packer.feed(pcm[at : at + _STEP]))
            time.sleep(max(0.0, began + (number + 1) * opus.FRAME / opus.RATE - time.monotonic()))

    def pause(self) -> None:
        self._send(self._packer.end())
        self._control(wire.Action.PAUSE)

    def ask(self, pcm: bytes) -> Reply:
        """A whole turn, after which the client begins the next one."""
        turn = 1 + max(self._replies, default=0)
        self.say(pcm)
        self.pause()
        return self.reply(turn)

    def reply(self, turn: int, until: Callable[[Reply], object] = lambda reply: reply.done) -> Reply:
        """Reads on until it is so; what is written of a turn before is read as well."""
        found = self._replies.setdefault(turn, Reply())
        deadline = time.monotonic() + PATIENCE
        while not until(found):
            data = self.socket.recv(timeout=max(0.0, deadline - time.monotonic()))
            assert isinstance(data, bytes), "binary messages only"
            self._take(wire.decode(data))
        return found

    def heard(self, turn: int) -> str:
        """What the gateway believes that the client has said."""
        return " ".join(
            one.text for one in self.events if isinstance(one, turns.Heard) and one.turn == turn and one.final
        )

    # Private

    def _send(self, pages: list[bytes]) -> None:
        for page in pages:
            self.socket.send(wire.encode(wire.Audio(page)))

    def _control(self, action: wire.Action) -> None:
        self.socket.send(wire.encode(wire.Control(action)))

    def _take(self, message: wire.Message) -> None:
        match message:
            case wire.Audio(pages):
                reply = self._replies.setdefault(self._at, Reply())
                reply.pcm += self._unpacker.feed(pages)
                reply.last_sound = time.monotonic()
            case wire.Text(text) if text != wire.PROCESSING:
                self._replies.setdefault(self._at, Reply()).text += text
            case wire.Metadata():
                self._note(turns.read(message.fields))
            case wire.Error(text):
                self.errors.append(text)

    def _note(self, event: turns.Event | None) -> None:
        if event is not None:
            self.events.append(event)
        if isinstance(event, turns.ReplyStarted):
            self._at = event.turn
        if isinstance(event, turns.ReplyDone):
            self._replies.setdefault(event.turn, Reply()).done = event


@contextmanager
def connected(url: str, query: str = "") -> Iterator[Talker]:
    """url: of the gateway; query: such as "hands_free=1"."""
    address = f"ws{url.removeprefix('http')}{wire.PATH}?{query}"
    with connect(address, compression=None, proxy=None, max_size=wire.MOST_BYTES) as socket:
        yield Talker(socket)
