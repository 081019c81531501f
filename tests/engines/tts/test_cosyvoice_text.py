import time

import pytest

from engines.tts.backends import cosyvoice_text


@pytest.mark.parametrize(
    ("sent", "language", "words"),
    [
        ("今天天气很好。", "", "今天天气很好。"),
        ("<|zh|>今天天气很好。", "zh", "今天天气很好。"),
        ("<|jp|>こんにちは", "ja", "こんにちは"),
        ("  <|EN|> hello", "en", "hello"),
        ("You are a helpful assistant.<|endofprompt|>hello", "", "hello"),
        ("You are a helpful assistant.<|endofprompt|><|en|>hello", "en", "hello"),
        ("hello <|im_start|> there", "", "hello   there"),
        ("a <| b", "", "a <  b"),
        ("[laughter] yes <strong>indeed</strong>", "", "[laughter] yes <strong>indeed</strong>"),
    ],
)
def test_of_control_only_a_language_tag_at_the_beginning_is_heard(sent: str, language: str, words: str) -> None:
    found = cosyvoice_text.words(sent)
    assert found[0] == language
    assert found[1].split() == words.split()


def test_a_transcript_loses_what_clients_write_before_it() -> None:
    assert cosyvoice_text.transcript("You are a helpful assistant.<|endofprompt|>你好") == "你好"
    assert cosyvoice_text.transcript("你好 <|zh|>") == "你好"


def test_an_instruction_loses_its_end_and_nothing_else() -> None:
    assert cosyvoice_text.instruction("用四川话说<|endofprompt|>") == "用四川话说"
    assert cosyvoice_text.instruction("happily <|im_end|>") == "happily"


def test_a_short_text_is_one_block() -> None:
    assert list(cosyvoice_text.blocks("你好。今天天气很好，我们去公园吧。")) == ["你好。 今天天气很好，我们去公园吧。"]


def test_no_block_is_longer_than_what_is_normalised_at_once() -> None:
    blocks = list(cosyvoice_text.blocks("The weather is nice today. " * 100))
    assert len(blocks) > 10
    assert max(map(len, blocks)) <= 200
    assert " ".join(blocks).split() == ("The weather is nice today. " * 100).split()


def test_a_sentence_without_an_end_is_cut_and_not_joined_again() -> None:
    blocks = list(cosyvoice_text.blocks("好" * 1_000))
    assert [len(block) for block in blocks] == [200] * 5


def test_the_first_block_costs_the_same_however_long_the_text_is() -> None:
    begun = time.thread_time()
    next(cosyvoice_text.blocks("今天天气很好。" * 14_000))
    assert time.thread_time() - begun < 0.05
