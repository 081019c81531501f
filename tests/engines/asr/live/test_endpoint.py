"""Live recognition as its clients meet it: what they may send, what they get in which order, and how it ends."""

import asyncio
import json
import random
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engines.asr.live.conversation import Patience
from engines.asr.live.endpoint import Limits, Live
from gateway.wire import funasr_2pass as wire
from tests.engines.asr.live.talking import Scripted, Serving, Talk, letters, serving, shown

ACK = {"mode": "2pass", "wav_name": "call", "is_final": True, "is_end": True}


async def told(
    pcm: bytes, *, packet: int = 1920, models: Scripted | None = None, **config: Any
) -> list[dict[str, Any]]:
    """The answers to one stream."""
    async with serving(models or Scripted()) as server, server.talking() as talk:
        await talk.begin(**config)
        await talk.say(pcm, packet)
        await talk.end()
        return await talk.rest()


def utterances(deltas: list[dict[str, Any]]) -> list[str]:
    """What a client has that puts deltas together until one is final."""
    found = [""]
    for delta in deltas:
        found[-1] += delta["text"]
        if delta["is_final"]:
            found.append("")
    assert not found[-1]
    return found[:-1]


class TestModes:
    async def test_two_passes(self) -> None:
        answers = await told(letters("ab  cd"))
        assert shown(answers) == [
            ("2pass-online", "a", False),
            ("2pass-online", "b", False),
            ("2pass-offline", "AB", False),
            ("2pass-online", "c", False),
            ("2pass-online", "d", False),
            ("2pass-offline", "CD", True),
        ]
        assert [(answer["start_time"], answer["end_time"]) for answer in answers if "start_time" in answer] == [
            (0, 240),
            (480, 720),
        ]
        assert {answer["wav_name"] for answer in answers} == {"call"}

    async def test_utterances_only(self) -> None:
        models = Scripted()
        answers = await told(letters("ab  cd"), models=models, mode="offline")
        assert shown(answers) == [("offline", "AB", False), ("offline", "CD", True)]

    async def test_deltas_only(self) -> None:
        models = Scripted()
        answers = await told(letters("ab  cd"), models=models, mode="online")
        assert utterances(answers) == ["ab", "cd"]
        assert {answer["mode"] for answer in answers} == {"online"}
        assert not models.asked, "no second pass"

    async def test_the_last_delta_of_an_utterance_is_final(self) -> None:
        answers = await told(letters("abcd "), packet=10**6, mode="online")
        assert shown(answers)[-2:] == [("online", "c", False), ("online", "d", True)]

    async def test_without_text_where_there_is_no_more(self) -> None:
        async with serving(Scripted()) as server, server.talking() as talk:
            await talk.begin(mode="online")
            await talk.say(letters("a"))
            assert (await talk.hear())["is_final"] is False
            await talk.say(letters(" "))
            assert shown([await talk.hear()]) == [("online", "", True)]


class TestWithoutASecondPass:
    """An engine with the streaming recogniser alone: what it wrote is what there is."""

    async def test_two_passes(self) -> None:
        models = Scripted(second_pass=False)
        assert shown(await told(letters("ab cd"), models=models)) == [
            ("2pass-online", "a", False),
            ("2pass-online", "b", False),
            ("2pass-offline", "ab", False),
            ("2pass-online", "c", False),
            ("2pass-online", "d", False),
            ("2pass-offline", "cd", True),
        ]

    async def test_utterances_only(self) -> None:
        models = Scripted(second_pass=False)
        answers = await told(letters("ab cd"), models=models, mode="offline")
        assert shown(answers) == [("offline", "ab", False), ("offline", "cd", True)]


class TestEnds:
    async def test_silence_has_an_ack_and_nothing_else(self) -> None:
        assert await told(letters("    ")) == []

    async def test_so_has_nothing_at_all(self) -> None:
        assert await told(b"") == []

    async def test_the_ack(self) -> None:
        async with serving(Scripted()) as server, server.talking() as talk:
            await talk.begin()
            await talk.end()
            assert await talk.hear() == ACK

    @pytest.mark.parametrize(
        ("said", "last"),
        [
            ("ab", ("2pass-offline", "AB", True)),
            ("ab  ", ("2pass-offline", "", True)),
            ("  ", ("2pass-offline", "", True)),
        ],
    )
    async def test_who_wants_no_ack_is_told_what_is_final(self, said: str, last: tuple[str, str, bool]) -> None:
        async with serving(Scripted(), Limits(patience=Patience(linger=0.05))) as server, server.talking() as talk:
            await talk.begin()
            await talk.say(letters(said))
            await talk.end(ack=False)
            answers = [json.loads(frame) async for frame in talk.socket]
        assert shown(answers)[-1] == last
        assert sum(answer["is_final"] for answer in answers) == 1
        assert talk.socket.close_code == wire.DONE

    async def test_audio_below_one_call_is_heard_at_the_end(self) -> None:
        assert shown(await told(letters("a")[:3000])) == [("2pass-online", "a", False), ("2pass-offline", "A", True)]

    async def test_the_connection_is_closed_after_a_while(self) -> None:
        async with serving(Scripted(), Limits(patience=Patience(linger=0.05))) as server, server.talking() as talk:
            await talk.begin()
            await talk.end()
            assert await talk.closed() == wire.DONE

    async def test_until_then_another_stream_is_a_new_one(self) -> None:
        models = Scripted()
        async with serving(models) as server, server.talking() as talk:
            for said in ("ab", "cd"):
                await talk.begin(wav_name=said)
                await talk.say(letters(said))
                await talk.end()
                answers = await talk.rest()
                assert shown(answers)[-1] == ("2pass-offline", said.upper(), True)
                assert answers[-1]["start_time"] == 0
                assert {answer["wav_name"] for answer in answers} == {said}
        assert len(models.streams) == 2

    async def test_a_client_that_does_not_wait_for_the_first_one_loses_nothing(self) -> None:
        models = Scripted(answering=asyncio.Event())
        async with serving(models) as server, server.talking() as talk:
            for said in ("ab", "cd"):
                await talk.begin()
                await talk.say(letters(said))
                await talk.end()
            assert models.answering is not None
            models.answering.set()
            assert [answer["text"] for answer in await talk.rest()] == ["a", "b", "AB"]
            assert [answer["text"] for answer in await talk.rest()] == ["c", "d", "CD"]


class TestFrames:
    async def test_audio_before_any_config_is_heard(self) -> None:
        async with serving(Scripted()) as server, server.talking() as talk:
            await talk.say(letters("ab"))
            await talk.end()
            assert [answer["text"] for answer in await talk.rest()] == ["a", "b", "AB"]

    @pytest.mark.parametrize("packet", [1, 17, 1920, 7777, 10**6])
    async def test_audio_may_be_cut_anywhere(self, packet: int) -> None:
        said = letters("abc def" if packet > 1 else "ab")
        answers = await told(said, packet=packet)
        assert "".join(a["text"] for a in answers if a["mode"] == "2pass-online") == ("abcdef" if packet > 1 else "ab")

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    async def test_audio_of_any_rate(self, rate: int) -> None:
        answers = await told(letters("aabbcc", rate), audio_fs=rate)
        assert shown(answers)[-1] == ("2pass-offline", "AABBCC", True)

    async def test_what_is_asked_reaches_the_models(self) -> None:
        models = Scripted()
        words = '{"阿里巴巴": 20}'
        await told(letters("a"), models=models, hotwords=words, itn=False, chunk_size=[8, 8, 4], svs_lang="zh")
        assert models.streams[0].chunk == (8, 8, 4)
        assert (models.asked[0].hotwords, models.asked[0].itn, models.asked[0].language) == (("阿里巴巴",), False, "zh")

    async def test_hotwords_may_change_in_the_middle(self) -> None:
        models = Scripted()
        async with serving(models) as server, server.talking() as talk:
            await talk.begin(hotwords="one")
            await talk.say(letters("a "))
            await talk.begin(hotwords="two", mode="online")
            await talk.say(letters("b"))
            await talk.end()
            assert [answer["text"] for answer in await talk.rest()] == ["a", "A", "b", "B"]
        assert [asked.hotwords for asked in models.asked] == [("one",), ("two",)]
        assert len(models.streams) == 1

    @pytest.mark.parametrize(
        ("frame", "says"),
        [
            ("{", "JSON"),
            ('{"mode": "3pass"}', "mode must be"),
            ('{"wav_format": "mp3"}', "wav_format must be pcm"),
            ('{"audio_fs": 4000}', "audio_fs must be"),
            ('{"svs_lang": "xx"}', "cannot recognise xx"),
            ("x" * 600_000, "at most"),
        ],
    )
    async def test_what_cannot_be_read_is_said_to_be(self, frame: str, says: str) -> None:
        async with serving(Scripted()) as server, server.talking() as talk:
            await talk.socket.send(frame)
            assert says in (await talk.hear())["error"]
            assert await talk.closed() == wire.UNREADABLE
            await server.idle()

    async def test_what_was_said_before_is_answered_before(self) -> None:
        async with serving(Scripted()) as server, server.talking() as talk:
            await talk.begin()
            await talk.say(letters("a "))
            await talk.socket.send("{")
            answers = [await talk.hear() for _ in range(3)]
        assert [answer.get("text") or answer.get("error", "")[:12] for answer in answers] == ["a", "A", "a text frame"]

    async def test_the_subprotocol_is_taken_where_it_is_offered(self) -> None:
        async with serving(Scripted()) as server:
            async with server.talking() as talk:
                assert talk.socket.subprotocol == "binary"
                assert talk.socket.response is not None
                assert talk.socket.response.headers[wire.FEATURES] == "resample, ack"
            async with server.talking(subprotocols=None) as talk:
                assert talk.socket.subprotocol is None


class TestOrder:
    async def test_deltas_wait_for_the_second_pass_before_them_and_hearing_does_not(self) -> None:
        models = Scripted(answering=asyncio.Event())
        async with serving(models) as server, server.talking() as talk:
            await talk.begin()
            await talk.say(letters("a b c "))
            async with asyncio.timeout(5):
                while models.working < 3:
                    await asyncio.sleep(0.005)
            assert (await talk.hear())["text"] == "a"
            assert models.answering is not None
            models.answering.set()
            await talk.end()
            assert [answer["text"] for answer in await talk.rest()] == ["A", "b", "B", "c", "C"]

    async def test_connections_never_mix(self) -> None:
        said = ["abc def", "ghi jkl", "mno pqr", "stu vwx"]

        async def one(server: Serving, text: str) -> list[str]:
            async with server.talking() as talk:
                await talk.begin(wav_name=text)
                for at in range(0, len(letters(text)), 1920):
                    await talk.say(letters(text)[at : at + 1920])
                    await asyncio.sleep(0)
                await talk.end()
                answers = await talk.rest()
                assert {answer["wav_name"] for answer in answers} == {text}
                return [answer["text"] for answer in answers if answer["mode"] == "2pass-offline"]

        async with serving(Scripted()) as server:
            found = await asyncio.gather(*(one(server, text) for text in said * 4))
        assert found == [text.upper().split() for text in said * 4]


class TestFailures:
    async def test_a_stream_that_breaks(self) -> None:
        async with serving(Scripted(fails_at="b")) as server, server.talking() as talk:
            await talk.begin()
            await talk.say(letters("a"))
            assert (await talk.hear())["text"] == "a"
            await talk.say(letters("b"))
            assert "worker died" in (await talk.hear())["error"]
            assert await talk.closed() == wire.ENGINE_FAILED
            await server.idle()

    async def test_a_second_pass_that_breaks(self) -> None:
        async with serving(Scripted(fails_at="B")) as server, server.talking() as talk:
            await talk.begin()
            await talk.say(letters("a b c"))
            answers = [await talk.hear() for _ in range(4)]
            assert [answer.get("text") for answer in answers] == ["a", "A", "b", None]
            assert "worker died" in answers[-1]["error"]
            assert await talk.closed() == wire.ENGINE_FAILED
            await server.idle()

    async def test_others_go_on(self) -> None:
        async with serving(Scripted(fails_at="b")) as server, server.talking() as one, server.talking() as other:
            await other.begin()
            await other.say(letters("a"))
            await one.begin()
            await one.say(letters("b"))
            assert await one.closed() == wire.ENGINE_FAILED
            await other.say(letters("c"))
            await other.end()
            assert [answer["text"] for answer in await other.rest()] == ["a", "c", "AC"]

    async def test_models_that_are_not_there_refuse_the_handshake(self) -> None:
        async with serving(Scripted(why_not="the live recognition model is being loaded")) as server:
            with pytest.raises(InvalidStatus) as caught:
                async with server.talking():
                    pass
        response = caught.value.response
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert b"is being loaded" in (response.body or b"")

    async def test_models_that_are_gone_by_then(self) -> None:
        models = Scripted()
        async with serving(models) as server, server.talking() as talk:
            models.why_not = "a recognition worker died"
            await talk.begin()
            assert (await talk.hear())["error"] == "a recognition worker died; try again later"
            assert await talk.closed() == wire.TOO_SLOW

    async def test_one_connection_too_many_is_refused(self) -> None:
        async with serving(Scripted(), Limits(connections=2)) as server:
            async with server.talking(), server.talking():
                with pytest.raises(InvalidStatus, match="503"):
                    async with server.talking():
                        pass
            await server.idle()
            async with server.talking():
                pass

    async def test_a_client_that_says_nothing(self) -> None:
        async with serving(Scripted(), Limits(patience=Patience(idle=0.05))) as server, server.talking() as talk:
            assert "nothing has come" in (await talk.hear())["error"]
            assert await talk.closed() == wire.IDLE

    async def test_models_that_fall_behind(self) -> None:
        models = Scripted(hearing=asyncio.Event())
        async with serving(models, Limits(behind=0.2)) as server, server.talking() as talk:
            await talk.begin()
            await talk.say(letters("abcdef"))
            await asyncio.sleep(0.3)
            assert models.hearing is not None
            models.hearing.set()
            while "error" not in (answer := await talk.hear()):
                pass
            assert "behind" in answer["error"]
            assert await talk.closed() == wire.TOO_SLOW


class TestBounds:
    async def test_a_client_that_sends_too_fast_is_slowed_down(self) -> None:
        models = Scripted(hearing=asyncio.Event())
        async with serving(models, Limits(behind=0.5)) as server, server.talking() as talk:
            await talk.begin()
            sending = asyncio.ensure_future(talk.say(bytes(64 * 1024 * 1024), 64 * 1024))
            assert "behind" in (await talk.hear())["error"]
            assert not sending.done(), "it is more than buffers hold"
            sending.cancel()
            talk.socket.transport.abort()
            await server.idle(models)

    async def test_audio_of_minutes_at_once_is_no_lag(self) -> None:
        answers = await told(letters("abcdefghij" * 100 + " "), packet=10**6)
        assert answers[-1]["text"] == ("abcdefghij" * 100).upper()

    async def test_a_client_that_reads_nothing_is_given_up(self) -> None:
        """By hand: the buffers of a real connection hold hours of answers."""
        frames = [{"type": "websocket.connect"}, {"type": "websocket.receive", "bytes": letters("abc ")}]

        async def receive() -> dict[str, Any]:
            return frames.pop(0) if frames else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: Any) -> None:
            if message["type"] == "websocket.send":
                await asyncio.Event().wait()

        models = Scripted()
        live = Live(models, Limits(unread=0.05))
        async with asyncio.timeout(5):
            await live({"type": "websocket", "path": "/", "headers": [], "subprotocols": []}, receive, send)
        assert (live.open, models.open, models.working) == (0, 0, 0)

    @pytest.mark.parametrize("when", ["before", "in the middle", "second pass"])
    async def test_a_hang_up_frees_everything_at_once(self, when: str) -> None:
        models = Scripted(answering=asyncio.Event())
        async with serving(models) as server:
            async with server.talking() as talk:
                if when != "before":
                    await talk.begin()
                    await talk.say(letters("ab" if when == "in the middle" else "ab "))
                    assert (await talk.hear())["text"] == "a"
                talk.socket.transport.abort()
            await server.idle(models)

    async def test_a_hundred_of_them_leave_nothing(self) -> None:
        models = Scripted()

        async def one(server: Serving) -> None:
            async with server.talking() as talk:
                await talk.begin()
                await talk.say(letters("ab c"))
                await talk.hear()
                talk.socket.transport.abort()
            await server.idle(models)

        async with serving(models) as server:
            await one(server)
            before = len(asyncio.all_tasks())
            for _ in range(100):
                await one(server)
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) <= before


async def test_frames_without_any_sense_break_nothing(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(0)
    config = json.loads(wire.config(wire.Config(hotwords=("word",), language="zh")))
    values = [None, True, False, 0, -1, 16_000, 10**30, "", "2pass", "offline", "online", [5, 10, 5], {}, {"a": 1}]

    def frame() -> str | bytes:
        match chance.randrange(4):
            case 0:
                return chance.randbytes(chance.randrange(5000))
            case 1:
                return letters("".join(chance.choices("abc ", k=9)))
            case 2:
                return json.dumps({"is_speaking": chance.random() < 0.5, "is_end": chance.random() < 0.5})
        return json.dumps(config | {chance.choice(list(config)): chance.choice(values)})

    async with serving(Scripted()) as server:
        for _ in range(50):
            async with server.talking() as talk:
                with suppress(ConnectionClosed):
                    for _ in range(chance.randrange(20)):
                        await talk.socket.send(frame())
                talk.socket.transport.abort()
        await server.idle()
    assert "a stream failed" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_nobody_hears_what_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving(Scripted(fails_at="q")) as server, server.talking() as talk:
        await talk.begin(hotwords="secret", wav_name="private")
        await talk.say(letters("ab cdq"))
        await talk.closed()
    assert not {"secret", "private", "AB"} & set(caplog.text.split())


def test_the_helpers_read_what_they_write() -> None:
    import numpy as np

    from tests.engines.asr.live.talking import read

    samples = np.frombuffer(letters("abz q"), "<i2").astype(np.float32) / 32768
    assert read(samples) == "abz q"


_ = Talk
