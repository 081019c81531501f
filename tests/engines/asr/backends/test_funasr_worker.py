"""FunASR in the process where it really lives."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engines.workers import messages
from engines.workers.messages import Answer, Failed, Hello, Message, Work
from tests.engines.asr.sound import as_wav
from tests.tiny import funasr as tiny

pytestmark = pytest.mark.engine

Process = subprocess.Popen[bytes]


@contextmanager
def worker(models: Path, scratch: Path, model: str) -> Iterator[Process]:
    """A recognition worker, started as the server starts it."""
    ids = {"ASR_MODEL_ID": model, "VAD_MODEL_ID": "fsmn-vad", "PUNC_MODEL_ID": "ct-punc", "ASR_WORKERS": "16"}
    command = [sys.executable, "-m", "engines.asr.worker", "--backend", "funasr", "--scratch", str(scratch)]
    with (
        (scratch / "log").open("wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "MODELS_DIR": str(models), **ids},
        ) as process,
    ):
        yield process
        process.stdin.close()  # type: ignore[union-attr]


def says(process: Process) -> Message:
    assert process.stdout
    return messages.receive(process.stdout)


def ask(process: Process, path: Path, *hotwords: str) -> Message:
    assert process.stdin
    fields = {"path": str(path), "language": "zh", "hotwords": hotwords, "itn": True}
    process.stdin.write(messages.encode(Work(1, "transcribe", fields)))
    process.stdin.flush()
    return says(process)


def test_a_worker_hears_and_its_log_does_not_repeat_it(models: Path, tmp_path: Path) -> None:
    clips = [clip for text in tiny.SENTENCES[:2] for clip in (tiny.silence(1.5), tiny.say(text))]
    (tmp_path / "said").write_bytes(as_wav(tiny.pcm(*clips, tiny.silence(1))))
    (tmp_path / "silence").write_bytes(as_wav(bytes(64_000)))
    with worker(models, tmp_path, "trained") as process:
        facts = {"languages": ["zh", "en", "yue", "ja", "ko"], "timestamps": False, "together": 16}
        assert says(process) == Hello("trained", "cpu", facts)
        said = Answer(1, fields={"text": "".join(tiny.SENTENCES[:2]), "language": "zh", "words": []})
        assert ask(process, tmp_path / "said", "公园") == said
        assert ask(process, tmp_path / "silence") == Answer(1, fields={"text": "", "language": "", "words": []})
        assert ask(process, tmp_path / "said") == said
    log = (tmp_path / "log").read_text()
    assert not [word for word in (*tiny.SENTENCES, "公园") if word in log]


def test_a_worker_without_its_model_says_which_in_one_line(models: Path, tmp_path: Path) -> None:
    with worker(models, tmp_path, "nobody/nothing") as process:
        match says(process):
            case Failed(reason):
                assert "nobody/nothing" in reason
                assert "make models" in reason
                assert "\n" not in reason
            case other:
                pytest.fail(f"it said {other}")
