"""Doubles of upstream's FunASR WebSocket servers that do on the wire what those do, their faults among them.

In Python, 1.4 and before (funasr_wss_server.py): audio before a config is dropped; packets are counted, not samples,
and nothing is resampled; every answer of the second pass says is_final; in 2pass the last deltas of an utterance are
kept back; `hotwords` is a string handed on as it is; speech that the VAD has not noticed is no utterance up to 1.3; the
end of the audio is looked at when it comes from 1.4 on, which also acks it, and with the next audio before; what cannot
be read is passed over.

In C++ for streams (websocket-server-2pass.cpp): 50 ms at a time; is_final on the last answer, which has no mode where
it has no text. For files (websocket-server.cpp): nothing until the end, then one answer, never final. Both want
`hotwords` as JSON in a string, and are gone for a client that sends what is no JSON.

What is loud is speech; 300 ms of silence end it. A second pass hears "heard N.", the first "a", "b", … every 600 ms.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

_SILENCE_MS = 300


class Kind(Enum):
    PYTHON_1_3 = auto()
    PYTHON_1_4 = auto()
    CPP_STREAMS = auto()
    CPP_FILES = auto()

    @property
    def python(self) -> bool:
        return self in (Kind.PYTHON_1_3, Kind.PYTHON_1_4)


@dataclass(slots=True)
class Stock:
    kind: Kind
    url: str = ""
    heard: list[bytes] = field(default_factory=list)
    """Audio of each second pass."""
    configs: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """What second passes hear instead, in order."""
    slow: float = 0.0
    """Seconds of a second pass."""
    fails: str = ""
    """What a second pass raises."""
    open: int = 0
    opened: int = 0
    dropped: int = 0
    """Frames of audio that nobody heard."""

    async def second_pass(self, pcm: bytes) -> str:
        await asyncio.sleep(self.slow)
        if self.fails:
            raise RuntimeError(self.fails)
        self.heard.append(pcm)
        number = len(self.heard)
        return self.texts[number - 1] if number <= len(self.texts) else f"heard {number}."


@asynccontextmanager
async def stock(kind: Kind, tls: ssl.SSLContext | None = None) -> AsyncIterator[Stock]:
    made = Stock(kind)

    async def connected(socket: ServerConnection) -> None:
        made.open += 1
        made.opened += 1
        session: _Python | _Streams | _Files
        session = _Python(made, socket) if kind.python else _Streams(made, socket)
        if kind is Kind.CPP_FILES:
            session = _Files(made, socket)
        try:
            with suppress(ConnectionClosed):
                async for frame in socket:
                    if isinstance(frame, str):
                        await session.text(frame)
                    else:
                        await session.audio(frame)
        finally:
            made.open -= 1

    name = "Python/3.10 websockets/12.0" if kind.python else "WebSocket++/0.8.2"
    async with serve(
        connected,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("binary")],
        ping_interval=None,
        ssl=tls,
        server_header=name,
        close_timeout=1,
    ) as server:
        made.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


class _Vad:
    """Where speech begins and ends, a packet at a time; -1 for neither."""

    def __init__(self) -> None:
        self.now = self._quiet = 0
        self._speaking = False

    def hear(self, pcm: bytes, milliseconds: int) -> tuple[int, int]:
        loud = len(pcm) > 1 and int(np.abs(np.frombuffer(pcm[: len(pcm) & ~1], "<i2").astype(int)).max()) > 1000
        begin, self.now = self.now, self.now + milliseconds
        self._quiet = 0 if loud else self._quiet + milliseconds
        if loud and not self._speaking:
            self._speaking = True
            return max(0, begin - 100), -1
        if self._speaking and self._quiet >= _SILENCE_MS:
            self._speaking = False
            return -1, self.now - self._quiet
        return -1, -1


class _Session:
    def __init__(self, stock: Stock, socket: ServerConnection) -> None:
        self._stock, self._socket = stock, socket
        self._name, self._mode, self._rate = "microphone", "2pass", 16_000
        self._deltas = 0

    async def _say(self, **body: Any) -> None:
        await self._socket.send(json.dumps({"wav_name": self._name} | body, ensure_ascii=False))

    def _delta(self) -> str:
        self._deltas += 1
        return "abcdefghijklmnopqrstuvwxyz"[(self._deltas - 1) % 26]


class _Python(_Session):
    def __init__(self, stock: Stock, socket: ServerConnection) -> None:
        super().__init__(stock, socket)
        self._chunk: list[int] | None = None
        self._interval = 10
        self._speaking_client = True
        self._vad = _Vad()
        self._frames: list[bytes] = []
        self._asr: list[bytes] = []
        self._online: list[bytes] = []
        self._pending: list[bytes] = []
        self._started = False
        self._errors: list[str] = []

    async def text(self, frame: str) -> None:
        try:
            said = json.loads(frame)
        except ValueError:
            return
        self._stock.configs.append(said)
        self._name = said.get("wav_name") or self._name
        self._chunk = said.get("chunk_size", self._chunk)
        self._interval = said.get("chunk_interval", self._interval)
        self._mode = said.get("mode") or self._mode
        self._rate = said.get("audio_fs", self._rate)
        if "is_speaking" in said:
            self._speaking_client = bool(said["is_speaking"])
            if not self._speaking_client and self._stock.kind is Kind.PYTHON_1_4:
                await self._finish(bool(said.get("is_end")))

    async def audio(self, pcm: bytes) -> None:
        if self._chunk is None:
            self._stock.dropped += 1
            return
        modern = self._stock.kind is Kind.PYTHON_1_4
        milliseconds = int(len(pcm) / (self._rate * 2 / 1000))
        self._frames.append(pcm)
        if self._mode in ("2pass", "offline"):
            self._pending.append(pcm)
        self._online.append(pcm)
        if len(self._online) % self._interval == 0:
            await self._first_pass(final=False)
        if self._started:
            self._asr.append(pcm)
        begin, end = self._vad.hear(pcm, milliseconds)
        if begin != -1:
            self._started = True
            back = (self._vad.now - begin) // milliseconds if milliseconds else 0
            self._asr = self._frames[-back:] if back > 0 else []
        if end != -1 or not self._speaking_client:
            if modern:
                await self._first_pass(final=True)
            if self._mode in ("2pass", "offline"):
                audio = b"".join(self._asr) or (b"".join(self._pending) if modern and end != -1 else b"")
                if audio or not modern:
                    await self._second_pass(audio)
                    self._pending = []
            self._asr, self._online, self._started = [], [], False
            if self._speaking_client:
                self._frames = self._frames[-20:]
            else:
                self._frames, self._vad = [], _Vad()

    async def _finish(self, ack: bool) -> None:
        await self._first_pass(final=True)
        if self._mode in ("2pass", "offline"):
            audio = b"".join(self._asr) or b"".join(self._pending)
            if audio:
                await self._second_pass(audio)
        self._frames, self._asr, self._online, self._pending, self._started = [], [], [], [], False
        self._vad = _Vad()
        if ack:
            error = {"error": "; ".join(self._errors)} if self._errors else {}
            await self._say(mode=self._mode, is_final=not self._errors, is_end=True, **error)
            self._errors = []
        elif self._errors:
            await self._socket.close()

    async def _first_pass(self, *, final: bool) -> None:
        online, self._online = self._online, []
        if self._mode not in ("2pass", "online") or not online or (final and self._mode == "2pass"):
            return
        mode = "2pass-online" if self._mode == "2pass" else "online"
        if self._started or any(np.abs(np.frombuffer(one, "<i2")).max() > 1000 for one in online if len(one) > 1):
            await self._say(mode=mode, text=self._delta(), is_final=final)

    async def _second_pass(self, pcm: bytes) -> None:
        mode = "2pass-offline" if self._mode == "2pass" else self._mode
        try:
            text = await self._stock.second_pass(pcm) if _loud(pcm) else ""
        except RuntimeError as exc:
            self._errors.append(f"offline inference failed: {exc}")
            return
        more: dict[str, Any] = {"timestamp": [[0, 100]], "spk_name": "unknown"} if text else {}
        await self._say(mode=mode, text=text, is_final=True, **more)


class _Cpp(_Session):
    """What both C++ servers do with texts."""

    def __init__(self, stock: Stock, socket: ServerConnection) -> None:
        super().__init__(stock, socket)
        self._over = False

    async def text(self, frame: str) -> None:
        try:
            said = json.loads(frame)
            hotwords = said.get("hotwords") or "{}"
            assert isinstance(json.loads(hotwords), dict)
        except (ValueError, AssertionError):
            self._over = True
            return
        self._stock.configs.append(said)
        self._name, self._mode = said.get("wav_name", self._name), said.get("mode", self._mode)
        if said.get("is_speaking") is False and not self._over:
            await self.finish()

    async def finish(self) -> None:
        raise NotImplementedError


class _Streams(_Cpp):
    def __init__(self, stock: Stock, socket: ServerConnection) -> None:
        super().__init__(stock, socket)
        self._vad = _Vad()
        self._rest = b""
        self._said = b""
        self._began: int | None = None

    async def audio(self, pcm: bytes) -> None:
        self._rest += pcm
        while len(self._rest) >= 1600 and not self._over:
            piece, self._rest = self._rest[:1600], self._rest[1600:]
            await self._hear(piece)

    async def finish(self) -> None:
        if self._began is not None:
            await self._utterance(self._vad.now, final=True)
        else:
            await self._say(text="", is_final=True, timestamp=1712345678901)
        self._rest, self._vad = b"", _Vad()

    async def _hear(self, piece: bytes) -> None:
        begin, end = self._vad.hear(piece, 50)
        if begin != -1:
            self._began = begin
        if self._began is not None:
            self._said += piece
            if len(self._said) % 19_200 == 0:
                await self._say(mode="2pass-online", text=self._delta(), is_final=False, slice_type=1)
        if end != -1:
            await self._utterance(end, final=False)

    async def _utterance(self, end: int, *, final: bool) -> None:
        text = await self._stock.second_pass(self._said)
        times = {"start_time": self._began, "end_time": end, "timestamp": "[[0,100]]", "slice_type": 2}
        await self._say(mode="2pass-offline", text=text, is_final=final, **times)
        self._began, self._said = None, b""


class _Files(_Cpp):
    def __init__(self, stock: Stock, socket: ServerConnection) -> None:
        super().__init__(stock, socket)
        self._all = b""

    async def audio(self, pcm: bytes) -> None:
        self._all += pcm

    async def finish(self) -> None:
        text = await self._stock.second_pass(self._all) if _loud(self._all) else ""
        spans = json.dumps([[100 * at, 100 * at + 90] for at, _ in enumerate(text.split())])
        more = {"timestamp": spans, "stamp_sents": []} if text else {}
        await self._say(mode="offline", text=text, is_final=False, **more)
        self._all = b""


def _loud(pcm: bytes) -> bool:
    return bool(pcm) and int(np.abs(np.frombuffer(pcm, "<i2").astype(int)).max()) > 1000
