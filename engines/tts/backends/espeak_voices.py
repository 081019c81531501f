"""Every language that espeak-ng speaks, brought to a pitch and a pace.

espeak's pitch is a figure from 0 to 100 on a scale of its own, and its pace is words per minute of a language it does
not name: what they come to in Hz and in syllables is measured, per voice, the first time a reference asks for it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.tts.backends.espeak import Espeak
from engines.tts.backends.manner import Manner
from engines.tts.prosody import Prosody, measure

_NORMAL_PITCH, _NORMAL_PACE = 50.0, 175.0
_PITCHES = (0.0, 25.0, 50.0, 75.0, 99.0)
_TIMES_NATURAL = (0.66, 0.80, 1.0, 1.28, 1.66)
"""Median F0 at each of _PITCHES over that at 50, measured: within 4 % of this for m3 and f3, in four languages."""

_SAMPLES = {
    "cmn": "我们下午三点在图书馆门口见面，不要迟到。人工智能正在改变我们的生活方式。",
    "yue": "我哋下晝三點喺圖書館門口見面。今日天氣好好。",
    "ja": "きょうは とても いい てんき ですね。これから さんぽに いきませんか。",
    "ko": "오늘은 날씨가 아주 좋습니다. 같이 공원에 산책하러 갈까요?",
    "en-us": "We are going to the park this afternoon, would you like to come? The weather is very nice today.",
    "ru": "Сегодня очень хорошая погода, пойдём в парк. Искусственный интеллект меняет нашу жизнь.",
    "fr": "Bonjour, je voudrais un billet de train pour Paris, s'il vous plaît.",
    "de": "Guten Tag, ich hätte gerne eine Fahrkarte nach Berlin.",
    "es": "Buenos días, quisiera un billete de tren para Madrid.",
    "it": "Buongiorno, vorrei un biglietto del treno per Roma.",
    "pt": "Bom dia, queria um bilhete de comboio para Lisboa.",
    "vi": "Xin chào, hôm nay thời tiết rất đẹp.",
    "ar": "مرحبا، الطقس جميل جدا اليوم.",
    "hi": "नमस्ते, आज मौसम बहुत अच्छा है।",
    "th": "สวัสดีครับ วันนี้อากาศดีมาก",
}
_ANY_LANGUAGE = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
"""Which every voice can read: right for its pitch, and a rough guess at its pace."""


class EspeakVoices:
    def __init__(self, espeak: Espeak) -> None:
        self._espeak = espeak
        self._measured: dict[tuple[str, float], Prosody] = {}
        self.sample_rate = espeak.sample_rate

    def say(self, text: str, language: str, manner: Manner, stopped: Callable[[], bool]) -> NDArray[np.int16]:
        """`text`, all of it in `language`."""
        voice = f"{language}+{manner.variant}"
        pitch = self._pitch(voice, manner.f0)
        # At the nearest pitch that is measured: a higher voice has more nuclei counted at the same pace.
        nearest = min(_PITCHES, key=lambda measured: abs(measured - pitch))
        pace = manner.pace(self._own(voice, nearest).rate) if manner.rate else manner.speed
        return self._espeak.say(text, voice, _NORMAL_PACE * pace, pitch, stopped)

    def _pitch(self, voice: str, f0: float) -> float:
        """espeak's figure for `f0` Hz; its normal one for 0."""
        own = self._own(voice, _NORMAL_PITCH).f0 if f0 else 0.0
        return float(np.interp(f0 / own, _TIMES_NATURAL, _PITCHES)) if own else _NORMAL_PITCH

    def _own(self, voice: str, pitch: float) -> Prosody:
        """What a voice does of its own accord at one of _PITCHES."""
        if (voice, pitch) not in self._measured:
            text = _SAMPLES.get(voice.partition("+")[0], _ANY_LANGUAGE)
            said = self._espeak.say(text, voice, _NORMAL_PACE, pitch, lambda: False)
            self._measured[voice, pitch] = measure(np.divide(said, 32_768, dtype=np.float32), self.sample_rate)
        return self._measured[voice, pitch]
