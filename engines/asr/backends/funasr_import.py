"""FunASR's AutoModel, without the rest of FunASR.

The package's own __init__ imports all of its 432 modules: every model, and with them scikit-learn, scipy and hydra. A
package object that never runs that __init__ stands in for it; then only what the asked model classes are made of is
imported. An unknown class falls back to the whole package.
"""

import importlib
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

_ALWAYS = ("auto.auto_model", "frontends.wav_frontend", "tokenizer.char_tokenizer")
_PARAFORMER = (
    "models.specaug.specaug",
    "models.ctc.ctc",
    "models.sanm.encoder",
    "models.paraformer.model",
    "models.paraformer.decoder",
    "models.paraformer.cif_predictor",
)
_BICIF = (*_PARAFORMER, "models.bicif_paraformer.model", "models.bicif_paraformer.cif_predictor")
_SENSEVOICE = (
    "models.specaug.specaug",
    "models.ctc.ctc",
    "tokenizer.sentencepiece_tokenizer",
    "models.sense_voice.model",
)
_NANO = ("tokenizer.hf_tokenizer", "tokenizer.whisper_tokenizer", "models.llm_asr.adaptor", "models.fun_asr_nano.model")
_PARTS: dict[str, tuple[str, ...]] = {
    "Paraformer": _PARAFORMER,
    "ParaformerStreaming": (*_PARAFORMER, "models.scama.encoder", "models.paraformer_streaming.model"),
    "BiCifParaformer": _BICIF,
    "SeacoParaformer": (*_BICIF, "models.seaco_paraformer.model"),
    "SenseVoiceSmall": _SENSEVOICE,
    "FunASRNano": (*_SENSEVOICE, *_NANO),
    "FsmnVADStreaming": ("models.fsmn_vad_streaming.model", "models.fsmn_vad_streaming.encoder"),
    "CTTransformer": ("models.sanm.encoder", "models.ct_transformer.model"),
    "CTTransformerStreaming": (
        "models.sanm.encoder",
        "models.ct_transformer_streaming.model",
        "models.ct_transformer_streaming.encoder",
    ),
}
"""The modules that register a model class, and the parts that its published configurations name."""
_SPEAKERS = "funasr.models.campplus.utils"
"""AutoModel tries to import it, for diarization; it takes scikit-learn with it."""
_lock = Lock()


def auto_model(classes: Iterable[str]) -> Any:
    """The class AutoModel, able to build models of the named classes. Raises ImportError."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions of things, which nobody here can heed
        _mute()
        wanted = set(classes)
        if not wanted <= _PARTS.keys():
            if getattr(sys.modules.get("funasr"), "STANDS_IN", False):
                del sys.modules["funasr"]
            return importlib.import_module("funasr").AutoModel
        if "funasr" not in sys.modules:
            _stand_in()
        for module in dict.fromkeys((*_ALWAYS, *(part for name in sorted(wanted) for part in _PARTS[name]))):
            importlib.import_module(f"funasr.{module}")
        package, loaded = sys.modules["funasr"], sys.modules["funasr.auto.auto_model"].AutoModel
        package.AutoModel = loaded  # type: ignore[attr-defined]  # models import it from there
        return loaded


# Private


def _stand_in() -> None:
    spec = importlib.util.find_spec("funasr")
    if spec is None or spec.origin is None:
        raise ImportError("funasr is not installed")
    package: Any = importlib.util.module_from_spec(spec)
    package.STANDS_IN = True
    package.__version__ = (Path(spec.origin).parent / "version.txt").read_text().strip()
    package.get_import_errors = dict
    sys.modules["funasr"] = package
    if importlib.util.find_spec("six") is None:  # not among FunASR's requirements, yet imported, for its range alone
        six: Any = types.ModuleType("six")
        sys.modules["six"] = six
        six.moves = types.SimpleNamespace(range=range)
    known = _SPEAKERS in sys.modules
    try:
        if not known:
            sys.modules[_SPEAKERS] = None  # type: ignore[assignment]  # not to be found, for now
        importlib.import_module("funasr.auto.auto_model")
    finally:
        if not known:
            del sys.modules[_SPEAKERS]


class _Upstream(logging.Filter):
    """Keeps what FunASR says through the root logger out of the log: hotwords are among it, at INFO."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "/funasr/" not in record.pathname


_UPSTREAM = _Upstream()


def _mute() -> None:
    logging.getLogger().addFilter(_UPSTREAM)  # a logger's filter sees only what is said to that very logger
