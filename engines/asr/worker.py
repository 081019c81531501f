"""`python -m engines.asr.worker`: one process that decodes, one job at a time, for the server that started it.

A thread listens to the server, so that a cancellation or the server's death is noticed in the middle of a decode.
"""

import argparse
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

from engines.asr import messages, recording
from engines.asr.backends import REGISTRY, Backend, Stopped
from engines.asr.messages import Answer, Cancel, Failed, Hello, Message, Work

log = logging.getLogger(__name__)


class Ears:
    """The server's side of the conversation: jobs in order, and which of them is no longer wanted."""

    def __init__(self, source: BinaryIO) -> None:
        self.jobs: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._source = source
        self._cancelled = -1

    def listen(self) -> None:
        try:
            while line := self._source.readline():
                match messages.decode(line):
                    case Work() as work:
                        self.jobs.put(work)
                    case Cancel(number):
                        self._cancelled = number
        finally:
            os._exit(0)  # the server is gone, and nobody else wants the text; a decode in progress cannot be unwound

    def check(self, work: Work) -> None:
        if self._cancelled == work.number:
            raise Stopped


def answer(backend: Backend, work: Work, ears: Ears) -> Answer:
    def check() -> None:
        ears.check(work)

    try:
        with recording.opened(Path(work.path), check) as audio:
            text = backend.transcribe(audio, work.language, work.hotwords, check)
    except Stopped:
        return Answer(work.number, 499, "cancelled")
    except recording.Unreadable as exc:
        return Answer(work.number, 400, str(exc))
    except Exception as exc:
        log.exception("a recognition failed")
        return Answer(work.number, 500, f"recognition failed: {type(exc).__name__}")
    return Answer(work.number, 200, text)


def serve(backend: Backend, source: BinaryIO, sink: BinaryIO) -> None:
    """Never returns once the model is loaded: the end of `source` ends the process."""

    def say(message: Message) -> None:
        sink.write(messages.encode(message))
        sink.flush()

    ears = Ears(source)
    threading.Thread(target=ears.listen, name="listen", daemon=True).start()
    try:
        backend.load()
    except Exception as exc:
        log.exception("the model cannot be loaded")
        say(Failed(f"{type(exc).__name__}: {exc}"[:300]))
        return
    say(Hello(backend.model, backend.device, backend.languages))
    while True:
        say(answer(backend, ears.jobs.get(), ears))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.asr.worker")
    parser.add_argument("--backend", choices=sorted(REGISTRY), required=True)
    parser.add_argument("--scratch", required=True)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to us too; the server decides when we end
    tempfile.tempdir = asked.scratch
    # Libraries like to print: what they write to stdout must not get between our lines.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(REGISTRY[asked.backend](), sys.stdin.buffer, sink)
    os._exit(1)  # the thread that listens holds stdin, which an orderly end would wait for


if __name__ == "__main__":
    main()
