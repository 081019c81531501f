"""One CosyVoice model of any version: found, checked, loaded, and made to say a sentence.

Needs upstream's source on sys.path, and its patches. Upstream takes the GPU wherever torch sees one.
"""

import importlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from engines.settings import Engines
from engines.tts import sentences
from engines.tts.backends import cosyvoice_text
from engines.tts.backends.cosyvoice_speakers import Speakers, Voice, identity
from gateway.wire import cosyvoice as wire

log = logging.getLogger(__name__)

_CLASSES = {"cosyvoice.yaml": "CosyVoice", "cosyvoice2.yaml": "CosyVoice2", "cosyvoice3.yaml": "CosyVoice3"}
_TOKENIZERS = {
    "CosyVoice": "speech_tokenizer_v1.onnx",
    "CosyVoice2": "speech_tokenizer_v2.onnx",
    "CosyVoice3": "speech_tokenizer_v3.onnx",
}
_SPEAKER_MAKER = "campplus.onnx"
_SWITCHES: Mapping[str, tuple[str, ...]] = {
    "CosyVoice": ("load_jit", "load_trt", "fp16"),
    "CosyVoice2": ("load_jit", "load_trt", "load_vllm", "fp16"),
    "CosyVoice3": ("load_trt", "load_vllm", "fp16"),
}
"""What each class takes."""
_COMPILED: Mapping[str, tuple[str, ...]] = {
    "CosyVoice": ("llm.text_encoder.{}.zip", "llm.llm.{}.zip", "flow.encoder.{}.zip"),
    "CosyVoice2": ("flow.encoder.{}.zip",),
}
"""What load_jit reads."""
_TAGGED = ("zh", "en", "ja", "yue", "ko")
"""Languages that version 1 was taught; its tokenizer has tags for a hundred."""


class Unusable(Exception):
    """A model cannot be loaded; one line for the operator."""


class Cancelled(Exception):
    """Nobody wants the rest."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How each sentence of one request is to be said."""

    mode: str
    """The route, as gateway.wire.cosyvoice names it."""
    stream: bool
    speed: float
    speaker: str = ""
    voice: Voice | None = None
    transcript: str = ""
    instruction: str = ""


class Model:
    """A loaded model. One sentence at a time: upstream's modules keep state, and so does this."""

    def __init__(self, folder: Path, settings: Engines, device: str, for_presets: bool) -> None:
        """for_presets: whether it is there for its built-in speakers. Raises Unusable."""
        configuration = _configuration(folder)
        self.kind = _CLASSES[configuration.name]
        switches = _switches(self.kind, settings, device)
        for name in _files(self.kind, switches, for_presets):
            if not (folder / name).exists():
                raise Unusable(f"the model {folder} lacks {name}")
        self._upstream = _load(self.kind, folder, switches)
        self.rate: int = self._upstream.sample_rate
        self._frontend = self._upstream.frontend
        # Speakers that upstream itself registered are listed there as well, and cannot be used as presets.
        self.presets = tuple(name for name, held in self._frontend.spk2info.items() if "embedding" in held)
        self._hearing = _Hearing(self._frontend)
        makers = [configuration, folder / _SPEAKER_MAKER, folder / _TOKENIZERS[self.kind]]
        self.speakers = Speakers(settings.models_dir / "speakers" / identity(makers), self._hearing.of)
        self.watch = self._upstream.model.silent_tokens = Watch(self._upstream.model.silent_tokens)

    def segments(self, text: str, language: str = "") -> Iterator[str]:
        """`text` normalised, in pieces of the length that the model reads well; lazily. There may be none.

        language: of the text; used by a model that knows a tag for it.
        """
        tag = self._tag(language)
        for block in cosyvoice_text.blocks(text):
            yield from (tag + each for each in self._normalised(block, split=True) if sentences.speakable(each))

    def plain(self, text: str) -> str:
        """A transcript or an instruction, normalised."""
        return str(self._normalised(text, split=False)) if sentences.speakable(text) else text

    def say(self, segment: str, manner: Manner) -> Generator[Any, None, None]:
        """Float tensors [1, samples], -1..1. Raises Cancelled, or what torch does."""
        how: dict[str, Any] = {"stream": manner.stream, "speed": manner.speed, "text_frontend": False}
        self._hearing.voice = manner.voice
        heard = _placeholder()
        match manner.mode:
            case wire.SFT:
                made = self._upstream.inference_sft(segment, manner.speaker, **how)
            case wire.INSTRUCT:
                made = self._upstream.inference_instruct(segment, manner.speaker, manner.instruction, **how)
            case wire.ZERO_SHOT:
                made = self._upstream.inference_zero_shot(segment, manner.transcript, heard, **how)
            case wire.CROSS_LINGUAL:
                made = self._upstream.inference_cross_lingual(segment, heard, **how)
            case wire.INSTRUCT2:
                made = self._upstream.inference_instruct2(segment, manner.instruction, heard, **how)
            case _:
                raise ValueError(manner.mode)
        for piece in made:
            yield piece["tts_speech"]

    # Private

    def _tag(self, language: str) -> str:
        """Versions 2 and 3 find the language out by themselves, and know no tags."""
        if language not in _TAGGED or self.kind != "CosyVoice":
            return ""
        tag = f"<|{language}|>"
        tokens = self._frontend.tokenizer.encode(tag, allowed_special=self._frontend.allowed_special)
        return tag if len(tokens) == 1 else ""

    def _normalised(self, text: str, split: bool) -> Any:
        """A list of segments, or one text."""
        try:
            return self._frontend.text_normalize(text, split=split)
        except Exception as exc:  # some texts are too much for a grammar
            log.warning("a text cannot be normalised and is read as it stands: %s", type(exc).__name__)
            return [text] if split else text


class Watch:
    """Upstream looks each token up among the silent ones as it is made: the place to find out that nobody wants it."""

    def __init__(self, silent: Any) -> None:
        self._silent = silent
        self.stopped: Callable[[], bool] = lambda: False

    def __contains__(self, token: int) -> bool:
        if self.stopped():
            raise Cancelled
        return token in self._silent


class _Hearing:
    """Between upstream's frontend and its three extractors, which would hear a recording again for each sentence, and
    of which a speaker registered with upstream keeps more than an instruction may have."""

    def __init__(self, frontend: Any) -> None:
        self.voice: Voice | None = None
        self._device = frontend.device
        self._features = frontend._extract_speech_feat
        self._tokens = frontend._extract_speech_token
        self._embedding = frontend._extract_spk_embedding
        frontend._extract_speech_feat = lambda _: self._with_length(self._known.features)
        frontend._extract_speech_token = lambda _: self._with_length(self._known.tokens)
        frontend._extract_spk_embedding = lambda _: self._known.embedding.to(self._device)

    def of(self, wav: BytesIO) -> Voice:
        return Voice(self._features(wav)[0].cpu(), self._tokens(wav)[0].cpu(), self._embedding(wav).cpu())

    @property
    def _known(self) -> Voice:
        assert self.voice is not None, "a mode that hears a recording was given none"
        return self.voice

    def _with_length(self, tensor: Any) -> tuple[Any, Any]:
        import torch

        # Upstream writes into the length.
        return tensor.to(self._device), torch.tensor([tensor.shape[1]], dtype=torch.int32, device=self._device)


def find(name: str, models_dir: Path) -> Path:
    """The folder of a model named by its hub name or as a folder. Raises Unusable."""
    for folder in (Path(name), models_dir / name):  # in the order in which engines/provision looks
        if folder.is_dir():
            return folder
    raise Unusable(f"the model {name} is neither in {models_dir} nor a folder")


def _configuration(folder: Path) -> Path:
    for name in _CLASSES:
        if (folder / name).exists():
            return folder / name
    raise Unusable(f"the model {folder} lacks {', '.join(_CLASSES)}: one of them")


def _switches(kind: str, settings: Engines, device: str) -> dict[str, bool]:
    """What is switched on, as far as the class and the device can do it."""
    asked = {
        "load_jit": settings.tts_load_jit,
        "load_trt": settings.tts_load_trt,
        "load_vllm": settings.tts_load_vllm,
        "fp16": settings.tts_enable_fp16,
    }
    on = {name for name, value in asked.items() if value}
    can = set(_SWITCHES[kind]) if device != "cpu" else set()
    if on - can:
        log.warning("%s on %s goes without %s", kind, device, ", ".join(sorted(on - can)))
    return dict.fromkeys(sorted(on & can), True)


def _files(kind: str, switches: Mapping[str, bool], for_presets: bool) -> list[str]:
    names = ["llm.pt", "flow.pt", "hift.pt", _SPEAKER_MAKER, _TOKENIZERS[kind]]
    if kind != "CosyVoice":
        names.append("CosyVoice-BlankEN/config.json")
    if for_presets:
        names.append("spk2info.pt")
    if switches.get("load_jit"):
        precision = "fp16" if switches.get("fp16") else "fp32"
        names += [name.format(precision) for name in _COMPILED[kind]]
    if switches.get("load_trt"):
        names.append("flow.decoder.estimator.fp32.onnx")
    return names


def _load(kind: str, folder: Path, switches: Mapping[str, bool]) -> Any:
    try:
        if switches.get("load_vllm"):
            _tell_vllm()
        if switches.get("load_trt"):
            importlib.import_module("tensorrt")
        upstream = importlib.import_module("cosyvoice.cli.cosyvoice")
    except ModuleNotFoundError as exc:
        raise Unusable(f"{kind} needs the module {exc.name}, which is not installed") from exc
    return getattr(upstream, kind)(str(folder), **switches)


def _tell_vllm() -> None:
    """vLLM must know upstream's network before it loads one."""
    network = importlib.import_module("cosyvoice.vllm.cosyvoice2").CosyVoice2ForCausalLM
    importlib.import_module("vllm").ModelRegistry.register_model("CosyVoice2ForCausalLM", network)


def _placeholder() -> Any:
    """Where upstream wants a recording; nobody listens to it."""
    import torch

    return torch.zeros(1, 1)
