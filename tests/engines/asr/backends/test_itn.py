import pytest

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("", ""),
        ("今天天气很好。", "今天天气很好。"),
        ("百分之五十", "50%"),
        ("一会儿见，一个人", "一会儿见，一个人"),
        ("他有一百二十三块钱。", "他有123块钱。"),
        ("二零二六年十一月二十日下午三点四十五分", "2026/11/20 3:45p.m."),
        ("hello world", "hello world"),
    ],
)
def test_numbers_become_figures(spoken: str, written: str) -> None:
    pytest.importorskip("wetext")
    from engines.asr.backends import itn

    assert itn.written(spoken) == written
