"""What the operator sets for an engine server, in the environment. The only file here that reads it.

The names are FunSpeech's where FunSpeech has one. An unknown value stops the start with one line.
"""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class SettingsError(Exception):
    """One clear line for the operator."""


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _mode(value: object) -> object:
    """FunSpeech renamed the modes and kept no alias."""
    return {"cosyvoice1": "sft", "cosyvoice2": "clone"}.get(str(value).strip().lower(), _lower(value))


def _endpoint(value: object) -> object:
    """An address without its last slash; a bare host is meant to be asked over HTTPS."""
    text = str(value).strip().rstrip("/")
    if text and "://" not in text:
        text = f"https://{text}"
    if not text.startswith(("http://", "https://")):
        raise ValueError("not the address of a hub")
    return text


Switch = Annotated[bool, BeforeValidator(_lower)]
Endpoint = Annotated[str, BeforeValidator(_endpoint)]
_ROOT = Path(__file__).resolve().parents[1]


class Engines(BaseModel):
    """Every name is also an environment variable, in capitals."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    models_dir: Path = Path("models")
    """Where models, fetched sources and added packages are kept; a volume in the containers."""

    tts_gpus: str = ""
    """Devices of synthesis: empty or auto for the first GPU, else the CPU; cpu; 0; 0,1,2. One worker for each."""
    asr_gpus: str = ""
    """Devices of recognition, in the same words."""
    s2s_gpus: str = ""
    """Devices of conversation, in the same words. One process for each, and one turn at a time in it: the model takes
    19 GB of a GPU, and about 5 more where its vocoder is beside it."""
    s2s_vocoder_gpus: str = ""
    """Devices that make the codes of conversation audible: empty for those of S2S_GPUS, else in the same words."""
    tts_workers: int = Field(default=1, ge=1, le=16)
    """Synthesis processes on each device: one alone leaves a GPU half idle, each holds its own copy of the model."""
    asr_workers: int = Field(default=1, ge=1, le=16)
    """Recognition processes on each device."""

    tts_model_mode: Annotated[Literal["all", "sft", "clone"], BeforeValidator(_mode)] = "all"
    """Which CosyVoice models are loaded: sft (300M-SFT, preset voices; cosyvoice1 means the same), clone (voices from
    recordings; cosyvoice2 means the same), or all."""
    clone_model_version: Annotated[Literal["cosyvoice2", "cosyvoice3"], BeforeValidator(_lower)] = "cosyvoice3"
    """Which model clones."""
    sft_model_id: str = "iic/CosyVoice-300M-SFT"
    clone_model_id: str = "iic/CosyVoice2-0.5B"
    cosyvoice3_model_id: str = "FunAudioLLM/Fun-CosyVoice3-0.5B-2512"
    """A model is named by its hub name, or is a folder."""
    tts_enable_fp16: Switch = False
    """Half precision on a GPU; with CosyVoice3 and TensorRT it is known to give noise."""
    tts_load_jit: Switch = False
    tts_load_trt: Switch = False
    tts_load_vllm: Switch = False

    s2s_model_id: str = "FunAudioLLM/Fun-Audio-Chat-8B"
    """Hears, thinks and speaks in codes."""
    s2s_vocoder_model_id: str = "FunAudioLLM/Fun-CosyVoice3-0.5B-2512"
    """Makes its codes audible; of it the flow and the vocoder are used."""

    asr_model_mode: Annotated[Literal["all", "offline", "realtime"], BeforeValidator(_lower)] = "all"
    """Which recognisers are loaded: for whole recordings, for live audio, or both."""
    asr_model_id: str = "FunAudioLLM/Fun-ASR-Nano-2512"
    """The recogniser of whole recordings and of the second pass: Fun-ASR-Nano, MLT-Nano, SenseVoice or Paraformer."""
    asr_realtime_model_id: str = "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online"
    vad_model_id: str = "iic/speech_fsmn_vad_zh-cn-16k-common-pytorch"
    punc_model_id: str = "iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch"
    """`none` for a recogniser that writes its own punctuation."""
    asr_enable_realtime_punc: Switch = False
    """Punctuation in partial results too, by the model that follows."""
    punc_realtime_model_id: str = "iic/punc_ct-transformer_zh-cn-common-vad_realtime-vocab272727"

    model_hub: Annotated[Literal["modelscope", "huggingface"], BeforeValidator(_lower)] = "modelscope"
    """Where models are fetched from; one that this hub does not have comes from the other."""
    modelscope_endpoint: Endpoint = "https://modelscope.cn"
    hf_endpoint: Endpoint = "https://huggingface.co"
    """Addresses of the hubs, or of mirrors that speak as they do. Proxies are set by HTTPS_PROXY and NO_PROXY."""
    modelscope_api_token: str = Field(default="", repr=False)
    hf_token: str = Field(default="", repr=False)
    """For models that a hub gives to some only."""
    cosyvoice_source: str = ""
    """CosyVoice's source, if not from its code host: an address ({commit} is put in), a .tar.gz, or a folder."""
    fun_audio_chat_source: str = ""
    """Fun-Audio-Chat's source, in the same words."""
    wheels_dir: Path | None = None
    """A folder of wheels that missing packages are installed from, without any network."""
    models_lock: Path = _ROOT / "deploy" / "models.lock"
    packages_lock: Path = _ROOT / "requirements" / "engines.lock"
    """What is fetched, pinned."""


def example() -> str:
    """The text of deploy/engines.env.example: every setting with its default, commented out."""
    lines = ["# Settings of the engines. Printed by `make env`; copy what you change to deploy/.env and uncomment it."]
    for name, field in Engines.model_fields.items():
        if field.description:
            lines += ["", *textwrap.wrap(field.description, 110, initial_indent="# ", subsequent_indent="# ")]
        default = field.default
        shown = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        lines.append(f"#{name.upper()}={shown.removeprefix(f'{_ROOT}/')}")
    return "\n".join(lines) + "\n"


def inherited(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: ours, and more."""
    return {**os.environ, **more}


def load(environment: Mapping[str, str] | None = None) -> Engines:
    """Raises SettingsError."""
    environment = os.environ if environment is None else environment
    given: dict[str, Any] = {}
    for name in Engines.model_fields:
        value = environment.get(name.upper(), "").strip()
        if value:  # Compose passes ${NAME:-} as empty: not set
            given[name] = value
    try:
        return Engines.model_validate(given)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise SettingsError(f"{str(first['loc'][0]).upper()}: {first['msg']}, got {first['input']!r}") from None


if __name__ == "__main__":
    print(example(), end="")
