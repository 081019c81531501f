"""A worker process for live audio, or one for whole recordings, without any model: `--backend live` or `whole`."""

import argparse
import os
import time
from collections.abc import Generator
from pathlib import Path

from engines.asr.live.backend import Asked
from engines.asr.live.events import Began, Delta, Ended, Event
from engines.asr.live.tape import Samples
from engines.asr.live.worker import Listener
from engines.workers import child
from engines.workers.messages import Fields, Hello, Work
from gateway.wire import wav


class Live:
    """One utterance for each stream. It says how many samples each call brought; some numbers do more than that."""

    model, device = "puppet", "cpu"

    def __init__(self) -> None:
        self._streams: dict[int, Asked] = {}

    def load(self) -> None:
        pass

    def open(self, number: int, asked: Asked) -> None:
        self._streams[number] = asked

    def feed(self, number: int, samples: Samples, last: bool) -> list[Event]:
        asked = self._streams[number]
        match len(samples):
            case 13:
                os._exit(1)
            case 14:
                raise RuntimeError("a secret")
            case 15:
                time.sleep(1)
        told = f"{len(samples)} of {os.getpid()}, {len(self._streams)} streams, {asked.deltas} {asked.last_words}"
        return [Began(0), Delta(told), *([Ended(0, 60)] if last else [])]

    def close(self, number: int) -> None:
        self._streams.pop(number, None)


class Whole:
    """Says what it was asked; dies of the first recording that it is told to die of, as long as `--dies` names a
    file that is not there yet."""

    def __init__(self, dies: Path | None) -> None:
        self._dies = dies

    def load(self) -> Hello:
        return Hello("puppet", "cpu", {"languages": ["zh", "en"], "timestamps": False})

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        if self._dies is not None and not self._dies.exists():
            self._dies.touch()
            os._exit(1)
        body = Path(work.fields["path"]).read_bytes()
        head = wav.read_header(body, len(body))
        asked = [work.fields[name] for name in ("language", "hotwords", "itn")]
        return {"text": f"{head.frames} at {head.sample_rate}, {asked}", "language": "", "words": []}
        yield


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--dies", type=Path)
    parser.add_argument("--device")
    asked = parser.parse_args()
    child.main(Listener(Live()) if asked.backend == "live" else Whole(asked.dies))


if __name__ == "__main__":
    main()
