"""CosyVoice 3's own flow and vocoder, tiny and of random weights: every code is said, once, in its stream's voice."""

from typing import Any

import numpy as np
import pytest

from engines.s2s.backends import VOCODER_RATE, Asked, Codes, Failed, Said, Samples
from engines.s2s.backends.fun_audio_chat import FunAudioChat
from engines.s2s.backends.fun_audio_chat_files import Unusable
from engines.s2s.backends.fun_audio_chat_vocoder import HOP, LOOK_AHEAD, CosyVoiceVocoder
from engines.settings import Engines
from tests.engines.s2s.backends.conftest import WARNINGS, TinyThinker

torch = pytest.importorskip("torch", reason="the packages of the real engines are not installed")
pytestmark = [pytest.mark.engine, *map(pytest.mark.filterwarnings, WARNINGS)]

CODE = VOCODER_RATE // 25
"""Samples."""


@pytest.fixture(scope="module")
def vocoder(tiny_vocoder: Any) -> CosyVoiceVocoder:
    torch.set_num_threads(1)
    made = CosyVoiceVocoder(Engines(s2s_vocoder_model_id=str(tiny_vocoder)), "cpu")
    made.load()
    return made


def some(count: int, seed: int = 0) -> list[int]:
    return [int(code) for code in np.random.default_rng(seed).integers(0, 6561, count)]


def said(
    vocoder: CosyVoiceVocoder, codes: list[int], group: int = 5, voice: str = "中文女", stream: int = 1
) -> list[Samples]:
    vocoder.open(stream, voice)
    pieces = [vocoder.feed(stream, codes[at : at + group], last=False) for at in range(0, len(codes), group)]
    return [*pieces, vocoder.feed(stream, [], last=True)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 17, 18, 19, 33, 199, 200, 260, 420])
def test_every_code_is_said_and_the_end_too(count: int, vocoder: CosyVoiceVocoder) -> None:
    sound = np.concatenate(said(vocoder, some(count)))
    assert len(sound) == count * CODE
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all() and np.abs(sound).max(initial=0) <= 1


def test_it_speaks_as_soon_as_a_hop_and_the_look_ahead_are_there(vocoder: CosyVoiceVocoder) -> None:
    vocoder.open(1, "中文女")
    assert not len(vocoder.feed(1, some(HOP + LOOK_AHEAD - 1), last=False))
    first = vocoder.feed(1, some(1), last=False)
    assert 0.4 * VOCODER_RATE < len(first) < 0.6 * VOCODER_RATE, "a hop without what the vocoder holds back"
    vocoder.close(1)


def test_how_the_codes_come_makes_no_difference(vocoder: CosyVoiceVocoder) -> None:
    codes = some(100)
    one_by_one, at_once = np.concatenate(said(vocoder, codes, 1)), np.concatenate(said(vocoder, codes, 100))
    assert np.array_equal(one_by_one, at_once)
    vocoder.open(1, "中文女")
    assert np.array_equal(vocoder.feed(1, codes, last=True), at_once), "the end may come with the last of them"


def test_several_streams_do_not_mix(vocoder: CosyVoiceVocoder) -> None:
    alone = [np.concatenate(said(vocoder, some(60, seed))) for seed in (1, 2)]
    for stream in (1, 2):
        vocoder.open(stream, "中文女")
    parts: dict[int, list[Samples]] = {1: [], 2: []}
    for at in range(0, 60, 5):
        for stream in (1, 2):
            parts[stream].append(vocoder.feed(stream, some(60, stream)[at : at + 5], last=at == 55))
    for stream in (1, 2):
        assert np.array_equal(np.concatenate(parts[stream]), alone[stream - 1])
    assert not np.array_equal(*alone)


def test_the_voices_are_upstreams_and_differ(vocoder: CosyVoiceVocoder) -> None:
    assert vocoder.voices == ("中文女", "中文男")
    woman, man = (np.concatenate(said(vocoder, some(40), voice=voice)) for voice in vocoder.voices)
    assert len(woman) == len(man) and not np.allclose(woman, man, atol=1e-4)


def test_there_is_no_step_where_the_memory_is_cut(vocoder: CosyVoiceVocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said twice or left out: as far as the vocoder looks back, it says what it would have said."""
    codes = some(150)
    monkeypatch.setattr("engines.s2s.backends.fun_audio_chat_vocoder._WINDOW", 10_000)
    whole = np.concatenate(said(vocoder, codes))
    monkeypatch.setattr("engines.s2s.backends.fun_audio_chat_vocoder._MEMORY", 240)
    cut = np.concatenate(said(vocoder, codes))
    assert len(cut) == len(whole) == 150 * CODE
    before = 120 * CODE - 8 * CODE // 2  # the hop with which it grew too long, less what was held back
    assert np.array_equal(cut[:before], whole[:before])
    envelope = lambda sound: np.convolve(np.abs(sound), np.ones(CODE) / CODE, "same")
    assert np.corrcoef(envelope(cut[before:]), envelope(whole[before:]))[0, 1] > 0.9


def test_what_is_no_code_is_left_out(vocoder: CosyVoiceVocoder) -> None:
    vocoder.open(1, "中文女")
    assert len(vocoder.feed(1, [6561, -1, 5, 99_999, 6], last=True)) == 2 * CODE


def test_what_was_closed_is_forgotten(vocoder: CosyVoiceVocoder) -> None:
    vocoder.open(7, "中文女")
    vocoder.feed(7, some(30), last=False)
    vocoder.close(7)
    vocoder.close(7)
    assert vocoder._flow.hift_cache_dict == {}
    with pytest.raises(Failed, match="ended"):
        vocoder.feed(7, some(30), last=False)
    said(vocoder, some(30), stream=8)
    assert vocoder._flow.hift_cache_dict == {}, "the last call forgets it too"


def test_one_that_fails_ends_its_stream_alone(vocoder: CosyVoiceVocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder.open(1, "中文女")
    vocoder.open(2, "中文女")

    def full(**_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(vocoder._flow, "token2wav", full)
        with pytest.raises(Failed, match="out of memory"):
            vocoder.feed(1, some(30), last=False)
    with pytest.raises(Failed, match="ended"):
        vocoder.feed(1, some(30), last=False)
    assert len(vocoder.feed(2, some(30), last=True)) == 30 * CODE


def test_what_is_missing_is_named(tmp_path: Any, fun_audio_chat_source: Any, cosyvoice_source: Any) -> None:
    with pytest.raises(Unusable, match=r"lacks cosyvoice3\.yaml"):
        CosyVoiceVocoder(Engines(s2s_vocoder_model_id=str(tmp_path)), "cpu").load()


def test_a_second_in_and_speech_out(tiny_thinker: TinyThinker, vocoder: CosyVoiceVocoder, sound: Samples) -> None:
    thinker = FunAudioChat(Engines(s2s_model_id=str(tiny_thinker("both"))), "cpu")
    thinker.load()
    torch.manual_seed(1)
    groups = [one.codes for one in thinker.think(Asked(Said(sound)), lambda: False) if isinstance(one, Codes)]
    vocoder.open(1, "中文男")
    pieces = [vocoder.feed(1, group, last=False) for group in groups] + [vocoder.feed(1, [], last=True)]
    assert len(np.concatenate(pieces)) == sum(map(len, groups)) * CODE > 0
