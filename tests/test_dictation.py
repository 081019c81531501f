"""Audio that arrives, on its way to an engine: held within bounds, cut where it is quiet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import dictation
from gateway.dictation import Microphone, dictate
from gateway.errors import BadRequest, EngineBroke, EngineBusy
from gateway.events import Audio, Transcript
from gateway.replicas import Replicas
from gateway.settings import Settings
from gateway.verbs import EngineHealth, Live, State, Transcribe
from tests.engines.asr.sound import RATE, noise, say, silence

SETTINGS = Settings()


class Wholes:
    """An engine that takes whole recordings only."""

    url = "fake://wholes"

    def __init__(self, pause: float = 0.0, fails_at: int = 0) -> None:
        self.pause, self.fails_at = pause, fails_at
        self.heard: list[bytes] = []
        self.open = 0

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        if isinstance(job.audio, Live):
            raise BadRequest("no", code="live_unsupported")
        self.heard.append(job.audio.path.read_bytes()[44:])
        if len(self.heard) == self.fails_at:
            raise EngineBroke("it died")
        self.open += 1
        try:
            yield self._words(len(self.heard))
        finally:
            self.open -= 1

    async def health(self) -> EngineHealth:
        return EngineHealth(State.READY)

    async def _words(self, number: int) -> AsyncIterator[Transcript]:
        await asyncio.sleep(self.pause)
        yield Transcript(f"words {number}", "en")


async def told(engine: Wholes, audio: bytes, scratch: Path, size: int = 9_600) -> list[Transcript]:
    """What is heard of `audio`, given in pieces of `size` bytes."""
    replicas = Replicas("asr", "fake", [engine], slots=1, queue=0)
    await replicas.refresh()
    found: list[Transcript] = []

    async def pieces() -> AsyncIterator[Audio]:
        for at in range(0, len(audio), size):
            yield Audio(audio[at : at + size], RATE)

    async def heard(said: Transcript) -> None:
        found.append(said)

    scratch.mkdir(exist_ok=True)
    await dictate(replicas, SETTINGS, scratch, pieces(), "", heard)
    assert not list(scratch.iterdir()) and not engine.open
    return found


class TestMicrophone:
    @given(st.lists(st.binary(max_size=9), max_size=20))
    def test_every_whole_sample_comes_out_in_order(self, frames: list[bytes]) -> None:
        async def run() -> bytes:
            microphone = Microphone()
            for frame in frames:
                await microphone.put(frame)
            microphone.end()
            return b"".join([piece.pcm async for piece in microphone.pieces()])

        whole = b"".join(frames)
        assert asyncio.run(run()) == whole[: len(whole) & ~1]

    async def test_a_speaker_that_is_too_quick_waits(self) -> None:
        microphone = Microphone()
        await microphone.put(bytes(int(2 * RATE * dictation.HELD_SECONDS)))
        waiting = asyncio.create_task(microphone.put(b"\1\0"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        pieces = microphone.pieces()
        assert len((await anext(pieces)).pcm) == 19_200
        await asyncio.wait_for(waiting, 1)
        await pieces.aclose()

    async def test_it_ends_a_stretch_after_a_silence_and_begins_another(self) -> None:
        microphone = Microphone(idle=0.02)
        await microphone.put(b"\1\0")
        assert [piece.pcm async for piece in microphone.pieces()] == [b"\1\0"]
        await microphone.put(b"\2\0")
        assert await microphone.spoken()
        microphone.end()
        assert [piece.pcm async for piece in microphone.pieces()] == [b"\2\0"]
        assert not await microphone.spoken()


class TestUtterances:
    async def test_each_is_told_with_its_place_in_the_audio(self, tmp_path: Path) -> None:
        first, second = say("what time is it"), say("how are you today")
        audio = silence(1) + first + silence(2) + second + silence(1)
        one, two = await told(Wholes(), audio, tmp_path / "scratch")
        assert [(said.text, said.utterance, said.final) for said in (one, two)] == [
            ("words 1", 0, True),
            ("words 2", 1, True),
        ]
        begins = 3 + len(first) / 2 / RATE
        assert one.start == pytest.approx(1 - SETTINGS.endpoint_padding, abs=0.25)
        assert two.start == pytest.approx(begins - SETTINGS.endpoint_padding, abs=0.25)
        assert one.end == pytest.approx(1 + len(first) / 2 / RATE, abs=0.5)

    async def test_they_do_not_depend_on_the_pieces_that_arrive(self, tmp_path: Path) -> None:
        audio = silence(1) + say("stop the music") + silence(1.5) + say("hello world")
        heard = []
        for size in (320, 9_600, 50_002):
            await told(engine := Wholes(), audio, tmp_path / "scratch", size)
            heard.append(engine.heard)
        assert [len(one) for one in heard[0]] == pytest.approx([len(one) for one in heard[1]], abs=2000)
        assert heard[1] == heard[2]

    async def test_the_last_word_is_heard_however_abruptly_the_audio_ends(self, tmp_path: Path) -> None:
        speech = say("stop the music")
        await told(engine := Wholes(), speech, tmp_path / "scratch")
        assert engine.heard[0].endswith(speech[-9_600:])

    async def test_a_long_one_is_cut_and_nothing_of_it_is_lost(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dictation, "LONGEST", 2.0)
        speech = say("the weather is very nice today") * 3
        await told(engine := Wholes(), speech, tmp_path / "scratch")
        assert len(engine.heard) > 2
        assert all(len(one) <= 2 * 2 * RATE for one in engine.heard)
        joined = b"".join(engine.heard)
        assert joined in speech and len(joined) > 0.9 * len(speech)

    async def test_what_is_no_speech_is_told_to_nobody_and_held_nowhere(self, tmp_path: Path) -> None:
        assert await told(engine := Wholes(), silence(20) + noise(10, -50), tmp_path / "scratch") == []
        assert engine.heard == []

    async def test_a_slow_engine_holds_the_speaker_back_and_loses_nothing(self, tmp_path: Path) -> None:
        audio = (say("hello world") + silence(1)) * 6
        found = await told(Wholes(pause=0.05), audio, tmp_path / "scratch")
        assert [said.text for said in found] == [f"words {number}" for number in range(1, 7)]

    async def test_a_failure_ends_everything_at_once(self, tmp_path: Path) -> None:
        audio = (say("hello world") + silence(1)) * 6
        with pytest.raises(EngineBroke):
            await told(engine := Wholes(fails_at=2), audio, tmp_path / "scratch")
        assert len(engine.heard) == 2
        assert not list((tmp_path / "scratch").iterdir())

    async def test_a_busy_engine_is_the_callers_to_explain(self, tmp_path: Path) -> None:
        replicas = Replicas("asr", "fake", [Wholes()], slots=1, queue=0)
        await replicas.refresh()

        async def nothing() -> AsyncIterator[Audio]:
            return
            yield

        async def heard(said: Transcript) -> None: ...

        async with replicas.gate.enter():
            with pytest.raises(EngineBusy):
                await dictate(replicas, SETTINGS, tmp_path, nothing(), "", heard)
