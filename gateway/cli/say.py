"""voxgate say TEXT"""

import argparse

import httpx

from gateway.cli import Stopped, address, sound
from gateway.wire import wav

_PIECE = 4096


def main(asked: argparse.Namespace) -> int:
    """Raises Stopped."""
    address.wait_until_ready(asked.url, "say", asked.wait, asked.key)
    body = {"text": asked.text, "speaker_id": asked.voice, "device_id": asked.device_id, "speed": asked.speed}
    output = sound.Output(asked.output)
    try:
        headers = address.shown(asked.key)
        with httpx.stream("POST", f"{asked.url}/api/synthesize", json=body, headers=headers, timeout=120) as answer:
            if answer.status_code != 200:
                answer.read()
                raise address.refusal(answer)
            _play(answer, output)
        output.finish()
    except httpx.TransportError as exc:
        raise Stopped(f"the gateway broke off ({type(exc).__name__})") from None
    finally:
        output.close()
    return 0


# Private


def _play(answer: httpx.Response, output: sound.Output) -> None:
    """Each piece as it arrives; whole samples only."""
    rate, rest = int(answer.headers["x-sample-rate"]), b""
    skip = wav.HEADER_BYTES
    for piece in answer.iter_bytes(_PIECE):
        cut = min(skip, len(piece))
        skip -= cut
        rest += piece[cut:]
        whole = len(rest) // 2 * 2
        if whole:
            output.write(rest[:whole], rate)
        rest = rest[whole:]
