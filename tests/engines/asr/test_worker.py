import subprocess
import sys
from pathlib import Path

from engines.asr import messages
from engines.asr.messages import Answer, Failed, Work
from tests.engines.asr.running import ROOT
from tests.engines.asr.sound import as_wav

BACKEND = """
import sys
from engines.asr import backends, worker

class Odd:
    model, device, languages = "odd", "cpu", ("en",)
    def load(self):
        print("libraries like to print")
        {load}
    def transcribe(self, recording, language, hotwords, check):
        raise RuntimeError("a secret")

backends.REGISTRY["embedded"] = Odd
sys.argv[1:] = ["--backend", "embedded", "--scratch", "/tmp"]
worker.main()
"""


def talk(load: str, *said: messages.Message) -> tuple[list[messages.Message], int]:
    """What a worker whose model loads like that says until its stdin ends, and its exit status."""
    lines = b"".join(map(messages.encode, said))
    process = subprocess.Popen(
        [sys.executable, "-c", BACKEND.format(load=load)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(lines)
    process.stdin.flush()
    heard = [messages.decode(process.stdout.readline()) for _ in range(1 + len(said))]
    if not said:  # it ends by itself: losing its stdin would end it too, with another status
        process.wait(5)
    process.stdin.close()
    with process.stdout:
        assert process.stdout.read() == b""
    return heard, process.wait(5)


def test_a_model_that_cannot_be_loaded_is_said_and_ends_the_worker() -> None:
    heard, status = talk("raise OSError('no such model')")
    assert heard == [Failed("OSError: no such model")]
    assert status == 1


def test_a_backend_that_fails_costs_one_job_and_does_not_tell_what_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(as_wav(bytes(100)))
    heard, status = talk("pass", Work(1, str(path), "en", ()), Work(2, str(path), "en", ()))
    assert heard[1:] == [Answer(number, 500, "recognition failed: RuntimeError") for number in (1, 2)]
    assert status == 0
