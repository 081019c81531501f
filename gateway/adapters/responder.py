"""Replies without any model: the same ones every time, short, in English or Chinese as they are asked.

It repeats, counts, and tells the time and what it can do; what it does not understand it gives back. So the whole way
from speech to speech can be heard and tested with nothing else installed.
"""

import re
import unicodedata
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from gateway.adapters import responder_sums as sums
from gateway.memory import Asked, Call, Message, Role

_LONGEST = 500
"""Characters of a question that it looks at for what is wanted; it repeats all of it."""
_PUNCTUATION = re.compile(r"(?<!\d)[.,:]+|[.,:]+(?!\d)|[!?。！？…，、;；：\"“”]+")
_POLITE = re.compile(
    r"^(?:(?:please|can you|could you|would you|hey|okay|ok|so|well)\b[\s,]*|请问|请|麻烦)+", re.IGNORECASE
)
_SUM = re.compile(
    r"^(?:what is|what s|what's|whats|how much is|how much are|calculate|compute)?\s*"
    r"(.+?)\s*(?:(?:is|equals|makes?)(?: what)?)?$"
)
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|[。！？]|$)\s*", re.DOTALL)
_SUM_ZH = re.compile(r"^(?:计算|算一下|算算)?(.+?)(?:等于几|等于多少|是多少|得多少|得几|是几)?$")
_REPEAT = re.compile(r"^(?:repeat after me|repeat|say after me|say|echo)\b[\s,:]*(.+)$", re.IGNORECASE | re.DOTALL)
_REPEAT_ZH = re.compile(r"^(?:请)?(?:跟我说|跟我读|重复一下|重复|说)[\s，,：:]*(.+)$", re.DOTALL)


class Responder:
    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now().astimezone()) -> None:
        self._now = now

    @asynccontextmanager
    async def reply(self, asked: Asked) -> AsyncIterator[AsyncIterator[str | Call]]:
        yield _Pieces(answer(asked.messages, self._now()))


class _Pieces:
    """One sentence at a time."""

    def __init__(self, text: str) -> None:
        self._pieces: deque[str] = deque(_SENTENCE.findall(text))

    def __aiter__(self) -> AsyncIterator[str | Call]:
        return self

    async def __anext__(self) -> str | Call:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.popleft()


def answer(messages: Sequence[Message], now: datetime) -> str:
    """The reply to the last of `messages`; a greeting where nobody has said anything. now: with its time zone."""
    said = next((one.text for one in reversed(messages) if one.role is Role.USER), "").strip()
    said = said.rsplit("\n", 1)[-1].strip()
    if not said:
        return _SAID["hello"]
    begun = unicodedata.normalize("NFKC", said[:_LONGEST])[:_LONGEST]
    words = _POLITE.sub("", " ".join(_PUNCTUATION.sub(" ", begun).lower().split()))
    earlier = [one.text for one in messages[:-1] if one.role is Role.USER]
    chinese = any("\u4e00" <= letter <= "\u9fff" for letter in said)
    return _chinese(said, words, earlier, now) if chinese else _english(said, words, earlier, now)


# Private

_ENGLISH = (
    (r"\bhelp\b|what can (you|i) (do|say|ask)|who are you|what are you", "help"),
    (r"what did i (just )?say|what i said|do you remember", "before"),
    (r"\bwhat(s|'s| s)?\b.*\b(date|day is|day today|todays|today's)\b|^date$|\bday is (it|today)\b", "date"),
    (r"\bwhat(s|'s| s)?\b.*\btime\b|\btime is it\b|\bthe time\b|^time$", "time"),
    (r"\b(weather|raining|sunny|forecast|temperature outside)\b", "weather"),
    (r"\bhow are you\b|how do you do", "well"),
    (r"\b(thanks|thank you)\b", "welcome"),
    (r"\b(goodbye|good bye|bye|see you|good night)\b", "goodbye"),
    (r"^(hello|hi|hey|good (morning|afternoon|evening)|greetings)\b", "hello"),
)
_SAID = {
    "help": "I can repeat what you say. I can tell the time and the date. I can add, subtract, multiply and divide. "
    "Try: what is two plus three?",
    "weather": "I cannot look outside. I am a small program with no connection. "
    "But I can tell you the time, or do arithmetic for you.",
    "well": "I am fine, thank you. How can I help you?",
    "welcome": "You are welcome.",
    "goodbye": "Goodbye. It was nice to talk to you.",
    "hello": "Hello. How can I help you?",
    "nothing": "This is the first thing that you have said.",
}
_CHINESE = (
    ("帮助|你能做什么|你会做什么|你会什么|你是谁|怎么用", "help"),
    ("我刚才说|我刚刚说|我说了什么|还记得", "before"),
    ("星期几|几号|日期|几月|礼拜几|今天是", "date"),
    ("几点|时间", "time"),
    ("天气|下雨|气温", "weather"),
    ("谢谢|感谢", "welcome"),
    ("再见|拜拜|晚安", "goodbye"),
    ("^(你好|您好|早上好|下午好|晚上好|嗨)", "hello"),
)
_SAID_ZH = {
    "help": "我可以重复你说的话。我可以告诉你时间和日期。我会加减乘除。你可以问：二加三等于几？",
    "weather": "我看不到外面的天气。我只是一个没有联网的小程序。不过我可以告诉你时间，或者帮你算术。",
    "welcome": "不客气。",
    "goodbye": "再见，很高兴和你说话。",
    "hello": "你好，我能帮你什么？",
    "nothing": "这是你说的第一句话。",
}
_DAYS_ZH = "一二三四五六日"


def _english(said: str, words: str, earlier: Sequence[str], now: datetime) -> str:
    if repeat := _REPEAT.match(_POLITE.sub("", said)):
        return _sentence(repeat[1])
    if (found := _SUM.match(words)) and (result := _sum(found[1], sums.ENGLISH)):
        return result
    match _kind(words, _ENGLISH):
        case "time":
            return f"It is {now:%H:%M} {now:%Z}."
        case "date":
            return f"Today is {now:%A}, {now:%B} {now.day}, {now.year}."
        case "before" if earlier:
            return f"Before that you said: {_sentence(earlier[-1])}"
        case "before":
            return _SAID["nothing"]
        case "":
            return f"You said: {_sentence(said)}"
        case kind:
            return _SAID[kind]


def _chinese(said: str, words: str, earlier: Sequence[str], now: datetime) -> str:
    if repeat := _REPEAT_ZH.match(said):
        return repeat[1]
    if (found := _SUM_ZH.match(words)) and (result := _sum(found[1], sums.CHINESE)):
        return result
    match _kind(words, _CHINESE):
        case "time":
            return f"现在是{now.hour}点{now.minute}分。"
        case "date":
            return f"今天是{now.year}年{now.month}月{now.day}日，星期{_DAYS_ZH[now.weekday()]}。"
        case "before" if earlier:
            return f"你刚才说：{earlier[-1]}"
        case "before":
            return _SAID_ZH["nothing"]
        case "":
            return f"你说：{said}"
        case kind:
            return _SAID_ZH[kind]


def _kind(words: str, known: Sequence[tuple[str, str]]) -> str:
    return next((kind for pattern, kind in known if re.search(pattern, words)), "")


def _sum(text: str, language: sums.Language) -> str:
    """The sum and its result as a sentence; empty where it is none."""
    try:
        return language.told(text)
    except sums.NoSum:
        return ""
    except ZeroDivisionError:
        return language.by_zero


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text[-1:] in (*".!?。！？",) else f"{text}."
