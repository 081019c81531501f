"""python -m engines.asr --host 127.0.0.1 --port 8003"""

import argparse
import logging
import os
import tempfile
from functools import partial
from pathlib import Path

import uvicorn

from engines.asr.backends import REGISTRY
from engines.asr.pool import Pool
from engines.asr.process import started
from engines.asr.server import Limits, create_app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.asr", description="Speech recognition over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8003)
    parser.add_argument("--backend", choices=sorted(REGISTRY), default="embedded")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that decode")
    parser.add_argument("--waiting", type=int, default=64, help="requests beyond those being decoded")
    parser.add_argument("--upload-mib", type=int, default=1024, help="largest audio of one request")
    parser.add_argument("--seconds", type=float, default=3600.0, help="longest wait for one text")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where uploads are written")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    pool = Pool(partial(started, asked.backend, asked.scratch), max(1, asked.workers), asked.waiting)
    limits = Limits(asked.scratch, asked.upload_mib * 2**20, asked.seconds)
    uvicorn.run(
        create_app(pool, limits),
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
