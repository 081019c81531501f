"""`python -m bench.cascade`: how soon the cascade's reply sounds, on the embedded engines (`voxgate run`).

Sentences are said in real time, as a person would; the times are the gateway's own, from its `04` end-of-reply
messages. A long reply must sound as soon as a short one.
"""

import argparse
import asyncio
import statistics
import sys

import soxr
from websockets.asyncio.client import ClientConnection, connect

from bench.cycles import embedded
from engines.tts.backends.flite import Flite
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns

ALLOWED = 0.25
"""Seconds between a turn's recognition and the first audio of its reply."""


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.cascade")
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    flite = Flite("rms")  # Debian: libflite1
    said = {name: _at_24k(flite, text) for name, text in (("short", "what time is it"), ("long", "what can you do"))}
    with embedded() as stand:
        found = asyncio.run(_measure(stand.port, said, asked.rounds))
    print("| reply | seconds of audio | recognition s | first token s | first audio s | after recognition ms |")
    print("|---|---|---|---|---|---|")
    for name, replies in found.items():
        print(f"| {name} | " + " | ".join(_row(replies)) + " |")
    later = [_after(one) for replies in found.values() for one in replies]
    print(f"\nfirst audio after recognition: p50 {_ms(statistics.median(later))}, most {_ms(max(later))} ms")
    ratio = statistics.median(map(_after, found["long"])) / statistics.median(map(_after, found["short"]))
    print(f"long over short: {ratio:.2f}")
    sys.exit(f"more than {_ms(ALLOWED)} ms" if statistics.median(later) > ALLOWED else None)


async def _measure(port: int, said: dict[str, bytes], rounds: int) -> dict[str, list[turns.ReplyDone]]:
    found: dict[str, list[turns.ReplyDone]] = {name: [] for name in said}
    async with connect(f"ws://127.0.0.1:{port}{wire.PATH}", compression=None, proxy=None) as socket:
        packer = opus.Packer()
        for _ in range(rounds):
            for name, pcm in said.items():
                await socket.send(wire.encode(wire.Control(wire.Action.START)))
                found[name].append(await _turn(socket, packer, pcm))
    return found


async def _turn(socket: ClientConnection, packer: opus.Packer, pcm: bytes) -> turns.ReplyDone:
    for page in packer.feed(pcm) + packer.end():
        await socket.send(wire.encode(wire.Audio(page)))
        await asyncio.sleep(opus.FRAME / opus.RATE)
    await socket.send(wire.encode(wire.Control(wire.Action.PAUSE)))
    async with asyncio.timeout(120):
        while True:
            message = wire.decode(bytes(await socket.recv(decode=False)))
            event = turns.read(message.fields) if isinstance(message, wire.Metadata) else None
            if isinstance(event, turns.Failed):
                sys.exit(f"{event.code}: {event.message}")
            if isinstance(event, turns.ReplyDone):
                return event


def _row(replies: list[turns.ReplyDone]) -> list[str]:
    names = ("recognition", "first_token", "first_audio")
    times = [f"{statistics.median(one.timings[name] for one in replies):.3f}" for name in names]
    length = f"{statistics.median(one.audio_seconds for one in replies):.1f}"
    return [length, *times, _ms(statistics.median(map(_after, replies)))]


def _after(one: turns.ReplyDone) -> float:
    return one.timings["first_audio"] - one.timings["recognition"]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def _at_24k(flite: Flite, text: str) -> bytes:
    samples = flite.say(text, 1.2, 1.0, lambda: False)
    return bytes(soxr.resample(samples, flite.sample_rate, opus.RATE).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
