"""What the config.yaml of each FunASR model says, in the size that is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny.speech import RATE, SENTENCES

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
SPECIAL = ("<blank>", "<s>", "</s>")
SMALLEST_REAL = 1024
"""Width of Qwen3-0.6B."""


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


def configuration(name: str, size: Size, folder: Path) -> dict[str, Any]:
    """Of the published model, but for its size."""
    encoder = _layers(size.width, size.heads, size.units, size.blocks)
    hears = {"frontend": "WavFrontend", "frontend_conf": front(7, 6)}
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
        own = _paraformer(size, 5) | own | hears | {"frontend": "WavFrontendOnline"} | spoken
    elif name == "paraformer":
        own = _paraformer(size, 0) | {"encoder": "SANMEncoder", "encoder_conf": encoder} | hears | spoken
    elif name == "seaco-paraformer":
        own = _paraformer(size, 0) | {"encoder": "SANMEncoder", "encoder_conf": encoder} | hears | spoken
        own = own | _seaco(size, own)
    elif name == "fsmn-vad":
        own = _vad(size)
    elif name.startswith("ct-punc"):
        own = _punctuation(name, size)
    elif name == "sensevoice":
        own = {"model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1}}
        own |= {"encoder": "SenseVoiceEncoderSmall", "encoder_conf": encoder | {"tp_blocks": size.more_blocks}} | hears
        own |= {"tokenizer": "SentencepiecesTokenizer", "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>"}}
    else:
        own = _nano(size, encoder, folder, with_ctc=name.endswith("-ctc")) | hears
    return {"model": _CLASSES[name], **own}


def characters(size: Size) -> list[str]:
    known = sorted(set("".join(SENTENCES)))
    others = (chr(code) for code in range(0x4E00, 0x9FA6) if chr(code) not in known)
    return known + [next(others) for _ in range(max(0, size.characters - len(known)))]


def front(stacked: int, step: int) -> dict[str, Any]:
    return {"fs": RATE, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10, "dither": 0.0} | {
        "lfr_m": stacked,
        "lfr_n": step,
    }


# Private


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
            "NO_BIAS": len(SPECIAL) + len(characters(size)),
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
        "frontend_conf": front(5, 1),
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
        tokens = len(SPECIAL) + len(characters(size)) + 2
        made |= {
            "ctc_decoder": "Transformer",
            "ctc_decoder_conf": adaptor | {"llm_dim": size.width, "n_layer": 1},
            "ctc_tokenizer": "CharTokenizer",
            "ctc_tokenizer_conf": {"token_list": str(folder / "ctc.json"), "unk_symbol": "<unk>"},
            "ctc_vocab_size": tokens,
        }
    return made
