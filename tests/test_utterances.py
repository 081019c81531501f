"""A stream of audio, cut into utterances, each recognised while it is being said."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import utterances as module
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineUnavailable, GatewayError
from gateway.events import Transcript, Word
from gateway.settings import Settings
from gateway.utterances import Began, Ended, Failed, Final, Heard, Partial, Utterances
from gateway.verbs import EngineHealth, Live, Recording, State, Transcribe
from tests.adapters.spoken import Ear, LoudEars, silence, tone
from tests.engines.asr.sound import SENTENCES, noise, say

RATE = 16_000
SETTINGS = Settings()
PACKET = 3200


class Scripted(LoudEars):
    """Ears that hear whatever is loud, and are sure at once."""

    def __init__(self, settings: Settings, sample_rate: int, **wishes: float | None) -> None:
        super().__init__(settings, sample_rate)


@dataclass
class Stream:
    """One client of Utterances, and all that it was told."""

    utterances: Utterances
    told: list[Heard] = field(default_factory=list)

    async def say(self, *sounds: bytes) -> None:
        for pcm in sounds:
            for at in range(0, len(pcm), PACKET):
                await self.utterances.feed(pcm[at : at + PACKET])

    async def until(self, done: Callable[[], Any], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                await asyncio.sleep(0)

    def of(self, *kinds: type[Heard]) -> list[Any]:
        return [one for one in self.told if isinstance(one, kinds)]

    @property
    def texts(self) -> list[str]:
        return [one.transcript.text for one in self.of(Final)]


@asynccontextmanager
async def streaming(ear: Any, scratch: Path, *, in_turn: bool = False, **wishes: Any) -> AsyncIterator[Stream]:
    """A stream whose events are all taken; ended, and told to the end, with the block."""
    scratch.mkdir(exist_ok=True)
    utterances = Utterances(ear, SETTINGS, scratch, **{"sample_rate": RATE} | wishes)
    stream = Stream(utterances)

    async def take() -> None:
        async for event in utterances.events_in_turn() if in_turn else utterances.events():
            stream.told.append(event)

    async with asyncio.timeout(20), utterances.at_work(), asyncio.TaskGroup() as tasks:
        tasks.create_task(take())
        yield stream
        await utterances.end()
    assert not list(scratch.iterdir()), "nothing is left on disk"
    assert not getattr(ear, "open", 0), "nor at the engine"


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Endpointer", Scripted)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.mark.usefixtures("loud")
class TestAStream:
    async def test_is_cut_where_its_speaker_pauses(self, scratch: Path) -> None:
        ear = Ear()
        async with streaming(ear, scratch) as stream:
            await stream.say(silence(1), tone(0.5), silence(0.5), tone(0.7), silence(0.5))
        assert stream.texts == ["heard 1", "heard 2"]
        assert [(one.number, round(one.at, 2)) for one in stream.of(Began)] == [(0, 0.9), (1, 1.9)]
        assert [(one.number, round(one.at, 2)) for one in stream.of(Ended)] == [(0, 1.7), (1, 2.9)]
        assert [round(len(one) / 2 / RATE, 1) for one in ear.heard] == [0.8, 1.0]

    async def test_is_heard_while_it_is_said(self, scratch: Path) -> None:
        async with streaming(Ear(), scratch) as stream:
            await stream.say(tone(0.5))
            await stream.until(lambda: stream.of(Partial))
            assert stream.of(Partial)[0].text == "partial 1"
            assert 0 < stream.of(Partial)[0].at <= 0.5
            assert not stream.of(Ended, Final)

    async def test_tells_of_each_utterance_in_order(self, scratch: Path) -> None:
        async with streaming(Ear(), scratch) as stream:
            await stream.say(*[tone(0.4), silence(0.4)] * 4)
        for number in range(4):
            kinds = [type(one) for one in stream.told if one.number == number and not isinstance(one, Partial)]
            assert kinds == [Began, Ended, Final]
            mine = [type(one) for one in stream.told if one.number == number]
            assert (mine[0], mine[-1]) == (Began, Final)

    async def test_of_silence_costs_nothing(self, scratch: Path) -> None:
        async with streaming(ear := Ear(), scratch) as stream:
            await stream.say(silence(60))
        assert not ear.jobs and not stream.told

    async def test_without_partials_is_told_when_it_is_final(self, scratch: Path) -> None:
        async with streaming(ear := Ear(), scratch, partials=False) as stream:
            await stream.say(tone(0.5))
        assert [job.partials for job in ear.jobs] == [False]
        assert stream.texts == ["heard 1"]

    async def test_asks_for_what_was_wished(self, scratch: Path) -> None:
        wishes: dict[str, Any] = {
            "language": "en",
            "hotwords": ("Voxgate",),
            "itn": False,
            "punctuation": False,
            "words": True,
        }
        wishes |= {"punctuation": False}
        async with streaming(ear := Ear(), scratch, **wishes) as stream:
            await stream.say(tone(0.5))
        (job,) = ear.jobs
        assert {name: getattr(job, name) for name in wishes} == wishes

    @pytest.mark.parametrize("rate", [8000, 11025, 24000, 44100, 48000])
    async def test_of_any_rate_is_heard_at_16_khz_with_its_pitch_and_its_times(self, scratch: Path, rate: int) -> None:
        def sound(seconds: float, loud: int) -> bytes:
            at = np.arange(round(seconds * rate)) / rate
            return (loud * np.sin(2 * np.pi * 400 * at)).astype("<i2").tobytes()

        async with streaming(ear := Ear(), scratch, sample_rate=rate) as stream:
            await stream.say(sound(1, 0), sound(0.6, 8000), sound(0.5, 0), sound(0.6, 8000))
        heard = [np.frombuffer(one, "<i2").astype(float) for one in ear.heard]
        assert [round(len(one) / RATE, 1) for one in heard] == [0.9, 0.7]
        for one in heard:
            spectrum = np.abs(np.fft.rfft(one))
            assert np.fft.rfftfreq(len(one), 1 / RATE)[spectrum.argmax()] == pytest.approx(400, abs=3)
            assert np.abs(one).max() == pytest.approx(8000, rel=0.1)
        assert [one.at for one in stream.of(Began)] == pytest.approx([0.9, 2.0], abs=0.05)

    @pytest.mark.parametrize("size", [1, 333, 19_201])
    async def test_comes_in_pieces_of_any_size_halves_of_samples_too(self, scratch: Path, size: int) -> None:
        sound = tone(0.1) if size == 1 else tone(0.5)
        async with streaming(ear := Ear(), scratch) as stream:
            for at in range(0, len(sound), size):
                await stream.utterances.feed(sound[at : at + size])
        assert ear.heard == [sound]

    async def test_that_ends_in_the_middle_of_a_word_is_recognised_to_its_end(self, scratch: Path) -> None:
        async with streaming(ear := Ear(), scratch) as stream:
            await stream.say(tone(0.5))
        assert ear.heard == [tone(0.5)]
        assert [type(one) for one in stream.told if not isinstance(one, Partial)] == [Began, Ended, Final]

    async def test_without_a_pause_is_cut_where_it_is_quietest_and_loses_nothing(self, scratch: Path) -> None:
        sound = b"".join(tone(2.9) + tone(0.1, loud=1500) for _ in range(10))
        async with streaming(ear := Ear(), scratch, longest=8.0) as stream:
            await stream.say(sound)
        assert b"".join(ear.heard) == sound
        assert all(4 <= len(one) / 2 / RATE <= 8 for one in ear.heard[:-1])
        assert max(np.frombuffer(one[:200], "<i2").max() for one in ear.heard[1:]) <= 1500
        begins, ends = [one.at for one in stream.of(Began)], [one.at for one in stream.of(Ended)]
        assert begins[1:] == ends[:-1]

    async def test_that_stops_coming_holds_no_recogniser(self, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "IDLE", 0.1)
        async with streaming(ear := Ear(), scratch) as stream:
            await stream.say(tone(0.5))
            await stream.until(lambda: stream.texts)
            assert not ear.open
            await stream.say(tone(0.4))
        assert len(ear.heard) >= 2 and b"".join(ear.heard) == tone(0.5) + tone(0.4)


@pytest.mark.usefixtures("loud")
class TestTimes:
    async def test_are_those_of_the_stream(self, scratch: Path) -> None:
        class Exact(Ear):
            async def _events(self, job: Transcribe) -> AsyncIterator[Transcript]:
                async for event in super()._events(job):
                    words = (Word("a", 0.2, 0.3), Word("b", 0.3, 0.5)) if event.final else ()
                    yield Transcript(event.text, "en", event.final, start=0.2, end=0.5, words=words)

        async with streaming(Exact(), scratch) as stream:
            await stream.say(silence(2), tone(0.5), silence(3), tone(0.5))
        for number, begin in enumerate((1.9, 5.4)):
            said: Transcript = stream.of(Final)[number].transcript
            assert (said.utterance, said.language, said.final) == (number, "en", True)
            assert (said.start, said.end) == pytest.approx((begin + 0.2, begin + 0.5))
            assert [word.start for word in said.words] == pytest.approx([begin + 0.2, begin + 0.3])

    async def test_are_those_of_the_endpointer_where_the_engine_knows_none(self, scratch: Path) -> None:
        async with streaming(Ear(), scratch) as stream:
            await stream.say(silence(2), tone(0.5), silence(1))
        said: Transcript = stream.of(Final)[0].transcript
        assert (said.start, said.end) == pytest.approx((1.9, 2.7))


@pytest.mark.usefixtures("loud")
class TestByHand:
    async def test_an_utterance_ends_where_it_is_committed(self, scratch: Path) -> None:
        async with streaming(ear := Ear(), scratch) as stream:
            await stream.say(tone(0.5))
            assert await stream.utterances.commit()
            await stream.say(tone(0.3))
            assert await stream.utterances.commit()
            assert not await stream.utterances.commit()
        assert ear.heard == [tone(0.5), tone(0.3)]

    async def test_speech_that_nobody_noticed_is_recognised(self, scratch: Path) -> None:
        faint = tone(0.8, loud=500)
        async with streaming(ear := Ear(), scratch) as stream:
            await stream.say(faint)
            assert not stream.told
            assert await stream.utterances.commit()
        assert ear.heard == [faint]

    @pytest.mark.parametrize("sound", [b"", silence(5), tone(0.1, loud=500)])
    async def test_there_is_nothing_in_silence_and_clicks(self, scratch: Path, sound: bytes) -> None:
        async with streaming(ear := Ear(), scratch) as stream:
            await stream.say(sound)
            assert not await stream.utterances.commit()
        assert not ear.jobs and not stream.told

    async def test_only_a_commit_ends_a_manual_one(self, scratch: Path) -> None:
        sound = tone(0.4) + silence(2) + tone(0.4)
        async with streaming(ear := Ear(), scratch, manual=True) as stream:
            await stream.say(sound)
            await stream.until(lambda: stream.of(Partial))
            assert not stream.of(Ended)
            assert await stream.utterances.commit()
            await stream.until(lambda: stream.texts)
            assert not await stream.utterances.commit()
            await stream.say(tone(0.2))
        assert ear.heard == [sound, tone(0.2)]
        assert [one.at for one in stream.of(Began)] == pytest.approx([0, 2.8])

    async def test_a_manual_one_of_silence_is_told_and_costs_nothing(self, scratch: Path) -> None:
        async with streaming(ear := Ear(), scratch, manual=True) as stream:
            await stream.say(silence(30))
            assert await stream.utterances.commit()
        assert not ear.jobs
        assert stream.texts == [""]

    async def test_a_manual_one_that_rests_is_one_all_the_same_and_holds_no_recogniser(
        self, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "IDLE", 0.1)
        async with streaming(ear := Ear(), scratch, manual=True) as stream:
            await stream.say(tone(0.5))
            await stream.until(lambda: ear.open)
            await stream.until(lambda: not ear.open)
            await stream.say(tone(0.3))
            assert await stream.utterances.commit()
        assert stream.texts == ["heard 2"]
        assert ear.heard[-1] == tone(0.5) + tone(0.3)

    async def test_what_is_cleared_is_told_no_more_and_leaves_the_engine(self, scratch: Path) -> None:
        async with streaming(ear := Ear(), scratch) as stream:
            await stream.say(tone(0.5), silence(0.5))
            await stream.until(lambda: stream.texts)
            await stream.say(tone(0.5))
            await stream.until(lambda: ear.open)
            stream.utterances.clear()
            await stream.until(lambda: not ear.open)
            told = len(stream.told)
            await stream.say(silence(0.5))
            assert len(stream.told) == told
            await stream.say(tone(0.5))
        assert [(one.number, one.transcript.text) for one in stream.of(Final)] == [(0, "heard 1"), (2, "heard 3")]
        assert ear.heard[2] == silence(0.1) + tone(0.5), "nothing of what was cleared is in what comes next"

    async def test_nothing_is_cleared_where_nothing_is_said(self, scratch: Path) -> None:
        async with streaming(Ear(), scratch) as stream:
            stream.utterances.clear()
            await stream.say(tone(0.5))
        assert stream.texts == ["heard 1"]


@pytest.mark.usefixtures("loud")
class TestEngines:
    async def test_that_take_recordings_get_each_utterance_once_it_has_ended(self, scratch: Path) -> None:
        async with streaming(ear := Ear(live=False), scratch) as stream:
            await stream.say(tone(0.5), silence(0.5), tone(0.7), silence(0.5))
        assert [type(job.audio) for job in ear.jobs] == [Recording, Recording]
        assert stream.texts == ["heard 1", "heard 2"]
        assert not stream.of(Partial)
        assert ear.most == 1

    async def test_that_take_recordings_are_asked_once_whether_they_hear_live(self, scratch: Path) -> None:
        class Asked(Ear):
            def session(self, job: Transcribe) -> Any:
                tried.append(type(job.audio))
                return super().session(job)

        tried: list[type] = []
        async with streaming(Asked(live=False), scratch) as stream:
            await stream.say(*[tone(0.5), silence(0.5)] * 3)
        assert tried == [Live, Recording, Recording, Recording]

    @pytest.mark.parametrize("error", [EngineBroke("it broke"), EngineBusy("no place"), EngineUnavailable("gone")])
    async def test_that_break_are_asked_once_more_for_the_whole(self, scratch: Path, error: GatewayError) -> None:
        async with streaming(ear := Ear(breaks=[error]), scratch) as stream:
            await stream.say(tone(0.5))
            await stream.until(lambda: not ear.breaks)
            await stream.say(tone(0.5), silence(0.5), tone(0.3))
        again = [type(job.audio) for job in ear.jobs].index(Recording)
        assert ear.heard[again][: len(tone(1))] == tone(0.5) + tone(0.5)
        assert [one.number for one in sorted(stream.of(Final), key=lambda one: one.number)] == [0, 1]

    @pytest.mark.parametrize("live", [True, False])
    async def test_that_fail_one_utterance_go_on_with_the_next(self, scratch: Path, live: bool) -> None:
        errors: list[GatewayError] = [BadRequest("not this", code="engine_refused")]
        async with streaming(Ear(live=live, errors=errors), scratch) as stream:
            await stream.say(tone(0.5), silence(0.5), tone(0.5), silence(0.5))
        (failed,) = stream.of(Failed)
        assert (failed.number, failed.error.code) == (0, "engine_refused")
        assert [one.number for one in stream.of(Final)] == [1]
        kinds = [type(one) for one in stream.told if one.number == 0 and not isinstance(one, Partial)]
        assert kinds == [Began, Ended, Failed], "its end is told first"

    async def test_that_have_a_bug_fail_one_utterance(self, scratch: Path) -> None:
        async with streaming(Ear(errors=[RuntimeError("a bug")]), scratch) as stream:  # type: ignore[list-item]
            await stream.say(tone(0.5), silence(0.5), tone(0.5))
        assert [one.error.code for one in stream.of(Failed)] == ["internal"]
        assert len(stream.texts) == 1

    async def test_that_are_still_finishing_hear_the_next_one_already_but_no_third(self, scratch: Path) -> None:
        ear = Ear(hold=asyncio.Event())
        async with streaming(ear, scratch) as stream:
            await stream.say(*[tone(0.4), silence(0.4)] * 3)
            await stream.until(lambda: len(ear.heard) == 2 and all(ear.heard))
            assert len(stream.of(Began)) == len(stream.of(Ended)) == 3
            for _ in range(50):
                await asyncio.sleep(0)
            assert ear.open == ear.most == 2
            assert ear.hold is not None
            ear.hold.set()
        assert ear.most == 2
        assert stream.texts == ["heard 1", "heard 2", "heard 3"]

    async def test_with_one_place_hear_one_after_the_other_and_lose_nothing(self, scratch: Path) -> None:
        class Narrow(Ear):
            @asynccontextmanager
            async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
                if self.open:
                    raise EngineBusy("one at a time")
                async with super().session(job) as events:
                    yield events

        async with streaming(ear := Narrow(slow=0.01), scratch) as stream:
            await stream.say(*[tone(0.4), silence(0.4)] * 5)
        assert len(stream.texts) == 5 and not stream.of(Failed)
        assert ear.most == 1

    async def test_that_hang_are_left_with_the_stream(self, scratch: Path) -> None:
        ear = Ear(hold=asyncio.Event())
        scratch.mkdir()
        utterances = Utterances(ear, SETTINGS, scratch, sample_rate=RATE)
        async with utterances.at_work():
            await utterances.feed(tone(0.5))
            async with asyncio.timeout(5):
                while not ear.open:
                    await asyncio.sleep(0)
        assert not ear.open
        assert [type(one) async for one in utterances.events()][:1] == [Began], "and its events end"
        assert not list(scratch.iterdir())


@pytest.mark.usefixtures("loud")
class TestBounds:
    @pytest.mark.parametrize("live", [True, False])
    async def test_a_recogniser_that_is_too_slow_holds_the_speaker_back(self, scratch: Path, live: bool) -> None:
        ear = Ear(live=live, hold=asyncio.Event())
        async with streaming(ear, scratch) as stream, asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(stream.say(*[tone(2), silence(0.5)] * 30))
            await stream.until(lambda: len(stream.of(Began)) > 3)
            for _ in range(500):
                await asyncio.sleep(0)
            assert not speaking.done()
            held = stream.utterances.now - sum(len(one) for one in ear.heard) / 2 / RATE
            assert held <= module.MOST_BEHIND + 6
            assert ear.hold is not None
            ear.hold.set()
        assert len(stream.texts) == 30
        assert sum(len(one) for one in ear.heard) / 2 / RATE == pytest.approx(30 * 2.3, abs=0.2)

    async def test_a_long_utterance_that_is_still_being_said_holds_nobody(self, scratch: Path) -> None:
        async with streaming(ear := Ear(live=False), scratch) as stream:
            await asyncio.wait_for(stream.say(tone(40)), 5)
        assert ear.heard == [tone(40)]

    async def test_a_reader_that_takes_no_events_holds_the_speaker_back(self, scratch: Path) -> None:
        scratch.mkdir()
        utterances = Utterances(Ear(), SETTINGS, scratch, sample_rate=RATE)
        async with utterances.at_work():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    for _ in range(1000):
                        await utterances.feed(tone(0.3) + silence(0.3))
            assert len(utterances._untold) <= 2 * module.MOST_UNTOLD


@pytest.mark.usefixtures("loud")
class TestInTurn:
    async def test_nothing_of_an_utterance_comes_before_the_last_is_final(self, scratch: Path) -> None:
        ear = Ear(hold=asyncio.Event())
        async with streaming(ear, scratch, in_turn=True) as stream:
            await stream.say(*[tone(0.4), silence(0.4)] * 3)
            await stream.until(lambda: len(ear.heard) == 2 and ear.heard[1])
            assert {one.number for one in stream.told} == {0}
            assert ear.hold is not None
            ear.hold.set()
        numbers = [one.number for one in stream.told]
        assert numbers == sorted(numbers)
        assert stream.texts == ["heard 1", "heard 2", "heard 3"]

    async def test_one_that_was_cleared_keeps_nobody_waiting(self, scratch: Path) -> None:
        async with streaming(Ear(), scratch, in_turn=True) as stream:
            for _ in range(3):
                await stream.say(tone(0.5))
                await stream.until(lambda: stream.of(Partial))
                stream.utterances.clear()
            await stream.say(tone(0.5))
        assert [one.number for one in stream.of(Final)] == [3]


class Wholes:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        async def events() -> AsyncIterator[Transcript]:
            assert isinstance(job.audio, Live)
            self.heard.append(b"".join([piece.pcm async for piece in job.audio.pieces]))
            yield Transcript("", "")

        yield events()

    def health(self) -> EngineHealth:
        return EngineHealth(State.READY)


class TestRealSpeech:
    async def test_each_sentence_is_an_utterance_and_whole(self, scratch: Path) -> None:
        spoken = [say(text) for text in SENTENCES]
        async with streaming(ear := Wholes(), scratch) as stream:
            for one in spoken:
                await stream.say(one + silence(1.5))
        assert len(ear.heard) == len(SENTENCES)
        for one, heard in zip(spoken, ear.heard, strict=True):
            body = np.frombuffer(one, "<i2").astype(int)
            loud = np.nonzero(np.abs(body) > 1000)[0]
            assert one[2 * loud[0] : 2 * loud[-1]] in heard
        starts = np.cumsum([0, *(len(one) / 2 / RATE + 1.5 for one in spoken)])[:-1]
        for event, start in zip(stream.of(Began), starts, strict=True):
            assert start - SETTINGS.endpoint_padding - 0.1 <= event.at <= start + 0.3

    async def test_silence_in_place_of_the_settings_parts_what_is_said(self, scratch: Path) -> None:
        sound = say("stop the music") + silence(0.9) + say("what time is it") + silence(2)
        for pause, count in ((0.4, 2), (1.5, 1)):
            async with streaming(ear := Wholes(), scratch, silence=pause) as stream:
                await stream.say(sound)
            assert len(ear.heard) == len(stream.of(Final)) == count

    async def test_noise_is_nobody(self, scratch: Path) -> None:
        async with streaming(ear := Wholes(), scratch) as stream:
            await stream.say(noise(5, -60))
        assert not ear.heard and not stream.told


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("say"), st.integers(0, 30)),
            st.tuples(st.just("rest"), st.integers(0, 30)),
            st.tuples(st.sampled_from(("commit", "clear")), st.just(0)),
        ),
        max_size=12,
    ),
    st.booleans(),
    st.booleans(),
)
def test_whatever_comes_every_utterance_is_told_to_its_end(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[str, int]], manual: bool, live: bool
) -> None:
    async def run() -> None:
        ear, cleared = Ear(live=live), 0
        async with streaming(ear, tmp_path_factory.mktemp("scratch"), manual=manual, longest=2.0) as stream:
            for step, tenths in steps:
                if step == "commit":
                    await stream.utterances.commit()
                elif step == "clear":
                    stream.utterances.clear()
                    cleared += 1
                else:
                    await stream.say((tone if step == "say" else silence)(tenths / 10))
        ended = {one.number for one in stream.of(Final)}
        assert not stream.of(Failed)
        assert {one.number for one in stream.of(Ended)} == ended
        assert len({one.number for one in stream.of(Began)} - ended) <= cleared
        times = [(one.start, one.end) for one in (final.transcript for final in stream.of(Final))]
        flat = [at for pair in sorted(times) for at in pair]
        assert flat == sorted(flat), "no two overlap"

    patched = pytest.MonkeyPatch()
    with patched.context() as patch:
        patch.setattr(module, "Endpointer", Scripted)
        asyncio.run(run())
