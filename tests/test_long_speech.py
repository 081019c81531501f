"""A long text becomes one whole file, or none that looks whole."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import long_speech
from gateway.delivery import Wanted
from gateway.encoding import Encoders
from gateway.errors import EngineBroke, EngineUnavailable
from gateway.events import Audio
from gateway.verbs import EngineHealth, Preset, Speak, State
from tests.sound import cents, decoded, described, hertz, tone

ENCODERS = Encoders(1)
RATE = 24000


class Speaker:
    """Half a second of 440 Hz for each sentence."""

    def __init__(self, sound: bytes = tone(RATE, 0.5), fails_at: int = 0) -> None:
        self.asked: list[str] = []
        self._sound, self._fails_at = sound, fails_at

    @asynccontextmanager
    async def session(self, job: Speak) -> AsyncIterator[AsyncIterator[Audio]]:
        self.asked.append(job.text)
        if len(self.asked) == self._fails_at:
            raise EngineUnavailable("it went away")
        yield self._pieces()

    async def _pieces(self) -> AsyncIterator[Audio]:
        for at in range(0, len(self._sound), 4800):
            yield Audio(self._sound[at : at + 4800], RATE)

    def health(self) -> EngineHealth:
        return EngineHealth(State.READY)


async def sentences(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"Sentence {number}."


async def written(speaker: Speaker, path: Path, count: int = 3, form: str = "wav", rate: int = 16000) -> list[float]:
    """Where the sentences end, in seconds."""
    wish, wanted = Speak("", Preset("a")), Wanted(form, rate)
    ends = await long_speech.write(sentences(count), speaker, wish, ENCODERS, wanted, path)
    assert [one.text for one in ends] == speaker.asked
    return [one.end for one in ends]


async def test_a_wav_says_its_length_and_has_its_rate(tmp_path: Path) -> None:
    assert await written(Speaker(), tmp_path / "a") == pytest.approx([0.5, 1.0, 1.5])
    made = (tmp_path / "a").read_bytes()
    sound = decoded(made, 16000)
    assert "16000 Hz" in described(made) and len(sound) == 24000
    assert cents(hertz(sound[:7000], 16000), 440) < 5
    assert int.from_bytes(made[4:8], "little") == len(made) - 8


async def test_more_than_is_held_in_memory_at_once_is_all_there(tmp_path: Path) -> None:
    ends = await written(Speaker(), tmp_path / "a", count=40, form="pcm", rate=RATE)
    assert ends[-1] == pytest.approx(20.0) and (tmp_path / "a").stat().st_size == 2 * 20 * RATE


async def test_an_engine_that_goes_away_in_the_middle_fails_the_whole(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable):
        await written(Speaker(fails_at=2), tmp_path / "a")


async def test_a_text_without_audio_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(EngineBroke):
        await written(Speaker(b""), tmp_path / "a")
    with pytest.raises(EngineBroke, match="no audio"):
        await written(Speaker(), tmp_path / "b", count=0)
