"""flite's recorded English voices, spoken to through ctypes, where the machine has the library.

Rule 1: flite is not thread-safe (5 of 20 sentences came out wrong without a lock), so every call holds LOCK.
Rule 2: its voices speak at 16 kHz; whoever takes their samples resamples them.
"""

import ctypes
from collections.abc import Callable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

LOCK = Lock()
_FILE = "lib{}.so.1"
_GO_ON, _STOP = 0, -1


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(_Wave), ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p
)


class _Streaming(ctypes.Structure):
    _fields_ = (
        ("min_buffsize", ctypes.c_int),
        ("asc", _Callback),
        ("utt", ctypes.c_void_p),
        ("item", ctypes.c_void_p),
        ("userdata", ctypes.c_void_p),
    )


class Flite:
    """One voice of the library, loaded. The constructor raises OSError where it is not on this machine."""

    def __init__(self, voice: str) -> None:
        self._lib = _library("flite")
        register = getattr(_library(f"flite_cmu_us_{voice}"), f"register_cmu_us_{voice}")
        register.restype = ctypes.POINTER(_Voice)
        self._lib.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
        self._lib.new_audio_streaming_info.restype = ctypes.POINTER(_Streaming)
        self._lib.audio_streaming_info_val.restype = ctypes.c_void_p
        self._lib.flite_feat_set.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        self._lib.get_param_int.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
        self._lib.flite_feat_set_float.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float)
        with LOCK:
            self._lib.flite_init()
            self._voice = register(None)
            self._features = self._voice.contents.features
            self.sample_rate: int = self._lib.get_param_int(self._features, b"sample_rate", 16_000)

    def say(self, text: str, stretch: float, pitch_shift: float, stopped: Callable[[], bool]) -> NDArray[np.int16]:
        """The samples of English `text`, `stretch` times as long and `pitch_shift` times as high as the voice's own;
        what there was of them until `stopped` said so."""
        pieces: list[bytes] = []

        def take(wave: "ctypes._Pointer[_Wave]", start: int, size: int, _last: int, _info: int) -> int:
            # Taken here, since a wave that was stopped is thrown away by the library.
            where = ctypes.addressof(wave.contents.samples.contents) + start * 2
            pieces.append(ctypes.string_at(where, size * 2))
            return _STOP if stopped() else _GO_ON

        callback = _Callback(take)
        with LOCK:
            # A new one each time: a voice exists once per process, owns what it was given, and frees the one before.
            streaming = self._lib.new_audio_streaming_info()
            streaming.contents.asc = callback
            value = self._lib.audio_streaming_info_val(streaming)
            self._lib.flite_feat_set(self._features, b"streaming_info", value)
            self._lib.flite_feat_set_float(self._features, b"duration_stretch", stretch)
            self._lib.flite_feat_set_float(self._features, b"f0_shift", pitch_shift)
            wave = self._lib.flite_text_to_wave(text.replace("\0", " ").encode(), self._voice)
            if wave:
                self._lib.delete_wave(wave)
        return np.frombuffer(b"".join(pieces), np.int16)


def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(_FILE.format(name))
