"""CosyVoice 1, 2 and 3: preset voices, and voices out of recordings. Upstream's own code, patched.

At most two models: one with built-in speakers, one that clones. One request at a time, as upstream's modules need it.
"""

import logging
import os
import random
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.settings import Engines
from engines.tts import sentences
from engines.tts.backends import Backend, cosyvoice_text
from engines.tts.backends.cosyvoice_model import Cancelled, Manner, Model, Unusable, find
from engines.tts.backends.cosyvoice_speakers import Voice
from engines.tts.job import Job, Refused
from gateway.wire import cosyvoice as wire

_OF_PRESETS = (wire.SFT, wire.INSTRUCT)
_SHOWN = 20


class OutOfMemory(Exception):
    """The device has no room for this request; there may be for the next."""

    status = 503


class CosyVoice:
    parallel = 1

    def __init__(self, settings: Engines, device: str) -> None:
        """device: "cpu" or "cuda:0", and the only one that torch sees."""
        self.device = device
        self._settings = settings
        self._presets: Model | None = None
        self._clone: Model | None = None
        self._alone = Lock()
        self._names = _names(settings)
        self.model = " + ".join(Path(name).name for name in self._names.values())

    def load(self) -> None:
        import patches

        patches.install()
        logging.getLogger("cosyvoice").setLevel(logging.WARNING)  # it tells of each piece that it makes
        settings = self._settings
        if self.device == "cpu":
            _share_cores(settings.tts_workers)
        else:
            self.device = _gpu(self.device)
        folders = {part: find(name, settings.models_dir) for part, name in self._names.items()}
        if "sft" in folders:
            self._presets = Model(folders["sft"], settings, self.device, for_presets=True)
        if "clone" in folders:
            self._clone = Model(folders["clone"], settings, self.device, for_presets=False)
        if self._presets is None and self._clone is not None and self._clone.presets:
            self._presets = self._clone

    @property
    def speakers(self) -> tuple[str, ...]:
        return self._presets.presets if self._presets else ()

    @property
    def registered(self) -> tuple[str, ...]:
        return self._clone.speakers.names if self._clone else ()

    def rate(self, job: Job) -> int:
        return self._model(job.mode).rate

    def register(self, name: str, job: Job) -> None:
        if job.prompt is None:
            raise Refused("a speaker is registered with a recording")
        with _memory():
            self._cloning().speakers.register(name, job.prompt, cosyvoice_text.transcript(job.prompt_text))

    def speak(self, job: Job, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        model = self._model(job.mode)
        language, text = cosyvoice_text.words(job.text)
        if not sentences.speakable(text):
            raise Refused("there is nothing in tts_text that can be spoken")
        segments = model.segments(text, language if job.mode == wire.CROSS_LINGUAL else "")
        first = next(segments, None)
        if first is None:
            raise Refused("there is nothing in tts_text that can be spoken")
        with _memory():
            manner = self._manner(model, job)
        return self._speech(model, chain((first,), segments), manner, job.seed, stopped)

    # Private

    def _model(self, mode: str) -> Model:
        """The one for a route. Raises Refused."""
        if mode not in _OF_PRESETS:
            model = self._cloning()
            if mode == wire.INSTRUCT2 and model.kind == "CosyVoice":
                raise Refused("this model follows no instructions with a recording: that takes CosyVoice 2 or 3")
            return model
        if self._presets is None:
            raise Refused("this engine has no built-in speakers, only voices from recordings")
        if mode == wire.INSTRUCT and self._presets.kind != "CosyVoice":
            raise Refused("this model follows instructions only with a recording: use inference_instruct2")
        return self._presets

    def _cloning(self) -> Model:
        if self._clone is None:
            raise Refused(f"this engine has built-in speakers only; known are {_listed(self.speakers)}")
        return self._clone

    def _manner(self, model: Model, job: Job) -> Manner:
        voice = None
        if job.mode in _OF_PRESETS:
            if job.speaker not in model.presets:
                raise Refused(f"unknown spk_id {job.speaker[:40]!r}; known are {_listed(model.presets)}")
        else:
            voice = self._voice(model, job)
        said = voice.transcript if voice else ""
        return Manner(
            mode=job.mode,
            # Upstream changes the pace of whole sentences only. Streamed, the language model and the vocoder draw
            # from one source of chance side by side, and no seed makes that come twice.
            stream=job.stream and job.speed == 1 and job.seed is None,
            speed=job.speed,
            speaker=job.speaker,
            voice=voice,
            transcript=model.plain(said or cosyvoice_text.transcript(job.prompt_text)),
            instruction=model.plain(cosyvoice_text.instruction(job.instruction)),
        )

    def _voice(self, model: Model, job: Job) -> Voice:
        if job.registered:
            if (voice := model.speakers.registered(job.registered)) is None:
                known = _listed(model.speakers.names)
                raise Refused(f"unknown zero_shot_spk_id {job.registered[:40]!r}; known are {known}")
            return voice
        if job.prompt is None:
            raise Refused("a recording is needed, or a registered speaker")
        return model.speakers.of(job.prompt)

    def _speech(
        self, model: Model, segments: Iterator[str], manner: Manner, seed: int | None, stopped: Callable[[], bool]
    ) -> Generator[bytes, None, None]:
        # Whoever came second would wait for the first one's reader, so that is refused instead.
        if not self._alone.acquire(blocking=False):
            raise RuntimeError("one request at a time")
        try:
            with _memory():
                if seed is not None:
                    _seed(seed)
                model.watch.stopped = stopped
                for segment in segments:
                    yield from self._said(model, segment, manner, stopped)
                    if stopped():
                        return
        except Cancelled:
            return
        finally:
            self._alone.release()

    def _said(
        self, model: Model, segment: str, manner: Manner, stopped: Callable[[], bool]
    ) -> Generator[bytes, None, None]:
        # Closed as soon as it is left, which ends upstream's thread.
        with closing(model.say(segment, manner)) as sounds:
            for sound in sounds:
                if stopped():
                    return
                if piece := _pcm(sound):
                    yield piece


def _names(settings: Engines) -> dict[str, str]:
    """The models that are asked for: "sft", "clone" or both, to their names."""
    clone = {"cosyvoice2": settings.clone_model_id, "cosyvoice3": settings.cosyvoice3_model_id}
    asked = {"sft": settings.sft_model_id, "clone": clone[settings.clone_model_version]}
    return asked if settings.tts_model_mode == "all" else {settings.tts_model_mode: asked[settings.tts_model_mode]}


def _gpu(device: str) -> str:
    """The device and what it is called. Raises Unusable."""
    import torch

    if not torch.cuda.is_available():
        raise Unusable(f"{device} was asked for, and torch sees no GPU")
    return f"{device} ({torch.cuda.get_device_name(0)})"


def _share_cores(workers: int) -> None:
    """The language model works beside the vocoder, in each worker: with more threads than cores they would all wait
    for each other."""
    import torch

    mine = len(os.sched_getaffinity(0)) // (2 * workers)
    torch.set_num_threads(max(1, min(torch.get_num_threads(), mine)))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") or "none"


def _pcm(sound: Any) -> bytes:
    """s16le of a float tensor [1, samples]; what is too loud is clipped."""
    samples: NDArray[np.float32] = sound.float().numpy().reshape(-1)
    return (np.clip(samples, -1.0, 1.0) * 32_767).round().astype("<i2").tobytes()


def _seed(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def _memory() -> Iterator[None]:
    """A device that is full is said to be, and given back what can be spared. Raises OutOfMemory."""
    import torch

    try:
        yield
    except Exception as exc:
        if not _is_full(exc):
            raise
        # The failure holds the frames that it came through, and they hold tensors.
        traceback.clear_frames(exc.__traceback__)
        torch.cuda.empty_cache()
        raise OutOfMemory("out of memory") from None


def _is_full(exc: Exception) -> bool:
    import torch

    # onnxruntime has no type of its own for it.
    return isinstance(exc, torch.OutOfMemoryError) or "Failed to allocate memory" in str(exc)


_: type[Backend] = CosyVoice
