"""`python -m engines.asr.live.worker`: one process that listens to many streams by turns, for the server it serves."""

import argparse
from collections.abc import Callable, Generator

import numpy as np

from engines.asr.live.backend import Asked, LiveBackend
from engines.asr.live.events import pack
from engines.workers import child
from engines.workers.messages import Fields, Hello, Work


class Listener:
    """The tasks `open` (fields: number, and those of Asked), `feed` (number, last; data: float32 samples; answers
    events) and `close` (number)."""

    def __init__(self, backend: LiveBackend) -> None:
        self._backend = backend

    def load(self) -> Hello:
        self._backend.load()
        return Hello(self._backend.model, self._backend.device)

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        fields = dict(work.fields)
        number = fields.pop("number")
        match work.task:
            case "open":
                self._backend.open(number, Asked(**fields | {"chunk": tuple(fields["chunk"])}))
            case "feed":
                samples = np.frombuffer(work.data, np.float32).copy()  # torch warns of arrays it must not write to
                return {"events": pack(self._backend.feed(number, samples, fields["last"]))}
            case "close":
                self._backend.close(number)
        return {}
        yield  # there are no pieces


def _embedded(device: str) -> LiveBackend:
    from engines.asr.backends.embedded_live import EmbeddedLive

    return EmbeddedLive()


def _funasr(device: str) -> LiveBackend:
    from engines.asr.backends.funasr_live import FunAsrLive
    from engines.settings import load

    return FunAsrLive(load(), device)


REGISTRY: dict[str, Callable[[str], LiveBackend]] = {"embedded": _embedded, "funasr": _funasr}
"""By the name that --backend takes, given a device: "cpu" or "cuda:0"."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.asr.live.worker")
    parser.add_argument("--backend", choices=sorted(REGISTRY), required=True)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    child.main(Listener(REGISTRY[asked.backend](asked.device)))


if __name__ == "__main__":
    main()
