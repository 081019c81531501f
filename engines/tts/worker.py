"""`python -m engines.tts.worker`: one process that speaks, one job at a time, for the server that it serves."""

import argparse
from collections.abc import Generator
from typing import Any

from engines.tts import prompt
from engines.tts.backends import REGISTRY, Backend
from engines.tts.job import Job, Refused
from engines.workers import child
from engines.workers.messages import Fields, Hello, Work


class Speaker:
    """The tasks `speak`, `register` and `registered`, whose fields are those of a Job and whose data is its prompt."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def load(self) -> Hello:
        backend = self._backend
        backend.load()
        return Hello(backend.model, backend.device, {"speakers": backend.speakers})

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        backend = self._backend
        match work.task:
            case "speak":
                job = _job(work.fields, work.data)
                pieces = backend.speak(job, stopped)
                try:
                    yield {"sample_rate": backend.rate(job)}, b""
                    for piece in pieces:
                        yield {}, piece
                finally:
                    pieces.close()
            case "register":
                fields = dict(work.fields)
                backend.register(fields.pop("name"), _job(fields, work.data))
            case "registered":
                return {"names": backend.registered}
            case _:
                raise Refused(f"a speaking worker has no task {work.task!r}")
        return {}


def _job(fields: Fields, wav: bytes) -> Job:
    given: dict[str, Any] = dict(fields)
    return Job(**given, prompt=prompt.read(wav) if wav else None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.tts.worker")
    parser.add_argument("--backend", choices=sorted(REGISTRY), required=True)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    child.main(Speaker(REGISTRY[asked.backend](asked.device)))


if __name__ == "__main__":
    main()
