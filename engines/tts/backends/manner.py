"""How something is to be said, whichever library says it."""

import math
import re
from dataclasses import dataclass, replace

from engines.tts.languages import ENGLISH
from engines.tts.prosody import Prosody

_SLOWEST, _FASTEST = 0.6, 1.6
"""How far a reference may pull a voice from its natural pace and still be understood."""
_LOW_VOICE = 145.0
"""Hz; below it a reference is carried by a male variant of espeak's voices, which reach 64 to 160 Hz; the female ones
reach 110 to 310."""


@dataclass(frozen=True, slots=True)
class Manner:
    language: str
    """Read wherever the text is in its script."""
    variant: str
    """Of espeak's voices."""
    f0: float = 0.0
    """Hz to bring the voice to; 0 for its own."""
    rate: float = 0.0
    """Syllable nuclei per second to bring the voice to; 0 for its own."""
    speed: float = 1.0

    def pace(self, natural: float, response: float = 1.0) -> float:
        """How many times faster to speak than a voice that has `natural` nuclei per second of itself.

        response: the power of its pace that a voice's count of nuclei grows with.
        """
        if not self.rate or not natural:
            return self.speed
        pull = math.pow(self.rate / natural, 1 / response)
        return self.speed * min(max(pull, _SLOWEST), _FASTEST)


PRESETS = {
    "中文女": Manner("cmn", "f3"),
    "中文男": Manner("cmn", "m3"),
    "日语男": Manner("ja", "m3"),
    "粤语女": Manner("yue", "f3"),
    "英文女": Manner(ENGLISH, "f3", f0=205.0),
    "英文男": Manner(ENGLISH, "m3"),
    "韩语女": Manner("ko", "f3"),
}
"""The speakers of gateway.wire.cosyvoice.PRESETS."""


def like(reference: Prosody) -> Manner:
    """A manner that carries a reference's pitch and pace."""
    low = 0 < reference.f0 < _LOW_VOICE
    return Manner(ENGLISH, "m3" if low else "f3", f0=reference.f0, rate=reference.rate)


_SLOW = re.compile(r"慢|\bslow", re.IGNORECASE)
_FAST = re.compile(r"快(?![乐活感捷要])|\b(fast|quick)", re.IGNORECASE)
_CANTONESE = re.compile(r"粤语|广东话|\bcantonese\b", re.IGNORECASE)


def instructed(manner: Manner, instruction: str) -> Manner:
    """`manner` after the instructions that this engine can follow: slower, faster, in Cantonese."""
    if _CANTONESE.search(instruction):
        manner = replace(manner, language="yue")
    if _SLOW.search(instruction):
        return replace(manner, speed=manner.speed * 0.75)
    if _FAST.search(instruction):
        return replace(manner, speed=manner.speed * 1.35)
    return manner
