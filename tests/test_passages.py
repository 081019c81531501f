"""A long recording at the engine: several pieces at a time, answers in order, nothing lost and nothing left running."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import BadRequest, EngineBroke, EngineBusy, GatewayError
from gateway.events import Transcript, Word
from gateway.passages import Passage, Portion, recognised
from gateway.settings import Settings
from gateway.verbs import EngineHealth, Recording, State, Transcribe
from gateway.wire import wav
from tests.tiny import speech

RATE = 16_000
SAID = speech.pcm(speech.say("stop the music", voice="en"), speech.silence(3))
EACH = len(SAID) / 2 / RATE
"""Seconds from one utterance to the next."""


class Engine:
    """Hears in each recording what `hear` says, once it is let."""

    def __init__(self, hear: Callable[[int], Transcript | GatewayError] | None = None) -> None:
        self._hear = hear or (lambda number: Transcript(f"text {number}", "en"))
        self.asked: list[Transcribe] = []
        self.running = self.most = 0
        self.gates: dict[int, asyncio.Event] = {}

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        number = len(self.asked)
        self.asked.append(job)
        assert isinstance(job.audio, Recording)
        assert job.audio.path.exists()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield self._events(number)
        finally:
            self.running -= 1

    async def _events(self, number: int) -> AsyncIterator[Transcript]:
        if number in self.gates:
            await self.gates[number].wait()
        await asyncio.sleep(0)
        heard = self._hear(number)
        if isinstance(heard, GatewayError):
            raise heard
        yield Transcript("not yet", "", final=False)
        yield heard

    def health(self) -> EngineHealth:
        return EngineHealth(State.READY)


@pytest.fixture
def job(tmp_path: Path) -> Transcribe:
    """Six utterances."""
    return Transcribe(written(tmp_path / "audio.wav", SAID * 6), "en", ("Voxgate",))


def written(path: Path, pcm: bytes) -> Recording:
    path.write_bytes(wav.header(RATE, len(pcm) // 2) + pcm)
    return Recording(path, RATE, len(pcm) // 2)


async def all_of(engine: Engine, job: Transcribe, portion: Portion, folder: Path, **settings: int) -> list[Passage]:
    async with recognised(engine, Settings(**settings), folder, job, portion=portion) as found:
        return [passage async for passage in found]


def texts(found: list[Passage]) -> list[str]:
    return [one.text for passage in found for one in passage.said]


async def test_each_utterance_is_asked_for_with_all_that_was_wished(job: Transcribe, tmp_path: Path) -> None:
    engine = Engine()
    found = await all_of(engine, job, Portion.UTTERANCE, tmp_path, transcribe_together=1)
    assert texts(found) == [f"text {number}" for number in range(6)]
    assert all((one.language, one.hotwords) == ("en", ("Voxgate",)) for one in engine.asked)
    assert [round(passage.piece.start / EACH) for passage in found] == list(range(6))
    assert [path.name for path in tmp_path.iterdir()] == ["audio.wav"], "no piece is left"


async def test_a_short_recording_is_given_as_it_is(job: Transcribe, tmp_path: Path) -> None:
    engine = Engine()
    found = await all_of(engine, job, Portion.LARGE, tmp_path)
    assert [one.audio for one in engine.asked] == [job.audio]
    assert found[0].piece.speech == ()


async def test_later_pieces_that_are_ready_wait_for_earlier_ones(job: Transcribe, tmp_path: Path) -> None:
    engine = Engine()
    engine.gates[0] = asyncio.Event()
    asking = asyncio.ensure_future(all_of(engine, job, Portion.UTTERANCE, tmp_path, transcribe_together=3))
    async with asyncio.timeout(10):
        while engine.running != 1 or len(engine.asked) < 3:
            await asyncio.sleep(0.01)
    assert not asking.done()
    assert len(engine.asked) == 3, "and no further one is asked for"
    engine.gates[0].set()
    starts = [passage.piece.start for passage in await asking]
    assert starts == sorted(starts)
    assert len(starts) == 6


@pytest.mark.parametrize("together", [1, 2, 4])
async def test_so_many_at_a_time_and_no_more(job: Transcribe, tmp_path: Path, together: int) -> None:
    engine = Engine()
    engine.gates = {number: asyncio.Event() for number in range(6)}
    asking = asyncio.ensure_future(all_of(engine, job, Portion.UTTERANCE, tmp_path, transcribe_together=together))
    async with asyncio.timeout(10):
        while engine.running < together:
            await asyncio.sleep(0.01)
    for gate in engine.gates.values():
        gate.set()
    await asking
    assert engine.most == together


async def test_a_reader_that_takes_nothing_holds_the_engine_back(job: Transcribe, tmp_path: Path) -> None:
    engine = Engine()
    async with recognised(engine, Settings(transcribe_together=2), tmp_path, job, portion=Portion.UTTERANCE) as found:
        await anext(found)
        async with asyncio.timeout(10):
            while len(engine.asked) < 2 or engine.running:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(engine.asked) == 2
        assert len([passage async for passage in found]) == 5


async def test_times_are_those_of_the_whole_recording(job: Transcribe, tmp_path: Path) -> None:
    engine = Engine(lambda _: Transcript("stop", "en", start=0.1, end=0.5, words=(Word("stop", 0.2, 0.4),)))
    found = await all_of(engine, job, Portion.UTTERANCE, tmp_path)
    assert len(found) == 6
    for passage in found:
        (said,) = passage.said
        assert said.start == pytest.approx(passage.piece.start + 0.1)
        assert said.words[0].end == pytest.approx(passage.piece.start + 0.4)


async def test_an_engine_that_knows_words_gets_the_rest_together(job: Transcribe, tmp_path: Path) -> None:
    packable = written(tmp_path / "close.wav", SAID[: -2 * 2 * RATE] * 6)  # a second apart
    for words, count in (((Word("stop", 0.2, 0.4),), 2), ((), 6)):
        engine = Engine(lambda _, words=words: Transcript("stop", "en", words=words))  # type: ignore[misc]
        await all_of(engine, Transcribe(packable), Portion.TIMED, tmp_path)
        assert len(engine.asked) == count


async def test_a_first_piece_without_words_tells_nothing_of_the_engine(tmp_path: Path) -> None:
    packable = written(tmp_path / "close.wav", SAID[: -2 * 2 * RATE] * 6)

    def hear(number: int) -> Transcript:
        return Transcript("stop" if number else " ", "en", words=(Word("stop", 0.2, 0.4),))

    engine = Engine(hear)
    found = await all_of(engine, Transcribe(packable), Portion.TIMED, tmp_path)
    assert len(engine.asked) == 3
    assert found[0].said == ()


class TestFailures:
    async def test_of_the_first_piece_is_told_at_once(self, job: Transcribe, tmp_path: Path) -> None:
        engine = Engine(lambda number: EngineBusy() if number == 0 else Transcript("x", ""))
        with pytest.raises(EngineBusy):
            await all_of(engine, job, Portion.UTTERANCE, tmp_path)
        assert not engine.running

    async def test_of_a_later_piece_is_told_bare(self, job: Transcribe, tmp_path: Path) -> None:
        for failure in (EngineBroke("it died"), BadRequest("no")):
            engine = Engine(lambda number, failure=failure: failure if number > 1 else Transcript("x", ""))  # type: ignore[misc]
            with pytest.raises(type(failure)):
                await all_of(engine, job, Portion.UTTERANCE, tmp_path)
            assert not engine.running

    async def test_a_moment_without_a_place_loses_no_work(self, job: Transcribe, tmp_path: Path) -> None:
        refused: list[int] = []

        def hear(number: int) -> Transcript | GatewayError:
            if number in (2, 3):
                refused.append(number)
                return EngineBusy(retry_after=0)
            return Transcript("x", "")

        engine = Engine(hear)
        assert len(await all_of(engine, job, Portion.UTTERANCE, tmp_path, transcribe_together=1)) == 6
        assert refused == [2, 3]

    async def test_an_engine_that_stays_away_ends_it(self, job: Transcribe, tmp_path: Path) -> None:
        engine = Engine(lambda number: EngineBusy(retry_after=0) if number else Transcript("x", ""))
        with pytest.raises(EngineBusy):
            await all_of(engine, job, Portion.UTTERANCE, tmp_path, transcribe_together=1)
        assert len(engine.asked) == 5

    async def test_whoever_leaves_leaves_nothing_running(self, job: Transcribe, tmp_path: Path) -> None:
        engine = Engine()
        engine.gates = {number: asyncio.Event() for number in range(1, 6)}
        async with recognised(engine, Settings(), tmp_path, job, portion=Portion.UTTERANCE) as found:
            await anext(found)
            async with asyncio.timeout(10):
                while not engine.running:
                    await asyncio.sleep(0.01)
        assert not engine.running
