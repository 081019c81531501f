"""Upstream's own gRPC programs, as they are, at the other end of ours: its client before our server."""

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
from tests.engines.tts.sound import RATE, SHARED, from_pcm
from tests.wire.protobuf import COSYVOICE, descriptor

pytestmark = pytest.mark.engine

MESSAGES = f"""
from google.protobuf import descriptor_pool, message_factory

pool = descriptor_pool.DescriptorPool()
pool.AddSerializedFile({descriptor()!r})
for name in {list(COSYVOICE)!r}:
    globals()[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName("cosyvoice." + name))
"""
STUB = """
from cosyvoice_pb2 import Request, Response


class CosyVoiceStub:
    def __init__(self, channel):
        self.Inference = channel.unary_stream(
            "/cosyvoice.CosyVoice/Inference",
            request_serializer=Request.SerializeToString,
            response_deserializer=Response.FromString,
        )
"""
"""What protoc would have made, of which upstream's programs use this much."""


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """A folder with the modules that upstream's build makes of its .proto file."""
    folder = tmp_path / "generated"
    folder.mkdir()
    (folder / "cosyvoice_pb2.py").write_text(MESSAGES)
    (folder / "cosyvoice_pb2_grpc.py").write_text(STUB)
    return folder


@pytest.fixture
def programs(cosyvoice_source: Path) -> Path:
    return cosyvoice_source / "runtime" / "python" / "grpc"


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
        ("zero_shot", ["--prompt_text", "words", "--prompt_wav", str(SHARED / "reference_en.wav")]),
        ("cross_lingual", ["--prompt_wav", str(SHARED / "reference_en.wav")]),
        ("instruct", ["--spk_id", "英文女", "--instruct_text", "slowly"]),
    ],
    ids=["sft", "zero_shot", "cross_lingual", "instruct"],
)
async def test_upstreams_client_writes_what_our_engine_says(
    mode: str, more: list[str], embedded: Embedded, programs: Path, generated: Path, tmp_path: Path
) -> None:
    wav, source = tmp_path / "said.wav", Threads(embedded)
    async with source.at_work(), grpc_server.serve(source, "127.0.0.1", 0) as port:
        async with asyncio.timeout(10):
            while source.report.state != "ready":
                await asyncio.sleep(0.01)
        client = await asyncio.create_subprocess_exec(
            sys.executable, "client.py", "--host", "127.0.0.1", "--port", str(port), "--mode", mode,
            "--tts_text", "Hello there. And once more.", "--tts_wav", str(wav), *more,
            cwd=programs, env=os.environ | {"PYTHONPATH": str(generated), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await client.communicate()
    assert client.returncode == 0, said.decode()
    with wave.open(str(wav)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        samples = from_pcm(file.readframes(file.getnframes()))
    assert len(samples) > RATE
    assert np.abs(samples).max() > 0.05
