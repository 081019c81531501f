"""The recognition protocol: languages by any name, hotwords, and answers of which nothing is believed unread."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.funasr_http import (
    LANGUAGES,
    code_of,
    error,
    hotwords_of,
    name_of,
    read_error,
    read_result,
    result,
)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("中文", "zh"),
        ("zh", "zh"),
        (" ZH-CN ", "zh"),
        ("Mandarin", "zh"),
        ("英文", "en"),
        ("English", "en"),
        ("粤语", "yue"),
        ("日语", "ja"),
        ("Klingon", "klingon"),
        ("", ""),
    ],
)
def test_a_language_is_known_by_every_name_callers_use(written: str, code: str) -> None:
    assert code_of(written) == code


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_code_becomes_the_name_that_engines_expect_and_comes_back(code: str) -> None:
    assert code_of(name_of(code)) == code


def test_no_name_stands_for_two_languages() -> None:
    names = [name for code, others in LANGUAGES.items() for name in (code, *others)]
    assert len(names) == len(set(names))


def test_a_code_without_a_name_is_passed_on() -> None:
    assert name_of("xx") == "xx"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        (" , ,，", ()),
        ("通义千问", ("通义千问",)),
        ("a, b,,c ", ("a", "b", "c")),
        ("一，二、三\n四", ("一", "二", "三", "四")),
        ("New York, Rome", ("New York", "Rome")),
    ],
)
def test_hotwords_are_words_between_commas_of_any_kind(text: str, words: tuple[str, ...]) -> None:
    assert hotwords_of(text) == words


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_result_is_read_back(text: str, language: str) -> None:
    assert read_result(result(text, language)) == (text, language, ())


def test_a_result_has_what_clients_of_this_protocol_read() -> None:
    assert json.loads(result("你好", "中文")) == {"text": "你好", "language": "中文", "success": True}
    assert "你好" in result("你好", "中文").decode(), "readable, not escaped"


def test_an_engine_that_names_no_language_names_none() -> None:
    assert read_result(b'{"text": "hi"}') == ("hi", "", ())
    assert read_result(b'{"text": "hi", "language": null}') == ("hi", "", ())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"text": 1}',
        b'{"text": null}',
        b"{",
        b"\xff\xfe",
        b"<html>",
        b"[" * 100_000,
    ],
)
def test_junk_is_no_result(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_result(body)


@given(st.binary())
def test_any_bytes_are_a_result_or_a_value_error(body: bytes) -> None:
    try:
        text, language, _ = read_result(body)
    except ValueError:
        return
    assert isinstance(text, str)
    assert isinstance(language, str)


def test_an_error_is_read_back() -> None:
    assert json.loads(error("坏")) == {"error": "坏", "success": False}
    assert read_error(error("no audio")) == "no audio"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": "a\\n b"}', "a b"),
        (b'{"message": "m"}', "m"),
        (b'{"detail": [{"msg": "x"}]}', "[{'msg': 'x'}]"),
        (b"{}", ""),
        (b"", ""),
        (b"Internal\r\nServer Error", "Internal Server Error"),
        (b"null", "null"),
        (b'["a"]', '["a"]'),
    ],
)
def test_what_another_status_says_is_one_line(body: bytes, says: str) -> None:
    assert read_error(body) == says


@given(st.binary(max_size=2000))
def test_what_any_bytes_say_is_short_and_one_line(body: bytes) -> None:
    says = read_error(body)
    assert len(says) <= 500
    assert "\n" not in says


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 100_000])
def test_nesting_without_end_says_nothing_dangerous(body: bytes) -> None:
    assert len(read_error(body)) <= 500


def test_when_each_word_was_said_is_read_back_and_none_given_is_not_none_said() -> None:
    times = [("天", 0.25, 0.5), ("气", 0.5, 1.0)]
    assert read_result(result("天气", "中文", times)) == ("天气", "中文", times)
    assert b"timestamps" not in result("天气", "中文")
    assert json.loads(result("", "中文", []))["timestamps"] == []


@pytest.mark.parametrize("found", [b'[{"token": "a"}]', b"[1]", b'[{"token": "a", "start_time": "x", "end_time": 1}]'])
def test_times_that_are_none_are_not_believed(found: bytes) -> None:
    with pytest.raises(ValueError, match="timestamps"):
        read_result(b'{"text": "a", "timestamps": ' + found + b"}")


def test_hotwords_may_be_a_json_list() -> None:
    assert hotwords_of('["阿里, 云", " 天气 ", ""]') == ("阿里, 云", "天气")
    assert hotwords_of("[a, b") == ("[a", "b")


def test_half_a_character_does_not_get_further() -> None:
    assert read_result(b'{"text": "a\\ud800", "language": "\\udfff"}') == ("a?", "?", ())
    assert read_error(b'{"error": "a\\ud800"}') == "a?"


@pytest.mark.parametrize("time", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, '"soon"', "null"])
def test_a_time_that_is_none_is_a_value_error(time: str) -> None:
    with pytest.raises(ValueError, match="timestamps that are none"):
        read_result(f'{{"text": "a", "timestamps": [{{"token": "a", "start_time": {time}, "end_time": 1}}]}}'.encode())
