"""A recording, played."""

from pathlib import Path

import pytest

from gateway.tape import played
from gateway.verbs import Recording
from gateway.wire import wav


@pytest.mark.parametrize("size", [2, 100, 4096])
async def test_every_sample_comes_and_no_header(tmp_path: Path, size: int) -> None:
    pcm = bytes(range(250)) * 4
    path = tmp_path / "a.wav"
    path.write_bytes(wav.header(16_000, len(pcm) // 2) + pcm)
    pieces = [piece async for piece in played(Recording(path, 16_000, len(pcm) // 2), size)]
    assert b"".join(pieces) == pcm
    assert all(len(piece) == size for piece in pieces[:-1])
