"""The cascade: endpointing → transcribe → a reply → speak, with scripted verbs below it."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from gateway import utterances
from gateway.adapters import cascade_conversation, cascade_recognition
from gateway.adapters.cascade import Cascade
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineLoading,
    EngineTimeout,
    EngineUnavailable,
    GatewayError,
)
from gateway.events import Audio, Phase, ReplyAudio, ReplyText, Resumable, ToolCall
from gateway.memory import Call, Role
from gateway.verbs import (
    Begin,
    Cancel,
    Change,
    Converse,
    End,
    EngineHealth,
    Live,
    Preset,
    Recording,
    State,
    ToolResult,
    Write,
)
from gateway.wire.engine_health import Progress
from tests.adapters.spoken import RATE, VOICES, Client, World, silence, tone, world


@pytest.fixture
def there(tmp_path: Path) -> World:
    return world(tmp_path / "scratch")


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def quiet(there: World, seconds: float = 2.0) -> None:
    """Waits until nothing of any turn is left anywhere."""
    async with asyncio.timeout(seconds):
        while not there.idle():
            await asyncio.sleep(0.005)


class TestATurn:
    async def test_is_heard_and_answered_in_this_order(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.5), End())
            assert (await client.ended()).phase is Phase.DONE
        kinds = [type(event).__name__ for event in client.events if getattr(event, "final", True) is not False]
        assert kinds == ["Resumable", "Turn", "Transcript", "ReplyText", *["ReplyAudio"] * 3, "Turn"]
        assert client.phases() == [Phase.WORKING, Phase.DONE]
        assert [one.text for one in client.heard()] == ["heard 1"]
        assert client.heard()[0].utterance == 1
        assert client.text() == "You said heard 1."
        assert all(isinstance(one, ReplyAudio) and one.turn == 1 for one in client.events if type(one) is ReplyAudio)
        assert there.idle()

    async def test_is_counted_whether_it_is_spoken_or_written(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.5), End(), Write("two"), tone(0.5), End())
            for number in (1, 2, 3):
                assert (await client.ended(number)).phase is Phase.DONE
        assert client.text(2) == "You said two."
        assert [one.utterance for one in client.heard()] == [1, 3]

    async def test_every_sample_reaches_the_recogniser_also_when_the_end_comes_at_once(self, there: World) -> None:
        said = tone(1.5) + tone(0.02, 3000)[:-38]
        async with there.talk() as client:
            client.say(said, End())
            await client.ended()
        assert there.ear.heard == [said]

    async def test_is_recognised_at_the_recognisers_rate_whatever_it_was_said_at(self, there: World) -> None:
        pcm = (8000 * np.sin(np.arange(24_000) / 10)).astype("<i2").tobytes()
        async with there.talk() as client:
            client.say(*(Audio(pcm[at : at + 960], 24_000) for at in range(0, len(pcm), 960)), End())
            await client.ended()
        assert abs(len(there.ear.heard[0]) / 2 - RATE) <= 2, "24,000 samples of 24 kHz are a second"

    async def test_without_a_word_in_it_fails_and_says_why(self, there: World) -> None:
        there.ear.texts = [" "]
        async with there.talk() as client:
            client.say(tone(0.5), End())
            end = await client.ended()
        assert (end.phase, end.code) == (Phase.FAILED, "nothing_understood")
        assert end.reason == "no words were understood in what was said"
        assert not there.mind.asked

    async def test_of_silence_asks_no_recogniser(self, there: World) -> None:
        async with there.talk() as client:
            client.say(silence(2), End(), End())
            assert (await client.ended(1)).code == "nothing_understood"
            assert (await client.ended(2)).code == "nothing_understood"
        assert not there.ear.jobs

    async def test_that_is_too_faint_for_our_ears_is_for_the_recogniser_to_judge(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(1, loud=500), End())
            assert (await client.ended()).phase is Phase.DONE
        assert there.ear.heard == [tone(1, loud=500)]

    async def test_that_is_a_click_is_not(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.1, loud=500), End())
            assert (await client.ended()).code == "nothing_understood"
        assert not there.ear.jobs

    async def test_without_speech_is_answered_in_writing_only(self, there: World) -> None:
        async with there.talk(speech=False) as client:
            client.say(Write("hello"))
            assert (await client.ended()).phase is Phase.DONE
        assert client.text() == "You said hello."
        assert not there.mouth.jobs

    @pytest.mark.parametrize("text", ["", " \n"])
    async def test_that_says_nothing_in_writing_fails(self, there: World, text: str) -> None:
        async with there.talk() as client:
            client.say(Write(text))
            assert (await client.ended()).code == "nothing_understood"

    async def test_that_is_longer_than_allowed_fails(self, tmp_path: Path) -> None:
        there = world(tmp_path / "scratch", text_max_chars=20)
        async with there.talk() as client:
            client.say(Write("a" * 21))
            assert (await client.ended()).code == "text_too_long"
            client.say(Write("a" * 5))
            assert (await client.ended(2)).phase is Phase.DONE


class TestRecognition:
    async def test_holds_no_recogniser_for_a_client_that_stops_sending_in_the_middle_of_a_word(
        self, there: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(utterances, "IDLE", 0.1)
        async with there.talk() as client:
            client.say(tone(0.5))
            await client.until(lambda: there.ear.open)
            await quiet(there)
            client.say(tone(0.4, 4000), End())
            assert (await client.ended()).phase is Phase.DONE
        assert there.ear.heard == [tone(0.5), tone(0.4, 4000)], "no sample is lost, and none comes twice"
        assert [one.text for one in client.heard()] == ["heard 1 heard 2"]

    async def test_of_many_segments_gives_a_sign_of_life_after_each(self, there: World) -> None:
        there.ear.live, there.ear.slow = False, 0.02
        async with there.talk() as client:
            client.say(*[tone(0.3) + silence(0.5)] * 3, End())
            assert (await client.ended()).phase is Phase.DONE
        assert [one.text for one in client.heard(final=False)] == ["heard 1", "heard 1 heard 2"]

    async def test_partials_come_while_speech_does(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.5))
            await client.until(lambda: client.heard(final=False))
            assert client.heard(final=False)[0].utterance == 1
            client.say(End())
            await client.ended()

    async def test_an_open_microphone_in_silence_holds_nobody(self, there: World) -> None:
        async with there.talk() as client:
            client.say(silence(60))
            await settle()
            assert not there.ear.jobs
            client.say(tone(0.5), End())
            await client.ended()
        assert [len(one) / 2 / RATE for one in there.ear.heard] == pytest.approx([0.6], abs=0.021)

    async def test_pauses_part_what_is_said_and_it_becomes_one_text(self, there: World) -> None:
        there.ear.texts = ["hello there", "你好", "。World"]
        async with there.talk() as client:
            client.say(tone(0.5), silence(0.5), tone(0.7), silence(0.5))
            await client.until(lambda: len(there.ear.heard) == 2 and not there.ear.open)
            client.say(tone(0.3), End())
            await client.ended()
        assert [one.text for one in client.heard()] == ["hello there你好。World"]
        assert [round(len(one) / 2 / RATE, 1) for one in there.ear.heard] == [0.7, 1.0, 0.4]
        assert there.ear.most == 1

    async def test_engines_that_take_whole_recordings_get_them_as_files(self, there: World) -> None:
        there.ear.live = False
        async with there.talk() as client:
            client.say(tone(0.5), silence(0.5), tone(0.7), End())
            assert (await client.ended()).phase is Phase.DONE
            client.say(tone(0.5), End())
            await client.ended(2)
        assert [one.text for one in client.heard()] == ["heard 1 heard 2", "heard 3"]
        recordings = [job.audio for job in there.ear.jobs]
        assert all(isinstance(one, Recording) and one.sample_rate == RATE for one in recordings)
        assert [round(one.seconds, 1) for one in recordings if isinstance(one, Recording)] == [0.7, 0.8, 0.5]
        assert not any(path.exists() for path in there.ear.paths)

    async def test_an_engine_is_asked_once_whether_it_hears_live(self, there: World) -> None:
        there.ear.live = False
        tried = []
        session = there.ear.session
        there.ear.session = lambda job: (tried.append(type(job.audio)), session(job))[1]  # type: ignore[method-assign]
        async with there.talk() as client:
            client.say(tone(0.5), End(), tone(0.5), End())
            await client.ended(2)
        assert tried == [Live, Recording, Recording]

    async def test_its_failure_is_the_turns(self, there: World) -> None:
        there.ear.errors = [EngineLoading("asr is loading: model, 40 % of 500 MB")]
        async with there.talk() as client:
            client.say(tone(0.5), End())
            end = await client.ended()
            assert (end.phase, end.code, end.reason) == (
                Phase.FAILED,
                "engine_loading",
                "asr is loading: model, 40 % of 500 MB",
            )
            client.say(tone(0.5), End())
            assert (await client.ended(2)).phase is Phase.DONE

    async def test_a_monologue_is_many_segments_cut_where_it_is_quiet(self, there: World) -> None:
        """Two minutes without a pause that endpointing would see."""
        minute = b"".join(tone(2.9) + tone(0.1, loud=1500) for _ in range(20))
        async with there.talk() as client:
            client.say(minute, minute, End())
            await client.ended()
        assert b"".join(there.ear.heard) == minute + minute
        assert len(there.ear.heard) >= 5
        assert all(len(one) / 2 / RATE <= cascade_recognition.LONGEST for one in there.ear.heard)
        edges = [np.frombuffer(one[:200], "<i2").max() for one in there.ear.heard[1:]]
        assert max(edges) <= 1500
        assert there.ear.most == 1

    async def test_an_hour_of_monologue_is_bounded(self, there: World) -> None:
        second = tone(1)
        there.ear.partials = False
        async with there.talk() as client:
            for _ in range(3600):
                client.say(Audio(second, RATE))
                await asyncio.sleep(0)
            client.say(End())
            end = await client.ended(1)
            assert end.phase is Phase.DONE
        assert len(there.ear.heard) >= 3600 / cascade_recognition.LONGEST
        assert client.heard()[0].text.endswith(f"heard {len(there.ear.heard)}")

    async def test_where_it_is_slower_than_speech_the_latest_is_kept(self, there: World) -> None:
        there.ear.hold = asyncio.Event()
        async with there.talk() as client:
            for _ in range(400):
                client.say(Audio(tone(1), RATE))
            client.say(End())
            await client.until(lambda: client.phases())
            there.ear.hold.set()
            await client.ended()
        kept = sum(len(one) for one in there.ear.heard) / 2 / RATE
        assert kept <= cascade_recognition.MOST_UNHEARD + 2 * cascade_recognition.LONGEST
        assert client.heard()[0].text.startswith("… ")

    async def test_a_text_of_many_segments_keeps_its_latest_characters(self, tmp_path: Path) -> None:
        there = world(tmp_path / "scratch", text_max_chars=20)
        async with there.talk() as client:
            client.say(*[tone(0.3) + silence(0.4)] * 5, End())
            await client.ended()
        assert client.heard()[0].text == "… heard 4 heard 5"

    async def test_the_language_that_was_asked_for_is_the_recognisers(self, there: World) -> None:
        async with there.talk(language="zh") as client:
            client.say(tone(0.3), End())
            await client.ended()
        assert there.ear.jobs[0].language == there.mouth.jobs[0].language == there.mind.asked[0].language == "zh"

    @pytest.mark.parametrize("error", [EngineBroke("it broke"), EngineBusy("no place"), EngineUnavailable("gone")])
    async def test_an_engine_that_breaks_off_is_asked_once_more_for_the_whole(
        self, there: World, error: GatewayError
    ) -> None:
        there.ear.breaks = [error]
        async with there.talk() as client:
            client.say(tone(0.5))
            await client.until(lambda: client.heard(final=False))
            client.say(tone(0.5), End())
            assert (await client.ended()).phase is Phase.DONE
        assert [type(job.audio) for job in there.ear.jobs] == [Live, Recording]
        assert there.ear.heard[-1] == tone(0.5) + tone(0.5)

    async def test_an_engine_that_breaks_twice_fails_the_turn(self, there: World) -> None:
        there.ear.breaks = [EngineBroke("it broke"), EngineBroke("it broke again")]
        async with there.talk() as client:
            client.say(tone(0.5), End())
            assert (await client.ended()).reason == "it broke again"

    @pytest.mark.parametrize(
        ("language", "code"),
        [("zh", "zh"), ("中文", "zh"), ("en-US", "en"), ("zh_CN", "zh"), ("|><|endofprompt|>", ""), ("x" * 50, "")],
    )
    async def test_synthesis_is_told_a_language_code_or_none(self, there: World, language: str, code: str) -> None:
        async with there.talk(language=language) as client:
            client.say(Write("hello"))
            await client.ended()
        assert [job.language for job in there.mouth.jobs] == [code]


class TestSpeech:
    async def test_begins_with_the_first_sentence_while_the_reply_is_still_made(self, there: World) -> None:
        go_on = asyncio.Event()
        there.mind.replies = [["One is", " done. Two", go_on.wait, " is as well."]]
        async with there.talk() as client:
            client.say(Write("?"))
            await client.until(lambda: client.sentences() == [1, 1, 1])
            assert client.text() == "One is done. Two"
            assert client.phases() == [Phase.WORKING]
            go_on.set()
            await client.ended()
        assert there.mouth.said == ["One is done.", "Two is as well."]

    async def test_text_does_not_wait_for_audio(self, there: World) -> None:
        there.mouth.hold["One"] = asyncio.Event()
        there.mind.replies = [["One. ", "Two. ", "Three."]]
        async with there.talk() as client:
            client.say(Write("?"))
            await client.until(lambda: client.text() == "One. Two. Three.")
            assert client.sentences() == []
            there.mouth.hold["One"].set()
            await client.ended()

    async def test_one_sentence_is_made_ahead_and_no_more(self, there: World) -> None:
        there.mouth.late["One"] = asyncio.Event()
        there.mind.replies = [["One. Two. Three. Four."]]
        async with there.talk() as client:
            client.say(Write("?"))
            await client.until(lambda: client.sentences() == [1])
            await settle()
            assert there.mouth.said == ["One.", "Two."]
            there.mouth.late["One"].set()
            await client.ended()
        assert client.sentences() == [number for number in (1, 2, 3, 4) for _ in range(3)]
        assert there.mouth.most == 2

    async def test_nothing_is_made_ahead_before_the_first_audio(self, there: World) -> None:
        there.mouth.hold["One"] = asyncio.Event()
        there.mind.replies = [["One. Two. Three."]]
        async with there.talk() as client:
            client.say(Write("?"))
            await client.until(lambda: client.text())
            await settle()
            assert there.mouth.said == ["One."]
            there.mouth.hold["One"].set()
            await client.ended()

    async def test_a_sentence_that_fails_fails_the_turn_after_what_came_before_it(self, there: World) -> None:
        there.mouth.late["One"] = asyncio.Event()
        there.mouth.errors["Two"] = EngineBroke("the engine broke off its answer")
        there.mind.replies = [["One. Two. Three."]]
        async with there.talk() as client:
            client.say(Write("?"))
            await client.until(lambda: client.sentences() == [1])
            await settle()
            there.mouth.late["One"].set()
            end = await client.ended()
        assert (end.phase, end.code, end.reason) == (Phase.FAILED, "engine_broke", "the engine broke off its answer")
        assert client.sentences() == [1, 1, 1]
        assert "Three." not in there.mouth.said
        assert there.idle()

    async def test_a_sentence_without_audio_is_a_failure(self, there: World) -> None:
        there.mouth.pieces = 0
        async with there.talk() as client:
            client.say(Write("?"))
            assert (await client.ended()).code == "engine_broke"

    @pytest.mark.parametrize("voice", VOICES)
    async def test_has_the_voice_that_was_asked_for(self, there: World, voice: Any) -> None:
        async with there.talk() as client:
            client.say(Write("one"), Change(voice=voice), Write("two"))
            await client.ended(2)
        assert [job.voice for job in there.mouth.jobs] == [Preset("中文女"), voice]

    async def test_an_unread_reply_holds_a_bounded_amount_of_audio(self, there: World) -> None:
        there.mouth.pieces = 2000
        async with there.talk() as client:
            client.reading.clear()
            client.say(Write("one. two. three."))
            await asyncio.sleep(0.2)
            assert there.cascade.gate.running == 1
            assert there.mouth.most <= 2
            client.reading.set()
            await client.ended()
        assert len(client.sentences()) == 6000


class TestReplies:
    async def test_are_made_with_what_was_said_before(self, there: World) -> None:
        async with there.talk(persona="You are a pirate.") as client:
            client.say(Write("one"), Write("two"))
            await client.ended(2)
        first, second = there.mind.asked
        assert first.persona == second.persona == "You are a pirate."
        assert [(one.role, one.text) for one in second.messages] == [
            (Role.USER, "one"),
            (Role.ASSISTANT, "You said one."),
            (Role.USER, "two"),
        ]

    async def test_have_the_persona_of_the_settings_where_none_is_asked_for(self, tmp_path: Path) -> None:
        there = world(tmp_path / "scratch", persona="You are kind.")
        async with there.talk() as client:
            client.say(Write("one"))
            await client.ended()
        assert there.mind.asked[0].persona == "You are kind."

    async def test_that_fail_fail_the_turn_and_the_next_one_goes_on(self, there: World) -> None:
        there.mind.replies = [["Well, ", EngineTimeout("the chat API was silent for 30 s")]]
        async with there.talk() as client:
            client.say(Write("one"))
            end = await client.ended()
            assert (end.phase, end.code) == (Phase.FAILED, "engine_timeout")
            client.say(Write("two"))
            assert (await client.ended(2)).phase is Phase.DONE
        assert [one.text for one in there.mind.asked[1].messages] == ["one", "Well, ", "two"]

    async def test_a_question_that_the_model_refuses_spoils_no_later_one(self, there: World) -> None:
        there.mind.replies = [["Yes."], [BadRequest("not that", code="engine_refused")], ["Yes."]]
        async with there.talk() as client:
            client.say(Write("one"), Write("bad"), Write("two"))
            assert (await client.ended(2)).code == "engine_refused"
            await client.ended(3)
        assert [one.text for one in there.mind.asked[2].messages] == ["one", "Yes.", "two"]

    async def test_the_operator_is_told_why_a_turn_failed_but_no_words_of_others(self, there: World) -> None:
        there.mind.replies = [
            [EngineUnavailable("the chat API refuses our key")],
            [EngineBroke("the chat API answered 500: you said secret", quotes=True)],
        ]
        with capture_logs() as logged:
            async with there.talk() as client:
                client.say(Write("one"), Write("two"))
                await client.ended(2)
        told = [(one["code"], one.get("reason")) for one in logged if one["event"] == "turn failed"]
        assert told == [("engine_unavailable", "the chat API refuses our key"), ("engine_broke", None)]

    async def test_of_nothing_are_a_failure(self, there: World) -> None:
        there.mind.replies = [[]]
        async with there.talk() as client:
            client.say(Write("one"))
            assert (await client.ended()).code == "engine_broke"

    async def test_without_end_are_cut_off(self, tmp_path: Path) -> None:
        there = world(tmp_path / "scratch", text_max_chars=100)
        there.mind.replies = [["All work and no play. "] * 1000]
        async with there.talk() as client:
            client.say(Write("one"))
            assert (await client.ended()).code == "reply_too_long"

    async def test_that_break_in_an_unforeseen_way_fail_without_telling_how(
        self, there: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> Any:
            raise KeyError("secret words")

        there.mind.replies = [[broken]]
        async with there.talk() as client:
            client.say(Write("one"))
            end = await client.ended()
            assert (end.code, end.reason) == ("internal", "the gateway failed on this request")
            client.say(Write("two"))
            assert (await client.ended(2)).phase is Phase.DONE


class TestInterruption:
    @pytest.mark.parametrize("item", [Begin(), Cancel()], ids=["begin", "cancel"])
    async def test_ends_the_reply_at_once_and_everywhere(self, there: World, item: Begin | Cancel) -> None:
        there.mouth.late["One"] = asyncio.Event()
        there.mind.replies = [["One. ", "Two. ", asyncio.Event().wait]]
        async with there.talk() as client:
            client.say(Write("?"))
            await client.until(lambda: client.sentences() == [1])
            client.say(item)
            assert (await client.ended()).phase is Phase.CANCELLED
            await quiet(there)
            assert client.sentences() == [1]
            assert there.mouth.left == 1, "the one whose audio came"
            client.say(Write("again"))
            assert (await client.ended(2)).phase is Phase.DONE
        assert [one.text for one in there.mind.asked[1].messages] == ["?", "One. Two. ", "again"]

    async def test_takes_back_what_nobody_has_read_yet(self, there: World) -> None:
        there.mind.replies = [["One. Two. Three."]]
        async with there.talk() as client:
            client.reading.clear()
            await settle()
            client.say(Write("?"))
            await asyncio.sleep(0.05)
            assert there.idle(), "the whole reply is made, and unread"
            client.say(Begin())
            await settle()
            client.reading.set()
            assert (await client.ended()).phase is Phase.CANCELLED
            client.say(Write("again"))
            await client.ended(2)
        assert len(client.sentences()) <= 1, "one event may have been on its way"
        assert [one.text for one in there.mind.asked[1].messages] == ["?\nagain"]

    async def test_while_a_turn_is_recognised_drops_it(self, there: World) -> None:
        there.ear.hold = asyncio.Event()
        async with there.talk() as client:
            client.say(tone(0.5), End())
            await client.until(lambda: client.phases())
            client.say(Begin())
            assert (await client.ended()).phase is Phase.CANCELLED
            await quiet(there)
            there.ear.hold.set()
            client.say(tone(0.5), End())
            assert (await client.ended(2)).phase is Phase.DONE
        assert [one.utterance for one in client.heard()] == [2]

    async def test_drops_what_was_said_before_it_and_keeps_what_follows(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(1))
            await client.until(lambda: there.ear.open)
            client.say(Begin(), tone(0.5), End())
            await client.ended()
            await quiet(there)
        assert there.ear.heard[-1] == tone(0.5)
        assert len(there.mind.asked) == 1

    async def test_a_cancel_leaves_what_is_being_said_alone(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.5), Cancel(), tone(0.5), End())
            assert (await client.ended()).phase is Phase.DONE
        assert len(b"".join(there.ear.heard)) == 2 * RATE

    async def test_something_written_takes_the_place_of_what_was_being_said(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.5), Write("this"), tone(0.3), End())
            await client.ended(2)
        assert there.mind.asked[0].messages[-1].text == "this"
        assert there.ear.heard[-1] == tone(0.3)

    async def test_ends_all_turns_that_wait(self, there: World) -> None:
        there.mind.replies = [[asyncio.Event().wait]]
        async with there.talk() as client:
            client.say(Write("one"), Write("two"), Write("three"))
            await client.until(lambda: client.phases(3) == [Phase.QUEUED])
            client.say(Begin())
            for number in (1, 2, 3):
                assert (await client.ended(number)).phase is Phase.CANCELLED
            await quiet(there)


class TestWaiting:
    async def test_a_busy_cascade_tells_the_place_and_about_how_long(self, tmp_path: Path) -> None:
        there = world(tmp_path / "scratch", converse_slots=1, converse_queue=2)
        go_on = asyncio.Event()
        there.mind.replies = [["One.", go_on.wait]]
        async with there.talk() as first, there.talk() as second, there.talk() as third, there.talk() as fourth:
            for number, client in enumerate((first, second, third)):
                client.say(Write("?"))
                await client.until(lambda client=client: client.phases())
                assert there.cascade.gate.waiting == number
            fourth.say(Write("?"))
            end = await fourth.ended()
            assert (end.phase, end.code) == (Phase.FAILED, "engine_busy")
            go_on.set()
            for client in (first, second, third):
                assert (await client.ended()).phase is Phase.DONE
        assert second.phases() == [Phase.QUEUED, Phase.WORKING, Phase.DONE]
        assert [one.position for one in third.turns()] == [2, 1, 0, 0]
        assert third.turns()[0].seconds == 2 * second.turns()[0].seconds > 0

    async def test_a_turn_gives_its_place_up_before_it_is_heard(self, tmp_path: Path) -> None:
        there = world(tmp_path / "scratch", converse_slots=1, converse_queue=0)
        async with there.talk() as first, there.talk() as second:
            first.reading.clear()
            await settle()
            first.say(Write("one"))
            await asyncio.sleep(0.05)
            second.say(Write("two"))
            assert (await second.ended()).phase is Phase.DONE

    async def test_turns_of_one_conversation_follow_one_another(self, there: World) -> None:
        go_on = asyncio.Event()
        there.mind.replies = [["One.", go_on.wait]]
        async with there.talk() as client:
            client.say(Write("one"), Write("two"))
            await client.until(lambda: client.phases(2) == [Phase.QUEUED])
            assert len(there.mind.asked) == 1
            go_on.set()
            await client.ended(2)
        assert client.events.index(client.turns(1)[-1]) < client.events.index(client.turns(2)[1])

    async def test_too_many_turns_at_once_are_refused(self, there: World) -> None:
        there.mind.replies = [[asyncio.Event().wait]]
        most = cascade_conversation.MOST_WAITING
        async with there.talk() as client:
            client.say(*[Write("x")] * (most + 1))
            assert (await client.ended(most + 1)).code == "engine_busy"
            client.say(Begin())
            for number in range(1, most + 1):
                assert (await client.ended(number)).phase is Phase.CANCELLED


class TestTools:
    TOOLS = ({"type": "function", "function": {"name": "time", "parameters": {}}},)

    async def test_are_called_and_their_results_are_a_turn(self, there: World) -> None:
        there.mind.replies = [["Let me see.", Call("a", "time", "{}"), Call("b", "place", "{}")], ["It is noon."]]
        async with there.talk(tools=self.TOOLS) as client:
            client.say(Write("what time is it"))
            assert (await client.ended()).phase is Phase.DONE
            calls = [event for event in client.events if isinstance(event, ToolCall)]
            assert [(call.turn, call.id, call.name) for call in calls] == [(1, "a", "time"), (1, "b", "place")]
            client.say(ToolResult("a", "12:00"))
            await settle()
            assert not client.turns(2)
            client.say(ToolResult("nobody's", "?"), ToolResult("b", "home"))
            assert (await client.ended(2)).phase is Phase.DONE
            client.say(Write("thanks"))
            await client.ended(3)
        assert there.mind.asked[0].tools == self.TOOLS
        assert [(one.role, one.text, one.call) for one in there.mind.asked[1].messages] == [
            (Role.USER, "what time is it", ""),
            (Role.ASSISTANT, "Let me see.", ""),
            (Role.TOOL, "12:00", "a"),
            (Role.TOOL, "home", "b"),
        ]
        assert client.text(2) == "It is noon."

    async def test_calls_without_words_are_a_reply(self, there: World) -> None:
        there.mind.replies = [[Call("a", "time", "{}")]]
        async with there.talk() as client:
            client.say(Write("?"))
            assert (await client.ended()).phase is Phase.DONE
        assert not there.mouth.jobs

    async def test_nobody_needs_to_answer_them(self, there: World) -> None:
        there.mind.replies = [[Call("a", "time", "{}")]]
        async with there.talk() as client:
            client.say(Write("one"))
            await client.ended()
            client.say(Write("two"), ToolResult("a", "late"))
            assert (await client.ended(2)).phase is Phase.DONE
            await settle()
            assert not client.turns(3)
        assert [one.role for one in there.mind.asked[1].messages] == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.USER]

    async def test_a_reply_cannot_ask_for_them_for_ever(self, there: World) -> None:
        most = cascade_conversation.MOST_ROUNDS
        there.mind.replies = [[Call(str(number), "time", "{}")] for number in range(most + 5)]
        async with there.talk() as client:
            client.say(Write("?"))
            for number in range(1, most + 2):
                assert (await client.ended(number)).phase is Phase.DONE, number
                client.say(ToolResult(str(number - 1), "again"))
            assert (await client.ended(most + 2)).code == "too_many_tools"


class TestTheSession:
    async def test_can_be_taken_up_again(self, there: World) -> None:
        async with there.talk() as client:
            client.say(Write("one"))
            await client.ended()
        told = client.events[0]
        assert isinstance(told, Resumable)
        assert not told.resumed
        async with there.talk(resume=told.token) as client:
            client.say(Write("two"))
            await client.ended()
        assert client.events[0] == Resumable(told.token, True)
        assert [one.text for one in there.mind.asked[1].messages] == ["one", "You said one.", "two"]

    async def test_ends_after_the_turn_that_runs(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.5), End(), tone(0.5))
            client.end()
            await client.until(lambda: client.over)
            assert client.phases() == [Phase.WORKING, Phase.DONE]
        assert client.failed is None
        assert there.idle()

    @pytest.mark.parametrize("moment", ["hearing", "recognition", "reply", "speech", "queue"])
    async def test_leaves_nothing_behind_whenever_it_is_left(self, tmp_path: Path, moment: str) -> None:
        there = world(tmp_path / "scratch", converse_slots=1)
        before = asyncio.all_tasks()
        there.ear.live = moment != "recognition"
        there.mind.replies = [["One. Two."]]
        if moment in ("hearing", "recognition"):
            there.ear.hold = asyncio.Event()
        if moment == "reply":
            there.mind.replies = [[asyncio.Event().wait]]
        if moment == "speech":
            there.mouth.hold["One"] = asyncio.Event()
        async with there.talk() as client:
            if moment == "queue":
                await there.cascade.gate.acquire()
            client.say(tone(0.5))
            if moment != "hearing":
                client.say(End())
            await asyncio.sleep(0.05)
        if moment == "queue":
            there.cascade.gate.release()
        assert there.idle()
        assert asyncio.all_tasks() == before

    async def test_a_failure_of_what_is_said_reaches_the_reader(self, there: World) -> None:
        async def said() -> Any:
            yield Write("one")
            raise EngineBroke("the client's stream broke")

        client = Client()
        async with there.cascade.session(Converse(said())) as events:
            await client.read(events)
        assert isinstance(client.failed, EngineBroke)
        assert there.idle()

    async def test_two_at_once_hear_nothing_of_each_other(self, there: World) -> None:
        async with there.talk() as one, there.talk() as other:
            one.say(Write("alpha"))
            other.say(Write("beta"))
            await one.ended()
            await other.ended()
        assert (one.text(), other.text()) == ("You said alpha.", "You said beta.")
        assert set(one.sentences()).isdisjoint(other.sentences())

    async def test_whatever_is_said_in_whatever_order_each_turn_ends_once(self, tmp_path: Path) -> None:
        for seed in range(30):
            chance = np.random.default_rng(seed)
            there = world(tmp_path / f"scratch-{seed}", converse_slots=2, converse_queue=4)
            there.ear.live = bool(seed % 2)
            there.mind.replies = [["One. ", "Two. ", "Three."]] * 100
            async with there.talk() as client:
                turns = 0
                for _ in range(40):
                    match chance.integers(7):
                        case 0 | 1:
                            client.say(tone(float(chance.uniform(0.02, 0.6))))
                        case 2:
                            client.say(End())
                            turns += 1
                        case 3:
                            client.say(Write("x"))
                            turns += 1
                        case 4:
                            client.say(Begin())
                        case 5:
                            client.say(Cancel())
                        case _:
                            await asyncio.sleep(float(chance.uniform(0, 0.004)))
                client.end()
                await client.until(lambda client=client: client.over)
                for number in range(1, turns + 1):
                    end = await client.ended(number)
                    after = client.events[client.events.index(end) + 1 :]
                    assert not [
                        one for one in after if isinstance(one, ReplyAudio | ReplyText) and one.turn == number
                    ], (seed, number)
            assert there.idle(), seed


class TestHealth:
    @pytest.mark.parametrize(
        ("heard", "spoken", "state", "reason"),
        [
            (EngineHealth(State.READY, "a"), EngineHealth(State.READY, "b"), State.READY, ""),
            (
                EngineHealth(State.LOADING, "a", progress=Progress("model", 50, 100)),
                EngineHealth(State.READY, "b"),
                State.LOADING,
                "recognition: model, 50 % of 0.0 MB",
            ),
            (
                EngineHealth(State.LOADING, "a", reason="warming up"),
                EngineHealth(State.DOWN, reason="no answer within 2 s"),
                State.DOWN,
                "synthesis: no answer within 2 s",
            ),
        ],
    )
    async def test_is_that_of_the_verbs_below(
        self, there: World, heard: EngineHealth, spoken: EngineHealth, state: State, reason: str
    ) -> None:
        there.ear.state, there.mouth.state = heard, spoken
        found = await there.cascade.health()
        assert (found.state, found.reason) == (state, reason)
        if state is State.READY:
            assert found.model == "a + b"
        if heard.progress:
            assert found.progress == heard.progress

    def test_it_hears_pcm_only(self, there: World) -> None:
        assert not Cascade.packed
        assert repr(there.cascade) == "<cascade: <converse: 0/8 running, 0/8 waiting> <memory: 0 held, 0/1000 kept>>"
