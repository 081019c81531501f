"""voxgate talk [FILE…]: a client of /api/chat. Files are said in real time, each a turn; a microphone is hands-free."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gateway.cli import Stopped, address, sound
from gateway.tasks import task_group
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns

_FRAME_SECONDS = opus.FRAME / opus.RATE
_HUSH_SECONDS = 3.0
"""Silence after a file that is said hands-free: what ends its turn."""


def main(asked: argparse.Namespace) -> int:
    """Raises Stopped."""
    address.wait_until_ready(asked.url, "talk", asked.wait, asked.key)
    said = [sound.read(name, opus.RATE) for name in asked.files]
    output = sound.Output(asked.output)
    try:
        return asyncio.run(_talk(asked, said, output))
    except ConnectionClosed as exc:
        why = exc.rcvd.reason if exc.rcvd and exc.rcvd.reason else "the connection was lost"
        raise Stopped(f"the gateway ended the conversation: {why}") from None
    finally:
        output.close()


# Private


class _Conversation:
    """What the gateway says, as it comes: replies sound, texts are printed, the end of each turn is told."""

    def __init__(self, socket: ClientConnection, output: sound.Output) -> None:
        self._socket, self._output = socket, output
        self._pages, self._opus = opus.Pages(), opus.Unpacker()
        self._packer = opus.Packer()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        """The status of each turn."""

    async def say(self, pcm: bytes) -> None:
        for page in self._packer.feed(pcm):
            await self._socket.send(wire.encode(wire.Audio(page)))

    async def control(self, action: wire.Action) -> None:
        if action is wire.Action.PAUSE:
            for page in self._packer.end():
                await self._socket.send(wire.encode(wire.Audio(page)))
        await self._socket.send(wire.encode(wire.Control(action)))

    async def listen(self) -> None:
        async for data in self._socket:
            try:
                message = wire.decode(data if isinstance(data, bytes) else b"")
            except wire.Unreadable as exc:
                raise Stopped(f"the gateway says something unreadable: {exc}") from None
            match message:
                case wire.Audio(pages):
                    for page in self._pages.feed(pages):
                        self._output.write(self._opus.feed(page), opus.RATE)
                case wire.Text(text) if text != wire.PROCESSING:
                    print(text, end="", flush=True)
                case wire.Metadata():
                    self._event(turns.read(message.fields))
                case wire.Error(text):
                    print(f"\nerror: {text}", file=sys.stderr, flush=True)
        raise Stopped(f"the gateway ended the conversation: {self._socket.close_reason or 'no reason given'}")

    def _event(self, event: turns.Event | None) -> None:
        match event:
            case turns.Session() if event.resume:
                print(f"(--resume {event.resume} takes this conversation up again)", file=sys.stderr, flush=True)
            case turns.SpeechStarted():
                self._output.drop()
            case turns.Heard(_, text, True):
                print(f"> {text}", flush=True)
            case turns.Queued():
                print(
                    f"(place {event.position} in the queue, about {event.seconds:.0f} s)", file=sys.stderr, flush=True
                )
            case turns.ToolCall():
                print(f"\n(calls {event.name} {event.arguments})", flush=True)
            case turns.ReplyDone():
                print(flush=True)  # the end of the text's line
                print(f"({_timed(event)})", file=sys.stderr, flush=True)
                self.ended.put_nowait(event.status)
            case _:
                pass


async def _talk(asked: argparse.Namespace, said: list[bytes], output: sound.Output) -> int:
    hands_free = asked.hands_free or not said
    query = {"voice": asked.voice, "language": asked.language, "resume": asked.resume}
    query |= {"hands_free": "1"} if hands_free else {}
    query = {name: value for name, value in query.items() if value}
    async with _connected(asked.url, query, asked.key) as socket:
        talk = _Conversation(socket, output)
        async with task_group() as tasks:
            listening = tasks.create_task(talk.listen())
            failed = await _say_files(talk, said, hands_free) if said else await _say_live(talk)
            await asyncio.to_thread(output.finish)
            listening.cancel()
    return int(failed)


async def _say_files(talk: _Conversation, said: list[bytes], hands_free: bool) -> bool:
    """In real time, as a person would. Gives whether a turn failed."""
    for number, pcm in enumerate(said):
        if number and not hands_free:
            await talk.control(wire.Action.START)
        await _in_real_time(talk, pcm)
        if hands_free:
            await _in_real_time(talk, bytes(int(2 * _HUSH_SECONDS * opus.RATE)), until=talk.ended)
        else:
            await talk.control(wire.Action.PAUSE)
        if await talk.ended.get() != "completed":
            return True
    return False


async def _in_real_time(talk: _Conversation, pcm: bytes, until: "asyncio.Queue[str] | None" = None) -> None:
    loop = asyncio.get_running_loop()
    start, step = loop.time(), 2 * opus.FRAME
    for number, at in enumerate(range(0, len(pcm), step)):
        if until is not None and not until.empty():
            return
        await talk.say(pcm[at : at + step])
        await asyncio.sleep(max(0.0, start + (number + 1) * _FRAME_SECONDS - loop.time()))


async def _say_live(talk: _Conversation) -> bool:
    """Until Ctrl-C."""
    with sound.microphone(opus.RATE, opus.FRAME) as heard:
        print("listening; Ctrl-C ends", file=sys.stderr, flush=True)
        while True:
            piece = heard()
            if piece is None:
                await asyncio.sleep(_FRAME_SECONDS / 4)
            else:
                await talk.say(piece)


@asynccontextmanager
async def _connected(url: str, query: dict[str, str], key: str) -> AsyncIterator[ClientConnection]:
    """Raises Stopped."""
    target = f"ws{url.removeprefix('http').rstrip('/')}{wire.PATH}?{urlencode(query)}"
    try:
        socket = await connect(
            target,
            additional_headers=address.shown(key),
            compression=None,
            proxy=None,
            max_size=4 * wire.MOST_BYTES,
            close_timeout=1,
        )
    except (OSError, InvalidHandshake) as exc:
        raise Stopped(f"no conversation at {url} ({type(exc).__name__})") from None
    async with socket:
        yield socket


def _timed(done: turns.ReplyDone) -> str:
    """Such as "turn 1 completed; after the end of speech: recognition 0.31 s, first_audio 0.42 s"."""
    times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in done.timings.items())
    return f"turn {done.turn} {done.status}" + (f"; after the end of speech: {times}" if times else "")
