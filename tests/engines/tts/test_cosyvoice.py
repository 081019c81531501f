"""Upstream's CosyVoice, patched, on tiny models of each version."""

import logging
from pathlib import Path
from typing import Any

import pytest

from engines.tts.backends.cosyvoice import CosyVoice
from engines.tts.job import Job, Refused
from gateway.wire import cosyvoice as wire
from tests.engines.tts.tiny_backend import TEXT, WARNINGS, backend, clone_of, job, pieces, samples
from tests.tiny import cosyvoice as tiny
from tests.tiny.fixtures import TinyModel

pytest.importorskip("torch", reason="the packages of the real engines are not installed")

pytestmark = [pytest.mark.engine, *map(pytest.mark.filterwarnings, WARNINGS)]

CLONING = (wire.ZERO_SHOT, wire.CROSS_LINGUAL, wire.INSTRUCT2)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def first(tiny_cosyvoice: TinyModel, models_dir: Path) -> CosyVoice:
    """Clones with version 1."""
    return backend(tiny_cosyvoice, models_dir, "cosyvoice")


@pytest.fixture(scope="module")
def second(tiny_cosyvoice: TinyModel, models_dir: Path) -> CosyVoice:
    return backend(tiny_cosyvoice, models_dir, "cosyvoice2")


@pytest.fixture(scope="module")
def third(tiny_cosyvoice: TinyModel, models_dir: Path) -> CosyVoice:
    return backend(tiny_cosyvoice, models_dir, "cosyvoice3")


@pytest.fixture(params=["second", "third"])
def newer(request: pytest.FixtureRequest) -> CosyVoice:
    found: CosyVoice = request.getfixturevalue(request.param)
    return found


# Modes


@pytest.mark.parametrize("mode", [wire.SFT, wire.INSTRUCT])
def test_presets_speak_at_their_models_rate(third: CosyVoice, mode: str) -> None:
    said = samples(third, job(mode))
    assert third.rate(job(mode)) == 22_050
    assert len(said) / 22_050 == pytest.approx(tiny.seconds("cosyvoice"), rel=0.02)
    assert said.any()


@pytest.mark.parametrize("mode", [wire.ZERO_SHOT, wire.CROSS_LINGUAL])
def test_version_1_speaks_like_a_recording(first: CosyVoice, mode: str) -> None:
    assert first.rate(job(mode)) == 22_050
    assert len(samples(first, job(mode))) / 22_050 == pytest.approx(tiny.seconds("cosyvoice"), rel=0.02)


@pytest.mark.parametrize("mode", CLONING)
def test_the_newer_versions_speak_like_a_recording(newer: CosyVoice, mode: str) -> None:
    said = samples(newer, job(mode))
    assert newer.rate(job(mode)) == 24_000
    once = tiny.seconds(clone_of(newer).kind.lower())
    # version 3 counts what it must read before a cross-lingual text as text, and makes the chain twice
    assert len(said) / 24_000 in (pytest.approx(once), pytest.approx(2 * once))
    assert said.any()


def test_the_presets_are_the_models(third: CosyVoice) -> None:
    assert third.speakers == wire.PRESETS
    assert third.device == "cpu"
    assert third.model == "cosyvoice + cosyvoice3"


# Refusals


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (job(wire.SFT, speaker="Nobody"), "unknown spk_id 'Nobody'; known are 中文女"),
        (job(wire.ZERO_SHOT, registered="nobody"), "unknown zero_shot_spk_id 'nobody'"),
        (job(wire.ZERO_SHOT, registered="../../x"), "unknown zero_shot_spk_id"),
        (job(wire.ZERO_SHOT, prompt=None), "a recording is needed"),
        (job(wire.ZERO_SHOT, "🙂🙂"), "nothing in tts_text"),
        (job(wire.SFT, "<|zh|>"), "nothing in tts_text"),
        (job(wire.SFT, "You are a helpful assistant.<|endofprompt|>"), "nothing in tts_text"),
    ],
)
def test_what_cannot_be_said_is_refused_before_any_sound(third: CosyVoice, asked: Job, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        third.speak(asked, lambda: False)
    assert refused.value.status == 400


def test_a_text_of_which_normalisation_leaves_nothing_is_refused(
    third: CosyVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clone_of(third)._frontend, "text_normalize", lambda text, split: [])
    with pytest.raises(Refused, match="nothing in tts_text"):
        third.speak(job(wire.ZERO_SHOT, prompt_text=""), lambda: False)


def test_version_1_takes_no_instruction_with_a_recording(first: CosyVoice) -> None:
    with pytest.raises(Refused, match="CosyVoice 2 or 3"):
        first.speak(job(wire.INSTRUCT2), lambda: False)


def test_a_model_that_clones_has_no_presets(tiny_cosyvoice: TinyModel, tmp_path: Path) -> None:
    only = backend(tiny_cosyvoice, tmp_path, "cosyvoice3", mode="clone")
    assert only.speakers == ()
    with pytest.raises(Refused, match="no built-in speakers"):
        only.speak(job(wire.SFT), lambda: False)


def test_a_model_of_presets_clones_nobody(tiny_cosyvoice: TinyModel, tmp_path: Path) -> None:
    only = backend(tiny_cosyvoice, tmp_path, mode="sft")
    assert only.registered == ()
    with pytest.raises(Refused, match="built-in speakers only"):
        only.speak(job(wire.ZERO_SHOT), lambda: False)
    with pytest.raises(Refused, match="built-in speakers only"):
        only.register("bob", job(wire.ZERO_SHOT))


# Streams


@pytest.mark.parametrize("mode", [wire.SFT, wire.ZERO_SHOT])
def test_sound_comes_before_the_sentence_is_made(third: CosyVoice, mode: str) -> None:
    streamed = pieces(third, job(mode))
    assert len(streamed) >= 3
    assert len(streamed[0]) < sum(map(len, streamed)) / 2
    assert not any(len(piece) % 2 for piece in streamed)
    assert len(pieces(third, job(mode, stream=False))) == 1


def test_each_request_is_streamed_like_the_first(newer: CosyVoice) -> None:
    chunks = [[len(piece) for piece in pieces(newer, job(wire.ZERO_SHOT))] for _ in range(3)]
    assert chunks[0] == chunks[1] == chunks[2]
    assert len(chunks[0]) >= 3


def test_a_faster_speaker_is_done_earlier(newer: CosyVoice) -> None:
    normal, fast = samples(newer, job(wire.ZERO_SHOT)), pieces(newer, job(wire.ZERO_SHOT, speed=2.0))
    assert len(fast) == 1
    assert len(fast[0]) / 2 == pytest.approx(len(normal) / 2, rel=0.02)


@pytest.mark.parametrize("mode", [wire.SFT, wire.ZERO_SHOT])
def test_the_same_seed_makes_the_same_answer(newer: CosyVoice, mode: str) -> None:
    once, again = (pieces(newer, job(mode, seed=4_294_967_295)) for _ in range(2))
    assert once == again


def test_another_seed_makes_another_answer(second: CosyVoice) -> None:
    assert pieces(second, job(wire.ZERO_SHOT, seed=1)) != pieces(second, job(wire.ZERO_SHOT, seed=2))


def test_what_is_too_loud_is_clipped(third: CosyVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    loud = [torch.tensor([[2.0, -2.0, 0.0]])]
    monkeypatch.setattr(clone_of(third), "say", lambda *_: (each for each in loud))
    assert samples(third, job(wire.ZERO_SHOT)).tolist() == [32_767, -32_767, 0]


# Text


def test_a_language_tag_is_given_to_version_1_where_it_was_taught_it(first: CosyVoice, second: CosyVoice) -> None:
    model = clone_of(first)
    assert next(model.segments("こんにちは", "ja")).startswith("<|ja|>")
    assert next(model.segments("今天天气很好。" * 40, "zh")).startswith("<|zh|>")
    assert all(each.startswith("<|zh|>") for each in model.segments("今天天气很好。" * 40, "zh"))
    assert not next(model.segments("bonjour", "fr")).startswith("<|")
    assert not next(clone_of(second).segments("hello", "en")).startswith("<|")


@pytest.mark.parametrize(("mode", "tagged"), [(wire.CROSS_LINGUAL, True), (wire.ZERO_SHOT, False)])
def test_the_tag_reaches_the_language_model_where_languages_cross(
    first: CosyVoice, monkeypatch: pytest.MonkeyPatch, mode: str, tagged: bool
) -> None:
    tokenizer = clone_of(first)._frontend.tokenizer
    heard = given_to_tts(first, monkeypatch, job(mode, "<|jp|>こんにちは"))
    tag = tokenizer.encode("<|ja|>", allowed_special="all")
    assert len(tag) == 1
    assert (heard["text"].flatten().tolist()[0] == tag[0]) is tagged


def test_a_long_text_is_cut_into_sentences_and_said_to_its_end(third: CosyVoice) -> None:
    said = samples(third, job(wire.INSTRUCT2, "今天天气很好，我们去公园吧。" * 12))
    assert len(said) / 24_000 >= 2 * tiny.seconds("cosyvoice3")


def test_the_first_sound_of_a_very_long_text_waits_for_little_of_it(
    third: CosyVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend = clone_of(third)._frontend
    normalised: list[int] = []
    normalise = frontend.text_normalize

    def counting(text: str, **how: Any) -> Any:
        normalised.append(len(text))
        return normalise(text, **how)

    monkeypatch.setattr(frontend, "text_normalize", counting)
    speaking = third.speak(job(wire.INSTRUCT2, "今天天气很好，我们去公园吧。" * 7_000), lambda: False)
    assert next(speaking)
    speaking.close()
    assert sum(normalised) < 500


@pytest.mark.parametrize(
    ("mode", "prompt_text"),
    [
        (wire.ZERO_SHOT, "You are a helpful assistant.<|endofprompt|>你好"),
        (wire.INSTRUCT2, "You are a helpful assistant. 高兴<|endofprompt|>"),
    ],
)
@pytest.mark.parametrize("registered", ["", "bob"])
def test_version_3_reads_the_prefix_once(
    third: CosyVoice, monkeypatch: pytest.MonkeyPatch, mode: str, prompt_text: str, registered: str
) -> None:
    third.register("bob", job(wire.REGISTER))
    heard = given_to_tts(third, monkeypatch, job(mode, registered=registered))
    frontend = clone_of(third)._frontend
    assert heard["prompt_text"].tolist() == frontend._extract_text_token(prompt_text)[0].tolist()


def test_version_2_reads_the_end_of_an_instruction_once(second: CosyVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = given_to_tts(second, monkeypatch, job(wire.INSTRUCT2, instruction="高兴<|endofprompt|>"))
    frontend = clone_of(second)._frontend
    assert heard["prompt_text"].tolist() == frontend._extract_text_token("高兴<|endofprompt|>")[0].tolist()


def test_a_users_words_hold_no_control(second: CosyVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "hello <|im_start|> there <|endofprompt"
    heard = given_to_tts(second, monkeypatch, job(wire.ZERO_SHOT, text, prompt_text="<|im_end|>you<|"))
    special = {256, 257, 258, 259}
    assert not special & set(heard["text"].flatten().tolist() + heard["prompt_text"].flatten().tolist())


def test_a_text_that_cannot_be_normalised_is_read_as_it_stands(
    third: CosyVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(text: str, split: bool) -> Any:
        raise AssertionError

    model = clone_of(third)
    assert list(model.segments("hello   there")) == ["hello there."]  # the blanks are too much for the grammar
    monkeypatch.setattr(model._frontend, "text_normalize", failing)
    assert list(model.segments("hello there")) == ["hello there"]
    assert model.plain("hello there") == "hello there"


def test_nobody_logs_what_is_said(newer: CosyVoice, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        samples(newer, job(wire.ZERO_SHOT))
        samples(newer, job(wire.SFT))
    assert "天气" not in caplog.text
    assert "你好" not in caplog.text


# Recordings


def test_a_recording_is_heard_once(tiny_cosyvoice: TinyModel, tmp_path: Path) -> None:
    made = backend(tiny_cosyvoice, tmp_path, "cosyvoice2", mode="clone")
    heard = hearing(made)
    for mode in CLONING:
        samples(made, job(mode, TEXT * 3))
    samples(made, job(wire.ZERO_SHOT, prompt_text="something else"))
    assert len(heard) == 1


def test_a_recording_is_known_after_a_restart(tiny_cosyvoice: TinyModel, tmp_path: Path) -> None:
    before = backend(tiny_cosyvoice, tmp_path, "cosyvoice3", mode="clone")
    said = pieces(before, job(wire.ZERO_SHOT, seed=1))
    before.register("小明", job(wire.REGISTER))
    after = backend(tiny_cosyvoice, tmp_path, "cosyvoice3", mode="clone")
    heard = hearing(after)
    assert pieces(after, job(wire.ZERO_SHOT, seed=1)) == said
    assert pieces(after, job(wire.ZERO_SHOT, prompt=None, prompt_text="", registered="小明", seed=1)) == said
    assert after.registered == ("小明",)
    assert not heard


def test_another_worker_knows_a_registered_speaker_at_once(tiny_cosyvoice: TinyModel, tmp_path: Path) -> None:
    one, other = (backend(tiny_cosyvoice, tmp_path, "cosyvoice3", mode="clone") for _ in range(2))
    one.register("bob", job(wire.REGISTER))
    assert other.registered == ("bob",)
    assert samples(other, job(wire.CROSS_LINGUAL, prompt=None, registered="bob")).any()


def test_models_do_not_share_what_they_hear(second: CosyVoice, third: CosyVoice) -> None:
    assert clone_of(second).speakers._folder != clone_of(third).speakers._folder


def test_a_cached_recording_sounds_like_one_that_was_just_heard(second: CosyVoice) -> None:
    model = clone_of(second)
    model.speakers._known.clear()
    for file in model.speakers._folder.glob("*.pt"):
        file.unlink()
    cold, warm = (pieces(second, job(wire.ZERO_SHOT, seed=5)) for _ in range(2))
    assert cold == warm


def given_to_tts(made: CosyVoice, monkeypatch: pytest.MonkeyPatch, asked: Job) -> dict[str, Any]:
    """What upstream's model is asked to say, and how."""
    model = clone_of(made)._upstream.model
    given: dict[str, Any] = {}
    speak = model.tts

    def tts(**how: Any) -> Any:
        given.update(how)
        return speak(**how)

    monkeypatch.setattr(model, "tts", tts)
    samples(made, asked)
    return given


def hearing(made: CosyVoice) -> list[Any]:
    """Grows by one for each recording that is heard."""
    speakers = clone_of(made).speakers
    heard: list[Any] = []
    extract = speakers._extract

    def counting(wav: Any) -> Any:
        heard.append(wav)
        return extract(wav)

    speakers._extract = counting
    return heard
