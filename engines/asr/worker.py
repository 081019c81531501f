"""`python -m engines.asr.worker`: one process that recognises recordings, one at a time, for the server it serves."""

import argparse
import tempfile
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

from engines.asr import recording
from engines.asr.backends import REGISTRY, Asked, Backend, Stopped
from engines.workers import child
from engines.workers.messages import Fields, Hello, Work


class Recogniser:
    """The task `transcribe`. Fields: path, of a WAV file; and those of Asked. Answers the fields of Heard."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def load(self) -> Hello:
        backend = self._backend
        backend.load()
        facts = {"languages": backend.languages, "timestamps": backend.timestamps}
        return Hello(backend.model, backend.device, facts)

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        def check() -> None:
            if stopped():
                raise Stopped

        path, language, hotwords, itn = (work.fields[name] for name in ("path", "language", "hotwords", "itn"))
        try:
            with recording.opened(Path(path), check) as audio:
                return asdict(self._backend.transcribe(audio, Asked(language, tuple(hotwords), itn), check))
        except Stopped:
            return {}
        yield  # there are no pieces


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.asr.worker")
    parser.add_argument("--backend", choices=sorted(REGISTRY), required=True)
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    tempfile.tempdir = asked.scratch
    child.main(Recogniser(REGISTRY[asked.backend](asked.device)))


if __name__ == "__main__":
    main()
