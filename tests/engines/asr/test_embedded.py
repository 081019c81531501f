import io
import random

import pytest

from engines.asr.backends import Asked, Backend, Stopped
from engines.asr.backends.embedded import Embedded
from engines.asr.recording import Recording
from tests.engines.asr.sound import SENTENCES, noise, person, say, silence


@pytest.fixture(scope="module")
def embedded() -> Backend:
    backend = Embedded()
    backend.load()
    return backend


def hear(backend: Backend, pcm: bytes, *hotwords: str) -> str:
    return backend.transcribe(
        Recording(io.BytesIO(pcm), 0, len(pcm) // 2), Asked("en", tuple(hotwords)), lambda: None
    ).text


@pytest.mark.parametrize("sentence", SENTENCES)
def test_clear_speech_is_heard_word_for_word(embedded: Backend, sentence: str) -> None:
    assert hear(embedded, say(sentence)) == sentence


def test_the_text_does_not_depend_on_what_was_heard_before(embedded: Backend) -> None:
    clips = [say(sentence) for sentence in SENTENCES] + [noise(2, -20), person("hello_world_en.wav")]
    first = {clip: hear(embedded, clip) for clip in clips}
    random.Random(3).shuffle(clips)
    assert {clip: hear(embedded, clip) for clip in clips} == first


def test_utterances_far_apart_are_joined(embedded: Backend) -> None:
    assert hear(embedded, say("hello world") + silence(3) + say("stop the music")) == "hello world stop the music"


@pytest.mark.parametrize("name", ["nothing", "one sample", "silence", "faint noise", "loud noise"])
def test_where_nobody_speaks_nothing_is_heard(embedded: Backend, name: str) -> None:
    clips = {"nothing": b"", "one sample": b"\1\0", "silence": silence(4)}
    clips |= {"faint noise": noise(4, -50), "loud noise": noise(4, -20)}
    assert hear(embedded, clips[name]) == ""


def test_people_are_understood(embedded: Backend) -> None:
    assert hear(embedded, person("hello_world_en.wav")) == "hello world"
    assert "weather" in hear(embedded, person("weather_question_en.wav"))
    assert "living room" in hear(embedded, person("living_room_light_en.wav"))


def test_each_word_is_where_it_was_said(embedded: Backend) -> None:
    clip = person("hello_world_en.wav")
    pcm = silence(2) + clip + silence(3) + clip
    heard = embedded.transcribe(Recording(io.BytesIO(pcm), 0, len(pcm) // 2), Asked("en"), lambda: None)
    assert embedded.timestamps
    assert heard.text == " ".join(word.text for word in heard.words) == "hello world hello world"
    second = 5 + len(clip) / 32000
    assert [round(word.start - base) for word, base in zip(heard.words, (2, 2, second, second), strict=True)] == [
        0,
        1,
        0,
        1,
    ]
    assert all(0.2 < word.end - word.start < 0.8 for word in heard.words)
    assert all(one.end <= other.start for one, other in zip(heard.words, heard.words[1:], strict=False))


def test_a_hotword_is_heard_where_it_would_not_have_been(embedded: Backend) -> None:
    spoken = say("the gateway speaks with fun audio chat")
    plain = hear(embedded, spoken)
    assert "fun audio" not in plain
    assert hear(embedded, spoken, "Fun Audio Chat") == "the gateway speaks with Fun Audio Chat"
    assert hear(embedded, spoken) == plain


def test_hotwords_nobody_said_or_that_cannot_be_pronounced_change_nothing(embedded: Backend) -> None:
    assert hear(embedded, say("hello world"), "你好", "xqzzy", "<s>", "[NOISE]", "purple", "@0") == "hello world"


def test_a_recognition_that_is_stopped_ends_and_the_next_one_is_right(embedded: Backend) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise Stopped

    pcm = say("the weather is very nice today")
    with pytest.raises(Stopped):
        embedded.transcribe(Recording(io.BytesIO(pcm), 0, len(pcm) // 2), Asked("en"), check)
    assert hear(embedded, say("hello world")) == "hello world"
