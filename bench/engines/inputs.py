"""What the engines are asked: 16 sentences of 26 characters, and 16 clips of 4 to 7 seconds at 22050 Hz."""

from functools import cache
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from engines.tts.backends.espeak import Espeak
from gateway.wire import wav

SENTENCES = (
    "今天下午三点钟我们在公司二楼的大会议室里讨论新的计划",
    "请你帮我查一下从上海到北京明天早上最早的那一班火车票",
    "图书馆旁边新开了一家小小的咖啡店那里的蛋糕真的很好吃",
    "孩子们在公园里放风筝老人们坐在树下一边喝茶一边下象棋",
    "如果明天不下雨的话我们就骑自行车去郊外的湖边好好玩玩",
    "他花了整整三年的时间才把这本厚厚的外国小说翻译成中文",
    "医生建议她每天早睡早起多吃蔬菜和水果还要坚持散步锻炼",
    "这条路正在修理请各位司机朋友注意安全并且从旁边绕道走",
    "春天来了山坡上的桃花都开了远远看去好像一片粉红的云彩",
    "学校决定下个星期五举办运动会请同学们提前做好准备工作",
    "我昨天晚上在电影院看了一部非常感人的电影回家已经很晚",
    "请把空调的温度调到二十六度然后打开客厅里的灯放点音乐",
    "他每个周末都会去看望住在乡下的爷爷奶奶并且帮他们干活",
    "这家工厂今年引进了许多新的机器生产效率提高了将近一倍",
    "由于天气的原因您乘坐的航班将推迟两个小时左右起飞谢谢",
    "科学家们发现这种生活在深海里的小鱼会发出蓝色的微弱光",
)
"""Without a mark in them, so that none is split."""
RATE = 22_050
"""Hz, of the clips."""
SECONDS = (4.0, 7.0)
LIVE_RATE = 16_000
"""Hz, of what is said live."""
PAUSE = 1.0
_UTTERANCES = 3

Clip = NDArray[np.int16]


@cache
def clips() -> tuple[Clip, ...]:
    """One for each sentence, of lengths spread over SECONDS."""
    import espeakng_loader

    espeak = Espeak(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))
    assert espeak.sample_rate == RATE
    return tuple(_said(espeak, text, at) for at, text in enumerate(SENTENCES))


def seconds(clip: Clip) -> float:
    return len(clip) / RATE


def recording(clip: Clip) -> bytes:
    """The clip as a WAV file."""
    return wav.header(RATE, len(clip)) + clip.astype("<i2").tobytes()


def live(number: int) -> bytes:
    """s16le at LIVE_RATE: utterances with pauses between them, the last one cut off as it ends."""
    pause = np.zeros(round(PAUSE * RATE), np.int16)
    parts: list[Clip] = []
    for at in range(_UTTERANCES):
        parts += [pause, clips()[(number + at) % len(SENTENCES)]]
    resampled = soxr.resample(np.concatenate(parts).astype(np.float32) / 32768, RATE, LIVE_RATE)
    return bytes((np.clip(resampled, -1, 1) * 32767).astype("<i2").tobytes())


# Private


def _said(espeak: Espeak, text: str, at: int) -> Clip:
    """At the speed that makes it as long as it is to be."""
    shortest, longest = SECONDS
    wanted = shortest + 0.4 + (longest - shortest - 0.8) * at / (len(SENTENCES) - 1)
    said = espeak.say(text, "cmn", 160, 50, lambda: False)
    said = espeak.say(text, "cmn", 160 * len(said) / RATE / wanted, 50, lambda: False)
    return said[: round(longest * RATE)]
