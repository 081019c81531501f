"""The server as it is started, and a client that talks with it."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soxr
from websockets.asyncio.client import ClientConnection

from engines.s2s.backends import RATE, Samples
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns

_ROOT = Path(__file__).resolve().parents[4]


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[int]:
    """The port. Its model may still be loading."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "engines.s2s", "--backend", "fun_audio_chat", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=_ROOT, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def ready(port: int, seconds: float = 120.0) -> dict[str, Any]:
    """What /health says once it is; fails when it says that it cannot be."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
            if answer.status_code == 200:
                return dict(answer.json())
            assert answer.json()["state"] == "loading", answer.text
        except httpx.ConnectError:
            pass
        assert time.monotonic() < end, "it never got ready"
        time.sleep(0.1)


class Client:
    """What came of a turn: its events, its text, its sound."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._ears = socket, opus.Unpacker()
        self.events: list[turns.Event] = []
        self.text, self.sound, self.errors = "", b"", [""]

    async def say(self, message: wire.Message) -> None:
        await self._socket.send(wire.encode(message))

    async def until(self, true: Any) -> None:
        async with asyncio.timeout(60):
            while not true():
                await self._hear()

    async def turn(self, *said: wire.Message) -> turns.ReplyDone:
        """Says it, and hears all of the reply."""
        self.events, self.text, self.sound = [], "", b""
        for message in said:
            await self.say(message)
        await self.until(lambda: any(isinstance(event, turns.ReplyDone) for event in self.events))
        done = self.events[-1]
        assert isinstance(done, turns.ReplyDone)
        return done

    async def _hear(self) -> None:
        data = await self._socket.recv()
        assert isinstance(data, bytes)
        match wire.decode(data):
            case wire.Audio(pages):
                for page in opus.Pages().feed(pages):
                    self.sound += self._ears.feed(page)
            case wire.Text(text) if text != wire.PROCESSING:
                self.text += text
            case wire.Metadata() as told if (event := turns.read(told.fields)) is not None:
                self.events.append(event)
            case wire.Error(text):
                self.errors.append(text)


def spoken(sound: Samples) -> list[wire.Message]:
    """As a browser sends it."""
    packer = opus.Packer()
    pcm = np.asarray(soxr.resample(sound, RATE, opus.RATE)).clip(-1, 1)
    pages = packer.feed((pcm * 32767).astype("<i2").tobytes()) + packer.end()
    return [*(wire.Audio(page) for page in pages), wire.Control(wire.Action.PAUSE)]
