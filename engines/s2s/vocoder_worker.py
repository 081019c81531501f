"""`python -m engines.s2s.vocoder_worker`: one process that makes codes audible, for several replies by turns."""

import argparse
from collections.abc import Generator

import numpy as np

from engines.s2s.backends import VOCODERS, Refused, Vocoder
from engines.workers import child
from engines.workers.messages import Fields, Hello, Work


class Vocoding:
    """The tasks `open` (fields: stream, voice), `feed` (stream, codes, last; answers a piece of mono s16le at
    VOCODER_RATE) and `close` (stream)."""

    def __init__(self, vocoder: Vocoder) -> None:
        self._vocoder = vocoder

    def load(self) -> Hello:
        self._vocoder.load()
        return Hello(self._vocoder.model, self._vocoder.device, {"voices": self._vocoder.voices})

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        stream = work.fields["stream"]
        match work.task:
            case "open":
                self._vocoder.open(stream, work.fields["voice"])
            case "feed":
                samples = self._vocoder.feed(stream, work.fields["codes"], work.fields["last"])
                yield {}, (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
            case "close":
                self._vocoder.close(stream)
            case _:
                raise Refused(f"a vocoder has no task {work.task!r}")
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.s2s.vocoder_worker", allow_abbrev=False)
    parser.add_argument("--backend", choices=sorted(VOCODERS), required=True)
    parser.add_argument("--device", default="cpu")
    asked, options = parser.parse_known_args()
    child.main(Vocoding(VOCODERS[asked.backend](asked.device, options)))


if __name__ == "__main__":
    main()
