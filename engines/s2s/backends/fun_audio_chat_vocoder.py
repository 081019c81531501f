"""Fun-Audio-Chat's codes made audible by CosyVoice 3's flow and vocoder; its language model is not loaded.

Speech comes in hops of 0.6 s, each made out of the codes of up to eight seconds, with three codes looked ahead. What
upstream's server gives away is kept: the end of a reply, the tail at each cut of the vocoder's memory, and enough codes
before each cut of the window that the flow knows what it continues.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines.s2s.backends import VOCODER_RATE, Failed, Samples, Vocoder
from engines.s2s.backends.fun_audio_chat_files import Unusable, find, require, upstream
from engines.s2s.backends.fun_audio_chat_memory import guarded
from engines.s2s.backends.fun_audio_chat_streamer import CODES
from engines.settings import Engines

HOP = 15
"""Codes, 40 ms each."""
LOOK_AHEAD = 3
_WINDOW = 200
"""Codes said, after which the older ones are let go; the flow works through all that are there at every hop."""
_CONTEXT = 50
"""Of them that stay."""
_MEMORY = 1200
"""Frames of the vocoder's spectrum, 20 ms each, after which all but the last are let go."""
_MEMORY_CONTEXT = 200
_LEAST = 5
"""Codes that upstream can make sound of; fewer are filled up, and what is too long is cut."""
_SAMPLES = VOCODER_RATE // 25
"""Of a code."""
_FRAME = VOCODER_RATE // 50
_FIRST = "中文女"
"""Upstream's choice; it has another voice."""


@dataclass(slots=True)
class _Stream:
    embedding: Any
    codes: list[int] = field(default_factory=list)
    said: int = 0
    """Of these codes."""
    begun: bool = False


class CosyVoiceVocoder:
    def __init__(self, settings: Engines, device: str) -> None:
        """device: "cpu" or "cuda:0", and the only one that torch sees."""
        self.device = device
        self._settings = settings
        self.model = Path(settings.s2s_vocoder_model_id).name
        self.voices: tuple[str, ...] = ()
        self._streams: dict[int, _Stream] = {}

    def load(self) -> None:
        import torch

        import patches

        patches.install()
        logging.getLogger("cosyvoice").setLevel(logging.WARNING)
        if self.device != "cpu" and not torch.cuda.is_available():
            raise Unusable(f"{self.device} was asked for, and torch sees no GPU")
        folder = find(self._settings.s2s_vocoder_model_id, self._settings.models_dir)
        self._flow = _load(folder)
        known = torch.load(upstream() / "utils" / "new_spk2info.pt", map_location="cpu", weights_only=True)
        self._embeddings = {name: held["embedding"].to(self._flow.device) for name, held in known.items()}
        self.voices = tuple(sorted(self._embeddings, key=lambda name: (name != _FIRST, name)))
        self.open(-1, self.voices[0])
        if not len(self.feed(-1, range(HOP + LOOK_AHEAD), last=True)):
            raise Unusable("the vocoder makes no sound")

    def open(self, stream: int, voice: str) -> None:
        self.close(stream)
        self._streams[stream] = _Stream(self._embeddings[voice])
        self._flow.hift_cache_dict[str(stream)] = None

    def feed(self, stream: int, codes: Sequence[int], last: bool) -> Samples:
        if (found := self._streams.get(stream)) is None:
            raise Failed("the reply has ended already")
        found.codes += [code for code in codes if 0 <= code < CODES]
        made: list[Samples] = []
        try:
            with guarded():
                while len(found.codes) >= found.said + HOP + LOOK_AHEAD:
                    made.append(self._hop(stream, found))
                if last:
                    made.append(self._rest(stream, found))
        except BaseException:
            self.close(stream)
            raise
        if last:
            self.close(stream)
        return np.concatenate(made) if made else np.zeros(0, np.float32)

    def close(self, stream: int) -> None:
        self._streams.pop(stream, None)
        if self.voices:
            self._flow.hift_cache_dict.pop(str(stream), None)

    # Private

    def _hop(self, stream: int, found: _Stream) -> Samples:
        sound = self._sound(stream, found, found.codes[: found.said + HOP + LOOK_AHEAD], last=False)
        found.said += HOP
        found.begun = True
        if found.said >= _WINDOW:
            found.codes = found.codes[found.said - _CONTEXT :]
            found.said = _CONTEXT
        self._forget(stream)
        return sound

    def _rest(self, stream: int, found: _Stream) -> Samples:
        """What the look-ahead and the vocoder have held back as well."""
        left = len(found.codes) - found.said
        if not (left or found.begun):
            return np.zeros(0, np.float32)
        # A stream that has begun always has the codes that were looked ahead at; only the first one can be too short.
        codes = found.codes + [found.codes[-1]] * (_LEAST - len(found.codes))
        sound = self._sound(stream, found, codes, last=True)
        return sound if found.begun else sound[: left * _SAMPLES]

    def _sound(self, stream: int, found: _Stream, codes: list[int], *, last: bool) -> Samples:
        import torch

        made = self._flow.token2wav(
            token=torch.tensor([codes], dtype=torch.int32),
            prompt_token=torch.zeros(1, 0, dtype=torch.int32),
            prompt_feat=torch.zeros(1, 0, 80),
            embedding=found.embedding,
            token_offset=found.said,
            uuid=str(stream),
            stream=False,
            finalize=last,
        )
        sound: Samples = made[0].float().cpu().numpy()
        if not np.isfinite(sound).all():
            raise Failed("the vocoder made noise")
        return sound

    def _forget(self, stream: int) -> None:
        """Upstream's vocoder works through its whole memory at each hop. Where it is cut, what it has said of it by
        then is counted from the cut, so that it goes on with the very next sample."""
        kept = self._flow.hift_cache_dict[str(stream)]
        if (over := kept["mel"].shape[2] - _MEMORY) >= 0:
            cut = over + _MEMORY - _MEMORY_CONTEXT
            kept["mel"] = kept["mel"][:, :, cut:].clone()
            kept["speech_offset"] -= cut * _FRAME


def _load(folder: Path) -> Any:
    """Upstream's model without what only synthesis from text needs: a fourth of its weights."""
    import torch

    require(folder, "cosyvoice3.yaml", "flow.pt", "hift.pt")
    try:
        from cosyvoice.cli.model import CosyVoice3Model
        from hyperpyyaml import load_hyperpyyaml
    except ModuleNotFoundError as exc:
        raise Unusable(f"CosyVoice needs the module {exc.name}, which is not installed") from exc
    with (folder / "cosyvoice3.yaml").open(encoding="utf-8") as file:
        made = load_hyperpyyaml(file, overrides={"llm": None, "qwen_pretrain_path": os.fspath(folder)})
    if made["sample_rate"] != VOCODER_RATE:
        raise Unusable(f"the model {folder} speaks at {made['sample_rate']} Hz, not at {VOCODER_RATE}")
    model = CosyVoice3Model(None, made["flow"], made["hift"], False)
    for name, network in (("flow", model.flow), ("hift", model.hift)):
        weights = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
        # The vocoder's may come out of its training, under a longer name.
        network.load_state_dict({key.replace("generator.", ""): value for key, value in weights.items()}, strict=True)
        network.to(model.device).eval()
    return model


_: type[Vocoder] = CosyVoiceVocoder
