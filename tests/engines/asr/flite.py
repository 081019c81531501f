"""`python flite.py TEXT`: mono s16le at 16 kHz on stdout, of flite's voice rms; status 3 where there is no flite.

A process for each text: a voice exists once in a process, and keeps whatever the synthesis engine under test gave it,
the address of a function that is gone among it.
"""

import ctypes
import sys

NO_FLITE = 3


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("samples", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_int16)),
    ]


def main(text: str) -> None:
    try:
        for name in ("libflite.so.1", "libflite_usenglish.so.1", "libflite_cmulex.so.1"):
            ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
        voices, flite = ctypes.CDLL("libflite_cmu_us_rms.so.1"), ctypes.CDLL("libflite.so.1")
    except OSError as exc:
        print(exc, file=sys.stderr)
        sys.exit(NO_FLITE)
    flite.flite_init()
    voices.register_cmu_us_rms.restype = ctypes.c_void_p
    flite.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    flite.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    ctypes.CDLL(None).srand(1)  # its excitation noise is drawn with rand(): else no two runs make the same sound
    wave = flite.flite_text_to_wave(text.encode(), voices.register_cmu_us_rms(None)).contents
    assert (wave.sample_rate, wave.channels) == (16_000, 1)
    sys.stdout.buffer.write(ctypes.string_at(wave.data, 2 * wave.samples))


if __name__ == "__main__":
    main(sys.argv[1])
