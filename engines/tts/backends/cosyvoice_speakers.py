"""What CosyVoice makes of reference audio, kept: in memory for a while, on disk across restarts and for other workers.

`<models_dir>/speakers/<model>/<recording>.pt`, and in `registered/` one file for each name. A file is written under
another name and moved, and read by torch's loader of weights only; one that cannot be read is made again.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from engines.tts.job import Prompt, Refused

log = logging.getLogger(__name__)

_LAYOUT = "1"
"""Changes with what a file holds, or with how it is made."""
_REMEMBERED = 64
_KEPT = 512
"""Files of recordings; up to half a megabyte each. The one that was not used for the longest time goes first."""
_MOST_REGISTERED = 1024
_LOWEST_RATE = 16_000
"""Hz, that upstream takes."""
_ENDS_OF_FILE = 2**20
"""Bytes at either end that stand for the whole of a file of hundreds of megabytes."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Of one recording. Tensors on the CPU; a request takes them to its device."""

    features: Any
    """float32 [1, frames, 80]: the mel spectrum that the flow continues."""
    tokens: Any
    """int32 [1, tokens]: the speech that the language model continues."""
    embedding: Any
    """float32 [1, 192]: the speaker."""
    transcript: str = ""
    """What is said in it, where it was registered with that."""


class Speakers:
    """The voices of one model. `extract` is given a WAV file, and takes its time."""

    def __init__(self, folder: Path, extract: Callable[[BytesIO], Voice]) -> None:
        self._folder, self._names, self._extract = folder, folder / "registered", extract
        self._known: OrderedDict[str, Voice] = OrderedDict()

    def of(self, prompt: Prompt) -> Voice:
        """The voice of a recording."""
        key = _recording(prompt)
        file = self._folder / f"{key}.pt"
        if (voice := self._recalled(key)) is None:
            voice = _read(file)
            if voice is None:
                voice = self._extract(_wav(prompt))
                _write(file, voice)
                self._prune()
            self._remember(key, voice)
        with suppress(OSError):
            os.utime(file)
        return voice

    def registered(self, name: str) -> Voice | None:
        """Of a name; None for one that nobody registered."""
        file = self._file(name)
        try:
            key = f"{name} {file.stat().st_mtime_ns}"
        except OSError:
            return None
        if (voice := self._recalled(key)) is None and (voice := _read(file)) is not None:
            self._remember(key, voice)
        return voice

    def register(self, name: str, prompt: Prompt, transcript: str) -> None:
        """Raises Refused."""
        if len(names := self.names) >= _MOST_REGISTERED and name not in names:
            raise Refused(f"no more than {_MOST_REGISTERED} speakers can be registered")
        heard = self.of(prompt)
        voice = Voice(heard.features, heard.tokens, heard.embedding, transcript)
        if not _write(self._file(name), voice):
            raise OSError("the speaker cannot be stored")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(unquote(file.stem) for file in self._names.glob("*.pt")))

    # Private

    def _file(self, name: str) -> Path:
        return self._names / f"{quote(name, safe='')}.pt"

    def _recalled(self, key: str) -> Voice | None:
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def _remember(self, key: str, voice: Voice) -> None:
        self._known[key] = voice
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _prune(self) -> None:
        with suppress(OSError):  # of another worker that prunes as well
            files = sorted((each for each in self._folder.iterdir() if each.is_file()), key=_used)
            for file in files[:-_KEPT]:
                file.unlink(missing_ok=True)


def identity(files: list[Path]) -> str:
    """A digest of what makes voices out of recordings: by their ends, since some are as large as a model."""
    digest = sha256(_LAYOUT.encode())
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as source:
            digest.update(f"{file.name} {size} ".encode() + source.read(_ENDS_OF_FILE))
            source.seek(max(0, size - _ENDS_OF_FILE))
            digest.update(source.read())
    return digest.hexdigest()[:32]


def _recording(prompt: Prompt) -> str:
    return sha256(f"{prompt.sample_rate} ".encode() + prompt.samples.tobytes()).hexdigest()


def _wav(prompt: Prompt) -> BytesIO:
    import soundfile
    import soxr

    samples, rate = prompt.samples, prompt.sample_rate
    if rate < _LOWEST_RATE:
        samples, rate = np.asarray(soxr.resample(samples, rate, _LOWEST_RATE), np.float32), _LOWEST_RATE
    file = BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    file.seek(0)
    return file


def _used(file: Path) -> float:
    return file.stat().st_mtime


def _read(file: Path) -> Voice | None:
    """None where there is none, or none that can be used."""
    import torch

    if not file.exists():
        return None
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        voice = Voice(found["features"], found["tokens"], found["embedding"], found["transcript"])
        shapes = voice.features.shape, voice.tokens.shape, voice.embedding.shape
        if [len(shape) for shape in shapes] != [3, 2, 2] or not isinstance(voice.transcript, str):
            raise ValueError("not a voice")
    except (OSError, MemoryError) as exc:  # of the disk or the machine: the file may be right, and made by hand
        log.warning("a stored speaker cannot be read now: %s", type(exc).__name__)
        return None
    except Exception as exc:  # a damaged file raises whatever the bytes in it make torch do
        log.warning("a stored speaker cannot be read and is dropped: %s", type(exc).__name__)
        file.unlink(missing_ok=True)
        return None
    return voice


def _write(file: Path, voice: Voice) -> bool:
    """Whether it was stored; a full or read-only disk costs time, not the request."""
    import torch

    held = {
        "features": voice.features,
        "tokens": voice.tokens,
        "embedding": voice.embedding,
        "transcript": voice.transcript,
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            try:
                torch.save(held, part)
                part.close()
                Path(part.name).replace(file)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
    except (OSError, RuntimeError) as exc:  # torch says RuntimeError where a disk is full
        log.warning("a speaker cannot be stored: %s", type(exc).__name__)
        return False
    return True
