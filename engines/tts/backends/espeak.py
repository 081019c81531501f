"""espeak-ng 1.52, spoken to through ctypes.

Rule 1: the library keeps one global state per process, so every call into it holds LOCK.
Rule 2: the lock is held for one piece of text at a time, never while anybody waits for a listener.
Rule 3: its output is not deterministic (a noise source), so nothing may compare it bit for bit.
"""

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

LOCK = Lock()
RATE_PARAMETER, PITCH_PARAMETER = 1, 3
SLOWEST, FASTEST = 80, 450
"""Words per minute that the library accepts."""

_SYNCHRONOUS, _DONT_EXIT, _CHARS_UTF8 = 2, 0x8000, 1
_PIECE_MS = 60
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class Espeak:
    """The library, loaded. The constructor raises OSError or RuntimeError where it cannot be."""

    def __init__(self, library: Path, data: Path) -> None:
        with LOCK:
            self._lib, self.sample_rate = _initialised(library, data)
            self._identifiers = self._voices()
        self.languages = frozenset(self._identifiers)

    def say(
        self, text: str, voice: str, words_per_minute: float, pitch: float, stopped: Callable[[], bool]
    ) -> NDArray[np.int16]:
        """The samples of `text`; what there was of them until `stopped` said so.

        voice: a language code, with a variant of the voice after a plus sign. pitch: 0 to 100.
        """
        pieces: list[bytes] = []

        def take(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
            if count and samples:
                pieces.append(ctypes.string_at(samples, count * 2))
            return int(stopped())

        callback = _Callback(take)
        data = text.replace("\0", " ").encode() + b"\0"
        with LOCK:
            self._choose(voice)
            self._lib.espeak_SetParameter(RATE_PARAMETER, round(min(max(words_per_minute, SLOWEST), FASTEST)), 0)
            self._lib.espeak_SetParameter(PITCH_PARAMETER, round(min(max(pitch, 0), 100)), 0)
            self._lib.espeak_SetSynthCallback(callback)
            self._lib.espeak_Synth(data, len(data), 0, 0, 0, _CHARS_UTF8, None, None)
        return np.frombuffer(b"".join(pieces), np.int16)

    def phonemes(self, text: str, voice: str) -> str:
        """How `text` would be read, in espeak's own phoneme letters."""
        held = ctypes.create_string_buffer(text.encode())
        at = ctypes.c_void_p(ctypes.addressof(held))
        found = []
        with LOCK:
            self._choose(voice)
            while at.value:
                found.append(self._lib.espeak_TextToPhonemes(ctypes.byref(at), _CHARS_UTF8, 0) or b"")
        return b" ".join(found).decode()

    def _choose(self, voice: str) -> None:
        language, plus, variant = voice.partition("+")
        name = self._identifiers[language] + plus + variant
        if self._lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")

    def _voices(self) -> dict[str, str]:
        """Language code to the voice that speaks it best: the one with the lowest priority byte."""
        listed = self._lib.espeak_ListVoices(None)
        best: dict[str, tuple[int, str]] = {}
        at = 0
        while listed[at]:
            voice = listed[at].contents
            for priority, code in _spoken(voice.languages):
                best[code] = min(best.get(code, (256, "")), (priority, voice.identifier.decode()))
            at += 1
        return {code: identifier for code, (_, identifier) in best.items()}


@cache
def _initialised(library: Path, data: Path) -> tuple[ctypes.CDLL, int]:
    """The library and its sample rate. Once per process: a second initialisation frees what it still points to."""
    lib = ctypes.CDLL(str(library))
    lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
    lib.espeak_Synth.argtypes = (
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
        ctypes.c_void_p, ctypes.c_void_p,
    )  # fmt: skip
    # Without the loader's own data path the library would look in the system's folders, where an older espeak-ng
    # (1.51 reads Mandarin as English letters) may have left its data.
    sample_rate = lib.espeak_Initialize(_SYNCHRONOUS, _PIECE_MS, bytes(data), _DONT_EXIT)
    if sample_rate <= 0:
        raise RuntimeError(f"espeak-ng found no usable data in {data}")
    return lib, sample_rate


def _spoken(where: int) -> Iterator[tuple[int, str]]:
    """(priority, code) of each language in espeak's list: a byte and a NUL-ended code each, ended by a zero byte."""
    while where and (priority := ctypes.string_at(where, 1)[0]):
        code = ctypes.string_at(where + 1)
        yield priority, code.decode()
        where += 2 + len(code)
