"""`python -m engines.asr.worker`: one process that recognises recordings, one at a time, for the server it serves."""

import argparse
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from engines.asr import recording
from engines.asr.backends import REGISTRY, Asked, Backend, Check, Heard, Stopped
from engines.workers import child
from engines.workers.messages import Fields, Hello, Work


class Recogniser:
    """The task `transcribe`. Fields: those of Asked, and path, of a WAV file, or paths, of several short ones.

    Of one it answers the fields of Heard. Of several there is a piece for each: index, status, and heard or text.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def load(self) -> Hello:
        backend = self._backend
        backend.load()
        facts = {"languages": backend.languages, "timestamps": backend.timestamps, "together": backend.together}
        return Hello(backend.model, backend.device, facts)

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        def check() -> None:
            if stopped():
                raise Stopped

        language, hotwords, itn = (work.fields[name] for name in ("language", "hotwords", "itn"))
        asked = Asked(language, tuple(hotwords), itn)
        try:
            if "paths" in work.fields:
                yield from self._each(work.fields["paths"], asked, check)
                return {}
            with recording.opened(Path(work.fields["path"]), check) as audio:
                return asdict(self._backend.transcribe(audio, asked, check))
        except Stopped:
            return {}

    def _each(self, paths: Sequence[str], asked: Asked, check: Check) -> Iterator[tuple[Fields, bytes]]:
        with ExitStack() as stack:
            opened: dict[int, recording.Recording] = {}
            for index, path in enumerate(paths):
                try:
                    opened[index] = stack.enter_context(recording.opened(Path(path), check))
                except recording.Unreadable as exc:
                    yield {"index": index, "status": exc.status, "text": str(exc)}, b""
                except OSError:  # whoever sent it has left, and it with them
                    yield {"index": index, "status": 499, "text": "cancelled"}, b""
            if len(opened) == 1:  # as long as it may be
                ((index, audio),) = opened.items()
                yield _piece(index, self._backend.transcribe(audio, asked, check))
            elif opened:
                heard = self._backend.transcribe_together(list(opened.values()), asked, check)
                for index, each in zip(opened, heard, strict=True):
                    yield _piece(index, each)


def _piece(index: int, heard: Heard) -> tuple[Fields, bytes]:
    return {"index": index, "status": 200, "heard": asdict(heard)}, b""


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
