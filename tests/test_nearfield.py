import numpy as np
import pytest

from gateway.nearfield import HOLD, NearField
from gateway.settings import Settings

RATE = 16_000
T = 0.01


def sound(rms: float, seconds: float, rate: int = RATE) -> bytes:
    t = np.arange(round(seconds * rate)) / rate
    return np.rint(rms * 32768 * np.sqrt(2) * np.sin(2 * np.pi * 200 * t)).astype("<i2").tobytes()


def filtered(
    *sounds: bytes, speaking: bool = False, piece: int = 640, gate: NearField | None = None, rate: int = RATE
) -> bytes:
    gate = gate or NearField(Settings(), rate)
    pcm = b"".join(sounds)
    found = [gate.feed(pcm[at : at + piece], speaking) for at in range(0, len(pcm), piece)]
    return b"".join(found) + gate.end()


def loud(pcm: bytes, rate: int = RATE) -> float:
    """Seconds that are not silent."""
    samples = np.frombuffer(pcm, "<i2")
    blocks = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    return float(np.any(blocks != 0, axis=1).sum() * 160 / rate)


@pytest.mark.parametrize(("rms", "heard"), [(T * 0.97, 0.0), (T * 1.03, 2.0)])
def test_what_is_below_the_threshold_begins_nothing(rms: float, heard: float) -> None:
    found = filtered(sound(rms, 2))
    assert len(found) == len(sound(rms, 2))
    assert loud(found) == pytest.approx(heard, abs=0.02)


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
@pytest.mark.parametrize("piece", [2, 640, 7680, 100_000])
def test_w10_soft_onsets_are_kept(piece: int, rate: int) -> None:
    """W10: the 0.3 s before the first loud window come with it, whatever the frames, and nothing is delayed after."""
    soft, clear = sound(T / 3, 1, rate), sound(0.1, 1, rate)
    found = filtered(soft, clear, piece=piece, rate=rate)
    onset = 2 * round(0.3 * rate)
    assert found[len(soft) - onset :] == soft[-onset:] + clear
    assert loud(found[: len(soft) - 2 * onset], rate) == 0


def test_w10_quiet_speech_inside_an_utterance_is_kept() -> None:
    """W10: while somebody speaks every byte passes, however long it is soft."""
    gate = NearField(Settings(), RATE)
    begun = b"".join(gate.feed(sound(0.1, 0.04), False) for _ in range(5))
    assert begun == sound(0.1, 0.04) * 5
    soft = sound(T / 10, 5)
    assert gate.feed(soft, True) == soft


def test_between_two_words_it_stays_open_before_anybody_has_noticed_speech() -> None:
    clear, soft = sound(0.1, 0.2), sound(T / 2, HOLD - 0.08)
    assert filtered(clear, soft, clear) == clear + soft + clear


def test_w5_it_recovers_after_any_silence_and_any_noise() -> None:
    """W5: minutes of filtered silence after a noise that nobody took for speech leave nobody deaf."""
    gate = NearField(Settings(), RATE)
    filtered(sound(0.5, 1), sound(T / 5, 400), gate=gate)
    assert not gate.open
    clear = sound(0.05, 1)
    assert loud(filtered(clear, gate=gate)) == pytest.approx(1.0, abs=0.02)


def test_every_sample_keeps_its_place() -> None:
    parts = [sound(0.1, 0.5), sound(T / 4, 3), sound(0.2, 0.5), sound(T / 4, 3.01)]
    found, fed = filtered(*parts, piece=333 * 2), b"".join(parts)
    assert len(found) == len(fed)
    ours, theirs = np.frombuffer(found, "<i2"), np.frombuffer(fed, "<i2")
    assert np.all((ours == theirs) | (ours == 0))
