"""Synthesis on NLS sockets as FunSpeech's and Alibaba's clients use it: over real sockets, judged by ear."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gateway.caller import Right
from gateway.errors import EngineBroke, EngineBusy
from gateway.sentences import Sentences
from gateway.surfaces import nls_synthesis
from gateway.wire import nls
from gateway.wire import nls_tts as wire
from tests.conftest import Gateway, register, running
from tests.keyring import issue
from tests.sound import cents, decoded, hertz, samples
from tests.surfaces.mouth import Mouth, speaks
from tests.surfaces.nls_client import NlsClient
from tests.surfaces.talkers import dial

pytestmark = pytest.mark.asyncio(loop_scope="module")
RATE = 16000
TEXT = "床前明月光，疑是地上霜。举头望明月，低头思故乡！What is it, Dr. Smith? It is 3.5% of $20."


@asynccontextmanager
async def line(gateway: Gateway, namespace: str = nls.FLOWING, path: str = "/ws/v1/tts") -> AsyncIterator[NlsClient]:
    async with dial(gateway, path) as socket:
        yield NlsClient(socket, namespace)


async def flows(client: NlsClient, pieces: list[str], **start: Any) -> NlsClient:
    """One whole task, its text in pieces."""
    await client.send("StartSynthesis", {"sample_rate": RATE} | start)
    await client.until("SynthesisStarted")
    for piece in pieces:
        await client.send("RunSynthesis", {"text": piece})
    await client.send("StopSynthesis")
    await client.until("SynthesisCompleted")
    return client


async def flowed(gateway: Gateway, *pieces: str, **start: Any) -> NlsClient:
    async with line(gateway) as client:
        return await flows(client, list(pieces), **start)


def subtitles(client: NlsClient, name: str) -> list[dict[str, Any]]:
    return [one for event in client.events if event["header"]["name"] == name for one in event["payload"]["subtitles"]]


class TestFlowing:
    async def test_its_events_come_in_the_order_that_clients_know(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        client = await flowed(gateway, "你好，世界。", "再见。")
        sentence = r"SentenceBegin( audio SentenceSynthesis)+ SentenceEnd"
        order = " ".join(client.order)
        assert __import__("re").fullmatch(f"SynthesisStarted {sentence} {sentence} SynthesisCompleted", order), order
        assert {event["header"]["task_id"] for event in client.events} == {client.task_id}
        assert {event["header"]["namespace"] for event in client.events} == {"FlowingSpeechSynthesizer"}
        begun = [event["payload"] for event in client.events if event["header"]["name"] == "SentenceBegin"]
        assert [one["index"] for one in begun] == [1, 2]
        assert len({one["session_id"] for one in begun}) == 1

    @pytest.mark.parametrize("size", [1, 3, 1000])
    async def test_fragments_are_joined_into_the_sentences_of_the_whole_text(self, gateway: Gateway, size: int) -> None:
        """W12: each fragment was an utterance of its own."""
        mouth = await speaks(gateway, Mouth(character=0.005))
        whole = Sentences()
        expected = whole.feed(TEXT) + whole.end()
        client = await flowed(gateway, *(TEXT[at : at + size] for at in range(0, len(TEXT), size)))
        assert mouth.texts == expected == [one["text"] for one in subtitles(client, "SentenceEnd")]

    async def test_the_first_sentence_is_heard_while_the_text_still_comes(self, gateway: Gateway) -> None:
        """W12: nothing was read while something was spoken."""
        mouth = await speaks(gateway, Mouth(stuck=asyncio.Event()))
        async with line(gateway) as client:
            await client.send("StartSynthesis", {})
            await client.send("RunSynthesis", {"text": "第一句话在这里。第二"})
            await client.until("SentenceSynthesis")
            await client.send("RunSynthesis", {"text": "句。"})
            await client.send("StopSynthesis")
            await client.send("RunSynthesis", {"text": "more"})
            assert await client.refused() == "Connection already stopped", "it is read at once"
            assert mouth.stuck is not None
            mouth.stuck.set()
            await client.until("SynthesisCompleted")
        assert mouth.texts == ["第一句话在这里。", "第二句。"]

    async def test_a_text_that_rests_is_spoken_as_far_as_it_goes(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Clients that wait for each fragment's SentenceEnd before the next one."""
        monkeypatch.setattr(nls_synthesis, "REST", 0.05)
        mouth = await speaks(gateway, Mouth(character=0.005))
        async with line(gateway) as client:
            await client.send("StartSynthesis", {})
            for fragment in ("没有标点", "no end of it", "完"):
                await client.send("RunSynthesis", {"text": fragment})
                await client.until("SentenceEnd")
            await client.send("StopSynthesis")
            await client.until("SynthesisCompleted")
        assert mouth.texts == ["没有标点", "no end of it", "完"]

    async def test_a_task_in_which_nothing_is_said_completes(self, gateway: Gateway) -> None:
        client = await flowed(gateway)
        assert client.order == ["SynthesisStarted", "SynthesisCompleted"]

    async def test_what_cannot_be_said_is_passed_over(self, gateway: Gateway) -> None:
        """W11: a fragment of emoji failed the task."""
        mouth = await speaks(gateway, Mouth(character=0.005))
        client = await flowed(gateway, "🙂", "。", " ", "你好。", "🎉🎉", "<br/>")
        assert mouth.texts == ["你好。"]
        assert "TaskFailed" not in client.order

    async def test_signs_are_kept_and_tags_are_not(self, gateway: Gateway) -> None:
        """W11: the cleaner deleted %, $, ￥, /, ℃, ~, quotes, and read tags aloud."""
        mouth = await speaks(gateway, Mouth(character=0.005))
        await flowed(gateway, "don't pay 50% or $5/day，￥3，温度-5℃~10℃“好”。", "<strong>重", "点</str", "ong>来了。")
        assert mouth.texts == ["don't pay 50% or $5/day，￥3，温度-5℃~10℃“好”。", "重点来了。"]

    async def test_several_tasks_follow_one_another_on_one_connection(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth(character=0.01))
        async with line(gateway, path="/ws/v1") as client:
            for number in range(3):
                client.forget()
                client.task_id = f"task-{number}"
                await flows(client, ["你好。"])
                assert len(client.audio) == 2 * RATE * 3 // 100


class TestSubtitles:
    async def test_tell_the_times_of_the_sound_that_was_sent(self, gateway: Gateway) -> None:
        """W12: times were invented, 200 ms a character."""
        await speaks(gateway, Mouth(hertz=lambda text: 300.0 if "一" in text else 700.0))
        client = await flowed(gateway, "第一句话在这里。", "第二句。", pitch_rate=-100, sample_rate=8000)
        first, second = subtitles(client, "SentenceEnd")
        assert (first["text"], first["begin_time"], first["end_time"]) == ("第一句话在这里。", 0, 400)
        assert (second["begin_time"], second["end_time"]) == (400, 600)
        assert (first["begin_index"], first["end_index"], first["sentence"], first["phoneme_list"]) == (0, 8, True, [])
        sound, pitch = samples(bytes(client.audio)), 2 ** (-100 / 500)
        assert len(sound) == 8 * 600
        assert hertz(sound[: 8 * 400], 8000) == pytest.approx(300 * pitch, rel=0.01)
        assert hertz(sound[8 * 400 :], 8000) == pytest.approx(700 * pitch, rel=0.01)

    async def test_grow_with_the_sound(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        client = await flowed(gateway, "第一句话在这里。", "第二句。")
        ends = [one["end_time"] for one in subtitles(client, "SentenceSynthesis")]
        assert ends[:4] == [100, 200, 300, 400]
        assert ends == sorted(ends)
        assert max(ends) == 600

    async def test_of_words_are_inside_their_sentence_and_come_where_they_are_asked_for(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        assert len(subtitles(await flowed(gateway, "你好world。"), "SentenceEnd")) == 1
        client = await flowed(gateway, "前。", "你好，brave world 2.5。", enable_subtitle=True)
        _, _, whole, *words = subtitles(client, "SentenceEnd")
        assert [one["text"] for one in words] == ["你", "好", "brave", "world", "2.5"]
        assert [whole["text"][one["begin_index"] : one["end_index"]] for one in words] == [one["text"] for one in words]
        times = [time for one in words for time in (one["begin_time"], one["end_time"])]
        assert times == sorted(times)
        assert (times[0], times[-1]) == (whole["begin_time"], whole["end_time"])
        assert not any(one["sentence"] for one in words)


class TestSound:
    @pytest.mark.parametrize("rate", wire.RATES)
    async def test_has_the_rate_that_was_asked_for(self, gateway: Gateway, rate: int) -> None:
        """W1: audio of another rate was given under the name of the one asked for."""
        mouth = await speaks(gateway, Mouth())
        client = await flowed(gateway, "二十个字符的一句话，用来听音高是不是对。", sample_rate=rate)
        sound = samples(bytes(client.audio))
        assert len(sound) / rate == pytest.approx(mouth.seconds(mouth.texts[0]), abs=1 / rate)
        assert cents(hertz(sound, rate), 440) < 1

    async def test_comes_in_messages_that_any_client_takes(self, gateway: Gateway) -> None:
        """Many take no more than 1 MiB, and engines may give a minute at once."""
        await speaks(gateway, Mouth(piece=60.0, character=1.0))
        async with line(gateway, nls.SYNTHESIZER) as client:
            await client.send("StartSynthesis", {"text": "a" * 30, "sample_rate": 24000})
            sizes = []
            while isinstance(message := await client.next(), bytes):
                sizes.append(len(message))
        assert sum(sizes) == 2 * 24000 * 30
        assert max(sizes) == 64 * 1024

    @pytest.mark.parametrize("rate", ["24000", 24000.0, None, ""])
    async def test_has_it_also_where_the_number_is_written_otherwise(self, gateway: Gateway, rate: Any) -> None:
        await speaks(gateway, Mouth())
        client = await flowed(gateway, "你好。", sample_rate=rate)
        assert len(client.audio) // 2 == round(0.15 * (24000 if rate else 22050))

    @pytest.mark.parametrize(
        ("volume", "gain"), [(0, 0), (25, 0.5), (50, 1), (75, 1.5), ("100", 2), (None, 1), (900, 2)]
    )
    async def test_is_as_loud_as_it_was_asked_for(self, gateway: Gateway, volume: Any, gain: float) -> None:
        """W12: volume was ignored."""
        await speaks(gateway, Mouth(loudness=0.3))
        client = await flowed(gateway, "你好。", volume=volume, sample_rate=24000)
        assert np.abs(samples(bytes(client.audio))).max() == pytest.approx(0.3 * gain, abs=0.001)

    async def test_knows_alibabas_other_spelling(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth(loudness=0.3))
        client = await flowed(gateway, "你好。", volumn=25)
        assert np.abs(samples(bytes(client.audio))).max() == pytest.approx(0.15, abs=0.01)

    @pytest.mark.parametrize("rate", [-500, -250, 100, 500, 501])
    async def test_is_as_high_as_it_was_asked_for_and_as_long_as_it_was(self, gateway: Gateway, rate: int) -> None:
        """W12: pitch_rate was ignored."""
        await speaks(gateway, Mouth())
        client = await flowed(gateway, "二十个字符的一句话，用来听音高是不是对。", pitch_rate=rate)
        sound = samples(bytes(client.audio))
        assert len(sound) == RATE
        asked = 440 * 2 ** (min(rate, 500) / 500)
        assert cents(hertz(sound[RATE // 4 : -RATE // 4], RATE), asked) < 3

    @pytest.mark.parametrize(("rate", "speed"), [(-500, 0.5), (-100, 0.8), (0, 1), (250, 1.5), (500, 2), (9000, 2)])
    async def test_is_as_fast_as_it_was_asked_for(self, gateway: Gateway, rate: int, speed: float) -> None:
        mouth = await speaks(gateway, Mouth())
        client = await flowed(gateway, "你好，世界。", speech_rate=rate)
        assert mouth.asked[0].speed == speed
        assert len(client.audio) // 2 == pytest.approx(RATE * 0.3 / speed, abs=1)

    @pytest.mark.parametrize("name", ["wav", "WAV", "mp3", "opus", "aac", "m4a", "flac", "ogg"])
    async def test_of_any_format_is_one_stream(self, gateway: Gateway, name: str) -> None:
        """W12: all but PCM was a WAV file in every message."""
        await speaks(gateway, Mouth(character=0.1))
        client = await flowed(gateway, "第一句话在这里。", "第二句。", format=name, sample_rate=24000)
        sound = decoded(bytes(client.audio), 24000)
        assert len(sound) / 24000 == pytest.approx(1.2, abs=0.1)
        assert cents(hertz(sound[2400:-4800], 24000), 440) < 2
        assert bytes(client.audio).count(b"RIFF") == (1 if name.lower() == "wav" else 0)

    async def test_is_of_the_voice_that_was_named(self, gateway: Gateway) -> None:
        own = await register(gateway, gateway.settings.nls_device, "小明")
        other = await register(gateway, "another-device", "Ann")
        mouth = await speaks(gateway, Mouth(character=0.01))
        for voice in ("", None, "default", "中文男", "小明", own):
            await flowed(gateway, "好。", voice=voice, prompt="开心一点")
        digests = [getattr(job.voice, "digest", getattr(job.voice, "name", "")) for job in mouth.asked]
        assert digests[:4] == ["中文女", "中文女", "中文女", "中文男"]
        assert digests[4] == digests[5]
        assert [job.instruction for job in mouth.asked] == ["", "", "", "", "开心一点", "开心一点"], (
            "of registered voices"
        )
        await flowed(gateway, "好。", voice="Ann", device_id="another-device")
        async with line(gateway) as client:
            for voice in ("nobody", other, "Ann"):
                await client.send("StartSynthesis", {"voice": voice})
                assert "no such voice" in await client.refused()
                assert client.events[-1]["header"]["status"] == 40000003


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            ({"format": "speex"}, "this format cannot be written"),
            ({"format": "tape"}, "this format is unknown"),
            ({"format": 3}, "format is not a text"),
            ({"sample_rate": 12345}, "sample_rate is not one of"),
            ({"sample_rate": "fast"}, "sample_rate is not a number"),
            ({"volume": []}, "volume is not a number"),
            ({"voice": "x" * 201}, "voice has more than 200"),
            ({"prompt": "x" * 501}, "prompt has more than 500"),
            ({"enable_subtitle": "maybe"}, "enable_subtitle is neither"),
        ],
    )
    async def test_parameters_are_refused_and_may_be_mended(
        self, gateway: Gateway, payload: dict[str, Any], reason: str
    ) -> None:
        async with line(gateway) as client:
            await client.send("StartSynthesis", payload)
            assert reason in await client.refused()
            await speaks(gateway, Mouth(character=0.01))
            await flows(client, ["好。"])

    async def test_the_longest_parameters_are_taken(self, gateway: Gateway) -> None:
        client = await flowed(gateway, voice=" " * 197 + "中文女", prompt="x" * 500)
        assert client.order[-1] == "SynthesisCompleted"

    async def test_too_much_text_at_once_is_refused_and_what_came_before_is_spoken(self, gateway: Gateway) -> None:
        most = gateway.settings.text_max_chars
        mouth = await speaks(gateway, Mouth(stuck=asyncio.Event(), character=0.001))
        async with line(gateway) as client:
            await client.send("StartSynthesis", {})
            await client.until("SynthesisStarted")
            await client.send("RunSynthesis", {"text": "a" * most})
            await client.send("RunSynthesis", {"text": "b" * (most + 1)})
            assert "characters wait" in await client.refused()
            assert mouth.stuck is not None
            mouth.stuck.set()
            await client.send("StopSynthesis")
            await client.until("SynthesisCompleted")
        assert "".join(mouth.texts) == "a" * most

    @pytest.mark.parametrize("text", ["", None])
    async def test_a_piece_without_text_is_refused(self, gateway: Gateway, text: Any) -> None:
        async with line(gateway) as client:
            await client.send("StartSynthesis", {})
            await client.until("SynthesisStarted")
            await client.send("RunSynthesis", {"text": text})
            assert await client.refused() == "Missing text in RunSynthesis"
            await client.send("StopSynthesis")
            await client.until("SynthesisCompleted")

    async def test_an_engine_that_dies_fails_the_task_behind_what_was_heard(self, gateway: Gateway) -> None:
        mouth = await speaks(gateway, Mouth(fails=EngineBroke("it died")))
        async with line(gateway) as client:
            await client.send("StartSynthesis", {"sample_rate": RATE})
            await client.send("RunSynthesis", {"text": "第一句话。This will fail. "})
            assert await client.refused() == "it died"
            assert client.events[-1]["header"]["status"] == 50000000
            assert client.order.count("SentenceEnd") == 1
            assert len(client.audio) >= 2 * RATE // 4
            client.forget()
            await flows(client, ["好。"])
        assert mouth.open == 0

    async def test_an_engine_that_is_full_says_so(self, gateway: Gateway) -> None:
        """W18: 40000005 was never sent."""
        await speaks(gateway, Mouth(refuses=EngineBusy("full")))
        async with line(gateway) as client:
            await client.send("StartSynthesis", {})
            await client.send("RunSynthesis", {"text": "好。"})
            await client.refused()
            assert client.events[-1]["header"]["status"] == 40000005


class TestWhole:
    """SpeechSynthesizer: all of the text with its start."""

    @pytest.mark.parametrize("namespace", [nls.SYNTHESIZER, nls.LONG_SYNTHESIZER])
    async def test_is_audio_and_an_end(self, gateway: Gateway, namespace: str) -> None:
        mouth = await speaks(gateway, Mouth())
        async with line(gateway, namespace, "/ws/v1") as client:
            await client.send("StartSynthesis", {"text": "第一句。<b>第二句。</b>", "volume": 100})
            done = await client.until("SynthesisCompleted")
        assert set(client.order) == {"audio", "SynthesisCompleted"}
        assert done["header"]["namespace"] == namespace
        assert len(client.audio) == 2 * 16000 * 4 // 10
        assert mouth.texts == ["第一句。", "第二句。"]

    async def test_tells_its_subtitles_where_they_are_asked_for(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        async with line(gateway, nls.SYNTHESIZER, "/ws/v1") as client:
            await client.send("StartSynthesis", {"text": "第一句。第二句。", "enable_subtitle": True})
            await client.until("SynthesisCompleted")
        whole = [one for one in subtitles(client, "MetaInfo") if one["sentence"]]
        assert [(one["begin_time"], one["end_time"]) for one in whole] == [(0, 200), (200, 400)]
        assert len(subtitles(client, "MetaInfo")) == 8

    @pytest.mark.parametrize("text", ["", None, "🙂", "<p></p>", "。。"])
    async def test_of_nothing_is_refused(self, gateway: Gateway, text: Any) -> None:
        async with line(gateway, nls.SYNTHESIZER, "/ws/v1") as client:
            await client.send("StartSynthesis", {"text": text})
            assert await client.refused() == "there is nothing to say in this text"

    async def test_has_a_longest_text(self, gateway: Gateway) -> None:
        most = gateway.settings.text_max_chars
        await speaks(gateway, Mouth(character=0.0005))
        async with line(gateway, nls.SYNTHESIZER, "/ws/v1") as client:
            await client.send("StartSynthesis", {"text": "a" * (most + 1)})
            assert f"the limit is {most}" in await client.refused()
            await client.send("StartSynthesis", {"text": "a" * most})
            await client.until("SynthesisCompleted")

    async def test_takes_no_command_and_no_audio(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth(stuck=asyncio.Event()))
        async with line(gateway, nls.SYNTHESIZER, "/ws/v1") as client:
            await client.send("StartSynthesis", {"text": "第一句话。"})
            await client.next()
            await client.send("StopSynthesis")
            assert await client.refused() == "Invalid message name: StopSynthesis"
            await client.socket.send(b"\0\0")
            assert await client.refused() == "this task takes no audio"


class TestLeaving:
    @pytest.mark.parametrize("namespace", [nls.FLOWING, nls.SYNTHESIZER])
    async def test_in_the_middle_cancels_the_engine(self, gateway: Gateway, namespace: str) -> None:
        mouth = await speaks(gateway, Mouth(stuck=asyncio.Event()))
        async with line(gateway, namespace) as client:
            await client.send("StartSynthesis", {"text": "第一句话。第二句话。"})
            await client.send("RunSynthesis", {"text": "第一句话。第二句话。"})
            while "audio" not in client.order:
                await client.next()
            assert mouth.open == 2
            client.socket.transport.abort()
            await gateway.idle(5)
        assert mouth.open == 0


async def test_users_who_speak_in_the_same_second_get_their_own_audio(gateway: Gateway) -> None:
    """W2: two requests of one second shared a file."""
    mouth = await speaks(gateway, Mouth(hertz=lambda text: 300.0 + 40 * int(text[:-1])), slots=4, queue=64)

    async def one(number: int) -> None:
        client = await flowed(gateway, f"{number:020}。")
        assert cents(hertz(samples(bytes(client.audio)), RATE), 300 + 40 * number) < 2

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for number in range(16):
            tasks.create_task(one(number))
    assert mouth.most == 4


async def test_a_client_that_reads_nothing_is_let_go(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9", client_idle_timeout=0.3) as gateway:
        mouth = await speaks(gateway, Mouth(character=0.5))
        async with dial(gateway, "/ws/v1", max_queue=1) as socket:
            client = NlsClient(socket, nls.SYNTHESIZER)
            await client.send("StartSynthesis", {"text": "a" * 2000, "sample_rate": 48000})
            await client.next()
            await gateway_free(mouth)
            with pytest.raises(ConnectionClosed):
                while True:
                    await client.next()


async def gateway_free(mouth: Mouth) -> None:
    async with asyncio.timeout(8):
        while mouth.open:
            await asyncio.sleep(0.02)


async def test_an_appkey_is_verified_and_a_key_is_for_its_verbs(tmp_path: Path) -> None:
    """FunSpeech never looked at header.appkey."""
    async with running(tmp_path, "http://127.0.0.1:9") as gateway:
        await speaks(gateway, Mouth(character=0.01))
        _, token = await issue(gateway, Right.SPEAK, appkey="app-1")
        async with dial(gateway, "/ws/v1", additional_headers={"x-nls-token": token}) as socket:
            client = NlsClient(socket, nls.SYNTHESIZER)
            for wrong in ({}, {"appkey": "app-2"}):
                await client.send("StartSynthesis", {"text": "好。"}, **wrong)
                assert "appkey" in await client.refused()
                assert client.events[-1]["header"]["status"] == 40000001
            await client.send("StartSynthesis", {"text": "好。"}, appkey="app-1")
            await client.until("SynthesisCompleted")
        headers = {"x-nls-token": token}
        for appkey, status in (("app-1", None), ("app-2", 40000001), (None, 40000001)):
            ask = {"text": "好。", "appkey": appkey}
            answer = await gateway.client.post("/stream/v1/tts", json=ask, headers=headers)
            assert answer.status_code == 200
            assert (answer.json()["status"] if status else answer.headers["content-type"]) == (status or "audio/mpeg")
        _, deaf = await issue(gateway, Right.TRANSCRIBE)
        async with dial(gateway, f"/ws/v1?token={deaf}") as socket:
            client = NlsClient(socket, nls.SYNTHESIZER)
            await client.send("StartSynthesis", {"text": "好。"})
            assert "speak" in await client.refused()
            assert client.events[-1]["header"]["status"] == 40000001
