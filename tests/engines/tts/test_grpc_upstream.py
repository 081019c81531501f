"""Upstream's own gRPC client, as it is, before our server. (Its server behind our adapter: tests/patches.)"""

import asyncio
import os
import re
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from engines.tts import grpc_server
from engines.tts.backends.embedded import Embedded
from engines.tts.source import Threads
from tests.engines.tts.sound import RATE, from_pcm, spoken, wav_of
from tests.patches.generated import generate
from tests.wire.protobuf import COSYVOICE

pytestmark = pytest.mark.engine


@pytest.fixture
def programs(cosyvoice_source: Path) -> Path:
    return cosyvoice_source / "runtime" / "python" / "grpc"


@pytest.fixture
def messages(programs: Path, tmp_path: Path) -> Path:
    """A folder with the modules that upstream's build makes of its .proto file."""
    folder = tmp_path / "messages"
    folder.mkdir()
    return generate(programs / "cosyvoice.proto", folder)


def test_our_messages_are_those_of_upstreams_proto_file(programs: Path) -> None:
    text = (programs / "cosyvoice.proto").read_text()
    found = {
        name: tuple((kind, field) for kind, field, _ in sorted(fields(body), key=lambda one: one[2]))
        for name, body in re.findall(r"message (\w+) ?\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    }
    assert found == COSYVOICE
    assert "rpc Inference(Request) returns (stream Response)" in text
    assert "package cosyvoice;" in text


def fields(body: str) -> list[tuple[str, str, int]]:
    """(type, name, number)."""
    return [(kind, name, int(number)) for kind, name, number in re.findall(r"(\w+) (\w+) = (\d+);", body)]


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("sft", ["--spk_id", "英文女"]),
        ("zero_shot", ["--prompt_text", "words", "--prompt_wav", "{prompt}"]),
        ("cross_lingual", ["--prompt_wav", "{prompt}"]),
        ("instruct", ["--spk_id", "英文女", "--instruct_text", "slowly"]),
    ],
    ids=["sft", "zero_shot", "cross_lingual", "instruct"],
)
async def test_upstreams_client_writes_what_our_engine_says(
    mode: str, more: list[str], embedded: Embedded, programs: Path, messages: Path, tmp_path: Path
) -> None:
    wav, prompt, source = tmp_path / "said.wav", tmp_path / "prompt.wav", Threads(embedded)
    prompt.write_bytes(wav_of(spoken(embedded, "These are the words of the prompt.", speaker="英文男"), RATE))
    async with source.at_work(), grpc_server.serve(source, "127.0.0.1", 0) as port:
        async with asyncio.timeout(10):
            while source.report.state != "ready":
                await asyncio.sleep(0.01)
        client = await asyncio.create_subprocess_exec(
            sys.executable, "client.py", "--host", "127.0.0.1", "--port", str(port), "--mode", mode,
            "--tts_text", "Hello there. And once more.", "--tts_wav", str(wav),
            *(option.format(prompt=prompt) for option in more),
            cwd=programs, env=os.environ | {"PYTHONPATH": str(messages), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await client.communicate()
    assert client.returncode == 0, said.decode()
    with wave.open(str(wav)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        samples = from_pcm(file.readframes(file.getnframes()))
    assert len(samples) > RATE
    assert np.abs(samples).max() > 0.05
