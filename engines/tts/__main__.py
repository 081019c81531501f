"""python -m engines.tts --host 127.0.0.1 --port 50000"""

import argparse
import logging

import uvicorn

from engines.tts.backends import REGISTRY
from engines.tts.server import create_app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.tts", description="Speech synthesis over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=50_000)
    parser.add_argument("--backend", choices=sorted(REGISTRY), default="embedded")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    uvicorn.run(
        create_app(REGISTRY[asked.backend]()),
        host=asked.host,
        port=asked.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        # Told to end, it ends: whoever sends the signal has drained us first, or means to cut us short.
        timeout_graceful_shutdown=0.5,  # type: ignore[arg-type]  # asyncio takes the fraction
    )


if __name__ == "__main__":
    main()
