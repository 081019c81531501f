"""voxgate transcribe FILE…"""

import argparse
from pathlib import Path

import httpx

from gateway.cli import Stopped, address


def main(asked: argparse.Namespace) -> int:
    """A line of text for each file. Raises Stopped."""
    address.wait_until_ready(asked.url, "transcribe", asked.wait, asked.key)
    for name in asked.files:
        text = _text(asked, name)
        print(f"{name}: {text}" if len(asked.files) > 1 else text, flush=True)
    return 0


# Private


def _text(asked: argparse.Namespace, name: str) -> str:
    url, headers = f"{asked.url}/api/transcribe", address.shown(asked.key)
    try:
        with Path(name).open("rb") as file:
            form = {"language": asked.language} if asked.language else {}
            answer = httpx.post(url, files={"audio": file}, data=form, headers=headers, timeout=4 * 3600)
    except OSError as exc:
        raise Stopped(f"{name}: {exc.strerror}") from None
    except httpx.TransportError as exc:
        raise Stopped(f"the gateway broke off ({type(exc).__name__})") from None
    if answer.status_code != 200:
        refused = address.refusal(answer)
        raise Stopped(f"{name}: {refused}")
    found: str = answer.json()["text"]
    return found
