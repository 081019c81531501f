"""The embedded live backend by itself: what it writes down of streams, by turns, with few decoders."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from engines.asr.backends import embedded_decoders
from engines.asr.backends.embedded_live import EmbeddedLive
from engines.asr.live.backend import Asked
from engines.asr.live.events import Began, Delta, Ended, Event
from engines.asr.live.tape import Samples
from engines.asr.live.utterances import LONGEST
from tests.engines.asr.sound import SENTENCES, noise, person, say, silence

EXACT = ("hello world", "stop the music", "what time is it", "how are you today", "six seven eight nine zero")
"""Written down without an error while they are said."""
PACKET = 1920


@pytest.fixture(scope="module")
def loaded() -> EmbeddedLive:
    live = EmbeddedLive()
    live.load()
    return live


@pytest.fixture
def live(loaded: EmbeddedLive) -> Iterator[EmbeddedLive]:
    yield loaded
    assert loaded._decoders.lent == 0, "no stream keeps a decoder"
    assert not loaded._streams


def samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def heard(live: EmbeddedLive, pcm: bytes, step: int = PACKET, number: int = 1, **asked: Any) -> list[Event]:
    """The events of a stream."""
    live.open(number, Asked(**asked))
    try:
        sound, found = samples(pcm), []
        for at in range(0, len(sound) or 1, step):
            found += live.feed(number, sound[at : at + step], at + step >= len(sound))
        return found
    finally:
        live.close(number)


def texts(events: list[Event]) -> list[str]:
    """Of each utterance, by its deltas."""
    found: list[str] = []
    for event in events:
        match event:
            case Began():
                found.append("")
            case Delta(text):
                found[-1] += text
    return found


def spans(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.start, event.end) for event in events if isinstance(event, Ended)]


class TestUtterances:
    @pytest.mark.parametrize("sentence", SENTENCES)
    def test_begin_and_end_around_what_is_said(self, live: EmbeddedLive, sentence: str) -> None:
        spoken = say(sentence)
        first, *middle, last = heard(live, silence(1) + spoken + silence(1.5))
        ((start, end),) = spans([last])
        assert first == Began(start)
        assert all(isinstance(event, Delta) for event in middle)
        assert 800 < start < 1200
        assert abs(end - 1000 - len(spoken) / 32) < 350

    def test_nothing_is_heard_where_nobody_speaks(self, live: EmbeddedLive) -> None:
        assert heard(live, b"") == heard(live, silence(0.01)) == heard(live, silence(3)) == []
        assert heard(live, noise(3, -40)) == []

    def test_a_breath_is_no_end_and_a_pause_is(self, live: EmbeddedLive) -> None:
        one, other = say("hello world"), say("stop the music")
        assert len(spans(heard(live, one + silence(0.2) + other + silence(1)))) == 1
        assert len(spans(heard(live, one + silence(0.8) + other + silence(1)))) == 2

    def test_the_end_of_the_stream_ends_one_that_runs(self, live: EmbeddedLive) -> None:
        spoken = say("hello world")
        *_, last = heard(live, spoken)
        assert isinstance(last, Ended)
        assert abs(last.end - len(spoken) / 32) <= 30

    def test_one_without_end_is_cut_and_loses_nothing(self, live: EmbeddedLive) -> None:
        found = spans(heard(live, noise(70, -10), deltas=False))
        assert [end - start for start, end in found[:2]] == [LONGEST, LONGEST]
        assert all(end == start for (_, end), (start, _) in pairwise(found))
        assert found[-1][1] == 70_000

    def test_where_only_they_are_wanted_no_decoder_works(self, live: EmbeddedLive) -> None:
        spoken = samples(say("hello world"))
        live.open(1, Asked(deltas=False))
        kinds = [type(event) for event in live.feed(1, spoken, False)]
        assert kinds == [Began]
        assert live._decoders.lent == 0
        live.close(1)


class TestDeltas:
    @pytest.mark.parametrize("sentence", EXACT)
    def test_clear_speech_is_written_down_word_for_word(self, live: EmbeddedLive, sentence: str) -> None:
        found = heard(live, silence(0.5) + say(sentence) + silence(1), last_words=True)
        assert texts(found) == [sentence]

    def test_words_come_while_they_are_said(self, live: EmbeddedLive) -> None:
        spoken = samples(say("six seven eight nine zero"))
        live.open(1, Asked())
        so_far = []
        events: list[Event] = []
        for at in range(0, len(spoken), PACKET):
            events += live.feed(1, spoken[at : at + PACKET], False)
            so_far.append(len("".join(texts(events)).split()))
        live.close(1)
        assert so_far[len(so_far) * 2 // 3] >= 2
        assert so_far[-1] >= 4
        assert len(set(so_far)) >= 4, "by and by"

    @pytest.mark.parametrize("step", [160, 333, 1920, 16_000])
    def test_the_pieces_change_nothing(self, live: EmbeddedLive, step: int) -> None:
        pcm = silence(0.4) + say("hello world") + silence(1.2) + say("how are you today")
        assert heard(live, pcm, step) == heard(live, pcm, 480)

    def test_they_do_not_depend_on_what_was_heard_before(self, live: EmbeddedLive) -> None:
        pcm = silence(0.2) + say("what time is it") + silence(1)
        first = heard(live, pcm)
        heard(live, noise(2, -20))
        heard(live, person("hello_world_en.wav"))
        assert heard(live, pcm) == first

    def test_however_short_the_utterance(self, live: EmbeddedLive) -> None:
        for milliseconds in (300, 350, 400, 500):
            found = heard(live, say("stop")[: 32 * milliseconds], last_words=True)
            assert not found or isinstance(found[-1], Ended)

    def test_of_noise_no_word_is_left_behind_for_others(self, live: EmbeddedLive) -> None:
        heard(live, noise(4, -15) + silence(1), last_words=True)
        assert texts(heard(live, say("hello world"), last_words=True)) == ["hello world"]

    def test_a_person(self, live: EmbeddedLive) -> None:
        assert texts(heard(live, person("hello_world_en.wav"), last_words=True)) == ["hello world"]


class TestManyStreams:
    @pytest.fixture
    def loaded(self) -> EmbeddedLive:
        live = EmbeddedLive()
        live.load()
        return live

    def test_by_turns_they_do_not_mix(self, live: EmbeddedLive) -> None:
        sounds = {number: samples(silence(0.3) + say(text) + silence(1)) for number, text in enumerate(EXACT[:4])}
        found: dict[int, list[Event]] = {number: [] for number in sounds}
        for number in sounds:
            live.open(number, Asked(last_words=True))
        for at in range(0, max(map(len, sounds.values())), PACKET):
            for number, sound in sounds.items():
                found[number] += live.feed(number, sound[at : at + PACKET], False)
        for number in sounds:
            live.close(number)
        assert [texts(events) for events in found.values()] == [[text] for text in EXACT[:4]]

    def test_one_that_is_left_in_the_middle_frees_its_decoder(self, live: EmbeddedLive) -> None:
        for number in range(2 * embedded_decoders.MOST):
            live.open(number, Asked())
            live.feed(number, samples(say("hello world")), False)
            assert live._decoders.lent == 1
            live.close(number)
        live.close(99)
        assert repr(live._decoders) == "<decoders: 0 lent, 1 idle>"

    def test_silent_ones_need_none(self, live: EmbeddedLive) -> None:
        for number in range(100):
            live.open(number, Asked())
            live.feed(number, samples(silence(0.3)), False)
        assert live._decoders.lent == 0
        for number in range(100):
            live.close(number)

    def test_one_without_a_decoder_catches_up_as_soon_as_one_is_free(
        self, live: EmbeddedLive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded_decoders, "MOST", 1)
        spoken = samples(say("six seven eight nine zero"))
        for number in (1, 2):
            live.open(number, Asked())
        for at in range(0, len(spoken), PACKET):
            live.feed(1, spoken[at : at + PACKET], False)
            assert not [one for one in live.feed(2, spoken[at : at + PACKET], False) if isinstance(one, Delta)]
        live.close(1)
        caught_up = live.feed(2, samples(silence(0.2)), False)
        live.close(2)
        assert texts([Began(0), *caught_up])[0].startswith("six seven")

    def test_one_that_needs_every_word_gets_a_spare_one_in_the_end(
        self, live: EmbeddedLive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded_decoders, "MOST", 1)
        live.open(1, Asked())
        live.feed(1, samples(say("hello world")), False)
        assert texts(heard(live, say("stop the music"), number=2, last_words=True)) == ["stop the music"]
        *events, _ = heard(live, say("stop the music"), number=3)
        assert texts(events) == [""], "the second pass has it"
        live.close(1)
        assert repr(live._decoders) == "<decoders: 0 lent, 1 idle>"
