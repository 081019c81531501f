"""One Fun-Audio-Chat model, loaded, and made to reply step by step. Needs upstream's source on the path of modules.

The network keeps the state of a reply in its own attributes, and so does its mode: one reply at a time.
"""

import logging
from collections.abc import Callable, Generator, Mapping
from functools import cache
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

from engines.s2s.backends.fun_audio_chat_files import Unusable, require
from engines.s2s.backends.fun_audio_chat_hearing import Hearing
from engines.s2s.backends.fun_audio_chat_prompt import Prompt
from engines.s2s.backends.fun_audio_chat_streamer import Step, Streamer, Text

log = logging.getLogger(__name__)

MOST_SPOKEN = 512
"""Steps of a spoken reply, at 200 ms each: upstream's own bound, 102 s."""
MOST_WRITTEN = 2048
"""Steps of a written one."""
_MODES: Mapping[bool, Mapping[str, bool]] = {
    True: {"text_greedy": False, "only_crq_sampling": True, "disable_speech": False, "force_text_abos": True},
    False: {"text_greedy": True, "only_crq_sampling": True, "disable_speech": True, "force_text_abos": False},
}
"""By whether it speaks. The network keeps what it was told last, so each turn says all of it."""
_SAMPLING: Mapping[str, Any] = {
    "do_sample": True,
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 0,
    "num_beams": 1,
    "repetition_penalty": 1.2,
    "length_penalty": 1.0,
}
_END, _FILLER = "<|im_end|>", "<|endoftext|>"
_SPEAKS, _SILENCE = "<|audio_bos|>", "<|sil|>"
_SILENT = (_END, _FILLER, _SPEAKS, _SILENCE, "<|audio_eos|>", "<|AUDIO|>", "<|im_start|>")


class Model:
    def __init__(self, folder: Path, device: str) -> None:
        """device: "cpu" or "cuda:0", and the only one that torch sees. Raises Unusable, and what upstream raises."""
        import torch
        from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor

        require(folder, "config.json", "preprocessor_config.json", "speech_tokenizer")
        _registered()
        # Half the memory; a CPU is quicker with whole numbers.
        self._precision = torch.float32 if device == "cpu" else torch.bfloat16
        self._device = device
        config = AutoConfig.from_pretrained(folder)
        if getattr(config.text_config, "model_type", "") == "qwen3_moe":
            config.text_config.output_router_logits = False
        self._processor = AutoProcessor.from_pretrained(folder)
        self._processor.feature_extractor = Hearing(self._processor.feature_extractor)
        network = AutoModelForSeq2SeqLM.from_pretrained(folder, config=config, torch_dtype=self._precision)
        self._network = network.to(device).eval()
        tokens = self._processor.tokenizer
        self._ids = {name: _id(tokens, name, folder) for name in _SILENT}
        self._end_of_speech = int(config.audio_config.eos_token_id)
        self.longest: int = self._processor.feature_extractor.n_samples
        """Samples of one clip; of a longer one the rest would not be heard."""

    def steps(
        self, prompt: Prompt, *, speech: bool, stopped: Callable[[], bool], most: int = 0
    ) -> Generator[Step, None, None]:
        """A reply. Ends within a step of `stopped`, which is asked in a thread, and of close().

        most: steps; 0 for as many as a reply may have. Raises whatever the network does.
        """
        most = most or (MOST_SPOKEN if speech else MOST_WRITTEN)
        # Room for each step and for the end: nobody waits to put one in.
        made: Queue[Step | BaseException | None] = Queue(most + 2)
        left = Event()

        def work() -> None:
            try:
                self._generate(prompt, speech, most, made.put_nowait, lambda: left.is_set() or stopped())
                made.put_nowait(None)
            except BaseException as exc:  # or nobody would ever hear of it
                made.put_nowait(exc)

        thread = Thread(target=work, name="generate", daemon=True)
        thread.start()
        try:
            while isinstance(step := made.get(), Step):
                yield step
            if step is not None:
                raise step
        finally:
            left.set()
            thread.join()

    def text(self) -> Text:
        """For the tokens of one reply."""
        tokens = self._processor.tokenizer

        def decode(ids: list[int]) -> str:
            return str(tokens.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

        return Text(decode, frozenset(self._ids.values()))

    # Private

    def _generate(
        self, prompt: Prompt, speech: bool, most: int, give: Callable[[Step], None], stopped: Callable[[], bool]
    ) -> None:
        from transformers import StoppingCriteriaList

        network = self._network
        network.sp_gen_kwargs = dict(_MODES[speech])
        try:
            network.generate(
                **self._inputs(prompt),
                **_SAMPLING,
                max_new_tokens=most,
                eos_token_id=self._ids[_END],
                pad_token_id=self._ids[_FILLER],
                bad_words_ids=[[self._ids[_SPEAKS], self._ids[_SILENCE]]],  # no reply begins with silence
                stopping_criteria=StoppingCriteriaList([_Unwanted(stopped)]),
                streamer=Streamer(give, self._end_of_speech),
            )
        finally:
            # What it keeps of a reply would fill the device until the next one.
            head = network.audio_invert_tower
            head.crq_past_key_values = head.crq_audio_embeds = head.crq_speech_ids = None

    def _inputs(self, prompt: Prompt) -> Any:
        text = self._processor.apply_chat_template(prompt.messages, add_generation_prompt=True, tokenize=False)
        heard = {"audio": prompt.clips} if prompt.clips else {}
        made = self._processor(text=text, return_tensors="pt", return_token_type_ids=False, **heard)
        return made.to(self._device, self._precision)  # which leaves whole numbers as they are


class _Unwanted:
    """A stopping criterion, as transformers calls it after each step."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:
        import torch

        return torch.full((tokens.shape[0],), self._stopped(), dtype=torch.bool, device=tokens.device)


@cache
def _registered() -> None:
    """Makes upstream's classes known to transformers, which takes them once."""
    try:
        from funaudiochat.register import register_funaudiochat
    except ModuleNotFoundError as exc:
        raise Unusable(f"Fun-Audio-Chat needs the module {exc.name}, which is not installed") from exc
    register_funaudiochat()


def _id(tokens: Any, name: str, folder: Path) -> int:
    found = tokens.convert_tokens_to_ids(name)
    if found is None or found == tokens.unk_token_id:
        raise Unusable(f"the model {folder} has no token {name}")
    return int(found)
