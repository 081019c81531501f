"""The live backend by itself: FunASR's streaming code, streams without end, and what is wrong with a models folder."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine
STREAMING, VAD = "streaming", "vad"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="the packages of the real engines are not installed")
    from tests.tiny import funasr

    folder = tmp_path_factory.mktemp("live-backend")
    funasr.install(folder, VAD, funasr.built("fsmn-vad"))
    funasr.install(folder, STREAMING, funasr.built("paraformer-streaming"))
    for name in ("ct-punc", "ct-punc-streaming", "sensevoice"):
        funasr.install(folder, name, funasr.built(name))
    return folder


def backend(models: Path, **settings: Any) -> Any:
    from engines.asr.backends.funasr_live import FunAsrLive
    from engines.settings import Engines

    ids = {"asr_realtime_model_id": STREAMING, "vad_model_id": VAD}
    made = FunAsrLive(Engines.model_validate({"models_dir": models, **ids, **settings}), "cpu")
    made.load()
    return made


@pytest.fixture(scope="module")
def live(models: Path) -> Any:
    return backend(models)


def heard(live: Any, samples: Any, step: int = 9600, **asked: Any) -> list[Any]:
    """The events of a stream."""
    from engines.asr.live.backend import Asked

    live.open(1, Asked(**asked))
    try:
        found = []
        for at in range(0, len(samples), step):
            found += live.feed(1, samples[at : at + step], at + step >= len(samples))
        return found
    finally:
        live.close(1)


def clip(*parts: Any) -> Any:
    """Noise as loud as speech (seconds above zero) and silence (below)."""
    import numpy as np

    random = np.random.default_rng(0)
    return np.concatenate(
        [(random.normal(0, 0.1 if part > 0 else 0, round(16_000 * abs(part)))).astype(np.float32) for part in parts]
    )


def spans(events: list[Any]) -> list[tuple[int, int]]:
    return [(event.start, event.end) for event in events if type(event).__name__ == "Ended"]


def test_every_utterance_begins_and_ends_and_says_something_between(live: Any) -> None:
    kinds = [type(event).__name__ for event in heard(live, clip(-0.5, 2, -1.5, 2, -0.3))]
    assert " ".join(dict.fromkeys(kinds)) == "Began Delta Ended"
    assert [kind for kind in kinds if kind != "Delta"] == ["Began", "Ended"] * 2


def test_silence_between_words_is_no_end_and_800_ms_are(live: Any) -> None:
    assert len(spans(heard(live, clip(1, -0.5, 1, -2)))) == 1
    assert len(spans(heard(live, clip(1, -1.1, 1, -2)))) == 2


def test_the_last_words_are_flushed_where_no_second_pass_replaces_them(live: Any) -> None:
    def said(**asked: Any) -> int:
        return sum(len(event.text) for event in heard(live, clip(1.9, -1), **asked) if hasattr(event, "text"))

    assert said(last_words=True) > said(last_words=False) > 0
    assert said(deltas=False) == 0


@pytest.mark.parametrize("chunk", [(5, 10, 5), (0, 10, 5), (8, 8, 4), (0, 8, 4)])
def test_every_chunk_size_in_use_is_heard(live: Any, chunk: tuple[int, int, int]) -> None:
    found = heard(live, clip(2.4, -1), chunk=chunk)
    assert sum(type(event).__name__ == "Delta" for event in found) >= 3


@pytest.mark.parametrize("samples", [0, 1, 100, 480, 959, 960, 961, 4000])
def test_no_stream_is_too_short(live: Any, samples: int) -> None:
    import numpy as np

    from engines.asr.live.backend import Asked

    for level in (0, 0.1):
        live.open(1, Asked(last_words=True))
        live.feed(1, np.full(samples, level, np.float32), True)
        live.close(1)


def test_who_never_pauses_is_cut_and_nothing_is_left_out(live: Any) -> None:
    found = spans(heard(live, clip(65, -1)))
    assert [end - start for start, end in found][:2] == [30_000, 30_000]
    assert all(one[1] == other[0] for one, other in zip(found, found[1:], strict=False))


def test_long_silence_is_forgotten_as_it_goes(live: Any) -> None:
    """FunASR's VAD keeps and copies all of it: each call would take longer than the one before."""
    import numpy as np

    from engines.asr.live.backend import Asked

    live.open(1, Asked())
    minute = clip(-60)
    for _ in range(10):
        assert live.feed(1, minute, False) == []
    stream = live._streams[1]
    assert len(stream._vad["stats"].decibel) < 2200, "22 s of 10 ms"
    assert stream._tape.end - stream._tape.start < 5 * 16_000
    found = live.feed(1, np.concatenate([clip(2), clip(-1)]), True)
    live.close(1)
    ((start, end),) = spans(found)
    assert 599_500 <= start <= 600_000
    assert 601_900 <= end <= 602_500


def test_a_word_that_begins_while_the_vad_starts_afresh_is_whole(live: Any) -> None:
    for late in (-2, 0.0, 0.1, 0.2, 0.4, 0.9, 3):
        begins = 20_060 + 60 - 1000 * late
        found = heard(live, clip(-begins / 1000, 1, -1), step=960)
        ((start, end),) = spans(found)
        assert begins - 700 <= start <= begins, late
        assert begins + 1000 <= end <= begins + 1300, late


def test_a_stream_that_is_closed_is_forgotten(live: Any) -> None:
    import gc
    import weakref

    from engines.asr.live.backend import Asked

    live.open(7, Asked())
    live.feed(7, clip(1), False)
    stream = weakref.ref(live._streams[7])
    live.close(7)
    live.close(7)
    gc.collect()
    assert stream() is None
    with pytest.raises(KeyError):
        live.feed(7, clip(1), False)


def test_partial_results_are_punctuated_where_that_is_asked_for(models: Path) -> None:
    made = backend(models, asr_enable_realtime_punc=True, punc_realtime_model_id="ct-punc-streaming")
    plain = "".join(event.text for event in heard(backend(models), clip(3, -1)) if hasattr(event, "text"))
    marked = "".join(event.text for event in heard(made, clip(3, -1)) if hasattr(event, "text"))
    assert plain
    assert "".join(letter for letter in marked if letter not in "，。？、") == plain


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"asr_realtime_model_id": "sensevoice"}, "ASR_REALTIME_MODEL_ID: sensevoice is a SenseVoiceSmall"),
        (
            {"asr_enable_realtime_punc": True, "punc_realtime_model_id": "ct-punc"},
            "PUNC_REALTIME_MODEL_ID: ct-punc is a CTTransformer",
        ),
        ({"vad_model_id": "nowhere"}, "nowhere is not in"),
    ],
)
def test_what_is_wrong_with_the_models_is_said(models: Path, settings: dict[str, Any], says: str) -> None:
    from engines.asr.backends.funasr_models import Missing

    with pytest.raises(Missing, match=says):
        backend(models, **settings)


@pytest.mark.parametrize(
    ("before", "text", "needed"),
    [("hello", "world", True), ("hello,", "world", False), ("你好", "world", False), ("", "hello", False)],
)
def test_deltas_of_scripts_with_blanks_do_not_run_together(before: str, text: str, needed: bool) -> None:
    from engines.asr.backends.funasr_live import _needs_blank

    assert _needs_blank(before, text) is needed
