from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engines.asr.backends import Asked, Check, Heard, Spoken
from engines.asr.recording import Recording
from engines.asr.worker import Recogniser
from engines.workers.messages import Work
from tests.engines.asr.sound import as_wav


class Odd:
    model, device, languages, timestamps, together = "odd", "cpu", ("en",), True, 4

    def load(self) -> None:
        self.asked: list[Asked] = []

    def transcribe(self, recording: Recording, asked: Asked, check: Check) -> Heard:
        self.asked.append(asked)
        check()
        return Heard("hi", "en", (Spoken("hi", 0.5, 1.0),))

    def transcribe_together(self, recordings: Sequence[Recording], asked: Asked, check: Check) -> Iterator[Heard]:
        return (Heard(str(recording.samples)) for recording in recordings)


def work(path: Path) -> Work:
    return Work(1, "transcribe", {"path": str(path), "language": "en", "hotwords": ["a"], "itn": False})


def result(recogniser: Recogniser, job: Work, stopped: bool = False) -> object:
    with pytest.raises(StopIteration) as end:
        next(recogniser.run(job, lambda: stopped))
    return end.value.value


def test_a_recording_becomes_what_was_heard(tmp_path: Path) -> None:
    (path := tmp_path / "audio").write_bytes(as_wav(bytes(100)))
    recogniser = Recogniser(backend := Odd())
    assert recogniser.load().facts == {"languages": ("en",), "timestamps": True, "together": 4}
    words = ({"text": "hi", "start": 0.5, "end": 1.0},)
    assert result(recogniser, work(path)) == {"text": "hi", "language": "en", "words": words}
    assert backend.asked == [Asked("en", ("a",), False)]


def test_a_job_nobody_wants_any_more_is_left(tmp_path: Path) -> None:
    (path := tmp_path / "audio").write_bytes(as_wav(bytes(100)))
    recogniser = Recogniser(Odd())
    recogniser.load()
    assert result(recogniser, work(path), stopped=True) == {}


def test_what_is_not_audio_is_refused_with_a_status(tmp_path: Path) -> None:
    (path := tmp_path / "audio").write_bytes(b"not audio")
    recogniser = Recogniser(Odd())
    recogniser.load()
    with pytest.raises(Exception, match="not a WAV file") as refused:
        next(recogniser.run(work(path), lambda: False))
    assert getattr(refused.value, "status", None) == 400


def test_several_recordings_are_heard_together_and_one_that_is_none_fails_alone(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path, content in zip(paths, (as_wav(bytes(100)), b"not audio", as_wav(bytes(200))), strict=True):
        path.write_bytes(content)
    recogniser = Recogniser(Odd())
    recogniser.load()
    together = [*map(str, paths), str(tmp_path / "gone")]
    pieces = recogniser.run(Work(1, "transcribe", {**work(paths[0]).fields, "paths": together}), lambda: False)
    found = {fields["index"]: fields for fields, _ in pieces}
    assert [found[index]["status"] for index in range(4)] == [200, 400, 200, 499]
    assert (found[0]["heard"]["text"], found[2]["heard"]["text"]) == ("50", "100")
