"""G.711 as the telephones of the world have it."""

import struct
import warnings

import pytest

from gateway.wire import g711

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    audioop = pytest.importorskip("audioop", reason="the standard library's own G.711, to compare with, is gone")

EVERY_SAMPLE = struct.pack("<65536h", *range(-32768, 32768))
EVERY_BYTE = bytes(range(256))


def test_every_byte_is_the_sample_that_it_should_be() -> None:
    assert g711.from_mu_law(EVERY_BYTE) == audioop.ulaw2lin(EVERY_BYTE, 2)
    assert g711.from_a_law(EVERY_BYTE) == audioop.alaw2lin(EVERY_BYTE, 2)


def test_every_sample_comes_back_as_close_as_its_byte_can_tell() -> None:
    for there, back, most in (
        (g711.to_mu_law, g711.from_mu_law, 0.04),
        (g711.to_a_law, g711.from_a_law, 0.04),
    ):
        got = struct.unpack("<65536h", back(there(EVERY_SAMPLE)))
        for sample, other in zip(range(-32768, 32768), got, strict=True):
            assert abs(sample - other) <= max(16, most * abs(sample)), sample


def test_what_was_packed_packs_the_same_again() -> None:
    assert g711.to_a_law(g711.from_a_law(EVERY_BYTE)) == EVERY_BYTE
    again = g711.to_mu_law(g711.from_mu_law(EVERY_BYTE))
    assert [one for one in range(256) if again[one] != one] == [0x7F], "µ-law has two zeros"


def test_nothing_is_nothing() -> None:
    assert g711.to_mu_law(b"") == g711.from_mu_law(b"") == g711.to_a_law(b"") == g711.from_a_law(b"") == b""
