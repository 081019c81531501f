"""FunASR's WebSocket protocol: what clients of every kind write is read, what nobody may write is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.funasr_2pass import (
    Config,
    End,
    Ended,
    Fault,
    Kind,
    Mode,
    Result,
    config,
    end,
    ended,
    fault,
    packet_bytes,
    read_client,
    read_engine,
    result,
)

TEXT = st.text(st.characters(codec="utf-8"))
WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=64)


def read(**fields: Any) -> Config:
    found = read_client(json.dumps(fields), Config())
    assert isinstance(found, Config)
    return found


class TestConfig:
    @given(
        st.builds(
            Config,
            mode=st.sampled_from(Mode),
            name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=256),
            rate=st.integers(8000, 48000),
            chunk=st.sampled_from([(5, 10, 5), (8, 8, 4), (0, 10, 5)]),
            hotwords=st.lists(WORD, max_size=5, unique=True).map(tuple),
            itn=st.booleans(),
            language=st.sampled_from(["", "zh", "en", "yue"]),
        )
    )
    def test_it_is_read_back(self, asked: Config) -> None:
        assert read_client(config(asked), Config()) == asked

    def test_it_has_what_upstream_reads(self) -> None:
        assert json.loads(config(Config(name="call", hotwords=("阿里巴巴", "New York")))) == {
            "mode": "2pass",
            "wav_name": "call",
            "wav_format": "pcm",
            "is_speaking": True,
            "chunk_size": [5, 10, 5],
            "chunk_interval": 10,
            "encoder_chunk_look_back": 4,
            "decoder_chunk_look_back": 1,
            "audio_fs": 16000,
            "itn": True,
            "hotwords": '{"阿里巴巴": 20, "New York": 20}',
        }

    def test_a_frame_of_audio_is_60_ms(self) -> None:
        assert packet_bytes(Config()) == 1920
        assert packet_bytes(Config(rate=8000)) == 960
        assert packet_bytes(Config(chunk=(8, 8, 4))) == 1536

    def test_what_upstream_shows_in_its_documents_is_read(self) -> None:
        frame = """{"mode": "2pass", "wav_name": "wav_name", "is_speaking": true, "wav_format":"pcm",
            "chunk_size":[5,10,5], "hotwords":"{\\"阿里巴巴\\":20,\\"通义实验室\\":30}","itn":true}"""
        found = read_client(frame, Config())
        assert found == Config(name="wav_name", hotwords=("阿里巴巴", "通义实验室"))

    @pytest.mark.parametrize(
        ("written", "words"),
        [
            ('{"阿里巴巴": 20, "New York": 1}', ("阿里巴巴", "New York")),
            ("阿里巴巴 通义实验室", ("阿里巴巴", "通义实验室")),
            (["阿里巴巴", "New York", " "], ("阿里巴巴", "New York")),
            ({"阿里巴巴": 20}, ("阿里巴巴",)),
            ("", ()),
            ("{}", ()),
            ("a a b", ("a", "b")),
            ("阿里巴巴,通义实验室，a", ("阿里巴巴", "通义实验室", "a")),
        ],
    )
    def test_hotwords_come_in_every_way_that_is_in_use(self, written: object, words: tuple[str, ...]) -> None:
        assert read(hotwords=written).hotwords == words

    def test_what_a_later_frame_does_not_name_stays(self) -> None:
        before = Config(mode=Mode.ONLINE, name="a", rate=8000, hotwords=("x",), itn=False, language="zh")
        assert read_client('{"is_speaking": true, "hotwords": "y"}', before) == Config(
            mode=Mode.ONLINE, name="a", rate=8000, hotwords=("y",), itn=False, language="zh"
        )

    @pytest.mark.parametrize(("written", "code"), [("auto", ""), ("", ""), ("zh", "zh"), ("英文", "en"), ("EN", "en")])
    def test_a_language_is_known_by_every_name_callers_use(self, written: str, code: str) -> None:
        assert read(svs_lang=written).language == code

    def test_numbers_may_be_written_as_command_lines_have_them(self) -> None:
        found = read(audio_fs="8000", chunk_size="8, 8,4")
        assert (found.rate, found.chunk) == (8000, (8, 8, 4))

    @pytest.mark.parametrize(("written", "form"), [("pcm", "pcm"), ("PCM", "pcm"), ("", "pcm"), ("others", "others")])
    def test_the_form_of_the_audio_is_any_name(self, written: str, form: str) -> None:
        assert read(wav_format=written).form == form

    def test_a_name_is_cut_to_what_may_be_repeated(self) -> None:
        assert read(wav_name="x" * 1000).name == "x" * 256

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"mode": "3pass"}, "mode must be one of offline, online, 2pass"),
            ({"mode": None}, "mode must be"),
            ({"audio_fs": 7999}, "audio_fs must be a whole number from 8000 to 48000"),
            ({"audio_fs": 48001}, "audio_fs"),
            ({"audio_fs": "16k"}, "audio_fs"),
            ({"audio_fs": True}, "audio_fs"),
            ({"chunk_size": [5, 10]}, "chunk_size must be three whole numbers"),
            ({"chunk_size": [5, 0, 5]}, "chunk_size"),
            ({"chunk_size": [5, 10**9, 5]}, "chunk_size"),
            ({"chunk_size": "5,10"}, "chunk_size"),
            ({"chunk_size": "5,ten,5"}, "chunk_size"),
            ({"encoder_chunk_look_back": 1e9}, "encoder_chunk_look_back"),
            ({"is_speaking": "true"}, "is_speaking must be true or false"),
            ({"itn": 1}, "itn must be true or false"),
            ({"hotwords": 5}, "hotwords must be text"),
            ({"hotwords": "{'a': 20}"}, "must be JSON"),
            ({"hotwords": "x" * 65}, "at most 1000 hotwords of at most 64 characters"),
            ({"hotwords": [str(number) for number in range(1001)]}, "at most 1000"),
        ],
    )
    def test_what_cannot_be_is_refused_in_words(self, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            read(**fields)

    @pytest.mark.parametrize("frame", ["", "null", "[]", "{", "START", "[" * 100_000, "\ud800", "x" * 600_000])
    def test_junk_is_refused(self, frame: str) -> None:
        with pytest.raises(ValueError, match="text frame"):
            read_client(frame, Config())

    @given(st.dictionaries(st.sampled_from([*json.loads(config(Config())), "hotwords", "is_end"]), st.integers()))
    def test_any_values_are_read_or_refused(self, fields: dict[str, int]) -> None:
        try:
            read_client(json.dumps(fields), Config())
        except ValueError as exc:
            assert str(exc)


def test_hotwords_are_plain_words_for_upstreams_python_server() -> None:
    assert (
        json.loads(config(Config(hotwords=("阿里巴巴", "Voxgate")), plain_hotwords=True))["hotwords"]
        == "阿里巴巴 Voxgate"
    )


class TestEnd:
    def test_it_may_name_what_follows(self) -> None:
        assert json.loads(end(ack=False, name="last")) == {"is_speaking": False, "wav_name": "last"}

    def test_it_asks_for_an_ack_or_not(self) -> None:
        assert read_client(end(), Config()) == End(ack=True)
        assert read_client(end(ack=False), Config()) == End(ack=False)
        assert json.loads(end(ack=False)) == {"is_speaking": False}


class TestAnswers:
    @given(st.builds(Result, kind=st.sampled_from(Kind), text=TEXT, name=st.just("call"), final=st.booleans()))
    def test_a_result_is_read_back(self, said: Result) -> None:
        assert read_engine(result(said)) == said

    def test_times_are_read_back(self) -> None:
        said = Result(Kind.SECOND_PASS, "你好", "call", True, 270, 3210)
        assert read_engine(result(said)) == said

    def test_a_result_has_what_clients_read(self) -> None:
        assert json.loads(result(Result(Kind.FIRST_PASS, "你好", "call"))) == {
            "mode": "2pass-online",
            "text": "你好",
            "wav_name": "call",
            "is_final": False,
        }
        assert "你好" in result(Result(Kind.FIRST_PASS, "你好")), "readable, not escaped"

    @pytest.mark.parametrize("said", [Ended("2pass", "call"), Ended("2pass", "call", "too slow"), Fault("too slow")])
    def test_ends_and_faults_are_read_back(self, said: Ended | Fault) -> None:
        assert read_engine((ended if isinstance(said, Ended) else fault)(said)) == said  # type: ignore[operator]

    def test_the_ack_is_upstreams(self) -> None:
        assert json.loads(ended(Ended("2pass", "call"))) == {
            "mode": "2pass",
            "wav_name": "call",
            "is_final": True,
            "is_end": True,
        }

    def test_an_ack_that_is_not_final_is_a_failure(self) -> None:
        said = read_engine('{"mode": "2pass", "wav_name": "x", "is_final": false, "is_end": true}')
        assert isinstance(said, Ended)
        assert said.error

    def test_what_upstream_adds_is_left_aside(self) -> None:
        frame = """{"mode": "2pass-offline", "text": "你好。", "wav_name": "w", "is_final": true, "spk_name": "a",
            "timestamp": "[[100,200],[200,500]]", "stamp_sents": [{"text_seg": "你 好", "punc": "。", "start": 100}]}"""
        words = (("你", 100, 200), ("好", 200, 500))
        assert read_engine(frame) == Result(Kind.SECOND_PASS, "你好。", "w", True, words=words)

    def test_the_last_answer_of_the_c_plus_plus_server_may_have_no_mode(self) -> None:
        frame = '{"text": "", "wav_name": "w", "is_final": true, "timestamp": 1712345678901}'
        assert read_engine(frame) == Result(Kind.ONLINE, "", "w", True)

    @pytest.mark.parametrize("frame", ["", "null", "[]", "{}", '{"text": "x"}', '{"mode": "third"}', "{" * 100_000])
    def test_junk_is_no_answer(self, frame: str) -> None:
        with pytest.raises(ValueError):
            read_engine(frame)

    @given(st.text())
    def test_any_text_is_an_answer_or_a_value_error(self, frame: str) -> None:
        try:
            read_engine(frame)
        except ValueError:
            return

    def test_half_a_character_does_not_get_further(self) -> None:
        said = read_engine('{"mode": "online", "text": "a\\ud800"}')
        assert isinstance(said, Result)
        assert said.text == "a?"
