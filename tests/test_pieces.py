"""Where a recording is cut: in its pauses, into pieces that an engine takes, whatever its length."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway import endpointing
from gateway.pieces import LONGEST, Manner, Piece, Pieces, cut_out, read
from gateway.settings import Settings
from gateway.verbs import Recording
from gateway.wire import wav
from tests.conftest import SHARED_AUDIO
from tests.tiny import speech

RATE = 16_000
SETTINGS = Settings()
PADDING = SETTINGS.endpoint_padding
Make = Callable[..., Recording]


def say(text: str = "stop the music") -> bytes:
    return speech.pcm(speech.say(text, voice="en"))


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE))


@pytest.fixture
def recording(tmp_path: Path) -> Make:
    def make(*parts: bytes) -> Recording:
        pcm = b"".join(parts)
        path = tmp_path / "audio.wav"
        path.write_bytes(wav.header(RATE, len(pcm) // 2) + pcm)
        return Recording(path, RATE, len(pcm) // 2)

    return make


async def pieces(recording: Recording, *, packed: bool = False, manner: Manner | None = None) -> list[Piece]:
    made = Pieces(recording, SETTINGS, manner or Manner(), packed=packed)
    found = []
    while (piece := await made.next()) is not None:
        found.append(piece)
    return found


def assert_sound(found: list[Piece], recording: Recording) -> None:
    """What is true of every cut."""
    before = 0.0
    for piece in found:
        assert before <= piece.start < piece.end <= recording.seconds
        assert piece.end - piece.start <= LONGEST + 1e-6
        assert all(piece.start <= one.start <= one.end <= piece.end for one in piece.speech)
        before = piece.end


def loud(recording: Recording) -> list[float]:
    """Seconds at which something is heard."""
    samples = np.abs(np.frombuffer(read(recording, 0, recording.frames), "<i2").astype(int))
    return [at / RATE for at in np.flatnonzero(samples > 1500)]


def assert_covers(found: list[Piece], recording: Recording) -> None:
    edges = np.array([(one.start, one.end) for one in found])
    for at in loud(recording)[::50]:
        assert ((edges[:, 0] <= at) & (at <= edges[:, 1])).any(), at


@pytest.fixture
def quick_ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is loud is speech: the real network would take its time over an hour."""

    class Network:
        def run(self, _: None, given: dict[str, Any]) -> tuple[Any, Any]:
            frame = given["input"][0, endpointing.CONTEXT :]
            return np.array([[float(np.abs(frame).max() > 0.05)]]), given["state"]

    network = Network()
    monkeypatch.setattr(endpointing, "_network", lambda: network)


async def test_each_utterance_is_a_piece(recording: Make) -> None:
    made = recording(silence(1), say(), silence(1), say("how are you today"), silence(2), say(), silence(0.1))
    found = await pieces(made)
    assert len(found) == 3
    assert_sound(found, made)
    assert_covers(found, made)
    assert abs(found[0].start + PADDING - 1) < 0.2, "the padding is before the speech"


async def test_packed_utterances_are_one_piece(recording: Make) -> None:
    made = recording(silence(1), say(), silence(1), say("how are you today"), silence(1.5), say(), silence(1))
    (found,) = await pieces(made, packed=True)
    assert len(found.speech) >= 3
    assert_covers([found], made)


async def test_no_piece_spans_a_long_silence(recording: Make) -> None:
    made = recording(say(), silence(5), say(), silence(60), say())
    assert len(await pieces(made, packed=True)) == 3


async def test_packed_pieces_are_as_long_as_an_engine_takes_and_end_in_pauses(recording: Make) -> None:
    made = recording(*[say() + silence(0.8)] * 40)
    found = await pieces(made, packed=True)
    assert_sound(found, made)
    assert_covers(found, made)
    assert all(piece.end - piece.start > LONGEST / 2 for piece in found[:-1])
    samples = np.frombuffer(read(made, 0, made.frames), "<i2")
    for piece in found[:-1]:
        at = round(piece.end * RATE)
        assert np.abs(samples[at - 800 : at + 800]).max() < 300


@pytest.mark.usefixtures("quick_ears")
async def test_speech_without_a_pause_is_cut_where_it_is_quietest(recording: Make) -> None:
    t = np.arange(70 * RATE) / RATE
    breath = 0.15 + 0.85 * np.clip(np.abs(t % 9 - 8) * 4, 0, 1)  # a dip each 9 seconds, never silent
    made = recording((np.sin(2 * np.pi * 200 * t) * breath * 20000).astype("<i2").tobytes())
    found = await pieces(made)
    assert_sound(found, made)
    assert all(abs(piece.end % 9 - 8) < 0.15 for piece in found[:-1])
    assert all(one.end == other.start for one, other in zip(found, found[1:], strict=False)), "nothing is lost"
    assert found[-1].end == made.seconds


async def test_a_short_recording_without_speech_is_for_the_engine_to_judge(recording: Make) -> None:
    assert await pieces(recording(silence(LONGEST))) == [Piece(0.0, LONGEST, ())]
    assert await pieces(recording(silence(LONGEST + 0.1))) == []


@pytest.mark.parametrize("manner", [Manner(silence=0.3), Manner(silence=0.3, padding=5.0), Manner(threshold=0.9)])
async def test_a_caller_may_say_how_to_listen(recording: Make, manner: Manner) -> None:
    made = recording(*[say() + silence(0.45)] * 4)
    found = await pieces(made, manner=manner)
    assert len(found) == (4 if manner.silence else 1)
    assert_sound(found, made)


@pytest.mark.usefixtures("quick_ears")
async def test_forty_minutes_are_cut_in_little_memory(tmp_path: Path) -> None:
    burst = (np.sin(np.arange(3 * RATE)) * 9000).astype("<i2").tobytes()
    path, times = tmp_path / "long.wav", 240
    with path.open("wb") as file:
        file.write(wav.header(RATE, times * 10 * RATE))
        for _ in range(times):
            file.write(burst + silence(7))
    made = Recording(path, RATE, times * 10 * RATE)
    tracemalloc.start()
    found = await pieces(made)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_sound(found, made)
    assert [round(piece.speech[0].start) for piece in found] == list(range(0, 2400, 10))
    assert peak < 8_000_000 < path.stat().st_size / 8


def test_a_piece_is_cut_out_to_the_sample(recording: Make, tmp_path: Path) -> None:
    samples = np.arange(3 * RATE, dtype="<i2")
    made = recording(samples.tobytes())
    cut = cut_out(made, Piece(1.0, 1.5, ()), tmp_path / "piece.wav")
    assert (cut.sample_rate, cut.frames) == (RATE, RATE // 2)
    assert read(cut, 0, cut.frames) == samples[RATE : RATE * 3 // 2].tobytes()


@pytest.mark.parametrize("name", ["hello_world_en", "weather_question_en", "living_room_light_en"])
async def test_people_are_found(recording: Make, name: str) -> None:
    path = SHARED_AUDIO / f"{name}.wav"
    if not path.exists():
        pytest.skip("no recordings here")
    body = path.read_bytes()
    head = wav.read_header(body[:4096], len(body))
    made = Recording(path, head.sample_rate, head.frames)
    found = await pieces(made)
    assert found
    assert_sound(found, made)
