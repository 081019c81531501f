"""Upstream's faults, each brought about on tiny models: `python -m tests.patches.faults FOLDER patched|upstream`.

A process of its own, because upstream is patched while it is imported. Prints one JSON object for each fault, by the
name of its function: {"name", "is"} with what came of it, {"name", "raised"}, or {"name", "hung": true}.
"""

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import patches

HUNG = 5.0
"""Seconds, for what is known to hang upstream."""
LONGEST = 60.0
"""For all else, on a busy machine: about one."""
SAID = "The recording's own words."
TEXT = "A short sentence."
LONG = "This sentence goes on until it is long enough to stand for itself, as a sentence of a book would. " * 4
MARKER = "<|endofprompt|>"


class World:
    """The models of FOLDER, and recordings beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wav = str(folder / "prompt.wav")
        """44100 Hz, stereo."""

    def load(self, version: str) -> Any:
        from cosyvoice.cli.cosyvoice import AutoModel

        return AutoModel(model_dir=str(self.folder / version))

    @cached_property
    def first(self) -> Any:
        return self.load("cosyvoice")

    @cached_property
    def second(self) -> Any:
        return self.load("cosyvoice2")

    @cached_property
    def third(self) -> Any:
        return self.load("cosyvoice3")


def streamed_requests(world: World) -> Any:
    """The pieces of three requests, one after the other, and of one beside another: [[samples, ...], ...]"""
    one_by_one = [_sizes(_speak(world, stream=True)) for _ in range(3)]
    other, beside = _speak(world, stream=True), []
    for piece in _speak(world, stream=True):
        beside.append(piece["tts_speech"].shape[1])
        next(other, None)
    return [*one_by_one, beside]


def closed_request(world: World) -> Any:
    """[entries left, language models that still run] of a request whose consumer leaves after the first piece"""
    model = world.second.model
    with _changed(model.llm.llm, "forward_one_step", _slowly), _changed(model, "token_hop_len", lambda _: 25):
        before = _threads()
        pieces = _speak(world, stream=True)
        next(pieces)
        pieces.close()
        left = [len(model.tts_speech_token_dict), _threads() - before]
        _until_left(before)
    return left


def error_while_streaming(world: World) -> Any:
    with _changed(world.second.model.llm, "sampling_ids", _failing_at(60)):
        return _sizes(_speak(world, stream=True))


def error_without_streaming(world: World) -> Any:
    with _changed(world.second.model.llm, "sampling_ids", _failing_at(60)):
        return _sizes(_speak(world))


def error_of_the_vocoder(world: World) -> Any:
    """[what the caller sees, language models that still run]"""
    model = world.second.model
    before = _threads()
    with (
        _changed(model.llm.llm, "forward_one_step", _slowly),
        _changed(model, "token_hop_len", lambda _: 25),
        _changed(model.flow, "inference", _failing_at(0)),
    ):
        try:
            _sizes(_speak(world, stream=True))
        except MemoryError as exc:
            seen = [str(exc), _threads() - before]
        _until_left(before)
    return seen


def early_end_of_sequence(world: World) -> Any:
    with _eager_to_end(world.third):
        return [_sizes(world.third.inference_zero_shot(text, MARKER + SAID, world.wav)) for text in (TEXT, "A")]


def early_end_of_sequence_of_a_text_in_pieces(world: World) -> Any:
    with _eager_to_end(world.third):
        text = (word for word in TEXT.split(" "))
        return sum(_sizes(world.third.inference_zero_shot(text, MARKER + SAID, world.wav, stream=True)))


def tensor_of_a_server(world: World) -> Any:
    from cosyvoice.utils.file_utils import load_wav

    with Path(world.wav).open("rb") as file:
        speech = load_wav(file, 16_000)
    return len(_sizes(world.second.inference_zero_shot(TEXT, SAID, speech)))


def tensor_of_other_making(world: World) -> Any:
    """As upstream's gRPC server makes it."""
    import torch

    speech = torch.zeros(1, 32_000)
    return len(_sizes(world.second.inference_cross_lingual(TEXT, speech)))


def quality_of_a_tensor(world: World) -> Any:
    """Whether frames are made of the recording itself, and not of what is left of it at 16 kHz"""
    from cosyvoice.utils.file_utils import load_wav

    frames = world.second.frontend._extract_speech_feat
    return bool(frames(load_wav(world.wav, 16_000))[0].equal(frames(world.wav)[0]))


def file_that_is_gone(world: World) -> Any:
    gone = world.folder / "gone.wav"
    gone.write_bytes(Path(world.wav).read_bytes())
    pieces = world.second.inference_zero_shot(TEXT, SAID, str(gone))
    gone.unlink()
    return len(_sizes(pieces))


def open_file(world: World) -> Any:
    file = io.BytesIO(Path(world.wav).read_bytes())
    file.read()
    return len(_sizes(world.second.inference_cross_lingual(LONG, file))) > 1


def low_sample_rate(world: World) -> Any:
    return _sizes(world.second.inference_zero_shot(TEXT, SAID, str(world.folder / "telephone.wav")))


def frames_of_the_first_version(world: World) -> Any:
    """Of 3 s"""
    with _without_tables():
        return world.first.frontend._extract_speech_feat(world.wav)[0].shape[1]


def two_versions_in_a_process(world: World) -> Any:
    """Frames of both for 3 s"""
    with _without_tables():
        return [model.frontend._extract_speech_feat(world.wav)[0].shape[1] for model in (world.second, world.first)]


def third_without_marker(world: World) -> Any:
    """Whether there is audio of each kind of request"""
    model = world.third
    model.add_zero_shot_spk(SAID, world.wav, "ann")
    model.frontend.spk2info["preset"] = {"embedding": model.frontend._extract_spk_embedding(world.wav)}
    requests = [
        model.inference_zero_shot(TEXT, SAID, world.wav),
        model.inference_cross_lingual(TEXT, world.wav),
        model.inference_instruct2(TEXT, "Slowly.", world.wav),
        model.inference_zero_shot(TEXT, "", "", "ann"),
        model.inference_cross_lingual(TEXT, "", "ann"),
        model.inference_sft(TEXT, "preset"),
    ]
    return [sum(_sizes(pieces)) > 20_000 for pieces in requests]


def third_with_a_long_text(world: World) -> Any:
    """Sentences"""
    return len(_sizes(world.third.inference_cross_lingual(LONG, world.wav)))


def language_tags(world: World) -> Any:
    """Sentences of a text that begins with its language, and the first letters of the first one"""
    frontends = [model.frontend for model in (world.first, world.second, world.third)]
    texts = [frontend.text_normalize(f"<|en|>{LONG}", split=True) for frontend in frontends]
    return [[len(sentences), sentences[0][:8]] for sentences in texts]


def markers(world: World) -> Any:
    """The prompt that each model is given: without and with a marker of the caller's"""
    first, second, third = world.first.frontend, world.second.frontend, world.third.frontend
    prompts = []
    for how in ("Slowly.", f"Slowly.{MARKER}"):
        prompts += [
            first.tokenizer.decode(first.frontend_instruct(TEXT, "中文女", how)["prompt_text"][0].tolist()),
            _decoded(second, second.frontend_instruct2(TEXT, how, world.wav, 24_000, "")),
            _decoded(third, third.frontend_instruct2(TEXT, how, world.wav, 24_000, "")),
            _decoded(third, third.frontend_zero_shot(TEXT, how, world.wav, 24_000, "")),
            _decoded(second, second.frontend_zero_shot(TEXT, how, world.wav, 24_000, "")),
        ]
    return prompts


def pause_between_looks(world: World) -> Any:
    """Whether a request in a stream looks for tokens more often than every 100 ms"""
    import cosyvoice.cli.model

    began = time.monotonic()
    cosyvoice.cli.model.time.sleep(0.5)
    return time.monotonic() - began < 0.4


def logged_text(world: World) -> Any:
    """[whether a text is in the logs, the level of the root logger]"""
    import logging

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    _sizes(world.second.inference_zero_shot("Secret.", "What nobody else may ever come to read.", world.wav))
    logging.getLogger().removeHandler(handler)
    return [any("Secret" in line or "nobody" in line for line in lines), logging.getLogger().level, bool(lines)]


FAULTS: tuple[Callable[[World], Any], ...] = (
    closed_request,
    streamed_requests,
    error_of_the_vocoder,
    error_without_streaming,
    early_end_of_sequence,
    tensor_of_a_server,
    tensor_of_other_making,
    quality_of_a_tensor,
    file_that_is_gone,
    open_file,
    low_sample_rate,
    frames_of_the_first_version,
    two_versions_in_a_process,
    third_without_marker,
    third_with_a_long_text,
    language_tags,
    markers,
    pause_between_looks,
    logged_text,
)
HANGING = (error_while_streaming, early_end_of_sequence_of_a_text_in_pieces)
"""Last: upstream they go on beside what follows."""


def _speak(world: World, stream: bool = False) -> Any:
    return world.second.inference_zero_shot(TEXT, SAID, world.wav, stream=stream)


def _threads() -> int:
    """Of requests; the progress bar has its own kind."""
    return sum(type(thread) is threading.Thread for thread in threading.enumerate())


def _until_left(threads: int) -> None:
    """Waits for the language models that nobody stopped, so that they do not disturb what follows."""
    while _threads() > threads:
        time.sleep(0.01)


def _sizes(pieces: Any) -> list[int]:
    """Samples of each."""
    return [piece["tts_speech"].shape[1] for piece in pieces]


def _decoded(frontend: Any, made: dict[str, Any]) -> str:
    decoded: str = frontend.tokenizer.tokenizer.decode(made["prompt_text"][0].tolist())
    return decoded


@contextmanager
def _without_tables() -> Iterator[None]:
    """Matcha's, of another version, before and after."""
    import matcha.utils.audio

    def clear() -> None:
        matcha.utils.audio.mel_basis.clear()
        matcha.utils.audio.hann_window.clear()

    clear()
    try:
        yield
    finally:
        clear()


@contextmanager
def _changed(owner: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    before = getattr(owner, name)
    object.__setattr__(owner, name, change(before))
    try:
        yield
    finally:
        object.__setattr__(owner, name, before)


def _slowly(step: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.04)
        return step(*args, **kwargs)

    return slow


def _failing_at(call: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    calls = iter(range(call + 1))

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def fail(*args: Any, **kwargs: Any) -> Any:
            if next(calls, call) == call:
                raise MemoryError("of the device")
            return function(*args, **kwargs)

        return fail

    return failing


@contextmanager
def _eager_to_end(model: Any) -> Iterator[None]:
    """The end of sequence is what the language model likes best, at every token."""
    llm = model.model.llm

    def like_the_end(_layer: Any, _inputs: Any, scores: Any) -> Any:
        scores[..., llm.eos_token] += 100
        return scores

    hook = llm.llm_decoder.register_forward_hook(like_the_end)
    try:
        yield
    finally:
        hook.remove()


def _tell(world: World, fault: Callable[[World], Any], seconds: float = LONGEST) -> None:
    told: dict[str, Any] = {"hung": True}

    def run() -> None:
        nonlocal told
        try:
            told = {"is": fault(world)}
        except BaseException as exc:
            told = {"raised": f"{type(exc).__name__}: {exc}"[:200]}

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    print(json.dumps({"name": fault.__name__} | told), flush=True)


def main(folder: str, which: str) -> None:
    if which == "upstream":  # all but what makes it start at all
        everything = patches.found
        patches.found = lambda: [patch for patch in everything() if patch.__name__.endswith("training_only")]
    patches.install()
    world = World(Path(folder))
    assert world.first and world.second and world.third  # no fault's time is that of an import
    for fault in FAULTS:
        _tell(world, fault)
    for fault in HANGING:
        _tell(world, fault, HUNG if which == "upstream" else LONGEST)
    os._exit(0)  # past the threads that hang


if __name__ == "__main__":
    main(*sys.argv[1:])
