"""python -m engines.tts --host 127.0.0.1 --port 50000"""

import sys
from functools import partial

from engines import serving, settings
from engines.preparation import Preparation
from engines.tts.backends import REGISTRY
from engines.tts.server import Door, create_app
from engines.tts.source import Processes, Source, Threads
from engines.workers import devices
from engines.workers.pool import Pool

_WORKER = "engines.tts.worker"


def main() -> None:
    parser = serving.parser("engines.tts", "Speech synthesis over HTTP.", 50_000, REGISTRY)
    parser.add_argument(
        "--waiting", type=serving.nothing_or_more, default=64, help="requests beyond those being spoken"
    )
    parser.add_argument("--grpc-port", type=serving.a_port, help="upstream's gRPC protocol as well, on this port")
    asked = parser.parse_args()
    doors = [] if asked.grpc_port is None else [_grpc(asked.host, asked.grpc_port)]
    serving.run(create_app(_source(asked.backend, asked.waiting), *doors), asked.host, asked.port)


def _grpc(host: str, port: int) -> Door:
    from engines.tts import grpc_server  # not every engine's environment has it

    return partial(grpc_server.serve, host=host, port=port)


def _source(backend: str, waiting: int) -> Source:
    if backend == "embedded":
        return Threads(REGISTRY[backend]("cpu"))
    try:
        chosen = settings.load()
        places = devices.named("TTS_GPUS", chosen.tts_gpus, chosen.tts_workers)
    except settings.SettingsError as exc:
        sys.exit(f"voxgate: {exc}")
    from engines.provision import provide

    # Half of them: the language model and what makes its tokens audible compute at the same time.
    threads = max(1, devices.threads(places) // 2)
    preparation = Preparation(lambda tell: provide("tts", chosen, tell).python_path, threads)
    start = partial(preparation.worker, _WORKER, ["--backend", backend])
    return Processes(Pool("synthesis", start, places, waiting, preparation.why), preparation)


if __name__ == "__main__":
    main()
