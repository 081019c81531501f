import pytest

from engines.asr.backends import Heard, Spoken

pytestmark = pytest.mark.engine

families = pytest.importorskip("engines.asr.backends.funasr_families")


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        ([], ""),
        (["", "你好", "", "世界"], "你好世界"),
        (["hello", "world."], "hello world."),
        (["你好。", "Hello", "世界"], "你好。Hello世界"),
        (["こんにちは", "カナ"], "こんにちはカナ"),
        (["안녕하세요", "여러분"], "안녕하세요 여러분"),
    ],
)
def test_texts_stand_apart_where_their_script_wants_it(texts: list[str], whole: str) -> None:
    assert families.joined(texts) == whole


def test_times_of_a_clip_become_those_of_the_recording() -> None:
    heard = Heard("a b", "en", (Spoken("a", 0.1, 0.2), Spoken("b", 0.3, 0.4)))
    assert families.later(heard, 2.0) == Heard("a b", "en", (Spoken("a", 2.1, 2.2), Spoken("b", 2.3, 2.4)))


@pytest.mark.parametrize(
    ("result", "text", "words"),
    [
        ({"text": "今 天 很 好", "timestamp": [[0, 1], [1, 2], [2, 3], [3, 4]]}, "今天很好", "今 天 很 好"),
        ({"text": "今天", "timestamp": [[0, 1], [1, 2]]}, "今天", "今 天"),
        ({"text": "说 hello world 吧", "timestamp": [[0, 1]] * 4}, "说hello world吧", "说 hello world 吧"),
        ({"text": "今 天", "timestamp": [[0, 1]] * 3}, "今天", ""),
        ({"text": "今天"}, "今天", ""),
        ({"text": "", "timestamp": []}, "", ""),
    ],
)
def test_paraformers_times_belong_to_its_words_or_are_left_out(
    result: dict[str, object], text: str, words: str
) -> None:
    heard = families._timed(result)
    assert heard.text == text
    assert [word.text for word in heard.words] == words.split()


def test_sensevoices_tags_are_taken_off() -> None:
    tagged = "<|yue|><|HAPPY|><|Speech|><|withitn|>你好。<|en|><|NEUTRAL|>Hello."
    assert families._tagged(tagged) == Heard("你好。Hello.", "yue")
    assert families._tagged("<|nospeech|><|EMO_UNKNOWN|><|BGM|><|woitn|>") == Heard("", "")
