"""`python -m engines.scripted`: the scripted engine as a process of its own."""

import argparse
import asyncio

import uvloop

from engines.scripted import Script, ScriptedEngine


async def serve(host: str, port: int, script: Script) -> None:
    engine = ScriptedEngine(script)
    await engine.start(host, port)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pieces", type=int, default=10, help="of each synthesis")
    parser.add_argument("--piece-bytes", type=int, default=4800)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each piece")
    given = parser.parse_args()
    script = Script(pieces=given.pieces, piece=bytes(given.piece_bytes), pause=given.pause)
    uvloop.run(serve(given.host, given.port, script))


if __name__ == "__main__":
    main()
