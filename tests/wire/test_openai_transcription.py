"""OpenAI's form of a transcription as clients really send it, and its answers byte by byte."""

import json
from typing import Any

import pytest

from gateway.wire import openai_transcription as wire
from gateway.wire.openai_transcription_form import Asked, Format, Vad, WrongField, read

HELLO = wire.Segment("hello there", 0.5, 1.5, [("hello", 0.5, 1.0), ("there", 1.0, 1.5)], True, 0.25)
LATER = wire.Segment("you", 2.0, 2.5, [("you", 2.0, 2.5)], False, 1.75)


def asked(translate: bool = False, **given: Any) -> Asked:
    lists = {name: value for name, value in given.items() if isinstance(value, list)}
    fields = {name: value for name, value in given.items() if isinstance(value, str)}
    return read(fields, lists, translate=translate)


def event(data: bytes) -> dict[str, Any]:
    name, _, rest = data.partition(b"\ndata: ")
    assert rest.endswith(b"\n\n")
    found: dict[str, Any] = json.loads(rest)
    assert name == b"event: " + found["type"].encode()
    return found


class TestForm:
    def test_nothing_asked_is_json(self) -> None:
        assert asked() == Asked(Format.JSON, "", (), 0.0, words=False, segments=True, stream=False, vad=None)

    @pytest.mark.parametrize("name", ["timestamp_granularities", "timestamp_granularities[]"])
    def test_lists_are_written_with_and_without_brackets(self, name: str) -> None:
        found = asked(**{name: ["word"]})
        assert (found.words, found.segments) == (True, False)

    @pytest.mark.parametrize(
        ("given", "language"),
        [
            ({"language": "EN"}, "en"),
            ({"language": "chinese"}, "zh"),
            ({"language": "zh-CN"}, "zh"),
            ({"language": "auto"}, ""),
            ({"language": "sw"}, "sw"),
            ({"languages[]": ["ja"]}, "ja"),
            ({"languages[]": ["ja", "日语"]}, "ja"),
            ({"languages[]": ["ja", "en"]}, ""),
            ({"language": "en", "languages[]": ["ja"]}, "en"),
        ],
    )
    def test_language(self, given: dict[str, Any], language: str) -> None:
        assert asked(**given).language == language

    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            ("Voxgate, New York", ("Voxgate", "New York")),
            ("通义，千问、北京", ("通义", "千问", "北京")),
            ("Voxgate.", ("Voxgate",)),
            ("This is a long sentence about nothing that anybody would say. Kubernetes", ("Kubernetes",)),
            ("我们今天下午要去公园散步因为天气非常好。北京", ("北京",)),
            ("x" * 65, ()),
            ("v1.2, v1.2", ("v1.2",)),
        ],
    )
    def test_of_a_prompt_words_to_expect_are_taken(self, prompt: str, words: tuple[str, ...]) -> None:
        assert asked(prompt=prompt).hotwords == words

    @pytest.mark.parametrize(
        ("given", "vad"),
        [
            ({"chunking_strategy": "auto"}, None),
            ({"chunking_strategy": '{"type": "server_vad"}'}, Vad()),
            ({"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.7"}, Vad(threshold=0.7)),
            (
                {"chunking_strategy": '{"type":"server_vad","silence_duration_ms":250,"prefix_padding_ms":0}'},
                Vad(silence=0.25, padding=0.0),
            ),
            (
                {"chunking_strategy": '{"type":"server_vad","threshold":0,"silence_duration_ms":0}'},
                Vad(0.1, None, 0.01),
            ),
        ],
    )
    def test_how_to_listen(self, given: dict[str, str], vad: Vad | None) -> None:
        assert asked(**given).vad == vad

    @pytest.mark.parametrize("stream", ["true", "True", "1"])
    def test_a_translation_is_no_stream(self, stream: str) -> None:
        assert asked(stream=stream).stream
        assert not asked(stream=stream, translate=True).stream

    def test_what_is_wrong_is_named(self) -> None:
        with pytest.raises(
            WrongField, match="^chunking_strategy.silence_duration_ms: a number from 0 to 10000"
        ) as caught:
            asked(chunking_strategy='{"type":"server_vad","silence_duration_ms":10001}')
        assert caught.value.param == "chunking_strategy.silence_duration_ms"


class TestAnswers:
    @pytest.mark.parametrize(
        ("language", "name"),
        [
            ("en", "english"),
            ("英文", "english"),
            ("zh", "chinese"),
            ("yue", "cantonese"),
            ("sw", "sw"),
            ("", "unknown"),
        ],
    )
    def test_a_language_has_the_name_that_whisper_gives_it(self, language: str, name: str) -> None:
        assert wire.name_of(language) == name

    def test_json(self) -> None:
        assert json.loads(wire.result("你好", 1.23456, ["中文"])) == {
            "text": "你好",
            "languages": [{"code": "zh"}],
            "usage": {"type": "duration", "seconds": 1.235},
        }

    def test_verbose_json(self) -> None:
        wanted = asked(**{"timestamp_granularities[]": ["word", "segment"]})
        found = json.loads(wire.verbose(wanted, "transcribe", "hello there you", 3.0, "en", [HELLO, LATER]))
        assert found.keys() == {
            "task", "language", "duration", "text", "words", "segments", "timestamps", "usage",
        }  # fmt: skip
        assert found["timestamps"] == "estimated", "one of them is"
        assert found["words"][2] == {"word": "you", "start": 2.0, "end": 2.5}
        first, second = found["segments"]
        assert (first["timestamps"], second["timestamps"]) == ("engine", "estimated")
        assert (second["id"], second["seek"], second["start"], second["end"]) == (1, 175, 2.0, 2.5)
        assert 0 < first["compression_ratio"] < 1
        assert (first["tokens"], first["avg_logprob"], first["no_speech_prob"]) == ([], 0.0, 0.0)

    def test_events(self) -> None:
        assert event(wire.delta(" 你好\n")) == {"type": "transcript.text.delta", "delta": " 你好\n"}
        assert event(wire.segment(3, HELLO)) == {
            "type": "transcript.text.segment",
            "id": "seg_3",
            "speaker": "A",
            "start": 0.5,
            "end": 1.5,
            "text": "hello there",
            "timestamps": "engine",
        }
        usage = event(wire.done("hello there", 2.01))["usage"]
        assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (21, 3, 24)
