"""What is kept of a recording: found as speech, cut where it is cleanest, made evenly loud."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway import reference
from gateway.errors import AudioRejected
from gateway.normalise import Decoder
from gateway.settings import Settings
from gateway.verbs import Recording
from gateway.wire import wav

RATE = 16000
SPOKEN = Path(__file__).parents[2] / "shared" / "audio"
Sound = NDArray[np.float64]
random = np.random.default_rng


def voice(seconds: float, seed: int = 1, *, pauses: bool = True) -> Sound:
    """Something with the melody, formants and syllables of speech; its loudest sample is 1."""
    chance = random(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 15 * np.sin(2 * np.pi * 0.7 * time)) / RATE
    formants = lambda pitch: sum(np.exp(-(((pitch - at) / 150) ** 2)) / n for n, at in enumerate((600, 1400, 2500), 1))
    buzz = sum(formants(120 * n) * np.sin(n * phase) for n in range(1, 30))
    envelope, at = np.zeros(len(time)), 0
    while at < len(time):
        syllable = int(chance.uniform(0.12, 0.3) * RATE)
        part = envelope[at : at + syllable]
        part[:] = (chance.uniform(0.5, 1) * np.hanning(syllable) ** 0.5)[: len(part)]
        at += syllable + int(RATE * (0.4 if pauses and chance.random() < 0.15 else 0.02))
    spoken = np.asarray(buzz * envelope)
    return spoken / np.abs(spoken).max()


def pcm(sound: Sound) -> NDArray[np.int16]:
    return np.clip(np.rint(sound * 32767), -32768, 32767).astype(np.int16)


def hiss(seconds: float, level: float, seed: int = 2) -> Sound:
    return random(seed).standard_normal(int(seconds * RATE)) * level


def best(sound: Sound, *, keep: float = 30, least: float = 1) -> Sound:
    return reference.best(pcm(sound), keep=keep, least=least).astype(float) / 32768


def loudness(sound: Sound) -> float:
    """RMS in dBFS of the loud half of it."""
    frames = sound[: len(sound) // 320 * 320].reshape(-1, 320)
    power = np.sort((frames**2).mean(1))[len(frames) // 2 :]
    return float(10 * np.log10(power.mean()))


def similarity(part: Sound, whole: Sound) -> tuple[float, float]:
    """Where in `whole` the part comes from, in seconds, and how surely (1 is exactly)."""
    part, whole = part[::8], whole[::8]
    size = 1 << (len(part) + len(whole)).bit_length()
    match = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(part, size)))[: len(whole) - len(part) + 1]
    sums = np.concatenate([[0.0], np.cumsum(whole**2)])
    there = sums[len(part) :] - sums[: -len(part)]
    sure = match / np.sqrt(np.maximum(there, 1e-6 * sums[-1]) * (part**2).sum())
    at = int(sure.argmax())
    return at * 8 / RATE, float(sure[at])


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(5 * RATE),
        hiss(5, 0.1),
        hiss(5, 0.5 / 32768),
        hiss(5, 0.1) * (np.arange(5 * RATE) > 2 * RATE),
        hiss(60, 0.1),
        np.sin(np.arange(5 * RATE) * 2 * np.pi * 440 / RATE) * 0.3,
        np.sin(np.arange(5 * RATE) * 2 * np.pi * 50.3 / RATE) * 0.9,
        np.sin(np.arange(5 * RATE) * 2 * np.pi * 440 / RATE) * 0.3 * (np.arange(5 * RATE) > 1.3 * RATE),
        np.full(5 * RATE, 0.5),
        np.arange(5 * RATE) % RATE == 0,
    ],
    ids=["zeros", "hiss", "dither", "hiss_starts", "long_hiss", "tone", "hum", "tone_starts", "dc", "clicks"],
)
def test_a_recording_without_speech_is_refused(sound: Sound) -> None:
    with pytest.raises(AudioRejected, match="no speech") as refused:
        best(sound)
    assert refused.value.code == "audio_silent"


@pytest.mark.parametrize("seconds", [0, 0.5, 0.99])
def test_less_than_a_second_is_too_short(seconds: float) -> None:
    with pytest.raises(AudioRejected) as refused:
        best(voice(1)[: int(seconds * RATE)])
    assert refused.value.code == "audio_too_short"


def test_too_little_speech_is_too_short_however_long_the_recording() -> None:
    quiet = hiss(20, 0.001)
    quiet[3 * RATE : 3 * RATE + RATE // 2] += voice(0.5) * 0.5
    with pytest.raises(
        AudioRejected, match=r"only 0\.\d seconds of speech were found; at least 1 are needed"
    ) as refused:
        best(quiet)
    assert refused.value.code == "audio_too_short"


def test_words_minutes_apart_are_too_short_together() -> None:
    quiet = hiss(200, 0.001)
    for at in range(10, 190, 30):
        quiet[at * RATE : at * RATE + RATE // 2] += voice(0.5) * 0.5
    with pytest.raises(AudioRejected, match="scattered") as refused:
        best(quiet)
    assert refused.value.code == "audio_too_short"


def test_loud_speech_without_a_pause_is_speech() -> None:
    kept = best(voice(10, pauses=False))
    assert len(kept) / RATE > 9


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.01, 0.03])
def test_speech_over_noise_is_kept_whole_when_it_fits(noise: float) -> None:
    """Whole, since what is said in it may have been written down."""
    sound = hiss(14, noise)
    sound[2 * RATE : 12 * RATE] += voice(10) * 0.5
    kept = best(sound)
    start, surely = similarity(kept, sound)
    assert start == pytest.approx(1.8, abs=0.2)
    assert len(kept) / RATE == pytest.approx(10.4, abs=0.5)
    assert surely > 0.98


def test_the_clean_part_of_a_noisy_recording_is_kept() -> None:
    spoken = voice(90) * 0.5
    sound = spoken + hiss(90, 0.001)
    sound[: 50 * RATE] += hiss(50, 0.06, seed=3)
    kept = best(sound)
    start, surely = similarity(kept, spoken)
    assert start >= 49.5
    assert surely > 0.98
    assert 25 < len(kept) / RATE <= 30


def test_noise_beside_clean_speech_is_not_taken_for_speech() -> None:
    sound = np.concatenate([hiss(30, 0.1), voice(8, seed=5) * 0.3 + hiss(8, 0.0005), hiss(30, 0.1, seed=4)])
    kept = best(sound)
    start, _ = similarity(kept, sound)
    assert start > 29.5
    assert start + len(kept) / RATE < 38.5


def test_clipped_speech_is_passed_over() -> None:
    sound = voice(60) * 0.5
    sound[: 30 * RATE] *= 8
    start, _ = similarity(best(sound), np.clip(sound, -1, 1))
    assert start > 28


@pytest.mark.parametrize("keep", [3, 10, 30])
def test_never_more_than_asked_and_cut_at_pauses(keep: float) -> None:
    kept = best(voice(100) * 0.5, keep=keep)
    assert 0.5 * keep < len(kept) / RATE <= keep
    ends = np.concatenate([kept[: RATE // 50], kept[-RATE // 50 :]])
    assert np.sqrt((ends**2).mean()) < 0.02


def test_continuous_speech_longer_than_asked_is_cut_all_the_same() -> None:
    kept = best(voice(100, pauses=False) * 0.5, keep=30)
    assert 20 < len(kept) / RATE <= 30
    assert kept[0] == kept[-1] == 0


def test_at_least_a_second_is_kept_where_less_speech_is_enough() -> None:
    sound = hiss(5, 0.0005)
    sound[2 * RATE : 2 * RATE + RATE // 2] += voice(0.5) * 0.5
    assert len(best(sound, least=0.2)) == RATE


@pytest.mark.parametrize("offset", [0.0, 0.04])
@pytest.mark.parametrize("scale", [0.05, 0.3, 0.95])
def test_the_same_speech_is_equally_loud_however_it_was_recorded(scale: float, offset: float) -> None:
    sound = np.concatenate([np.zeros(RATE), voice(10), np.zeros(RATE)])
    kept = best(sound * scale + offset)
    plain = best(sound * 0.5)
    assert loudness(kept) == pytest.approx(loudness(plain), abs=1)
    assert np.abs(kept).max() <= 10 ** (-1 / 20)
    assert abs(kept.mean()) < 0.001
    assert -23 < loudness(kept) < -17


def test_a_bang_does_not_make_the_speech_quiet() -> None:
    sound = np.concatenate([np.zeros(RATE), voice(10) * 0.05, np.zeros(RATE)])
    plain = loudness(best(sound))
    sound[6 * RATE : 6 * RATE + 40] = 1
    banged = best(sound)
    assert loudness(banged) == pytest.approx(plain, abs=1)
    assert np.abs(banged).max() <= 10 ** (-1 / 20)


def test_the_same_recording_gives_the_same_bytes() -> None:
    assert np.array_equal(best(voice(40)), best(voice(40)))


def test_ten_minutes_are_searched_whole() -> None:
    sound = hiss(600, 0.02)
    sound[550 * RATE : 560 * RATE] = voice(10) * 0.5
    start, _ = similarity(best(sound), sound)
    assert start == pytest.approx(550, abs=0.5)


async def test_a_recording_on_disk_becomes_bytes(tmp_path: Path) -> None:
    sound = pcm(voice(5) * 0.5)
    path = tmp_path / "a.wav"
    path.write_bytes(wav.header(RATE, len(sound)) + sound.tobytes())
    kept = await reference.keep_best(Recording(path, RATE, len(sound)), Settings())
    assert kept == reference.best(sound, keep=30, least=1).tobytes()


@pytest.mark.parametrize(("name", "least"), [("reference_en.wav", 6.5), ("zero_shot_prompt_zh.wav", 2.8)])
async def test_real_speech_is_kept_whole(tmp_path: Path, name: str, least: float) -> None:
    if not (SPOKEN / name).exists():
        pytest.skip(f"{name} is not here")
    recording = await Decoder(Settings()).to_wav(SPOKEN / name, tmp_path / "a.wav", max_seconds=600)
    kept = np.frombuffer(await reference.keep_best(recording, Settings()), "<i2") / 32768
    assert least < len(kept) / RATE <= recording.seconds
    assert -23 < loudness(kept) < -16
