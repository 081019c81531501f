"""Tiny models of its three versions, and what comes of its faults on them."""

import io
import json
import os
import subprocess
import sys
import wave
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import speech

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "patches" / "start"
"""What upstream's own server is given as PYTHONPATH."""

Outcomes = Mapping[str, Any]
"""By the name of a fault in faults.py: what came of it, {"raised"} or {"hung"}."""


@pytest.fixture(scope="session")
def folder(cosyvoice_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cosyvoice, cosyvoice2, cosyvoice3, and recordings of 3 s: prompt.wav (44100 Hz), telephone.wav (8000 Hz)."""
    folder = tmp_path_factory.mktemp("models")
    pytest.importorskip("torch", reason="the packages of the real engines are not installed")
    build = "import sys; from pathlib import Path; from tests.tiny import cosyvoice as tiny\n"
    build += "for name in tiny.VERSIONS: tiny.build(Path(sys.argv[1]) / name, name)"
    run(["-c", build, str(folder)], cosyvoice_source, START)
    (folder / "prompt.wav").write_bytes(stereo(speech(3.0, 44_100)))
    (folder / "telephone.wav").write_bytes(speech(3.0, 8_000))
    return folder


@pytest.fixture(scope="session")
def outcomes(cosyvoice_source: Path, folder: Path) -> tuple[Outcomes, Outcomes]:
    """(upstream's, patched)"""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.patches.faults", str(folder), which],
                    cwd=ROOT,
                    env=environment(cosyvoice_source),
                    stdout=subprocess.PIPE,
                    stderr=stack.enter_context((folder / f"{which}.log").open("wb")),
                )
            )
            for which in ("upstream", "patched")
        ]
        for process in processes:
            stack.callback(process.kill)
        upstream, patched = (_outcomes(process.communicate(timeout=240)[0]) for process in processes)
    return upstream, patched


@pytest.fixture(scope="session")
def upstream(outcomes: tuple[Outcomes, Outcomes]) -> Outcomes:
    return outcomes[0]


@pytest.fixture(scope="session")
def patched(outcomes: tuple[Outcomes, Outcomes]) -> Outcomes:
    return outcomes[1]


def environment(*paths: Path) -> dict[str, str]:
    """One thread for each network: a language model works beside a vocoder, and on few cores theirs wait for each
    other."""
    path = os.pathsep.join(str(path.absolute()) for path in paths)
    python = {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | python | {"OMP_NUM_THREADS": "1"}


def run(arguments: list[str], *paths: Path) -> str:
    """What a Python with `paths` on its path says. Fails the test when that fails."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment(*paths), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def stereo(mono: bytes) -> bytes:
    """A WAV with its one channel twice."""
    with wave.open(io.BytesIO(mono)) as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    made = io.BytesIO()
    with wave.open(made, "wb") as twice:
        twice.setnchannels(2)
        twice.setsampwidth(2)
        twice.setframerate(rate)
        twice.writeframes(b"".join(2 * pcm[at : at + 2] for at in range(0, len(pcm), 2)))
    return made.getvalue()


def _outcomes(lines: bytes) -> Outcomes:
    told = [json.loads(line) for line in lines.splitlines() if line.startswith(b'{"name"')]
    return {each.pop("name"): each.get("is", each) for each in told}
