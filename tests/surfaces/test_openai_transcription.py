"""`POST /v1/audio/transcriptions` and `/translations` as OpenAI's own SDK uses them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionTextSegmentEvent,
    TranscriptionVerbose,
    Translation,
    TranslationVerbose,
)

from engines.scripted import End, Script, ScriptedEngine
from gateway.upload import FIELD_BYTES
from gateway.wire import wav
from tests.conftest import SHARED_AUDIO, Gateway, ready, running, speech
from tests.tiny.speech import pcm
from tests.tiny.speech import say as spoken
from tests.tiny.speech import silence as quiet

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),  # OpenAI's own translations
]
PATH, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
SENTENCES = (
    "stop the music",
    "how are you today my dear old friend",
    "what time is it in paris and in london and in new york",
)


def say(text: str) -> bytes:
    return pcm(spoken(text, voice="en"))


def silence(seconds: float) -> bytes:
    return pcm(quiet(seconds))


def as_wav(samples: bytes) -> bytes:
    return wav.header(16000, len(samples) // 2) + samples


def talk(pause: float = 1.5) -> bytes:
    """Three sentences, a pause before, between and behind them. A WAV file."""
    return as_wav(b"".join([silence(pause), *(say(one) + silence(pause) for one in SENTENCES)]))


def upload(audio: bytes | None = None, name: str = "talk.wav") -> tuple[str, bytes]:
    return name, speech() if audio is None else audio


def seconds_of(form: bytes) -> float:
    """Of the recording that an engine was sent."""
    body = form[form.index(b"RIFF") :]
    head = wav.read_header(body[:4096], len(body))
    return head.frames / head.sample_rate


def by_length(form: bytes) -> tuple[str, None]:
    """The sentence that is about as long as what was sent: no two are. Engines are asked in any order."""
    return min(SENTENCES, key=lambda one: abs(len(say(one)) / 32000 + 0.6 - seconds_of(form))), None


def field(form: bytes, name: str) -> str:
    _, _, rest = form.partition(f'name="{name}"\r\n\r\n'.encode())
    return rest.partition(b"\r\n")[0].decode()


async def post(gateway: Gateway, audio: bytes | None = None, path: str = PATH, **fields: Any) -> httpx.Response:
    data = {"model": "whisper-1"} | fields
    return await gateway.client.post(path, data=data, files={"file": upload(audio)})


def assert_refused(answer: httpx.Response, status: int, param: str | None, says: str = "") -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]


def cues(text: str) -> list[tuple[str, str]]:
    """(times, text) of every cue."""
    blocks = [block.split("\n") for block in text.removeprefix("WEBVTT\n\n").strip().split("\n\n")]
    found = [(lines[next(at for at, line in enumerate(lines) if "-->" in line) :]) for lines in blocks]
    return [(times, " ".join(lines)) for times, *lines in found]


class TestFormats:
    async def test_json(self, sdk: AsyncOpenAI) -> None:
        found = await sdk.audio.transcriptions.create(file=upload(), model="whisper-1")
        assert isinstance(found, Transcription)
        assert found.text == "hello world"
        assert found.languages is not None and [one.code for one in found.languages] == ["en"]
        assert found.usage is not None and found.usage.type == "duration" and found.usage.seconds == 3.0
        Transcription.model_validate(found.model_dump())

    async def test_text(self, sdk: AsyncOpenAI) -> None:
        found = await sdk.audio.transcriptions.create(file=upload(), model="whisper-1", response_format="text")
        assert found == "hello world\n"

    async def test_subtitles_of_three_sentences_are_three_cues_where_they_are_said(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(hear=by_length)
        srt = await sdk.audio.transcriptions.create(file=upload(talk()), model="whisper-1", response_format="srt")
        assert isinstance(srt, str)
        assert srt.startswith("1\n00:00:01,")
        assert [text for _, text in cues(srt)] == list(SENTENCES)
        vtt = await sdk.audio.transcriptions.create(file=upload(talk()), model="whisper-1", response_format="vtt")
        assert isinstance(vtt, str)
        assert vtt.startswith("WEBVTT\n\n00:00:01.")
        assert [(times.replace(".", ","), text) for times, text in cues(vtt)] == cues(srt)

    async def test_verbose_json(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(hear=by_length)
        found = await sdk.audio.transcriptions.create(
            file=upload(talk()),
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            temperature=0.4,
        )
        TranscriptionVerbose.model_validate(found.model_dump())
        whole = len(talk()) / 32000
        assert (found.language, found.text) == ("english", " ".join(SENTENCES))
        assert abs(found.duration - whole) < 0.01
        assert found.usage is not None and found.usage.seconds == found.duration
        assert found.segments is not None and found.words is not None
        assert [one.text for one in found.segments] == list(SENTENCES)
        assert [one.id for one in found.segments] == [0, 1, 2]
        assert {one.temperature for one in found.segments} == {0.4}
        at = 1.5
        for segment, sentence in zip(found.segments, SENTENCES, strict=True):
            length = len(say(sentence)) / 32000
            assert at - 0.1 < segment.start < segment.end < at + length + 0.1
            assert segment.end - segment.start > length / 2
            at += length + 1.5
        assert [one.word for one in found.words] == " ".join(SENTENCES).split()
        assert all(one.start <= other.start for one, other in zip(found.words, found.words[1:], strict=False))
        assert found.model_extra is not None and found.model_extra["timestamps"] == "estimated"

    async def test_diarized_json_has_one_speaker(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(hear=by_length)
        found = await sdk.audio.transcriptions.create(
            file=upload(talk()),
            model="gpt-4o-transcribe-diarize",
            response_format="diarized_json",
            chunking_strategy="auto",
            known_speaker_names=["agent"],
            known_speaker_references=["data:audio/wav;base64," + "A" * (2 * FIELD_BYTES)],
        )
        TranscriptionDiarized.model_validate(found.model_dump())
        assert [(one.speaker, one.text, one.id) for one in found.segments] == [
            ("A", sentence, f"seg_{number}") for number, sentence in enumerate(SENTENCES)
        ]

    async def test_only_the_granularity_that_was_asked_for(self, gateway: Gateway) -> None:
        for name in ("timestamp_granularities[]", "timestamp_granularities"):
            found = (await post(gateway, response_format="verbose_json", **{name: "word"})).json()
            assert "segments" not in found
            assert [word["word"] for word in found["words"]] == ["hello", "world"]
        assert "words" not in (await post(gateway, response_format="verbose_json")).json()

    async def test_the_engine_s_times_are_kept_and_called_so(
        self, sdk: AsyncOpenAI, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(text="Hello, world.", times=[("hello", 0.25, 0.5), ("world", 0.75, 1.0)])
        found = await sdk.audio.transcriptions.create(
            file=upload(), model="whisper-1", response_format="verbose_json", timestamp_granularities=["word"]
        )
        assert found.words is not None
        assert [(one.word, one.start, one.end) for one in found.words] == [
            ("Hello", 0.25, 0.5),
            ("world", 0.75, 1.0),
        ]
        answer = await post(gateway, response_format="srt")
        assert answer.headers["x-voxgate-timestamps"] == "engine"
        assert answer.text == "1\n00:00:00,250 --> 00:00:01,050\nHello, world.\n\n"

    @pytest.mark.parametrize(("name", "empty"), [("text", "\n"), ("srt", ""), ("vtt", "WEBVTT\n\n")])
    async def test_nothing_said_is_an_answer_too(
        self, gateway: Gateway, engine: ScriptedEngine, name: str, empty: str
    ) -> None:
        engine.script = Script(text="")
        assert (await post(gateway, response_format=name)).text == empty
        found = (await post(gateway, response_format="verbose_json")).json()
        assert (found["text"], found["segments"], found["duration"]) == ("", [], 3.0)


class TestWishes:
    async def test_language_and_words_to_expect_reach_the_engine(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine
    ) -> None:
        await sdk.audio.transcriptions.create(
            file=upload(),
            model="gpt-transcribe",
            language="English",
            keywords=["Voxgate", "New York"],
            prompt="Kubernetes, etcd. The following is a long talk about how clusters are run.",
            include=["logprobs"],
        )
        form = engine.seen.asked[0][1]
        assert field(form, "language") == "en"
        assert field(form, "hotwords") == "Voxgate,New York,Kubernetes,etcd"

    async def test_one_possible_language_is_the_language(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        for languages in (["zh"], ["zh", "en"]):
            await sdk.audio.transcriptions.create(file=upload(), model="gpt-transcribe", languages=languages)
        assert [field(form, "language") for _, form in engine.seen.asked] == ["zh", ""]

    async def test_a_short_recording_is_heard_whole(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        await post(gateway, talk())
        assert [round(seconds_of(form), 2) for _, form in engine.seen.asked] == [round(len(talk()) / 32000, 2)]

    async def test_an_object_says_how_to_listen(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(hear=by_length)
        ask = {"type": "server_vad", "silence_duration_ms": 300, "prefix_padding_ms": 300, "threshold": 0.5}
        found = await sdk.audio.transcriptions.create(
            file=upload(talk(0.7)),
            model="whisper-1",
            chunking_strategy=ask,  # type: ignore[call-overload]
        )
        assert found.text == " ".join(SENTENCES)
        assert len(engine.seen.asked) == 3

    async def test_an_object_may_be_json_too(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        ask = json.dumps({"type": "server_vad", "silence_duration_ms": 4000})
        await post(gateway, talk(), chunking_strategy=ask)
        assert len(engine.seen.asked) == 1
        assert seconds_of(engine.seen.asked[0][1]) < len(talk()) / 32000 - 1, "without the silence around it"


class TestLongRecordings:
    async def test_pieces_are_heard_together_and_answered_in_order(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        audio = as_wav(b"".join(say(one) + silence(8) for one in SENTENCES * 2))
        engine.script = Script(hear=by_length)
        answer = await post(gateway, audio)
        assert answer.json()["text"] == " ".join(SENTENCES * 2)
        assert len(engine.seen.asked) == 6
        assert all(seconds_of(form) < 4 for _, form in engine.seen.asked), "no engine hears the silence"

    async def test_a_failure_of_a_later_piece_breaks_a_text_off(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        audio = as_wav(b"".join(say(one) + silence(8) for one in SENTENCES * 2))

        def hear(form: bytes) -> tuple[str, None]:
            if len(engine.seen.asked) > 2:
                engine.script.status = 500
            return "one", None

        engine.script = Script(hear=hear)
        with pytest.raises(httpx.RemoteProtocolError):
            await post(gateway, audio, response_format="text")
        engine.script = Script(hear=hear)
        answer = await post(gateway, audio)
        assert answer.status_code == 502, "of JSON nothing has left by then"


class TestStream:
    async def test_deltas_and_the_whole(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(hear=by_length)
        events = await sdk.audio.transcriptions.create(file=upload(talk()), model="whisper-1", stream=True)
        found = [event async for event in events]
        deltas = [event for event in found if isinstance(event, TranscriptionTextDeltaEvent)]
        assert [event.delta for event in deltas] == [SENTENCES[0], *(f" {one}" for one in SENTENCES[1:])]
        done = found[-1]
        assert isinstance(done, TranscriptionTextDoneEvent)
        assert done.text == "".join(event.delta for event in deltas)
        assert done.usage is not None
        assert done.usage.input_tokens + done.usage.output_tokens == done.usage.total_tokens
        TranscriptionTextDoneEvent.model_validate(done.model_dump())

    async def test_segments_of_diarized_json(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(hear=by_length)
        events = await sdk.audio.transcriptions.create(
            file=upload(talk()), model="whisper-1", response_format="diarized_json", stream=True
        )
        segments = [event async for event in events if isinstance(event, TranscriptionTextSegmentEvent)]
        assert [(one.text, one.speaker) for one in segments] == [(sentence, "A") for sentence in SENTENCES]
        for one in segments:
            TranscriptionTextSegmentEvent.model_validate(one.model_dump())

    async def test_the_first_delta_comes_while_later_pieces_are_recognised(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(hear=lambda form: ("first", None))
        events = await sdk.audio.transcriptions.create(file=upload(talk()), model="whisper-1", stream=True)
        engine.script.end = End.HANG  # for what is asked from now on: a few may be in already
        seen = aiter(events)
        first = await anext(seen)
        assert isinstance(first, TranscriptionTextDeltaEvent)
        await events.close()

    async def test_a_failure_in_the_middle_is_an_event_then_the_end(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine
    ) -> None:
        def hear(form: bytes) -> tuple[str, None]:
            engine.script.status, engine.script.error = 400, "cannot hear this"
            return "first", None

        engine.script = Script(hear=hear)
        events = await sdk.audio.transcriptions.create(
            file=upload(as_wav(b"".join(say(one) + silence(8) for one in SENTENCES * 3))), model="x", stream=True
        )
        with pytest.raises(openai.APIError, match="cannot hear this") as caught:
            async for _ in events:
                pass
        assert caught.value.type == "invalid_request_error"

    async def test_a_failure_before_the_first_event_is_a_status(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(status=503)
        with pytest.raises(openai.InternalServerError) as caught:
            await sdk.audio.transcriptions.create(file=upload(talk()), model="whisper-1", stream=True)
        assert caught.value.status_code == 503

    async def test_a_client_that_hangs_up_cancels_what_is_recognised(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(end=End.HANG)
        asking = asyncio.create_task(post(gateway, talk(), stream="true"))
        async with asyncio.timeout(10):
            while not engine.seen.running:
                await asyncio.sleep(0.01)
            asking.cancel()
            while engine.seen.running:
                await asyncio.sleep(0.01)
        assert engine.seen.abandoned
        await gateway.idle()


class TestTranslations:
    async def test_english_stays_as_it_is(self, sdk: AsyncOpenAI) -> None:
        found = await sdk.audio.translations.create(file=upload(), model="whisper-1")
        assert isinstance(found, Translation)
        assert found.text == "hello world"

    async def test_verbose_json(self, sdk: AsyncOpenAI, gateway: Gateway) -> None:
        found = await sdk.audio.translations.create(file=upload(), model="whisper-1", response_format="verbose_json")
        TranslationVerbose.model_validate(found.model_dump())
        assert found.language == "english"
        answer = await post(gateway, path=TRANSLATIONS, response_format="verbose_json")
        assert answer.json()["task"] == "translate"

    async def test_subtitles(self, sdk: AsyncOpenAI) -> None:
        found = await sdk.audio.translations.create(file=upload(), model="whisper-1", response_format="srt")
        assert isinstance(found, str)
        assert "hello world" in found

    async def test_another_language_is_refused_by_an_engine_that_does_not_translate(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(text="你好", language="中文")
        with pytest.raises(openai.BadRequestError) as caught:
            await sdk.audio.translations.create(file=upload(), model="whisper-1")
        assert caught.value.code == "translation_unsupported"

    async def test_speakers_are_not_offered(self, gateway: Gateway) -> None:
        answer = await post(gateway, path=TRANSLATIONS, response_format="diarized_json")
        assert_refused(answer, 400, "response_format")


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"response_format": "xml"}, "response_format"),
            ({"temperature": "1.01"}, "temperature"),
            ({"temperature": "-0.1"}, "temperature"),
            ({"temperature": "nan"}, "temperature"),
            ({"temperature": "hot"}, "temperature"),
            ({"language": "???"}, "language"),
            ({"language": "x" * 21}, "language"),
            ({"languages[]": ["en", "!"]}, "languages"),
            ({"stream": "maybe"}, "stream"),
            ({"timestamp_granularities[]": ["word", "letter"]}, "timestamp_granularities"),
            ({"include[]": "everything"}, "include"),
            ({"keywords[]": "x" * 65}, "keywords"),
            ({"keywords[]": ["x"] * 1001}, "keywords"),
            ({"chunking_strategy": "manual"}, "chunking_strategy"),
            ({"chunking_strategy": "[1]"}, "chunking_strategy"),
            ({"chunking_strategy": '{"type":"client_vad"}'}, "chunking_strategy"),
            ({"chunking_strategy": '{"type":"server_vad","threshold":2}'}, "chunking_strategy.threshold"),
            ({"chunking_strategy": "[" * 60_000}, "chunking_strategy"),
            ({"prompt": "x" * (FIELD_BYTES + 1)}, "prompt"),
        ],
        ids=str,
    )
    async def test_a_wrong_value_is_named(
        self, gateway: Gateway, engine: ScriptedEngine, fields: dict[str, Any], param: str
    ) -> None:
        assert_refused(await post(gateway, **fields), 400, param)
        assert not engine.seen.asked

    @pytest.mark.parametrize(
        "fields",
        [
            {"temperature": "1"},
            {"keywords[]": ["x" * 64] * 1000},
            {"prompt": "x" * FIELD_BYTES},
            {"language": "auto"},
            {"response_format": "", "language": " ", "stream": ""},
            {"who_knows": "what", "known_speaker_names[]": "Ann"},
        ],
        ids=["temperature", "keywords", "prompt", "auto", "empty", "unknown"],
    )
    async def test_what_is_just_allowed_is_taken(self, gateway: Gateway, fields: dict[str, Any]) -> None:
        assert (await post(gateway, **fields)).status_code == 200

    @pytest.mark.parametrize(
        ("audio", "says"), [(b"", "empty"), (b"junk" * 100, "cannot be decoded"), (speech()[:44], "no sound")]
    )
    async def test_a_file_that_cannot_be_used(self, gateway: Gateway, audio: bytes, says: str) -> None:
        assert_refused(await post(gateway, audio), 400, "file", says)

    async def test_no_file(self, gateway: Gateway) -> None:
        answer = await gateway.client.post(PATH, files={"model": (None, "whisper-1")})
        assert_refused(answer, 400, "file")

    @pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary="])
    async def test_no_form(self, gateway: Gateway, kind: str) -> None:
        answer = await gateway.client.post(PATH, content=b"{}", headers={"content-type": kind})
        assert_refused(answer, 400, None, "multipart/form-data")

    @pytest.mark.parametrize(
        "body",
        [
            b"--b\r\n",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF',
            b"--b\r\n\r\n\r\n--b--\r\n" * 3,
            b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--b--\r\n',
        ],
    )
    async def test_a_broken_form(self, gateway: Gateway, body: bytes) -> None:
        answer = await gateway.client.post(
            PATH, content=body, headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        await gateway.idle()

    async def test_an_upload_one_byte_over_the_limit(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        request = httpx.Request("POST", "http://x", data={"model": "x"}, files={"file": upload()})
        size = len(request.read())
        for limit, status in ((size, 200), (size - 1, 413)):
            async with running(tmp_path / str(limit), engine, upload_max_bytes=limit) as gateway:
                answer = await (await ready(gateway)).client.post(PATH, data={"model": "x"}, files={"file": upload()})
                assert answer.status_code == status
        assert answer.json()["error"] | {"message": ""} == {
            "message": "",
            "type": "invalid_request_error",
            "param": None,
            "code": "too_large",
        }

    async def test_a_recording_one_second_too_long(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine, transcribe_max_seconds=3.0) as gateway:
            await ready(gateway)
            assert (await post(gateway, speech(3.0))).status_code == 200
            assert_refused(await post(gateway, speech(4.0)), 400, "file", "longer than 3 seconds")

    async def test_other_methods(self, gateway: Gateway) -> None:
        for path in (PATH, TRANSLATIONS):
            answer = await gateway.client.get(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_long_json_answer_begins_with_blanks(tmp_path: Path, engine: ScriptedEngine) -> None:
    async with running(tmp_path, engine, answer_pulse=0.05) as gateway:
        await ready(gateway)
        engine.script = Script(pause=0.3)
        answer = await post(gateway)
        assert answer.text.startswith(" ")
        assert answer.json()["text"] == "hello world"
        text = await post(gateway, response_format="text")
        assert text.text == "hello world\n"


@pytest.mark.parametrize("name", ["hello_world_en", "weather_question_en", "reference_en", "zero_shot_prompt_zh"])
async def test_people_s_recordings(gateway: Gateway, engine: ScriptedEngine, name: str) -> None:
    path = SHARED_AUDIO / f"{name}.wav"
    if not path.exists():
        pytest.skip("no recordings here")
    found = (await post(gateway, path.read_bytes(), response_format="verbose_json")).json()
    assert engine.seen.asked
    assert all(0 <= one["start"] < one["end"] <= found["duration"] for one in found["segments"])


@pytest.mark.parametrize("fields", [{"stream": "true"}, {"response_format": "text"}])
async def test_a_client_that_reads_nothing_is_left(
    tmp_path: Path, engine: ScriptedEngine, fields: dict[str, str]
) -> None:
    async with running(tmp_path, engine, client_idle_timeout=0.3) as gateway:
        await ready(gateway)
        engine.script = Script(text="x " * 6_000_000)
        request = httpx.Request("POST", gateway.url + PATH, data=fields, files={"file": upload()})
        body = request.read()
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(f"{head}content-type: {request.headers['content-type']}\r\n\r\n".encode() + body)
        async with asyncio.timeout(20):
            while not engine.seen.finished:
                await asyncio.sleep(0.01)
            await gateway.idle(15)
        writer.close()
