"""python -m engines.asr --host 127.0.0.1 --port 8003"""

import os
import sys
import tempfile
from functools import partial

from engines import serving, settings
from engines.asr.backends import REGISTRY
from engines.asr.live.endpoint import Limits as LiveLimits
from engines.asr.server import Limits, create_app
from engines.preparation import Preparation
from engines.workers import devices
from engines.workers.pool import Pool
from engines.workers.process import started

_WORKER = "engines.asr.worker"
_LIVE_WORKER = "engines.asr.live.worker"


def main() -> None:
    parser = serving.parser("engines.asr", "Speech recognition over HTTP.", 8003, REGISTRY)
    parser.add_argument("--workers", type=serving.a_count, help="processes that decode, on each device")
    parser.add_argument(
        "--waiting", type=serving.nothing_or_more, default=64, help="requests beyond those being decoded"
    )
    parser.add_argument("--upload-mib", type=serving.a_count, default=1024, help="largest audio of one request")
    parser.add_argument("--live", type=serving.a_count, default=64, help="live connections at a time")
    parser.add_argument("--seconds", type=float, default=3600.0, help="longest wait for one text")
    parser.add_argument(
        "--scratch", type=serving.a_folder, default=tempfile.gettempdir(), help="where uploads are written"
    )
    asked = parser.parse_args()
    live_limits = LiveLimits(connections=asked.live)
    limits = Limits(asked.scratch, asked.upload_mib * 2**20, asked.seconds, live_limits)
    options = ["--backend", asked.backend, "--scratch", str(asked.scratch)]
    whole: Pool | None = None
    live: Pool | None = None
    if asked.backend == "embedded":
        places = ["cpu"] * (asked.workers or len(os.sched_getaffinity(0)))
        whole = Pool("recognition", partial(started, _WORKER, options, environment={}), places, asked.waiting)
        start_live = partial(started, _LIVE_WORKER, options[:2], environment={})
        # Half as many: the first pass of live audio is less than half the work of the second.
        live = Pool("live recognition", start_live, places[::2], asked.waiting)
        serving.run(create_app(whole, limits, live=live), asked.host, asked.port)
        return
    try:
        chosen = settings.load()
        places = list(devices.named("ASR_GPUS", chosen.asr_gpus, asked.workers or chosen.asr_workers))
    except settings.SettingsError as exc:
        sys.exit(f"voxgate: {exc}")
    from engines.provision import provide

    preparation = Preparation(lambda tell: provide("asr", chosen, tell).python_path, devices.threads(places))
    if chosen.asr_model_mode != "realtime":
        start = partial(preparation.worker, _WORKER, options)
        whole = Pool("recognition", start, places, asked.waiting, preparation.why)
    if chosen.asr_model_mode != "offline":
        start = partial(preparation.worker, _LIVE_WORKER, ["--backend", asked.backend])
        live = Pool("live recognition", start, places, asked.waiting, preparation.why)
    serving.run(create_app(whole, limits, preparation, live), asked.host, asked.port)


if __name__ == "__main__":
    main()
