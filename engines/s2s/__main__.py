"""python -m engines.s2s --host 127.0.0.1 --port 11235"""

import argparse
import sys
from functools import partial

from engines import serving, settings
from engines.preparation import Preparation
from engines.s2s.backends import THINKERS, scripted
from engines.s2s.engine import Engine
from engines.s2s.memory import Bounds
from engines.s2s.server import Limits, create_app
from engines.workers import devices
from engines.workers.pool import Pool
from engines.workers.process import started

_THINKER, _VOCODER = "engines.s2s.worker", "engines.s2s.vocoder_worker"
_PATIENCE = 20.0
"""Seconds that a worker may take to stop: others wait for it, and its longest step, hearing minutes, takes less."""


def main() -> None:
    parser = serving.parser("engines.s2s", "Conversation over Fun-Audio-Chat's protocol.", 11_235, THINKERS)
    parser.set_defaults(backend="scripted")
    parser.add_argument("--waiting", type=serving.nothing_or_more, default=8, help="turns beyond those being answered")
    parser.add_argument("--connections", type=serving.a_count, default=256, help="at a time")
    parser.add_argument(
        "--silence", type=float, default=20.0, help="seconds until a worker that says nothing is killed"
    )
    parser.add_argument("--kept", type=float, default=600.0, help="seconds that a conversation can be resumed")
    script = parser.add_argument_group("the scripted backend")
    script.add_argument("--places", type=serving.a_count, default=1, help="turns at a time")
    scripted.options(script)
    asked = parser.parse_args()
    limits = Limits(asked.connections, memory=Bounds(kept=asked.kept))
    engine = _scripted(asked) if asked.backend == "scripted" else _real(asked)
    serving.run(create_app(engine, limits), asked.host, asked.port)


def _scripted(asked: argparse.Namespace) -> Engine:
    options = ["--backend", "scripted", *scripted.told(asked)]
    places = ["cpu"] * asked.places
    thinkers, vocoders = (
        Pool(name, partial(started, module, options, environment={}, patience=_PATIENCE), on, asked.waiting)
        for name, module, on in (("conversation", _THINKER, places), ("vocoder", _VOCODER, places[:1]))
    )
    return Engine(thinkers, vocoders, len(places), asked.waiting, asked.silence)


def _real(asked: argparse.Namespace) -> Engine:
    try:
        chosen = settings.load()
        places = devices.named("S2S_GPUS", chosen.s2s_gpus)
        vocoding = devices.named("S2S_VOCODER_GPUS", chosen.s2s_vocoder_gpus) if chosen.s2s_vocoder_gpus else places
    except settings.SettingsError as exc:
        sys.exit(f"voxgate: {exc}")
    from engines.provision import provide

    threads = devices.threads((*places, *vocoding))
    preparation = Preparation(lambda tell: provide("s2s", chosen, tell).python_path, threads)
    thinkers, vocoders = (
        Pool(
            name,
            partial(preparation.worker, module, ["--backend", asked.backend], patience=_PATIENCE),
            on,
            asked.waiting,
            preparation.why,
        )
        for name, module, on in (("conversation", _THINKER, places), ("vocoder", _VOCODER, vocoding))
    )
    return Engine(thinkers, vocoders, len(places), asked.waiting, asked.silence, preparation)


if __name__ == "__main__":
    main()
