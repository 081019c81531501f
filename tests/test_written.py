import asyncio
import threading

import pytest

from gateway import written


class TestFigures:
    @pytest.mark.parametrize(
        ("said", "figures"),
        [
            ("", ""),
            ("今天天气很好。", "今天天气很好。"),
            ("百分之五十", "50%"),
            ("一会儿见，一个人。", "一会儿见，一个人。"),
            ("他有一百二十三块钱。", "他有123块钱。"),
            ("二零二六年十一月二十日下午三点四十五分", "2026/11/20 3:45p.m."),
            ("我有 two cats，电话是一三八零零一三八零零零", "我有 two cats，电话是13800138000"),
            ("i have twenty three dollars, and you?", "i have $23, and you?"),
            ("It is five thirty p.m.", "It is 05:30 p.m."),
            ("don't stop", "don't stop"),
            ('say "twenty dollars" and C:\\twenty {x}', 'say "$20" and C:\\20 {x}'),
            (" 二十\n三十 ", " 20\n30 "),
            ("。，!? …", "。，!? …"),
            ("🎉", "🎉"),
        ],
    )
    async def test_numbers_are_written_in_figures_and_nothing_else_changes(self, said: str, figures: str) -> None:
        assert await written.in_figures(said) == figures

    async def test_a_text_of_any_length_keeps_its_words(self) -> None:
        words = ["word"] * 400 + ["twenty dollars"] + ["word"] * 400
        assert (await written.in_figures(" ".join(words))).split() == ["word"] * 400 + ["$20"] + ["word"] * 400
        assert await written.in_figures("好" * 5000) == "好" * 5000

    async def test_the_event_loop_does_not_wait_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gone_on = threading.Event()

        class Slow:
            def normalize(self, text: str) -> str:
                assert gone_on.wait(10)
                return text

        monkeypatch.setattr(written, "_grammar", lambda language: Slow())
        working = asyncio.create_task(written.in_figures("二十"))
        await asyncio.sleep(0)
        assert not working.done()
        gone_on.set()
        assert await working == "二十"

    async def test_where_the_grammars_fail_the_text_stays_as_it_was_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(language: str) -> object:
            raise ImportError("no wetext")

        monkeypatch.setattr(written, "_grammar", missing)
        written.prepare()
        assert await written.in_figures("百分之五十") == "百分之五十"


@pytest.mark.parametrize(
    ("said", "bare"),
    [
        ("", ""),
        ("你好，世界。", "你好世界"),
        ("Hello, world! How are you?", "Hello world How are you"),
        ("It's 3.5 kg, 1,000 times at 5:30.", "It's 3.5 kg 1,000 times at 5:30"),
        ("don’t 'quote' me", "don’t quote me"),
        ("温度-5℃~10℃，涨了50%。", "温度-5℃ 10℃ 涨了50%"),
        ("你好,world。再见", "你好 world 再见"),
        ("see example.com.", "see example.com"),
        ("约翰·史密斯", "约翰·史密斯"),
        ("好的.谢谢", "好的谢谢"),
        ("well-known… and/or", "well-known and/or"),
        ("¿Qué? ¡Sí!", "Qué Sí"),
        ("...", ""),
    ],
)
def test_without_punctuation_words_and_numbers_stay_whole(said: str, bare: str) -> None:
    assert written.plain(said) == bare


@pytest.mark.parametrize(
    ("said", "smooth"),
    [
        ("嗯，今天天气很好", "今天天气很好"),
        ("我呃想去公园", "我想去公园"),
        ("额，多少钱", "多少钱"),
        ("额度是多少啊", "额度是多少啊"),
        ("Um, I want uh a lamp", "I want a lamp"),
        ("the umbrella and er her hammer", "the umbrella and her hammer"),
        ("5 mm", "5 mm"),
        ("", ""),
    ],
)
def test_without_fillers_words_stay(said: str, smooth: str) -> None:
    assert written.fluent(said) == smooth
