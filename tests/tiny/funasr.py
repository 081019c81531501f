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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16_000
SENTENCES = ("今天天气很好", "你好世界", "请打开灯", "我们去公园吧", "明天上午九点开会", "谢谢你的帮助")
"""What a trained model knows."""
HELD_OUT = ((165, 50), (175, 60))
"""Words per minute and pitch of the ways to say them that no model was trained on."""
NAMES = (
    "paraformer-streaming",
    "paraformer",
    "seaco-paraformer",
    "fsmn-vad",
    "ct-punc",
    "ct-punc-streaming",
    "sensevoice",
    "fun-asr-nano",
    "fun-asr-nano-ctc",
)
TRAINABLE = ("sensevoice", "paraformer-streaming")

_CLASSES = {
    "paraformer-streaming": "ParaformerStreaming",
    "paraformer": "Paraformer",
    "seaco-paraformer": "SeacoParaformer",
    "fsmn-vad": "FsmnVADStreaming",
    "ct-punc": "CTTransformer",
    "ct-punc-streaming": "CTTransformerStreaming",
    "sensevoice": "SenseVoiceSmall",
    "fun-asr-nano": "FunASRNano",
    "fun-asr-nano-ctc": "FunASRNano",
}
_TRAINED_AT = tuple((rate, pitch) for rate in (140, 155, 165, 175, 190) for pitch in (40, 50, 60))
_LOOK_AHEAD = 5
"""Frames of 60 ms, of FunASR's chunk_size [0, 10, 5]."""
_SPECIAL = ("<blank>", "<s>", "</s>")
_TAGS = (
    *("<|zh|>", "<|en|>", "<|yue|>", "<|ja|>", "<|ko|>", "<|nospeech|>"),
    *("<|NEUTRAL|>", "<|HAPPY|>", "<|SAD|>", "<|ANGRY|>", "<|EMO_UNKNOWN|>"),
    *("<|Speech|>", "<|BGM|>", "<|Applause|>", "<|Laughter|>", "<|withitn|>", "<|woitn|>"),
)
_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
_SMALLEST_REAL = 1024
"""Width of Qwen3-0.6B."""
_SPEECH_TOKENS = ("<|startofspeech|>", "<|endofspeech|>")


@dataclass(frozen=True, slots=True)
class Size:
    """Of a network; the punctuation models, the VAD and Nano's language model follow in proportion."""

    width: int = 16
    heads: int = 2
    units: int = 32
    blocks: int = 2
    more_blocks: int = 1
    """The second stack of SenseVoice's encoder."""
    decoder_blocks: int = 2
    characters: int = 0
    """At least; made up where the sentences have fewer."""
    punctuation_width: int = 16
    punctuation_blocks: int = 2
    vad_width: int = 4
    vad_layers: int = 1
    llm_width: int = 16
    llm_blocks: int = 2


TINY = Size()
TRAINED = Size(width=48, heads=4, units=96, blocks=3)
MIDDLE = Size(width=256, heads=4, units=1024, blocks=12, more_blocks=4, decoder_blocks=6, characters=4000)
PUBLISHED = Size(
    width=512,
    heads=4,
    units=2048,
    blocks=50,
    more_blocks=20,
    decoder_blocks=16,
    characters=8400,
    punctuation_width=256,
    punctuation_blocks=4,
    vad_width=140,
    vad_layers=4,
    llm_width=1024,
    llm_blocks=28,
)


def build(folder: Path, name: str, size: Size = TINY, lively: bool = True) -> Path:
    """`folder`, holding the model `name`. With lively=False the recognisers never say anything."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    characters = _characters(size)
    if name == "sensevoice":
        _sentencepieces(folder, characters)
    if name.startswith("fun-asr-nano"):
        _qwen(folder / "Qwen3-0.6B", size)
    if "paraformer" in name or "punc" in name:
        _write(folder / "tokens.json", [*_SPECIAL, *characters, "<unk>"])
    if name.endswith("-ctc"):
        _write(folder / "ctc.json", [*_SPECIAL, *characters, "<unk>", "<blank, the last one>"])
    configuration = _configuration(name, size, folder)
    _write(folder / "config.yaml", configuration)
    loaded = _drawn(folder, configuration)
    weights = loaded.model.state_dict()
    _wire(name, weights, lively)
    if name.startswith("fun-asr-nano") and size.llm_width < _SMALLEST_REAL:
        _chain(weights, loaded.kwargs["tokenizer"], SENTENCES[1] if lively else "")
    _save(folder / "model.pt", weights)
    return folder


def load(folder: Path, **options: Any) -> Any:
    """FunASR's AutoModel of a folder that `build` or `train` made."""
    return _auto_model(json.loads((folder / "config.yaml").read_text())["model"], {"model": str(folder), **options})


def train(folder: Path, name: str, steps: int = 500, say_how: Callable[[str], None] = lambda line: None) -> Path:
    """`folder`, holding `name` (one of TRAINABLE) after it learnt the SENTENCES. About half a minute on one core."""
    import torch

    build(folder, name, TRAINED)
    loaded = load(folder)
    lesson = {"sensevoice": _SenseVoiceLesson, "paraformer-streaming": _ParaformerLesson}[name](loaded)
    spoken = [
        (say(text, rate, pitch), text)
        for text in SENTENCES
        for rate, pitch in _TRAINED_AT
        if (rate, pitch) not in HELD_OUT
    ]
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(loaded.model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    loaded.model.train()
    started = time.monotonic()
    for step in range(steps):
        chosen = [spoken[at] for at in random.choice(len(spoken), 12, replace=False)]
        loss = lesson.loss([_disturbed(clip, random) for clip, _ in chosen], [text for _, text in chosen], random)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            say_how(f"{name}: step {step + 1}, loss {loss.item():.3f}, {time.monotonic() - started:.0f} s")
    _save(folder / "model.pt", loaded.model.state_dict())
    return folder


def built(name: str, size: Size = TINY) -> Path:
    """The same, made once for this version of this file and kept."""
    return _kept(f"{name}-{_digest(repr(size).encode())}", lambda folder: build(folder, name, size))


def trained(name: str) -> Path:
    """The same, made once for this version of this file and kept."""
    return _kept(f"{name}-trained", lambda folder: train(folder, name))


def say(text: str, rate: int = HELD_OUT[0][0], pitch: int = HELD_OUT[0][1], voice: str = "cmn") -> NDArray[np.float32]:
    """Speech at 16 kHz, within -1 and 1, as espeak-ng speaks it: `rate` in words per minute, `pitch` 0 to 100."""
    espeak = _espeak()
    samples = espeak.say(text, voice, rate, pitch, lambda: False).astype("f4") / 32768
    return np.asarray(soxr.resample(samples, espeak.sample_rate, RATE), np.float32)


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(round(seconds * RATE), np.float32)


def pcm(*clips: NDArray[np.float32]) -> bytes:
    """The clips one after the other, as s16le."""
    return (np.clip(np.concatenate(clips), -1, 1) * 32767).astype("<i2").tobytes()


def install(models: Path, model_id: str, folder: Path) -> Path:
    """Puts a model where an operator's models folder has it."""
    place = models / model_id
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(folder.resolve(), target_is_directory=True)
    return place


# Private


def _drawn(folder: Path, configuration: dict[str, Any]) -> Any:
    """AutoModel with weights as they are drawn: given a whole configuration, it looks for no files."""
    files = {"token_list": "tokens.json", "bpemodel": "bpe.model"}
    found = {key: str(folder / name) for key, name in files.items() if (folder / name).exists()}
    if found:
        configuration = configuration | {"tokenizer_conf": configuration["tokenizer_conf"] | found}
    return _auto_model(configuration["model"], {"model_conf": {}, **configuration})


def _auto_model(model_class: str, options: dict[str, Any]) -> Any:
    from engines.asr.backends.funasr_import import auto_model

    given = {"device": "cpu", "disable_update": True, "disable_pbar": True, "ncpu": 1, **options}
    return auto_model([model_class])(**given)


@cache
def _espeak() -> Any:
    import espeakng_loader

    from engines.tts.backends.espeak import Espeak

    return Espeak(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))


def _digest(of: bytes) -> str:
    return hashlib.sha256(of).hexdigest()[:12]


def _kept(name: str, make: Callable[[Path], Path]) -> Path:
    """Two processes may make the same one at once; the first to finish is kept."""
    place = (
        Path(__file__).resolve().parents[2]
        / ".cache"
        / "tiny"
        / f"funasr-{_digest(Path(__file__).read_bytes())}"
        / name
    )
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


def _characters(size: Size) -> list[str]:
    known = sorted(set("".join(SENTENCES)))
    others = (chr(code) for code in range(0x4E00, 0x9FA6) if chr(code) not in known)
    return known + [next(others) for _ in range(max(0, size.characters - len(known)))]


def _sentencepieces(folder: Path, characters: Sequence[str]) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["".join(characters[at : at + 100]) for at in range(0, len(characters), 100)] * 5),
        model_writer=model,
        model_type="char",
        vocab_size=len(characters) + len(_TAGS) + 4,
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
    published = size.llm_width >= _SMALLEST_REAL
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


def _configuration(name: str, size: Size, folder: Path) -> dict[str, Any]:
    """What FunASR's config.yaml says of the published model, in the given size."""
    encoder = _layers(size.width, size.heads, size.units, size.blocks)
    front = {"frontend": "WavFrontend", "frontend_conf": _front(7, 6)}
    spoken = {"tokenizer": "CharTokenizer", "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True}}
    own: dict[str, Any]
    if name == "paraformer-streaming":
        # stretches: chunks of training, which inference does not read
        stretches = {"chunk_size": [12, 15], "stride": [8, 10], "pad_left": [0, 0]}
        looks = {"encoder_att_look_back_factor": [4, 4], "decoder_att_look_back_factor": [1, 1]}
        own = {
            "encoder": "SANMEncoderChunkOpt",
            "encoder_conf": encoder | {"input_layer": "pe_online"} | stretches | looks,
        }
        own = _paraformer(size, 5) | own | front | {"frontend": "WavFrontendOnline"} | spoken
    elif name == "paraformer":
        own = _paraformer(size, 0) | {"encoder": "SANMEncoder", "encoder_conf": encoder} | front | spoken
    elif name == "seaco-paraformer":
        own = _paraformer(size, 0) | {"encoder": "SANMEncoder", "encoder_conf": encoder} | front | spoken
        own = own | _seaco(size, own)
    elif name == "fsmn-vad":
        own = _vad(size)
    elif name.startswith("ct-punc"):
        own = _punctuation(name, size)
    elif name == "sensevoice":
        own = {"model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1}}
        own |= {"encoder": "SenseVoiceEncoderSmall", "encoder_conf": encoder | {"tp_blocks": size.more_blocks}} | front
        own |= {"tokenizer": "SentencepiecesTokenizer", "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>"}}
    else:
        own = _nano(size, encoder, folder, with_ctc=name.endswith("-ctc")) | front
    return {"model": _CLASSES[name], **own}


def _front(stacked: int, step: int) -> dict[str, Any]:
    return {"fs": RATE, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10, "dither": 0.0} | {
        "lfr_m": stacked,
        "lfr_n": step,
    }


def _layers(width: int, heads: int, units: int, blocks: int) -> dict[str, Any]:
    return {
        "output_size": width,
        "attention_heads": heads,
        "linear_units": units,
        "num_blocks": blocks,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    }


def _decoder(size: Size, shift: int) -> dict[str, Any]:
    return {
        "attention_heads": size.heads,
        "linear_units": size.units,
        "num_blocks": size.decoder_blocks,
        "att_layer_num": size.decoder_blocks,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "self_attention_dropout_rate": 0.0,
        "src_attention_dropout_rate": 0.0,
        "kernel_size": 11,
        "sanm_shfit": shift,
    }


def _paraformer(size: Size, shift: int) -> dict[str, Any]:
    return {
        "model_conf": {
            "ctc_weight": 0.0,
            "lsm_weight": 0.0,
            "length_normalized_loss": True,
            "predictor_weight": 2.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.0,
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": _decoder(size, shift),
        "predictor": "CifPredictorV2",
        "predictor_conf": {"idim": size.width, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    }


def _seaco(size: Size, plain: dict[str, Any]) -> dict[str, Any]:
    biased = {key: value for key, value in _decoder(size, 0).items() if key != "att_layer_num"}
    return {
        "model_conf": plain["model_conf"]
        | {
            "inner_dim": size.width,
            "bias_encoder_type": "lstm",
            "bias_encoder_bid": False,
            "seaco_lsm_weight": 0.1,
            "seaco_length_normal": True,
            "train_decoder": False,
            "NO_BIAS": len(_SPECIAL) + len(_characters(size)),
        },
        "seaco_decoder": "ParaformerSANMDecoder",
        "seaco_decoder_conf": biased | {"kernel_size": 21, "use_output_layer": False, "wo_input_layer": True},
        "predictor": "CifPredictorV3",
        "predictor_conf": plain["predictor_conf"]
        | {
            "smooth_factor2": 0.25,
            "noise_threshold2": 0.01,
            "upsample_times": 3,
            "use_cif1_cnn": False,
            "upsample_type": "cnn_blstm",
        },
    }


def _vad(size: Size) -> dict[str, Any]:
    return {
        "model_conf": {
            "sample_rate": RATE,
            "detect_mode": 1,
            "snr_mode": 0,
            "max_end_silence_time": 800,
            "max_start_silence_time": 3000,
            "do_start_point_detection": True,
            "do_end_point_detection": True,
            "window_size_ms": 200,
            "sil_to_speech_time_thres": 150,
            "speech_to_sil_time_thres": 150,
            "speech_2_noise_ratio": 1.0,
            "do_extend": 1,
            "lookback_time_start_point": 200,
            "lookahead_time_end_point": 100,
            "max_single_segment_time": 60_000,
            "snr_thres": -100.0,
            "noise_frame_num_used_for_snr": 100,
            "decibel_thres": -100.0,
            "speech_noise_thres": 0.6,
            "fe_prior_thres": 1e-4,
            "silence_pdf_num": 1,
            "sil_pdf_ids": [0],
            "speech_noise_thresh_low": -0.1,
            "speech_noise_thresh_high": 0.3,
            "output_frame_probs": False,
            "frame_in_ms": 10,
            "frame_length_ms": 25,
        },
        "encoder": "FSMN",
        "encoder_conf": {
            "input_dim": 400,
            "input_affine_dim": size.vad_width,
            "fsmn_layers": size.vad_layers,
            "linear_dim": size.vad_width,
            "proj_dim": size.vad_width,
            "lorder": 20,
            "rorder": 0,
            "lstride": 1,
            "rstride": 0,
            "output_affine_dim": size.vad_width,
            "output_dim": 2,
        },
        "frontend": "WavFrontendOnline",
        "frontend_conf": _front(5, 1),
    }


def _punctuation(name: str, size: Size) -> dict[str, Any]:
    width = size.punctuation_width
    encoder = _layers(width, size.heads, 4 * width, size.punctuation_blocks) | {"input_size": width, "padding_idx": 0}
    streaming = name.endswith("streaming")
    return {
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": width,
            "att_unit": width,
            "dropout_rate": 0.0,
            "punc_list": ["<unk>", "_", "，", "。", "？", "、"],
            "punc_weight": [1.0] * 6,
            "sentence_end_id": 3,
        },
        "encoder": "SANMVadEncoder" if streaming else "SANMEncoder",
        "encoder_conf": encoder | {"sanm_shfit": 5 if streaming else 0},
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }


def _nano(size: Size, encoder: dict[str, Any], folder: Path, with_ctc: bool) -> dict[str, Any]:
    adaptor = {"downsample_rate": 1, "ffn_dim": size.units, "encoder_dim": size.width, "attention_heads": size.heads}
    qwen = str(folder / "Qwen3-0.6B")
    made: dict[str, Any] = {
        "model_conf": {"length_normalized_loss": True},
        "audio_encoder": "SenseVoiceEncoderSmall",
        "audio_encoder_conf": encoder | {"tp_blocks": size.more_blocks, "freeze": True, "freeze_layer_num": -1},
        "llm": "Qwen3-0.6b",
        "llm_conf": {"hub": "hf", "freeze": True, "llm_dtype": "fp32", "init_param_path": qwen, "use_lora": False},
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": adaptor | {"llm_dim": size.llm_width, "n_layer": 1, "use_low_frame_rate": True},
        "detach_ctc_decoder": True,
        "dataset": "FunASR",
        "dataset_conf": {"sys_prompt": True, "do_think": False},
        "tokenizer": "HuggingfaceTokenizer",
        "tokenizer_conf": {"init_param_path": qwen},
    }
    if with_ctc:
        tokens = len(_SPECIAL) + len(_characters(size)) + 2
        made |= {
            "ctc_decoder": "Transformer",
            "ctc_decoder_conf": adaptor | {"llm_dim": size.width, "n_layer": 1},
            "ctc_tokenizer": "CharTokenizer",
            "ctc_tokenizer_conf": {"token_list": str(folder / "ctc.json"), "unk_symbol": "<unk>"},
            "ctc_vocab_size": tokens,
        }
    return made


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


def _disturbed(clip: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Silence around it, another gain, and mostly a little noise: without digital silence it would be a surprise."""
    around = [silence(random.uniform(0, 0.7)), clip, silence(random.uniform(0, 0.7))]
    samples = np.concatenate(around) * random.uniform(0.4, 1.2)
    noise = random.standard_normal(len(samples)) * 10 ** random.uniform(-5, -2.5)
    return np.asarray(samples + (random.random() > 0.4) * noise, np.float32)


class _Lesson:
    def __init__(self, loaded: Any) -> None:
        from funasr.frontends.wav_frontend import WavFrontend

        self.model, self.tokenizer, self.tokens = loaded.model, loaded.kwargs["tokenizer"], loaded.kwargs["token_list"]
        self._front = WavFrontend(**_front(7, 6))

    def features(self, clips: Sequence[NDArray[np.float32]]) -> tuple[Any, Any]:
        import torch

        found = [self._front(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))[0][0] for clip in clips]
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True), torch.tensor([len(each) for each in found])


class _SenseVoiceLesson(_Lesson):
    """Tags come back as they are asked for: the language, and whether numbers are to be written as figures."""

    def loss(self, clips: Sequence[NDArray[np.float32]], texts: Sequence[str], random: np.random.Generator) -> Any:
        import torch
        from torch.nn import functional

        model, count = self.model, len(clips)
        speech, lengths = self.features(clips)
        asked, heard = (("auto", "zh"), ("zh", "zh"), ("en", "en"), ("ja", "ja"))[random.integers(4)]
        itn = ("withitn", "woitn")[random.integers(2)]
        queries = torch.tensor([[model.lid_dict[asked], 1, 2, model.textnorm_dict[itn]]])
        speech = torch.cat([model.embed(queries).repeat(count, 1, 1), speech], 1)
        encoded, lengths = model.encoder(speech, lengths + 4)
        scores = model.ctc.log_softmax(encoded)
        tags = torch.tensor([self._id(tag) for tag in (f"<|{heard}|>", "<|NEUTRAL|>", "<|Speech|>", f"<|{itn}|>")])
        words = [torch.tensor(self.tokenizer.encode(text)) for text in texts]
        counts = torch.tensor([len(each) for each in words])
        spoken = functional.ctc_loss(
            scores[:, 4:].transpose(0, 1), torch.cat(words), lengths - 4, counts, 0, zero_infinity=True
        )
        return spoken + functional.nll_loss(scores[:, :4].flatten(0, 1), tags.repeat(count))

    def _id(self, tag: str) -> int:
        return int(self.tokenizer.encode(tag)[-1])


class _ParaformerLesson(_Lesson):
    def loss(self, clips: Sequence[NDArray[np.float32]], texts: Sequence[str], random: np.random.Generator) -> Any:
        import torch

        speech, lengths = self.features(clips)
        # a live stream begins with the look-ahead of a chunk that never was
        speech, lengths = torch.nn.functional.pad(speech, (0, 0, _LOOK_AHEAD, 0)), lengths + _LOOK_AHEAD
        words = [torch.tensor([self.tokens.index(character) for character in text]) for text in texts]
        padded = torch.nn.utils.rnn.pad_sequence(words, batch_first=True, padding_value=-1)
        return self.model(speech, lengths, padded, torch.tensor([len(each) for each in words]))[0]
