"""Upstream's own network, tiny and of random weights: replies, modes, tools, and what ends a reply early."""

import functools
import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.s2s.backends import (
    RATE,
    Asked,
    Call,
    Codes,
    Failed,
    Past,
    Refused,
    Said,
    Samples,
    Thought,
    ToolResult,
    Words,
)
from engines.s2s.backends.fun_audio_chat import FunAudioChat
from engines.s2s.backends.fun_audio_chat_files import Unusable
from engines.s2s.backends.fun_audio_chat_model import MOST_SPOKEN, MOST_WRITTEN
from engines.settings import Engines
from tests.engines.s2s.backends.conftest import WARNINGS, TinyThinker

torch = pytest.importorskip("torch", reason="the packages of the real engines are not installed")
pytestmark = [pytest.mark.engine, *map(pytest.mark.filterwarnings, WARNINGS)]

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def never() -> bool:
    return False


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


@pytest.fixture
def loaded(tiny_thinker: TinyThinker) -> Any:
    def load(kind: str) -> FunAudioChat:
        thinker = FunAudioChat(Engines(s2s_model_id=str(tiny_thinker(kind))), "cpu")
        thinker.load()
        return thinker

    return load


def words(thoughts: list[Thought]) -> str:
    return "".join(thought.text for thought in thoughts if isinstance(thought, Words))


def codes(thoughts: list[Thought]) -> list[int]:
    return [code for thought in thoughts if isinstance(thought, Codes) for code in thought.codes]


def test_a_reply_is_written_and_said_at_once(loaded: Any, sound: Samples) -> None:
    thinker = loaded("both")
    thoughts = list(thinker.think(Asked(Said(sound)), never))
    assert words(thoughts) == "It is warm.\n"
    # One group of codes with each of the pieces and with the mark of the end, unless chance ended the speech early.
    assert 5 <= len(codes(thoughts)) <= 20
    assert all(0 <= code < 6561 for code in codes(thoughts))
    assert isinstance(thoughts[0], Words) and isinstance(thoughts[1], Codes), "in the order in which they come"
    assert (thinker.model, thinker.device) == ("both", "cpu")


def test_a_written_reply_has_no_codes_whatever_was_asked_before(loaded: Any, sound: Samples) -> None:
    thinker = loaded("both")
    for _ in range(2):
        written = list(thinker.think(Asked(Said(sound), speech=False), never))
        assert words(written) == "It is\nsunny 🌞."
        assert not codes(written)
        assert codes(list(thinker.think(Asked(Said(sound)), never)))


@pytest.mark.parametrize("kind", ["random", "both"])
def test_turns_go_on_from_those_before(kind: str, loaded: Any, sound: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.s2s.backends.fun_audio_chat_model.MOST_SPOKEN", 40)
    thinker = loaded(kind)
    history: list[Past] = []
    said = [
        Said(sound),
        Said(text="And tomorrow?"),
        Said(np.concatenate([sound] * 3)),
        Said(results=(ToolResult("1", "x"),)),
    ]
    for one in said:
        thoughts = list(thinker.think(Asked(one, tuple(history), persona="You are a pirate.", language="en"), never))
        assert thoughts
        history.append(Past(one, words(thoughts)))


def test_the_network_hears_every_turn_and_reads_the_replies(loaded: Any, sound: Samples, monkeypatch: Any) -> None:
    thinker = loaded("both")
    asked: list[dict[str, Any]] = []
    generate = thinker._model._network.generate
    monkeypatch.setattr(thinker._model._network, "generate", lambda **given: asked.append(given) or generate(**given))
    history = (Past(Said(sound), "first"), Past(Said(text="second <|AUDIO|>"), "third"))
    list(thinker.think(Asked(Said(np.concatenate([sound, sound])), history), never))
    mark = thinker._model._ids["<|AUDIO|>"]
    assert int((asked[0]["input_ids"] == mark).sum()) == 5 + 10, "five places for a second"
    assert asked[0]["input_features"].shape[0] == 2
    text = thinker._model._processor.tokenizer.decode(asked[0]["input_ids"][0])
    assert "assistant\nfirst<|im_end|>" in text and "second < |AUDIO|>" in text
    assert asked[0]["max_new_tokens"] == MOST_SPOKEN < MOST_WRITTEN


def test_what_was_heard_before_is_heard_the_same_again_and_sooner(
    loaded: Any, sound: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinker = loaded("both")
    asked: list[dict[str, Any]] = []
    generate = thinker._model._network.generate
    monkeypatch.setattr(thinker._model._network, "generate", lambda **given: asked.append(given) or generate(**given))
    hearing = thinker._model._processor.feature_extractor
    heard: list[int] = []
    extract = hearing._extract
    monkeypatch.setattr(hearing, "_extract", lambda clips, **how: heard.append(len(clips)) or extract(clips, **how))
    new = [sound * scale for scale in (0.5, 0.7, 0.9)]
    for turn in range(3):
        history = tuple(Past(Said(one), "ok") for one in new[:turn])
        list(thinker.think(Asked(Said(new[turn]), history), never))
    assert heard == [1, 1, 1], "one new clip in each turn"
    assert asked[2]["input_features"].shape[0] == 3
    how = {"sampling_rate": RATE, "padding": "max_length", "return_attention_mask": True, "return_tensors": "pt"}
    assert torch.equal(asked[2]["input_features"], extract(new, **how)["input_features"])
    for number in range(40):
        list(thinker.think(Asked(Said(sound * number / 40), speech=False), never))
    assert len(hearing._known) == 16


@pytest.mark.parametrize("seconds", [1 / RATE, 0.02, 0.3, 31.0])
def test_any_length_is_heard(seconds: float, loaded: Any) -> None:
    noise = np.random.default_rng(1).standard_normal(max(1, int(seconds * RATE))).astype(np.float32)
    assert words(list(loaded("both").think(Asked(Said(noise)), never)))


def test_nothing_is_refused(loaded: Any) -> None:
    thinker = loaded("both")
    with pytest.raises(Refused):
        next(thinker.think(Asked(Said(text=" \n")), never))
    assert list(thinker.think(Asked(Said(text="Hi")), never)), "and holds up nobody"


def test_a_reply_ends_at_its_longest(loaded: Any, sound: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.s2s.backends.fun_audio_chat_model.MOST_SPOKEN", 12)
    thoughts = list(loaded("endless").think(Asked(Said(sound)), never))
    assert 0 < words(thoughts).count("啦") <= 11


def test_one_that_is_stopped_ends_within_a_step(loaded: Any, sound: Samples) -> None:
    thinker = loaded("endless")
    stop = threading.Event()
    thoughts = thinker.think(Asked(Said(sound)), stop.is_set)
    said = list(itertools.islice(thoughts, 10))
    stop.set()
    started = time.monotonic()
    rest = list(thoughts)  # what was made before, and the step at hand
    assert time.monotonic() - started < 1.0
    assert len(said) + len(rest) < 2 * MOST_SPOKEN, "it would have gone on"
    assert not _generating()
    assert list(itertools.islice(thinker.think(Asked(Said(sound)), never), 3)), "and the next one begins"


def test_one_that_nobody_reads_any_more_ends_as_well(loaded: Any, sound: Samples) -> None:
    thinker = loaded("endless")
    thoughts = thinker.think(Asked(Said(sound)), never)
    next(thoughts)
    assert _generating()
    thoughts.close()
    assert not _generating()
    head = thinker._model._network.audio_invert_tower
    assert head.crq_past_key_values is None, "nothing of it stays on the device"


def test_there_is_one_at_a_time(loaded: Any, sound: Samples) -> None:
    thinker = loaded("endless")
    first = thinker.think(Asked(Said(sound)), never)
    next(first)
    with pytest.raises(RuntimeError, match="one turn at a time"):
        next(thinker.think(Asked(Said(sound)), never))
    first.close()


@pytest.mark.parametrize(
    ("failure", "seen", "says"),
    [
        (ValueError("shapes"), ValueError, "shapes"),
        (torch.OutOfMemoryError("CUDA out of memory"), Failed, "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Failed, "out of memory"),
        (RuntimeError("odd"), RuntimeError, "odd"),
    ],
)
@pytest.mark.parametrize("after", [0, 3])
def test_a_failure_inside_is_the_turns(
    failure: Exception, seen: type[Exception], says: str, after: int, loaded: Any, sound: Samples, monkeypatch: Any
) -> None:
    thinker = loaded("endless")
    network = thinker._model._network
    count, step = itertools.count(), network.prepare_inputs_for_generation

    @functools.wraps(step)  # whose parameters are looked at
    def fails(*given: Any, **more: Any) -> Any:
        if next(count) >= after:
            raise failure
        return step(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(network, "prepare_inputs_for_generation", fails)
        thoughts = []
        with pytest.raises(seen, match=says):
            thoughts.extend(thinker.think(Asked(Said(sound)), never))
        assert len(thoughts) <= 2 * after
    assert list(itertools.islice(thinker.think(Asked(Said(sound)), never), 4)), "it can take the next one"


def test_a_device_that_is_lost_ends_the_process(loaded: Any, sound: Samples, monkeypatch: Any) -> None:
    thinker = loaded("both")
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)

    def fails(**_: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered\nlong story")

    monkeypatch.setattr(thinker._model._network, "generate", fails)
    with pytest.raises(RuntimeError):
        list(thinker.think(Asked(Said(sound)), never))
    assert ended == [1]


def test_tools_are_called_in_writing(loaded: Any, sound: Samples) -> None:
    for speech in (True, False):
        thoughts = list(loaded("caller").think(Asked(Said(sound), tools=(TOOL,), speech=speech), never))
        assert [thought.name for thought in thoughts if isinstance(thought, Call)] == ["weather", "weather"]
        cities = [json.loads(thought.arguments)["city"] for thought in thoughts if isinstance(thought, Call)]
        assert cities == ["杭州", "上海"]
        assert not words(thoughts).strip() and not codes(thoughts)


def test_where_no_tool_is_called_the_reply_is_spoken_after_all(loaded: Any, sound: Samples) -> None:
    thinker = loaded("both")
    spoken = list(thinker.think(Asked(Said(sound), tools=(TOOL,)), never))
    assert words(spoken) == "It is warm.\n" and codes(spoken), "and not what it would have written"
    written = list(thinker.think(Asked(Said(sound), tools=(TOOL,), speech=False), never))
    assert words(written) == "It is\nsunny 🌞."


def test_a_result_is_answered(loaded: Any, sound: Samples) -> None:
    thinker = loaded("both")
    call = Call("call_1", "weather", '{"city": "杭州"}')
    asked = Asked(Said(results=(ToolResult("call_1", "21 °C"),)), (Past(Said(sound), "", (call,)),), tools=(TOOL,))
    assert words(list(thinker.think(asked, never))) == "It is warm.\n"


def test_a_model_that_is_not_there_or_not_whole_is_named(tiny_thinker: TinyThinker, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="lab/none is neither in"):
        FunAudioChat(Engines(s2s_model_id="lab/none", models_dir=tmp_path), "cpu").load()
    with pytest.raises(Unusable, match="lacks config.json"):
        FunAudioChat(Engines(s2s_model_id=str(tmp_path)), "cpu").load()
    if not torch.cuda.is_available():
        with pytest.raises(Unusable, match="torch sees no GPU"):
            FunAudioChat(Engines(s2s_model_id=str(tiny_thinker("both"))), "cuda:0").load()


def test_a_model_that_does_not_speak_is_never_ready(tiny_thinker: TinyThinker, monkeypatch: Any) -> None:
    thinker = FunAudioChat(Engines(s2s_model_id=str(tiny_thinker("both"))), "cpu")
    monkeypatch.setattr(
        "engines.s2s.backends.fun_audio_chat_model._MODES",
        {True: {"text_greedy": True, "only_crq_sampling": True, "disable_speech": True, "force_text_abos": False}},
    )
    with pytest.raises(Unusable, match="does not speak"):
        thinker.load()


def _generating() -> bool:
    return any(thread.name == "generate" for thread in threading.enumerate())
