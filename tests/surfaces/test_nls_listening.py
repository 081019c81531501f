"""Recognition on NLS sockets, as FunSpeech's and Alibaba's clients do it: what is heard, what is told, what is left."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from engines.scripted import ScriptedEngine
from gateway.errors import EngineBroke, EngineLoading, GatewayError
from gateway.events import Transcript, Word
from gateway.surfaces import nls_listening
from gateway.wire import nls as wire
from gateway.wire import opus, wav
from tests.adapters.spoken import Ear, LoudEars
from tests.adapters.spoken import silence as quiet
from tests.adapters.spoken import tone as buzz
from tests.conftest import Gateway, ready, running
from tests.engines.asr.sound import noise
from tests.opus_talk import packets, prefixed
from tests.surfaces.nls_client import NlsClient
from tests.tiny import speech

RATE = 16_000
TONE = 400
"""Hz, of `buzz`."""
FRAME = 640


class Engine(Ear):
    """Recognition as a test tells it."""

    missing: GatewayError | None = None

    def ready(self) -> Sequence[Any]:
        if self.missing is not None:
            raise self.missing
        return [self]


class Ears(LoudEars):
    """Hear whatever is loud, and are sure at once."""

    def __init__(self, settings: Any, sample_rate: int, *, silence: float, threshold: float) -> None:
        super().__init__(settings, sample_rate)
        self.changes = [(silence, threshold)]

    @property
    def speaking(self) -> bool:
        return self._speaking

    def change(self, *, silence: float, threshold: float) -> None:
        self.changes.append((silence, threshold))


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> list[Ears]:
    """Ears that are told what is speech by its loudness; those of each task."""
    made: list[Ears] = []

    def make(*given: Any, **wishes: Any) -> Ears:
        made.append(Ears(*given, **wishes))
        return made[-1]

    monkeypatch.setattr(nls_listening, "Endpointer", make)
    return made


@asynccontextmanager
async def listening(
    tmp_path: Path, ear: Engine, namespace: str = wire.TRANSCRIBER, path: str = wire.ASR_PATH, **settings: Any
) -> AsyncIterator[tuple[Gateway, NlsClient]]:
    """A gateway before `ear`, and a client of it; nothing is left after."""
    async with ScriptedEngine() as engine, running(tmp_path, engine, **settings) as gateway:
        await ready(gateway)
        gateway.state["transcribe"] = ear  # type: ignore[typeddict-item]
        async with client_of(gateway, namespace, path) as client:
            yield gateway, client
        await gateway.idle(5)
        assert ear.open == 0
        assert gateway.state["nls_streams"].running == 0


@asynccontextmanager
async def client_of(
    gateway: Gateway, namespace: str = wire.TRANSCRIBER, path: str = wire.ASR_PATH
) -> AsyncIterator[NlsClient]:
    async with connect(f"ws://127.0.0.1:{gateway.port}{path}", compression=None, proxy=None) as socket:
        yield NlsClient(socket, namespace)


STARTS = {
    wire.TRANSCRIBER: ("StartTranscription", "TranscriptionStarted", "StopTranscription", "TranscriptionCompleted"),
    wire.RECOGNIZER: ("StartRecognition", "RecognitionStarted", "StopRecognition", "RecognitionCompleted"),
}


async def started(client: NlsClient, **payload: Any) -> None:
    client.forget()
    start, answer, _, _ = STARTS[client.namespace]
    await client.send(start, {"format": "pcm", "sample_rate": RATE} | payload)
    event = await client.until(answer)
    assert event["payload"]["session_id"].startswith("session_")


async def say(client: NlsClient, *sounds: bytes, frame: int = FRAME) -> None:
    whole = b"".join(sounds)
    for at in range(0, len(whole), frame):
        await client.socket.send(whole[at : at + frame])


async def stopped(client: NlsClient, **header: Any) -> dict[str, Any]:
    _, _, stop, completed = STARTS[client.namespace]
    await client.send(stop, **header)
    return await client.until(completed)


def told(client: NlsClient, name: str) -> list[dict[str, Any]]:
    return [event["payload"] for event in client.events if event["header"]["name"] == name]


def sentences(client: NlsClient) -> list[str]:
    return [one["result"] for one in told(client, "SentenceEnd")]


def pitch(pcm: bytes) -> float:
    """Hz."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 10 * RATE))) / 10)


def spoken(text: str = "the weather is very nice today") -> bytes:
    """Without any silence around it."""
    clip = speech.say(text, voice="en-us")
    loud = np.flatnonzero(np.abs(clip) > 0.01)
    return speech.pcm(clip[loud[0] : loud[-1] + 1])


@pytest.mark.usefixtures("loud")
class TestTranscriber:
    async def test_each_sentence_is_told_from_its_begin_to_its_end(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine()) as (_, client):
            await started(client)
            await say(client, quiet(1), buzz(0.6), quiet(0.5), buzz(0.6), quiet(0.5))
            done = await stopped(client)
            assert "payload" not in done
            names = [name for name in client.order if name != "TranscriptionResultChanged"]
            each = ["SentenceBegin", "SentenceEnd"]
            assert names == ["TranscriptionStarted", *each, *each, "TranscriptionCompleted"]
            assert sentences(client) == ["heard 1", "heard 2"]
            assert [one["index"] for one in told(client, "SentenceBegin")] == [1, 2]
            first, second = told(client, "SentenceEnd")
            assert first["begin_time"] == pytest.approx(900, abs=60)
            assert first["time"] == pytest.approx(1800, abs=60)
            assert second["begin_time"] == pytest.approx(2000, abs=60)
            assert first["stash_result"]["sentenceId"] == 2
            assert "confidence" not in first
            assert "words" not in first
            header = client.events[-1]["header"]
            assert (header["status"], header["namespace"]) == (20000000, wire.TRANSCRIBER)
            assert {event["header"]["task_id"] for event in client.events} == {client.task_id}

    async def test_results_change_while_a_sentence_is_said(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine()) as (_, client):
            await started(client)
            await say(client, buzz(0.7))
            change = (await client.until("TranscriptionResultChanged"))["payload"]
            assert (change["index"], change["result"]) == (1, "partial 1")
            assert client.order[-2:] == ["SentenceBegin", "TranscriptionResultChanged"]
            await stopped(client)

    async def test_without_intermediate_results_there_are_none(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine()) as (_, client):
            await started(client, enable_intermediate_result=False)
            await say(client, buzz(0.7), quiet(0.5))
            await stopped(client)
            assert client.order == ["TranscriptionStarted", "SentenceBegin", "SentenceEnd", "TranscriptionCompleted"]

    @pytest.mark.parametrize("seconds", [0.12, 0.5, 1.9])
    async def test_w3_stop_loses_nothing_of_what_was_said(self, tmp_path: Path, seconds: float) -> None:
        """W3: the tail of every utterance, also of one that is shorter than any chunk, reaches the engine whole."""
        ear = Engine()
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            sound = buzz(seconds) + b"\x01"  # and half a sample
            await say(client, sound)
            await stopped(client)
            assert sentences(client) == ["heard 1"]
            assert ear.heard[0].endswith(sound[-1000:-1])
            assert len(ear.heard[0]) >= len(sound) - 1

    async def test_w6_streams_of_any_rate_keep_their_pitch(self, tmp_path: Path) -> None:
        """W6: 8 kHz is resampled, not taken for 16; times are those of the audio."""
        ear = Engine()
        async with listening(tmp_path, ear) as (_, client):
            for number, rate in enumerate((8000, 11025, 24000, 48000)):
                await started(client, sample_rate=rate)
                t = np.arange(rate) / rate
                sound = (8000 * np.sin(2 * np.pi * TONE * t)).astype("<i2").tobytes()
                await say(client, bytes(2 * rate), sound, bytes(rate))
                await stopped(client)
                assert pitch(ear.heard[number]) == pytest.approx(TONE, abs=0.3)
                assert len(ear.heard[number]) / 2 / RATE == pytest.approx(1.3, abs=0.1)
                assert told(client, "SentenceEnd")[0]["begin_time"] == pytest.approx(900, abs=60)

    @pytest.mark.parametrize("frame", [1, 7, 640, 100_000])
    async def test_w7_wav_works(self, tmp_path: Path, frame: int) -> None:
        """W7: a WAV over the WebSocket, its header cut anywhere; its own rate counts."""
        ear = Engine()
        t = np.arange(4000) / 8000
        sound = (8000 * np.sin(2 * np.pi * TONE * t)).astype("<i2").tobytes()
        async with listening(tmp_path, ear) as (_, client):
            await started(client, format="wav", sample_rate=16000)
            file = wav.header(8000, len(sound) // 2) + sound
            await say(client, file[:100], frame=min(frame, 100))
            await say(client, file[100:], frame=max(frame, 333))
            await stopped(client)
            assert sentences(client) == ["heard 1"]
            assert pitch(ear.heard[0]) == pytest.approx(TONE, abs=1)

    @pytest.mark.parametrize("form", ["opu", "opus", "ogg"])
    async def test_opus_is_heard_with_and_without_a_container(self, tmp_path: Path, form: str) -> None:
        ear = Engine()
        sound = buzz(1.0)
        async with listening(tmp_path, ear) as (_, client):
            await started(client, format="opus" if form == "ogg" else form)
            if form == "ogg":
                t = np.arange(opus.RATE) / opus.RATE
                packer = opus.Packer()
                tone = (8000 * np.sin(2 * np.pi * TONE * t)).astype("<i2").tobytes()
                await say(client, *packer.feed(tone), *packer.end(), frame=333)
            else:
                for packet in packets(sound):
                    await client.socket.send(prefixed(packet) if form == "opu" else packet)
            await stopped(client)
            assert sentences(client) == ["heard 1"]
            assert pitch(ear.heard[0]) == pytest.approx(TONE, abs=0.3)

    @pytest.mark.parametrize("frame", [1, 3, 641, 50_001])
    async def test_odd_numbers_of_bytes_are_no_error(self, tmp_path: Path, frame: int) -> None:
        ear = Engine()
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            await say(client, buzz(0.3), frame=frame)
            await stopped(client)
            assert pitch(ear.heard[0]) == pytest.approx(TONE, abs=1)

    async def test_what_the_engine_hears_nothing_in_is_no_sentence(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine(partials=False, texts=["", "words"])) as (_, client):
            await started(client)
            await say(client, buzz(0.5), quiet(0.5), buzz(0.5), quiet(0.5))
            await stopped(client)
            assert [one["index"] for one in told(client, "SentenceEnd")] == [1]
            assert sentences(client) == ["words"]

    async def test_w13_switches_act(self, tmp_path: Path) -> None:
        """W13: punctuation, figures, hesitations: each is as it is asked for."""
        said = "嗯，他有一百二十三块钱。"
        ear = Engine(texts=[said] * 4, partials=False)
        async with listening(tmp_path, ear) as (_, client):
            for wishes, text in (
                ({}, "嗯，他有123块钱。"),
                ({"enable_inverse_text_normalization": False}, said),
                ({"enable_punctuation_prediction": False, "disfluency": True}, "他有123块钱"),
                (
                    {"enable_punctuation_prediction": "false", "enable_inverse_text_normalization": 0},
                    "嗯他有一百二十三块钱",
                ),
            ):
                await started(client, **wishes)
                await say(client, buzz(0.5))
                await stopped(client)
                assert sentences(client) == [text]
            assert [job.itn for job in ear.jobs] == [True, False, True, False]

    async def test_w13_words_have_their_times(self, tmp_path: Path) -> None:
        """W13: times from the first sample of the task, where the engine knows them and they are wanted."""

        class Knowing(Engine):
            async def _events(self, job: Any) -> AsyncIterator[Transcript]:
                async for event in super()._events(job):
                    words = (Word("heard", 0.1, 0.3),) if event.final else ()
                    yield Transcript(event.text, "", event.final, words=words)

        async with listening(tmp_path, Knowing()) as (_, client):
            for wanted in (True, False):
                await started(client, enable_words=wanted)
                await say(client, quiet(1), buzz(0.5))
                await stopped(client)
                (end,) = told(client, "SentenceEnd")
                assert ("words" in end) == wanted
                if wanted:
                    (word,) = end["words"]
                    assert word["text"] == "heard"
                    assert word["startTime"] == pytest.approx(1000, abs=60)
                    assert word["endTime"] - word["startTime"] == 200

    async def test_w13_a_vocabulary_reaches_the_engine(self, tmp_path: Path) -> None:
        """W13: or is refused by name."""
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists" / "names.txt").write_text("通义\nNew York\n")
        ear = Engine()
        async with listening(tmp_path, ear, vocabulary_dir=tmp_path / "lists") as (_, client):
            await started(client, vocabulary_id="names")
            await say(client, buzz(0.5))
            await stopped(client)
            assert ear.jobs[0].hotwords == ("通义", "New York")
            await client.send("StartTranscription", {"vocabulary_id": "others"})
            assert "vocabulary_id" in await client.refused()

    async def test_control_changes_what_is_wanted(self, tmp_path: Path, loud: list[Ears]) -> None:
        async with listening(tmp_path, Engine()) as (_, client):
            await started(client, max_sentence_silence=500, speech_noise_threshold=-0.5)
            await say(client, buzz(0.5))
            await client.until("TranscriptionResultChanged")
            await client.send(
                "ControlTranscriber",
                {"max_sentence_silence": 1200, "enable_intermediate_result": False, "speech_noise_threshold": 1},
            )
            await client.send("ControlTranscriber", {"max_sentence_silence": 100})
            assert "max_sentence_silence" in await client.refused()
            count = len(told(client, "TranscriptionResultChanged"))
            await say(client, buzz(0.5), quiet(0.5), buzz(1))
            await stopped(client)
            assert len(told(client, "TranscriptionResultChanged")) == count
            assert loud[-1].changes == [(0.5, pytest.approx(0.275)), (1.2, pytest.approx(0.95))]

    async def test_nulls_texts_and_missing_ids_are_taken_as_clients_mean_them(
        self, tmp_path: Path, loud: list[Ears]
    ) -> None:
        async with listening(tmp_path, Engine(), path=wire.PATH) as (_, client):
            await started(client, max_sentence_silence=None, sample_rate="16000", enable_words=None, format="PCM")
            assert loud[-1].changes == [(0.8, 0.5)]
            await say(client, buzz(0.5))
            await stopped(client, task_id=None)
            assert sentences(client) == ["heard 1"]

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            ({"format": "mp3"}, "pcm, wav, opus, opu"),
            ({"format": "speex"}, "pcm, wav, opus, opu"),
            ({"format": 5}, "format"),
            ({"sample_rate": 16001}, "sample_rate"),
            ({"sample_rate": "fast"}, "sample_rate"),
            ({"max_sentence_silence": 199}, "200 to 6000"),
            ({"max_sentence_silence": 6001}, "200 to 6000"),
            ({"speech_noise_threshold": 1.01}, "-1 to 1"),
            ({"speech_noise_threshold": -1.01}, "-1 to 1"),
            ({"enable_words": "perhaps"}, "enable_words"),
            ({"customization_id": "whisper"}, "qwen3-asr-flash"),
            ({"customization_id": "c" * 65}, "customization_id"),
        ],
    )
    async def test_a_wrong_start_says_what_is_wrong_and_the_next_one_works(
        self, tmp_path: Path, payload: dict[str, Any], reason: str
    ) -> None:
        async with listening(tmp_path, Engine()) as (_, client):
            await client.send("StartTranscription", payload)
            assert reason in await client.refused()
            limits = {"max_sentence_silence": 6000, "speech_noise_threshold": -1, "customization_id": "dolphin-small"}
            await started(client, **limits)
            await stopped(client)

    async def test_audio_that_cannot_be_decoded_fails_its_task_only(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine()) as (_, client):
            await started(client, format="opus")
            await client.socket.send(b"OggS\0" + bytes(100))
            assert "cannot be decoded" in await client.refused()
            await started(client)
            await say(client, buzz(0.5))
            await stopped(client)
            assert sentences(client) == ["heard 1"]


@pytest.mark.usefixtures("loud")
class TestRecognizer:
    async def test_one_text_is_told_when_it_stops(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine(), wire.RECOGNIZER, wire.PATH) as (_, client):
            await started(client)
            await say(client, buzz(0.5), quiet(0.5), buzz(0.5))
            done = await stopped(client)
            assert done["payload"] == {"result": "heard 1 heard 2", "duration": 1500}
            assert client.order == ["RecognitionStarted", "RecognitionCompleted"]

    async def test_it_changes_until_then(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine(), wire.RECOGNIZER) as (_, client):
            await started(client, enable_intermediate_result=True)
            await say(client, buzz(0.5), quiet(0.5), buzz(0.5))
            await stopped(client)
            changes = [one["result"] for one in told(client, "RecognitionResultChanged")]
            assert changes[0] == "partial 1"
            assert {"heard 1 partial 2", "heard 1"} <= set(changes)
            assert changes[-1] == "heard 1 heard 2"

    async def test_with_voice_detection_it_ends_by_itself(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine(), wire.RECOGNIZER) as (_, client):
            for _ in range(2):
                await started(client, enable_voice_detection=True, max_end_silence=500)
                await say(client, quiet(0.5), buzz(0.5), quiet(0.5))
                done = await client.until("RecognitionCompleted")
                assert done["payload"]["result"].startswith("heard")

    async def test_with_voice_detection_and_nobody_there_it_ends_without_a_word(self, tmp_path: Path) -> None:
        async with listening(tmp_path, Engine(), wire.RECOGNIZER) as (_, client):
            await started(client, enable_voice_detection=True, max_start_silence=1000)
            await say(client, quiet(1.9))
            done = await client.until("RecognitionCompleted")
            assert done["payload"]["result"] == ""


class TestRealEars:
    """silero-vad, and speech of espeak-ng's."""

    async def test_w5_nobody_is_deaf_after_noise_and_a_long_silence(self, tmp_path: Path) -> None:
        """W5: a loud noise that is no speech, five minutes of near silence, then a sentence: it is heard."""
        ear = Engine()
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            await say(client, noise(0.5, -12), noise(310, -60), spoken(), frame=64_000)
            await stopped(client)
            assert sentences(client)
            assert told(client, "SentenceEnd")[-1]["begin_time"] == pytest.approx(310_500, abs=500)

    async def test_w9_a_sentence_ends_in_a_loud_room(self, tmp_path: Path) -> None:
        """W9: noise far above the near-field threshold goes on after the speech; the sentence ends without a Stop."""
        ear = Engine()
        room = np.frombuffer(noise(6, -32), "<i2").astype(int)
        sound = spoken()
        room[16000 : 16000 + len(sound) // 2] += np.frombuffer(sound, "<i2")
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            await say(client, room.clip(-32768, 32767).astype("<i2").tobytes())
            end = (await client.until("SentenceEnd"))["payload"]
            assert end["time"] == pytest.approx(1000 + len(sound) / 32, abs=1500)
            await stopped(client)
            assert len(sentences(client)) == 1

    @pytest.mark.parametrize("silence", [200, 500, 800, 2000, 6000])
    async def test_w10_max_sentence_silence_is_honoured(self, tmp_path: Path, silence: int) -> None:
        """W10: to 100 ms, also below 1200: after so much silence the sentence is ended, and not before."""
        word, asked = spoken("weather"), silence / 1000
        async with listening(tmp_path, Engine()) as (_, client):
            for pause, count in ((asked + 0.1, 2), (asked - 0.1, 1)):
                await started(client, max_sentence_silence=silence)
                await say(client, quiet(0.5), word, quiet(pause), word, quiet(asked + 0.5))
                await stopped(client)
                assert len(sentences(client)) == count

    async def test_w10_quiet_speech_is_heard_inside_a_sentence_and_begins_none(self, tmp_path: Path) -> None:
        """W10: what FunSpeech's filter deletes is kept; whispering at the other end of the room begins nothing."""
        ear = Engine()
        near, far = spoken(), (np.frombuffer(spoken(), "<i2") * 0.03).astype("<i2").tobytes()
        async with listening(tmp_path, ear) as (_, client):
            await started(client, max_sentence_silence=1500)
            await say(client, far, quiet(2), near, far, quiet(2))
            await stopped(client)
            assert len(sentences(client)) == 1
            assert far[3000:-3000] in ear.heard[0]
        async with listening(tmp_path / "open", ear, nearfield_filter=False) as (_, client):
            await started(client, max_sentence_silence=1500)
            await say(client, far, quiet(2))
            await stopped(client)
            assert len(sentences(client)) == 1

    async def test_speech_noise_threshold_acts(self, tmp_path: Path) -> None:
        ear = Engine()
        heard = []
        async with listening(tmp_path, ear, nearfield_filter=False) as (_, client):
            for threshold in (-1, 1):
                await started(client, speech_noise_threshold=threshold)
                await say(client, spoken("hello"), noise(8, -14), quiet(1))
                await stopped(client)
                heard.append(sum(one["time"] - one["begin_time"] for one in told(client, "SentenceEnd")))
        assert heard[0] > heard[1]


@pytest.mark.usefixtures("loud")
class TestManyAndLong:
    async def test_w15_streams_are_recognised_at_the_same_time(self, tmp_path: Path) -> None:
        """W15: no lock lets one stream wait for another."""
        ear = Engine(hold=asyncio.Event())
        async with listening(tmp_path, ear) as (gateway, client), client_of(gateway) as other:
            for one in (client, other):
                await started(one)
                await say(one, buzz(0.5), quiet(0.5))
            async with asyncio.timeout(5):
                while ear.open < 2:
                    await asyncio.sleep(0.01)
            assert ear.hold is not None
            ear.hold.set()
            for one in (client, other):
                await stopped(one)
                assert len(sentences(one)) == 1

    async def test_w17_a_sentence_costs_one_session_however_many_chunks_it_has(self, tmp_path: Path) -> None:
        """W17: nothing is asked of the engine for a chunk, and nothing for silence."""
        ear = Engine()
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            await say(client, quiet(30), buzz(3), quiet(30), buzz(3), quiet(1), frame=3200)
            await stopped(client)
            assert len(ear.jobs) == 2

    async def test_w18_more_streams_than_may_be_are_refused(self, tmp_path: Path) -> None:
        """W18: 40000005, at one over the limit; the connection can try again, and gets in once there is room."""
        async with (
            listening(tmp_path, Engine(), nls_streams=2) as (gateway, first),
            client_of(gateway) as second,
            client_of(gateway) as third,
        ):
            await started(first)
            await started(second)
            await third.send("StartTranscription", {})
            failed = await third.until("TaskFailed")
            assert failed["header"]["status"] == 40000005
            await stopped(first)
            await started(third)
            await stopped(third)
            await stopped(second)

    async def test_w18_a_stream_that_sends_nothing_is_ended(self, tmp_path: Path) -> None:
        """W18: 40000004; its place is free again."""
        async with listening(tmp_path, Engine(), nls_task_timeout=0.5) as (gateway, client):
            await started(client)
            await say(client, quiet(0.2))
            failed = await client.until("TaskFailed")
            assert failed["header"]["status"] == 40000004
            await client.socket.wait_closed()
            assert gateway.state["nls_streams"].running == 0

    async def test_a_client_that_sends_faster_than_anything_is_held_back(self, tmp_path: Path) -> None:
        """What it sends is bounded here while the engine hangs; nothing of it is lost."""
        ear = Engine(hold=asyncio.Event())
        minutes = (buzz(5) + quiet(0.5)) * 60
        async with listening(tmp_path, ear) as (_, client):
            await started(client, enable_intermediate_result=False)
            sending = asyncio.create_task(say(client, minutes, frame=64_000))
            _, pending = await asyncio.wait([sending], timeout=2)
            assert pending, "it has sent five minutes into nowhere"
            assert ear.hold is not None
            ear.hold.set()
            await asyncio.wait_for(sending, 30)
            await stopped(client)
            assert len(sentences(client)) == 60
            assert sum(map(len, ear.heard)) > 60 * 5 * 2 * RATE

    async def test_leaving_in_the_middle_leaves_nothing(self, tmp_path: Path) -> None:
        """See `listening`."""
        ear = Engine(hold=asyncio.Event())
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            await say(client, buzz(0.5), quiet(0.5))
            async with asyncio.timeout(5):
                while not ear.open:
                    await asyncio.sleep(0.01)
            client.socket.transport.abort()

    async def test_one_socket_carries_tasks_of_both_kinds(self, tmp_path: Path) -> None:
        """As boards do that keep their connection."""
        async with listening(tmp_path, Engine(), path=wire.PATH) as (_, client):
            for number in range(4):
                client.namespace = (wire.TRANSCRIBER, wire.RECOGNIZER)[number % 2]
                client.task_id = f"{number}" * 32
                await started(client)
                await say(client, buzz(0.5))
                await stopped(client)
                assert {event["header"]["task_id"] for event in client.events} == {client.task_id}


@pytest.mark.usefixtures("loud")
class TestEngine:
    async def test_one_that_is_not_there_fails_the_task_with_its_reason(self, tmp_path: Path) -> None:
        ear = Engine()
        ear.missing = EngineLoading("asr is loading: 40 %")
        async with listening(tmp_path, ear) as (_, client):
            await client.send("StartTranscription", {})
            failed = await client.until("TaskFailed")
            assert (failed["header"]["status"], failed["header"]["status_text"]) == (50000000, "asr is loading: 40 %")
            ear.missing = None
            await started(client)
            await stopped(client)

    async def test_one_that_breaks_is_asked_again_and_then_fails_the_task(self, tmp_path: Path) -> None:
        ear = Engine(breaks=[EngineBroke("it died"), EngineBroke("it died again")])
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            await say(client, buzz(0.5), quiet(0.5))
            failed = await client.until("TaskFailed")
            assert (failed["header"]["status"], failed["header"]["status_text"]) == (50000000, "it died again")
            await started(client)
            await say(client, buzz(0.5))
            await stopped(client)
            assert len(sentences(client)) == 1

    async def test_one_that_hears_recordings_only_gets_each_sentence_as_one(self, tmp_path: Path) -> None:
        ear = Engine(live=False)
        async with listening(tmp_path, ear) as (_, client):
            await started(client)
            await say(client, buzz(0.5), quiet(0.5), buzz(0.5))
            await stopped(client)
            assert sentences(client) == ["heard 1", "heard 2"]
            assert "TranscriptionResultChanged" not in client.order


async def test_nobodys_words_are_logged(tmp_path: Path, loud: list[Ears], capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(tmp_path, Engine(texts=["xyzzy"])) as (_, client):
        await started(client)
        await say(client, buzz(0.5))
        await stopped(client)
        assert "xyzzy" in json.dumps(client.events)
    assert "xyzzy" not in "".join(capsys.readouterr())
