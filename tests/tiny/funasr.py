"""FunASR models that the tests make: of kibibytes, with FunASR's own classes, from nothing but this file.

`build` wires a few weights by hand, so that what comes out is steady: recognisers say one character per 240 ms of
whatever they hear, and the VAD tells loud from quiet. `train` teaches a recogniser six sentences as espeak-ng says
them, so that what it hears can be compared. Both take a Size: PUBLISHED makes the published networks, of noise.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.tiny.funasr_lessons import teach
from tests.tiny.funasr_networks import (
    MIDDLE,
    NAMES,
    PUBLISHED,
    SMALLEST_REAL,
    SPECIAL,
    TINY,
    TRAINED,
    Size,
    characters,
    configuration,
)
from tests.tiny.speech import CACHE, HELD_OUT, RATE, SENTENCES, pcm, say, silence

__all__ = [
    "HELD_OUT",
    "MIDDLE",
    "NAMES",
    "PUBLISHED",
    "RATE",
    "SENTENCES",
    "Size",
    "TINY",
    "TRAINABLE",
    "TRAINED",
    "build",
    "built",
    "install",
    "load",
    "pcm",
    "say",
    "silence",
    "train",
    "trained",
]

TRAINABLE = ("sensevoice", "paraformer-streaming")

_TAGS = (
    *("<|zh|>", "<|en|>", "<|yue|>", "<|ja|>", "<|ko|>", "<|nospeech|>"),
    *("<|NEUTRAL|>", "<|HAPPY|>", "<|SAD|>", "<|ANGRY|>", "<|EMO_UNKNOWN|>"),
    *("<|Speech|>", "<|BGM|>", "<|Applause|>", "<|Laughter|>", "<|withitn|>", "<|woitn|>"),
)
_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
_HERE = Path(__file__).parent
_SOURCES = b"".join((_HERE / name).read_bytes() for name in ("funasr.py", "funasr_lessons.py", "funasr_networks.py"))
_SPEECH_TOKENS = ("<|startofspeech|>", "<|endofspeech|>")


def build(folder: Path, name: str, size: Size = TINY, lively: bool = True) -> Path:
    """`folder`, holding the model `name`. With lively=False the recognisers never say anything."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    alphabet = characters(size)
    if name == "sensevoice":
        _sentencepieces(folder, alphabet)
    if name.startswith("fun-asr-nano"):
        _qwen(folder / "Qwen3-0.6B", size)
    if "paraformer" in name or "punc" in name:
        _write(folder / "tokens.json", [*SPECIAL, *alphabet, "<unk>"])
    if name.endswith("-ctc"):
        _write(folder / "ctc.json", [*SPECIAL, *alphabet, "<unk>", "<blank, the last one>"])
    described = configuration(name, size, folder)
    _write(folder / "config.yaml", described)
    loaded = _drawn(folder, described)
    weights = loaded.model.state_dict()
    _wire(name, weights, lively)
    if name.startswith("fun-asr-nano") and size.llm_width < SMALLEST_REAL:
        _chain(weights, loaded.kwargs["tokenizer"], SENTENCES[1] if lively else "")
    _save(folder / "model.pt", weights)
    return folder


def load(folder: Path, **options: Any) -> Any:
    """FunASR's AutoModel of a folder that `build` or `train` made."""
    return _auto_model(json.loads((folder / "config.yaml").read_text())["model"], {"model": str(folder), **options})


def train(folder: Path, name: str, say_how: Callable[[str], None] = lambda line: None) -> Path:
    """`folder`, holding `name` (one of TRAINABLE) after it learnt the SENTENCES. About half a minute on one core."""
    build(folder, name, TRAINED)
    loaded = load(folder)
    teach(loaded, name, say_how)
    _save(folder / "model.pt", loaded.model.state_dict())
    return folder


def built(name: str, size: Size = TINY) -> Path:
    """The same, made once for this version of these files and kept."""
    return _kept(f"{name}-{_digest(repr(size).encode())}", lambda folder: build(folder, name, size))


def trained(name: str) -> Path:
    """The same, made once for this version of these files and kept."""
    return _kept(f"{name}-trained", lambda folder: train(folder, name))


def install(models: Path, model_id: str, folder: Path) -> Path:
    """Puts a model where an operator's models folder has it."""
    place = models / model_id
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(folder.resolve(), target_is_directory=True)
    return place


# Private


def _drawn(folder: Path, described: dict[str, Any]) -> Any:
    """AutoModel with weights as they are drawn: given a whole configuration, it looks for no files."""
    files = {"token_list": "tokens.json", "bpemodel": "bpe.model"}
    found = {key: str(folder / name) for key, name in files.items() if (folder / name).exists()}
    if found:
        described = described | {"tokenizer_conf": described["tokenizer_conf"] | found}
    return _auto_model(described["model"], {"model_conf": {}, **described})


def _auto_model(model_class: str, options: dict[str, Any]) -> Any:
    from engines.asr.backends.funasr_import import auto_model

    given = {"device": "cpu", "disable_update": True, "disable_pbar": True, "ncpu": 1, **options}
    return auto_model([model_class])(**given)


def _digest(of: bytes) -> str:
    return hashlib.sha256(of).hexdigest()[:12]


def _kept(name: str, make: Callable[[Path], Path]) -> Path:
    """Two processes may make the same one at once; the first to finish is kept."""
    place = CACHE / f"funasr-{_digest(_SOURCES)}" / name
    if not place.is_dir():
        fresh = place.with_name(f"{name}.{os.getpid()}")
        make(fresh)
        _move_settings(fresh, place)
        try:
            fresh.rename(place)
        except OSError:
            shutil.rmtree(fresh)
    return place


def _move_settings(fresh: Path, place: Path) -> None:
    settings = fresh / "config.yaml"
    settings.write_text(settings.read_text().replace(str(fresh), str(place)))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False))  # which is YAML too


def _save(path: Path, weights: dict[str, Any]) -> None:
    import torch

    torch.save(weights, path)


def _sentencepieces(folder: Path, alphabet: Sequence[str]) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["".join(alphabet[at : at + 100]) for at in range(0, len(alphabet), 100)] * 5),
        model_writer=model,
        model_type="char",
        vocab_size=len(alphabet) + len(_TAGS) + 4,
        user_defined_symbols=list(_TAGS),
        character_coverage=1.0,
        hard_vocab_limit=False,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    (folder / "bpe.model").write_bytes(model.getvalue())


def _qwen(folder: Path, size: Size) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen3Config

    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["system user assistant You are a helpful assistant. 语音转写成中文：", SENTENCES[1]] * 4,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[*_QWEN_TOKENS, *_SPEECH_TOKENS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    published = size.llm_width >= SMALLEST_REAL
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write(folder / "tokenizer_config.json", named)
    Qwen3Config(
        vocab_size=151_936 if published else tokenizer.get_vocab_size(),
        hidden_size=size.llm_width,
        intermediate_size=size.llm_width * 3,
        num_hidden_layers=size.llm_blocks,
        num_attention_heads=max(2, size.llm_width // 64),
        num_key_value_heads=max(1, size.llm_width // 128),
        head_dim=min(128, size.llm_width // 2),
        max_position_embeddings=4096,
        tie_word_embeddings=published,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        bos_token_id=None,
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
        architectures=["Qwen3ForCausalLM"],
    ).save_pretrained(folder)


def _wire(name: str, weights: dict[str, Any], lively: bool) -> None:
    import torch

    if "paraformer" in name:  # every frame of 60 ms weighs a quarter: one character for four of them
        weights["predictor.cif_output.weight"].zero_()
        weights["predictor.cif_output.bias"].fill_(-1.0986 if lively else -20.0)
        bias = weights["decoder.output_layer.bias"]
        bias[[0, 1, 2, -1]] = -50.0  # none of the special ones
    if name.startswith("ct-punc"):  # no mark but the last one, which FunASR itself puts there
        weights["decoder.weight"].zero_()
        weights["decoder.bias"].copy_(torch.tensor([-50.0, 5.0, 0.0, 0.0, -50.0, -50.0]))
    if name == "sensevoice":
        if lively:
            weights["ctc.ctc_lo.bias"][:3] = -50.0
        else:
            weights["ctc.ctc_lo.weight"].zero_()
            weights["ctc.ctc_lo.bias"][0] = 50.0
    if name == "fsmn-vad":  # P(speech) grows with the mean of the log mel energies: 4 against 4 * relu(mean - 10)
        for tensor in weights.values():
            tensor.zero_()
        weights["encoder.in_linear1.linear.weight"][0, :] = 1 / 400
        weights["encoder.in_linear2.linear.weight"][0, 0] = 1.0
        weights["encoder.in_linear2.linear.bias"][0] = -10.0
        for key, tensor in weights.items():
            if key.startswith("encoder.fsmn.") and key.endswith("linear.weight"):
                tensor[0, 0] = 1.0
        weights["encoder.out_linear1.linear.weight"][0, 0] = 1.0
        weights["encoder.out_linear2.linear.weight"][1, 0] = 4.0
        weights["encoder.out_linear2.linear.bias"][0] = 4.0


def _chain(weights: dict[str, Any], tokenizer: Any, text: str) -> None:
    """Makes the language model say `text` and end, whatever it was asked: each token leads to one other."""
    tokens = [tokenizer.encode("</think>\n\n")[-1], *tokenizer.encode(text), tokenizer.eos_token_id]
    for key, tensor in weights.items():
        if key.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight", "lm_head.weight")):
            tensor.zero_()
    embedded, scores = weights["llm.model.embed_tokens.weight"], weights["llm.lm_head.weight"]
    for at, (token, following) in enumerate(zip(tokens, tokens[1:], strict=False)):
        embedded[token] = 0.0
        embedded[token, at] = scores[following, at] = 1.0
